/* Tests products with weights in few bits, by every path that this processor has, against sums in double of the decoded
 * blocks. Needs only the core library, so the paths of an emulated processor can be tested too. */
#include "cpu/quantized/product.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { M = 21, N = 45, K = 1280 };

static uint32_t state = 1;

static float number(void)
{
    state = state * 1664525 + 1013904223;
    return (float)(state >> 8) / (float)(1 << 23) - 1;
}

static void *room(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) exit(2);
    return p;
}

/* Rounds like cpu/quantized/product.h: per 128 values, d = the largest magnitude / 127, and whole multiples of d. A
 * value so near the middle of two multiples that float rounding would decide is moved away first. */
static void round_rows(float *to, float *x, size_t count)
{
    for (size_t at = 0; at < count; at += 128) {
        float most = 0;
        for (size_t i = at; i < at + 128; i++) most = fmaxf(most, fabsf(x[i]));
        for (size_t i = at; i < at + 128; i++) {
            float inverse = 127 / most, places = fabsf(x[i] * inverse);
            if (fabsf(places - floorf(places) - 0.5f) < 1e-3f) x[i] *= 1 - 0.01f / places;
            to[i] = most / 127 * rintf(x[i] * inverse);
        }
    }
}

/* Returns the largest error relative to the sum of the added magnitudes. */
static double worst(const float *c, const float *a, const float *w, size_t m)
{
    double most = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0, all = 0;
            for (size_t k = 0; k < K; k++) {
                double x = (double)a[i * K + k] * (double)w[j * K + k];
                sum += x;
                all += fabs(x);
            }
            double gap = fabs((double)c[i * N + j] - sum) / all;
            if (!(gap <= most)) most = gap;
        }
    return most;
}

int main(void)
{
    const double product = 1e-6; /* as in tests/tolerances.h */
    float *a = room(M * K * sizeof *a), *rounded = room(M * K * sizeof *a), *w = room(N * K * sizeof *w),
          *c = room(M * N * sizeof *c);
    void *scratch = room(QUANTIZED_SCRATCH);
    int failed = 0;
    for (enum block_type type = BLOCK_Q8_0; type < BLOCK_TYPES; type++) {
        unsigned char *blocks = room(block_bytes(type, N * K));
        for (size_t i = 0; i < M * K; i++) a[i] = number();
        round_rows(rounded, a, M * K);
        for (size_t i = 0; i < N * K; i++) w[i] = number() / 8;
        block_quantize(type, blocks, w, N * K);
        block_dequantize(type, w, blocks, N * K);
        for (size_t m = 1; m <= M; m += m < 4 ? 1 : 17) {
            for (const struct quantized_path *p = quantized_paths; p->name; p++) {
                if (!p->supported()) continue;
                p->kernel->product(&(struct quantized_product){m, N, K, a, K, blocks, type, c, N, NULL, NULL}, scratch);
                double gap = worst(c, rounded, w, m);
                bool good = gap <= product;
                failed += !good;
                if (!good || m == 1)
                    printf("%s %s, %zu rows: %.2g beside double%s\n", p->name, block_infos[type].name, m, gap,
                           good ? "" : ": too much");
            }
        }
        free(blocks);
    }
    free(a);
    free(w);
    free(c);
    free(rounded);
    free(scratch);
    return failed > 0;
}
