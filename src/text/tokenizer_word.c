/* The word tokenizer: splits at ASCII white space. The most frequent words (ties by their bytes) have ids from MARKS
 * on; all other words are the unknown mark. The word "<unk>", which some published corpora hold, is the unknown mark
 * too. */
#include "text/strings.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static const char unknown_text[] = "<unk>";

struct words {
    struct strings strings; /* id = MARKS + number */
};

struct training {
    struct strings strings;
    size_t size;
};

/* Finds the next word at or after *at. Returns false if there is none. */
static bool next_word(const char *text, size_t size, size_t *at, const char **word, size_t *length)
{
    while (*at < size && is_space(text[*at])) (*at)++;
    size_t start = *at;
    while (*at < size && !is_space(text[*at])) (*at)++;
    *word = text + start;
    *length = *at - start;
    return *length > 0;
}

static bool is_unknown(const char *word, size_t length)
{
    return length == sizeof unknown_text - 1 && !memcmp(word, unknown_text, length);
}

static elbo_status encode(void *self, struct elbo_ids *ids, const char *text, size_t size, elbo_error *error)
{
    const struct words *words = self;
    const char *word;
    for (size_t at = 0, length; next_word(text, size, &at, &word, &length);) {
        uint32_t number = strings_find(&words->strings, word, length);
        ELBO_TRY(ids_append(ids, number == STRINGS_NONE ? (uint32_t)MARK_UNKNOWN : MARKS + number, error));
    }
    return ELBO_OK;
}

static elbo_status decode(const void *self, struct elbo_text *text, const uint32_t *ids, size_t count,
                          elbo_error *error)
{
    const struct words *words = self;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == MARK_START || ids[i] == MARK_END) continue;
        const char *word = unknown_text;
        size_t length = sizeof unknown_text - 1;
        if (ids[i] >= MARKS) word = strings_text(&words->strings, ids[i] - MARKS, &length);
        if (text->size) ELBO_TRY(text_append(text, " ", 1, error));
        ELBO_TRY(text_append(text, word, length, error));
    }
    return ELBO_OK;
}

static size_t vocabulary(const void *self)
{
    return MARKS + ((const struct words *)self)->strings.count;
}

static void close_words(void *self)
{
    if (self) strings_free(&((struct words *)self)->strings);
    free(self);
}

static elbo_status save(const void *self, json_t *object, elbo_error *error)
{
    const struct words *words = self;
    json_t *list = json_array();
    if (json_object_set_new(object, "words", list))
        return elbo_fail(error, ELBO_MEMORY, "no memory for the vocabulary");
    for (size_t i = 0; i < words->strings.count; i++) {
        size_t length;
        const char *word = strings_text(&words->strings, i, &length);
        if (json_array_append_new(list, json_stringn(word, length)))
            return elbo_fail(error, ELBO_MEMORY, "no memory for the vocabulary");
    }
    return ELBO_OK;
}

static elbo_status load(void **self, const json_t *object, elbo_error *error)
{
    const json_t *list = json_object_get(object, "words");
    if (!json_is_array(list)) return elbo_fail(error, ELBO_INPUT, "is damaged: it has no list of words");
    struct words *words = calloc(1, sizeof *words);
    if (!words) return elbo_fail(error, ELBO_MEMORY, "no memory for the vocabulary");
    elbo_status status = ELBO_OK;
    for (size_t i = 0; status == ELBO_OK && i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *text = json_string_value(entry), *word;
        size_t length = json_string_length(entry), at = 0, inner;
        uint32_t number;
        if (!text || !next_word(text, length, &at, &word, &inner) || inner != length || is_unknown(text, length))
            status = elbo_fail(error, ELBO_INPUT, "is damaged: entry %zu of its words is not a word", i);
        else
            status = strings_insert(&words->strings, &number, text, length, error);
        if (status == ELBO_OK && number != i)
            status = elbo_fail(error, ELBO_INPUT, "is damaged: the word '%.100s' stands twice", text);
    }
    if (status == ELBO_OK)
        *self = words;
    else
        close_words(words);
    return status;
}

/* ---- training ---- */

static elbo_status train_open(void **out, size_t size, elbo_error *error)
{
    struct training *training = calloc(1, sizeof *training);
    if (!training) return elbo_fail(error, ELBO_MEMORY, "no memory for a tokenizer");
    training->size = size;
    *out = training;
    return ELBO_OK;
}

static elbo_status train_add(void *self, const char *text, size_t size, elbo_error *error)
{
    struct training *training = self;
    const char *word;
    for (size_t at = 0, length; next_word(text, size, &at, &word, &length);) {
        if (is_unknown(word, length)) continue;
        uint32_t number;
        ELBO_TRY(strings_insert(&training->strings, &number, word, length, error));
        training->strings.counts[number]++;
    }
    return ELBO_OK;
}

static int by_frequency(const void *a, const void *b, void *context)
{
    const struct strings *strings = context;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (strings->counts[i] != strings->counts[j]) return strings->counts[i] > strings->counts[j] ? -1 : 1;
    size_t n, m;
    const char *s = strings_text(strings, i, &n), *t = strings_text(strings, j, &m);
    int order = memcmp(s, t, n < m ? n : m);
    return order ? order : (n > m) - (n < m);
}

static elbo_status train_finish(void *self, void **out, elbo_error *error)
{
    struct training *training = self;
    struct words *words = calloc(1, sizeof *words);
    size_t count = training->strings.count, keep = training->size - MARKS;
    uint32_t *order = malloc((count + 1) * sizeof *order);
    elbo_status status = ELBO_OK;
    if (!words || !order) status = elbo_fail(error, ELBO_MEMORY, "no memory for a vocabulary of %zu words", count);
    if (status == ELBO_OK) {
        for (size_t i = 0; i < count; i++) order[i] = (uint32_t)i;
        qsort_r(order, count, sizeof *order, by_frequency, &training->strings);
    }
    for (size_t i = 0; status == ELBO_OK && i < count && i < keep; i++) {
        size_t length;
        const char *word = strings_text(&training->strings, order[i], &length);
        uint32_t number;
        status = strings_insert(&words->strings, &number, word, length, error);
    }
    free(order);
    if (status == ELBO_OK)
        *out = words;
    else
        close_words(words);
    return status;
}

static void train_close(void *self)
{
    if (self) strings_free(&((struct training *)self)->strings);
    free(self);
}

const struct tokenizer_ops tokenizer_word = {
    .kind = ELBO_TOKENIZER_WORD,
    .name = "word",
    .smallest = MARKS + 1,
    .encode = encode,
    .decode = decode,
    .vocabulary = vocabulary,
    .save = save,
    .load = load,
    .close = close_words,
    .train_open = train_open,
    .train_add = train_add,
    .train_finish = train_finish,
    .train_close = train_close,
};
