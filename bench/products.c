/* Times the dense products of a training step, each alone, with every algorithm that cuBLASLt offers for it: a lower
 * bound for the step.
 *
 *   products < LINES
 *
 * A line: NAME CALLS M N K A B LDA LDB LDC TYPE OUT ADD    C (M, N) (+)= A (M, K) B (K, N), row by row
 *
 *   CALLS            number of calls in a step
 *   A, B             n: stored as it is; t: stored as its transpose
 *   LDA, LDB, LDC    elements from one stored row to the next, 0: no gap
 *   TYPE, OUT        of A and B, and of C: bf16 or f32
 *   ADD              0 or 1
 *
 * Prints a JSON object a line with median seconds of the library's first choice and of the fastest algorithm. Buffers
 * hold numbers near 0; three sets of buffers are used in turn. */
#include "cuda/libraries.h"

#include <cuda_runtime.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16, SETS = 3, WARM_UP = 2, ROUNDS = 9 };
static const size_t workspace_bytes = 32 << 20;

struct product {
    char name[64];
    size_t calls, m, n, k, lda, ldb, ldc;
    bool ta, tb, bf16, bf16_out, add;
};

static void must(int error, const char *what)
{
    if (!error) return;
    fprintf(stderr, "products: %s failed with %d\n", what, error);
    exit(1);
}

static int by_seconds(const void *x, const void *y)
{
    float a = *(const float *)x, b = *(const float *)y;
    return a < b ? -1 : a > b;
}

/* Fills a buffer with numbers of both signs, in a repeated stretch. */
static void fill(char *to, size_t bytes, bool bf16)
{
    static uint32_t values[1 << 20];
    uint64_t state = 1;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float x = ((float)(state >> 40) / (1 << 24) - 0.5f) / 8;
        memcpy(&values[i], &x, sizeof x);
        if (bf16) values[i] = (values[i] & 0xffff0000u) | (values[i / 2] >> 16);
    }
    for (size_t at = 0; at < bytes; at += sizeof values)
        must(cudaMemcpy(to + at, values, bytes - at < sizeof values ? bytes - at : sizeof values,
                        cudaMemcpyHostToDevice),
             "cudaMemcpy");
}

static void measure(const struct cublaslt *lt, cublasLtHandle_t handle, void *workspace, const struct product *p)
{
    cudaDataType_t in = p->bf16 ? CUDA_R_16BF : CUDA_R_32F, out = p->bf16_out ? CUDA_R_16BF : CUDA_R_32F;
    size_t rows_a = p->ta ? p->k : p->m, rows_b = p->tb ? p->n : p->k, cols_a = p->ta ? p->m : p->k,
           cols_b = p->tb ? p->k : p->n;
    size_t lda = p->lda ? p->lda : cols_a, ldb = p->ldb ? p->ldb : cols_b, ldc = p->ldc ? p->ldc : p->n;
    size_t bytes_a = rows_a * lda * (p->bf16 ? 2 : 4), bytes_b = rows_b * ldb * (p->bf16 ? 2 : 4),
           bytes_c = p->m * ldc * (p->bf16_out ? 2 : 4);
    void *a[SETS], *b[SETS], *c[SETS];
    for (int i = 0; i < SETS; i++) {
        must(cudaMalloc(&a[i], bytes_a), "cudaMalloc");
        must(cudaMalloc(&b[i], bytes_b), "cudaMalloc");
        must(cudaMalloc(&c[i], bytes_c), "cudaMalloc");
        fill(a[i], bytes_a, p->bf16);
        fill(b[i], bytes_b, p->bf16);
        must(cudaMemset(c[i], 0, bytes_c), "cudaMemset");
    }
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t first, second, third; /* column-major: C^T = B^T A^T */
    cublasOperation_t tb = p->tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta = p->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    must(lt->cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    must(lt->cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &tb, sizeof tb), "an attribute");
    must(lt->cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &ta, sizeof ta), "an attribute");
    must(lt->cublasLtMatrixLayoutCreate(&first, in, cols_b, rows_b, (int64_t)ldb), "a layout");
    must(lt->cublasLtMatrixLayoutCreate(&second, in, cols_a, rows_a, (int64_t)lda), "a layout");
    must(lt->cublasLtMatrixLayoutCreate(&third, out, p->n, p->m, (int64_t)ldc), "a layout");
    cublasLtMatmulPreference_t preference;
    must(lt->cublasLtMatmulPreferenceCreate(&preference), "a preference");
    must(lt->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                  &workspace_bytes, sizeof workspace_bytes),
         "a preference");
    cublasLtMatmulHeuristicResult_t result[MOST];
    int found = 0;
    must(lt->cublasLtMatmulAlgoGetHeuristic(handle, op, first, second, third, third, preference, MOST, result, &found),
         p->name);
    cudaEvent_t begin, end;
    must(cudaEventCreate(&begin), "cudaEventCreate");
    must(cudaEventCreate(&end), "cudaEventCreate");
    float median[MOST], one = 1, beta = p->add ? 1 : 0;
    int best = 0;
    for (int i = 0; i < found; i++) {
        float times[ROUNDS];
        for (int round = -WARM_UP; round < ROUNDS; round++) {
            int set = (round + WARM_UP) % SETS;
            must(cudaEventRecord(begin, 0), "cudaEventRecord");
            must(lt->cublasLtMatmul(handle, op, &one, b[set], first, a[set], second, &beta, c[set], third, c[set],
                                    third, &result[i].algo, workspace, workspace_bytes, 0),
                 "cublasLtMatmul");
            must(cudaEventRecord(end, 0), "cudaEventRecord");
            must(cudaEventSynchronize(end), "cudaEventSynchronize");
            if (round >= 0) must(cudaEventElapsedTime(&times[round], begin, end), "cudaEventElapsedTime");
        }
        qsort(times, ROUNDS, sizeof *times, by_seconds);
        median[i] = times[ROUNDS / 2];
        if (median[i] < median[best]) best = i;
    }
    double flops = 2.0 * (double)p->m * (double)p->n * (double)p->k;
    printf("{\"product\": \"%s\", \"calls\": %zu, \"m\": %zu, \"n\": %zu, \"k\": %zu, \"flops\": %.0f, \"candidates\": "
           "%d, \"first\": %.7f, \"best\": "
           "%.7f, \"best_index\": %d, \"first_tflops\": %.1f, \"best_tflops\": %.1f, \"all\": [",
           p->name, p->calls, p->m, p->n, p->k, flops, found, median[0] * 1e-3, median[best] * 1e-3, best,
           flops / median[0] * 1e-9, flops / median[best] * 1e-9);
    for (int i = 0; i < found; i++) printf("%s%.7f", i ? ", " : "", median[i] * 1e-3);
    printf("]}\n");
    fflush(stdout);
    for (int i = 0; i < SETS; i++) {
        cudaFree(a[i]);
        cudaFree(b[i]);
        cudaFree(c[i]);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    lt->cublasLtMatmulPreferenceDestroy(preference);
    lt->cublasLtMatrixLayoutDestroy(first);
    lt->cublasLtMatrixLayoutDestroy(second);
    lt->cublasLtMatrixLayoutDestroy(third);
    lt->cublasLtMatmulDescDestroy(op);
}

int main(void)
{
    struct cublaslt lt;
    cublasLtHandle_t handle;
    elbo_error error;
    void *workspace;
    char a[2], b[2], type[8], out[8];
    int add, got;
    if (cublaslt_open(&lt, &error)) {
        fprintf(stderr, "products: %s\n", error.message);
        return 1;
    }
    must(lt.cublasLtCreate(&handle), "cublasLtCreate");
    must(cudaMalloc(&workspace, workspace_bytes), "cudaMalloc");
    for (struct product p; (got = scanf("%63s %zu %zu %zu %zu %1s %1s %zu %zu %zu %7s %7s %d", p.name, &p.calls, &p.m,
                                        &p.n, &p.k, a, b, &p.lda, &p.ldb, &p.ldc, type, out, &add)) == 13;) {
        p.ta = *a == 't';
        p.tb = *b == 't';
        p.bf16 = !strcmp(type, "bf16");
        p.bf16_out = !strcmp(out, "bf16");
        p.add = add;
        measure(&lt, handle, workspace, &p);
    }
    if (got != EOF) must(got, "reading a line");
    return 0;
}
