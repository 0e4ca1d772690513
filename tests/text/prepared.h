/* A folder with a text and the corpus made from it, for the tests of corpora. Include after cmocka.h. */
#ifndef TESTS_TEXT_PREPARED_H
#define TESTS_TEXT_PREPARED_H

#include "elbo/corpus.h"
#include "temporary.h"

struct fixture {
    struct temporary folder;
    char text[512], out[512];
    elbo_error error;
    struct elbo_prepare_report report;
};

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->folder = temporary_open();
    temporary_path(f->text, &f->folder, "text.txt");
    temporary_path(f->out, &f->folder, "corpus");
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    temporary_remove(f->folder.path);
    free(f);
    return 0;
}

static inline elbo_status prepare(struct fixture *f, const char *text, size_t size, struct elbo_prepare_options options)
{
    const char *input = f->text;
    temporary_write(f->text, text, size);
    options.inputs = &input;
    options.input_count = 1;
    options.out = f->out;
    if (!options.tokenizer_size) options.tokenizer_size = 300;
    return elbo_prepare(&options, &f->report, NULL, NULL, &f->error);
}

#define WORD ((struct elbo_prepare_options){.tokenizer_kind = ELBO_TOKENIZER_WORD})

static inline void refused(struct fixture *f, elbo_status status, const char *part)
{
    struct elbo_corpus *corpus = NULL;
    elbo_status got = elbo_corpus_open(&corpus, f->out, &f->error);
    if (got != status) fail_msg("status %d: %s", got, got ? f->error.message : "accepted");
    if (!strstr(f->error.message, part)) fail_msg("'%s' is not in: %s", part, f->error.message);
}

#endif
