/* Measures the machine's limits: f32 multiply-adds on all threads, and a copy through memory. Reported speeds are shown
 * as shares of these. */
#include "cpu/cpu.h"
#include "cpu/peak.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { CHAINS = 14, ROUNDS = 400000, COPIES = 7 };
static const size_t COPY_TILE = 1 << 20, COPY_TILES = 192; /* larger than any cache */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void multiply_add(void *argument, size_t tile, size_t worker)
{
    (void)tile;
    (void)worker;
    vec acc[CHAINS], x = {0}, y = {0};
    x += 0.999999f;
    y += 1e-7f;
    for (int i = 0; i < CHAINS; i++) acc[i] = x * (float)(i + 1);
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 14
        for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * x + y;
        __asm__ volatile("" : : "m"(x)); /* keeps the compiler from solving the loop */
    }
    for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];
    ((volatile float *)argument)[worker * VL] = acc[0][0];
}

double CPU(peak_flops)(struct pool *pool)
{
    float sink[64 * VL] = {0};
    size_t tiles = pool_threads(pool) < 64 ? pool_threads(pool) : 64;
    double best = 0;
    for (int i = 0; i < 7; i++) {
        double t = seconds();
        pool_run(pool, tiles, multiply_add, sink);
        double rate = 2.0 * VL * CHAINS * ROUNDS * (double)tiles / (seconds() - t);
        best = rate > best ? rate : best;
    }
    return best;
}

static void copy(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    char *from = argument;
    memcpy(from + (COPY_TILES + tile) * COPY_TILE, from + tile * COPY_TILE, COPY_TILE);
}

double CPU(peak_bytes)(struct pool *pool)
{
    char *memory = malloc(2 * COPY_TILES * COPY_TILE);
    double best = NAN;
    if (!memory) return best;
    memset(memory, 1, 2 * COPY_TILES * COPY_TILE);
    for (int i = 0; i < COPIES; i++) {
        double t = seconds();
        pool_run(pool, COPY_TILES, copy, memory);
        best = fmax(best, 2.0 * (double)(COPY_TILES * COPY_TILE) / (seconds() - t));
    }
    free(memory);
    return best;
}
