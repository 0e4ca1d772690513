/* Growing lists of ids and text, and the repair of ill-formed text. This file needs no library. */
#include "text/buffers.h"

#include "base/utf8.h"
#include "text/strings.h"

#include <stdlib.h>
#include <string.h>

elbo_status ids_append(struct elbo_ids *ids, uint32_t id, elbo_error *error)
{
    if (ids->count == ids->capacity) {
        size_t capacity = ids->capacity ? 2 * ids->capacity : 64;
        uint32_t *larger = capacity > SIZE_MAX / sizeof *larger ? NULL : realloc(ids->ids, capacity * sizeof *larger);
        if (!larger) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu token ids", capacity);
        ids->ids = larger;
        ids->capacity = capacity;
    }
    ids->ids[ids->count++] = id;
    return ELBO_OK;
}

elbo_status text_append(struct elbo_text *text, const void *data, size_t size, elbo_error *error)
{
    if (size >= text->capacity - text->size) {
        size_t capacity = text->capacity ? text->capacity : 64;
        while (size >= capacity - text->size) {
            if (capacity > SIZE_MAX / 2) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu bytes of text", size);
            capacity *= 2;
        }
        char *larger = realloc(text->text, capacity);
        if (!larger) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu bytes of text", capacity);
        text->text = larger;
        text->capacity = capacity;
    }
    if (size) memcpy(text->text + text->size, data, size);
    text->size += size;
    text->text[text->size] = 0;
    return ELBO_OK;
}

void elbo_ids_free(struct elbo_ids *ids)
{
    free(ids->ids);
    *ids = (struct elbo_ids){0};
}

void elbo_text_free(struct elbo_text *text)
{
    free(text->text);
    *text = (struct elbo_text){0};
}

/* Appends well-formed text without U+FEFF, because the character is a byte order mark at the beginning of a file, a
 * remnant of one elsewhere, and never part of a word. */
static elbo_status append_unmarked(struct elbo_text *out, const char *text, size_t size, elbo_error *error)
{
    for (size_t from = 0, at = 0; from < size;) {
        const char *found = at < size ? memchr(text + at, '\xef', size - at) : NULL;
        size_t end = found ? (size_t)(found - text) : size;
        if (found && !text_skip_bom(found, size - end)) {
            at = end + 1;
            continue;
        }
        ELBO_TRY(text_append(out, text + from, end - from, error));
        from = at = end + (found ? 3 : 0);
    }
    return ELBO_OK;
}

elbo_status elbo_text_repair(struct elbo_text *out, size_t *replaced, size_t *first_bad, const char *text, size_t size,
                             elbo_error *error)
{
    out->size = 0;
    *replaced = 0;
    *first_bad = size;
    ELBO_TRY(text_append(out, "", 0, error));
    for (size_t at = 0; at < size;) {
        size_t good = utf8_valid(text + at, size - at);
        ELBO_TRY(append_unmarked(out, text + at, good, error));
        at += good;
        if (at == size) break;
        if (!(*replaced)++) *first_bad = at;
        ELBO_TRY(text_append(out, "\xef\xbf\xbd", 3, error));
        at += utf8_bad(text + at, size - at);
    }
    return ELBO_OK;
}

size_t elbo_text_words(const char *text, size_t size)
{
    size_t words = 0;
    bool inside = false;
    for (size_t i = 0; i < size; i++) {
        bool space = is_space(text[i]);
        words += !space && !inside;
        inside = !space;
    }
    return words;
}
