/* cuBLASLt, opened at run time when a GPU is first used, so that the program starts on machines without CUDA. */
#ifndef CUDA_LIBRARIES_H
#define CUDA_LIBRARIES_H

#include "elbo/status.h"

#include <cublasLt.h>

#define CUBLASLT_FUNCTIONS(X)                                                                                          \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtMatmul)                                                                                                  \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)                                                                                     \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                            \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmulAlgoCheck)                                                                                         \
    X(cublasLtGetVersion)

struct cublaslt {
    void *library;
#define CUBLASLT_POINTER(name) __typeof__(name) *name;
    CUBLASLT_FUNCTIONS(CUBLASLT_POINTER)
#undef CUBLASLT_POINTER
};

/* Opens cuBLASLt. ELBO_DEVICE names the missing library and the package that provides it. */
elbo_status cublaslt_open(struct cublaslt *lt, elbo_error *error);
void cublaslt_close(struct cublaslt *lt);

#endif
