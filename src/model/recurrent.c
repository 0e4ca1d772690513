/* Recurrent stacks, LSTM and GRU, for the encoder and the decoder (docs/model.md).
 *
 *   x = token[ids]                                    of embedding_width, which may differ from the width
 *   x <- cell(x W^T + b, earlier h U^T)               a layer; two directions side by side have width / 2 units each
 *   x <- x + cell(...)                                from the second layer on, with `residual`
 *
 * z reaches a decoder as the first state of every layer (`init`: z W^T + b, through tanh with latent.init_tanh), next
 * to every input of the first layer (`concat`: W[x; z] = Wx x + Wz z, where Wz z has one row per sentence), or added to
 * every embedded token (`embedding`). */
#include "model/stack.h"

#include <math.h>
#include <stdio.h>

struct layers {
    struct recorder *r;
    const struct stack *stack;
    const struct stack_input *in;
    const value *state; /* (layers); null: packed rows */
    struct recurrent_config cell;
    size_t units, gates; /* H of a direction; gates of all directions */
};

static bool is_gru(const struct stack_config *c)
{
    return c->kind == STACK_GRU;
}

static size_t directions_of(const struct stack_config *c)
{
    return c->bidirectional ? 2 : 1;
}

/* Returns the number of state vectors: h, and an LSTM's c. */
static size_t vectors_of(const struct stack_config *c)
{
    return is_gru(c) ? 1 : 2;
}

static value weights(struct layers *l, size_t layer, const char *what, size_t rows, size_t columns, double std)
{
    return recorder_parameter(l->r, l->stack->part, init_normal(std), 2, rows, columns, "%s.%zu.%s.weight",
                              l->stack->name, layer, what);
}

static value bias(struct layers *l, size_t layer, const char *what, size_t rows)
{
    return recorder_parameter(l->r, l->stack->part, init_constant(0), 1, rows, 0, "%s.%zu.%s.bias", l->stack->name,
                              layer, what);
}

static value drop(struct layers *l, value x)
{
    const struct sequence *s = l->in->sequence;
    const struct token_rows rows = {s->sentence, s->position, s->sample};
    struct dropping d = op_dropping(l->r->g, &rows, l->r->training ? l->stack->config->dropout : 0, "dropout");
    return op_dropout(l->r->g, x, &d);
}

/* Returns the state h | c that z gives a layer. */
static value first_state(struct layers *l, size_t layer)
{
    if (!l->in->latent.index || !(l->in->injection & INJECT_INIT)) return NO_VALUE;
    size_t width = vectors_of(l->stack->config) * l->stack->config->width, z = l->r->config->latent.width;
    value w = weights(l, layer, "init", width, z, 1 / sqrt((double)z)), b = bias(l, layer, "init", width);
    value state = op_linear(l->r->g, l->in->latent, w, b);
    return l->r->config->latent.init_tanh ? op_tanh(l->r->g, state) : state;
}

static value layer(struct layers *l, value x, size_t number)
{
    struct graph *g = l->r->g;
    const struct stack_config *c = l->stack->config;
    /* the deviation of the uniform distribution in +-1 / sqrt(H), the usual initialization of recurrent cells */
    double std = 1 / sqrt(3.0 * (double)l->units);
    graph_scope(g, "%s.%zu.recurrent", l->stack->name, number);
    value w = weights(l, number, "input", l->gates, graph_width(g, x), number ? std : 1 / sqrt(3.0));
    struct recurrent_inputs in = {.x = op_linear(g, x, w, bias(l, number, "input", l->gates))};
    in.w = weights(l, number, "hidden", l->gates, l->units, std);
    if (is_gru(c)) in.b = bias(l, number, "hidden", l->gates);
    if (!number && l->in->latent.index && l->in->injection & INJECT_CONCAT)
        in.own = op_linear(g, l->in->latent,
                           weights(l, number, "latent", l->gates, l->r->config->latent.width,
                                   1 / sqrt(3.0 * (double)l->r->config->latent.width)),
                           NO_VALUE);
    in.initial = first_state(l, number);
    const struct sequence *s = l->in->sequence;
    value y = l->state ? op_recurrent_step(g, &in, s->position, s->history, l->state[number], &l->cell)
                       : op_recurrent(g, &in, s->offsets, &l->cell);
    y = drop(l, y);
    return c->residual && number ? op_add(g, y, x) : y;
}

static value record_layers(struct recorder *r, const struct stack *stack, const struct stack_input *in,
                           const value *state)
{
    const struct stack_config *c = stack->config;
    struct layers l = {.r = r,
                       .stack = stack,
                       .in = in,
                       .state = state,
                       .cell = {is_gru(c) ? RECURRENT_GRU : RECURRENT_LSTM, directions_of(c)},
                       .units = c->width / directions_of(c)};
    l.gates = (is_gru(c) ? 3 : 4) * c->width;
    value x = stack_add_embedded(r, in, stack_embed(r, stack, in->sequence));
    x = drop(&l, x);
    for (size_t number = 0; number < c->layers; number++) {
        graph_block(r->g, (int)(stack->part * 1000 + number));
        x = layer(&l, stack_skip(r, stack, in, x, (int)number), number);
    }
    graph_block(r->g, -1);
    return x;
}

/* ---- rows of the table ---- */

static elbo_status check(const char *section, const struct stack_config *c, elbo_error *error)
{
    if (!c->layers)
        return elbo_fail(error, ELBO_USAGE,
                         "%s.layers = 0 leaves a recurrent stack nothing to remember with; choose 1 "
                         "or more",
                         section);
    if (c->bidirectional && c->width % 2)
        return elbo_fail(error, ELBO_USAGE,
                         "%s.bidirectional gives each direction half of %s.width = %zu, which is odd; choose an even "
                         "width",
                         section, section, c->width);
    return ELBO_OK;
}

static value record(struct recorder *r, const struct stack *s, const struct stack_input *in)
{
    return record_layers(r, s, in, NULL);
}

static size_t states(const struct stack_config *c)
{
    return c->layers;
}

/* The state has two halves, for even and for odd positions, so that a beam's rows read one half while others write the
 * other. */
static value state(struct recorder *r, const struct stack *s, struct dim rows, size_t room, size_t layer)
{
    (void)room, (void)layer;
    return graph_state(r->g, "state", DTYPE_F32, 3,
                       (struct dim[]){rows, {DIM_FIXED, 2}, {DIM_FIXED, vectors_of(s->config) * s->config->width}});
}

static size_t embedding_width(const struct stack_config *c)
{
    return c->embedding_width ? c->embedding_width : c->width;
}

/* Token vectors begin with unit length, because no norm gives the first rows their scale. */
static double embedding_std(const struct stack_config *c)
{
    return 1 / sqrt((double)embedding_width(c));
}

/* Pools the last states of both directions. */
static enum pool_kind last(const struct stack_config *c)
{
    return c->bidirectional ? POOL_ENDS : POOL_LAST;
}

static size_t describe(struct stack_figure *figures, const struct stack_config *c)
{
    figures[0] = (struct stack_figure){"layers", c->layers};
    figures[1] = (struct stack_figure){"directions", directions_of(c)};
    figures[2] = (struct stack_figure){"embedding_width", embedding_width(c)};
    return 3;
}

static const char *const options[] = {"layers", "embedding_width", "bidirectional", "residual", "dropout", NULL};

#define RECURRENT                                                                                                      \
    .options = options, .embedding_width = embedding_width, .embedding_std = embedding_std, .last = last,              \
    .injections = INJECT_INIT | INJECT_CONCAT | INJECT_EMBEDDING, .both = INJECT_INIT | INJECT_CONCAT, .check = check, \
    .record = record, .states = states, .state = state, .reorder = stack_history, .step = record_layers,               \
    .describe = describe

const struct stack_kind lstm_kind = {.name = "lstm", RECURRENT};
const struct stack_kind gru_kind = {.name = "gru", RECURRENT};
