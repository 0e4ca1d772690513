/* The reports of a run. Private to the trainer. */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include "train/trainer_private.h"

/* Reports the cost of the sums over several ranks at the end of a run. */
void report_sums(struct trainer *t);
/* Writes the console line and the metrics row of the step just done. */
void report_step(struct trainer *t);

/* Writes the metrics row of a rollback. */
void report_rollback(struct trainer *t, const char *raised);

/* Evaluates on data.valid, reports the result, and binds the training recording again. */
elbo_status report_validation(struct trainer *t, elbo_error *error);

#endif
