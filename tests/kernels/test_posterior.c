/* posterior.cu: the maps of delta-VAEs, slashed normals and floored variances, normalization of rows, groups and
 * dimensions, and running statistics, both ways, against double. */
#include "kernels/trial.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct context {
    struct kernel_posterior map;
    struct kernel_normalize n;
    size_t sentences, width;
    bool add[3], backward, center;
    double share;
    int head, out, dstats, sample, drops, header, x, y, used, sums, running, gain, bias, dy, dgain, dbias, control;
};

static int floats(struct trial *t, const double *values, size_t count)
{
    int array = trial_normal(t, ARRAY_F32, count, 0, 1);
    for (size_t i = 0; i < count; i++) {
        float v = (float)values[i];
        ((float *)t->arrays[array].initial)[i] = v;
        t->arrays[array].value[i] = (double)v;
    }
    return array;
}

/* ---- maps ---- */

static int map(const struct trial *t, const void *context)
{
    const struct context *c = context;
    struct kernel_posterior p = c->map;
    p.noise = (struct kernel_noise){TRIAL_PURPOSE, at(t, c->header)};
    if (c->backward)
        return posterior_backward_cuda(&(struct posterior_backward_args){.dhead = at(t, c->out),
                                                                         .dstats = at(t, c->dstats),
                                                                         .head = at(t, c->head),
                                                                         .sample = at(t, c->sample),
                                                                         .drops = at(t, c->drops),
                                                                         .c = &p,
                                                                         .sentences = c->sentences,
                                                                         .width = c->width,
                                                                         .add = c->add[0]},
                                       NULL);
    return posterior_cuda(&(struct posterior_args){.stats = at(t, c->out),
                                                   .head = at(t, c->head),
                                                   .sample = at(t, c->sample),
                                                   .drops = at(t, c->drops),
                                                   .c = &p,
                                                   .sentences = c->sentences,
                                                   .width = c->width},
                          NULL);
}

static double equation(double r)
{
    return exp(r) - r - 1;
}

/* Returns the root of exp(r) - r - 1 = square with the sign of x, by bisection. */
static double root_of(double square, double x)
{
    double low = x < 0 ? -square - 2 : 0, high = x < 0 ? 0 : 2 + square;
    for (int i = 0; i < 300; i++) {
        double r = (low + high) / 2;
        if ((equation(r) < square) == (x > 0))
            low = r;
        else
            high = r;
    }
    return (low + high) / 2;
}

/* Computes mu and logvar of a pair, and their derivatives. */
static void pair_of(double pair[5], const struct context *c, double a, double b, double kept)
{
    const struct kernel_posterior *m = &c->map;
    if (m->map == KERNEL_POSTERIOR_DELTA) {
        double s = 1 / (1 + exp(-b)), sigma = m->least + (m->most - m->least) * s;
        double slope = (m->most - m->least) * s * (1 - s);
        pair[1] = 2 * log(sigma);
        pair[0] = sqrt(2 * m->real + 1 + pair[1] - sigma * sigma + fmax(0, a));
        pair[2] = a > 0 ? 0.5 / pair[0] : 0;
        pair[3] = (1 / sigma - sigma) * slope / pair[0];
        pair[4] = 2 / sigma * slope;
    } else if (m->map == KERNEL_POSTERIOR_SLASHED) {
        double x = sqrt(2) * b;
        pair[0] = sqrt(2) * a;
        pair[1] = root_of(x * x, x);
        pair[2] = sqrt(2);
        pair[3] = 0;
        pair[4] = sqrt(2) * 2 * x / (exp(pair[1]) - 1);
    } else {
        pair[0] = a;
        pair[1] = log(m->real + kept * exp(b));
        pair[2] = 1;
        pair[3] = 0;
        pair[4] = kept * exp(b) / exp(pair[1]);
    }
}

static void try_map(size_t sentences, size_t width, int kind, double p, double switched, bool add)
{
    struct trial t;
    struct context c = {.map = {.map = kind, .real = kind == KERNEL_POSTERIOR_DELTA ? 0.15 : 0.0585498, .p = p},
                        .sentences = sentences,
                        .width = width,
                        .sample = -1,
                        .drops = -1,
                        .add = {add}};
    c.map.least = exp(root_of(0.3, -1) / 2);
    c.map.most = exp(root_of(0.3, 1) / 2);
    c.map.threshold = (uint32_t)(p * 0x1p32);
    for (int backward = 0; backward < 2; backward++) {
        c.backward = backward;
        trial_begin(&t, KERNEL_F32, "posterior%s of kind %d, %zu x %zu%s%s", backward ? " backward" : "", kind,
                    sentences, width, p > 0 ? switched > 0 ? ", drops" : ", switched off" : "", add ? ", add" : "");
        c.head = trial_normal(&t, ARRAY_F32, sentences * 2 * width, -0.3, 1.2);
        c.header = trial_header(&t, 0, sentences);
        if (p > 0) c.sample = trial_samples(&t, sentences);
        if (p > 0) c.drops = floats(&t, &switched, 1);
        if (backward) c.dstats = trial_normal(&t, ARRAY_F32, sentences * 2 * width, 0, 1);
        c.out = backward ? trial_sum(&t, ARRAY_F32, sentences * 2 * width, add)
                         : trial_output(&t, ARRAY_F32, sentences * 2 * width);
        double *out = trial_expect(&t, c.out), pair[5];
        struct noise_key key = noise_key(TRIAL_SEED, TRIAL_PURPOSE, TRIAL_STEP);
        for (size_t i = 0; i < sentences * width; i++) {
            size_t s = i / width, a = s * 2 * width + i % width, b = a + width;
            bool drops = p > 0 && switched > 0;
            uint32_t word = drops ? noise_bits(key, (uint64_t)trial_value(&t, c.sample)[s], TRIAL_DRAW, i % width) : 0;
            pair_of(pair, &c, trial_value(&t, c.head)[a], trial_value(&t, c.head)[b],
                    !drops                    ? 1
                    : word >= c.map.threshold ? 1 / (1 - p)
                                              : 0);
            out[a] = backward ? trial_value(&t, c.dstats)[a] * pair[2] : pair[0];
            out[b] =
                backward ? trial_value(&t, c.dstats)[a] * pair[3] + trial_value(&t, c.dstats)[b] * pair[4] : pair[1];
        }
        trial_run(&t, map, &c);
    }
}

static void maps_match(void **state)
{
    static const size_t given[][2] = {{0, 5}, {1, 1}, {2, 3}, {5, 4}, {17, 33}, {64, 32}, {9, 130}, {40, 7}};
    static const struct sweep shapes = SWEEP(given, 20000, 1025, 1025);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[2];
        sweep_shape(n, &shapes, i);
        for (int kind = KERNEL_POSTERIOR_DELTA; kind <= KERNEL_POSTERIOR_FLOOR; kind++)
            try_map(n[0], n[1], kind, 0, 0, (i + (size_t)kind) % 2);
        try_map(n[0], n[1], KERNEL_POSTERIOR_FLOOR, 0.3, 1, i % 2);
        try_map(n[0], n[1], KERNEL_POSTERIOR_FLOOR, 0.3, 0, i % 2);
    }
}

/* ---- normalization ---- */

static int normalize(const struct trial *t, const void *context)
{
    const struct context *c = context;
    struct kernel_normalize n = c->n;
    n.counted = c->header < 0 ? NULL : ((const struct kernel_header *)at(t, c->header))->count + HEADER_SENTENCES;
    if (c->backward)
        return normalize_backward_cuda(
            &(struct normalize_backward_args){.dx = at(t, c->y),
                                              .dgain = at(t, c->dgain),
                                              .dbias = at(t, c->dbias),
                                              .dy = at(t, c->dy),
                                              .x = at(t, c->x),
                                              .gain = at(t, c->gain),
                                              .used = at(t, c->used),
                                              .c = &n,
                                              .add = (struct kernel_adds){c->add[0], c->add[1], c->add[2]}},
            NULL);
    return normalize_cuda(&(struct normalize_args){.y = at(t, c->y),
                                                   .used = at(t, c->used),
                                                   .sums = at(t, c->sums),
                                                   .x = at(t, c->x),
                                                   .running = at(t, c->running),
                                                   .gain = at(t, c->gain),
                                                   .bias = at(t, c->bias),
                                                   .c = &n},
                          NULL);
}

/* Computes the mean and mean square of group k over the true rows, around `around` or around the mean. */
static void statistics(double *mean, double *square, const struct trial *t, const struct context *c, size_t k,
                       size_t counted, const double *around)
{
    const struct kernel_normalize *n = &c->n;
    *mean = *square = 0;
    for (size_t s = 0; s < counted && n->center && !around; s++)
        *mean += trial_value(t, c->x)[s * n->width + k] / (double)counted;
    if (around) *mean = *around;
    for (size_t s = 0; s < counted; s++)
        for (size_t i = k; i < n->columns; i += n->groups)
            *square += pow(trial_value(t, c->x)[s * n->width + i] - *mean, 2) / (double)counted;
}

enum { ROW, SLOT, DIMENSION, CENTERED };

static void try_normalize(size_t rows, size_t z, int how, bool batch, unsigned given, bool add)
{
    struct trial t;
    size_t counted = rows - rows / 5, groups = how == ROW || how == SLOT ? 1 : z, width = 2 * z;
    bool by_row = how == ROW, fixed = by_row && given == 3;
    if (fixed) counted = rows;
    struct context c = {.n = {.rows = rows,
                              .width = width,
                              .groups = groups,
                              .columns = how == CENTERED ? z : width,
                              .by_row = by_row,
                              .center = how == CENTERED,
                              .batch = batch,
                              .level = 1.7,
                              .epsilon = 0.01},
                        .gain = -1,
                        .bias = -1,
                        .used = -1,
                        .sums = -1,
                        .running = -1,
                        .header = -1,
                        .add = {add, !add, add}};
    bool in_use = batch && counted > 1 && !by_row;
    for (int backward = 0; backward < 2; backward++) {
        c.backward = backward;
        trial_begin(&t, KERNEL_F32, "normalize%s %d, %zu x %zu%s, given %u%s", backward ? " backward" : "", how, rows,
                    z, batch ? ", batch" : "", given, add ? ", add" : "");
        c.x = trial_normal(&t, ARRAY_F32, rows * width, 0.3, 1);
        if (!fixed) c.header = trial_header(&t, 0, counted);
        c.gain = given & 1 ? trial_normal(&t, ARRAY_F32, groups, 0.8, 0.3) : -1;
        c.bias = given & 2 && !backward ? trial_normal(&t, ARRAY_F32, groups, 0.2, 0.3) : -1;
        c.running = by_row ? -1 : trial_normal(&t, ARRAY_F32, 2 * groups, 1.5, 0.1);
        c.dy = backward ? trial_normal(&t, ARRAY_F32, rows * width, 0.1, 1) : -1;
        double *used = NULL, *sums = NULL, *dgain = NULL, *dbias = NULL;
        double *known = calloc(2 * groups + 1, sizeof *known);
        known[0] = in_use;
        for (size_t k = 0; k < groups && !by_row; k++) {
            double mean = c.n.center ? trial_value(&t, c.running)[k] : 0;
            double square = trial_value(&t, c.running)[groups + k];
            if (in_use) statistics(&mean, &square, &t, &c, k, counted, NULL);
            known[1 + k] = mean;
            known[1 + groups + k] = 1 / sqrt(square + c.n.epsilon);
        }
        if (!by_row && !backward) {
            c.used = trial_output(&t, ARRAY_F32, 2 * groups + 1);
            used = trial_expect(&t, c.used);
            memcpy(used, known, (2 * groups + 1) * sizeof *used);
            c.sums = batch ? trial_output(&t, ARRAY_F32, 2 * groups + 1) : -1;
            sums = batch ? trial_expect(&t, c.sums) : NULL;
        } else {
            c.used = by_row ? -1 : floats(&t, known, 2 * groups + 1);
            c.sums = -1;
        }
        for (size_t i = 0; i < 2 * groups + 1 && !by_row && backward; i++) known[i] = trial_value(&t, c.used)[i];
        c.y = backward ? trial_sum(&t, ARRAY_F32, rows * width, add) : trial_output(&t, ARRAY_F32, rows * width);
        c.dgain = backward && given & 1 ? trial_sum(&t, ARRAY_F32, groups, !add) : -1;
        c.dbias = backward && given & 2 ? trial_sum(&t, ARRAY_F32, groups, add) : -1;
        double *y = trial_expect(&t, c.y);
        if (c.dgain >= 0) dgain = trial_expect(&t, c.dgain);
        if (c.dbias >= 0) dbias = trial_expect(&t, c.dbias);
        const double *x = trial_value(&t, c.x);
        for (size_t i = 0; i < counted * width; i++)
            if (i % width >= c.n.columns) y[i] = backward ? trial_value(&t, c.dy)[i] : x[i];
        if (sums) sums[0] = (double)counted;
        for (size_t k = 0; k < groups; k++) {
            double gain = given & 1 ? trial_value(&t, c.gain)[k] : 1,
                   bias = c.bias >= 0 ? trial_value(&t, c.bias)[k] : 0;
            double mean = by_row ? 0 : known[1 + k], r = by_row ? 0 : known[1 + groups + k], sum = 0, dot = 0;
            for (size_t s = 0; s < counted; s++) {
                double row_dot = 0, square = 0;
                for (size_t i = 0; i < c.n.columns && by_row; i++) square += pow(x[s * width + i], 2);
                if (by_row) r = 1 / sqrt(square + c.n.epsilon);
                for (size_t i = k; i < c.n.columns; i += groups) {
                    size_t here = s * width + i;
                    if (sums) {
                        double away = x[here] - (c.n.center ? trial_value(&t, c.running)[k] : 0);
                        sums[1 + k] += away;
                        sums[1 + groups + k] += away * away;
                    }
                    if (!backward) {
                        y[here] = (x[here] - mean) * r * c.n.level * gain + bias;
                        continue;
                    }
                    sum += trial_value(&t, c.dy)[here];
                    row_dot += trial_value(&t, c.dy)[here] * (x[here] - mean) * r;
                }
                dot += row_dot;
                for (size_t i = 0; i < c.n.columns && by_row && backward; i++) {
                    size_t here = s * width + i;
                    y[here] = c.n.level * gain * r * (trial_value(&t, c.dy)[here] - x[here] * r * row_dot);
                }
            }
            for (size_t s = 0; s < counted && backward && !by_row; s++)
                for (size_t i = k; i < c.n.columns; i += groups) {
                    size_t here = s * width + i;
                    double d = trial_value(&t, c.dy)[here], n = (double)counted;
                    if (in_use) d -= (c.n.center ? sum / n : 0) + (x[here] - mean) * r * dot / n;
                    y[here] = c.n.level * gain * r * d;
                }
            if (dgain) dgain[k] = c.n.level * dot;
            if (dbias) dbias[k] = sum;
        }
        free(known);
        trial_run(&t, normalize, &c);
    }
}

static void normalizations_match(void **state)
{
    static const size_t given[][2] = {{1, 1}, {2, 3}, {5, 4}, {17, 33}, {64, 8}, {9, 130}, {40, 7}, {300, 2}};
    static const struct sweep shapes = SWEEP(given, 20000, 1025, 300);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[2];
        sweep_shape(n, &shapes, i);
        for (int how = ROW; how <= CENTERED; how++)
            for (unsigned option = 0; option < 4; option++)
                try_normalize(n[0], n[1], how, option != 3, option, (i + option) % 2);
    }
    try_normalize(0, 3, SLOT, true, 3, false);
    try_normalize(0, 3, ROW, true, 1, false);
}

/* ---- running statistics ---- */

static int running(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return running_cuda(&(struct running_args){.running = at(t, c->running),
                                               .sums = at(t, c->sums),
                                               .control = at(t, c->control),
                                               .groups = c->n.groups,
                                               .center = c->center,
                                               .share = c->share},
                        NULL);
}

static void try_running(size_t groups, bool center, bool applied, double n)
{
    struct trial t;
    struct context c = {.n = {.groups = groups}, .center = center, .share = 0.25};
    trial_begin(&t, KERNEL_F32, "running statistics of %zu groups%s, n %g%s", groups, center ? ", centered" : "", n,
                applied ? "" : ", not applied");
    c.running = trial_normal(&t, ARRAY_F32, 2 * groups, 1.5, 0.3);
    c.sums = trial_normal(&t, ARRAY_F32, 2 * groups + 1, 30, 2);
    ((float *)t.arrays[c.sums].initial)[0] = (float)n;
    t.arrays[c.sums].value[0] = n;
    c.control = floats(&t, (const double[3]){applied, 1, 1}, 3);
    double *out = trial_expect_new(&t, c.running);
    for (size_t k = 0; k < groups; k++) {
        double mean = trial_value(&t, c.sums)[1 + k] / n, square = trial_value(&t, c.sums)[1 + groups + k] / n;
        bool moves = applied && n > 1;
        out[k] = trial_value(&t, c.running)[k] + (moves && center ? 0.25 * mean : 0);
        out[groups + k] = trial_value(&t, c.running)[groups + k];
        if (moves) out[groups + k] = 0.75 * out[groups + k] + 0.25 * fmax(0, square - (center ? mean * mean : 0));
    }
    trial_run(&t, running, &c);
}

static void running_matches(void **state)
{
    static const size_t groups[] = {1, 2, 31, 32, 33, 128, 129, 1025};
    (void)state;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        for (int way = 0; way < 8; way++) try_running(groups[i], way & 1, way & 2, way & 4 ? 40 : way & 2 ? 1 : 9);
}

TRIAL_MAIN(cmocka_unit_test(maps_match), cmocka_unit_test(normalizations_match), cmocka_unit_test(running_matches))
