/* Reverse-mode differentiation of a recording: walks the nodes backwards, asks each op for its gradient, and appends
 * the backward nodes to the same graph.
 *
 * Wanted groups: only parameters of a wanted group get gradients; what no wanted parameter depends on is pruned (no
 * node, no buffer). Recompute: values that the policy does not keep are computed again just before the backward nodes
 * that read them, once per block. */
#ifndef GRAPH_AUTODIFF_H
#define GRAPH_AUTODIFF_H

#include "graph/graph.h"

enum recompute_policy { KEEP_ALL, RECOMPUTE_CHEAP_OPS, RECOMPUTE_BLOCKS };

struct autodiff_options {
    unsigned wanted; /* bit g: parameter group g (graph/parameters.h)                              */
    enum recompute_policy policy;
    const struct op_type *add; /* the op that sums contributions: out = a (+ b)                              */
};

enum { WANT_ALL = ~0 };

/* `loss` is a scalar; its gradient is 1. */
elbo_status graph_differentiate(struct graph *g, value loss, const struct autodiff_options *options, elbo_error *error);

/* ready[i]: the last step of the schedule that writes the gradient of parameter i; left as it is where none does. */
void graph_ready(const struct graph *g, size_t *ready);

/* ---- for the gradient rules of ops ---- */

struct graph *autodiff_graph(struct autodiff *ad);

/* Gradient of the node's output k; NO_VALUE when nothing depends on it. */
value autodiff_output(struct autodiff *ad, const struct node *n, unsigned k);

/* Does anything want the gradient of this forward value? */
bool autodiff_wants(struct autodiff *ad, value v);

/* The forward value to read in the backward pass: itself, or computed again. */
value autodiff_read(struct autodiff *ad, value v);

/* Is it there, without being computed again? */
bool autodiff_has(struct autodiff *ad, value v);

/* `fresh` is v, computed again: for rules of recomputation that give more than they were asked for. */
void autodiff_again(struct autodiff *ad, value v, value fresh);

/* Does nothing but `n`, once, read this forward value? */
bool autodiff_sole_reader(struct autodiff *ad, const struct node *n, value v);

/* A backward node of the forward node `n`. */
struct node *autodiff_node(struct autodiff *ad, const struct op_type *type, const struct node *n);

/* An operand of a backward node, for autodiff_emit. */
struct autodiff_operand {
    enum { OPERAND_READ, OPERAND_TAKEN, OPERAND_GIVEN } use;
    unsigned slot;
    value v;
};
/* Input `slot` is the forward value v, kept or computed again. */
#define READS(slot, v) ((struct autodiff_operand){OPERAND_READ, slot, v})
/* Input `slot` is v itself: a gradient, a weight, or an input of the graph. */
#define TAKES(slot, v) ((struct autodiff_operand){OPERAND_TAKEN, slot, v})
/* Output `slot` contributes to the gradient of v, as in autodiff_write. */
#define GIVES(slot, v) ((struct autodiff_operand){OPERAND_GIVEN, slot, v})

/* Records a backward node of `n` with its operands, so that a gradient rule reads as a formula. The forward values are
 * read first, in the order of the operands, because whatever computes them again must precede the node. */
#define autodiff_emit(ad, type, n, ...)                                                                                \
    autodiff_emit_operands(ad, type, n, (const struct autodiff_operand[]){__VA_ARGS__},                                \
                           sizeof(struct autodiff_operand[]){__VA_ARGS__} / sizeof(struct autodiff_operand))
struct node *autodiff_emit_operands(struct autodiff *ad, const struct op_type *type, const struct node *n,
                                    const struct autodiff_operand *operands, size_t count);

/* Output `slot` of backward node `b` is (a contribution to) the gradient of forward value v; nothing when unwanted.
 * Where the op cannot add in place, the contribution goes through a temporary and an ordered add. Call after the
 * node's inputs are set, once per slot. */
void autodiff_write(struct autodiff *ad, struct node *b, unsigned slot, value v);

/* The gradient `d`, unchanged, is a contribution to the gradient of v: no copy is made where none is needed. */
void autodiff_pass(struct autodiff *ad, value v, value d);

/* Backward node `b` computes the forward node's outputs too: the forward node does not run. */
void autodiff_replace(struct autodiff *ad, const struct node *n, struct node *b, unsigned output, unsigned slot);

#endif
