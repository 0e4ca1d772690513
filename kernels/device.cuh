/* Shared by every kernel file: the macros for launches and shared memory (the only macros that the emulation replaces),
 * types, 128-bit loads, warp and block reductions in a fixed order, addressed noise. */
#ifndef KERNELS_DEVICE_CUH
#define KERNELS_DEVICE_CUH

#include "kernels/kernels.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <curand_kernel.h>
#include <math.h>

#ifndef KERNEL_LAUNCH /* the emulation defines its own */
#define KERNEL_UNROLL           _Pragma("unroll")
#define KERNEL_UNROLL_BY(times) _Pragma(KERNEL_TEXT(unroll times))
#define KERNEL_TEXT(x)          #x
#define KERNEL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                  \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define KERNEL_SHARED(type, name, count) __shared__ type name[count]
#define KERNEL_DYNAMIC_SHARED(type, name)                                                                              \
    extern __shared__ __align__(16) unsigned char name##_bytes[];                                                      \
    type *name = reinterpret_cast<type *>(name##_bytes)
#endif

typedef __nv_bfloat16 bf16;

enum { WARP = 32 };
static constexpr unsigned FULL_WARP = 0xffffffffu;

/* Runs `body` with T as float or bf16. */
#define KERNEL_DISPATCH(type, ...)                                                                                     \
    do {                                                                                                               \
        if ((type) == KERNEL_BF16) {                                                                                   \
            using T = bf16;                                                                                            \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            using T = float;                                                                                           \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

static __device__ __forceinline__ float to_float(float x)
{
    return x;
}

static __device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}

template <typename T> static __device__ __forceinline__ T from_float(float x);

template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}

template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    return __float2bfloat16(x);
}

template <typename T> static __device__ __forceinline__ void put(T *to, float v, bool add)
{
    *to = from_float<T>(add ? to_float(*to) + v : v);
}

/* P neighboring elements, moved by one access; 16 bytes where widths and pointers allow it, else P is 1. */
template <typename T, int P> struct __align__(sizeof(T) * P) pack
{
    T v[P];
};

template <typename T, int P> static __device__ __forceinline__ pack<T, P> load_pack(const T *p)
{
    return *reinterpret_cast<const pack<T, P> *>(p);
}

template <typename T, int P> static __device__ __forceinline__ void store_pack(T *p, const pack<T, P> &x)
{
    *reinterpret_cast<pack<T, P> *>(p) = x;
}

template <typename T, int P> static __device__ __forceinline__ void put_pack(T *p, const float (&v)[P], bool add)
{
    pack<T, P> to = {};
    if (add) to = load_pack<T, P>(p);
    KERNEL_UNROLL
    for (int e = 0; e < P; e++) put(&to.v[e], v[e], add);
    store_pack(p, to);
}

static inline bool packs(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* Runs `body` with P = the elements of T in 16 bytes if `fits`, else 1. */
#define KERNEL_PACKED(fits, T, ...)                                                                                    \
    do {                                                                                                               \
        if (fits) {                                                                                                    \
            constexpr int P = 16 / (int)sizeof(T);                                                                     \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int P = 1;                                                                                       \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

/* Runs `body` with NAME as a compile-time constant. */
#define KERNEL_FLAG(flag, NAME, ...)                                                                                   \
    do {                                                                                                               \
        if (flag) {                                                                                                    \
            constexpr bool NAME = true;                                                                                \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr bool NAME = false;                                                                               \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

static inline unsigned blocks_for(size_t n, size_t each)
{
    return (unsigned)((n + each - 1) / each);
}

/* Returns the shared memory that a block of the current device may have, in bytes. */
static inline size_t shared_limit(void)
{
    int device = 0, bytes = 48 << 10;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return (size_t)bytes;
}

/* Allows the kernel `bytes` of dynamic shared memory; called before the launch. */
template <typename K> static int allow_shared(K kernel, size_t bytes)
{
    if (bytes <= 48 << 10) return 0;
    return (int)cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

/* A butterfly: every lane ends with the same sum, added in the same order. */
static __device__ __forceinline__ float warp_sum(float v)
{
    for (int o = WARP / 2; o; o /= 2) v += __shfl_xor_sync(FULL_WARP, v, o);
    return v;
}

static __device__ __forceinline__ double warp_sum(double v)
{
    for (int o = WARP / 2; o; o /= 2) v += __shfl_xor_sync(FULL_WARP, v, o);
    return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
    for (int o = WARP / 2; o; o /= 2) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, o));
    return v;
}

/* Sums one column of the slices (blocks, pitch), a lane per column, in a block of GROUPS warps that share the slices.
 * The first warp returns the sum. `sums` holds one float per thread. */
template <int GROUPS>
static __device__ __forceinline__ float sum_slices(const float *slices, size_t blocks, size_t pitch, size_t column,
                                                   bool there, float *sums)
{
    float sum = 0;
    if (there)
        for (size_t b = threadIdx.x / WARP; b < blocks; b += GROUPS) sum += slices[b * pitch + column];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < WARP)
        for (int group = 1; group < GROUPS; group++) sum += sums[group * WARP + threadIdx.x];
    return sum;
}

/* Sums over a block of whole warps and returns the sum to all threads; `scratch` holds 32 elements. The first barrier
 * makes repeated calls with the same scratch safe. */
template <typename A> static __device__ __forceinline__ A block_sum(A v, A *scratch)
{
    v = warp_sum(v);
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    __syncthreads();
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    v = lane < warps ? scratch[lane] : A(0);
    return warp_sum(v);
}

static __device__ __forceinline__ float block_max(float v, float *scratch)
{
    v = warp_max(v);
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    __syncthreads();
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    v = lane < warps ? scratch[lane] : -INFINITY;
    return warp_max(v);
}

static __device__ __forceinline__ uint64_t mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* The noise of one sample: the part that does not change between blocks of four words. */
struct sample_noise {
    uint2 key;
    uint4 counter; /* x: the block of four words */
};

static __device__ __forceinline__ sample_noise noise_of(struct kernel_noise n, unsigned long long sample)
{
    uint64_t key = mix64(mix64(mix64(n.header->seed) ^ n.purpose) ^ n.header->step);
    return {make_uint2((unsigned)key, (unsigned)(key >> 32)),
            make_uint4(0, (unsigned)n.header->draw, (unsigned)sample, (unsigned)(sample >> 32))};
}

/* Returns the four words at coordinates 4 block .. 4 block + 3 of a sample (base/philox.h). */
static __device__ __forceinline__ uint4 noise_words(sample_noise n, unsigned block)
{
    n.counter.x = block;
    return curand_Philox4x32_10(n.counter, n.key);
}

static __device__ __forceinline__ uint4 noise_words(struct kernel_noise n, unsigned long long sample, unsigned block)
{
    return noise_words(noise_of(n, sample), block);
}

static __device__ __forceinline__ unsigned word_of(uint4 w, unsigned i)
{
    return i == 0 ? w.x : i == 1 ? w.y : i == 2 ? w.z : w.w;
}

/* Drops and scales P neighboring elements; `coordinate` of the first is a multiple of four unless P is 1. */
template <int P>
static __device__ __forceinline__ void drop_elements(float (&v)[P], const kernel_dropout &d, const sample_noise &n,
                                                     unsigned long long coordinate)
{
    KERNEL_UNROLL
    for (int e = 0; e < P; e += 4) {
        uint4 words = noise_words(n, (unsigned)((coordinate + e) / 4));
        KERNEL_UNROLL
        for (int k = 0; k < (P < 4 ? P : 4); k++) {
            unsigned word = word_of(words, P == 1 ? (unsigned)(coordinate % 4) : (unsigned)k);
            v[e + k] = word >= d.threshold ? v[e + k] * d.scale : 0.0f;
        }
    }
}

#endif
