/* Norm with fused dropout and residual: s = drop(x) + residual
 *   layer: y = (s - mean) rstd gamma + beta      rms: y = s rms^-1 gamma
 *
 *   stats (N, 2) mean | rstd     dinput = rstd (g - mean(g) - x_hat mean(g x_hat)) + dsum,  g = dy gamma
 *   dx = drop(dinput)
 *
 * A team of whole warps keeps a row in registers, EACH columns a thread in packs of P: a team is one warp for a narrow
 * row, and the block for a wide row. All arrays are read once and written once. A team past the last row works on no
 * columns, because all teams must reach the barriers. Backward: the number of blocks that walk the rows depends on
 * shapes alone. A team keeps its columns' sums of dgamma and dbeta in registers, the teams of a block add theirs in
 * order into the block's slice of the scratch, and a second launch adds the slices. */
#include "kernels/device.cuh"

enum { THREADS = 256, MOST_BLOCKS = 528, GROUPS = 32, FORWARD_EACH = 32, BACKWARD_EACH = 16 };

/* The most threads of a block with EACH columns a thread, and the blocks per multiprocessor for which registers are
 * limited. */
template <int P, int EACH>
static constexpr unsigned most_threads = P == 1 || EACH == 16 ? 480
                                         : EACH == 8          ? 384
                                                              : THREADS;
template <int P, int EACH> static constexpr unsigned least_blocks = P == 8 && EACH != 16 ? 2 : 1;

/* Loads a thread's packs of a row; zeros past its end. */
template <typename T, int P, int N>
static __device__ __forceinline__ void load_row(pack<T, P> (&to)[N], const T *row, unsigned thread, unsigned team,
                                                unsigned width)
{
    KERNEL_UNROLL
    for (unsigned i = 0; i < N; i++) {
        unsigned column = (i * team + thread) * P;
        if (column < width)
            to[i] = load_pack<T, P>(row + column);
        else
            to[i] = {};
    }
}

/* Sums over a team, in the order of its warps. All warps of the block must call it; `scratch` holds N floats per warp
 * of the block. */
template <int N> static __device__ __forceinline__ void team_sums(float (&v)[N], unsigned team, float *scratch)
{
    unsigned warp = threadIdx.x / WARP, first = threadIdx.x / team * (team / WARP);
    KERNEL_UNROLL
    for (int i = 0; i < N; i++) v[i] = warp_sum(v[i]);
    if (team == WARP) return;
    __syncthreads();
    if (threadIdx.x % WARP == 0) KERNEL_UNROLL
    for (int i = 0; i < N; i++) scratch[N * warp + i] = v[i];
    __syncthreads();
    KERNEL_UNROLL
    for (int i = 0; i < N; i++) {
        v[i] = scratch[N * first + i];
        for (unsigned w = 1; w < team / WARP; w++) v[i] += scratch[N * (first + w) + i];
    }
}

static __device__ __forceinline__ float team_sum(float v, unsigned team, float *scratch)
{
    float one[1] = {v};
    team_sums(one, team, scratch);
    return one[0];
}

/* The noise of a row's sample, and the coordinate of the row's first column. */
struct row_noise {
    sample_noise noise;
    unsigned long long first;
};

static __device__ __forceinline__ row_noise noise_of_row(const kernel_dropout &d, size_t row, unsigned width)
{
    return {noise_of(d.noise, d.sample[d.sentence[row]]), (unsigned long long)d.position[row] * width};
}

template <typename T, int P, int EACH, bool DROPS>
static __global__ void __launch_bounds__((most_threads<P, EACH>), (least_blocks<P, EACH>))
    norm_forward_kernel(T *__restrict__ y, T *__restrict__ sum, float *__restrict__ stats, const T *__restrict__ x,
                        const T *__restrict__ residual, const T *__restrict__ gamma, const T *__restrict__ beta,
                        kernel_dropout dropout, size_t rows, unsigned width, unsigned team, bool rms)
{
    constexpr int N = EACH / P;
    KERNEL_SHARED(float, scratch, WARP);
    unsigned thread = threadIdx.x % team;
    size_t row = (size_t)blockIdx.x * (blockDim.x / team) + threadIdx.x / team, at = row * width;
    unsigned columns = row < rows ? width : 0;
    pack<T, P> s[N];
    float mean = 0, square = 0;
    load_row(s, x + at, thread, team, columns);
    if (residual) {
        pack<T, P> r[N];
        row_noise noise = {};
        if (DROPS && columns) noise = noise_of_row(dropout, row, width);
        load_row(r, residual + at, thread, team, columns);
        KERNEL_UNROLL
        for (unsigned i = 0; i < N; i++) {
            unsigned column = (i * team + thread) * P;
            float v[P];
            KERNEL_UNROLL
            for (int e = 0; e < P; e++) v[e] = to_float(s[i].v[e]);
            if (DROPS && column < columns) drop_elements(v, dropout, noise.noise, noise.first + column);
            KERNEL_UNROLL
            for (int e = 0; e < P; e++) s[i].v[e] = from_float<T>(v[e] + to_float(r[i].v[e]));
            if (column < columns) store_pack(sum + at + column, s[i]);
        }
    }
    /* The mean first, then rstd from the squared distances to the mean; the row stays in registers. */
    if (!rms) {
        KERNEL_UNROLL
        for (int i = 0; i < EACH; i++) mean += to_float(s[i / P].v[i % P]);
        mean = team_sum(mean, team, scratch) / (float)width;
    }
    KERNEL_UNROLL
    for (int i = 0; i < EACH; i++) {
        float d = ((unsigned)i / P * team + thread) * P < columns ? to_float(s[i / P].v[i % P]) - mean : 0.0f;
        square += d * d;
    }
    float rstd = rsqrtf(team_sum(square, team, scratch) / (float)width + 1e-5f);
    if (thread == 0 && columns) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = rstd;
    }
    KERNEL_UNROLL
    for (unsigned i = 0; i < N; i++) {
        unsigned column = (i * team + thread) * P;
        if (column >= columns) continue;
        pack<T, P> gamma_pack = load_pack<T, P>(gamma + column), beta_pack = {};
        if (beta) beta_pack = load_pack<T, P>(beta + column);
        KERNEL_UNROLL
        for (int e = 0; e < P; e++)
            s[i].v[e] = from_float<T>((to_float(s[i].v[e]) - mean) * rstd * to_float(gamma_pack.v[e]) +
                                      to_float(beta_pack.v[e]));
        store_pack(y + at + column, s[i]);
    }
}

/* The pitch of the block's sums, such that neither neighboring threads nor neighboring columns share a bank. */
static __host__ __device__ __forceinline__ unsigned sums_pitch(unsigned team)
{
    return team + 4;
}

template <typename T, int P, int EACH, bool DROPS>
static __global__ void __launch_bounds__((most_threads<P, EACH>), (least_blocks<P, EACH>))
    norm_backward_kernel(T *dinput, T *dx, float *__restrict__ partial, const T *__restrict__ dy, const T *dsum,
                         const T *__restrict__ input, const T *__restrict__ gamma, const float *__restrict__ stats,
                         kernel_dropout dropout, size_t rows, unsigned width, unsigned team, bool rms, bool add,
                         bool add_dx)
{
    constexpr int N = EACH / P;
    KERNEL_SHARED(float, scratch, 2 * WARP);
    KERNEL_DYNAMIC_SHARED(float,
                          sums); /* (2, EACH, pitch): dgamma, dbeta of the block; thread t has place t of each row */
    unsigned thread = threadIdx.x % team, teams = blockDim.x / team, team_index = threadIdx.x / team;
    float dgamma[EACH] = {}, dbeta[EACH] = {};
    pack<T, P> gamma_pack[N];
    load_row(gamma_pack, gamma, thread, team, width);
    for (size_t first = (size_t)blockIdx.x * teams; first < rows; first += (size_t)gridDim.x * teams) {
        size_t row = first + team_index, at = row * width;
        unsigned columns = row < rows ? width : 0;
        pack<T, P> d[N], s[N], r[N] = {};
        load_row(d, dy + at, thread, team, columns);
        load_row(s, input + at, thread, team, columns);
        if (dsum && !DROPS) load_row(r, dsum + at, thread, team, columns);
        /* The row's mean(g x_hat) and mean(g), and this thread's part of dgamma and dbeta. */
        float mean = columns ? stats[2 * row] : 0.0f, rstd = columns ? stats[2 * row + 1] : 0.0f, g_sums[2] = {};
        KERNEL_UNROLL
        for (int i = 0; i < EACH; i++) {
            float dv = to_float(d[i / P].v[i % P]), x_hat = (to_float(s[i / P].v[i % P]) - mean) * rstd;
            float g = dv * to_float(gamma_pack[i / P].v[i % P]);
            g_sums[0] += g * x_hat;
            g_sums[1] += g;
            dgamma[i] += dv * x_hat;
            dbeta[i] += dv;
        }
        if (!dinput && !DROPS) continue;
        team_sums(g_sums, team, scratch);
        float mean_gx = g_sums[0] / (float)width, mean_g = rms ? 0.0f : g_sums[1] / (float)width;
        /* dinput = rstd (g - mean(g) - x_hat mean(g x_hat)) + dsum */
        row_noise noise = {};
        if (DROPS && columns) noise = noise_of_row(dropout, row, width);
        KERNEL_UNROLL
        for (unsigned i = 0; i < N; i++) {
            unsigned column = (i * team + thread) * P;
            if (column >= columns) continue;
            if (dsum && DROPS) r[i] = load_pack<T, P>(dsum + at + column); /* loaded late, to save registers */
            float v[P];
            KERNEL_UNROLL
            for (int e = 0; e < P; e++) {
                float x_hat = (to_float(s[i].v[e]) - mean) * rstd,
                      g = to_float(d[i].v[e]) * to_float(gamma_pack[i].v[e]);
                v[e] = rstd * (g - mean_g - x_hat * mean_gx) + to_float(r[i].v[e]);
            }
            if (dinput) put_pack(dinput + at + column, v, add);
            if (!DROPS) continue;
            drop_elements(v, dropout, noise.noise, noise.first + column);
            put_pack(dx + at + column, v, add_dx);
        }
    }
    if (!partial) return;
    unsigned pitch = sums_pitch(team);
    /* One team at a time adds its sums, so that the order is fixed; the barrier ends its turn. */
    for (unsigned turn = 0; turn < teams; turn++) {
        if (team_index == turn) KERNEL_UNROLL
        for (unsigned i = 0; i < EACH; i++) {
            put(&sums[i * pitch + thread], dgamma[i], turn > 0);
            put(&sums[(EACH + i) * pitch + thread], dbeta[i], turn > 0);
        }
        __syncthreads();
    }
    for (unsigned i = threadIdx.x; i < 2 * width; i += blockDim.x) {
        unsigned column = i % width, at = column / P;
        partial[(size_t)blockIdx.x * 2 * width + i] =
            sums[(i / width * EACH + at / team * P + column % P) * pitch + at % team];
    }
}

/* dgamma (blockIdx.y 0) and dbeta (1): a lane per column; GROUPS warps share the slices. */
static __global__ void norm_combine_kernel(float *dgamma, float *dbeta, const float *__restrict__ partial,
                                           size_t blocks, size_t width, bool add_gamma, bool add_beta)
{
    KERNEL_SHARED(float, sums, GROUPS *WARP);
    float *to = blockIdx.y ? dbeta : dgamma;
    size_t column = (size_t)blockIdx.x * WARP + threadIdx.x % WARP;
    if (!to) return;
    float sum = sum_slices<GROUPS>(partial + blockIdx.y * width, blocks, 2 * width, column, column < width, sums);
    if (threadIdx.x < WARP && column < width) put(&to[column], sum, blockIdx.y ? add_beta : add_gamma);
}

/* ---- launchers ---- */

struct teams {
    unsigned team, threads; /* threads of a row, of a block */
};

static struct teams teams_of(size_t width, size_t each)
{
    struct teams t;
    t.team = blocks_for(width, each * WARP) * WARP;
    t.threads = t.team < THREADS ? THREADS / t.team * t.team : t.team;
    return t;
}

/* Returns the columns of a team's threads that lie past the row's end. */
static size_t idle(size_t width, size_t each)
{
    return teams_of(width, each).team * each - width;
}

/* Returns the columns per thread for rows in packs: as many as let one warp have a row, at most `most`. For a wider row
 * 16, or 8 if that leaves fewer columns idle. */
static size_t each_of(size_t width, size_t most)
{
    if (width <= most * WARP) return (width + 8 * WARP - 1) / (8 * WARP) * 8;
    return teams_of(width, 8).team <= most_threads<2, 8> && idle(width, 8) < idle(width, 16) ? 8 : 16;
}

#define NORM_TEAMS(width, each, ...)                                                                                   \
    do {                                                                                                               \
        constexpr int EACH = each;                                                                                     \
        struct teams t = teams_of(width, EACH);                                                                        \
        if (t.threads > most_threads<P, EACH>) return cudaErrorInvalidValue;                                           \
        __VA_ARGS__;                                                                                                   \
    } while (0)

/* Runs `body` with P, EACH = the columns of a thread (at most `most`, 16 or 32, if a warp has a row alone), and t = the
 * teams. */
#define NORM_PACKED(fits, T, width, most, ...)                                                                         \
    KERNEL_PACKED(fits, T, {                                                                                           \
        size_t each = P == 1 ? 8 : each_of(width, most);                                                               \
        if (P == 1 || each == 8)                                                                                       \
            NORM_TEAMS(width, 8, __VA_ARGS__);                                                                         \
        else if (each == 16)                                                                                           \
            NORM_TEAMS(width, (P > 1 ? 16 : 8), __VA_ARGS__);                                                          \
        else if (each == 24)                                                                                           \
            NORM_TEAMS(width, (P > 1 && (most) > 16 ? 24 : 8), __VA_ARGS__);                                           \
        else                                                                                                           \
            NORM_TEAMS(width, (P > 1 && (most) > 16 ? 32 : 8), __VA_ARGS__); /* 8 where `each` cannot be 32 */         \
    })

extern "C" size_t norm_scratch_floats(size_t rows, size_t width)
{
    return (rows < MOST_BLOCKS ? rows : (size_t)MOST_BLOCKS) * 2 * width;
}

extern "C" int norm_forward_cuda(const struct norm_forward_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        bool fits = args->width % (16 / sizeof(T)) == 0 && packs(args->y) && packs(args->sum) && packs(args->x) &&
                    packs(args->residual) && packs(args->gamma) && packs(args->beta);
        NORM_PACKED(fits, T, args->width, FORWARD_EACH, KERNEL_FLAG(args->dropout && args->residual, DROPS, {
                        KERNEL_LAUNCH((norm_forward_kernel<T, P, EACH, DROPS>),
                                      blocks_for(args->rows, t.threads / t.team), t.threads, 0, stream, (T *)args->y,
                                      (T *)args->sum, args->stats, (const T *)args->x, (const T *)args->residual,
                                      (const T *)args->gamma, (const T *)args->beta,
                                      DROPS ? *args->dropout : kernel_dropout{}, args->rows, (unsigned)args->width,
                                      t.team, args->rms);
                    }));
    });
    return cudaGetLastError();
}

extern "C" int norm_backward_cuda(const struct norm_backward_args *args, kernel_stream stream)
{
    unsigned blocks = 0;
    float *partial = args->dgamma || args->dbeta ? args->scratch : nullptr;
    if (args->rows)
        KERNEL_DISPATCH(args->type, {
            bool fits = args->width % (16 / sizeof(T)) == 0 && packs(args->dinput) && packs(args->dx) &&
                        packs(args->dy) && packs(args->dsum) && packs(args->input) && packs(args->gamma);
            NORM_PACKED(fits, T, args->width, BACKWARD_EACH, KERNEL_FLAG(args->dropout && args->dx, DROPS, {
                            blocks = blocks_for(args->rows, t.threads / t.team);
                            unsigned most = EACH > 8 ? MOST_BLOCKS / 2 : MOST_BLOCKS; /* limited by registers */
                            if (blocks > most) blocks = most;
                            size_t shared = 2 * EACH * sums_pitch(t.team) * sizeof(float);
                            int e = allow_shared(norm_backward_kernel<T, P, EACH, DROPS>, shared);
                            if (e) return e;
                            KERNEL_LAUNCH((norm_backward_kernel<T, P, EACH, DROPS>), blocks, t.threads, shared, stream,
                                          (T *)args->dinput, (T *)args->dx, partial, (const T *)args->dy,
                                          (const T *)args->dsum, (const T *)args->input, (const T *)args->gamma,
                                          args->stats, DROPS ? *args->dropout : kernel_dropout{}, args->rows,
                                          (unsigned)args->width, t.team, args->rms, args->add_dinput, args->add_dx);
                        }));
        });
    if (args->dgamma || args->dbeta)
        KERNEL_LAUNCH(norm_combine_kernel, dim3(blocks_for(args->width, WARP), 2), GROUPS * WARP, 0, stream,
                      args->dgamma, args->dbeta, args->scratch, (size_t)blocks, args->width, args->add_dgamma,
                      args->add_dbeta);
    return cudaGetLastError();
}
