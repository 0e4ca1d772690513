/* Progress of a preparation: the share of the bytes of all inputs, pass by pass, every 4096 lines. Counts are those of
 * the last pass alone, over more sentences than any first buffer holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "prepared.h"

#include <dirent.h>
#include <malloc.h>
#include <math.h>
#include <stdbool.h>

enum { LINES = 20000, EVERY = 4096, LINE = 12 };

struct heard {
    size_t calls, passes;
    double last;
    char what[32];
};

/* Lines have one length, so the share follows from the number of lines, except for bytes that are read ahead. */
static void hear(void *context, double share, const char *what)
{
    struct heard *h = context;
    if (strcmp(h->what, what)) {
        snprintf(h->what, sizeof h->what, "%s", what);
        h->passes++;
        h->last = 0;
    }
    assert_true(share >= h->last && share <= 1);
    assert_true(share > 0.1);
    h->last = share;
    h->calls++;
}

static size_t open_files(void)
{
    DIR *list = opendir("/proc/self/fd");
    size_t count = 0;
    while (readdir(list)) count++;
    closedir(list);
    return count;
}

static void progress_and_counts(void **state)
{
    struct fixture *f = *state;
    char *text = malloc(LINES * LINE + 1), second[512];
    for (int i = 0; i < LINES; i++) sprintf(text + i * LINE, "w%-4d end %c\n", i % 1000, 'a' + i % 26);
    temporary_write(f->text, text, LINES / 2 * LINE);
    temporary_path(second, &f->folder, "second.txt");
    temporary_write(second, text + LINES / 2 * LINE, LINES / 2 * LINE);
    const char *const inputs[] = {f->text, second};
    struct elbo_prepare_options options = WORD;
    options.inputs = inputs;
    options.input_count = 2;
    options.out = f->out;
    options.tokenizer_size = 500; /* some words are unknown, so a pass settles the vocabulary */
    options.split = "50/30/20";
    struct heard heard = {.last = 0};
    size_t files = open_files();
    if (elbo_prepare(&options, &f->report, hear, &heard, &f->error)) fail_msg("%s", f->error.message);
    assert_int_equal(open_files(), files);
    assert_int_equal(heard.passes, 3);
    assert_int_equal(heard.calls, 3 * (LINES / EVERY));
    assert_true(heard.last > 0.7);
    assert_int_equal(f->report.lines, LINES);
    assert_int_equal(f->report.blank_lines, 0);
    assert_int_equal(f->report.part_count, 3);
    size_t sentences = 0, tokens = 0;
    for (size_t i = 0; i < 3; i++) {
        char path[600];
        struct elbo_corpus *corpus;
        snprintf(path, sizeof path, "%s/%s", f->out, f->report.parts[i].name);
        if (elbo_corpus_open(&corpus, path, &f->error)) fail_msg("%s", f->error.message);
        for (size_t s = 0; s < elbo_corpus_sentences(corpus); s++) {
            uint32_t ids[8];
            size_t n;
            if (elbo_corpus_read(corpus, ELBO_STREAM_DECODER, s, ids, 8, &n, &f->error))
                fail_msg("%s", f->error.message);
            assert_int_equal(n, 3);
            assert_true(elbo_corpus_sentence_words(corpus, s) == 3 && elbo_corpus_sentence_bytes(corpus, s) >= 10);
            tokens += n;
        }
        sentences += elbo_corpus_sentences(corpus);
        elbo_corpus_close(corpus);
    }
    assert_int_equal(sentences, LINES);
    assert_int_equal(tokens, 3 * LINES);
    free(text);
}

/* One part takes all sentences, and no split is reported. */
static void no_split(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "a b\nc\nd e f\n";
    static const char *const none[] = {NULL, "", "100/0/0"};
    for (size_t i = 0; i < 3; i++) {
        struct elbo_prepare_options options = WORD;
        options.split = none[i];
        if (prepare(f, text, sizeof text - 1, options)) fail_msg("%s", f->error.message);
        assert_int_equal(f->report.part_count, 1);
        assert_int_equal(f->report.parts[0].sentences, 3);
    }
}

/* A failed preparation leaves no file open, and closes no file of another owner. */
static void failures_keep_to_their_own_files(void **state)
{
    struct fixture *f = *state;
    size_t files = open_files();
    struct elbo_prepare_options options = WORD;
    options.inputs = (const char *const[]){"/nowhere", "/nowhere/either"};
    options.input_count = 2;
    options.out = f->out;
    assert_true(elbo_prepare(&options, &f->report, NULL, NULL, &f->error) != ELBO_OK);
    assert_int_equal(open_files(), files);
    assert_int_equal(prepare(f, "\n\n", 2, WORD), ELBO_INPUT);
    assert_int_equal(open_files(), files);
    options = WORD;
    options.split = "50/50/0";
    options.tokenizer_size = 100;
    assert_true(prepare(f, "one\n", 4, options) != ELBO_OK); /* a part would get no sentence */
    assert_int_equal(open_files(), files);
}

/* A preparation leaves no memory allocated; the C library's own caches are smaller than one manifest per run. */
static void nothing_is_left_behind(void **state)
{
    enum { TIMES = 40, FEW = 8 };
    struct fixture *f = *state;
    size_t before = 0, now = 0;
    for (size_t i = 0; i < FEW + TIMES; i++) {
        if (prepare(f, "a b\nc\nd e f\n", 12, WORD)) fail_msg("%s", f->error.message);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        now = mallinfo2().uordblks;
#endif
        if (i + 1 == FEW) before = now;
    }
    assert_true(now <= before + (size_t)TIMES * 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(progress_and_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(no_split, setup, teardown),
        cmocka_unit_test_setup_teardown(failures_keep_to_their_own_files, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_left_behind, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
