/* In place of the CUDA backend where the program is built without the CUDA toolkit. */
#include "device/backends.h"

static elbo_status absent(elbo_error *error)
{
    return elbo_fail(error, ELBO_DEVICE,
                     "this elbo was built without CUDA; build it where nvcc is found, or use --device=cpu");
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
