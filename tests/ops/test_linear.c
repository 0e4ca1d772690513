/* linear: y = x W^T (+ b), with or without GELU; dx = dy W, dW = dy^T x, db = column sums. Also two linear ops with
 * GELU between them: the second one's dx includes the slope, unless another op reads GELU's output.
 *
 * Shapes lie around the edges of the product: vector widths 4, 8, 16, register tiles of 4, 6 and 14 rows, tiles of 112
 * rows, blocks of 384 along K, of 2,048 columns and 1,792 rows, and the path for at most 8 rows. */
#include "ops/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { GELU, BIAS };

static void record(struct graph *g, const struct trial *t, const value *in, value *out)
{
    value b = t->option[BIAS] ? in[2] : NO_VALUE;
    out[0] = t->option[GELU] ? op_linear_gelu(g, in[0], in[1], b) : op_linear(g, in[0], in[1], b);
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static double slope(double x)
{
    double c = sqrt(2 / M_PI), u = tanh(c * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + u) + 0.5 * x * (1 - u * u) * c * (1 + 3 * 0.044715 * x * x);
}

static double before_gelu(const struct trial *t, double *const *in, size_t n, size_t o)
{
    size_t width = t->in[0].width;
    double sum = t->option[BIAS] ? in[2][o] : 0;
    for (size_t i = 0; i < width; i++) sum += in[0][n * width + i] * in[1][o * width + i];
    return sum;
}

static void reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t rows = t->in[0].rows, outs = t->in[1].rows;
    for (size_t n = 0; n < rows; n++)
        for (size_t o = 0; o < outs; o++) {
            double x = before_gelu(t, in, n, o);
            out[0][n * outs + o] = t->option[GELU] ? gelu(x) : x;
        }
}

static void gradient(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    size_t rows = t->in[0].rows, outs = t->in[1].rows, width = t->in[0].width;
    for (size_t n = 0; n < rows; n++)
        for (size_t o = 0; o < outs; o++) {
            double d = dout[0][n * outs + o] * (t->option[GELU] ? slope(before_gelu(t, in, n, o)) : 1);
            for (size_t i = 0; i < width; i++) {
                din[0][n * width + i] += d * in[1][o * width + i];
                din[1][o * width + i] += d * in[0][n * width + i];
            }
            if (t->option[BIAS]) din[2][o] += d;
        }
}

static void try(size_t rows, size_t in, size_t out, bool gelu, bool bias, size_t tail)
{
    char name[64];
    snprintf(name, sizeof name, "linear %zu x %zu -> %zu%s%s", rows, in, out, gelu ? ", gelu" : "",
             bias ? ", bias" : "");
    struct batch *b = batch_rows(rows);
    struct trial t = {.name = name,
                      .batch = b,
                      .tail = tail,
                      .inputs = bias ? 3 : 2,
                      .option = {gelu, bias},
                      .record = record,
                      .reference = reference,
                      .gradient = gradient,
                      .large = rows * in * out > 2000000};
    t.in[0] = (struct operand){DIM_DEC_TOKENS, rows, in, 0.1, 1};
    t.in[1] = (struct operand){DIM_FIXED, out, in, 0, 1 / sqrt((double)in)};
    t.in[2] = (struct operand){DIM_FIXED, out, 0, 0, 1};
    harness_try(&t);
    free(b);
}

/* ---- y = gelu(x W^T + b) V^T, with or without GELU's output added ---- */

enum { READ_TWICE };

static void record_pair(struct graph *g, const struct trial *t, const value *in, value *out)
{
    value hidden = op_linear_gelu(g, in[0], in[1], in[2]);
    out[0] = op_linear(g, hidden, in[3], NO_VALUE);
    if (t->option[READ_TWICE]) out[0] = op_add(g, out[0], hidden);
}

/* Returns the values (rows, hidden) before the activation. */
static double *hidden_of(const struct trial *t, double *const *in)
{
    size_t rows = t->in[0].rows, width = t->in[0].width, hidden = t->in[1].rows;
    double *h = calloc(rows * hidden + 1, sizeof *h);
    for (size_t n = 0; h && n < rows; n++)
        for (size_t j = 0; j < hidden; j++) {
            double sum = in[2][j];
            for (size_t i = 0; i < width; i++) sum += in[0][n * width + i] * in[1][j * width + i];
            h[n * hidden + j] = sum;
        }
    return h;
}

static void reference_pair(const struct trial *t, double *const *in, double *const *out)
{
    size_t rows = t->in[0].rows, hidden = t->in[1].rows, outs = t->in[3].rows;
    double *h = hidden_of(t, in);
    assert_non_null(h);
    for (size_t i = 0; i < rows * hidden; i++) h[i] = gelu(h[i]);
    for (size_t n = 0; n < rows; n++)
        for (size_t o = 0; o < outs; o++) {
            double sum = t->option[READ_TWICE] ? h[n * hidden + o] : 0;
            for (size_t j = 0; j < hidden; j++) sum += h[n * hidden + j] * in[3][o * hidden + j];
            out[0][n * outs + o] = sum;
        }
    free(h);
}

static void gradient_pair(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    size_t rows = t->in[0].rows, width = t->in[0].width, hidden = t->in[1].rows, outs = t->in[3].rows;
    double *h = hidden_of(t, in);
    assert_non_null(h);
    for (size_t n = 0; n < rows; n++)
        for (size_t j = 0; j < hidden; j++) {
            double d = t->option[READ_TWICE] ? dout[0][n * outs + j] : 0, y = gelu(h[n * hidden + j]);
            for (size_t o = 0; o < outs; o++) {
                d += dout[0][n * outs + o] * in[3][o * hidden + j];
                din[3][o * hidden + j] += dout[0][n * outs + o] * y;
            }
            d *= slope(h[n * hidden + j]);
            din[2][j] += d;
            for (size_t i = 0; i < width; i++) {
                din[0][n * width + i] += d * in[1][j * width + i];
                din[1][j * width + i] += d * in[0][n * width + i];
            }
        }
    free(h);
}

static void linear_pair(void **state)
{
    (void)state;
    static const size_t shapes[][4] = {
        {0, 5, 7, 3},    {1, 1, 1, 1},       {2, 3, 5, 1},      {4, 8, 1, 8},       {4, 8, 16, 1},
        {1, 7, 33, 5},   {8, 33, 65, 9},     {9, 17, 31, 33},   {15, 33, 17, 65},   {31, 16, 32, 15},
        {33, 31, 33, 7}, {113, 15, 65, 385}, {257, 3, 255, 40}, {29, 40, 384, 700}, {130, 24, 530, 300},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int twice = 0; twice < 2; twice++) {
            const size_t rows = shapes[i][0], in = shapes[i][1], hidden = shapes[i][2],
                         out = twice ? hidden : shapes[i][3];
            char name[80];
            snprintf(name, sizeof name, "linear %zu x %zu, gelu %zu -> %zu%s", rows, in, hidden, out,
                     twice ? ", read twice" : "");
            struct batch *b = batch_rows(rows);
            struct trial t = {.name = name,
                              .batch = b,
                              .tail = i % 3 * 20,
                              .inputs = 4,
                              .option = {twice},
                              .record = record_pair,
                              .reference = reference_pair,
                              .gradient = gradient_pair,
                              .large = rows * hidden * (in + out) > 2000000};
            t.in[0] = (struct operand){DIM_DEC_TOKENS, rows, in, 0.1, 1};
            t.in[1] = (struct operand){DIM_FIXED, hidden, in, 0, 1 / sqrt((double)in)};
            t.in[2] = (struct operand){DIM_FIXED, hidden, 0, 0, 1};
            t.in[3] = (struct operand){DIM_FIXED, out, hidden, 0, 1 / sqrt((double)hidden)};
            harness_try(&t);
            free(b);
        }
}

static void linear(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {
        {0, 5, 7},      {1, 1, 1},      {1, 7, 5},      {3, 385, 257},   {7, 384, 300},    {8, 16, 32},
        {8, 33, 65},    {9, 17, 31},    {13, 31, 15},   {14, 32, 16},    {15, 33, 17},     {31, 32, 33},
        {32, 31, 32},   {33, 33, 31},   {111, 5, 3},    {112, 64, 16},   {113, 65, 15},    {14, 383, 31},
        {29, 384, 33},  {33, 385, 7},   {20, 769, 40},  {9, 3, 2049},    {1793, 2, 3},     {257, 40, 255},
        {510, 40, 520}, {515, 530, 33}, {45, 521, 509}, {509, 700, 517}, {1030, 20, 1100},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        try(shapes[i][0], shapes[i][1], shapes[i][2], false, i % 2, i % 3 * 20);
}

static void linear_gelu(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {
        {0, 5, 7},     {1, 1, 1},    {1, 7, 5},     {4, 385, 33},  {8, 16, 32},     {8, 33, 65},
        {9, 17, 31},   {15, 33, 17}, {31, 32, 33},  {33, 33, 31},  {111, 5, 3},     {112, 16, 64},
        {113, 15, 65}, {33, 385, 7}, {29, 384, 33}, {257, 3, 255}, {515, 300, 530},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        try(shapes[i][0], shapes[i][1], shapes[i][2], true, i % 2 == 0, i % 3 * 20);
}

HARNESS_MAIN(FAMILY_LINEAR, cmocka_unit_test(linear), cmocka_unit_test(linear_gelu), cmocka_unit_test(linear_pair))
