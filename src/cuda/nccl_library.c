/* Opens NCCL with dlopen and resolves the functions that the collectives call. */
#include "cuda/nccl_library.h"

#include <dlfcn.h>
#include <string.h>

elbo_status nccl_open(struct nccl *nccl, elbo_error *error)
{
    static const char *const names[] = {"libnccl.so.2", "libnccl.so"};
    memset(nccl, 0, sizeof *nccl);
    for (size_t i = 0; i < sizeof names / sizeof *names && !nccl->library; i++)
        nccl->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!nccl->library)
        return elbo_fail(
            error, ELBO_DEVICE,
            "cannot open %s: %s; several GPUs need NCCL: install it (libnccl2, or NVIDIA's wheel) or put its "
            "folder into LD_LIBRARY_PATH",
            names[0], dlerror());
#define NCCL_FIND(name)                                                                                                \
    *(void **)&nccl->name = dlsym(nccl->library, #name);                                                               \
    if (!nccl->name) return elbo_fail(error, ELBO_DEVICE, "this NCCL has no %s; elbo needs 2.14 or later", #name);
    NCCL_FUNCTIONS(NCCL_FIND)
#undef NCCL_FIND
    return ELBO_OK;
}

void nccl_close(struct nccl *nccl)
{
    if (nccl->library) dlclose(nccl->library);
    memset(nccl, 0, sizeof *nccl);
}
