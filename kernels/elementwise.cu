/* Elementwise ops: add, GELU (tanh form), tanh, SwiGLU, dropout by addressed noise; and the column sums of bias
 * gradients.
 *
 *   gelu'(x) = s + x s (1 - s) (2u)',  s = sigmoid(2u), 2u = 1.59577 (x + 0.044715 x^3)
 *   swiglu: y = silu(gate) up;  dgate = dy up silu'(gate), dup = dy silu(gate) */
#include "kernels/device.cuh"

#include <type_traits>

enum { THREADS = 256, LEAST_ROWS = 64, MOST_SLICES = 64, GROUPS = 16 };

static __device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static __device__ __forceinline__ float gelu_sigmoid(float x)
{
    return sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
}

static __device__ __forceinline__ float gelu_slope(float x)
{
    float s = gelu_sigmoid(x);
    return s + x * s * (1.0f - s) * (1.5957691216057308f + 0.21406859f * x * x);
}

/* y = a + b (+ y). Y and T may differ: without b the kernel is a cast. P elements of the wider type are 16 bytes. */
template <typename Y, typename T, int P>
static __global__ void add_kernel(Y *y, const T *a, const T *b, size_t count, bool add)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * P;
    if (i >= count) return;
    pack<T, P> x = load_pack<T, P>(a + i), z;
    pack<Y, P> o;
    if (b) z = load_pack<T, P>(b + i);
    if (add) o = load_pack<Y, P>(y + i);
    for (int k = 0; k < P; k++) {
        float v = to_float(x.v[k]);
        if (b) v += to_float(z.v[k]);
        if (add) v += to_float(o.v[k]);
        o.v[k] = from_float<Y>(v);
    }
    store_pack<Y, P>(y + i, o);
}

template <typename T, int P>
static __global__ void gelu_forward_kernel(T *__restrict__ y, const T *__restrict__ x, size_t count)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * P;
    if (i >= count) return;
    pack<T, P> p = load_pack<T, P>(x + i);
    for (int k = 0; k < P; k++) {
        float v = to_float(p.v[k]);
        p.v[k] = from_float<T>(v * gelu_sigmoid(v));
    }
    store_pack<T, P>(y + i, p);
}

template <typename T, int P>
static __global__ void gelu_backward_kernel(T *dx, const T *dy, const T *__restrict__ x, size_t count, bool add)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * P;
    if (i >= count) return;
    pack<T, P> p = load_pack<T, P>(x + i), d = load_pack<T, P>(dy + i), o;
    if (add) o = load_pack<T, P>(dx + i);
    for (int k = 0; k < P; k++) {
        float v = to_float(d.v[k]) * gelu_slope(to_float(p.v[k]));
        d.v[k] = from_float<T>(add ? to_float(o.v[k]) + v : v);
    }
    store_pack<T, P>(dx + i, d);
}

template <typename T>
static __global__ void tanh_forward_kernel(T *__restrict__ y, const T *__restrict__ x, size_t count)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = from_float<T>(tanhf(to_float(x[i])));
}

template <typename T>
static __global__ void tanh_backward_kernel(T *dx, const T *dy, const T *__restrict__ y, size_t count, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float v = to_float(y[i]);
    put(&dx[i], to_float(dy[i]) * (1.0f - v * v), add);
}

template <typename T>
static __global__ void swiglu_forward_kernel(T *__restrict__ y, const T *__restrict__ x, size_t width, size_t total)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    size_t row = i / width, column = i % width;
    float gate = to_float(x[row * 2 * width + column]), up = to_float(x[(row * 2 + 1) * width + column]);
    y[i] = from_float<T>(gate * sigmoid(gate) * up);
}

template <typename T>
static __global__ void swiglu_backward_kernel(T *__restrict__ dx, const T *__restrict__ dy, const T *__restrict__ x,
                                              size_t width, size_t total, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    size_t row = i / width, column = i % width, at = row * 2 * width + column;
    float gate = to_float(x[at]), up = to_float(x[at + width]), d = to_float(dy[i]), s = sigmoid(gate), silu = gate * s;
    put(&dx[at], d * up * (s + silu * (1.0f - s)), add);
    put(&dx[at + width], d * silu, add);
}

/* A thread per block of four coordinates of one row. A row may begin inside a block, so a thread skips coordinates
 * outside its row. */
template <typename T>
static __global__ void dropout_kernel(T *y, const T *x, kernel_dropout d, size_t rows, size_t width,
                                      size_t blocks_per_row, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * blocks_per_row) return;
    size_t row = i / blocks_per_row;
    unsigned long long first = (unsigned long long)d.position[row] * width, last = first + width;
    unsigned long long block = first / 4 + i % blocks_per_row;
    if (block * 4 >= last) return;
    uint4 words = noise_words(d.noise, d.sample[d.sentence[row]], (unsigned)block);
    for (int k = 0; k < 4; k++) {
        unsigned long long coordinate = block * 4 + k;
        if (coordinate < first || coordinate >= last) continue;
        size_t at = row * width + (size_t)(coordinate - first);
        put(&y[at], word_of(words, k) >= d.threshold ? to_float(x[at]) * d.scale : 0.0f, add);
    }
}

/* Column sums, the first of two stages. A block has the columns of a warp of packs and a share of the rows; each warp
 * takes every WARPS-th row. The block adds the sums of its warps in order into its slice, and the second stage adds the
 * slices. */
template <typename T, int P>
static __global__ void __launch_bounds__(THREADS)
    bias_partial_kernel(float *__restrict__ partial, const T *__restrict__ dy, size_t rows, size_t each, size_t width)
{
    constexpr int WARPS = THREADS / WARP;
    KERNEL_SHARED(float, sums, THREADS *P);
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    size_t column = ((size_t)blockIdx.x * WARP + lane) * P, begin = (size_t)blockIdx.y * each,
           end = begin + each < rows ? begin + each : rows;
    float sum[P] = {};
    if (column < width) {
        KERNEL_UNROLL_BY(4)
        for (size_t row = begin + warp; row < end; row += WARPS) {
            pack<T, P> d = load_pack<T, P>(dy + row * width + column);
            KERNEL_UNROLL
            for (int e = 0; e < P; e++) sum[e] += to_float(d.v[e]);
        }
    }
    KERNEL_UNROLL
    for (int e = 0; e < P; e++) sums[(warp * P + e) * WARP + lane] = sum[e]; /* each lane in its own bank */
    __syncthreads();
    for (unsigned i = threadIdx.x; i < P * WARP; i += THREADS) {
        size_t at = ((size_t)blockIdx.x * WARP + i % WARP) * P + i / WARP;
        float total = sums[i];
        for (unsigned w = 1; w < WARPS; w++) total += sums[w * P * WARP + i];
        if (at < width) partial[(size_t)blockIdx.y * width + at] = total;
    }
}

static __global__ void __launch_bounds__(GROUPS *WARP)
    bias_combine_kernel(float *__restrict__ out, const float *__restrict__ partial, size_t blocks, size_t width,
                        bool add)
{
    KERNEL_SHARED(float, sums, GROUPS *WARP);
    size_t column = (size_t)blockIdx.x * WARP + threadIdx.x % WARP;
    float sum = sum_slices<GROUPS>(partial, blocks, width, column, column < width, sums);
    if (threadIdx.x < WARP && column < width) put(&out[column], sum, add);
}

/* ---- launchers ---- */

template <typename Y, typename T>
static void launch_add(Y *y, const T *a, const T *b, size_t elements, bool add, kernel_stream stream)
{
    using wider = typename std::conditional<(sizeof(Y) > sizeof(T)), Y, T>::type;
    bool fits = elements % (16 / sizeof(wider)) == 0 && packs(y) && packs(a) && packs(b);
    KERNEL_PACKED(fits, wider, {
        KERNEL_LAUNCH((add_kernel<Y, T, P>), blocks_for(elements / P, THREADS), THREADS, 0, stream, y, a, b, elements,
                      add);
    });
}

extern "C" int add_cuda(const struct add_args *args, kernel_stream stream)
{
    if (!args->elements) return 0;
    KERNEL_DISPATCH(args->type, {
        if (args->y_type == KERNEL_BF16)
            launch_add((bf16 *)args->y, (const T *)args->a, (const T *)args->b, args->elements, args->add, stream);
        else
            launch_add((float *)args->y, (const T *)args->a, (const T *)args->b, args->elements, args->add, stream);
    });
    return cudaGetLastError();
}

extern "C" int gelu_forward_cuda(const struct gelu_forward_args *args, kernel_stream stream)
{
    if (!args->elements) return 0;
    KERNEL_DISPATCH(args->type, {
        bool fits = args->elements % (16 / sizeof(T)) == 0 && packs(args->y) && packs(args->x);
        KERNEL_PACKED(fits, T, {
            KERNEL_LAUNCH((gelu_forward_kernel<T, P>), blocks_for(args->elements / P, THREADS), THREADS, 0, stream,
                          (T *)args->y, (const T *)args->x, args->elements);
        });
    });
    return cudaGetLastError();
}

extern "C" int tanh_forward_cuda(const struct tanh_forward_args *args, kernel_stream stream)
{
    if (!args->elements) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(tanh_forward_kernel<T>, blocks_for(args->elements, THREADS), THREADS, 0, stream, (T *)args->y,
                      (const T *)args->x, args->elements);
    });
    return cudaGetLastError();
}

extern "C" int tanh_backward_cuda(const struct tanh_backward_args *args, kernel_stream stream)
{
    if (!args->elements) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(tanh_backward_kernel<T>, blocks_for(args->elements, THREADS), THREADS, 0, stream, (T *)args->dx,
                      (const T *)args->dy, (const T *)args->y, args->elements, args->add);
    });
    return cudaGetLastError();
}

extern "C" int gelu_backward_cuda(const struct gelu_backward_args *args, kernel_stream stream)
{
    if (!args->elements) return 0;
    KERNEL_DISPATCH(args->type, {
        bool fits = args->elements % (16 / sizeof(T)) == 0 && packs(args->dx) && packs(args->dy) && packs(args->x);
        KERNEL_PACKED(fits, T, {
            KERNEL_LAUNCH((gelu_backward_kernel<T, P>), blocks_for(args->elements / P, THREADS), THREADS, 0, stream,
                          (T *)args->dx, (const T *)args->dy, (const T *)args->x, args->elements, args->add);
        });
    });
    return cudaGetLastError();
}

extern "C" int swiglu_forward_cuda(const struct swiglu_forward_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(swiglu_forward_kernel<T>, blocks_for(args->rows * args->width, THREADS), THREADS, 0, stream,
                      (T *)args->y, (const T *)args->x, args->width, args->rows * args->width);
    });
    return cudaGetLastError();
}

extern "C" int swiglu_backward_cuda(const struct swiglu_backward_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(swiglu_backward_kernel<T>, blocks_for(args->rows * args->width, THREADS), THREADS, 0, stream,
                      (T *)args->dx, (const T *)args->dy, (const T *)args->x, args->width, args->rows * args->width,
                      args->add);
    });
    return cudaGetLastError();
}

extern "C" int dropout_cuda(const struct dropout_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    size_t blocks_per_row = args->width / 4 + 2; /* a row may begin and end inside a block of four coordinates */
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(dropout_kernel<T>, blocks_for(args->rows * blocks_per_row, THREADS), THREADS, 0, stream,
                      (T *)args->y, (const T *)args->x, *args->dropout, args->rows, args->width, blocks_per_row,
                      args->add);
    });
    return cudaGetLastError();
}

/* Returns the rows per block: at least LEAST_ROWS, and enough that there are at most MOST_SLICES slices. */
static size_t rows_each(size_t rows)
{
    size_t each = blocks_for(rows, MOST_SLICES);
    return each < LEAST_ROWS ? (size_t)LEAST_ROWS : each;
}

extern "C" size_t bias_scratch_floats(size_t rows, size_t width)
{
    return (size_t)blocks_for(rows, rows_each(rows)) * width;
}

extern "C" int bias_backward_cuda(const struct bias_backward_args *args, kernel_stream stream)
{
    size_t each = rows_each(args->rows);
    unsigned blocks = blocks_for(args->rows, each);
    if (blocks)
        KERNEL_DISPATCH(args->type, {
            KERNEL_PACKED(args->width % (16 / sizeof(T)) == 0 && packs(args->dy), T, {
                KERNEL_LAUNCH((bias_partial_kernel<T, P>), dim3(blocks_for(args->width, P * WARP), blocks), THREADS, 0,
                              stream, args->scratch, (const T *)args->dy, args->rows, each, args->width);
            });
        });
    KERNEL_LAUNCH(bias_combine_kernel, blocks_for(args->width, WARP), GROUPS * WARP, 0, stream, args->dbias,
                  args->scratch, (size_t)blocks, args->width, args->add);
    return cudaGetLastError();
}
