/* The sum of a step's gradients, and of the figures after them, over lanes and ranks: one arena of f32 in the
 * backend's memory.
 *
 *     reduction_create(&r, &options, &error);
 *     for (lane of reduction_own(r)) {
 *         slots of the lane: the first overwrites the arena, later ones add
 *         reduction_lane(r, lane);
 *     }
 *     reduction_finish(r, &error);      -- the arena holds the sum on every rank, or the rank's pieces of it
 *
 * During the last slot of the last lane, reduction_step is told the progress of the backward pass. A finished bucket is
 * sent at once, concurrently with the following work, so reduction_finish waits only for the last one.
 *
 * Ordered: lanes are added along their tree (step/lanes.h), so the bits do not depend on the number of ranks. Each rank
 * owns a piece of every bucket, in blocks of 1,024 elements. It receives the other ranks' roots of its piece, adds them
 * in the order of the tree, and sends the sum back. Not ordered: the collectives' own sum. Nothing is allocated after
 * creation. */
#ifndef STEP_REDUCTION_H
#define STEP_REDUCTION_H

#include "graph/backend.h"
#include "step/buckets.h"
#include "job/collectives.h"

struct reduction;

struct reduction_options {
    struct backend *backend;
    struct collectives *collectives; /* null: one rank */
    float *arena;
    size_t elements; /* a multiple of PARAMETER_ALIGNMENT */
    size_t lanes;    /* at least the number of ranks */
    bool ordered;
    size_t kept; /* ordered: sums of elements before this one stay with the rank of their piece (buckets.h), 0: all are
                    sent back; must be an edge of a bucket's range */
    const struct buckets *buckets; /* of all elements; must outlive the reduction */
};

elbo_status reduction_create(struct reduction **r, const struct reduction_options *options, elbo_error *error);
void reduction_free(struct reduction *r);

/* Returns the lanes of this rank. */
struct lane_run reduction_own(const struct reduction *r);

/* Ends a lane: the arena holds its sum. Lanes come in order. */
void reduction_lane(struct reduction *r, size_t lane);
/* Tells that steps 0 .. step of the last slot's schedule were launched. */
elbo_status reduction_step(struct reduction *r, size_t step, elbo_error *error);
elbo_status reduction_finish(struct reduction *r, elbo_error *error);

/* Returns the seconds that the host waited for other ranks since the last call; 0 if a device does the waiting. */
double reduction_waited(struct reduction *r);
/* Returns the seconds of the last sum that remained after its backward pass; NaN while a device does not know. */
double reduction_exposed(const struct reduction *r);

/* Returns the bytes that a reduction takes besides the arena, for plans; `largest`: elements of the largest bucket. */
size_t reduction_bytes(size_t elements, size_t lanes, size_t ranks, size_t rank, bool ordered, size_t largest);

#endif
