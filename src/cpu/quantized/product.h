/* C (M, N) = A (M, K) W^T (+ bias), where the rows of W are quantized in blocks (base/blocks.h).
 *
 * The rows of A are rounded to 8 bits, 128 numbers at a time (d q, d = the largest magnitude / 127). Therefore each 32
 * k of the product are an exact sum of whole numbers, times two scales. These are added in f32, 128 k at a time, in the
 * order of k. The bits of an element depend on its rows alone, not on M, N, or the part of C that a thread computes.
 *
 * product.c is compiled once for each path's instructions, and once more with these instructions emulated in C, so that
 * every path is tested on every machine. */
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
    const char *panels; /* W in the layout of `pack`, from these rows on; null: each product packs W */
};

struct quantized_kernel {
    void (*product)(const struct quantized_product *p, void *scratch); /* on one thread */
    /* Packs panel t of W, which has at least `columns` rows: `columns` rows from row `columns` t on, or the last
     * ones. */
    void (*pack)(const struct quantized_product *p, size_t t, void *to);
    /* Panels follow each other. The first one begins on a cache line. */
    size_t (*panel_bytes)(enum block_type type, size_t k);
    size_t columns; /* columns of C in a panel */
};

struct quantized_path {
    const char *name;
    bool (*supported)(void);
    const struct quantized_kernel *kernel;
};

enum {
    QUANTIZED_SCRATCH = 512 << 10, /* bytes of scratch of a thread, aligned to a cache line */
    QUANTIZED_COLUMNS = 16,        /* columns of C that a path computes at a time, or a divisor */
    QUANTIZED_FEW = 2              /* rows for which W is read in place; more rows pack W */
};

/* Returns the fastest path of this processor for a backend whose other kernels are of `variant` ("generic", "avx2",
 * ...). The path uses no later instructions than the variant's. */
const struct quantized_path *quantized_choose(const char *variant);

/* All paths of this build, fastest first; the last entry has a null name. */
extern const struct quantized_path quantized_paths[];

#endif
