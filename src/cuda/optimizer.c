/* Launches the kernels of the update: norms, guard, controller, AdamW, SGD. */
#include "cuda/call.h"

void cuda_op_squared_norm(const struct call *c)
{
    struct squared_norm_args args = {.record = c->out[OUT_SQUARED_NORM_RECORD],
                                     .scratch = c->scratch,
                                     .gradient = c->in[IN_SQUARED_NORM_GRADIENT],
                                     .elements = c->size.in[IN_SQUARED_NORM_GRADIENT][0]};
    keep(c, squared_norm_cuda(&args, stream_of(c)));
}

void cuda_op_squared_norm_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = squared_norm_scratch_doubles(c->size.in[IN_SQUARED_NORM_GRADIENT][0]) * sizeof(double);
}

void cuda_op_block_squares(const struct call *c)
{
    keep(c, block_squares_cuda(c->out[OUT_BLOCK_SQUARES_SUMS], c->in[IN_BLOCK_SQUARES_GRADIENT],
                               c->size.in[IN_BLOCK_SQUARES_GRADIENT][0], stream_of(c)));
}

void cuda_op_combined_norm(const struct call *c)
{
    struct combined_norm_args args = {.record = c->out[OUT_COMBINED_NORM_RECORD],
                                      .scratch = c->scratch,
                                      .sums = c->in[IN_COMBINED_NORM_SUMS],
                                      .at = c->in[IN_COMBINED_NORM_AT],
                                      .blocks = c->size.in[IN_COMBINED_NORM_AT][0]};
    keep(c, combined_norm_cuda(&args, stream_of(c)));
}

void cuda_op_combined_norm_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = squared_norm_scratch_doubles(c->size.in[IN_COMBINED_NORM_AT][0] * SQUARES_BLOCK) * sizeof(double);
}

void cuda_op_select_row(const struct call *c)
{
    struct select_row_args args = {.y = c->out[OUT_SELECT_ROW_Y],
                                   .rows = c->in[IN_SELECT_ROW_ROWS],
                                   .control = c->in[IN_SELECT_ROW_CONTROL],
                                   .scales = c->in[IN_SELECT_ROW_SCALES],
                                   .width = c->size.out[OUT_SELECT_ROW_Y][0]};
    keep(c, select_row_cuda(&args, stream_of(c)));
}

void cuda_op_controller(const struct call *c)
{
    const int64_t *i = c->attr->i;
    keep(c,
         controller_cuda(
             &(struct controller_args){.state = c->out[OUT_CONTROLLER_STATE],
                                       .weight = (float *)c->out[OUT_CONTROLLER_SCALES] + i[ATTR_CONTROLLER_INDEX],
                                       .figure = (const float *)c->in[IN_CONTROLLER_FIGURES] + i[ATTR_CONTROLLER_PART],
                                       .control = c->in[IN_CONTROLLER_CONTROL],
                                       .settings = c->in[IN_CONTROLLER_SETTINGS],
                                       .multiplier = i[ATTR_CONTROLLER_RULE] == CONTROLLER_MULTIPLIER},
             stream_of(c)));
}

void cuda_op_guard(const struct call *c)
{
    const float *norms[MOST_NORMS];
    size_t count = 0;
    for (unsigned k = 4; k < MAX_INPUTS; k++)
        if (c->in[k]) norms[count++] = c->in[k];
    struct guard_args args = {.scalars = c->out[OUT_GUARD_SCALARS],
                              .control = c->out[OUT_GUARD_CONTROL],
                              .loss = c->in[IN_GUARD_LOSS],
                              .rows = c->in[IN_GUARD_ROWS],
                              .settings = c->in[IN_GUARD_SETTINGS],
                              .norms = norms,
                              .count = count,
                              .groups = c->size.out[OUT_GUARD_SCALARS][0]};
    keep(c, guard_cuda(&args, stream_of(c)));
}

void cuda_op_adamw(const struct call *c)
{
    struct adamw_args args = {.weights = c->out[OUT_ADAMW_WEIGHTS],
                              .moment1 = c->out[OUT_ADAMW_MOMENT1],
                              .moment2 = c->out[OUT_ADAMW_MOMENT2],
                              .working = c->out[OUT_ADAMW_WORKING],
                              .gradient = c->in[IN_ADAMW_GRADIENT],
                              .scalars = c->in[IN_ADAMW_SCALARS],
                              .elements = c->size.in[IN_ADAMW_GRADIENT][0],
                              .first = (size_t)c->attr->i[ATTR_MOMENTS_FIRST],
                              .noise = noise_of(c),
                              .moments = out_type(c, OUT_ADAMW_MOMENT1)};
    keep(c, adamw_cuda(&args, stream_of(c)));
}

void cuda_op_sgd(const struct call *c)
{
    struct sgd_args args = {.weights = c->out[OUT_SGD_WEIGHTS],
                            .moment = c->out[OUT_SGD_MOMENT],
                            .working = c->out[OUT_SGD_WORKING],
                            .gradient = c->in[IN_SGD_GRADIENT],
                            .scalars = c->in[IN_SGD_SCALARS],
                            .elements = c->size.in[IN_SGD_GRADIENT][0],
                            .first = (size_t)c->attr->i[ATTR_MOMENTS_FIRST],
                            .noise = noise_of(c),
                            .moments = out_type(c, OUT_SGD_MOMENT)};
    keep(c, sgd_cuda(&args, stream_of(c)));
}
