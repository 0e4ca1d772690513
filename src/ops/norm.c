/* Norm with fused dropout and residual: s = drop(x) + residual
 *   layer: y = (s - mean) rstd gamma + beta      rms: y = s rms^-1 gamma
 *
 *   stats (N, 2) mean | reciprocal deviation     dresidual = norm's gradient + what arrives at `sum` itself
 *   dx = drop(dresidual), by the same noise                                                                       */
#include "graph/autodiff.h"
#include "ops/ops.h"

enum { SENTENCE = 4, POSITION, SAMPLE }; /* inputs of the norm; in its gradient each stands one further */

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
    node_in(g, n, 0, x);
    node_in(g, n, 1, residual);
    node_in(g, n, 2, gamma);
    node_in(g, n, 3, beta);
    if (residual.index && dropping && dropping->p > 0) {
        n->attr.f[ATTR_DROPOUT] = dropping->p;
        n->attr.purpose = dropping->purpose;
        node_in(g, n, SENTENCE, dropping->rows.sentence);
        node_in(g, n, POSITION, dropping->rows.position);
        node_in(g, n, SAMPLE, dropping->rows.sample);
    }
    struct dim rows = op_rows(g, x), dim[] = {rows, {DIM_FIXED, width}};
    struct normed out = {.sum = x};
    out.y = node_out(g, n, 0, "norm", graph_value(g, x)->dtype, 2, dim);
    if (residual.index) out.sum = node_out(g, n, 1, "residual", graph_value(g, x)->dtype, 2, dim);
    node_out(g, n, 2, "norm.stats", DTYPE_F32, 2, (struct dim[]){rows, {DIM_FIXED, 2}});
    return out;
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    value x = n->in[0], residual = n->in[1], sum = residual.index ? n->out[1] : x;
    value dy = autodiff_output(ad, n, 0), dsum = residual.index ? autodiff_output(ad, n, 1) : NO_VALUE;
    bool drops = n->attr.f[ATTR_DROPOUT] > 0;
    if (!dy.index) { /* only the sum is used */
        if (drops) {
            struct node *b = autodiff_node(ad, &op_dropout_type, n);
            node_in(g, b, 0, dsum);
            for (unsigned k = 0; k < 3; k++) node_in(g, b, 1 + k, n->in[SENTENCE + k]);
            autodiff_write(ad, b, 0, x);
        } else {
            autodiff_pass(ad, x, dsum);
        }
        autodiff_pass(ad, residual, dsum);
        return;
    }
    value read = autodiff_read(ad, sum), stats = autodiff_read(ad, n->out[2]);
    struct node *b = autodiff_node(ad, &op_norm_backward_type, n);
    node_in(g, b, 0, dy);
    node_in(g, b, 1, dsum);
    node_in(g, b, 2, read);
    node_in(g, b, 3, n->in[2]);
    node_in(g, b, 4, stats);
    autodiff_write(ad, b, 1, n->in[2]);
    autodiff_write(ad, b, 2, n->in[3]);
    if (!residual.index) {
        autodiff_write(ad, b, 0, x);
        return;
    }
    if (drops) {
        for (unsigned k = SENTENCE; k <= SAMPLE; k++) node_in(g, b, k + 1, n->in[k]);
        autodiff_write(ad, b, 3, x);
    }
    if (!autodiff_wants(ad, residual) && (drops || !autodiff_wants(ad, x))) return;
    const struct value_info info = *graph_value(g, sum);
    value d = node_out(g, b, 0, "norm.dsum", info.dtype, info.rank, info.dim);
    if (!drops) autodiff_pass(ad, x, d);
    autodiff_pass(ad, residual, d);
}

/* From the sum, where it is there: the same bits. */
static value recompute(struct autodiff *ad, const struct node *n, unsigned k)
{
    value sum = n->out[1];
    if (k == 1 || !sum.index || !autodiff_has(ad, sum)) return NO_VALUE;
    struct graph *g = autodiff_graph(ad);
    struct node *again = autodiff_node(ad, &op_norm_type, n);
    if (!again) return NO_VALUE;
    again->attr.f[ATTR_DROPOUT] = 0;
    node_in(g, again, 0, autodiff_read(ad, sum));
    node_in(g, again, 2, n->in[2]);
    node_in(g, again, 3, n->in[3]);
    for (unsigned o = 0; o < 3; o += 2) {
        const struct value_info info = *graph_value(g, n->out[o]);
        autodiff_again(ad, n->out[o], node_out(g, again, o, info.name, info.dtype, info.rank, info.dim));
    }
    return autodiff_read(ad, n->out[k]);
}

const struct op_type op_norm_type = {
    .name = "norm", .index = OP_norm, .cheap = true, .sums = true, .gradient = gradient, .recompute = recompute};
const struct op_type op_norm_backward_type = {.name = "norm_backward", .index = OP_norm_backward, .accumulates = 15};
