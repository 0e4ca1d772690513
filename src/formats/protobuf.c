#include "formats/protobuf.h"

#include <stdlib.h>
#include <string.h>

enum { VARINT = 0, LENGTH = 2, FIXED32 = 5 };

static void add(struct protobuf *p, const void *bytes, size_t size)
{
    if (p->failed || !size) return;
    if (p->size + size > p->room) {
        size_t room = 2 * p->room + size + 64;
        unsigned char *grown = realloc(p->bytes, room);
        p->failed = !grown;
        if (!grown) return;
        p->bytes = grown;
        p->room = room;
    }
    memcpy(p->bytes + p->size, bytes, size);
    p->size += size;
}

static void varint(struct protobuf *p, uint64_t value)
{
    unsigned char bytes[10];
    size_t size = 0;
    do {
        bytes[size] = (unsigned char)(value & 127);
        value >>= 7;
        if (value) bytes[size] |= 128;
        size++;
    } while (value);
    add(p, bytes, size);
}

void protobuf_integer(struct protobuf *p, unsigned field, int64_t value)
{
    varint(p, field << 3 | VARINT);
    varint(p, (uint64_t)value);
}

void protobuf_float(struct protobuf *p, unsigned field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    unsigned char bytes[] = {(unsigned char)bits, (unsigned char)(bits >> 8), (unsigned char)(bits >> 16),
                             (unsigned char)(bits >> 24)};
    varint(p, field << 3 | FIXED32);
    add(p, bytes, sizeof bytes);
}

void protobuf_bytes(struct protobuf *p, unsigned field, const void *bytes, size_t size)
{
    varint(p, field << 3 | LENGTH);
    varint(p, size);
    add(p, bytes, size);
}

void protobuf_text(struct protobuf *p, unsigned field, const char *text)
{
    protobuf_bytes(p, field, text, strlen(text));
}

void protobuf_message(struct protobuf *p, unsigned field, const struct protobuf *message)
{
    p->failed |= message->failed;
    protobuf_bytes(p, field, message->bytes, message->size);
}

void protobuf_append(struct protobuf *p, const struct protobuf *fields)
{
    p->failed |= fields->failed;
    add(p, fields->bytes, fields->size);
}

void protobuf_free(struct protobuf *p)
{
    free(p->bytes);
    *p = (struct protobuf){0};
}
