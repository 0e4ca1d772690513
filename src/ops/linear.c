/* Linear: y = x W^T + b; dx = dy W; dW = dy^T x; db = column sums of dy. With GELU, dy is first multiplied by GELU's
 * slope. If the only reader of GELU's output is a linear op, that op's dx = (dy W) slope includes the slope already. */
#include "graph/autodiff.h"
#include "ops/ops.h"

static struct node *record(struct graph *g, value x, value w, value b)
{
    if (!x.index || !w.index || graph_width(g, x) != graph_width(g, w)) {
        graph_fail(g, "linear: x has width %zu, the weight reads %zu", graph_width(g, x), graph_width(g, w));
        return NULL;
    }
    struct node *n = graph_node(g, &op_linear_type);
    node_in(g, n, IN_LINEAR_X, x);
    node_in(g, n, IN_LINEAR_W, w);
    node_in(g, n, IN_LINEAR_B, b);
    return n;
}

static value out(struct graph *g, struct node *n, unsigned slot, const char *name, value x, value w)
{
    return node_out(g, n, slot, name, graph_value(g, x)->dtype, 2,
                    (struct dim[]){op_rows(g, x), {DIM_FIXED, graph_value(g, w)->dim[0].size}});
}

value op_linear(struct graph *g, value x, value w, value b)
{
    struct node *n = record(g, x, w, b);
    return n ? out(g, n, 0, "linear", x, w) : NO_VALUE;
}

value op_linear_gelu(struct graph *g, value x, value w, value b)
{
    struct node *n = record(g, x, w, b);
    if (!n) return NO_VALUE;
    out(g, n, 1, "linear.pre", x, w);
    return out(g, n, 0, "linear.gelu", x, w);
}

static const struct node *producer(const struct graph *g, value v)
{
    uint32_t number = graph_value(g, v)->producer;
    return number ? graph_node_get(g, number - 1) : NULL;
}

/* Returns the sums before the activation that gave x, if `n` alone gives x its gradient; else NO_VALUE. */
static value sums_before(struct autodiff *ad, const struct node *n, value x)
{
    const struct node *from = producer(autodiff_graph(ad), x);
    bool gelu = from && from->type == &op_linear_type && from->out[OUT_LINEAR_PRE].index &&
                from->out[OUT_LINEAR_Y].index == x.index;
    return gelu && from->block == n->block && autodiff_sole_reader(ad, n, x) ? from->out[OUT_LINEAR_PRE] : NO_VALUE;
}

static bool has_slope(const struct graph *g, value dy)
{
    const struct node *from = producer(g, dy);
    return from && from->type == &op_linear_backward_input_type && from->in[IN_LINEAR_B].index;
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    value dy = autodiff_output(ad, n, OUT_LINEAR_Y), x = n->in[IN_LINEAR_X], w = n->in[IN_LINEAR_W];
    value b = n->in[IN_LINEAR_B], pre = n->out[OUT_LINEAR_PRE];
    if (pre.index && !has_slope(g, dy)) {
        const struct value_info info = *graph_value(g, pre);
        struct node *slope = autodiff_emit(ad, &op_gelu_backward_type, n, TAKES(IN_UNARY_BACKWARD_DY, dy),
                                           READS(IN_UNARY_BACKWARD_READ, pre));
        dy = node_out(g, slope, OUT_UNARY_BACKWARD_DX, "linear.dpre", info.dtype, info.rank, info.dim);
    }
    if (autodiff_wants(ad, w) || autodiff_wants(ad, b))
        autodiff_emit(ad, &op_linear_backward_weight_type, n, TAKES(IN_LINEAR_BACKWARD_WEIGHT_DY, dy),
                      READS(IN_LINEAR_BACKWARD_WEIGHT_X, x), GIVES(OUT_LINEAR_BACKWARD_WEIGHT_DW, w),
                      GIVES(OUT_LINEAR_BACKWARD_WEIGHT_DB, b));
    if (autodiff_wants(ad, x))
        autodiff_emit(ad, &op_linear_backward_input_type, n, TAKES(IN_LINEAR_BACKWARD_INPUT_DY, dy),
                      TAKES(IN_LINEAR_BACKWARD_INPUT_W, w), READS(IN_LINEAR_BACKWARD_INPUT_PRE, sums_before(ad, n, x)),
                      GIVES(OUT_LINEAR_BACKWARD_INPUT_DX, x));
}

/* Repeats the activation, which is cheap, if the sums before it are kept; else the product gives both again. */
static value recompute(struct autodiff *ad, const struct node *n, unsigned k)
{
    if (k != 0 || !n->out[OUT_LINEAR_PRE].index || !autodiff_has(ad, n->out[OUT_LINEAR_PRE])) return NO_VALUE;
    struct graph *g = autodiff_graph(ad);
    value pre = autodiff_read(ad, n->out[OUT_LINEAR_PRE]);
    struct node *a = autodiff_node(ad, &op_gelu_type, n);
    const struct value_info info = *graph_value(g, n->out[OUT_LINEAR_Y]);
    node_in(g, a, IN_UNARY_X, pre);
    return node_out(g, a, OUT_UNARY_Y, info.name, info.dtype, info.rank, info.dim);
}

static double flops(const struct shape_view *s, const struct attributes *a)
{
    (void)a;
    return 2.0 * (double)s->in[IN_LINEAR_X][0] * (double)s->in[IN_LINEAR_X][1] * (double)s->in[IN_LINEAR_W][0];
}

static double flops_input(const struct shape_view *s, const struct attributes *a)
{
    (void)a;
    return 2.0 * (double)s->in[IN_LINEAR_BACKWARD_INPUT_DY][0] * (double)s->in[IN_LINEAR_BACKWARD_INPUT_DY][1] *
           (double)s->in[IN_LINEAR_BACKWARD_INPUT_W][1];
}

static double flops_weight(const struct shape_view *s, const struct attributes *a)
{
    (void)a;
    return 2.0 * (double)s->in[IN_LINEAR_BACKWARD_WEIGHT_DY][0] * (double)s->in[IN_LINEAR_BACKWARD_WEIGHT_DY][1] *
           (double)s->in[IN_LINEAR_BACKWARD_WEIGHT_X][1];
}

/* In f32 a GPU multiplies by the slope in a separate pass, which reads and writes dx once more. */
static double bytes_input(const struct shape_view *s, double plain, double element)
{
    double dx =
        (double)s->out[OUT_LINEAR_BACKWARD_INPUT_DX][0] * (double)s->out[OUT_LINEAR_BACKWARD_INPUT_DX][1] * element;
    return s->in[IN_LINEAR_BACKWARD_INPUT_PRE][1] && element == sizeof(float) ? plain + 2 * dx : plain;
}

const struct op_type op_linear_type = {
    .name = "linear", .index = OP_linear, .gradient = gradient, .recompute = recompute, .flops = flops};
const struct op_type op_linear_backward_input_type = {.name = "linear_backward_input",
                                                      .index = OP_linear_backward_input,
                                                      .accumulates = SLOT(OUT_LINEAR_BACKWARD_INPUT_DX),
                                                      .flops = flops_input,
                                                      .bytes = bytes_input};
const struct op_type op_linear_backward_weight_type = {.name = "linear_backward_weight",
                                                       .index = OP_linear_backward_weight,
                                                       .accumulates = SLOT(OUT_LINEAR_BACKWARD_WEIGHT_DW) |
                                                                      SLOT(OUT_LINEAR_BACKWARD_WEIGHT_DB),
                                                       .flops = flops_weight};
