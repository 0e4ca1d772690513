/* linear_cross_entropy: nll = logsumexp(y w^T) - y . w[label], forward alone with `right`, and fused with both
 * gradients, in one chunk of rows and in several. bag_cross_entropy. elbo: the loss and its parts with three kinds of
 * free bits. objective. */
#include "ops/harness.h"
#include "ops/loss.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- cross-entropy ---- */

static void record(struct graph *g, const struct trial *t, const value *in, value *out)
{
    out[0] = op_linear_cross_entropy(g, in[0], in[1], harness_input(g, "labels"), t->forward_only ? &out[1] : NULL);
}

/* Computes the logits of row n and returns their logsumexp. */
static double logits(const struct trial *t, double *const *in, size_t n, double *to)
{
    size_t width = t->in[0].width, vocabulary = t->in[1].rows;
    double top = -INFINITY, sum = 0;
    for (size_t v = 0; v < vocabulary; v++) {
        to[v] = 0;
        for (size_t i = 0; i < width; i++) to[v] += in[0][n * width + i] * in[1][v * width + i];
        top = fmax(top, to[v]);
    }
    for (size_t v = 0; v < vocabulary; v++) sum += exp(to[v] - top);
    return top + log(sum);
}

static void reference(const struct trial *t, double *const *in, double *const *out)
{
    double *row = malloc(t->in[1].rows * sizeof *row);
    for (size_t n = 0; n < t->in[0].rows; n++) {
        double all = logits(t, in, n, row);
        int32_t label = t->batch->labels[n];
        bool right = label >= 0;
        for (size_t v = 0; v < t->in[1].rows && right; v++) right = row[v] <= row[label];
        out[0][n] = label < 0 ? 0 : all - row[label]; /* masked rows have no loss */
        if (t->forward_only) out[1][n] = right;
    }
    free(row);
}

static void gradient(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    size_t width = t->in[0].width, vocabulary = t->in[1].rows;
    double *row = malloc(vocabulary * sizeof *row);
    for (size_t n = 0; n < t->in[0].rows; n++) {
        double all = logits(t, in, n, row);
        for (size_t v = 0; v < vocabulary; v++) {
            double d =
                t->batch->labels[n] < 0 ? 0 : dout[0][n] * (exp(row[v] - all) - ((int32_t)v == t->batch->labels[n]));
            for (size_t i = 0; i < width; i++) {
                din[0][n * width + i] += d * in[1][v * width + i];
                din[1][v * width + i] += d * in[0][n * width + i];
            }
        }
    }
    free(row);
}

static void try(size_t rows, size_t width, size_t vocabulary, double size, size_t tail, bool forward_only)
{
    char name[64];
    struct batch *b = batch_rows(rows);
    batch_words(b, vocabulary, rows);
    for (size_t n = 2; n < rows; n += 5) b->labels[n] = -1 - (int32_t)n;
    snprintf(name, sizeof name, "cross-entropy %zu x %zu of %zu%s", rows, width, vocabulary,
             forward_only ? ", forward" : "");
    struct trial t = {.name = name,
                      .batch = b,
                      .tail = tail,
                      .inputs = 2,
                      .record = record,
                      .reference = reference,
                      .gradient = gradient,
                      .forward_only = forward_only,
                      .large = vocabulary > 10000};
    t.in[0] = (struct operand){DIM_DEC_TOKENS, rows, width, 0, size};
    t.in[1] = (struct operand){DIM_FIXED, vocabulary, width, 0, 1};
    harness_try(&t);
    free(b);
}

static void cross_entropy(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {
        {0, 3, 5},   {1, 1, 2},   {1, 5, 17},   {2, 3, 31},   {3, 4, 16}, {8, 7, 33},   {9, 8, 100},  {15, 3, 15},
        {17, 33, 7}, {31, 6, 65}, {32, 16, 32}, {33, 5, 257}, {64, 3, 9}, {113, 4, 31}, {5, 385, 12}, {130, 2, 500}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        try(shapes[i][0], shapes[i][1], shapes[i][2], 1, i % 3 * 20, false);
        try(shapes[i][0], shapes[i][1], shapes[i][2], 1, i % 3 * 20, true);
    }
}

/* A chunk has 2^22 logits: rows of 270,001 make chunks of 11, and rows of 140,001 make chunks of 23 and a rest. */
static void cross_entropy_in_chunks(void **state)
{
    (void)state;
    if (!harness_on_host()) skip(); /* a GPU's chunks are larger */
    try(33, 2, 270001, 1, 5, false);
    try(68, 1, 140001, 1, 0, false);
    try(35, 2, 270001, 1, 0, true);
}

/* Logits of hundreds need their maximum taken out before the exponential. */
static void cross_entropy_of_large_logits(void **state)
{
    (void)state;
    try(9, 4, 50, 200, 0, true);
}

/* ---- a bag of words ---- */

static void record_bag(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_bag_cross_entropy(g, in[0], harness_input(g, "labels"), harness_input(g, "offsets"));
}

static void bag_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t v = t->in[0].width;
    out[0][0] = 0;
    for (size_t s = 0; s < t->batch->sentences; s++) {
        double sum = 0;
        for (size_t i = 0; i < v; i++) sum += exp(in[0][s * v + i]);
        for (int32_t n = t->batch->offsets[s]; n < t->batch->offsets[s + 1]; n++)
            if (t->batch->labels[n] >= 0) out[0][0] += log(sum) - in[0][s * v + (size_t)t->batch->labels[n]];
    }
}

/* Uses small vocabularies, so that sentences repeat words. */
static void bag_of_words(void **state)
{
    (void)state;
    static const size_t vocabularies[] = {2, 3, 17, 64, 300};
    for (size_t i = 0; i < harness_ragged_count; i++)
        for (size_t k = 0; k < sizeof vocabularies / sizeof *vocabularies; k++) {
            char name[64];
            struct batch *b = batch_of(&harness_ragged[i]);
            batch_words(b, vocabularies[k], i);
            for (size_t n = 2; n < b->tokens; n += 5) b->labels[n] = -1;
            snprintf(name, sizeof name, "bag %zu of %zu words", i, vocabularies[k]);
            struct trial t = {.name = name,
                              .batch = b,
                              .tail = i % 3 * 20,
                              .inputs = 1,
                              .record = record_bag,
                              .reference = bag_reference};
            t.in[0] = (struct operand){DIM_SENTENCES, b->sentences, vocabularies[k], 0, 1};
            harness_try(&t);
            free(b);
        }
}

/* ---- ELBO ---- */

enum { KIND, GROUPS_OF, WITHOUT_Z, HOW };
enum { MASKED = 1, OF_SENTENCES = 2 };

static void record_elbo(struct graph *g, const struct trial *t, const value *in, value *out)
{
    struct free_bits f = {.kind = (unsigned)t->option[KIND],
                          .form = t->option[HOW] & MASKED ? FREE_MASK : FREE_HINGE,
                          .scope = t->option[HOW] & OF_SENTENCES ? FREE_SENTENCE : FREE_SLOT,
                          .nats = t->real[0],
                          .groups = (size_t)t->option[GROUPS_OF]};
    struct elbo_value e = op_elbo(g, in[0], t->option[WITHOUT_Z] ? NO_VALUE : in[1], harness_input(g, "weights"), &f);
    out[0] = e.loss;
    out[1] = e.kl_dim;
}

static void elbo_reference(const struct trial *t, double *const *in, double *const *out)
{
    double nll = 0, kl = 0, free_kl = 0, under = 0;
    size_t sentences = t->batch->sentences, width = t->option[WITHOUT_Z] ? 0 : t->in[1].width;
    size_t parts = t->option[KIND] == FREE_TOTAL       ? 1
                   : t->option[KIND] == FREE_PER_GROUP ? (size_t)t->option[GROUPS_OF]
                                                       : width;
    for (size_t n = 0; n < t->in[0].rows; n++) nll += in[0][n];
    for (size_t j = 0; j < width; j++) {
        out[1][j] = 0;
        for (size_t s = 0; s < sentences; s++) out[1][j] += in[1][s * width + j];
        kl += out[1][j];
    }
    for (size_t i = 0; i < parts * sentences && width; i++) {
        size_t k = i / sentences, s = i % sentences;
        double held = 0;
        for (size_t j = k * (width / parts); j < (k + 1) * (width / parts); j++)
            held += t->option[HOW] & OF_SENTENCES ? in[1][s * width + j] : out[1][j] / (double)sentences;
        free_kl += held > t->real[0] ? held : t->option[HOW] & MASKED ? 0 : t->real[0];
        under += held > t->real[0] ? 0 : 1 / (double)parts;
    }
    out[0][ELBO_LOSS] =
        (double)t->batch->weights[ELBO_WEIGHT_NLL] * nll + (double)t->batch->weights[ELBO_WEIGHT_KL] * free_kl;
    out[0][ELBO_NLL] = nll;
    out[0][ELBO_KL] = kl;
    out[0][ELBO_KL_FREE] = free_kl;
    out[0][ELBO_UNDER] = under;
}

static void elbo_how(long kind, size_t groups, double nats, bool without_z, long how)
{
    static const size_t shapes[][2] = {{1, 6},  {1, 12},  {2, 6},  {3, 18}, {5, 6},  {7, 24}, {16, 6}, {17, 12},
                                       {33, 6}, {64, 12}, {4, 30}, {6, 36}, {9, 54}, {11, 6}, {2, 132}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char name[96];
        struct batch *b = batch_rows(3 * shapes[i][0] + 1);
        b->sentences = shapes[i][0];
        snprintf(name, sizeof name, "elbo %zu x %zu, kind %ld, %g nats%s%s%s", shapes[i][0], shapes[i][1], kind, nats,
                 without_z ? ", no z" : "", how & MASKED ? ", mask" : "", how & OF_SENTENCES ? ", of sentences" : "");
        struct trial t = {.name = name,
                          .batch = b,
                          .tail = i % 3 * 20,
                          .inputs = without_z ? 1 : 2,
                          .is_loss = true,
                          .option = {kind, (long)groups, without_z, how},
                          .real = {nats},
                          .record = record_elbo,
                          .reference = elbo_reference};
        t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, 1, 4, 1};
        t.in[1] = (struct operand){DIM_SENTENCES, b->sentences, shapes[i][1], 0.5, 0.4};
        harness_try(&t);
        free(b);
    }
}

static void elbo_of(long kind, size_t groups, double nats, bool without_z)
{
    for (long how = 0; how < 4; how++) elbo_how(kind, groups, nats, without_z, how);
}

static void elbo(void **state)
{
    (void)state;
    elbo_of(FREE_PER_DIMENSION, 0, 0.5, false); /* about half the dimensions are free */
    elbo_of(FREE_PER_DIMENSION, 0, 0, false);
    elbo_of(FREE_PER_GROUP, 3, 1.2, false);
    elbo_of(FREE_PER_GROUP, 6, 0.9, false);
    elbo_of(FREE_TOTAL, 0, 2, false);   /* KL above the free bits */
    elbo_of(FREE_TOTAL, 0, 200, false); /* KL below the free bits: no gradient reaches it */
    elbo_of(FREE_PER_DIMENSION, 0, 0.5, true);
}

/* ---- the objective ---- */

enum { COUNT };

static size_t operand_of(size_t term)
{
    return 1 + term % 3;
}

static unsigned weight_of(size_t term)
{
    return term % 4 < 2 ? ELBO_WEIGHT_KL : ELBO_WEIGHT_NLL;
}

static void record_objective(struct graph *g, const struct trial *t, const value *in, value *out)
{
    value terms[OBJECTIVE_TERMS];
    unsigned weight[OBJECTIVE_TERMS];
    for (size_t k = 0; k < (size_t)t->option[COUNT]; k++) {
        terms[k] = in[operand_of(k)];
        weight[k] = weight_of(k);
    }
    out[0] = op_objective(g, in[0], terms, weight, (size_t)t->option[COUNT], harness_input(g, "weights"));
}

static void objective_reference(const struct trial *t, double *const *in, double *const *out)
{
    for (size_t i = 0; i < ELBO_PARTS; i++) out[0][i] = in[0][i];
    for (size_t k = 0; k < (size_t)t->option[COUNT]; k++) {
        out[0][ELBO_LOSS] += (double)t->batch->weights[weight_of(k)] * in[operand_of(k)][0];
        out[0][ELBO_PARTS + k] = in[operand_of(k)][0];
    }
}

/* With more than three terms, terms are read several times and their gradients add up. */
static void objective(void **state)
{
    (void)state;
    for (long count = 0; count <= OBJECTIVE_TERMS; count++) {
        char name[64];
        struct batch *b = batch_rows(1);
        snprintf(name, sizeof name, "objective of %ld terms", count);
        struct trial t = {.name = name,
                          .batch = b,
                          .inputs = count < 3 ? 1 + (size_t)count : 4,
                          .is_loss = true,
                          .option = {[COUNT] = count},
                          .record = record_objective,
                          .reference = objective_reference};
        t.in[0] = (struct operand){DIM_FIXED, ELBO_PARTS, 0, 2, 1};
        for (size_t k = 1; k < t.inputs; k++) t.in[k] = (struct operand){DIM_FIXED, 1, 0, 1, 1};
        harness_try(&t);
        free(b);
    }
}

/* The gradient of the ELBO's parts is the same with an objective behind the ELBO. */
static void record_whole(struct graph *g, const struct trial *t, const value *in, value *out)
{
    struct free_bits f = {.kind = FREE_PER_DIMENSION, .nats = t->real[0]};
    struct elbo_value e = op_elbo(g, in[0], in[1], harness_input(g, "weights"), &f);
    out[0] = op_objective(g, e.loss, &in[2], (const unsigned[]){ELBO_WEIGHT_KL}, 1, harness_input(g, "weights"));
    out[1] = e.kl_dim;
}

static void whole_reference(const struct trial *t, double *const *in, double *const *out)
{
    elbo_reference(t, in, out);
    out[0][ELBO_LOSS] += (double)t->batch->weights[ELBO_WEIGHT_KL] * in[2][0];
    out[0][ELBO_PARTS] = in[2][0];
}

static void objective_of_the_elbo(void **state)
{
    (void)state;
    struct batch *b = batch_rows(31);
    b->sentences = 9;
    struct trial t = {.name = "objective of an elbo",
                      .batch = b,
                      .tail = 20,
                      .inputs = 3,
                      .is_loss = true,
                      .option = {FREE_PER_DIMENSION},
                      .real = {0.5},
                      .record = record_whole,
                      .reference = whole_reference};
    t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, 1, 4, 1};
    t.in[1] = (struct operand){DIM_SENTENCES, b->sentences, 12, 0.5, 0.4};
    t.in[2] = (struct operand){DIM_FIXED, 1, 0, 3, 1};
    harness_try(&t);
    free(b);
}

static void record_refused_objective(struct graph *g, size_t i)
{
    value parts = graph_input(g, "parts", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, ELBO_PARTS}});
    value vector = graph_input(g, "vector", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 2}});
    value one = graph_input(g, "one", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 1}}), terms[OBJECTIVE_TERMS + 1];
    unsigned weight[OBJECTIVE_TERMS + 1] = {0};
    for (size_t k = 0; k <= OBJECTIVE_TERMS; k++) terms[k] = i == 2 ? vector : one;
    if (i == 3) weight[0] = ELBO_WEIGHTS;
    op_objective(g, i == 1 ? vector : parts, terms, weight, i == 0 ? OBJECTIVE_TERMS + 1 : 1,
                 harness_input(g, "weights"));
}

static void objective_shapes_are_checked(void **state)
{
    (void)state;
    static const char *const words[] = {"11 terms", "the ELBO's 5 parts", "vector is not one f32", "number 2 of 2"};
    harness_refuses(record_refused_objective, words, sizeof words / sizeof *words);
}

HARNESS_MAIN(FAMILY_LOSS, cmocka_unit_test(cross_entropy), cmocka_unit_test(cross_entropy_in_chunks),
             cmocka_unit_test(cross_entropy_of_large_logits), cmocka_unit_test(bag_of_words), cmocka_unit_test(elbo),
             cmocka_unit_test(objective), cmocka_unit_test(objective_of_the_elbo),
             cmocka_unit_test(objective_shapes_are_checked))
