/* Reverse-mode differentiation of a recording: walks the nodes backwards, asks each op for its gradient, and appends
 * the backward nodes to the same graph.
 *
 * Wanted groups: only parameters of a wanted group get gradients; a value that depends on no wanted parameter gets no
 * node and no buffer. Recompute: values that the policy does not keep are recomputed just before the backward nodes
 * that read them, once per block. */
#ifndef GRAPH_AUTODIFF_H
#define GRAPH_AUTODIFF_H

#include "graph/graph.h"

enum recompute_policy { KEEP_ALL, RECOMPUTE_CHEAP_OPS, RECOMPUTE_BLOCKS };

struct autodiff_options {
    unsigned wanted; /* bit g: parameter group g (graph/parameters.h) */
    enum recompute_policy policy;
    const struct op_type *add; /* the op that sums contributions: out = a (+ b) */
};

enum { WANT_ALL = ~0 };

/* Appends the backward pass of `loss`, a scalar whose gradient is 1. */
elbo_status graph_differentiate(struct graph *g, value loss, const struct autodiff_options *options, elbo_error *error);

/* Sets ready[i] to the last step of the schedule that writes the gradient of parameter i; leaves ready[i] unchanged
 * where no step does. */
void graph_ready(const struct graph *g, size_t *ready);

/* ---- for the gradient rules of ops ---- */

struct graph *autodiff_graph(struct autodiff *ad);

/* Returns the gradient of the node's output k; NO_VALUE when no gradient reaches it. */
value autodiff_output(struct autodiff *ad, const struct node *n, unsigned k);

/* Returns whether the gradient of this forward value is needed. */
bool autodiff_wants(struct autodiff *ad, value v);

/* Returns the value to read for v in the backward pass: v itself, or its recomputation. */
value autodiff_read(struct autodiff *ad, value v);

/* Returns whether v can be read without recomputing. */
bool autodiff_has(struct autodiff *ad, value v);

/* Registers `fresh` as the recomputation of v, for recompute rules that produce more values than asked for. */
void autodiff_again(struct autodiff *ad, value v, value fresh);

/* Returns whether `n` is the only reader of v and reads v once. */
bool autodiff_sole_reader(struct autodiff *ad, const struct node *n, value v);

/* Creates a backward node of the forward node `n`. */
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

/* Makes output `slot` of backward node `b` (a contribution to) the gradient of forward value v; does nothing when v is
 * unwanted. If the op cannot add in place, the contribution goes through a temporary and an ordered add. Call once per
 * slot, after the node's inputs are set. */
void autodiff_write(struct autodiff *ad, struct node *b, unsigned slot, value v);

/* Adds `d`, unchanged, to the gradient of v. Copies only when necessary. */
void autodiff_pass(struct autodiff *ad, value v, value d);

/* Makes backward node `b` compute an output of forward node `n`, so that `n` does not run. */
void autodiff_replace(struct autodiff *ad, const struct node *n, struct node *b, unsigned output, unsigned slot);

#endif
