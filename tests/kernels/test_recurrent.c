/* recurrent.cu: one step of both cells in both directions, forward and backward, the gradient of the initial state, the
 * previous h of each row, and a step of generation, against double. Sentences are ragged, some are empty, and only
 * those that have the step may change. */
#include "kernels/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct context {
    struct sentences s;
    struct kernel_recurrent r;
    size_t room;
    int y, kept, cell, state, x, sums, b, own, initial, offsets, dx, dsums, ds, carried, dy, dh, dinitial, h;
    int position, history;
};

static int forward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return recurrent_forward_cuda(&(struct recurrent_forward_args){.y = at(t, c->y),
                                                                   .kept = at(t, c->kept),
                                                                   .cell = at(t, c->cell),
                                                                   .state = at(t, c->state),
                                                                   .x = at(t, c->x),
                                                                   .sums = at(t, c->sums),
                                                                   .b = at(t, c->b),
                                                                   .own = at(t, c->own),
                                                                   .initial = at(t, c->initial),
                                                                   .offsets = at(t, c->offsets),
                                                                   .step = &c->r,
                                                                   .type = t->type},
                                  NULL);
}

static int backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return recurrent_backward_cuda(&(struct recurrent_backward_args){.dx = at(t, c->dx),
                                                                     .dsums = at(t, c->dsums),
                                                                     .ds = at(t, c->ds),
                                                                     .carried = at(t, c->carried),
                                                                     .dy = at(t, c->dy),
                                                                     .dh = at(t, c->dh),
                                                                     .kept = at(t, c->kept),
                                                                     .cell = at(t, c->cell),
                                                                     .y = at(t, c->y),
                                                                     .initial = at(t, c->initial),
                                                                     .offsets = at(t, c->offsets),
                                                                     .step = &c->r,
                                                                     .type = t->type},
                                   NULL);
}

static int first_state(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return recurrent_initial_cuda(&(struct recurrent_initial_args){.dinitial = at(t, c->dinitial),
                                                                   .dh = at(t, c->dh),
                                                                   .carried = at(t, c->carried),
                                                                   .offsets = at(t, c->offsets),
                                                                   .step = &c->r,
                                                                   .type = t->type},
                                  NULL);
}

static int earlier(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return recurrent_earlier_cuda(&(struct recurrent_earlier_args){.h = at(t, c->h),
                                                                   .y = at(t, c->y),
                                                                   .initial = at(t, c->initial),
                                                                   .offsets = at(t, c->offsets),
                                                                   .step = &c->r,
                                                                   .type = t->type},
                                  NULL);
}

static int gather(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return recurrent_gather_cuda(&(struct recurrent_gather_args){.h = at(t, c->h),
                                                                 .state = at(t, c->state),
                                                                 .initial = at(t, c->initial),
                                                                 .position = at(t, c->position),
                                                                 .history = at(t, c->history),
                                                                 .room = c->room,
                                                                 .step = &c->r,
                                                                 .type = t->type},
                                 NULL);
}

static int step(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return recurrent_step_cuda(&(struct recurrent_step_args){.y = at(t, c->y),
                                                             .state = at(t, c->state),
                                                             .x = at(t, c->x),
                                                             .sums = at(t, c->sums),
                                                             .b = at(t, c->b),
                                                             .own = at(t, c->own),
                                                             .initial = at(t, c->initial),
                                                             .position = at(t, c->position),
                                                             .history = at(t, c->history),
                                                             .room = c->room,
                                                             .step = &c->r,
                                                             .type = t->type},
                               NULL);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double value_of(const struct trial *t, int array, size_t i)
{
    return array < 0 ? 0 : trial_value(t, array)[i];
}

/* The place of unit u of sentence s at the context's step. */
struct place {
    bool alive, last;
    size_t row, before, unit, gate;
};

static struct place place_of(const struct context *c, size_t s, size_t u)
{
    const struct kernel_recurrent *r = &c->r;
    size_t first = (size_t)c->s.offsets[s], length = (size_t)c->s.offsets[s + 1] - first;
    return (struct place){r->t < length,
                          r->t + 1 == length,
                          r->direction ? first + length - 1 - r->t : first + r->t,
                          r->direction ? first + length - r->t : first + r->t - 1,
                          r->direction * r->units + u,
                          r->direction * r->gates * r->units + u};
}

static size_t all_units(const struct context *c)
{
    return c->r.directions * c->r.units;
}

/* Computes the gates after their nonlinearities, and for a GRU also the sum of the new gate. `row` is the row of x and
 * own, `s` the row of the sums. */
static void gates_of(double out[4], const struct trial *t, const struct context *c, size_t row, size_t s, size_t gate,
                     size_t u)
{
    const struct kernel_recurrent *r = &c->r;
    size_t width = r->gates * all_units(c);
    double in[4], sum[4];
    for (size_t g = 0; g < r->gates; g++) {
        in[g] = trial_value(t, c->x)[row * width + gate + g * r->units] +
                value_of(t, c->own, s * width + gate + g * r->units);
        sum[g] = value_of(t, c->sums, (s * r->gates + g) * r->units + u) + value_of(t, c->b, gate + g * r->units);
    }
    bool lstm = r->gates == 4;
    for (size_t g = 0; g < r->gates; g++)
        out[g] = g == 2 ? tanh(lstm ? in[g] + sum[g] : in[g] + out[0] * sum[g]) : sigmoid(in[g] + sum[g]);
    if (!lstm) out[3] = sum[2];
}

enum { OWN = 1, INITIAL = 2 };

static void make_inputs(struct trial *t, struct context *c, unsigned given)
{
    size_t all = all_units(c), width = c->r.gates * all, sentences = c->r.sentences;
    bool lstm = c->r.gates == 4;
    c->offsets = trial_integers(t, c->s.offsets, sentences + 1);
    c->own = given & OWN ? trial_normal(t, trial_t(t), sentences * width, 0, 0.5) : -1;
    c->initial = given & INITIAL ? trial_normal(t, trial_t(t), sentences * (lstm ? 2 : 1) * all, 0, 0.7) : -1;
}

static void try_forward(enum kernel_type type, struct context c, unsigned given)
{
    struct trial t;
    size_t all = all_units(&c), width = c.r.gates * all, tokens = c.s.tokens, sentences = c.r.sentences;
    bool lstm = c.r.gates == 4, sums = c.r.t || given & INITIAL;
    trial_begin(&t, type, "recurrent %s, %zu x %zu units, step %zu, direction %zu, given %u", lstm ? "lstm" : "gru",
                sentences, c.r.units, c.r.t, c.r.direction, given);
    enum array_type T = trial_t(&t);
    make_inputs(&t, &c, given);
    c.x = trial_normal(&t, T, tokens * width, 0, 1);
    c.sums = sums ? trial_normal(&t, ARRAY_F32, sentences * c.r.gates * c.r.units, 0, 1) : -1;
    c.b = lstm ? -1 : trial_normal(&t, T, width, 0, 0.5);
    c.y = trial_normal(&t, T, tokens * all, 0, 1);
    c.kept = trial_normal(&t, T, tokens * 4 * all, 0, 1);
    c.cell = lstm ? trial_normal(&t, ARRAY_F32, tokens * all, 0, 1) : -1;
    c.state = trial_normal(&t, T, sentences * all, 0, 1);
    double *y = trial_expect_new(&t, c.y), *kept = trial_expect_new(&t, c.kept),
           *cell = lstm ? trial_expect_new(&t, c.cell) : NULL, *state = trial_expect_new(&t, c.state);
    memcpy(y, trial_value(&t, c.y), tokens * all * sizeof *y);
    memcpy(kept, trial_value(&t, c.kept), tokens * 4 * all * sizeof *kept);
    if (lstm) memcpy(cell, trial_value(&t, c.cell), tokens * all * sizeof *cell);
    memcpy(state, trial_value(&t, c.state), sentences * all * sizeof *state);
    for (size_t s = 0; s < sentences; s++)
        for (size_t u = 0; u < c.r.units; u++) {
            struct place p = place_of(&c, s, u);
            if (!p.alive) continue;
            double g[4], h;
            gates_of(g, &t, &c, p.row, s, p.gate, u);
            if (lstm) {
                double before = c.r.t ? trial_value(&t, c.cell)[p.before * all + p.unit]
                                      : value_of(&t, c.initial, s * 2 * all + all + p.unit),
                       now = g[1] * before + g[0] * g[2];
                cell[p.row * all + p.unit] = now;
                h = g[3] * tanh(now);
            } else {
                double before =
                    c.r.t ? trial_value(&t, c.state)[s * all + p.unit] : value_of(&t, c.initial, s * all + p.unit);
                h = (1 - g[1]) * g[2] + g[1] * before;
            }
            for (size_t k = 0; k < 4; k++)
                kept[((p.row * c.r.directions + c.r.direction) * 4 + k) * c.r.units + u] = g[k];
            y[p.row * all + p.unit] = state[s * all + p.unit] = h;
        }
    trial_run(&t, forward, &c);
}

static void try_backward(enum kernel_type type, struct context c, unsigned given, bool behind)
{
    struct trial t;
    size_t all = all_units(&c), width = c.r.gates * all, tokens = c.s.tokens, sentences = c.r.sentences, H = c.r.units;
    bool lstm = c.r.gates == 4;
    trial_begin(&t, type, "recurrent backward %s, %zu x %zu units, step %zu, direction %zu, given %u%s",
                lstm ? "lstm" : "gru", sentences, H, c.r.t, c.r.direction, given, behind ? ", dh" : "");
    enum array_type T = trial_t(&t);
    make_inputs(&t, &c, given & INITIAL);
    c.dy = trial_normal(&t, T, tokens * all, 0, 1);
    c.dh = behind ? trial_normal(&t, ARRAY_F32, sentences * H, 0, 1) : -1;
    c.kept = trial_normal(&t, T, tokens * 4 * all, 0.4, 0.2);
    c.cell = lstm ? trial_normal(&t, ARRAY_F32, tokens * all, 0, 1) : -1;
    c.y = lstm ? -1 : trial_normal(&t, T, tokens * all, 0, 1);
    c.dx = trial_normal(&t, T, tokens * width, 0, 1);
    c.dsums = lstm ? -1 : trial_normal(&t, T, tokens * width, 0, 1);
    c.ds = trial_output(&t, T, sentences * c.r.gates * H);
    c.carried = trial_normal(&t, ARRAY_F32, sentences * H, 0, 1);
    double *dx = trial_expect_new(&t, c.dx), *dsums = lstm ? NULL : trial_expect_new(&t, c.dsums),
           *ds = trial_expect(&t, c.ds), *carried = trial_expect_new(&t, c.carried);
    memcpy(dx, trial_value(&t, c.dx), tokens * width * sizeof *dx);
    if (dsums) memcpy(dsums, trial_value(&t, c.dsums), tokens * width * sizeof *dsums);
    memcpy(carried, trial_value(&t, c.carried), sentences * H * sizeof *carried);
    for (size_t s = 0; s < sentences; s++)
        for (size_t u = 0; u < H; u++) {
            struct place p = place_of(&c, s, u);
            if (!p.alive) continue;
            double k[4], d[4], into[4], h = trial_value(&t, c.dy)[p.row * all + p.unit],
                                        on = p.last ? 0 : trial_value(&t, c.carried)[s * H + u];
            for (size_t g = 0; g < 4; g++)
                k[g] = trial_value(&t, c.kept)[((p.row * c.r.directions + c.r.direction) * 4 + g) * H + u];
            if (!p.last) h += value_of(&t, c.dh, s * H + u);
            if (lstm) {
                double tc = tanh(trial_value(&t, c.cell)[p.row * all + p.unit]),
                       before = c.r.t ? trial_value(&t, c.cell)[p.before * all + p.unit]
                                      : value_of(&t, c.initial, s * 2 * all + all + p.unit),
                       dc = on + h * k[3] * (1 - tc * tc);
                d[0] = dc * k[2] * k[0] * (1 - k[0]);
                d[1] = dc * before * k[1] * (1 - k[1]);
                d[2] = dc * k[0] * (1 - k[2] * k[2]);
                d[3] = h * tc * k[3] * (1 - k[3]);
                memcpy(into, d, sizeof into);
                carried[s * H + u] = dc * k[1];
            } else {
                double before =
                    c.r.t ? trial_value(&t, c.y)[p.before * all + p.unit] : value_of(&t, c.initial, s * all + p.unit);
                h += on;
                into[2] = h * (1 - k[1]) * (1 - k[2] * k[2]);
                into[0] = d[0] = into[2] * k[3] * k[0] * (1 - k[0]);
                into[1] = d[1] = h * (before - k[2]) * k[1] * (1 - k[1]);
                d[2] = into[2] * k[0];
                carried[s * H + u] = h * k[1];
            }
            for (size_t g = 0; g < c.r.gates; g++) {
                ds[(s * c.r.gates + g) * H + u] = d[g];
                dx[p.row * width + p.gate + g * H] = into[g];
                if (dsums) dsums[p.row * width + p.gate + g * H] = d[g];
            }
        }
    trial_run(&t, backward, &c);
}

static void try_ends(enum kernel_type type, struct context c, unsigned given)
{
    struct trial t;
    size_t all = all_units(&c), tokens = c.s.tokens, sentences = c.r.sentences, H = c.r.units;
    bool lstm = c.r.gates == 4;
    trial_begin(&t, type, "recurrent first state %s, %zu x %zu units, direction %zu", lstm ? "lstm" : "gru", sentences,
                H, c.r.direction);
    enum array_type T = trial_t(&t);
    make_inputs(&t, &c, 0);
    c.dh = trial_normal(&t, ARRAY_F32, sentences * H, 0, 1);
    c.carried = trial_normal(&t, ARRAY_F32, sentences * H, 0, 1);
    c.dinitial = trial_normal(&t, T, sentences * (lstm ? 2 : 1) * all, 0, 1);
    double *d = trial_expect_new(&t, c.dinitial);
    memcpy(d, trial_value(&t, c.dinitial), sentences * (lstm ? 2 : 1) * all * sizeof *d);
    for (size_t s = 0; s < sentences; s++)
        for (size_t u = 0; u < H; u++) {
            bool some = c.s.offsets[s + 1] > c.s.offsets[s];
            double h = trial_value(&t, c.dh)[s * H + u], carried = trial_value(&t, c.carried)[s * H + u],
                   *to = d + s * (lstm ? 2 : 1) * all + c.r.direction * H + u;
            to[0] = !some ? 0 : lstm ? h : h + carried;
            if (lstm) to[all] = some ? carried : 0;
        }
    trial_run(&t, first_state, &c);

    trial_begin(&t, type, "recurrent earlier rows %s, %zu x %zu units, given %u", lstm ? "lstm" : "gru", sentences, H,
                given);
    make_inputs(&t, &c, given & INITIAL);
    c.y = trial_normal(&t, T, tokens * all, 0, 1);
    c.h = trial_output(&t, T, tokens * all);
    double *h = trial_expect(&t, c.h);
    for (size_t s = 0; s < sentences; s++)
        for (size_t n = (size_t)c.s.offsets[s]; n < (size_t)c.s.offsets[s + 1]; n++)
            for (size_t j = 0; j < all; j++) {
                bool back = j >= H, begins = n + back == (size_t)c.s.offsets[s + (back ? 1 : 0)];
                h[n * all + j] = begins ? value_of(&t, c.initial, s * (lstm ? 2 : 1) * all + j)
                                        : trial_value(&t, c.y)[(back ? n + 1 : n - 1) * all + j];
            }
    t.tolerance = 0;
    trial_run(&t, earlier, &c);
}

static void try_step(enum kernel_type type, struct context c, unsigned given, bool moving)
{
    enum { ROOM = 6 };
    struct trial t;
    size_t rows = c.r.sentences, H = c.r.units, width = c.r.gates * H;
    bool lstm = c.r.gates == 4;
    size_t states = (lstm ? 2 : 1) * H;
    int32_t *position = calloc(rows + 1, sizeof *position), *history = calloc(rows * ROOM + 1, sizeof *history);
    /* all rows that continue other rows are at one position, as in beam search, so that no row reads a half of the
     * state that another row writes */
    for (size_t n = 0; n < rows; n++) position[n] = moving ? 3 : (int32_t)(n % ROOM);
    for (size_t i = 0; i < rows * ROOM; i++) history[i] = (int32_t)((i * 7 + 3) % rows);
    for (int second = 0; second < 2; second++) {
        trial_begin(&t, type, "recurrent %s %s, %zu x %zu units, given %u%s", second ? "step" : "gather",
                    lstm ? "lstm" : "gru", rows, H, given, moving ? ", moving" : "");
        enum array_type T = trial_t(&t);
        c.room = ROOM;
        c.own = given & OWN && second ? trial_normal(&t, T, rows * width, 0, 0.5) : -1;
        c.initial = given & INITIAL ? trial_normal(&t, T, rows * states, 0, 0.7) : -1;
        c.position = trial_integers(&t, position, rows);
        c.history = moving ? trial_integers(&t, history, rows * ROOM) : -1;
        c.state = trial_normal(&t, ARRAY_F32, rows * 2 * states, 0, 0.5);
        if (second) {
            c.x = trial_normal(&t, T, rows * width, 0, 1);
            c.sums = trial_normal(&t, ARRAY_F32, rows * width, 0, 1);
            c.b = lstm ? -1 : trial_normal(&t, T, width, 0, 0.5);
            c.y = trial_output(&t, T, rows * H);
        } else {
            c.h = trial_output(&t, T, rows * H);
        }
        double *out = trial_expect(&t, second ? c.y : c.h), *state = second ? trial_expect_new(&t, c.state) : NULL;
        if (second) memcpy(state, trial_value(&t, c.state), rows * 2 * states * sizeof *state);
        for (size_t n = 0; n < rows; n++)
            for (size_t u = 0; u < H; u++) {
                size_t at = (size_t)position[n], from = moving && at ? (size_t)history[n * ROOM + at - 1] : n;
                const double *old = trial_value(&t, c.state) + (from * 2 + at % 2) * states;
                double before[2];
                for (size_t k = 0; k < 2; k++)
                    before[k] = k && !lstm ? 0 : at ? old[k * H + u] : value_of(&t, c.initial, n * states + k * H + u);
                out[n * H + u] = before[0];
                if (!second) continue;
                double g[4], *now = state + (n * 2 + (at + 1) % 2) * states + u, cell = 0;
                gates_of(g, &t, &c, n, n, u, u);
                if (lstm) now[H] = cell = g[1] * before[1] + g[0] * g[2];
                out[n * H + u] = lstm ? g[3] * tanh(cell) : (1 - g[1]) * g[2] + g[1] * before[0];
                now[0] = trial_round(out[n * H + u], T);
            }
        if (second && type == KERNEL_BF16) t.tolerance = 8e-3; /* the new h is the f32 of a value rounded to bf16 */
        trial_run(&t, second ? step : gather, &c);
    }
    free(position);
    free(history);
}

static const size_t given_shapes[][3] = {{1, 1, 1},  {0, 1, 7},   {2, 5, 16}, {7, 9, 33},
                                         {19, 6, 5}, {40, 4, 17}, {4, 7, 130}};
static const struct sweep shapes = SWEEP(given_shapes, 20000, 64, 17, 257);

static void each(void (*run)(enum kernel_type type, struct context c, unsigned given, size_t i))
{
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            size_t n[3];
            sweep_shape(n, &shapes, i);
            for (size_t gates = 3; gates <= 4; gates++)
                for (unsigned given = 0; given < 4; given++) {
                    struct context c = {.b = -1, .dsums = -1, .cell = -1, .y = -1, .sums = -1, .own = -1, .dh = -1};
                    trial_sentences(&c.s, n[0], n[1], n[0] + n[2]);
                    c.r = (struct kernel_recurrent){
                        .sentences = n[0], .units = n[2], .gates = gates, .directions = 1 + (i + given) % 2};
                    c.r.direction = c.r.directions - 1;
                    run((enum kernel_type)type, c, given, i);
                }
        }
}

static void run_forward(enum kernel_type type, struct context c, unsigned given, size_t i)
{
    for (c.r.t = 0; c.r.t < 3; c.r.t += 1 + i % 2) try_forward(type, c, given);
}

static void run_backward(enum kernel_type type, struct context c, unsigned given, size_t i)
{
    for (c.r.t = 0; c.r.t < 3; c.r.t += 1 + i % 2) try_backward(type, c, given, (c.r.t + given) % 2);
}

static void run_ends(enum kernel_type type, struct context c, unsigned given, size_t i)
{
    (void)i;
    try_ends(type, c, given);
}

static void run_step(enum kernel_type type, struct context c, unsigned given, size_t i)
{
    c.r.directions = 1;
    c.r.direction = 0;
    if (c.r.sentences) try_step(type, c, given, i % 2);
}

static void forward_matches(void **state)
{
    (void)state;
    each(run_forward);
}

static void backward_matches(void **state)
{
    (void)state;
    each(run_backward);
}

static void ends_match(void **state)
{
    (void)state;
    each(run_ends);
}

static void steps_match(void **state)
{
    (void)state;
    each(run_step);
}

TRIAL_MAIN(cmocka_unit_test(forward_matches), cmocka_unit_test(backward_matches), cmocka_unit_test(ends_match),
           cmocka_unit_test(steps_match))
