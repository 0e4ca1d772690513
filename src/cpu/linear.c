/* Linear: y = x W^T + b (gelu); dx = dy W (times gelu's slope); dW = dy^T x; db = column sums of dy, in row order. */
#include "cpu/gemm.h"
#include "cpu/kernels.h"

enum { COLUMNS = 64 };

void CPU(linear_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)c;
    (void)shared;
    *per_worker = CPU(gemm_scratch)();
}

void CPU(linear)(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_X][0], in = c->size.in[IN_LINEAR_X][1], out = c->size.in[IN_LINEAR_W][0];
    bool gelu = c->out[OUT_LINEAR_PRE];
    struct product p = {.m = n, .n = out, .k = in, .ldc = out, .bias = c->in[IN_LINEAR_B]};
    p.a = (struct matrix){c->in[IN_LINEAR_X], in, 1};
    p.b = (struct matrix){c->in[IN_LINEAR_W], 1, in};
    p.blocks = c->in_blocks[IN_LINEAR_W];
    p.c = gelu ? c->out[OUT_LINEAR_PRE] : c->out[OUT_LINEAR_Y];
    p.gelu = gelu ? c->out[OUT_LINEAR_Y] : NULL;
    CPU(gemm)(c, &p);
}

void CPU(linear_backward_input)(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_BACKWARD_INPUT_DY][0], out = c->size.in[IN_LINEAR_BACKWARD_INPUT_DY][1],
           in = c->size.in[IN_LINEAR_BACKWARD_INPUT_W][1];
    struct product p = {.m = n,
                        .n = in,
                        .k = out,
                        .ldc = in,
                        .c = c->out[OUT_LINEAR_BACKWARD_INPUT_DX],
                        .add = c->add[OUT_LINEAR_BACKWARD_INPUT_DX],
                        .slope = c->in[IN_LINEAR_BACKWARD_INPUT_PRE]};
    p.a = (struct matrix){c->in[IN_LINEAR_BACKWARD_INPUT_DY], out, 1};
    p.b = (struct matrix){c->in[IN_LINEAR_BACKWARD_INPUT_W], in, 1};
    CPU(gemm)(c, &p);
}

static void bias(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *dy = c->in[IN_LINEAR_BACKWARD_WEIGHT_DY];
    float *db = c->out[OUT_LINEAR_BACKWARD_WEIGHT_DB];
    size_t n = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][0], out = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][1];
    size_t from = tile * COLUMNS, width = least(COLUMNS, out - from);
    float sum[COLUMNS] = {0};
    for (size_t r = 0; r < n; r++) {
        const float *row = dy + r * out + from;
        SIMD for (size_t j = 0; j < width; j++) sum[j] += row[j];
    }
    for (size_t j = 0; j < width; j++)
        db[from + j] = c->add[OUT_LINEAR_BACKWARD_WEIGHT_DB] ? db[from + j] + sum[j] : sum[j];
}

void CPU(linear_backward_weight)(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][0], out = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][1],
           in = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_X][1];
    if (c->out[OUT_LINEAR_BACKWARD_WEIGHT_DW]) {
        struct product p = {.m = out,
                            .n = in,
                            .k = n,
                            .ldc = in,
                            .c = c->out[OUT_LINEAR_BACKWARD_WEIGHT_DW],
                            .add = c->add[OUT_LINEAR_BACKWARD_WEIGHT_DW]};
        p.a = (struct matrix){c->in[IN_LINEAR_BACKWARD_WEIGHT_DY], 1, out};
        p.b = (struct matrix){c->in[IN_LINEAR_BACKWARD_WEIGHT_X], in, 1};
        CPU(gemm)(c, &p);
    }
    if (c->out[OUT_LINEAR_BACKWARD_WEIGHT_DB]) cpu_run(c, tiles_of(out, COLUMNS), bias, c);
}
