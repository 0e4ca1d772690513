/* The product of a few rows with a panel of weights; the sums stay in registers. */
#ifndef CPU_PANEL_PRODUCT_H
#define CPU_PANEL_PRODUCT_H

#include "cpu/cpu.h"

enum { PANEL = 2 * VL, PANEL_LINE = 16 }; /* columns of a panel; floats of a cache line */
/* The number of rows whose sums fill the registers. */
#if VL == 16
enum { PANEL_ROWS = 14 };
#elif VL == 8
enum { PANEL_ROWS = 6 };
#else
enum { PANEL_ROWS = 4 };
#endif

/* out (m, PANEL) = x (m, k) panel (k, PANEL), m from 1 to PANEL_ROWS; rows of x are `row` floats apart. Each element is
 * one chain of multiply-adds. Prefetches k lines from `ahead` on, unless it is null. */
void CPU(panel_product)(size_t m, float *out, const float *x, size_t row, const float *panel, size_t k,
                        const float *ahead);

/* Returns the rows of a block if `rows` are divided into as few blocks as possible, of nearly one size. */
static inline size_t panel_rows(size_t rows)
{
    return tiles_of(rows, tiles_of(rows, PANEL_ROWS));
}

#endif
