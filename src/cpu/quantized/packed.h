/* Weights in few bits that are kept as products of several rows want them (cpu/quantized/product.h), beside the file in
 * which they lie: packing them is a third of the time of a product of sixteen rows. The weights must not change, nor
 * others come to lie where they were, while the backend lives. */
#ifndef CPU_QUANTIZED_PACKED_H
#define CPU_QUANTIZED_PACKED_H

#include "cpu/quantized/product.h"
#include "graph/backend.h"

struct packed_weight;

struct packed_weights {
    size_t most, bytes; /* that may be kept, that are */
    size_t count, room; /* a hash table of weights by their address */
    struct packed_weight *all;
    const struct quantized_kernel *kernel; /* whose panels they are */
    struct backend *backend;               /* whose memory it is, and whose threads pack them */
};

/* The panels of a weight (n, k), row after row of blocks, or null: they are not kept yet, or will not be. They are from
 * call PACKED_WORTH on: by then packing the weight for each product has cost as much as keeping it does. */
enum { PACKED_WORTH = 8 };
const char *packed_weight(struct packed_weights *p, const void *w, enum block_type type, size_t n, size_t k);

void packed_weights_free(struct packed_weights *p);

#endif
