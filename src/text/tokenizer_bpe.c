/* The byte-level BPE tokenizer: id = MARKS + piece number. GPT-2's pattern cuts text into words. Each word is merged on
 * its own by the rules of bpe.h through a queue, so a word of n letters takes O(n log n) time.
 *
 * tokenizer.json holds the merges as pairs of strings in GPT-2's alphabet: the printable bytes of Latin-1 stand for
 * themselves, and the other 68 bytes for U+0100 and up, so that every byte string is valid text. */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "base/utf8.h"
#include "text/bpe_word.h"
#include "text/tokenizer.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* White space is spelled out, because PCRE2's \s includes U+180E and the engines of other tokenizers exclude it. */
#define SPACE "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

static const char pattern_text[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+"
                                   "|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+";

struct cutter {
    pcre2_code *pattern;
    pcre2_match_data *match;
};

struct bpe {
    struct bpe_rules rules;
    struct cutter cutter;
    struct bpe_word word;
};

struct training {
    struct cutter cutter;
    struct strings words;
    size_t size;
};

/* ---- cutting text into words ---- */

static elbo_status cutter_open(struct cutter *cutter, elbo_error *error)
{
    int number;
    PCRE2_SIZE place;
    cutter->pattern =
        pcre2_compile((PCRE2_SPTR)pattern_text, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &number, &place, NULL);
    cutter->match = cutter->pattern ? pcre2_match_data_create_from_pattern(cutter->pattern, NULL) : NULL;
    if (!cutter->match && (cutter->pattern || number == PCRE2_ERROR_HEAP_FAILED))
        return elbo_fail(error, ELBO_MEMORY, "no memory for the tokenizer's pattern");
    if (!cutter->match) return elbo_fail(error, ELBO_INTERNAL, "the tokenizer's pattern was refused (%d)", number);
    pcre2_jit_compile(cutter->pattern, PCRE2_JIT_COMPLETE); /* without it, matching is only slower */
    return ELBO_OK;
}

static void cutter_close(struct cutter *cutter)
{
    pcre2_match_data_free(cutter->match);
    pcre2_code_free(cutter->pattern);
}

/* Finds the length of the word at `at`. The text is known to be valid UTF-8, so the match does not check it again. */
static elbo_status cut(const struct cutter *cutter, size_t *length, const char *text, size_t size, size_t at,
                       elbo_error *error)
{
    int found = pcre2_match(cutter->pattern, (PCRE2_SPTR)text, size, at, PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK,
                            cutter->match, NULL);
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(cutter->match);
    if (found == PCRE2_ERROR_NOMEMORY)
        return elbo_fail(error, ELBO_MEMORY, "no memory to find the words of a sentence");
    if (found < 0 || bounds[1] <= at)
        return elbo_fail(error, ELBO_INTERNAL, "the tokenizer found no word at byte %zu (%d)", at, found);
    *length = bounds[1] - at;
    return ELBO_OK;
}

/* ---- encoding ---- */

static elbo_status encode(void *self, struct elbo_ids *ids, const char *text, size_t size, elbo_error *error)
{
    struct bpe *bpe = self;
    if (size > BPE_LONGEST)
        return elbo_fail(error, ELBO_INPUT,
                         "a sentence of %zu bytes is too long; at most %u are encoded: give a sentence a "
                         "line",
                         size, BPE_LONGEST);
    size_t good = utf8_valid(text, size);
    if (good != size)
        return elbo_fail(error, ELBO_INPUT, "byte %zu of the text is not valid UTF-8; repair the text first", good + 1);
    for (size_t at = 0, length; at < size; at += length) {
        ELBO_TRY(cut(&bpe->cutter, &length, text, size, at, error));
        ELBO_TRY(bpe_encode_word(&bpe->word, &bpe->rules, ids, text + at, length, error));
    }
    return ELBO_OK;
}

static elbo_status decode(const void *self, struct elbo_text *text, const uint32_t *ids, size_t count,
                          elbo_error *error)
{
    const struct bpe *bpe = self;
    for (size_t i = 0; i < count; i++) {
        size_t length;
        if (ids[i] >= MARKS) {
            const char *piece = strings_text(&bpe->rules.pieces, ids[i] - MARKS, &length);
            ELBO_TRY(text_append(text, piece, length, error));
        } else if (ids[i] == MARK_UNKNOWN) {
            ELBO_TRY(text_append(text, "\xef\xbf\xbd", 3, error));
        }
    }
    return ELBO_OK;
}

static size_t vocabulary(const void *self)
{
    return MARKS + ((const struct bpe *)self)->rules.pieces.count;
}

static void close_bpe(void *self)
{
    struct bpe *bpe = self;
    if (!bpe) return;
    bpe_rules_free(&bpe->rules);
    cutter_close(&bpe->cutter);
    bpe_word_free(&bpe->word);
    free(bpe);
}

static elbo_status open_bpe(struct bpe **out, elbo_error *error)
{
    struct bpe *bpe = calloc(1, sizeof *bpe);
    if (!bpe) return elbo_fail(error, ELBO_MEMORY, "no memory for a tokenizer");
    elbo_status status = cutter_open(&bpe->cutter, error);
    if (status == ELBO_OK) status = bpe_rules_open(&bpe->rules, error);
    if (status == ELBO_OK)
        *out = bpe;
    else
        close_bpe(bpe);
    return status;
}

/* ---- files ---- */

/* Computes GPT-2's alphabet: the character of each byte. */
static void alphabet(uint32_t character[256])
{
    uint32_t spare = 0x100;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
        character[byte] = itself ? byte : spare++;
    }
}

static json_t *piece_json(const struct bpe_rules *rules, const uint32_t character[256], uint32_t number)
{
    size_t size;
    const char *bytes = strings_text(&rules->pieces, number, &size);
    char *text = malloc(2 * size + 4), *end = text;
    if (!text) return NULL;
    for (size_t i = 0; i < size; i++) end += utf8_put(end, character[(unsigned char)bytes[i]]);
    json_t *json = json_stringn(text, (size_t)(end - text));
    free(text);
    return json;
}

static elbo_status save(const void *self, json_t *object, elbo_error *error)
{
    const struct bpe_rules *rules = &((const struct bpe *)self)->rules;
    uint32_t character[256];
    alphabet(character);
    json_t *list = json_array();
    if (json_object_set_new(object, "merges", list)) return elbo_fail(error, ELBO_MEMORY, "no memory for the merges");
    for (size_t i = 0; i < rules->count; i++) {
        json_t *pair = json_array();
        if (json_array_append_new(list, pair) ||
            json_array_append_new(pair, piece_json(rules, character, rules->rules[i].left)) ||
            json_array_append_new(pair, piece_json(rules, character, rules->rules[i].right)))
            return elbo_fail(error, ELBO_MEMORY, "no memory for the merges");
    }
    return ELBO_OK;
}

/* Returns the number of the piece that `entry` spells, or BPE_NONE; sets `*starved` if memory ran out. */
static uint32_t piece_of(bool *starved, const struct bpe_rules *rules, const int16_t byte_of[512], const json_t *entry)
{
    const char *text = json_string_value(entry);
    size_t size = json_string_length(entry), used = 0;
    char *bytes = text ? malloc(size + 1) : NULL;
    *starved |= text && !bytes;
    if (!bytes) return BPE_NONE;
    uint32_t number = BPE_NONE, code = 0;
    size_t at = 0;
    for (size_t n; at < size && (n = utf8_next(&code, text + at, size - at)); at += n) {
        if (code >= 512 || byte_of[code] < 0) break;
        bytes[used++] = (char)byte_of[code];
    }
    if (at == size) number = strings_find(&rules->pieces, bytes, used);
    free(bytes);
    return number;
}

static elbo_status load_merges(struct bpe_rules *rules, const json_t *list, elbo_error *error)
{
    uint32_t character[256];
    int16_t byte_of[512];
    alphabet(character);
    for (size_t i = 0; i < 512; i++) byte_of[i] = -1;
    for (int16_t byte = 0; byte < 256; byte++) byte_of[character[byte]] = byte;
    if (!json_is_array(list)) return elbo_fail(error, ELBO_INPUT, "is damaged: it has no list of merges");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        bool starved = false;
        uint32_t left = piece_of(&starved, rules, byte_of, json_array_get(pair, 0));
        uint32_t right = piece_of(&starved, rules, byte_of, json_array_get(pair, 1));
        if (starved) return elbo_fail(error, ELBO_MEMORY, "no memory to read merge %zu", i);
        if (json_array_size(pair) != 2 || left == BPE_NONE || right == BPE_NONE)
            return elbo_fail(error, ELBO_INPUT, "is damaged: merge %zu does not join two pieces made before it", i);
        ELBO_TRY(bpe_add_rule(rules, left, right, error));
    }
    return ELBO_OK;
}

static elbo_status load(void **self, const json_t *object, elbo_error *error)
{
    struct bpe *bpe;
    ELBO_TRY(open_bpe(&bpe, error));
    elbo_status status = load_merges(&bpe->rules, json_object_get(object, "merges"), error);
    if (status == ELBO_OK)
        *self = bpe;
    else
        close_bpe(bpe);
    return status;
}

/* ---- training ---- */

static void train_close(void *self)
{
    struct training *training = self;
    if (!training) return;
    cutter_close(&training->cutter);
    strings_free(&training->words);
    free(training);
}

static elbo_status train_open(void **out, size_t size, elbo_error *error)
{
    struct training *training = calloc(1, sizeof *training);
    if (!training) return elbo_fail(error, ELBO_MEMORY, "no memory for a tokenizer");
    training->size = size;
    elbo_status status = cutter_open(&training->cutter, error);
    if (status == ELBO_OK)
        *out = training;
    else
        train_close(training);
    return status;
}

static elbo_status train_add(void *self, const char *text, size_t size, elbo_error *error)
{
    struct training *training = self;
    for (size_t at = 0, length; at < size; at += length) {
        ELBO_TRY(cut(&training->cutter, &length, text, size, at, error));
        uint32_t number;
        ELBO_TRY(strings_insert(&training->words, &number, text + at, length, error));
        training->words.counts[number]++;
    }
    return ELBO_OK;
}

static elbo_status train_finish(void *self, void **out, elbo_error *error)
{
    struct training *training = self;
    struct bpe *bpe;
    ELBO_TRY(open_bpe(&bpe, error));
    elbo_status status = bpe_train(&bpe->rules, &training->words, training->size - MARKS, error);
    if (status == ELBO_OK)
        *out = bpe;
    else
        close_bpe(bpe);
    return status;
}

const struct tokenizer_ops tokenizer_bpe = {
    .kind = ELBO_TOKENIZER_BPE,
    .name = "bpe",
    .smallest = MARKS + 256,
    .encode = encode,
    .decode = decode,
    .vocabulary = vocabulary,
    .save = save,
    .load = load,
    .close = close_bpe,
    .train_open = train_open,
    .train_add = train_add,
    .train_finish = train_finish,
    .train_close = train_close,
};
