/* Reports or refuses sentences that are longer than data.max_length: see limits.h. */
#include "train/limits.h"
#include "text/slots.h"

#include <stdio.h>

bool limits_describe(char *text, size_t size, const struct elbo_corpus *corpus, const char *name,
                     const struct data_config *data)
{
    enum elbo_stream s = ELBO_STREAM_DECODER;
    size_t longer, beyond, all = elbo_corpus_sentences(corpus), tokens = elbo_corpus_tokens(corpus, s);
    elbo_corpus_longer_than(corpus, s, data->max_length, &longer, &beyond);
    if (!longer) return false;
    size_t lost = data->too_long == SLOT_SKIP ? beyond + longer * data->max_length : beyond;
    snprintf(text, size,
             "%s: %zu of %zu sentences (%.1f %%) are longer than data.max_length = %zu tokens and are %s: %.1f %% of "
             "the tokens "
             "are lost; the longest has %zu",
             name, longer, all, 100.0 * (double)longer / (double)all, data->max_length,
             data->too_long == SLOT_SKIP ? "left out" : "cut", 100.0 * (double)lost / (double)tokens,
             elbo_corpus_longest(corpus, s));
    return true;
}

static elbo_status refuse(const struct elbo_corpus *corpus, const char *name, const struct data_config *data,
                          elbo_error *error)
{
    size_t i = 0;
    while (elbo_corpus_length(corpus, ELBO_STREAM_DECODER, i) <= data->max_length) i++;
    return elbo_fail(error, ELBO_INPUT,
                     "%s: sentence %zu of %s has %zu tokens, more than data.max_length = %zu; raise the limit, or set "
                     "data.too_long to truncate or skip",
                     name, i + 1, elbo_corpus_folder(corpus), elbo_corpus_length(corpus, ELBO_STREAM_DECODER, i),
                     data->max_length);
}

elbo_status limits_check(const struct elbo_corpus *corpus, const char *name, const struct data_config *data,
                         const struct train_report *report, elbo_error *error)
{
    char text[512];
    size_t longer, beyond;
    if (!limits_describe(text, sizeof text, corpus, name, data)) return ELBO_OK;
    elbo_corpus_longer_than(corpus, ELBO_STREAM_DECODER, data->max_length, &longer, &beyond);
    if (data->too_long == SLOT_REFUSE) return refuse(corpus, name, data, error);
    if (data->too_long == SLOT_SKIP && longer == elbo_corpus_sentences(corpus))
        return elbo_fail(
            error, ELBO_INPUT,
            "%s: all %zu sentences are longer than data.max_length = %zu tokens and would be left out; raise "
            "the limit",
            name, longer, data->max_length);
    if (report->warning) report->warning(report->context, text);
    return ELBO_OK;
}
