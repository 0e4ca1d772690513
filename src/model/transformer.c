/* The Transformer stack, for the encoder and the decoder (docs/model.md).
 *
 *   x = token[ids] + position[positions] (+ latent)            learned positions; rotary ones turn queries and keys
 *   pre:   s = x + sublayer(norm(x)), a norm after the last layer      post:  x = norm(x + sublayer(x))
 *   sublayers: attention (+ latent memory), feed forward (gelu, or swiglu)
 *
 * Linear layers have biases with layer norm and none with RMS norm, as GPT-2 and Llama have them. */
#include "model/recorder.h"

#include <math.h>
#include <stdio.h>

struct stack {
    struct recorder *r;
    const struct stack_config *c;
    const struct sequence *s;
    const char *name;
    enum parameter_part part;
    value latent;
    bool causal, bias;
    double residual_std;      /* GPT-2: output layers of branches start smaller            */
    struct dropping dropping; /* of the branch recorded last: the norm behind it does it    */
};

static struct dropping dropping(const struct stack *t)
{
    struct token_rows rows = {t->s->sentence, t->s->position, t->s->sample};
    return op_dropping(t->r->g, &rows, t->r->training ? t->c->dropout : 0, "dropout");
}

/* Of x, or of a branch's end x, of which some is dropped, and the residual beside it. */
static struct normed norm(struct stack *t, value x, value residual, const char *name)
{
    value gamma = recorder_parameter(t->r, t->part, init_constant(1), 1, t->c->width, 0, "%s.weight", name);
    value beta =
        t->bias ? recorder_parameter(t->r, t->part, init_constant(0), 1, t->c->width, 0, "%s.bias", name) : NO_VALUE;
    return op_norm(t->r->g, x, &t->dropping, residual, gamma, beta, t->c->norm == NORM_RMSNORM);
}

static value linear(struct stack *t, value x, size_t width, double std, bool gelu, size_t layer, const char *what)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%zu.%s", t->name, layer, what);
    return recorder_linear(t->r, t->part, x, width, std, t->bias, gelu, name);
}

static value attention(struct stack *t, value x, size_t layer)
{
    struct graph *g = t->r->g;
    size_t heads = t->c->heads, kv = t->c->kv_heads ? t->c->kv_heads : heads, width = t->c->width / heads;
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
    value out = t->s->cached
                    ? op_attention_cached(g, qkv, t->s->position, memory, t->s->history, t->s->cache[layer], &config)
                    : op_attention(g, qkv, t->s->offsets, memory, &config);
    t->dropping = dropping(t);
    return linear(t, out, t->c->width, t->residual_std, false, layer, "attention.output");
}

static value feed_forward(struct stack *t, value x, size_t layer)
{
    size_t width = t->c->ff_width ? t->c->ff_width : 4 * t->c->width;
    bool swiglu = t->c->activation == ACTIVATION_SWIGLU;
    graph_scope(t->r->g, "%s.%zu.feed_forward", t->name, layer);
    value h = linear(t, x, swiglu ? 2 * width : width, 0.02, !swiglu, layer, "feed_forward.input");
    if (swiglu) h = op_swiglu(t->r->g, h);
    t->dropping = dropping(t);
    return linear(t, h, t->c->width, t->residual_std, false, layer, "feed_forward.output");
}

static value embed(struct stack *t, value embedded)
{
    struct graph *g = t->r->g;
    graph_scope(g, "%s.embedding", t->name);
    value x = op_embedding(g, recorder_token_table(t->r, t->name), t->s->ids, t->s->id_order, NO_VALUE);
    if (t->c->positions == POSITION_LEARNED) {
        value table = recorder_parameter(t->r, t->part, init_normal(0.02), 2, t->r->config->positions, t->c->width,
                                         "%s.embedding.position.weight", t->name);
        x = op_embedding(g, table, t->s->position, t->s->position_order, x);
    }
    if (embedded.index)
        x = t->s->cached ? op_add(g, x, embedded) : op_broadcast_add(g, x, embedded, t->s->sentence, t->s->offsets);
    struct dropping drop = dropping(t);
    return op_dropout(g, x, &drop);
}

value transformer_record(struct recorder *r, const char *name, const struct stack_config *c, enum parameter_part part,
                         const struct sequence *s, value embedded, value latent, bool causal)
{
    struct stack t = {.r = r, .c = c, .s = s, .name = name, .part = part, .latent = latent, .causal = causal};
    t.bias = c->norm == NORM_LAYERNORM;
    t.residual_std = 0.02 / sqrt(2.0 * (double)(c->layers ? c->layers : 1));
    char at[96];
    value x = embed(&t, embedded), branch = NO_VALUE;
    for (size_t layer = 0; layer < c->layers; layer++) {
        for (unsigned sub = 0; sub < 2; sub++) {
            /* A block of recomputation is a layer; the norm that opens it belongs to the one before (its sum stays). */
            snprintf(at, sizeof at, "%s.%zu.%s.norm", name, layer, sub ? "feed_forward" : "attention");
            if (c->norm_position == NORM_PRE) {
                if (!sub) graph_block(r->g, (int)(part * 1000 + layer));
                graph_scope(r->g, "%s", at);
                struct normed n = norm(&t, branch.index ? branch : x, branch.index ? x : NO_VALUE, at);
                x = n.sum;
                branch = sub ? feed_forward(&t, n.y, layer) : attention(&t, n.y, layer);
            } else {
                if (!sub) graph_block(r->g, (int)(part * 1000 + layer));
                branch = sub ? feed_forward(&t, x, layer) : attention(&t, x, layer);
                graph_scope(r->g, "%s", at);
                x = norm(&t, branch, x, at).y;
            }
        }
    }
    graph_block(r->g, -1);
    if (c->norm_position == NORM_POST) return x;
    snprintf(at, sizeof at, "%s.norm", name);
    graph_scope(r->g, "%s", at);
    return norm(&t, branch.index ? branch : x, branch.index ? x : NO_VALUE, at).y;
}
