/* Launches the embedding kernels. */
#include "cuda/call.h"

void cuda_op_embedding(const struct call *c)
{
    struct embedding_forward_args args = {.y = c->out[OUT_EMBEDDING_Y],
                                          .table = c->in[IN_EMBEDDING_TABLE],
                                          .marks = c->in[IN_EMBEDDING_MARKS],
                                          .ids = c->in[IN_EMBEDDING_IDS],
                                          .add = c->in[IN_EMBEDDING_ADD],
                                          .rows = c->size.out[OUT_EMBEDDING_Y][0],
                                          .table_rows = c->size.in[IN_EMBEDDING_TABLE][0],
                                          .width = c->size.out[OUT_EMBEDDING_Y][1],
                                          .type = out_type(c, OUT_EMBEDDING_Y)};
    keep(c, embedding_forward_cuda(&args, stream_of(c)));
}

void cuda_op_embedding_backward(const struct call *c)
{
    keep(c, embedding_backward_cuda(
                &(struct embedding_backward_args){.dtable = c->out[OUT_EMBEDDING_BACKWARD_DTABLE],
                                                  .scratch = c->scratch,
                                                  .dy = c->in[IN_EMBEDDING_BACKWARD_DY],
                                                  .ids = c->in[IN_EMBEDDING_BACKWARD_IDS],
                                                  .order = c->in[IN_EMBEDDING_BACKWARD_ORDER],
                                                  .rows = c->size.in[IN_EMBEDDING_BACKWARD_DY][0],
                                                  .first = (size_t)c->attr->i[ATTR_EMBEDDING_FIRST],
                                                  .table_rows = c->size.out[OUT_EMBEDDING_BACKWARD_DTABLE][0],
                                                  .width = c->size.in[IN_EMBEDDING_BACKWARD_DY][1],
                                                  .add = c->add[OUT_EMBEDDING_BACKWARD_DTABLE],
                                                  .type = in_type(c, IN_EMBEDDING_BACKWARD_DY)},
                stream_of(c)));
}

void cuda_op_embedding_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared =
        embedding_scratch_floats(c->size.in[IN_EMBEDDING_BACKWARD_DY][0], c->size.in[IN_EMBEDDING_BACKWARD_DY][1]) *
        sizeof(float);
}
