/* cuBLASLt's functions in the emulated program: the stand-ins beside this file, without dlopen. */
#include "cuda/libraries.h"

elbo_status cublaslt_open(struct cublaslt *lt, elbo_error *error)
{
    (void)error;
    lt->library = NULL;
#define CUBLASLT_TAKE(name) lt->name = name;
    CUBLASLT_FUNCTIONS(CUBLASLT_TAKE)
#undef CUBLASLT_TAKE
    return ELBO_OK;
}

void cublaslt_close(struct cublaslt *lt)
{
    (void)lt;
}
