/* Launches the norm kernels, and refuses rows that are too wide for them. */
#include "cuda/call.h"

void cuda_op_norm(const struct call *c)
{
    struct kernel_dropout d = dropout_of(c, IN_NORM_SENTENCE);
    struct norm_forward_args args = {.y = c->out[OUT_NORM_Y],
                                     .sum = c->out[OUT_NORM_SUM],
                                     .stats = c->out[OUT_NORM_STATS],
                                     .x = c->in[IN_NORM_X],
                                     .dropout = drops(c) ? &d : NULL,
                                     .residual = c->in[IN_NORM_RESIDUAL],
                                     .gamma = c->in[IN_NORM_GAMMA],
                                     .beta = c->in[IN_NORM_BETA],
                                     .rows = c->size.in[IN_NORM_X][0],
                                     .width = c->size.in[IN_NORM_X][1],
                                     .rms = c->attr->i[ATTR_NORM_RMS],
                                     .type = in_type(c, IN_NORM_X)};
    keep(c, norm_forward_cuda(&args, stream_of(c)));
}

void cuda_op_norm_backward(const struct call *c)
{
    struct kernel_dropout d = dropout_of(c, IN_NORM_BACKWARD_SENTENCE);
    struct norm_backward_args args = {.dinput = c->out[OUT_NORM_BACKWARD_DRESIDUAL],
                                      .dgamma = c->out[OUT_NORM_BACKWARD_DGAMMA],
                                      .dbeta = c->out[OUT_NORM_BACKWARD_DBETA],
                                      .dx = c->out[OUT_NORM_BACKWARD_DX],
                                      .scratch = c->scratch,
                                      .dy = c->in[IN_NORM_BACKWARD_DY],
                                      .dsum = c->in[IN_NORM_BACKWARD_DSUM],
                                      .input = c->in[IN_NORM_BACKWARD_SUM],
                                      .gamma = c->in[IN_NORM_BACKWARD_GAMMA],
                                      .stats = c->in[IN_NORM_BACKWARD_STATS],
                                      .dropout = drops(c) ? &d : NULL,
                                      .rows = c->size.in[IN_NORM_BACKWARD_SUM][0],
                                      .width = c->size.in[IN_NORM_BACKWARD_SUM][1],
                                      .rms = c->attr->i[ATTR_NORM_RMS],
                                      .add_dinput = c->add[OUT_NORM_BACKWARD_DRESIDUAL],
                                      .add_dgamma = c->add[OUT_NORM_BACKWARD_DGAMMA],
                                      .add_dbeta = c->add[OUT_NORM_BACKWARD_DBETA],
                                      .add_dx = c->add[OUT_NORM_BACKWARD_DX],
                                      .type = in_type(c, IN_NORM_BACKWARD_SUM)};
    keep(c, norm_backward_cuda(&args, stream_of(c)));
}

void cuda_op_norm_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared =
        norm_scratch_floats(c->size.in[IN_NORM_BACKWARD_SUM][0], c->size.in[IN_NORM_BACKWARD_SUM][1]) * sizeof(float);
}

static elbo_status refuse_width(const struct call *c, size_t width, elbo_error *error)
{
    size_t most = width * dtype_bytes(c->in_type[IN_NORM_X]) % 16 ? NORM_MOST_UNALIGNED : NORM_MOST_WIDTH;
    if (width <= most) return ELBO_OK;
    return elbo_fail(error, ELBO_DEVICE,
                     "%s: a norm of width %zu, at most %zu on a GPU (%d where a row is not whole 16 bytes); lower "
                     "the width, or use --device=cpu",
                     c->node->name, width, (size_t)NORM_MOST_WIDTH, (int)NORM_MOST_UNALIGNED);
}

elbo_status cuda_op_norm_refuse(const struct call *c, elbo_error *error)
{
    return refuse_width(c, c->size.in[IN_NORM_X][1], error);
}
