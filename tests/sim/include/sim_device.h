/* The device side of the emulation, for C++ only: launches, shared arrays, indices, barriers, shuffles and a few
 * functions. Every CUDA thread is a fiber. Barriers and warp operations hand over to the scheduler (schedule.cpp), and
 * carry the caller's file and line for its reports. */
#ifndef SIM_DEVICE_H
#define SIM_DEVICE_H

#include <cstring>
#include <functional>
#include <tuple>

struct sim_place {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
extern struct sim_place sim_place; /* place of the running fiber */

#define threadIdx (sim_place.thread)
#define blockIdx  (sim_place.block)
#define blockDim  (sim_place.block_size)
#define gridDim   (sim_place.grid_size)
static constexpr int warpSize = 32;

/* ---- launch: arguments are converted and copied at the call ---- */
void sim_enqueue_kernel(const char *name, const void *function, dim3 grid, dim3 block, size_t shared_bytes,
                        cudaStream_t stream, std::function<void()> body);

template <typename... Parameters, typename... Arguments>
static inline void sim_launch_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                                     void (*kernel)(Parameters...), Arguments &&...arguments)
{
    std::tuple<Parameters...> copies(std::forward<Arguments>(arguments)...);
    sim_enqueue_kernel(name, reinterpret_cast<const void *>(kernel), grid, block, shared_bytes, stream,
                       [kernel, copies] { std::apply(kernel, copies); });
}

#define KERNEL_UNROLL /* this compiler needs no hint */
#define KERNEL_UNROLL_BY(times)
#define KERNEL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                  \
    sim_launch_kernel(#kernel, grid, block, shared_bytes, stream, kernel __VA_OPT__(, ) __VA_ARGS__)

/* ---- shared memory: first filled with NaN patterns, with redzones around arrays ---- */
void *sim_shared_array(const void *site, size_t bytes, const char *name);
void *sim_shared_dynamic();

#define KERNEL_SHARED(type, name, count)                                                                               \
    static const char name##_site = 0;                                                                                 \
    type(&name)[count] =                                                                                               \
        *reinterpret_cast<type(*)[count]>(sim_shared_array(&name##_site, sizeof(type) * (count), #name))
#define KERNEL_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(sim_shared_dynamic())

/* ---- barriers and warp operations ---- */
enum sim_operation { SIM_SYNCWARP, SIM_SHUFFLE, SIM_BALLOT, SIM_TOGETHER };
void sim_block_barrier(const char *file, int line);
/* Waits for the lanes of `mask`. A shuffle returns the bits of lane `source`, or the lane's own bits if source is
 * -1. */
uint64_t sim_warp_operation(sim_operation operation, unsigned mask, uint64_t bits, int source, const char *file,
                            int line);
/* Waits for the whole warp, then runs `together` on the data of all lanes. */
void sim_warp_together(void *mine, void (*together)(void *const *lanes), const char *file, int line);

#define SIM_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(SIM_CALLER)
{
    sim_block_barrier(file, line);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, SIM_CALLER)
{
    sim_warp_operation(SIM_SYNCWARP, mask, 0, -1, file, line);
}

static inline int sim_lane()
{
    return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

template <typename V> static inline V sim_shuffle(unsigned mask, V value, int source, const char *file, int line)
{
    static_assert(sizeof(V) == 4 || sizeof(V) == 8, "a shuffle moves 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = sim_warp_operation(SIM_SHUFFLE, mask, bits, source, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename V> static inline V __shfl_sync(unsigned mask, V value, int source, int width = 32, SIM_CALLER)
{
    int first = sim_lane() / width * width;
    return sim_shuffle(mask, value, first + (source & (width - 1)), file, line);
}

template <typename V> static inline V __shfl_xor_sync(unsigned mask, V value, int bits, int width = 32, SIM_CALLER)
{
    int lane = sim_lane(), last = lane / width * width + width - 1, source = lane ^ bits;
    return sim_shuffle(mask, value, source > last ? -1 : source, file, line);
}

template <typename V> static inline V __shfl_up_sync(unsigned mask, V value, unsigned by, int width = 32, SIM_CALLER)
{
    int lane = sim_lane(), first = lane / width * width, source = lane - (int)by;
    return sim_shuffle(mask, value, source < first ? -1 : source, file, line);
}

template <typename V> static inline V __shfl_down_sync(unsigned mask, V value, unsigned by, int width = 32, SIM_CALLER)
{
    int lane = sim_lane(), last = lane / width * width + width - 1, source = lane + (int)by;
    return sim_shuffle(mask, value, source > last ? -1 : source, file, line);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, SIM_CALLER)
{
    return (unsigned)sim_warp_operation(SIM_BALLOT, mask, predicate != 0, -1, file, line);
}

static inline int __any_sync(unsigned mask, int predicate, SIM_CALLER)
{
    return sim_warp_operation(SIM_BALLOT, mask, predicate != 0, -1, file, line) != 0;
}

static inline int __all_sync(unsigned mask, int predicate, SIM_CALLER)
{
    return sim_warp_operation(SIM_BALLOT, mask, predicate != 0, -1, file, line) == mask;
}

/* ---- functions that C++ does not have ---- */
#define __expf expf /* glibc has functions of these names */
#define __logf logf

static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline void sincospif(float x, float *sine, float *cosine)
{
    *sine = (float)sin(3.14159265358979323846 * (double)x);
    *cosine = (float)cos(3.14159265358979323846 * (double)x);
}
static inline float __fdividef(float x, float y)
{
    return x / y;
}
static inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
template <typename V> static inline V __ldg(const V *p)
{
    return *p;
}
template <typename V> static inline V min(V a, V b)
{
    return b < a ? b : a;
}
template <typename V> static inline V max(V a, V b)
{
    return a < b ? b : a;
}

#endif
