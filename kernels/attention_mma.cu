/* Attention of attention.cu in bf16 on tensor cores: the same shapes and formulas.
 *
 * A sentence's keys are its M latent ones and then its tokens, in steps of 16, so latents cost a step only where T + M
 * needs one more than T. Queries have slots: in causal attention M % 16 empty slots stand in front, so that the
 * diagonal of every 16 x 16 step is the diagonal of the mask. Columns past the head's width are zeros.
 *
 * Forward: a warp has 16 queries and takes 32 keys at a time, with an online softmax in registers. Shared memory holds
 * all keys of a sentence of up to 256, and chunks of the keys of a longer one. Backward: a warp has 16 keys, keeps
 * their dk and dv in registers and walks the queries, 32 at a time, so that p^T and ds^T need no other warp. Where one
 * block holds all keys of a sentence, ds goes through shared memory and the same block computes dq. For longer
 * sentences a second kernel computes dq, with 16 queries a warp. p and ds are rounded to bf16 for the products; sums
 * are f32. */
#include "kernels/attention_mma.cuh"

enum { KEYS = 32, QUERIES = 32, DS_PITCH = QUERIES + 8, SHORT = 96, DQ_WARPS = 4 };
static constexpr float LOG2E = 1.4426950408889634f;

/* Warps of a backward block. FUSED: one block has all keys of a sentence. */
template <int W, bool FUSED> static constexpr int backward_warps = (FUSED ? 16 : 8) / (W > 64 ? 2 : 1);

/* Warps of a forward block: few for short sentences, so that more blocks run at once. With three blocks a
 * multiprocessor, processors other than Hopper would spill registers. */
template <bool BRIEF> static constexpr int forward_warps = BRIEF ? 6 : 8;
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ == 900
static constexpr int BRIEF_BLOCKS = 3;
#else
static constexpr int BRIEF_BLOCKS = 2;
#endif

/* Online softmax: replaces the tile's scores by exp(score - maximum), and rescales the earlier sum and output to the
 * new maximum. */
template <int W>
static __device__ __forceinline__ void softmax_tile(float (&p)[KEYS / STEP][2][4], float (&acc_o)[W / 8][4],
                                                    float (&row_max)[2], float (&row_sum)[2], int j, int warp_keys,
                                                    float softmax_scale_log2)
{
    KERNEL_UNROLL
    for (int h = 0; h < 2; h++) {
        float new_max = row_max[h], scores_scale;
        KERNEL_UNROLL
        for (int i = 0; i < KEYS / 4; i++) /* a step of 16 that no query sees has no scores */
            if (j + i / 4 * STEP < warp_keys) new_max = fmaxf(new_max, p[i / 4][i / 2 % 2][2 * h + i % 2]);
        /* Over the four lanes of a row; finite, because every query sees the first key. */
        new_max = fmaxf(new_max, __shfl_xor_sync(FULL_WARP, new_max, 1));
        new_max = fmaxf(new_max, __shfl_xor_sync(FULL_WARP, new_max, 2));
        scores_scale = exp2_fast((row_max[h] - new_max) * softmax_scale_log2);
        row_max[h] = new_max;
        row_sum[h] *= scores_scale;
        KERNEL_UNROLL
        for (int i = 0; i < KEYS / 4; i++) {
            float &prob = p[i / 4][i / 2 % 2][2 * h + i % 2];
            if (j + i / 4 * STEP >= warp_keys) continue;
            prob = exp2_fast(prob * softmax_scale_log2 - new_max * softmax_scale_log2);
            row_sum[h] += prob;
        }
        KERNEL_UNROLL
        for (int n = 0; n < W / 8; n++) {
            acc_o[n][2 * h] *= scores_scale;
            acc_o[n][2 * h + 1] *= scores_scale;
        }
    }
}

template <int W, bool BRIEF>
static __global__ void __launch_bounds__(forward_warps<BRIEF> *WARP, W > 64  ? 1
                                                                     : BRIEF ? BRIEF_BLOCKS
                                                                             : 2)
    attention_forward_mma_kernel(bf16 *__restrict__ out, float *__restrict__ lse, const bf16 *__restrict__ qkv,
                                 const int32_t *__restrict__ offsets, const bf16 *__restrict__ memory,
                                 struct attention_shape a, int chunk)
{
    constexpr int PITCH = W + 8;
    KERNEL_DYNAMIC_SHARED(bf16, shared);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, g = lane / 4, t = lane % 4,
        rows = (int)blockDim.x / 2;
    bf16 *queries = shared + warp * STEP * PITCH, *keys = shared + rows * PITCH, *values = keys + chunk * PITCH;
    unsigned head = blockIdx.x % a.heads, kv = head / (a.heads / a.kv_heads);
    struct span s = span_of(offsets, blockIdx.x / a.heads, a, STEP);
    float softmax_scale_log2 = a.scale * LOG2E;
    int start = (int)blockIdx.y * rows;
    for (int first = start; first < s.slots; first += (int)gridDim.y * rows) {
        int slot = first + warp * STEP, warp_keys = slot < s.slots ? visible(s, slot + STEP - 1) : 0;
        int block_keys = s.count > chunk ? visible(s, first + rows - 1) : s.count; /* keys that the block needs */
        float acc_o[W / 8][4] = {}, row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {};
        fetch_rows<W>(queries, STEP, lane, WARP, (int)a.width, qkv,
                      [&](int r) { return slot_row(s, qkv + head * a.width, a.row, slot + r); });
        for (int from = 0; from < block_keys; from += chunk) {
            if (s.count > chunk || first == start) { /* a single chunk stays for all queries */
                __syncthreads(); /* all warps have read the chunk before, which this one overwrites */
                fetch_keys<W>(keys, values, from, min(chunk, (block_keys - from + STEP - 1) / STEP * STEP), s, a, kv,
                              qkv, memory);
            }
            cp_async_commit();
            cp_async_wait<0>();
            __syncthreads();
            for (int j = from; j < min(from + chunk, warp_keys); j += KEYS) {
                /* Scores: q k^T for two steps of 16 keys. */
                float p[KEYS / STEP][2][4] = {};
                unsigned q[W / 16][4];
                KERNEL_UNROLL
                for (int k = 0; k < W / 16; k++) ldmatrix_x4(q[k], quarters(queries + 16 * k, PITCH));
                KERNEL_UNROLL
                for (int u = 0; u < KEYS / STEP; u++)
                    if (j + STEP * u < warp_keys) times_rows<W>(p[u], q, keys + (j - from + STEP * u) * PITCH);
                /* Mask: only a tile that crosses the diagonal or the last key. */
                if (j + KEYS > visible(s, slot)) {
                    int limit[2] = {visible(s, slot + g), visible(s, slot + g + 8)};
                    KERNEL_UNROLL
                    for (int i = 0; i < KEYS / 2; i++)
                        if (j + i / 8 * 16 + i / 4 % 2 * 8 + 2 * t + i % 2 >= limit[i / 2 % 2])
                            p[i / 8][i / 4 % 2][i % 4] = -INFINITY;
                }
                softmax_tile<W>(p, acc_o, row_max, row_sum, j, warp_keys, softmax_scale_log2);
                KERNEL_UNROLL
                for (int u = 0; u < KEYS / STEP; u++) {
                    unsigned left[4];
                    if (j + STEP * u >= warp_keys) continue;
                    as_left(left, p[u][0], p[u][1]);
                    times_columns<W>(acc_o, left, values + (j - from + STEP * u) * PITCH);
                }
            }
        }
        KERNEL_UNROLL
        for (int h = 0; h < 2; h++) {
            row_sum[h] += __shfl_xor_sync(FULL_WARP, row_sum[h], 1);
            row_sum[h] += __shfl_xor_sync(FULL_WARP, row_sum[h], 2);
            int n = slot + g + 8 * h;
            if (t == 0 && n >= s.lead && n < s.slots)
                lse[(size_t)(s.begin + (unsigned)(n - s.lead)) * a.heads + head] =
                    row_max[h] * a.scale + logf(row_sum[h]);
        }
        store_rows<W / 8>(queries, PITCH, acc_o, 1.0f / row_sum[0], 1.0f / row_sum[1], (int)a.width, false, [&](int r) {
            return target{const_cast<bf16 *>(slot_row(s, out + head * a.width, a.heads * a.width, slot + r)), false};
        });
    }
}

/* Stores dk and dv of the warp's 16 keys to dqkv or dmemory, staged in the memory of the keys and values. */
template <int W>
static __device__ __forceinline__ void store_dkv(bf16 *dqkv, bf16 *dmemory, const float (&acc_dk)[W / 8][4],
                                                 const float (&acc_dv)[W / 8][4], bf16 *keys, bf16 *values,
                                                 const struct span &s, const struct attention_shape &a, unsigned kv,
                                                 int first_key, int warp, bool add_qkv, bool add_memory)
{
    constexpr int PITCH = W + 8;
    KERNEL_UNROLL
    for (unsigned which = 0; which < 2; which++) {
        float scale = which ? 1.0f : a.scale;
        store_rows<W / 8>((which ? values : keys) + STEP * warp * PITCH, PITCH, which ? acc_dv : acc_dk, scale, scale,
                          (int)a.width, add_qkv || add_memory, [&](int r) {
                              bool latent = first_key + r < (int)a.memory;
                              if (!(latent ? dmemory : dqkv) || first_key + r >= s.count) return target{nullptr, false};
                              const bf16 *to = kv_row<bf16>(a, dqkv, dmemory, s.begin, s.sentence, kv,
                                                            (unsigned)(first_key + r), which);
                              return target{const_cast<bf16 *>(to), latent ? add_memory : add_qkv};
                          });
    }
}

/* Computes dk and dv of the block's keys, and dq if the block has all keys of the sentence. A block per (sentence, key
 * head, part of the keys). Shared memory holds lse and D of the current queries; lse is +inf where there is no query,
 * so that p is 0. */
template <int W, bool FUSED>
static __global__ void __launch_bounds__(backward_warps<W, FUSED> *WARP)
    attention_backward_mma_kernel(bf16 *dqkv, bf16 *dmemory, const bf16 *__restrict__ dout,
                                  const bf16 *__restrict__ qkv, const int32_t *__restrict__ offsets,
                                  const bf16 *__restrict__ memory, const bf16 *__restrict__ out,
                                  const float *__restrict__ lse, struct attention_shape a, bool add_qkv,
                                  bool add_memory)
{
    constexpr int PITCH = W + 8, ARRAY = QUERIES * PITCH;
    KERNEL_DYNAMIC_SHARED(float, shared);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, g = lane / 4, t = lane % 4,
        rows = (int)blockDim.x / 2;
    float *tile_dP_sum = shared + 2 * QUERIES; /* D, (2, QUERIES), behind lse * log2(e) of the same shape */
    bf16 *keys = reinterpret_cast<bf16 *>(shared + 4 * QUERIES), *values = keys + rows * PITCH,
         *shared_ds = values + rows * PITCH;
    bf16 *stages = shared_ds + (FUSED ? rows * DS_PITCH : 0); /* (1 or 2 stages, q | dout, QUERIES) rows */
    unsigned kv = blockIdx.x % a.kv_heads, group = a.heads / a.kv_heads;
    struct span s = span_of(offsets, blockIdx.x / a.kv_heads, a, STEP);
    int first = (int)blockIdx.y * rows, first_key = first + STEP * warp; /* first key of the block, of the warp */
    if (first >= s.count) return;
    /* The first tile of slots with a query that sees any of the block's keys. */
    int first_query = s.causal ? max(0, first - (s.count - s.length - s.lead)) / QUERIES * QUERIES : 0;
    int tiles = max(0, s.slots - first_query + QUERIES - 1) / QUERIES, steps = tiles * (int)group;
    float softmax_scale_log2 = a.scale * LOG2E, acc_dk[W / 8][4] = {}, acc_dv[W / 8][4] = {};

    auto fetch_queries = [&](int step) {
        unsigned head = kv * group + (unsigned)(step / tiles);
        bf16 *to = stages + step % 2 * 2 * ARRAY;
        for (int which = 0; which < 2; which++) {
            const bf16 *from = (which ? dout : qkv) + head * a.width;
            fetch_rows<W>(to + which * ARRAY, QUERIES, (int)threadIdx.x, (int)blockDim.x, (int)a.width, qkv,
                          [&](int r) {
                              return slot_row(s, from, which ? a.heads * a.width : a.row,
                                              first_query + step % tiles * QUERIES + r);
                          });
        }
        cp_async_commit();
    };
    fetch_keys<W>(keys, values, first, rows, s, a, kv, qkv, memory);
    cp_async_commit();
    if (steps) fetch_queries(0);
    for (int step = 0; step < steps; step++) {
        unsigned head = kv * group + (unsigned)(step / tiles);
        int slot = first_query + step % tiles * QUERIES;
        bf16 *q_tile = stages + step % 2 * 2 * ARRAY, *dout_tile = q_tile + ARRAY;
        float *lse2 = shared + step % 2 * QUERIES, *dP_sum = tile_dP_sum + step % 2 * QUERIES;
        for (int i = (int)threadIdx.x; i < QUERIES; i += (int)blockDim.x) {
            bool there = slot + i >= s.lead && slot + i < s.slots;
            lse2[i] =
                there ? lse[(size_t)(s.begin + (unsigned)(slot + i - s.lead)) * a.heads + head] * LOG2E : INFINITY;
        }
        compute_dP_sum<W>(dP_sum, dout + head * a.width, out + head * a.width, QUERIES, (int)threadIdx.x,
                          (int)blockDim.x, (int)a.width,
                          [&](int r) { return slot_at(s, a.heads * a.width, slot + r); });
        cp_async_wait<0>();
        __syncthreads(); /* also: every warp has read the other stage, which the next fetch overwrites */
        if (step + 1 < steps) fetch_queries(step + 1);
        for (int u = 0; u < QUERIES / STEP; u++) {
            int at = slot + STEP * u;
            if (at >= s.slots || first_key >= visible(s, at + STEP - 1)) continue;
            float p[2][4] = {}, ds[2][4] = {};
            /* p^T = exp(k q^T / sqrt(W) - lse), ds^T = p^T (v dout^T - D). */
            unsigned left[W / 16][4], rounded[4];
            KERNEL_UNROLL
            for (int k = 0; k < W / 16; k++) ldmatrix_x4(left[k], quarters(keys + STEP * warp * PITCH + 16 * k, PITCH));
            times_rows<W>(p, left, q_tile + STEP * u * PITCH);
            KERNEL_UNROLL
            for (int k = 0; k < W / 16; k++)
                ldmatrix_x4(left[k], quarters(values + STEP * warp * PITCH + 16 * k, PITCH));
            times_rows<W>(ds, left, dout_tile + STEP * u * PITCH);
            bool edge = first_key + STEP > visible(s, at);
            KERNEL_UNROLL
            for (int i = 0; i < 8; i++) {
                int column = STEP * u + i / 4 * 8 + 2 * t + i % 2;
                float &prob = p[i / 4][i % 4];
                prob = exp2_fast(prob * softmax_scale_log2 - lse2[column]);
                if (edge && first_key + g + i / 2 % 2 * 8 >= visible(s, slot + column)) prob = 0;
                ds[i / 4][i % 4] = prob * (ds[i / 4][i % 4] - dP_sum[column]);
            }
            /* dv += p^T dout, dk += ds^T q; the accumulators become the left operand without a shuffle. */
            as_left(rounded, p[0], p[1]);
            times_columns<W>(acc_dv, rounded, dout_tile + STEP * u * PITCH);
            as_left(rounded, ds[0], ds[1]);
            times_columns<W>(acc_dk, rounded, q_tile + STEP * u * PITCH);
            if (FUSED) KERNEL_UNROLL
            for (int i = 0; i < 4; i++) {
                bf16 *to = shared_ds + (STEP * warp + g + i % 2 * 8) * DS_PITCH + STEP * u + i / 2 * 8 + 2 * t;
                *reinterpret_cast<unsigned *>(to) = rounded[i];
            }
        }
        /* The barrier: ds of all keys is in shared memory before any warp sums over keys. */
        if (!FUSED || !dqkv) continue;
        __syncthreads();
        /* dq = ds k, in units of 16 queries and 16 columns. The result is staged in q, which every warp has read. */
        for (int unit = warp; unit < QUERIES / STEP * (W / 16); unit += (int)blockDim.x / WARP) {
            int u = unit / (W / 16), column = unit % (W / 16) * 16, at = slot + STEP * u;
            if (at >= s.slots || column >= (int)a.width) continue;
            float acc_dq[2][4] = {};
            for (int j = 0; j < visible(s, at + STEP - 1); j += STEP) {
                unsigned x[4], right[4];
                ldmatrix_x4_trans(x, quarters(shared_ds + j * DS_PITCH + STEP * u, DS_PITCH));
                ldmatrix_x4_trans(right, quarters(keys + j * PITCH + column, PITCH));
                unsigned left[4] = {x[0], x[2], x[1], x[3]};
                mma_m16n8k16(acc_dq[0], left, right[0], right[1]);
                mma_m16n8k16(acc_dq[1], left, right[2], right[3]);
            }
            store_rows<2>(q_tile + STEP * u * PITCH + column, PITCH, acc_dq, a.scale, a.scale, 16, add_qkv, [&](int r) {
                return target{const_cast<bf16 *>(slot_row(s, dqkv + head * a.width + column, a.row, at + r)), add_qkv};
            });
        }
    }
    cp_async_wait<0>();
    __syncthreads(); /* other warps have read the keys, whose memory stages the result */
    store_dkv<W>(dqkv, dmemory, acc_dk, acc_dv, keys, values, s, a, kv, first_key, warp, add_qkv, add_memory);
}

/* Computes dq where a sentence has too many keys for one block: a warp per 16 queries, keys in chunks. */
template <int W>
static __global__ void __launch_bounds__(DQ_WARPS *WARP, 1)
    attention_dq_mma_kernel(bf16 *dqkv, const bf16 *__restrict__ dout, const bf16 *__restrict__ qkv,
                            const int32_t *__restrict__ offsets, const bf16 *__restrict__ memory,
                            const bf16 *__restrict__ out, const float *__restrict__ lse, struct attention_shape a,
                            int chunk, bool add)
{
    constexpr int PITCH = W + 8, ARRAY = STEP * PITCH;
    KERNEL_DYNAMIC_SHARED(float, shared);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, g = lane / 4, t = lane % 4,
        rows = (int)blockDim.x / 2;
    float *dP_sum = shared + warp * STEP;
    bf16 *keys = reinterpret_cast<bf16 *>(shared + rows), *values = keys + chunk * PITCH;
    bf16 *queries = values + chunk * PITCH + warp * 2 * ARRAY, *dout_tile = queries + ARRAY;
    unsigned head = blockIdx.x % a.heads, kv = head / (a.heads / a.kv_heads);
    struct span s = span_of(offsets, blockIdx.x / a.heads, a, STEP);
    int first = (int)blockIdx.y * rows, slot = first + warp * STEP,
        warp_keys = slot < s.slots ? visible(s, slot + STEP - 1) : 0;
    if (first >= s.slots) return;
    for (int which = 0; which < 2; which++) {
        const bf16 *from = (which ? dout : qkv) + head * a.width;
        fetch_rows<W>(queries + which * ARRAY, STEP, lane, WARP, (int)a.width, qkv,
                      [&](int r) { return slot_row(s, from, which ? a.heads * a.width : a.row, slot + r); });
    }
    compute_dP_sum<W>(dP_sum, dout + head * a.width, out + head * a.width, STEP, lane, WARP, (int)a.width,
                      [&](int r) { return slot_at(s, a.heads * a.width, slot + r); });
    float softmax_scale_log2 = a.scale * LOG2E, lse2[2], acc_dq[W / 8][4] = {};
    for (int h = 0; h < 2; h++) {
        int n = slot + g + 8 * h;
        lse2[h] = n >= s.lead && n < s.slots ? lse[(size_t)(s.begin + (unsigned)(n - s.lead)) * a.heads + head] * LOG2E
                                             : INFINITY;
    }
    int block_keys = visible(s, first + rows - 1);
    for (int from = 0; from < block_keys; from += chunk) {
        __syncthreads(); /* all warps have read the chunk before, which this one overwrites */
        fetch_keys<W>(keys, values, from, min(chunk, (block_keys - from + STEP - 1) / STEP * STEP), s, a, kv, qkv,
                      memory);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        unsigned left[W / 16][4], right[W / 16][4];
        KERNEL_UNROLL
        for (int k = 0; k < W / 16; k++) {
            ldmatrix_x4(left[k], quarters(queries + 16 * k, PITCH));
            ldmatrix_x4(right[k], quarters(dout_tile + 16 * k, PITCH));
        }
        for (int j = from; j < min(from + chunk, warp_keys); j += STEP) {
            /* ds = p (dout v^T - D), dq += ds k */
            float p[2][4] = {}, ds[2][4] = {};
            unsigned rounded[4];
            times_rows<W>(p, left, keys + (j - from) * PITCH);
            times_rows<W>(ds, right, values + (j - from) * PITCH);
            KERNEL_UNROLL
            for (int i = 0; i < 8; i++) {
                int h = i / 2 % 2, key = j + i / 4 * 8 + 2 * t + i % 2;
                float prob = key < visible(s, slot + g + 8 * h)
                                 ? exp2_fast(p[i / 4][i % 4] * softmax_scale_log2 - lse2[h])
                                 : 0.0f;
                ds[i / 4][i % 4] = prob * (ds[i / 4][i % 4] - dP_sum[g + 8 * h]);
            }
            as_left(rounded, ds[0], ds[1]);
            times_columns<W>(acc_dq, rounded, keys + (j - from) * PITCH);
        }
    }
    store_rows<W / 8>(queries, PITCH, acc_dq, a.scale, a.scale, (int)a.width, add, [&](int r) {
        return target{const_cast<bf16 *>(slot_row(s, dqkv + head * a.width, a.row, slot + r)), add};
    });
}

/* ---- launchers ---- */

static size_t least(size_t x, size_t y)
{
    return x < y ? x : y;
}

static size_t steps_of(size_t rows)
{
    return (rows + STEP - 1) / STEP;
}

/* Returns the keys per chunk: all of them if they and `others` (bytes) fit the budget, else the largest multiple of
 * KEYS that fits, at least KEYS. */
static size_t chunk_of(size_t keys, size_t others, size_t key_bytes, size_t budget)
{
    size_t all = steps_of(keys) * STEP, room = (least(budget, shared_limit()) - others) / key_bytes;
    return all <= room ? all : room < KEYS ? (size_t)KEYS : room / KEYS * KEYS;
}

template <int W, bool BRIEF>
static int launch_forward(bf16 *out, float *lse, const bf16 *qkv, const int32_t *offsets, const bf16 *memory,
                          const struct kernel_attention *shape, kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(shape);
    size_t slots = shape->longest + (a.causal ? a.memory % STEP : 0), keys = shape->longest + a.memory;
    size_t warps = least(steps_of(slots), forward_warps<BRIEF>), row = (W + 8) * sizeof(bf16),
           queries = warps * STEP * row;
    size_t chunk = chunk_of(keys, queries, 2 * row, 112 << 10), bytes = queries + 2 * chunk * row;
    size_t blocks = chunk < keys ? (slots + warps * STEP - 1) / (warps * STEP) : 1;
    int e = allow_shared(attention_forward_mma_kernel<W, BRIEF>, bytes);
    if (e) return e;
    KERNEL_LAUNCH((attention_forward_mma_kernel<W, BRIEF>),
                  dim3((unsigned)(shape->sentences * a.heads), (unsigned)blocks), (unsigned)warps * WARP, bytes, stream,
                  out, lse, qkv, offsets, memory, a, (int)chunk);
    return cudaGetLastError();
}

int attention_forward_mma(bf16 *out, float *lse, const bf16 *qkv, const int32_t *offsets, const bf16 *memory,
                          const struct kernel_attention *shape, kernel_stream stream)
{
    if (!shape->longest) return 0;
    ATTENTION_WIDTH(shape->head_width, 128, KERNEL_FLAG(shape->longest <= SHORT, BRIEF, {
                        return launch_forward<W, BRIEF>(out, lse, qkv, offsets, memory, shape, stream);
                    }));
}

template <int W, bool FUSED> static size_t backward_bytes(size_t warps, size_t steps)
{
    size_t rows = warps * STEP * (2 * (W + 8) + (FUSED ? DS_PITCH : 0)) + (steps > 1 ? 2 : 1) * 2 * QUERIES * (W + 8);
    return 4 * QUERIES * sizeof(float) + rows * sizeof(bf16);
}

template <int W, bool FUSED>
static int launch_backward(bf16 *dqkv, bf16 *dmemory, const bf16 *dout, const bf16 *qkv, const int32_t *offsets,
                           const bf16 *memory, const bf16 *out, const float *lse, const struct kernel_attention *shape,
                           size_t keys, size_t warps, size_t bytes, bool add_dqkv, bool add_dmemory,
                           kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(shape);
    dim3 grid((unsigned)(shape->sentences * a.kv_heads), (unsigned)((keys + warps * STEP - 1) / (warps * STEP)));
    int e = allow_shared(attention_backward_mma_kernel<W, FUSED>, bytes);
    if (e) return e;
    KERNEL_LAUNCH((attention_backward_mma_kernel<W, FUSED>), grid, (unsigned)warps * WARP, bytes, stream, dqkv, dmemory,
                  dout, qkv, offsets, memory, out, lse, a, add_dqkv, add_dmemory);
    return cudaGetLastError();
}

int attention_backward_mma(bf16 *dqkv, bf16 *dmemory, const bf16 *dout, const bf16 *qkv, const int32_t *offsets,
                           const bf16 *memory, const bf16 *out, const float *lse, const struct kernel_attention *shape,
                           bool add_dqkv, bool add_dmemory, kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(shape);
    size_t longest = shape->longest, slots = longest + (a.causal ? a.memory % STEP : 0);
    size_t keys = longest + a.memory, steps = (slots + QUERIES - 1) / QUERIES * (a.heads / a.kv_heads);
    if (!keys) return 0;
    ATTENTION_WIDTH(a.width, 128, {
        size_t warps = steps_of(keys), bytes = backward_bytes<W, true>(warps, steps);
        if (warps <= backward_warps<W, true> && bytes <= shared_limit())
            return launch_backward<W, true>(dqkv, dmemory, dout, qkv, offsets, memory, out, lse, shape, keys, warps,
                                            bytes, add_dqkv, add_dmemory, stream);
        warps = least(warps, backward_warps<W, false>);
        bytes = backward_bytes<W, false>(warps, steps);
        int e = launch_backward<W, false>(dqkv, dmemory, dout, qkv, offsets, memory, out, lse, shape, keys, warps,
                                          bytes, add_dqkv, add_dmemory, stream);
        if (e || !dqkv || !longest) return e;
        size_t row = (W + 8) * sizeof(bf16), others = DQ_WARPS * STEP * (2 * row + sizeof(float));
        size_t chunk = chunk_of(keys, others, 2 * row, 72 << 10);
        bytes = others + 2 * chunk * row;
        e = allow_shared(attention_dq_mma_kernel<W>, bytes);
        if (e) return e;
        KERNEL_LAUNCH(attention_dq_mma_kernel<W>,
                      dim3((unsigned)(shape->sentences * a.heads), blocks_for(slots, DQ_WARPS * STEP)), DQ_WARPS * WARP,
                      bytes, stream, dqkv, dout, qkv, offsets, memory, out, lse, a, (int)chunk, add_dqkv);
    });
    return cudaGetLastError();
}
