/* Elementwise ops: add, GELU, tanh, SwiGLU, dropout. */
#include "graph/autodiff.h"
#include "ops/ops.h"

static value like(struct graph *g, struct node *n, const char *name, value x)
{
    const struct value_info info = *graph_value(g, x);
    return node_out(g, n, OUT_UNARY_Y, name, info.dtype, info.rank, info.dim);
}

value op_add(struct graph *g, value a, value b)
{
    if (!op_same_rows(g, a, b) || graph_width(g, a) != graph_width(g, b)) return graph_fail(g, "add: shapes differ");
    struct node *n = graph_node(g, &op_add_type);
    node_in(g, n, IN_ADD_A, a);
    node_in(g, n, IN_ADD_B, b);
    return like(g, n, "add", a);
}

void op_accumulate(struct graph *g, value sum, value x)
{
    struct node *n = graph_node(g, &op_add_type);
    node_in(g, n, IN_ADD_A, x);
    node_out_into(g, n, OUT_ADD_Y, sum, WRITE_ADD_LATER_SLOTS);
}

void op_cast_into(struct graph *g, value to, value x)
{
    struct node *n = graph_node(g, &op_add_type);
    node_in(g, n, IN_ADD_A, x);
    node_out_into(g, n, OUT_ADD_Y, to, WRITE);
}

value op_cast(struct graph *g, value x, enum dtype dtype)
{
    const struct value_info info = *graph_value(g, x);
    if (info.dtype == dtype) return x;
    struct node *n = graph_node(g, &op_add_type);
    node_in(g, n, IN_ADD_A, x);
    value y = node_out(g, n, OUT_ADD_Y, "cast", dtype, info.rank, info.dim);
    if (info.dtype == DTYPE_F32) graph_wide_gradient(g, y);
    return y;
}

static void gradient_add(struct autodiff *ad, const struct node *n)
{
    value dy = autodiff_output(ad, n, OUT_ADD_Y);
    autodiff_pass(ad, n->in[IN_ADD_A], dy);
    autodiff_pass(ad, n->in[IN_ADD_B], dy);
}

value op_gelu(struct graph *g, value x)
{
    struct node *n = graph_node(g, &op_gelu_type);
    node_in(g, n, IN_UNARY_X, x);
    return like(g, n, "gelu", x);
}

value op_tanh(struct graph *g, value x)
{
    struct node *n = graph_node(g, &op_activation_tanh_type);
    node_in(g, n, IN_UNARY_X, x);
    return like(g, n, "tanh", x);
}

value op_swiglu(struct graph *g, value x)
{
    if (graph_width(g, x) % 2) return graph_fail(g, "swiglu: width %zu is not gate | up", graph_width(g, x));
    struct node *n = graph_node(g, &op_swiglu_type);
    node_in(g, n, IN_UNARY_X, x);
    return node_out(g, n, OUT_UNARY_Y, "swiglu", graph_value(g, x)->dtype, 2,
                    (struct dim[]){op_rows(g, x), {DIM_FIXED, graph_width(g, x) / 2}});
}

static void unary(struct autodiff *ad, const struct node *n, const struct op_type *type, value read)
{
    autodiff_emit(ad, type, n, TAKES(IN_UNARY_BACKWARD_DY, autodiff_output(ad, n, OUT_UNARY_Y)),
                  READS(IN_UNARY_BACKWARD_READ, read), GIVES(OUT_UNARY_BACKWARD_DX, n->in[IN_UNARY_X]));
}

static void gradient_gelu(struct autodiff *ad, const struct node *n)
{
    unary(ad, n, &op_gelu_backward_type, n->in[IN_UNARY_X]);
}

/* dx = dy (1 - y^2), from the output alone. */
static void gradient_tanh(struct autodiff *ad, const struct node *n)
{
    unary(ad, n, &op_activation_tanh_backward_type, n->out[OUT_UNARY_Y]);
}

static void gradient_swiglu(struct autodiff *ad, const struct node *n)
{
    unary(ad, n, &op_swiglu_backward_type, n->in[IN_UNARY_X]);
}

struct dropping op_dropping(const struct graph *g, const struct token_rows *rows, double p, const char *what)
{
    return (struct dropping){.rows = *rows, .p = p, .purpose = graph_purpose(g, what)};
}

value op_dropout(struct graph *g, value x, const struct dropping *dropping)
{
    if (dropping->p <= 0) return x;
    struct node *n = graph_node(g, &op_dropout_type);
    if (!n) return NO_VALUE;
    n->attr.f[ATTR_DROPOUT] = dropping->p;
    n->attr.purpose = dropping->purpose;
    node_in(g, n, IN_DROPOUT_X, x);
    node_in(g, n, IN_DROPOUT_SENTENCE, dropping->rows.sentence);
    node_in(g, n, IN_DROPOUT_POSITION, dropping->rows.position);
    node_in(g, n, IN_DROPOUT_SAMPLE, dropping->rows.sample);
    return like(g, n, "dropout", x);
}

static void gradient_dropout(struct autodiff *ad, const struct node *n)
{
    autodiff_emit(ad, &op_dropout_type, n, TAKES(IN_DROPOUT_X, autodiff_output(ad, n, OUT_DROPOUT_Y)),
                  TAKES(IN_DROPOUT_SENTENCE, n->in[IN_DROPOUT_SENTENCE]),
                  TAKES(IN_DROPOUT_POSITION, n->in[IN_DROPOUT_POSITION]),
                  TAKES(IN_DROPOUT_SAMPLE, n->in[IN_DROPOUT_SAMPLE]), GIVES(OUT_DROPOUT_Y, n->in[IN_DROPOUT_X]));
}

const struct op_type op_add_type = {
    .name = "add", .index = OP_add, .accumulates = SLOT(OUT_ADD_Y), .cheap = true, .gradient = gradient_add};
const struct op_type op_gelu_type = {.name = "gelu", .index = OP_gelu, .cheap = true, .gradient = gradient_gelu};
const struct op_type op_gelu_backward_type = {
    .name = "gelu_backward", .index = OP_gelu_backward, .accumulates = SLOT(OUT_UNARY_BACKWARD_DX)};
const struct op_type op_activation_tanh_type = {
    .name = "tanh", .index = OP_activation_tanh, .cheap = true, .gradient = gradient_tanh};
const struct op_type op_activation_tanh_backward_type = {
    .name = "tanh_backward", .index = OP_activation_tanh_backward, .accumulates = SLOT(OUT_UNARY_BACKWARD_DX)};
const struct op_type op_swiglu_type = {
    .name = "swiglu", .index = OP_swiglu, .cheap = true, .gradient = gradient_swiglu};
const struct op_type op_swiglu_backward_type = {
    .name = "swiglu_backward", .index = OP_swiglu_backward, .accumulates = SLOT(OUT_UNARY_BACKWARD_DX)};
const struct op_type op_dropout_type = {.name = "dropout",
                                        .index = OP_dropout,
                                        .accumulates = SLOT(OUT_DROPOUT_Y),
                                        .cheap = true,
                                        .gradient = gradient_dropout};
