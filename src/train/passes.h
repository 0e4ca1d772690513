/* Which pass of a step comes next (step/step.h), where the encoder is trained ahead of the decoder in the first
 * steps of a run (He et al. 2019): passes of the encoder until the mean loss a word of a window of them is no lower
 * than that of the window before, or there were aggressive_most; then one of the decoder. The phase ends after
 * objective.aggressive_steps, or when the mean information of a window of steps is no higher than that of the window
 * before (objective.aggressive_until=information). He et al. hold the mutual information of a validation set against
 * that of the epoch before; here it is the step's own, which every rank has with the step's sums.
 *
 * A step is launched before the one before it is known, so the rule reads figures with a fixed delay: what step t is
 * follows from the figures of steps up to t - 2, on every device and number of ranks. Its memory is part of a
 * checkpoint (struct training_passes), so a run may stop after any pass. */
#ifndef TRAIN_PASSES_H
#define TRAIN_PASSES_H

#include "checkpoint/training_state.h"
#include "step/step.h"

/* The pass of the step after `draws` steps; to be asked once for each. */
enum step_pass passes_next(struct training_passes *p, const struct objective_config *c, uint64_t draws);

/* The loss a word of step `draw` (from 0), which was this pass, and its information; NaN where its update was left
 * out. */
void passes_note(struct training_passes *p, uint64_t draw, enum step_pass pass, double loss, double information);

/* Nats that z (`width`) tells of a step's sentences, if their posteriors together were a Gaussian without covariances
 * and their variances log-normal: sum_j (ln(Var mu_j + E sigma_j^2) - E ln sigma_j^2) / 2 with E sigma_j^2 =
 * exp(E ln sigma_j^2 + Var(ln sigma_j^2) / 2). No distribution of these variances has more entropy than that Gaussian,
 * so the mutual information is about that much at most; and because v - 1 >= ln v, the KL is about that much at least.
 * NaN: there are fewer than two sentences, or no latent. */
double passes_information(const struct step_figures *f, size_t width);

#endif
