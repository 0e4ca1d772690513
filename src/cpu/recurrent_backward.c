/* A recurrent layer, backward (recurrent_layer.h describes the order of work):
 *
 *   dh (B_t, H) = dgates (B_t, G H) W
 *
 * A panel holds the weights of 2 VL columns. The gradients of weights are products over all rows, after all steps. */
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "cpu/recurrent_layer.h"

enum { COLUMNS = 64 }; /* columns of the bias that a thread sums at once */

struct backward {
    struct layer l;
    struct order o;
    const float *dy, *initial, *y, *gates, *cell;
    float *dx, *dinitial;
    float *packed;  /* (d, panels, G H, UNITS) */
    float *ds[2];   /* (S, d G H) gradients of the sums in the order's rows, for even and odd steps */
    size_t row;     /* floats between rows of ds */
    float *carried; /* (S, d H) gradient carried to step t - 1: LSTM dc, GRU z dh */
    float *dsums;   /* (N, d G H) gradients of the sums in the sentences' rows; for an LSTM, dx itself */
    float *h;       /* (N, d H) h before each row */
    size_t t, chunks;
};

static void pack_backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct backward *b = argument;
    const struct layer *l = &b->l;
    size_t direction = tile / l->panels, u = tile % l->panels * UNITS, n = least(UNITS, l->units - u),
           depth = l->gates * l->units;
    float *out = b->packed + tile * depth * UNITS;
    for (size_t k = 0; k < depth; k++, out += UNITS) {
        memcpy(out, l->w + (direction * depth + k) * l->units + u, n * sizeof *out);
        memset(out + n, 0, (UNITS - n) * sizeof *out);
    }
}

/* Adds dy to dh, and computes the gradients ds (4, H) of the sums and dc, which goes on to the step before. */
static inline void lstm_units_backward(float *restrict ds, size_t units, float *restrict dc, const float *restrict dh,
                                       const float *restrict dy, const float *restrict kept, const float *restrict c,
                                       const float *restrict before, bool last, size_t n)
{
    SIMD for (size_t j = 0; j < n; j++)
    {
        float i = kept[j], f = kept[units + j], g = kept[2 * units + j], o = kept[3 * units + j], tc = cpu_tanh(c[j]),
              d = dh[j] + dy[j], dcell = (last ? 0.0f : dc[j]) + d * o * (1.0f - tc * tc);
        ds[j] = dcell * g * i * (1.0f - i);
        ds[units + j] = before ? dcell * before[j] * f * (1.0f - f) : 0.0f;
        ds[2 * units + j] = dcell * i * (1.0f - g * g);
        ds[3 * units + j] = d * tc * o * (1.0f - o);
        dc[j] = dcell * f;
    }
}

/* Writes dx (3, H) as well, because the new gate's dx differs from the gradient of its sum. */
static inline void gru_units_backward(float *restrict ds, float *restrict dx, size_t units, float *restrict carried,
                                      const float *restrict dh, const float *restrict dy, const float *restrict kept,
                                      const float *restrict before, bool last, size_t n)
{
    SIMD for (size_t j = 0; j < n; j++)
    {
        float r = kept[j], z = kept[units + j], v = kept[2 * units + j], s = kept[3 * units + j],
              d = dh[j] + dy[j] + (last ? 0.0f : carried[j]), dv = d * (1.0f - z) * (1.0f - v * v);
        ds[j] = dx[j] = dv * s * r * (1.0f - r);
        ds[units + j] = dx[units + j] = d * ((before ? before[j] : 0.0f) - v) * z * (1.0f - z);
        dx[2 * units + j] = dv;
        ds[2 * units + j] = dv * r;
        carried[j] = d * z;
    }
}

/* Computes units u .. u + n of one sentence at step t; dh is the gradient from step t + 1. */
static void finish_backward(const struct backward *b, size_t direction, size_t at, size_t u, size_t n, size_t t,
                            const float *dh)
{
    const struct layer *l = &b->l;
    size_t s = b->o.sentence[at], row = row_at(l, direction, s, t), all = all_units(l), d = direction * l->units + u,
           gate = direction * l->gates * l->units + u, width = l->directions * l->gates * l->units;
    bool last = t + 1 == length_of(l, s);
    size_t before = t ? row_at(l, direction, s, t - 1) * all + d
                      : s * recurrent_states(l->gru) * all + (l->gru ? 0 : all) +
                            d; /* index into y or cell; at t = 0, into initial */
    const float *kept = b->gates + (row * l->directions + direction) * KEPT_GATES * l->units + u,
                *dy = b->dy + row * all + d;
    float *ds = b->ds[t % 2] + at * b->row + gate, *dx = b->dx + row * width + gate,
          *carried = b->carried + at * all + d;
    const float *earlier = t ? (l->gru ? b->y : b->cell) + before : b->initial ? b->initial + before : NULL;
    if (l->gru) {
        gru_units_backward(ds, dx, l->units, carried, dh, dy, kept, earlier, last, n);
        for (size_t g = 0; g < l->gates; g++)
            memcpy(b->dsums + row * width + gate + g * l->units, ds + g * l->units, n * sizeof *ds);
    } else {
        lstm_units_backward(ds, l->units, carried, dh, dy, kept, b->cell + row * all + d, earlier, last, n);
        for (size_t g = 0; g < l->gates; g++) memcpy(dx + g * l->units, ds + g * l->units, n * sizeof *ds);
    }
}

/* Writes the gradient of the initial state, after step 0. */
static void finish_initial(const struct backward *b, size_t direction, size_t at, size_t u, size_t n, const float *dh)
{
    const struct layer *l = &b->l;
    size_t s = b->o.sentence[at], all = all_units(l), d = direction * l->units + u;
    float *to = b->dinitial + s * recurrent_states(l->gru) * all + d;
    const float *carried = b->carried + at * all + d;
    for (size_t j = 0; j < n; j++) to[j] = l->gru ? dh[j] + carried[j] : dh[j];
    if (!l->gru) memcpy(to + all, carried, n * sizeof *to);
}

/* Computes panels p0 .. p1 for `count` sentences at step `left` - 1, of which the first `behind` have step `left` too.
 * `left` 0 computes the gradient of the initial state. */
static void backward_panels(const struct backward *b, size_t direction, size_t first, size_t count, size_t behind,
                            size_t p0, size_t p1, size_t left)
{
    const struct layer *l = &b->l;
    float dh[PANEL_ROWS * UNITS] __attribute__((aligned(64)));
    size_t depth = l->gates * l->units, block = panel_rows(count);
    for (size_t p = p0; p < p1; p++)
        for (size_t i = 0; i < count; i += block) {
            size_t m = least(block, count - i), from = i < behind ? least(m, behind - i) : 0, u = p * UNITS,
                   n = least(UNITS, l->units - u);
            if (from) CPU(panel_product)
            (from, dh, b->ds[left % 2] + (first + i) * b->row + direction * depth, b->row,
             b->packed + (direction * l->panels + p) * depth * UNITS, depth, NULL);
            memset(dh + from * UNITS, 0, (m - from) * UNITS * sizeof *dh);
            for (size_t r = 0; r < m; r++)
                if (left)
                    finish_backward(b, direction, first + i + r, u, n, left - 1, dh + r * UNITS);
                else
                    finish_initial(b, direction, first + i + r, u, n, dh + r * UNITS);
        }
}

static void backward_group(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct backward *b = argument;
    size_t group = tile / b->l.directions, rows = 0, behind = 0;
    for (size_t left = steps_of(&b->l, &b->o, group) + 1; left-- > (b->dinitial ? 0 : 1); behind = rows) {
        if (left) rows = CPU(recurrent_alive)(&b->l, &b->o, group, left - 1, rows);
        backward_panels(b, tile % b->l.directions, b->o.first[group], rows, behind, 0, b->l.panels, left);
    }
}

static void backward_chunk(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct backward *b = argument;
    size_t chunk = tile / b->l.directions, each = tiles_of(b->l.panels, b->chunks), p0 = chunk * each;
    size_t rows = CPU(recurrent_alive)(&b->l, &b->o, 0, b->t ? b->t - 1 : 0, b->l.sentences),
           behind = CPU(recurrent_alive)(&b->l, &b->o, 0, b->t, b->l.sentences);
    if (p0 < b->l.panels)
        backward_panels(b, tile % b->l.directions, 0, rows, behind, p0, least(b->l.panels, p0 + each), b->t);
}

/* Copies the h before each row, for the product with the gradients of the sums. */
static void earlier_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct backward *b = argument;
    const struct layer *l = &b->l;
    size_t all = all_units(l), bytes = l->units * sizeof(float), end = least(l->sentences, (tile + 1) * COPIED);
    for (size_t s = tile * COPIED; s < end; s++)
        for (size_t t = 0; t < length_of(l, s); t++)
            for (size_t d = 0; d < l->directions; d++) {
                float *to = b->h + row_at(l, d, s, t) * all + d * l->units;
                if (t)
                    memcpy(to, b->y + row_at(l, d, s, t - 1) * all + d * l->units, bytes);
                else if (b->initial)
                    memcpy(to, b->initial + s * recurrent_states(l->gru) * all + d * l->units, bytes);
                else
                    memset(to, 0, bytes);
            }
}

static void bias_columns(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct backward *b = argument;
    const struct call *c = b->l.call;
    size_t width = b->l.directions * b->l.gates * b->l.units, from = tile * COLUMNS, n = least(COLUMNS, width - from);
    float sum[COLUMNS] = {0}, *db = c->out[OUT_RECURRENT_BACKWARD_DB];
    for (size_t r = 0; r < b->l.rows; r++) {
        const float *row = b->dsums + r * width + from;
        SIMD for (size_t j = 0; j < n; j++) sum[j] += row[j];
    }
    for (size_t j = 0; j < n; j++) db[from + j] = c->add[OUT_RECURRENT_BACKWARD_DB] ? db[from + j] + sum[j] : sum[j];
}

static void weight_gradients(struct backward *b)
{
    const struct layer *l = &b->l;
    const struct call *c = l->call;
    size_t depth = l->gates * l->units, width = l->directions * depth;
    if (c->out[OUT_RECURRENT_BACKWARD_DW]) {
        cpu_run(c, tiles_of(l->sentences, COPIED), earlier_rows, b);
        for (size_t d = 0; d < l->directions; d++) {
            struct product p = {
                .m = depth, .n = l->units, .k = l->rows, .ldc = l->units, .add = c->add[OUT_RECURRENT_BACKWARD_DW]};
            p.c = (float *)c->out[OUT_RECURRENT_BACKWARD_DW] + d * depth * l->units;
            p.a = (struct matrix){b->dsums + d * depth, 1, width};
            p.b = (struct matrix){b->h + d * l->units, all_units(l), 1};
            CPU(gemm)(c, &p);
        }
    }
    if (c->out[OUT_RECURRENT_BACKWARD_DB]) cpu_run(c, tiles_of(width, COLUMNS), bias_columns, b);
}

void CPU(recurrent_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    struct layer l =
        layer_of(c, IN_RECURRENT_BACKWARD_W, IN_RECURRENT_BACKWARD_OFFSETS, c->size.in[IN_RECURRENT_BACKWARD_DY][0]);
    size_t all = all_units(&l), width = l.gates * all;
    *per_worker = CPU(gemm_scratch)();
    *shared = (padded(packed_floats(&l)) + 2 * l.sentences * apart(width) + padded(l.sentences * all) +
               padded(l.rows * all) + (l.gru ? padded(l.rows * width) : 0) + CPU(recurrent_order_floats)(&l)) *
              sizeof(float);
}

void CPU(recurrent_backward)(const struct call *c)
{
    struct backward b = {.l = layer_of(c, IN_RECURRENT_BACKWARD_W, IN_RECURRENT_BACKWARD_OFFSETS,
                                       c->size.in[IN_RECURRENT_BACKWARD_DY][0]),
                         .dy = c->in[IN_RECURRENT_BACKWARD_DY],
                         .initial = c->in[IN_RECURRENT_BACKWARD_INITIAL],
                         .y = c->in[IN_RECURRENT_BACKWARD_Y],
                         .gates = c->in[IN_RECURRENT_BACKWARD_GATES],
                         .cell = c->in[IN_RECURRENT_BACKWARD_CELL],
                         .dx = c->out[OUT_RECURRENT_BACKWARD_DX],
                         .dinitial = c->out[OUT_RECURRENT_BACKWARD_DINITIAL]};
    const struct layer *l = &b.l;
    float *at = c->scratch;
    size_t all = all_units(l), width = l->gates * all;
    b.packed = take(&at, packed_floats(l));
    b.row = apart(width);
    for (int i = 0; i < 2; i++) b.ds[i] = take(&at, l->sentences * b.row);
    b.carried = take(&at, l->sentences * all);
    b.h = take(&at, l->rows * all);
    b.dsums = l->gru ? take(&at, l->rows * width) : b.dx;
    if (b.dinitial) memset(b.dinitial, 0, l->sentences * recurrent_states(l->gru) * all * sizeof(float));
    if (l->sentences && l->rows) {
        CPU(recurrent_order)(&b.o, l, &at);
        cpu_run(c, l->directions * l->panels, pack_backward, &b);
        if (b.o.groups > 1 || l->directions * chunks_of(l) == 1) {
            cpu_run(c, l->directions * b.o.groups, backward_group, &b);
        } else {
            b.chunks = chunks_of(l);
            for (b.t = steps_of(l, &b.o, 0) + 1; b.t-- > (b.dinitial ? 0 : 1);)
                cpu_run(c, l->directions * b.chunks, backward_chunk, &b);
        }
    }
    weight_gradients(&b);
}
