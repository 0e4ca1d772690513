/* The sums of a step's gradients and figures over slots, lanes and ranks, and the share of the moments that each rank
 * keeps (ZeRO): the lanes and pieces of each rank, and the order of the exchange. */
#ifndef STEP_SUMS_H
#define STEP_SUMS_H

#include "job/collectives.h"
#include "model/model.h"
#include "step/gathering.h"
#include "step/optimizer.h"
#include "step/reduction.h"
#include "text/slots.h"

struct sums_options {
    struct collectives *collectives; /* null: one rank, or only planned */
    size_t ranks, rank;              /* ranks 0 or 1: one rank */
    size_t lanes;                    /* 0: one for each rank */
    bool ordered;                    /* added along the lanes' tree: bits do not depend on the ranks */
    bool zero;                       /* each of several ranks keeps and updates its share of the moments */
    size_t bucket;                   /* elements that travel at once; 0: all */
};

/* Refuses fewer slots or lanes than ranks: ELBO_USAGE. */
elbo_status sums_check(const struct sums_options *o, size_t slots, elbo_error *error);

size_t sums_ranks(const struct sums_options *o); /* at least 1 */
size_t sums_lanes(const struct sums_options *o);

/* Sets own_first and own_count to the slots of this rank's lanes. */
void sums_own_slots(const struct sums_options *o, struct slot_options *slots);

struct sums {
    struct sums_options options;
    size_t slots;                /* of a batch */
    struct optimizer *optimizer; /* its gradients are summed */
    struct buckets buckets;
    struct reduction *reduction;
    struct gathering *gathering; /* null: no rank updates weights for others */
};

/* Creates only the buckets of a recording's gradients and of the figures after them. */
elbo_status sums_plan(struct sums *s, const struct sums_options *o, const struct recording *r,
                      const struct parameters *p, elbo_error *error);
/* Returns the elements after the gradients in their arena: the figures, padded. */
size_t sums_figures(const struct recording *r);
/* Returns the share that this rank's optimizer updates; `s` must keep its address. */
struct optimizer_share sums_share(struct sums *s);
/* Opens the reduction and the gathering, once the optimizer has its arenas. */
elbo_status sums_open(struct sums *s, struct optimizer *optimizer, const struct recording *slot, struct model *m,
                      elbo_error *error);
void sums_close(struct sums *s);

/* When gradients travel: concurrently with the backward pass that finishes them, after it, or not at all. */
enum sums_travel { SUMS_BESIDE, SUMS_BEHIND, SUMS_NOT };

/* Runs this rank's slots, lane by lane. `slot` launches slot `number`, with a callback for its progress (null:
 * none). */
typedef elbo_status (*sums_slot)(void *context, size_t number, bool first_of_lane, execute_progress progress,
                                 void *progress_context, elbo_error *error);
elbo_status sums_run(struct sums *s, size_t slots, enum sums_travel travel, sums_slot slot, void *context,
                     elbo_error *error);

#endif
