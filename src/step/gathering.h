/* The weights that ranks have updated by pieces (buckets.h), back on every rank: bucket by bucket in the order in which
 * a slot reads them, beside its forward pass, which waits for a bucket only where it is needed.
 *
 * gathering_step comes before each step of a slot's schedule, with the number of those behind it; the first begins, and
 * with the last all is there. Nothing else may be exchanged between ranks meanwhile, unless gathering_finish came
 * before. */
#ifndef STEP_GATHERING_H
#define STEP_GATHERING_H

#include "graph/execute.h"
#include "step/buckets.h"
#include "job/collectives.h"

enum { GATHERING_ARENAS = 2 };

struct gathering_options {
    struct backend *backend;
    struct collectives *collectives;
    const struct buckets *buckets; /* outlive the gathering, as the parameters   */
    const struct parameters *parameters;
    unsigned groups;             /* bit g: of group g                          */
    const struct graph *slot;    /* of which the steps are                     */
    struct weight_arenas arenas; /* working null: there is none; else masters travel only where the slot reads them */
};

struct gathering;

elbo_status gathering_create(struct gathering **g, const struct gathering_options *options, elbo_error *error);
void gathering_free(struct gathering *g);

elbo_status gathering_step(struct gathering *g, size_t done, size_t steps, elbo_error *error);
elbo_status gathering_finish(struct gathering *g, elbo_error *error);

/* All weights in both arenas, at once: between steps, for what reads them there. */
elbo_status gathering_whole(struct gathering *g, elbo_error *error);

#endif
