/* Replaces a model's weights by the rounded weights of a model file: see rounded.h. */
#include "train/rounded.h"

#include <stdlib.h>
#include <string.h>

static elbo_status upload(struct model *m, const struct parameter *p, const struct infer_tensor *t, elbo_error *error)
{
    float *values = malloc(p->elements * sizeof *values);
    if (!values) return elbo_fail(error, ELBO_MEMORY, "no memory for %s", p->name);
    block_dequantize(t->type, values, t->data, p->elements);
    m->backend->memory.upload(m->backend, m->weights + p->offset, values, p->elements * sizeof *values);
    free(values);
    return ELBO_OK;
}

static elbo_status load(struct rounded *r, struct model *m, const char *path, elbo_error *error)
{
    size_t found = 0, count = parameters_count(m->parameters);
    r->placed = calloc(count + 1, sizeof *r->placed);
    if (!r->placed) return elbo_fail(error, ELBO_MEMORY, "no memory for a list of %zu tensors", count);
    for (size_t i = 0; i < count; i++) {
        const struct parameter *p = parameters_get(m->parameters, i);
        const struct infer_tensor *t = infer_find(r->file, p->name);
        if (!t && model_trains_only(p)) continue;
        if (!t) return elbo_fail(error, ELBO_INPUT, "%s lacks %s: it is of another model", path, p->name);
        size_t columns = p->rank == 2 ? p->shape[1] : 1;
        if (t->rank != p->rank || t->shape[0] != p->shape[0] || t->shape[1] != columns)
            return elbo_fail(error, ELBO_INPUT, "%s: %s has the shape %zu x %zu, and the run's %zu x %zu", path,
                             p->name, t->shape[0], t->shape[1], p->shape[0], columns);
        if (m->backend->memory.separate)
            ELBO_TRY(upload(m, p, t, error));
        else
            r->placed[i] = (struct placed_weight){t->data, t->type};
        found++;
    }
    m->placed = r->placed;
    if (found == r->file->count) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT, "%s has %zu tensors, of which the run knows %zu: it is of another model", path,
                     r->file->count, found);
}

elbo_status rounded_open(struct rounded *r, struct model *m, const char *path, elbo_error *error)
{
    *r = (struct rounded){0};
    ELBO_TRY(infer_open(&r->file, path, error));
    elbo_status status = infer_verify(r->file, error);
    if (status) elbo_fail_in(error, "%s: ", path);
    return status ? status : load(r, m, path, error);
}

void rounded_close(struct rounded *r)
{
    free(r->placed);
    if (r->file) infer_close(r->file);
    *r = (struct rounded){0};
}
