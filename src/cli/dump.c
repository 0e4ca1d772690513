/* elbo dump: writes the sentences of a corpus, or of every part of a split one, as text, one a line. The unknown mark
 * is written as the tokenizer decodes it. */
#include "cli/cli.h"

#include "elbo/corpus.h"

#include <stdlib.h>

static elbo_status dump(const struct elbo_corpus *corpus, elbo_error *error)
{
    enum elbo_stream stream = ELBO_STREAM_DECODER;
    struct elbo_text text = {0};
    size_t room = elbo_corpus_longest(corpus, stream) + 1;
    uint32_t *ids = malloc(room * sizeof *ids);
    elbo_status status = ids ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for a sentence of %zu tokens", room);
    for (size_t i = 0, n; i < elbo_corpus_sentences(corpus) && !status; i++) {
        status = elbo_corpus_read(corpus, stream, i, ids, room, &n, error);
        if (!status) status = elbo_tokenizer_decode(elbo_corpus_tokenizer(corpus, stream), &text, ids, n, error);
        if (status) break;
        fwrite(text.text ? text.text : "", 1, text.size, stdout);
        if (putchar('\n') == EOF) break; /* the reader has closed the pipe, or main reports the error */
    }
    free(ids);
    elbo_text_free(&text);
    return status;
}

elbo_status cli_dump(struct cli *cli, elbo_error *error)
{
    struct elbo_corpus *parts[ELBO_PREPARE_PARTS];
    size_t count;
    ELBO_TRY(elbo_corpus_open_parts(parts, &count, cli->arguments[0], error));
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < count && !status; i++) status = dump(parts[i], error);
    while (count) elbo_corpus_close(parts[--count]);
    return status;
}
