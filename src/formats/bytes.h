/* A growing byte buffer with little-endian numbers, for writers that assemble a file in memory. Begins as {0}. A failed
 * allocation is sticky. */
#ifndef FORMATS_BYTES_H
#define FORMATS_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    unsigned char *at;
    size_t size, room;
    bool failed; /* an allocation failed; nothing is added afterwards */
};

static inline void bytes_add(struct bytes *b, const void *from, size_t size)
{
    if (b->failed || !size) return;
    if (b->size + size > b->room) {
        size_t room = 2 * b->room + size + 256;
        unsigned char *grown = (unsigned char *)realloc(b->at, room);
        b->failed = !grown;
        if (!grown) return;
        b->at = grown;
        b->room = room;
    }
    memcpy(b->at + b->size, from, size);
    b->size += size;
}

static inline void bytes_add32(struct bytes *b, uint32_t number)
{
    bytes_add(b, &number, sizeof number);
}

static inline void bytes_add64(struct bytes *b, uint64_t number)
{
    bytes_add(b, &number, sizeof number);
}

static inline void bytes_free(struct bytes *b)
{
    free(b->at);
    *b = (struct bytes){0};
}

#endif
