/* NCCL, opened at run time when several GPUs first train together. */
#ifndef CUDA_NCCL_LIBRARY_H
#define CUDA_NCCL_LIBRARY_H

#include "elbo/status.h"

#include <nccl.h>

#define NCCL_FUNCTIONS(X)                                                                                              \
    X(ncclGetUniqueId)                                                                                                 \
    X(ncclCommInitRankConfig)                                                                                          \
    X(ncclCommGetAsyncError)                                                                                           \
    X(ncclCommFinalize)                                                                                                \
    X(ncclCommDestroy)                                                                                                 \
    X(ncclGroupStart)                                                                                                  \
    X(ncclGroupEnd)                                                                                                    \
    X(ncclSend)                                                                                                        \
    X(ncclRecv)                                                                                                        \
    X(ncclAllReduce)                                                                                                   \
    X(ncclAllGather)                                                                                                   \
    X(ncclGetErrorString)

struct nccl {
    void *library;
#define NCCL_POINTER(name) __typeof__(name) *name;
    NCCL_FUNCTIONS(NCCL_POINTER)
#undef NCCL_POINTER
};

/* Opens NCCL. ELBO_DEVICE says which package provides the missing library. */
elbo_status nccl_open(struct nccl *nccl, elbo_error *error);
void nccl_close(struct nccl *nccl);

#endif
