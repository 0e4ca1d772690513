/* Measures the device's peak rates with large products and a copy in its memory. The sizes scale with the number of
 * multiprocessors. */
#include "cuda/cuda.h"

#include "base/clock.h"

#include <math.h>

enum { ROUNDS = 5, REPEATS = 10, ROWS_EACH = 64 };
static const size_t copy_each = 2 << 20; /* bytes per multiprocessor */

/* Returns the best rate of ROUNDS, in runs of `launch` per second. A round times REPEATS runs, after one warm-up run.
 * NaN on any failure. */
static double best_rate(struct cuda_backend *b, void (*launch)(struct cuda_backend *b, const void *what),
                        const void *what)
{
    double best = NAN;
    elbo_error unused;
    for (int round = -1; round < ROUNDS; round++) {
        double began = clock_seconds();
        for (int i = 0; i < (round < 0 ? 1 : REPEATS); i++) launch(b, what);
        cuda_mark(&b->base, 0);
        if (cuda_wait(&b->base, 0, &unused)) return NAN;
        if (round >= 0) best = fmax(best, REPEATS / (clock_seconds() - began));
    }
    return best;
}

static void multiply(struct cuda_backend *b, const void *what)
{
    cuda_product(b, what);
}

double cuda_peak_flops(struct backend *base, enum dtype type)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    size_t n = (size_t)b->multiprocessors * ROWS_EACH, bytes = n * n * dtype_bytes(type);
    enum kernel_type t = type == DTYPE_BF16 ? KERNEL_BF16 : KERNEL_F32;
    void *memory;
    elbo_error unused;
    if (base->memory.allocate(base, &memory, 3 * bytes, "a product's peak", &unused)) return NAN;
    struct cuda_product p = {.m = n,
                             .n = n,
                             .k = n,
                             .a = {memory, n, 1},
                             .b = {(char *)memory + bytes, n, 1},
                             .c = (char *)memory + 2 * bytes,
                             .ldc = n,
                             .type = t,
                             .out = t};
    double rate = 2.0 * (double)n * (double)n * (double)n * best_rate(b, multiply, &p);
    base->memory.release(base, memory);
    return rate;
}

struct copy {
    char *memory;
    size_t bytes;
};

static void copy(struct cuda_backend *b, const void *what)
{
    const struct copy *c = what;
    cuda_keep(b, cudaMemcpyAsync(c->memory + c->bytes, c->memory, c->bytes, cudaMemcpyDeviceToDevice, b->stream),
              "a copy in the device");
}

double cuda_peak_bytes(struct backend *base)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    struct copy c = {.bytes = (size_t)b->multiprocessors * copy_each};
    void *memory;
    elbo_error unused;
    if (base->memory.allocate(base, &memory, 2 * c.bytes, "a copy's peak", &unused)) return NAN;
    c.memory = memory;
    double rate = 2.0 * (double)c.bytes * best_rate(b, copy, &c);
    base->memory.release(base, memory);
    return rate;
}
