/* Attention and rotary positions. A decoder's keys and values are, in this order: the latent memory, the prefix rows
 * (both made from z in every call), those of earlier calls, and the tokens' own. Those of earlier calls are an input of
 * initial length 0, and the decoder returns them with the new ones appended. The memory and the prefix rows are not
 * among them, so that a runtime that counts tokens finds the right number. */
#include "export/onnx.h"
#include "ops/attention.h"
#include "ops/ops.h"

#include <math.h>
#include <stdlib.h>

/* (batch, rows, count W) -> (batch, count, rows, W) */
static const char *heads_of(struct onnx *x, const char *t, int64_t count, int64_t width)
{
    return onnx_node(x, "Transpose", ONNX_IN(ONNX_RESHAPE(x, t, 0, 0, count, width)), "perm=[0,2,1,3]");
}

static const char *range(struct onnx *x, const char *first, const char *end)
{
    return onnx_node(x, "Range", ONNX_IN(first, end, onnx_integer(x, 1)), NULL);
}

/* (rows, keys) bool: whether a row of the decoder sees a key, by comparing their times; the memory's time is before
 * all. */
static const char *in_order(struct onnx *x, size_t memory)
{
    int64_t front = (int64_t)x->prefix;
    const char *all = onnx_size(x, ONNX_MASK, 1), *now = onnx_size(x, ONNX_IDS, 1);
    const char *end = onnx_node(x, "Add", ONNX_IN(all, onnx_integer(x, front)), NULL);
    const char *rows = range(x, onnx_node(x, "Sub", ONNX_IN(end, now), NULL), end);
    const char *keys = range(x, onnx_integer(x, 0), end);
    if (front)
        rows = onnx_node(x, "Concat", ONNX_IN(range(x, onnx_integer(x, 0), onnx_integer(x, front)), rows), "axis=0");
    if (memory) {
        const char *before =
            onnx_node(x, "Expand", ONNX_IN(ONNX_INTEGERS(x, -1), ONNX_INTEGERS(x, (int64_t)memory)), NULL);
        keys = onnx_node(x, "Concat", ONNX_IN(before, keys), "axis=0");
    }
    return onnx_node(x, "LessOrEqual", ONNX_IN(onnx_unsqueeze(x, keys, 0), onnx_unsqueeze(x, rows, 1)), NULL);
}

/* Returns (batch, 1, rows or 1, keys) bool: which keys each row may attend to. */
static const char *allowed(struct onnx *x, size_t memory)
{
    if (x->allowed) return x->allowed;
    const char *mask = ONNX_MASK;
    int64_t front = (int64_t)(memory + x->prefix);
    if (x->decoder && front) {
        const char *size = onnx_node(
            x, "Concat", ONNX_IN(onnx_unsqueeze(x, onnx_size(x, ONNX_MASK, 0), 0), ONNX_INTEGERS(x, front)), "axis=0");
        const char *ones = onnx_node(x, "Expand", ONNX_IN(ONNX_INTEGERS(x, 1), size), NULL);
        mask = onnx_node(x, "Concat", ONNX_IN(ones, mask), "axis=1");
    }
    const char *is =
        onnx_node(x, "Unsqueeze", ONNX_IN(onnx_node(x, "Cast", ONNX_IN(mask), "to=9"), ONNX_INTEGERS(x, 1, 2)), NULL);
    if (x->decoder)
        is = onnx_node(
            x, "And",
            ONNX_IN(is, onnx_node(x, "Unsqueeze", ONNX_IN(in_order(x, memory), ONNX_INTEGERS(x, 0, 1)), NULL)), NULL);
    return x->allowed = is;
}

/* Appends the new keys or values to those of earlier calls; the decoder returns all of them for later calls. */
static const char *with_past(struct onnx *x, const char *now, const char *what, int64_t heads, int64_t width)
{
    const char *past = onnx_string(x, "past_key_values.%zu.%s", x->layers, what);
    const char *present = onnx_string(x, "present.%zu.%s", x->layers, what);
    onnx_input(x, past, ONNX_FLOAT, onnx_string(x, "batch,%lld,past,%lld", (long long)heads, (long long)width));
    onnx_output(x, present, ONNX_FLOAT, onnx_string(x, "batch,%lld,total,%lld", (long long)heads, (long long)width));
    const char *kept = now, *front = NULL;
    if (x->prefix) {
        front = onnx_node(x, "Slice",
                          ONNX_IN(now, ONNX_INTEGERS(x, 0), ONNX_INTEGERS(x, (int64_t)x->prefix), ONNX_INTEGERS(x, 2)),
                          NULL);
        kept = onnx_node(
            x, "Slice",
            ONNX_IN(now, ONNX_INTEGERS(x, (int64_t)x->prefix), ONNX_INTEGERS(x, INT64_MAX), ONNX_INTEGERS(x, 2)), NULL);
    }
    onnx_nodes(x, "Concat", ONNX_IN(past, kept), "axis=2", ONNX_IN(present));
    return front ? onnx_node(x, "Concat", ONNX_IN(front, present), "axis=2") : present;
}

/* Puts the latent memory's keys and values in front: (batch, M 2 Hk W) -> two of (batch, Hk, M, W). */
static void add_memory(struct onnx *x, const char *memory, size_t rows, int64_t heads, int64_t width,
                       const char *both[2])
{
    const char *part[] = {onnx_fresh(x, "memory_key"), onnx_fresh(x, "memory_value"), NULL};
    onnx_nodes(x, "Split", ONNX_IN(ONNX_RESHAPE(x, memory, 0, (int64_t)rows, 2, heads * width)), "axis=2", part);
    for (size_t i = 0; i < 2; i++) {
        const char *own = onnx_node(x, "Transpose", ONNX_IN(ONNX_RESHAPE(x, part[i], 0, (int64_t)rows, heads, width)),
                                    "perm=[0,2,1,3]");
        both[i] = onnx_node(x, "Concat", ONNX_IN(own, both[i]), "axis=2");
    }
}

/* softmax(q k^T / sqrt W) v. With fewer key heads than heads, the query heads of a key head have an axis of their
 * own. */
static const char *attend(struct onnx *x, const char *q, const char *const kv[2], const char *is, int64_t groups,
                          int64_t kv_heads, int64_t width)
{
    const char *k = kv[0], *v = kv[1];
    q = onnx_node(x, "Mul", ONNX_IN(q, onnx_real(x, 1 / sqrt((double)width))), NULL);
    if (groups > 1) {
        q = ONNX_RESHAPE(x, q, 0, kv_heads, groups, -1, width);
        k = onnx_unsqueeze(x, k, 2);
        v = onnx_unsqueeze(x, v, 2);
        is = onnx_unsqueeze(x, is, 1);
    }
    const char *turned = onnx_node(x, "Transpose", ONNX_IN(k), groups > 1 ? "perm=[0,1,2,4,3]" : "perm=[0,1,3,2]");
    const char *scores = onnx_node(x, "MatMul", ONNX_IN(q, turned), NULL);
    scores = onnx_node(x, "Where", ONNX_IN(is, scores, onnx_real(x, -1e30)), NULL);
    const char *y = onnx_node(x, "MatMul", ONNX_IN(onnx_node(x, "Softmax", ONNX_IN(scores), "axis=-1"), v), NULL);
    y = onnx_node(x, "Transpose", ONNX_IN(y), groups > 1 ? "perm=[0,3,1,2,4]" : "perm=[0,2,1,3]");
    return groups > 1 ? ONNX_RESHAPE(x, y, 0, 0, groups * kv_heads * width)
                      : ONNX_RESHAPE(x, y, 0, 0, kv_heads * width);
}

void onnx_attention(struct onnx *x, const struct node *n)
{
    int64_t heads = n->attr.i[ATTENTION_HEADS], kv_heads = n->attr.i[ATTENTION_KV_HEADS],
            width = n->attr.i[ATTENTION_HEAD_WIDTH];
    size_t memory = (size_t)n->attr.i[ATTENTION_MEMORY];
    const char *qkv = onnx_of(x, n->in[IN_ATTENTION_QKV]); /* first, because it writes and counts the layers before */
    const char *part[] = {onnx_fresh(x, "q"), onnx_fresh(x, "k"), onnx_fresh(x, "v"), NULL};
    onnx_nodes(x, "Split", ONNX_IN(qkv, ONNX_INTEGERS(x, heads * width, kv_heads * width, kv_heads * width)), "axis=-1",
               part);
    const char *latent = n->in[IN_ATTENTION_MEMORY].index ? onnx_of(x, n->in[IN_ATTENTION_MEMORY]) : NULL;
    const char *q = heads_of(x, part[0], heads, width),
               *kv[] = {heads_of(x, part[1], kv_heads, width), heads_of(x, part[2], kv_heads, width)};
    if (x->decoder) {
        kv[0] = with_past(x, kv[0], "key", kv_heads, width);
        kv[1] = with_past(x, kv[1], "value", kv_heads, width);
    }
    if (latent) add_memory(x, latent, memory, kv_heads, width, kv);
    onnx_set(x, n->out[OUT_ATTENTION_Y], attend(x, q, kv, allowed(x, memory), heads / kv_heads, kv_heads, width));
    x->layers++;
}

/* Returns the cos or sin of the angles of a width: (batch, rows, 1, W / 2). */
static const char *wave(struct onnx *x, const char *position, size_t width, const char *op)
{
    size_t half = width / 2;
    float *speed = malloc(half * sizeof *speed);
    if (!speed) {
        if (!x->status) x->status = elbo_fail(x->error, ELBO_MEMORY, "no memory for a graph of ONNX");
        return "";
    }
    for (size_t i = 0; i < half; i++) speed[i] = (float)pow(10000, -2.0 * (double)i / (double)width);
    const char *name = onnx_weight(x, onnx_string(x, "rotary.%zu", width), ONNX_FLOAT, &half, 1, speed);
    free(speed);
    const char *at = onnx_node(x, "Unsqueeze",
                               ONNX_IN(onnx_node(x, "Cast", ONNX_IN(position), "to=1"), ONNX_INTEGERS(x, 2, 3)), NULL);
    return onnx_node(x, op, ONNX_IN(onnx_node(x, "Mul", ONNX_IN(at, name), NULL)), NULL);
}

void onnx_rotary(struct onnx *x, const struct node *n)
{
    int64_t heads = n->attr.i[ROTARY_HEADS], width = n->attr.i[ROTARY_HEAD_WIDTH],
            rest = (int64_t)graph_width(x->g, n->in[IN_ROTARY_X]) - heads * width;
    const char *turned = onnx_fresh(x, "turned"), *kept = onnx_fresh(x, "kept");
    onnx_nodes(x, "Split", ONNX_IN(onnx_of(x, n->in[IN_ROTARY_X]), ONNX_INTEGERS(x, heads * width, rest)), "axis=-1",
               ONNX_IN(turned, kept));
    const char *a = onnx_fresh(x, "first"), *b = onnx_fresh(x, "second");
    const char *position = onnx_of(x, n->in[IN_ROTARY_POSITION]);
    const char *cosine = wave(x, position, (size_t)width, "Cos"), *sine = wave(x, position, (size_t)width, "Sin");
    onnx_nodes(x, "Split", ONNX_IN(ONNX_RESHAPE(x, turned, 0, 0, heads, width)), "axis=-1", ONNX_IN(a, b));
    const char *left = onnx_node(
        x, "Sub", ONNX_IN(onnx_node(x, "Mul", ONNX_IN(a, cosine), NULL), onnx_node(x, "Mul", ONNX_IN(b, sine), NULL)),
        NULL);
    const char *right = onnx_node(
        x, "Add", ONNX_IN(onnx_node(x, "Mul", ONNX_IN(a, sine), NULL), onnx_node(x, "Mul", ONNX_IN(b, cosine), NULL)),
        NULL);
    const char *both = ONNX_RESHAPE(x, onnx_node(x, "Concat", ONNX_IN(left, right), "axis=-1"), 0, 0, heads * width);
    onnx_set(x, n->out[OUT_ROTARY_Y], onnx_node(x, "Concat", ONNX_IN(both, kept), "axis=-1"));
}
