/* Linear: y = x W^T + b (gelu);  dx = dy W (times gelu's slope);  dW = dy^T x;  db = column sums of dy, row by row. */
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
    size_t n = c->size.in[0][0], in = c->size.in[0][1], out = c->size.in[1][0];
    bool gelu = c->out[1];
    struct product p = {.m = n, .n = out, .k = in, .ldc = out, .bias = c->in[2]};
    p.a = (struct matrix){c->in[0], in, 1};
    p.b = (struct matrix){c->in[1], 1, in};
    p.blocks = c->in_blocks[1];
    p.c = gelu ? c->out[1] : c->out[0];
    p.gelu = gelu ? c->out[0] : NULL;
    CPU(gemm)(c, &p);
}

void CPU(linear_backward_input)(const struct call *c)
{
    size_t n = c->size.in[0][0], out = c->size.in[0][1], in = c->size.in[1][1];
    struct product p = {.m = n, .n = in, .k = out, .ldc = in, .c = c->out[0], .add = c->add[0], .slope = c->in[2]};
    p.a = (struct matrix){c->in[0], out, 1};
    p.b = (struct matrix){c->in[1], in, 1};
    CPU(gemm)(c, &p);
}

static void bias(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *dy = c->in[0];
    float *db = c->out[1];
    size_t n = c->size.in[0][0], out = c->size.in[0][1];
    size_t from = tile * COLUMNS, width = least(COLUMNS, out - from);
    float sum[COLUMNS] = {0};
    for (size_t r = 0; r < n; r++) {
        const float *row = dy + r * out + from;
        SIMD for (size_t j = 0; j < width; j++) sum[j] += row[j];
    }
    for (size_t j = 0; j < width; j++) db[from + j] = c->add[1] ? db[from + j] + sum[j] : sum[j];
}

void CPU(linear_backward_weight)(const struct call *c)
{
    size_t n = c->size.in[0][0], out = c->size.in[0][1], in = c->size.in[1][1];
    if (c->out[0]) {
        struct product p = {.m = out, .n = in, .k = n, .ldc = in, .c = c->out[0], .add = c->add[0]};
        p.a = (struct matrix){c->in[0], 1, out};
        p.b = (struct matrix){c->in[1], in, 1};
        CPU(gemm)(c, &p);
    }
    if (c->out[1]) cpu_run(c, tiles_of(out, COLUMNS), bias, c);
}
