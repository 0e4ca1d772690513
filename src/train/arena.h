/* Arenas of weights and moments on their way to a file and back. */
#ifndef TRAIN_ARENA_H
#define TRAIN_ARENA_H

#include "formats/safetensors.h"
#include "train/state.h"

/* An arena in the backend's memory, read for a file a piece at a time. What is bf16 there is f32 in the file: exact. */
struct arena {
    struct safetensors_source source; /* first */
    struct backend *backend;
    const char *memory; /* null: there is none */
    enum dtype type;
    struct trainer *sharded; /* moments that ranks share out; null: all are here */
    unsigned moment;
};

/* The source's own `read`. */
elbo_status arena_read(const struct safetensors_source *source, void *to, size_t at, size_t elements,
                       elbo_error *error);

/* A file's f32 tensor into the arena from element `at` on, as the arena has them; of shared moments this rank's parts.
 */
elbo_status arena_load(const struct arena *a, size_t at, const struct safetensors *file,
                       const struct safetensors_tensor *tensor, elbo_error *error);

#endif
