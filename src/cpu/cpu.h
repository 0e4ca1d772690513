/* The CPU backend as its kernels see it. Every file in this folder but backend.c and instructions.c is compiled once
 * per instruction set. CPU(name) gives each copy its own symbol, and backend.c chooses a table at run time.
 *
 * Tiles split outputs, never a reduction, and tile sizes depend on shapes only. Therefore results have the same bits
 * for any number of threads. */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include "base/pool.h"
#include "cpu/backend.h"
#include "cpu/quantized/packed.h"

#include <string.h>

#define CPU_JOIN_(a, b) a##_##b
#define CPU_JOIN(a, b)  CPU_JOIN_(a, b)
#define CPU(name)       CPU_JOIN(cpu_##name, CPU_VARIANT)

#if defined(__AVX512F__)
#define VL 16
#elif defined(__AVX2__)
#define VL 8
#else
#define VL 4
#endif

#define SIMD          _Pragma("omp simd")
#define SIMD_SUM(...) _Pragma(CPU_TEXT(omp simd reduction(+ : __VA_ARGS__)))
#define SIMD_MAX(v)   _Pragma(CPU_TEXT(omp simd reduction(max : v)))
#define CPU_TEXT(...) #__VA_ARGS__

typedef float vec __attribute__((vector_size(VL * 4)));
typedef float vec_unaligned __attribute__((vector_size(VL * 4), aligned(4), may_alias));

static inline vec load(const float *p)
{
    return *(const vec_unaligned *)p;
}

static inline void store(float *p, vec v)
{
    *(vec_unaligned *)p = v;
}

/* ---- sums in a fixed order, whatever the compiler ---- */

/* Returns the sum of the lanes of v. */
static inline float cpu_total(vec v)
{
    typedef float four __attribute__((vector_size(16)));
#if VL == 16
    typedef float eight __attribute__((vector_size(32)));
    eight low = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    four x = __builtin_shufflevector(low, low, 0, 1, 2, 3) + __builtin_shufflevector(low, low, 4, 5, 6, 7);
#elif VL == 8
    four x = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
    four x = v;
#endif
    x += __builtin_shufflevector(x, x, 2, 3, 0, 1);
    return x[0] + x[1];
}

static inline float cpu_sum(const float *x, size_t n)
{
    vec sum = {0};
    size_t i = 0;
    for (; i + VL <= n; i += VL) sum += load(x + i);
    float s = cpu_total(sum);
    for (; i < n; i++) s += x[i];
    return s;
}

static inline float cpu_dot(const float *x, const float *y, size_t n)
{
    vec sum = {0};
    size_t i = 0;
    for (; i + VL <= n; i += VL) sum += load(x + i) * load(y + i);
    float s = cpu_total(sum);
    for (; i < n; i++) s += x[i] * y[i];
    return s;
}

/* ---- the backend ---- */

struct cpu_backend {
    struct backend base;
    struct pool *pool;
    const struct quantized_path *quantized; /* for products with quantized weights */
    struct packed_weights packed;
    char detail[64];
    char *workers; /* scratch, worker_bytes per thread */
    size_t worker_bytes;
};

static inline struct cpu_backend *cpu_of(const struct call *c)
{
    return (struct cpu_backend *)c->backend;
}

static inline void cpu_run(const struct call *c, size_t tiles, pool_tile run, const void *argument)
{
    pool_run(cpu_of(c)->pool, tiles, run, (void *)argument);
}

static inline float *cpu_scratch(const struct call *c, size_t worker)
{
    return (float *)(cpu_of(c)->workers + worker * cpu_of(c)->worker_bytes);
}

static inline size_t tiles_of(size_t n, size_t tile)
{
    return (n + tile - 1) / tile;
}

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- arithmetic that vectorizes ---- */

/* exp as 2^n * polynomial (Cody-Waite reduction, degree 6), to about 1 ulp; exp(-104) and below is 0. */
static inline float cpu_exp_within(float x) /* x from -104 to 88.7 */
{
    float n = __builtin_floorf(x * 1.44269504088896341f + 0.5f);
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    /* 2^k is two factors, so that results down to the subnormals and up to the largest float are right. */
    int k = (int)n, half = k >> 1;
    union {
        uint32_t i;
        float f;
    } a = {(uint32_t)(half + 127) << 23}, b = {(uint32_t)(k - half + 127) << 23};
    return p * a.f * b.f;
}

static inline float cpu_exp(float x)
{
    x = x < -104.0f ? -104.0f : x;
    x = x > 88.7f ? 88.7f : x;
    return cpu_exp_within(x);
}

/* cpu_exp(NaN) is NaN, because comparisons with NaN are false and r is NaN. */

/* Clamps x to +-60, where the result is 0 or 1 to 1e-26, instead of leaving this to cpu_exp. gcc multiplies every lane
 * by the value at the bound to keep the lanes that met it. The value at cpu_exp's bounds is a denormal, and Intel's
 * processors trap each product with a denormal in microcode. */
static inline float cpu_sigmoid(float x)
{
    x = x < -60.0f ? -60.0f : x;
    x = x > 60.0f ? 60.0f : x;
    return 1.0f / (1.0f + cpu_exp_within(-x));
}

/* Within 1.2e-7 of tanh. */
static inline float cpu_tanh(float x)
{
    return 2.0f * cpu_sigmoid(2.0f * x) - 1.0f;
}

/* GELU, tanh form: tanh(u) = 1 - 2 / (1 + exp(2u)), so x (1 + tanh u) / 2 = x sigmoid(2u). */
static inline float cpu_gelu(float x)
{
    return x * cpu_sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
}

static inline float cpu_gelu_slope(float x)
{
    float s = cpu_sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
    return s + x * s * (1.0f - s) * (1.5957691216057308f + 0.21406859f * x * x);
}

#endif
