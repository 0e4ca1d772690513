/* Gaussian latent: z = mu + exp(logvar/2) * eps,  KL(q||N(0,1)) = (mu^2 + exp(logvar) - 1 - logvar) / 2
 *
 *   stats (S, 2Z)  mu | logvar      z (S, Z)      kl (S, Z) nats      noise: the address of eps (base/philox.h)
 *   dmu = dz + dkl mu;   dlogvar = dz eps exp(logvar/2) / 2 + dkl (exp(logvar) - 1) / 2
 *
 * One launch each way; eps is drawn from its address in both passes and never stored: a thread draws four neighbours.
 */
#include "kernels/device.cuh"

enum { THREADS = 128 };

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
                                             size_t width, size_t fours, bool sample_z, struct kernel_noise noise)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= sentences * fours) return;
    size_t s = i / fours, block = i % fours;
    float eps[4] = {0, 0, 0, 0};
    if (sample_z) noise_normal4(eps, noise_words(noise, sample[s], (unsigned)block));
    for (int k = 0; k < 4; k++) {
        size_t j = block * 4 + k;
        if (j >= width) break;
        float mu = stats[s * 2 * width + j], logvar = stats[(s * 2 + 1) * width + j], deviation = expf(0.5f * logvar);
        z[s * width + j] = mu + deviation * eps[k];
        kl[s * width + j] = 0.5f * (mu * mu + deviation * deviation - 1.0f - logvar);
    }
}

static __global__ void latent_backward_kernel(float *dstats, const float *__restrict__ dz,
                                              const float *__restrict__ dkl, const float *__restrict__ stats,
                                              const unsigned long long *__restrict__ sample, size_t sentences,
                                              size_t width, size_t fours, bool sample_z, bool add,
                                              struct kernel_noise noise)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= sentences * fours) return;
    size_t s = i / fours, block = i % fours;
    float eps[4] = {0, 0, 0, 0};
    if (sample_z && dz) noise_normal4(eps, noise_words(noise, sample[s], (unsigned)block));
    for (int k = 0; k < 4; k++) {
        size_t j = block * 4 + k;
        if (j >= width) break;
        float mu = stats[s * 2 * width + j], deviation = expf(0.5f * stats[(s * 2 + 1) * width + j]), a = 0, b = 0;
        if (dz) {
            a = dz[s * width + j];
            b = a * eps[k] * deviation * 0.5f;
        }
        if (dkl) {
            float d = dkl[s * width + j];
            a += d * mu;
            b += d * 0.5f * (deviation * deviation - 1.0f);
        }
        put(&dstats[s * 2 * width + j], a, add);
        put(&dstats[(s * 2 + 1) * width + j], b, add);
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

/* ---- launchers ---- */

extern "C" int latent_forward_cuda(float *z, float *kl, const float *stats, const uint64_t *sample, size_t sentences,
                                   size_t width, bool sample_z, struct kernel_noise noise, kernel_stream stream)
{
    size_t fours = (width + 3) / 4;
    if (!sentences) return 0;
    KERNEL_LAUNCH(latent_forward_kernel, blocks_for(sentences * fours, THREADS), THREADS, 0, stream, z, kl, stats,
                  (const unsigned long long *)sample, sentences, width, fours, sample_z, noise);
    return cudaGetLastError();
}

extern "C" int latent_backward_cuda(float *dstats, const float *dz, const float *dkl, const float *stats,
                                    const uint64_t *sample, size_t sentences, size_t width, bool sample_z, bool add,
                                    struct kernel_noise noise, kernel_stream stream)
{
    size_t fours = (width + 3) / 4;
    if (!sentences) return 0;
    KERNEL_LAUNCH(latent_backward_kernel, blocks_for(sentences * fours, THREADS), THREADS, 0, stream, dstats, dz, dkl,
                  stats, (const unsigned long long *)sample, sentences, width, fours, sample_z, add, noise);
    return cudaGetLastError();
}

extern "C" int column_moments_cuda(float *out, const float *x, const struct kernel_header *header, size_t columns,
                                   kernel_stream stream)
{
    KERNEL_LAUNCH(column_moments_kernel, blocks_for(columns, THREADS), THREADS, 0, stream, out, x, header, columns);
    return cudaGetLastError();
}
