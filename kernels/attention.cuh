/* Shared by the attention files: the shape that kernels take, the places of a sentence's queries and keys, the widths
 * for which kernels are compiled, and the tensor-core path. */
#ifndef KERNELS_ATTENTION_CUH
#define KERNELS_ATTENTION_CUH

#include "kernels/device.cuh"

struct attention_shape {
    unsigned heads, kv_heads, width, memory,
        row; /* row: elements of a row of qkv; 32 bits, because kernels divide by these numbers */
    float scale;
    bool causal;
};

static inline struct attention_shape attention_shape_of(const struct kernel_attention *a)
{
    struct attention_shape s;
    s.heads = (unsigned)a->heads;
    s.kv_heads = (unsigned)a->kv_heads;
    s.width = (unsigned)a->head_width;
    s.memory = (unsigned)a->memory;
    s.row = (s.heads + 2 * s.kv_heads) * s.width;
    s.scale = 1.0f / sqrtf((float)a->head_width);
    s.causal = a->causal;
    return s;
}

/* Returns key (which 0) or value (which 1) j of a sentence that begins at row `begin`; latent keys come first. */
template <typename T>
static __device__ __forceinline__ const T *kv_row(const struct attention_shape &a, const T *qkv, const T *memory,
                                                  unsigned begin, unsigned sentence, unsigned head, unsigned j,
                                                  unsigned which)
{
    if (j < a.memory) return memory + ((((size_t)sentence * a.memory + j) * 2 + which) * a.kv_heads + head) * a.width;
    return qkv + (size_t)(begin + j - a.memory) * a.row + (a.heads + which * a.kv_heads + head) * a.width;
}

struct span {
    unsigned sentence, begin;
    int length, count, lead, slots; /* tokens, keys, empty slots in front of the queries, all slots */
    bool causal;
};

/* Leaves memory % step empty slots in front of the queries in causal attention, so that the diagonal of a step of
 * queries and keys is the diagonal of the mask. */
static __device__ __forceinline__ struct span span_of(const int32_t *offsets, unsigned sentence,
                                                      const struct attention_shape &a, int step)
{
    struct span s;
    s.sentence = sentence;
    s.begin = (unsigned)offsets[sentence];
    s.length = offsets[sentence + 1] - offsets[sentence];
    s.count = s.length + (int)a.memory;
    s.lead = a.causal ? (int)a.memory % step : 0;
    s.slots = s.length ? s.lead + s.length : 0;
    s.causal = a.causal;
    return s;
}

/* Returns the number of keys that the query in a slot sees. */
static __device__ __forceinline__ int visible(const struct span &s, int slot)
{
    return s.causal ? min(s.count, slot + 1 + s.count - s.length - s.lead) : s.count;
}

/* Returns the offset of the row of token `slot - lead`, for rows of `row` elements; negative where the slot has no
 * token. */
static __device__ __forceinline__ long long slot_at(const struct span &s, unsigned row, int slot)
{
    return slot >= s.lead && slot < s.slots ? (long long)(s.begin + (unsigned)(slot - s.lead)) * row : -1;
}

/* Returns the row of a slot, or null where the slot has no token. */
template <typename T>
static __device__ __forceinline__ const T *slot_row(const struct span &s, const T *rows, unsigned row, int slot)
{
    long long at = slot_at(s, row, slot);
    return at < 0 ? nullptr : rows + at;
}

/* Runs `body` with W = the width rounded up to one for which kernels are compiled, at most `most`. */
#define ATTENTION_WIDTH(width, most, ...)                                                                              \
    do {                                                                                                               \
        if ((width) <= 32) {                                                                                           \
            constexpr int W = 32;                                                                                      \
            __VA_ARGS__;                                                                                               \
        } else if ((width) <= 64) {                                                                                    \
            constexpr int W = 64;                                                                                      \
            __VA_ARGS__;                                                                                               \
        } else if ((width) <= 128) {                                                                                   \
            constexpr int W = 128;                                                                                     \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int W = most;                                                                                    \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

/* ---- attention_mma.cu: bf16, head widths that are multiples of 16 up to 128, pointers aligned to 16 bytes ---- */

static inline bool attention_takes_mma(const struct attention_shape &a, enum kernel_type type)
{
    return type == KERNEL_BF16 && a.width % 16 == 0 && a.width <= 128;
}

int attention_forward_mma(bf16 *out, float *lse, const bf16 *qkv, const int32_t *offsets, const bf16 *memory,
                          const struct kernel_attention *shape, kernel_stream stream);
int attention_backward_mma(bf16 *dqkv, bf16 *dmemory, const bf16 *dout, const bf16 *qkv, const int32_t *offsets,
                           const bf16 *memory, const bf16 *out, const float *lse, const struct kernel_attention *shape,
                           bool add_dqkv, bool add_dmemory, kernel_stream stream);

#endif
