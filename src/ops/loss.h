/* The reconstruction loss, the ELBO, and the objective that adds further terms. */
#ifndef OPS_LOSS_H
#define OPS_LOSS_H

#include "graph/graph.h"

/* nll (N) = -log softmax(y w^T)[label] in nats, without an (N, V) tensor. y (N, D), w (V, D), labels (N) i32; a row
 * with a negative label has no loss. In training one fused op computes nll and both gradients; the gradient of a
 * chunk's logits overwrites the logits. `right`, unless null, becomes (N) f32: 1 if no logit of the row is above the
 * label's, else 0. It has no gradient, and a recording with it is not differentiated. */
value op_linear_cross_entropy(struct graph *g, value y, value w, value labels, value *right);

/* Step scalars of the loss: an input of ELBO_WEIGHTS f32. */
enum { ELBO_WEIGHT_NLL, ELBO_WEIGHT_KL, ELBO_WEIGHTS };
/* Outputs of op_elbo, sums over the slot in nats; ELBO_UNDER sums the sentences' shares of parts at or under the free
 * bits. */
enum { ELBO_LOSS, ELBO_NLL, ELBO_KL, ELBO_KL_FREE, ELBO_UNDER, ELBO_PARTS };

enum free_form { FREE_HINGE, FREE_MASK };     /* max(f, KL); or KL if it is above f, else 0 */
enum free_scope { FREE_SLOT, FREE_SENTENCE }; /* of the mean over the slot's sentences; or of each sentence */
struct free_bits {
    enum { FREE_PER_DIMENSION, FREE_TOTAL, FREE_PER_GROUP } kind;
    enum free_form form;
    enum free_scope scope;
    double nats;
    size_t groups;
};
struct elbo_value {
    value loss;   /* (ELBO_PARTS); [ELBO_LOSS] is minimized */
    value kl_dim; /* (Z) sums of the true KL over the slot's sentences; none without z */
};

/* loss = weight[NLL] sum nll + weight[KL] S sum_j max(f, mean over the slot's sentences of the KL of part j). A part is
 * a dimension, a group of neighboring dimensions, or all of them (free bits: Kingma et al. 2016). FREE_SENTENCE: sum_s
 * sum_j max(f, KL of part j of sentence s). FREE_MASK: the KL if it is above f, else 0, in place of the maximum, with
 * the same gradient. kl may be none. */
struct elbo_value op_elbo(struct graph *g, value nll, value kl, value weights, const struct free_bits *free_bits);

/* out (1) nats = -sum_s sum_n log softmax(logits_s)[label_n] over the rows n of each sentence s: the cost of a bag of
 * words under the distribution of the sentence's row of logits (S, V) f32 (Zhao et al. 2017). labels (N) i32; a
 * negative label has no loss. offsets (S + 1) i32. Rows of draws count as rows of sentences, so each sentence must have
 * one draw. */
enum { BAG_LOGSUM, BAG_LABELS, BAG_NATS, BAG_SUMS }; /* columns of the second output, for kernels */
value op_bag_cross_entropy(struct graph *g, value logits, value labels, value offsets);

/* The ELBO and further terms: out (ELBO_PARTS + count) nats, out[ELBO_LOSS] = elbo[ELBO_LOSS] + sum_k
 * weights[weight[k]] terms[k][0], the other parts as in elbo (ELBO_PARTS), out[ELBO_PARTS + k] = terms[k][0]. terms: up
 * to OBJECTIVE_TERMS values (1), sums over the slot; weights: step scalars, an input f32. out[ELBO_LOSS] is minimized:
 * the gradient of out is 1 for the loss and 0 for the rest, whatever reads it. */
value op_objective(struct graph *g, value elbo, const value *terms, const unsigned *weight, size_t count,
                   value weights);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTR_FREE_GROUPS, ATTR_FREE_FORM, ATTR_FREE_SCOPE };
enum { ATTR_FREE_NATS }; /* a real attribute */

enum { OBJECTIVE_TERMS = MAX_INPUTS - 2, OBJECTIVE_ELBO = 0xffff };

/* Attributes: each integer holds four indices into the weights. The op has one index for each term. The gradient has
 * one for each output, where OBJECTIVE_ELBO marks the gradient of the ELBO's parts. */
static inline void objective_set(struct attributes *a, size_t k, unsigned index)
{
    a->i[k / 4] |= (int64_t)index << (k % 4 * 16);
}

static inline unsigned objective_index(const struct attributes *a, size_t k)
{
    return (unsigned)((uint64_t)a->i[k / 4] >> (k % 4 * 16) & 0xffff);
}

enum { IN_LINEAR_CROSS_ENTROPY_Y, IN_LINEAR_CROSS_ENTROPY_W, IN_LINEAR_CROSS_ENTROPY_LABELS };
enum { OUT_LINEAR_CROSS_ENTROPY_NLL, OUT_LINEAR_CROSS_ENTROPY_RIGHT };

enum {
    IN_LINEAR_CROSS_ENTROPY_TRAIN_Y = IN_LINEAR_CROSS_ENTROPY_Y,
    IN_LINEAR_CROSS_ENTROPY_TRAIN_W = IN_LINEAR_CROSS_ENTROPY_W,
    IN_LINEAR_CROSS_ENTROPY_TRAIN_LABELS = IN_LINEAR_CROSS_ENTROPY_LABELS,
    IN_LINEAR_CROSS_ENTROPY_TRAIN_DNLL
};
enum {
    OUT_LINEAR_CROSS_ENTROPY_TRAIN_NLL = OUT_LINEAR_CROSS_ENTROPY_NLL,
    OUT_LINEAR_CROSS_ENTROPY_TRAIN_DY,
    OUT_LINEAR_CROSS_ENTROPY_TRAIN_DW
};

enum { IN_BAG_CROSS_ENTROPY_LOGITS, IN_BAG_CROSS_ENTROPY_LABELS, IN_BAG_CROSS_ENTROPY_OFFSETS };
enum { OUT_BAG_CROSS_ENTROPY_LOSS, OUT_BAG_CROSS_ENTROPY_BAG };

enum {
    IN_BAG_CROSS_ENTROPY_BACKWARD_DLOSS,
    IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS,
    IN_BAG_CROSS_ENTROPY_BACKWARD_LABELS,
    IN_BAG_CROSS_ENTROPY_BACKWARD_OFFSETS,
    IN_BAG_CROSS_ENTROPY_BACKWARD_BAG
};
enum { OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS };

enum { IN_ELBO_NLL, IN_ELBO_KL, IN_ELBO_WEIGHTS };
enum { OUT_ELBO_PARTS, OUT_ELBO_KL_DIM };

enum { IN_ELBO_BACKWARD_KL, IN_ELBO_BACKWARD_WEIGHTS };
enum { OUT_ELBO_BACKWARD_DNLL, OUT_ELBO_BACKWARD_DKL };

enum { IN_OBJECTIVE_ELBO, IN_OBJECTIVE_WEIGHTS, IN_OBJECTIVE_TERMS };
enum { OUT_OBJECTIVE_PARTS };

enum { IN_OBJECTIVE_BACKWARD_WEIGHTS };
enum { OUT_OBJECTIVE_BACKWARD_FIRST };

#define LOSS_OPS(X)                                                                                                    \
    X(linear_cross_entropy)                                                                                            \
    X(linear_cross_entropy_train)                                                                                      \
    X(bag_cross_entropy)                                                                                               \
    X(bag_cross_entropy_backward)                                                                                      \
    X(elbo)                                                                                                            \
    X(elbo_backward)                                                                                                   \
    X(objective)                                                                                                       \
    X(objective_backward)

#endif
