/* Maps of a posterior's head to mu | logvar, normalization by batch statistics, and running statistics. The formulas
 * are in src/ops/posterior.c. The arithmetic is in double, because there are only a few thousand numbers.
 *
 *   head, stats, x, y (S, 2Z)     used, sums (2K + 1)     running (2, K)     gain, bias (K)
 *
 * Maps: a thread per (mu, logvar) pair. Normalization: a block per group, which reads the group twice, or per row. */
#include "kernels/device.cuh"

enum { THREADS = 256, MAP_THREADS = 128 };

/* mu and logvar of a pair, and their derivatives by the head's two numbers a and b. */
struct posterior_pair {
    double mu, logvar, dmu_a, dmu_b, dlogvar_b;
};

static __device__ posterior_pair committed(const kernel_posterior &c, double a, double b)
{
    double span = c.most - c.least, sigmoid = 1 / (1 + exp(-b)), sigma = c.least + span * sigmoid;
    double slope = span * sigmoid / (1 + exp(b));
    posterior_pair p = {0, 2 * log(sigma), 0, 0, 2 / sigma * slope};
    double square = 2 * c.real + 1 + p.logvar - sigma * sigma;
    p.mu = sqrt(fmax(0.0, square) + fmax(0.0, a));
    if (p.mu > 0) {
        p.dmu_a = a > 0 ? 0.5 / p.mu : 0;
        p.dmu_b = square > 0 ? (1 / sigma - sigma) * slope / p.mu : 0;
    }
    return p;
}

/* logvar = log stdplus(x)^2: a Pade approximant near 0, where the equation loses all digits, else Newton's method. */
static __device__ double slashed_logvar(double x)
{
    double sqrt2 = sqrt(2.0), square = x * x;
    if (fabs(x) < 0.04)
        return 2 * (x / sqrt2 + square / 4 + square * x / (90 * sqrt2)) / (1 + 5 * x / (6 * sqrt2) + 17 * square / 180);
    double hypotenuse = sqrt(square + 4), r = 2 * log(x > 0 ? (x + hypotenuse) / 2 : 2 / (hypotenuse - x));
    for (int i = 0; i < 5; i++) r -= (exp(r) - r - 1 - square) / (exp(r) - 1);
    return r;
}

static __device__ posterior_pair slashed(double a, double b)
{
    double sqrt2 = sqrt(2.0), x = sqrt2 * b, logvar = slashed_logvar(x);
    return {sqrt2 * a, logvar, sqrt2, 0, x == 0 ? 2.0 : sqrt2 * 2 * x / expm1(logvar)};
}

static __device__ posterior_pair floored(const kernel_posterior &c, double mu, double logvar, double kept)
{
    double variance = kept * exp(logvar), total_variance = c.real + variance;
    return {mu, log(total_variance), 1, 0, variance / total_variance};
}

static __global__ void posterior_kernel(float *out, const float *__restrict__ head, const float *__restrict__ dstats,
                                        const unsigned long long *__restrict__ sample, const float *__restrict__ drops,
                                        struct kernel_posterior c, size_t sentences, size_t width, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= sentences * width) return;
    size_t s = i / width, j = i % width, a = s * 2 * width + j, b = a + width;
    double kept = 1;
    if (c.p > 0 && (!drops || *drops != 0.0f)) {
        unsigned word = word_of(noise_words(c.noise, sample[s], (unsigned)(j / 4)), (unsigned)(j % 4));
        kept = word >= c.threshold ? 1 / (1 - c.p) : 0;
    }
    posterior_pair p = c.map == KERNEL_POSTERIOR_DELTA     ? committed(c, (double)head[a], (double)head[b])
                       : c.map == KERNEL_POSTERIOR_SLASHED ? slashed((double)head[a], (double)head[b])
                                                           : floored(c, (double)head[a], (double)head[b], kept);
    if (!dstats) {
        out[a] = (float)p.mu;
        out[b] = (float)p.logvar;
        return;
    }
    put(&out[a], (float)((double)dstats[a] * p.dmu_a), add);
    put(&out[b], (float)((double)dstats[a] * p.dmu_b + (double)dstats[b] * p.dlogvar_b), add);
}

/* ---- normalization ---- */

static __device__ double rsqrt_or_zero(double square)
{
    return square > 0 ? 1 / sqrt(square) : 0;
}

static __device__ size_t counted_rows(const struct kernel_normalize &c)
{
    return c.counted ? (size_t)*c.counted : c.rows;
}

/* A block per row. Rows past the count become 0. */
static __global__ void normalize_rows_kernel(float *__restrict__ y, const float *__restrict__ x,
                                             const float *__restrict__ gain, const float *__restrict__ bias,
                                             struct kernel_normalize c)
{
    KERNEL_SHARED(double, scratch, WARP);
    size_t s = blockIdx.x;
    bool there = s < counted_rows(c);
    const float *from = x + s * c.width;
    double square = 0;
    for (size_t i = threadIdx.x; i < c.columns && there; i += blockDim.x) square += (double)from[i] * (double)from[i];
    square = block_sum(square, scratch);
    double scale = c.level * rsqrt_or_zero(square + c.epsilon) * (gain ? (double)gain[0] : 1.0);
    for (size_t i = threadIdx.x; i < c.width; i += blockDim.x) {
        double v = i < c.columns ? (double)from[i] * scale + (bias ? (double)bias[0] : 0.0) : (double)from[i];
        y[s * c.width + i] = there ? (float)v : 0.0f;
    }
}

/* A block per group, and one more for the columns that are copied. */
static __global__ void normalize_groups_kernel(float *__restrict__ y, float *__restrict__ used,
                                               float *__restrict__ sums, const float *__restrict__ x,
                                               const float *__restrict__ running, const float *__restrict__ gain,
                                               const float *__restrict__ bias, struct kernel_normalize c)
{
    KERNEL_SHARED(double, scratch, WARP);
    size_t k = blockIdx.x, counted = counted_rows(c), rest = c.width - c.columns, each = c.columns / c.groups;
    bool batch = c.batch && counted > 1;
    if (k == c.groups) {
        for (size_t i = threadIdx.x; i < c.rows * rest; i += blockDim.x) {
            size_t at = i / rest * c.width + c.columns + i % rest;
            y[at] = i / rest < counted ? x[at] : 0.0f;
        }
        if (threadIdx.x == 0) used[0] = batch ? 1.0f : 0.0f;
        if (threadIdx.x == 0 && sums) sums[0] = (float)counted;
        return;
    }
    /* Sums around the running mean, for the running statistics; batch statistics then take a second pass around the
     * batch mean. */
    double running_mean = c.center ? (double)running[k] : 0, sum = 0, square = 0;
    for (size_t i = threadIdx.x; i < counted * each; i += blockDim.x) {
        double t = (double)x[i / each * c.width + k + i % each * c.groups] - running_mean;
        sum += t;
        square += t * t;
    }
    sum = block_sum(sum, scratch);
    square = block_sum(square, scratch);
    double n = (double)counted, mean = running_mean, variance = (double)running[c.groups + k];
    if (batch) {
        double central_square = 0;
        if (c.center) mean = running_mean + sum / n;
        for (size_t i = threadIdx.x; i < counted * each; i += blockDim.x) {
            double t = (double)x[i / each * c.width + k + i % each * c.groups] - mean;
            central_square += t * t;
        }
        variance = block_sum(central_square, scratch) / n;
    }
    double rstd = rsqrt_or_zero(variance + c.epsilon), scale = c.level * rstd * (gain ? (double)gain[k] : 1.0);
    if (threadIdx.x == 0) {
        used[1 + k] = (float)mean;
        used[1 + c.groups + k] = (float)rstd;
        if (sums) sums[1 + k] = (float)sum;
        if (sums) sums[1 + c.groups + k] = (float)square;
    }
    for (size_t i = threadIdx.x; i < c.rows * each; i += blockDim.x) {
        size_t at = i / each * c.width + k + i % each * c.groups;
        double v = ((double)x[at] - mean) * scale + (bias ? (double)bias[k] : 0.0);
        y[at] = i / each < counted ? (float)v : 0.0f;
    }
}

/* One block walks the rows, because gain and bias have one sum over all rows. */
static __global__ void normalize_rows_backward_kernel(float *dx, float *dgain, float *dbias,
                                                      const float *__restrict__ dy, const float *__restrict__ x,
                                                      const float *__restrict__ gain, struct kernel_normalize c,
                                                      struct kernel_adds add)
{
    KERNEL_SHARED(double, scratch, WARP);
    size_t counted = counted_rows(c);
    double sum_gain = 0, sum_bias = 0, gain_value = gain ? (double)gain[0] : 1.0;
    for (size_t s = 0; s < c.rows; s++) {
        size_t row = s * c.width;
        bool there = s < counted;
        double square = 0, dot = 0, bias = 0;
        for (size_t i = threadIdx.x; i < c.columns && there; i += blockDim.x) {
            square += (double)x[row + i] * (double)x[row + i];
            dot += (double)dy[row + i] * (double)x[row + i];
            bias += (double)dy[row + i];
        }
        double inv_norm = rsqrt_or_zero(block_sum(square, scratch) + c.epsilon);
        dot = block_sum(dot, scratch) * inv_norm;
        sum_gain += dot;
        sum_bias += block_sum(bias, scratch);
        for (size_t i = threadIdx.x; i < c.width && dx; i += blockDim.x) {
            double d = (double)dy[row + i];
            if (i < c.columns) d = c.level * gain_value * (d - (double)x[row + i] * inv_norm * dot) * inv_norm;
            put(&dx[row + i], there ? (float)d : 0.0f, add.dx);
        }
    }
    if (threadIdx.x) return;
    if (dgain) put(&dgain[0], (float)(c.level * sum_gain), add.dgain);
    if (dbias) put(&dbias[0], (float)sum_bias, add.dbias);
}

static __global__ void normalize_groups_backward_kernel(float *dx, float *dgain, float *dbias,
                                                        const float *__restrict__ dy, const float *__restrict__ x,
                                                        const float *__restrict__ gain, const float *__restrict__ used,
                                                        struct kernel_normalize c, struct kernel_adds add)
{
    KERNEL_SHARED(double, scratch, WARP);
    size_t k = blockIdx.x, counted = counted_rows(c), rest = c.width - c.columns, each = c.columns / c.groups;
    if (k == c.groups) {
        for (size_t i = threadIdx.x; i < c.rows * rest && dx; i += blockDim.x) {
            size_t at = i / rest * c.width + c.columns + i % rest;
            put(&dx[at], i / rest < counted ? dy[at] : 0.0f, add.dx);
        }
        return;
    }
    double mean = (double)used[1 + k], rstd = (double)used[1 + c.groups + k], sum_g = 0, sum_gx = 0,
           n = (double)counted;
    for (size_t i = threadIdx.x; i < counted * each; i += blockDim.x) {
        size_t at = i / each * c.width + k + i % each * c.groups;
        sum_g += (double)dy[at];
        sum_gx += (double)dy[at] * ((double)x[at] - mean) * rstd;
    }
    sum_g = block_sum(sum_g, scratch);
    sum_gx = block_sum(sum_gx, scratch);
    double scale = c.level * rstd * (gain ? (double)gain[k] : 1.0);
    for (size_t i = threadIdx.x; i < c.rows * each && dx; i += blockDim.x) {
        size_t at = i / each * c.width + k + i % each * c.groups;
        double t = (double)dy[at];
        if (used[0] != 0.0f) t -= (c.center ? sum_g / n : 0.0) + ((double)x[at] - mean) * rstd * sum_gx / n;
        put(&dx[at], i / each < counted ? (float)(scale * t) : 0.0f, add.dx);
    }
    if (threadIdx.x) return;
    if (dgain) put(&dgain[k], (float)(c.level * sum_gx), add.dgain);
    if (dbias) put(&dbias[k], (float)sum_g, add.dbias);
}

static __global__ void running_kernel(float *running, const float *__restrict__ sums, const float *__restrict__ control,
                                      size_t groups, bool center, double share)
{
    size_t k = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    double n = (double)sums[0];
    if (k >= groups || control[0] == 0.0f || n < 2) return;
    double mean = (double)sums[1 + k] / n, square = (double)sums[1 + groups + k] / n;
    if (center) {
        running[k] = (float)((double)running[k] + share * mean);
        square -= mean * mean;
    }
    running[groups + k] = (float)((1 - share) * (double)running[groups + k] + share * fmax(square, 0.0));
}

/* ---- launchers ---- */

extern "C" int posterior_cuda(const struct posterior_args *args, kernel_stream stream)
{
    if (!args->sentences) return 0;
    KERNEL_LAUNCH(posterior_kernel, blocks_for(args->sentences * args->width, MAP_THREADS), MAP_THREADS, 0, stream,
                  args->stats, args->head, (const float *)NULL, (const unsigned long long *)args->sample, args->drops,
                  *args->c, args->sentences, args->width, false);
    return cudaGetLastError();
}

extern "C" int posterior_backward_cuda(const struct posterior_backward_args *args, kernel_stream stream)
{
    if (!args->sentences) return 0;
    KERNEL_LAUNCH(posterior_kernel, blocks_for(args->sentences * args->width, MAP_THREADS), MAP_THREADS, 0, stream,
                  args->dhead, args->head, args->dstats, (const unsigned long long *)args->sample, args->drops,
                  *args->c, args->sentences, args->width, args->add);
    return cudaGetLastError();
}

extern "C" int normalize_cuda(const struct normalize_args *args, kernel_stream stream)
{
    if (args->c->by_row) {
        if (args->c->rows)
            KERNEL_LAUNCH(normalize_rows_kernel, (unsigned)args->c->rows, MAP_THREADS, 0, stream, args->y, args->x,
                          args->gain, args->bias, *args->c);
        return cudaGetLastError();
    }
    KERNEL_LAUNCH(normalize_groups_kernel, (unsigned)args->c->groups + 1, THREADS, 0, stream, args->y, args->used,
                  args->sums, args->x, args->running, args->gain, args->bias, *args->c);
    return cudaGetLastError();
}

extern "C" int normalize_backward_cuda(const struct normalize_backward_args *args, kernel_stream stream)
{
    if (args->c->by_row)
        KERNEL_LAUNCH(normalize_rows_backward_kernel, 1, THREADS, 0, stream, args->dx, args->dgain, args->dbias,
                      args->dy, args->x, args->gain, *args->c, args->add);
    else
        KERNEL_LAUNCH(normalize_groups_backward_kernel, (unsigned)args->c->groups + 1, THREADS, 0, stream, args->dx,
                      args->dgain, args->dbias, args->dy, args->x, args->gain, args->used, *args->c, args->add);
    return cudaGetLastError();
}

extern "C" int running_cuda(const struct running_args *args, kernel_stream stream)
{
    KERNEL_LAUNCH(running_kernel, blocks_for(args->groups, MAP_THREADS), MAP_THREADS, 0, stream, args->running,
                  args->sums, args->control, args->groups, args->center, args->share);
    return cudaGetLastError();
}
