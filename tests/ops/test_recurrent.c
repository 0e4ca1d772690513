/* recurrent: LSTM and GRU layers over ragged sentences, in one and two directions, with and without an initial state
 * and a sentence's own addend. Also the same layers one token at a time, with rows that continue other rows. */
#include "ops/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELL, DIRECTIONS, UNITS, GIVEN }; /* options */
enum { OWN = 1, INITIAL = 2 };           /* bits of GIVEN */
enum { MOST_UNITS = 64 };

static struct recurrent_config config_of(const struct trial *t)
{
    return (struct recurrent_config){(enum recurrent_cell)t->option[CELL], (size_t)t->option[DIRECTIONS]};
}

/* Index of each optional operand behind x and w. */
struct operands {
    size_t b, own, initial, count; /* 0: not given */
};

static struct operands operands_of(const struct trial *t)
{
    struct operands o = {.count = 2};
    if (t->option[CELL] == RECURRENT_GRU) o.b = o.count++;
    if (t->option[GIVEN] & OWN) o.own = o.count++;
    if (t->option[GIVEN] & INITIAL) o.initial = o.count++;
    return o;
}

static void record(struct graph *g, const struct trial *t, const value *in, value *out)
{
    struct operands o = operands_of(t);
    struct recurrent_config c = config_of(t);
    struct recurrent_inputs all = {.x = in[0],
                                   .w = in[1],
                                   .b = o.b ? in[o.b] : NO_VALUE,
                                   .own = o.own ? in[o.own] : NO_VALUE,
                                   .initial = o.initial ? in[o.initial] : NO_VALUE};
    out[0] = op_recurrent(g, &all, harness_input(g, "offsets"), &c);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Updates h and c (H) by one step of one sentence in one direction. x and own hold the gates' columns; own may be
 * null. */
static void cell(bool gru, size_t units, double *h, double *c, const double *x, const double *own, const double *w,
                 const double *b)
{
    double sums[4][MOST_UNITS];
    size_t gates = gru ? 3 : 4;
    for (size_t g = 0; g < gates; g++)
        for (size_t u = 0; u < units; u++) {
            double s = gru ? b[g * units + u] : 0;
            for (size_t k = 0; k < units; k++) s += w[(g * units + u) * units + k] * h[k];
            double v = x[g * units + u] + (own ? own[g * units + u] : 0);
            sums[g][u] = gru && g == 2 ? s : s + v;
            if (gru && g == 2) sums[3][u] = v;
        }
    for (size_t u = 0; u < units; u++) {
        if (gru) {
            double r = sigmoid(sums[0][u]), z = sigmoid(sums[1][u]), n = tanh(sums[3][u] + r * sums[2][u]);
            h[u] = (1 - z) * n + z * h[u];
        } else {
            c[u] = sigmoid(sums[1][u]) * c[u] + sigmoid(sums[0][u]) * tanh(sums[2][u]);
            h[u] = sigmoid(sums[3][u]) * tanh(c[u]);
        }
    }
}

static void reference(const struct trial *t, double *const *in, double *const *out)
{
    struct operands o = operands_of(t);
    bool gru = t->option[CELL] == RECURRENT_GRU;
    size_t units = (size_t)t->option[UNITS], directions = (size_t)t->option[DIRECTIONS], gates = gru ? 3 : 4;
    size_t all = directions * units, width = gates * all;
    for (size_t s = 0; s < t->batch->sentences; s++)
        for (size_t d = 0; d < directions; d++) {
            double h[MOST_UNITS] = {0}, c[MOST_UNITS] = {0};
            size_t first = (size_t)t->batch->offsets[s], length = (size_t)t->batch->offsets[s + 1] - first;
            const double *initial = o.initial ? in[o.initial] + s * (gru ? 1 : 2) * all + d * units : NULL;
            for (size_t u = 0; u < units && initial; u++) h[u] = initial[u];
            for (size_t u = 0; u < units && initial && !gru; u++) c[u] = initial[all + u];
            for (size_t i = 0; i < length; i++) {
                size_t row = first + (d ? length - 1 - i : i), gate = d * gates * units;
                cell(gru, units, h, c, in[0] + row * width + gate, o.own ? in[o.own] + s * width + gate : NULL,
                     in[1] + gate * units, o.b ? in[o.b] + gate : NULL);
                memcpy(out[0] + row * all + d * units, h, units * sizeof *h);
            }
        }
}

static void try(const struct ragged *lengths, enum recurrent_cell cell_kind, size_t directions, size_t units,
                long given, size_t tail)
{
    char name[128];
    struct batch *b = batch_of(lengths);
    bool gru = cell_kind == RECURRENT_GRU;
    size_t width = directions * (gru ? 3 : 4) * units;
    snprintf(name, sizeof name, "%s, %zu directions of %zu, %zu sentences, %zu tokens%s%s", gru ? "gru" : "lstm",
             directions, units, b->sentences, b->tokens, given & OWN ? ", own" : "",
             given & INITIAL ? ", initial" : "");
    struct trial t = {.name = name,
                      .batch = b,
                      .tail = tail,
                      .record = record,
                      .reference = reference,
                      .option = {cell_kind, (long)directions, (long)units, given}};
    struct operands o = operands_of(&t);
    double scale = 1 / sqrt((double)units);
    t.inputs = o.count;
    t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, width, 0, 1};
    t.in[1] = (struct operand){DIM_FIXED, width, units, 0, scale};
    if (o.b) t.in[o.b] = (struct operand){DIM_FIXED, width, 0, 0, 0.5};
    if (o.own) t.in[o.own] = (struct operand){DIM_SENTENCES, b->sentences, width, 0, 0.5};
    if (o.initial)
        t.in[o.initial] = (struct operand){DIM_SENTENCES, b->sentences, (gru ? 1 : 2) * directions * units, 0, 0.5};
    harness_try(&t);
    free(b);
}

static void every(enum recurrent_cell kind)
{
    static const size_t units[] = {1, 3, 4, 7, 2};
    for (size_t i = 0; i < harness_ragged_count; i++)
        try(&harness_ragged[i], kind, 1 + i % 2, units[i % 5], (long)(i / 2 % 4), i % 4 * 9);
    for (size_t directions = 1; directions <= 2; directions++)
        for (long given = 0; given < 4; given++) {
            try(&(struct ragged){3, {2, 5, 1}}, kind, directions, 3, given, 5);
            try(&(struct ragged){4, {0, 3, 0, 1}}, kind, directions, 2, given, 0);
        }
}

static void lstm(void **state)
{
    (void)state;
    every(RECURRENT_LSTM);
}

static void gru(void **state)
{
    (void)state;
    every(RECURRENT_GRU);
}

/* Covers the edges of panels and of blocks of rows: more units than a panel, more sentences than a block, and enough
 * sentences that threads take groups. */
static void wide(void **state)
{
    (void)state;
    static const struct ragged many = {12, {3, 1, 2, 3, 3, 1, 2, 3, 2, 3, 1, 3}};
    for (int kind = RECURRENT_LSTM; kind <= RECURRENT_GRU; kind++)
        for (size_t directions = 1; directions <= 2; directions++)
            try(&(struct ragged){2, {2, 1}}, (enum recurrent_cell)kind, directions, directions == 1 ? 37 : 18, INITIAL,
                3);
    try(&many, RECURRENT_LSTM, 1, 17, OWN, 0);
    try(&many, RECURRENT_GRU, 2, 5, OWN, 7);
}

/* ---- a token at a time ---- */

enum { ROOM = 9, SENTENCES = 4, STEP_UNITS = 21 };

struct layer {
    bool gru;
    size_t units, width, states; /* H, G H, 1 or 2 */
    const float *x, *w, *b, *own, *initial;
};

static value fixed(struct graph *g, const char *name, size_t rows, size_t columns)
{
    return graph_input(g, name, DTYPE_F32, columns ? 2 : 1, (struct dim[]){{DIM_FIXED, rows}, {DIM_FIXED, columns}});
}

static void bind(struct executor *e, const char *name, const void *data)
{
    value v = graph_input_named(e->graph, name);
    if (v.index) e->inputs[graph_value(e->graph, v)->binding] = data;
}

static struct recurrent_inputs inputs_of(struct graph *g, const struct layer *l, enum dim_kind rows,
                                         enum dim_kind sentences)
{
    struct recurrent_inputs in = {.w = fixed(g, "w", l->width, l->units)};
    struct dim columns = {DIM_FIXED, l->width}, states = {DIM_FIXED, l->states * l->units};
    in.x = graph_input(g, "x", DTYPE_F32, 2, (struct dim[]){{rows, 0}, columns});
    if (l->gru) in.b = fixed(g, "b", l->width, 0);
    in.own = graph_input(g, "own", DTYPE_F32, 2, (struct dim[]){{sentences, 0}, columns});
    in.initial = graph_input(g, "initial", DTYPE_F32, 2, (struct dim[]){{sentences, 0}, states});
    return in;
}

static void packed(float *out, const struct layer *l, const struct batch *b, struct backend *backend)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{0, 0, b->tokens, b->sentences, b->sentences}};
    assert_int_equal(graph_create(&g, "packed", NULL, &capacities, &error), ELBO_OK);
    struct recurrent_inputs in = inputs_of(g, l, DIM_DEC_TOKENS, DIM_SENTENCES);
    struct recurrent_config c = {l->gru ? RECURRENT_GRU : RECURRENT_LSTM, 1};
    value y = op_recurrent(g, &in, harness_input(g, "offsets"), &c);
    graph_keep(g, y);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes);
    assert_int_equal(backend->memory.reserve(backend, e.workspace_worker, &error), ELBO_OK);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    bind(&e, "x", l->x);
    bind(&e, "w", l->w);
    bind(&e, "b", l->b);
    bind(&e, "own", l->own);
    bind(&e, "initial", l->initial);
    bind(&e, "offsets", b->offsets);
    struct execution run = {.count = {0, 0, b->tokens, b->sentences, b->sentences}};
    harness_run(&e, &run);
    memcpy(out, executor_pointer(&e, y), b->tokens * l->units * sizeof *out);
    free(arena);
    executor_free(&e);
    graph_free(g);
}

static void one_by_one(float *out, const struct layer *l, const struct batch *b, bool moving, struct backend *backend)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{[DIM_DRAWS] = SENTENCES + 1}};
    struct dim n = {DIM_DRAWS, 0};
    assert_int_equal(graph_create(&g, "steps", NULL, &capacities, &error), ELBO_OK);
    struct recurrent_inputs in = inputs_of(g, l, DIM_DRAWS, DIM_DRAWS);
    struct recurrent_config c = {l->gru ? RECURRENT_GRU : RECURRENT_LSTM, 1};
    value position = graph_input(g, "position", DTYPE_I32, 1, &n), history = NO_VALUE;
    size_t state_width = l->states * l->units;
    value state = graph_state(g, "state", DTYPE_F32, 3, (struct dim[]){n, {DIM_FIXED, 2}, {DIM_FIXED, state_width}});
    if (moving) history = graph_input(g, "history", DTYPE_I32, 2, (struct dim[]){n, {DIM_FIXED, ROOM}});
    value y = op_recurrent_step(g, &in, position, history, state, &c);
    graph_keep(g, y);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes),
         *states[] = {harness_memory((SENTENCES + 1) * 2 * state_width * sizeof(float))};
    assert_int_equal(backend->memory.reserve(backend, e.workspace_worker, &error), ELBO_OK);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, states, &error), ELBO_OK);
    float *x = harness_memory(SENTENCES * l->width * sizeof *x),
          *own = harness_memory(SENTENCES * l->width * sizeof *x),
          *initial = harness_memory(SENTENCES * state_width * sizeof *x);
    int32_t at[SENTENCES], from[SENTENCES][ROOM];
    bind(&e, "x", x);
    bind(&e, "w", l->w);
    bind(&e, "b", l->b);
    bind(&e, "own", own);
    bind(&e, "initial", initial);
    bind(&e, "position", at);
    bind(&e, "history", from);
    for (size_t t = 0; t < ROOM; t++) {
        for (size_t r = 0; r < SENTENCES; r++) {
            size_t i = moving ? (r + t) % SENTENCES : r, length = (size_t)(b->offsets[i + 1] - b->offsets[i]);
            at[r] = (int32_t)t;
            for (size_t j = 0; j < ROOM; j++) from[r][j] = (int32_t)((i + SENTENCES * ROOM - j) % SENTENCES);
            size_t row = (size_t)b->offsets[i] + (t < length ? t : length - 1);
            memcpy(x + r * l->width, l->x + row * l->width, l->width * sizeof *x);
            memcpy(own + r * l->width, l->own + i * l->width, l->width * sizeof *x);
            memcpy(initial + r * state_width, l->initial + i * state_width, state_width * sizeof *x);
        }
        struct execution run = {.count = {[DIM_DRAWS] = SENTENCES}};
        harness_run(&e, &run);
        const float *now = executor_pointer(&e, y);
        for (size_t r = 0; r < SENTENCES; r++) {
            size_t i = moving ? (r + t) % SENTENCES : r;
            if (b->offsets[i] + (int32_t)t >= b->offsets[i + 1]) continue;
            memcpy(out + ((size_t)b->offsets[i] + t) * l->units, now + r * l->units, l->units * sizeof *out);
        }
    }
    free(x);
    free(own);
    free(initial);
    free(arena);
    free(states[0]);
    executor_free(&e);
    graph_free(g);
}

static void steps_equal_packed(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    struct batch *b = batch_of(&(struct ragged){SENTENCES, {7, 1, ROOM, 4}});
    for (int gru = 0; gru < 2; gru++) {
        struct layer l = {.gru = gru, .units = STEP_UNITS, .width = (gru ? 3 : 4) * STEP_UNITS, .states = gru ? 1 : 2};
        size_t sizes[] = {b->tokens * l.width, l.width * l.units, l.width, SENTENCES * l.width,
                          SENTENCES * l.states * l.units},
               n = 0, outs = b->tokens * l.units;
        for (int k = 0; k < 5; k++) n += sizes[k];
        double *wide_values = calloc(n + outs, sizeof *wide_values);
        float *values = calloc(n, sizeof *values), *a = calloc(outs, sizeof *a), *c = calloc(outs, sizeof *c);
        harness_normal(wide_values, n, 0, 0.4, (uint64_t)gru + 3);
        for (size_t k = 0; k < n; k++) values[k] = (float)wide_values[k];
        l.x = values;
        l.w = l.x + sizes[0];
        l.b = l.w + sizes[1];
        l.own = l.b + sizes[2];
        l.initial = l.own + sizes[3];
        for (size_t d = 0; d < harness_devices; d++) {
            char what[96];
            snprintf(what, sizeof what, "%s a token at a time, %s, %zu threads", gru ? "gru" : "lstm",
                     harness_device[d].variant, harness_device[d].threads);
            one_by_one(c, &l, b, true, harness_device[d].backend);
            memcpy(a, c, outs * sizeof *a);
            one_by_one(c, &l, b, false, harness_device[d].backend);
            assert_memory_equal(a, c, outs * sizeof *a); /* the place of the state changes nothing */
            packed(a, &l, b, harness_device[d].backend);
            for (size_t k = 0; k < outs; k++) wide_values[k] = a[k];
            harness_close_to(what, harness_error_f32(c, wide_values, outs, 0), TOLERANCE_CACHED);
        }
        free(wide_values);
        free(values);
        free(a);
        free(c);
    }
    free(b);
}

/* ---- refused recordings ---- */

static void record_refused(struct graph *g, size_t i)
{
    struct dim s = {DIM_SENTENCES, 0};
    size_t directions = i == 5 ? 2 : 1;
    struct recurrent_inputs in = {
        .x = graph_input(g, "x", DTYPE_F32, 2,
                         (struct dim[]){{DIM_DEC_TOKENS, 0}, {DIM_FIXED, directions * (i == 0 ? 11 : 12)}}),
        .w = fixed(g, "w", directions * (i == 1 ? 13 : 12), 3)};
    struct recurrent_config c = {RECURRENT_LSTM, i == 3 ? 3 : directions};
    if (i == 2) in.b = fixed(g, "b", 12, 0);
    if (i == 4) in.initial = graph_input(g, "initial", DTYPE_F32, 2, (struct dim[]){s, {DIM_FIXED, 5}});
    if (i == 5)
        op_recurrent_step(g, &in, NO_VALUE, NO_VALUE, NO_VALUE, &c);
    else
        op_recurrent(g, &in, harness_input(g, "offsets"), &c);
}

static void refused(void **state)
{
    (void)state;
    static const char *const words[] = {
        "width 11, expected 12",   "of 13 rows", "hidden bias", "directions", "initial state has width 5",
        "a step has one direction"};
    harness_refuses(record_refused, words, sizeof words / sizeof *words);
}

HARNESS_MAIN(FAMILY_RECURRENT, cmocka_unit_test(lstm), cmocka_unit_test(gru), cmocka_unit_test(wide),
             cmocka_unit_test(steps_equal_packed), cmocka_unit_test(refused))
