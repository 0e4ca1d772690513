/* priors: the KL of two diagonal Gaussians by dimension, against the integral of q log(q / p) by quadrature. The log
 * density of a mixture: components as rows of mu | logvar, or as rows of mu and then rows of logvar; logits or equal
 * weights. */
#include "ops/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t shapes[][3] = {{1, 1, 1},  {1, 2, 2},   {2, 4, 1},  {3, 5, 3},   {5, 7, 2},   {15, 8, 5},
                                   {16, 9, 4}, {17, 3, 7},  {31, 2, 3}, {32, 16, 2}, {33, 17, 3}, {2, 64, 2},
                                   {1, 65, 4}, {64, 11, 2}, {3, 33, 9}, {0, 3, 2}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* ---- the KL ---- */

static void record_kl(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_gaussian_kl(g, in[0], in[1]);
}

static void kl_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width / 2;
    const double *mean = in[1], *own = mean + width;
    for (size_t s = 0; s < t->in[0].rows; s++)
        for (size_t j = 0; j < width; j++) {
            double mu = in[0][s * 2 * width + j], logvar = in[0][s * 2 * width + width + j];
            double a = exp(logvar / 2), b = exp(own[j] / 2), distance = mu - mean[j];
            out[0][s * width + j] = log(b / a) + (a * a + distance * distance) / (2 * b * b) - 0.5;
        }
}

static void kl(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHAPES; i++) {
        char name[64];
        struct batch *b = batch_rows(0);
        b->sentences = shapes[i][0];
        snprintf(name, sizeof name, "KL %zu x %zu", shapes[i][0], shapes[i][1]);
        struct trial t = {
            .name = name, .batch = b, .tail = i % 3 * 20, .inputs = 2, .record = record_kl, .reference = kl_reference};
        t.in[0] = (struct operand){DIM_SENTENCES, b->sentences, 2 * shapes[i][1], -0.3, 0.8};
        t.in[1] = (struct operand){DIM_FIXED, 2 * shapes[i][1], 0, 0.2, 0.7};
        harness_try(&t);
        free(b);
    }
}

/* The closed form equals the integral. */
static void kl_is_the_integral(void **state)
{
    double in0[2], in1[2], out[1], *in[] = {in0, in1}, *to[] = {out};
    (void)state;
    for (int i = 0; i < 20; i++) {
        harness_normal(in0, 2, 0, 0.8, 100 + (uint64_t)i);
        harness_normal(in1, 2, 0, 0.8, 200 + (uint64_t)i);
        struct trial t = {.in = {{DIM_SENTENCES, 1, 2, 0, 0}}};
        kl_reference(&t, in, to);
        double a = exp(in0[1] / 2), b = exp(in1[1] / 2), sum = 0, step = a / 50;
        for (double z = in0[0] - 12 * a; z < in0[0] + 12 * a; z += step) {
            double x = (z - in0[0]) / a, y = (z - in1[0]) / b;
            sum += step * exp(-x * x / 2) / (a * sqrt(2 * M_PI)) * (log(b / a) + (y * y - x * x) / 2);
        }
        assert_true(fabs(sum - out[0]) < 1e-9);
    }
}

/* ---- a mixture ---- */

enum { LOGITS, PLANES, DRAWS, COMPONENTS };

static void record_mixture(struct graph *g, const struct trial *t, const value *in, value *out)
{
    out[0] = op_mixture_log_density(g, in[0], in[1], t->option[LOGITS] ? in[2] : NO_VALUE, t->real[0]);
}

static void mixture_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width, count = (size_t)t->option[COMPONENTS];
    double total = 0;
    for (size_t k = 0; k < count; k++) total += t->option[LOGITS] ? exp(in[2][k]) : 1;
    for (size_t s = 0; s < t->in[0].rows; s++) {
        double l[16], top = -INFINITY, sum = 0;
        for (size_t k = 0; k < count; k++) {
            const double *mu = in[1] + k * (t->option[PLANES] ? width : 2 * width);
            const double *logvar = mu + (t->option[PLANES] ? count * width : width);
            l[k] = log((t->option[LOGITS] ? exp(in[2][k]) : 1) / total);
            for (size_t j = 0; j < width; j++) {
                double variance = exp(logvar[j]), distance = in[0][s * width + j] - mu[j];
                l[k] -= (log(2 * M_PI * variance) + distance * distance / variance) / 2;
            }
            top = fmax(top, l[k]);
        }
        for (size_t k = 0; k < count; k++) sum += exp(l[k] - top);
        out[0][s] = t->real[0] * (top + log(sum));
    }
}

static void mixture(void **state)
{
    static const double signs[] = {1, -1, 0.5};
    (void)state;
    for (size_t i = 0; i < SHAPES; i++)
        for (long option = 0; option < 8; option++) {
            char name[64];
            size_t width = shapes[i][1], count = shapes[i][2];
            struct batch *b = batch_rows(0);
            b->sentences = shapes[i][0];
            snprintf(name, sizeof name, "mixture %zu x %zu of %zu, option %ld", shapes[i][0], width, count, option);
            struct trial t = {.name = name,
                              .batch = b,
                              .tail = i % 3 * 20,
                              .inputs = option & 1 ? 3 : 2,
                              .option = {option & 1, option >> 1 & 1, option >> 2, (long)count},
                              .real = {signs[i % 3]},
                              .record = record_mixture,
                              .reference = mixture_reference};
            t.in[0] = (struct operand){t.option[DRAWS] ? DIM_DRAWS : DIM_SENTENCES, b->sentences, width, 0.2, 1};
            t.in[1] = t.option[PLANES] ? (struct operand){DIM_FIXED, 2 * count, width, -0.1, 0.7}
                                       : (struct operand){DIM_FIXED, count, 2 * width, -0.1, 0.7};
            t.in[2] = (struct operand){DIM_FIXED, count, 0, 0.3, 1};
            harness_try(&t);
            free(b);
        }
}

/* ---- refused recordings ---- */

static void record_refused(struct graph *g, size_t i)
{
    value z = graph_input(g, "z", DTYPE_F32, 2, (struct dim[]){{DIM_SENTENCES, 0}, {DIM_FIXED, 3}});
    value stats = graph_input(g, "stats", DTYPE_F32, 2, (struct dim[]){{DIM_SENTENCES, 0}, {DIM_FIXED, 6}});
    value row = graph_input(g, "row", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 6}});
    value narrow = graph_input(g, "narrow", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 5}});
    value four = graph_input(g, "four", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 4}, {DIM_FIXED, 6}});
    value odd = graph_input(g, "odd", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 3}, {DIM_FIXED, 3}});
    if (i == 0) op_gaussian_kl(g, z, row);
    if (i == 1) op_gaussian_kl(g, stats, narrow);
    if (i == 2) op_mixture_log_density(g, four, four, NO_VALUE, 1);
    if (i == 3) op_mixture_log_density(g, z, odd, NO_VALUE, 1);
    if (i == 4) op_mixture_log_density(g, z, stats, NO_VALUE, 1);
    if (i == 5) op_mixture_log_density(g, z, four, narrow, 1);
}

static void shapes_are_checked(void **state)
{
    (void)state;
    static const char *const words[] = {"not (S, 2 Z)",         "not (2 Z)",
                                        "for each sentence",    "neither (K, 2 Z) nor",
                                        "neither (K, 2 Z) nor", "not (4), one for each"};
    harness_refuses(record_refused, words, sizeof words / sizeof *words);
}

HARNESS_MAIN(FAMILY_PRIOR, cmocka_unit_test(kl), cmocka_unit_test(kl_is_the_integral), cmocka_unit_test(mixture),
             cmocka_unit_test(shapes_are_checked))
