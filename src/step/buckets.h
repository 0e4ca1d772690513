/* The buckets in which gradients travel between ranks: parts of their arena in the order in which the backward pass
 * finishes them, so that one is on its way while the next is computed. They depend on the recording alone, not on ranks
 * or counts. */
#ifndef STEP_BUCKETS_H
#define STEP_BUCKETS_H

#include "elbo/status.h"
#include "graph/parameters.h"
#include "step/lanes.h"

struct bucket_range {
    size_t first, count; /* elements of the arena, multiples of PARAMETER_ALIGNMENT */
};

/* Ranges of several groups of parameters and of the figures behind them, in this order. */
struct bucket {
    size_t ready; /* step of the schedule after which nothing writes into it; the bucket before it may have the same */
    size_t elements;
    size_t ranges;
    struct bucket_range range[GROUPS + 1];
};

struct buckets {
    struct bucket *list;
    size_t count;
};

/* ready[i]: the step that finishes the gradient of parameter i. `figures` elements behind the gradients travel with the
 * last. A bucket has `room` elements (0: any number) or less, and is sent off when it has so many, or at the end. */
elbo_status buckets_create(struct buckets *b, const struct parameters *p, const size_t *ready, size_t figures,
                           size_t room, elbo_error *error);
/* Of an arena of which nothing is known: all is ready at step 0. */
elbo_status buckets_create_plain(struct buckets *b, size_t elements, size_t room, elbo_error *error);
void buckets_free(struct buckets *b);

size_t buckets_largest(const struct buckets *b); /* elements */

/* The rank's piece of a bucket, in elements of the bucket: whole blocks of PARAMETER_ALIGNMENT; earlier ranks have the
 * larger ones. */
struct lane_run bucket_piece(const struct bucket *b, size_t ranks, size_t rank);

/* Takes the first elements off a run of a bucket's elements that lie together in the arena. */
struct bucket_range bucket_take(const struct bucket *b, struct lane_run *run);

#endif
