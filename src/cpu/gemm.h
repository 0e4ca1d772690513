/* C (M, N) = A (M, K) B (K, N), f32, any strides for A and B; or B's columns are weights' rows in blocks of few bits
 * (cpu/quantized/product.h), and A's rows are rounded to 8 bits. */
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
    enum block_type blocks; /* of B: its data are such blocks, row after row of the weights, unless BLOCK_F32. Then A's
                               rows lie along k, and nothing is added */
    const char *panels;     /* such weights as packed.h keeps them, or null */
    float *c;               /* row-major, leading dimension ldc                          */
    size_t ldc;
    bool add;           /* +=                                                        */
    const float *bias;  /* (N) or null                                               */
    float *gelu;        /* gelu(C) goes here too, same layout; null: no activation   */
    const float *slope; /* not null: C is multiplied by GELU's slope there, same layout; not where it adds */
};

/* Every thread takes gemm_scratch() bytes from the front of its own scratch. */
void CPU(gemm)(const struct call *call, const struct product *p);
size_t CPU(gemm_scratch)(void);

#endif
