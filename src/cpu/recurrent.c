/* A recurrent layer, forward (recurrent_layer.h describes the order of work):
 *
 *   sums (B_t, G H) = h (B_t, H) W^T
 *
 * A panel holds the weights of 2 VL units of one gate. G panels side by side make all gates of these units, and the
 * nonlinearities follow while the sums are in the L1 cache. */
#include "cpu/kernels.h"
#include "cpu/recurrent_cells.h"

struct forward {
    struct layer l;
    struct order o;
    const float *x, *b, *own, *initial;
    float *y, *gates, *cell;
    float *packed; /* (d, panels, G, H, UNITS) */
    float *h[2];   /* (S, d H) states in the order's rows, for even and odd steps */
    size_t row;    /* floats between rows of h */
    size_t t, chunks;
};

/* Packs the weights of `UNITS` units of one gate: out (H, UNITS), with zeros past the last unit. */
static void pack_units(const struct layer *l, float *out, size_t direction, size_t gate, size_t u, float *row)
{
    size_t n = least(UNITS, l->units - u), first = ((direction * l->gates + gate) * l->units + u) * l->units;
    const enum block_type type = l->call->in_blocks[IN_RECURRENT_W];
    const float *w = l->w + first;
    for (size_t j = 0; j < UNITS && type; j++) {
        const unsigned char *from = (const unsigned char *)l->w + block_bytes(type, first + j * l->units);
        if (j < n) block_dequantize(type, row, from, l->units);
        for (size_t k = 0; k < l->units; k++) out[k * UNITS + j] = j < n ? row[k] : 0.0f;
    }
    if (type) return;
    for (size_t k0 = 0; k0 < l->units; k0 += VL)
        for (size_t j = 0; j < UNITS; j++)
            for (size_t k = k0; k < least(l->units, k0 + VL); k++)
                out[k * UNITS + j] = j < n ? w[j * l->units + k] : 0.0f;
}

static void pack_forward(void *argument, size_t tile, size_t worker)
{
    const struct forward *f = argument;
    const struct layer *l = &f->l;
    size_t gate = tile % l->gates, panel = tile / l->gates % l->panels, direction = tile / l->gates / l->panels;
    pack_units(l, f->packed + tile * l->units * UNITS, direction, gate, panel * UNITS, cpu_scratch(l->call, worker));
}

/* Computes units u .. u + n of one sentence at step t from sums (G, PANEL_ROWS, UNITS), at its row of the block. */
static void finish_units(const struct forward *f, size_t direction, size_t at, size_t u, size_t n, size_t t,
                         float *sums, size_t stride)
{
    const struct layer *l = &f->l;
    size_t s = f->o.sentence[at], row = row_at(l, direction, s, t), all = all_units(l), d = direction * l->units + u,
           gate = direction * l->gates * l->units + u, width = l->directions * l->gates * l->units;
    const float *x = f->x + row * width + gate, *own = f->own ? f->own + s * width + gate : NULL;
    float *kept = f->gates + (row * l->directions + direction) * KEPT_GATES * l->units + u,
          *h = f->h[(t + 1) % 2] + at * f->row + d, *y = f->y + row * all + d;
    add_inputs(sums, l, x, own, f->b ? f->b + gate : NULL, stride, n);
    if (l->gru) {
        const float *before = t || f->initial ? f->h[t % 2] + at * f->row + d : NULL;
        gru_units(kept, l->units, h, sums, stride, x + 2 * l->units, own ? own + 2 * l->units : NULL, before, n);
    } else {
        const float *before = t            ? f->cell + row_at(l, direction, s, t - 1) * all + d
                              : f->initial ? f->initial + s * 2 * all + all + d
                                           : NULL;
        lstm_units(kept, l->units, f->cell + row * all + d, h, sums, stride, before, n);
    }
    memcpy(y, h, n * sizeof *y);
}

/* Computes panels p0 .. p1 for `count` sentences from state row `first` on. */
static void forward_panels(const struct forward *f, size_t direction, size_t first, size_t count, size_t p0, size_t p1,
                           size_t t)
{
    const struct layer *l = &f->l;
    float sums[GATES * PANEL_ROWS * UNITS] __attribute__((aligned(64)));
    size_t block = panel_rows(count);
    for (size_t p = p0; p < p1; p++)
        for (size_t i = 0; i < count; i += block) {
            size_t m = least(block, count - i);
            const float *panel = f->packed + (direction * l->panels + p) * l->gates * l->units * UNITS,
                        *h = f->h[t % 2] + (first + i) * f->row + direction * l->units;
            if (t || f->initial)
                for (size_t g = 0; g < l->gates; g++) {
                    float *to = sums + g * PANEL_ROWS * UNITS;
                    CPU(panel_product)(m, to, h, f->row, panel + g * l->units * UNITS, l->units, NULL);
                }
            else
                memset(sums, 0, sizeof sums);
            for (size_t r = 0; r < m; r++)
                finish_units(f, direction, first + i + r, p * UNITS, least(UNITS, l->units - p * UNITS), t,
                             sums + r * UNITS, PANEL_ROWS * UNITS);
        }
}

/* Takes a group of sentences through all steps. */
static void forward_group(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct forward *f = argument;
    size_t group = tile / f->l.directions, steps = steps_of(&f->l, &f->o, group), rows = 0;
    for (size_t t = 0; t < steps; t++) {
        rows = CPU(recurrent_alive)(&f->l, &f->o, group, t, rows);
        forward_panels(f, tile % f->l.directions, f->o.first[group], rows, 0, f->l.panels, t);
    }
}

/* Computes a thread's panels of step t. */
static void forward_chunk(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct forward *f = argument;
    size_t chunk = tile / f->l.directions, each = tiles_of(f->l.panels, f->chunks), p0 = chunk * each;
    size_t rows = CPU(recurrent_alive)(&f->l, &f->o, 0, f->t, f->l.sentences);
    if (p0 < f->l.panels) forward_panels(f, tile % f->l.directions, 0, rows, p0, least(f->l.panels, p0 + each), f->t);
}

void CPU(recurrent_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    struct layer l = layer_of(c, 1, 5, c->size.in[IN_RECURRENT_X][0]);
    *per_worker = l.units * sizeof(float); /* one dequantized row of weights */
    *shared = (padded(packed_floats(&l)) + 2 * l.sentences * apart(all_units(&l)) + CPU(recurrent_order_floats)(&l)) *
              sizeof(float);
}

void CPU(recurrent)(const struct call *c)
{
    struct forward f = {.l = layer_of(c, 1, 5, c->size.in[IN_RECURRENT_X][0]),
                        .x = c->in[IN_RECURRENT_X],
                        .b = c->in[IN_RECURRENT_B],
                        .own = c->in[IN_RECURRENT_OWN],
                        .initial = c->in[IN_RECURRENT_INITIAL],
                        .y = c->out[OUT_RECURRENT_Y],
                        .gates = c->out[OUT_RECURRENT_GATES],
                        .cell = c->out[OUT_RECURRENT_CELL]};
    const struct layer *l = &f.l;
    float *at = c->scratch;
    size_t all = all_units(l), states = recurrent_states(l->gru);
    if (!l->sentences || !l->rows) return;
    f.packed = take(&at, packed_floats(l));
    f.row = apart(all);
    for (int i = 0; i < 2; i++) f.h[i] = take(&at, l->sentences * f.row);
    CPU(recurrent_order)(&f.o, l, &at);
    for (size_t i = 0; i < l->sentences && f.initial; i++)
        memcpy(f.h[0] + i * f.row, f.initial + f.o.sentence[i] * states * all, all * sizeof(float));
    cpu_run(c, l->directions * l->panels * l->gates, pack_forward, &f);
    if (f.o.groups > 1 || l->directions * chunks_of(l) == 1) {
        cpu_run(c, l->directions * f.o.groups, forward_group, &f);
        return;
    }
    size_t steps = steps_of(l, &f.o, 0);
    f.chunks = chunks_of(l);
    for (f.t = 0; f.t < steps; f.t++) cpu_run(c, l->directions * f.chunks, forward_chunk, &f);
}
