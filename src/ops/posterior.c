/* The ops that compute a posterior's statistics mu | logvar (S, 2Z) from a head's output (S, 2Z): maps of each
 * dimension, normalization by statistics of a batch, and the running statistics that replace these outside of training.
 *
 *   delta     m | b:  sigma = l + (u - l) / (1 + exp(-b)),  mu = sqrt(2 delta + 1 + log sigma^2 - sigma^2 + max(0, m))
 *             l < u: the roots of log sigma^2 - sigma^2 + 2 delta + 1;   KL = delta + max(0, m) / 2
 *   slashed   a | b:  mu = sqrt 2 a,  logvar = r(sqrt 2 b): the root of exp(r) - r - 1 = x^2 with the sign of x
 *             KL = a^2 + b^2;   dr/dx = 2x / (exp(r) - 1), sqrt 2 at 0
 *   floor     mu | logvar -> mu | log(floor + drop(exp(logvar))) */
#include "ops/ops.h"
#include "graph/autodiff.h"

#include <math.h>

/* ---- maps ---- */

/* Returns the square root (sigma) of the root of ln x - x + 2 delta + 1 below (or above) 1, by Newton's method in r =
 * ln x. */
static double committed(double delta, bool above)
{
    double x2 = 2 * delta, r = above ? sqrt(2 * x2) : -sqrt(2 * x2) - x2; /* exp(r) - r - 1 = 2 delta */
    for (int i = 0; i < 60; i++) r -= (exp(r) - r - 1 - x2) / (exp(r) - 1);
    return exp(r / 2);
}

void posterior_bounds(double bounds[2], double delta)
{
    bounds[0] = committed(delta, false);
    bounds[1] = committed(delta, true);
}

value op_posterior(struct graph *g, value head, enum posterior_map map, double real, double p, value sample,
                   value switches, size_t index)
{
    size_t width = graph_width(g, head);
    if (width % 2 || !width || graph_value(g, head)->rank != 2 || graph_value(g, head)->dtype != DTYPE_F32)
        return graph_fail(g, "posterior: the head's output is not (S, 2 Z) f32");
    if (map == POSTERIOR_DELTA && !(real > 0))
        return graph_fail(g, "posterior: a committed rate of %g nats is not above 0", real);
    if (p > 0 && !sample.index) return graph_fail(g, "posterior: dropout without the samples' numbers");
    struct node *n = graph_node(g, &op_posterior_type);
    if (!n) return NO_VALUE;
    n->attr.i[ATTR_POSTERIOR_MAP] = map;
    n->attr.i[ATTR_POSTERIOR_SWITCH] = (int64_t)index;
    n->attr.f[ATTR_POSTERIOR_REAL] = real;
    n->attr.f[ATTR_POSTERIOR_DROP] = p;
    if (map == POSTERIOR_DELTA) posterior_bounds(&n->attr.f[ATTR_POSTERIOR_LEAST], real);
    n->attr.purpose = graph_purpose(g, "dropout");
    node_in(g, n, IN_POSTERIOR_HEAD, head);
    node_in(g, n, IN_POSTERIOR_SAMPLE, p > 0 ? sample : NO_VALUE);
    node_in(g, n, IN_POSTERIOR_SWITCHES, p > 0 ? switches : NO_VALUE);
    return node_out(g, n, OUT_POSTERIOR_STATS, "stats", DTYPE_F32, 2,
                    (struct dim[]){op_rows(g, head), {DIM_FIXED, width}});
}

static void gradient_posterior(struct autodiff *ad, const struct node *n)
{
    value head = n->in[IN_POSTERIOR_HEAD];
    autodiff_emit(ad, &op_posterior_backward_type, n, READS(IN_POSTERIOR_BACKWARD_HEAD, head),
                  TAKES(IN_POSTERIOR_BACKWARD_SAMPLE, n->in[IN_POSTERIOR_SAMPLE]),
                  TAKES(IN_POSTERIOR_BACKWARD_SWITCHES, n->in[IN_POSTERIOR_SWITCHES]),
                  TAKES(IN_POSTERIOR_BACKWARD_DSTATS, autodiff_output(ad, n, OUT_POSTERIOR_STATS)),
                  GIVES(OUT_POSTERIOR_BACKWARD_DHEAD, head));
}

/* ---- normalization ----
 *
 * Normalization of group k: one column or several over all rows, or one row. With m the mean over the rows (0 if not
 * centered), q the mean over the rows of the group's sum of (x - m)^2, and h = (x - m) / sqrt(q + epsilon):
 *
 *   y = level gain_k h + bias_k
 *   dx = level (t - mean t - h mean(t h)) / sqrt(q + epsilon),  t = gain_k dy; means over the rows of the group's sums,
 *        "mean t" only if centered;   dgain_k = level sum dy h;   dbias_k = sum dy
 *
 * With running statistics m and q are constants, and dx = level t / sqrt(q + epsilon). */
struct normalized op_normalize(struct graph *g, value x, value running, value gain, value bias,
                               const struct normalization *c)
{
    struct normalized out = {NO_VALUE, NO_VALUE};
    const struct value_info *info = graph_value(g, x);
    size_t width = graph_width(g, x);
    bool rows = c->scope == NORMALIZE_ROWS;
    if (info->rank != 2 || info->dtype != DTYPE_F32 || c->columns > width || !c->groups || c->columns % c->groups ||
        (c->center && c->columns != c->groups) || (rows && (c->groups != 1 || c->center))) {
        graph_fail(g, "normalize: %zu of %zu columns in %zu groups", c->columns, width, c->groups);
        return out;
    }
    if ((running.index && graph_width(g, running) != c->groups) || (!running.index && !rows) ||
        (gain.index && graph_width(g, gain) != c->groups) || (bias.index && graph_width(g, bias) != c->groups)) {
        graph_fail(g, "normalize: the statistics, gains or biases are not of %zu groups", c->groups);
        return out;
    }
    struct node *n = graph_node(g, &op_normalize_type);
    if (!n) return out;
    n->attr.i[ATTR_NORMALIZE_SCOPE] = c->scope;
    n->attr.i[ATTR_NORMALIZE_GROUPS] = (int64_t)c->groups;
    n->attr.i[ATTR_NORMALIZE_COLUMNS] = (int64_t)c->columns;
    n->attr.i[ATTR_NORMALIZE_CENTER] = c->center;
    n->attr.i[ATTR_NORMALIZE_BATCH] = c->batch;
    n->attr.i[ATTR_NORMALIZE_ROWS] = op_rows(g, x).kind;
    n->attr.f[ATTR_NORMALIZE_LEVEL] = c->level;
    n->attr.f[ATTR_NORMALIZE_EPSILON] = c->epsilon;
    node_in(g, n, IN_NORMALIZE_X, x);
    node_in(g, n, IN_NORMALIZE_RUNNING, running);
    node_in(g, n, IN_NORMALIZE_GAIN, gain);
    node_in(g, n, IN_NORMALIZE_BIAS, bias);
    out.y =
        node_out(g, n, OUT_NORMALIZE_Y, "normalized", DTYPE_F32, 2, (struct dim[]){op_rows(g, x), {DIM_FIXED, width}});
    if (rows) return out;
    node_out(g, n, OUT_NORMALIZE_USED, "used", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 2 * c->groups + 1}});
    if (c->batch)
        out.sums =
            node_out(g, n, OUT_NORMALIZE_SUMS, "sums", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 2 * c->groups + 1}});
    return out;
}

static void gradient_normalize(struct autodiff *ad, const struct node *n)
{
    value x = n->in[IN_NORMALIZE_X], gain = n->in[IN_NORMALIZE_GAIN];
    autodiff_emit(
        ad, &op_normalize_backward_type, n, READS(IN_NORMALIZE_BACKWARD_X, x),
        READS(IN_NORMALIZE_BACKWARD_USED, n->out[OUT_NORMALIZE_USED]), READS(IN_NORMALIZE_BACKWARD_GAIN, gain),
        TAKES(IN_NORMALIZE_BACKWARD_DY, autodiff_output(ad, n, OUT_NORMALIZE_Y)), GIVES(OUT_NORMALIZE_BACKWARD_DX, x),
        GIVES(OUT_NORMALIZE_BACKWARD_DGAIN, gain), GIVES(OUT_NORMALIZE_BACKWARD_DBIAS, n->in[IN_NORMALIZE_BIAS]));
}

void op_running(struct graph *g, value running, value sums, value control, bool center, double share)
{
    size_t groups = graph_width(g, running);
    if (graph_value(g, running)->rank != 2 || graph_width(g, sums) != 2 * groups + 1) {
        graph_fail(g, "running statistics: sums of %zu for %zu groups", graph_width(g, sums), groups);
        return;
    }
    struct node *n = graph_node(g, &op_running_type);
    if (!n) return;
    n->attr.i[ATTR_RUNNING_CENTER] = center;
    n->attr.f[ATTR_RUNNING_SHARE] = share;
    node_in(g, n, IN_RUNNING_SUMS, sums);
    node_in(g, n, IN_RUNNING_CONTROL, control);
    node_out_into(g, n, OUT_RUNNING_STATISTICS, running, WRITE_UPDATE);
}

const struct op_type op_posterior_type = {
    .name = "posterior", .index = OP_posterior, .cheap = true, .gradient = gradient_posterior};
const struct op_type op_posterior_backward_type = {
    .name = "posterior_backward", .index = OP_posterior_backward, .accumulates = SLOT(OUT_POSTERIOR_BACKWARD_DHEAD)};
const struct op_type op_normalize_type = {.name = "normalize", .index = OP_normalize, .gradient = gradient_normalize};
const struct op_type op_normalize_backward_type = {.name = "normalize_backward",
                                                   .index = OP_normalize_backward,
                                                   .accumulates = SLOT(OUT_NORMALIZE_BACKWARD_DX) |
                                                                  SLOT(OUT_NORMALIZE_BACKWARD_DGAIN) |
                                                                  SLOT(OUT_NORMALIZE_BACKWARD_DBIAS)};
const struct op_type op_running_type = {.name = "running", .index = OP_running};
