/* The version of the library: at compile time by macros, at run time by functions.
 *
 *     if (elbo_version_number() < ELBO_VERSION_NUMBER) puts("an older libelbo than the headers is installed"); */
#ifndef ELBO_VERSION_H
#define ELBO_VERSION_H

#define ELBO_VERSION_MAJOR  0
#define ELBO_VERSION_MINOR  1
#define ELBO_VERSION_PATCH  0
#define ELBO_VERSION_NUMBER (ELBO_VERSION_MAJOR * 10000 + ELBO_VERSION_MINOR * 100 + ELBO_VERSION_PATCH)

/* Marks the functions that the shared library exports. */
#if defined(__GNUC__)
#define ELBO_API __attribute__((visibility("default")))
#else
#define ELBO_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

ELBO_API const char *elbo_version(void);        /* "0.1.0" */
ELBO_API int elbo_version_number(void);         /* ELBO_VERSION_NUMBER of the library that runs */
ELBO_API const char *elbo_build_commit(void);   /* twelve digits, "+" behind them if files were changed; "" unknown */
ELBO_API const char *elbo_build_backends(void); /* such as "cpu (generic, avx2, avx512, amx), cuda, nccl, mpi" */

#ifdef __cplusplus
}
#endif

#endif
