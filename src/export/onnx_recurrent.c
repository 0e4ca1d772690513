/* LSTM and GRU as ONNX's own operators. They multiply the layer's input themselves, so the recording's product in front
 * of the layer, and the one that adds z, become the operator's weights. ONNX orders the gates differently: input,
 * output, forget, cell; update, reset, new (with linear_before_reset, as PyTorch's). */
#include "export/onnx.h"
#include "ops/list.h"
#include "ops/ops.h"
#include "ops/recurrent.h"

#include <stdlib.h>
#include <string.h>

struct layer {
    struct onnx *x;
    bool gru;
    size_t gates, directions, units;
    const struct node *input, *own; /* products in front: y = x W^T + b; own may be null */
};

static const struct node *product(struct onnx *x, value v)
{
    uint32_t producer = v.index ? graph_value(x->g, v)->producer : 0;
    const struct node *n = producer ? graph_node_get(x->g, producer - 1) : NULL;
    if (n && n->type->index == OP_linear) return n;
    if (v.index) onnx_fail(x, "a recurrent layer reads what is no product");
    return NULL;
}

/* Copies blocks of rows into ONNX's order of gates: `columns` values into rows of `stride`, from column `at` on. */
static void place(const struct layer *l, float *to, const float *from, size_t columns, size_t stride, size_t at)
{
    static const size_t lstm[] = {0, 3, 1, 2}, gru[] = {1, 0, 2};
    const size_t *order = l->gru ? gru : lstm;
    if (!from) return;
    for (size_t d = 0; d < l->directions; d++)
        for (size_t k = 0; k < l->gates; k++)
            for (size_t i = 0; i < l->units; i++) {
                size_t row = (d * l->gates + order[k]) * l->units + i, out = (d * l->gates + k) * l->units + i;
                memcpy(to + out * stride + at, from + row * columns, columns * sizeof *to);
            }
}

static const char *weights(const struct layer *l, size_t layer, const char *what, float *values, size_t columns)
{
    const size_t shape[] = {l->directions, l->gates * l->units, columns};
    return onnx_weight(l->x, onnx_string(l->x, "%s.%zu.%s", l->x->decoder ? "decoder" : "encoder", layer, what),
                       ONNX_FLOAT, shape, 3, values);
}

/* Makes W, R and B of the operator. */
static void operands(const struct layer *l, const struct node *n, const char *out[3])
{
    struct onnx *x = l->x;
    size_t rows = l->directions * l->gates * l->units, read = graph_width(x->g, l->input->in[IN_LINEAR_X]),
           z = l->own ? graph_width(x->g, l->own->in[IN_LINEAR_X]) : 0;
    float *w = calloc(rows * (read + z), sizeof *w), *r = calloc(rows * l->units, sizeof *r),
          *b = calloc(2 * rows, sizeof *b), *part = calloc(rows, sizeof *part);
    if (!w || !r || !b || !part) {
        if (!x->status) x->status = elbo_fail(x->error, ELBO_MEMORY, "no memory for the weights of a recurrent layer");
    } else {
        size_t each = l->gates * l->units;
        place(l, w, onnx_host(x, l->input->in[IN_LINEAR_W]), read, read + z, 0);
        if (z) place(l, w, onnx_host(x, l->own->in[IN_LINEAR_W]), z, read + z, read);
        place(l, r, onnx_host(x, n->in[IN_RECURRENT_W]), l->units, l->units, 0);
        const value biases[] = {l->input->in[IN_LINEAR_B], n->in[IN_RECURRENT_B]};
        for (size_t k = 0; k < 2; k++) {
            memset(part, 0, rows * sizeof *part);
            place(l, part, onnx_host(x, biases[k]), 1, 1, 0);
            for (size_t d = 0; d < l->directions; d++)
                memcpy(b + (2 * d + k) * each, part + d * each, each * sizeof *b);
        }
        out[0] = weights(l, x->layers, "W", w, read + z);
        out[1] = weights(l, x->layers, "R", r, l->units);
        out[2] = onnx_weight(x, onnx_string(x, "%s.%zu.B", x->decoder ? "decoder" : "encoder", x->layers), ONNX_FLOAT,
                             (size_t[]){l->directions, 2 * each}, 2, b);
    }
    free(w);
    free(r);
    free(b);
    free(part);
}

/* Returns the layer's input, (time, batch, read (+ Z)). */
static const char *rows_of(const struct layer *l)
{
    struct onnx *x = l->x;
    const char *rows = onnx_of(x, l->input->in[IN_LINEAR_X]);
    if (l->own) {
        const char *size = onnx_node(
            x, "Concat",
            ONNX_IN(ONNX_INTEGERS(x, 1), onnx_unsqueeze(x, onnx_size(x, ONNX_IDS, 1), 0), ONNX_INTEGERS(x, 1)),
            "axis=0");
        const char *z =
            onnx_node(x, "Expand", ONNX_IN(onnx_unsqueeze(x, onnx_of(x, l->own->in[IN_LINEAR_X]), 1), size), NULL);
        rows = onnx_node(x, "Concat", ONNX_IN(rows, z), "axis=2");
    }
    return onnx_node(x, "Transpose", ONNX_IN(rows), "perm=[1,0,2]");
}

/* Returns one vector of a decoder's state: that of earlier calls, (1, batch, H), or the first one if their length is
 * 0. */
static const char *begun(const struct layer *l, const char *first, const char *what)
{
    struct onnx *x = l->x;
    const char *past = onnx_string(x, "past.%zu.%s", x->layers, what);
    onnx_input(x, past, ONNX_FLOAT, onnx_string(x, "begun,batch,%zu", l->units));
    if (!first) {
        const char *size = onnx_node(
            x, "Concat", ONNX_IN(onnx_unsqueeze(x, onnx_size(x, ONNX_IDS, 0), 0), ONNX_INTEGERS(x, (int64_t)l->units)),
            "axis=0");
        first = onnx_node(x, "Expand", ONNX_IN(onnx_real(x, 0), size), NULL);
    }
    const char *all = onnx_node(x, "Concat", ONNX_IN(past, onnx_unsqueeze(x, first, 0)), "axis=0");
    return onnx_node(x, "Slice", ONNX_IN(all, ONNX_INTEGERS(x, 0), ONNX_INTEGERS(x, 1), ONNX_INTEGERS(x, 0)), NULL);
}

static void decoder_state(const struct layer *l, const struct node *n, const char *state[2], const char *after[2])
{
    struct onnx *x = l->x;
    const char *first[2] = {NULL, NULL};
    if (n->in[IN_RECURRENT_INITIAL].index) {
        const char *both = onnx_of(x, n->in[IN_RECURRENT_INITIAL]);
        first[0] = both;
        if (!l->gru) {
            first[0] = onnx_fresh(x, "first_h");
            first[1] = onnx_fresh(x, "first_c");
            onnx_nodes(x, "Split", ONNX_IN(both), "axis=-1", ONNX_IN(first[0], first[1]));
        }
    }
    for (size_t i = 0; i < (l->gru ? 1 : 2); i++) {
        const char *what = i ? "c" : "h";
        state[i] = begun(l, first[i], what);
        after[i] = onnx_string(x, "present.%zu.%s", x->layers, what);
        onnx_output(x, after[i], ONNX_FLOAT, onnx_string(x, "1,batch,%zu", l->units));
    }
}

void onnx_recurrent(struct onnx *x, const struct node *n)
{
    struct layer l = {.x = x,
                      .gru = n->attr.i[RECURRENT_CELL] == RECURRENT_GRU,
                      .input = product(x, n->in[IN_RECURRENT_X]),
                      .own = product(x, n->in[IN_RECURRENT_OWN])};
    const char *operand[3] = {"", "", ""}, *state[2] = {"", ""}, *after[2] = {"", ""}, *lengths = "";
    l.directions = (size_t)n->attr.i[RECURRENT_DIRECTIONS];
    l.gates = recurrent_gates(l.gru);
    l.units = graph_width(x->g, n->out[OUT_RECURRENT_Y]) / l.directions;
    if (x->status) return;
    const char *rows = rows_of(&l); /* first, because it writes and counts the layers before */
    operands(&l, n, operand);
    if (x->decoder)
        decoder_state(&l, n, state, after);
    else
        lengths = onnx_node(x, "Cast",
                            ONNX_IN(onnx_node(x, "ReduceSum", ONNX_IN(ONNX_MASK, ONNX_INTEGERS(x, 1)), "keepdims=0")),
                            "to=6");
    const char *y = onnx_fresh(x, "recurrent");
    onnx_nodes(x, l.gru ? "GRU" : "LSTM",
               ONNX_IN(rows, operand[0], operand[1], operand[2], lengths, state[0], state[1]),
               onnx_string(x, "hidden_size=%zu;direction='%s'%s", l.units,
                           l.directions > 1 ? "bidirectional" : "forward", l.gru ? ";linear_before_reset=1" : ""),
               *after[1]   ? ONNX_IN(y, after[0], after[1])
               : *after[0] ? ONNX_IN(y, after[0])
                           : ONNX_IN(y));
    onnx_set(x, n->out[OUT_RECURRENT_Y],
             ONNX_RESHAPE(x, onnx_node(x, "Transpose", ONNX_IN(y), "perm=[2,0,1,3]"), 0, 0,
                          (int64_t)(l.directions * l.units)));
    x->layers++;
}
