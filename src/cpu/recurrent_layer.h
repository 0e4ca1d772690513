/* Shared by the forward and the backward pass of a recurrent layer (ops/recurrent.c has the equations).
 *
 * Sentences are sorted by falling length, so at step t the first B_t of them are alive and nothing is padded. Their
 * states lie densely in that order. A step is one product of B_t rows with weights whose panels are packed once a call.
 * A panel holds the weights of 2 VL columns of the product.
 *
 * If the weights fit in a core's own cache, each thread takes a group of sentences through all steps without waiting.
 * Else each thread computes its panels of a step, and all threads meet before the next step. Each element is one chain
 * of multiply-adds either way, so the bits are the same. */
#ifndef CPU_RECURRENT_LAYER_H
#define CPU_RECURRENT_LAYER_H

#include "cpu/panel_product.h"
#include "ops/recurrent.h"

enum { UNITS = PANEL, GATES = 4 }; /* columns of a panel; most gates of a cell */
enum { LINE = 16, COPIED = 32 };   /* floats of a cache line; rows that a thread copies at once */

/* ---- a layer ---- */

struct layer {
    const struct call *call;
    const float *w;
    const int32_t *offsets;
    size_t units, gates, directions, sentences, rows, panels;
    bool gru;
};

static inline struct layer layer_of(const struct call *c, unsigned weights, unsigned offsets, size_t rows)
{
    struct layer l = {.call = c,
                      .w = c->in[weights],
                      .offsets = c->in[offsets],
                      .units = c->size.in[weights][1],
                      .directions = (size_t)c->attr->i[RECURRENT_DIRECTIONS],
                      .sentences = c->size.in[offsets][0] - 1,
                      .rows = rows,
                      .gru = c->attr->i[RECURRENT_CELL] == RECURRENT_GRU};
    l.gates = recurrent_gates(l.gru);
    l.panels = tiles_of(l.units, UNITS);
    return l;
}

static inline size_t all_units(const struct layer *l)
{
    return l->directions * l->units;
}

static inline size_t length_of(const struct layer *l, size_t sentence)
{
    return (size_t)(l->offsets[sentence + 1] - l->offsets[sentence]);
}

/* Returns the sentence's row at step t. The second direction begins at the sentence's end. */
static inline size_t row_at(const struct layer *l, size_t direction, size_t sentence, size_t t)
{
    return (size_t)(direction ? l->offsets[sentence + 1] - 1 - (int32_t)t : l->offsets[sentence] + (int32_t)t);
}

/* ---- the order of sentences ---- */

/* Sentences in groups, each sorted by falling length. A group's state rows are contiguous and in the same order. */
struct order {
    size_t groups;
    size_t *sentence, *first; /* (S); (groups + 1) */
};

/* recurrent_order sorts the layer's sentences in memory taken from `at`; recurrent_order_floats returns the size of
 * that memory. */
void CPU(recurrent_order)(struct order *o, const struct layer *l, float **at);
size_t CPU(recurrent_order_floats)(const struct layer *l);

/* Returns how many sentences of the group have a step t; the search begins at `guess`. */
size_t CPU(recurrent_alive)(const struct layer *l, const struct order *o, size_t group, size_t t, size_t guess);

static inline size_t steps_of(const struct layer *l, const struct order *o, size_t group)
{
    return o->first[group + 1] > o->first[group] ? length_of(l, o->sentence[o->first[group]]) : 0;
}

/* ---- pieces of work ---- */

static inline size_t chunks_of(const struct layer *l)
{
    return least(l->panels, tiles_of(pool_threads(cpu_of(l->call)->pool), l->directions));
}

static inline size_t packed_floats(const struct layer *l)
{
    return l->directions * l->panels * l->gates * l->units * UNITS;
}

/* ---- memory ---- */

static inline size_t padded(size_t floats)
{
    return tiles_of(floats, LINE) * LINE;
}

/* Returns the stride of rows of so many floats. Rows a power of two apart would conflict in a few sets of the L1
 * cache. */
static inline size_t apart(size_t floats)
{
    return padded(floats) + LINE;
}

static inline float *take(float **at, size_t floats)
{
    float *here = *at;
    *at += padded(floats);
    return here;
}

#endif
