/* Quantized weights kept in the packed layout that products of several rows use (cpu/quantized/product.h), beside the
 * file that holds them, because packing takes a third of the time of a product of sixteen rows. While the backend
 * lives, the weights must not change, and no other weights may take their address. */
#ifndef CPU_QUANTIZED_PACKED_H
#define CPU_QUANTIZED_PACKED_H

#include "cpu/quantized/product.h"
#include "graph/backend.h"

struct packed_weight;

struct packed_weights {
    size_t most, bytes; /* bytes that may be kept; bytes that are kept */
    size_t count, room; /* entries and room of a hash table of weights by address */
    struct packed_weight *all;
    const struct quantized_kernel *kernel; /* the kernel that reads the panels */
    struct backend *backend;               /* allocates the memory, and packs with its threads */
};

/* Returns the panels of a weight (n, k), stored row after row of blocks, or null if they are not kept. A weight is
 * packed on call PACKED_WORTH, because by then packing it for each product has cost as much as keeping it. */
enum { PACKED_WORTH = 8 };
const char *packed_weight(struct packed_weights *p, const void *w, enum block_type type, size_t n, size_t k);

void packed_weights_free(struct packed_weights *p);

#endif
