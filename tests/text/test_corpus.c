/* A corpus holds the sentences of its text. A damaged, foreign or unfinished corpus is refused, whichever byte is
 * wrong. */
#include "elbo/corpus.h"
#include "base/sealed.h"
#include "text/corpus_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <xxhash.h>

#include "prepared.h"

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
    for (int i = 1; i <= 40; i++) { /* lengths 1 .. 40 out of order */
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

/* Writes corpus.bin and a manifest that agrees with corpus.bin, so that only the content can be wrong. */
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
    sprintf(forged, "%.*s" CORPUS_FILE "\": {\"bytes\": %zu, \"xxh3\": \"%016" PRIx64 "\"%s", (int)(entry - text), text,
            size, (uint64_t)XXH3_64bits(data, size), rest);
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
    /* damages every byte, and cuts at every length */
    for (size_t i = 0; i < size; i++) {
        memcpy(data, good, size);
        data[i] ^= 1;
        temporary_write(bin, data, size);
        refused(f, ELBO_INPUT, f->out);
        temporary_write(bin, good, i);
        refused(f, ELBO_INPUT, f->out);
    }
    /* The same with a manifest that agrees: nothing may be read out of bounds, and a wrong structure must be
     * refused. */
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
    struct {
        size_t at;
        const char *part;
    } places[] = {
        {header.stream[0].tokens_at + 1, "the vocabulary has 11"}, /* an id above 255 */
        {header.stream[0].offsets_at + 8 + 6, "do not fit its tokens"},
        {header.stream[0].offsets_at + 8 * header.sentences, "do not fit its tokens"},
        {header.words_at, "do not fit"},
        {header.bytes_at + 2, "do not fit"},
        {0, "is not a corpus"},
        {8, "this program reads version 1"},
        {12, "streams"},
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

/* ---- labels ---- */

/* Sets one member of a manifest and seals the manifest again. */
static void set_member(struct fixture *f, const char *key, json_t *value)
{
    char path[1024], *text;
    size_t size;
    snprintf(path, sizeof path, "%s/" CORPUS_MANIFEST, f->out);
    text = temporary_read(path, &size);
    json_t *root = json_loads(text, 0, NULL);
    free(text);
    json_object_del(root, "checksum");
    json_object_set_new(root, key, value);
    if (sealed_compose(&text, &size, root, "it", &f->error)) fail_msg("%s", f->error.message);
    temporary_write(path, text, size);
    json_decref(root);
    free(text);
}

static void labels_are_checked(void **state)
{
    struct fixture *f = *state;
    const struct {
        uint32_t values[4];
        size_t count;
        const char *json, *part;
    } cases[] = {
        {{0, 1, 1, 0}, 4, "{\"file\": \"labels.bin\", \"classes\": [\"bad\", \"good\"]}", NULL},
        {{0, 1, 2, 0}, 4, "{\"file\": \"labels.bin\", \"classes\": [\"bad\", \"good\"]}", "one of 2 classes"},
        {{0, 1, 1}, 3, "{\"file\": \"labels.bin\", \"classes\": [\"bad\", \"good\"]}", "for each of the 4 sentences"},
        {{0}, 4, "{\"file\": \"labels.bin\", \"classes\": []}", "without a file and classes"},
        {{0}, 4, "{\"file\": \"../labels.bin\", \"classes\": [\"x\"]}", "without a file and classes"},
        {{0}, 4, "{\"file\": \"manifest.json\", \"classes\": [\"x\"]}", "does not describe manifest.json"},
        {{0}, 4, "[]", "without a file and classes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[1024], hash[17], *text;
        size_t size;
        if (prepare(f, sample, sizeof sample - 1, WORD)) fail_msg("%s", f->error.message);
        snprintf(path, sizeof path, "%s/labels.bin", f->out);
        temporary_write(path, cases[i].values, cases[i].count * sizeof(uint32_t));
        snprintf(hash, sizeof hash, "%016" PRIx64,
                 (uint64_t)XXH3_64bits(cases[i].values, cases[i].count * sizeof(uint32_t)));
        snprintf(path, sizeof path, "%s/" CORPUS_MANIFEST, f->out);
        text = temporary_read(path, &size);
        json_t *root = json_loads(text, 0, NULL), *files = json_incref(json_object_get(root, "files"));
        json_object_set_new(files, "labels.bin",
                            json_pack("{s:I, s:s, s:[]}", "bytes", (json_int_t)(cases[i].count * sizeof(uint32_t)),
                                      "xxh3", hash, "chunks"));
        set_member(f, "files", files);
        set_member(f, "labels", json_loads(cases[i].json, 0, NULL));
        json_decref(root);
        free(text);
        struct elbo_corpus *corpus;
        if (cases[i].part) {
            refused(f, ELBO_INPUT, cases[i].part);
        } else {
            if (elbo_corpus_open(&corpus, f->out, &f->error)) fail_msg("%s", f->error.message);
            elbo_corpus_close(corpus);
        }
        /* a column that the manifest lists belongs to the corpus, and is replaced with it */
        if (prepare(f, sample, sizeof sample - 1, WORD)) fail_msg("%s", f->error.message);
        snprintf(path, sizeof path, "%s/labels.bin", f->out);
        assert_true(access(path, F_OK));
    }
}

/* A failed opening closes no file of the caller, and leaves no file open. */
static void a_failed_opening_keeps_to_its_own_files(void **state)
{
    struct fixture *f = *state;
    int before[2], after[2];
    struct elbo_corpus *corpus, *parts[ELBO_PREPARE_PARTS];
    size_t count;
    assert_int_equal(pipe(before), 0);
    if (prepare(f, sample, sizeof sample - 1, WORD)) fail_msg("%s", f->error.message);
    static const char *const names[] = {"nothing",    "corpus.bin",     "tokenizer.json",
                                        "corpus.bin", "tokenizer.json", "manifest.json"};
    for (int i = 0; i < 6; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", f->out, names[i]);
        if (i > 2) assert_int_equal(unlink(path), 0); /* then the corpus itself is refused */
        assert_true(elbo_corpus_open(&corpus, i > 2 ? f->out : path, &f->error) != ELBO_OK);
        assert_true(elbo_corpus_open_parts(parts, &count, i > 2 ? f->out : path, &f->error) != ELBO_OK);
        for (int fd = 0; fd <= before[1]; fd++) assert_true(fd > STDERR_FILENO ? true : fcntl(fd, F_GETFD) >= 0);
    }
    assert_int_equal(pipe(after), 0);
    assert_true(after[0] == before[1] + 1 && after[1] == before[1] + 2);
    for (int i = 0; i < 2; i++) close(before[i]), close(after[i]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(holds_what_the_text_held),
        TEST(lengths_are_counted),
        TEST(wide_ids),
        TEST(bad_text_is_refused),
        TEST(damage_is_found),
        TEST(labels_are_checked),
        TEST(a_failed_opening_keeps_to_its_own_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
