/* Dense products by cuBLASLt. The library is column-major, so a row-major C = A B is computed as C^T = B^T A^T; a
 * transposed operand is the same memory with the other flag. Accumulation is f32, also into C (beta = 1). The library's
 * first choice per shape and alignment is kept for the run (algorithms.c). If reproducible bits are not required, its
 * choices are timed and the fastest is kept. GELU or its slope is fused into the product if the library supports it,
 * and is a separate kernel otherwise. */
#include "cuda/cuda.h"

#include <math.h>
#include <string.h>

enum { MOST_CANDIDATES = 8, TIMED_RUNS = 3 };
static const float clearly = 0.98f; /* another choice must take less than this share of the first choice's time */

struct operand {
    size_t rows, columns, ld; /* column-major, as the library sees the memory */
    bool transposed;
};

/* X (R, C) by strides, wanted as X^T: a row-major X is X^T in column-major order. One row with both strides 1 is not
 * row-major, because its leading dimension would be less than its length. */
static struct operand transpose_of(const struct cuda_matrix *x, size_t rows, size_t columns)
{
    if (x->col == 1 && x->row >= columns) return (struct operand){columns, rows, x->row, false};
    return (struct operand){rows, columns, x->col, true};
}

static cudaDataType_t data_type(enum kernel_type type)
{
    return type == KERNEL_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

struct handles {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
};

static cublasStatus_t set(const struct cublaslt *lt, cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t attribute,
                          const void *to, size_t bytes)
{
    return lt->cublasLtMatmulDescSetAttribute(op, attribute, to, bytes);
}

static cublasStatus_t describe_epilogue(const struct cublaslt *lt, cublasLtMatmulDesc_t op,
                                        const struct cuda_product *p, bool gelu)
{
    if (!p->bias && !gelu) return CUBLAS_STATUS_SUCCESS;
    cublasLtEpilogue_t epilogue = !gelu      ? CUBLASLT_EPILOGUE_BIAS
                                  : p->slope ? CUBLASLT_EPILOGUE_DGELU
                                  : p->bias  ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                                             : CUBLASLT_EPILOGUE_GELU_AUX;
    int64_t ld = (int64_t)p->ldc;
    cublasStatus_t s = set(lt, op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!s && p->bias) s = set(lt, op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
    if (!s && gelu) s = set(lt, op, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &p->before_gelu, sizeof p->before_gelu);
    if (!s && gelu) s = set(lt, op, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld, sizeof ld);
    return s;
}

static cublasStatus_t describe(struct cuda_backend *be, struct handles *h, const struct operand *first,
                               const struct operand *second, const struct cuda_product *p, bool gelu)
{
    const struct cublaslt *lt = &be->lt;
    cublasOperation_t ta = first->transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                      tb = second->transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    bool tf32 = be->base.device.tf32 && p->type == KERNEL_F32;
    *h = (struct handles){0};
    cublasStatus_t s =
        lt->cublasLtMatmulDescCreate(&h->op, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!s) s = set(lt, h->op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    if (!s) s = set(lt, h->op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    if (!s) s = describe_epilogue(lt, h->op, p, gelu);
    if (!s)
        s = lt->cublasLtMatrixLayoutCreate(&h->a, data_type(p->type), first->rows, first->columns, (int64_t)first->ld);
    if (!s)
        s = lt->cublasLtMatrixLayoutCreate(&h->b, data_type(p->type), second->rows, second->columns,
                                           (int64_t)second->ld);
    if (!s) s = lt->cublasLtMatrixLayoutCreate(&h->c, data_type(p->out), p->n, p->m, (int64_t)p->ldc);
    return s;
}

static void release(const struct cublaslt *lt, struct handles *h)
{
    if (h->op) lt->cublasLtMatmulDescDestroy(h->op);
    if (h->a) lt->cublasLtMatrixLayoutDestroy(h->a);
    if (h->b) lt->cublasLtMatrixLayoutDestroy(h->b);
    if (h->c) lt->cublasLtMatrixLayoutDestroy(h->c);
}

static cublasStatus_t run(struct cuda_backend *be, const struct cuda_product *p, const struct handles *h, void *c,
                          const cublasLtMatmulAlgo_t *algo)
{
    float one = 1, beta = p->add ? 1 : 0;
    return be->lt.cublasLtMatmul(be->handle, h->op, &one, p->b.data, h->a, p->a.data, h->b, &beta, c, h->c, c, h->c,
                                 algo, be->workspace, be->workspace_bytes, be->stream);
}

/* Returns the milliseconds of the fastest of TIMED_RUNS runs, after one warm-up run; infinity if it does not run. */
static float run_time(struct cuda_backend *be, const struct cuda_product *p, const struct handles *h, void *c,
                      const cublasLtMatmulAlgo_t *algo, const cudaEvent_t edge[2])
{
    float best = INFINITY;
    for (int i = -1; i < TIMED_RUNS; i++) {
        float milliseconds;
        cudaEventRecord(edge[0], be->stream);
        if (run(be, p, h, c, algo)) return INFINITY;
        cudaEventRecord(edge[1], be->stream);
        if (cudaEventSynchronize(edge[1]) || cudaEventElapsedTime(&milliseconds, edge[0], edge[1])) return INFINITY;
        if (i >= 0 && milliseconds < best) best = milliseconds;
    }
    return best;
}

/* Returns the fastest of the candidates, or the first if there is no memory for timing. The runs write to memory of
 * their own, because C may hold sums. */
static int fastest(struct cuda_backend *be, const struct cuda_product *p, const struct handles *h,
                   const cublasLtMatmulHeuristicResult_t *result, int found)
{
    size_t bytes = p->m * p->ldc * (p->out == KERNEL_BF16 ? 2 : 4);
    cudaEvent_t edge[2] = {0};
    void *c = NULL;
    float first = INFINITY, least = INFINITY;
    int best = 0, e = cudaMalloc(&c, bytes);
    if (!e) e = cudaMemsetAsync(c, 0, bytes, be->stream);
    for (int i = 0; i < 2 && !e; i++) e = cudaEventCreate(&edge[i]);
    for (int i = 0; i < found && !e; i++) {
        float time = result[i].state ? INFINITY : run_time(be, p, h, c, &result[i].algo, edge);
        if (i == 0) first = least = time;
        if (time >= least || time >= clearly * first) continue;
        least = time;
        best = i;
    }
    for (int i = 0; i < 2; i++)
        if (edge[i]) cudaEventDestroy(edge[i]);
    cudaFree(c);
    if (e) cudaGetLastError(); /* a failure here is not an error of the product */
    return best;
}

static cublasStatus_t choose(struct cuda_backend *be, struct algorithm *slot, const struct handles *h,
                             const struct cuda_product *p)
{
    const struct cublaslt *lt = &be->lt;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result[MOST_CANDIDATES];
    size_t bytes = be->workspace_bytes;
    bool timed = be->base.device.timed_products && !be->capturing;
    int found = 0;
    static const cublasLtMatmulPreferenceAttributes_t alignment[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasStatus_t s = lt->cublasLtMatmulPreferenceCreate(&preference);
    if (s) return s;
    s = lt->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                                 sizeof bytes);
    for (unsigned k = 0; k < 4 && !s; k++)
        s = lt->cublasLtMatmulPreferenceSetAttribute(preference, alignment[k], &slot->align[k < 2 ? k : 2],
                                                     sizeof *slot->align);
    if (!s)
        s = lt->cublasLtMatmulAlgoGetHeuristic(be->handle, h->op, h->a, h->b, h->c, h->c, preference,
                                               timed ? MOST_CANDIDATES : 1, result, &found);
    lt->cublasLtMatmulPreferenceDestroy(preference);
    if (!s && !found) s = CUBLAS_STATUS_NOT_SUPPORTED;
    if (!s) slot->algo = result[found > 1 ? fastest(be, p, h, result, found) : 0].algo;
    return s;
}

/* Returns whether the library can run a choice that was read from a file. */
static bool still_runs(struct cuda_backend *be, struct algorithm *slot, const struct handles *h)
{
    cublasLtMatmulHeuristicResult_t result = {0};
    slot->unchecked = false;
    return !be->lt.cublasLtMatmulAlgoCheck(be->handle, h->op, h->a, h->b, h->c, h->c, &slot->algo, &result) &&
           !result.state && result.workspaceSize <= be->workspace_bytes;
}

/* Returns the alignment of a pointer: the largest power of two up to 256 that divides it. */
static uint32_t alignment_of(const void *p)
{
    uint32_t align = 256;
    while ((uintptr_t)p % align) align /= 2;
    return align;
}

static void unfused_gelu(struct cuda_backend *be, struct cuda_product p)
{
    void *sums = p.slope ? p.c : p.before_gelu, *x = p.before_gelu, *y = p.c;
    kernel_stream stream = (kernel_stream)be->stream;
    size_t elements = p.m * p.n;
    p.c = sums;
    p.before_gelu = NULL;
    cuda_product(be, &p);
    if (p.slope)
        cuda_keep(be,
                  gelu_backward_cuda(
                      &(struct gelu_backward_args){
                          .dx = y, .dy = sums, .x = x, .elements = elements, .add = false, .type = p.out},
                      stream),
                  "gelu_backward");
    else
        cuda_keep(be,
                  gelu_forward_cuda(&(struct gelu_forward_args){.y = y, .x = sums, .elements = elements, .type = p.out},
                                    stream),
                  "gelu");
}

void cuda_product(struct cuda_backend *be, const struct cuda_product *p)
{
    if (!p->m || !p->n) return;
    if (!p->k) { /* an empty sum: C stays, or becomes 0 */
        if (!p->add && p->ldc == p->n)
            cuda_keep(be, cudaMemsetAsync(p->c, 0, p->m * p->n * (p->out == KERNEL_BF16 ? 2 : 4), be->stream),
                      "cudaMemsetAsync");
        return;
    }
    bool gelu = p->before_gelu;
    struct operand first = transpose_of(&p->b, p->k, p->n), second = transpose_of(&p->a, p->m, p->k);
    struct algorithm key = {.m = p->m,
                            .n = p->n,
                            .k = p->k,
                            .lda = first.ld,
                            .ldb = second.ld,
                            .ldc = p->ldc,
                            .ta = first.transposed,
                            .tb = second.transposed,
                            .add = p->add,
                            .bias = p->bias,
                            .gelu = gelu,
                            .slope = gelu && p->slope,
                            .tf32 = be->base.device.tf32 && p->type == KERNEL_F32,
                            .type = p->type,
                            .out = p->out,
                            .align = {alignment_of(p->b.data), alignment_of(p->a.data), alignment_of(p->c)}};
    struct handles h = {0};
    struct algorithm *slot = cuda_algorithm(be, &key);
    bool inexact = p->slope && p->out == KERNEL_F32; /* the fused slope is off by 1e-5 in f32, and takes an eighth
                                                      * longer than a separate kernel */
    if (gelu && (inexact || (slot->known && slot->unfused) || p->n % 8 || alignment_of(p->before_gelu) < 16)) {
        unfused_gelu(be, *p);
        return;
    }
    cublasStatus_t s = describe(be, &h, &first, &second, p, gelu);
    if (!s && slot->known && slot->unchecked) slot->known = still_runs(be, slot, &h);
    if (!s && !slot->known) {
        *slot = key;
        s = choose(be, slot, &h, p);
        slot->unfused = gelu && s == CUBLAS_STATUS_NOT_SUPPORTED;
        slot->known = !s || slot->unfused;
    }
    if (!s) s = run(be, p, &h, p->c, &slot->algo);
    release(&be->lt, &h);
    if (gelu && slot->known && slot->unfused)
        unfused_gelu(be, *p);
    else
        cuda_keep(be, s ? 10000 + (int)s : 0, "cublasLtMatmul");
}
