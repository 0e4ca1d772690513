/* Products with quantized weights: every path, with this machine's instructions and with emulated ones, against sums in
 * double of the blocks' values and the rounded activations. Also the rounding of activations, and bits that depend on
 * rows alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/philox.h"
#include "cpu/backend.h"
#include "cpu/quantized/packed.h"
#include "tolerances.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EMULATED(name) extern const struct quantized_kernel quantized_kernel_emulated_##name
EMULATED(generic);
EMULATED(avx2);
EMULATED(vnni);
EMULATED(amx);
EMULATED(neon);
EMULATED(wasm);

static bool always(void)
{
    return true;
}

enum { MOST_PATHS = 16, AFTER = 64 };
static struct quantized_path paths[MOST_PATHS];
static size_t path_count;

static int gather(void **state)
{
    static const struct quantized_path emulated[] = {{"generic, emulated", always, &quantized_kernel_emulated_generic},
                                                     {"avx2, emulated", always, &quantized_kernel_emulated_avx2},
                                                     {"vnni, emulated", always, &quantized_kernel_emulated_vnni},
                                                     {"amx, emulated", always, &quantized_kernel_emulated_amx},
                                                     {"neon, emulated", always, &quantized_kernel_emulated_neon},
                                                     {"wasm, emulated", always, &quantized_kernel_emulated_wasm}};
    (void)state;
    for (const struct quantized_path *p = quantized_paths; p->name; p++) {
        if (p->supported())
            paths[path_count++] = *p;
        else
            print_message("[          ] %s: not on this processor, so by emulation alone\n", p->name);
    }
    for (size_t i = 0; i < sizeof emulated / sizeof *emulated; i++) paths[path_count++] = emulated[i];
    return 0;
}

/* ---- products that can be repeated ---- */

struct made {
    struct quantized_product p;
    float *a, *c, *bias;
    unsigned char *w;
    double *weights, *rounded, *exact; /* (N, K); (M, K) rounded and exact */
};

/* Allocates memory followed by values that no result may contain. */
static void *room(size_t bytes)
{
    unsigned char *x = malloc(bytes + AFTER);
    assert_non_null(x);
    memset(x, 0xff, bytes + AFTER);
    return x;
}

static void fill(float *x, size_t n, uint64_t purpose, float scale)
{
    struct noise_key key = noise_key(11, purpose, 0);
    for (size_t i = 0; i < n; i += 4) {
        struct philox_block four = noise_block(key, 0, 0, (uint32_t)(i / 4));
        for (size_t j = i; j < n && j < i + 4; j++) x[j] = scale * (float)(noise_uniform(four.word[j - i]) * 2 - 1);
    }
}

/* Rounds as product.h says: d = the largest magnitude of 128 / 127, whole multiples of d. Moves values away that lie so
 * near the middle of two multiples that a product's rounding decides. */
static void round_rows(double *to, float *x, size_t count)
{
    for (size_t at = 0; at < count; at += 128) {
        float most = 0;
        size_t end = at + 128 < count ? at + 128 : count;
        for (size_t i = at; i < end; i++) most = fmaxf(most, fabsf(x[i]));
        float d = most / 127, inverse = most > 0 ? 127 / most : 0;
        for (size_t i = at; i < end; i++) {
            float places = fabsf(x[i] * inverse);
            if (fabsf(places - floorf(places) - 0.5f) < 1e-3f) x[i] *= 1 - 0.01f / places;
            to[i] = (double)d * (double)rintf(x[i] * inverse);
        }
    }
}

static struct made make(enum block_type type, size_t m, size_t n, size_t k, bool bias)
{
    struct made d = {.a = room(m * (k + 3) * sizeof(float)),
                     .c = room(m * (n + 5) * sizeof(float)),
                     .bias = room(n * sizeof(float)),
                     .w = room(block_bytes(type, n * k)),
                     .weights = room(n * k * sizeof(double)),
                     .rounded = room(m * k * sizeof(double)),
                     .exact = room(m * k * sizeof(double))};
    float *w = room(n * k * sizeof *w);
    fill(d.a, m * (k + 3), 1, 2);
    fill(d.bias, n, 2, 1);
    for (size_t j = 0; j < n; j++) fill(w + j * k, k, 3 + j, j % 7 == 6 ? 1e-4f : 0.1f * (float)(1 + j % 5));
    for (size_t i = 0; i < k; i++) d.a[i] *= i / 128 % 3 ? 1 : 1e-3f; /* spans of different magnitudes in a row */
    for (size_t i = 0; i < 128 && i < k && m > 1; i++) d.a[k + 3 + i] = 0;
    block_quantize(type, d.w, w, n * k);
    block_dequantize(type, w, d.w, n * k);
    for (size_t i = 0; i < n * k; i++) d.weights[i] = (double)w[i];
    for (size_t i = 0; i < m; i++) {
        round_rows(d.rounded + i * k, d.a + i * (k + 3), k);
        for (size_t j = 0; j < k; j++) d.exact[i * k + j] = (double)d.a[i * (k + 3) + j];
    }
    free(w);
    d.p = (struct quantized_product){m, n, k, d.a, k + 3, d.w, type, d.c, n + 5, bias ? d.bias : NULL, NULL};
    return d;
}

static void drop(struct made *d)
{
    void *all[] = {d->a, d->c, d->bias, d->w, d->weights, d->rounded, d->exact};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void run(const struct quantized_path *path, const struct quantized_product *p)
{
    char *given = malloc(QUANTIZED_SCRATCH + 2 * AFTER), *scratch = given + AFTER - (uintptr_t)given % AFTER;
    assert_non_null(given);
    memset(given, 0xff, QUANTIZED_SCRATCH + 2 * AFTER);
    path->kernel->product(p, scratch);
    for (char *x = scratch + QUANTIZED_SCRATCH; x < given + QUANTIZED_SCRATCH + 2 * AFTER; x++)
        assert_int_equal(*(unsigned char *)x, 0xff);
    free(given);
}

/* ---- against double ---- */

/* Returns the largest |c - reference| relative to the magnitudes in the sum. */
static double worst(const struct made *d, const double *a, const float *c)
{
    double most = 0;
    const struct quantized_product *p = &d->p;
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            double sum = p->bias ? (double)p->bias[j] : 0, all = fabs(sum);
            for (size_t k = 0; k < p->k; k++) {
                double x = a[i * p->k + k] * d->weights[j * p->k + k];
                sum += x;
                all += fabs(x);
            }
            double gap = fabs((double)c[i * p->ldc + j] - sum) / all;
            if (!(gap <= most)) most = gap;
        }
    return most;
}

static void check(enum block_type type, size_t m, size_t n, size_t k, bool bias)
{
    struct made d = make(type, m, n, k, bias);
    for (size_t i = 0; i < path_count; i++) {
        memset(d.c, 0xff, m * d.p.ldc * sizeof *d.c);
        run(&paths[i], &d.p);
        double gap = worst(&d, d.rounded, d.c), rounding = worst(&d, d.exact, d.c);
        /* The rounding of activations is at most half of 1 / 127 of their block's largest. */
        if (!(gap <= TOLERANCE_PRODUCT) || !(rounding <= 1.0 / 127))
            fail_msg("%s, %s, %zu x %zu x %zu: off by %g of the magnitudes that are added, rounding %g", paths[i].name,
                     block_infos[type].name, m, n, k, gap, rounding);
        for (size_t r = 0; r < m; r++) /* gaps between rows, and memory behind the last, are not written */
            for (size_t j = n; j < d.p.ldc; j++) assert_int_equal(((uint32_t *)d.c)[r * d.p.ldc + j], UINT32_MAX);
    }
    drop(&d);
}

static void test_against_double(void **state)
{
    static const size_t sizes[][3] = {{1, 1, 1},  {1, 16, 1}, {1, 37, 3},  {2, 5, 2},   {3, 31, 1}, {7, 20, 1},
                                      {8, 33, 2}, {9, 15, 1}, {16, 16, 2}, {25, 18, 1}, {37, 50, 1}};
    (void)state;
    for (enum block_type type = BLOCK_Q8_0; type < BLOCK_TYPES; type++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t values = block_infos[type].values;
            check(type, sizes[i][0], sizes[i][1], sizes[i][2] * values, i % 2);
            if (values < 256) check(type, sizes[i][0], sizes[i][1], (sizes[i][2] * 8 + 5) * values, i % 2 == 0);
        }
}

/* K is larger than a slice, and there are more rows than are rounded at a time. */
static void test_large(void **state)
{
    (void)state;
    for (enum block_type type = BLOCK_Q8_0; type < BLOCK_TYPES; type++) {
        check(type, 3, 17, 5120, true);
        check(type, 260, 17, 2304, false);
        check(type, 2, 3, 2304, true);
    }
}

/* ---- every code ---- */

/* Blocks of any bytes, as another program may write them: -128, negative scales, all nibbles. Scales are finite. */
static void test_any_bytes(void **state)
{
    enum { M = 9, N = 18, K = 512 };
    (void)state;
    for (enum block_type type = BLOCK_Q8_0; type < BLOCK_TYPES; type++) {
        struct made d = make(type, M, N, K, false);
        size_t bytes = block_bytes(type, N * K), each = block_infos[type].bytes;
        struct noise_key key = noise_key(13, type, 0);
        float *w = room(N * K * sizeof *w);
        for (size_t i = 0; i < bytes; i++) d.w[i] = (unsigned char)noise_block(key, 0, 0, (uint32_t)i).word[0];
        for (size_t b = 0; b < bytes; b += each) {
            unsigned char *half = d.w + b + (type == BLOCK_Q6_K ? 208 : 0);
            half[1] = (unsigned char)((half[1] & 0x83) | 0x30); /* an exponent in the middle */
            if (type == BLOCK_Q4_K) d.w[b + 3] = (unsigned char)((d.w[b + 3] & 0x83) | 0x2c);
            if (b / each % 9 == 4) half[1] &= 0x83; /* a subnormal number */
            if (type == BLOCK_Q8_0) d.w[b + 2] = 0x80;
        }
        block_dequantize(type, w, d.w, N * K);
        for (size_t i = 0; i < N * K; i++) d.weights[i] = (double)w[i];
        for (size_t i = 0; i < path_count; i++) {
            run(&paths[i], &d.p);
            double gap = worst(&d, d.rounded, d.c);
            if (!(gap <= TOLERANCE_PRODUCT))
                fail_msg("%s, %s, any bytes: off by %g", paths[i].name, block_infos[type].name, gap);
        }
        free(w);
        drop(&d);
    }
}

/* ---- bits ---- */

/* A row alone, a row among others, and a part of the columns have the same bits. */
static void test_bits_of_rows(void **state)
{
    enum { M = 29, N = 50, K = 768, FROM = 32 };
    (void)state;
    for (enum block_type type = BLOCK_Q8_0; type < BLOCK_TYPES; type++) {
        struct made d = make(type, M, N, K, true);
        for (size_t i = 0; i < path_count; i++) {
            float alone[N];
            run(&paths[i], &d.p);
            for (size_t r = 0; r < M; r += 4) {
                struct quantized_product one = d.p;
                one.m = 1;
                one.a += r * one.row;
                one.c = alone;
                run(&paths[i], &one);
                assert_memory_equal(alone, d.c + r * d.p.ldc, sizeof alone);
                one.n = N - FROM;
                one.w += block_bytes(type, (size_t)FROM * K);
                one.bias += FROM;
                run(&paths[i], &one);
                assert_memory_equal(alone, d.c + r * d.p.ldc + FROM, (N - FROM) * sizeof *alone);
            }
        }
        drop(&d);
    }
}

/* ---- weights that are kept packed ---- */

/* Packed weights give the same bits, whole and in two parts of the columns, also for a row or two, which read W in
 * place. */
static void test_packed(void **state)
{
    static const size_t sizes[][4] = {/* M, N, K / 256, where the second part begins */
                                      {3, 16, 1, 0},
                                      {29, 50, 3, 48},
                                      {16, 40, 9, 16},
                                      {2, 37, 1, 32},
                                      {9, 67, 2, 64}};
    (void)state;
    for (enum block_type type = BLOCK_Q8_0; type < BLOCK_TYPES; type++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct made d = make(type, sizes[s][0], sizes[s][1], sizes[s][2] * 256, true);
            size_t bytes = d.p.m * d.p.ldc * sizeof(float), from = sizes[s][3];
            float *plain = d.c, *packed = room(bytes);
            for (size_t i = 0; i < path_count; i++) {
                const struct quantized_kernel *kernel = paths[i].kernel;
                size_t panel = kernel->panel_bytes(type, d.p.k),
                       count = (d.p.n + kernel->columns - 1) / kernel->columns;
                char *given = malloc(count * panel + 2 * AFTER), *panels = given + AFTER - (uintptr_t)given % AFTER;
                assert_non_null(given);
                assert_int_equal(QUANTIZED_COLUMNS % kernel->columns, 0);
                memset(given, 0xff, count * panel + 2 * AFTER);
                for (size_t t = 0; t < count; t++) kernel->pack(&d.p, t, panels + t * panel);
                for (char *x = panels + count * panel; x < given + count * panel + 2 * AFTER; x++)
                    assert_int_equal(*(unsigned char *)x, 0xff);
                memset(plain, 0xff, bytes);
                run(&paths[i], &d.p);
                struct quantized_product whole = d.p, part = d.p;
                whole.panels = panels;
                whole.c = packed;
                memset(packed, 0xff, bytes);
                run(&paths[i], &whole);
                assert_memory_equal(packed, plain, bytes);
                memset(packed, 0xff, bytes);
                part.c = packed;
                part.panels = panels;
                part.n = from;
                if (from) run(&paths[i], &part);
                part.n = d.p.n - from;
                part.c += from;
                part.bias += from;
                part.w += block_bytes(type, from * d.p.k);
                part.panels += from / kernel->columns * panel;
                run(&paths[i], &part);
                assert_memory_equal(packed, plain, bytes);
                free(given);
            }
            free(packed);
            drop(&d);
        }
}

/* Weights are kept after some uses, if they fit and fill a panel, with the shape of their first use. */
static void test_kept(void **state)
{
    enum { COUNT = 200, N = 20, K = 32 };
    struct packed_weights none = {0}, all = {.kernel = quantized_paths[0].kernel, .most = 1 << 24};
    elbo_error error;
    struct backend *backend;
    struct made d = make(BLOCK_Q8_0, 3, COUNT + N, K, false);
    (void)state;
    for (const struct quantized_path *p = quantized_paths; p->name; p++)
        if (p->supported()) {
            all.kernel = p->kernel;
            break;
        }
    assert_int_equal(cpu_backend_create(&backend, 2, NULL, &error), ELBO_OK);
    all.backend = backend;
    for (int use = 1; use <= PACKED_WORTH + 1; use++) assert_null(packed_weight(&none, d.w, BLOCK_Q8_0, N, K));
    const char *first[COUNT];
    for (int use = 1; use <= PACKED_WORTH + 1; use++)
        for (size_t i = 0; i < COUNT; i++) {
            const char *panels = packed_weight(&all, d.w + block_bytes(BLOCK_Q8_0, i * K), BLOCK_Q8_0, N, K);
            if (use < PACKED_WORTH) assert_null(panels);
            if (use == PACKED_WORTH) assert_non_null(first[i] = panels);
            if (use > PACKED_WORTH) assert_ptr_equal(panels, first[i]);
        }
    assert_null(packed_weight(&all, d.w, BLOCK_Q8_0, N + 1, K));
    assert_null(packed_weight(&all, d.w, BLOCK_Q4_0, N, K));
    size_t before = all.bytes;
    assert_true(before >= COUNT * N * K && before < all.most);
    for (int use = 1; use <= PACKED_WORTH + 1; use++)
        assert_null(packed_weight(&all, d.w + 1, BLOCK_Q8_0, all.kernel->columns - 1, K));
    all.most = before;
    for (int use = 1; use <= PACKED_WORTH + 1; use++) assert_null(packed_weight(&all, d.w + 2, BLOCK_Q8_0, N, K));
    assert_int_equal(all.bytes, before);
    packed_weights_free(&all);
    backend->destroy(backend);
    drop(&d);
}

/* With scales that are powers of two and sums below 2^24, each path gives the exact sum. */
static void test_exact(void **state)
{
    enum { M = 19, N = 40, K = 256 };
    (void)state;
    for (enum block_type type = BLOCK_Q8_0; type < BLOCK_TYPES; type++) {
        struct made d = make(type, M, N, K, false);
        size_t bytes = block_bytes(type, N * K), each = block_infos[type].bytes;
        struct noise_key key = noise_key(17, type, 0);
        float *w = room(N * K * sizeof *w);
        for (size_t i = 0; i < M * d.p.row; i++) {
            int number = (int)(noise_block(key, 1, 0, (uint32_t)i).word[0] % 7) - 3;
            bool first = i % d.p.row % 128 == i / d.p.row; /* the largest of its span, so d = 1 */
            d.a[i] = (float)(first ? i % 2 ? -127 : 127 : number);
        }
        for (size_t i = 0; i < bytes; i++) d.w[i] = (unsigned char)noise_block(key, 0, 0, (uint32_t)i).word[0];
        for (size_t b = 0; b < bytes; b += each) {
            static const unsigned char one[2] = {0, 0x3c}, half[2] = {0, 0x38};
            memcpy(d.w + b + (type == BLOCK_Q6_K ? 208 : 0), one, 2);
            if (type == BLOCK_Q4_K) memcpy(d.w + b + 2, half, 2);
        }
        block_dequantize(type, w, d.w, N * K);
        for (size_t i = 0; i < path_count; i++) {
            run(&paths[i], &d.p);
            for (size_t r = 0; r < M; r++)
                for (size_t j = 0; j < N; j++) {
                    double sum = 0;
                    for (size_t k = 0; k < K; k++) sum += (double)d.a[r * d.p.row + k] * (double)w[j * K + k];
                    if ((double)d.c[r * d.p.ldc + j] != sum)
                        fail_msg("%s, %s: %g in the place of %g", paths[i].name, block_infos[type].name,
                                 (double)d.c[r * d.p.ldc + j], sum);
                }
        }
        free(w);
        drop(&d);
    }
}

/* NaN and infinities do not become finite numbers. */
static void test_not_finite(void **state)
{
    (void)state;
    for (size_t i = 0; i < path_count; i++)
        for (size_t at = 0; at < 64; at += 9) {
            struct made d = make(BLOCK_Q8_0, 3, 20, 64, false);
            d.a[d.p.row + at] = at % 2 ? NAN : INFINITY;
            run(&paths[i], &d.p);
            for (size_t j = 0; j < 20; j++) {
                assert_true(isfinite(d.c[j]) && isfinite(d.c[2 * d.p.ldc + j]));
                assert_false(isfinite(d.c[d.p.ldc + j]));
            }
            drop(&d);
        }
}

static void test_choice(void **state)
{
    (void)state;
    assert_string_equal(quantized_choose("generic")->name, "generic");
    for (const struct quantized_path *p = quantized_paths; p->name; p++)
        if (!strcmp(p->name, "avx2") && p->supported()) assert_string_equal(quantized_choose("avx2")->name, "avx2");
    assert_true(quantized_choose("amx")->supported() && quantized_choose("avx512")->supported());
    assert_string_not_equal(quantized_choose("avx512")->name, "amx");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double), cmocka_unit_test(test_large),  cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_bits_of_rows),   cmocka_unit_test(test_exact),  cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_choice),         cmocka_unit_test(test_packed), cmocka_unit_test(test_kept),
    };
    return cmocka_run_group_tests(tests, gather, NULL);
}
