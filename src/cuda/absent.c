/* Replaces the CUDA backend in a program built without the CUDA toolkit: every function fails. */
#include "cuda/backend.h"

static elbo_status absent(elbo_error *error)
{
    return elbo_fail(error, ELBO_DEVICE,
                     "this elbo was built without CUDA; build it where nvcc is found, or use --device=cpu");
}

bool cuda_backend_built(void)
{
    return false;
}

elbo_status cuda_backend_plan(struct backend **backend, elbo_error *error)
{
    (void)backend;
    return absent(error);
}

elbo_status cuda_backend_create(struct backend **backend, int device, size_t threads, elbo_error *error)
{
    (void)backend;
    (void)device;
    (void)threads;
    return absent(error);
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
