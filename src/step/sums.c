/* The sums of a step over slots, lanes and ranks: which slots a rank has, and the exchange of gradients, updated
 * weights and block sums between ranks. */
#include "step/sums.h"
#include "base/checked.h"

#include <stdlib.h>

size_t sums_ranks(const struct sums_options *o)
{
    return o->ranks ? o->ranks : 1;
}

size_t sums_lanes(const struct sums_options *o)
{
    return o->lanes ? o->lanes : sums_ranks(o);
}

elbo_status sums_check(const struct sums_options *o, size_t slots, elbo_error *error)
{
    size_t ranks = sums_ranks(o), lanes = sums_lanes(o);
    if (slots < ranks)
        return elbo_fail(error, ELBO_USAGE,
                         "train.slots = %zu are fewer than the %zu ranks, and each needs one; raise train.slots, or "
                         "start fewer ranks",
                         slots, ranks);
    if (lanes < ranks)
        return elbo_fail(error, ELBO_USAGE,
                         "%zu lanes are fewer than the %zu ranks, and each needs one; raise parallel.lanes (and "
                         "train.slots), or start fewer ranks; more lanes are other sums, so other bits",
                         lanes, ranks);
    return ELBO_OK;
}

void sums_own_slots(const struct sums_options *o, struct slot_options *slots)
{
    size_t lanes = sums_lanes(o);
    struct lane_run own = lane_run_of(lanes, sums_ranks(o), o->rank);
    struct lane_run last = lane_run_of(slots->slots, lanes, own.first + own.count - 1);
    slots->own_first = lane_run_of(slots->slots, lanes, own.first).first;
    slots->own_count = last.first + last.count - slots->own_first;
}

size_t sums_figures(const struct recording *r)
{
    return align_up(recording_state_elements(r), PARAMETER_ALIGNMENT);
}

elbo_status sums_plan(struct sums *s, const struct sums_options *o, const struct recording *r,
                      const struct parameters *p, elbo_error *error)
{
    *s = (struct sums){.options = *o};
    size_t *ready = calloc(parameters_count(p) + 1, sizeof *ready);
    if (!ready) return elbo_fail(error, ELBO_MEMORY, "no memory for the buckets of gradients");
    graph_ready(r->g, ready);
    elbo_status status = buckets_create(&s->buckets, p, ready, sums_figures(r), o->bucket, error);
    free(ready);
    return status;
}

/* ---- sharing the moments between ranks ---- */

/* Sends the sums of every rank's blocks to every rank, because norms are of whole gradients. */
static elbo_status exchange_sums(void *context, elbo_error *error)
{
    const struct sums *s = context;
    const struct update_kind *o = &s->optimizer->kind[s->optimizer->now];
    size_t ranks = s->options.ranks, rank = s->options.rank, n = 0;
    size_t own = o->section[rank], count = o->section[rank + 1] - own;
    struct transfer *list = calloc(2 * ranks, sizeof *list);
    if (!list) return elbo_fail(error, ELBO_MEMORY, "no memory for the pieces of %zu messages", 2 * ranks);
    for (size_t r = 0; r < ranks; r++) {
        size_t theirs = o->section[r + 1] - o->section[r];
        if (r != rank && count) list[n++] = (struct transfer){r, o->sums + own, count * sizeof *o->sums, false};
        if (r != rank && theirs)
            list[n++] = (struct transfer){r, o->sums + o->section[r], theirs * sizeof *o->sums, true};
    }
    elbo_status status = collectives_exchange(s->options.collectives, list, n, error);
    free(list);
    return status;
}

struct optimizer_share sums_share(struct sums *s)
{
    bool shares = s->options.zero && sums_ranks(&s->options) > 1;
    return (struct optimizer_share){shares ? s->options.ranks : 1, shares ? s->options.rank : 0, &s->buckets,
                                    exchange_sums, s};
}

elbo_status sums_open(struct sums *s, struct optimizer *optimizer, const struct recording *slot, struct model *m,
                      elbo_error *error)
{
    const struct sums_options *o = &s->options;
    size_t gradients = parameters_arena_elements(m->parameters);
    bool shares = optimizer->share.ranks > 1;
    s->optimizer = optimizer;
    struct reduction_options reduction = {.backend = m->backend,
                                          .collectives = o->collectives,
                                          .arena = optimizer->gradients,
                                          .elements = gradients + sums_figures(slot),
                                          .lanes = sums_lanes(o),
                                          .ordered = o->ordered,
                                          .kept = shares ? gradients : 0,
                                          .buckets = &s->buckets};
    ELBO_TRY(reduction_create(&s->reduction, &reduction, error));
    if (!shares) return ELBO_OK;
    struct gathering_options weights = {.backend = m->backend,
                                        .collectives = o->collectives,
                                        .buckets = &s->buckets,
                                        .parameters = m->parameters,
                                        .groups = optimizer_wanted(&optimizer->config),
                                        .slot = slot->g,
                                        .arenas = model_weights(m)};
    return gathering_create(&s->gathering, &weights, error);
}

void sums_close(struct sums *s)
{
    reduction_free(s->reduction);
    gathering_free(s->gathering);
    buckets_free(&s->buckets);
    *s = (struct sums){0};
}

/* ---- a step: a bucket of gradients is sent when the last slot has finished it, and at the step's end all have
 * arrived; the first slot waits for weights that other ranks updated as it needs them ---- */

static elbo_status sum(void *context, size_t done, size_t steps, elbo_error *error)
{
    struct sums *s = context;
    if (!done) return ELBO_OK;
    return done < steps ? reduction_step(s->reduction, done - 1, error) : reduction_finish(s->reduction, error);
}

static elbo_status sum_behind(void *context, size_t done, size_t steps, elbo_error *error)
{
    return done < steps ? ELBO_OK : reduction_finish(((struct sums *)context)->reduction, error);
}

static elbo_status gather(void *context, size_t done, size_t steps, elbo_error *error)
{
    return gathering_step(((struct sums *)context)->gathering, done, steps, error);
}

/* Messages between two ranks arrive in the order of sending, so on every rank all weights are gathered before the first
 * gradients are sent. */
static elbo_status gather_and_sum(void *context, size_t done, size_t steps, elbo_error *error)
{
    struct sums *s = context;
    bool sums = done == steps || (done && s->buckets.list[0].ready <= done - 1);
    ELBO_TRY(sums ? gathering_finish(s->gathering, error) : gather(context, done, steps, error));
    return sum(context, done, steps, error);
}

static execute_progress progress_of(bool gathers, bool sums)
{
    return gathers && sums ? gather_and_sum : gathers ? gather : sums ? sum : NULL;
}

elbo_status sums_run(struct sums *s, size_t slots, enum sums_travel travel, sums_slot slot, void *context,
                     elbo_error *error)
{
    struct lane_run own = reduction_own(s->reduction);
    bool beside = travel == SUMS_BESIDE;
    for (size_t lane = own.first; lane < own.first + own.count; lane++) {
        struct lane_run run = lane_run_of(slots, sums_lanes(&s->options), lane);
        for (size_t i = run.first; i < run.first + run.count; i++) {
            bool first = lane == own.first && i == run.first;
            bool last = lane + 1 == own.first + own.count && i + 1 == run.first + run.count;
            execute_progress progress = travel == SUMS_BEHIND ? (last && s->options.collectives ? sum_behind : NULL)
                                                              : progress_of(beside && first && s->gathering,
                                                                            beside && last && s->options.collectives);
            ELBO_TRY(slot(context, i, i == run.first, progress, s, error));
        }
        reduction_lane(s->reduction, lane);
    }
    return ELBO_OK;
}
