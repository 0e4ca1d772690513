/* Lanes: what makes a step's sums the same bits on any number of ranks.
 *
 * The slots of a batch lie in L lanes, contiguous runs of them; a lane's slots are added in order, and the lanes along
 * one binary tree whose left parts hold as many lanes as the largest power of two below the whole:
 *
 *     L = 6:   ((0 + 1) + (2 + 3)) + (4 + 5)
 *
 * A rank has a contiguous run of lanes. It sums the largest whole nodes of the tree within its run, its roots; the rest
 * of the tree is summed where the ranks' roots meet. */
#ifndef STEP_LANES_H
#define STEP_LANES_H

#include <stdbool.h>
#include <stddef.h>

struct lane_run {
    size_t first, count;
};

/* The r-th of n contiguous runs of `whole`: of slots in lanes, of lanes in ranks. */
struct lane_run lane_run_of(size_t whole, size_t n, size_t r);

/* Lanes of the left part of a node of `count` > 1. */
size_t lanes_left(size_t count);

/* The roots of the lanes in `own`, in order; returns how many. `roots` null: only counts. At most 2 log2(lanes) + 1. */
size_t lanes_roots(struct lane_run *roots, size_t lanes, struct lane_run own);

/* After lane `lane` of a rank that has `own`: how many of the sums set aside before are added to it, the newest first.
 * What comes out is set aside, unless it is the rank's last. */
size_t lanes_joined(size_t lanes, struct lane_run own, size_t lane);

/* Sums set aside at most while a rank works through its lanes. */
size_t lanes_aside(size_t lanes, struct lane_run own);

#endif
