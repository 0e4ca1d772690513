/* Replaces nccl.c in a build without nccl.h: every function fails. */
#include "cuda/cuda.h"

static elbo_status absent(elbo_error *error)
{
    return elbo_fail(
        error, ELBO_DEVICE,
        "this elbo was built without NCCL, which several GPUs need; install NCCL's header and build again, or "
        "train on one GPU");
}

elbo_status cuda_make_id(struct backend *base, unsigned char id[CUDA_ID], elbo_error *error)
{
    (void)base;
    (void)id;
    return absent(error);
}

elbo_status cuda_join(struct backend *base, const unsigned char id[CUDA_ID], size_t ranks, size_t rank, double timeout,
                      struct bonds *bonds, struct collectives **out, elbo_error *error)
{
    (void)base;
    (void)id;
    (void)ranks;
    (void)rank;
    (void)timeout;
    (void)bonds;
    (void)out;
    return absent(error);
}

elbo_status cuda_ranks_wait(struct cuda_backend *b, cudaEvent_t event, elbo_error *error)
{
    (void)b;
    (void)event;
    return absent(error);
}
