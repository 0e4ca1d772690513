/* Gathers the weights that ranks have updated by pieces (buckets.h) on every rank. Buckets travel in the order in which
 * a slot reads them, concurrently with its forward pass, which waits for a bucket only where it is needed.
 *
 * Call gathering_step before each step of a slot's schedule, with the number of finished steps, and at its end. The
 * first call begins; after the last call all weights have arrived. Nothing else may be exchanged between ranks
 * meanwhile, unless gathering_finish was called before. */
#ifndef STEP_GATHERING_H
#define STEP_GATHERING_H

#include "graph/execute.h"
#include "step/buckets.h"
#include "job/collectives.h"

enum { GATHERING_ARENAS = 2 };

struct gathering_options {
    struct backend *backend;
    struct collectives *collectives;
    const struct buckets *buckets; /* must outlive the gathering, like the parameters */
    const struct parameters *parameters;
    unsigned groups;             /* bit g: group g is gathered */
    const struct graph *slot;    /* the graph whose steps are counted */
    struct weight_arenas arenas; /* working null: no bf16 weights; else masters travel only if the slot reads them */
};

struct gathering;

elbo_status gathering_create(struct gathering **g, const struct gathering_options *options, elbo_error *error);
void gathering_free(struct gathering *g);

elbo_status gathering_step(struct gathering *g, size_t done, size_t steps, elbo_error *error);
elbo_status gathering_finish(struct gathering *g, elbo_error *error);

/* Gathers all weights in both arenas at once, between steps, for other readers. */
elbo_status gathering_whole(struct gathering *g, elbo_error *error);

#endif
