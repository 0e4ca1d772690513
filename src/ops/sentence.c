/* Ops between one row per token and one row per sentence: pooling, broadcast, segment sums, prefixes. */
#include "graph/autodiff.h"
#include "ops/ops.h"

value op_pool(struct graph *g, value x, value offsets, value query, enum pool_kind kind)
{
    size_t width = graph_width(g, x);
    if (kind == POOL_ATTENTION && (!query.index || graph_width(g, query) != width))
        return graph_fail(g, "attention pooling needs a query of width %zu", width);
    struct node *n = graph_node(g, &op_pool_type);
    if (!n) return NO_VALUE;
    n->attr.i[ATTR_POOL] = kind;
    node_in(g, n, IN_POOL_X, x);
    node_in(g, n, IN_POOL_OFFSETS, offsets);
    if (kind == POOL_ATTENTION) node_in(g, n, IN_POOL_QUERY, query);
    struct dim rows = {op_rows(g, offsets).kind, op_rows(g, offsets).size - 1};
    value y = node_out(g, n, OUT_POOL_Y, "pool", graph_value(g, x)->dtype, 2, (struct dim[]){rows, {DIM_FIXED, width}});
    if (kind == POOL_ATTENTION)
        node_out(g, n, OUT_POOL_WEIGHTS, "pool.weights", DTYPE_F32, 1, (struct dim[]){op_rows(g, x)});
    return y;
}

static void gradient_pool(struct autodiff *ad, const struct node *n)
{
    bool attention = n->attr.i[ATTR_POOL] == POOL_ATTENTION;
    value x = n->in[IN_POOL_X], query = n->in[IN_POOL_QUERY];
    autodiff_emit(ad, &op_pool_backward_type, n, TAKES(IN_POOL_BACKWARD_DY, autodiff_output(ad, n, OUT_POOL_Y)),
                  TAKES(IN_POOL_BACKWARD_OFFSETS, n->in[IN_POOL_OFFSETS]), TAKES(IN_POOL_BACKWARD_QUERY, query),
                  READS(IN_POOL_BACKWARD_X, attention ? x : NO_VALUE),
                  READS(IN_POOL_BACKWARD_WEIGHTS, n->out[OUT_POOL_WEIGHTS]), GIVES(OUT_POOL_BACKWARD_DX, x),
                  GIVES(OUT_POOL_BACKWARD_DQUERY, query));
}

value op_broadcast_add(struct graph *g, value x, value v, value sentence, value offsets)
{
    if (graph_width(g, x) != graph_width(g, v))
        return graph_fail(g, "broadcast: width %zu is added to width %zu", graph_width(g, v), graph_width(g, x));
    struct node *n = graph_node(g, &op_broadcast_add_type);
    node_in(g, n, IN_BROADCAST_ADD_X, x);
    node_in(g, n, IN_BROADCAST_ADD_V, v);
    node_in(g, n, IN_BROADCAST_ADD_SENTENCE, sentence);
    node_in(g, n, IN_BROADCAST_ADD_OFFSETS, offsets);
    const struct value_info info = *graph_value(g, x);
    return node_out(g, n, OUT_BROADCAST_ADD_Y, "broadcast", info.dtype, info.rank, info.dim);
}

static void gradient_broadcast(struct autodiff *ad, const struct node *n)
{
    value dy = autodiff_output(ad, n, OUT_BROADCAST_ADD_Y), v = n->in[IN_BROADCAST_ADD_V];
    if (autodiff_wants(ad, v))
        autodiff_emit(ad, &op_segment_sum_type, n, TAKES(IN_SEGMENT_SUM_X, dy),
                      TAKES(IN_SEGMENT_SUM_OFFSETS, n->in[IN_BROADCAST_ADD_OFFSETS]), GIVES(OUT_SEGMENT_SUM_Y, v));
    autodiff_pass(ad, n->in[IN_BROADCAST_ADD_X], dy);
}

value op_segment_sum(struct graph *g, value x, value offsets, enum dim_kind rows)
{
    struct node *n = graph_node(g, &op_segment_sum_type);
    node_in(g, n, IN_SEGMENT_SUM_X, x);
    node_in(g, n, IN_SEGMENT_SUM_OFFSETS, offsets);
    const struct value_info info = *graph_value(g, x);
    struct dim dim[2] = {{rows, 0}, info.dim[1]};
    return node_out(g, n, OUT_SEGMENT_SUM_Y, "segment_sum", info.dtype, info.rank, dim);
}

value op_prefix(struct graph *g, value x, value prefix, value position, value sentence, value offsets)
{
    size_t width = graph_width(g, x), rows = width ? graph_width(g, prefix) / width : 0;
    if (!rows || graph_width(g, prefix) != rows * width)
        return graph_fail(g, "prefix: width %zu is no rows of width %zu", graph_width(g, prefix), width);
    struct node *n = graph_node(g, &op_prefix_type);
    if (!n) return NO_VALUE;
    n->attr.i[ATTR_PREFIX] = (int64_t)rows;
    node_in(g, n, IN_PREFIX_X, x);
    node_in(g, n, IN_PREFIX_PREFIX, prefix);
    node_in(g, n, IN_PREFIX_POSITION, position);
    node_in(g, n, IN_PREFIX_SENTENCE, sentence);
    node_in(g, n, IN_PREFIX_OFFSETS, offsets);
    const struct value_info info = *graph_value(g, x);
    return node_out(g, n, OUT_PREFIX_Y, "prefix", info.dtype, info.rank, info.dim);
}

static void gradient_prefix(struct autodiff *ad, const struct node *n)
{
    autodiff_emit(ad, &op_prefix_backward_type, n, TAKES(IN_PREFIX_BACKWARD_DY, autodiff_output(ad, n, OUT_PREFIX_Y)),
                  TAKES(IN_PREFIX_BACKWARD_POSITION, n->in[IN_PREFIX_POSITION]),
                  TAKES(IN_PREFIX_BACKWARD_OFFSETS, n->in[IN_PREFIX_OFFSETS]),
                  GIVES(OUT_PREFIX_BACKWARD_DX, n->in[IN_PREFIX_X]),
                  GIVES(OUT_PREFIX_BACKWARD_DPREFIX, n->in[IN_PREFIX_PREFIX]));
}

const struct op_type op_pool_type = {.name = "pool", .index = OP_pool, .gradient = gradient_pool};
const struct op_type op_pool_backward_type = {.name = "pool_backward",
                                              .index = OP_pool_backward,
                                              .accumulates =
                                                  SLOT(OUT_POOL_BACKWARD_DX) | SLOT(OUT_POOL_BACKWARD_DQUERY)};
const struct op_type op_broadcast_add_type = {
    .name = "broadcast_add", .index = OP_broadcast_add, .cheap = true, .gradient = gradient_broadcast};
const struct op_type op_segment_sum_type = {
    .name = "segment_sum", .index = OP_segment_sum, .accumulates = SLOT(OUT_SEGMENT_SUM_Y)};
const struct op_type op_prefix_type = {
    .name = "prefix", .index = OP_prefix, .cheap = true, .gradient = gradient_prefix};
const struct op_type op_prefix_backward_type = {.name = "prefix_backward",
                                                .index = OP_prefix_backward,
                                                .accumulates =
                                                    SLOT(OUT_PREFIX_BACKWARD_DX) | SLOT(OUT_PREFIX_BACKWARD_DPREFIX)};
