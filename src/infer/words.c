/* The tokenizer of a model's file: see words.h. */
#include "infer/words.h"

#include "base/utf8.h"
#include "infer/categories.h"
#include "text/bpe_word.h"

#include <stdlib.h>
#include <string.h>

static const char unknown_word[] = "<unk>", unknown_byte[] = "\xef\xbf\xbd";

/* Most bytes of all pieces together: far above any tokenizer, far below the size that merges of merges could reach. */
enum { MOST_BYTES = 64 << 20 };

struct infer_coder {
    const struct infer_words *words;
    struct strings list; /* the words; id = MARKS + number */
    struct bpe_rules rules;
    struct bpe_word word;
    struct elbo_text clean;
};

/* ---- opening ---- */

static elbo_status open_words(struct infer_coder *c, elbo_error *error)
{
    const struct infer_words *w = c->words;
    const char *bytes = (const char *)w->table + 4 * ((size_t)w->count + 1);
    for (uint32_t i = 0; i < w->count; i++) {
        uint32_t from = infer_u32(w->table + 4 * (size_t)i), to = infer_u32(w->table + 4 * ((size_t)i + 1)), number;
        ELBO_TRY(strings_insert(&c->list, &number, bytes + from, to - from, error));
        if (number != i) return elbo_fail(error, ELBO_INPUT, "word %u of its tokenizer stands there twice", i);
    }
    return ELBO_OK;
}

static elbo_status open_merges(struct infer_coder *c, elbo_error *error)
{
    const struct infer_words *w = c->words;
    ELBO_TRY(bpe_rules_open(&c->rules, error));
    for (uint32_t i = 0; i < w->count; i++) {
        const unsigned char *merge = w->table + 12 * (size_t)i;
        uint32_t left = infer_u32(merge) - MARKS, right = infer_u32(merge + 4) - MARKS;
        size_t n, m;
        if (left >= c->rules.pieces.count || right >= c->rules.pieces.count)
            return elbo_fail(error, ELBO_INPUT, "merge %u of its tokenizer is of pieces that are not there yet", i);
        strings_text(&c->rules.pieces, left, &n);
        strings_text(&c->rules.pieces, right, &m);
        if (c->rules.pieces.used + n + m > MOST_BYTES)
            return elbo_fail(error, ELBO_INPUT, "the pieces of its tokenizer are longer than %d bytes together",
                             MOST_BYTES);
        ELBO_TRY(bpe_add_rule(&c->rules, left, right, error));
        if (c->rules.rules[i].result != infer_u32(merge + 8) - MARKS)
            return elbo_fail(error, ELBO_INPUT, "merge %u of its tokenizer makes another piece than it says", i);
    }
    return ELBO_OK;
}

elbo_status infer_coder_open(struct infer_coder **out, const struct infer_file *f, elbo_error *error)
{
    struct infer_coder *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c) return elbo_fail(error, ELBO_MEMORY, "no memory for a tokenizer");
    c->words = &f->words;
    elbo_status status = f->words.kind == INFER_WORDS   ? open_words(c, error)
                         : f->words.kind == INFER_BYTES ? open_merges(c, error)
                                                        : ELBO_OK;
    if (status)
        infer_coder_close(c);
    else
        *out = c;
    return status;
}

void infer_coder_close(struct infer_coder *c)
{
    if (!c) return;
    strings_free(&c->list);
    bpe_rules_free(&c->rules);
    bpe_word_free(&c->word);
    elbo_text_free(&c->clean);
    free(c);
}

/* ---- GPT-2's expression:  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ ---- */

static size_t contraction(const char *text, size_t size)
{
    static const char *const ends[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t length = strlen(ends[i]);
        if (size >= length && !memcmp(text, ends[i], length)) return length;
    }
    return 0;
}

static enum category next(size_t *bytes, const char *text, size_t size)
{
    uint32_t code = 0;
    *bytes = utf8_next(&code, text, size);
    return category_of(code);
}

/* Returns the bytes of a run of characters of one category. */
static size_t run(enum category category, const char *text, size_t size)
{
    size_t at = 0, bytes;
    while (at < size && next(&bytes, text + at, size - at) == category) at += bytes;
    return at;
}

/* Returns the bytes of white space up to its last character, which belongs to the word behind it; a single one is a
 * word. */
static size_t spaces(const char *text, size_t size)
{
    size_t at = 0, last = 0, bytes;
    while (at < size && next(&bytes, text + at, size - at) == CATEGORY_SPACE) {
        last = at;
        at += bytes;
    }
    return at == size || !last ? at : last;
}

size_t infer_split_gpt2(const char *text, size_t size)
{
    size_t bytes, blank = *text == ' ', length = contraction(text, size);
    if (length) return length;
    if (blank == size) return size;
    enum category category = next(&bytes, text + blank, size - blank);
    if (category == CATEGORY_SPACE) return spaces(text, size);
    return blank + run(category, text + blank, size - blank);
}

/* ---- text to ids ---- */

static elbo_status encode_words(struct infer_coder *c, struct elbo_ids *ids, const char *text, size_t size,
                                elbo_error *error)
{
    for (size_t at = 0; at < size;) {
        while (at < size && is_space(text[at])) at++;
        size_t start = at;
        while (at < size && !is_space(text[at])) at++;
        if (at == start) break;
        uint32_t number = strings_find(&c->list, text + start, at - start);
        ELBO_TRY(ids_append(ids, number == STRINGS_NONE ? (uint32_t)MARK_UNKNOWN : MARKS + number, error));
    }
    return ELBO_OK;
}

static elbo_status encode_bytes(struct infer_coder *c, struct elbo_ids *ids, const char *text, size_t size,
                                elbo_error *error)
{
    bool split = c->words->split == INFER_GPT2;
    if (size > BPE_LONGEST)
        return elbo_fail(error, ELBO_INPUT, "a sentence of %zu bytes is too long; at most %u are encoded", size,
                         BPE_LONGEST);
    for (size_t at = 0, length; at < size; at += length) {
        length = split ? infer_split_gpt2(text + at, size - at) : 1;
        ELBO_TRY(bpe_encode_word(&c->word, &c->rules, ids, text + at, length, error));
    }
    return ELBO_OK;
}

elbo_status infer_encode_text(struct infer_coder *c, struct elbo_ids *ids, const char *text, size_t size,
                              elbo_error *error)
{
    size_t replaced, first;
    ids->count = 0;
    if (c->words->kind == INFER_IDS)
        return elbo_fail(error, ELBO_USAGE,
                         "the file has no tokenizer that this program knows, so it takes ids and gives ids");
    ELBO_TRY(elbo_text_repair(&c->clean, &replaced, &first, text, size, error));
    return c->words->kind == INFER_WORDS ? encode_words(c, ids, c->clean.text, c->clean.size, error)
                                         : encode_bytes(c, ids, c->clean.text, c->clean.size, error);
}

/* ---- ids to text ---- */

elbo_status infer_decode_text(const struct infer_coder *c, struct elbo_text *text, const uint32_t *ids, size_t count,
                              elbo_error *error)
{
    bool words = c->words->kind == INFER_WORDS;
    const struct strings *pieces = words ? &c->list : &c->rules.pieces;
    text->size = 0;
    ELBO_TRY(text_append(text, "", 0, error));
    for (size_t i = 0; i < count; i++) {
        const char *piece = words ? unknown_word : unknown_byte;
        size_t length = strlen(piece);
        if (ids[i] == MARK_START || ids[i] == MARK_END) continue;
        if (ids[i] >= MARKS + pieces->count)
            return elbo_fail(error, ELBO_INPUT, "id %u is none of the vocabulary", ids[i]);
        if (ids[i] >= MARKS) piece = strings_text(pieces, ids[i] - MARKS, &length);
        if (words && text->size) ELBO_TRY(text_append(text, " ", 1, error));
        ELBO_TRY(text_append(text, piece, length, error));
    }
    return ELBO_OK;
}
