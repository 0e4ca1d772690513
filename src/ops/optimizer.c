/* The optimizer's update: gradient norms, the guard, controllers, AdamW, SGD with momentum. Weights and moments are
 * inputs of the update graph that the ops write. */
#include "ops/ops.h"
#include "base/philox.h"

value op_squared_norm(struct graph *g, value gradient)
{
    struct node *n = graph_node(g, &op_squared_norm_type);
    node_in(g, n, IN_SQUARED_NORM_GRADIENT, gradient);
    return node_out(g, n, OUT_SQUARED_NORM_RECORD, "norm", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, NORM_RECORD}});
}

void op_block_squares(struct graph *g, value sums, value gradient)
{
    struct node *n = graph_node(g, &op_block_squares_type);
    node_in(g, n, IN_BLOCK_SQUARES_GRADIENT, gradient);
    node_out_into(g, n, OUT_BLOCK_SQUARES_SUMS, sums, WRITE);
}

value op_combined_norm(struct graph *g, value sums, value at)
{
    struct node *n = graph_node(g, &op_combined_norm_type);
    node_in(g, n, IN_COMBINED_NORM_SUMS, sums);
    node_in(g, n, IN_COMBINED_NORM_AT, at);
    return node_out(g, n, OUT_COMBINED_NORM_RECORD, "norm", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, NORM_RECORD}});
}

value op_select_row(struct graph *g, value rows, value control, value scales)
{
    if (scales.index && graph_width(g, scales) != graph_width(g, rows))
        return graph_fail(g, "select: %zu scales for rows of %zu", graph_width(g, scales), graph_width(g, rows));
    struct node *n = graph_node(g, &op_select_row_type);
    node_in(g, n, IN_SELECT_ROW_ROWS, rows);
    node_in(g, n, IN_SELECT_ROW_CONTROL, control);
    node_in(g, n, IN_SELECT_ROW_SCALES, scales);
    return node_out(g, n, OUT_SELECT_ROW_Y, "select", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, graph_width(g, rows)}});
}

void op_controller(struct graph *g, value state, value scales, value figures, value control, value settings,
                   enum controller_rule rule, size_t part, size_t index)
{
    if (graph_width(g, state) != CONTROLLER_STATE || graph_width(g, settings) != CONTROLLER_SETTINGS ||
        part >= graph_width(g, figures) || index >= graph_width(g, scales)) {
        graph_fail(g, "controller: figure %zu of %zu, weight %zu of %zu, or a state or settings of another size", part,
                   graph_width(g, figures), index, graph_width(g, scales));
        return;
    }
    struct node *n = graph_node(g, &op_controller_type);
    if (!n) return;
    n->attr.i[ATTR_CONTROLLER_RULE] = rule;
    n->attr.i[ATTR_CONTROLLER_PART] = (int64_t)part;
    n->attr.i[ATTR_CONTROLLER_INDEX] = (int64_t)index;
    node_in(g, n, IN_CONTROLLER_FIGURES, figures);
    node_in(g, n, IN_CONTROLLER_CONTROL, control);
    node_in(g, n, IN_CONTROLLER_SETTINGS, settings);
    node_out_into(g, n, OUT_CONTROLLER_STATE, state, WRITE_UPDATE);
    node_out_into(g, n, OUT_CONTROLLER_SCALES, scales, WRITE_UPDATE);
}

void op_guard(struct graph *g, value scalars, value control, const value *norms, size_t count, value loss, value rows,
              value settings)
{
    struct node *n = count <= MOST_NORMS ? graph_node(g, &op_guard_type) : NULL;
    if (!n) {
        graph_fail(g, "the guard takes %d norms, not %zu", MOST_NORMS, count);
        return;
    }
    node_in(g, n, IN_GUARD_LOSS, loss);
    node_in(g, n, IN_GUARD_ROWS, rows);
    node_in(g, n, IN_GUARD_SETTINGS, settings);
    node_in(g, n, IN_GUARD_CONTROL, control);
    for (size_t k = 0; k < count; k++) node_in(g, n, IN_GUARD_NORMS + (unsigned)k, norms[k]);
    node_out_into(g, n, OUT_GUARD_SCALARS, scalars, WRITE);
    node_out_into(g, n, OUT_GUARD_CONTROL, control, WRITE);
}

static void place_moments(struct node *n, size_t first)
{
    if (!n) return;
    n->attr.i[ATTR_MOMENTS_FIRST] = (int64_t)first;
    n->attr.purpose = noise_purpose("optimizer.moments");
}

void op_adamw(struct graph *g, value weights, value working, value moment1, value moment2, value gradient,
              value scalars, size_t first)
{
    struct node *n = graph_node(g, &op_adamw_type);
    place_moments(n, first);
    node_in(g, n, IN_ADAMW_GRADIENT, gradient);
    node_in(g, n, IN_ADAMW_SCALARS, scalars);
    node_out_into(g, n, OUT_ADAMW_WEIGHTS, weights, WRITE_UPDATE);
    node_out_into(g, n, OUT_ADAMW_MOMENT1, moment1, WRITE_UPDATE);
    node_out_into(g, n, OUT_ADAMW_MOMENT2, moment2, WRITE_UPDATE);
    node_out_into(g, n, OUT_ADAMW_WORKING, working, WRITE);
}

void op_sgd(struct graph *g, value weights, value working, value moment, value gradient, value scalars, size_t first)
{
    struct node *n = graph_node(g, &op_sgd_type);
    place_moments(n, first);
    node_in(g, n, IN_SGD_GRADIENT, gradient);
    node_in(g, n, IN_SGD_SCALARS, scalars);
    node_out_into(g, n, OUT_SGD_WEIGHTS, weights, WRITE_UPDATE);
    node_out_into(g, n, OUT_SGD_MOMENT, moment, WRITE_UPDATE);
    node_out_into(g, n, OUT_SGD_WORKING, working, WRITE);
}

const struct op_type op_squared_norm_type = {.name = "squared_norm", .index = OP_squared_norm};
const struct op_type op_block_squares_type = {.name = "block_squares", .index = OP_block_squares};
const struct op_type op_combined_norm_type = {.name = "combined_norm", .index = OP_combined_norm};
const struct op_type op_select_row_type = {.name = "select_row", .index = OP_select_row};
const struct op_type op_controller_type = {.name = "controller", .index = OP_controller};
const struct op_type op_guard_type = {.name = "guard", .index = OP_guard};
const struct op_type op_adamw_type = {.name = "adamw", .index = OP_adamw};
const struct op_type op_sgd_type = {.name = "sgd", .index = OP_sgd};
