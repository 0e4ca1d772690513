/* Which pass of a step comes next (step/step.h), where the encoder is trained ahead of the decoder in the first
 * objective.aggressive_steps steps (He et al. 2019): passes of the encoder until the mean loss a word of a window of
 * them is no lower than that of the window before, or there were aggressive_most; then one of the decoder.
 *
 * A step is launched before the one before it is known, so the rule reads losses with a fixed delay: what step t is
 * follows from the losses of steps up to t - 2, on every device and number of ranks. Its memory is part of a checkpoint
 * (struct training_passes), so a run may stop after any pass. */
#ifndef TRAIN_PASSES_H
#define TRAIN_PASSES_H

#include "checkpoint/training_state.h"
#include "step/step.h"

/* The pass of the step after `draws` steps; to be asked once for each. */
enum step_pass passes_next(struct training_passes *p, const struct objective_config *c, uint64_t draws);

/* The loss a word of step `draw` (from 0), which was this pass; NaN where its update was left out. */
void passes_note(struct training_passes *p, uint64_t draw, enum step_pass pass, double loss);

#endif
