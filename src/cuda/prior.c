/* Launches the kernels of the learned priors. */
#include "cuda/call.h"

void cuda_op_gaussian_kl(const struct call *c)
{
    struct gaussian_kl_args args = {.kl = c->out[OUT_GAUSSIAN_KL_KL],
                                    .stats = c->in[IN_GAUSSIAN_KL_STATS],
                                    .prior = c->in[IN_GAUSSIAN_KL_PRIOR],
                                    .counted = counted_of(c),
                                    .rows = c->size.in[IN_GAUSSIAN_KL_STATS][0],
                                    .width = c->size.out[OUT_GAUSSIAN_KL_KL][1]};
    keep(c, gaussian_kl_cuda(&args, stream_of(c)));
}

void cuda_op_gaussian_kl_backward(const struct call *c)
{
    keep(c, gaussian_kl_backward_cuda(
                &(struct gaussian_kl_backward_args){.dstats = c->out[OUT_GAUSSIAN_KL_BACKWARD_DSTATS],
                                                    .dprior = c->out[OUT_GAUSSIAN_KL_BACKWARD_DPRIOR],
                                                    .dkl = c->in[IN_GAUSSIAN_KL_BACKWARD_DKL],
                                                    .stats = c->in[IN_GAUSSIAN_KL_BACKWARD_STATS],
                                                    .prior = c->in[IN_GAUSSIAN_KL_BACKWARD_PRIOR],
                                                    .counted = counted_of(c),
                                                    .rows = c->size.in[IN_GAUSSIAN_KL_BACKWARD_STATS][0],
                                                    .width = c->size.in[IN_GAUSSIAN_KL_BACKWARD_PRIOR][0] / 2,
                                                    .add_dstats = c->add[OUT_GAUSSIAN_KL_BACKWARD_DSTATS],
                                                    .add_dprior = c->add[OUT_GAUSSIAN_KL_BACKWARD_DPRIOR]},
                stream_of(c)));
}

static struct kernel_mixture mixture_of(const struct call *c)
{
    size_t width = c->size.in[IN_MIXTURE_LOG_DENSITY_Z][1], count = (size_t)c->attr->i[ATTR_COMPONENTS];
    bool rows = c->size.in[IN_MIXTURE_LOG_DENSITY_COMPONENTS][1] == 2 * width;
    return (struct kernel_mixture){count, width, rows ? 2 * width : width, rows ? width : count * width};
}

void cuda_op_mixture_log_density(const struct call *c)
{
    struct kernel_mixture m = mixture_of(c);
    keep(c, mixture_log_density_cuda(
                &(struct mixture_log_density_args){.out = c->out[OUT_MIXTURE_LOG_DENSITY_Y],
                                                   .shares = c->out[OUT_MIXTURE_LOG_DENSITY_SHARES],
                                                   .z = c->in[IN_MIXTURE_LOG_DENSITY_Z],
                                                   .components = c->in[IN_MIXTURE_LOG_DENSITY_COMPONENTS],
                                                   .logits = c->in[IN_MIXTURE_LOG_DENSITY_LOGITS],
                                                   .counted = counted_of(c),
                                                   .rows = c->size.in[IN_MIXTURE_LOG_DENSITY_Z][0],
                                                   .m = &m,
                                                   .sign = (float)c->attr->f[ATTR_SIGN]},
                stream_of(c)));
}

void cuda_op_mixture_log_density_backward(const struct call *c)
{
    struct kernel_mixture m = mixture_of(c);
    keep(c, mixture_log_density_backward_cuda(
                &(struct mixture_log_density_backward_args){
                    .dz = c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ],
                    .dcomponents = c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS],
                    .dlogits = c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS],
                    .dout = c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_DY],
                    .shares = c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_SHARES],
                    .z = c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z],
                    .components = c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_COMPONENTS],
                    .logits = c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_LOGITS],
                    .counted = counted_of(c),
                    .rows = c->size.in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z][0],
                    .m = &m,
                    .sign = (float)c->attr->f[ATTR_SIGN],
                    .add_dz = c->add[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ],
                    .add_dcomponents = c->add[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS],
                    .add_dlogits = c->add[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS]},
                stream_of(c)));
}
