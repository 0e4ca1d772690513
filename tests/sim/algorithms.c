/* The table of the products' algorithms as a file. One backend takes up the choices of another. Bytes of another GPU or
 * library, truncated bytes and invalid bytes are rejected. An algorithm that the library refuses is chosen again. The
 * fastest of several is chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cuda/cuda.h"
#include "device/backends.h"

#include <stdlib.h>
#include <string.h>

enum { M = 3, N = 8, K = 40, MOST_BYTES = 1 << 17 };

static struct cuda_backend *backend(void)
{
    elbo_error error = {0};
    struct backend *b;
    if (cuda_backend_create(&b, 0, 1, &error)) fail_msg("%s", error.message);
    return (struct cuda_backend *)b;
}

/* Computes A B with numbers whose sum has other bits when added from the end. */
static void multiply(float c[M * N], struct cuda_backend *b)
{
    float host[M * K + K * N];
    elbo_error error = {0};
    void *memory;
    for (size_t i = 0; i < M * K + K * N; i++) host[i] = 1.0f / (float)(i % 37 + 1);
    if (b->base.memory.allocate(&b->base, &memory, sizeof host + M * N * sizeof *c, "a test", &error))
        fail_msg("%s", error.message);
    float *device = memory;
    b->base.memory.upload(&b->base, device, host, sizeof host);
    struct cuda_product p = {.m = M,
                             .n = N,
                             .k = K,
                             .a = {device, K, 1},
                             .b = {device + M * K, N, 1},
                             .c = device + M * K + K * N,
                             .ldc = N};
    cuda_product(b, &p);
    b->base.memory.download(&b->base, c, device + M * K + K * N, M * N * sizeof *c);
    if (b->base.stream.check(&b->base, &error)) fail_msg("%s", error.message);
    b->base.memory.release(&b->base, memory);
}

static size_t saved(unsigned char *bytes)
{
    struct cuda_backend *b = backend();
    float c[M * N];
    assert_int_equal(cuda_save_choices(&b->base, NULL), 0);
    multiply(c, b);
    size_t size = cuda_save_choices(&b->base, NULL);
    assert_in_range(size, 1, MOST_BYTES);
    assert_int_equal(cuda_save_choices(&b->base, bytes), size);
    b->base.destroy(&b->base);
    return size;
}

static void product_after(float c[M * N], const unsigned char *bytes, size_t size, bool taken)
{
    struct cuda_backend *b = backend();
    if (bytes) assert_int_equal(cuda_restore_choices(&b->base, bytes, size), taken);
    multiply(c, b);
    b->base.destroy(&b->base);
}

static void taken_up(void **state)
{
    (void)state;
    unsigned char bytes[MOST_BYTES], again[MOST_BYTES];
    size_t size = saved(bytes);
    float first[M * N], otherwise[M * N], kept[M * N];
    product_after(first, NULL, 0, false);
    setenv("ELBO_SIM_BACKWARDS", "1", 1);
    product_after(otherwise, NULL, 0, false);
    product_after(kept, bytes, size, true);
    assert_memory_not_equal(first, otherwise, sizeof first);
    assert_memory_equal(first, kept, sizeof first);
    unsetenv("ELBO_SIM_BACKWARDS");
    struct cuda_backend *b = backend();
    assert_true(cuda_restore_choices(&b->base, bytes, size));
    assert_int_equal(cuda_save_choices(&b->base, again), size);
    assert_memory_equal(bytes, again, size);
    b->base.destroy(&b->base);
}

static void set_aside(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        size_t at;
        unsigned char byte;
    } change[] = {{"the magic", 0, 'E'},
                  {"the version", 8, 2},
                  {"more entries than bytes", 12, 2},
                  {"no entries", 12, 0},
                  {"far more entries", 15, 0x80},
                  {"another cuBLAS", 16, 0xff},
                  {"another GPU", 24, '?'},
                  {"an unknown flag", 152 + 51, 0x40}};
    unsigned char bytes[MOST_BYTES], changed[MOST_BYTES];
    size_t size = saved(bytes);
    float c[M * N];
    for (size_t i = 0; i < sizeof change / sizeof *change; i++) {
        memcpy(changed, bytes, size);
        assert_int_not_equal(changed[change[i].at], change[i].byte);
        changed[change[i].at] = change[i].byte;
        product_after(c, changed, size, false);
    }
    for (size_t cut = 0; cut < size; cut += 7) product_after(c, bytes, cut, false);
}

/* The shape matches, but the 64 bytes are not the library's. */
static void refused_algorithms_are_chosen_anew(void **state)
{
    (void)state;
    unsigned char bytes[MOST_BYTES];
    size_t size = saved(bytes);
    float first[M * N], c[M * N];
    product_after(first, NULL, 0, false);
    memset(bytes + size - 64, 0xab, 64);
    product_after(c, bytes, size, true);
    assert_memory_equal(first, c, sizeof c);
}

/* Two algorithms, the first of which is slow: it is chosen only if nothing is timed. */
static void the_fastest_is_taken(void **state)
{
    (void)state;
    float first[M * N], otherwise[M * N], c[M * N];
    product_after(first, NULL, 0, false);
    setenv("ELBO_SIM_BACKWARDS", "1", 1);
    product_after(otherwise, NULL, 0, false);
    unsetenv("ELBO_SIM_BACKWARDS");
    setenv("ELBO_SIM_SLOW", "1", 1);
    for (int how = 0; how < 3; how++) { /* the first offered; timed; timed in a capture, where nothing can be timed */
        struct cuda_backend *b = backend();
        b->base.device.timed_products = how > 0;
        b->capturing = how == 2;
        multiply(c, b);
        assert_memory_equal(c, how == 1 ? otherwise : first, sizeof c);
        b->base.destroy(&b->base);
    }
    unsetenv("ELBO_SIM_SLOW");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(taken_up), cmocka_unit_test(set_aside),
                                       cmocka_unit_test(refused_algorithms_are_chosen_anew),
                                       cmocka_unit_test(the_fastest_is_taken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
