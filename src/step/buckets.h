/* The buckets in which gradients travel between ranks: parts of their arena in the order in which the backward pass
 * finishes them, so that one is sent while the next is computed. Buckets depend on the recording alone, not on ranks or
 * counts. */
#ifndef STEP_BUCKETS_H
#define STEP_BUCKETS_H

#include "elbo/status.h"
#include "graph/parameters.h"
#include "step/lanes.h"

struct bucket_range {
    size_t first, count; /* elements of the arena, multiples of PARAMETER_ALIGNMENT */
};

/* Ranges of several groups of parameters, then of the figures after them. */
struct bucket {
    size_t ready; /* last step of the schedule that writes into the bucket; buckets may share a step */
    size_t elements;
    size_t ranges;
    struct bucket_range range[GROUPS + 1];
};

struct buckets {
    struct bucket *list;
    size_t count;
};

/* Creates the buckets. ready[i] is the step that finishes the gradient of parameter i. The `figures` elements after
 * the gradients belong to the last bucket. A bucket has at most `room` elements (0: no limit), and is closed when it
 * has `room` elements, or at the end. */
elbo_status buckets_create(struct buckets *b, const struct parameters *p, const size_t *ready, size_t figures,
                           size_t room, elbo_error *error);
/* Creates the buckets of an arena without a recording: all are ready at step 0. */
elbo_status buckets_create_plain(struct buckets *b, size_t elements, size_t room, elbo_error *error);
void buckets_free(struct buckets *b);

size_t buckets_largest(const struct buckets *b); /* elements */

/* Returns the rank's piece of a bucket, in elements of the bucket: whole blocks of PARAMETER_ALIGNMENT. Earlier ranks
 * have the larger pieces. */
struct lane_run bucket_piece(const struct bucket *b, size_t ranks, size_t rank);

/* Takes the first elements off a run of a bucket's elements, as many as are contiguous in the arena. */
struct bucket_range bucket_take(const struct bucket *b, struct lane_run *run);

#endif
