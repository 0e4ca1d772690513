/* Rotary positions (Su et al. 2021): rotates columns i and i + W/2 of each head by position / 10000^(2i/W).
 *
 *   x, y (N, width), the first heads * W columns rotated, the others copied; position (N)
 *
 * A block has ROWS rows and computes the cosines and sines of a row once for all heads. The number of turns is computed
 * in double, and only its fraction continues in f32, so that angles of a hundred thousand are as exact as small ones.
 */
#include "kernels/device.cuh"

enum { THREADS = 256, ROWS = 8 };

template <typename T, int P>
static __global__ void __launch_bounds__(THREADS)
    rotary_kernel(T *y, const T *x, const int32_t *__restrict__ position, size_t rows, unsigned width, unsigned rotated,
                  unsigned head_width, int direction, bool add)
{
    KERNEL_DYNAMIC_SHARED(float2, angles); /* (ROWS, W/2): cosine, sine */
    size_t first = (size_t)blockIdx.x * ROWS;
    unsigned count = rows - first < ROWS ? (unsigned)(rows - first) : (unsigned)ROWS, half = head_width / 2;
    for (unsigned i = threadIdx.x; i < count * half; i += THREADS) {
        double turns = (double)position[first + i / half] * 0.15915494309189535 /* 1 / 2 pi */
                       * exp2(-13.287712379549449 /* log2(10000) */ * (double)(i % half) / (double)half);
        float cosine, sine;
        sincospif(2.0f * (float)(turns - rint(turns)), &sine, &cosine);
        angles[i] = make_float2(cosine, (float)direction * sine);
    }
    __syncthreads();
    unsigned pairs = rotated / 2 / P, each = pairs + (width - rotated) / P; /* each: pairs of packs, and packs to copy
                                                                             */
    for (unsigned i = threadIdx.x; i < count * each; i += THREADS) {
        unsigned row = i / each, k = i % each, within = k * P % half;
        size_t at =
            (first + row) * width + (k < pairs ? k * P / half * head_width + within : rotated + (k - pairs) * P);
        pack<T, P> u = load_pack<T, P>(x + at), to_u = {}, v = {}, to_v = {};
        if (add) to_u = load_pack<T, P>(y + at);
        if (k < pairs) v = load_pack<T, P>(x + at + half);
        if (k < pairs && add) to_v = load_pack<T, P>(y + at + half);
        KERNEL_UNROLL
        for (int e = 0; e < P; e++) {
            float2 angle = k < pairs ? angles[row * half + within + e] : make_float2(1, 0);
            put(&to_u.v[e], to_float(u.v[e]) * angle.x - to_float(v.v[e]) * angle.y, add);
            put(&to_v.v[e], to_float(v.v[e]) * angle.x + to_float(u.v[e]) * angle.y, add);
        }
        store_pack(y + at, to_u);
        if (k < pairs) store_pack(y + at + half, to_v);
    }
}

/* ---- launchers ---- */

extern "C" int rotary_cuda(const struct rotary_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        constexpr size_t whole = 16 / sizeof(T);
        KERNEL_PACKED(args->width % whole == 0 && args->head_width / 2 % whole == 0 && packs(args->x) && packs(args->y),
                      T, {
                          size_t bytes = ROWS * (args->head_width / 2) * sizeof(float2);
                          int e = allow_shared(rotary_kernel<T, P>, bytes);
                          if (e) return e;
                          KERNEL_LAUNCH((rotary_kernel<T, P>), blocks_for(args->rows, ROWS), THREADS, bytes, stream,
                                        (T *)args->y, (const T *)args->x, args->position, args->rows,
                                        (unsigned)args->width, (unsigned)(args->heads * args->head_width),
                                        (unsigned)args->head_width, args->direction, args->add);
                      });
    });
    return cudaGetLastError();
}
