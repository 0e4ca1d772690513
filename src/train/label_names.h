/* The labels that a model knows, by number, and the model's numbers for the classes of a corpus. */
#ifndef TRAIN_LABEL_NAMES_H
#define TRAIN_LABEL_NAMES_H

#include "elbo/corpus.h"

#include <jansson.h>

struct label_names {
    const char **name; /* (count) borrowed */
    size_t count;      /* 0: a model without labels */
};

/* Takes the classes, in order, of the corpus that a model is trained on. The corpus must outlive the names. ELBO_USAGE:
 * the corpus has no classes. */
elbo_status label_names_of_corpus(struct label_names *out, const struct elbo_corpus *corpus, elbo_error *error);
/* Takes the labels in a checkpoint's counters, which must outlive the names; none if the counters have no labels.
 * ELBO_INPUT: the labels are not names. */
elbo_status label_names_of_counters(struct label_names *out, const json_t *counters, elbo_error *error);
void label_names_free(struct label_names *names);

/* Fails with ELBO_USAGE because no label is given; the message lists the known labels. */
elbo_status label_missing(const struct label_names *names, elbo_error *error);

/* Finds the number of a name. ELBO_USAGE: the name is unknown; the message lists the known labels. */
elbo_status label_number(int32_t *out, const struct label_names *names, const char *name, elbo_error *error);

/* Finds the model's *numbers (classes) for a corpus; null for a model without labels. The caller frees them.
 * ELBO_USAGE: the model does not know a class, or the corpus has no labels. */
elbo_status label_numbers(int32_t **numbers, const struct label_names *names, const struct elbo_corpus *corpus,
                          elbo_error *error);

#endif
