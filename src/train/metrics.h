/* metrics.jsonl: one JSON object a line. What depends on the clock or the machine sits in the object `wall`; all else
 * is reproducible. A run that resumes drops the rows after the step it resumes from. */
#ifndef TRAIN_METRICS_H
#define TRAIN_METRICS_H

#include "elbo/status.h"

#include <jansson.h>
#include <stdint.h>

struct metrics;

/* Opens RUN/metrics.jsonl to append; rows of a step after `last_step` are dropped first. */
elbo_status metrics_open(struct metrics **out, const char *run_dir, uint64_t last_step, elbo_error *error);
/* Appends a row (borrowed) as one line; one that fails leaves no part of it where the system allows. */
elbo_status metrics_write(struct metrics *m, const json_t *row, elbo_error *error);
/* Makes the rows so far durable. */
elbo_status metrics_sync(struct metrics *m, elbo_error *error);
void metrics_close(struct metrics *m);

#endif
