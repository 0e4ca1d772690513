/* Launches the elementwise kernels and the dropout kernel. */
#include "cuda/call.h"

void cuda_op_add(const struct call *c)
{
    struct add_args args = {.y = c->out[OUT_ADD_Y],
                            .a = c->in[IN_ADD_A],
                            .b = c->in[IN_ADD_B],
                            .elements = elements(c->size.out[OUT_ADD_Y]),
                            .add = c->add[OUT_ADD_Y],
                            .y_type = out_type(c, OUT_ADD_Y),
                            .type = in_type(c, IN_ADD_A)};
    keep(c, add_cuda(&args, stream_of(c)));
}

void cuda_op_gelu(const struct call *c)
{
    struct gelu_forward_args args = {.y = c->out[OUT_UNARY_Y],
                                     .x = c->in[IN_UNARY_X],
                                     .elements = elements(c->size.out[OUT_UNARY_Y]),
                                     .type = in_type(c, IN_UNARY_X)};
    keep(c, gelu_forward_cuda(&args, stream_of(c)));
}

void cuda_op_activation_tanh(const struct call *c)
{
    struct tanh_forward_args args = {.y = c->out[OUT_UNARY_Y],
                                     .x = c->in[IN_UNARY_X],
                                     .elements = elements(c->size.out[OUT_UNARY_Y]),
                                     .type = in_type(c, IN_UNARY_X)};
    keep(c, tanh_forward_cuda(&args, stream_of(c)));
}

void cuda_op_activation_tanh_backward(const struct call *c)
{
    struct tanh_backward_args args = {.dx = c->out[OUT_UNARY_BACKWARD_DX],
                                      .dy = c->in[IN_UNARY_BACKWARD_DY],
                                      .y = c->in[IN_UNARY_BACKWARD_READ],
                                      .elements = elements(c->size.out[OUT_UNARY_BACKWARD_DX]),
                                      .add = c->add[OUT_UNARY_BACKWARD_DX],
                                      .type = in_type(c, IN_UNARY_BACKWARD_READ)};
    keep(c, tanh_backward_cuda(&args, stream_of(c)));
}

void cuda_op_gelu_backward(const struct call *c)
{
    struct gelu_backward_args args = {.dx = c->out[OUT_UNARY_BACKWARD_DX],
                                      .dy = c->in[IN_UNARY_BACKWARD_DY],
                                      .x = c->in[IN_UNARY_BACKWARD_READ],
                                      .elements = elements(c->size.out[OUT_UNARY_BACKWARD_DX]),
                                      .add = c->add[OUT_UNARY_BACKWARD_DX],
                                      .type = in_type(c, IN_UNARY_BACKWARD_READ)};
    keep(c, gelu_backward_cuda(&args, stream_of(c)));
}

void cuda_op_swiglu(const struct call *c)
{
    struct swiglu_forward_args args = {.y = c->out[OUT_UNARY_Y],
                                       .x = c->in[IN_UNARY_X],
                                       .rows = c->size.out[OUT_UNARY_Y][0],
                                       .width = c->size.out[OUT_UNARY_Y][1],
                                       .type = in_type(c, IN_UNARY_X)};
    keep(c, swiglu_forward_cuda(&args, stream_of(c)));
}

void cuda_op_swiglu_backward(const struct call *c)
{
    struct swiglu_backward_args args = {.dx = c->out[OUT_UNARY_BACKWARD_DX],
                                        .dy = c->in[IN_UNARY_BACKWARD_DY],
                                        .x = c->in[IN_UNARY_BACKWARD_READ],
                                        .rows = c->size.in[IN_UNARY_BACKWARD_DY][0],
                                        .width = c->size.in[IN_UNARY_BACKWARD_DY][1],
                                        .add = c->add[OUT_UNARY_BACKWARD_DX],
                                        .type = in_type(c, IN_UNARY_BACKWARD_READ)};
    keep(c, swiglu_backward_cuda(&args, stream_of(c)));
}

void cuda_op_dropout(const struct call *c)
{
    struct kernel_dropout d = dropout_of(c, IN_DROPOUT_SENTENCE);
    struct dropout_args args = {.y = c->out[OUT_DROPOUT_Y],
                                .x = c->in[IN_DROPOUT_X],
                                .dropout = &d,
                                .rows = c->size.in[IN_DROPOUT_X][0],
                                .width = c->size.in[IN_DROPOUT_X][1],
                                .add = c->add[OUT_DROPOUT_Y],
                                .type = in_type(c, IN_DROPOUT_X)};
    keep(c, dropout_cuda(&args, stream_of(c)));
}
