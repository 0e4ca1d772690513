/* evaluations.jsonl of a run: the figures that `elbo eval` measured, one object a line, the newest last.
 *
 *   {"step": 4000, "weights": "<XXH3-64 of the checkpoint's model.safetensors>", "program": "0.1.0",
 *    "corpus": "corpus/test", "corpus_hash": "...", "figures": {...}}          figures: as --json prints them
 *
 * Other lines are skipped. */
#ifndef CLI_EVALUATIONS_H
#define CLI_EVALUATIONS_H

#include "checkpoint/checkpoint.h"
#include "elbo/corpus.h"

#include <jansson.h>

/* Adds a line to the run that holds the checkpoint; does nothing for a checkpoint outside a run. `name` is the corpus's
 * name. `figures` is borrowed. ELBO_IO: the line could not be written. */
elbo_status evaluations_add(const struct checkpoint *c, const struct elbo_corpus *corpus, const char *name,
                            json_t *figures, elbo_error *error);

/* *out: the newest line of exactly these weights, json_decref it; null when there is none. */
elbo_status evaluations_last(json_t **out, const struct checkpoint *c, elbo_error *error);

#endif
