/* Attention within packed sentences, with latent keys and values; cached for one new token per row; rotary positions.
 *
 *   p = softmax(q k^T / sqrt(W)), out = p v;   lse (N, H) is kept instead of p
 *   dv = p^T dout;  ds = p (dout v^T - rowsum(dout out));  dq = ds k / sqrt(W);  dk = ds^T q / sqrt(W) */
#include "graph/autodiff.h"
#include "ops/attention.h"
#include "ops/ops.h"

static bool check(struct graph *g, value qkv, value memory, const struct attention_config *c)
{
    if (!c->heads || !c->kv_heads || c->heads % c->kv_heads || !c->head_width)
        return graph_fail(g, "attention: %zu key/value heads must divide %zu heads", c->kv_heads, c->heads), false;
    size_t width = (c->heads + 2 * c->kv_heads) * c->head_width;
    if (graph_width(g, qkv) != width)
        return graph_fail(g, "attention: qkv has width %zu, expected %zu", graph_width(g, qkv), width), false;
    if (memory.index && graph_width(g, memory) != c->memory * 2 * c->kv_heads * c->head_width)
        return graph_fail(g, "attention: the latent memory has width %zu", graph_width(g, memory)), false;
    return true;
}

static void set(struct node *n, const struct attention_config *c)
{
    n->attr.i[ATTENTION_HEADS] = (int64_t)c->heads;
    n->attr.i[ATTENTION_KV_HEADS] = (int64_t)c->kv_heads;
    n->attr.i[ATTENTION_HEAD_WIDTH] = (int64_t)c->head_width;
    n->attr.i[ATTENTION_CAUSAL] = c->causal;
    n->attr.i[ATTENTION_MEMORY] = (int64_t)c->memory;
}

value op_attention(struct graph *g, value qkv, value offsets, value memory, const struct attention_config *c)
{
    if (!check(g, qkv, memory, c)) return NO_VALUE;
    struct node *n = graph_node(g, &op_attention_type);
    if (!n) return NO_VALUE;
    set(n, c);
    if (!memory.index) n->attr.i[ATTENTION_MEMORY] = 0;
    node_in(g, n, IN_ATTENTION_QKV, qkv);
    node_in(g, n, IN_ATTENTION_OFFSETS, offsets);
    node_in(g, n, IN_ATTENTION_MEMORY, memory);
    struct dim rows = op_rows(g, qkv);
    value out = node_out(g, n, OUT_ATTENTION_Y, "attention", graph_value(g, qkv)->dtype, 2,
                         (struct dim[]){rows, {DIM_FIXED, c->heads * c->head_width}});
    node_out(g, n, OUT_ATTENTION_LSE, "attention.lse", DTYPE_F32, 2, (struct dim[]){rows, {DIM_FIXED, c->heads}});
    return out;
}

value op_attention_cached(struct graph *g, value qkv, value position, value memory, value history, value cache,
                          const struct attention_config *c)
{
    if (!check(g, qkv, memory, c)) return NO_VALUE;
    struct node *n = graph_node(g, &op_attention_cached_type);
    if (!n) return NO_VALUE;
    set(n, c);
    if (!memory.index) n->attr.i[ATTENTION_MEMORY] = 0;
    node_in(g, n, IN_ATTENTION_CACHED_QKV, qkv);
    node_in(g, n, IN_ATTENTION_CACHED_POSITION, position);
    node_in(g, n, IN_ATTENTION_CACHED_MEMORY, memory);
    node_in(g, n, IN_ATTENTION_CACHED_HISTORY, history);
    node_out_into(g, n, OUT_ATTENTION_CACHED_CACHE, cache, WRITE);
    return node_out(g, n, OUT_ATTENTION_CACHED_Y, "attention", graph_value(g, qkv)->dtype, 2,
                    (struct dim[]){op_rows(g, qkv), {DIM_FIXED, c->heads * c->head_width}});
}

value op_rotary(struct graph *g, value x, value position, size_t heads, size_t head_width)
{
    if (head_width % 2) return graph_fail(g, "rotary positions need an even head width, not %zu", head_width);
    struct node *n = graph_node(g, &op_rotary_type);
    if (!n) return NO_VALUE;
    n->attr.i[ROTARY_HEADS] = (int64_t)heads;
    n->attr.i[ROTARY_HEAD_WIDTH] = (int64_t)head_width;
    n->attr.i[ROTARY_DIRECTION] = 1;
    node_in(g, n, IN_ROTARY_X, x);
    node_in(g, n, IN_ROTARY_POSITION, position);
    const struct value_info info = *graph_value(g, x);
    return node_out(g, n, OUT_ROTARY_Y, "rotary", info.dtype, info.rank, info.dim);
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    value qkv = n->in[IN_ATTENTION_QKV], memory = n->in[IN_ATTENTION_MEMORY];
    autodiff_emit(
        ad, &op_attention_backward_type, n, TAKES(IN_ATTENTION_BACKWARD_DY, autodiff_output(ad, n, OUT_ATTENTION_Y)),
        READS(IN_ATTENTION_BACKWARD_QKV, qkv), TAKES(IN_ATTENTION_BACKWARD_OFFSETS, n->in[IN_ATTENTION_OFFSETS]),
        READS(IN_ATTENTION_BACKWARD_MEMORY, memory), READS(IN_ATTENTION_BACKWARD_Y, n->out[OUT_ATTENTION_Y]),
        READS(IN_ATTENTION_BACKWARD_LSE, n->out[OUT_ATTENTION_LSE]), GIVES(OUT_ATTENTION_BACKWARD_DQKV, qkv),
        GIVES(OUT_ATTENTION_BACKWARD_DMEMORY, memory));
}

static void gradient_rotary(struct autodiff *ad, const struct node *n)
{
    struct node *b =
        autodiff_emit(ad, &op_rotary_type, n, TAKES(IN_ROTARY_X, autodiff_output(ad, n, OUT_ROTARY_Y)),
                      TAKES(IN_ROTARY_POSITION, n->in[IN_ROTARY_POSITION]), GIVES(OUT_ROTARY_Y, n->in[IN_ROTARY_X]));
    if (b) b->attr.i[ROTARY_DIRECTION] = -n->attr.i[ROTARY_DIRECTION];
}

/* Returns the operations as if all sentences had the mean length, which is a lower bound, because lengths are not known
 * here. */
static double products(const struct shape_view *s, unsigned rows, unsigned offsets, const struct attributes *a,
                       double each)
{
    double tokens = (double)s->in[rows][0], sentences = (double)(s->in[offsets][0] ? s->in[offsets][0] - 1 : 0);
    double keys =
        (sentences > 0 ? tokens / sentences : 0) * (a->i[ATTENTION_CAUSAL] ? 0.5 : 1) + (double)a->i[ATTENTION_MEMORY];
    return each * tokens * keys * (double)(a->i[ATTENTION_HEADS] * a->i[ATTENTION_HEAD_WIDTH]);
}

static double flops(const struct shape_view *s, const struct attributes *a)
{
    return products(s, IN_ATTENTION_QKV, IN_ATTENTION_OFFSETS, a, 4);
}

static double flops_backward(const struct shape_view *s, const struct attributes *a)
{
    return products(s, IN_ATTENTION_BACKWARD_QKV, IN_ATTENTION_BACKWARD_OFFSETS, a, 10);
}

const struct op_type op_attention_type = {
    .name = "attention", .index = OP_attention, .gradient = gradient, .flops = flops};
const struct op_type op_attention_backward_type = {.name = "attention_backward",
                                                   .index = OP_attention_backward,
                                                   .accumulates = SLOT(OUT_ATTENTION_BACKWARD_DQKV) |
                                                                  SLOT(OUT_ATTENTION_BACKWARD_DMEMORY),
                                                   .flops = flops_backward};
const struct op_type op_attention_cached_type = {.name = "attention_cached", .index = OP_attention_cached};
const struct op_type op_rotary_type = {.name = "rotary",
                                       .index = OP_rotary,
                                       .accumulates = SLOT(OUT_ROTARY_Y),
                                       .cheap = true,
                                       .gradient = gradient_rotary};
