/* Norm with fused residual: s = x + residual;  layer: y = (s - mean) rstd gamma + beta;  rms: y = s rms^-1 gamma.
 *
 *   stats (N, 2) mean | reciprocal deviation     dinput = rstd (g - mean(g) - hat mean(g hat)) + dsum,  g = dy gamma
 *
 * Forward: a block per row. Backward: a fixed number of blocks, each walks its share of the rows and keeps its columns' sums
 * of dgamma and dbeta in its slice of the scratch; a second launch adds the slices in order. */
#include "kernels/device.cuh"

enum { THREADS = 256, ROWS_PER_BLOCK = 32 };

template <typename T>
static __global__ void norm_forward_kernel(T *__restrict__ y, T *__restrict__ sum, float *__restrict__ stats,
                                    const T *__restrict__ x, const T *__restrict__ residual, const T *__restrict__ gamma,
                                    const T *__restrict__ beta, size_t width, bool rms)
{
    KERNEL_SHARED(float, scratch, WARP);
    size_t row = blockIdx.x, at = row * width;
    const T *s = x + at;
    float total = 0, square = 0;
    if (residual)
        for (size_t i = threadIdx.x; i < width; i += blockDim.x)
            sum[at + i] = from_float<T>(to_float(x[at + i]) + to_float(residual[at + i]));
    if (residual) s = sum + at; /* each thread reads back what it wrote */
    float mean = 0;
    if (!rms) {
        for (size_t i = threadIdx.x; i < width; i += blockDim.x) total += to_float(s[i]);
        mean = block_sum(total, scratch) / (float)width;
    }
    for (size_t i = threadIdx.x; i < width; i += blockDim.x) {
        float d = to_float(s[i]) - mean;
        square += d * d;
    }
    float scale = rsqrtf(block_sum(square, scratch) / (float)width + 1e-5f);
    if (threadIdx.x == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = scale;
    }
    for (size_t i = threadIdx.x; i < width; i += blockDim.x) {
        float v = (to_float(s[i]) - mean) * scale * to_float(gamma[i]);
        y[at + i] = from_float<T>(beta ? v + to_float(beta[i]) : v);
    }
}

template <typename T>
static __global__ void norm_backward_kernel(T *dinput, float *__restrict__ partial, const T *__restrict__ dy, const T *dsum,
                                     const T *__restrict__ input, const T *__restrict__ gamma,
                                     const float *__restrict__ stats, size_t rows, size_t width, bool rms, bool add)
{
    KERNEL_SHARED(float, scratch, WARP);
    float *dgamma = partial + (size_t)blockIdx.x * 2 * width, *dbeta = dgamma + width;
    for (size_t i = threadIdx.x; i < width; i += blockDim.x) dgamma[i] = dbeta[i] = 0;
    size_t end = (size_t)(blockIdx.x + 1) * ROWS_PER_BLOCK;
    if (end > rows) end = rows;
    for (size_t row = (size_t)blockIdx.x * ROWS_PER_BLOCK; row < end; row++) {
        size_t at = row * width;
        float mean = stats[2 * row], scale = stats[2 * row + 1], along = 0, level = 0;
        for (size_t i = threadIdx.x; i < width; i += blockDim.x) {
            float d = to_float(dy[at + i]), hat = (to_float(input[at + i]) - mean) * scale, g = d * to_float(gamma[i]);
            along += g * hat;
            level += g;
            dgamma[i] += d * hat;
            dbeta[i] += d;
        }
        along = block_sum(along, scratch) / (float)width;
        level = block_sum(level, scratch) / (float)width;
        if (!dinput) continue;
        if (rms) level = 0;
        for (size_t i = threadIdx.x; i < width; i += blockDim.x) {
            float hat = (to_float(input[at + i]) - mean) * scale;
            float v = scale * (to_float(dy[at + i]) * to_float(gamma[i]) - level - hat * along);
            if (dsum) v += to_float(dsum[at + i]);
            put(&dinput[at + i], v, add);
        }
    }
}

static __global__ void norm_combine_kernel(float *__restrict__ dgamma, float *__restrict__ dbeta, const float *__restrict__ partial,
                                    size_t blocks, size_t width, bool add_gamma, bool add_beta)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= width) return;
    float gamma = 0, beta = 0;
    for (size_t b = 0; b < blocks; b++) {
        gamma += partial[b * 2 * width + i];
        beta += partial[(b * 2 + 1) * width + i];
    }
    if (dgamma) put(&dgamma[i], gamma, add_gamma);
    if (dbeta) put(&dbeta[i], beta, add_beta);
}

/* ---- launchers ---- */

extern "C" size_t norm_scratch_floats(size_t rows, size_t width)
{
    return (size_t)blocks_for(rows, ROWS_PER_BLOCK) * 2 * width;
}

extern "C" int norm_forward_cuda(void *y, void *sum, float *stats, const void *x, const void *residual, const void *gamma,
                                 const void *beta, size_t rows, size_t width, bool rms, enum kernel_type type,
                                 kernel_stream stream)
{
    if (!rows) return 0;
    KERNEL_DISPATCH(type, {
        KERNEL_LAUNCH(norm_forward_kernel<T>, (unsigned)rows, THREADS, 0, stream, (T *)y, (T *)sum, stats, (const T *)x,
                      (const T *)residual, (const T *)gamma, (const T *)beta, width, rms);
    });
    return cudaGetLastError();
}

extern "C" int norm_backward_cuda(void *dinput, float *dgamma, float *dbeta, float *scratch, const void *dy, const void *dsum,
                                  const void *input, const void *gamma, const float *stats, size_t rows, size_t width,
                                  bool rms, const bool add[3], enum kernel_type type, kernel_stream stream)
{
    unsigned blocks = blocks_for(rows, ROWS_PER_BLOCK);
    if (blocks)
        KERNEL_DISPATCH(type, {
            KERNEL_LAUNCH(norm_backward_kernel<T>, blocks, THREADS, 0, stream, (T *)dinput, scratch, (const T *)dy,
                          (const T *)dsum, (const T *)input, (const T *)gamma, stats, rows, width, rms, add[0]);
        });
    if (dgamma || dbeta)
        KERNEL_LAUNCH(norm_combine_kernel, blocks_for(width, THREADS), THREADS, 0, stream, dgamma, dbeta, scratch,
                      (size_t)blocks, width, add[1], add[2]);
    return cudaGetLastError();
}
