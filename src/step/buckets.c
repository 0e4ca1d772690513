/* Cutting the gradient arena into buckets by the order in which the backward pass finishes the parameters, and a rank's
 * piece of a bucket. */
#include "step/buckets.h"

#include <stdlib.h>

/* A range that a step finishes: a group's arena up to `end`. */
struct finished {
    size_t ready, group, end;
};

static int by_offset(const void *a, const void *b)
{
    const struct parameter *const *x = a, *const *y = b;
    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

static int by_ready(const void *a, const void *b)
{
    const struct finished *x = a, *y = b;
    if (x->ready != y->ready) return x->ready < y->ready ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static elbo_status append(struct buckets *b, const struct bucket *next, elbo_error *error)
{
    if (!(b->count & (b->count - 1))) { /* capacity doubles at powers of two */
        struct bucket *list = realloc(b->list, (b->count ? 2 * b->count : 1) * sizeof *list);
        if (!list) return elbo_fail(error, ELBO_MEMORY, "no memory for the buckets of gradients");
        b->list = list;
    }
    b->list[b->count++] = *next;
    return ELBO_OK;
}

/* Appends `whole` in parts of at most `room` elements, all ready when `whole` is. */
static elbo_status append_parts(struct buckets *b, const struct bucket *whole, size_t room, elbo_error *error)
{
    struct lane_run left = {0, whole->elements};
    while (left.count) {
        struct bucket part = {.ready = whole->ready};
        struct lane_run own = {left.first, room && room < left.count ? room : left.count};
        left.first += own.count;
        left.count -= own.count;
        for (part.elements = own.count; own.count;) part.range[part.ranges++] = bucket_take(whole, &own);
        ELBO_TRY(append(b, &part, error));
    }
    return ELBO_OK;
}

/* Lists (parameters) ranges in the order of readiness; within a group this is the order of the arena. */
static size_t list_finished(struct finished *list, const struct parameter **sorted, const struct parameters *p,
                            const size_t *ready)
{
    size_t n = parameters_count(p), group = 0, latest = 0;
    const struct parameter_group *groups = parameters_groups(p), *last = NULL;
    for (size_t i = 0; i < n; i++) sorted[i] = parameters_get(p, i);
    qsort(sorted, n, sizeof *sorted, by_offset);
    for (size_t i = 0; i < n; i++) {
        while (sorted[i]->offset >= groups[group].offset + groups[group].elements) group++;
        size_t end = groups[group].offset + groups[group].elements, own = ready[sorted[i] - parameters_get(p, 0)];
        if (i + 1 < n && sorted[i + 1]->offset < end) end = sorted[i + 1]->offset;
        latest = last == &groups[group] && latest > own ? latest : own; /* the group's earlier ranges come first */
        last = &groups[group];
        list[i] = (struct finished){latest, group, end};
    }
    qsort(list, n, sizeof *list, by_ready);
    return n;
}

static void add_range(struct bucket *b, size_t first, size_t end)
{
    if (end <= first) return;
    b->range[b->ranges++] = (struct bucket_range){first, end - first};
    b->elements += end - first;
}

static elbo_status fill(struct buckets *b, const struct finished *list, size_t n, const struct parameters *p,
                        size_t figures, size_t room, elbo_error *error)
{
    const struct parameter_group *groups = parameters_groups(p);
    size_t from[GROUPS], to[GROUPS], arena = parameters_arena_elements(p), waiting = 0;
    for (unsigned g = 0; g < GROUPS; g++) from[g] = to[g] = groups[g].offset;
    for (size_t i = 0; i < n; i++) {
        const struct finished *f = &list[i];
        if (f->end > to[f->group]) waiting += f->end - to[f->group], to[f->group] = f->end;
        bool last = i + 1 == n;
        if (!last && (list[i + 1].ready == f->ready || waiting < room || !room)) continue;
        struct bucket whole = {.ready = f->ready};
        for (unsigned g = 0; g < GROUPS; g++) {
            add_range(&whole, from[g], to[g]);
            from[g] = to[g];
        }
        if (last) add_range(&whole, arena, arena + figures);
        waiting = 0;
        ELBO_TRY(append_parts(b, &whole, room, error));
    }
    return ELBO_OK;
}

elbo_status buckets_create(struct buckets *b, const struct parameters *p, const size_t *ready, size_t figures,
                           size_t room, elbo_error *error)
{
    size_t n = parameters_count(p);
    struct finished *list = malloc((n + 1) * sizeof *list);
    const struct parameter **sorted = malloc((n + 1) * sizeof *sorted);
    *b = (struct buckets){0};
    elbo_status status =
        list && sorted ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the buckets of gradients");
    if (!status) status = fill(b, list, list_finished(list, sorted, p, ready), p, figures, room, error);
    free(list);
    free(sorted);
    if (status) buckets_free(b);
    return status;
}

elbo_status buckets_create_plain(struct buckets *b, size_t elements, size_t room, elbo_error *error)
{
    struct bucket whole = {.elements = elements, .ranges = 1, .range = {{0, elements}}};
    *b = (struct buckets){0};
    elbo_status status = append_parts(b, &whole, room, error);
    if (status) buckets_free(b);
    return status;
}

void buckets_free(struct buckets *b)
{
    free(b->list);
    *b = (struct buckets){0};
}

size_t buckets_largest(const struct buckets *b)
{
    size_t most = 0;
    for (size_t i = 0; i < b->count; i++) most = b->list[i].elements > most ? b->list[i].elements : most;
    return most;
}

struct lane_run bucket_piece(const struct bucket *b, size_t ranks, size_t rank)
{
    struct lane_run blocks = lane_run_of(b->elements / PARAMETER_ALIGNMENT, ranks, rank);
    return (struct lane_run){blocks.first * PARAMETER_ALIGNMENT, blocks.count * PARAMETER_ALIGNMENT};
}

struct bucket_range bucket_take(const struct bucket *b, struct lane_run *run)
{
    size_t at = run->first, k = 0;
    while (at >= b->range[k].count) at -= b->range[k++].count;
    size_t together = b->range[k].count - at, n = together < run->count ? together : run->count;
    run->first += n;
    run->count -= n;
    return (struct bucket_range){b->range[k].first + at, n};
}
