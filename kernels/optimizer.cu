/* The update: squared norm in blocks of 1,024 elements, AdamW, SGD with momentum. Masters are f32, moments f32 or bf16.
 * The same pass writes a bf16 working copy of the weights. The guard decides on the device whether and how the update
 * is applied.
 *
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w -= r (m c1 / (sqrt(v c2) + eps) + decay w)
 *   g is scaled by the clip
 *
 * The weights move by the moments in f32. bf16 moments are rounded stochastically as they are stored, by noise whose
 * address is the element's index in the arena (kernels.h), because rounding to nearest would lose small steps. */
#include "kernels/device.cuh"

enum { THREADS = 256, COMBINE_THREADS = 1024, FOUR = 4, PACKS = 2 };
enum {
    NORM_BLOCK = 1024,
    NORM_BLOCKS = 32,
    NORM_SPAN = NORM_BLOCK * NORM_BLOCKS,
    NORM_FOURS = NORM_BLOCK / (FOUR * WARP)
};
enum {
    RATE,
    SCALE,
    DECAY,
    BETA1,
    ONE_MINUS_BETA1,
    BETA2,
    ONE_MINUS_BETA2,
    EPSILON,
    CORRECTION1,
    CORRECTION2,
    MOMENTUM,
    APPLY,
    SCALARS
};                              /* order of op_adamw */
enum { APPLIED, NORM, FINITE }; /* order of op_guard */

/* Loads elements i .. i + 3, by one access if P is 4 and all four exist; zeros past the end. */
template <int P> static __device__ __forceinline__ pack<float, FOUR> load_four(const float *x, size_t i, size_t count)
{
    pack<float, FOUR> four;
    if (P == FOUR && i + FOUR <= count) return load_pack<float, FOUR>(x + i);
    KERNEL_UNROLL
    for (int e = 0; e < FOUR; e++) four.v[e] = i + e < count ? x[i + e] : 0.0f;
    return four;
}

/* Returns the sum of squares of a block, by a warp. All loads are issued before the first use. The order in which a
 * lane adds its elements is the same for every P. */
template <int P>
static __device__ __forceinline__ double block_square(const float *gradient, size_t block, size_t count)
{
    size_t first = block * NORM_BLOCK + threadIdx.x % WARP * FOUR;
    pack<float, FOUR> g[NORM_FOURS];
    double sum = 0;
    KERNEL_UNROLL
    for (unsigned k = 0; k < NORM_FOURS; k++) g[k] = load_four<P>(gradient, first + k * WARP * FOUR, count);
    KERNEL_UNROLL
    for (unsigned k = 0; k < NORM_FOURS; k++) KERNEL_UNROLL
    for (int e = 0; e < FOUR; e++) sum += (double)g[k].v[e] * (double)g[k].v[e];
    return warp_sum(sum);
}

/* Writes the sum of NORM_BLOCKS blocks, one block per lane, and the number of blocks that are not finite. */
static __device__ __forceinline__ void write_span(double *partial, double block)
{
    pack<double, 2> totals = {{block, isfinite(block) ? 0.0 : 1.0}};
    KERNEL_UNROLL
    for (int k = 0; k < 2; k++) totals.v[k] = warp_sum(totals.v[k]);
    if (threadIdx.x % WARP == 0) store_pack(partial, totals);
}

/* partial (spans, 2): sums of NORM_BLOCKS blocks each. */
template <int P>
static __global__ void __launch_bounds__(THREADS)
    squared_norm_blocks_kernel(double *__restrict__ partial, const float *__restrict__ gradient, size_t count)
{
    KERNEL_SHARED(double, sums, NORM_BLOCKS);
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (unsigned b = warp; b < NORM_BLOCKS; b += THREADS / WARP) {
        double sum = block_square<P>(gradient, (size_t)blockIdx.x * NORM_BLOCKS + b, count);
        if (lane == 0) sums[b] = sum;
    }
    __syncthreads();
    if (warp == 0) write_span(partial + 2 * (size_t)blockIdx.x, sums[lane]);
}

/* sums (blocks): a warp per block. */
template <int P>
static __global__ void __launch_bounds__(THREADS)
    block_squares_kernel(double *__restrict__ sums, const float *__restrict__ gradient, size_t count)
{
    size_t block = ((size_t)blockIdx.x * THREADS + threadIdx.x) / WARP;
    if (block * NORM_BLOCK >= count) return;
    double sum = block_square<P>(gradient, block, count);
    if (threadIdx.x % WARP == 0) sums[block] = sum;
}

/* partial from the blocks' sums, block i at `at[i]`: the same additions as in squared_norm_blocks_kernel. */
static __global__ void __launch_bounds__(THREADS)
    gathered_spans_kernel(double *__restrict__ partial, const double *__restrict__ sums, const int32_t *__restrict__ at,
                          size_t blocks)
{
    size_t block = (size_t)blockIdx.x * THREADS + threadIdx.x, span = block / NORM_BLOCKS;
    if (span * NORM_BLOCKS >= blocks) return; /* whole warps return, so warp_sum below is complete */
    write_span(partial + 2 * span, block < blocks ? sums[at[block]] : 0.0);
}

static __global__ void __launch_bounds__(COMBINE_THREADS)
    squared_norm_combine_kernel(float *__restrict__ record, const double *__restrict__ partial, size_t blocks)
{
    KERNEL_SHARED(double, scratch, WARP);
    double sum = 0, nonfinite = 0;
    for (size_t b = threadIdx.x; b < blocks; b += blockDim.x) {
        pack<double, 2> each = load_pack<double, 2>(partial + 2 * b);
        sum += each.v[0];
        nonfinite += each.v[1];
    }
    sum = block_sum(sum, scratch);
    nonfinite = block_sum(nonfinite, scratch);
    if (threadIdx.x == 0) {
        record[0] = (float)sum;
        record[1] = (float)nonfinite;
    }
}

static __global__ void select_row_kernel(float *__restrict__ y, const float *__restrict__ rows,
                                         const float *__restrict__ control, const float *__restrict__ scales,
                                         size_t width)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= width) return;
    float v = rows[control[APPLIED] != 0.0f ? width + i : i];
    y[i] = scales ? v * scales[i] : v;
}

/* One thread, because these are a few numbers. The names are those of the enumerations of op_controller. */
enum { C_WEIGHT, C_USED, C_SUM };
enum { C_TARGET, C_P, C_I, C_LEAST, C_MOST, C_SENTENCES };
static __global__ void controller_kernel(float *state, float *weight, const float *__restrict__ figure,
                                         const float *__restrict__ control, const float *__restrict__ settings,
                                         bool multiplier)
{
    if (threadIdx.x) return;
    state[C_USED] = state[C_WEIGHT];
    if (control[APPLIED] == 0.0f) return;
    double error = (double)settings[C_TARGET] - (double)figure[0] / (double)settings[C_SENTENCES], next_weight;
    double sum = (double)state[C_SUM], i = (double)settings[C_I];
    if (multiplier) {
        state[C_SUM] = (float)(sum + i * error / (1 + exp(-sum)));
        sum = (double)state[C_SUM];
        next_weight = 1 - (sum > 0 ? sum + log1p(exp(-sum)) : log1p(exp(sum)));
    } else {
        double least = (double)settings[C_LEAST], most = (double)settings[C_MOST];
        double proportional = (double)settings[C_P] / (1 + exp(error)) + least, integral = sum - i * error;
        if (error < 0) integral = fmin(integral, fmax(sum, most - proportional));
        if (error > 0) integral = fmax(integral, fmin(sum, least - proportional));
        state[C_SUM] = (float)integral;
        next_weight = fmin(fmax(proportional + integral, least), most);
    }
    state[C_WEIGHT] = *weight = (float)next_weight;
}

struct norm_records {
    const float *record[KERNEL_MOST_NORMS];
};

/* One block. Every thread computes the same decision. All threads read the old decision before the barrier, and one
 * thread overwrites it after. */
static __global__ void guard_kernel(float *__restrict__ scalars, float *control, const float *__restrict__ loss,
                                    const float *__restrict__ rows, const float *__restrict__ settings,
                                    struct norm_records norms, size_t count, size_t groups)
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

/* A thread has PACKS packs of P elements, one block's width apart, and issues all loads before the first use. */
static __device__ __forceinline__ size_t pack_at(unsigned k, unsigned elements)
{
    return ((size_t)blockIdx.x * PACKS * THREADS + k * THREADS + threadIdx.x) * elements;
}

template <int P>
static __device__ __forceinline__ void store_working(bf16 *working, size_t i, const pack<float, P> &weights)
{
    pack<bf16, P> copy;
    if (!working) return;
    KERNEL_UNROLL
    for (int e = 0; e < P; e++) copy.v[e] = from_float<bf16>(weights.v[e]);
    store_pack(working + i, copy);
}

/* The noise words of elements i .. i + P - 1 of a range that begins at element `first` of the arena; zeros for moments
 * in f32. */
template <typename M, int P>
static __device__ __forceinline__ void rounding_words(unsigned (&words)[P], struct kernel_noise noise, size_t first,
                                                      size_t i)
{
    KERNEL_UNROLL
    for (int e = 0; e < P; e++) words[e] = 0;
    if (sizeof(M) == sizeof(float)) return;
    size_t at = first + i;
    uint4 four = noise_words(noise, at >> 34, (unsigned)(at / FOUR));
    const unsigned all[FOUR] = {four.x, four.y, four.z, four.w};
    KERNEL_UNROLL
    for (int e = 0; e < FOUR; e++)
        if (P == FOUR)
            words[e % P] = all[e];
        else if (at % FOUR == (size_t)e)
            words[0] = all[e];
}

template <typename M> static __device__ __forceinline__ M stored_moment(float x, unsigned half);

template <> __device__ __forceinline__ float stored_moment<float>(float x, unsigned half)
{
    (void)half;
    return x;
}

/* Rounds up with probability (lower half of x) / 65,536. Values that are not finite are truncated. */
template <> __device__ __forceinline__ bf16 stored_moment<bf16>(float x, unsigned half)
{
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits += half & 0xffffu;
    return __ushort_as_bfloat16((unsigned short)(bits >> 16));
}

template <typename M, int P>
static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(float *__restrict__ weights, M *__restrict__ moment1, M *__restrict__ moment2,
                 bf16 *__restrict__ working, const float *__restrict__ gradient, const float *__restrict__ scalars,
                 size_t count, size_t first, struct kernel_noise noise)
{
    pack<float, P> g[PACKS], w[PACKS];
    pack<M, P> m[PACKS], v[PACKS];
    if (scalars[APPLY] == 0.0f) return;
    KERNEL_UNROLL
    for (unsigned k = 0; k < PACKS; k++) {
        size_t i = pack_at(k, P);
        if (i >= count) continue;
        g[k] = load_pack<float, P>(gradient + i);
        w[k] = load_pack<float, P>(weights + i);
        m[k] = load_pack<M, P>(moment1 + i);
        v[k] = load_pack<M, P>(moment2 + i);
    }
    KERNEL_UNROLL
    for (unsigned k = 0; k < PACKS; k++) {
        size_t i = pack_at(k, P);
        unsigned words[P];
        if (i >= count) continue;
        rounding_words<M, P>(words, noise, first, i);
        KERNEL_UNROLL
        for (int e = 0; e < P; e++) {
            float grad = g[k].v[e] * scalars[SCALE];
            float m1 = scalars[BETA1] * to_float(m[k].v[e]) + scalars[ONE_MINUS_BETA1] * grad;
            float m2 = scalars[BETA2] * to_float(v[k].v[e]) + scalars[ONE_MINUS_BETA2] * grad * grad;
            w[k].v[e] -=
                scalars[RATE] * (m1 * scalars[CORRECTION1] / (sqrtf(m2 * scalars[CORRECTION2]) + scalars[EPSILON]) +
                                 scalars[DECAY] * w[k].v[e]);
            m[k].v[e] = stored_moment<M>(m1, words[e]);
            v[k].v[e] = stored_moment<M>(m2, words[e] >> 16);
        }
        store_pack(weights + i, w[k]);
        store_pack(moment1 + i, m[k]);
        store_pack(moment2 + i, v[k]);
        store_working(working, i, w[k]);
    }
}

template <typename M, int P>
static __global__ void __launch_bounds__(THREADS)
    sgd_kernel(float *__restrict__ weights, M *__restrict__ moment, bf16 *__restrict__ working,
               const float *__restrict__ gradient, const float *__restrict__ scalars, size_t count, size_t first,
               struct kernel_noise noise)
{
    pack<float, P> g[PACKS], w[PACKS];
    pack<M, P> m[PACKS];
    if (scalars[APPLY] == 0.0f) return;
    KERNEL_UNROLL
    for (unsigned k = 0; k < PACKS; k++) {
        size_t i = pack_at(k, P);
        if (i >= count) continue;
        g[k] = load_pack<float, P>(gradient + i);
        w[k] = load_pack<float, P>(weights + i);
        m[k] = load_pack<M, P>(moment + i);
    }
    KERNEL_UNROLL
    for (unsigned k = 0; k < PACKS; k++) {
        size_t i = pack_at(k, P);
        unsigned words[P];
        if (i >= count) continue;
        rounding_words<M, P>(words, noise, first, i);
        KERNEL_UNROLL
        for (int e = 0; e < P; e++) {
            float m1 = scalars[MOMENTUM] * to_float(m[k].v[e]) + g[k].v[e] * scalars[SCALE];
            w[k].v[e] -= scalars[RATE] * (m1 + scalars[DECAY] * w[k].v[e]);
            m[k].v[e] = stored_moment<M>(m1, words[e]);
        }
        store_pack(weights + i, w[k]);
        store_pack(moment + i, m[k]);
        store_working(working, i, w[k]);
    }
}

/* ---- launchers ---- */

extern "C" size_t squared_norm_scratch_doubles(size_t elements)
{
    return 2 * (size_t)blocks_for(elements, NORM_SPAN);
}

extern "C" int squared_norm_cuda(const struct squared_norm_args *args, kernel_stream stream)
{
    unsigned blocks = blocks_for(args->elements, NORM_SPAN);
    if (blocks)
        KERNEL_PACKED(packs(args->gradient), float,
                      KERNEL_LAUNCH(squared_norm_blocks_kernel<P>, blocks, THREADS, 0, stream, args->scratch,
                                    args->gradient, args->elements));
    KERNEL_LAUNCH(squared_norm_combine_kernel, 1, COMBINE_THREADS, 0, stream, args->record, args->scratch,
                  (size_t)blocks);
    return cudaGetLastError();
}

extern "C" int block_squares_cuda(double *sums, const float *gradient, size_t elements, kernel_stream stream)
{
    if (!elements) return 0;
    KERNEL_PACKED(packs(gradient), float,
                  KERNEL_LAUNCH(block_squares_kernel<P>, blocks_for(elements, NORM_BLOCK * (THREADS / WARP)), THREADS,
                                0, stream, sums, gradient, elements));
    return cudaGetLastError();
}

extern "C" int combined_norm_cuda(const struct combined_norm_args *args, kernel_stream stream)
{
    if (args->blocks)
        KERNEL_LAUNCH(gathered_spans_kernel, blocks_for(args->blocks, THREADS), THREADS, 0, stream, args->scratch,
                      args->sums, args->at, args->blocks);
    KERNEL_LAUNCH(squared_norm_combine_kernel, 1, COMBINE_THREADS, 0, stream, args->record, args->scratch,
                  (size_t)blocks_for(args->blocks, NORM_BLOCKS));
    return cudaGetLastError();
}

extern "C" int select_row_cuda(const struct select_row_args *args, kernel_stream stream)
{
    if (!args->width) return 0;
    KERNEL_LAUNCH(select_row_kernel, blocks_for(args->width, THREADS), THREADS, 0, stream, args->y, args->rows,
                  args->control, args->scales, args->width);
    return cudaGetLastError();
}

extern "C" int controller_cuda(const struct controller_args *args, kernel_stream stream)
{
    KERNEL_LAUNCH(controller_kernel, 1, WARP, 0, stream, args->state, args->weight, args->figure, args->control,
                  args->settings, args->multiplier);
    return cudaGetLastError();
}

extern "C" int guard_cuda(const struct guard_args *args, kernel_stream stream)
{
    struct norm_records records = {{0}};
    if (args->count > KERNEL_MOST_NORMS) return cudaErrorInvalidValue;
    for (size_t k = 0; k < args->count; k++) records.record[k] = args->norms[k];
    KERNEL_LAUNCH(guard_kernel, 1, THREADS, 0, stream, args->scalars, args->control, args->loss, args->rows,
                  args->settings, records, args->count, args->groups);
    return cudaGetLastError();
}

extern "C" int adamw_cuda(const struct adamw_args *args, kernel_stream stream)
{
    if (!args->elements) return 0;
    bool fits = args->elements % FOUR == 0 && args->first % FOUR == 0 && packs(args->weights) && packs(args->moment1) &&
                packs(args->moment2) && packs(args->working) && packs(args->gradient);
    KERNEL_DISPATCH(args->moments, {
        KERNEL_PACKED(fits, float,
                      KERNEL_LAUNCH((adamw_kernel<T, P>), blocks_for(args->elements, THREADS * PACKS * P), THREADS, 0,
                                    stream, args->weights, (T *)args->moment1, (T *)args->moment2,
                                    (bf16 *)args->working, args->gradient, args->scalars, args->elements, args->first,
                                    args->noise));
    });
    return cudaGetLastError();
}

extern "C" int sgd_cuda(const struct sgd_args *args, kernel_stream stream)
{
    if (!args->elements) return 0;
    bool fits = args->elements % FOUR == 0 && args->first % FOUR == 0 && packs(args->weights) && packs(args->moment) &&
                packs(args->working) && packs(args->gradient);
    KERNEL_DISPATCH(args->moments, {
        KERNEL_PACKED(fits, float,
                      KERNEL_LAUNCH((sgd_kernel<T, P>), blocks_for(args->elements, THREADS * PACKS * P), THREADS, 0,
                                    stream, args->weights, (T *)args->moment, (bf16 *)args->working, args->gradient,
                                    args->scalars, args->elements, args->first, args->noise));
    });
    return cudaGetLastError();
}
