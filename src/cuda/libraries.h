/* cuBLASLt, opened when a GPU is used and not before: the program starts where CUDA was never installed. */
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

/* ELBO_DEVICE names the library that is missing and what brings it. */
elbo_status cublaslt_open(struct cublaslt *lt, elbo_error *error);
void cublaslt_close(struct cublaslt *lt);

#endif
