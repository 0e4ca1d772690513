/* What a run says of itself. Private to the trainer. */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include "train/trainer_private.h"

/* At the end, of several ranks: the cost of their sums. */
void report_sums(struct trainer *t);
/* The console line and the metrics row of the step just done. */
void report_step(struct trainer *t);

/* The row of a rollback. */
void report_rollback(struct trainer *t, const char *raised);

/* Evaluates on data.valid, tells it, and binds the training recording again. */
elbo_status report_validation(struct trainer *t, elbo_error *error);

#endif
