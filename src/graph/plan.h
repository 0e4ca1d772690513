/* The memory plan: lifetimes of the activations along the schedule are known, so each gets an offset in one arena
 * before the first step; values whose lifetimes do not meet share bytes. */
#ifndef GRAPH_PLAN_H
#define GRAPH_PLAN_H

#include "graph/graph.h"

enum { PLAN_ALIGNMENT = 64 };

struct plan {
    size_t *offset;       /* (values) of activations, bytes        */
    size_t bytes;         /* of the arena at the capacities        */
    size_t sum;           /* of all activations, had each its own  */
};

/* Plans with every count at its capacity. */
elbo_status plan_create(struct plan *plan, const struct graph *g, elbo_error *error);
void plan_free(struct plan *plan);

#endif
