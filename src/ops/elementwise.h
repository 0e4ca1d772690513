/* Elementwise ops: sums, casts, activations and dropout. */
#ifndef OPS_ELEMENTWISE_H
#define OPS_ELEMENTWISE_H

#include "graph/graph.h"

value op_add(struct graph *g, value a, value b);
/* Returns x rounded to another type, or x itself if it has this type. The gradient of a value that became bf16 is
 * summed in f32. */
value op_cast(struct graph *g, value x, enum dtype dtype);
void op_cast_into(struct graph *g, value to, value x);
value op_gelu(struct graph *g, value x); /* tanh form, Hendrycks and Gimpel 2016 */
value op_tanh(struct graph *g, value x);
value op_swiglu(struct graph *g, value x); /* (N, 2F) gate | up -> (N, F) silu(gate) * up, Shazeer 2020 */

/* ---- dropout ---- */

struct token_rows {
    value sentence, position, sample; /* (N) i32 row -> sentence, row -> position; (S) u64 global sample index */
};

/* Inverted dropout by addressed noise: coordinate = position * width + column. The noise's purpose is "scope.what",
 * with the scope in which op_dropping is called. p = 0: no dropout. */
struct dropping {
    struct token_rows rows;
    double p;
    uint64_t purpose;
};

struct dropping op_dropping(const struct graph *g, const struct token_rows *rows, double p, const char *what);
/* Returns x itself if p is 0. */
value op_dropout(struct graph *g, value x, const struct dropping *dropping);

/* ---- sums over slots ---- */

/* sum += x over the slots of a step; the first slot overwrites. `sum` is a state. */
void op_accumulate(struct graph *g, value sum, value x);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTR_DROPOUT }; /* p: a real attribute */

enum { IN_ADD_A, IN_ADD_B };
enum { OUT_ADD_Y };

/* gelu, activation_tanh, swiglu, and their gradients, which read x (GELU, SwiGLU) or y (tanh). */
enum { IN_UNARY_X };
enum { OUT_UNARY_Y };
enum { IN_UNARY_BACKWARD_DY, IN_UNARY_BACKWARD_READ };
enum { OUT_UNARY_BACKWARD_DX };

enum { IN_DROPOUT_X, IN_DROPOUT_SENTENCE, IN_DROPOUT_POSITION, IN_DROPOUT_SAMPLE };
enum { OUT_DROPOUT_Y };

#define ELEMENTWISE_OPS(X)                                                                                             \
    X(add)                                                                                                             \
    X(gelu)                                                                                                            \
    X(gelu_backward)                                                                                                   \
    X(activation_tanh)                                                                                                 \
    X(activation_tanh_backward)                                                                                        \
    X(swiglu)                                                                                                          \
    X(swiglu_backward)                                                                                                 \
    X(dropout)

#endif
