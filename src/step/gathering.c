/* Gathering updated weights from their ranks, in the order in which the schedule first reads them: on a side stream
 * with marks, or one bucket after the other between steps. */
#include "step/gathering.h"

#include <stdlib.h>

enum { NEVER_READ = 0, MASTER = 1, WORKING = 2 };

/* A bucket's first reading step, and the arenas that are read. */
struct need {
    size_t bucket, step;
    unsigned arenas;
};

struct gathering {
    struct gathering_options o;
    struct need *needs; /* (buckets) in the order in which they are sent */
    struct transfer *transfers;
    size_t begun, through; /* of the needs: sent; arrived */
    bool under_way;
};

static int by_step(const void *a, const void *b)
{
    const struct need *x = a, *y = b;
    if (x->step != y->step) return x->step < y->step ? -1 : 1;
    return (x->bucket > y->bucket) - (x->bucket < y->bucket);
}

static bool holds(const struct bucket *b, const struct parameter *p)
{
    for (size_t i = 0; i < b->ranges; i++)
        if (b->range[i].first < p->offset + p->elements && p->offset < b->range[i].first + b->range[i].count)
            return true;
    return false;
}

static void note_reads(struct gathering *g)
{
    const struct gathering_options *o = &g->o;
    const uint32_t *order;
    size_t steps = graph_schedule(o->slot, &order);
    for (size_t k = 0; k < o->buckets->count; k++) g->needs[k] = (struct need){k, steps, NEVER_READ};
    for (size_t s = steps; s-- > 0;) {
        const struct node *n = graph_node_get(o->slot, order[s]);
        for (unsigned i = 0; i < MAX_INPUTS; i++) {
            const struct value_info *info = graph_value(o->slot, n->in[i]);
            if (!n->in[i].index || info->class != VALUE_PARAMETER) continue;
            for (size_t k = 0; k < o->buckets->count; k++) {
                if (!holds(&o->buckets->list[k], parameters_get(o->parameters, info->binding))) continue;
                g->needs[k].step = s;
                g->needs[k].arenas |= o->arenas.working && info->dtype == DTYPE_BF16 ? WORKING : MASTER;
            }
        }
    }
    /* Buckets that no step reads are not sent here. gathering_whole sends all buckets for other graphs and for
     * checkpoints. */
    qsort(g->needs, o->buckets->count, sizeof *g->needs, by_step);
}

elbo_status gathering_create(struct gathering **out, const struct gathering_options *options, elbo_error *error)
{
    size_t ranks = options->collectives->ranks, buckets = options->buckets->count;
    struct gathering *g = calloc(1, sizeof *g);
    if (g) {
        g->o = *options;
        g->needs = calloc(buckets + 1, sizeof *g->needs);
        g->transfers = calloc(2 * GATHERING_ARENAS * ranks * (GROUPS + 1), sizeof *g->transfers);
    }
    if (!g || !g->needs || !g->transfers) {
        gathering_free(g);
        return elbo_fail(error, ELBO_MEMORY, "no memory to plan the way of %zu buckets of weights", buckets);
    }
    note_reads(g);
    *out = g;
    return ELBO_OK;
}

void gathering_free(struct gathering *g)
{
    if (!g) return;
    free(g->needs);
    free(g->transfers);
    free(g);
}

static bool travels(const struct gathering *g, size_t element)
{
    const struct parameter_group *groups = parameters_groups(g->o.parameters);
    if (element >= parameters_arena_elements(g->o.parameters)) return false; /* figures are not gathered */
    unsigned k = 0;
    while (element >= groups[k].offset + groups[k].elements) k++;
    return g->o.groups >> k & 1;
}

/* Adds rank r's piece of an arena: received from rank r, or sent to all if r is this rank. */
static size_t add_piece(struct gathering *g, size_t n, const struct bucket *b, size_t r, char *arena, size_t element)
{
    struct collectives *c = g->o.collectives;
    struct lane_run left = bucket_piece(b, c->ranks, r);
    while (left.count) {
        struct bucket_range s = bucket_take(b, &left);
        char *data = arena + s.first * element;
        if (!travels(g, s.first)) continue;
        if (r != c->rank) g->transfers[n++] = (struct transfer){r, data, s.count * element, true};
        for (size_t q = 0; r == c->rank && q < c->ranks; q++)
            if (q != r) g->transfers[n++] = (struct transfer){q, data, s.count * element, false};
    }
    return n;
}

static elbo_status send_bucket(struct gathering *g, const struct bucket *b, unsigned arenas, elbo_error *error)
{
    size_t n = 0;
    for (size_t r = 0; r < g->o.collectives->ranks; r++) {
        if (arenas & MASTER) n = add_piece(g, n, b, r, (char *)g->o.arenas.master, sizeof(float));
        if (arenas & WORKING) n = add_piece(g, n, b, r, (char *)g->o.arenas.working, sizeof(uint16_t));
    }
    return n ? g->o.collectives->begin(g->o.collectives, g->transfers, n, error) : ELBO_OK;
}

static elbo_status send_off(struct gathering *g, elbo_error *error)
{
    const struct need *need = &g->needs[g->begun++];
    return send_bucket(g, &g->o.buckets->list[need->bucket], need->arenas, error);
}

elbo_status gathering_whole(struct gathering *g, elbo_error *error)
{
    struct collectives *c = g->o.collectives;
    for (size_t k = 0; k < g->o.buckets->count; k++) {
        ELBO_TRY(send_bucket(g, &g->o.buckets->list[k], MASTER | (g->o.arenas.working ? WORKING : 0), error));
        ELBO_TRY(c->wait(c, error));
    }
    return ELBO_OK;
}

/* ---- a device with side work: all buckets are sent at once, and marks tell their progress ---- */

static elbo_status send_all_aside(struct gathering *g, elbo_error *error)
{
    struct backend *b = g->o.backend;
    size_t count = g->o.buckets->count;
    elbo_status status = ELBO_OK;
    b->side.begin(b);
    while (g->begun < count && !status) {
        status = send_off(g, error);
        b->side.mark(b, g->begun - 1, count);
    }
    b->side.end(b);
    return status;
}

/* ---- other devices: one bucket after the other, advanced between the steps ---- */

static elbo_status push(struct gathering *g, size_t end, bool patient, elbo_error *error)
{
    struct collectives *c = g->o.collectives;
    while (g->through < end) {
        bool there = false;
        if (g->begun == g->through) ELBO_TRY(send_off(g, error));
        ELBO_TRY(c->poll(c, &there, error));
        if (!there && !patient) return ELBO_OK;
        if (!there) ELBO_TRY(c->wait(c, error));
        g->through++;
    }
    return ELBO_OK;
}

/* Returns the end of the buckets, in sending order, that the schedule needs up to this step. */
static size_t needed_at(const struct gathering *g, size_t step)
{
    size_t end = g->through;
    while (end < g->o.buckets->count && g->needs[end].step <= step) end++;
    return end;
}

static elbo_status wait_for(struct gathering *g, size_t end, elbo_error *error)
{
    struct backend *b = g->o.backend;
    if (!b->side.begin) {
        ELBO_TRY(push(g, end, true, error));
        return push(g, g->o.buckets->count, false, error);
    }
    if (end > g->through) b->side.await(b, end - 1, g->o.buckets->count);
    g->through = end > g->through ? end : g->through;
    return ELBO_OK;
}

elbo_status gathering_finish(struct gathering *g, elbo_error *error)
{
    if (!g->under_way) return ELBO_OK;
    g->under_way = false;
    return wait_for(g, g->o.buckets->count, error);
}

elbo_status gathering_step(struct gathering *g, size_t done, size_t steps, elbo_error *error)
{
    if (done == 0) {
        g->begun = g->through = 0;
        g->under_way = true;
        if (g->o.backend->side.begin) ELBO_TRY(send_all_aside(g, error));
    }
    if (!g->under_way) return ELBO_OK;
    return done < steps ? wait_for(g, needed_at(g, done), error) : gathering_finish(g, error);
}
