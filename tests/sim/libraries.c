/* The functions of cuBLASLt and NCCL in the emulated program: the stand-ins in this folder, without dlopen. */
#include "cuda/libraries.h"
#include "cuda/nccl_library.h"

#define TAKE(name) taken->name = name;

elbo_status cublaslt_open(struct cublaslt *taken, elbo_error *error)
{
    (void)error;
    taken->library = NULL;
    CUBLASLT_FUNCTIONS(TAKE)
    return ELBO_OK;
}

void cublaslt_close(struct cublaslt *lt)
{
    (void)lt;
}

elbo_status nccl_open(struct nccl *taken, elbo_error *error)
{
    (void)error;
    taken->library = NULL;
    NCCL_FUNCTIONS(TAKE)
    return ELBO_OK;
}

void nccl_close(struct nccl *nccl)
{
    (void)nccl;
}
