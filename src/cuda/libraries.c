/* Opens cuBLASLt with dlopen and resolves the functions that the backend calls. */
#include "cuda/libraries.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

elbo_status cublaslt_open(struct cublaslt *lt, elbo_error *error)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    memset(lt, 0, sizeof *lt);
    for (size_t i = 0; i < sizeof names / sizeof *names && !lt->library; i++)
        lt->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!lt->library)
        return elbo_fail(error, ELBO_DEVICE,
                         "cannot open %s: %s; install cuBLAS (part of the CUDA toolkit) or put its folder "
                         "into LD_LIBRARY_PATH, or train with --device=cpu",
                         names[0], dlerror());
#define CUBLASLT_FIND(name)                                                                                            \
    *(void **)&lt->name = dlsym(lt->library, #name);                                                                   \
    if (!lt->name) return elbo_fail(error, ELBO_DEVICE, "this cuBLASLt has no %s; elbo needs version 12 or 13", #name);
    CUBLASLT_FUNCTIONS(CUBLASLT_FIND)
#undef CUBLASLT_FIND
    return ELBO_OK;
}

void cublaslt_close(struct cublaslt *lt)
{
    if (lt->library) dlclose(lt->library);
    memset(lt, 0, sizeof *lt);
}
