/* norm:  s = x, or drop(x) + residual
 *
 *   layer: y = (s - mean) / sqrt(var + 1e-5) gamma + beta;  rms: y = s / sqrt(mean s^2 + 1e-5) gamma
 *
 * Both outputs, y and s, are read in turn or together. */
#include "base/philox.h"
#include "ops/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { RMS, RESIDUAL, READ }; /* READ: 1 y; 2 the sum, and y of another norm of x alone; 3 both */
enum { MOST_WIDTH = 300 };

static void record(struct graph *g, const struct trial *t, const value *in, value *out)
{
    bool rms = t->option[RMS], residual = t->option[RESIDUAL];
    struct token_rows rows = {harness_input(g, "sentence"), harness_input(g, "position"), harness_input(g, "sample")};
    struct dropping dropping = op_dropping(g, &rows, t->real[0], "dropout");
    struct normed n = op_norm(g, in[0], t->real[0] > 0 ? &dropping : NULL, residual ? in[3 - rms] : NO_VALUE, in[1],
                              rms ? NO_VALUE : in[2], rms);
    if (t->option[READ] == 2) n.y = op_norm(g, in[0], NULL, NO_VALUE, in[1], rms ? NO_VALUE : in[2], rms).y;
    out[0] = n.y;
    if (t->option[READ] & 2) out[1] = n.sum;
}

/* Computes row n of the sum. */
static void sum_row(double *s, const struct trial *t, double *const *in, size_t n)
{
    const struct batch *b = t->batch;
    size_t width = t->in[0].width;
    struct noise_key key = noise_key(HARNESS_SEED, noise_purpose(HARNESS_SCOPE ".dropout"), HARNESS_STEP);
    for (size_t i = 0; i < width; i++) {
        s[i] = in[0][n * width + i];
        if (!t->option[RESIDUAL]) continue;
        if (t->real[0] > 0) {
            uint32_t bits =
                noise_bits(key, b->sample[b->sentence[n]], HARNESS_DRAW, (uint64_t)b->position[n] * width + i);
            s[i] = (double)bits >= floor(t->real[0] * 4294967296.0) ? s[i] / (1 - t->real[0]) : 0;
        }
        s[i] += in[3 - t->option[RMS]][n * width + i];
    }
}

static void reference(const struct trial *t, double *const *in, double *const *out)
{
    bool rms = t->option[RMS];
    size_t width = t->in[0].width;
    for (size_t n = 0; n < t->in[0].rows; n++) {
        double sum[MOST_WIDTH], mean = 0, square = 0;
        sum_row(sum, t, in, n);
        const double *s = t->option[READ] == 2 ? in[0] + n * width : sum;
        for (size_t i = 0; i < width && !rms; i++) mean += s[i] / (double)width;
        for (size_t i = 0; i < width; i++) square += (s[i] - mean) * (s[i] - mean) / (double)width;
        for (size_t i = 0; i < width; i++) {
            out[0][n * width + i] = (s[i] - mean) / sqrt(square + 1e-5) * in[1][i] + (rms ? 0 : in[2][i]);
            if (t->option[READ] & 2) out[1][n * width + i] = sum[i];
        }
    }
}

static void try_on(struct batch *b, size_t width, bool rms, bool residual, double dropout, long read, size_t tail)
{
    char name[96];
    size_t rows = b->tokens;
    snprintf(name, sizeof name, "norm %zu x %zu%s%s, dropout %g, reading %ld", rows, width, rms ? ", rms" : "",
             residual ? ", residual" : "", dropout, read);
    struct trial t = {.name = name,
                      .batch = b,
                      .tail = tail,
                      .inputs = 3u - rms + residual,
                      .option = {rms, residual, read},
                      .real = {dropout},
                      .record = record,
                      .reference = reference};
    /* With one or two large columns, y is all but a sign; columns of about sqrt(epsilon) make y depend on x. A single
     * column less its mean is always zero, and so is its gradient, so that case is forward only. */
    double size = width <= 2 ? 0.002 : 1;
    t.forward_only = width == 1 && !rms;
    t.in[0] = (struct operand){DIM_DEC_TOKENS, rows, width, 0.3 * size, size};
    t.in[1] = (struct operand){DIM_FIXED, width, 0, 1, 0.3};
    t.in[2] = (struct operand){DIM_FIXED, width, 0, 0, 0.5};
    t.in[rms ? 2 : 3] = (struct operand){DIM_DEC_TOKENS, rows, width, -0.2 * size, 0.7 * size};
    harness_try(&t);
    free(b);
}

static void try(size_t rows, size_t width, bool rms, bool residual, long read, size_t tail)
{
    try_on(batch_rows(rows), width, rms, residual, 0, read, tail);
}

static const size_t shapes[][2] = {{0, 4},   {1, 1},   {1, 2},   {1, 16},  {1, 33},  {2, 7},
                                   {5, 64},  {17, 5},  {31, 9},  {32, 15}, {33, 17}, {63, 3},
                                   {65, 31}, {3, 129}, {2, 255}, {1, 300}, {40, 48}};

static void every(bool rms)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        try(shapes[i][0], shapes[i][1], rms, false, 1, i % 3 * 20);
        try(shapes[i][0], shapes[i][1], rms, true, 3, i % 3 * 20);
        if (i % 4 == 1) try(shapes[i][0], shapes[i][1], rms, true, 1, 0);
        if (i % 4 == 3) try(shapes[i][0], shapes[i][1], rms, false, 3, 3);
    }
}

static void layer_norm(void **state)
{
    (void)state;
    every(false);
}

static void rms_norm(void **state)
{
    (void)state;
    every(true);
}

/* Dropout in the branch: y and the sum are read alone and together, with whole and partial blocks of four
 * coordinates. */
static void dropout_and_residual(void **state)
{
    (void)state;
    static const double shares[] = {0.1, 0.5, 0.9};
    static const size_t widths[] = {3, 4, 7, 16, 33, 64, 130};
    for (size_t i = 0; i < harness_ragged_count; i++)
        for (long read = 1; read <= 3; read++) {
            struct batch *b = batch_of(&harness_ragged[i]);
            size_t k = (i + (size_t)read) % 7;
            while (b->tokens * widths[k] > 600) k--; /* differences of all elements cost the square of their number */
            try_on(b, widths[k], i % 2, true, shares[i % 3], read, i % 3 * 20);
        }
}

/* Far from zero the variance must not be a difference of two large sums. */
static void keeps_digits_far_from_zero(void **state)
{
    (void)state;
    struct batch *b = batch_rows(9);
    struct trial t = {.name = "norm around 32",
                      .batch = b,
                      .inputs = 3,
                      .option = {false, false, 1},
                      .forward_only = true,
                      .record = record,
                      .reference = reference};
    t.in[0] = (struct operand){DIM_DEC_TOKENS, 9, 40, 32, 1};
    t.in[1] = (struct operand){DIM_FIXED, 40, 0, 1, 0.3};
    t.in[2] = (struct operand){DIM_FIXED, 40, 0, 0, 0.5};
    harness_try(&t);
    free(b);
}

HARNESS_MAIN(FAMILY_NORM, cmocka_unit_test(layer_norm), cmocka_unit_test(rms_norm),
             cmocka_unit_test(dropout_and_residual), cmocka_unit_test(keeps_digits_far_from_zero))
