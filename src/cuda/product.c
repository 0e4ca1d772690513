/* Dense products by cuBLASLt. It thinks in columns, so a row-major C = A B is asked for as C^T = B^T A^T; a transposed operand
 * is the same memory with the other flag. Accumulation is f32, also into C (beta = 1). The library's first choice per shape is
 * kept for the run. */
#include "cuda/cuda.h"

#include <string.h>

struct operand {
    size_t rows, columns, ld; /* as the library sees the memory */
    bool transposed;
};

/* X (R, C) by strides, wanted as X^T: column-major memory of a row-major X is X^T already. */
static struct operand transpose_of(const struct cuda_matrix *x, size_t rows, size_t columns)
{
    if (x->col == 1) return (struct operand){columns, rows, x->row, false};
    return (struct operand){rows, columns, x->col, true};
}

static bool same(const struct algorithm *a, const struct algorithm *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc &&
           a->ta == b->ta && a->tb == b->tb && a->add == b->add && a->bias == b->bias;
}

static struct algorithm *find(struct cuda_backend *b, const struct algorithm *key)
{
    size_t hash = key->m * 31 + key->n * 37 + key->k * 41 + key->ta * 3 + key->tb * 5 + key->add * 7 + key->bias * 11;
    struct algorithm *slot = &b->algorithms[hash % CUDA_ALGORITHMS];
    for (size_t i = 0; i < CUDA_ALGORITHMS; i++) {
        struct algorithm *at = &b->algorithms[(hash + i) % CUDA_ALGORITHMS];
        if (!at->known || same(at, key)) return at;
    }
    slot->known = false; /* full: the oldest at this place gives way */
    return slot;
}

struct handles {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
};

static cublasStatus_t describe(struct cuda_backend *be, struct handles *h, const struct operand *first, const struct operand *second,
                               const struct cuda_product *p)
{
    const struct cublaslt *lt = &be->lt;
    cublasOperation_t ta = first->transposed ? CUBLAS_OP_T : CUBLAS_OP_N, tb = second->transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t s = lt->cublasLtMatmulDescCreate(&h->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!s) s = lt->cublasLtMatmulDescSetAttribute(h->op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    if (!s) s = lt->cublasLtMatmulDescSetAttribute(h->op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    if (!s && p->bias) {
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        s = lt->cublasLtMatmulDescSetAttribute(h->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
        if (!s) s = lt->cublasLtMatmulDescSetAttribute(h->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
    }
    if (!s) s = lt->cublasLtMatrixLayoutCreate(&h->a, CUDA_R_32F, first->rows, first->columns, (int64_t)first->ld);
    if (!s) s = lt->cublasLtMatrixLayoutCreate(&h->b, CUDA_R_32F, second->rows, second->columns, (int64_t)second->ld);
    if (!s) s = lt->cublasLtMatrixLayoutCreate(&h->c, CUDA_R_32F, p->n, p->m, (int64_t)p->ldc);
    return s;
}

static void release(const struct cublaslt *lt, struct handles *h)
{
    if (h->op) lt->cublasLtMatmulDescDestroy(h->op);
    if (h->a) lt->cublasLtMatrixLayoutDestroy(h->a);
    if (h->b) lt->cublasLtMatrixLayoutDestroy(h->b);
    if (h->c) lt->cublasLtMatrixLayoutDestroy(h->c);
}

static cublasStatus_t choose(struct cuda_backend *be, struct algorithm *slot, const struct handles *h)
{
    const struct cublaslt *lt = &be->lt;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    size_t bytes = be->workspace_bytes;
    int found = 0;
    cublasStatus_t s = lt->cublasLtMatmulPreferenceCreate(&preference);
    if (s) return s;
    s = lt->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
    if (!s) s = lt->cublasLtMatmulAlgoGetHeuristic(be->handle, h->op, h->a, h->b, h->c, h->c, preference, 1, &result, &found);
    lt->cublasLtMatmulPreferenceDestroy(preference);
    if (!s && !found) s = CUBLAS_STATUS_NOT_SUPPORTED;
    if (!s) slot->algo = result.algo;
    return s;
}

void cuda_product(struct cuda_backend *be, const struct cuda_product *p)
{
    if (!p->m || !p->n) return;
    if (!p->k) { /* an empty sum: nothing to add, or zeros */
        if (!p->add && p->ldc == p->n)
            cuda_keep(be, cudaMemsetAsync(p->c, 0, p->m * p->n * sizeof(float), be->stream), "cudaMemsetAsync");
        return;
    }
    struct operand first = transpose_of(&p->b, p->k, p->n), second = transpose_of(&p->a, p->m, p->k);
    struct algorithm key = {.m = p->m, .n = p->n, .k = p->k, .lda = first.ld, .ldb = second.ld, .ldc = p->ldc,
                            .ta = first.transposed, .tb = second.transposed, .add = p->add, .bias = p->bias};
    struct handles h = {0};
    float one = 1, beta = p->add ? 1 : 0;
    cublasStatus_t s = describe(be, &h, &first, &second, p);
    struct algorithm *slot = find(be, &key);
    if (!s && !slot->known) {
        *slot = key;
        s = choose(be, slot, &h);
        slot->known = !s;
    }
    if (!s)
        s = be->lt.cublasLtMatmul(be->handle, h.op, &one, p->b.data, h.a, p->a.data, h.b, &beta, p->c, h.c, p->c, h.c, &slot->algo,
                                  be->workspace, be->workspace_bytes, be->stream);
    release(&be->lt, &h);
    cuda_keep(be, s ? 10000 + (int)s : 0, "cublasLtMatmul");
}
