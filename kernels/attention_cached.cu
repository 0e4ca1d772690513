/* Attention of one new token per row with a cache of keys and values: appends the token's key and value at its position
 * and attends to all positions up to it.
 *
 *   qkv (R, (H + 2 Hk) W)    cache (R, room, 2, Hk W)    memory (R, M, 2, Hk W)    out (R, H W) */
#include "kernels/attention.cuh"

enum { WARPS = 4, THREADS = WARPS * WARP };

/* A block per (row, key head). `team` lanes, a power of two, share a key or a value by packs of P, so that a warp reads
 * whole rows next to each other. Shared memory holds the scores of all keys. The teams' partial sums of values are
 * added in the order of the teams. */
template <typename T, int P>
static __global__ void __launch_bounds__(THREADS, 1)
    attention_cached_kernel(T *__restrict__ out, T *cache, const T *__restrict__ qkv,
                            const int32_t *__restrict__ position, const T *__restrict__ memory,
                            const int32_t *__restrict__ history, size_t room, struct attention_shape a, unsigned team)
{
    KERNEL_DYNAMIC_SHARED(float, scores);
    KERNEL_SHARED(float, scratch, WARP);
    KERNEL_SHARED(float, sums, THREADS *P);
    size_t row = blockIdx.x, kv = blockIdx.y, kv_width = a.kv_heads * a.width, group = a.heads / a.kv_heads,
           each = a.width / P;
    size_t at = (size_t)position[row], keys = a.memory + at + 1, team_index = threadIdx.x / team,
           teams = THREADS / team, lane = threadIdx.x % team;
    const T *query = qkv + row * a.row, *latent_kv = memory + row * a.memory * 2 * kv_width + kv * a.width;
    T *own_cache = cache + row * room * 2 * kv_width + kv * a.width;
    history = history ? history + row * room : nullptr;
    /* Key (0) or value (1) of position j: `history` names the cache row that holds the positions before this one. */
    auto cached_row = [=](size_t j, size_t which) {
        const T *from = history && j < at ? cache + (size_t)history[j] * room * 2 * kv_width + kv * a.width : own_cache;
        return from + (j * 2 + which) * kv_width;
    };
    /* Append the new key and value; every head of the group reads them, after the barrier. */
    for (size_t c = threadIdx.x; c < 2 * each; c += THREADS) {
        size_t which = c / each, d = c % each * P;
        store_pack(own_cache + (at * 2 + which) * kv_width + d,
                   load_pack<T, P>(query + (a.heads + which * a.kv_heads + kv) * a.width + d));
    }
    __syncthreads();
    for (size_t head = kv * group; head < (kv + 1) * group; head++) {
        /* Scores: a team per key, then a butterfly over its lanes. */
        for (size_t first = 0; first < keys; first += teams) {
            size_t j = first + team_index;
            const T *k = j < a.memory ? latent_kv + j * 2 * kv_width : cached_row(j - a.memory, 0);
            float s = 0;
            for (size_t c = lane; j < keys && c < each; c += team) {
                pack<T, P> x = load_pack<T, P>(query + head * a.width + c * P), y = load_pack<T, P>(k + c * P);
                KERNEL_UNROLL
                for (int e = 0; e < P; e++) s += to_float(x.v[e]) * to_float(y.v[e]);
            }
            for (unsigned offset = team / 2; offset; offset /= 2) s += __shfl_xor_sync(FULL_WARP, s, (int)offset);
            if (lane == 0 && j < keys) scores[j] = s * a.scale;
        }
        __syncthreads();
        /* Softmax of the scores, without the division. */
        float row_max = -INFINITY, row_sum = 0;
        for (size_t j = threadIdx.x; j < keys; j += THREADS) row_max = fmaxf(row_max, scores[j]);
        row_max = block_max(row_max, scratch);
        for (size_t j = threadIdx.x; j < keys; j += THREADS) row_sum += scores[j] = expf(scores[j] - row_max);
        /* The barriers of block_sum also order the stores of the weights before their reads. */
        row_sum = block_sum(row_sum, scratch);
        /* out = sum of p v / sum of p: each team has every `teams`-th key. */
        for (size_t first = 0; first < each; first += team) {
            size_t d = (first + lane) * P;
            float y[P] = {};
            for (size_t j = team_index; j < keys && d < a.width; j += teams) {
                const T *v = j < a.memory ? latent_kv + (j * 2 + 1) * kv_width : cached_row(j - a.memory, 1);
                pack<T, P> x = load_pack<T, P>(v + d);
                KERNEL_UNROLL
                for (int e = 0; e < P; e++) y[e] += scores[j] * to_float(x.v[e]);
            }
            KERNEL_UNROLL
            for (int e = 0; e < P; e++) sums[threadIdx.x * P + e] = y[e];
            __syncthreads();
            for (size_t i = threadIdx.x; i < team * P && first * P + i < a.width; i += THREADS) {
                float total = 0;
                for (size_t other = 0; other < teams; other++) total += sums[other * team * P + i];
                out[(row * a.heads + head) * a.width + first * P + i] = from_float<T>(total / row_sum);
            }
            __syncthreads(); /* all threads have read the sums and the weights, which are overwritten next */
        }
    }
}

/* ---- launchers ---- */

extern "C" int attention_cached_cuda(const struct attention_cached_args *args, kernel_stream stream)
{
    struct attention_shape a = attention_shape_of(args->shape);
    if (!args->rows) return 0;
    size_t bytes = (args->room + a.memory) * sizeof(float);
    KERNEL_DISPATCH(args->type, {
        KERNEL_PACKED(
            a.width % (16 / sizeof(T)) == 0 && packs(args->cache) && packs(args->qkv) && packs(args->memory), T, {
                unsigned team = 1;
                int e = allow_shared(attention_cached_kernel<T, P>, bytes);
                if (e) return e;
                while (team < WARP && team * P < a.width) team *= 2;
                KERNEL_LAUNCH((attention_cached_kernel<T, P>), dim3((unsigned)args->rows, (unsigned)a.kv_heads),
                              THREADS, bytes, stream, (T *)args->out, (T *)args->cache, (const T *)args->qkv,
                              args->position, (const T *)args->memory, args->history, args->room, a, team);
            });
    });
    return cudaGetLastError();
}
