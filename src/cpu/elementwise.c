/* Elementwise ops, in blocks of elements or rows: add, gelu, tanh, swiglu (y = silu(gate) * up), dropout. */
#include "cpu/cpu.h"
#include "cpu/dropping.h"
#include "cpu/kernels.h"

enum { ELEMENTS = 1 << 14, ROWS = 16 };

static size_t elements_of(const size_t dim[MAX_RANK])
{
    size_t n = 1;
    for (unsigned d = 0; d < MAX_RANK && (d == 0 || dim[d]); d++) n *= dim[d];
    return n;
}

static size_t elements(const struct call *c)
{
    return elements_of(c->size.out[OUT_UNARY_Y]);
}

#define RANGE                                                                                                          \
    const struct call *c = argument;                                                                                   \
    (void)worker;                                                                                                      \
    size_t from = tile * ELEMENTS, n = least(elements(c), from + ELEMENTS) - from

static void add(void *argument, size_t tile, size_t worker)
{
    RANGE;
    const float *a = (const float *)c->in[IN_ADD_A] + from,
                *b = c->in[IN_ADD_B] ? (const float *)c->in[IN_ADD_B] + from : NULL;
    float *y = (float *)c->out[OUT_ADD_Y] + from;
    bool into = c->add[OUT_ADD_Y];
    SIMD for (size_t i = 0; i < n; i++)
    {
        float v = b ? a[i] + b[i] : a[i];
        y[i] = into ? y[i] + v : v;
    }
}

void CPU(add)(const struct call *c)
{
    cpu_run(c, tiles_of(elements(c), ELEMENTS), add, c);
}

static void gelu(void *argument, size_t tile, size_t worker)
{
    RANGE;
    const float *x = (const float *)c->in[IN_UNARY_X] + from;
    float *y = (float *)c->out[OUT_UNARY_Y] + from;
    SIMD for (size_t i = 0; i < n; i++) y[i] = cpu_gelu(x[i]);
}

void CPU(gelu)(const struct call *c)
{
    cpu_run(c, tiles_of(elements(c), ELEMENTS), gelu, c);
}

static void gelu_backward(void *argument, size_t tile, size_t worker)
{
    RANGE;
    const float *dy = (const float *)c->in[IN_UNARY_BACKWARD_DY] + from,
                *x = (const float *)c->in[IN_UNARY_BACKWARD_READ] + from;
    float *dx = (float *)c->out[OUT_UNARY_BACKWARD_DX] + from;
    if (c->add[OUT_UNARY_BACKWARD_DX]) {
        SIMD for (size_t i = 0; i < n; i++) dx[i] += dy[i] * cpu_gelu_slope(x[i]);
    } else {
        SIMD for (size_t i = 0; i < n; i++) dx[i] = dy[i] * cpu_gelu_slope(x[i]);
    }
}

void CPU(gelu_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(elements(c), ELEMENTS), gelu_backward, c);
}

static void activation_tanh(void *argument, size_t tile, size_t worker)
{
    RANGE;
    const float *x = (const float *)c->in[IN_UNARY_X] + from;
    float *y = (float *)c->out[OUT_UNARY_Y] + from;
    SIMD for (size_t i = 0; i < n; i++) y[i] = cpu_tanh(x[i]);
}

void CPU(activation_tanh)(const struct call *c)
{
    cpu_run(c, tiles_of(elements(c), ELEMENTS), activation_tanh, c);
}

static void activation_tanh_backward(void *argument, size_t tile, size_t worker)
{
    RANGE;
    const float *dy = (const float *)c->in[IN_UNARY_BACKWARD_DY] + from,
                *y = (const float *)c->in[IN_UNARY_BACKWARD_READ] + from;
    float *dx = (float *)c->out[OUT_UNARY_BACKWARD_DX] + from;
    bool into = c->add[OUT_UNARY_BACKWARD_DX];
    SIMD for (size_t i = 0; i < n; i++)
    {
        float d = dy[i] * (1.0f - y[i] * y[i]);
        dx[i] = into ? dx[i] + d : d;
    }
}

void CPU(activation_tanh_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(elements(c), ELEMENTS), activation_tanh_backward, c);
}

static void swiglu(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t f = c->size.out[OUT_UNARY_Y][1], end = least(c->size.out[OUT_UNARY_Y][0], (tile + 1) * ROWS);
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *gate = (const float *)c->in[IN_UNARY_X] + n * 2 * f, *up = gate + f;
        float *y = (float *)c->out[OUT_UNARY_Y] + n * f;
        SIMD for (size_t i = 0; i < f; i++) y[i] = gate[i] * cpu_sigmoid(gate[i]) * up[i];
    }
}

void CPU(swiglu)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.out[OUT_UNARY_Y][0], ROWS), swiglu, c);
}

static void swiglu_backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t f = c->size.in[IN_UNARY_BACKWARD_DY][1], end = least(c->size.in[IN_UNARY_BACKWARD_DY][0], (tile + 1) * ROWS);
    bool into = c->add[OUT_UNARY_BACKWARD_DX];
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *dy = (const float *)c->in[IN_UNARY_BACKWARD_DY] + n * f,
                    *gate = (const float *)c->in[IN_UNARY_BACKWARD_READ] + n * 2 * f, *up = gate + f;
        float *dgate = (float *)c->out[OUT_UNARY_BACKWARD_DX] + n * 2 * f, *dup = dgate + f;
        SIMD for (size_t i = 0; i < f; i++)
        {
            float s = cpu_sigmoid(gate[i]), silu = gate[i] * s;
            float a = dy[i] * up[i] * (s + silu * (1.0f - s)), b = dy[i] * silu;
            dgate[i] = into ? dgate[i] + a : a;
            dup[i] = into ? dup[i] + b : b;
        }
    }
}

void CPU(swiglu_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_UNARY_BACKWARD_DY][0], ROWS), swiglu_backward, c);
}

static void dropout(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    struct dropping_rows dropping = dropping_of(c, IN_DROPOUT_SENTENCE);
    size_t width = c->size.in[IN_DROPOUT_X][1], end = least(c->size.in[IN_DROPOUT_X][0], (tile + 1) * ROWS);
    bool into = c->add[OUT_DROPOUT_Y];
    for (size_t n = tile * ROWS; n < end; n++) {
        for (size_t i = 0; i < width; i += DROPPING_COLUMNS) {
            const float *x = (const float *)c->in[IN_DROPOUT_X] + n * width + i;
            float *y = (float *)c->out[OUT_DROPOUT_Y] + n * width + i, v[DROPPING_COLUMNS];
            size_t count = least(width - i, DROPPING_COLUMNS);
            dropping_columns(into ? v : y, x, &dropping, n, i, count, width);
            for (size_t j = 0; into && j < count; j++) y[j] += v[j];
        }
    }
}

void CPU(dropout)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_DROPOUT_X][0], ROWS), dropout, c);
}
