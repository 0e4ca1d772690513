/* Schedules: pure functions of the number of updates made so far. */
#ifndef STEP_SCHEDULE_H
#define STEP_SCHEDULE_H

#include "step/config.h"

/* Returns the factor of the learning rate: linear warm-up over warmup_steps, then cosine | linear to
 * min_learning_rate_ratio at `steps`, or constant, or the inverse square root of the update's number (Vaswani et al.
 * 2017) down to min_learning_rate_ratio. */
double schedule_learning_rate(const struct optimizer_config *c, size_t update, size_t steps);

/* Returns the weight of the KL. Beta stays at its start for `beta_hold`, then rises over `beta_warmup`; both are shares
 * of the steps (of a cycle, when cyclical). Linear: Bowman et al. 2016; cyclical: Fu et al. 2019, each cycle rises and
 * then stays; logistic: Bowman et al. 2016, slope 12 over the warm-up, or slope `beta_slope` per update around
 * `beta_center`. */
double schedule_beta(const struct objective_config *c, size_t update, size_t steps);

#endif
