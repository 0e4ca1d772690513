/* Launches the kernels of the posterior maps and of normalization. */
#include "cuda/call.h"

#include <math.h>

_Static_assert((int)KERNEL_POSTERIOR_DELTA == (int)POSTERIOR_DELTA &&
                   (int)KERNEL_POSTERIOR_SLASHED == (int)POSTERIOR_SLASHED &&
                   (int)KERNEL_POSTERIOR_FLOOR == (int)POSTERIOR_FLOOR,
               "kernels number maps as the ops do");

static struct kernel_posterior posterior_of(const struct call *c)
{
    const double *f = c->attr->f;
    double p = f[ATTR_POSTERIOR_DROP];
    return (struct kernel_posterior){.map = (int)c->attr->i[ATTR_POSTERIOR_MAP],
                                     .real = f[ATTR_POSTERIOR_REAL],
                                     .least = f[ATTR_POSTERIOR_LEAST],
                                     .most = f[ATTR_POSTERIOR_MOST],
                                     .p = p,
                                     .threshold = (uint32_t)fmin(p * 0x1p32, 0xffffffffp0),
                                     .noise = noise_of(c)};
}

static const float *drops_of(const struct call *c)
{
    return c->in[IN_POSTERIOR_SWITCHES]
               ? (const float *)c->in[IN_POSTERIOR_SWITCHES] + c->attr->i[ATTR_POSTERIOR_SWITCH]
               : NULL;
}

void cuda_op_posterior(const struct call *c)
{
    struct kernel_posterior p = posterior_of(c);
    struct posterior_args args = {.stats = c->out[OUT_POSTERIOR_STATS],
                                  .head = c->in[IN_POSTERIOR_HEAD],
                                  .sample = c->in[IN_POSTERIOR_SAMPLE],
                                  .drops = drops_of(c),
                                  .c = &p,
                                  .sentences = c->size.in[IN_POSTERIOR_HEAD][0],
                                  .width = c->size.in[IN_POSTERIOR_HEAD][1] / 2};
    keep(c, posterior_cuda(&args, stream_of(c)));
}

void cuda_op_posterior_backward(const struct call *c)
{
    struct kernel_posterior p = posterior_of(c);
    keep(c, posterior_backward_cuda(
                &(struct posterior_backward_args){.dhead = c->out[OUT_POSTERIOR_BACKWARD_DHEAD],
                                                  .dstats = c->in[IN_POSTERIOR_BACKWARD_DSTATS],
                                                  .head = c->in[IN_POSTERIOR_BACKWARD_HEAD],
                                                  .sample = c->in[IN_POSTERIOR_BACKWARD_SAMPLE],
                                                  .drops = drops_of(c),
                                                  .c = &p,
                                                  .sentences = c->size.in[IN_POSTERIOR_BACKWARD_HEAD][0],
                                                  .width = c->size.in[IN_POSTERIOR_BACKWARD_HEAD][1] / 2,
                                                  .add = c->add[OUT_POSTERIOR_BACKWARD_DHEAD]},
                stream_of(c)));
}

static struct kernel_normalize normalize_of(const struct call *c)
{
    const int64_t *i = c->attr->i;
    enum dim_kind rows = (enum dim_kind)i[ATTR_NORMALIZE_ROWS];
    return (struct kernel_normalize){.rows = c->size.in[IN_NORMALIZE_X][0],
                                     .width = c->size.in[IN_NORMALIZE_X][1],
                                     .groups = (size_t)i[ATTR_NORMALIZE_GROUPS],
                                     .columns = (size_t)i[ATTR_NORMALIZE_COLUMNS],
                                     .by_row = i[ATTR_NORMALIZE_SCOPE] == NORMALIZE_ROWS,
                                     .center = i[ATTR_NORMALIZE_CENTER],
                                     .batch = i[ATTR_NORMALIZE_BATCH],
                                     .level = c->attr->f[ATTR_NORMALIZE_LEVEL],
                                     .epsilon = c->attr->f[ATTR_NORMALIZE_EPSILON],
                                     .counted = rows == DIM_FIXED ? NULL : header_of(c)->count + rows};
}

void cuda_op_normalize(const struct call *c)
{
    struct kernel_normalize n = normalize_of(c);
    struct normalize_args args = {.y = c->out[OUT_NORMALIZE_Y],
                                  .used = c->out[OUT_NORMALIZE_USED],
                                  .sums = c->out[OUT_NORMALIZE_SUMS],
                                  .x = c->in[IN_NORMALIZE_X],
                                  .running = c->in[IN_NORMALIZE_RUNNING],
                                  .gain = c->in[IN_NORMALIZE_GAIN],
                                  .bias = c->in[IN_NORMALIZE_BIAS],
                                  .c = &n};
    keep(c, normalize_cuda(&args, stream_of(c)));
}

void cuda_op_normalize_backward(const struct call *c)
{
    struct kernel_normalize n = normalize_of(c);
    struct kernel_adds add = {c->add[OUT_NORMALIZE_BACKWARD_DX], c->add[OUT_NORMALIZE_BACKWARD_DGAIN],
                              c->add[OUT_NORMALIZE_BACKWARD_DBIAS]};
    struct normalize_backward_args args = {.dx = c->out[OUT_NORMALIZE_BACKWARD_DX],
                                           .dgain = c->out[OUT_NORMALIZE_BACKWARD_DGAIN],
                                           .dbias = c->out[OUT_NORMALIZE_BACKWARD_DBIAS],
                                           .dy = c->in[IN_NORMALIZE_BACKWARD_DY],
                                           .x = c->in[IN_NORMALIZE_BACKWARD_X],
                                           .gain = c->in[IN_NORMALIZE_BACKWARD_GAIN],
                                           .used = c->in[IN_NORMALIZE_BACKWARD_USED],
                                           .c = &n,
                                           .add = add};
    keep(c, normalize_backward_cuda(&args, stream_of(c)));
}

void cuda_op_running(const struct call *c)
{
    struct running_args args = {.running = c->out[OUT_RUNNING_STATISTICS],
                                .sums = c->in[IN_RUNNING_SUMS],
                                .control = c->in[IN_RUNNING_CONTROL],
                                .groups = c->size.out[OUT_RUNNING_STATISTICS][1],
                                .center = c->attr->i[ATTR_RUNNING_CENTER],
                                .share = c->attr->f[ATTR_RUNNING_SHARE]};
    keep(c, running_cuda(&args, stream_of(c)));
}
