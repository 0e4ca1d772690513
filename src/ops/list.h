/* The list of ops: the one place that names them all. It makes the enumeration, the table of types and every backend's
 * table, so an op without an entry somewhere does not build. */
#ifndef OPS_LIST_H
#define OPS_LIST_H

#include "graph/graph.h"

#define ELBO_OPS(X)                                                                                                    \
    X(embedding)                                                                                                       \
    X(embedding_backward)                                                                                              \
    X(linear)                                                                                                          \
    X(linear_backward_input)                                                                                           \
    X(linear_backward_weight)                                                                                          \
    X(norm)                                                                                                            \
    X(norm_backward)                                                                                                   \
    X(attention)                                                                                                       \
    X(attention_backward)                                                                                              \
    X(attention_cached)                                                                                                \
    X(rotary)                                                                                                          \
    X(recurrent)                                                                                                       \
    X(recurrent_backward)                                                                                              \
    X(recurrent_step)                                                                                                  \
    X(pool)                                                                                                            \
    X(pool_backward)                                                                                                   \
    X(broadcast_add)                                                                                                   \
    X(segment_sum)                                                                                                     \
    X(prefix)                                                                                                          \
    X(prefix_backward)                                                                                                 \
    X(latent)                                                                                                          \
    X(latent_backward)                                                                                                 \
    X(column_moments)                                                                                                  \
    X(gaussian_log_density)                                                                                            \
    X(gaussian_log_density_backward)                                                                                   \
    X(gaussian_kl)                                                                                                     \
    X(gaussian_kl_backward)                                                                                            \
    X(mixture_log_density)                                                                                             \
    X(mixture_log_density_backward)                                                                                    \
    X(spread_hinge)                                                                                                    \
    X(spread_hinge_backward)                                                                                           \
    X(posterior)                                                                                                       \
    X(posterior_backward)                                                                                              \
    X(normalize)                                                                                                       \
    X(normalize_backward)                                                                                              \
    X(running)                                                                                                         \
    X(linear_cross_entropy)                                                                                            \
    X(linear_cross_entropy_train)                                                                                      \
    X(bag_cross_entropy)                                                                                               \
    X(bag_cross_entropy_backward)                                                                                      \
    X(elbo)                                                                                                            \
    X(elbo_backward)                                                                                                   \
    X(objective)                                                                                                       \
    X(objective_backward)                                                                                              \
    X(add)                                                                                                             \
    X(gelu)                                                                                                            \
    X(gelu_backward)                                                                                                   \
    X(activation_tanh)                                                                                                 \
    X(activation_tanh_backward)                                                                                        \
    X(swiglu)                                                                                                          \
    X(swiglu_backward)                                                                                                 \
    X(dropout)                                                                                                         \
    X(select_row)                                                                                                      \
    X(controller)                                                                                                      \
    X(squared_norm)                                                                                                    \
    X(block_squares)                                                                                                   \
    X(combined_norm)                                                                                                   \
    X(guard)                                                                                                           \
    X(adamw)                                                                                                           \
    X(sgd)

enum op_index {
#define OP_INDEX(name) OP_##name,
    ELBO_OPS(OP_INDEX)
#undef OP_INDEX
        OP_COUNT
};

#define OP_DECLARE(name) extern const struct op_type op_##name##_type;
ELBO_OPS(OP_DECLARE)
#undef OP_DECLARE

extern const struct op_type *const op_types[OP_COUNT];

#endif
