/* One new token per row, in generation: a product of all rows with the weights, then the units of each row. A row's
 * states of two tokens lie side by side, the state of token t at t mod 2 (ops/recurrent.c). */
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "cpu/recurrent_cells.h"

struct step {
    const struct call *call;
    size_t units, gates, states;
    bool gru;
    float *h, *sums; /* (R, H), (R, G H) */
};

static struct step step_of(const struct call *c)
{
    struct step s = {
        .call = c, .units = c->size.in[IN_RECURRENT_STEP_W][1], .gru = c->attr->i[RECURRENT_CELL] == RECURRENT_GRU};
    s.gates = recurrent_gates(s.gru);
    s.states = recurrent_states(s.gru);
    return s;
}

void CPU(recurrent_step_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    struct step s = step_of(c);
    size_t rows = c->size.in[IN_RECURRENT_STEP_X][0];
    *shared = (padded(rows * s.units) + padded(rows * s.gates * s.units)) * sizeof(float);
    *per_worker = CPU(gemm_scratch)();
}

/* Returns the state (states H) that a row continues; null stands for zeros. */
static const float *continued(const struct step *s, size_t row)
{
    const struct call *c = s->call;
    const int32_t *history = c->in[IN_RECURRENT_STEP_HISTORY];
    size_t at = (size_t)((const int32_t *)c->in[IN_RECURRENT_STEP_POSITION])[row], width = s->states * s->units;
    if (!at)
        return c->in[IN_RECURRENT_STEP_INITIAL] ? (const float *)c->in[IN_RECURRENT_STEP_INITIAL] + row * width : NULL;
    size_t from = history ? (size_t)history[row * c->size.in[IN_RECURRENT_STEP_HISTORY][1] + at - 1] : row;
    return (const float *)c->out[OUT_RECURRENT_STEP_STATE] + (from * 2 + at % 2) * width;
}

static void gather_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct step *s = argument;
    size_t end = least(s->call->size.in[IN_RECURRENT_STEP_X][0], (tile + 1) * COPIED);
    for (size_t r = tile * COPIED; r < end; r++) {
        const float *from = continued(s, r);
        if (from)
            memcpy(s->h + r * s->units, from, s->units * sizeof *from);
        else
            memset(s->h + r * s->units, 0, s->units * sizeof *from);
    }
}

static void step_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct step *s = argument;
    const struct call *c = s->call;
    const struct layer l = {.units = s->units, .gates = s->gates, .gru = s->gru};
    size_t width = s->gates * s->units, end = least(c->size.in[IN_RECURRENT_STEP_X][0], (tile + 1) * COPIED);
    for (size_t r = tile * COPIED; r < end; r++) {
        const float *x = (const float *)c->in[IN_RECURRENT_STEP_X] + r * width,
                    *own =
                        c->in[IN_RECURRENT_STEP_OWN] ? (const float *)c->in[IN_RECURRENT_STEP_OWN] + r * width : NULL,
                    *from = continued(s, r);
        float *sums = s->sums + r * width, *y = (float *)c->out[OUT_RECURRENT_STEP_Y] + r * s->units;
        size_t at = (size_t)((const int32_t *)c->in[IN_RECURRENT_STEP_POSITION])[r];
        float *to = (float *)c->out[OUT_RECURRENT_STEP_STATE] + (r * 2 + (at + 1) % 2) * s->states * s->units;
        for (size_t u = 0; u < s->units; u += UNITS) {
            float kept[KEPT_GATES * UNITS];
            size_t n = least(UNITS, s->units - u);
            add_inputs(sums + u, &l, x + u, own ? own + u : NULL,
                       c->in[IN_RECURRENT_STEP_B] ? (const float *)c->in[IN_RECURRENT_STEP_B] + u : NULL, s->units, n);
            if (s->gru)
                gru_units(kept, UNITS, y + u, sums + u, s->units, x + 2 * s->units + u,
                          own ? own + 2 * s->units + u : NULL, from ? from + u : NULL, n);
            else
                lstm_units(kept, UNITS, to + s->units + u, y + u, sums + u, s->units, from ? from + s->units + u : NULL,
                           n);
        }
        memcpy(to, y, s->units * sizeof *y);
    }
}

void CPU(recurrent_step)(const struct call *c)
{
    struct step s = step_of(c);
    size_t rows = c->size.in[IN_RECURRENT_STEP_X][0], tiles = tiles_of(rows, COPIED);
    float *at = c->scratch;
    s.h = take(&at, rows * s.units);
    s.sums = take(&at, rows * s.gates * s.units);
    cpu_run(c, tiles, gather_rows, &s);
    struct product p = {.m = rows, .n = s.gates * s.units, .k = s.units, .c = s.sums, .ldc = s.gates * s.units};
    p.a = (struct matrix){s.h, s.units, 1};
    p.b = (struct matrix){c->in[IN_RECURRENT_STEP_W], 1, s.units};
    p.blocks = c->in_blocks[IN_RECURRENT_STEP_W];
    CPU(gemm)(c, &p);
    cpu_run(c, tiles, step_rows, &s);
}
