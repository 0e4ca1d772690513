/* The memory plan. The lifetimes of the activations along the schedule are known, so each activation gets an offset in
 * one arena before the first step. An op's scratch also gets an offset and lives while the op runs. Values whose
 * lifetimes do not meet share bytes. */
#ifndef GRAPH_PLAN_H
#define GRAPH_PLAN_H

#include "graph/graph.h"

enum { PLAN_ALIGNMENT = 256 }; /* alignment of GPU memory, which the choice of products depends on */

struct plan {
    size_t *offset;  /* (values) offsets of activations, in bytes */
    size_t *scratch; /* (steps) offsets of the op's scratch, in bytes */
    size_t bytes;    /* of the arena at the capacities */
    size_t sum;      /* bytes of all values and scratch if none were shared */
};

/* Plans with every count at its capacity. `scratch` (steps): scratch bytes of each step's op; null: none. */
elbo_status plan_create(struct plan *plan, const struct graph *g, const size_t *scratch, elbo_error *error);
void plan_free(struct plan *plan);

#endif
