/* Attention within packed sentences, latent keys and values in front (Dao et al. 2022 for the online softmax).
 *
 *   qkv (N, (H + 2 Hk) W)    memory (S, M, 2, Hk W)    out (N, H W)    lse (N, H)
 *   p = exp(q k^T / sqrt(W) - lse), out = p v;   D = rowsum(dout out)
 *   ds = p (dout v^T - D) / sqrt(W);   dq = ds k;   dk = ds^T q;   dv = p^T dout
 *
 * These kernels take every width up to 256 in f32 and bf16; attention_mma.cu has what tensor cores can do.
 *
 * Forward and dq: a block per (sentence, head), GROUP queries at a time in registers, keys in tiles of a warp's width in
 * shared memory: lane j scores key j, then the lanes share the columns. dk, dv: a block per (sentence, key head), keys in
 * registers, queries in tiles. No atomics; every order depends on shapes only. */
#include "kernels/attention.cuh"

enum { WARPS = 4, THREADS = WARPS * WARP, PER_WARP = 4, GROUP = WARPS * PER_WARP, CHUNKS = ATTENTION_MOST_WIDTH / WARP };

/* Keys and values `from` .. `from + WARP` of a sentence into shared memory as floats, rows of width + 1; zeros past the end. */
template <typename T>
static __device__ void load_tile(float *keys, float *values, const struct attention_shape &a, const T *qkv, const T *memory, size_t begin,
                          size_t sentence, size_t head, size_t from, size_t count)
{
    for (unsigned i = threadIdx.x; i < WARP * a.width; i += blockDim.x) {
        size_t j = i / a.width, d = i % a.width;
        bool there = from + j < count;
        keys[j * (a.width + 1) + d] = there ? to_float(kv_row(a, qkv, memory, begin, sentence, head, from + j, 0)[d]) : 0.0f;
        values[j * (a.width + 1) + d] = there ? to_float(kv_row(a, qkv, memory, begin, sentence, head, from + j, 1)[d]) : 0.0f;
    }
}

static __device__ __forceinline__ float dot(const float *x, const float *y, size_t width)
{
    float sum = 0;
    for (size_t d = 0; d < width; d++) sum += x[d] * y[d];
    return sum;
}

template <typename T>
static __global__ void attention_forward_kernel(T *__restrict__ out, float *__restrict__ lse, const T *__restrict__ qkv,
                                         const int32_t *__restrict__ offsets, const T *__restrict__ memory, struct attention_shape a)
{
    KERNEL_DYNAMIC_SHARED(float, shared);
    float *keys = shared, *values = keys + WARP * (a.width + 1), *queries = values + WARP * (a.width + 1);
    size_t sentence = blockIdx.x, head = blockIdx.y, kv = head / (a.heads / a.kv_heads);
    size_t begin = (size_t)offsets[sentence], length = (size_t)offsets[sentence + 1] - begin, count = length + a.memory;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (size_t first = 0; first < length; first += GROUP) {
        float top[PER_WARP], sum[PER_WARP], acc[PER_WARP][CHUNKS];
        for (int q = 0; q < PER_WARP; q++) {
            top[q] = -INFINITY;
            sum[q] = 0;
            for (int c = 0; c < CHUNKS; c++) acc[q][c] = 0;
        }
        __syncthreads(); /* the group before has read its queries */
        for (unsigned i = threadIdx.x; i < GROUP * a.width; i += blockDim.x) {
            size_t q = first + i / a.width;
            queries[i] = q < length ? to_float(qkv[(begin + q) * a.row + head * a.width + i % a.width]) * a.scale : 0.0f;
        }
        size_t last = first + GROUP < length ? first + GROUP : length, seen = a.causal ? a.memory + last : count;
        for (size_t from = 0; from < seen; from += WARP) {
            __syncthreads();
            load_tile(keys, values, a, qkv, memory, begin, sentence, kv, from, count);
            __syncthreads();
            for (int q = 0; q < PER_WARP; q++) {
                size_t query = first + warp * PER_WARP + q, limit = a.causal ? a.memory + query + 1 : count;
                if (query >= length) continue; /* the same for the whole warp */
                float s = from + lane < limit ? dot(queries + (warp * PER_WARP + q) * a.width, keys + lane * (a.width + 1), a.width)
                                              : -INFINITY;
                float next = fmaxf(top[q], warp_max(s)); /* finite: every query sees the first key */
                float p = expf(s - next), keep = expf(top[q] - next);
                sum[q] = sum[q] * keep + warp_sum(p);
                top[q] = next;
                for (int c = 0; c < CHUNKS; c++) acc[q][c] *= keep;
                for (int j = 0; j < WARP; j++) {
                    float pj = __shfl_sync(FULL_WARP, p, j);
                    for (int c = 0; c < CHUNKS; c++) {
                        size_t d = lane + (size_t)c * WARP;
                        if (d < a.width) acc[q][c] += pj * values[j * (a.width + 1) + d];
                    }
                }
            }
        }
        for (int q = 0; q < PER_WARP; q++) {
            size_t query = first + warp * PER_WARP + q;
            if (query >= length) continue;
            for (int c = 0; c < CHUNKS; c++) {
                size_t d = lane + (size_t)c * WARP;
                if (d < a.width) out[((begin + query) * a.heads + head) * a.width + d] = from_float<T>(acc[q][c] / sum[q]);
            }
            if (lane == 0) lse[(begin + query) * a.heads + head] = top[q] + logf(sum[q]);
        }
    }
}

/* D (N, H) = rowsum(dout out): a warp per (row, head). */
template <typename T>
static __global__ void attention_level_kernel(float *__restrict__ level, const T *__restrict__ dout, const T *__restrict__ out,
                                       size_t pairs, size_t width)
{
    size_t pair = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (pair >= pairs) return;
    float sum = 0;
    for (size_t d = threadIdx.x % WARP; d < width; d += WARP) sum += to_float(dout[pair * width + d]) * to_float(out[pair * width + d]);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) level[pair] = sum;
}

template <typename T>
static __global__ void attention_dq_kernel(T *dqkv, const float *__restrict__ level, const T *__restrict__ dout,
                                    const T *__restrict__ qkv, const int32_t *__restrict__ offsets, const T *__restrict__ memory,
                                    const float *__restrict__ lse, struct attention_shape a, bool add)
{
    KERNEL_DYNAMIC_SHARED(float, shared);
    float *keys = shared, *values = keys + WARP * (a.width + 1), *queries = values + WARP * (a.width + 1);
    float *douts = queries + GROUP * a.width;
    size_t sentence = blockIdx.x, head = blockIdx.y, kv = head / (a.heads / a.kv_heads);
    size_t begin = (size_t)offsets[sentence], length = (size_t)offsets[sentence + 1] - begin, count = length + a.memory;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (size_t first = 0; first < length; first += GROUP) {
        float acc[PER_WARP][CHUNKS];
        for (int q = 0; q < PER_WARP; q++)
            for (int c = 0; c < CHUNKS; c++) acc[q][c] = 0;
        __syncthreads();
        for (unsigned i = threadIdx.x; i < GROUP * a.width; i += blockDim.x) {
            size_t q = first + i / a.width, d = i % a.width;
            queries[i] = q < length ? to_float(qkv[(begin + q) * a.row + head * a.width + d]) : 0.0f;
            douts[i] = q < length ? to_float(dout[((begin + q) * a.heads + head) * a.width + d]) : 0.0f;
        }
        size_t last = first + GROUP < length ? first + GROUP : length, seen = a.causal ? a.memory + last : count;
        for (size_t from = 0; from < seen; from += WARP) {
            __syncthreads();
            load_tile(keys, values, a, qkv, memory, begin, sentence, kv, from, count);
            __syncthreads();
            for (int q = 0; q < PER_WARP; q++) {
                size_t slot = warp * PER_WARP + q, query = first + slot, limit = a.causal ? a.memory + query + 1 : count;
                if (query >= length) continue;
                float ds = 0;
                if (from + lane < limit) {
                    size_t at = (begin + query) * a.heads + head;
                    float p = expf(dot(queries + slot * a.width, keys + lane * (a.width + 1), a.width) * a.scale - lse[at]);
                    ds = p * (dot(douts + slot * a.width, values + lane * (a.width + 1), a.width) - level[at]) * a.scale;
                }
                for (int j = 0; j < WARP; j++) {
                    float dj = __shfl_sync(FULL_WARP, ds, j);
                    for (int c = 0; c < CHUNKS; c++) {
                        size_t d = lane + (size_t)c * WARP;
                        if (d < a.width) acc[q][c] += dj * keys[j * (a.width + 1) + d];
                    }
                }
            }
        }
        for (int q = 0; q < PER_WARP; q++) {
            size_t query = first + warp * PER_WARP + q;
            if (query >= length) continue;
            for (int c = 0; c < CHUNKS; c++) {
                size_t d = lane + (size_t)c * WARP;
                if (d < a.width) put(&dqkv[(begin + query) * a.row + head * a.width + d], acc[q][c], add);
            }
        }
    }
}

template <typename T>
static __global__ void attention_dkv_kernel(T *dqkv, T *dmemory, const float *__restrict__ level, const T *__restrict__ dout,
                                     const T *__restrict__ qkv, const int32_t *__restrict__ offsets, const T *__restrict__ memory,
                                     const float *__restrict__ lse, struct attention_shape a, bool add_qkv, bool add_memory)
{
    KERNEL_DYNAMIC_SHARED(float, shared);
    float *queries = shared, *douts = queries + WARP * (a.width + 1), *keys = douts + WARP * (a.width + 1);
    float *values = keys + GROUP * a.width;
    size_t sentence = blockIdx.x, kv = blockIdx.y, group = a.heads / a.kv_heads;
    size_t begin = (size_t)offsets[sentence], length = (size_t)offsets[sentence + 1] - begin, count = length + a.memory;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (size_t first = 0; first < count; first += GROUP) {
        float dk[PER_WARP][CHUNKS], dv[PER_WARP][CHUNKS];
        KERNEL_UNROLL
        for (int k = 0; k < PER_WARP; k++)
            KERNEL_UNROLL
            for (int c = 0; c < CHUNKS; c++) dk[k][c] = dv[k][c] = 0;
        __syncthreads();
        for (unsigned i = threadIdx.x; i < GROUP * a.width; i += blockDim.x) {
            size_t j = first + i / a.width, d = i % a.width;
            keys[i] = j < count ? to_float(kv_row(a, qkv, memory, begin, sentence, kv, j, 0)[d]) : 0.0f;
            values[i] = j < count ? to_float(kv_row(a, qkv, memory, begin, sentence, kv, j, 1)[d]) : 0.0f;
        }
        /* The first query that sees any key of this group; earlier tiles hold nothing for it. */
        size_t least = a.causal && first > a.memory ? (first - a.memory) / WARP * WARP : 0;
        for (size_t head = kv * group; head < (kv + 1) * group; head++)
            for (size_t from = least; from < length; from += WARP) {
                __syncthreads();
                for (unsigned i = threadIdx.x; i < WARP * a.width; i += blockDim.x) {
                    size_t q = from + i / a.width, d = i % a.width, at = i / a.width * (a.width + 1) + d;
                    queries[at] = q < length ? to_float(qkv[(begin + q) * a.row + head * a.width + d]) : 0.0f;
                    douts[at] = q < length ? to_float(dout[((begin + q) * a.heads + head) * a.width + d]) : 0.0f;
                }
                __syncthreads();
                KERNEL_UNROLL
                for (int k = 0; k < PER_WARP; k++) {
                    size_t slot = warp * PER_WARP + k, j = first + slot, query = from + lane;
                    if (j >= count) continue;
                    float p = 0, ds = 0;
                    if (query < length && (!a.causal || j < a.memory + query + 1)) {
                        size_t at = (begin + query) * a.heads + head;
                        p = expf(dot(queries + lane * (a.width + 1), keys + slot * a.width, a.width) * a.scale - lse[at]);
                        ds = p * (dot(douts + lane * (a.width + 1), values + slot * a.width, a.width) - level[at]) * a.scale;
                    }
                    for (int i = 0; i < WARP; i++) {
                        float pi = __shfl_sync(FULL_WARP, p, i), di = __shfl_sync(FULL_WARP, ds, i);
                        KERNEL_UNROLL
                        for (int c = 0; c < CHUNKS; c++) {
                            size_t d = lane + (size_t)c * WARP;
                            if (d >= a.width) continue;
                            dk[k][c] += di * queries[i * (a.width + 1) + d];
                            dv[k][c] += pi * douts[i * (a.width + 1) + d];
                        }
                    }
                }
            }
        KERNEL_UNROLL
        for (int k = 0; k < PER_WARP; k++) {
            size_t j = first + warp * PER_WARP + k;
            if (j >= count) continue;
            KERNEL_UNROLL
            for (int c = 0; c < CHUNKS; c++) {
                size_t d = lane + (size_t)c * WARP;
                if (d >= a.width) continue;
                if (j < a.memory) {
                    if (!dmemory) continue;
                    T *to = dmemory + ((sentence * a.memory + j) * 2 * a.kv_heads + kv) * a.width + d;
                    put(to, dk[k][c], add_memory);
                    put(to + a.kv_heads * a.width, dv[k][c], add_memory);
                } else if (dqkv) {
                    T *to = dqkv + (begin + j - a.memory) * a.row + (a.heads + kv) * a.width + d;
                    put(to, dk[k][c], add_qkv);
                    put(to + a.kv_heads * a.width, dv[k][c], add_qkv);
                }
            }
        }
    }
}

/* ---- launchers ---- */

static size_t tile_bytes(const struct attention_shape &a, size_t groups)
{
    return (2 * WARP * (a.width + 1) + groups * GROUP * a.width) * sizeof(float);
}

extern "C" int attention_forward_cuda(void *out, float *lse, const void *qkv, const int32_t *offsets, const void *memory,
                                      const struct kernel_attention *shape, enum kernel_type type, kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(shape);
    if (!shape->sentences) return 0;
    if (attention_takes_mma(a, type) && packs(qkv) && packs(memory) && packs(out))
        return attention_forward_mma((bf16 *)out, lse, (const bf16 *)qkv, offsets, (const bf16 *)memory, shape, stream);
    if (a.width > ATTENTION_MOST_WIDTH) return cudaErrorInvalidValue;
    dim3 grid((unsigned)shape->sentences, (unsigned)a.heads);
    KERNEL_DISPATCH(type, {
        int e = allow_shared(attention_forward_kernel<T>, tile_bytes(a, 1));
        if (e) return e;
        KERNEL_LAUNCH(attention_forward_kernel<T>, grid, THREADS, tile_bytes(a, 1), stream, (T *)out, lse, (const T *)qkv,
                      offsets, (const T *)memory, a);
    });
    return cudaGetLastError();
}

extern "C" size_t attention_scratch_floats(const struct kernel_attention *shape)
{
    return shape->tokens * shape->heads;
}

extern "C" int attention_backward_cuda(void *dqkv, void *dmemory, float *scratch, const void *dout, const void *qkv,
                                       const int32_t *offsets, const void *memory, const void *out, const float *lse,
                                       const struct kernel_attention *shape, const bool add[2], enum kernel_type type,
                                       kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(shape);
    if (!shape->sentences) return 0;
    if (attention_takes_mma(a, type) && packs(qkv) && packs(memory) && packs(out) && packs(dout) && packs(dqkv) && packs(dmemory))
        return attention_backward_mma((bf16 *)dqkv, (bf16 *)dmemory, (const bf16 *)dout, (const bf16 *)qkv, offsets, (const bf16 *)memory,
                                      (const bf16 *)out, lse, shape, add, stream);
    if (a.width > ATTENTION_MOST_WIDTH) return cudaErrorInvalidValue;
    size_t pairs = shape->tokens * a.heads, bytes = tile_bytes(a, 2);
    KERNEL_DISPATCH(type, {
        int e = allow_shared(attention_dq_kernel<T>, bytes);
        if (!e) e = allow_shared(attention_dkv_kernel<T>, bytes);
        if (e) return e;
        if (pairs)
            KERNEL_LAUNCH(attention_level_kernel<T>, blocks_for(pairs, WARPS), THREADS, 0, stream, scratch, (const T *)dout,
                          (const T *)out, pairs, a.width);
        if (dqkv)
            KERNEL_LAUNCH(attention_dq_kernel<T>, dim3((unsigned)shape->sentences, (unsigned)a.heads), THREADS, bytes, stream,
                          (T *)dqkv, scratch, (const T *)dout, (const T *)qkv, offsets, (const T *)memory, lse, a, add[0]);
        KERNEL_LAUNCH(attention_dkv_kernel<T>, dim3((unsigned)shape->sentences, (unsigned)a.kv_heads), THREADS, bytes, stream,
                      (T *)dqkv, (T *)dmemory, scratch, (const T *)dout, (const T *)qkv, offsets, (const T *)memory, lse, a,
                      add[0], add[1]);
    });
    return cudaGetLastError();
}
