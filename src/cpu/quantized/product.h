/* C (M, N) = A (M, K) W^T (+ bias), where W's rows lie in blocks of few bits (base/blocks.h).
 *
 * A's rows are rounded to 8 bits, 128 numbers at a time (d q, d = the largest magnitude / 127), so that each 32 k of
 * the product are a sum of whole numbers, which is exact, times two scales. These are added up in f32, 128 k at a time,
 * in the order of k. So each element's bits depend on its rows alone: not on M, N, or the part of C that a thread
 * computes.
 *
 * product.c is compiled once for each kind of instructions, and once more for each with its instructions emulated in C:
 * so every path is tested on every machine. */
#ifndef CPU_QUANTIZED_PRODUCT_H
#define CPU_QUANTIZED_PRODUCT_H

#include "base/blocks.h"

#include <stdbool.h>

struct quantized_product {
    size_t m, n, k; /* k: a multiple of the type's values */
    const float *a;
    size_t row; /* floats between A's rows */
    const unsigned char *w;
    enum block_type type;
    float *c;
    size_t ldc;
    const float *bias;  /* (N) or null */
    const char *panels; /* W as pack lays it down, from these rows on; null: it is packed where it is used */
};

struct quantized_kernel {
    void (*product)(const struct quantized_product *p, void *scratch); /* by one thread */
    /* Panel t of W, which has `columns` rows or more: as many from row `columns` t on, or the last ones. */
    void (*pack)(const struct quantized_product *p, size_t t, void *to);
    size_t (*panel_bytes)(enum block_type type, size_t k); /* a panel begins on a cache line */
    size_t columns;                                        /* of C in a panel */
};

struct quantized_path {
    const char *name;
    bool (*supported)(void);
    const struct quantized_kernel *kernel;
};

enum {
    QUANTIZED_SCRATCH = 512 << 10, /* bytes that a thread wants, on a cache line */
    QUANTIZED_COLUMNS = 16,        /* of C that a path computes at a time, or a divisor */
    QUANTIZED_FEW = 2              /* rows that take W as it lies: more want it packed  */
};

/* The fastest path that this processor has, for a backend whose other kernels are of `variant` ("generic", "avx2", ...:
 * no later instructions than those are taken). */
const struct quantized_path *quantized_choose(const char *variant);

/* All paths of this build, the fastest first; ends with a name that is null. */
extern const struct quantized_path quantized_paths[];

#endif
