/* The units of recurrent cells, forward: from the sums of the gates to the state. A layer's pass and a step of
 * generation share this code. */
#ifndef CPU_RECURRENT_CELLS_H
#define CPU_RECURRENT_CELLS_H

#include "cpu/recurrent_layer.h"

/* sums (G, UNITS) += b + x (+ own) for n units. A GRU's new gate gets b alone, because its reset gate scales the sum
 * before x is added. */
static inline void add_inputs(float *sums, const struct layer *l, const float *x, const float *own, const float *b,
                              size_t stride, size_t n)
{
    for (size_t g = 0; g < l->gates; g++) {
        float *s = sums + g * stride;
        const float *xg = x + g * l->units;
        if (b) SIMD for (size_t j = 0; j < n; j++) s[j] += b[g * l->units + j];
        if (l->gru && g == GRU_GATES - 1) continue;
        SIMD for (size_t j = 0; j < n; j++) s[j] += xg[j];
        if (own) SIMD for (size_t j = 0; j < n; j++) s[j] += own[g * l->units + j];
    }
}

/* Writes the gates (4, H) to `kept`, and c and h of n units. Gates' sums lie `stride` floats apart. */
static inline void lstm_units(float *restrict kept, size_t units, float *restrict c, float *restrict h,
                              const float *restrict sums, size_t stride, const float *restrict before, size_t n)
{
    SIMD for (size_t j = 0; j < n; j++)
    {
        float i = cpu_sigmoid(sums[j]), f = cpu_sigmoid(sums[stride + j]), g = cpu_tanh(sums[2 * stride + j]),
              o = cpu_sigmoid(sums[3 * stride + j]), now = i * g + (before ? f * before[j] : 0.0f);
        kept[j] = i;
        kept[units + j] = f;
        kept[2 * units + j] = g;
        kept[3 * units + j] = o;
        c[j] = now;
        h[j] = o * cpu_tanh(now);
    }
}

static inline void gru_units(float *restrict kept, size_t units, float *restrict h, const float *restrict sums,
                             size_t stride, const float *restrict xn, const float *restrict own,
                             const float *restrict before, size_t n)
{
    SIMD for (size_t j = 0; j < n; j++)
    {
        float r = cpu_sigmoid(sums[j]), z = cpu_sigmoid(sums[stride + j]), s = sums[2 * stride + j],
              v = cpu_tanh(xn[j] + (own ? own[j] : 0.0f) + r * s);
        kept[j] = r;
        kept[units + j] = z;
        kept[2 * units + j] = v;
        kept[3 * units + j] = s;
        h[j] = (1.0f - z) * v + (before ? z * before[j] : 0.0f);
    }
}

#endif
