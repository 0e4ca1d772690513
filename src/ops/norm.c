/* Norm with fused dropout and residual: s = drop(x) + residual
 *   layer: y = (s - mean) rstd gamma + beta      rms: y = s rms^-1 gamma
 *
 *   stats (N, 2) mean | reciprocal deviation     dresidual = the norm's gradient + dsum, the gradient of s itself
 *   dx = drop(dresidual), by the same noise */
#include "graph/autodiff.h"
#include "ops/ops.h"

struct normed op_norm(struct graph *g, value x, const struct dropping *dropping, value residual, value gamma,
                      value beta, bool rms)
{
    struct normed none = {NO_VALUE, NO_VALUE};
    size_t width = graph_width(g, x);
    if (graph_width(g, gamma) != width || (residual.index && graph_width(g, residual) != width)) {
        graph_fail(g, "norm of width %zu has gamma or residual of another width", width);
        return none;
    }
    struct node *n = graph_node(g, &op_norm_type);
    if (!n) return none;
    n->attr.i[ATTR_NORM_RMS] = rms;
    node_in(g, n, IN_NORM_X, x);
    node_in(g, n, IN_NORM_RESIDUAL, residual);
    node_in(g, n, IN_NORM_GAMMA, gamma);
    node_in(g, n, IN_NORM_BETA, beta);
    if (residual.index && dropping && dropping->p > 0) {
        n->attr.f[ATTR_DROPOUT] = dropping->p;
        n->attr.purpose = dropping->purpose;
        node_in(g, n, IN_NORM_SENTENCE, dropping->rows.sentence);
        node_in(g, n, IN_NORM_POSITION, dropping->rows.position);
        node_in(g, n, IN_NORM_SAMPLE, dropping->rows.sample);
    }
    struct dim rows = op_rows(g, x), dim[] = {rows, {DIM_FIXED, width}};
    struct normed out = {.sum = x};
    out.y = node_out(g, n, OUT_NORM_Y, "norm", graph_value(g, x)->dtype, 2, dim);
    if (residual.index) out.sum = node_out(g, n, OUT_NORM_SUM, "residual", graph_value(g, x)->dtype, 2, dim);
    node_out(g, n, OUT_NORM_STATS, "norm.stats", DTYPE_F32, 2, (struct dim[]){rows, {DIM_FIXED, 2}});
    return out;
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    value x = n->in[IN_NORM_X], residual = n->in[IN_NORM_RESIDUAL], sum = residual.index ? n->out[OUT_NORM_SUM] : x;
    value gamma = n->in[IN_NORM_GAMMA], dy = autodiff_output(ad, n, OUT_NORM_Y);
    value dsum = residual.index ? autodiff_output(ad, n, OUT_NORM_SUM) : NO_VALUE;
    bool drops = n->attr.f[ATTR_DROPOUT] > 0;
    if (!dy.index) { /* only the sum has a reader */
        if (drops)
            autodiff_emit(ad, &op_dropout_type, n, TAKES(IN_DROPOUT_X, dsum),
                          TAKES(IN_DROPOUT_SENTENCE, n->in[IN_NORM_SENTENCE]),
                          TAKES(IN_DROPOUT_POSITION, n->in[IN_NORM_POSITION]),
                          TAKES(IN_DROPOUT_SAMPLE, n->in[IN_NORM_SAMPLE]), GIVES(OUT_DROPOUT_Y, x));
        else
            autodiff_pass(ad, x, dsum);
        autodiff_pass(ad, residual, dsum);
        return;
    }
    struct node *b =
        autodiff_emit(ad, &op_norm_backward_type, n, TAKES(IN_NORM_BACKWARD_DY, dy), TAKES(IN_NORM_BACKWARD_DSUM, dsum),
                      READS(IN_NORM_BACKWARD_SUM, sum), TAKES(IN_NORM_BACKWARD_GAMMA, gamma),
                      READS(IN_NORM_BACKWARD_STATS, n->out[OUT_NORM_STATS]), GIVES(OUT_NORM_BACKWARD_DGAMMA, gamma),
                      GIVES(OUT_NORM_BACKWARD_DBETA, n->in[IN_NORM_BETA]));
    if (!residual.index) {
        autodiff_write(ad, b, OUT_NORM_BACKWARD_DRESIDUAL, x);
        return;
    }
    if (drops) {
        node_in(g, b, IN_NORM_BACKWARD_SENTENCE, n->in[IN_NORM_SENTENCE]);
        node_in(g, b, IN_NORM_BACKWARD_POSITION, n->in[IN_NORM_POSITION]);
        node_in(g, b, IN_NORM_BACKWARD_SAMPLE, n->in[IN_NORM_SAMPLE]);
        autodiff_write(ad, b, OUT_NORM_BACKWARD_DX, x);
    }
    if (!autodiff_wants(ad, residual) && (drops || !autodiff_wants(ad, x))) return;
    const struct value_info info = *graph_value(g, sum);
    value d = node_out(g, b, OUT_NORM_BACKWARD_DRESIDUAL, "norm.dsum", info.dtype, info.rank, info.dim);
    if (!drops) autodiff_pass(ad, x, d);
    autodiff_pass(ad, residual, d);
}

/* Recomputes y and stats from the sum, if the sum is kept, to the same bits. */
static value recompute(struct autodiff *ad, const struct node *n, unsigned k)
{
    value sum = n->out[OUT_NORM_SUM];
    if (k == 1 || !sum.index || !autodiff_has(ad, sum)) return NO_VALUE;
    struct graph *g = autodiff_graph(ad);
    struct node *again = autodiff_node(ad, &op_norm_type, n);
    if (!again) return NO_VALUE;
    again->attr.f[ATTR_DROPOUT] = 0;
    node_in(g, again, IN_NORM_X, autodiff_read(ad, sum));
    node_in(g, again, IN_NORM_GAMMA, n->in[IN_NORM_GAMMA]);
    node_in(g, again, IN_NORM_BETA, n->in[IN_NORM_BETA]);
    for (unsigned o = 0; o < 3; o += 2) {
        const struct value_info info = *graph_value(g, n->out[o]);
        autodiff_again(ad, n->out[o], node_out(g, again, o, info.name, info.dtype, info.rank, info.dim));
    }
    return autodiff_read(ad, n->out[k]);
}

const struct op_type op_norm_type = {
    .name = "norm", .index = OP_norm, .cheap = true, .sums = true, .gradient = gradient, .recompute = recompute};
const struct op_type op_norm_backward_type = {.name = "norm_backward",
                                              .index = OP_norm_backward,
                                              .accumulates =
                                                  SLOT(OUT_NORM_BACKWARD_DRESIDUAL) | SLOT(OUT_NORM_BACKWARD_DGAMMA) |
                                                  SLOT(OUT_NORM_BACKWARD_DBETA) | SLOT(OUT_NORM_BACKWARD_DX)};
