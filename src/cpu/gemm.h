/* C (M, N) = A (M, K) B (K, N) in f32, with any strides for A and B. Or the columns of B are rows of quantized weights
 * (cpu/quantized/product.h), and the rows of A are rounded to 8 bits. */
#ifndef CPU_GEMM_H
#define CPU_GEMM_H

#include "cpu/cpu.h"

struct matrix {
    const float *data;
    size_t row, col; /* element (i, j) = data[i * row + j * col] */
};

struct product {
    size_t m, n, k;
    struct matrix a, b;
    enum block_type blocks; /* type of B's data: unless BLOCK_F32, the weights' rows of blocks, one after the other.
                               Then A's rows lie along k, and `add` is false */
    const char *panels;     /* the same weights as packed.h keeps them, or null */
    float *c;               /* row-major, leading dimension ldc */
    size_t ldc;
    bool add;           /* C += A B */
    const float *bias;  /* (N) or null */
    float *gelu;        /* receives gelu(C), in C's layout; null: no activation */
    const float *slope; /* unless null, C is multiplied by GELU's slope at these values, in C's layout; not together
                           with `add` */
};

/* Each thread uses the first gemm_scratch() bytes of its own scratch. */
void CPU(gemm)(const struct call *call, const struct product *p);
size_t CPU(gemm_scratch)(void);

#endif
