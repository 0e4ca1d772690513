/* Numbered distinct strings: see strings.h. The hash needs no random seed, because a flood of colliding strings would
 * need a break of XXH3. Probing is linear. */
#include "text/strings.h"

#include <stdlib.h>
#include <string.h>
#ifdef ELBO_OWN_HASH
#include "base/philox.h"
#else
#include <xxhash.h>
#endif

static elbo_status no_memory(elbo_error *error)
{
    return elbo_fail(error, ELBO_MEMORY, "no memory for the vocabulary; use less text or a smaller tokenizer.size");
}

/* Hashes a string. The runtime of a model's file (infer/) uses its own hash, because it links libc alone; its words
 * come from one file. */
static uint64_t hash(const char *text, size_t size)
{
#ifdef ELBO_OWN_HASH
    uint64_t sum = mix64(size);
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = 0;
        memcpy(&word, text + at, size - at < 8 ? size - at : 8);
        sum = mix64(sum ^ word);
    }
    return sum;
#else
    return XXH3_64bits(text, size);
#endif
}

static size_t probe(const struct strings *strings, const char *text, size_t size)
{
    size_t mask = strings->slot_count - 1, at = (size_t)hash(text, size) & mask;
    for (;; at = (at + 1) & mask) {
        uint32_t number = strings->slots[at];
        if (!number) return at;
        size_t other;
        const char *bytes = strings_text(strings, number - 1, &other);
        if (other == size && !memcmp(bytes, text, size)) return at;
    }
}

uint32_t strings_find(const struct strings *strings, const char *text, size_t size)
{
    if (!strings->count) return STRINGS_NONE;
    return strings->slots[probe(strings, text, size)] - 1; /* 0 - 1 is STRINGS_NONE */
}

static elbo_status grow(struct strings *strings, size_t size, elbo_error *error)
{
    if (strings->count == strings->capacity) {
        size_t capacity = strings->capacity ? 2 * strings->capacity : 1024;
        if (capacity > UINT32_MAX / 2) return no_memory(error);
        size_t *start = realloc(strings->start, (capacity + 1) * sizeof *start);
        if (!start) return no_memory(error);
        strings->start = start;
        if (!strings->count) start[0] = 0;
        uint64_t *counts = realloc(strings->counts, capacity * sizeof *counts);
        if (!counts) return no_memory(error);
        strings->counts = counts;
        uint32_t *slots = calloc(2 * capacity, sizeof *slots);
        if (!slots) return no_memory(error);
        free(strings->slots);
        strings->slots = slots;
        strings->slot_count = 2 * capacity;
        strings->capacity = capacity;
        for (size_t i = 0; i < strings->count; i++) {
            size_t length;
            const char *text = strings_text(strings, i, &length);
            strings->slots[probe(strings, text, length)] = (uint32_t)i + 1;
        }
    }
    if (size > strings->room - strings->used) {
        size_t room = strings->room ? strings->room : 1 << 14;
        while (size > room - strings->used) {
            if (room > SIZE_MAX / 2) return no_memory(error);
            room *= 2;
        }
        char *bytes = realloc(strings->bytes, room);
        if (!bytes) return no_memory(error);
        strings->bytes = bytes;
        strings->room = room;
    }
    return ELBO_OK;
}

elbo_status strings_insert(struct strings *strings, uint32_t *number, const char *text, size_t size, elbo_error *error)
{
    *number = strings_find(strings, text, size);
    if (*number != STRINGS_NONE) return ELBO_OK;
    ELBO_TRY(grow(strings, size, error));
    size_t slot = probe(strings, text, size);
    if (size) memcpy(strings->bytes + strings->used, text, size);
    strings->used += size;
    *number = (uint32_t)strings->count++;
    strings->start[strings->count] = strings->used;
    strings->counts[*number] = 0;
    strings->slots[slot] = *number + 1;
    return ELBO_OK;
}

void strings_free(struct strings *strings)
{
    free(strings->bytes);
    free(strings->start);
    free(strings->counts);
    free(strings->slots);
    *strings = (struct strings){0};
}
