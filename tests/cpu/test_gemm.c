/* gemm: C = A B (+ C) (+ bias) and gelu(C), on every instruction set of this processor, against sums in double and
 * against other divisions into parts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CPU_VARIANT generic
#include "base/philox.h"
#include "cpu/gemm.h"
#include "device/backends.h"

#include <math.h>
#include <stdlib.h>

#define VARIANT(name)                                                                                                  \
    void cpu_gemm_##name(const struct call *call, const struct product *p) __attribute__((weak));                      \
    size_t cpu_gemm_scratch_##name(void) __attribute__((weak))
VARIANT(avx2);
VARIANT(avx512);
VARIANT(amx);

static const struct {
    const char *name;
    void (*gemm)(const struct call *call, const struct product *p);
    size_t (*scratch)(void);
} variants[] = {{"generic", cpu_gemm_generic, cpu_gemm_scratch_generic},
                {"avx2", cpu_gemm_avx2, cpu_gemm_scratch_avx2},
                {"avx512", cpu_gemm_avx512, cpu_gemm_scratch_avx512},
                {"amx", cpu_gemm_amx, cpu_gemm_scratch_amx}};
enum { VARIANTS = sizeof variants / sizeof *variants, CHAIN = 256 };

/* ---- products that can be repeated ---- */

struct made {
    size_t m, n, k, ldc;
    bool a_across, b_along, add, bias, gelu; /* A is stored across k; B is stored along k */
    float *a, *b, *c, *activated, *biases, *before;
};

/* Allocates numbers followed by NaN, so that a kernel that reads a lane or a place of k too many gets NaN. */
static float *numbers(size_t n, uint64_t purpose)
{
    enum { AFTER = 16 };
    float *x = malloc((n + AFTER) * sizeof *x);
    assert_non_null(x);
    memset(x + n, 0xff, AFTER * sizeof *x);
    struct noise_key key = noise_key(7, purpose, 0);
    for (size_t i = 0; i < n; i += 4) {
        struct philox_block four = noise_block(key, 0, 0, (uint32_t)(i / 4));
        for (size_t j = i; j < n && j < i + 4; j++) x[j] = (float)(noise_uniform(four.word[j - i]) * 4 - 2);
    }
    return x;
}

static struct made make(size_t m, size_t n, size_t k, unsigned flags)
{
    struct made d = {.m = m,
                     .n = n,
                     .k = k,
                     .a_across = flags & 1,
                     .b_along = flags & 2,
                     .add = flags & 4,
                     .bias = flags & 8,
                     .gelu = flags & 16};
    d.ldc = n + (flags & 1 ? 3 : 0);
    d.a = numbers(m * k, 1);
    d.b = numbers(k * n, 2);
    d.c = numbers(m * d.ldc, 3);
    d.before = numbers(m * d.ldc, 3);
    d.activated = numbers(m * d.ldc, 4);
    d.biases = numbers(n, 5);
    return d;
}

static void drop(struct made *d)
{
    float *all[] = {d->a, d->b, d->c, d->before, d->activated, d->biases};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static struct product product_of(const struct made *d)
{
    struct product p = {.m = d->m,
                        .n = d->n,
                        .k = d->k,
                        .c = d->c,
                        .ldc = d->ldc,
                        .add = d->add,
                        .bias = d->bias ? d->biases : NULL,
                        .gelu = d->gelu ? d->activated : NULL};
    p.a = d->a_across ? (struct matrix){d->a, 1, d->m} : (struct matrix){d->a, d->k, 1};
    p.b = d->b_along ? (struct matrix){d->b, 1, d->k} : (struct matrix){d->b, d->n, 1};
    return p;
}

static void run(size_t variant, size_t threads, const struct product *p)
{
    struct backend *backend;
    elbo_error error = {0};
    assert_int_equal(cpu_backend_create(&backend, threads, variants[variant].name, &error), ELBO_OK);
    assert_int_equal(backend->memory.reserve(backend, variants[variant].scratch(), &error), ELBO_OK);
    variants[variant].gemm(&(struct call){.backend = backend}, p);
    backend->destroy(backend);
}

static bool has(size_t variant)
{
    struct backend *backend;
    elbo_error error = {0};
    if (!variants[variant].gemm || cpu_backend_create(&backend, 1, variants[variant].name, &error)) return false;
    backend->destroy(backend);
    return true;
}

/* ---- sums ---- */

static double exact(const struct product *p, size_t i, size_t j, double *magnitude)
{
    double sum = 0;
    *magnitude = 0;
    for (size_t k = 0; k < p->k; k++) {
        double term = (double)p->a.data[i * p->a.row + k * p->a.col] * p->b.data[k * p->b.row + j * p->b.col];
        sum += term;
        *magnitude += fabs(term);
    }
    return sum;
}

/* Returns what f32 multiply-adds give: blocks of a chain, added. */
static float chain(const struct product *p, size_t i, size_t j)
{
    float sum = 0;
    for (size_t from = 0; from < p->k; from += CHAIN) {
        float part = 0;
        for (size_t k = from; k < least(p->k, from + CHAIN); k++)
            part = fmaf(p->a.data[i * p->a.row + k * p->a.col], p->b.data[k * p->b.row + j * p->b.col], part);
        sum += part;
    }
    return sum;
}

/* Returns the exact sums and magnitudes of a product, (m, n) each. They are kept for the next call with the same
 * operands, because variants and flags share them. */
static const double *exact_of(const struct product *p, const struct made *d)
{
    static double *kept;
    static size_t m, n, k;
    static bool across, along;
    if (kept && m == d->m && n == d->n && k == d->k && across == d->a_across && along == d->b_along) return kept;
    m = d->m, n = d->n, k = d->k, across = d->a_across, along = d->b_along;
    free(kept);
    kept = malloc(2 * m * n * sizeof *kept + 1);
    assert_non_null(kept);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) kept[2 * (i * n + j)] = exact(p, i, j, &kept[2 * (i * n + j) + 1]);
    return kept;
}

/* Checks every element within the rounding that a chain of sums reaches in practice: a few times the square root of its
 * length. */
static void check(size_t variant, size_t threads, unsigned flags, size_t m, size_t n, size_t k)
{
    struct made d = make(m, n, k, flags);
    struct product p = product_of(&d);
    run(variant, threads, &p);
    const double *sums = exact_of(&p, &d);
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = sums[2 * (i * n + j)], magnitude = sums[2 * (i * n + j) + 1], old = d.before[i * d.ldc + j],
                   bias = d.biases[j];
            double want = sum + (d.add ? old : 0) + (d.bias ? bias : 0), got = d.c[i * d.ldc + j];
            double bound = 0x1p-24 * ((2 + sqrt((double)(k < CHAIN ? k : CHAIN))) * magnitude + 3 * fabs(old) +
                                      2 * fabs(bias) + fabs(want));
            if (!(fabs(got - want) <= bound))
                fail_msg("%s, %zu threads, %zu x %zu x %zu, flags %u: C(%zu, %zu) is %.9g, not %.9g",
                         variants[variant].name, threads, m, n, k, flags, i, j, got, want);
            double y = got / (1 + exp(-2 * sqrt(2 / M_PI) * (got + 0.044715 * got * got * got)));
            if (d.gelu && !(fabs(d.activated[i * d.ldc + j] - y) <= 1e-6 * (1 + fabs(y))))
                fail_msg("%s: gelu(%zu, %zu) is %.9g, not %.9g", variants[variant].name, i, j,
                         d.activated[i * d.ldc + j], y);
        }
        assert_memory_equal(d.c + i * d.ldc + n, d.before + i * d.ldc + n, (d.ldc - n) * sizeof(float));
    }
    drop(&d);
}

static const size_t shapes[][3] = {{1, 1, 1},      {1, 1, 0},     {3, 5, 0},     {1, 33, 17},     {2, 64, 96},
                                   {7, 40, 31},    {8, 100, 33},  {9, 17, 385},  {16, 16, 32},    {17, 65, 64},
                                   {31, 31, 31},   {33, 129, 96}, {63, 95, 127}, {64, 70, 400},   {65, 130, 257},
                                   {100, 40, 770}, {130, 3, 129}, {97, 545, 65}, {40, 1030, 100}, {200, 130, 1100}};

static void every_element(void **state)
{
    (void)state;
    bool there[VARIANTS];
    for (size_t v = 0; v < VARIANTS; v++) there[v] = has(v);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (unsigned operands = 0; operands < 4; operands++)
            for (unsigned flags = operands; flags < 32; flags += 4)
                for (size_t v = 0; v < VARIANTS; v++)
                    if (there[v]) check(v, 1 + (s + flags) % 3, flags, shapes[s][0], shapes[s][1], shapes[s][2]);
}

/* The bits of a row and of a column are the same alone and among others, in any layout of the operands, on any number
 * of threads. */
static void bits_depend_on_k_alone(void **state)
{
    (void)state;
    static const size_t ks[] = {1, 31, 128, 300, 520, 1000};
    static const size_t counts[][2] = {{1, 1},   {1, 90},  {5, 90},  {8, 17}, {9, 90},
                                       {33, 20}, {64, 90}, {65, 90}, {70, 1}};
    enum { M = 70, N = 90 };
    for (size_t v = 0; v < VARIANTS; v++)
        for (size_t i = 0; has(v) && i < sizeof ks / sizeof *ks; i++) {
            struct made whole = make(M, N, ks[i], 2);
            struct product all = product_of(&whole);
            run(v, 3, &all);
            float *a_across = malloc(M * ks[i] * sizeof *a_across), *b_across = malloc(N * ks[i] * sizeof *b_across);
            for (size_t k = 0; k < ks[i]; k++) {
                for (size_t r = 0; r < M; r++) a_across[k * M + r] = whole.a[r * ks[i] + k];
                for (size_t j = 0; j < N; j++) b_across[k * N + j] = whole.b[j * ks[i] + k];
            }
            for (size_t c = 0; c < 4 * sizeof counts / sizeof *counts; c++) {
                size_t m = counts[c / 4][0], n = counts[c / 4][1], row = M - m, column = N - n;
                float *some = malloc(m * n * sizeof *some);
                struct product p = {.m = m, .n = n, .k = ks[i], .c = some, .ldc = n};
                p.a = c & 1 ? (struct matrix){a_across + row, 1, M} : (struct matrix){whole.a + row * ks[i], ks[i], 1};
                p.b = c & 2 ? (struct matrix){b_across + column, N, 1}
                            : (struct matrix){whole.b + column * ks[i], 1, ks[i]};
                run(v, 1 + c % 4, &p);
                for (size_t r = 0; r < m; r++)
                    assert_memory_equal(some + r * n, whole.c + (row + r) * whole.ldc + column, n * sizeof *some);
                free(some);
            }
            free(a_across);
            free(b_across);
            drop(&whole);
        }
}

static double rms_error(const struct product *p, bool of_chain)
{
    double squares = 0, magnitude;
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            double sum = exact(p, i, j, &magnitude),
                   e = ((double)(of_chain ? chain(p, i, j) : p->c[i * p->ldc + j]) - sum) / magnitude;
            squares += e * e;
        }
    return sqrt(squares / (double)(p->m * p->n));
}

/* No instruction set is less exact than a chain of f32 multiply-adds; operands of 16 bits instead of 24 would be. */
static void as_exact_as_multiply_adds(void **state)
{
    (void)state;
    static const size_t ks[] = {32, 128, 256, 700, 2048};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        struct made d = make(48, 40, ks[i], 0);
        struct product p = product_of(&d);
        double chained = rms_error(&p, true);
        for (size_t v = 0; v < VARIANTS; v++) {
            if (!has(v)) continue;
            run(v, 1, &p);
            double error = rms_error(&p, false);
            if (i == 3)
                print_message("%s: %.2g of the terms' magnitudes at k = %zu, a chain of multiply-adds %.2g\n",
                              variants[v].name, error, ks[i], chained);
            if (error > 1.1 * chained)
                fail_msg("%s: an error of %.3g at k = %zu, a chain's is %.3g", variants[v].name, error, ks[i], chained);
        }
        struct made rounded = make(48, 40, ks[i], 0);
        for (size_t e = 0; e < 48 * ks[i]; e++) rounded.a[e] = (float)((int)(d.a[e] * 0x1p15f)) * 0x1p-15f;
        struct product q = product_of(&rounded);
        run(0, 1, &q);
        memcpy(d.c, rounded.c, 48 * 40 * sizeof *d.c); /* as if the product had rounded its operands */
        assert_true(rms_error(&p, false) > 1.1 * chained);
        drop(&rounded);
        drop(&d);
    }
}

/* Magnitudes far from one; NaN stays NaN, in its own row and column only. */
static void far_numbers(void **state)
{
    (void)state;
    enum { M = 20, N = 36, K = 50 };
    for (size_t v = 0; v < VARIANTS; v++) {
        if (!has(v)) continue;
        for (int power = -90; power <= 120; power += 30) {
            struct made d = make(M, N, K, 2);
            struct product p = product_of(&d);
            for (size_t i = 0; i < M * K; i++) d.a[i] = ldexpf(d.a[i], power);
            for (size_t i = 0; i < N * K; i++) d.b[i] = ldexpf(d.b[i], power > 0 ? -90 : 60);
            run(v, 2, &p);
            assert_true(rms_error(&p, false) <= 1.1 * rms_error(&p, true));
            d.a[3 * K + 7] = INFINITY;
            memset(&d.a[5 * K], 0xff, sizeof *d.a);
            memset(&d.b[11 * K], 0xff, sizeof *d.b);
            run(v, 2, &p);
            for (size_t i = 0; i < M; i++)
                for (size_t j = 0; j < N; j++) {
                    float c = d.c[i * d.ldc + j];
                    assert_true(i == 5 || j == 11 ? isnan(c) : i == 3 ? !isfinite(c) : isfinite(c));
                }
            drop(&d);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_element), cmocka_unit_test(bits_depend_on_k_alone),
                                       cmocka_unit_test(as_exact_as_multiply_adds), cmocka_unit_test(far_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
