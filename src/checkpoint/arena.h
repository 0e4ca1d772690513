/* The way between a backend's memory and named tensors of a file: arenas of weights and moments, a piece at a time.
 *
 *     struct arena weights = arena_of(backend, model.weights, DTYPE_F32);
 *     struct safetensors_tensor t = arena_tensor(&weights, parameter, parameter->name);    -- to be written
 *     status = arena_load(&weights, parameter->offset, file, tensor, &error);              -- from a file
 *
 * Numbers that are bf16 in the arena are f32 in the file: exact. */
#ifndef CHECKPOINT_ARENA_H
#define CHECKPOINT_ARENA_H

#include "formats/safetensors.h"
#include "graph/execute.h"
#include "graph/parameters.h"

struct arena {
    struct safetensors_source source; /* first */
    struct backend *backend;
    char *memory; /* null: there is none */
    enum dtype type;
    /* Where the arena's elements lie elsewhere too: elements at .. at + elements of the whole, of the arena's type,
     * into host memory. Null: all lie in `memory`. */
    elbo_status (*read)(const struct arena *a, void *to, size_t at, size_t elements, elbo_error *error);
    void *context; /* `read`'s own */
    unsigned which;
    /* The parts of the whole that `memory` holds, behind one another; null: all of it. */
    const struct arena_piece *pieces;
    size_t piece_count;
};

struct arena arena_of(struct backend *backend, void *memory, enum dtype type);

/* The tensor of a parameter of the arena, for safetensors_write; it reads the arena as it is written. */
struct safetensors_tensor arena_tensor(const struct arena *a, const struct parameter *p, const char *name);

/* A file's f32 tensor into the arena from element `at` of the whole on: the parts that `memory` holds. ELBO_INPUT,
 * ELBO_IO: the file's; ELBO_DEVICE. */
elbo_status arena_load(const struct arena *a, size_t at, const struct safetensors *file,
                       const struct safetensors_tensor *tensor, elbo_error *error);

/* The part of elements first .. first + count of the whole that the next piece holds: element `from` of the range lies
 * at element `at` of the memory. `piece` is 0 before the first; false: there is no further one. */
struct arena_part {
    size_t from, at, count;
};
bool arena_next(struct arena_part *part, size_t *piece, const struct arena_piece *pieces, size_t piece_count,
                size_t first, size_t count);

#endif
