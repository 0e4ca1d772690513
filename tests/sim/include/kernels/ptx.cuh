/* Stands for kernels/ptx.cuh, whose comment says what each function does. A warp's lanes hand over their registers and
 * the scheduler fills them in once all have come (matrix.cpp).
 *
 * A copy is done as late as its wait allows in forward order, at once in reversed order, at one of the two in random
 * order: a missing commit or wait leaves NaN, and a buffer that is filled again too early differs between the orders.
 */
#ifndef KERNELS_PTX_CUH
#define KERNELS_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <cfloat>
#include <cmath>

struct sim_mma {
    float *d;
    unsigned a[4], b[2];
};
struct sim_ldmatrix {
    const void *row;
    unsigned word[4]; /* the row, then the result */
    bool transposed;
};
struct sim_copy {
    void *to;
    const void *from; /* null: zeros */
};

/* of a whole warp, by lane */
void sim_mma_together(void *const *lanes);
void sim_ldmatrix_together(void *const *lanes);
/* Fails unless 16 aligned bytes of shared memory lie there. */
void sim_check_shared(const void *p, const char *file, int line);
/* True when the copy is to be done now. */
bool sim_copy_begin(const struct sim_copy *copy);
void sim_copy_commit();
/* The next copy to be done for a wait that leaves `pending` groups; false: none. */
bool sim_copy_next(struct sim_copy *copy, int pending);

static inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, SIM_CALLER)
{
    struct sim_mma mine = {d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    sim_warp_together(&mine, sim_mma_together, file, line);
}

static inline void sim_load_matrices(unsigned (&r)[4], const void *row, bool transposed, const char *file, int line)
{
    sim_check_shared(row, file, line);
    uint4 words = *static_cast<const uint4 *>(row);
    struct sim_ldmatrix mine = {row, {words.x, words.y, words.z, words.w}, transposed};
    sim_warp_together(&mine, sim_ldmatrix_together, file, line);
    memcpy(r, mine.word, sizeof mine.word);
}

static inline void ldmatrix_x4(unsigned (&r)[4], const __nv_bfloat16 *row, SIM_CALLER)
{
    sim_load_matrices(r, row, false, file, line);
}

static inline void ldmatrix_x4_trans(unsigned (&r)[4], const __nv_bfloat16 *row, SIM_CALLER)
{
    sim_load_matrices(r, row, true, file, line);
}

static inline void sim_copy_do(const struct sim_copy &copy)
{
    *static_cast<uint4 *>(copy.to) = copy.from ? *static_cast<const uint4 *>(copy.from) : uint4{};
}

static inline void cp_async_16(void *shared, const void *global, bool there, SIM_CALLER)
{
    struct sim_copy copy = {shared, there ? global : nullptr};
    sim_check_shared(shared, file, line);
    if (sim_copy_begin(&copy)) sim_copy_do(copy);
}

static inline void cp_async_commit()
{
    sim_copy_commit();
}

template <int pending> static inline void cp_async_wait()
{
    struct sim_copy copy;
    while (sim_copy_next(&copy, pending)) sim_copy_do(copy);
}

static inline float exp2_fast(float x)
{
    float y = exp2f(x);
    return y < FLT_MIN ? 0.0f : y;
}

#endif
