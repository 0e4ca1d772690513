/* Rotary positions (Su et al. 2021): of each head, columns i and i + W/2 are rotated by position / 10000^(2i/W).
 *
 *   x, y (N, width), the first heads * W columns rotated, the others copied; position (N)                              */
#include "kernels/device.cuh"

enum { THREADS = 128 };

template <typename T>
static __global__ void rotary_kernel(T *y, const T *x, const int32_t *__restrict__ position, size_t rows, size_t width,
                              size_t rotated, size_t head_width, int direction, bool add)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * width) return;
    size_t row = i / width, column = i % width, half = head_width / 2;
    float v = to_float(x[i]);
    if (column < rotated) {
        size_t within = column % head_width, pair = within % half;
        double angle = (double)position[row] * pow(10000.0, -2.0 * (double)pair / (double)head_width);
        float c = (float)cos(angle), s = (float)direction * (float)sin(angle);
        v = within < half ? v * c - to_float(x[i + half]) * s : v * c + to_float(x[i - half]) * s;
    }
    put(&y[i], v, add);
}

/* ---- launchers ---- */

extern "C" int rotary_cuda(void *y, const void *x, const int32_t *position, size_t rows, size_t width, size_t heads,
                           size_t head_width, int direction, bool add, enum kernel_type type, kernel_stream stream)
{
    if (!rows) return 0;
    KERNEL_DISPATCH(type, {
        KERNEL_LAUNCH(rotary_kernel<T>, blocks_for(rows * width, THREADS), THREADS, 0, stream, (T *)y, (const T *)x, position,
                      rows, width, heads * head_width, head_width, direction, add);
    });
    return cudaGetLastError();
}
