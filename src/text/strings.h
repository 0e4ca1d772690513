/* A table of distinct byte strings, numbered in the order of their first insertion, with a count each. It holds the
 * vocabulary of `word`, the pieces of `bpe`, and the word counts that both are trained from. Open addressing over XXH3.
 * Also the byte order mark, which every reader of text leaves out. */
#ifndef TEXT_STRINGS_H
#define TEXT_STRINGS_H

#include "elbo/status.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct strings {
    char *bytes; /* all strings, one after the other */
    size_t used, room;
    size_t *start;    /* (count + 1) offset of each string in `bytes` */
    uint64_t *counts; /* (count) */
    size_t count, capacity;
    uint32_t *slots;   /* (slot_count) number + 1; 0: free */
    size_t slot_count; /* a power of two, at least twice the number of strings */
};

#define STRINGS_NONE UINT32_MAX

/* Finds or inserts a string; leaves its count unchanged. */
elbo_status strings_insert(struct strings *strings, uint32_t *number, const char *text, size_t size, elbo_error *error);
/* Returns the number of a string, or STRINGS_NONE. */
uint32_t strings_find(const struct strings *strings, const char *text, size_t size);
void strings_free(struct strings *strings);

static inline const char *strings_text(const struct strings *strings, size_t number, size_t *size)
{
    *size = strings->start[number + 1] - strings->start[number];
    return strings->bytes + strings->start[number];
}

/* Returns 3 if `text`, the beginning of a file or stream, starts with a byte order mark, else 0. */
static inline size_t text_skip_bom(const char *text, size_t size)
{
    return size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0;
}

#endif
