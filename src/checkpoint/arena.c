/* Moves arenas of weights and moments between a backend's memory and the tensors of a file: see arena.h. */
#include "checkpoint/arena.h"
#include "base/bf16.h"

#include <string.h>

static elbo_status check(const struct arena *a, elbo_error *error)
{
    return a->backend->stream.check ? a->backend->stream.check(a->backend, error) : ELBO_OK;
}

/* Implements `read` of safetensors_source. */
static elbo_status read_source(const struct safetensors_source *source, void *to, size_t at, size_t elements,
                               elbo_error *error)
{
    const struct arena *a = (const struct arena *)source;
    size_t each = dtype_bytes(a->type);
    if (a->read)
        ELBO_TRY(a->read(a, to, at, elements, error));
    else
        a->backend->memory.download(a->backend, to, a->memory + at * each, elements * each);
    ELBO_TRY(check(a, error));
    for (size_t i = elements; i-- > 0 && a->type == DTYPE_BF16;) { /* widened in place, so from the end */
        uint16_t half;
        memcpy(&half, (const char *)to + i * sizeof half, sizeof half);
        float wide = bf16_widen(half);
        memcpy((char *)to + i * sizeof wide, &wide, sizeof wide);
    }
    return ELBO_OK;
}

struct arena arena_of(struct backend *backend, void *memory, enum dtype type)
{
    return (struct arena){.source = {read_source}, .backend = backend, .memory = memory, .type = type};
}

struct safetensors_tensor arena_tensor(const struct arena *a, const struct parameter *p, const char *name)
{
    struct safetensors_tensor t = {
        .name = name, .dtype = SAFETENSORS_F32, .rank = p->rank, .source = &a->source, .at = p->offset};
    memcpy(t.shape, p->shape, p->rank * sizeof *p->shape);
    return t;
}

/* Writes f32 values of a file into the memory from element `at` on, in the arena's type. */
static elbo_status write_range(const struct arena *a, size_t at, const void *data, size_t elements, elbo_error *error)
{
    enum { PIECE = 4096 };
    size_t each = dtype_bytes(a->type);
    char *to = a->memory + at * each;
    if (a->type == DTYPE_F32) {
        a->backend->memory.upload(a->backend, to, data, elements * each);
    } else {
        for (size_t i = 0; i < elements; i += PIECE) {
            uint16_t half[PIECE];
            size_t n = elements - i < PIECE ? elements - i : PIECE;
            for (size_t k = 0; k < n; k++) {
                float wide;
                memcpy(&wide, (const char *)data + (i + k) * sizeof wide, sizeof wide);
                half[k] = bf16_nearest(wide);
            }
            a->backend->memory.upload(a->backend, to + i * each, half, n * each);
        }
    }
    return check(a, error);
}

bool arena_next(struct arena_part *part, size_t *piece, const struct arena_piece *pieces, size_t piece_count,
                size_t first, size_t count)
{
    while (*piece < piece_count) {
        const struct arena_piece *own = &pieces[(*piece)++];
        size_t begin = own->first > first ? own->first : first, end = own->first + own->count;
        if (end > first + count) end = first + count;
        if (end <= begin) continue;
        *part = (struct arena_part){begin - first, own->at + begin - own->first, end - begin};
        return true;
    }
    return false;
}

struct loading {
    const struct arena *arena;
    size_t at;
};

static elbo_status load_piece(void *context, const void *data, size_t first, size_t elements, elbo_error *error)
{
    const struct loading *l = context;
    const struct arena *a = l->arena;
    struct arena_part part;
    size_t piece = 0, at = l->at + first;
    if (!a->pieces) return write_range(a, at, data, elements, error);
    while (arena_next(&part, &piece, a->pieces, a->piece_count, at, elements))
        ELBO_TRY(write_range(a, part.at, (const char *)data + part.from * sizeof(float), part.count, error));
    return ELBO_OK;
}

elbo_status arena_load(const struct arena *a, size_t at, const struct safetensors *file,
                       const struct safetensors_tensor *tensor, elbo_error *error)
{
    struct loading l = {a, at};
    return safetensors_each_piece(file, tensor, load_piece, &l, error);
}
