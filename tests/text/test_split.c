/* A split puts every sentence in one part, puts sentences with the same tokens in the same part, for any order of the
 * input, and learns its vocabulary from the train part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "prepared.h"

#include <stdbool.h>
#include <xxhash.h>

static void a_split_is_by_content(void **state)
{
    struct fixture *f = *state;
    enum { LINES = 4000, BITS = 12 };
    char *text = malloc(LINES * 100), *end = text;
    for (int i = 0; i < LINES; i++)
        for (int twice = 0; twice < 2; twice++) { /* bits tell sentences apart even if the number is unknown */
            for (int bit = 0; bit < BITS; bit++) end += sprintf(end, "%s ", i >> bit & 1 ? "yes" : "no");
            end += sprintf(end, "%d\n", i);
        }
    struct elbo_prepare_options options = WORD;
    options.split = "80/12.5/7.5";
    options.tokenizer_size = 100000;
    if (prepare(f, text, (size_t)(end - text), options)) fail_msg("%s", f->error.message);
    refused(f, ELBO_IO, "name one of its parts");
    assert_int_equal(f->report.part_count, 3);
    const double shares[] = {0.8, 0.125, 0.075};
    size_t sum = 0;
    for (int i = 0; i < 3; i++) {
        char part[600];
        struct elbo_corpus *corpus;
        const struct elbo_prepare_part *report = &f->report.parts[i];
        snprintf(part, sizeof part, "%s/%s", f->out, report->name);
        if (elbo_corpus_open(&corpus, part, &f->error)) fail_msg("%s", f->error.message);
        size_t n = elbo_corpus_sentences(corpus);
        assert_int_equal(n, report->sentences);
        assert_int_equal(n % 2, 0); /* copies stay together */
        sum += n;
        double expected = shares[i] * 2 * LINES;
        assert_true(n > 0.8 * expected && n < 1.2 * expected);
        /* numbers of valid and test are unknown, because the vocabulary is of the train part only */
        size_t unknown = elbo_corpus_unknown(corpus, ELBO_STREAM_DECODER);
        assert_int_equal(unknown, i == 0 ? 0 : n);
        elbo_corpus_close(corpus);
    }
    assert_int_equal(sum, 2 * LINES);
    /* the tokenizer of a split corpus can be reused */
    char other[512];
    temporary_path(other, &f->folder, "other");
    options = (struct elbo_prepare_options){
        .tokenizer_from = f->out, .out = other, .input_count = 1, .inputs = (const char *const[]){f->text}};
    struct elbo_prepare_report report;
    size_t vocabulary = f->report.vocabulary;
    if (elbo_prepare(&options, &report, NULL, NULL, &f->error)) fail_msg("%s", f->error.message);
    assert_int_equal(report.vocabulary, vocabulary);
    free(text);
}

/* ---- sentences with the same tokens are in one part ---- */

enum { SPLIT_LINES = 3000 };

/* Records the parts of each id sequence, as bits, by hash; fails if a sequence is in two parts. Returns the hashes of
 * the parts' contents. */
static void check_parts(struct fixture *f, uint64_t content[3])
{
    enum { SLOTS = 1 << 14 };
    uint64_t *seen = calloc(SLOTS, sizeof *seen);
    int *in = calloc(SLOTS, sizeof *in);
    for (size_t p = 0; p < f->report.part_count; p++) {
        char part[600];
        struct elbo_corpus *corpus;
        snprintf(part, sizeof part, "%s/%s", f->out, f->report.parts[p].name);
        if (elbo_corpus_open(&corpus, part, &f->error)) fail_msg("%s", f->error.message);
        content[p] = 0;
        for (size_t i = 0; i < elbo_corpus_sentences(corpus); i++) {
            uint32_t ids[64];
            size_t n;
            if (elbo_corpus_read(corpus, ELBO_STREAM_DECODER, i, ids, 64, &n, &f->error))
                fail_msg("%s", f->error.message);
            uint64_t hash = XXH3_64bits(ids, n * sizeof *ids) | 1, at = hash % SLOTS;
            while (seen[at] && seen[at] != hash) at = (at + 1) % SLOTS;
            if (seen[at] && in[at] != (int)p)
                fail_msg("the same ids in %s and in %s", f->report.parts[p].name, f->report.parts[in[at]].name);
            seen[at] = hash;
            in[at] = (int)p;
            content[p] += hash; /* independent of the order */
        }
        elbo_corpus_close(corpus);
    }
    free(seen);
    free(in);
}

/* Makes sentences of two common words with a rare word between them, in three spellings of the blanks, in an order that
 * follows from `seed`. */
static char *spelled(size_t *size, unsigned seed)
{
    static const char *const blanks[] = {" ", "  ", " \t "};
    char **lines = malloc(SPLIT_LINES * sizeof *lines), *text = malloc(SPLIT_LINES * 64), *end = text;
    for (int i = 0; i < SPLIT_LINES; i++) {
        const char *b = blanks[i % 3];
        int pair = i / 3 % 500, rare = i / 3; /* two rare words for each pair of common ones */
        if (asprintf(&lines[i], "%sw%d%srare%d%sv%d\n", i % 2 ? b : "", pair % 40, b, rare, b, pair * 7 % 31) < 0)
            abort();
    }
    for (int i = SPLIT_LINES; i > 0; i--) {
        seed = seed * 1103515245 + 12345;
        int j = (int)((seed >> 8) % (unsigned)i);
        end += sprintf(end, "%s", lines[j]);
        free(lines[j]);
        lines[j] = lines[i - 1];
    }
    free(lines);
    *size = (size_t)(end - text);
    return text;
}

static void a_split_is_by_ids(void **state)
{
    struct fixture *f = *state;
    const struct {
        enum elbo_tokenizer_kind kind;
        size_t size;
    } ways[] = {
        {ELBO_TOKENIZER_WORD, 74},  {ELBO_TOKENIZER_WORD, 50}, {ELBO_TOKENIZER_WORD, 4000},
        {ELBO_TOKENIZER_BYTE, 300}, {ELBO_TOKENIZER_BPE, 300},
    };
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        uint64_t content[2][3] = {{0}};
        for (unsigned order = 0; order < 2; order++) {
            size_t size;
            char *text = spelled(&size, 7 + order);
            struct elbo_prepare_options options = {.tokenizer_kind = ways[w].kind,
                                                   .tokenizer_size = ways[w].size,
                                                   .split = ways[w].size == 50 ? "50/50/0" : "60/20/20"};
            elbo_status status = prepare(f, text, size, options);
            free(text);
            if (status) fail_msg("%s", f->error.message);
            check_parts(f, content[order]);
        }
        assert_memory_equal(content[0], content[1], sizeof content[0]); /* the order of the input does not matter */
    }
}

/* Every id of the vocabulary occurs in the train part, because the vocabulary was learned from it. */
static void a_vocabulary_is_of_the_train_part(void **state)
{
    struct fixture *f = *state;
    size_t size;
    char *text = spelled(&size, 3), part[600];
    struct elbo_prepare_options options = {
        .tokenizer_kind = ELBO_TOKENIZER_WORD, .tokenizer_size = 100, .split = "60/20/20"};
    elbo_status status = prepare(f, text, size, options);
    free(text);
    if (status) fail_msg("%s", f->error.message);
    assert_true(f->report.parts[1].unknown > 0 && f->report.parts[2].unknown > 0);
    struct elbo_corpus *corpus;
    snprintf(part, sizeof part, "%s/train", f->out);
    if (elbo_corpus_open(&corpus, part, &f->error)) fail_msg("%s", f->error.message);
    bool found[100] = {false};
    for (size_t i = 0; i < elbo_corpus_sentences(corpus); i++) {
        uint32_t ids[64];
        size_t n;
        if (elbo_corpus_read(corpus, ELBO_STREAM_DECODER, i, ids, 64, &n, &f->error)) fail_msg("%s", f->error.message);
        for (size_t t = 0; t < n; t++) found[ids[t]] = true;
    }
    for (size_t id = 3; id < elbo_corpus_vocabulary(corpus, ELBO_STREAM_DECODER); id++) assert_true(found[id]);
    elbo_corpus_close(corpus);
}

/* Valid and invalid spellings of shares; a refusal writes nothing. */
static void shares_are_three_percentages(void **state)
{
    struct fixture *f = *state;
    static const char *const good[] = {"80/10/10", "99.5/.5/0", "40/60/0", "33.3/33.3/33.4", "1e2/0/0", "50/0/50"};
    static const char *const bad[] = {"50/50",     "50/25/25/0", "50/25/25x", "50;25;25",  "0/50/50",
                                      "50/40/5",   "60/30/20",   "-10/60/50", "+50/25/25", " 50/25/25",
                                      "50/ 25/25", "inf/0/0",    "nan/50/50", "1e999/0/0", "50//50",
                                      "/50/50",    "x",          "50/25/",    ","};
    char text[3000], *end = text;
    for (int i = 0; i < 600; i++) end += sprintf(end, "%d\n", i % 300);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct elbo_prepare_options options = {.tokenizer_kind = ELBO_TOKENIZER_BYTE, .split = good[i]};
        if (prepare(f, text, (size_t)(end - text), options)) fail_msg("%s: %s", good[i], f->error.message);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct elbo_prepare_options options = {.tokenizer_kind = ELBO_TOKENIZER_BYTE, .split = bad[i]};
        if (prepare(f, text, (size_t)(end - text), options) != ELBO_USAGE) fail_msg("%s: %s", bad[i], f->error.message);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_split_is_by_content),
        TEST(a_split_is_by_ids),
        TEST(a_vocabulary_is_of_the_train_part),
        TEST(shares_are_three_percentages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
