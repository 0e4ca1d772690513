/* norm:  s = x (+ residual);  layer: y = (s - mean) / sqrt(var + 1e-5) gamma + beta;  rms: y = s / sqrt(mean s^2 +
 * 1e-5) gamma. Both outputs, y and s, are read in turn or together. */
#include "ops/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { RMS, RESIDUAL, READ }; /* READ: 1 y, 2 sum, 3 both */

static void record(struct graph *g, const struct trial *t, const value *in, value *out)
{
    bool rms = t->option[RMS], residual = t->option[RESIDUAL];
    struct normed n = op_norm(g, in[0], residual ? in[3 - rms] : NO_VALUE, in[1], rms ? NO_VALUE : in[2], rms);
    if (t->option[READ] & 1) out[0] = n.y;
    if (t->option[READ] & 2) out[1] = n.sum;
}

static void reference(const struct trial *t, double *const *in, double *const *out)
{
    bool rms = t->option[RMS];
    size_t width = t->in[0].width;
    const double *residual = t->option[RESIDUAL] ? in[3 - rms] : NULL;
    for (size_t n = 0; n < t->in[0].rows; n++) {
        double mean = 0, square = 0;
        for (size_t i = 0; i < width && !rms; i++)
            mean += (in[0][n * width + i] + (residual ? residual[n * width + i] : 0)) / (double)width;
        for (size_t i = 0; i < width; i++)
            square += pow(in[0][n * width + i] + (residual ? residual[n * width + i] : 0) - mean, 2) / (double)width;
        for (size_t i = 0; i < width; i++) {
            double s = in[0][n * width + i] + (residual ? residual[n * width + i] : 0);
            if (t->option[READ] & 1)
                out[0][n * width + i] = (s - mean) / sqrt(square + 1e-5) * in[1][i] + (rms ? 0 : in[2][i]);
            if (t->option[READ] & 2) out[1][n * width + i] = s;
        }
    }
}

static void try(size_t rows, size_t width, bool rms, bool residual, long read, size_t tail)
{
    char name[64];
    snprintf(name, sizeof name, "norm %zu x %zu%s%s, reading %ld", rows, width, rms ? ", rms" : "",
             residual ? ", residual" : "", read);
    struct batch *b = batch_rows(rows);
    struct trial t = {.name = name,
                      .batch = b,
                      .tail = tail,
                      .inputs = 3u - rms + residual,
                      .option = {rms, residual, read},
                      .record = record,
                      .reference = reference};
    /* One or two columns are all but a sign when they are large: of the size of sqrt(epsilon), y depends on x. One
     * column less its mean is zero always, and so is its gradient: only forward. */
    double size = width <= 2 ? 0.002 : 1;
    t.forward_only = width == 1 && !rms;
    t.in[0] = (struct operand){DIM_DEC_TOKENS, rows, width, 0.3 * size, size};
    t.in[1] = (struct operand){DIM_FIXED, width, 0, 1, 0.3};
    t.in[2] = (struct operand){DIM_FIXED, width, 0, 0, 0.5};
    t.in[rms ? 2 : 3] = (struct operand){DIM_DEC_TOKENS, rows, width, -0.2 * size, 0.7 * size};
    harness_try(&t);
    free(b);
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

/* Far from zero, the variance is not a difference of two large sums. */
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
             cmocka_unit_test(keeps_digits_far_from_zero))
