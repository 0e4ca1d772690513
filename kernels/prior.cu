/* Learned priors. The KL of diagonal Gaussians, with e = exp(-logvar of the prior), t = mu - mean:
 *
 *   kl = (logvar of the prior - logvar + (exp(logvar) + t^2) e - 1) / 2       stats (S, 2Z), prior (2Z), kl (S, Z)
 *   dmu = d t e;   dlogvar = d (exp(logvar) e - 1) / 2;   dprior: the sums over s of -d t e and d (1 - ...) / 2
 *
 * The log density of a mixture, l_sk = log w_k - sum_j (log 2 pi + logvar + t^2 e) / 2 with t = z - mu_k:
 *
 *   out_s = sign logsumexp_k l_sk;   r_sk = exp(l_sk - logsumexp)          z (S, Z), out (S), shares r (S, K)
 *   dz = -d sum_k r t e;   dmu = sum_s d r t e;   dlogvar = sum_s d r (t^2 e - 1) / 2;   dlogits = sum_s d (r - w)
 *
 * Sums over sentences are in double, in a fixed order, and skip padding. */
#include "kernels/device.cuh"

enum { THREADS = 128, PRIOR_GROUPS = 8 };

static constexpr float LOG_2PI = 1.83787706640934548f;

/* ---- the KL ---- */

static __global__ void kl_kernel(float *__restrict__ kl, const float *__restrict__ stats,
                                 const float *__restrict__ prior, const uint64_t *__restrict__ counted, size_t rows,
                                 size_t width)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * width) return;
    size_t s = i / width, j = i % width;
    const float *mu = stats + s * 2 * width + j;
    float t = mu[0] - prior[j], prior_logvar = prior[width + j], logvar = mu[width];
    kl[i] = s < *counted ? 0.5f * (prior_logvar - logvar + (expf(logvar) + t * t) * expf(-prior_logvar) - 1.0f) : 0.0f;
}

static __global__ void kl_rows_kernel(float *dstats, const float *__restrict__ dkl, const float *__restrict__ stats,
                                      const float *__restrict__ prior, const uint64_t *__restrict__ counted,
                                      size_t rows, size_t width, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * width) return;
    size_t s = i / width, j = i % width, at = s * 2 * width + j;
    float dmu = 0, dlogvar = 0;
    if (s < *counted) {
        float e = expf(-prior[width + j]);
        dmu = dkl[i] * (stats[at] - prior[j]) * e;
        dlogvar = 0.5f * dkl[i] * (expf(stats[at + width]) * e - 1.0f);
    }
    put(&dstats[at], dmu, add);
    put(&dstats[at + width], dlogvar, add);
}

/* Adds two sums per column over the GROUPS warps, in the order of the warps; the first warp gets the totals. */
template <int GROUPS> static __device__ __forceinline__ void add_groups(double *a, double *b, double *sums)
{
    sums[threadIdx.x] = *a;
    sums[GROUPS * WARP + threadIdx.x] = *b;
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    for (int group = 1; group < GROUPS; group++) {
        *a += sums[group * WARP + threadIdx.x];
        *b += sums[(GROUPS + group) * WARP + threadIdx.x];
    }
}

/* A lane per column; the GROUPS warps share the sentences. */
template <int GROUPS>
static __global__ void kl_columns_kernel(float *dprior, const float *__restrict__ dkl, const float *__restrict__ stats,
                                         const float *__restrict__ prior, const uint64_t *__restrict__ counted,
                                         size_t width, bool add)
{
    KERNEL_SHARED(double, sums, 2 * GROUPS * WARP);
    size_t rows = *counted, j = (size_t)blockIdx.x * WARP + threadIdx.x % WARP;
    double dmean = 0, dlogvar = 0;
    for (size_t s = threadIdx.x / WARP; s < rows && j < width; s += GROUPS) {
        const float *mu = stats + s * 2 * width + j;
        float t = mu[0] - prior[j], e = expf(-prior[width + j]), d = dkl[s * width + j];
        dmean -= (double)(d * t * e);
        dlogvar += (double)(0.5f * d * (1.0f - (expf(mu[width]) + t * t) * e));
    }
    add_groups<GROUPS>(&dmean, &dlogvar, sums);
    if (threadIdx.x >= WARP || j >= width) return;
    put(&dprior[j], (float)dmean, add);
    put(&dprior[width + j], (float)dlogvar, add);
}

/* ---- a mixture ---- */

/* Returns log sum_k exp(logits_k), by a warp; log K without logits. */
static __device__ double log_total(const struct kernel_mixture m, const float *logits)
{
    float max_logit = -INFINITY;
    double sum = 0;
    if (!logits) return log((double)m.components);
    for (size_t k = threadIdx.x % WARP; k < m.components; k += WARP) max_logit = fmaxf(max_logit, logits[k]);
    max_logit = warp_max(max_logit);
    for (size_t k = threadIdx.x % WARP; k < m.components; k += WARP) sum += exp((double)logits[k] - (double)max_logit);
    return (double)max_logit + log(warp_sum(sum));
}

/* Returns log N(z; component k), by a warp. */
static __device__ double component_log_density(const struct kernel_mixture m, const float *z, const float *components,
                                               size_t k)
{
    const float *mu = components + k * m.stride, *logvar = mu + m.logvar;
    double sum = 0;
    for (size_t j = threadIdx.x % WARP; j < m.width; j += WARP) {
        float t = z[j] - mu[j];
        sum += (double)(LOG_2PI + logvar[j] + t * t * expf(-logvar[j]));
    }
    return -0.5 * warp_sum(sum);
}

/* A warp per row: an online logsumexp over the components, then each component's share of the sum. */
static __global__ void mixture_kernel(float *__restrict__ out, float *__restrict__ shares, const float *__restrict__ z,
                                      const float *__restrict__ components, const float *__restrict__ logits,
                                      const uint64_t *__restrict__ counted, size_t rows, struct kernel_mixture m,
                                      float sign)
{
    size_t s = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (s >= rows) return;
    bool there = s < *counted;
    double logits_lse = there ? log_total(m, logits) : 0, max_l = -INFINITY, sum = 0;
    for (size_t k = 0; k < m.components && there; k++) {
        double l =
            component_log_density(m, z + s * m.width, components, k) + (logits ? (double)logits[k] : 0.0) - logits_lse;
        if (l > max_l) {
            sum = sum * exp(max_l - l) + 1;
            max_l = l;
        } else {
            sum += exp(l - max_l);
        }
    }
    for (size_t k = 0; k < m.components; k++) {
        double l = 0;
        if (there)
            l = component_log_density(m, z + s * m.width, components, k) + (logits ? (double)logits[k] : 0.0) -
                logits_lse;
        if (threadIdx.x % WARP == 0) shares[s * m.components + k] = there ? (float)(exp(l - max_l) / sum) : 0.0f;
    }
    if (threadIdx.x % WARP == 0) out[s] = there ? (float)((double)sign * (max_l + log(sum))) : 0.0f;
}

static __global__ void mixture_rows_kernel(float *dz, const float *__restrict__ dout, const float *__restrict__ shares,
                                           const float *__restrict__ z, const float *__restrict__ components,
                                           const uint64_t *__restrict__ counted, size_t rows, struct kernel_mixture m,
                                           float sign, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * m.width) return;
    size_t s = i / m.width, j = i % m.width;
    float sum = 0;
    for (size_t k = 0; k < m.components && s < *counted; k++) {
        const float *mu = components + k * m.stride + j;
        sum -= shares[s * m.components + k] * (z[i] - mu[0]) * expf(-mu[m.logvar]);
    }
    put(&dz[i], s < *counted ? sign * dout[s] * sum : 0.0f, add);
}

/* A block per component and 32 columns: a lane per column; the GROUPS warps share the sentences. */
template <int GROUPS>
static __global__ void
mixture_columns_kernel(float *dcomponents, const float *__restrict__ dout, const float *__restrict__ shares,
                       const float *__restrict__ z, const float *__restrict__ components,
                       const uint64_t *__restrict__ counted, struct kernel_mixture m, float sign, bool add)
{
    KERNEL_SHARED(double, sums, 2 * GROUPS * WARP);
    size_t blocks = (m.width + WARP - 1) / WARP, k = blockIdx.x / blocks;
    size_t rows = *counted, j = blockIdx.x % blocks * WARP + threadIdx.x % WARP, at = k * m.stride + j;
    double dmu = 0, dlogvar = 0;
    for (size_t s = threadIdx.x / WARP; s < rows && j < m.width; s += GROUPS) {
        float t = z[s * m.width + j] - components[at], e = expf(-components[at + m.logvar]);
        float d = sign * dout[s] * shares[s * m.components + k];
        dmu += (double)(d * t * e);
        dlogvar += (double)(0.5f * d * (t * t * e - 1.0f));
    }
    add_groups<GROUPS>(&dmu, &dlogvar, sums);
    if (threadIdx.x >= WARP || j >= m.width) return;
    put(&dcomponents[at], (float)dmu, add);
    put(&dcomponents[at + m.logvar], (float)dlogvar, add);
}

/* A warp per component. */
static __global__ void mixture_logits_kernel(float *dlogits, const float *__restrict__ dout,
                                             const float *__restrict__ shares, const float *__restrict__ logits,
                                             const uint64_t *__restrict__ counted, struct kernel_mixture m, float sign,
                                             bool add)
{
    size_t k = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP, rows = *counted;
    if (k >= m.components) return;
    double weight = exp((double)logits[k] - log_total(m, logits)), sum = 0;
    for (size_t s = threadIdx.x % WARP; s < rows; s += WARP)
        sum += (double)(sign * dout[s]) * ((double)shares[s * m.components + k] - weight);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) put(&dlogits[k], (float)sum, add);
}

/* ---- launchers ---- */

extern "C" int gaussian_kl_cuda(const struct gaussian_kl_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_LAUNCH(kl_kernel, blocks_for(args->rows * args->width, THREADS), THREADS, 0, stream, args->kl, args->stats,
                  args->prior, args->counted, args->rows, args->width);
    return cudaGetLastError();
}

extern "C" int gaussian_kl_backward_cuda(const struct gaussian_kl_backward_args *args, kernel_stream stream)
{
    if (args->rows && args->dstats)
        KERNEL_LAUNCH(kl_rows_kernel, blocks_for(args->rows * args->width, THREADS), THREADS, 0, stream, args->dstats,
                      args->dkl, args->stats, args->prior, args->counted, args->rows, args->width, args->add_dstats);
    if (args->dprior)
        KERNEL_LAUNCH(kl_columns_kernel<PRIOR_GROUPS>, blocks_for(args->width, WARP), PRIOR_GROUPS * WARP, 0, stream,
                      args->dprior, args->dkl, args->stats, args->prior, args->counted, args->width, args->add_dprior);
    return cudaGetLastError();
}

extern "C" int mixture_log_density_cuda(const struct mixture_log_density_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_LAUNCH(mixture_kernel, blocks_for(args->rows * WARP, THREADS), THREADS, 0, stream, args->out, args->shares,
                  args->z, args->components, args->logits, args->counted, args->rows, *args->m, args->sign);
    return cudaGetLastError();
}

extern "C" int mixture_log_density_backward_cuda(const struct mixture_log_density_backward_args *args,
                                                 kernel_stream stream)
{
    if (args->rows && args->dz)
        KERNEL_LAUNCH(mixture_rows_kernel, blocks_for(args->rows * args->m->width, THREADS), THREADS, 0, stream,
                      args->dz, args->dout, args->shares, args->z, args->components, args->counted, args->rows,
                      *args->m, args->sign, args->add_dz);
    if (args->dcomponents)
        KERNEL_LAUNCH(mixture_columns_kernel<PRIOR_GROUPS>,
                      (unsigned)args->m->components * blocks_for(args->m->width, WARP), PRIOR_GROUPS * WARP, 0, stream,
                      args->dcomponents, args->dout, args->shares, args->z, args->components, args->counted, *args->m,
                      args->sign, args->add_dcomponents);
    if (args->dlogits)
        KERNEL_LAUNCH(mixture_logits_kernel, blocks_for(args->m->components * WARP, THREADS), THREADS, 0, stream,
                      args->dlogits, args->dout, args->shares, args->logits, args->counted, *args->m, args->sign,
                      args->add_dlogits);
    return cudaGetLastError();
}
