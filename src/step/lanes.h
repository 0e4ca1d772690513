/* Lanes: they give a step's sums the same bits on any number of ranks.
 *
 * The slots of a batch lie in L lanes, in contiguous runs. A lane's slots are added in order, and the lanes along one
 * binary tree whose left parts hold as many lanes as the largest power of two below the whole:
 *
 *     L = 6:   ((0 + 1) + (2 + 3)) + (4 + 5)
 *
 * A rank has a contiguous run of lanes. It sums the largest whole nodes of the tree within its run, its roots. The rest
 * of the tree is summed where the ranks' roots meet. */
#ifndef STEP_LANES_H
#define STEP_LANES_H

#include <stdbool.h>
#include <stddef.h>

struct lane_run {
    size_t first, count;
};

/* Returns the r-th of n contiguous runs of `whole`: slots in lanes, lanes in ranks. */
struct lane_run lane_run_of(size_t whole, size_t n, size_t r);

/* Returns the lanes of the left part of a node of `count` > 1. */
size_t lanes_left(size_t count);

/* Writes the roots of the lanes in `own`, in order, and returns their number, at most 2 log2(lanes) + 1. `roots` null:
 * only counts. */
size_t lanes_roots(struct lane_run *roots, size_t lanes, struct lane_run own);

/* Returns how many sums set aside before are added to the sum after lane `lane` of a rank that has `own`, the newest
 * first. The result is set aside, unless the lane is the rank's last. */
size_t lanes_joined(size_t lanes, struct lane_run own, size_t lane);

/* Returns the most sums that are set aside at once while a rank works through its lanes. */
size_t lanes_aside(size_t lanes, struct lane_run own);

#endif
