/* Encoding Protocol Buffers fields: a varint tag (number << 3 | wire type), then the value. */
#include "formats/protobuf.h"

#include <string.h>

enum { VARINT = 0, LENGTH = 2, FIXED32 = 5 };

static void varint(struct bytes *p, uint64_t value)
{
    unsigned char bytes[10];
    size_t size = 0;
    do {
        bytes[size] = (unsigned char)(value & 127);
        value >>= 7;
        if (value) bytes[size] |= 128;
        size++;
    } while (value);
    bytes_add(p, bytes, size);
}

void protobuf_integer(struct bytes *p, unsigned field, int64_t value)
{
    varint(p, field << 3 | VARINT);
    varint(p, (uint64_t)value);
}

void protobuf_float(struct bytes *p, unsigned field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    unsigned char bytes[] = {(unsigned char)bits, (unsigned char)(bits >> 8), (unsigned char)(bits >> 16),
                             (unsigned char)(bits >> 24)};
    varint(p, field << 3 | FIXED32);
    bytes_add(p, bytes, sizeof bytes);
}

void protobuf_bytes(struct bytes *p, unsigned field, const void *bytes, size_t size)
{
    varint(p, field << 3 | LENGTH);
    varint(p, size);
    bytes_add(p, bytes, size);
}

void protobuf_text(struct bytes *p, unsigned field, const char *text)
{
    protobuf_bytes(p, field, text, strlen(text));
}

void protobuf_message(struct bytes *p, unsigned field, const struct bytes *message)
{
    p->failed |= message->failed;
    protobuf_bytes(p, field, message->at, message->size);
}

void protobuf_append(struct bytes *p, const struct bytes *fields)
{
    p->failed |= fields->failed;
    bytes_add(p, fields->at, fields->size);
}
