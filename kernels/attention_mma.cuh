/* The parts of attention_mma.cu's kernels: copies of a head's rows into and out of shared memory, and products of 16 x
 * 16 pieces.
 *
 * Rows in shared memory have a pitch of W + 8, so that the eight rows of any 8 x 8 matrix are in different banks. The
 * registers of a lane follow kernels/ptx.cuh: lane 4 g + t has rows g and g + 8, and columns 2 t and 2 t + 1 of every 8
 * columns. */
#ifndef KERNELS_ATTENTION_MMA_CUH
#define KERNELS_ATTENTION_MMA_CUH

#include "kernels/attention.cuh"
#include "kernels/ptx.cuh"

enum { STEP = 16 }; /* queries of a warp, keys of a product */

/* Copies `rows` rows of a head into shared memory; zeros where source(r) is null. */
template <int W, typename F>
static __device__ __forceinline__ void fetch_rows(bf16 *to, int rows, int thread, int threads, int width,
                                                  const bf16 *anywhere, F source)
{
    for (int i = thread; i < rows * (W / 8); i += threads) {
        int r = i / (W / 8), c = i % (W / 8) * 8;
        const bf16 *from = source(r);
        bool there = from && c < width;
        cp_async_16(to + r * (W + 8) + c, there ? from + c : anywhere, there);
    }
}

/* Copies keys and values `from` .. `from + rows` of a sentence, by the whole block. */
template <int W>
static __device__ void fetch_keys(bf16 *keys, bf16 *values, int from, int rows, const struct span &s,
                                  const struct attention_shape &a, unsigned kv, const bf16 *qkv, const bf16 *memory)
{
    for (unsigned which = 0; which < 2; which++)
        fetch_rows<W>(which ? values : keys, rows, (int)threadIdx.x, (int)blockDim.x, (int)a.width, qkv,
                      [&](int r) -> const bf16 * {
                          return from + r < s.count
                                     ? kv_row(a, qkv, memory, s.begin, s.sentence, kv, (unsigned)(from + r), which)
                                     : nullptr;
                      });
}

/* Writes D = rowsum(d o) of `rows` rows in global memory to `dP_sum`. source(r) returns the offset of row r; D is 0
 * where the offset is negative. */
template <int W, typename F>
static __device__ __forceinline__ void compute_dP_sum(float *dP_sum, const bf16 *d, const bf16 *o, int rows, int thread,
                                                      int threads, int width, F source)
{
    KERNEL_UNROLL_BY(2)
    for (int i = thread; i < rows * (W / 8); i += threads) {
        int c = i % (W / 8) * 8;
        long long at = source(i / (W / 8));
        float sum = 0;
        if (at >= 0 && c < width) {
            pack<bf16, 8> x = load_pack<bf16, 8>(d + at + c), y = load_pack<bf16, 8>(o + at + c);
            KERNEL_UNROLL
            for (int e = 0; e < 8; e++) sum += to_float(x.v[e]) * to_float(y.v[e]);
        }
        for (int offset = W / 16; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
        if (i % (W / 8) == 0) dP_sum[i / (W / 8)] = sum;
    }
}

/* Returns the row to which this lane points for a 16 x 16 matrix in rows of `pitch` (ldmatrix_x4, kernels/ptx.cuh). */
static __device__ __forceinline__ const bf16 *quarters(const bf16 *matrix, int pitch)
{
    int lane = (int)threadIdx.x % WARP;
    return matrix + lane % 16 * pitch + lane / 16 * 8;
}

static __device__ __forceinline__ unsigned pair(float x, float y)
{
    __nv_bfloat162 both = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<unsigned *>(&both);
}

/* Packs the accumulators of two neighboring 16 x 8 products as the left operand of the next product. */
static __device__ __forceinline__ void as_left(unsigned (&left)[4], const float (&x)[4], const float (&y)[4])
{
    left[0] = pair(x[0], x[1]);
    left[1] = pair(x[2], x[3]);
    left[2] = pair(y[0], y[1]);
    left[3] = pair(y[2], y[3]);
}

/* sums (16, 16) += left (16, W) rows^T (W, 16) */
template <int W>
static __device__ __forceinline__ void times_rows(float (&sums)[2][4], const unsigned (&left)[W / 16][4],
                                                  const bf16 *rows)
{
    KERNEL_UNROLL
    for (int k = 0; k < W / 16; k++) {
        unsigned right[4];
        ldmatrix_x4(right, quarters(rows + 16 * k, W + 8));
        mma_m16n8k16(sums[0], left[k], right[0], right[2]);
        mma_m16n8k16(sums[1], left[k], right[1], right[3]);
    }
}

/* sums (16, W) += left (16, 16) rows (16, W) */
template <int W>
static __device__ __forceinline__ void times_columns(float (&sums)[W / 8][4], const unsigned (&left)[4],
                                                     const bf16 *rows)
{
    KERNEL_UNROLL
    for (int n = 0; n < W / 16; n++) {
        unsigned right[4];
        ldmatrix_x4_trans(right, quarters(rows + 16 * n, W + 8));
        mma_m16n8k16(sums[2 * n], left, right[0], right[1]);
        mma_m16n8k16(sums[2 * n + 1], left, right[2], right[3]);
    }
}

struct target {
    bf16 *row; /* null: the row is not stored */
    bool add;
};

/* Stores sums of 16 rows and 8 N columns, times a scale (`low` for rows g, `high` for rows g + 8), to the rows that
 * to(r) returns. They pass through shared memory of this warp alone, so that whole 16 bytes go out. With `add` the old
 * values are added in f32. */
template <int N, typename F>
static __device__ __forceinline__ void store_rows(bf16 *stage, int pitch, const float (&sums)[N][4], float low,
                                                  float high, int width, bool add, F to)
{
    int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    __syncwarp();
    if (add) {
        for (int i = lane; i < 16 * N; i += WARP) {
            struct target at = to(i / N);
            pack<bf16, 8> old = {};
            if (at.row && at.add && i % N * 8 < width) old = load_pack<bf16, 8>(at.row + i % N * 8);
            store_pack(stage + i / N * pitch + i % N * 8, old);
        }
        __syncwarp();
    }
    KERNEL_UNROLL
    for (int n = 0; n < N; n++) KERNEL_UNROLL
    for (int h = 0; h < 2; h++) {
        bf16 *at = stage + (g + 8 * h) * pitch + 8 * n + 2 * t;
        float scale = h ? high : low, x = sums[n][2 * h] * scale, y = sums[n][2 * h + 1] * scale;
        *reinterpret_cast<unsigned *>(at) = add ? pair(x + to_float(at[0]), y + to_float(at[1])) : pair(x, y);
    }
    __syncwarp();
    for (int i = lane; i < 16 * N; i += WARP) {
        struct target at = to(i / N);
        if (at.row && i % N * 8 < width)
            store_pack(at.row + i % N * 8, load_pack<bf16, 8>(stage + i / N * pitch + i % N * 8));
    }
    __syncwarp(); /* all lanes have read the stage, which the caller fills again */
}

#endif
