/* Addressed noise (base/philox.h) for many blocks at once: the same integers, and normals within a few ulp of
 * noise_normal4's. */
#ifndef CPU_NOISE_H
#define CPU_NOISE_H

#include "base/philox.h"
#include "cpu/cpu.h"

#if VL > 4
#include <immintrin.h>
#endif

enum { NOISE_BLOCKS = 32 }; /* most blocks at a time */

/* 64-bit lanes whose lower halves are words; the upper halves are ignored. */
typedef uint64_t lanes __attribute__((vector_size(VL * 4)));
typedef uint64_t lanes_unaligned __attribute__((vector_size(VL * 4), aligned(4), may_alias));

/* Returns the 64-bit products of the lower halves. With 64-bit operands the compiler would multiply all 64 bits, three
 * times as slowly. */
static inline lanes noise_product(lanes a, uint32_t b)
{
#if VL == 16
    return (lanes)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif VL == 8
    return (lanes)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#else
    return (a & 0xffffffffu) * b;
#endif
}

#if VL == 16
#define NOISE_LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define NOISE_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define NOISE_COUNT                                                                                                    \
    {                                                                                                                  \
        0, 1, 2, 3, 4, 5, 6, 7                                                                                         \
    }
#elif VL == 8
#define NOISE_LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define NOISE_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define NOISE_COUNT                                                                                                    \
    {                                                                                                                  \
        0, 1, 2, 3                                                                                                     \
    }
#else
#define NOISE_LOW(a, b)  __builtin_shufflevector(a, b, 0, 2)
#define NOISE_HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#define NOISE_COUNT                                                                                                    \
    {                                                                                                                  \
        0, 1                                                                                                           \
    }
#endif

/* word[4 i + w] = word w of block first + i of a sample, i < blocks. `blocks` is 16 or 32, a constant where this is
 * inlined. All blocks go through a round together, so that no block waits for its own products. */
static inline __attribute__((always_inline)) void noise_blocks(uint32_t *word, const int blocks, struct noise_key key,
                                                               uint64_t sample, uint32_t draw, uint32_t first)
{
    enum { LANES = VL / 2, MOST = NOISE_BLOCKS / LANES };
    const int vectors = blocks / LANES;
    lanes c[4][MOST];
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int v = 0; v < vectors; v++) {
        c[0][v] = (lanes)NOISE_COUNT + ((uint64_t)first + (uint64_t)(v * LANES));
        c[1][v] = (lanes){0} + draw;
        c[2][v] = (lanes){0} + (uint32_t)sample;
        c[3][v] = (lanes){0} + (sample >> 32);
    }
    for (int round = 0; round < 10; round++) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            lanes p0 = noise_product(c[0][v], 0xd2511f53u), p1 = noise_product(c[2][v], 0xcd9e8d57u);
            c[0][v] = p1 >> 32 ^ c[1][v] ^ (uint64_t)k0;
            c[2][v] = p0 >> 32 ^ c[3][v] ^ (uint64_t)k1;
            c[1][v] = p1;
            c[3][v] = p0;
        }
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    for (int v = 0; v < vectors; v++) { /* two words a lane, in little-endian order, as on every machine this runs on */
        lanes a = (c[0][v] & 0xffffffffu) | c[1][v] << 32, b = (c[2][v] & 0xffffffffu) | c[3][v] << 32;
        lanes_unaligned *to = (lanes_unaligned *)(word + v * LANES * 4);
        to[0] = NOISE_LOW(a, b);
        to[1] = NOISE_HIGH(a, b);
    }
}

/* log, sine and cosine by polynomials of the Cephes library's degrees (Moshier), to a few ulp, without branches. */
static inline float noise_log(float x) /* x normal and positive */
{
    union {
        float f;
        int32_t i;
    } bits = {x};
    int32_t e = (bits.i - 0x3f3504f3) >> 23; /* x = m 2^e, m from sqrt(1/2) to sqrt(2) */
    bits.i -= e * (1 << 23);
    float f = bits.f - 1.0f, n = (float)e, p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return f + (p * f * f * f - n * 2.12194440e-4f - 0.5f * f * f) + n * 0.693359375f;
}

static inline void noise_turn(float *sine, float *cosine, float x) /* x from 0 to 2 pi */
{
    int32_t quarter = (int32_t)(x * 0.63661977236758134f + 0.5f);
    float n = (float)quarter, r = x - n * 1.5703125f;
    r = r - n * 4.837512969970703125e-4f;
    r = r - n * 7.549789948768648e-8f;
    float q = r * r;
    float s = r + r * q * (-1.6666654611e-1f + q * (8.3321608736e-3f - q * 1.9515295891e-4f));
    float c =
        1.0f - 0.5f * q + q * q * (4.166664568298827e-2f + q * (-1.388731625493765e-3f + q * 2.443315711809948e-5f));
    float a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -a : a;
    *cosine = (quarter + 1) & 2 ? -b : b;
}

/* Computes noise_normal4 of all blocks. */
static inline __attribute__((always_inline)) void noise_normals(float *restrict normal, const uint32_t *restrict word,
                                                                const int blocks)
{
    SIMD for (int i = 0; i < 2 * blocks; i++)
    {
        float u = (float)word[2 * i] * 0x1p-32f + 0x1p-33f;
        float v = (float)word[2 * i + 1] * (0x1p-32f * 6.2831855f) + (0x1p-33f * 6.2831855f);
        float r = __builtin_sqrtf(-2.0f * noise_log(u)), sine, cosine;
        noise_turn(&sine, &cosine, v);
        normal[2 * i] = r * sine;
        normal[2 * i + 1] = r * cosine;
    }
}

#endif
