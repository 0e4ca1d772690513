/* Tests the account of whole models, node by node, against its own formulas: operations from the sizes of products and
 * of attention; bytes from what is read and written, including the traffic of logits, of GELU's slopes and of gathered
 * rows. Covers f32 and bf16, with and without a latent memory, and z as prefix rows or as residuals after blocks. A
 * node's name must tell its part of the model, and its block when it is recomputed. */
#include "graph/account.h"
#include "step/recording.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum {
    VOCABULARY = 401,
    WIDTH = 32,
    HEADS = 4,
    ENCODER_ROWS = 300,
    DECODER_ROWS = 280,
    SENTENCES = 40,
    MEMORY = 2,
    PREFIX = 3,
    LAYERS = 3
};

static const struct graph_capacities capacities = {{0, ENCODER_ROWS, DECODER_ROWS, SENTENCES, SENTENCES}};

struct fixture {
    struct recording r;
    struct parameters *parameters;
    bool memory; /* z is injected as keys and values */
};

static void record(struct fixture *f, unsigned variant)
{
    elbo_error error = {0};
    struct model_config c = {.encoder = {.width = WIDTH, .layers = LAYERS, .heads = HEADS},
                             .decoder = {.width = WIDTH, .layers = LAYERS, .heads = HEADS},
                             .latent = {.width = 8, .memory = MEMORY, .prefix = PREFIX, .sample = true},
                             .vocabulary = VOCABULARY,
                             .positions = 40};
    f->memory = !(variant & 16);
    c.latent.injection = f->memory ? INJECT_BOTH : INJECT_PREFIX | INJECT_RESIDUAL;
    struct stack_config *stacks[] = {&c.encoder, &c.decoder};
    for (int s = 0; s < 2; s++) {
        stacks[s]->activation = variant & 1 ? ACTIVATION_SWIGLU : ACTIVATION_GELU;
        stacks[s]->norm_position = variant & 2 ? NORM_POST : NORM_PRE;
        stacks[s]->dropout = variant & 4 ? 0.1 : 0;
        stacks[s]->positions = variant & 8 ? POSITION_ROTARY : POSITION_LEARNED;
    }
    c.precision = variant & 4 ? PRECISION_BF16 : PRECISION_F32;
    struct objective objective;
    if (objective_create(&objective, &(struct objective_config){0}, &c, 1, &error)) fail_msg("%s", error.message);
    struct train_recording options = {.wanted = (unsigned)WANT_ALL,
                                      .recompute = variant & 8 ? RECOMPUTE_BLOCKS : KEEP_ALL};
    if (model_declare(&f->parameters, &c, &error)) fail_msg("%s", error.message);
    if (record_train(&f->r, &c, &objective, f->parameters, &capacities, &options, &error))
        fail_msg("%s", error.message);
}

static void drop(struct fixture *f)
{
    recording_free(&f->r, NULL);
    parameters_free(f->parameters);
}

static double size(const struct graph *g, value v, size_t d)
{
    return v.index && d < graph_value(g, v)->rank ? (double)graph_dim(g, v, d, capacities.count) : 0;
}

static double elements(const struct graph *g, value v)
{
    double n = v.index ? 1 : 0;
    for (size_t d = 0; v.index && d < graph_value(g, v)->rank; d++) n *= size(g, v, d);
    return n;
}

static double bytes_of(const struct graph *g, value v)
{
    return v.index ? elements(g, v) * (double)dtype_bytes(graph_value(g, v)->dtype) : 0;
}

/* Counts every input once, every output once, and an output that is added to once more. */
static double plain(const struct graph *g, const struct node *n)
{
    double bytes = 0;
    for (unsigned k = 0; k < MAX_INPUTS; k++) bytes += bytes_of(g, n->in[k]);
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) bytes += bytes_of(g, n->out[k]) * (n->mode[k] == WRITE ? 1 : 2);
    return bytes;
}

/* Operations of `products` products of every row with every key, rows x keys x width each; half of the keys when
 * causal. */
static double attention(const struct fixture *f, value qkv, double products)
{
    const struct graph *g = f->r.g;
    bool decoder = graph_value(g, qkv)->dim[0].kind == DIM_DEC_TOKENS;
    double rows = decoder ? DECODER_ROWS : ENCODER_ROWS, keys = rows / SENTENCES;
    return 2 * products * rows * (decoder ? keys / 2 + (f->memory ? MEMORY : 0) : keys) * WIDTH;
}

static bool is(const struct node *n, const char *name)
{
    return !strcmp(n->type->name, name);
}

static struct account expected(const struct fixture *f, const struct node *n)
{
    const struct graph *g = f->r.g;
    struct account a = {.bytes = plain(g, n)};
    double element = (double)dtype_bytes(graph_value(g, n->in[0])->dtype);
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) a.flops += elements(g, n->out[k]);
    if (is(n, "linear")) {
        a.flops = 2 * elements(g, n->in[0]) * size(g, n->in[1], 0);
    } else if (is(n, "linear_backward_input")) { /* dy, w, sums before the activation */
        a.flops = 2 * elements(g, n->in[0]) * size(g, n->in[1], 1);
        if (n->in[2].index && element == 4) a.bytes += 2 * bytes_of(g, n->out[0]);
    } else if (is(n, "linear_backward_weight")) {
        a.flops = 2 * elements(g, n->in[0]) * size(g, n->in[1], 1);
    } else if (is(n, "linear_cross_entropy_train")) { /* logits, their gradient, and the two products with it */
        double logits = (double)DECODER_ROWS * VOCABULARY, y = (double)DECODER_ROWS * WIDTH,
               w = (double)VOCABULARY * WIDTH;
        a.flops = 3 * 2 * y * VOCABULARY;
        a.bytes += (5 * logits + y + w) * element;
    } else if (is(n, "attention")) {
        a.flops = attention(f, n->in[0], 2);
    } else if (is(n, "attention_backward")) {
        a.flops = attention(f, n->in[1], 5);
    } else if (is(n, "embedding")) { /* only the table's rows that are read */
        a.bytes -= fmax(elements(g, n->in[0]) - elements(g, n->out[0]), 0) * element;
    } else if (is(n, "embedding_backward")) { /* only the gradient's rows that are added to */
        a.bytes -= 2 * fmax(elements(g, n->out[0]) - elements(g, n->in[0]), 0) * sizeof(float);
    }
    return a;
}

static void every_node(void **state)
{
    (void)state;
    size_t linear = 0, slopes = 0, heads = 0, fronts = 0, behind = 0;
    for (unsigned variant = 0; variant < 32; variant++) {
        struct fixture f;
        record(&f, variant);
        const uint32_t *order;
        size_t steps = graph_schedule(f.r.g, &order);
        double flops = 0, bytes = 0;
        for (size_t s = 0; s < steps; s++) {
            const struct node *n = graph_node_get(f.r.g, order[s]);
            struct account a = account_node(f.r.g, n, capacities.count), wanted = expected(&f, n);
            if (fabs(a.flops - wanted.flops) > 1e-9 * wanted.flops ||
                fabs(a.bytes - wanted.bytes) > 1e-9 * wanted.bytes)
                fail_msg("variant %u, %s (%s): %.0f operations and %.0f bytes, expected %.0f and %.0f", variant,
                         n->name, n->type->name, a.flops, a.bytes, wanted.flops, wanted.bytes);
            linear += is(n, "linear");
            if (is(n, "linear") &&
                strstr(n->name, ".feed_forward")) { /* four times as wide inside; twice that for gate and input */
                double in = size(f.r.g, n->in[1], 1), out = size(f.r.g, n->in[1], 0), inner = 4 * WIDTH;
                assert_true(in == WIDTH ? out == (variant & 1 ? 2 : 1) * inner : in == inner && out == WIDTH);
            }
            slopes += is(n, "linear_backward_input") && n->in[2].index;
            heads += is(n, "attention_backward");
            if (is(n, "prefix") || is(n, "prefix_backward")) { /* the decoder's rows, including rows from z */
                assert_float_equal(elements(f.r.g, n->out[0]), (double)DECODER_ROWS * WIDTH, 0.5);
                fronts += is(n, "prefix_backward");
            }
            behind += is(n, "linear_backward_weight") && strstr(n->name, ".residual");
            flops += a.flops;
            bytes += a.bytes;
        }
        struct account all = account_graph(f.r.g, capacities.count);
        assert_true(fabs(all.flops - flops) <= 1e-9 * flops && fabs(all.bytes - bytes) <= 1e-9 * bytes);
        drop(&f);
    }
    assert_true(linear > 0 && slopes > 0 && heads > 0);
    assert_int_equal(fronts, 16); /* forward rows may be recomputed */
    assert_int_equal(behind, 16 * (LAYERS - 1));
}

/* Scoring computes the loss without its backward pass. */
static void the_loss_alone(void **state)
{
    (void)state;
    elbo_error error = {0};
    struct model_config c = {.encoder = {.width = WIDTH, .layers = 1, .heads = HEADS},
                             .decoder = {.width = WIDTH, .layers = 1, .heads = HEADS},
                             .latent = {.width = 8, .memory = MEMORY, .sample = true},
                             .vocabulary = VOCABULARY,
                             .positions = 40};
    struct fixture score;
    if (model_declare(&score.parameters, &c, &error) ||
        record_score(&score.r, &c, score.parameters, &capacities, &error))
        fail_msg("%s", error.message);
    size_t found = 0;
    for (size_t i = 0; i < graph_nodes(score.r.g); i++) {
        const struct node *n = graph_node_get(score.r.g, i);
        if (!is(n, "linear_cross_entropy")) continue;
        struct account a = account_node(score.r.g, n, capacities.count);
        assert_float_equal(a.flops, 2.0 * DECODER_ROWS * WIDTH * VOCABULARY, 0.5);
        assert_float_equal(a.bytes, plain(score.r.g, n) + 2.0 * DECODER_ROWS * VOCABULARY * 4, 0.5);
        found++;
    }
    assert_int_equal(found, 1);
    drop(&score);
}

/* A node's name tells its part and, with recomputation by blocks, its layer; nodes outside of the layers are in no
 * block. */
static void names_and_blocks(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 4; variant++) {
        struct fixture f;
        record(&f, variant);
        static const char *const parts[] = {
            "encoder.embedding", "encoder.0.attention", "encoder.2.feed_forward", "encoder.pool",  "latent.head",
            "decoder.embedding", "decoder.1.attention", "decoder.2.feed_forward", "decoder.output"};
        size_t found[sizeof parts / sizeof *parts] = {0};
        for (size_t i = 0; i < graph_nodes(f.r.g); i++) {
            const struct node *n = graph_node_get(f.r.g, i);
            if (n->backward) continue;
            for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
                found[p] += !strncmp(n->name, parts[p], strlen(parts[p]));
            char stack;
            unsigned layer;
            bool inside = sscanf(n->name, "%c%*[a-z].%u.", &stack, &layer) == 2;
            if (!inside && n->block != -1 && !strstr(n->name, "norm"))
                fail_msg("variant %u: %s is in block %d", variant, n->name, n->block);
            if ((!strcmp(n->name, "encoder.norm") || !strcmp(n->name, "decoder.norm")) && n->block != -1)
                fail_msg("variant %u: %s is in block %d", variant, n->name, n->block);
        }
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
            if (!found[p]) fail_msg("variant %u: no node is named %s", variant, parts[p]);
        drop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_node), cmocka_unit_test(the_loss_alone),
                                       cmocka_unit_test(names_and_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
