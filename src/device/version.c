/* The version and the build, as include/elbo/version.h says. */
#include "elbo/version.h"

#include "cuda/backend.h"
#include "elbo_commit.h" /* scripts/commit.cmake */

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

const char *elbo_version(void)
{
    return TEXT(ELBO_VERSION_MAJOR) "." TEXT(ELBO_VERSION_MINOR) "." TEXT(ELBO_VERSION_PATCH);
}

int elbo_version_number(void)
{
    return ELBO_VERSION_NUMBER;
}

const char *elbo_build_commit(void)
{
    return ELBO_COMMIT;
}

#if defined(CPU_HAS_AMX)
#define CPU "cpu (generic, avx2, avx512, amx)"
#elif defined(CPU_HAS_X86_VARIANTS)
#define CPU "cpu (generic, avx2, avx512)"
#else
#define CPU "cpu (generic)"
#endif

const char *elbo_build_backends(void)
{
    return cuda_backend_built() ? CPU ", cuda" : CPU;
}
