/* The product of a few rows with a panel: out (m, PANEL) = x (m, k) panel (k, PANEL), with and without prefetching. */
#include "cpu/panel_product.h"

/* out (m, PANEL) = x (m, k) panel (k, PANEL). `m` is a constant where this is inlined. */
static inline __attribute__((always_inline)) void micro(float *restrict out, const float *x, size_t row,
                                                        const float *restrict panel, size_t k, const size_t m,
                                                        const float *ahead, const bool fetch)
{
    vec low[PANEL_ROWS], high[PANEL_ROWS];
#pragma GCC unroll 16
    for (size_t i = 0; i < m; i++) low[i] = high[i] = (vec){0};
    for (size_t p = 0; p < k; p++, panel += PANEL, ahead += PANEL_LINE) {
        if (fetch) __builtin_prefetch(ahead, 0, 2);
        vec a = load(panel), b = load(panel + VL);
#pragma GCC unroll 16
        for (size_t i = 0; i < m; i++) {
            float v = x[i * row + p];
            low[i] += v * a;
            high[i] += v * b;
        }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < m; i++) {
        store(out + i * PANEL, low[i]);
        store(out + i * PANEL + VL, high[i]);
    }
}

#define MICRO(m)                                                                                                       \
    static __attribute__((noinline)) void micro_##m(float *out, const float *x, size_t row, const float *panel,        \
                                                    size_t k, const float *ahead)                                      \
    {                                                                                                                  \
        (void)ahead;                                                                                                   \
        micro(out, x, row, panel, k, m, panel, false);                                                                 \
    }                                                                                                                  \
    static __attribute__((noinline)) void fetching_##m(float *out, const float *x, size_t row, const float *panel,     \
                                                       size_t k, const float *ahead)                                   \
    {                                                                                                                  \
        micro(out, x, row, panel, k, m, ahead, true);                                                                  \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)
#if VL >= 8
MICRO(5)
MICRO(6)
#endif
#if VL == 16
MICRO(7)
MICRO(8)
MICRO(9)
MICRO(10)
MICRO(11)
MICRO(12)
MICRO(13)
MICRO(14)
#endif

typedef void product(float *, const float *, size_t, const float *, size_t, const float *);
#if VL == 16
#define OF(name)                                                                                                       \
    NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8, name##_9, name##_10,         \
        name##_11, name##_12, name##_13, name##_14
#elif VL == 8
#define OF(name) NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6
#else
#define OF(name) NULL, name##_1, name##_2, name##_3, name##_4
#endif
static product *const micros[2][PANEL_ROWS + 1] = {{OF(micro)}, {OF(fetching)}};

void CPU(panel_product)(size_t m, float *out, const float *x, size_t row, const float *panel, size_t k,
                        const float *ahead)
{
    micros[ahead != NULL][m](out, x, row, panel, k, ahead);
}
