/* optimizer.cu: the squared norm with its count of blocks that are not finite, AdamW and SGD with momentum, against
 * double. */
#include "kernels/trial.h"

#include <math.h>
#include <string.h>

enum { RATE, SCALE, DECAY, BETA1, BETA2, EPSILON, CORRECTION1, CORRECTION2, MOMENTUM, SCALARS }; /* of ops/ops.h */

struct context {
    size_t count;
    int weights, moment1, moment2, working, gradient, scalars, record, scratch;
};

static int squared_norm(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return squared_norm_cuda(at(t, c->record), at(t, c->scratch), at(t, c->gradient), c->count, NULL);
}

static int adamw(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return adamw_cuda(at(t, c->weights), at(t, c->moment1), at(t, c->moment2), at(t, c->working), at(t, c->gradient),
                      at(t, c->scalars), c->count, NULL);
}

static int sgd(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return sgd_cuda(at(t, c->weights), at(t, c->moment1), at(t, c->working), at(t, c->gradient), at(t, c->scalars),
                    c->count, NULL);
}

static int scalars_of(struct trial *t)
{
    static const double values[SCALARS] = {1e-2, 0.5, 0.1, 0.9, 0.99, 1e-8, 1.25, 2.5, 0.8};
    int index = trial_normal(t, ARRAY_F32, SCALARS, 0, 0);
    for (int i = 0; i < SCALARS; i++) {
        ((float *)t->arrays[index].initial)[i] = (float)values[i];
        t->arrays[index].value[i] = (double)(float)values[i];
    }
    return index;
}

static void absolute(struct trial *t, int array)
{
    for (size_t i = 0; i < t->arrays[array].count; i++) {
        t->arrays[array].value[i] = fabs(t->arrays[array].value[i]);
        ((float *)t->arrays[array].initial)[i] = (float)t->arrays[array].value[i];
    }
}

static void try(size_t count, bool working, bool is_sgd)
{
    struct trial t;
    struct context c = {.count = count, .working = -1};
    trial_begin(&t, KERNEL_F32, "%s %zu%s", is_sgd ? "sgd" : "adamw", count, working ? ", working copy" : "");
    c.weights = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.moment1 = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.moment2 = trial_normal(&t, ARRAY_F32, count, 0, 1);
    absolute(&t, c.moment2);
    c.gradient = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.scalars = scalars_of(&t);
    if (working) c.working = trial_output(&t, ARRAY_BF16, count);
    double *weights = trial_expect_new(&t, c.weights), *m1 = trial_expect_new(&t, c.moment1);
    double *m2 = is_sgd ? NULL : trial_expect_new(&t, c.moment2), *copy = working ? trial_expect(&t, c.working) : NULL;
    const double *s = trial_value(&t, c.scalars);
    for (size_t i = 0; i < count; i++) {
        double g = trial_value(&t, c.gradient)[i] * s[SCALE], w = trial_value(&t, c.weights)[i];
        if (is_sgd) {
            m1[i] = s[MOMENTUM] * trial_value(&t, c.moment1)[i] + g;
            weights[i] = w - s[RATE] * (m1[i] + s[DECAY] * w);
        } else {
            m1[i] = s[BETA1] * trial_value(&t, c.moment1)[i] + (1 - s[BETA1]) * g;
            m2[i] = s[BETA2] * trial_value(&t, c.moment2)[i] + (1 - s[BETA2]) * g * g;
            weights[i] =
                w - s[RATE] * (m1[i] * s[CORRECTION1] / (sqrt(m2[i] * s[CORRECTION2]) + s[EPSILON]) + s[DECAY] * w);
        }
        if (working) copy[i] = weights[i];
    }
    trial_run(&t, is_sgd ? sgd : adamw, &c);
}

static const size_t counts[][1] = {{0}, {1}, {255}, {1024}, {1025}, {3001}, {9999}};
static const struct sweep shapes = SWEEP(counts, 1025, 1025);

static void updates_match(void **state)
{
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n;
        sweep_shape(&n, &shapes, i);
        for (int option = 0; option < 4; option++) try(n, option & 1, option & 2);
    }
}

static void try_norm(size_t count, size_t bad)
{
    struct trial t;
    struct context c = {.count = count};
    trial_begin(&t, KERNEL_F32, "squared norm %zu, %zu bad", count, bad);
    c.gradient = trial_normal(&t, ARRAY_F32, count, 0.1, 1);
    c.scratch = trial_scratch(&t, ARRAY_F64, (count + 1023) / 1024);
    c.record = trial_output(&t, ARRAY_F32, 2);
    double *record = trial_expect(&t, c.record);
    for (size_t i = 0; i < count; i++) record[0] += pow(trial_value(&t, c.gradient)[i], 2);
    if (bad) { /* one in each of the last blocks; then the sum is worth nothing, but the count is exact */
        float values[2] = {INFINITY, NAN}, *g = t.arrays[c.gradient].initial;
        for (size_t i = 0; i < bad; i++) g[count - 1 - i * 1024] = values[i % 2];
        t.arrays[c.record].expect[0] = 0;
        t.arrays[c.record].expect[1] = (double)bad;
        t.arrays[c.record].skipped = 1;
    }
    trial_run(&t, squared_norm, &c);
}

static void norm_matches(void **state)
{
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n;
        sweep_shape(&n, &shapes, i);
        try_norm(n, 0);
    }
    try_norm(5000, 1);
    try_norm(5000, 3);
}

TRIAL_MAIN(cmocka_unit_test(updates_match), cmocka_unit_test(norm_matches))
