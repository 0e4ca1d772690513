/* The list of ops. The enumeration, the table of types and every backend's table are made from it, so a backend without
 * a kernel for an op does not build. Each family lists its own ops. */
#ifndef OPS_LIST_H
#define OPS_LIST_H

#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/latent.h"
#include "ops/linear.h"
#include "ops/loss.h"
#include "ops/norm.h"
#include "ops/optimizer.h"
#include "ops/posterior.h"
#include "ops/prior.h"
#include "ops/recurrent.h"
#include "ops/sentence.h"

#define ELBO_OPS(X)                                                                                                    \
    EMBEDDING_OPS(X)                                                                                                   \
    LINEAR_OPS(X)                                                                                                      \
    NORM_OPS(X)                                                                                                        \
    ATTENTION_OPS(X)                                                                                                   \
    RECURRENT_OPS(X)                                                                                                   \
    SENTENCE_OPS(X)                                                                                                    \
    LATENT_OPS(X)                                                                                                      \
    PRIOR_OPS(X)                                                                                                       \
    POSTERIOR_OPS(X)                                                                                                   \
    LOSS_OPS(X)                                                                                                        \
    ELEMENTWISE_OPS(X)                                                                                                 \
    OPTIMIZER_OPS(X)

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
