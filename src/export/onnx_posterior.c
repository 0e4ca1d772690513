/* Maps of posteriors, and normalization by running statistics (ops/posterior.c has the maths). */
#include "ops/posterior.h"
#include "export/onnx.h"

#include <math.h>
#include <stdlib.h>

static const char *unary(struct onnx *x, const char *op, const char *a)
{
    return onnx_node(x, op, ONNX_IN(a), NULL);
}

static const char *binary(struct onnx *x, const char *op, const char *a, const char *b)
{
    return onnx_node(x, op, ONNX_IN(a, b), NULL);
}

static const char *by(struct onnx *x, const char *op, const char *a, double real)
{
    return binary(x, op, a, onnx_real(x, real));
}

/* sigma = l + (u - l) sigmoid(b);  mu^2 = max(0, 2 delta + 1 + log sigma^2 - sigma^2) + max(0, m) */
static void committed(struct onnx *x, const struct attributes *a, const char **m, const char **b)
{
    double least = a->f[ATTR_POSTERIOR_LEAST], span = a->f[ATTR_POSTERIOR_MOST] - least;
    const char *sigma = by(x, "Add", by(x, "Mul", unary(x, "Sigmoid", *b), span), least);
    const char *logvar = by(x, "Mul", unary(x, "Log", sigma), 2);
    const char *rest =
        by(x, "Add", binary(x, "Sub", logvar, binary(x, "Mul", sigma, sigma)), 2 * a->f[ATTR_POSTERIOR_REAL] + 1);
    *m = unary(x, "Sqrt", binary(x, "Add", by(x, "Max", rest, 0), by(x, "Max", *m, 0)));
    *b = logvar;
}

/* Returns the root r of exp(r) - r - 1 = x^2 with the sign of x, in double. Newton's method starts beyond the root and
 * comes nearer with every step. Near 0, where the equation has no digits, r = s - s^2 / 6 + s^3 / 36, s = sqrt 2 x. */
static const char *slashed_root(struct onnx *x, const char *t)
{
    const struct {
        const char *name;
        double value;
    } reals[] = {{"double_one", 1},         {"double_root", sqrt(2)}, {"double_sixth", -1.0 / 6},
                 {"double_36th", 1.0 / 36}, {"double_near", 0.03},    {"double_zero", 0}};
    enum { ONE, ROOT, SIXTH, THIRTY_SIXTH, NEAR, ZERO, REALS };
    const char *c[REALS];
    for (size_t i = 0; i < REALS; i++) c[i] = onnx_weight(x, reals[i].name, ONNX_DOUBLE, NULL, 0, &reals[i].value);
    t = onnx_node(x, "Cast", ONNX_IN(t), "to=11");
    const char *s = binary(x, "Mul", t, c[ROOT]), *square = binary(x, "Mul", t, t);
    const char *series = binary(x, "Add", binary(x, "Mul", s, c[THIRTY_SIXTH]), c[SIXTH]);
    series = binary(x, "Mul", s, binary(x, "Add", c[ONE], binary(x, "Mul", s, series)));
    const char *above = unary(x, "Log", binary(x, "Add", binary(x, "Add", square, unary(x, "Abs", s)), c[ONE]));
    const char *below = unary(x, "Neg", binary(x, "Add", square, unary(x, "Abs", s)));
    const char *r = onnx_node(x, "Where", ONNX_IN(binary(x, "Greater", t, c[ZERO]), above, below), NULL);
    for (int i = 0; i < 8; i++) {
        const char *slope = binary(x, "Sub", unary(x, "Exp", r), c[ONE]);
        r = binary(x, "Sub", r, binary(x, "Div", binary(x, "Sub", binary(x, "Sub", slope, r), square), slope));
    }
    r = onnx_node(x, "Where", ONNX_IN(binary(x, "Less", unary(x, "Abs", t), c[NEAR]), series, r), NULL);
    return onnx_node(x, "Cast", ONNX_IN(r), "to=1");
}

void onnx_posterior(struct onnx *x, const struct node *n)
{
    const char *a = onnx_fresh(x, "head_a"), *b = onnx_fresh(x, "head_b");
    onnx_nodes(x, "Split", ONNX_IN(onnx_of(x, n->in[IN_POSTERIOR_HEAD])), "axis=-1", ONNX_IN(a, b));
    switch (n->attr.i[ATTR_POSTERIOR_MAP]) {
    case POSTERIOR_DELTA:
        committed(x, &n->attr, &a, &b);
        break;
    case POSTERIOR_SLASHED:
        a = by(x, "Mul", a, sqrt(2));
        b = slashed_root(x, by(x, "Mul", b, sqrt(2)));
        break;
    default:
        b = unary(x, "Log", by(x, "Add", unary(x, "Exp", b), n->attr.f[ATTR_POSTERIOR_REAL]));
    }
    onnx_set(x, n->out[OUT_POSTERIOR_STATS], onnx_node(x, "Concat", ONNX_IN(a, b), "axis=-1"));
}

/* Returns a constant for each column. */
static const char *columns_of(struct onnx *x, const struct node *n, const char *what, const float *values)
{
    size_t width = graph_width(x->g, n->in[IN_NORMALIZE_X]);
    return onnx_weight(x, onnx_string(x, "%s.%s", n->name, what), ONNX_FLOAT, &width, 1, values);
}

/* Applies a gain or bias, which may be a computed value, to the first columns of t; the other columns are unchanged. */
static const char *with(struct onnx *x, const struct node *n, const char *op, const char *t, value own, double neutral)
{
    int64_t width = (int64_t)graph_width(x->g, n->in[IN_NORMALIZE_X]), groups = n->attr.i[ATTR_NORMALIZE_GROUPS];
    if (!own.index) return t;
    if (groups != n->attr.i[ATTR_NORMALIZE_COLUMNS]) onnx_fail(x, "normalization with gains of groups of columns");
    const char *row = ONNX_RESHAPE(x, onnx_of(x, own), 1, groups);
    if (groups < width) {
        const char *rest =
            onnx_node(x, "Expand", ONNX_IN(onnx_real(x, neutral), ONNX_INTEGERS(x, 1, width - groups)), NULL);
        row = onnx_node(x, "Concat", ONNX_IN(row, rest), "axis=1");
    }
    return binary(x, op, t, row);
}

/* (x - mean) level / sqrt(q + epsilon) with constant running statistics; then gain and bias. */
static const char *by_columns(struct onnx *x, const struct node *n, const char *t)
{
    size_t width = graph_width(x->g, n->in[IN_NORMALIZE_X]), groups = (size_t)n->attr.i[ATTR_NORMALIZE_GROUPS],
           columns = (size_t)n->attr.i[ATTR_NORMALIZE_COLUMNS];
    const float *running = onnx_host(x, n->in[IN_NORMALIZE_RUNNING]);
    float *scale = calloc(2 * width, sizeof *scale), *mean = scale + width;
    if (!running || !scale) {
        free(scale);
        onnx_fail(x, "normalization without running statistics");
        return "";
    }
    for (size_t i = 0; i < width; i++) {
        double q = (double)running[groups + i % groups] + n->attr.f[ATTR_NORMALIZE_EPSILON];
        scale[i] = i < columns ? (float)(n->attr.f[ATTR_NORMALIZE_LEVEL] * (q > 0 ? 1 / sqrt(q) : 0)) : 1;
        if (i < columns && n->attr.i[ATTR_NORMALIZE_CENTER]) mean[i] = running[i % groups];
    }
    t = binary(x, "Sub", t, columns_of(x, n, "mean", mean));
    t = binary(x, "Mul", t, columns_of(x, n, "scale", scale));
    free(scale);
    return with(x, n, "Add", with(x, n, "Mul", t, n->in[IN_NORMALIZE_GAIN], 1), n->in[IN_NORMALIZE_BIAS], 0);
}

/* Scales each row to the length `level`. */
static const char *by_rows(struct onnx *x, const struct node *n, const char *t)
{
    if ((size_t)n->attr.i[ATTR_NORMALIZE_COLUMNS] != graph_width(x->g, n->in[IN_NORMALIZE_X]) ||
        n->in[IN_NORMALIZE_GAIN].index || n->in[IN_NORMALIZE_BIAS].index) {
        onnx_fail(x, "normalization of some columns of a row");
        return "";
    }
    const char *square = onnx_node(x, "ReduceSum", ONNX_IN(binary(x, "Mul", t, t), ONNX_INTEGERS(x, -1)), "keepdims=1");
    square = by(x, "Max", by(x, "Add", square, n->attr.f[ATTR_NORMALIZE_EPSILON]), 1e-30);
    return by(x, "Mul", binary(x, "Div", t, unary(x, "Sqrt", square)), n->attr.f[ATTR_NORMALIZE_LEVEL]);
}

void onnx_normalize(struct onnx *x, const struct node *n)
{
    const char *t = onnx_of(x, n->in[IN_NORMALIZE_X]);
    bool rows = n->attr.i[ATTR_NORMALIZE_SCOPE] == NORMALIZE_ROWS;
    onnx_set(x, n->out[OUT_NORMALIZE_Y], rows ? by_rows(x, n, t) : by_columns(x, n, t));
}
