/* metrics.jsonl: one JSON object per line. Values that depend on the clock or the machine are in the object `wall`; all
 * other values are reproducible. A run that resumes drops the rows after the step it resumes from. */
#ifndef TRAIN_METRICS_H
#define TRAIN_METRICS_H

#include "elbo/status.h"

#include <jansson.h>
#include <stdint.h>

struct metrics;

/* Opens RUN/metrics.jsonl to append, after dropping the rows of steps after `last_step`. */
elbo_status metrics_open(struct metrics **out, const char *run_dir, uint64_t last_step, elbo_error *error);
/* Appends a row (borrowed) as one line. A failed write leaves no part of the row if the system allows. */
elbo_status metrics_write(struct metrics *m, const json_t *row, elbo_error *error);
/* Makes the rows so far durable. */
elbo_status metrics_sync(struct metrics *m, elbo_error *error);
void metrics_close(struct metrics *m);

#endif
