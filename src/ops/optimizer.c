/* The update: squared norm of a gradient range, AdamW, SGD with momentum. Weights and moments are inputs of the update
 * graph that the ops write. */
#include "ops/ops.h"

value op_squared_norm(struct graph *g, value gradient)
{
    struct node *n = graph_node(g, &op_squared_norm_type);
    node_in(g, n, 0, gradient);
    return node_out(g, n, 0, "norm", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, NORM_RECORD}});
}

void op_adamw(struct graph *g, value weights, value working, value moment1, value moment2, value gradient, value scalars)
{
    struct node *n = graph_node(g, &op_adamw_type);
    node_in(g, n, 0, gradient);
    node_in(g, n, 1, scalars);
    node_out_into(g, n, 0, weights, WRITE);
    node_out_into(g, n, 1, moment1, WRITE);
    node_out_into(g, n, 2, moment2, WRITE);
    node_out_into(g, n, 3, working, WRITE);
}

void op_sgd(struct graph *g, value weights, value working, value moment, value gradient, value scalars)
{
    struct node *n = graph_node(g, &op_sgd_type);
    node_in(g, n, 0, gradient);
    node_in(g, n, 1, scalars);
    node_out_into(g, n, 0, weights, WRITE);
    node_out_into(g, n, 1, moment, WRITE);
    node_out_into(g, n, 3, working, WRITE);
}

const struct op_type op_squared_norm_type = {.name = "squared_norm", .index = OP_squared_norm};
const struct op_type op_adamw_type = {.name = "adamw", .index = OP_adamw};
const struct op_type op_sgd_type = {.name = "sgd", .index = OP_sgd};
