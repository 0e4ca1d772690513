/* The product and the order of sentences of recurrent_layer.h. */
#include "cpu/recurrent_layer.h"

enum { CACHE = 5 << 18 }; /* bytes of weights that stay in a core's own cache */
enum { LEAST_ROWS = 8, MOST_GROUPS = 1024 };

/* ---- the product of a few rows with a panel ---- */

/* out (m, UNITS) = x (m, k) panel (k, UNITS); m is a constant where this is inlined. */
static inline __attribute__((always_inline)) void micro(float *restrict out, const float *x, size_t row,
                                                        const float *restrict panel, size_t k, const size_t m)
{
    vec low[MR], high[MR];
#pragma GCC unroll 16
    for (size_t i = 0; i < m; i++) low[i] = high[i] = (vec){0};
    for (size_t p = 0; p < k; p++, panel += UNITS) {
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
        store(out + i * UNITS, low[i]);
        store(out + i * UNITS + VL, high[i]);
    }
}

#define MICRO(m)                                                                                                       \
    static                                                                                                             \
        __attribute__((noinline)) void micro_##m(float *out, const float *x, size_t row, const float *panel, size_t k) \
    {                                                                                                                  \
        micro(out, x, row, panel, k, m);                                                                               \
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

static void (*const micros[MR + 1])(float *, const float *, size_t, const float *, size_t) = {
    NULL,    micro_1, micro_2, micro_3,  micro_4,
#if VL >= 8
    micro_5, micro_6,
#endif
#if VL == 16
    micro_7, micro_8, micro_9, micro_10, micro_11, micro_12, micro_13, micro_14,
#endif
};

void CPU(recurrent_product)(size_t m, float *out, const float *x, size_t row, const float *panel, size_t k)
{
    micros[m](out, x, row, panel, k);
}

/* ---- the order of sentences ---- */

/* The S sentences by falling length, dealt to the groups one by one. counts (N + 2). */
static void sort(const struct layer *l, struct order *o, size_t *counts)
{
    size_t most = 0;
    for (size_t s = 0; s < l->sentences; s++) most = length_of(l, s) > most ? length_of(l, s) : most;
    memset(counts, 0, (most + 2) * sizeof *counts);
    for (size_t s = 0; s < l->sentences; s++) counts[most - length_of(l, s) + 1]++;
    for (size_t i = 0; i < most; i++) counts[i + 1] += counts[i];
    for (size_t g = 0; g < o->groups; g++)
        o->first[g + 1] = o->first[g] + (l->sentences + o->groups - 1 - g) / o->groups;
    for (size_t s = 0; s < l->sentences; s++) {
        size_t rank = counts[most - length_of(l, s)]++;
        o->sentence[o->first[rank % o->groups] + rank / o->groups] = s;
    }
}

size_t CPU(recurrent_alive)(const struct layer *l, const struct order *o, size_t group, size_t t, size_t guess)
{
    size_t first = o->first[group], all = o->first[group + 1] - first;
    while (guess && length_of(l, o->sentence[first + guess - 1]) <= t) guess--;
    while (guess < all && length_of(l, o->sentence[first + guess]) > t) guess++;
    return guess;
}

/* How the threads divide a layer: groups of sentences that each go through all steps by themselves, or panels. */
static size_t groups_of(const struct layer *l)
{
    size_t threads = pool_threads(cpu_of(l->call)->pool), each = tiles_of(threads, l->directions);
    bool fits = l->gates * l->units * l->units * sizeof(float) <= CACHE;
    return fits && l->sentences >= each * LEAST_ROWS ? each : 1;
}

static size_t floats_of(size_t sizes)
{
    return padded(sizes * (sizeof(size_t) / sizeof(float)));
}

static size_t *take_sizes(float **at, size_t count)
{
    return (size_t *)(void *)take(at, floats_of(count));
}

void CPU(recurrent_order)(struct order *o, const struct layer *l, float **at)
{
    size_t groups = groups_of(l);
    o->groups = groups > MOST_GROUPS ? MOST_GROUPS : groups;
    o->sentence = take_sizes(at, l->sentences + 1);
    o->first = take_sizes(at, MOST_GROUPS + 1);
    o->first[0] = 0;
    size_t *counts = take_sizes(at, l->rows + 2);
    sort(l, o, counts);
}

size_t CPU(recurrent_order_floats)(const struct layer *l)
{
    return floats_of(l->sentences + 1) + floats_of(MOST_GROUPS + 1) + floats_of(l->rows + 2);
}
