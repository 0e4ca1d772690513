/* Moves arenas of weights and moments between a backend's memory and named tensors of a file, a piece at a time.
 *
 *     struct arena weights = arena_of(backend, model.weights, DTYPE_F32);
 *     struct safetensors_tensor t = arena_tensor(&weights, parameter, parameter->name);    -- to be written
 *     status = arena_load(&weights, parameter->offset, file, tensor, &error);              -- from a file
 *
 * Numbers that are bf16 in the arena are f32 in the file, which is exact. */
#ifndef CHECKPOINT_ARENA_H
#define CHECKPOINT_ARENA_H

#include "formats/safetensors.h"
#include "graph/execute.h"
#include "graph/parameters.h"

struct arena {
    struct safetensors_source source; /* must be first, because `read` casts a source to its arena */
    struct backend *backend;
    char *memory; /* null: no memory */
    enum dtype type;
    /* Reads elements at .. at + elements of the whole, in the arena's type, into host memory, if other ranks hold
     * elements too. Null: all elements are in `memory`. */
    elbo_status (*read)(const struct arena *a, void *to, size_t at, size_t elements, elbo_error *error);
    void *context; /* for `read` alone */
    unsigned which;
    /* The parts of the whole that `memory` holds, one behind the other; null: the whole. */
    const struct arena_piece *pieces;
    size_t piece_count;
};

struct arena arena_of(struct backend *backend, void *memory, enum dtype type);

/* Returns the tensor of a parameter for safetensors_write, which reads the arena as it writes the tensor. */
struct safetensors_tensor arena_tensor(const struct arena *a, const struct parameter *p, const char *name);

/* Loads a file's f32 tensor into the arena from element `at` of the whole on, as far as `memory` holds those elements.
 * ELBO_INPUT, ELBO_IO: the file's; ELBO_DEVICE. */
elbo_status arena_load(const struct arena *a, size_t at, const struct safetensors *file,
                       const struct safetensors_tensor *tensor, elbo_error *error);

/* Finds the part of elements first .. first + count of the whole that the next piece holds: element `from` of the range
 * is element `at` of the memory. `piece` is 0 at first. Returns false if no further piece holds any. */
struct arena_part {
    size_t from, at, count;
};
bool arena_next(struct arena_part *part, size_t *piece, const struct arena_piece *pieces, size_t piece_count,
                size_t first, size_t count);

#endif
