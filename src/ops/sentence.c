/* Between one row per token and one row per sentence: pooling, broadcast, segment sums, rows in front. */
#include "graph/autodiff.h"
#include "ops/ops.h"

value op_pool(struct graph *g, value x, value offsets, value query, enum pool_kind kind)
{
    size_t width = graph_width(g, x);
    if (kind == POOL_ATTENTION && (!query.index || graph_width(g, query) != width))
        return graph_fail(g, "attention pooling needs a query of width %zu", width);
    struct node *n = graph_node(g, &op_pool_type);
    if (!n) return NO_VALUE;
    n->attr.i[0] = kind;
    node_in(g, n, 0, x);
    node_in(g, n, 1, offsets);
    if (kind == POOL_ATTENTION) node_in(g, n, 2, query);
    struct dim rows = {op_rows(g, offsets).kind, op_rows(g, offsets).size - 1};
    value y = node_out(g, n, 0, "pool", graph_value(g, x)->dtype, 2, (struct dim[]){rows, {DIM_FIXED, width}});
    if (kind == POOL_ATTENTION) node_out(g, n, 1, "pool.weights", DTYPE_F32, 1, (struct dim[]){op_rows(g, x)});
    return y;
}

static void gradient_pool(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    bool attention = n->attr.i[0] == POOL_ATTENTION;
    value x = attention ? autodiff_read(ad, n->in[0]) : NO_VALUE, weights = autodiff_read(ad, n->out[1]);
    struct node *b = autodiff_node(ad, &op_pool_backward_type, n);
    node_in(g, b, 0, autodiff_output(ad, n, 0));
    node_in(g, b, 1, n->in[1]);
    node_in(g, b, 2, n->in[2]);
    node_in(g, b, 3, x);
    node_in(g, b, 4, weights);
    autodiff_write(ad, b, 0, n->in[0]);
    autodiff_write(ad, b, 1, n->in[2]);
}

value op_broadcast_add(struct graph *g, value x, value v, value sentence, value offsets)
{
    if (graph_width(g, x) != graph_width(g, v))
        return graph_fail(g, "broadcast: width %zu is added to width %zu", graph_width(g, v), graph_width(g, x));
    struct node *n = graph_node(g, &op_broadcast_add_type);
    node_in(g, n, 0, x);
    node_in(g, n, 1, v);
    node_in(g, n, 2, sentence);
    node_in(g, n, 3, offsets);
    const struct value_info info = *graph_value(g, x);
    return node_out(g, n, 0, "broadcast", info.dtype, info.rank, info.dim);
}

static void gradient_broadcast(struct autodiff *ad, const struct node *n)
{
    value dy = autodiff_output(ad, n, 0);
    if (autodiff_wants(ad, n->in[1])) {
        struct node *b = autodiff_node(ad, &op_segment_sum_type, n);
        node_in(autodiff_graph(ad), b, 0, dy);
        node_in(autodiff_graph(ad), b, 1, n->in[3]);
        autodiff_write(ad, b, 0, n->in[1]);
    }
    autodiff_pass(ad, n->in[0], dy);
}

value op_segment_sum(struct graph *g, value x, value offsets, enum dim_kind rows)
{
    struct node *n = graph_node(g, &op_segment_sum_type);
    node_in(g, n, 0, x);
    node_in(g, n, 1, offsets);
    const struct value_info info = *graph_value(g, x);
    struct dim dim[2] = {{rows, 0}, info.dim[1]};
    return node_out(g, n, 0, "segment_sum", info.dtype, info.rank, dim);
}

value op_prefix(struct graph *g, value x, value prefix, value position, value sentence, value offsets)
{
    size_t width = graph_width(g, x), rows = width ? graph_width(g, prefix) / width : 0;
    if (!rows || graph_width(g, prefix) != rows * width)
        return graph_fail(g, "prefix: width %zu is no rows of width %zu", graph_width(g, prefix), width);
    struct node *n = graph_node(g, &op_prefix_type);
    if (!n) return NO_VALUE;
    n->attr.i[ATTR_PREFIX] = (int64_t)rows;
    node_in(g, n, 0, x);
    node_in(g, n, 1, prefix);
    node_in(g, n, 2, position);
    node_in(g, n, 3, sentence);
    node_in(g, n, 4, offsets);
    const struct value_info info = *graph_value(g, x);
    return node_out(g, n, 0, "prefix", info.dtype, info.rank, info.dim);
}

static void gradient_prefix(struct autodiff *ad, const struct node *n)
{
    struct node *b = autodiff_node(ad, &op_prefix_backward_type, n);
    node_in(autodiff_graph(ad), b, 0, autodiff_output(ad, n, 0));
    node_in(autodiff_graph(ad), b, 1, n->in[2]);
    node_in(autodiff_graph(ad), b, 2, n->in[4]);
    autodiff_write(ad, b, 0, n->in[0]);
    autodiff_write(ad, b, 1, n->in[1]);
}

const struct op_type op_pool_type = {.name = "pool", .index = OP_pool, .gradient = gradient_pool};
const struct op_type op_pool_backward_type = {.name = "pool_backward", .index = OP_pool_backward, .accumulates = 3};
const struct op_type op_broadcast_add_type = {
    .name = "broadcast_add", .index = OP_broadcast_add, .cheap = true, .gradient = gradient_broadcast};
const struct op_type op_segment_sum_type = {.name = "segment_sum", .index = OP_segment_sum, .accumulates = 1};
const struct op_type op_prefix_type = {
    .name = "prefix", .index = OP_prefix, .cheap = true, .gradient = gradient_prefix};
const struct op_type op_prefix_backward_type = {
    .name = "prefix_backward", .index = OP_prefix_backward, .accumulates = 3};
