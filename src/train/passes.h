/* Chooses the pass of each step (step/step.h) while the encoder is trained ahead of the decoder in the first steps of a
 * run (He et al. 2019). Encoder passes repeat until their mean loss per word over a window is no lower than over the
 * window before, or until aggressive_most passes were made; then one decoder pass follows. The phase ends after
 * objective.aggressive_steps, or when the mean information over a window of steps is no higher than over the window
 * before (objective.aggressive_until=information). He et al. compare the mutual information of a validation set with
 * that of the epoch before. Here the information is that of the step, which every rank has with the step's sums.
 *
 * A step is launched before the figures of the step before it are known, so the rule reads figures with a fixed delay:
 * the pass of step t follows from the figures of steps up to t - 2, on every device and number of ranks. The rule's
 * state is part of a checkpoint (struct training_passes), so a run may stop after any pass. */
#ifndef TRAIN_PASSES_H
#define TRAIN_PASSES_H

#include "checkpoint/training_state.h"
#include "step/step.h"

/* Returns the pass of the step after `draws` steps. Must be called once for each step. */
enum step_pass passes_next(struct training_passes *p, const struct objective_config *c, uint64_t draws);

/* Notes the pass, the loss per word and the information of step `draw` (from 0); NaN if its update was left out. */
void passes_note(struct training_passes *p, uint64_t draw, enum step_pass pass, double loss, double information);

/* Returns the nats that z (`width`) tells of a step's sentences, if their posteriors together were a Gaussian without
 * covariances and their variances log-normal: sum_j (ln(Var mu_j + E sigma_j^2) - E ln sigma_j^2) / 2 with E sigma_j^2
 * = exp(E ln sigma_j^2 + Var(ln sigma_j^2) / 2). No distribution of these variances has more entropy than that
 * Gaussian, so the mutual information is at most about this value. The KL is at least about this value, because v - 1
 * >= ln v. NaN: fewer than two sentences, or no latent. */
double passes_information(const struct step_figures *f, size_t width);

#endif
