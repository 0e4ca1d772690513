/* Launches the latent kernels: samples, KL, moments, log densities, the spread of the means. */
#include "cuda/call.h"

void cuda_op_latent(const struct call *c)
{
    struct latent_forward_args args = {.z = c->out[OUT_LATENT_Z],
                                       .kl = c->out[OUT_LATENT_KL],
                                       .stats = c->in[IN_LATENT_STATS],
                                       .sample = c->in[IN_LATENT_SAMPLE],
                                       .sentences = c->size.in[IN_LATENT_STATS][0],
                                       .width = c->size.in[IN_LATENT_STATS][1] / 2,
                                       .sample_z = c->attr->i[ATTR_LATENT_SAMPLE],
                                       .noise = noise_of(c)};
    keep(c, latent_forward_cuda(&args, stream_of(c)));
}

void cuda_op_latent_backward(const struct call *c)
{
    struct latent_backward_args args = {.dstats = c->out[OUT_LATENT_BACKWARD_DSTATS],
                                        .dz = c->in[IN_LATENT_BACKWARD_DZ],
                                        .dkl = c->in[IN_LATENT_BACKWARD_DKL],
                                        .stats = c->in[IN_LATENT_BACKWARD_STATS],
                                        .sample = c->in[IN_LATENT_BACKWARD_SAMPLE],
                                        .sentences = c->size.in[IN_LATENT_BACKWARD_STATS][0],
                                        .width = c->size.in[IN_LATENT_BACKWARD_STATS][1] / 2,
                                        .sample_z = c->attr->i[ATTR_LATENT_SAMPLE],
                                        .add = c->add[OUT_LATENT_BACKWARD_DSTATS],
                                        .noise = noise_of(c)};
    keep(c, latent_backward_cuda(&args, stream_of(c)));
}

void cuda_op_column_moments(const struct call *c)
{
    struct column_moments_args args = {.out = c->out[OUT_COLUMN_MOMENTS_Y],
                                       .x = c->in[IN_COLUMN_MOMENTS_X],
                                       .header = header_of(c),
                                       .columns = c->size.in[IN_COLUMN_MOMENTS_X][1]};
    keep(c, column_moments_cuda(&args, stream_of(c)));
}

void cuda_op_gaussian_log_density(const struct call *c)
{
    keep(c, gaussian_log_density_cuda(
                &(struct gaussian_log_density_args){.out = c->out[OUT_GAUSSIAN_LOG_DENSITY_Y],
                                                    .z = c->in[IN_GAUSSIAN_LOG_DENSITY_Z],
                                                    .stats = c->in[IN_GAUSSIAN_LOG_DENSITY_STATS],
                                                    .counted = counted_of(c),
                                                    .rows = c->size.in[IN_GAUSSIAN_LOG_DENSITY_Z][0],
                                                    .width = c->size.in[IN_GAUSSIAN_LOG_DENSITY_Z][1],
                                                    .one = !c->size.in[IN_GAUSSIAN_LOG_DENSITY_STATS][1],
                                                    .sign = (float)c->attr->f[ATTR_SIGN]},
                stream_of(c)));
}

void cuda_op_gaussian_log_density_backward(const struct call *c)
{
    keep(c, gaussian_log_density_backward_cuda(
                &(struct gaussian_log_density_backward_args){
                    .dz = c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ],
                    .dstats = c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS],
                    .dout = c->in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_DY],
                    .z = c->in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z],
                    .stats = c->in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_STATS],
                    .counted = counted_of(c),
                    .rows = c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][0],
                    .width = c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][1],
                    .one = !c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_STATS][1],
                    .sign = (float)c->attr->f[ATTR_SIGN],
                    .add_dz = c->add[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ],
                    .add_dstats = c->add[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS]},
                stream_of(c)));
}

void cuda_op_spread_hinge(const struct call *c)
{
    struct spread_hinge_args args = {.out = c->out[OUT_SPREAD_HINGE_Y],
                                     .spread = c->out[OUT_SPREAD_HINGE_SPREAD],
                                     .stats = c->in[IN_SPREAD_HINGE_STATS],
                                     .counted = counted_of(c),
                                     .width = c->size.in[IN_SPREAD_HINGE_STATS][1] / 2,
                                     .margin = (float)c->attr->f[ATTR_MARGIN]};
    keep(c, spread_hinge_cuda(&args, stream_of(c)));
}

void cuda_op_spread_hinge_backward(const struct call *c)
{
    keep(c, spread_hinge_backward_cuda(
                &(struct spread_hinge_backward_args){.dstats = c->out[OUT_SPREAD_HINGE_BACKWARD_DSTATS],
                                                     .dout = c->in[IN_SPREAD_HINGE_BACKWARD_DY],
                                                     .stats = c->in[IN_SPREAD_HINGE_BACKWARD_STATS],
                                                     .spread = c->in[IN_SPREAD_HINGE_BACKWARD_SPREAD],
                                                     .counted = counted_of(c),
                                                     .rows = c->size.in[IN_SPREAD_HINGE_BACKWARD_STATS][0],
                                                     .width = c->size.in[IN_SPREAD_HINGE_BACKWARD_STATS][1] / 2,
                                                     .add = c->add[OUT_SPREAD_HINGE_BACKWARD_DSTATS]},
                stream_of(c)));
}
