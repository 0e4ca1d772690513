/* elbo info: what a corpus holds. */
#include "cli/cli.h"

#include "elbo/corpus.h"

#include <jansson.h>

static elbo_status corpus_json(const struct elbo_corpus *corpus, elbo_error *error)
{
    enum elbo_stream stream = ELBO_STREAM_DECODER;
    const char *kind = elbo_tokenizer_kind_name(elbo_tokenizer_kind(elbo_corpus_tokenizer(corpus, stream)));
    json_t *all = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:i, s:s, s:s}", "kind", "corpus", "sentences",
        (json_int_t)elbo_corpus_sentences(corpus), "tokens", (json_int_t)elbo_corpus_tokens(corpus, stream), "words",
        (json_int_t)elbo_corpus_words(corpus), "bytes", (json_int_t)elbo_corpus_bytes(corpus), "longest",
        (json_int_t)elbo_corpus_longest(corpus, stream), "unknown", (json_int_t)elbo_corpus_unknown(corpus, stream),
        "tokenizer", kind, "vocabulary", (json_int_t)elbo_corpus_vocabulary(corpus, stream), "streams",
        elbo_corpus_shares_stream(corpus) ? 1 : 2, "hash", elbo_corpus_hash(corpus), "tokenizer_hash",
        elbo_corpus_tokenizer_hash(corpus));
    if (!all) return elbo_fail(error, ELBO_MEMORY, "no memory for the result");
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
    return ELBO_OK;
}

static void corpus_text(const struct elbo_corpus *corpus)
{
    enum elbo_stream stream = ELBO_STREAM_DECODER;
    double sentences = (double)elbo_corpus_sentences(corpus), tokens = (double)elbo_corpus_tokens(corpus, stream);
    printf("corpus       %s\n", elbo_corpus_folder(corpus));
    printf("sentences    %zu\n", elbo_corpus_sentences(corpus));
    printf("tokens       %zu (%.1f a sentence, longest %zu, marks not counted)\n", elbo_corpus_tokens(corpus, stream),
           tokens / sentences, elbo_corpus_longest(corpus, stream));
    printf("words        %zu\n", elbo_corpus_words(corpus));
    printf("bytes        %zu\n", elbo_corpus_bytes(corpus));
    printf("unknown      %zu (%.2f %% of the tokens)\n", elbo_corpus_unknown(corpus, stream),
           tokens > 0 ? 100 * (double)elbo_corpus_unknown(corpus, stream) / tokens : 0.0);
    printf("tokenizer    %s, vocabulary %zu\n",
           elbo_tokenizer_kind_name(elbo_tokenizer_kind(elbo_corpus_tokenizer(corpus, stream))),
           elbo_corpus_vocabulary(corpus, stream));
    printf("hash         %s (tokenizer %s)\n", elbo_corpus_hash(corpus), elbo_corpus_tokenizer_hash(corpus));
}

elbo_status cli_info(struct cli *cli, elbo_error *error)
{
    struct elbo_corpus *corpus;
    elbo_status status = ELBO_OK;
    ELBO_TRY(elbo_corpus_open(&corpus, cli->arguments[0], error));
    if (cli->config.json) status = corpus_json(corpus, error);
    else corpus_text(corpus);
    elbo_corpus_close(corpus);
    return status;
}
