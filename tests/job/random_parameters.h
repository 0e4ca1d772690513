/* Parameters of random sizes and parts, finished at random steps, for tests of buckets and of sums over them. */
#ifndef TESTS_PARALLEL_RANDOM_PARAMETERS_H
#define TESTS_PARALLEL_RANDOM_PARAMETERS_H

#include "base/philox.h"
#include "graph/parameters.h"

#include <stdio.h>
#include <stdlib.h>

enum { RANDOM_PARAMETERS = 40, RANDOM_STEPS = 12, RANDOM_BLOCKS = 5 };

static inline unsigned random_below(uint64_t seed, uint64_t what, uint64_t i, unsigned bound)
{
    return noise_block(noise_key(seed, 3, 0), what, 0, (uint32_t)i).word[0] % bound;
}

/* ready (count): steps below RANDOM_STEPS, several parameters at the same one. The arena has this order or another. */
static inline struct parameters *random_parameters(uint64_t seed, size_t count, size_t *ready)
{
    struct parameters *p;
    elbo_error error;
    if (parameters_create(&p, &error)) abort();
    for (size_t i = 0; i < count; i++) {
        char name[16];
        size_t index;
        snprintf(name, sizeof name, "p%zu", i);
        struct parameter d = {.name = name,
                              .rank = 1,
                              .shape = {1 + random_below(seed, 0, i, RANDOM_BLOCKS * PARAMETER_ALIGNMENT)},
                              .part = random_below(seed, 1, i, PARTS),
                              .decay = random_below(seed, 2, i, 2)};
        if (parameters_declare(p, &index, &d, &error)) abort();
        ready[i] = random_below(seed, 3, i, RANDOM_STEPS);
    }
    if (parameters_layout(p, random_below(seed, 4, 0, 2) ? ready : NULL, &error)) abort();
    return p;
}

#endif
