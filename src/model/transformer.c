/* The Transformer stack, for the encoder and the decoder (docs/model.md).
 *
 *   x = token[ids] + position[positions] (+ latent)            learned positions; rotary ones turn queries and keys;
 *                                                              with `prefix` a sentence's first rows come from z
 *   x = norm(x)                                                with embedding_norm
 *   pre:   s = x + sublayer(norm(x)), a norm after the last layer      post:  x = norm(x + sublayer(x))
 *   sublayers: attention (+ latent memory), feed forward (gelu, or swiglu)
 *   after every layer but the first, with `residual`: x + z W^T
 *
 * Linear layers have biases with layer norm (as in GPT-2) and none with RMS norm (as in Llama). */
#include "model/stack.h"

#include <math.h>
#include <stdio.h>

struct transformer {
    struct recorder *r;
    const struct stack_config *c;
    const struct sequence *s;
    const char *name;
    enum parameter_part part;
    value latent;
    const value *cache; /* (layers); null: packed rows */
    bool causal, bias;
    double residual_std;      /* smaller for the output layers of branches, as in GPT-2 */
    struct dropping dropping; /* of the branch recorded last; the norm after the branch applies it */
};

static size_t kv_heads(const struct stack_config *c)
{
    return c->kv_heads ? c->kv_heads : c->heads;
}

static size_t ff_width(const struct stack_config *c)
{
    return c->ff_width ? c->ff_width : 4 * c->width;
}

static struct dropping dropping(const struct transformer *t)
{
    struct token_rows rows = {t->s->sentence, t->s->position, t->s->sample};
    return op_dropping(t->r->g, &rows, t->r->training ? t->c->dropout : 0, "dropout");
}

/* Records norm(x), or norm(dropout(x) + residual) when x is the end of a branch. */
static struct normed norm(struct transformer *t, value x, value residual, const char *name)
{
    value gamma = recorder_parameter(t->r, t->part, init_constant(1), 1, t->c->width, 0, "%s.weight", name);
    value beta =
        t->bias ? recorder_parameter(t->r, t->part, init_constant(0), 1, t->c->width, 0, "%s.bias", name) : NO_VALUE;
    return op_norm(t->r->g, x, &t->dropping, residual, gamma, beta, t->c->norm == NORM_RMSNORM);
}

static value linear(struct transformer *t, value x, size_t width, double std, bool gelu, size_t layer, const char *what)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%zu.%s", t->name, layer, what);
    return recorder_linear(t->r, t->part, x, width, std, t->bias, gelu, name);
}

static value attention(struct transformer *t, value x, size_t layer)
{
    struct graph *g = t->r->g;
    size_t heads = t->c->heads, kv = kv_heads(t->c), width = t->c->width / heads;
    graph_scope(g, "%s.%zu.attention", t->name, layer);
    value qkv = linear(t, x, (heads + 2 * kv) * width, 0.02, false, layer, "attention.qkv");
    if (t->c->positions == POSITION_ROTARY) qkv = op_rotary(g, qkv, t->s->position, heads + kv, width);
    struct attention_config config = {.heads = heads, .kv_heads = kv, .head_width = width, .causal = t->causal};
    value memory = NO_VALUE;
    if (t->latent.index) {
        config.memory = t->r->config->latent.memory;
        value w = recorder_parameter(t->r, t->part, init_normal(0.02), 2, config.memory * 2 * kv * width,
                                     t->r->config->latent.width, "%s.%zu.attention.memory.weight", t->name, layer);
        memory = op_linear(g, t->latent, w, NO_VALUE);
    }
    value out = t->cache ? op_attention_cached(g, qkv, t->s->position, memory, t->s->history, t->cache[layer], &config)
                         : op_attention(g, qkv, t->s->offsets, memory, &config);
    t->dropping = dropping(t);
    return linear(t, out, t->c->width, t->residual_std, false, layer, "attention.output");
}

static value feed_forward(struct transformer *t, value x, size_t layer)
{
    size_t width = ff_width(t->c);
    bool swiglu = t->c->activation == ACTIVATION_SWIGLU;
    graph_scope(t->r->g, "%s.%zu.feed_forward", t->name, layer);
    value h = linear(t, x, swiglu ? 2 * width : width, 0.02, !swiglu, layer, "feed_forward.input");
    if (swiglu) h = op_swiglu(t->r->g, h);
    t->dropping = dropping(t);
    return linear(t, h, t->c->width, t->residual_std, false, layer, "feed_forward.output");
}

static value embed(struct transformer *t, const struct stack *stack, const struct stack_input *in)
{
    struct graph *g = t->r->g;
    value x = stack_add_prefix(t->r, in, stack_embed(t->r, stack, t->s));
    if (t->c->positions == POSITION_LEARNED) {
        size_t positions = t->r->config->positions + (in->prefix.index ? t->r->config->latent.prefix : 0);
        value table = recorder_parameter(t->r, t->part, init_normal(0.02), 2, positions, t->c->width,
                                         "%s.embedding.position.weight", t->name);
        x = op_embedding(g, table, t->s->position, t->s->position_order, x);
    }
    x = stack_add_embedded(t->r, in, x);
    if (t->c->embedding_norm) {
        char at[64];
        snprintf(at, sizeof at, "%s.embedding.norm", t->name);
        x = norm(t, x, NO_VALUE, at).y;
    }
    struct dropping drop = dropping(t);
    return op_dropout(g, x, &drop);
}

/* Returns the input of a layer from the stream x in front of it. In a pre-norm stack, x lacks the branch recorded last,
 * which the layer's first norm adds. */
static value open_layer(struct transformer *t, const struct stack *stack, const struct stack_input *in, value x,
                        size_t layer)
{
    graph_block(t->r->g, (int)(t->part * 1000 + layer));
    if (layer) x = stack_residual(t->r, stack, in, x, layer - 1);
    return stack_skip(t->r, stack, in, x, (int)layer);
}

static value record_layers(struct recorder *r, const struct stack *stack, const struct stack_input *in,
                           const value *cache)
{
    const struct stack_config *c = stack->config;
    const char *name = stack->name;
    enum parameter_part part = stack->part;
    struct transformer t = {.r = r,
                            .c = c,
                            .s = in->sequence,
                            .name = name,
                            .part = part,
                            .latent = in->injection & INJECT_MEMORY ? in->latent : NO_VALUE,
                            .cache = cache,
                            .causal = stack->causal};
    t.bias = c->norm == NORM_LAYERNORM;
    t.residual_std = 0.02 / sqrt(2.0 * (double)(c->layers ? c->layers : 1));
    char at[96];
    value x = embed(&t, stack, in), branch = NO_VALUE;
    for (size_t layer = 0; layer < c->layers; layer++) {
        for (unsigned sub = 0; sub < 2; sub++) {
            /* A recompute block is a layer. The norm that opens a layer belongs to the layer, and its sum is kept. */
            snprintf(at, sizeof at, "%s.%zu.%s.norm", name, layer, sub ? "feed_forward" : "attention");
            if (!sub) x = open_layer(&t, stack, in, x, layer);
            if (c->norm_position == NORM_PRE) {
                graph_scope(r->g, "%s", at);
                struct normed n = norm(&t, branch.index ? branch : x, branch.index ? x : NO_VALUE, at);
                x = n.sum;
                branch = sub ? feed_forward(&t, n.y, layer) : attention(&t, n.y, layer);
            } else {
                branch = sub ? feed_forward(&t, x, layer) : attention(&t, x, layer);
                graph_scope(r->g, "%s", at);
                x = norm(&t, branch, x, at).y;
            }
        }
    }
    graph_block(r->g, -1);
    if (c->layers) x = stack_residual(r, stack, in, x, c->layers - 1);
    if (c->norm_position == NORM_POST) return x;
    snprintf(at, sizeof at, "%s.norm", name);
    graph_scope(r->g, "%s", at);
    return norm(&t, branch.index ? branch : x, branch.index ? x : NO_VALUE, at).y;
}

/* ---- the table's row ---- */

static elbo_status check(const char *section, const struct stack_config *c, elbo_error *error)
{
    if (c->width % c->heads)
        return elbo_fail(
            error, ELBO_USAGE,
            "%s.heads = %zu does not divide %s.width = %zu; choose a width that is a multiple of the heads", section,
            c->heads, section, c->width);
    if (c->kv_heads && c->heads % c->kv_heads)
        return elbo_fail(error, ELBO_USAGE,
                         "%s.kv_heads = %zu does not divide %s.heads = %zu; choose a divisor, or 0 for as many",
                         section, c->kv_heads, section, c->heads);
    size_t head_width = c->width / c->heads;
    if (c->positions == POSITION_ROTARY && head_width % 2)
        return elbo_fail(error, ELBO_USAGE,
                         "%s.positions = rotary turns pairs, but %s.width / %s.heads = %zu is odd; choose an even head "
                         "width, or positions learned",
                         section, section, section, head_width);
    return ELBO_OK;
}

static value record(struct recorder *r, const struct stack *s, const struct stack_input *in)
{
    return record_layers(r, s, in, NULL);
}

/* Returns the number of states: one cache of keys and values of the earlier tokens per layer. */
static size_t states(const struct stack_config *c)
{
    return c->layers;
}

static value state(struct recorder *r, const struct stack *s, struct dim rows, size_t room, size_t layer)
{
    const struct stack_config *c = s->config;
    (void)layer;
    return graph_state(
        r->g, "cache", r->precision, 4,
        (struct dim[]){rows, {DIM_FIXED, room}, {DIM_FIXED, 2}, {DIM_FIXED, kv_heads(c) * (c->width / c->heads)}});
}

static size_t describe(struct stack_figure *figures, const struct stack_config *c)
{
    figures[0] = (struct stack_figure){"layers", c->layers};
    figures[1] = (struct stack_figure){"heads", c->heads};
    figures[2] = (struct stack_figure){"ff_width", ff_width(c)};
    return 3;
}

static const char *const options[] = {"layers",    "heads",      "kv_heads", "ff_width",       "norm", "norm_position",
                                      "positions", "activation", "dropout",  "embedding_norm", NULL};

const struct stack_kind transformer_kind = {.name = "transformer",
                                            .options = options,
                                            .injections =
                                                INJECT_MEMORY | INJECT_EMBEDDING | INJECT_RESIDUAL | INJECT_PREFIX,
                                            .both = INJECT_MEMORY | INJECT_EMBEDDING,
                                            .check = check,
                                            .record = record,
                                            .states = states,
                                            .state = state,
                                            .reorder = stack_history,
                                            .step = record_layers,
                                            .describe = describe};
