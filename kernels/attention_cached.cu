/* Attention of one new token per row, with a cache of keys and values: appends at the row's position, attends to all up to it.
 *
 *   qkv (R, (H + 2 Hk) W)    cache (R, room, 2, Hk W)    memory (R, M, 2, Hk W)    out (R, H W)                            */
#include "kernels/attention.cuh"

enum { WARPS = 4, THREADS = WARPS * WARP };

/* One new token per row: a block per (row, key head). Scores of all keys lie in shared memory. */
template <typename T>
static __global__ void attention_cached_kernel(T *__restrict__ out, T *cache, const T *__restrict__ qkv,
                                        const int32_t *__restrict__ position, const T *__restrict__ memory, size_t room,
                                        struct attention_shape a)
{
    KERNEL_DYNAMIC_SHARED(float, scores);
    KERNEL_SHARED(float, scratch, WARP);
    size_t row = blockIdx.x, kv = blockIdx.y, kv_width = a.kv_heads * a.width, group = a.heads / a.kv_heads;
    size_t at = (size_t)position[row], count = a.memory + at + 1;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const T *own = qkv + row * a.row, *remembered = memory + row * a.memory * 2 * kv_width + kv * a.width;
    T *kept = cache + row * room * 2 * kv_width + kv * a.width;
    for (size_t d = threadIdx.x; d < a.width; d += blockDim.x) {
        kept[at * 2 * kv_width + d] = own[(a.heads + kv) * a.width + d];
        kept[(at * 2 + 1) * kv_width + d] = own[(a.heads + a.kv_heads + kv) * a.width + d];
    }
    __syncthreads();
    for (size_t head = kv * group; head < (kv + 1) * group; head++) {
        for (size_t j = warp; j < count; j += WARPS) {
            const T *k = j < a.memory ? remembered + j * 2 * kv_width : kept + (j - a.memory) * 2 * kv_width;
            float s = 0;
            for (size_t d = lane; d < a.width; d += WARP) s += to_float(own[head * a.width + d]) * to_float(k[d]);
            s = warp_sum(s);
            if (lane == 0) scores[j] = s * a.scale;
        }
        __syncthreads();
        float top = -INFINITY, sum = 0;
        for (size_t j = threadIdx.x; j < count; j += blockDim.x) top = fmaxf(top, scores[j]);
        top = block_max(top, scratch);
        for (size_t j = threadIdx.x; j < count; j += blockDim.x) sum += scores[j] = expf(scores[j] - top);
        sum = block_sum(sum, scratch);
        for (size_t d = threadIdx.x; d < a.width; d += blockDim.x) {
            float y = 0;
            for (size_t j = 0; j < count; j++) {
                const T *v = j < a.memory ? remembered + (j * 2 + 1) * kv_width : kept + ((j - a.memory) * 2 + 1) * kv_width;
                y += scores[j] / sum * to_float(v[d]);
            }
            out[(row * a.heads + head) * a.width + d] = from_float<T>(y);
        }
        __syncthreads(); /* the next head overwrites the scores */
    }
}

/* ---- launchers ---- */

extern "C" int attention_cached_cuda(void *out, void *cache, const void *qkv, const int32_t *position, const void *memory,
                                     size_t rows, size_t room, const struct kernel_attention *shape, enum kernel_type type,
                                     kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(shape);
    if (!rows) return 0;
    size_t bytes = (room + a.memory) * sizeof(float);
    KERNEL_DISPATCH(type, {
        int e = allow_shared(attention_cached_kernel<T>, bytes);
        if (e) return e;
        KERNEL_LAUNCH(attention_cached_kernel<T>, dim3((unsigned)rows, (unsigned)a.kv_heads), THREADS, bytes, stream, (T *)out,
                      (T *)cache, (const T *)qkv, position, (const T *)memory, room, a);
    });
    return cudaGetLastError();
}
