/* evaluations.jsonl of a run: what `elbo eval` has measured, an object a line, the newest last.
 *
 *   {"step": 4000, "weights": "<XXH3-64 of the checkpoint's model.safetensors>", "program": "0.1.0",
 *    "corpus": "corpus/test", "corpus_hash": "...", "figures": {...}}          figures: as --json prints them
 *
 * Lines that are no such objects are passed over. */
#ifndef CLI_EVALUATIONS_H
#define CLI_EVALUATIONS_H

#include "checkpoint/checkpoint.h"
#include "elbo/corpus.h"

#include <jansson.h>

/* Adds a line to the run that the checkpoint lies in; a checkpoint outside a run has none, and that is no error.
 * `figures` is borrowed; `name`: of the corpus. ELBO_IO: the line could not be written. */
elbo_status evaluations_add(const struct checkpoint *c, const struct elbo_corpus *corpus, const char *name,
                            json_t *figures, elbo_error *error);

/* The newest line of these very weights, json_decref it; null: there is none. */
elbo_status evaluations_last(json_t **out, const struct checkpoint *c, elbo_error *error);

#endif
