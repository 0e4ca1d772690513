/* The parts of attention.cu's kernels: copies of a head's rows into shared memory as floats, and products whose sums
 * are tiles in registers.
 *
 * A warp owns OWN rows (queries or keys) and takes the other rows TILE at a time. Lane (g, t) of 4 x 8 has own rows g +
 * 4 i, and other rows t + 8 k or columns 4 t + 32 c .. + 3. Rows have a pitch of W + 4 and are read 16 bytes at a time:
 * the 2 and the 8 rows that half a warp reads are in different banks, and neighboring lanes read the same row or one of
 * two. Columns past the head's width are zeros. */
#ifndef KERNELS_ATTENTION_TILES_CUH
#define KERNELS_ATTENTION_TILES_CUH

#include "kernels/attention.cuh"
#include "kernels/ptx.cuh"

/* Sizes by width, so that the sums fit the registers and a block fits 99 KiB of shared memory. */
template <int W> struct tiling {
    static constexpr int WARPS = W > 64 ? 3 : 4; /* warps of a block, at most */
    static constexpr int ROWS = W > 128 ? 2 : 4, OWN = 4 * ROWS;
    static constexpr int OCTETS = W > 128 ? 2 : 4, TILE = 8 * OCTETS;
    static constexpr int PITCH = W + 4, WEIGHTS = TILE + 8; /* pitch of rows and of their weights */
    static constexpr int STAGE = W > 64 ? TILE : 2 * TILE;  /* the longest side that shared memory holds whole */
};

static __device__ __forceinline__ int own_row()
{
    return (int)threadIdx.x % WARP / 16 * 2 + (int)threadIdx.x % 2;
}

static __device__ __forceinline__ int other_row()
{
    return (int)threadIdx.x / 2 % 8;
}

/* Loads four columns of a row; zeros past its end. */
template <typename T>
static __device__ __forceinline__ pack<T, 4> load_four(const T *from, int c, int width, bool packed)
{
    pack<T, 4> x = {};
    if (packed && c < width) return load_pack<T, 4>(from + c);
    KERNEL_UNROLL
    for (int e = 0; e < 4; e++)
        if (c + e < width) x.v[e] = from[c + e];
    return x;
}

/* Copies `rows` rows of a head into shared memory; zeros where source(r) is null. The caller waits for the asynchronous
 * copies. */
template <int W, typename T, typename F>
static __device__ __forceinline__ void fetch_rows(float *to, int rows, int thread, int threads, int width, bool packed,
                                                  F source)
{
    KERNEL_UNROLL_BY(1)
    for (int i = thread; i < rows * (W / 4); i += threads) {
        int r = i / (W / 4), c = i % (W / 4) * 4;
        const T *from = source(r);
        float *at = to + r * tiling<W>::PITCH + c;
        if (from && c < width && packed && sizeof(T) == sizeof(float)) {
            cp_async_16(at, from + c, true);
            continue;
        }
        pack<T, 4> x = {};
        pack<float, 4> y;
        if (from) x = load_four(from, c, width, packed);
        KERNEL_UNROLL
        for (int e = 0; e < 4; e++) y.v[e] = to_float(x.v[e]);
        store_pack(at, y);
    }
}

/* Copies keys and values `from` .. `from + rows` of a sentence. */
template <int W, typename T>
static __device__ __forceinline__ void fetch_keys(float *keys, float *values, int from, int rows, int thread,
                                                  int threads, const struct span &s, const struct attention_shape &a,
                                                  unsigned kv, const T *qkv, const T *memory, bool packed)
{
    KERNEL_UNROLL_BY(1)
    for (unsigned which = 0; which < 2; which++)
        fetch_rows<W, T>(which ? values : keys, rows, thread, threads, (int)a.width, packed, [&](int r) -> const T * {
            return from + r < s.count ? kv_row(a, qkv, memory, s.begin, s.sentence, kv, (unsigned)(from + r), which)
                                      : nullptr;
        });
}

/* sums (OWN, 8 octets) += left (OWN, width) right^T (width, 8 octets) */
template <int W, int C = tiling<W>::OCTETS>
static __device__ __forceinline__ void times_rows(float (&sums)[tiling<W>::ROWS][tiling<W>::OCTETS], const float *left,
                                                  const float *right, int width, int octets)
{
    constexpr int ROWS = tiling<W>::ROWS, PITCH = tiling<W>::PITCH;
    if constexpr (C > 1)
        if (octets < C) return times_rows<W, C - 1>(sums, left, right, width, octets);
    left += own_row() * PITCH;
    right += other_row() * PITCH;
    KERNEL_UNROLL_BY(1) /* unrolling by two would need registers for 16 more packs */
    for (int d = 0; d < width; d += 4) {
        pack<float, 4> x[ROWS], y[C];
        KERNEL_UNROLL
        for (int i = 0; i < ROWS; i++) x[i] = load_pack<float, 4>(left + 4 * i * PITCH + d);
        KERNEL_UNROLL
        for (int k = 0; k < C; k++) y[k] = load_pack<float, 4>(right + 8 * k * PITCH + d);
        KERNEL_UNROLL
        for (int e = 0; e < 4; e++) KERNEL_UNROLL
        for (int i = 0; i < ROWS; i++) KERNEL_UNROLL
        for (int k = 0; k < C; k++) sums[i][k] += x[i].v[e] * y[k].v[e];
    }
}

/* sums (OWN, W) += weights (OWN, n) rows (n, W); n a multiple of 4 */
template <int W>
static __device__ __forceinline__ void times_columns(float (&sums)[tiling<W>::ROWS][W / 32][4], const float *weights,
                                                     const float *rows, int n)
{
    constexpr int ROWS = tiling<W>::ROWS;
    weights += own_row() * tiling<W>::WEIGHTS;
    rows += 4 * other_row();
    KERNEL_UNROLL_BY(1)
    for (int j = 0; j < n; j += 4) {
        pack<float, 4> x[ROWS];
        KERNEL_UNROLL
        for (int i = 0; i < ROWS; i++) x[i] = load_pack<float, 4>(weights + 4 * i * tiling<W>::WEIGHTS + j);
        KERNEL_UNROLL
        for (int u = 0; u < 4; u++) KERNEL_UNROLL
        for (int c = 0; c < W / 32; c++) {
            pack<float, 4> y = load_pack<float, 4>(rows + (j + u) * tiling<W>::PITCH + 32 * c);
            KERNEL_UNROLL
            for (int i = 0; i < ROWS; i++) KERNEL_UNROLL
            for (int e = 0; e < 4; e++) sums[i][c][e] += x[i].v[u] * y.v[e];
        }
    }
}

/* Stores the lane's part of the weights for times_columns. The first barrier: the warp has read the weights before; the
 * second: all lanes have stored theirs. */
template <int W>
static __device__ __forceinline__ void put_weights(float *weights, const float (&x)[tiling<W>::ROWS][tiling<W>::OCTETS])
{
    __syncwarp();
    KERNEL_UNROLL
    for (int i = 0; i < tiling<W>::ROWS; i++) KERNEL_UNROLL
    for (int k = 0; k < tiling<W>::OCTETS; k++)
        weights[(own_row() + 4 * i) * tiling<W>::WEIGHTS + other_row() + 8 * k] = x[i][k];
    __syncwarp();
}

/* row_max, row_sum: the maximum and the sum over the lanes that share a row. */
static __device__ __forceinline__ float reduce_row_max(float x)
{
    for (int offset = 2; offset < 16; offset *= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, offset));
    return x;
}

static __device__ __forceinline__ float reduce_row_sum(float x)
{
    for (int offset = 2; offset < 16; offset *= 2) x += __shfl_xor_sync(FULL_WARP, x, offset);
    return x;
}

/* Returns x y^T of one row of each, from global memory. */
template <int W, typename T>
static __device__ __forceinline__ float row_product(const T *x, const T *y, int width, bool packed)
{
    float sum = 0;
    KERNEL_UNROLL
    for (int c = 4 * other_row(); c < W; c += 32) {
        pack<T, 4> u = load_four(x, c, width, packed), v = load_four(y, c, width, packed);
        KERNEL_UNROLL
        for (int e = 0; e < 4; e++) sum += to_float(u.v[e]) * to_float(v.v[e]);
    }
    return reduce_row_sum(sum);
}

/* Stores the lane's columns of one row. */
template <int W, typename T>
static __device__ __forceinline__ void put_row(T *to, const float (&sums)[W / 32][4], float scale, int width, bool add,
                                               bool packed)
{
    KERNEL_UNROLL
    for (int c = 0; c < W / 32; c++) {
        int d = 32 * c + 4 * other_row();
        float x[4];
        KERNEL_UNROLL
        for (int e = 0; e < 4; e++) x[e] = sums[c][e] * scale;
        if (packed && d < width) put_pack<T, 4>(to + d, x, add);
        KERNEL_UNROLL
        for (int e = 0; e < 4; e++)
            if (!packed && d + e < width) put(to + d + e, x[e], add);
    }
}

#endif
