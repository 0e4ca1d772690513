/* Helpers shared by the files that turn an op's call into launches. */
#ifndef CUDA_CALL_H
#define CUDA_CALL_H

#include "cuda/cuda.h"
#include "ops/ops.h"

static inline enum kernel_type kernel_type(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? KERNEL_BF16 : KERNEL_F32;
}

/* in_type, out_type: the launcher's type T for input or output k of the call. */
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

/* Clears the rows that pad the batch. They belong to no sentence, so no kernel writes them, but later products read
 * them. */
static inline void clear(const struct call *c, void *x, unsigned offsets, size_t rows, size_t width,
                         enum kernel_type type)
{
    if (x)
        keep(c, clear_padding_cuda(&(struct clear_padding_args){.x = x,
                                                                .offsets = c->in[offsets],
                                                                .sentences = c->size.in[offsets][0] - 1,
                                                                .rows = rows,
                                                                .width = width,
                                                                .type = type},
                                   stream_of(c)));
}

static inline const struct kernel_header *header_of(const struct call *c)
{
    return (const struct kernel_header *)c->header;
}

static inline struct kernel_noise noise_of(const struct call *c)
{
    return (struct kernel_noise){c->attr->purpose, header_of(c)};
}

static inline bool drops(const struct call *c)
{
    return c->attr->f[ATTR_DROPOUT] > 0;
}

/* Inputs `sentence` .. sentence + 2 address the noise. */
static inline struct kernel_dropout dropout_of(const struct call *c, unsigned sentence)
{
    double p = c->attr->f[ATTR_DROPOUT], threshold = p * 0x1p32;
    return (struct kernel_dropout){.sentence = c->in[sentence],
                                   .position = c->in[sentence + 1],
                                   .sample = c->in[sentence + 2],
                                   .threshold = threshold >= 0x1p32 ? UINT32_MAX : (uint32_t)threshold,
                                   .scale = (float)(1.0 / (1.0 - p)),
                                   .noise = noise_of(c)};
}

static inline size_t elements(const size_t dim[MAX_RANK])
{
    size_t n = 1;
    for (unsigned d = 0; d < MAX_RANK && (d == 0 || dim[d]); d++) n *= dim[d];
    return n;
}

/* Returns the device address of the true number of rows, for an op whose attributes name the kind of its rows. */
static inline const uint64_t *counted_of(const struct call *c)
{
    return header_of(c)->count + c->attr->i[ATTR_ROWS];
}

#define CUDA_DECLARE(name) void cuda_op_##name(const struct call *c);
ELBO_OPS(CUDA_DECLARE)
#undef CUDA_DECLARE

/* Ops that need scratch, each with the function that returns its size. */
#define CUDA_WORKSPACES(X)                                                                                             \
    X(embedding_backward, embedding_backward)                                                                          \
    X(linear_backward_weight, linear_backward_weight)                                                                  \
    X(norm_backward, norm_backward)                                                                                    \
    X(attention_backward, attention_backward)                                                                          \
    X(recurrent, recurrent)                                                                                            \
    X(recurrent_backward, recurrent_backward)                                                                          \
    X(recurrent_step, recurrent_step)                                                                                  \
    X(pool_backward, pool_backward)                                                                                    \
    X(linear_cross_entropy, linear_cross_entropy)                                                                      \
    X(linear_cross_entropy_train, linear_cross_entropy)                                                                \
    X(squared_norm, squared_norm)                                                                                      \
    X(combined_norm, combined_norm)

#define CUDA_DECLARE(name, what)                                                                                       \
    void cuda_op_##what##_workspace(const struct call *c, size_t *shared, size_t *per_worker);
CUDA_WORKSPACES(CUDA_DECLARE)
#undef CUDA_DECLARE

elbo_status cuda_op_norm_refuse(const struct call *c, elbo_error *error);
elbo_status cuda_op_attention_refuse(const struct call *c, elbo_error *error);

#endif
