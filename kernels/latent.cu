/* Gaussian latent: z = mu + exp(logvar/2) * eps,  KL(q||N(0,1)) = (mu^2 + exp(logvar) - 1 - logvar) / 2
 *
 *   stats (S, 2Z)  mu | logvar      z (S, Z)      kl (S, Z) nats      noise: the address of eps (base/philox.h)
 *   dmu = dz + dkl mu;   dlogvar = dz eps exp(logvar/2) / 2 + dkl (exp(logvar) - 1) / 2
 *
 * One launch each way. Both passes draw eps from its address, so eps is never stored. A thread draws four neighbors.
 *
 * The log density of a Gaussian, with e = exp(-logvar), t = z - mu and d = sign dout:
 *
 *   out_s = -sign sum_j (log 2 pi + logvar + t^2 e) / 2
 *   dz = -d t e;   dmu = d t e;   dlogvar = d (t^2 e - 1) / 2, summed over s if one row of stats serves all
 *
 * The hinge on the spread of mu:
 *
 *   out = n max(0, margin - sum_b |mu_b - mean mu|^2 / (2n));   dmu_b = -dout (mu_b - mean mu) while out > 0 */
#include "kernels/device.cuh"

enum { THREADS = 128, DENSITY_GROUPS = 8, SPREAD_GROUPS = 16 };

/* Box-Muller in cuRAND's order: r sin first, then r cos, of words (0, 1) and (2, 3). */
static __device__ __forceinline__ void noise_normal4(float eps[4], uint4 w)
{
    unsigned words[4] = {w.x, w.y, w.z, w.w};
    for (int pair = 0; pair < 2; pair++) {
        float u = (float)words[2 * pair] * 2.3283064365386963e-10f + 1.1641532182693481e-10f;
        float v =
            (float)words[2 * pair + 1] * (2.3283064365386963e-10f * 6.2831855f) + 1.1641532182693481e-10f * 6.2831855f;
        float r = sqrtf(-2.0f * logf(u)), s, c;
        sincosf(v, &s, &c);
        eps[2 * pair] = r * s;
        eps[2 * pair + 1] = r * c;
    }
}

static __global__ void latent_forward_kernel(float *__restrict__ z, float *__restrict__ kl,
                                             const float *__restrict__ stats,
                                             const unsigned long long *__restrict__ sample, size_t sentences,
                                             size_t width, size_t blocks_per_row, bool sample_z,
                                             struct kernel_noise noise)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= sentences * blocks_per_row) return;
    size_t s = i / blocks_per_row, block = i % blocks_per_row;
    float eps[4] = {0, 0, 0, 0};
    if (sample_z) noise_normal4(eps, noise_words(noise, sample[s], (unsigned)block));
    for (int k = 0; k < 4; k++) {
        size_t j = block * 4 + k;
        if (j >= width) break;
        float mu = stats[s * 2 * width + j], logvar = stats[(s * 2 + 1) * width + j], sigma = expf(0.5f * logvar);
        z[s * width + j] = mu + sigma * eps[k];
        kl[s * width + j] = 0.5f * (mu * mu + sigma * sigma - 1.0f - logvar);
    }
}

static __global__ void latent_backward_kernel(float *dstats, const float *__restrict__ dz,
                                              const float *__restrict__ dkl, const float *__restrict__ stats,
                                              const unsigned long long *__restrict__ sample, size_t sentences,
                                              size_t width, size_t blocks_per_row, bool sample_z, bool add,
                                              struct kernel_noise noise)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= sentences * blocks_per_row) return;
    size_t s = i / blocks_per_row, block = i % blocks_per_row;
    float eps[4] = {0, 0, 0, 0};
    if (sample_z && dz) noise_normal4(eps, noise_words(noise, sample[s], (unsigned)block));
    for (int k = 0; k < 4; k++) {
        size_t j = block * 4 + k;
        if (j >= width) break;
        float mu = stats[s * 2 * width + j], sigma = expf(0.5f * stats[(s * 2 + 1) * width + j]), dmu = 0, dlogvar = 0;
        if (dz) {
            dmu = dz[s * width + j];
            dlogvar = dmu * eps[k] * sigma * 0.5f;
        }
        if (dkl) {
            float d = dkl[s * width + j];
            dmu += d * mu;
            dlogvar += d * 0.5f * (sigma * sigma - 1.0f);
        }
        put(&dstats[s * 2 * width + j], dmu, add);
        put(&dstats[(s * 2 + 1) * width + j], dlogvar, add);
    }
}

static __global__ void column_moments_kernel(float *__restrict__ out, const float *__restrict__ x,
                                             const struct kernel_header *__restrict__ header, size_t columns)
{
    size_t rows = header->count[HEADER_SENTENCES];
    size_t column = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    float sum = 0, square = 0;
    for (size_t r = 0; r < rows; r++) {
        float v = x[r * columns + column];
        sum += v;
        square += v * v;
    }
    out[2 * column] = sum;
    out[2 * column + 1] = square;
}

/* ---- the log density of a Gaussian ---- */

static constexpr float LOG_2PI = 1.83787706640934548f;

/* A warp per row. `stride` is the distance between rows of stats, 0 if one row serves all. */
static __global__ void log_density_kernel(float *__restrict__ out, const float *__restrict__ z,
                                          const float *__restrict__ stats, const uint64_t *__restrict__ counted,
                                          size_t rows, size_t width, size_t stride, float sign)
{
    size_t s = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (s >= rows) return;
    const float *mu = stats + s * stride, *logvar = mu + width;
    double sum = 0;
    for (size_t j = threadIdx.x % WARP; j < width; j += WARP) {
        float t = z[s * width + j] - mu[j];
        sum += (double)(LOG_2PI + logvar[j] + t * t * expf(-logvar[j]));
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) out[s] = s < *counted ? (float)(-0.5 * (double)sign * sum) : 0.0f;
}

/* The derivatives by mu (a; the derivative by z is -a) and by logvar (b), given d = sign dout. */
static __device__ __forceinline__ void density_gradient(float *dmu, float *dlogvar, float d, float z, float mu,
                                                        float logvar)
{
    float t = z - mu, e = expf(-logvar);
    *dmu = d * t * e;
    *dlogvar = 0.5f * d * (t * t * e - 1.0f);
}

static __global__ void log_density_rows_kernel(float *dz, float *dstats, const float *__restrict__ dout,
                                               const float *__restrict__ z, const float *__restrict__ stats,
                                               const uint64_t *__restrict__ counted, size_t rows, size_t width,
                                               size_t stride, float sign, bool add_z, bool add_stats)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * width) return;
    size_t s = i / width, j = i % width;
    const float *mu = stats + s * stride;
    float dmu = 0, dlogvar = 0;
    if (s < *counted) density_gradient(&dmu, &dlogvar, sign * dout[s], z[i], mu[j], mu[width + j]);
    if (dz) put(&dz[i], -dmu, add_z);
    if (!dstats) return;
    put(&dstats[s * 2 * width + j], dmu, add_stats);
    put(&dstats[(s * 2 + 1) * width + j], dlogvar, add_stats);
}

/* One row of stats: a lane per column. The GROUPS warps share the rows, and their sums are added in the order of the
 * warps. */
template <int GROUPS>
static __global__ void log_density_columns_kernel(float *dstats, const float *__restrict__ dout,
                                                  const float *__restrict__ z, const float *__restrict__ stats,
                                                  const uint64_t *__restrict__ counted, size_t width, float sign,
                                                  bool add)
{
    KERNEL_SHARED(double, sums, 2 * GROUPS * WARP);
    size_t rows = *counted, column = (size_t)blockIdx.x * WARP + threadIdx.x % WARP;
    double sum_dmu = 0, sum_dlogvar = 0;
    for (size_t s = threadIdx.x / WARP; s < rows && column < width; s += GROUPS) {
        float dmu, dlogvar;
        density_gradient(&dmu, &dlogvar, sign * dout[s], z[s * width + column], stats[column], stats[width + column]);
        sum_dmu += (double)dmu;
        sum_dlogvar += (double)dlogvar;
    }
    sums[threadIdx.x] = sum_dmu;
    sums[GROUPS * WARP + threadIdx.x] = sum_dlogvar;
    __syncthreads();
    if (threadIdx.x >= WARP || column >= width) return;
    for (int group = 1; group < GROUPS; group++) {
        sum_dmu += sums[group * WARP + threadIdx.x];
        sum_dlogvar += sums[(GROUPS + group) * WARP + threadIdx.x];
    }
    put(&dstats[column], (float)sum_dmu, add);
    put(&dstats[width + column], (float)sum_dlogvar, add);
}

/* ---- the spread of mu ---- */

/* One block, 32 columns at a time. The GROUPS warps share the rows, first for the means, then for the squared distances
 * from them. */
template <int GROUPS>
static __global__ void spread_hinge_kernel(float *__restrict__ out, float *__restrict__ spread,
                                           const float *__restrict__ stats, const uint64_t *__restrict__ counted,
                                           size_t width, float margin)
{
    KERNEL_SHARED(double, sums, GROUPS *WARP);
    KERNEL_SHARED(double, scratch, WARP);
    size_t rows = *counted, lane = threadIdx.x % WARP, first = threadIdx.x / WARP;
    double square = 0, n = (double)rows;
    for (size_t from = 0; from < width; from += WARP) {
        size_t column = from + lane;
        bool in_range = column < width;
        double sum = 0;
        for (size_t s = first; s < rows && in_range; s += GROUPS) sum += (double)stats[s * 2 * width + column];
        __syncthreads(); /* all warps have read the sums of the columns before */
        sums[threadIdx.x] = sum;
        __syncthreads();
        sum = 0;
        for (int group = 0; group < GROUPS; group++) sum += sums[group * WARP + lane];
        double mean = rows ? sum / n : 0;
        for (size_t s = first; s < rows && in_range; s += GROUPS) {
            double t = (double)stats[s * 2 * width + column] - mean;
            square += t * t;
        }
        if (first == 0 && in_range) spread[column] = (float)mean;
    }
    square = block_sum(square, scratch);
    if (threadIdx.x) return;
    double hinge = rows ? (double)margin - square / (2 * n) : 0;
    out[0] = (float)(n * fmax(hinge, 0.0));
    spread[width] = hinge > 0 ? 1.0f : 0.0f;
}

static __global__ void spread_backward_kernel(float *dstats, const float *__restrict__ dout,
                                              const float *__restrict__ stats, const float *__restrict__ spread,
                                              const uint64_t *__restrict__ counted, size_t rows, size_t width, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * width) return;
    size_t s = i / width, j = i % width, at = s * 2 * width + j;
    float d = s < *counted && spread[width] > 0 ? dout[0] * (spread[j] - stats[at]) : 0.0f;
    put(&dstats[at], d, add);
    if (!add) dstats[at + width] = 0;
}

/* ---- launchers ---- */

extern "C" int latent_forward_cuda(const struct latent_forward_args *args, kernel_stream stream)
{
    size_t blocks_per_row = (args->width + 3) / 4;
    if (!args->sentences) return 0;
    KERNEL_LAUNCH(latent_forward_kernel, blocks_for(args->sentences * blocks_per_row, THREADS), THREADS, 0, stream,
                  args->z, args->kl, args->stats, (const unsigned long long *)args->sample, args->sentences,
                  args->width, blocks_per_row, args->sample_z, args->noise);
    return cudaGetLastError();
}

extern "C" int latent_backward_cuda(const struct latent_backward_args *args, kernel_stream stream)
{
    size_t blocks_per_row = (args->width + 3) / 4;
    if (!args->sentences) return 0;
    KERNEL_LAUNCH(latent_backward_kernel, blocks_for(args->sentences * blocks_per_row, THREADS), THREADS, 0, stream,
                  args->dstats, args->dz, args->dkl, args->stats, (const unsigned long long *)args->sample,
                  args->sentences, args->width, blocks_per_row, args->sample_z, args->add, args->noise);
    return cudaGetLastError();
}

extern "C" int column_moments_cuda(const struct column_moments_args *args, kernel_stream stream)
{
    KERNEL_LAUNCH(column_moments_kernel, blocks_for(args->columns, THREADS), THREADS, 0, stream, args->out, args->x,
                  args->header, args->columns);
    return cudaGetLastError();
}

extern "C" int gaussian_log_density_cuda(const struct gaussian_log_density_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_LAUNCH(log_density_kernel, blocks_for(args->rows * WARP, THREADS), THREADS, 0, stream, args->out, args->z,
                  args->stats, args->counted, args->rows, args->width, args->one ? 0 : 2 * args->width, args->sign);
    return cudaGetLastError();
}

extern "C" int gaussian_log_density_backward_cuda(const struct gaussian_log_density_backward_args *args,
                                                  kernel_stream stream)
{
    float *each = args->one ? NULL : args->dstats;
    size_t elements = args->dz || each ? args->rows * args->width : 0;
    if (elements)
        KERNEL_LAUNCH(log_density_rows_kernel, blocks_for(elements, THREADS), THREADS, 0, stream, args->dz, each,
                      args->dout, args->z, args->stats, args->counted, args->rows, args->width,
                      args->one ? 0 : 2 * args->width, args->sign, args->add_dz, args->add_dstats);
    if (args->one && args->dstats)
        KERNEL_LAUNCH(log_density_columns_kernel<DENSITY_GROUPS>, blocks_for(args->width, WARP), DENSITY_GROUPS * WARP,
                      0, stream, args->dstats, args->dout, args->z, args->stats, args->counted, args->width, args->sign,
                      args->add_dstats);
    return cudaGetLastError();
}

extern "C" int spread_hinge_cuda(const struct spread_hinge_args *args, kernel_stream stream)
{
    KERNEL_LAUNCH(spread_hinge_kernel<SPREAD_GROUPS>, 1, SPREAD_GROUPS * WARP, 0, stream, args->out, args->spread,
                  args->stats, args->counted, args->width, args->margin);
    return cudaGetLastError();
}

extern "C" int spread_hinge_backward_cuda(const struct spread_hinge_backward_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_LAUNCH(spread_backward_kernel, blocks_for(args->rows * args->width, THREADS), THREADS, 0, stream,
                  args->dstats, args->dout, args->stats, args->spread, args->counted, args->rows, args->width,
                  args->add);
    return cudaGetLastError();
}
