#include "train/rounded.h"

#include "infer/file.h"

#include <stdlib.h>
#include <string.h>

static elbo_status load(struct model *m, const struct infer_file *f, const char *path, elbo_error *error)
{
    size_t found = 0;
    for (size_t i = 0; i < parameters_count(m->parameters); i++) {
        const struct parameter *p = parameters_get(m->parameters, i);
        const struct infer_tensor *t = infer_find(f, p->name);
        if (!t && model_trains_only(p)) continue;
        if (!t) return elbo_fail(error, ELBO_INPUT, "%s lacks %s: it is of another model", path, p->name);
        size_t columns = p->rank == 2 ? p->shape[1] : 1;
        if (t->rank != p->rank || t->shape[0] != p->shape[0] || t->shape[1] != columns)
            return elbo_fail(error, ELBO_INPUT, "%s: %s has the shape %zu x %zu, and the run's %zu x %zu", path,
                             p->name, t->shape[0], t->shape[1], p->shape[0], columns);
        float *values = malloc(p->elements * sizeof *values);
        if (!values) return elbo_fail(error, ELBO_MEMORY, "no memory for %s", p->name);
        block_dequantize(t->type, values, t->data, p->elements);
        m->backend->memory.upload(m->backend, m->weights + p->offset, values, p->elements * sizeof *values);
        free(values);
        found++;
    }
    if (found == f->count) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT, "%s has %zu tensors, of which the run knows %zu: it is of another model", path,
                     f->count, found);
}

elbo_status rounded_weights(struct model *m, const char *path, elbo_error *error)
{
    struct infer_file *f;
    ELBO_TRY(infer_open(&f, path, error));
    elbo_status status = infer_verify(f, error);
    if (status) elbo_fail_in(error, "%s: ", path);
    if (!status) status = load(m, f, path, error);
    infer_close(f);
    return status;
}
