/* The interface between gemm.c, which divides a product among threads, and an instruction set's kernel: gemm_panels.c,
 * or gemm_tiles.c if the processor multiplies tiles. */
#ifndef CPU_GEMM_PART_H
#define CPU_GEMM_PART_H

#include "cpu/gemm.h"

/* Parts per thread: with SHARES parts each, a faster thread computes more of them. Up to FEW_THREADS threads, one part
 * each is best. */
enum { SHARES = 3, FEW_THREADS = 4 };

/* Computes the product on one thread, with gemm_part_scratch() bytes. The bits of an element depend on K alone, not on
 * M, N, the strides or the part. */
void CPU(gemm_part)(const struct product *p, float *scratch);
size_t CPU(gemm_part_scratch)(void);

/* Rounds `rows` and `columns` up to whole kernel tiles; returns the part's cost, in packed elements per step of k. */
size_t CPU(gemm_cost)(const struct product *p, size_t *rows, size_t *columns);

/* Computes products of few rows without dividing them into parts; returns false if this does not apply. The bits are
 * those of gemm_part. */
bool CPU(gemm_few)(const struct call *call, const struct product *p);

/* Applies the activation to row i, columns j .. j + columns, whose sums are complete. */
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
