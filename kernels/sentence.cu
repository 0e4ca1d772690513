/* Ops between one row per token and one row per sentence: pooling (mean, first, last, attention), broadcast, segment
 * sums, and prefix rows in front of a sentence. One thread per column sums a sentence's rows in order. */
#include "kernels/device.cuh"

enum { THREADS = 128, SENTENCES_PER_BLOCK = 16, MEAN = 0, FIRST = 1, LAST = 2, ATTENTION = 3, ENDS = 4 };

/* The weights of attention pooling: a softmax of x . query over a sentence's rows; a block per sentence. */
template <typename T>
static __global__ void pool_weights_kernel(float *__restrict__ weights, const T *__restrict__ x,
                                           const int32_t *__restrict__ offsets, const T *__restrict__ query,
                                           size_t width)
{
    KERNEL_SHARED(float, scratch, WARP);
    int32_t from = offsets[blockIdx.x], to = offsets[blockIdx.x + 1];
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (int32_t n = from + (int32_t)warp; n < to; n += (int32_t)warps) {
        float score = 0;
        for (size_t i = lane; i < width; i += WARP) score += to_float(x[(size_t)n * width + i]) * to_float(query[i]);
        score = warp_sum(score);
        if (lane == 0) weights[n] = score;
    }
    __syncthreads();
    float row_max = -INFINITY, sum = 0;
    for (int32_t n = from + (int32_t)threadIdx.x; n < to; n += (int32_t)blockDim.x)
        row_max = fmaxf(row_max, weights[n]);
    row_max = block_max(row_max, scratch);
    for (int32_t n = from + (int32_t)threadIdx.x; n < to; n += (int32_t)blockDim.x) sum += expf(weights[n] - row_max);
    sum = block_sum(sum, scratch);
    for (int32_t n = from + (int32_t)threadIdx.x; n < to; n += (int32_t)blockDim.x)
        weights[n] = expf(weights[n] - row_max) / sum;
}

/* For the kinds that take one row: true if this column takes the first row, else it takes the last. */
static __device__ __forceinline__ bool takes_first(int kind, size_t column, size_t width)
{
    return kind == FIRST || (kind == ENDS && column >= width / 2);
}

template <typename T>
static __global__ void pool_forward_kernel(T *__restrict__ y, const float *__restrict__ weights,
                                           const T *__restrict__ x, const int32_t *__restrict__ offsets, size_t width,
                                           int kind)
{
    size_t s = blockIdx.x;
    int32_t from = offsets[s], to = offsets[s + 1];
    for (size_t i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = 0;
        if (from < to && (kind == FIRST || kind == LAST || kind == ENDS))
            sum = to_float(x[(size_t)(takes_first(kind, i, width) ? from : to - 1) * width + i]);
        if (kind == MEAN || kind == ATTENTION)
            for (int32_t n = from; n < to; n++)
                sum +=
                    (kind == ATTENTION ? weights[n] : 1.0f / (float)(to - from)) * to_float(x[(size_t)n * width + i]);
        y[s * width + i] = from_float<T>(sum);
    }
}

/* score (N) = w (dy . x - sum of w dy . x over the sentence); a block per sentence. */
template <typename T>
static __global__ void pool_score_kernel(float *__restrict__ score, const T *__restrict__ dy,
                                         const int32_t *__restrict__ offsets, const T *__restrict__ x,
                                         const float *__restrict__ weights, size_t width)
{
    KERNEL_SHARED(float, scratch, WARP);
    size_t s = blockIdx.x;
    int32_t from = offsets[s], to = offsets[s + 1];
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (int32_t n = from + (int32_t)warp; n < to; n += (int32_t)warps) {
        float d = 0;
        for (size_t i = lane; i < width; i += WARP)
            d += to_float(dy[s * width + i]) * to_float(x[(size_t)n * width + i]);
        d = warp_sum(d);
        if (lane == 0) score[n] = d;
    }
    __syncthreads();
    float mean_score = 0;
    for (int32_t n = from + (int32_t)threadIdx.x; n < to; n += (int32_t)blockDim.x) mean_score += weights[n] * score[n];
    mean_score = block_sum(mean_score, scratch);
    for (int32_t n = from + (int32_t)threadIdx.x; n < to; n += (int32_t)blockDim.x)
        score[n] = weights[n] * (score[n] - mean_score);
}

template <typename T>
static __global__ void pool_backward_kernel(T *dx, const T *__restrict__ dy, const int32_t *__restrict__ offsets,
                                            const T *__restrict__ query, const float *__restrict__ weights,
                                            const float *__restrict__ score, size_t width, int kind, bool add)
{
    size_t s = blockIdx.x;
    int32_t from = offsets[s], to = offsets[s + 1];
    for (int32_t n = from; n < to; n++) {
        float row_weight = kind == ATTENTION ? weights[n] : 1.0f / (float)(to - from);
        for (size_t i = threadIdx.x; i < width; i += blockDim.x) {
            float w = kind == ATTENTION || kind == MEAN                    ? row_weight
                      : n == (takes_first(kind, i, width) ? from : to - 1) ? 1.0f
                                                                           : 0.0f,
                  v = w * to_float(dy[s * width + i]);
            if (kind == ATTENTION) v += score[n] * to_float(query[i]);
            put(&dx[(size_t)n * width + i], v, add);
        }
    }
}

/* dquery in two stages: a sum per block of sentences, then the blocks in order. */
template <typename T>
static __global__ void pool_query_partial_kernel(float *__restrict__ partial, const T *__restrict__ x,
                                                 const int32_t *__restrict__ offsets, const float *__restrict__ score,
                                                 size_t sentences, size_t width)
{
    size_t column = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    size_t first = (size_t)blockIdx.y * SENTENCES_PER_BLOCK, last = first + SENTENCES_PER_BLOCK;
    if (last > sentences) last = sentences;
    float sum = 0;
    for (int32_t n = offsets[first]; n < offsets[last]; n++) sum += score[n] * to_float(x[(size_t)n * width + column]);
    partial[(size_t)blockIdx.y * width + column] = sum;
}

static __global__ void pool_query_combine_kernel(float *__restrict__ dquery, const float *__restrict__ partial,
                                                 size_t blocks, size_t width, bool add)
{
    size_t column = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0;
    for (size_t b = 0; b < blocks; b++) sum += partial[b * width + column];
    put(&dquery[column], sum, add);
}

template <typename T>
static __global__ void broadcast_add_kernel(T *__restrict__ y, const T *__restrict__ x, const T *__restrict__ v,
                                            const int32_t *__restrict__ sentence, size_t width, size_t total)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    size_t row = i / width, column = i % width;
    y[i] = from_float<T>(to_float(x[i]) + to_float(v[(size_t)sentence[row] * width + column]));
}

template <typename T>
static __global__ void segment_sum_kernel(T *y, const T *__restrict__ x, const int32_t *__restrict__ offsets,
                                          size_t width, size_t total, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    size_t s = i / width, column = i % width;
    float sum = 0;
    for (int32_t n = offsets[s]; n < offsets[s + 1]; n++) sum += to_float(x[(size_t)n * width + column]);
    put(&y[i], sum, add);
}

template <typename T>
static __global__ void prefix_kernel(T *__restrict__ y, const T *__restrict__ x, const T *__restrict__ prefix,
                                     const int32_t *__restrict__ position, const int32_t *__restrict__ sentence,
                                     size_t width, size_t prefix_rows, size_t total)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    size_t row = i / width, column = i % width, j = (size_t)position[row], s = sentence ? (size_t)sentence[row] : row;
    y[i] = j < prefix_rows ? prefix[(s * prefix_rows + j) * width + column] : x[i];
}

template <typename T>
static __global__ void behind_prefix_kernel(T *dx, const T *__restrict__ dy, const int32_t *__restrict__ position,
                                            size_t width, size_t prefix_rows, size_t total, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    put(&dx[i], (size_t)position[i / width] < prefix_rows ? 0.0f : to_float(dy[i]), add);
}

/* A thread per element of dprefix (S, M, D). Rows that a sentence lacks give 0, as in a padding sentence. */
template <typename T>
static __global__ void of_prefix_kernel(T *dprefix, const T *__restrict__ dy, const int32_t *__restrict__ offsets,
                                        size_t width, size_t prefix_rows, size_t total, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    size_t row = i / width, s = row / prefix_rows, n = (size_t)offsets[s] + row % prefix_rows;
    put(&dprefix[i], n < (size_t)offsets[s + 1] ? to_float(dy[n * width + i % width]) : 0.0f, add);
}

template <typename T>
static __global__ void clear_padding_kernel(T *x, const int32_t *__restrict__ offsets, size_t sentences, size_t total,
                                            size_t width)
{
    size_t first = (size_t)offsets[sentences] * width;
    for (size_t i = first + (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total;
         i += (size_t)gridDim.x * blockDim.x)
        x[i] = from_float<T>(0.0f);
}

/* ---- launchers ---- */

extern "C" int clear_padding_cuda(const struct clear_padding_args *args, kernel_stream stream)
{
    enum { BLOCKS = 64 };
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(clear_padding_kernel<T>, BLOCKS, THREADS, 0, stream, (T *)args->x, args->offsets, args->sentences,
                      args->rows * args->width, args->width);
    });
    return cudaGetLastError();
}

extern "C" int pool_forward_cuda(const struct pool_forward_args *args, kernel_stream stream)
{
    if (!args->sentences) return 0;
    KERNEL_DISPATCH(args->type, {
        if (args->kind == ATTENTION)
            KERNEL_LAUNCH(pool_weights_kernel<T>, (unsigned)args->sentences, THREADS, 0, stream, args->weights,
                          (const T *)args->x, args->offsets, (const T *)args->query, args->width);
        KERNEL_LAUNCH(pool_forward_kernel<T>, (unsigned)args->sentences, THREADS, 0, stream, (T *)args->y,
                      args->weights, (const T *)args->x, args->offsets, args->width, args->kind);
    });
    return cudaGetLastError();
}

extern "C" size_t pool_scratch_floats(size_t sentences, size_t width)
{
    return (size_t)blocks_for(sentences, SENTENCES_PER_BLOCK) * width;
}

extern "C" int pool_backward_cuda(const struct pool_backward_args *args, kernel_stream stream)
{
    float *score = args->scratch, *partial = args->scratch + args->tokens;
    unsigned blocks = blocks_for(args->sentences, SENTENCES_PER_BLOCK), columns = blocks_for(args->width, THREADS);
    if (args->sentences)
        KERNEL_DISPATCH(args->type, {
            if (args->kind == ATTENTION)
                KERNEL_LAUNCH(pool_score_kernel<T>, (unsigned)args->sentences, THREADS, 0, stream, score,
                              (const T *)args->dy, args->offsets, (const T *)args->x, args->weights, args->width);
            if (args->dx)
                KERNEL_LAUNCH(pool_backward_kernel<T>, (unsigned)args->sentences, THREADS, 0, stream, (T *)args->dx,
                              (const T *)args->dy, args->offsets, (const T *)args->query, args->weights, score,
                              args->width, args->kind, args->add_dx);
            if (args->dquery)
                KERNEL_LAUNCH(pool_query_partial_kernel<T>, dim3(columns, blocks), THREADS, 0, stream, partial,
                              (const T *)args->x, args->offsets, score, args->sentences, args->width);
        });
    if (args->dquery)
        KERNEL_LAUNCH(pool_query_combine_kernel, columns, THREADS, 0, stream, args->dquery, partial, (size_t)blocks,
                      args->width, args->add_dquery);
    return cudaGetLastError();
}

extern "C" int broadcast_add_cuda(const struct broadcast_add_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(broadcast_add_kernel<T>, blocks_for(args->rows * args->width, THREADS), THREADS, 0, stream,
                      (T *)args->y, (const T *)args->x, (const T *)args->v, args->sentence, args->width,
                      args->rows * args->width);
    });
    return cudaGetLastError();
}

extern "C" int segment_sum_cuda(const struct segment_sum_args *args, kernel_stream stream)
{
    if (!args->sentences) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(segment_sum_kernel<T>, blocks_for(args->sentences * args->width, THREADS), THREADS, 0, stream,
                      (T *)args->y, (const T *)args->x, args->offsets, args->width, args->sentences * args->width,
                      args->add);
    });
    return cudaGetLastError();
}

extern "C" int prefix_cuda(const struct prefix_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_LAUNCH(prefix_kernel<T>, blocks_for(args->rows * args->width, THREADS), THREADS, 0, stream, (T *)args->y,
                      (const T *)args->x, (const T *)args->prefix, args->position, args->sentence, args->width,
                      args->prefix_rows, args->rows * args->width);
    });
    return cudaGetLastError();
}

extern "C" int prefix_backward_cuda(const struct prefix_backward_args *args, kernel_stream stream)
{
    size_t total = args->rows * args->width, elements = args->sentences * args->prefix_rows * args->width;
    KERNEL_DISPATCH(args->type, {
        if (args->dx && total)
            KERNEL_LAUNCH(behind_prefix_kernel<T>, blocks_for(total, THREADS), THREADS, 0, stream, (T *)args->dx,
                          (const T *)args->dy, args->position, args->width, args->prefix_rows, total, args->add_dx);
        if (args->dprefix && elements)
            KERNEL_LAUNCH(of_prefix_kernel<T>, blocks_for(elements, THREADS), THREADS, 0, stream, (T *)args->dprefix,
                          (const T *)args->dy, args->offsets, args->width, args->prefix_rows, elements,
                          args->add_dprefix);
    });
    return cudaGetLastError();
}
