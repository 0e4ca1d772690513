/* Messages in the wire format of Protocol Buffers, written in memory: one field after the other, each as (number << 3 |
 * wire type) and its value.
 *
 *     struct bytes node = {0};
 *     protobuf_text(&node, 4, "MatMul");
 *     protobuf_message(&graph, 1, &node);           -- takes a copy
 *     bytes_free(&node);
 *     if (graph.failed) ...                          -- no memory; sticky, nothing is added afterwards */
#ifndef FORMATS_PROTOBUF_H
#define FORMATS_PROTOBUF_H

#include "formats/bytes.h"

/* For int64, int32 and enum; a negative number takes ten bytes. */
void protobuf_integer(struct bytes *p, unsigned field, int64_t value);
void protobuf_float(struct bytes *p, unsigned field, float value);
void protobuf_bytes(struct bytes *p, unsigned field, const void *bytes, size_t size);
void protobuf_text(struct bytes *p, unsigned field, const char *text);
void protobuf_message(struct bytes *p, unsigned field, const struct bytes *message);
/* Appends the fields of another message to this one. */
void protobuf_append(struct bytes *p, const struct bytes *fields);

#endif
