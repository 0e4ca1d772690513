/* The CPU backend as the rest of the program sees it. */
#ifndef CPU_BACKEND_H
#define CPU_BACKEND_H

#include "graph/backend.h"

/* Creates the CPU backend. `threads` 0 means the processors of this process. `variant` is "generic", "avx2", "avx512"
 * or "amx", or null for the best that the processor has. Errors: ELBO_USAGE for an unknown variant, ELBO_DEVICE if the
 * processor lacks it. */
elbo_status cpu_backend_create(struct backend **backend, size_t threads, const char *variant, elbo_error *error);

/* Keeps quantized weights packed, up to `bytes` in all, once products of several rows have read them a few times; a new
 * backend keeps 0 bytes. Packed copies live as long as the backend. The weights must not change meanwhile. */
void cpu_backend_keep_packed(struct backend *b, size_t bytes);

#endif
