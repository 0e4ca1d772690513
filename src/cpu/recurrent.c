/* Recurrent layers (ops/recurrent.c has the equations).
 *
 * Sentences are sorted by falling length, so at step t the first B_t of them are alive: nothing is padded. Their states
 * lie densely in that order, and each step is one product of B_t rows with the weights, whose panels are packed once a
 * call:
 *
 *   forward   sums (B_t, G H) = h (B_t, H) W^T      a panel holds 2 VL units' weights of one gate; G panels side by
 *             side make the units' gates, whose nonlinearities follow while the sums are in the first cache
 *   backward  dh (B_t, H) = dgates (B_t, G H) W     a panel holds the weights of 2 VL columns
 *
 * Where the weights fit in a core's own cache, each thread takes its sentences through all steps, and nobody waits.
 * Else each takes its panels of a step, and all meet before the next. Each element is one chain of multiply-adds in
 * both ways, so the bits are the same. */
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "ops/recurrent.h"

#include <math.h>

enum { UNITS = 2 * VL, GATES = 4 }; /* of a panel; at most */
enum { LINE = 16, CACHE = 5 << 18, LEAST_ROWS = 8, COPIED = 32, COLUMNS = 64 };
#if VL == 16
enum { MR = 14 };
#elif VL == 8
enum { MR = 6 };
#else
enum { MR = 4 };
#endif

/* ---- the product of a few rows with a panel ---- */

/* out (m, UNITS) = x (m, k) panel (k, UNITS); m is a constant where this is inlined. */
static inline __attribute__((always_inline)) void micro(float *restrict out, const float *x, size_t row,
                                                        const float *restrict panel, size_t k, const size_t m)
{
    vec low[MR], high[MR];
#pragma GCC unroll 16
    for (size_t i = 0; i < m; i++) low[i] = high[i] = (vec){0};
    for (size_t p = 0; p < k; p++, panel += UNITS) {
        vec a = load(panel), b = load(panel + VL);
#pragma GCC unroll 16
        for (size_t i = 0; i < m; i++) {
            float v = x[i * row + p];
            low[i] += v * a;
            high[i] += v * b;
        }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < m; i++) {
        store(out + i * UNITS, low[i]);
        store(out + i * UNITS + VL, high[i]);
    }
}

#define MICRO(m)                                                                                                       \
    static                                                                                                             \
        __attribute__((noinline)) void micro_##m(float *out, const float *x, size_t row, const float *panel, size_t k) \
    {                                                                                                                  \
        micro(out, x, row, panel, k, m);                                                                               \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)
#if VL >= 8
MICRO(5)
MICRO(6)
#endif
#if VL == 16
MICRO(7)
MICRO(8)
MICRO(9)
MICRO(10)
MICRO(11)
MICRO(12)
MICRO(13)
MICRO(14)
#endif

static void (*const micros[MR + 1])(float *, const float *, size_t, const float *, size_t) = {
    NULL,    micro_1, micro_2, micro_3,  micro_4,
#if VL >= 8
    micro_5, micro_6,
#endif
#if VL == 16
    micro_7, micro_8, micro_9, micro_10, micro_11, micro_12, micro_13, micro_14,
#endif
};

/* ---- a layer ---- */

struct layer {
    const struct call *call;
    const float *w;
    const int32_t *offsets;
    size_t units, gates, directions, sentences, rows, panels;
    bool gru;
};

static struct layer layer_of(const struct call *c, unsigned weights, unsigned offsets, size_t rows)
{
    struct layer l = {.call = c,
                      .w = c->in[weights],
                      .offsets = c->in[offsets],
                      .units = c->size.in[weights][1],
                      .directions = (size_t)c->attr->i[RECURRENT_DIRECTIONS],
                      .sentences = c->size.in[offsets][0] - 1,
                      .rows = rows,
                      .gru = c->attr->i[RECURRENT_CELL] == CELL_GRU};
    l.gates = recurrent_gates(l.gru);
    l.panels = tiles_of(l.units, UNITS);
    return l;
}

static size_t all_units(const struct layer *l)
{
    return l->directions * l->units;
}

static size_t length_of(const struct layer *l, size_t sentence)
{
    return (size_t)(l->offsets[sentence + 1] - l->offsets[sentence]);
}

/* The sentence's row at step t of a direction: the second one begins at the end. */
static size_t row_at(const struct layer *l, size_t direction, size_t sentence, size_t t)
{
    return (size_t)(direction ? l->offsets[sentence + 1] - 1 - (int32_t)t : l->offsets[sentence] + (int32_t)t);
}

/* Sentences in groups, each of falling length; a group's state rows follow each other in the same order. */
struct order {
    size_t groups;
    size_t *sentence, *first; /* (S); (groups + 1) */
};

/* The S sentences by falling length, dealt to the groups one by one. counts (N + 2). */
static void sort(const struct layer *l, struct order *o, size_t *counts)
{
    size_t most = 0;
    for (size_t s = 0; s < l->sentences; s++) most = length_of(l, s) > most ? length_of(l, s) : most;
    memset(counts, 0, (most + 2) * sizeof *counts);
    for (size_t s = 0; s < l->sentences; s++) counts[most - length_of(l, s) + 1]++;
    for (size_t i = 0; i < most; i++) counts[i + 1] += counts[i];
    for (size_t g = 0; g < o->groups; g++)
        o->first[g + 1] = o->first[g] + (l->sentences + o->groups - 1 - g) / o->groups;
    for (size_t s = 0; s < l->sentences; s++) {
        size_t rank = counts[most - length_of(l, s)]++;
        o->sentence[o->first[rank % o->groups] + rank / o->groups] = s;
    }
}

/* Sentences of the group that have a step t, given how many had one before or behind it. */
static size_t alive(const struct layer *l, const struct order *o, size_t group, size_t t, size_t guess)
{
    size_t first = o->first[group], all = o->first[group + 1] - first;
    while (guess && length_of(l, o->sentence[first + guess - 1]) <= t) guess--;
    while (guess < all && length_of(l, o->sentence[first + guess]) > t) guess++;
    return guess;
}

static size_t steps_of(const struct layer *l, const struct order *o, size_t group)
{
    return o->first[group + 1] > o->first[group] ? length_of(l, o->sentence[o->first[group]]) : 0;
}

/* How the threads divide a layer: groups of sentences that each go through all steps by themselves, or panels. */
static size_t groups_of(const struct layer *l)
{
    size_t threads = pool_threads(cpu_of(l->call)->pool), each = tiles_of(threads, l->directions);
    bool fits = l->gates * l->units * l->units * sizeof(float) <= CACHE;
    return fits && l->sentences >= each * LEAST_ROWS ? each : 1;
}

/* Rows are taken in blocks of nearly one size. */
static size_t block_rows(size_t rows)
{
    return tiles_of(rows, tiles_of(rows, MR));
}

static size_t padded(size_t floats)
{
    return tiles_of(floats, LINE) * LINE;
}

/* Floats between state rows of so many: rows that lay a power of two apart would share few places of the first cache.
 */
static size_t apart(size_t floats)
{
    return padded(floats) + LINE;
}

static size_t floats_of(size_t sizes)
{
    return padded(sizes * (sizeof(size_t) / sizeof(float)));
}

static float *take(float **at, size_t floats)
{
    float *here = *at;
    *at += padded(floats);
    return here;
}

static size_t *take_sizes(float **at, size_t count)
{
    return (size_t *)(void *)take(at, floats_of(count));
}

enum { MOST_GROUPS = 1024 };

static void take_order(struct order *o, const struct layer *l, float **at)
{
    size_t groups = groups_of(l);
    o->groups = groups > MOST_GROUPS ? MOST_GROUPS : groups;
    o->sentence = take_sizes(at, l->sentences + 1);
    o->first = take_sizes(at, MOST_GROUPS + 1);
    o->first[0] = 0;
    size_t *counts = take_sizes(at, l->rows + 2);
    sort(l, o, counts);
}

static size_t order_floats(const struct layer *l)
{
    return floats_of(l->sentences + 1) + floats_of(MOST_GROUPS + 1) + floats_of(l->rows + 2);
}

/* ---- forward ---- */

struct forward {
    struct layer l;
    struct order o;
    const float *x, *b, *own, *initial;
    float *y, *gates, *cell;
    float *packed; /* (d, panels, G, H, UNITS)                                */
    float *h[2];   /* (S, d H) the state in the order's rows, of even and odd steps */
    size_t row;    /* floats between its rows                                 */
    size_t t, chunks;
};

/* Weights of `UNITS` units of one gate: out (H, UNITS), zeros past the last unit. */
static void pack_units(const struct layer *l, float *out, size_t direction, size_t gate, size_t u)
{
    size_t n = least(UNITS, l->units - u);
    const float *w = l->w + ((direction * l->gates + gate) * l->units + u) * l->units;
    for (size_t k0 = 0; k0 < l->units; k0 += VL)
        for (size_t j = 0; j < UNITS; j++)
            for (size_t k = k0; k < least(l->units, k0 + VL); k++)
                out[k * UNITS + j] = j < n ? w[j * l->units + k] : 0.0f;
}

static void pack_forward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct forward *f = argument;
    const struct layer *l = &f->l;
    size_t gate = tile % l->gates, panel = tile / l->gates % l->panels, direction = tile / l->gates / l->panels;
    pack_units(l, f->packed + tile * l->units * UNITS, direction, gate, panel * UNITS);
}

/* sums (G, UNITS) += x (+ own), of n units; a GRU's sums of the new gate stay apart from x: they get the bias. */
static inline void add_inputs(float *sums, const struct layer *l, const float *x, const float *own, const float *b,
                              size_t stride, size_t n)
{
    for (size_t g = 0; g < l->gates; g++) {
        float *s = sums + g * stride;
        const float *xg = x + g * l->units;
        if (b) SIMD for (size_t j = 0; j < n; j++) s[j] += b[g * l->units + j];
        if (l->gru && g == GRU_GATES - 1) continue;
        SIMD for (size_t j = 0; j < n; j++) s[j] += xg[j];
        if (own) SIMD for (size_t j = 0; j < n; j++) s[j] += own[g * l->units + j];
    }
}

/* Gates (4, H) at `kept`, c and h of n units. The sums lie `stride` floats apart. */
static inline void lstm_units(float *restrict kept, size_t units, float *restrict c, float *restrict h,
                              const float *restrict sums, size_t stride, const float *restrict before, size_t n)
{
    SIMD for (size_t j = 0; j < n; j++)
    {
        float i = cpu_sigmoid(sums[j]), f = cpu_sigmoid(sums[stride + j]), g = cpu_tanh(sums[2 * stride + j]),
              o = cpu_sigmoid(sums[3 * stride + j]), now = i * g + (before ? f * before[j] : 0.0f);
        kept[j] = i;
        kept[units + j] = f;
        kept[2 * units + j] = g;
        kept[3 * units + j] = o;
        c[j] = now;
        h[j] = o * cpu_tanh(now);
    }
}

static inline void gru_units(float *restrict kept, size_t units, float *restrict h, const float *restrict sums,
                             size_t stride, const float *restrict xn, const float *restrict own,
                             const float *restrict before, size_t n)
{
    SIMD for (size_t j = 0; j < n; j++)
    {
        float r = cpu_sigmoid(sums[j]), z = cpu_sigmoid(sums[stride + j]), s = sums[2 * stride + j],
              v = cpu_tanh(xn[j] + (own ? own[j] : 0.0f) + r * s);
        kept[j] = r;
        kept[units + j] = z;
        kept[2 * units + j] = v;
        kept[3 * units + j] = s;
        h[j] = (1.0f - z) * v + (before ? z * before[j] : 0.0f);
    }
}

/* One sentence's units u .. u + n at step t; sums (G, MR, UNITS) of its row of the block. */
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

/* Panels p0 .. p1 of `count` sentences from state row `first` on. */
static void forward_panels(const struct forward *f, size_t direction, size_t first, size_t count, size_t p0, size_t p1,
                           size_t t)
{
    const struct layer *l = &f->l;
    float sums[GATES * MR * UNITS] __attribute__((aligned(64)));
    size_t block = block_rows(count);
    for (size_t p = p0; p < p1; p++)
        for (size_t i = 0; i < count; i += block) {
            size_t m = least(block, count - i);
            const float *panel = f->packed + (direction * l->panels + p) * l->gates * l->units * UNITS,
                        *h = f->h[t % 2] + (first + i) * f->row + direction * l->units;
            if (t || f->initial)
                for (size_t g = 0; g < l->gates; g++)
                    micros[m](sums + g * MR * UNITS, h, f->row, panel + g * l->units * UNITS, l->units);
            else
                memset(sums, 0, sizeof sums);
            for (size_t r = 0; r < m; r++)
                finish_units(f, direction, first + i + r, p * UNITS, least(UNITS, l->units - p * UNITS), t,
                             sums + r * UNITS, MR * UNITS);
        }
}

/* A group of sentences through all steps. */
static void forward_group(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct forward *f = argument;
    size_t group = tile / f->l.directions, steps = steps_of(&f->l, &f->o, group), rows = 0;
    for (size_t t = 0; t < steps; t++) {
        rows = alive(&f->l, &f->o, group, t, rows);
        forward_panels(f, tile % f->l.directions, f->o.first[group], rows, 0, f->l.panels, t);
    }
}

/* A thread's panels of step t. */
static void forward_chunk(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct forward *f = argument;
    size_t chunk = tile / f->l.directions, each = tiles_of(f->l.panels, f->chunks), p0 = chunk * each;
    size_t rows = alive(&f->l, &f->o, 0, f->t, f->l.sentences);
    if (p0 < f->l.panels) forward_panels(f, tile % f->l.directions, 0, rows, p0, least(f->l.panels, p0 + each), f->t);
}

static size_t chunks_of(const struct layer *l)
{
    return least(l->panels, tiles_of(pool_threads(cpu_of(l->call)->pool), l->directions));
}

static size_t packed_floats(const struct layer *l)
{
    return l->directions * l->panels * l->gates * l->units * UNITS;
}

void CPU(recurrent_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    struct layer l = layer_of(c, 1, 5, c->size.in[0][0]);
    *shared = (padded(packed_floats(&l)) + 2 * l.sentences * apart(all_units(&l)) + order_floats(&l)) * sizeof(float);
}

void CPU(recurrent)(const struct call *c)
{
    struct forward f = {.l = layer_of(c, 1, 5, c->size.in[0][0]),
                        .x = c->in[0],
                        .b = c->in[2],
                        .own = c->in[3],
                        .initial = c->in[4],
                        .y = c->out[0],
                        .gates = c->out[1],
                        .cell = c->out[2]};
    const struct layer *l = &f.l;
    float *at = c->scratch;
    size_t all = all_units(l), states = recurrent_states(l->gru);
    if (!l->sentences || !l->rows) return;
    f.packed = take(&at, packed_floats(l));
    f.row = apart(all);
    for (int i = 0; i < 2; i++) f.h[i] = take(&at, l->sentences * f.row);
    take_order(&f.o, l, &at);
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

/* ---- backward ---- */

struct backward {
    struct layer l;
    struct order o;
    const float *dy, *initial, *y, *gates, *cell;
    float *dx, *dinitial;
    float *packed;  /* (d, panels, G H, UNITS)                                                      */
    float *ds[2];   /* (S, d G H) gradients of the sums, in the order's rows, of even and odd steps  */
    size_t row;     /* floats between its rows                                                      */
    float *carried; /* (S, d H) what reaches the step before: LSTM dc, GRU z dh                      */
    float *dsums;   /* (N, d G H) gradients of the sums in sentences' rows: dx itself, of an LSTM    */
    float *h;       /* (N, d H) the h that a row began with                                          */
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

/* dh += dy; the gradients ds (4, H) of the sums and dc, which goes on to the step before. */
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

/* dx (3, H) too: its new gate's is not that of the sums. */
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

/* Units u .. u + n of one sentence at step t; dh: what the step behind it gives. */
static void finish_backward(const struct backward *b, size_t direction, size_t at, size_t u, size_t n, size_t t,
                            const float *dh)
{
    const struct layer *l = &b->l;
    size_t s = b->o.sentence[at], row = row_at(l, direction, s, t), all = all_units(l), d = direction * l->units + u,
           gate = direction * l->gates * l->units + u, width = l->directions * l->gates * l->units;
    bool last = t + 1 == length_of(l, s);
    size_t before = t ? row_at(l, direction, s, t - 1) * all + d
                      : s * recurrent_states(l->gru) * all + (l->gru ? 0 : all) + d; /* of y or cell; of initial */
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

/* The gradient of the first state, when step 0 is done. */
static void finish_initial(const struct backward *b, size_t direction, size_t at, size_t u, size_t n, const float *dh)
{
    const struct layer *l = &b->l;
    size_t s = b->o.sentence[at], all = all_units(l), d = direction * l->units + u;
    float *to = b->dinitial + s * recurrent_states(l->gru) * all + d;
    const float *carried = b->carried + at * all + d;
    for (size_t j = 0; j < n; j++) to[j] = l->gru ? dh[j] + carried[j] : dh[j];
    if (!l->gru) memcpy(to + all, carried, n * sizeof *to);
}

/* Panels p0 .. p1 of `count` sentences at the step `left` - 1, of which `behind` have the step behind it too; left 0:
 * what comes before all steps. */
static void backward_panels(const struct backward *b, size_t direction, size_t first, size_t count, size_t behind,
                            size_t p0, size_t p1, size_t left)
{
    const struct layer *l = &b->l;
    float dh[MR * UNITS] __attribute__((aligned(64)));
    size_t depth = l->gates * l->units, block = block_rows(count);
    for (size_t p = p0; p < p1; p++)
        for (size_t i = 0; i < count; i += block) {
            size_t m = least(block, count - i), from = i < behind ? least(m, behind - i) : 0, u = p * UNITS,
                   n = least(UNITS, l->units - u);
            if (from)
                micros[from](dh, b->ds[left % 2] + (first + i) * b->row + direction * depth, b->row,
                             b->packed + (direction * l->panels + p) * depth * UNITS, depth);
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
        if (left) rows = alive(&b->l, &b->o, group, left - 1, rows);
        backward_panels(b, tile % b->l.directions, b->o.first[group], rows, behind, 0, b->l.panels, left);
    }
}

static void backward_chunk(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct backward *b = argument;
    size_t chunk = tile / b->l.directions, each = tiles_of(b->l.panels, b->chunks), p0 = chunk * each;
    size_t rows = alive(&b->l, &b->o, 0, b->t ? b->t - 1 : 0, b->l.sentences),
           behind = alive(&b->l, &b->o, 0, b->t, b->l.sentences);
    if (p0 < b->l.panels)
        backward_panels(b, tile % b->l.directions, 0, rows, behind, p0, least(b->l.panels, p0 + each), b->t);
}

/* h before each row, for the product with the gradients of the sums. */
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
    float sum[COLUMNS] = {0}, *db = c->out[3];
    for (size_t r = 0; r < b->l.rows; r++) {
        const float *row = b->dsums + r * width + from;
        SIMD for (size_t j = 0; j < n; j++) sum[j] += row[j];
    }
    for (size_t j = 0; j < n; j++) db[from + j] = c->add[3] ? db[from + j] + sum[j] : sum[j];
}

static void weight_gradients(struct backward *b)
{
    const struct layer *l = &b->l;
    const struct call *c = l->call;
    size_t depth = l->gates * l->units, width = l->directions * depth;
    if (c->out[2]) {
        cpu_run(c, tiles_of(l->sentences, COPIED), earlier_rows, b);
        for (size_t d = 0; d < l->directions; d++) {
            struct product p = {.m = depth, .n = l->units, .k = l->rows, .ldc = l->units, .add = c->add[2]};
            p.c = (float *)c->out[2] + d * depth * l->units;
            p.a = (struct matrix){b->dsums + d * depth, 1, width};
            p.b = (struct matrix){b->h + d * l->units, all_units(l), 1};
            CPU(gemm)(c, &p);
        }
    }
    if (c->out[3]) cpu_run(c, tiles_of(width, COLUMNS), bias_columns, b);
}

enum { DY, WEIGHTS, OFFSETS, INITIAL, Y, GATES_KEPT, CELL };

void CPU(recurrent_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    struct layer l = layer_of(c, WEIGHTS, OFFSETS, c->size.in[DY][0]);
    size_t all = all_units(&l), width = l.gates * all;
    *per_worker = CPU(gemm_scratch)();
    *shared = (padded(packed_floats(&l)) + 2 * l.sentences * apart(width) + padded(l.sentences * all) +
               padded(l.rows * all) + (l.gru ? padded(l.rows * width) : 0) + order_floats(&l)) *
              sizeof(float);
}

void CPU(recurrent_backward)(const struct call *c)
{
    struct backward b = {.l = layer_of(c, WEIGHTS, OFFSETS, c->size.in[DY][0]),
                         .dy = c->in[DY],
                         .initial = c->in[INITIAL],
                         .y = c->in[Y],
                         .gates = c->in[GATES_KEPT],
                         .cell = c->in[CELL],
                         .dx = c->out[0],
                         .dinitial = c->out[1]};
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
        take_order(&b.o, l, &at);
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

/* ---- one new token per row ---- */

struct step {
    const struct call *call;
    size_t units, gates, states;
    bool gru;
    float *h, *sums; /* (R, H), (R, G H) */
};

static struct step step_of(const struct call *c)
{
    struct step s = {.call = c, .units = c->size.in[1][1], .gru = c->attr->i[RECURRENT_CELL] == CELL_GRU};
    s.gates = recurrent_gates(s.gru);
    s.states = recurrent_states(s.gru);
    return s;
}

void CPU(recurrent_step_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    struct step s = step_of(c);
    size_t rows = c->size.in[0][0];
    *shared = (padded(rows * s.units) + padded(rows * s.gates * s.units)) * sizeof(float);
    *per_worker = CPU(gemm_scratch)();
}

/* The state that a row continues (states H); null: zeros. */
static const float *continued(const struct step *s, size_t row)
{
    const struct call *c = s->call;
    const int32_t *history = c->in[6];
    size_t at = (size_t)((const int32_t *)c->in[5])[row], width = s->states * s->units;
    if (!at) return c->in[4] ? (const float *)c->in[4] + row * width : NULL;
    size_t from = history ? (size_t)history[row * c->size.in[6][1] + at - 1] : row;
    return (const float *)c->out[1] + (from * 2 + at % 2) * width;
}

static void gather_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct step *s = argument;
    size_t end = least(s->call->size.in[0][0], (tile + 1) * COPIED);
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
    size_t width = s->gates * s->units, end = least(c->size.in[0][0], (tile + 1) * COPIED);
    for (size_t r = tile * COPIED; r < end; r++) {
        const float *x = (const float *)c->in[0] + r * width,
                    *own = c->in[3] ? (const float *)c->in[3] + r * width : NULL, *from = continued(s, r);
        float *sums = s->sums + r * width, *y = (float *)c->out[0] + r * s->units;
        size_t at = (size_t)((const int32_t *)c->in[5])[r];
        float *to = (float *)c->out[1] + (r * 2 + (at + 1) % 2) * s->states * s->units;
        for (size_t u = 0; u < s->units; u += UNITS) {
            float kept[KEPT_GATES * UNITS];
            size_t n = least(UNITS, s->units - u);
            add_inputs(sums + u, &l, x + u, own ? own + u : NULL, c->in[2] ? (const float *)c->in[2] + u : NULL,
                       s->units, n);
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
    size_t rows = c->size.in[0][0], tiles = tiles_of(rows, COPIED);
    float *at = c->scratch;
    s.h = take(&at, rows * s.units);
    s.sums = take(&at, rows * s.gates * s.units);
    cpu_run(c, tiles, gather_rows, &s);
    struct product p = {.m = rows, .n = s.gates * s.units, .k = s.units, .c = s.sums, .ldc = s.gates * s.units};
    p.a = (struct matrix){s.h, s.units, 1};
    p.b = (struct matrix){c->in[1], 1, s.units};
    CPU(gemm)(c, &p);
    cpu_run(c, tiles, step_rows, &s);
}
