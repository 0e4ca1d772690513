/* A corpus holds what the text held; a damaged, foreign or unfinished one is refused, whichever byte is wrong; a split
 * puts every sentence in one part and learns its vocabulary from the train part. */
#include "elbo/corpus.h"
#include "base/sealed.h"
#include "text/corpus_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <inttypes.h>
#include <xxhash.h>

#include "temporary.h"

struct fixture {
    struct temporary folder;
    char text[512], out[512];
    elbo_error error;
    struct elbo_prepare_report report;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->folder = temporary_open();
    temporary_path(f->text, &f->folder, "text.txt");
    temporary_path(f->out, &f->folder, "corpus");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    temporary_remove(f->folder.path);
    free(f);
    return 0;
}

static elbo_status prepare(struct fixture *f, const char *text, size_t size, struct elbo_prepare_options options)
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
static const char sample[] = "\xef\xbb\xbfthe cat sat\n\n  \t\nthe dog\r\nbad \xff byte\nthe end";

static void holds_what_the_text_held(void **state)
{
    struct fixture *f = *state;
    if (prepare(f, sample, sizeof sample - 1, WORD)) fail_msg("%s", f->error.message);
    assert_int_equal(f->report.lines, 6);
    assert_int_equal(f->report.blank_lines, 2);
    assert_int_equal(f->report.replaced, 1);
    struct elbo_corpus *corpus;
    if (elbo_corpus_open(&corpus, f->out, &f->error)) fail_msg("%s", f->error.message);
    const char *const lines[] = {"the cat sat", "the dog", "bad \xef\xbf\xbd byte", "the end"};
    assert_int_equal(elbo_corpus_sentences(corpus), 4);
    assert_int_equal(elbo_corpus_words(corpus), 10);
    assert_int_equal(elbo_corpus_tokens(corpus, ELBO_STREAM_ENCODER), 10);
    assert_int_equal(elbo_corpus_longest(corpus, ELBO_STREAM_DECODER), 3);
    assert_int_equal(elbo_corpus_unknown(corpus, ELBO_STREAM_DECODER), 0);
    assert_int_equal(elbo_corpus_vocabulary(corpus, ELBO_STREAM_DECODER), 3 + 8);
    size_t bytes = 0;
    for (size_t i = 0; i < 4; i++) {
        uint32_t ids[8];
        struct elbo_text back = {0};
        size_t length, one;
        assert_int_equal(elbo_corpus_read(corpus, ELBO_STREAM_DECODER, i, ids, 1, &one, &f->error), ELBO_OK);
        assert_int_equal(one, 1);
        assert_int_equal(elbo_corpus_read(corpus, ELBO_STREAM_DECODER, i, ids, 8, &length, &f->error), ELBO_OK);
        assert_int_equal(length, elbo_corpus_length(corpus, ELBO_STREAM_DECODER, i));
        elbo_tokenizer_decode(elbo_corpus_tokenizer(corpus, ELBO_STREAM_DECODER), &back, ids, length, &f->error);
        assert_string_equal(back.text, lines[i]);
        assert_int_equal(elbo_corpus_sentence_words(corpus, i), elbo_text_words(lines[i], strlen(lines[i])));
        assert_int_equal(elbo_corpus_sentence_bytes(corpus, i), strlen(lines[i]) + 1);
        bytes += strlen(lines[i]) + 1;
        elbo_text_free(&back);
    }
    assert_int_equal(elbo_corpus_bytes(corpus), bytes);
    elbo_corpus_close(corpus);
}

static void lengths_are_counted(void **state)
{
    struct fixture *f = *state;
    char text[4096], *end = text;
    for (int i = 1; i <= 40; i++) { /* lengths 1 .. 40 in an order of their own */
        for (int t = 0; t < i * 27 % 41; t++) end += sprintf(end, "w ");
        end[-1] = '\n';
    }
    if (prepare(f, text, (size_t)(end - text), WORD)) fail_msg("%s", f->error.message);
    struct elbo_corpus *corpus;
    if (elbo_corpus_open(&corpus, f->out, &f->error)) fail_msg("%s", f->error.message);
    size_t lengths[5], longer, cut;
    static const double shares[] = {0, 0.5, 0.9, 0.99, 1};
    static const size_t wanted[] = {1, 20, 36, 40, 40};
    assert_int_equal(elbo_corpus_percentiles(corpus, ELBO_STREAM_DECODER, lengths, shares, 5, &f->error), ELBO_OK);
    assert_memory_equal(lengths, wanted, sizeof wanted);
    for (size_t limit = 0; limit < 42; limit++) {
        elbo_corpus_longer_than(corpus, ELBO_STREAM_DECODER, limit, &longer, &cut);
        size_t left = limit < 40 ? 40 - limit : 0;
        assert_int_equal(longer, left);
        assert_int_equal(cut, left * (left + 1) / 2);
    }
    elbo_corpus_close(corpus);
}

static void wide_ids(void **state)
{
    struct fixture *f = *state;
    enum { TYPES = 70000 };
    char *text = malloc(TYPES * 9), *end = text;
    for (int i = 0; i < TYPES; i++) end += sprintf(end, "w%d%c", i, i % 7 == 6 ? '\n' : ' ');
    struct elbo_prepare_options options = WORD;
    options.tokenizer_size = 100000;
    if (prepare(f, text, (size_t)(end - text), options)) fail_msg("%s", f->error.message);
    struct elbo_corpus *corpus;
    if (elbo_corpus_open(&corpus, f->out, &f->error)) fail_msg("%s", f->error.message);
    assert_int_equal(elbo_corpus_vocabulary(corpus, ELBO_STREAM_DECODER), TYPES + 3);
    char *seen = calloc(TYPES + 3, 1);
    for (size_t i = 0; i < elbo_corpus_sentences(corpus); i++) {
        uint32_t ids[7];
        size_t length;
        assert_int_equal(elbo_corpus_read(corpus, ELBO_STREAM_DECODER, i, ids, 7, &length, &f->error), ELBO_OK);
        for (size_t t = 0; t < length; t++) assert_int_equal(seen[ids[t]]++, 0);
    }
    elbo_corpus_close(corpus);
    free(seen);
    free(text);
}

static void bad_text_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(prepare(f, "", 0, WORD), ELBO_INPUT);
    assert_non_null(strstr(f->error.message, "is empty"));
    assert_int_equal(prepare(f, "\n \n", 3, WORD), ELBO_INPUT);
    assert_non_null(strstr(f->error.message, "holds no sentences: all 2 lines are blank"));
    struct elbo_prepare_options strict = WORD;
    strict.strict = true;
    assert_int_equal(prepare(f, sample, sizeof sample - 1, strict), ELBO_INPUT);
    assert_non_null(strstr(f->error.message, "text.txt:5:5: the byte 0xff"));
    const char *const splits[] = {"90/5", "90/5/5/0", "a/b/c", "90/5/6", "0/50/50", "-10/60/50", "90/5/5 ", "nan/5/5"};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        struct elbo_prepare_options options = WORD;
        options.split = splits[i];
        if (prepare(f, "a b\n", 4, options) != ELBO_USAGE) fail_msg("accepted --split=%s", splits[i]);
    }
    struct elbo_prepare_options options = WORD;
    options.split = "98/1/1";
    assert_int_equal(prepare(f, "a b\n", 4, options), ELBO_INPUT);
    assert_non_null(strstr(f->error.message, "leaves no sentence"));
    unlink(f->text);
    const char *input = f->text;
    options = WORD;
    options.inputs = &input, options.input_count = 1, options.out = f->out, options.tokenizer_size = 10;
    assert_int_equal(elbo_prepare(&options, &f->report, NULL, NULL, &f->error), ELBO_IO);
    assert_non_null(strstr(f->error.message, "text.txt"));
}

static void refused(struct fixture *f, elbo_status status, const char *part)
{
    struct elbo_corpus *corpus = NULL;
    elbo_status got = elbo_corpus_open(&corpus, f->out, &f->error);
    if (got != status) fail_msg("status %d: %s", got, got ? f->error.message : "accepted");
    if (!strstr(f->error.message, part)) fail_msg("'%s' is not in: %s", part, f->error.message);
}

/* Writes corpus.bin and a manifest that agrees with it, so that only the content can be wrong. */
static void rewrite(struct fixture *f, const char *data, size_t size)
{
    char bin[600], manifest[600];
    snprintf(bin, sizeof bin, "%s/" CORPUS_FILE, f->out);
    snprintf(manifest, sizeof manifest, "%s/" CORPUS_MANIFEST, f->out);
    temporary_write(bin, data, size);
    size_t length;
    char *text = temporary_read(manifest, &length), *entry = strstr(strstr(text, "\"files\""), CORPUS_FILE), *rest;
    rest = strchr(entry, '}');
    char *forged = malloc(length + 200);
    sprintf(forged, "%.*s" CORPUS_FILE "\": {\"bytes\": %zu, \"xxh3\": \"%016" PRIx64 "\"%s", (int)(entry - text), text, size,
            (uint64_t)XXH3_64bits(data, size), rest);
    json_t *root = json_loads(forged, 0, NULL);
    json_object_del(root, "checksum");
    free(text);
    if (sealed_compose(&text, &length, root, "it", &f->error)) fail_msg("%s", f->error.message);
    temporary_write(manifest, text, length);
    json_decref(root);
    free(forged);
    free(text);
}

static void damage_is_found(void **state)
{
    struct fixture *f = *state;
    if (prepare(f, sample, sizeof sample - 1, WORD)) fail_msg("%s", f->error.message);
    char bin[600], tokenizer[600], manifest[600];
    snprintf(bin, sizeof bin, "%s/" CORPUS_FILE, f->out);
    snprintf(tokenizer, sizeof tokenizer, "%s/" CORPUS_TOKENIZER, f->out);
    snprintf(manifest, sizeof manifest, "%s/" CORPUS_MANIFEST, f->out);
    size_t size;
    char *good = temporary_read(bin, &size), *data = malloc(size + 64);
    /* every byte, and every length */
    for (size_t i = 0; i < size; i++) {
        memcpy(data, good, size);
        data[i] ^= 1;
        temporary_write(bin, data, size);
        refused(f, ELBO_INPUT, f->out);
        temporary_write(bin, good, i);
        refused(f, ELBO_INPUT, f->out);
    }
    /* the same with a manifest that agrees: nothing may be read out of bounds, and structure must be refused */
    rewrite(f, good, size);
    struct elbo_corpus *corpus;
    if (elbo_corpus_open(&corpus, f->out, &f->error)) fail_msg("%s", f->error.message);
    elbo_corpus_close(corpus);
    for (size_t i = 0; i < sizeof(struct corpus_header); i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(data, good, size);
            data[i] ^= (char)(1 << bit);
            rewrite(f, data, size);
            refused(f, ELBO_INPUT, f->out);
        }
    struct corpus_header header;
    memcpy(&header, good, sizeof header);
    struct { size_t at; const char *part; } places[] = {
        {header.stream[0].tokens_at + 1, "the vocabulary has 11"},  /* an id above 255 */
        {header.stream[0].offsets_at + 8 + 6, "do not fit its tokens"},
        {header.stream[0].offsets_at + 8 * header.sentences, "do not fit its tokens"},
        {header.words_at, "do not fit"}, {header.bytes_at + 2, "do not fit"},
        {0, "is not a corpus"}, {8, "this program reads version 1"}, {12, "streams"},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        memcpy(data, good, size);
        data[places[i].at] ^= 2;
        rewrite(f, data, size);
        refused(f, ELBO_INPUT, places[i].part);
    }
    memcpy(data, good, size);
    memset(data + size, 0, 64); /* trailing bytes */
    rewrite(f, data, size + 64);
    refused(f, ELBO_INPUT, "does not fit");
    rewrite(f, good, 100);
    refused(f, ELBO_INPUT, "truncated");
    rewrite(f, good, size);
    /* the other files */
    size_t length;
    char *text = temporary_read(tokenizer, &length);
    temporary_write(tokenizer, text, length - 1);
    refused(f, ELBO_INPUT, "tokenizer.json has");
    temporary_write(tokenizer, text, length);
    free(text);
    text = temporary_read(manifest, &length);
    temporary_write(manifest, text, length / 2);
    refused(f, ELBO_INPUT, "truncated or foreign");
    char *version = strstr(text, "\"version\": 1");
    version[11] = '7';
    temporary_write(manifest, text, length);
    refused(f, ELBO_INPUT, "version 7");
    temporary_write(manifest, "{}", 2);
    refused(f, ELBO_INPUT, "not the manifest");
    unlink(manifest);
    refused(f, ELBO_IO, "not a finished corpus");
    temporary_remove(f->out);
    refused(f, ELBO_IO, "is not there");
    free(text);
    free(good);
    free(data);
}

static void a_split_is_by_content(void **state)
{
    struct fixture *f = *state;
    enum { LINES = 4000, BITS = 12 };
    char *text = malloc(LINES * 100), *end = text;
    for (int i = 0; i < LINES; i++)
        for (int twice = 0; twice < 2; twice++) { /* the number may be unknown, the bits tell sentences apart even so */
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
        /* numbers of valid and test are unknown: the vocabulary saw the train part only */
        size_t unknown = elbo_corpus_unknown(corpus, ELBO_STREAM_DECODER);
        assert_int_equal(unknown, i == 0 ? 0 : n);
        elbo_corpus_close(corpus);
    }
    assert_int_equal(sum, 2 * LINES);
    /* the tokenizer of a split corpus can be reused */
    char other[512];
    temporary_path(other, &f->folder, "other");
    options = (struct elbo_prepare_options){.tokenizer_from = f->out, .out = other, .input_count = 1,
                                            .inputs = (const char *const[]){f->text}};
    struct elbo_prepare_report report;
    size_t vocabulary = f->report.vocabulary;
    if (elbo_prepare(&options, &report, NULL, NULL, &f->error)) fail_msg("%s", f->error.message);
    assert_int_equal(report.vocabulary, vocabulary);
    free(text);
}

/* ---- what is the same to the tokenizer is in one part ---- */

enum { SPLIT_LINES = 3000 };

/* The parts of each id sequence, as bits, by hash: fails when one has two. Gives the hashes of the parts' contents. */
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
            if (elbo_corpus_read(corpus, ELBO_STREAM_DECODER, i, ids, 64, &n, &f->error)) fail_msg("%s", f->error.message);
            uint64_t hash = XXH3_64bits(ids, n * sizeof *ids) | 1, at = hash % SLOTS;
            while (seen[at] && seen[at] != hash) at = (at + 1) % SLOTS;
            if (seen[at] && in[at] != (int)p) fail_msg("the same ids in %s and in %s", f->report.parts[p].name,
                                                       f->report.parts[in[at]].name);
            seen[at] = hash;
            in[at] = (int)p;
            content[p] += hash; /* in whatever order */
        }
        elbo_corpus_close(corpus);
    }
    free(seen);
    free(in);
}

/* Sentences of two common words and a rare one between them, in three spellings of the blanks; in an order that follows from `seed`. */
static char *spelled(size_t *size, unsigned seed)
{
    static const char *const blanks[] = {" ", "  ", " \t "};
    char **lines = malloc(SPLIT_LINES * sizeof *lines), *text = malloc(SPLIT_LINES * 64), *end = text;
    for (int i = 0; i < SPLIT_LINES; i++) {
        const char *b = blanks[i % 3];
        int pair = i / 3 % 500, rare = i / 3; /* two rare words for each pair of common ones */
        if (asprintf(&lines[i], "%sw%d%srare%d%sv%d\n", i % 2 ? b : "", pair % 40, b, rare, b, pair * 7 % 31) < 0) abort();
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
    const struct { enum elbo_tokenizer_kind kind; size_t size; } ways[] = {
        {ELBO_TOKENIZER_WORD, 74}, {ELBO_TOKENIZER_WORD, 50}, {ELBO_TOKENIZER_WORD, 4000}, {ELBO_TOKENIZER_BYTE, 300},
        {ELBO_TOKENIZER_BPE, 300},
    };
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        uint64_t content[2][3] = {{0}};
        for (unsigned order = 0; order < 2; order++) {
            size_t size;
            char *text = spelled(&size, 7 + order);
            struct elbo_prepare_options options = {.tokenizer_kind = ways[w].kind, .tokenizer_size = ways[w].size,
                                                   .split = ways[w].size == 50 ? "50/50/0" : "60/20/20"};
            elbo_status status = prepare(f, text, size, options);
            free(text);
            if (status) fail_msg("%s", f->error.message);
            check_parts(f, content[order]);
        }
        assert_memory_equal(content[0], content[1], sizeof content[0]); /* the order of the input does not matter */
    }
}

/* Every id of the vocabulary stands in the train part: it was learned from there. */
static void a_vocabulary_is_of_the_train_part(void **state)
{
    struct fixture *f = *state;
    size_t size;
    char *text = spelled(&size, 3), part[600];
    struct elbo_prepare_options options = {.tokenizer_kind = ELBO_TOKENIZER_WORD, .tokenizer_size = 100, .split = "60/20/20"};
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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(holds_what_the_text_held), TEST(lengths_are_counted), TEST(wide_ids),        TEST(bad_text_is_refused),
        TEST(damage_is_found),          TEST(a_split_is_by_content),
        TEST(a_split_is_by_ids), TEST(a_vocabulary_is_of_the_train_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
