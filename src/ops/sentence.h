/* Ops between one row per sentence and one row per token: pooling, broadcast, sums, prefixes. */
#ifndef OPS_SENTENCE_H
#define OPS_SENTENCE_H

#include "graph/graph.h"

/* POOL_ENDS takes the first half of the columns from the last row and the second half from the first row, where the two
 * directions of a layer end. */
enum pool_kind { POOL_MEAN, POOL_FIRST, POOL_LAST, POOL_ATTENTION, POOL_ENDS };

/* y (S, D) from x (N, D). POOL_ATTENTION: softmax over the sentence of x . query, query (D). */
value op_pool(struct graph *g, value x, value offsets, value query, enum pool_kind kind);

/* y (N, D) = x + v[sentence], v (S, D). */
value op_broadcast_add(struct graph *g, value x, value v, value sentence, value offsets);

/* y (S, D) or (S) = sum of the sentence's rows. */
value op_segment_sum(struct graph *g, value x, value offsets, enum dim_kind rows);

/* y (N, D) = x with the first M rows of each sentence replaced by its prefix: a row of position j < M becomes row j of
 * the M rows of D in prefix (S, M D). position (N) i32. For one new token per row, sentence and offsets are none, and
 * row n takes row n of prefix. */
value op_prefix(struct graph *g, value x, value prefix, value position, value sentence, value offsets);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTR_POOL };   /* enum pool_kind */
enum { ATTR_PREFIX }; /* M */

enum { IN_POOL_X, IN_POOL_OFFSETS, IN_POOL_QUERY };
enum { OUT_POOL_Y, OUT_POOL_WEIGHTS };

enum {
    IN_POOL_BACKWARD_DY,
    IN_POOL_BACKWARD_OFFSETS,
    IN_POOL_BACKWARD_QUERY,
    IN_POOL_BACKWARD_X,
    IN_POOL_BACKWARD_WEIGHTS
};
enum { OUT_POOL_BACKWARD_DX, OUT_POOL_BACKWARD_DQUERY };

enum { IN_BROADCAST_ADD_X, IN_BROADCAST_ADD_V, IN_BROADCAST_ADD_SENTENCE, IN_BROADCAST_ADD_OFFSETS };
enum { OUT_BROADCAST_ADD_Y };

enum { IN_SEGMENT_SUM_X, IN_SEGMENT_SUM_OFFSETS };
enum { OUT_SEGMENT_SUM_Y };

enum { IN_PREFIX_X, IN_PREFIX_PREFIX, IN_PREFIX_POSITION, IN_PREFIX_SENTENCE, IN_PREFIX_OFFSETS };
enum { OUT_PREFIX_Y };

enum { IN_PREFIX_BACKWARD_DY, IN_PREFIX_BACKWARD_POSITION, IN_PREFIX_BACKWARD_OFFSETS };
enum { OUT_PREFIX_BACKWARD_DX, OUT_PREFIX_BACKWARD_DPREFIX };

#define SENTENCE_OPS(X)                                                                                                \
    X(pool)                                                                                                            \
    X(pool_backward)                                                                                                   \
    X(broadcast_add)                                                                                                   \
    X(segment_sum)                                                                                                     \
    X(prefix)                                                                                                          \
    X(prefix_backward)

#endif
