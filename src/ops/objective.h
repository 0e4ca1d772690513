/* Attributes by which op_objective and its gradient tell their kernels which weights are whose. */
#ifndef OPS_OBJECTIVE_H
#define OPS_OBJECTIVE_H

#include "graph/graph.h"

enum { OBJECTIVE_TERMS = MAX_INPUTS - 2, OBJECTIVE_ELBO = 0xffff };

/* Attributes: four indices into the weights in each integer. Of the op, one for each term; of its gradient, one for
 * each output, where OBJECTIVE_ELBO says that the output is the gradient of the ELBO's parts. */
static inline void objective_set(struct attributes *a, size_t k, unsigned index)
{
    a->i[k / 4] |= (int64_t)index << (k % 4 * 16);
}

static inline unsigned objective_index(const struct attributes *a, size_t k)
{
    return (unsigned)((uint64_t)a->i[k / 4] >> (k % 4 * 16) & 0xffff);
}

#endif
