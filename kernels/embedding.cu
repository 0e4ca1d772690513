/* Embedding: y (N, D) = table[ids] (+ add);  dtable (rows, D) (+)= sums of dy over the rows of each id. Ids past the
 * table's end are rows of a second table, the marks.
 *
 * Backward: `order` sorts the rows by id (stable), so equal ids form runs, and cuts them into chunks of CHUNK. The
 * block of a run's first row sums the run's rows in that chunk into dtable. The block of a chunk's first row, where a
 * run continues from the chunk before, sums the run's rows in the chunk into the chunk's row of the scratch. A thread
 * per pack of columns adds the rows in order. A second launch adds a run's scratch rows to dtable, chunk by chunk. No
 * atomics, and the same order for any launch. */
#include "kernels/device.cuh"

enum { THREADS = 128, CHUNK = WARP };

template <typename T, int P>
static __global__ void embedding_forward_kernel(T *__restrict__ y, const T *__restrict__ table,
                                                const T *__restrict__ marks, const int32_t *__restrict__ ids,
                                                const T *__restrict__ add, size_t table_rows, size_t packs_per_row,
                                                size_t total)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    size_t row = i / packs_per_row, column = i % packs_per_row, id = (size_t)ids[row];
    bool marked = marks && id >= table_rows;
    const T *from = marked ? marks : table;
    pack<T, P> x = load_pack<T, P>(from + ((marked ? id - table_rows : id) * packs_per_row + column) * P);
    if (add) {
        pack<T, P> a = load_pack<T, P>(add + i * P);
        for (int k = 0; k < P; k++) x.v[k] = from_float<T>(to_float(x.v[k]) + to_float(a.v[k]));
    }
    store_pack<T, P>(y + i * P, x);
}

template <typename T, int P>
static __global__ void embedding_backward_kernel(float *__restrict__ dtable, float *__restrict__ parts,
                                                 const T *__restrict__ dy, const int32_t *__restrict__ ids,
                                                 const int32_t *__restrict__ order, size_t rows, size_t base,
                                                 size_t table_rows, size_t packs_per_row)
{
    size_t first = blockIdx.x, end = (first / CHUNK + 1) * CHUNK < rows ? (first / CHUNK + 1) * CHUNK : rows;
    int32_t id = ids[order[first]];
    size_t table_row = (size_t)id - base; /* an id below `base` wraps around to a row beyond the table */
    if (table_row >= table_rows) return;  /* a row of the other table */
    bool continues = first && ids[order[first - 1]] == id;
    if (continues && first % CHUNK) return; /* an earlier block sums this row */
    float *to = continues ? parts + first / CHUNK * packs_per_row * P : dtable + table_row * packs_per_row * P;
    size_t lane_row = first + threadIdx.x % WARP; /* every warp finds the run's rows before any load of dy */
    int32_t row = lane_row < end ? order[lane_row] : 0;
    unsigned same_id = __ballot_sync(FULL_WARP, lane_row < end && ids[row] == id), count = (unsigned)__popc(same_id);
    for (size_t from = 0; from < packs_per_row; from += blockDim.x) {
        size_t column = from + threadIdx.x;
        bool there = column < packs_per_row;
        float sum[P] = {0};
        KERNEL_UNROLL_BY(4)
        for (unsigned k = 0; k < count; k++) {
            size_t at = (size_t)__shfl_sync(FULL_WARP, row, (int)k);
            pack<T, P> d = {};
            if (there) d = load_pack<T, P>(dy + (at * packs_per_row + column) * P);
            KERNEL_UNROLL
            for (int q = 0; q < P; q++) sum[q] += to_float(d.v[q]);
        }
        KERNEL_UNROLL
        for (int q = 0; q < P; q++)
            if (there) put(&to[column * P + q], sum[q], !continues);
    }
}

/* A block per chunk but the first. The block of the first chunk into which a run continues adds all parts of the run.
 */
static __global__ void embedding_parts_kernel(float *__restrict__ dtable, const float *__restrict__ parts,
                                              const int32_t *__restrict__ ids, const int32_t *__restrict__ order,
                                              size_t rows, size_t base, size_t table_rows, size_t width)
{
    size_t chunk = blockIdx.x + 1, first = chunk * CHUNK;
    int32_t id = ids[order[first]];
    size_t table_row = (size_t)id - base;
    if (table_row >= table_rows) return;
    if (ids[order[first - 1]] != id) return;                      /* the run begins in this chunk */
    if (chunk > 1 && ids[order[first - CHUNK - 1]] == id) return; /* an earlier block has it */
    for (size_t column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = dtable[table_row * width + column];
        KERNEL_UNROLL_BY(4)
        for (size_t k = first; k < rows && ids[order[k]] == id; k += CHUNK) sum += parts[k / CHUNK * width + column];
        dtable[table_row * width + column] = sum;
    }
}

/* ---- launchers ---- */

extern "C" int embedding_forward_cuda(const struct embedding_forward_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        bool fits = args->width % (16 / sizeof(T)) == 0 && packs(args->y) && packs(args->table) && packs(args->marks) &&
                    packs(args->add);
        KERNEL_PACKED(fits, T, {
            size_t total = args->rows * (args->width / P);
            KERNEL_LAUNCH((embedding_forward_kernel<T, P>), blocks_for(total, THREADS), THREADS, 0, stream,
                          (T *)args->y, (const T *)args->table, (const T *)args->marks, args->ids, (const T *)args->add,
                          args->table_rows, args->width / P, total);
        });
    });
    return cudaGetLastError();
}

extern "C" size_t embedding_scratch_floats(size_t rows, size_t width)
{
    return (size_t)blocks_for(rows, CHUNK) * width;
}

extern "C" int embedding_backward_cuda(const struct embedding_backward_args *args, kernel_stream stream)
{
    if (!args->add) {
        int e = cudaMemsetAsync(args->dtable, 0, args->table_rows * args->width * sizeof *args->dtable, stream);
        if (e) return e;
    }
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        bool fits = args->width % (16 / sizeof(T)) == 0 && packs(args->dy);
        KERNEL_PACKED(fits, T, {
            KERNEL_LAUNCH((embedding_backward_kernel<T, P>), (unsigned)args->rows, THREADS, 0, stream, args->dtable,
                          args->scratch, (const T *)args->dy, args->ids, args->order, args->rows, args->first,
                          args->table_rows, args->width / P);
        });
    });
    if (args->rows > CHUNK)
        KERNEL_LAUNCH(embedding_parts_kernel, blocks_for(args->rows, CHUNK) - 1, THREADS, 0, stream, args->dtable,
                      args->scratch, args->ids, args->order, args->rows, args->first, args->table_rows, args->width);
    return cudaGetLastError();
}
