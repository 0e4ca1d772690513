/* Tokenizers: decoding gives the text back, vocabularies follow their definition for any order of the text, byte pairs
 * are those of a naive implementation, hostile input takes n log n time, and damaged files are refused. */
#include "elbo/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>
#include <cmocka.h>

#include "temporary.h"

#include <sys/mman.h>

static elbo_error error;

static struct elbo_tokenizer *train(enum elbo_tokenizer_kind kind, size_t size, const char *const *lines, size_t count)
{
    struct elbo_tokenizer_trainer *trainer;
    struct elbo_tokenizer *tokenizer;
    if (elbo_tokenizer_trainer_open(&trainer, kind, size, &error)) fail_msg("%s", error.message);
    for (size_t i = 0; i < count; i++)
        if (elbo_tokenizer_trainer_add(trainer, lines[i], strlen(lines[i]), &error)) fail_msg("%s", error.message);
    if (elbo_tokenizer_trainer_finish(trainer, &tokenizer, &error)) fail_msg("%s", error.message);
    elbo_tokenizer_trainer_close(trainer);
    return tokenizer;
}

static struct elbo_ids encode(struct elbo_tokenizer *tokenizer, const char *text, size_t size)
{
    struct elbo_ids ids = {0};
    if (elbo_tokenizer_encode(tokenizer, &ids, text, size, &error)) fail_msg("%s", error.message);
    return ids;
}

static void assert_decodes(struct elbo_tokenizer *tokenizer, const struct elbo_ids *ids, const char *text, size_t size)
{
    struct elbo_text back = {0};
    assert_int_equal(elbo_tokenizer_decode(tokenizer, &back, ids->ids, ids->count, &error), ELBO_OK);
    assert_int_equal(back.size, size);
    assert_memory_equal(back.text, text, size);
    elbo_text_free(&back);
}

static const char *const lines[] = {
    "the cat sat on the mat",
    "the dog sat on the log , didn't it ?",
    "a cat and a dog",
    "the   the\tthe",
    "caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xf0\x9f\x98\x80 2024 3\xc2\xbd",
    " leading and trailing  ",
    "\xe1\xa0\x8e\xe2\x80\x83 odd \xc2\xa0 spaces \xe3\x80\x80",
};
enum { LINES = sizeof lines / sizeof *lines };

static void bytes_and_pairs_come_back(void **state)
{
    (void)state;
    const enum elbo_tokenizer_kind kinds[] = {ELBO_TOKENIZER_BYTE, ELBO_TOKENIZER_BPE};
    for (int k = 0; k < 2; k++) {
        struct elbo_tokenizer *tokenizer = train(kinds[k], 300, lines, LINES);
        for (size_t i = 0; i < LINES; i++) {
            struct elbo_ids ids = encode(tokenizer, lines[i], strlen(lines[i]));
            assert_decodes(tokenizer, &ids, lines[i], strlen(lines[i]));
            for (size_t t = 0; t < ids.count; t++)
                assert_true(ids.ids[t] >= 3 && ids.ids[t] < elbo_tokenizer_vocabulary(tokenizer));
            elbo_ids_free(&ids);
        }
        struct elbo_ids ids = encode(tokenizer, "a\0b", 3);
        assert_decodes(tokenizer, &ids, "a\0b", 3);
        ids.count = 0;
        struct elbo_ids none = encode(tokenizer, "", 0);
        assert_int_equal(none.count, 0);
        elbo_ids_free(&ids);
        elbo_ids_free(&none);
        elbo_tokenizer_close(tokenizer);
    }
}

static void words_are_by_frequency_then_bytes(void **state)
{
    (void)state;
    /* the 7, a 2, cat 2, dog 2, on 2, sat 2, and 2: ties by bytes */
    struct elbo_tokenizer *tokenizer = train(ELBO_TOKENIZER_WORD, 3 + 5, lines, LINES);
    assert_int_equal(elbo_tokenizer_vocabulary(tokenizer), 8);
    const struct elbo_marks *marks = elbo_tokenizer_marks(tokenizer);
    struct elbo_ids ids = encode(tokenizer, " the a and cat\tdog sat  on xyz <unk> ", 37);
    const uint32_t expected[] = {3, 4, 5, 6, 7, marks->unknown, marks->unknown, marks->unknown, marks->unknown};
    assert_int_equal(ids.count, 9);
    assert_memory_equal(ids.ids, expected, sizeof expected);
    assert_decodes(tokenizer, &ids, "the a and cat dog <unk> <unk> <unk> <unk>", 41);
    elbo_ids_free(&ids);
    elbo_tokenizer_close(tokenizer);
    /* fewer words than the size allows */
    tokenizer = train(ELBO_TOKENIZER_WORD, 8000, lines, 1);
    assert_int_equal(elbo_tokenizer_vocabulary(tokenizer), 3 + 5);
    elbo_tokenizer_close(tokenizer);
}

static char *saved(struct elbo_tokenizer *tokenizer, const char *path)
{
    size_t size;
    if (elbo_tokenizer_save(tokenizer, path, &error)) fail_msg("%s", error.message);
    return temporary_read(path, &size);
}

static void order_of_the_text_does_not_matter(void **state)
{
    (void)state;
    struct temporary folder = temporary_open();
    char path[512];
    temporary_path(path, &folder, "tokenizer.json");
    const char *backwards[LINES];
    for (size_t i = 0; i < LINES; i++) backwards[i] = lines[LINES - 1 - i];
    for (int kind = ELBO_TOKENIZER_WORD; kind <= ELBO_TOKENIZER_BPE; kind++) {
        struct elbo_tokenizer *one = train(kind, 290, lines, LINES), *two = train(kind, 290, backwards, LINES);
        char *a = saved(one, path), *b = saved(two, path);
        assert_string_equal(a, b);
        free(a);
        free(b);
        elbo_tokenizer_close(one);
        elbo_tokenizer_close(two);
    }
    temporary_remove(folder.path);
}

static void files_give_the_same_tokenizer(void **state)
{
    (void)state;
    struct temporary folder = temporary_open();
    char path[512];
    temporary_path(path, &folder, "tokenizer.json");
    for (int kind = ELBO_TOKENIZER_BYTE; kind <= ELBO_TOKENIZER_BPE; kind++) {
        struct elbo_tokenizer *one = train(kind, 290, lines, LINES), *two;
        free(saved(one, path));
        if (elbo_tokenizer_load(&two, path, &error)) fail_msg("%s", error.message);
        assert_int_equal(elbo_tokenizer_vocabulary(one), elbo_tokenizer_vocabulary(two));
        assert_int_equal(elbo_tokenizer_kind(two), kind);
        for (size_t i = 0; i < LINES; i++) {
            struct elbo_ids a = encode(one, lines[i], strlen(lines[i])), b = encode(two, lines[i], strlen(lines[i]));
            assert_int_equal(a.count, b.count);
            assert_memory_equal(a.ids, b.ids, a.count * sizeof *a.ids);
            elbo_ids_free(&a);
            elbo_ids_free(&b);
        }
        elbo_tokenizer_close(two);
        if (elbo_tokenizer_find(&two, folder.path, &error)) fail_msg("%s", error.message);
        elbo_tokenizer_close(two);
        elbo_tokenizer_close(one);
    }
    temporary_remove(folder.path);
}

static void assert_refused(const char *path, const char *text, const char *part)
{
    struct elbo_tokenizer *tokenizer;
    temporary_write(path, text, strlen(text));
    error.message[0] = 0;
    if (elbo_tokenizer_load(&tokenizer, path, &error) != ELBO_INPUT) fail_msg("accepted: %s", text);
    if (!strstr(error.message, part)) fail_msg("'%s' is not in: %s", part, error.message);
    if (!strstr(error.message, path)) fail_msg("no path in: %s", error.message);
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    struct temporary folder = temporary_open();
    char path[512], text[1024];
    temporary_path(path, &folder, "tokenizer.json");
#define HEAD "{\"format\":\"elbo-tokenizer\",\"version\":%s,\"marks\":{\"start\":0,\"end\":1,\"unknown\":2},"
    const char *const wrong[][3] = {
        {"1", "\"kind\":\"word\",\"vocabulary\":5,\"words\":[\"a\",\"a\"]}", "stands twice"},
        {"1", "\"kind\":\"word\",\"vocabulary\":5,\"words\":[\"a\",\"b c\"]}", "not a word"},
        {"1", "\"kind\":\"word\",\"vocabulary\":5,\"words\":[\"a\",7]}", "not a word"},
        {"1", "\"kind\":\"word\",\"vocabulary\":6,\"words\":[\"a\",\"b\"]}", "says 6 ids and holds 5"},
        {"1", "\"kind\":\"word\",\"vocabulary\":5}", "no list of words"},
        {"1", "\"kind\":\"bpe\",\"vocabulary\":260,\"merges\":[[\"a\",\"bc\"]]}", "merge 0"},
        {"1", "\"kind\":\"bpe\",\"vocabulary\":260,\"merges\":[[\"a\"]]}", "merge 0"},
        {"1", "\"kind\":\"bpe\",\"vocabulary\":260,\"merges\":[[\"a\",\"b\"],[\"a\",\"b\"]]}", "stands twice"},
        {"1", "\"kind\":\"nope\"}", "unknown kind 'nope'"},
        {"2", "\"kind\":\"byte\",\"vocabulary\":259}", "version 2"},
        {"1", "\"kind\":\"byte\",\"vocabulary\":259", "truncated"},
        {"1", "\"kind\":\"byte\",\"kind\":\"byte\",\"vocabulary\":259}", "duplicate"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int size = snprintf(text, sizeof text, HEAD, wrong[i][0]);
        snprintf(text + size, sizeof text - (size_t)size, "%s", wrong[i][1]);
        assert_refused(path, text, wrong[i][2]);
    }
    assert_refused(path, "", "truncated");
    assert_refused(path, "{\"version\":\"1.0\",\"model\":{}}", "not a tokenizer of elbo");
    assert_refused(path, "[]", "not a tokenizer of elbo");
    temporary_remove(folder.path);
    struct elbo_tokenizer *byte = train(ELBO_TOKENIZER_BYTE, 0, NULL, 0);
    struct elbo_text back = {0};
    assert_int_equal(elbo_tokenizer_decode(byte, &back, (uint32_t[]){3, 259}, 2, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "259"));
    elbo_text_free(&back);
    elbo_tokenizer_close(byte);
    struct elbo_tokenizer_trainer *trainer;
    assert_int_equal(elbo_tokenizer_trainer_open(&trainer, ELBO_TOKENIZER_BPE, 258, &error), ELBO_USAGE);
    assert_int_equal(elbo_tokenizer_trainer_open(&trainer, ELBO_TOKENIZER_WORD, 3, &error), ELBO_USAGE);
}

/* ---- byte pairs against a naive implementation: count, take the best pair, merge everywhere ---- */

enum { WORDS = 60, LONGEST = 12, MERGES = 60 };

struct naive {
    int symbols[WORDS][LONGEST], length[WORDS];
    char pieces[256 + MERGES][LONGEST + 1];
    int count;
};

static void naive_train(struct naive *n, const char words[WORDS][LONGEST + 1])
{
    memset(n, 0, sizeof *n);
    n->count = 256;
    for (int b = 0; b < 256; b++) n->pieces[b][0] = (char)b;
    for (int w = 0; w < WORDS; w++)
        for (n->length[w] = 0; words[w][n->length[w]]; n->length[w]++)
            n->symbols[w][n->length[w]] = (unsigned char)words[w][n->length[w]];
    while (n->count < 256 + MERGES) {
        int best = 1, left = 0, right = 0;
        static int counts[256 + MERGES][256 + MERGES];
        memset(counts, 0, sizeof counts);
        for (int w = 0; w < WORDS; w++)
            for (int i = 0; i + 1 < n->length[w]; i++) counts[n->symbols[w][i]][n->symbols[w][i + 1]]++;
        for (int a = 0; a < n->count; a++)
            for (int b = 0; b < n->count; b++)
                if (counts[a][b] > best) best = counts[a][b], left = a, right = b;
        if (best < 2) break;
        char piece[2 * LONGEST + 1];
        snprintf(piece, sizeof piece, "%s%s", n->pieces[left], n->pieces[right]);
        int result = n->count;
        for (int p = 256; p < n->count; p++)
            if (!strcmp(n->pieces[p], piece)) result = p;
        if (result == n->count) strcpy(n->pieces[n->count++], piece);
        for (int w = 0; w < WORDS; w++) {
            int out = 0;
            for (int i = 0; i < n->length[w]; out++)
                if (i + 1 < n->length[w] && n->symbols[w][i] == left && n->symbols[w][i + 1] == right)
                    n->symbols[w][out] = result, i += 2;
                else
                    n->symbols[w][out] = n->symbols[w][i++];
            n->length[w] = out;
        }
    }
}

static void pairs_are_those_of_a_naive_trainer(void **state)
{
    (void)state;
    uint32_t random = 1;
    for (int trial = 0; trial < 20; trial++) {
        char words[WORDS][LONGEST + 1] = {{0}};
        const char *pointers[WORDS];
        int letters = 2 + trial % 4; /* few letters give many overlaps such as aaaa */
        for (int w = 0; w < WORDS; w++) {
            int length = 1 + (int)((random = random * 1664525u + 1013904223u) >> 24) % LONGEST;
            for (int i = 0; i < length; i++)
                words[w][i] = (char)('a' + (int)((random = random * 1664525u + 1013904223u) >> 24) % letters);
            pointers[w] = words[w];
        }
        static struct naive naive;
        naive_train(&naive, words);
        struct elbo_tokenizer *tokenizer = train(ELBO_TOKENIZER_BPE, 3 + 256 + MERGES, pointers, WORDS);
        assert_int_equal(elbo_tokenizer_vocabulary(tokenizer), 3 + naive.count);
        for (int id = 256; id < naive.count; id++) {
            struct elbo_text text = {0};
            assert_int_equal(elbo_tokenizer_decode(tokenizer, &text, &(uint32_t){3 + (uint32_t)id}, 1, &error),
                             ELBO_OK);
            assert_string_equal(text.text, naive.pieces[id]);
            elbo_text_free(&text);
        }
        elbo_tokenizer_close(tokenizer);
    }
}

static void lowest_rank_first(void **state)
{
    (void)state;
    /* ranks: (a,b) before (b,c) before (ab,c) */
    struct temporary folder = temporary_open();
    char path[512];
    const char text[] = "{\"format\":\"elbo-tokenizer\",\"version\":1,\"marks\":{\"start\":0,\"end\":1,\"unknown\":2},"
                        "\"kind\":\"bpe\",\"vocabulary\":263,\"merges\":[[\"a\",\"b\"],[\"b\",\"c\"],[\"ab\",\"bc\"],"
                        "[\"\xc4\xa0\",\"a\"]]}";
    struct elbo_tokenizer *tokenizer;
    temporary_write(temporary_path(path, &folder, "t.json"), text, sizeof text - 1);
    if (elbo_tokenizer_load(&tokenizer, path, &error)) fail_msg("%s", error.message);
    struct elbo_ids ids = encode(tokenizer, "abc abbc a's", 12);
    const uint32_t expected[] = {259, 3 + 'c', 3 + ' ', 261, 262, 3 + '\'', 3 + 's'};
    assert_int_equal(ids.count, sizeof expected / sizeof *expected);
    assert_memory_equal(ids.ids, expected, sizeof expected);
    elbo_ids_free(&ids);
    elbo_tokenizer_close(tokenizer);
    temporary_remove(folder.path);
}

/* One endless word, on which a quadratic implementation takes minutes. The bound leaves room for slow sanitized
 * builds. */
static void hostile_text_takes_n_log_n(void **state)
{
    (void)state;
    size_t size = 1 << 20;
    char *text = malloc(size + 1);
    text[size] = 0;
    clock_t begun = clock();
    for (int pattern = 0; pattern < 3; pattern++) {
        uint32_t random = 1;
        for (size_t i = 0; i < size; i++)
            text[i] = pattern == 0   ? 'a'
                      : pattern == 1 ? ' '
                                     : (char)('a' + ((random = random * 1664525u + 1013904223u) >> 31));
        struct elbo_tokenizer *tokenizer = train(ELBO_TOKENIZER_BPE, 2000, (const char *const *)&text, 1);
        struct elbo_ids ids = encode(tokenizer, text, size);
        assert_decodes(tokenizer, &ids, text, size);
        assert_true(ids.count < size / 4);
        elbo_ids_free(&ids);
        elbo_tokenizer_close(tokenizer);
    }
    assert_true((double)(clock() - begun) / CLOCKS_PER_SEC < 40);
    free(text);
}

static void ill_formed_text_is_repaired(void **state)
{
    (void)state;
    const char *const cases[][2] = {
        {"plain caf\xc3\xa9", "plain caf\xc3\xa9"},
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xe6\x97", "\xef\xbf\xbd"},                                             /* cut off: one replacement mark */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 /* a surrogate: three marks */
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                                 /* overlong */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* above U+10FFFF */
        {"\xf0\x9f\x98 x", "\xef\xbf\xbd x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct elbo_text out = {0};
        size_t replaced, bad, size = strlen(cases[i][0]);
        assert_int_equal(elbo_text_repair(&out, &replaced, &bad, cases[i][0], size, &error), ELBO_OK);
        assert_string_equal(out.text, cases[i][1]);
        assert_int_equal(i == 0, replaced == 0);
        if (i == 0) assert_int_equal(bad, size);
        elbo_text_free(&out);
    }
    struct elbo_tokenizer *tokenizer = train(ELBO_TOKENIZER_BPE, 300, lines, LINES);
    struct elbo_ids ids = {0};
    assert_int_equal(elbo_tokenizer_encode(tokenizer, &ids, "ab\xff", 3, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "byte 3"));
    elbo_ids_free(&ids);
    elbo_tokenizer_close(tokenizer);
    assert_int_equal(elbo_text_words("  two words\t", 12), 2);
    assert_int_equal(elbo_text_words(" \t ", 3), 0);
}

/* A text of a given size is read to its end and no byte further: it ends where readable memory ends. */
static void nothing_behind_the_text_is_read(void **state)
{
    (void)state;
    enum { PAGE = 4096, MOST = 12 };
    char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED && !mprotect(pages + PAGE, PAGE, PROT_NONE));
    static const char text[] = "a b \t \xe2\x82\xac \xf0\x9f\x98\x80 \xef\xbb\xbf\xef\xbc\x81 the \xe2\x82";
    const enum elbo_tokenizer_kind kinds[] = {ELBO_TOKENIZER_WORD, ELBO_TOKENIZER_BYTE, ELBO_TOKENIZER_BPE};
    struct elbo_tokenizer *tokenizers[3];
    for (int k = 0; k < 3; k++) tokenizers[k] = train(kinds[k], 300, lines, LINES);
    for (size_t from = 0; from < sizeof text - 1; from++)
        for (size_t size = 0; size <= MOST && from + size < sizeof text; size++) {
            char *here = pages + PAGE - size;
            struct elbo_text apart = {0}, end = {0};
            size_t replaced[2], first[2];
            memcpy(here, text + from, size);
            assert_int_equal(elbo_text_repair(&apart, &replaced[0], &first[0], text + from, size, &error), ELBO_OK);
            assert_int_equal(elbo_text_repair(&end, &replaced[1], &first[1], here, size, &error), ELBO_OK);
            assert_non_null(end.text); /* also for a text of no bytes */
            assert_string_equal(end.text, apart.text);
            assert_true(replaced[0] == replaced[1] && first[0] == first[1]);
            memcpy(here = pages + PAGE - end.size, end.text, end.size);
            for (int k = 0; k < 3; k++) {
                struct elbo_ids a = encode(tokenizers[k], apart.text, apart.size),
                                b = encode(tokenizers[k], here, end.size);
                assert_int_equal(a.count, b.count);
                if (a.count) assert_memory_equal(a.ids, b.ids, a.count * sizeof *a.ids);
                elbo_ids_free(&a);
                elbo_ids_free(&b);
            }
            elbo_text_free(&apart);
            elbo_text_free(&end);
        }
    for (int k = 0; k < 3; k++) elbo_tokenizer_close(tokenizers[k]);
    munmap(pages, 2 * PAGE);
}

/* Ids from 0 to the vocabulary's last are text or a mark; the next id is refused. */
static void every_id_and_none_beyond(void **state)
{
    (void)state;
    const enum elbo_tokenizer_kind kinds[] = {ELBO_TOKENIZER_WORD, ELBO_TOKENIZER_BYTE, ELBO_TOKENIZER_BPE};
    for (int k = 0; k < 3; k++) {
        struct elbo_tokenizer *tokenizer = train(kinds[k], 270, lines, LINES);
        uint32_t beyond = (uint32_t)elbo_tokenizer_vocabulary(tokenizer);
        if (kinds[k] == ELBO_TOKENIZER_BPE)
            assert_int_equal(beyond, 270); /* as many as requested, if the text has as many pairs */
        struct elbo_text text = {0};
        for (uint32_t id = 0; id < beyond; id++) {
            assert_int_equal(elbo_tokenizer_decode(tokenizer, &text, &id, 1, &error), ELBO_OK);
            assert_true(id < 2 ? text.size == 0 : text.size > 0);
            if (id == 2) assert_string_equal(text.text, kinds[k] == ELBO_TOKENIZER_WORD ? "<unk>" : "\xef\xbf\xbd");
        }
        assert_int_equal(elbo_tokenizer_decode(tokenizer, &text, &beyond, 1, &error), ELBO_INPUT);
        elbo_text_free(&text);
        elbo_tokenizer_close(tokenizer);
    }
}

/* Sizes up to 2^30 are accepted; the text of the unknown mark is not a word of the vocabulary. */
static void sizes_and_the_unknown(void **state)
{
    (void)state;
    struct elbo_tokenizer_trainer *trainer;
    const enum elbo_tokenizer_kind kinds[] = {ELBO_TOKENIZER_WORD, ELBO_TOKENIZER_BPE};
    for (int k = 0; k < 2; k++) {
        assert_int_equal(elbo_tokenizer_trainer_open(&trainer, kinds[k], ((size_t)1 << 30) + 1, &error), ELBO_USAGE);
        if (elbo_tokenizer_trainer_open(&trainer, kinds[k], (size_t)1 << 30, &error)) fail_msg("%s", error.message);
        elbo_tokenizer_trainer_close(trainer);
    }
    static const char *const with[] = {"the <unk> cat <unk> <unk", "<unk> <unk>> unk"};
    struct elbo_tokenizer *tokenizer = train(ELBO_TOKENIZER_WORD, 300, with, 2);
    assert_int_equal(elbo_tokenizer_vocabulary(tokenizer), 3 + 5);
    struct elbo_ids ids = encode(tokenizer, "<unk> <unk <unk>>", 17);
    assert_int_equal(ids.count, 3);
    assert_true(ids.ids[0] == 2 && ids.ids[1] > 2 && ids.ids[2] > 2);
    elbo_ids_free(&ids);
    elbo_tokenizer_close(tokenizer);
}

/* Any two bytes that occur together twice are merged, wherever they fall in a table of pairs. */
static void every_pair_is_learned(void **state)
{
    (void)state;
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (const char *a = letters; *a; a++)
        for (const char *b = letters; *b; b++) {
            const char word[] = {*a, *b, 0}, *const twice[] = {word, word};
            struct elbo_tokenizer *tokenizer = train(ELBO_TOKENIZER_BPE, 300, twice, 2);
            if (elbo_tokenizer_vocabulary(tokenizer) != 3 + 256 + 1) fail_msg("%s is not merged", word);
            elbo_tokenizer_close(tokenizer);
        }
}

/* More merges than the table of rules holds at first and after growing twice, with pairs of zero bytes; saved and read
 * again. */
static void many_merges(void **state)
{
    (void)state;
    enum { MANY = 4000, SIZE = 4700 };
    struct temporary folder = temporary_open();
    char path[512], *text = malloc(2 * (MANY * 10 + 8)), *end = text;
    unsigned random = 1;
    for (int i = 0; i < MANY; i++) {
        for (int c = 0; c < 9; c++) *end++ = (char)('a' + ((random = random * 1664525u + 1013904223u) >> 24) % 26);
        *end++ = ' ';
    }
    memset(end, 0, 8);
    end += 8;
    memcpy(end, text, (size_t)(end - text)); /* a pair that occurs once is not merged */
    end += end - text;
    struct elbo_tokenizer_trainer *trainer;
    struct elbo_tokenizer *made, *read;
    if (elbo_tokenizer_trainer_open(&trainer, ELBO_TOKENIZER_BPE, SIZE, &error)) fail_msg("%s", error.message);
    assert_int_equal(elbo_tokenizer_trainer_add(trainer, text, (size_t)(end - text), &error), ELBO_OK);
    assert_int_equal(elbo_tokenizer_trainer_finish(trainer, &made, &error), ELBO_OK);
    elbo_tokenizer_trainer_close(trainer);
    assert_true(elbo_tokenizer_vocabulary(made) > 3 + 256 + 4096);
    temporary_path(path, &folder, "tokenizer.json");
    assert_int_equal(elbo_tokenizer_save(made, path, &error), ELBO_OK);
    if (elbo_tokenizer_load(&read, path, &error)) fail_msg("%s", error.message);
    assert_int_equal(elbo_tokenizer_vocabulary(read), elbo_tokenizer_vocabulary(made));
    struct elbo_ids a = encode(made, text, (size_t)(end - text)), b = encode(read, text, (size_t)(end - text));
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.ids, b.ids, a.count * sizeof *a.ids);
    assert_true(a.count < (size_t)(end - text) / 2);
    assert_decodes(read, &b, text, (size_t)(end - text));
    elbo_ids_free(&a);
    elbo_ids_free(&b);
    elbo_tokenizer_close(made);
    elbo_tokenizer_close(read);
    free(text);
    temporary_remove(folder.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_and_pairs_come_back),
        cmocka_unit_test(words_are_by_frequency_then_bytes),
        cmocka_unit_test(order_of_the_text_does_not_matter),
        cmocka_unit_test(files_give_the_same_tokenizer),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(pairs_are_those_of_a_naive_trainer),
        cmocka_unit_test(lowest_rank_first),
        cmocka_unit_test(hostile_text_takes_n_log_n),
        cmocka_unit_test(nothing_behind_the_text_is_read),
        cmocka_unit_test(every_id_and_none_beyond),
        cmocka_unit_test(sizes_and_the_unknown),
        cmocka_unit_test(many_merges),
        cmocka_unit_test(every_pair_is_learned),
        cmocka_unit_test(ill_formed_text_is_repaired),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
