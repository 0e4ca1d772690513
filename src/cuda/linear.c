/* Linear layers: cuBLASLt products, and the kernel for the bias gradient. */
#include "cuda/call.h"

void cuda_op_linear(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_X][0], in = c->size.in[IN_LINEAR_X][1], out = c->size.in[IN_LINEAR_W][0];
    struct cuda_product p = {.m = n,
                             .n = out,
                             .k = in,
                             .ldc = out,
                             .bias = c->in[IN_LINEAR_B],
                             .type = in_type(c, IN_LINEAR_X),
                             .out = out_type(c, OUT_LINEAR_Y)};
    p.a = (struct cuda_matrix){c->in[IN_LINEAR_X], in, 1};
    p.b = (struct cuda_matrix){c->in[IN_LINEAR_W], 1, in};
    p.c = c->out[OUT_LINEAR_Y];
    p.before_gelu = c->out[OUT_LINEAR_PRE];
    cuda_product(cuda_of(c), &p);
}

void cuda_op_linear_backward_input(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_BACKWARD_INPUT_DY][0], out = c->size.in[IN_LINEAR_BACKWARD_INPUT_DY][1],
           in = c->size.in[IN_LINEAR_BACKWARD_INPUT_W][1];
    struct cuda_product p = {.m = n,
                             .n = in,
                             .k = out,
                             .ldc = in,
                             .c = c->out[OUT_LINEAR_BACKWARD_INPUT_DX],
                             .add = c->add[OUT_LINEAR_BACKWARD_INPUT_DX],
                             .type = in_type(c, IN_LINEAR_BACKWARD_INPUT_DY),
                             .out = out_type(c, OUT_LINEAR_BACKWARD_INPUT_DX),
                             .before_gelu = (void *)c->in[IN_LINEAR_BACKWARD_INPUT_PRE],
                             .slope = c->in[IN_LINEAR_BACKWARD_INPUT_PRE]};
    p.a = (struct cuda_matrix){c->in[IN_LINEAR_BACKWARD_INPUT_DY], out, 1};
    p.b = (struct cuda_matrix){c->in[IN_LINEAR_BACKWARD_INPUT_W], in, 1};
    cuda_product(cuda_of(c), &p);
}

void cuda_op_linear_backward_weight(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][0], out = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][1],
           in = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_X][1];
    if (c->out[OUT_LINEAR_BACKWARD_WEIGHT_DW]) {
        struct cuda_product p = {.m = out,
                                 .n = in,
                                 .k = n,
                                 .ldc = in,
                                 .c = c->out[OUT_LINEAR_BACKWARD_WEIGHT_DW],
                                 .add = c->add[OUT_LINEAR_BACKWARD_WEIGHT_DW],
                                 .type = in_type(c, IN_LINEAR_BACKWARD_WEIGHT_DY)};
        p.a = (struct cuda_matrix){c->in[IN_LINEAR_BACKWARD_WEIGHT_DY], 1, out};
        p.b = (struct cuda_matrix){c->in[IN_LINEAR_BACKWARD_WEIGHT_X], in, 1};
        cuda_product(cuda_of(c), &p);
    }
    if (c->out[OUT_LINEAR_BACKWARD_WEIGHT_DB])
        keep(c, bias_backward_cuda(&(struct bias_backward_args){.dbias = c->out[OUT_LINEAR_BACKWARD_WEIGHT_DB],
                                                                .scratch = c->scratch,
                                                                .dy = c->in[IN_LINEAR_BACKWARD_WEIGHT_DY],
                                                                .rows = n,
                                                                .width = out,
                                                                .add = c->add[OUT_LINEAR_BACKWARD_WEIGHT_DB],
                                                                .type = in_type(c, IN_LINEAR_BACKWARD_WEIGHT_DY)},
                                   stream_of(c)));
}

void cuda_op_linear_backward_weight_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared =
        bias_scratch_floats(c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][0], c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][1]) *
        sizeof(float);
}
