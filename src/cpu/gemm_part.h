/* What the division of a product among threads (gemm.c) wants of an instruction set's kernel: gemm_panels.c's, or
 * gemm_tiles.c's where the processor multiplies tiles. */
#ifndef CPU_GEMM_PART_H
#define CPU_GEMM_PART_H

#include "cpu/gemm.h"

/* Parts of a thread, so that who is faster does more of them; of few threads one each is best. */
enum { SHARES = 3, FEW_THREADS = 4 };

/* By one thread, which has gemm_part_scratch() bytes. Each element's bits depend on K alone: not on M, N, the strides
 * or the part. */
void CPU(gemm_part)(const struct product *p, float *scratch);
size_t CPU(gemm_part_scratch)(void);

/* Rounds a part of so many rows and columns up to what the kernel computes whole; what it costs, in steps of k that
 * pack as many elements. */
size_t CPU(gemm_cost)(const struct product *p, size_t *rows, size_t *columns);

/* True: the product was of a few rows, and another way than parts has computed it, to the same bits. */
bool CPU(gemm_few)(const struct call *call, const struct product *p);

/* The activation of row i, columns j .. j + columns, whose sums are whole. */
static inline void activate(const struct product *p, size_t i, size_t j, size_t columns)
{
    float *c = p->c + i * p->ldc + j;
    if (p->gelu) {
        float *y = p->gelu + i * p->ldc + j;
        SIMD for (size_t q = 0; q < columns; q++) y[q] = cpu_gelu(c[q]);
    }
    if (p->slope) {
        const float *x = p->slope + i * p->ldc + j;
        SIMD for (size_t q = 0; q < columns; q++) c[q] *= cpu_gelu_slope(x[q]);
    }
}

#endif
