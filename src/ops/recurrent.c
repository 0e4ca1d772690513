/* Recurrent layers over packed sentences, and one step of them for generation. H units in each direction; sigma is the
 * logistic function; x holds what the layer's input and the input bias add to the gates.
 *
 *   LSTM  i, f, g, o = x + h W^T;  c' = sigma(f) c + sigma(i) tanh(g);  h' = sigma(o) tanh(c')
 *   GRU   r, z, n of x and of s = h W^T + b:  r = sigma(xr + sr);  z = sigma(xz + sz);
 *         n = tanh(xn + r sn);  h' = (1 - z) n + z h
 * (Hochreiter and Schmidhuber 1997 with Gers et al. 2000's forget gate; Cho et al. 2014 as PyTorch and cuDNN write it.)
 *
 * A row keeps i, f, g, o after their nonlinearities and c, or r, z, n and sn. The backward pass walks the steps from
 * the last to the first: dh = dy + dgates W of the step behind it, and dW = dgates^T h over all rows at once. */
#include "ops/recurrent.h"
#include "graph/autodiff.h"
#include "ops/ops.h"

static bool is_gru(const struct recurrent_config *c)
{
    return c->cell == RECURRENT_GRU;
}

static void set(struct node *n, const struct recurrent_config *c)
{
    n->attr.i[RECURRENT_CELL] = c->cell;
    n->attr.i[RECURRENT_DIRECTIONS] = (int64_t)c->directions;
}

static bool wide(struct graph *g, value v, size_t width, const char *what)
{
    if (!v.index || graph_width(g, v) == width) return true;
    graph_fail(g, "recurrent: %s has width %zu, expected %zu", what, graph_width(g, v), width);
    return false;
}

/* Returns the units in each direction, or 0 if shapes disagree. */
static size_t units_of(struct graph *g, const struct recurrent_inputs *in, const struct recurrent_config *c)
{
    if (!in->x.index || !in->w.index) {
        graph_fail(g, "recurrent: x or the weights are missing");
        return 0;
    }
    size_t units = graph_width(g, in->w), all = c->directions * recurrent_gates(is_gru(c)) * units;
    bool fit = c->directions == 1 || c->directions == 2;
    if (!fit) graph_fail(g, "recurrent: %zu directions", c->directions);
    if (graph_value(g, in->w)->dim[0].size != all) {
        graph_fail(g, "recurrent: weights of %zu rows, expected %zu", graph_value(g, in->w)->dim[0].size, all);
        fit = false;
    }
    if (is_gru(c) != (in->b.index != 0)) {
        graph_fail(g, "recurrent: %s", is_gru(c) ? "a GRU needs its hidden bias" : "an LSTM has no hidden bias");
        fit = false;
    }
    fit = fit && wide(g, in->x, all, "x") && wide(g, in->b, all, "the hidden bias") && wide(g, in->own, all, "own") &&
          wide(g, in->initial, recurrent_states(is_gru(c)) * c->directions * units, "the initial state");
    return fit ? units : 0;
}

static struct node *record(struct graph *g, const struct op_type *type, const struct recurrent_inputs *in,
                           const struct recurrent_config *c)
{
    struct node *n = graph_node(g, type);
    if (!n) return NULL;
    set(n, c);
    node_in(g, n, IN_RECURRENT_X, in->x);
    node_in(g, n, IN_RECURRENT_W, in->w);
    node_in(g, n, IN_RECURRENT_B, in->b);
    node_in(g, n, IN_RECURRENT_OWN, in->own);
    node_in(g, n, IN_RECURRENT_INITIAL, in->initial);
    return n;
}

value op_recurrent(struct graph *g, const struct recurrent_inputs *in, value offsets, const struct recurrent_config *c)
{
    size_t units = units_of(g, in, c);
    struct node *n = units ? record(g, &op_recurrent_type, in, c) : NULL;
    if (!n) return NO_VALUE;
    node_in(g, n, IN_RECURRENT_OFFSETS, offsets);
    struct dim rows = op_rows(g, in->x);
    enum dtype type = graph_value(g, in->x)->dtype;
    value y =
        node_out(g, n, OUT_RECURRENT_Y, "recurrent", type, 2, (struct dim[]){rows, {DIM_FIXED, c->directions * units}});
    node_out(g, n, OUT_RECURRENT_GATES, "recurrent.gates", type, 2,
             (struct dim[]){rows, {DIM_FIXED, KEPT_GATES * c->directions * units}});
    if (!is_gru(c))
        node_out(g, n, OUT_RECURRENT_CELL, "recurrent.cell", DTYPE_F32, 2,
                 (struct dim[]){rows, {DIM_FIXED, c->directions * units}});
    return y;
}

value op_recurrent_step(struct graph *g, const struct recurrent_inputs *in, value position, value history, value state,
                        const struct recurrent_config *c)
{
    size_t units = units_of(g, in, c);
    if (units && c->directions != 1)
        return graph_fail(g, "recurrent: a step has one direction, because later tokens are not known");
    struct node *n = units ? record(g, &op_recurrent_step_type, in, c) : NULL;
    if (!n) return NO_VALUE;
    node_in(g, n, IN_RECURRENT_STEP_POSITION, position);
    node_in(g, n, IN_RECURRENT_STEP_HISTORY, history);
    node_out_into(g, n, OUT_RECURRENT_STEP_STATE, state, WRITE);
    return node_out(g, n, OUT_RECURRENT_STEP_Y, "recurrent", graph_value(g, in->x)->dtype, 2,
                    (struct dim[]){op_rows(g, in->x), {DIM_FIXED, units}});
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    value own = n->in[IN_RECURRENT_OWN], offsets = n->in[IN_RECURRENT_OFFSETS], initial = n->in[IN_RECURRENT_INITIAL];
    const struct value_info x = *graph_value(g, n->in[IN_RECURRENT_X]);
    struct node *b = autodiff_emit(
        ad, &op_recurrent_backward_type, n, TAKES(IN_RECURRENT_BACKWARD_DY, autodiff_output(ad, n, OUT_RECURRENT_Y)),
        TAKES(IN_RECURRENT_BACKWARD_W, n->in[IN_RECURRENT_W]), TAKES(IN_RECURRENT_BACKWARD_OFFSETS, offsets),
        READS(IN_RECURRENT_BACKWARD_INITIAL, initial), READS(IN_RECURRENT_BACKWARD_Y, n->out[OUT_RECURRENT_Y]),
        READS(IN_RECURRENT_BACKWARD_GATES, n->out[OUT_RECURRENT_GATES]),
        READS(IN_RECURRENT_BACKWARD_CELL, n->out[OUT_RECURRENT_CELL]));
    value dx = node_out(g, b, OUT_RECURRENT_BACKWARD_DX, "recurrent.dx", x.dtype, x.rank, x.dim);
    autodiff_write(ad, b, OUT_RECURRENT_BACKWARD_DINITIAL, initial);
    autodiff_write(ad, b, OUT_RECURRENT_BACKWARD_DW, n->in[IN_RECURRENT_W]);
    autodiff_write(ad, b, OUT_RECURRENT_BACKWARD_DB, n->in[IN_RECURRENT_B]);
    if (autodiff_wants(ad, own))
        autodiff_emit(ad, &op_segment_sum_type, n, TAKES(IN_SEGMENT_SUM_X, dx), TAKES(IN_SEGMENT_SUM_OFFSETS, offsets),
                      GIVES(OUT_SEGMENT_SUM_Y, own));
    autodiff_pass(ad, n->in[IN_RECURRENT_X], dx);
}

/* Counts the products of every row with the weights: one forward; two backward, with dgates and with h. */
static double flops(const struct shape_view *s, const struct attributes *a)
{
    (void)a;
    return 2.0 * (double)s->in[IN_RECURRENT_X][0] * (double)s->in[IN_RECURRENT_W][0] * (double)s->in[IN_RECURRENT_W][1];
}

static double flops_backward(const struct shape_view *s, const struct attributes *a)
{
    (void)a;
    return 4.0 * (double)s->in[IN_RECURRENT_BACKWARD_DY][0] * (double)s->in[IN_RECURRENT_BACKWARD_W][0] *
           (double)s->in[IN_RECURRENT_BACKWARD_W][1];
}

const struct op_type op_recurrent_type = {
    .name = "recurrent", .index = OP_recurrent, .gradient = gradient, .flops = flops};
const struct op_type op_recurrent_backward_type = {.name = "recurrent_backward",
                                                   .index = OP_recurrent_backward,
                                                   .accumulates = SLOT(OUT_RECURRENT_BACKWARD_DW) |
                                                                  SLOT(OUT_RECURRENT_BACKWARD_DB),
                                                   .flops = flops_backward};
const struct op_type op_recurrent_step_type = {.name = "recurrent_step", .index = OP_recurrent_step, .flops = flops};
