/* The only inline PTX: matrix products on tensor cores, their loads from shared memory, asynchronous copies into it,
 * powers of 2. The emulation has its own file of this name, earlier in the include path.
 *
 *   mma_m16n8k16   d (16, 8) f32 += a (16, 16) bf16 * b (16, 8) bf16, by a whole warp. Lane 4 g + t holds
 *                  d: rows g, g + 8, columns 2 t, 2 t + 1       {g 2t, g 2t+1, g+8 2t, g+8 2t+1}
 *                  a: the same of each 8 x 8 quarter            {top left, bottom left, top right, bottom right}
 *                  b: rows 2 t, 2 t + 1, column g               {upper half, lower half}
 *   ldmatrix_x4    four 8 x 8 matrices of bf16; lane l points to row l % 8 (16 bytes, aligned) of matrix l / 8 and gets
 *                  row g, columns 2 t, 2 t + 1 of each; _trans: rows 2 t, 2 t + 1, column g
 *   cp_async_16    copies 16 bytes from global to shared memory, or zeros unless `there`. The copies before a commit
 *                  are a group. A thread sees its copies after it has waited for all but the `pending` youngest groups
 *   exp2_fast      2^x within two units in the last place; 0 below 2^-126 */
#ifndef KERNELS_PTX_CUH
#define KERNELS_PTX_CUH

#include <cuda_bf16.h>

static __device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ unsigned shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)));
}

static __device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)));
}

static __device__ __forceinline__ void cp_async_16(void *shared, const void *global, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(there ? 16u : 0u)
                 : "memory");
}

static __device__ __forceinline__ void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int pending> static __device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
