/* Launches the kernels between one row per sentence and one row per token. */
#include "cuda/call.h"

void cuda_op_pool(const struct call *c)
{
    struct pool_forward_args args = {.y = c->out[OUT_POOL_Y],
                                     .weights = c->out[OUT_POOL_WEIGHTS],
                                     .x = c->in[IN_POOL_X],
                                     .offsets = c->in[IN_POOL_OFFSETS],
                                     .query = c->in[IN_POOL_QUERY],
                                     .sentences = c->size.out[OUT_POOL_Y][0],
                                     .width = c->size.in[IN_POOL_X][1],
                                     .kind = (int)c->attr->i[ATTR_POOL],
                                     .type = in_type(c, IN_POOL_X)};
    keep(c, pool_forward_cuda(&args, stream_of(c)));
}

void cuda_op_pool_backward(const struct call *c)
{
    if (!c->add[OUT_POOL_BACKWARD_DX])
        clear(c, c->out[OUT_POOL_BACKWARD_DX], IN_POOL_BACKWARD_OFFSETS, c->size.out[OUT_POOL_BACKWARD_DX][0],
              c->size.in[IN_POOL_BACKWARD_DY][1], in_type(c, IN_POOL_BACKWARD_DY));
    struct pool_backward_args args = {.dx = c->out[OUT_POOL_BACKWARD_DX],
                                      .dquery = c->out[OUT_POOL_BACKWARD_DQUERY],
                                      .scratch = c->scratch,
                                      .dy = c->in[IN_POOL_BACKWARD_DY],
                                      .offsets = c->in[IN_POOL_BACKWARD_OFFSETS],
                                      .query = c->in[IN_POOL_BACKWARD_QUERY],
                                      .x = c->in[IN_POOL_BACKWARD_X],
                                      .weights = c->in[IN_POOL_BACKWARD_WEIGHTS],
                                      .tokens = c->size.in[IN_POOL_BACKWARD_WEIGHTS][0],
                                      .sentences = c->size.in[IN_POOL_BACKWARD_DY][0],
                                      .width = c->size.in[IN_POOL_BACKWARD_DY][1],
                                      .kind = (int)c->attr->i[ATTR_POOL],
                                      .add_dx = c->add[OUT_POOL_BACKWARD_DX],
                                      .add_dquery = c->add[OUT_POOL_BACKWARD_DQUERY],
                                      .type = in_type(c, IN_POOL_BACKWARD_DY)};
    keep(c, pool_backward_cuda(&args, stream_of(c)));
}

void cuda_op_pool_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = (c->size.in[IN_POOL_BACKWARD_WEIGHTS][0] +
               pool_scratch_floats(c->size.in[IN_POOL_BACKWARD_DY][0], c->size.in[IN_POOL_BACKWARD_DY][1])) *
              sizeof(float);
}

void cuda_op_broadcast_add(const struct call *c)
{
    struct broadcast_add_args args = {.y = c->out[OUT_BROADCAST_ADD_Y],
                                      .x = c->in[IN_BROADCAST_ADD_X],
                                      .v = c->in[IN_BROADCAST_ADD_V],
                                      .sentence = c->in[IN_BROADCAST_ADD_SENTENCE],
                                      .rows = c->size.in[IN_BROADCAST_ADD_X][0],
                                      .width = c->size.in[IN_BROADCAST_ADD_X][1],
                                      .type = in_type(c, IN_BROADCAST_ADD_X)};
    keep(c, broadcast_add_cuda(&args, stream_of(c)));
}

void cuda_op_segment_sum(const struct call *c)
{
    size_t width = c->size.in[IN_SEGMENT_SUM_X][1] ? c->size.in[IN_SEGMENT_SUM_X][1] : 1;
    struct segment_sum_args args = {.y = c->out[OUT_SEGMENT_SUM_Y],
                                    .x = c->in[IN_SEGMENT_SUM_X],
                                    .offsets = c->in[IN_SEGMENT_SUM_OFFSETS],
                                    .sentences = c->size.out[OUT_SEGMENT_SUM_Y][0],
                                    .width = width,
                                    .add = c->add[OUT_SEGMENT_SUM_Y],
                                    .type = in_type(c, IN_SEGMENT_SUM_X)};
    keep(c, segment_sum_cuda(&args, stream_of(c)));
}

void cuda_op_prefix(const struct call *c)
{
    struct prefix_args args = {.y = c->out[OUT_PREFIX_Y],
                               .x = c->in[IN_PREFIX_X],
                               .prefix = c->in[IN_PREFIX_PREFIX],
                               .position = c->in[IN_PREFIX_POSITION],
                               .sentence = c->in[IN_PREFIX_SENTENCE],
                               .rows = c->size.in[IN_PREFIX_X][0],
                               .width = c->size.in[IN_PREFIX_X][1],
                               .prefix_rows = (size_t)c->attr->i[ATTR_PREFIX],
                               .type = in_type(c, IN_PREFIX_X)};
    keep(c, prefix_cuda(&args, stream_of(c)));
}

void cuda_op_prefix_backward(const struct call *c)
{
    struct prefix_backward_args args = {.dx = c->out[OUT_PREFIX_BACKWARD_DX],
                                        .dprefix = c->out[OUT_PREFIX_BACKWARD_DPREFIX],
                                        .dy = c->in[IN_PREFIX_BACKWARD_DY],
                                        .position = c->in[IN_PREFIX_BACKWARD_POSITION],
                                        .offsets = c->in[IN_PREFIX_BACKWARD_OFFSETS],
                                        .rows = c->size.in[IN_PREFIX_BACKWARD_DY][0],
                                        .sentences = c->size.out[OUT_PREFIX_BACKWARD_DPREFIX][0],
                                        .width = c->size.in[IN_PREFIX_BACKWARD_DY][1],
                                        .prefix_rows = (size_t)c->attr->i[ATTR_PREFIX],
                                        .add_dx = c->add[OUT_PREFIX_BACKWARD_DX],
                                        .add_dprefix = c->add[OUT_PREFIX_BACKWARD_DPREFIX],
                                        .type = in_type(c, IN_PREFIX_BACKWARD_DY)};
    keep(c, prefix_backward_cuda(&args, stream_of(c)));
}
