/* The update: squared norm in blocks of 1,024 elements, AdamW, SGD with momentum. Masters and moments are f32; a bf16 working
 * copy of the weights is written in the same pass. The guard decides on the device whether and how the update is applied.
 *
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w -= r (m c1 / (sqrt(v c2) + eps) + decay w),  g scaled by the clip */
#include "kernels/device.cuh"

enum { THREADS = 256, NORM_BLOCK = 1024 };
enum { RATE, SCALE, DECAY, BETA1, BETA2, EPSILON, CORRECTION1, CORRECTION2, MOMENTUM, APPLY, SCALARS }; /* as op_adamw's */
enum { APPLIED, NORM, FINITE };                                                                      /* as op_guard's */

static __global__ void squared_norm_blocks_kernel(double *__restrict__ partial, const float *__restrict__ gradient, size_t count)
{
    KERNEL_SHARED(double, scratch, WARP);
    size_t first = (size_t)blockIdx.x * NORM_BLOCK, end = first + NORM_BLOCK < count ? first + NORM_BLOCK : count;
    double sum = 0;
    for (size_t i = first + threadIdx.x; i < end; i += blockDim.x) sum += (double)gradient[i] * (double)gradient[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

static __global__ void squared_norm_combine_kernel(float *__restrict__ record, const double *__restrict__ partial, size_t blocks)
{
    KERNEL_SHARED(double, scratch, WARP);
    double sum = 0, bad = 0;
    for (size_t b = threadIdx.x; b < blocks; b += blockDim.x) {
        sum += partial[b];
        bad += isfinite(partial[b]) ? 0 : 1;
    }
    sum = block_sum(sum, scratch);
    bad = block_sum(bad, scratch);
    if (threadIdx.x == 0) {
        record[0] = (float)sum;
        record[1] = (float)bad;
    }
}

static __global__ void select_row_kernel(float *__restrict__ y, const float *__restrict__ rows, const float *__restrict__ control,
                                         size_t width)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < width) y[i] = rows[control[APPLIED] != 0.0f ? width + i : i];
}

struct norm_records {
    const float *record[KERNEL_MOST_NORMS];
};

/* One block. Every thread comes to the same decision; the old one is read before it is overwritten. */
static __global__ void guard_kernel(float *__restrict__ scalars, float *control, const float *__restrict__ loss,
                                    const float *__restrict__ rows, const float *__restrict__ settings, struct norm_records norms,
                                    size_t count, size_t groups)
{
    const float *row = control[APPLIED] != 0.0f ? rows + groups * SCALARS : rows;
    double sum = 0;
    for (size_t k = 0; k < count; k++) sum += norms.record[k][1] > 0.0f ? (double)NAN : (double)norms.record[k][0];
    double norm = sqrt(sum), clip = (double)settings[0];
    bool finite = isfinite(norm) && isfinite(loss[0]), applied = finite && settings[1] == 0.0f;
    float scale = clip > 0 && norm > clip ? (float)(clip / norm) : 1.0f;
    for (size_t i = threadIdx.x; i < groups * SCALARS; i += blockDim.x)
        scalars[i] = i % SCALARS == APPLY ? (applied ? 1.0f : 0.0f) : i % SCALARS == SCALE ? row[i] * scale : row[i];
    __syncthreads();
    if (threadIdx.x == 0) {
        control[APPLIED] = applied ? 1.0f : 0.0f;
        control[NORM] = (float)norm;
        control[FINITE] = finite ? 1.0f : 0.0f;
    }
}

static __global__ void adamw_kernel(float *__restrict__ weights, float *__restrict__ moment1, float *__restrict__ moment2,
                             bf16 *__restrict__ working, const float *__restrict__ gradient,
                             const float *__restrict__ s, size_t count)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || s[APPLY] == 0.0f) return;
    float g = gradient[i] * s[SCALE], w = weights[i];
    float m = s[BETA1] * moment1[i] + (1.0f - s[BETA1]) * g, v = s[BETA2] * moment2[i] + (1.0f - s[BETA2]) * g * g;
    moment1[i] = m;
    moment2[i] = v;
    w -= s[RATE] * (m * s[CORRECTION1] / (sqrtf(v * s[CORRECTION2]) + s[EPSILON]) + s[DECAY] * w);
    weights[i] = w;
    if (working) working[i] = from_float<bf16>(w);
}

static __global__ void sgd_kernel(float *__restrict__ weights, float *__restrict__ moment, bf16 *__restrict__ working,
                           const float *__restrict__ gradient, const float *__restrict__ s, size_t count)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || s[APPLY] == 0.0f) return;
    float m = s[MOMENTUM] * moment[i] + gradient[i] * s[SCALE], w = weights[i];
    moment[i] = m;
    w -= s[RATE] * (m + s[DECAY] * w);
    weights[i] = w;
    if (working) working[i] = from_float<bf16>(w);
}

/* ---- launchers ---- */

extern "C" int squared_norm_cuda(float *record, double *scratch, const float *gradient, size_t elements, kernel_stream stream)
{
    unsigned blocks = blocks_for(elements, NORM_BLOCK);
    if (blocks) KERNEL_LAUNCH(squared_norm_blocks_kernel, blocks, THREADS, 0, stream, scratch, gradient, elements);
    KERNEL_LAUNCH(squared_norm_combine_kernel, 1, THREADS, 0, stream, record, scratch, (size_t)blocks);
    return cudaGetLastError();
}

extern "C" int select_row_cuda(float *y, const float *rows, const float *control, size_t width, kernel_stream stream)
{
    if (!width) return 0;
    KERNEL_LAUNCH(select_row_kernel, blocks_for(width, THREADS), THREADS, 0, stream, y, rows, control, width);
    return cudaGetLastError();
}

extern "C" int guard_cuda(float *scalars, float *control, const float *loss, const float *rows, const float *settings,
                          const float *const *norms, size_t count, size_t groups, kernel_stream stream)
{
    struct norm_records records = {{0}};
    if (count > KERNEL_MOST_NORMS) return cudaErrorInvalidValue;
    for (size_t k = 0; k < count; k++) records.record[k] = norms[k];
    KERNEL_LAUNCH(guard_kernel, 1, THREADS, 0, stream, scalars, control, loss, rows, settings, records, count, groups);
    return cudaGetLastError();
}

extern "C" int adamw_cuda(float *weights, float *moment1, float *moment2, void *working, const float *gradient,
                          const float *scalars, size_t elements, kernel_stream stream)
{
    if (!elements) return 0;
    KERNEL_LAUNCH(adamw_kernel, blocks_for(elements, THREADS), THREADS, 0, stream, weights, moment1, moment2, (bf16 *)working,
                  gradient, scalars, elements);
    return cudaGetLastError();
}

extern "C" int sgd_cuda(float *weights, float *moment, void *working, const float *gradient, const float *scalars,
                        size_t elements, kernel_stream stream)
{
    if (!elements) return 0;
    KERNEL_LAUNCH(sgd_kernel, blocks_for(elements, THREADS), THREADS, 0, stream, weights, moment, (bf16 *)working, gradient,
                  scalars, elements);
    return cudaGetLastError();
}
