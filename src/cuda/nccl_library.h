/* NCCL, opened when several GPUs train together and not before. */
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

/* ELBO_DEVICE says what brings the library that is missing. */
elbo_status nccl_open(struct nccl *nccl, elbo_error *error);
void nccl_close(struct nccl *nccl);

#endif
