/* The memory plan: lifetimes of the activations along the schedule are known, so each gets an offset in one arena
 * before the first step, and so does an op's scratch, which lives while the op runs; what does not live at one time
 * shares bytes. */
#ifndef GRAPH_PLAN_H
#define GRAPH_PLAN_H

#include "graph/graph.h"

enum { PLAN_ALIGNMENT = 256 }; /* what memory of a GPU is aligned to, by which products are chosen */

struct plan {
    size_t *offset;  /* (values) of activations, bytes        */
    size_t *scratch; /* (steps) of the op's scratch, bytes    */
    size_t bytes;    /* of the arena at the capacities        */
    size_t sum;      /* of all of them, had each its own      */
};

/* Plans with every count at its capacity. `scratch` (steps): bytes that the op of each step wants for itself; null:
 * none. */
elbo_status plan_create(struct plan *plan, const struct graph *g, const size_t *scratch, elbo_error *error);
void plan_free(struct plan *plan);

#endif
