/* The effect of data.max_length on a corpus, reported before the first step. */
#ifndef TRAIN_LIMITS_H
#define TRAIN_LIMITS_H

#include "elbo/corpus.h"
#include "train/config.h"
#include "train/console.h"

/* Warns once, with counts, if sentences are cut or left out. ELBO_INPUT: sentences are to be refused, or none is left.
 * `name` is an option such as "data.valid". `report` may hold null functions. */
elbo_status limits_check(const struct elbo_corpus *corpus, const char *name, const struct data_config *data,
                         const struct train_report *report, elbo_error *error);

/* Writes "data.train: 12 of 50 sentences (24.0 %) are longer than data.max_length = 10 and are cut: ...". Returns false
 * if no sentence is longer. */
bool limits_describe(char *text, size_t size, const struct elbo_corpus *corpus, const char *name,
                     const struct data_config *data);

#endif
