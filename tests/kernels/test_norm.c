/* norm.cu: layer and RMS norm with fused dropout and residual, both ways, against double. */
#include "base/philox.h"
#include "kernels/trial.h"

#include <math.h>
#include <stdlib.h>

/* The gradients, in the order of `add`. */
enum { NORM_DINPUT, NORM_DGAMMA, NORM_DBETA, NORM_DX, NORM_GRADIENTS };

struct context {
    size_t rows, width;
    bool rms, add[NORM_GRADIENTS], drops;
    uint32_t threshold;
    int y, sum, stats, x, residual, gamma, beta, dinput, dgamma, dbeta, dx, scratch, dy, dsum, sentence, position,
        sample, header;
};

enum { SENTENCE_ROWS = 5, FIRST_POSITION = 3 };
static const double dropped = 0.5; /* scaled by 2, so that a sum is rounded to bf16 like the reference's */

static struct kernel_dropout dropout_of(const struct trial *t, const struct context *c)
{
    return (struct kernel_dropout){.sentence = at(t, c->sentence),
                                   .position = at(t, c->position),
                                   .sample = at(t, c->sample),
                                   .threshold = c->threshold,
                                   .scale = (float)(1 / (1 - dropped)),
                                   .noise = {TRIAL_PURPOSE, at(t, c->header)}};
}

static uint32_t bits_of(const struct trial *t, const struct context *c, size_t r, size_t i)
{
    uint64_t sample = (uint64_t)trial_value(t, c->sample)[r / SENTENCE_ROWS];
    struct noise_key key = noise_key(TRIAL_SEED, TRIAL_PURPOSE, TRIAL_STEP);
    return noise_bits(key, sample, TRIAL_DRAW, (r % SENTENCE_ROWS + FIRST_POSITION) * c->width + i);
}

/* Makes the dropout. The threshold equals the bits of one element of the first row, which is therefore kept: the
 * element whose bits are nearest to one half. */
static void drop(struct trial *t, struct context *c)
{
    size_t sentences = (c->rows + SENTENCE_ROWS - 1) / SENTENCE_ROWS;
    int32_t *sentence = malloc((c->rows + 1) * sizeof *sentence), *position = malloc((c->rows + 1) * sizeof *position);
    for (size_t r = 0; r < c->rows; r++) {
        sentence[r] = (int32_t)(r / SENTENCE_ROWS);
        position[r] = (int32_t)(r % SENTENCE_ROWS) + FIRST_POSITION;
    }
    c->drops = true;
    c->sentence = trial_integers(t, sentence, c->rows);
    c->position = trial_integers(t, position, c->rows);
    c->sample = trial_samples(t, sentences);
    c->header = trial_header(t, c->rows, sentences);
    free(sentence);
    free(position);
    for (size_t i = 0; i < c->width && c->rows; i++) {
        int64_t half = (int64_t)(dropped * 4294967296.0), own = bits_of(t, c, 0, i);
        if (!i || llabs(own - half) < llabs((int64_t)c->threshold - half)) c->threshold = (uint32_t)own;
    }
}

/* Returns the factor of element i of row r: 0 or the scale. */
static double kept(const struct trial *t, const struct context *c, size_t r, size_t i)
{
    if (!c->drops) return 1;
    return bits_of(t, c, r, i) >= c->threshold ? (double)(float)(1 / (1 - dropped)) : 0;
}

static int forward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    struct kernel_dropout d = dropout_of(t, c);
    return norm_forward_cuda(&(struct norm_forward_args){.y = at(t, c->y),
                                                         .sum = at(t, c->sum),
                                                         .stats = at(t, c->stats),
                                                         .x = at(t, c->x),
                                                         .dropout = c->drops ? &d : NULL,
                                                         .residual = at(t, c->residual),
                                                         .gamma = at(t, c->gamma),
                                                         .beta = at(t, c->beta),
                                                         .rows = c->rows,
                                                         .width = c->width,
                                                         .rms = c->rms,
                                                         .type = t->type},
                             NULL);
}

static int backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    struct kernel_dropout d = dropout_of(t, c);
    return norm_backward_cuda(&(struct norm_backward_args){.dinput = at(t, c->dinput),
                                                           .dgamma = at(t, c->dgamma),
                                                           .dbeta = at(t, c->dbeta),
                                                           .dx = at(t, c->dx),
                                                           .scratch = at(t, c->scratch),
                                                           .dy = at(t, c->dy),
                                                           .dsum = at(t, c->dsum),
                                                           .input = at(t, c->x),
                                                           .gamma = at(t, c->gamma),
                                                           .stats = at(t, c->stats),
                                                           .dropout = c->drops ? &d : NULL,
                                                           .rows = c->rows,
                                                           .width = c->width,
                                                           .rms = c->rms,
                                                           .add_dinput = c->add[0],
                                                           .add_dgamma = c->add[1],
                                                           .add_dbeta = c->add[2],
                                                           .add_dx = c->add[3],
                                                           .type = t->type},
                              NULL);
}

static void moments(const double *s, size_t width, bool rms, double *mean, double *scale)
{
    double square = 0;
    *mean = 0;
    for (size_t i = 0; i < width && !rms; i++) *mean += s[i] / (double)width;
    for (size_t i = 0; i < width; i++) square += pow(s[i] - *mean, 2) / (double)width;
    *scale = 1 / sqrt(square + 1e-5);
}

static const struct context nothing = {.residual = -1,
                                       .sum = -1,
                                       .beta = -1,
                                       .dinput = -1,
                                       .dgamma = -1,
                                       .dbeta = -1,
                                       .dx = -1,
                                       .dsum = -1,
                                       .sentence = -1,
                                       .position = -1,
                                       .sample = -1,
                                       .header = -1};

/* Makes the k-th array unaligned, if the trial has it. */
static void shift_one(struct trial *t, const int *arrays, size_t count, size_t k)
{
    if (k < count && arrays[k] >= 0) trial_shift(t, arrays[k]);
}

/* shifted: the index of the unaligned array, or NONE. */
enum { NONE = 99 };

static void try_forward(enum kernel_type type, size_t rows, size_t width, bool rms, bool residual, bool drops,
                        size_t shifted)
{
    struct trial t;
    struct context c = nothing;
    c.rows = rows;
    c.width = width;
    c.rms = rms;
    trial_begin(&t, type, "norm forward %zu x %zu%s%s%s%s", rows, width, rms ? ", rms" : "",
                residual ? ", residual" : "", drops ? ", dropout" : "", shifted == NONE ? "" : ", unaligned");
    if (drops) drop(&t, &c);
    enum array_type T = trial_t(&t);
    c.x = trial_normal(&t, T, rows * width, 0.3, 1);
    c.gamma = trial_normal(&t, T, width, 1, 0.3);
    if (!rms) c.beta = trial_normal(&t, T, width, 0, 0.5);
    if (residual) {
        c.residual = trial_normal(&t, T, rows * width, -0.2, 0.7);
        c.sum = trial_output(&t, T, rows * width);
    }
    c.y = trial_output(&t, T, rows * width);
    c.stats = trial_output(&t, ARRAY_F32, rows * 2);
    double *y = trial_expect(&t, c.y), *stats = trial_expect(&t, c.stats);
    double *sum = residual ? trial_expect(&t, c.sum) : NULL, *s = malloc(width * sizeof *s);
    for (size_t r = 0; r < rows; r++) {
        double mean, scale;
        for (size_t i = 0; i < width; i++) {
            s[i] = trial_value(&t, c.x)[r * width + i];
            if (!residual) continue;
            sum[r * width + i] = s[i] * kept(&t, &c, r, i) + trial_value(&t, c.residual)[r * width + i];
            s[i] = trial_round(sum[r * width + i], T); /* the residual stream is T */
        }
        moments(s, width, rms, &mean, &scale);
        for (size_t i = 0; i < width; i++)
            y[r * width + i] =
                (s[i] - mean) * scale * trial_value(&t, c.gamma)[i] + (rms ? 0 : trial_value(&t, c.beta)[i]);
        stats[2 * r] = mean;
        stats[2 * r + 1] = scale;
    }
    free(s);
    shift_one(&t, (const int[]){c.y, c.sum, c.x, c.residual, c.gamma, c.beta}, 6, shifted);
    trial_run(&t, forward, &c);
}

/* wanted: bit k for gradient k; NORM_DX implies dropout. DROPPED: dropout is given, but the gradient through it is not
 * wanted. */
enum { DROPPED = 16 };

static void try_backward(enum kernel_type type, size_t rows, size_t width, bool rms, bool dsum, bool add,
                         unsigned wanted, size_t shifted)
{
    struct trial t;
    struct context c = nothing;
    c.rows = rows;
    c.width = width;
    c.rms = rms;
    c.add[NORM_DINPUT] = c.add[NORM_DGAMMA] = add;
    c.add[NORM_DBETA] = !add && !rms;
    c.add[NORM_DX] = add != rms;
    trial_begin(&t, type, "norm backward %zu x %zu%s%s%s, wanted %u%s", rows, width, rms ? ", rms" : "",
                dsum ? ", dsum" : "", add ? ", add" : "", wanted, shifted == NONE ? "" : ", unaligned");
    enum array_type T = trial_t(&t);
    c.x = trial_normal(&t, T, rows * width, 0.3, 1);
    c.gamma = trial_normal(&t, T, width, 1, 0.3);
    c.dy = trial_normal(&t, T, rows * width, 0.1, 1);
    if (dsum) c.dsum = trial_normal(&t, T, rows * width, 0, 1);
    c.stats = trial_normal(&t, ARRAY_F32, rows * 2, 0, 1);
    float *stats = t.arrays[c.stats].initial;
    c.scratch = wanted & 6 ? trial_scratch(&t, ARRAY_F32, norm_scratch_floats(rows, width)) : -1;
    if (wanted & 1) c.dinput = trial_sum(&t, T, rows * width, c.add[0]);
    if (wanted & 2) c.dgamma = trial_sum(&t, ARRAY_F32, width, c.add[1]);
    if (wanted & 4) c.dbeta = trial_sum(&t, ARRAY_F32, width, c.add[2]);
    if (wanted & 8) {
        c.dx = trial_sum(&t, T, rows * width, c.add[NORM_DX]);
    }
    if (wanted & (8 | DROPPED)) drop(&t, &c);
    double *dinput = wanted & 1 ? trial_expect(&t, c.dinput) : NULL;
    double *dgamma = wanted & 2 ? trial_expect(&t, c.dgamma) : NULL;
    double *dbeta = wanted & 4 ? trial_expect(&t, c.dbeta) : NULL;
    double *dx = wanted & 8 ? trial_expect(&t, c.dx) : NULL;
    for (size_t r = 0; r < rows; r++) {
        const double *x = trial_value(&t, c.x) + r * width, *dy = trial_value(&t, c.dy) + r * width;
        const double *gamma = trial_value(&t, c.gamma);
        double mean, scale, along = 0, level = 0;
        moments(x, width, rms, &mean, &scale);
        stats[2 * r] = (float)mean;
        stats[2 * r + 1] = (float)scale;
        mean = (double)stats[2 * r];
        scale = (double)stats[2 * r + 1];
        for (size_t i = 0; i < width; i++) {
            double hat = (x[i] - mean) * scale;
            along += dy[i] * gamma[i] * hat / (double)width;
            level += rms ? 0 : dy[i] * gamma[i] / (double)width;
            if (dgamma) dgamma[i] += dy[i] * hat;
            if (dbeta) dbeta[i] += dy[i];
        }
        for (size_t i = 0; i < width; i++) {
            double d = scale * (dy[i] * gamma[i] - level - (x[i] - mean) * scale * along) +
                       (dsum ? trial_value(&t, c.dsum)[r * width + i] : 0);
            if (dinput) dinput[r * width + i] = d;
            if (dx) dx[r * width + i] = d * kept(&t, &c, r, i);
        }
    }
    for (size_t i = 0; i < 2 * rows; i++) t.arrays[c.stats].value[i] = (double)stats[i];
    shift_one(&t, (const int[]){c.dinput, c.dx, c.dy, c.dsum, c.x, c.gamma}, 6, shifted);
    trial_run(&t, backward, &c);
}

static const size_t given[][2] = {{1, 16},    {1, 33},   {5, 64},   {17, 300}, {33, 257}, {65, 31}, {3, 1030},
                                  {2100, 16}, {37, 768}, {5, 1024}, {3, 3848}, {2, 7680}, {0, 40}};
static const struct sweep shapes = SWEEP(given, 40000, 1025, 1025);

static void forward_matches(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++)
            for (int option = 0; option < 4; option++) {
                size_t n[2];
                sweep_shape(n, &shapes, i);
                try_forward((enum kernel_type)type, n[0], n[1], option & 1, option & 2, false, NONE);
                if (option & 2) try_forward((enum kernel_type)type, n[0], n[1], option & 1, true, true, NONE);
            }
}

static void backward_matches(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            size_t n[2];
            sweep_shape(n, &shapes, i);
            try_backward((enum kernel_type)type, n[0], n[1], false, i % 2, i % 3 == 1, 7, NONE);
            try_backward((enum kernel_type)type, n[0], n[1], true, i % 2 == 0, i % 3 == 0, 3, NONE);
            try_backward((enum kernel_type)type, n[0], n[1], i % 2, false, i % 2, (unsigned)i % 7 + 1, NONE);
            try_backward((enum kernel_type)type, n[0], n[1], i % 2, i % 3, i % 5 < 2, i % 4 ? 15 : 14, NONE);
        }
    try_backward(KERNEL_F32, 0, 40, false, false, false, 6, NONE); /* no rows: gradients of zero */
    try_backward(KERNEL_F32, 7, 48, false, true, false, 7 | DROPPED, NONE);
}

/* Widths that allow packs, but one array is not aligned to them. */
static void unaligned(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t k = 0; k < 6; k++) {
            try_forward((enum kernel_type)type, 3, 32, false, true, k % 2, k);
            try_backward((enum kernel_type)type, 3, 32, false, true, false, 15, k);
        }
}

/* Scratch covers the given rows, and no more blocks than are launched. */
static void scratch(void **state)
{
    (void)state;
    assert_int_equal(norm_scratch_floats(3, 16), 3 * 2 * 16);
    assert_int_equal(norm_scratch_floats(1000000, 16), norm_scratch_floats(1000001, 16));
}

TRIAL_MAIN(cmocka_unit_test(forward_matches), cmocka_unit_test(backward_matches), cmocka_unit_test(unaligned),
           cmocka_unit_test(scratch))
