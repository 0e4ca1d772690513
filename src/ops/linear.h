/* Linear layers, alone or followed by a GELU. */
#ifndef OPS_LINEAR_H
#define OPS_LINEAR_H

#include "graph/graph.h"

/* y (N, O) = x W^T (+ b). x (N, I), w (O, I), b (O) optional. */
value op_linear(struct graph *g, value x, value w, value b);

/* y (N, O) = gelu(x W^T (+ b)), one op: the sum before the activation is kept for the gradient. */
value op_linear_gelu(struct graph *g, value x, value w, value b);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { IN_LINEAR_X, IN_LINEAR_W, IN_LINEAR_B };
enum { OUT_LINEAR_Y, OUT_LINEAR_PRE };

enum { IN_LINEAR_BACKWARD_INPUT_DY, IN_LINEAR_BACKWARD_INPUT_W, IN_LINEAR_BACKWARD_INPUT_PRE };
enum { OUT_LINEAR_BACKWARD_INPUT_DX };

enum { IN_LINEAR_BACKWARD_WEIGHT_DY, IN_LINEAR_BACKWARD_WEIGHT_X };
enum { OUT_LINEAR_BACKWARD_WEIGHT_DW, OUT_LINEAR_BACKWARD_WEIGHT_DB };

#define LINEAR_OPS(X)                                                                                                  \
    X(linear)                                                                                                          \
    X(linear_backward_input)                                                                                           \
    X(linear_backward_weight)

#endif
