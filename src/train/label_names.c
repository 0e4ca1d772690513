/* Reads label names from corpora and checkpoints and finds their numbers in a model: see label_names.h. */
#include "train/label_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static elbo_status allocate(struct label_names *out, size_t count, elbo_error *error)
{
    *out = (struct label_names){malloc((count + 1) * sizeof *out->name), count};
    return out->name ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for %zu labels", count);
}

elbo_status label_names_of_corpus(struct label_names *out, const struct elbo_corpus *corpus, elbo_error *error)
{
    size_t count = elbo_corpus_classes(corpus);
    *out = (struct label_names){0};
    if (!count)
        return elbo_fail(
            error, ELBO_USAGE,
            "data.labels = true, and %s has no labels; prepare it with --labels=FILE or --label_column, or "
            "set data.labels=false",
            elbo_corpus_folder(corpus));
    ELBO_TRY(allocate(out, count, error));
    for (size_t k = 0; k < count; k++) out->name[k] = elbo_corpus_class(corpus, k);
    return ELBO_OK;
}

elbo_status label_names_of_counters(struct label_names *out, const json_t *counters, elbo_error *error)
{
    const json_t *labels = json_object_get(counters, "labels");
    size_t count = json_array_size(labels);
    *out = (struct label_names){0};
    if (!labels) return ELBO_OK;
    if (!count) return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter labels is no list of names");
    ELBO_TRY(allocate(out, count, error));
    for (size_t k = 0; k < count; k++) {
        out->name[k] = json_string_value(json_array_get(labels, k));
        if (out->name[k]) continue;
        label_names_free(out);
        return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter labels is no list of names");
    }
    return ELBO_OK;
}

void label_names_free(struct label_names *names)
{
    free(names->name);
    *names = (struct label_names){0};
}

/* Writes "negative, neutral, positive", cut to the room in `text`. */
static void list(char *text, size_t size, const struct label_names *names)
{
    size_t at = 0;
    *text = 0;
    for (size_t k = 0; k < names->count; k++) {
        int n = snprintf(text + at, size - at, "%s%s", k ? ", " : "", names->name[k]);
        if (n < 0 || (size_t)n >= size - at - 4) {
            snprintf(text + at, size - at, "%s", size - at > 5 ? ", ..." : "");
            return;
        }
        at += (size_t)n;
    }
}

elbo_status label_missing(const struct label_names *names, elbo_error *error)
{
    char known[240];
    list(known, sizeof known, names);
    return elbo_fail(error, ELBO_USAGE, "the model wants a label: give --label=NAME, one of %s", known);
}

elbo_status label_number(int32_t *out, const struct label_names *names, const char *name, elbo_error *error)
{
    char known[240];
    for (size_t k = 0; k < names->count; k++)
        if (!strcmp(names->name[k], name)) {
            *out = (int32_t)k;
            return ELBO_OK;
        }
    list(known, sizeof known, names);
    return elbo_fail(error, ELBO_USAGE, "the model does not know the label '%.80s'; its labels are %s", name, known);
}

elbo_status label_numbers(int32_t **numbers, const struct label_names *names, const struct elbo_corpus *corpus,
                          elbo_error *error)
{
    size_t count = elbo_corpus_classes(corpus);
    *numbers = NULL;
    if (!names->count) return ELBO_OK;
    if (!count)
        return elbo_fail(error, ELBO_USAGE,
                         "the model reads a label beside each sentence, and %s has none; prepare it with --labels=FILE "
                         "or --label_column",
                         elbo_corpus_folder(corpus));
    *numbers = malloc(count * sizeof **numbers);
    if (!*numbers) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu labels", count);
    elbo_status status = ELBO_OK;
    for (size_t k = 0; k < count && !status; k++)
        status = label_number(&(*numbers)[k], names, elbo_corpus_class(corpus, k), error);
    if (!status) return ELBO_OK;
    free(*numbers);
    *numbers = NULL;
    return elbo_fail_in(error, "%s: ", elbo_corpus_folder(corpus));
}
