/* The table of rules, and the rules of embeddings, products, norms, and rows of sentences. */
#include "export/onnx.h"
#include "ops/list.h"
#include "ops/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- products ---- */

enum { BLOCK = 32 };

/* Rounds a block of a row to signed steps of `scale`, stored as `bits`-bit numbers around the middle of their range. */
static float quantize(unsigned char *to, const float *from, size_t count, int bits)
{
    float extreme = 0, scale;
    int middle = 1 << (bits - 1);
    for (size_t i = 0; i < count; i++)
        if (fabsf(from[i]) > fabsf(extreme)) extreme = from[i];
    scale = bits == 4 ? extreme / -8 : fabsf(extreme) / 127; /* 16 steps have one more below 0 than above */
    memset(to, 0, BLOCK * (size_t)bits / 8);
    for (size_t i = 0; i < BLOCK; i++) {
        float step = i < count && scale != 0 ? rintf(from[i] / scale) : 0;
        int number = (int)fminf(fmaxf(step, (float)-middle), (float)(middle - 1)) + middle;
        to[i * (size_t)bits / 8] |= (unsigned char)(bits == 4 && i % 2 ? number << 4 : number);
    }
    return scale;
}

/* Returns x W^T by ONNX Runtime's operator for weights of few bits. */
static const char *few_bits(struct onnx *x, const char *tensor, value w, const char *name)
{
    const struct value_info *info = graph_value(x->g, w);
    size_t rows = info->dim[0].size, columns = info->dim[1].size, blocks = (columns + BLOCK - 1) / BLOCK;
    size_t bytes = BLOCK * (size_t)x->bits / 8;
    const float *from = onnx_host(x, w);
    unsigned char *packed = malloc(rows * blocks * bytes);
    float *scales = malloc(rows * blocks * sizeof *scales);
    const char *out = "";
    if (!packed || !scales) {
        if (!x->status) x->status = elbo_fail(x->error, ELBO_MEMORY, "no memory for weights of %d bits", x->bits);
    } else {
        for (size_t i = 0; i < rows * blocks; i++) {
            size_t first = i % blocks * BLOCK;
            scales[i] = quantize(packed + i * bytes, from + i / blocks * columns + first,
                                 columns - first < BLOCK ? columns - first : BLOCK, x->bits);
        }
        const char *q = onnx_weight(x, onnx_string(x, "%s.q%d", name, x->bits), ONNX_UINT8,
                                    (size_t[]){rows, blocks, bytes}, 3, packed);
        const char *s = onnx_weight(x, onnx_string(x, "%s.q%d.scale", name, x->bits), ONNX_FLOAT,
                                    (size_t[]){rows * blocks}, 1, scales);
        out = onnx_node(
            x, "MatMulNBits", ONNX_IN(tensor, q, s),
            onnx_string(x, "K=%zu;N=%zu;bits=%d;block_size=%d;accuracy_level=4", columns, rows, x->bits, BLOCK));
    }
    free(packed);
    free(scales);
    return out;
}

const char *onnx_product(struct onnx *x, const char *tensor, value w, bool tokens)
{
    const struct value_info *info = graph_value(x->g, w);
    if (info->class != VALUE_PARAMETER) onnx_fail(x, "the product by %s, which is no weight", info->name);
    if (x->status) return "";
    const char *name = parameters_get(x->source->model->parameters, info->binding)->name;
    if (tokens && x->bits < 32) return few_bits(x, tensor, w, name);
    return onnx_node(x, "MatMul", ONNX_IN(tensor, onnx_node(x, "Transpose", ONNX_IN(onnx_of(x, w)), "perm=[1,0]")),
                     NULL);
}

static bool of_tokens(const struct onnx *x, value v)
{
    enum dim_kind kind = graph_value(x->g, v)->dim[0].kind;
    return kind == DIM_ENC_TOKENS || kind == DIM_DEC_TOKENS;
}

/* Returns gelu(x) by its approximation with tanh. */
static const char *gelu_of(struct onnx *x, const char *t)
{
    const char *cube = onnx_node(x, "Mul", ONNX_IN(onnx_node(x, "Mul", ONNX_IN(t, t), NULL), t), NULL);
    const char *inner =
        onnx_node(x, "Add", ONNX_IN(t, onnx_node(x, "Mul", ONNX_IN(cube, onnx_real(x, 0.044715)), NULL)), NULL);
    const char *turned = onnx_node(
        x, "Tanh", ONNX_IN(onnx_node(x, "Mul", ONNX_IN(inner, onnx_real(x, 0.79788456080286535588)), NULL)), NULL);
    const char *half = onnx_node(x, "Mul", ONNX_IN(t, onnx_real(x, 0.5)), NULL);
    return onnx_node(x, "Mul", ONNX_IN(half, onnx_node(x, "Add", ONNX_IN(turned, onnx_real(x, 1)), NULL)), NULL);
}

static void linear(struct onnx *x, const struct node *n)
{
    const char *y =
        onnx_product(x, onnx_of(x, n->in[IN_LINEAR_X]), n->in[IN_LINEAR_W], of_tokens(x, n->in[IN_LINEAR_X]));
    if (n->in[IN_LINEAR_B].index) y = onnx_node(x, "Add", ONNX_IN(y, onnx_of(x, n->in[IN_LINEAR_B])), NULL);
    if (n->out[OUT_LINEAR_PRE].index) {
        onnx_set(x, n->out[OUT_LINEAR_PRE], y);
        y = gelu_of(x, y);
    }
    onnx_set(x, n->out[OUT_LINEAR_Y], y);
}

/* ---- rows of tokens ---- */

static void embedding(struct onnx *x, const struct node *n)
{
    const char *y = onnx_node(
        x, "Gather", ONNX_IN(onnx_of(x, n->in[IN_EMBEDDING_TABLE]), onnx_of(x, n->in[IN_EMBEDDING_IDS])), "axis=0");
    if (n->in[IN_EMBEDDING_ADD].index) y = onnx_node(x, "Add", ONNX_IN(y, onnx_of(x, n->in[IN_EMBEDDING_ADD])), NULL);
    onnx_set(x, n->out[OUT_EMBEDDING_Y], y);
}

static void norm(struct onnx *x, const struct node *n)
{
    const char *s = onnx_of(x, n->in[IN_NORM_X]), *gamma = onnx_of(x, n->in[IN_NORM_GAMMA]);
    if (n->in[IN_NORM_RESIDUAL].index) s = onnx_node(x, "Add", ONNX_IN(s, onnx_of(x, n->in[IN_NORM_RESIDUAL])), NULL);
    onnx_set(x, n->out[OUT_NORM_SUM], s);
    if (!n->attr.i[ATTR_NORM_RMS]) {
        onnx_set(x, n->out[OUT_NORM_Y],
                 onnx_node(x, "LayerNormalization", ONNX_IN(s, gamma, onnx_of(x, n->in[IN_NORM_BETA])),
                           "axis=-1;epsilon=1e-5"));
        return;
    }
    const char *square =
        onnx_node(x, "ReduceMean", ONNX_IN(onnx_node(x, "Mul", ONNX_IN(s, s), NULL)), "axes=[-1];keepdims=1");
    const char *root =
        onnx_node(x, "Sqrt", ONNX_IN(onnx_node(x, "Add", ONNX_IN(square, onnx_real(x, 1e-5)), NULL)), NULL);
    onnx_set(x, n->out[OUT_NORM_Y],
             onnx_node(x, "Mul", ONNX_IN(onnx_node(x, "Div", ONNX_IN(s, root), NULL), gamma), NULL));
}

/* A node without a second operand only casts its value. */
static void add(struct onnx *x, const struct node *n)
{
    const char *y = onnx_of(x, n->in[IN_ADD_A]);
    if (n->in[IN_ADD_B].index) y = onnx_node(x, "Add", ONNX_IN(y, onnx_of(x, n->in[IN_ADD_B])), NULL);
    onnx_set(x, n->out[OUT_ADD_Y], y);
}

static void gelu(struct onnx *x, const struct node *n)
{
    onnx_set(x, n->out[OUT_UNARY_Y], gelu_of(x, onnx_of(x, n->in[IN_UNARY_X])));
}

static void hyperbolic(struct onnx *x, const struct node *n)
{
    onnx_set(x, n->out[OUT_UNARY_Y], onnx_node(x, "Tanh", ONNX_IN(onnx_of(x, n->in[IN_UNARY_X])), NULL));
}

static void swiglu(struct onnx *x, const struct node *n)
{
    const char *gate = onnx_fresh(x, "gate"), *up = onnx_fresh(x, "up");
    onnx_nodes(x, "Split", ONNX_IN(onnx_of(x, n->in[IN_UNARY_X])), "axis=-1", ONNX_IN(gate, up));
    const char *silu = onnx_node(x, "Mul", ONNX_IN(gate, onnx_node(x, "Sigmoid", ONNX_IN(gate), NULL)), NULL);
    onnx_set(x, n->out[OUT_UNARY_Y], onnx_node(x, "Mul", ONNX_IN(silu, up), NULL));
}

/* ---- rows of sentences ---- */

static void broadcast_add(struct onnx *x, const struct node *n)
{
    onnx_set(x, n->out[OUT_BROADCAST_ADD_Y],
             onnx_node(x, "Add",
                       ONNX_IN(onnx_of(x, n->in[IN_BROADCAST_ADD_X]),
                               onnx_unsqueeze(x, onnx_of(x, n->in[IN_BROADCAST_ADD_V]), 1)),
                       NULL));
}

/* Returns the sum over time of x, weighted by (batch, time). */
static const char *sum_of(struct onnx *x, const char *t, const char *weights, bool columns)
{
    if (columns) weights = onnx_unsqueeze(x, weights, 2);
    return onnx_node(x, "ReduceSum", ONNX_IN(onnx_node(x, "Mul", ONNX_IN(t, weights), NULL), ONNX_INTEGERS(x, 1)),
                     "keepdims=0");
}

static void segment_sum(struct onnx *x, const struct node *n)
{
    onnx_set(x, n->out[OUT_SEGMENT_SUM_Y],
             sum_of(x, onnx_of(x, n->in[IN_SEGMENT_SUM_X]), onnx_mask(x),
                    graph_value(x->g, n->in[IN_SEGMENT_SUM_X])->rank > 1));
}

/* Returns 1 at a sentence's first token, or at its last, and 0 elsewhere. */
static const char *end_of(struct onnx *x, bool last)
{
    const char *number = onnx_node(x, "CumSum", ONNX_IN(ONNX_MASK, onnx_integer(x, 1)), NULL);
    const char *wanted =
        last ? onnx_node(x, "ReduceSum", ONNX_IN(ONNX_MASK, ONNX_INTEGERS(x, 1)), "keepdims=1") : onnx_integer(x, 1);
    const char *is = onnx_node(x, "Cast", ONNX_IN(onnx_node(x, "Equal", ONNX_IN(number, wanted), NULL)), "to=1");
    return onnx_node(x, "Mul", ONNX_IN(is, onnx_mask(x)), NULL);
}

/* Returns the softmax over the sentence of x . query. */
static const char *attention_weights(struct onnx *x, const char *t, value query)
{
    const char *scores = onnx_node(x, "MatMul", ONNX_IN(t, onnx_of(x, query)), NULL);
    const char *is = onnx_node(x, "Cast", ONNX_IN(ONNX_MASK), "to=9");
    return onnx_node(x, "Softmax", ONNX_IN(onnx_node(x, "Where", ONNX_IN(is, scores, onnx_real(x, -1e30)), NULL)),
                     "axis=1");
}

static void pool(struct onnx *x, const struct node *n)
{
    enum pool_kind kind = (enum pool_kind)n->attr.i[ATTR_POOL];
    const char *t = onnx_of(x, n->in[IN_POOL_X]), *y;
    if (kind == POOL_MEAN) {
        const char *count = onnx_node(x, "ReduceSum", ONNX_IN(onnx_mask(x), ONNX_INTEGERS(x, 1)), "keepdims=1");
        y = onnx_node(x, "Div", ONNX_IN(sum_of(x, t, onnx_mask(x), true), count), NULL);
    } else if (kind == POOL_ATTENTION) {
        y = sum_of(x, t, attention_weights(x, t, n->in[IN_POOL_QUERY]), true);
    } else if (kind == POOL_ENDS) {
        const char *forward = onnx_fresh(x, "forward"), *backward = onnx_fresh(x, "backward");
        onnx_nodes(x, "Split", ONNX_IN(t), "axis=-1", ONNX_IN(forward, backward));
        y = onnx_node(x, "Concat",
                      ONNX_IN(sum_of(x, forward, end_of(x, true), true), sum_of(x, backward, end_of(x, false), true)),
                      "axis=-1");
    } else {
        y = sum_of(x, t, end_of(x, kind == POOL_LAST), true);
    }
    onnx_set(x, n->out[OUT_POOL_Y], y);
}

/* Puts the prefix rows in front of the tokens. The recording has these rows among its own, with tokens that are not
 * read. */
static void prefix(struct onnx *x, const struct node *n)
{
    const char *rows = ONNX_RESHAPE(x, onnx_of(x, n->in[IN_PREFIX_PREFIX]), 0, (int64_t)n->attr.i[ATTR_PREFIX],
                                    (int64_t)graph_width(x->g, n->in[IN_PREFIX_X]));
    onnx_set(x, n->out[OUT_PREFIX_Y], onnx_node(x, "Concat", ONNX_IN(rows, onnx_of(x, n->in[IN_PREFIX_X])), "axis=1"));
}

/* ---- the table ---- */

static void (*const rules[OP_COUNT])(struct onnx *, const struct node *) = {
    [OP_embedding] = embedding,
    [OP_linear] = linear,
    [OP_norm] = norm,
    [OP_attention] = onnx_attention,
    [OP_rotary] = onnx_rotary,
    [OP_recurrent] = onnx_recurrent,
    [OP_pool] = pool,
    [OP_broadcast_add] = broadcast_add,
    [OP_segment_sum] = segment_sum,
    [OP_prefix] = prefix,
    [OP_posterior] = onnx_posterior,
    [OP_normalize] = onnx_normalize,
    [OP_add] = add,
    [OP_gelu] = gelu,
    [OP_activation_tanh] = hyperbolic,
    [OP_swiglu] = swiglu,
};

void onnx_rule(struct onnx *x, const struct node *n)
{
    if (x->status) return;
    if (rules[n->type->index])
        rules[n->type->index](x, n);
    else
        onnx_fail(x, "there is no rule for the op %s (in %s); --format=hf has every model", n->type->name, n->name);
}
