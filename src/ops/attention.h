/* Attention within packed sentences, for one new token per row, and rotary positions. */
#ifndef OPS_ATTENTION_H
#define OPS_ATTENTION_H

#include "graph/graph.h"

struct attention_config {
    size_t heads, kv_heads, head_width;
    bool causal;
    size_t memory; /* latent keys (M) */
};

/* out (N, H W) = softmax(q k^T / sqrt(W)) v within each sentence (Vaswani et al. 2017). qkv (N, (H + 2 Hk) W) holds
 * queries, keys and values; query head h reads key head h / (H / Hk). offsets (S + 1) i32. memory (S, M, 2, Hk W),
 * optional: keys and values in front of the sentence's own, visible to every query. */
value op_attention(struct graph *g, value qkv, value offsets, value memory, const struct attention_config *config);

/* The same for one new token per row: appends its key and value to the cache at `position` and attends to all keys up
 * to it. qkv (R, (H + 2 Hk) W), position (R) i32, cache (R, T, 2, Hk W) state. history (R, T) i32, optional: the row
 * whose cache holds this row's position j, for every j before its own. With history, rows continue other rows without
 * copies of caches. */
value op_attention_cached(struct graph *g, value qkv, value position, value memory, value history, value cache,
                          const struct attention_config *config);

/* Rotary positions (Su et al. 2021), with halves split as in Llama. Rotates the first heads * head_width columns of x
 * by position / 10000^(2i / W) and copies the others. */
value op_rotary(struct graph *g, value x, value position, size_t heads, size_t head_width);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTENTION_HEADS, ATTENTION_KV_HEADS, ATTENTION_HEAD_WIDTH, ATTENTION_CAUSAL, ATTENTION_MEMORY };
enum { ROTARY_HEADS, ROTARY_HEAD_WIDTH, ROTARY_DIRECTION };

enum { IN_ATTENTION_QKV, IN_ATTENTION_OFFSETS, IN_ATTENTION_MEMORY };
enum { OUT_ATTENTION_Y, OUT_ATTENTION_LSE };

enum {
    IN_ATTENTION_BACKWARD_DY,
    IN_ATTENTION_BACKWARD_QKV,
    IN_ATTENTION_BACKWARD_OFFSETS,
    IN_ATTENTION_BACKWARD_MEMORY,
    IN_ATTENTION_BACKWARD_Y,
    IN_ATTENTION_BACKWARD_LSE
};
enum { OUT_ATTENTION_BACKWARD_DQKV, OUT_ATTENTION_BACKWARD_DMEMORY };

enum { IN_ATTENTION_CACHED_QKV, IN_ATTENTION_CACHED_POSITION, IN_ATTENTION_CACHED_MEMORY, IN_ATTENTION_CACHED_HISTORY };
enum { OUT_ATTENTION_CACHED_Y, OUT_ATTENTION_CACHED_CACHE };

enum { IN_ROTARY_X, IN_ROTARY_POSITION };
enum { OUT_ROTARY_Y };

#define ATTENTION_OPS(X)                                                                                               \
    X(attention)                                                                                                       \
    X(attention_backward)                                                                                              \
    X(attention_cached)                                                                                                \
    X(rotary)

#endif
