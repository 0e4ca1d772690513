/* The sum of a step's gradients, and of the figures behind them, over lanes and ranks: one arena of f32 in the
 * backend's memory.
 *
 *     reduction_create(&r, &options, &error);
 *     for (lane of reduction_own(r)) {
 *         slots of the lane: the first overwrites the arena, later ones add
 *         reduction_lane(r, lane);
 *     }
 *     reduction_finish(r, &error);      -- the arena holds the sum on every rank, or the rank's pieces of it
 *
 * Of the last slot of the last lane reduction_step is told how far its backward pass has come: a bucket that is
 * finished sets out then, beside the work that follows, and reduction_finish has the last one to wait for.
 *
 * Ordered: lanes are added along their tree (step/lanes.h), so the bits do not depend on the number of ranks. Each
 * rank owns a piece of every bucket, in blocks of 1,024 elements; it gets the other ranks' roots of its piece, adds
 * them in the order of the tree, and sends the sum back. Not ordered: the collectives' own sum. Nothing is allocated
 * after creation. */
#ifndef STEP_REDUCTION_H
#define STEP_REDUCTION_H

#include "graph/backend.h"
#include "step/buckets.h"
#include "job/collectives.h"

struct reduction;

struct reduction_options {
    struct backend *backend;
    struct collectives *collectives; /* null: one rank                              */
    float *arena;
    size_t elements; /* a multiple of PARAMETER_ALIGNMENT           */
    size_t lanes;    /* at least as many as ranks                   */
    bool ordered;
    size_t kept; /* ordered: sums of elements before this one stay with the rank of their piece (buckets.h); 0: all
                    come back; an edge of a bucket's range */
    const struct buckets *buckets; /* of all elements; outlive the reduction      */
};

elbo_status reduction_create(struct reduction **r, const struct reduction_options *options, elbo_error *error);
void reduction_free(struct reduction *r);

/* The lanes of this rank. */
struct lane_run reduction_own(const struct reduction *r);

/* The arena holds the sum of this lane of the rank's; lanes come in order. */
void reduction_lane(struct reduction *r, size_t lane);
/* Steps 0 .. step of the last slot's schedule were launched. */
elbo_status reduction_step(struct reduction *r, size_t step, elbo_error *error);
elbo_status reduction_finish(struct reduction *r, elbo_error *error);

/* Seconds that the host spent waiting for other ranks, since the last call of this; 0 where a device does that. */
double reduction_waited(struct reduction *r);
/* Seconds of the last sum that were left when its backward pass had ended; NaN while a device does not know. */
double reduction_exposed(const struct reduction *r);

/* Bytes of memory that a reduction takes beside the arena, for plans; `largest`: elements of a bucket. */
size_t reduction_bytes(size_t elements, size_t lanes, size_t ranks, size_t rank, bool ordered, size_t largest);

#endif
