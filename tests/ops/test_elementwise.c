/* add, GELU, tanh, SwiGLU and dropout: their functions and gradients, and the address of dropout's noise. */
#include "ops/harness.h"
#include "base/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t shapes[][2] = {{0, 4},  {1, 1},  {1, 17}, {2, 3},   {5, 8},   {15, 7},   {16, 16}, {17, 15},
                                   {31, 9}, {33, 5}, {48, 2}, {3, 129}, {64, 33}, {129, 13}, {1, 300}, {700, 25}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void try(const char *name, struct trial t, size_t i, size_t inputs, size_t factor, double deviation)
{
    char full[96];
    snprintf(full, sizeof full, "%s %zu x %zu", name, shapes[i][0], shapes[i][1]);
    struct batch *b = batch_rows(shapes[i][0]);
    t.name = full;
    t.batch = b;
    t.tail = i % 3 * 20;
    t.inputs = inputs;
    for (size_t k = 0; k < inputs; k++)
        t.in[k] = (struct operand){DIM_DEC_TOKENS, shapes[i][0], factor * shapes[i][1], 0.1, deviation};
    harness_try(&t);
    free(b);
}

static size_t elements(const struct trial *t)
{
    return t->in[0].rows * t->in[0].width;
}

/* ---- add ---- */

static void record_add(struct graph *g, const struct trial *t, const value *in, value *out)
{
    out[0] = op_add(g, in[0], in[t->inputs - 1]);
}

static void add_reference(const struct trial *t, double *const *in, double *const *out)
{
    for (size_t i = 0; i < elements(t); i++) out[0][i] = in[0][i] + in[t->inputs - 1][i];
}

static void add_gradient(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    (void)in;
    for (size_t i = 0; i < elements(t); i++) din[0][i] += dout[0][i], din[t->inputs - 1][i] += dout[0][i];
}

static void add(void **state)
{
    (void)state;
    const struct trial t = {.record = record_add, .reference = add_reference, .gradient = add_gradient};
    for (size_t i = 0; i < SHAPES; i++) {
        try("add", t, i, 2, 1, 1);
        try("add to itself", t, i, 1, 1, 1);
    }
}

/* ---- GELU ---- */

static void record_gelu(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_gelu(g, in[0]);
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void gelu_reference(const struct trial *t, double *const *in, double *const *out)
{
    for (size_t i = 0; i < elements(t); i++) out[0][i] = gelu(in[0][i]);
}

static void gelu_gradient(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    for (size_t i = 0; i < elements(t); i++) {
        double x = in[0][i], c = sqrt(2 / M_PI), u = tanh(c * (x + 0.044715 * x * x * x));
        din[0][i] = dout[0][i] * (0.5 * (1 + u) + 0.5 * x * (1 - u * u) * c * (1 + 3 * 0.044715 * x * x));
    }
}

static void gelu_all(void **state)
{
    (void)state;
    const struct trial t = {.record = record_gelu, .reference = gelu_reference, .gradient = gelu_gradient};
    for (size_t i = 0; i < SHAPES; i++) {
        try("gelu", t, i, 1, 1, 1.5);
        try("gelu, wide", t, i, 1, 1, 30); /* both tails */
    }
}

/* ---- tanh ---- */

static void record_tanh(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_tanh(g, in[0]);
}

static void tanh_reference(const struct trial *t, double *const *in, double *const *out)
{
    for (size_t i = 0; i < elements(t); i++) out[0][i] = tanh(in[0][i]);
}

static void tanh_gradient(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    for (size_t i = 0; i < elements(t); i++) din[0][i] = dout[0][i] * (1 - tanh(in[0][i]) * tanh(in[0][i]));
}

static void tanh_all(void **state)
{
    (void)state;
    const struct trial t = {.record = record_tanh, .reference = tanh_reference, .gradient = tanh_gradient};
    for (size_t i = 0; i < SHAPES; i++) try("tanh", t, i, 1, 1, 1);
}

/* ---- SwiGLU ---- */

static void record_swiglu(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_swiglu(g, in[0]);
}

static void swiglu_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t f = t->in[0].width / 2;
    for (size_t n = 0; n < t->in[0].rows; n++)
        for (size_t i = 0; i < f; i++) {
            double gate = in[0][n * 2 * f + i];
            out[0][n * f + i] = gate / (1 + exp(-gate)) * in[0][n * 2 * f + f + i];
        }
}

static void swiglu_gradient(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    size_t f = t->in[0].width / 2;
    for (size_t n = 0; n < t->in[0].rows; n++)
        for (size_t i = 0; i < f; i++) {
            double gate = in[0][n * 2 * f + i], up = in[0][n * 2 * f + f + i], s = 1 / (1 + exp(-gate)),
                   d = dout[0][n * f + i];
            din[0][n * 2 * f + i] = d * up * s * (1 + gate * (1 - s));
            din[0][n * 2 * f + f + i] = d * gate * s;
        }
}

static void swiglu(void **state)
{
    (void)state;
    const struct trial t = {.record = record_swiglu, .reference = swiglu_reference, .gradient = swiglu_gradient};
    for (size_t i = 0; i < SHAPES; i++) {
        try("swiglu", t, i, 1, 2, 1.5);
        try("swiglu, wide", t, i, 1, 2, 30);
    }
}

/* ---- dropout ---- */

static void record_dropout(struct graph *g, const struct trial *t, const value *in, value *out)
{
    struct token_rows rows = {harness_input(g, "sentence"), harness_input(g, "position"), harness_input(g, "sample")};
    struct dropping dropping = op_dropping(g, &rows, t->real[0], "dropout");
    out[0] = op_dropout(g, in[0], &dropping);
}

/* Returns an element's factor by the definition of the mask: kept if the bits at (sample, position x width + column)
 * are at least p 2^32. */
static double kept(const struct trial *t, size_t n, size_t i)
{
    const struct batch *b = t->batch;
    struct noise_key key = noise_key(HARNESS_SEED, noise_purpose(HARNESS_SCOPE ".dropout"), HARNESS_STEP);
    uint32_t bits =
        noise_bits(key, b->sample[b->sentence[n]], HARNESS_DRAW, (uint64_t)b->position[n] * t->in[0].width + i);
    return (double)bits >= floor(t->real[0] * 4294967296.0) ? 1 / (1 - t->real[0]) : 0;
}

static void dropout_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width;
    for (size_t k = 0; k < elements(t); k++) out[0][k] = in[0][k] * kept(t, k / width, k % width);
}

static void dropout_gradient(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    (void)in;
    size_t width = t->in[0].width;
    for (size_t k = 0; k < elements(t); k++) din[0][k] = dout[0][k] * kept(t, k / width, k % width);
}

static void dropout(void **state)
{
    (void)state;
    static const double shares[] = {0.1, 0.5, 0.9};
    static const size_t widths[] = {1, 3, 4, 7, 16, 33, 64, 65, 128, 131, 262};
    struct trial t = {
        .record = record_dropout, .reference = dropout_reference, .gradient = dropout_gradient, .inputs = 1};
    for (size_t i = 0; i < harness_ragged_count; i++) {
        char name[64];
        size_t width = widths[i % (sizeof widths / sizeof *widths)];
        snprintf(name, sizeof name, "dropout, sentences %zu, width %zu", i, width);
        struct batch *b = batch_of(&harness_ragged[i]);
        t.name = name;
        t.batch = b;
        t.tail = i % 3 * 20;
        t.real[0] = shares[i % 3];
        t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, width, 2, 0.3};
        harness_try(&t);
        free(b);
    }
}

/* Returns the mask as dropout of ones on the first device. */
static float *mask(const struct batch *b, size_t width, double p, uint64_t step)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{0, 0, b->tokens, b->sentences, b->sentences}};
    assert_int_equal(graph_create(&g, "mask", NULL, &capacities, &error), ELBO_OK);
    graph_scope(g, HARNESS_SCOPE);
    value x = graph_input(g, "x", DTYPE_F32, 2, (struct dim[]){{DIM_DEC_TOKENS, 0}, {DIM_FIXED, width}});
    struct token_rows rows = {harness_input(g, "sentence"), harness_input(g, "position"), harness_input(g, "sample")};
    struct dropping dropping = op_dropping(g, &rows, p, "dropout");
    value y = op_dropout(g, x, &dropping);
    graph_keep(g, y);
    assert_int_equal(executor_create(&e, g, harness_device[0].backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    size_t n = b->tokens * width;
    float *ones = malloc((n + 1) * sizeof *ones), *out = malloc((n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++) ones[i] = 1;
    e.inputs[graph_value(g, x)->binding] = ones;
    e.inputs[graph_value(g, rows.sentence)->binding] = b->sentence;
    e.inputs[graph_value(g, rows.position)->binding] = b->position;
    e.inputs[graph_value(g, rows.sample)->binding] = b->sample;
    struct execution run = {.count = {0, 0, b->tokens, b->sentences, b->sentences}, .seed = HARNESS_SEED, .step = step};
    harness_run(&e, &run);
    memcpy(out, executor_pointer(&e, y), n * sizeof *out);
    free(ones);
    free(arena);
    executor_free(&e);
    graph_free(g);
    return out;
}

/* The dropped share of 40,000 elements is within 5 deviations, and kept elements are scaled to keep the mean. */
static void dropout_keeps_its_share(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    struct batch *b = batch_rows(2000);
    for (double p = 0.1; p < 0.95; p += 0.2) {
        float *m = mask(b, 20, p, 1);
        size_t n = 40000, kept_count = 0;
        for (size_t i = 0; i < n; i++) {
            kept_count += m[i] != 0;
            assert_true(m[i] == 0 || fabs(m[i] - 1 / (1 - p)) < 1e-5);
        }
        assert_true(fabs((double)kept_count / (double)n - (1 - p)) < 5 * sqrt(p * (1 - p) / (double)n));
        free(m);
    }
    free(b);
}

/* A sentence has the same mask alone and in a batch, and other masks in another step or as another sample. */
static void dropout_does_not_see_the_batch(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    struct batch *all = batch_of(&(struct ragged){3, {4, 9, 6}}), *one = batch_rows(9);
    one->sample[0] = all->sample[1];
    enum { WIDTH = 7 };
    float *a = mask(all, WIDTH, 0.5, 1), *b = mask(one, WIDTH, 0.5, 1), *c = mask(one, WIDTH, 0.5, 2);
    assert_memory_equal(a + 4 * WIDTH, b, 9 * WIDTH * sizeof *b);
    assert_memory_not_equal(b, c, 9 * WIDTH * sizeof *b);
    one->sample[0]++;
    float *d = mask(one, WIDTH, 0.5, 1);
    assert_memory_not_equal(b, d, 9 * WIDTH * sizeof *b);
    free(a);
    free(b);
    free(c);
    free(d);
    free(all);
    free(one);
}

HARNESS_MAIN(FAMILY_ELEMENTWISE, cmocka_unit_test(add), cmocka_unit_test(gelu_all), cmocka_unit_test(tanh_all),
             cmocka_unit_test(swiglu), cmocka_unit_test(dropout), cmocka_unit_test(dropout_keeps_its_share),
             cmocka_unit_test(dropout_does_not_see_the_batch))
