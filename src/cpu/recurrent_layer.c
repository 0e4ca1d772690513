/* The order of sentences that recurrent_layer.h declares: a counting sort by falling length, dealt to groups. */
#include "cpu/recurrent_layer.h"

enum { CACHE = 5 << 18 }; /* bytes of weights that stay in a core's own cache */
enum { LEAST_ROWS = 8, MOST_GROUPS = 1024 };

/* ---- the order of sentences ---- */

/* Sorts the S sentences by falling length and deals them to the groups one by one. counts (N + 2). */
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

/* Returns the number of groups of sentences, each of which goes through all steps alone; 1 means that threads divide
 * the panels instead. */
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
