/* latent: z = mu + exp(logvar / 2) eps, KL(q || N(0, 1)) per dimension. eps comes from its address in base/philox.h,
 * here by Box-Muller in double from the same integers. Also column moments, the log density of a Gaussian with
 * statistics for each row and with one row for all, and the hinge on the spread of mu, above 0 and at 0. */
#include "ops/harness.h"
#include "base/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE, READ }; /* READ: 1 z, 2 kl, 3 both */

static void record(struct graph *g, const struct trial *t, const value *in, value *out)
{
    struct latent_sample l = op_latent(g, in[0], harness_input(g, "sample"), t->option[SAMPLE]);
    if (t->option[READ] & 1) out[0] = l.z;
    if (t->option[READ] & 2) out[1] = l.kl;
}

static double noise(const struct trial *t, size_t s, size_t j)
{
    struct noise_key key = noise_key(HARNESS_SEED, noise_purpose(HARNESS_SCOPE ".noise"), HARNESS_STEP);
    uint64_t pair = j / 2 * 2, sample = t->batch->sample[s];
    struct philox_block block = noise_block(key, sample, HARNESS_DRAW, (uint32_t)(pair / 4));
    double u = noise_uniform(block.word[pair % 4]), v = noise_uniform(block.word[pair % 4 + 1]);
    double r = sqrt(-2 * log(u));
    return j % 2 ? r * cos(2 * M_PI * v) : r * sin(2 * M_PI * v);
}

static void reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width / 2;
    for (size_t s = 0; s < t->batch->sentences; s++)
        for (size_t j = 0; j < width; j++) {
            double mu = in[0][s * 2 * width + j], logvar = in[0][s * 2 * width + width + j];
            if (t->option[READ] & 1)
                out[0][s * width + j] = mu + (t->option[SAMPLE] ? exp(logvar / 2) * noise(t, s, j) : 0);
            if (t->option[READ] & 2) out[1][s * width + j] = (mu * mu + exp(logvar) - 1 - logvar) / 2;
        }
}

static const size_t shapes[][2] = {{1, 1},   {1, 2},   {1, 3},  {2, 4},   {3, 5},   {5, 7},  {15, 8},
                                   {16, 9},  {17, 3},  {31, 2}, {32, 16}, {33, 17}, {48, 6}, {2, 64},
                                   {1, 129}, {64, 11}, {3, 65}, {2, 200}, {1, 300}};

static void latent(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (long option = 0; option < 6; option++) {
            char name[64];
            struct batch *b = batch_rows(0);
            b->sentences = shapes[i][0];
            for (size_t s = 0; s < b->sentences; s++)
                b->sample[s] = 0xfffffffcu + 3 * s; /* crosses the end of the low word */
            snprintf(name, sizeof name, "latent %zu x %zu, option %ld", shapes[i][0], shapes[i][1], option);
            struct trial t = {.name = name,
                              .batch = b,
                              .tail = i % 3 * 20,
                              .inputs = 1,
                              .option = {option % 2, 1 + option / 2},
                              .record = record,
                              .reference = reference};
            t.in[0] = (struct operand){DIM_SENTENCES, b->sentences, 2 * shapes[i][1], -0.3, 1};
            harness_try(&t);
            free(b);
        }
}

static void record_moments(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_column_moments(g, in[0]);
}

static void moments_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width;
    for (size_t i = 0; i < width; i++) {
        out[0][2 * i] = out[0][2 * i + 1] = 0;
        for (size_t s = 0; s < t->in[0].rows; s++) {
            out[0][2 * i] += in[0][s * width + i];
            out[0][2 * i + 1] += in[0][s * width + i] * in[0][s * width + i];
        }
    }
}

static void column_moments(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char name[64];
        struct batch *b = batch_rows(0);
        b->sentences = shapes[i][0];
        snprintf(name, sizeof name, "moments %zu x %zu", shapes[i][0], shapes[i][1]);
        struct trial t = {.name = name,
                          .batch = b,
                          .tail = i % 3 * 20,
                          .inputs = 1,
                          .record = record_moments,
                          .reference = moments_reference,
                          .forward_only = true};
        t.in[0] = (struct operand){DIM_SENTENCES, b->sentences, shapes[i][1], 0.5, 1};
        harness_try(&t);
        free(b);
    }
}

/* ---- log density ---- */

enum { ONE_ROW, DRAWS }; /* DRAWS: z has rows of draws, the statistics rows of sentences */

static void record_density(struct graph *g, const struct trial *t, const value *in, value *out)
{
    out[0] = op_gaussian_log_density(g, in[0], in[1], t->real[0]);
}

static void density_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width;
    for (size_t s = 0; s < t->in[0].rows; s++) {
        const double *z = in[0] + s * width, *mu = in[1] + (t->option[ONE_ROW] ? 0 : s * 2 * width);
        out[0][s] = 0;
        for (size_t j = 0; j < width; j++) {
            double variance = exp(mu[width + j]), distance = z[j] - mu[j];
            out[0][s] += t->real[0] * log(exp(-distance * distance / (2 * variance)) / sqrt(2 * M_PI * variance));
        }
    }
}

static void log_density(void **state)
{
    static const double signs[] = {1, -1, 0.5};
    (void)state;
    for (size_t i = 0; i <= sizeof shapes / sizeof *shapes; i++)
        for (long option = 0; option < 4; option++) {
            const size_t none[2] = {0, 3}, *shape = i < sizeof shapes / sizeof *shapes ? shapes[i] : none;
            char name[64];
            struct batch *b = batch_rows(0);
            b->sentences = shape[0];
            snprintf(name, sizeof name, "log density %zu x %zu, option %ld", shape[0], shape[1], option);
            struct trial t = {.name = name,
                              .batch = b,
                              .tail = i % 3 * 20,
                              .inputs = 2,
                              .option = {[ONE_ROW] = option % 2, [DRAWS] = option / 2},
                              .real = {signs[i % 3]},
                              .record = record_density,
                              .reference = density_reference};
            t.in[0] = (struct operand){t.option[DRAWS] ? DIM_DRAWS : DIM_SENTENCES, b->sentences, shape[1], 0.2, 1};
            t.in[1] = (struct operand){DIM_SENTENCES, b->sentences, 2 * shape[1], -0.3, 0.7};
            if (t.option[ONE_ROW]) t.in[1] = (struct operand){DIM_FIXED, 2 * shape[1], 0, -0.3, 0.7};
            harness_try(&t);
            free(b);
        }
}

/* ---- the spread of mu ---- */

static void record_spread(struct graph *g, const struct trial *t, const value *in, value *out)
{
    out[0] = op_spread_hinge(g, in[0], t->real[0]);
}

static void spread_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width / 2, n = t->in[0].rows;
    double sum = 0;
    for (size_t j = 0; j < width; j++) {
        double mean = 0;
        for (size_t b = 0; b < n; b++) mean += in[0][b * 2 * width + j] / (double)n;
        for (size_t b = 0; b < n; b++) sum += pow(in[0][b * 2 * width + j] - mean, 2);
    }
    out[0][0] = n ? (double)n * fmax(0, t->real[0] - sum / (2 * (double)n)) : 0;
}

static void spread_hinge(void **state)
{
    (void)state;
    for (size_t i = 0; i <= sizeof shapes / sizeof *shapes; i++)
        for (int above = 0; above < 2; above++) {
            const size_t none[2] = {0, 3}, *shape = i < sizeof shapes / sizeof *shapes ? shapes[i] : none;
            char name[64];
            struct batch *b = batch_rows(0);
            b->sentences = shape[0];
            snprintf(name, sizeof name, "spread %zu x %zu, %s", shape[0], shape[1], above ? "above 0" : "at 0");
            struct trial t = {.name = name,
                              .batch = b,
                              .tail = i % 3 * 20,
                              .inputs = 1,
                              .real = {above ? 3.0 * (double)shape[1] : 0.01},
                              .record = record_spread,
                              .reference = spread_reference};
            t.in[0] = (struct operand){DIM_SENTENCES, b->sentences, 2 * shape[1], 0.4, 1};
            harness_try(&t);
            free(b);
        }
}

/* ---- refused recordings ---- */

static void record_refused(struct graph *g, size_t i)
{
    value z = graph_input(g, "z", DTYPE_F32, 2, (struct dim[]){{DIM_SENTENCES, 0}, {DIM_FIXED, 3}});
    value tokens = graph_input(g, "tokens", DTYPE_F32, 2, (struct dim[]){{DIM_DEC_TOKENS, 0}, {DIM_FIXED, 6}});
    value row = graph_input(g, "row", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 6}});
    value narrow = graph_input(g, "narrow", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 5}});
    if (i == 0) op_gaussian_log_density(g, row, row, 1);
    if (i == 1) op_gaussian_log_density(g, z, z, 1);
    if (i == 2) op_gaussian_log_density(g, z, tokens, 1);
    if (i == 3) op_gaussian_log_density(g, z, narrow, 1);
    if (i == 4) op_spread_hinge(g, z, 1);
}

static void shapes_are_checked(void **state)
{
    (void)state;
    static const char *const words[] = {"for each sentence", "neither (S, 2 Z) nor (2 Z)", "neither (S, 2 Z) nor (2 Z)",
                                        "neither (S, 2 Z) nor (2 Z)", "not (S, 2 Z)"};
    harness_refuses(record_refused, words, sizeof words / sizeof *words);
}

HARNESS_MAIN(FAMILY_LATENT, cmocka_unit_test(latent), cmocka_unit_test(column_moments), cmocka_unit_test(log_density),
             cmocka_unit_test(spread_hinge), cmocka_unit_test(shapes_are_checked))
