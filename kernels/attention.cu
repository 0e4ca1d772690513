/* Attention within packed sentences, latent keys and values in front (Dao et al. 2022 for the online softmax).
 *
 *   qkv (N, (H + 2 Hk) W)    memory (S, M, 2, Hk W)    out (N, H W)    lse (N, H)
 *   p = exp(q k^T / sqrt(W) - lse), out = p v;   D = rowsum(dout out)
 *   ds = p (dout v^T - D) / sqrt(W);   dq = ds k;   dk = ds^T q;   dv = p^T dout
 *
 * These kernels take every head width up to 256 in f32 and bf16, with f32 arithmetic. attention_mma.cu is the path on
 * tensor cores.
 *
 * Forward and dq: a warp has 16 queries. Shared memory holds all keys of a short sentence, and chunks of the keys of a
 * longer one. A warp computes a tile of 16 x 32 scores in registers and passes the tile through shared memory to the
 * product with the values or keys. dk, dv: a warp has 16 keys and walks the queries in the same way. Heads wider than
 * 128 have half as many rows and columns in a tile. A partial tile computes only the octets of columns that exist. The
 * order of a row's sums depends on its sentence only, not on the number of warps in a block or the length of a chunk.
 * No atomics. */
#include "kernels/attention_tiles.cuh"

/* Blocks that a multiprocessor has registers for. */
template <int W> static constexpr int BLOCKS = W > 64 ? 2 : 3;

template <typename T, int W>
static __global__ void __launch_bounds__(tiling<W>::WARPS *WARP, BLOCKS<W>)
    attention_forward_kernel(T *__restrict__ out, float *__restrict__ lse, const T *__restrict__ qkv,
                             const int32_t *__restrict__ offsets, const T *__restrict__ memory,
                             struct attention_shape a, int chunk, bool packed)
{
    using tile = tiling<W>;
    KERNEL_DYNAMIC_SHARED(float, shared);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, rows = (int)blockDim.x / WARP * tile::OWN;
    float *keys = shared, *values = keys + chunk * tile::PITCH;
    float *queries = values + chunk * tile::PITCH + warp * tile::OWN * (tile::PITCH + tile::WEIGHTS);
    float *weights = queries + tile::OWN * tile::PITCH;
    unsigned head = blockIdx.x % a.heads, kv = head / (a.heads / a.kv_heads);
    struct span s = span_of(offsets, blockIdx.x / a.heads, a, 1);
    int first = (int)blockIdx.y * rows, slot = first + warp * tile::OWN;
    if (first >= s.length) return;
    int block_keys = visible(s, min(first + rows, s.length) - 1); /* keys that the block needs; below: the warp */
    int warp_keys = slot < s.length ? visible(s, min(slot + tile::OWN, s.length) - 1) : 0;
    float acc_o[tile::ROWS][W / 32][4] = {}, row_max[tile::ROWS], row_sum[tile::ROWS];
    for (int i = 0; i < tile::ROWS; i++) {
        row_max[i] = -INFINITY;
        row_sum[i] = 0;
    }
    fetch_rows<W, T>(queries, tile::OWN, lane, WARP, (int)a.width, packed,
                     [&](int r) { return slot_row(s, qkv + head * a.width, a.row, slot + r); });
    for (int from = 0; from < block_keys; from += chunk) {
        if (from) __syncthreads(); /* all warps have read the chunk before, which this one overwrites */
        fetch_keys<W>(keys, values, from, min(chunk, (block_keys - from + 7) / 8 * 8), (int)threadIdx.x,
                      (int)blockDim.x, s, a, kv, qkv, memory, packed);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        for (int j = from; j < min(from + chunk, warp_keys); j += tile::TILE) {
            int n = min(tile::TILE, warp_keys - j), octets = (n + 7) / 8;
            float p[tile::ROWS][tile::OCTETS] = {};
            /* Scores of the tile: q k^T. */
            times_rows<W>(p, queries, keys + (j - from) * tile::PITCH, (int)a.width, octets);
            KERNEL_UNROLL
            for (int i = 0; i < tile::ROWS; i++) {
                /* Mask, then the online softmax: the new maximum rescales the earlier sum and output. */
                int limit = visible(s, slot + own_row() + 4 * i) - j - other_row();
                float new_max = row_max[i], scores_scale;
                KERNEL_UNROLL
                for (int k = 0; k < tile::OCTETS; k++) {
                    p[i][k] = 8 * k < limit ? p[i][k] * a.scale : -INFINITY;
                    new_max = fmaxf(new_max, p[i][k]);
                }
                new_max = reduce_row_max(new_max); /* finite: every query sees the first key */
                scores_scale = expf(row_max[i] - new_max);
                row_max[i] = new_max;
                row_sum[i] *= scores_scale;
                KERNEL_UNROLL
                for (int k = 0; k < tile::OCTETS; k++) {
                    if (k >= octets) continue;
                    p[i][k] = expf(p[i][k] - new_max);
                    row_sum[i] += p[i][k];
                }
                KERNEL_UNROLL
                for (int c = 0; c < W / 8; c++) acc_o[i][c / 4][c % 4] *= scores_scale;
            }
            /* out += p v */
            put_weights<W>(weights, p);
            times_columns<W>(acc_o, weights, values + (j - from) * tile::PITCH, (n + 3) / 4 * 4);
        }
    }
    KERNEL_UNROLL
    for (int i = 0; i < tile::ROWS; i++) {
        int n = slot + own_row() + 4 * i;
        float total = reduce_row_sum(row_sum[i]);
        if (n >= s.length) continue;
        size_t at = (size_t)(s.begin + (unsigned)n) * a.heads + head;
        put_row<W>(out + at * a.width, acc_o[i], 1.0f / total, (int)a.width, false, packed);
        if (other_row() == 0) lse[at] = row_max[i] + logf(total);
    }
}

/* Writes D of the warp's queries to `dP_sum`, and their dq unless `dqkv` is null. */
template <typename T, int W>
static __global__ void __launch_bounds__(tiling<W>::WARPS *WARP, BLOCKS<W>)
    attention_dq_kernel(T *dqkv, float *__restrict__ dP_sum, const T *__restrict__ dout, const T *__restrict__ qkv,
                        const int32_t *__restrict__ offsets, const T *__restrict__ memory, const T *__restrict__ out,
                        const float *__restrict__ lse, struct attention_shape a, int chunk, bool packed, bool add)
{
    using tile = tiling<W>;
    KERNEL_DYNAMIC_SHARED(float, shared);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, rows = (int)blockDim.x / WARP * tile::OWN;
    float *keys = shared, *values = keys + chunk * tile::PITCH;
    float *queries = values + chunk * tile::PITCH + warp * tile::OWN * (2 * tile::PITCH + tile::WEIGHTS);
    float *douts = queries + tile::OWN * tile::PITCH, *weights = douts + tile::OWN * tile::PITCH;
    unsigned head = blockIdx.x % a.heads, kv = head / (a.heads / a.kv_heads);
    struct span s = span_of(offsets, blockIdx.x / a.heads, a, 1);
    int first = (int)blockIdx.y * rows, slot = first + warp * tile::OWN;
    if (first >= s.length) return;
    int block_keys = visible(s, min(first + rows, s.length) - 1); /* keys that the block needs; below: the warp */
    int warp_keys = slot < s.length ? visible(s, min(slot + tile::OWN, s.length) - 1) : 0;
    float acc_dq[tile::ROWS][W / 32][4] = {}, row_dP_sum[tile::ROWS], row_lse[tile::ROWS];
    KERNEL_UNROLL
    for (int i = 0; i < tile::ROWS; i++) { /* rows past the end read the last query */
        int n = slot + own_row() + 4 * i;
        size_t at = (size_t)(s.begin + (unsigned)min(n, s.length - 1)) * a.heads + head;
        row_dP_sum[i] = row_product<W>(dout + at * a.width, out + at * a.width, (int)a.width, packed);
        row_lse[i] = lse[at];
        if (other_row() == 0 && n < s.length) dP_sum[at] = row_dP_sum[i];
    }
    if (!dqkv) return;
    KERNEL_UNROLL_BY(1)
    for (int which = 0; which < 2; which++) {
        const T *from = (which ? dout : qkv) + head * a.width;
        fetch_rows<W, T>(which ? douts : queries, tile::OWN, lane, WARP, (int)a.width, packed,
                         [&](int r) { return slot_row(s, from, which ? a.heads * a.width : a.row, slot + r); });
    }
    for (int from = 0; from < block_keys; from += chunk) {
        if (from) __syncthreads(); /* as in the forward kernel */
        fetch_keys<W>(keys, values, from, min(chunk, (block_keys - from + 7) / 8 * 8), (int)threadIdx.x,
                      (int)blockDim.x, s, a, kv, qkv, memory, packed);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        for (int j = from; j < min(from + chunk, warp_keys); j += tile::TILE) {
            int n = min(tile::TILE, warp_keys - j), octets = (n + 7) / 8;
            float p[tile::ROWS][tile::OCTETS] = {}, ds[tile::ROWS][tile::OCTETS] = {};
            /* p = exp(q k^T / sqrt(W) - lse), ds = p (dout v^T - D), dq += ds k; 1 / sqrt(W) follows at the end. */
            times_rows<W>(p, queries, keys + (j - from) * tile::PITCH, (int)a.width, octets);
            times_rows<W>(ds, douts, values + (j - from) * tile::PITCH, (int)a.width, octets);
            KERNEL_UNROLL
            for (int i = 0; i < tile::ROWS; i++) {
                int limit = visible(s, slot + own_row() + 4 * i) - j - other_row();
                KERNEL_UNROLL
                for (int k = 0; k < tile::OCTETS; k++) {
                    if (k >= octets) continue;
                    float prob = 8 * k < limit ? expf(p[i][k] * a.scale - row_lse[i]) : 0.0f;
                    ds[i][k] = prob * (ds[i][k] - row_dP_sum[i]);
                }
            }
            put_weights<W>(weights, ds);
            times_columns<W>(acc_dq, weights, keys + (j - from) * tile::PITCH, (n + 3) / 4 * 4);
        }
    }
    KERNEL_UNROLL
    for (int i = 0; i < tile::ROWS; i++) {
        int n = slot + own_row() + 4 * i;
        if (n >= s.length) continue;
        put_row<W>(dqkv + (size_t)(s.begin + (unsigned)n) * a.row + head * a.width, acc_dq[i], a.scale, (int)a.width,
                   add, packed);
    }
}

/* A block per (sentence, key head, part of the keys). Shared memory holds lse and D of the chunk's queries; lse is +inf
 * where there is no query, so that p is 0. */
template <typename T, int W>
static __global__ void __launch_bounds__(tiling<W>::WARPS *WARP, BLOCKS<W>)
    attention_dkv_kernel(T *dqkv, T *dmemory, const float *__restrict__ dP_sum, const T *__restrict__ dout,
                         const T *__restrict__ qkv, const int32_t *__restrict__ offsets, const T *__restrict__ memory,
                         const float *__restrict__ lse, struct attention_shape a, int chunk, bool packed, bool add_qkv,
                         bool add_memory)
{
    using tile = tiling<W>;
    KERNEL_DYNAMIC_SHARED(float, shared);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, rows = (int)blockDim.x / WARP * tile::OWN;
    float *queries = shared, *douts = queries + chunk * tile::PITCH, *tile_lse = douts + chunk * tile::PITCH,
          *tile_dP_sum = tile_lse + chunk;
    float *keys = tile_dP_sum + chunk + warp * tile::OWN * (2 * tile::PITCH + tile::WEIGHTS);
    float *values = keys + tile::OWN * tile::PITCH, *weights = values + tile::OWN * tile::PITCH;
    unsigned kv = blockIdx.x % a.kv_heads, group = a.heads / a.kv_heads;
    struct span s = span_of(offsets, blockIdx.x / a.kv_heads, a, 1);
    int first = (int)blockIdx.y * rows, first_key = first + warp * tile::OWN;
    if (first >= s.count) return;
    /* The first tile with a query that sees any key of the block. */
    int first_query = s.causal ? max(0, first - (int)a.memory) / tile::TILE * tile::TILE : 0;
    float acc_dk[tile::ROWS][W / 32][4] = {}, acc_dv[tile::ROWS][W / 32][4] = {};
    fetch_keys<W>(keys, values, first_key, tile::OWN, lane, WARP, s, a, kv, qkv, memory, packed);
    cp_async_commit();
    for (unsigned head = kv * group; head < (kv + 1) * group; head++)
        for (int from = first_query; from < s.length; from += chunk) {
            int staged = min(chunk, (s.length - from + 7) / 8 * 8);
            __syncthreads(); /* all warps have read the chunk before, which this one overwrites */
            KERNEL_UNROLL_BY(1)
            for (int which = 0; which < 2; which++) {
                const T *source = (which ? dout : qkv) + head * a.width;
                fetch_rows<W, T>(
                    which ? douts : queries, staged, (int)threadIdx.x, (int)blockDim.x, (int)a.width, packed,
                    [&](int r) { return slot_row(s, source, which ? a.heads * a.width : a.row, from + r); });
            }
            KERNEL_UNROLL_BY(1)
            for (int i = (int)threadIdx.x; i < staged; i += (int)blockDim.x) {
                long long at = slot_at(s, a.heads, from + i);
                tile_lse[i] = at < 0 ? INFINITY : lse[at + head];
                tile_dP_sum[i] = at < 0 ? 0.0f : dP_sum[at + head];
            }
            cp_async_commit();
            cp_async_wait<0>();
            __syncthreads();
            for (int j = from; j < min(from + chunk, s.length); j += tile::TILE) {
                int n = min(tile::TILE, s.length - j), octets = (n + 7) / 8;
                if (first_key >= visible(s, j + n - 1)) continue;
                float p[tile::ROWS][tile::OCTETS] = {}, ds[tile::ROWS][tile::OCTETS] = {};
                /* The transposed tiles: p^T and ds^T, whose rows are keys. dv += p^T dout, dk += ds^T q. */
                times_rows<W>(p, keys, queries + (j - from) * tile::PITCH, (int)a.width, octets);
                times_rows<W>(ds, values, douts + (j - from) * tile::PITCH, (int)a.width, octets);
                KERNEL_UNROLL
                for (int k = 0; k < tile::OCTETS; k++) {
                    if (k >= octets) continue;
                    int query = j + other_row() + 8 * k, limit = visible(s, query) - first_key - own_row();
                    float row_lse = tile_lse[query - from], row_dP_sum = tile_dP_sum[query - from];
                    KERNEL_UNROLL
                    for (int i = 0; i < tile::ROWS; i++) {
                        p[i][k] = 4 * i < limit ? expf(p[i][k] * a.scale - row_lse) : 0.0f;
                        ds[i][k] = p[i][k] * (ds[i][k] - row_dP_sum);
                    }
                }
                put_weights<W>(weights, p);
                times_columns<W>(acc_dv, weights, douts + (j - from) * tile::PITCH, (n + 3) / 4 * 4);
                put_weights<W>(weights, ds);
                times_columns<W>(acc_dk, weights, queries + (j - from) * tile::PITCH, (n + 3) / 4 * 4);
            }
        }
    cp_async_wait<0>(); /* no copy may be in flight at the end, even if the sentence has no query */
    KERNEL_UNROLL
    for (int i = 0; i < tile::ROWS; i++) {
        int n = first_key + own_row() + 4 * i;
        bool latent = n < (int)a.memory, add = latent ? add_memory : add_qkv;
        T *to = latent ? dmemory : dqkv;
        if (!to || n >= s.count) continue;
        to = const_cast<T *>(kv_row<T>(a, dqkv, dmemory, s.begin, s.sentence, kv, (unsigned)n, 0));
        put_row<W>(to, acc_dk[i], a.scale, (int)a.width, add, packed);
        put_row<W>(to + a.kv_heads * a.width, acc_dv[i], 1.0f, (int)a.width, add, packed);
    }
}

/* ---- launchers ---- */

/* Returns the rows that the warps of a block share in shared memory at a time, for at most `all` rows. */
template <int W> static size_t stage_of(size_t all)
{
    return all <= tiling<W>::STAGE ? (all + 7) / 8 * 8 : (size_t)tiling<W>::TILE;
}

/* A launch for `pairs` (sentence, head) of at most `all` > 0 rows owned by warps; a warp keeps `arrays` arrays of its
 * rows in shared memory. */
struct launch {
    dim3 grid;
    unsigned threads;
    size_t bytes;
};

template <int W> static struct launch launch_of(size_t pairs, size_t all, size_t stage, size_t arrays)
{
    using tile = tiling<W>;
    size_t steps = (all + tile::OWN - 1) / tile::OWN, warps = steps < tile::WARPS ? steps : (size_t)tile::WARPS;
    size_t floats = stage * (2 * tile::PITCH + 2) + warps * tile::OWN * (arrays * tile::PITCH + tile::WEIGHTS);
    return {dim3((unsigned)pairs, blocks_for(steps, warps)), (unsigned)warps * WARP, floats * sizeof(float)};
}

extern "C" int attention_forward_cuda(const struct attention_forward_args *args, kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(args->shape);
    bool packed = packs(args->qkv) && packs(args->memory) && packs(args->out);
    if (!args->shape->sentences) return 0;
    if (attention_takes_mma(a, args->type) && packed)
        return attention_forward_mma((bf16 *)args->out, args->lse, (const bf16 *)args->qkv, args->offsets,
                                     (const bf16 *)args->memory, args->shape, stream);
    if (a.width > ATTENTION_MOST_WIDTH) return cudaErrorInvalidValue;
    if (!args->shape->longest) return 0;
    packed &= a.width % 4 == 0;
    KERNEL_DISPATCH(args->type, ATTENTION_WIDTH(a.width, ATTENTION_MOST_WIDTH, {
                        size_t chunk = stage_of<W>(args->shape->longest + a.memory);
                        struct launch l =
                            launch_of<W>(args->shape->sentences * a.heads, args->shape->longest, chunk, 1);
                        int e = allow_shared(attention_forward_kernel<T, W>, l.bytes);
                        if (e) return e;
                        KERNEL_LAUNCH((attention_forward_kernel<T, W>), l.grid, l.threads, l.bytes, stream,
                                      (T *)args->out, args->lse, (const T *)args->qkv, args->offsets,
                                      (const T *)args->memory, a, (int)chunk, packed);
                    }));
    return cudaGetLastError();
}

extern "C" size_t attention_scratch_floats(const struct kernel_attention *shape)
{
    return shape->tokens * shape->heads;
}

extern "C" int attention_backward_cuda(const struct attention_backward_args *args, kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(args->shape);
    bool packed = packs(args->qkv) && packs(args->memory) && packs(args->out) && packs(args->dout) &&
                  packs(args->dqkv) && packs(args->dmemory);
    if (!args->shape->sentences) return 0;
    if (attention_takes_mma(a, args->type) && packed)
        return attention_backward_mma((bf16 *)args->dqkv, (bf16 *)args->dmemory, (const bf16 *)args->dout,
                                      (const bf16 *)args->qkv, args->offsets, (const bf16 *)args->memory,
                                      (const bf16 *)args->out, args->lse, args->shape, args->add_dqkv,
                                      args->add_dmemory, stream);
    if (a.width > ATTENTION_MOST_WIDTH) return cudaErrorInvalidValue;
    size_t longest = args->shape->longest, keys = longest + a.memory;
    if (!keys) return 0;
    packed &= a.width % 4 == 0;
    KERNEL_DISPATCH(args->type, ATTENTION_WIDTH(a.width, ATTENTION_MOST_WIDTH, {
                        size_t chunk = stage_of<W>(longest);
                        struct launch l = launch_of<W>(args->shape->sentences * a.kv_heads, keys, chunk, 2);
                        int e = allow_shared(attention_dkv_kernel<T, W>, l.bytes);
                        if (e) return e;
                        if (longest) {
                            size_t seen = stage_of<W>(keys);
                            struct launch q = launch_of<W>(args->shape->sentences * a.heads, longest, seen, 2);
                            e = allow_shared(attention_dq_kernel<T, W>, q.bytes);
                            if (e) return e;
                            KERNEL_LAUNCH((attention_dq_kernel<T, W>), q.grid, q.threads, q.bytes, stream,
                                          (T *)args->dqkv, args->scratch, (const T *)args->dout, (const T *)args->qkv,
                                          args->offsets, (const T *)args->memory, (const T *)args->out, args->lse, a,
                                          (int)seen, packed, args->add_dqkv);
                        }
                        KERNEL_LAUNCH((attention_dkv_kernel<T, W>), l.grid, l.threads, l.bytes, stream, (T *)args->dqkv,
                                      (T *)args->dmemory, args->scratch, (const T *)args->dout, (const T *)args->qkv,
                                      args->offsets, (const T *)args->memory, args->lse, a, (int)chunk, packed,
                                      args->add_dqkv, args->add_dmemory);
                    }));
    return cudaGetLastError();
}
