/* What the files that turn an op's call into launches share. */
#ifndef CUDA_CALL_H
#define CUDA_CALL_H

#include "cuda/cuda.h"
#include "ops/ops.h"

static inline enum kernel_type kernel_type(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? KERNEL_BF16 : KERNEL_F32;
}

/* The T of a launcher: of the call's input or output k. */
static inline enum kernel_type in_type(const struct call *c, unsigned k)
{
    return kernel_type(c->in_type[k]);
}

static inline enum kernel_type out_type(const struct call *c, unsigned k)
{
    return kernel_type(c->out_type[k]);
}

static inline kernel_stream stream_of(const struct call *c)
{
    return (kernel_stream)cuda_of(c)->stream;
}

static inline void keep(const struct call *c, int error)
{
    cuda_keep(cuda_of(c), error, c->node->type->name);
}

/* Rows that pad the batch belong to no sentence: what they hold goes through products later, so it must be zero. */
static inline void clear(const struct call *c, void *x, unsigned offsets, size_t rows, size_t width,
                         enum kernel_type type)
{
    if (x) keep(c, clear_padding_cuda(x, c->in[offsets], c->size.in[offsets][0] - 1, rows, width, type, stream_of(c)));
}

/* ---- recurrent.c ---- */
void cuda_recurrent(const struct call *c);
void cuda_recurrent_workspace(const struct call *c, size_t *shared, size_t *per_worker);
void cuda_recurrent_backward(const struct call *c);
void cuda_recurrent_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker);
void cuda_recurrent_step(const struct call *c);
void cuda_recurrent_step_workspace(const struct call *c, size_t *shared, size_t *per_worker);

#endif
