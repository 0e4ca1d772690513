/* The labels that a model knows, by number, and the numbers that a corpus' classes have in it. */
#ifndef TRAIN_LABEL_NAMES_H
#define TRAIN_LABEL_NAMES_H

#include "elbo/corpus.h"

#include <jansson.h>

struct label_names {
    const char **name; /* (count) borrowed */
    size_t count;      /* 0: a model without labels */
};

/* Of the corpus that a model is trained on: its classes in their order. The corpus must outlive them. ELBO_USAGE: it
 * has none. */
elbo_status label_names_of_corpus(struct label_names *out, const struct elbo_corpus *corpus, elbo_error *error);
/* Of a checkpoint's counters, which must outlive them; without labels there: none. ELBO_INPUT: they are no names. */
elbo_status label_names_of_counters(struct label_names *out, const json_t *counters, elbo_error *error);
void label_names_free(struct label_names *names);

/* ELBO_USAGE: none is given; the known ones are named. */
elbo_status label_missing(const struct label_names *names, elbo_error *error);

/* The number of a name; ELBO_USAGE names it and those that are known. */
elbo_status label_number(int32_t *out, const struct label_names *names, const char *name, elbo_error *error);

/* *numbers (classes) of a corpus for a model with these labels; null for a model without. free() it. ELBO_USAGE: a
 * class that the model does not know, or no labels. */
elbo_status label_numbers(int32_t **numbers, const struct label_names *names, const struct elbo_corpus *corpus,
                          elbo_error *error);

#endif
