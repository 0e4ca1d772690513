#include "train/sharded.h"

#include <stdlib.h>

enum { LARGEST_READ = 1 << 18 }; /* elements */

struct request {
    uint64_t moment, first, count; /* count 0: done */
};

struct optimizer_share sharded_share(const struct trainer *t)
{
    bool shares = t->config->parallel.zero && t->team.collectives;
    return (struct optimizer_share){shares ? t->team.ranks : 1, shares ? t->team.rank : 0};
}

bool sharded(const struct trainer *t)
{
    return t->optimizer.share.ranks > 1;
}

static struct optimizer_piece piece_of(const struct optimizer *o, unsigned group, size_t rank)
{
    return optimizer_piece_of(&parameters_groups(o->parameters)[group], (struct optimizer_share){o->share.ranks, rank});
}

/* What both ranges have. */
static struct optimizer_piece overlap(struct optimizer_piece a, size_t first, size_t count)
{
    size_t begin = a.first > first ? a.first : first, end_a = a.first + a.count, end_b = first + count;
    size_t end = end_a < end_b ? end_a : end_b;
    return (struct optimizer_piece){begin, end > begin ? end - begin : 0};
}

size_t sharded_parts(struct sharded_part parts[GROUPS], const struct optimizer *o, size_t first, size_t count)
{
    size_t n = 0;
    for (unsigned g = 0; g < GROUPS; g++) {
        struct optimizer_piece own = piece_of(o, g, o->share.rank), both = overlap(own, first, count);
        if (both.count) parts[n++] = (struct sharded_part){both.first - first, o->moment_at[g] + both.first - own.first, both.count};
    }
    return n;
}

/* ---- transfers ---- */

struct list {
    struct transfer *all;
    size_t count;
};

static elbo_status list_open(struct list *l, size_t room, elbo_error *error)
{
    *l = (struct list){.all = calloc(room, sizeof *l->all)};
    return l->all ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the pieces of %zu messages", room);
}

static void list_add(struct list *l, size_t peer, const void *data, size_t bytes, bool receive)
{
    if (bytes) l->all[l->count++] = (struct transfer){peer, (void *)data, bytes, receive};
}

static elbo_status list_exchange(struct list *l, struct trainer *t, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    elbo_status status = collectives_exchange(c, l->all, l->count, error);
    free(l->all);
    return status;
}

static void add_arena(struct list *l, const struct trainer *t, char *arena, size_t element)
{
    const struct optimizer *o = &t->optimizer;
    for (unsigned g = 0; g < GROUPS; g++) {
        struct optimizer_piece own = piece_of(o, g, t->team.rank);
        for (size_t r = 0; r < t->team.ranks && o->trained[g]; r++) {
            struct optimizer_piece theirs = piece_of(o, g, r);
            if (r == t->team.rank) continue;
            list_add(l, r, arena + own.first * element, own.count * element, false);
            list_add(l, r, arena + theirs.first * element, theirs.count * element, true);
        }
    }
}

elbo_status sharded_gather(struct trainer *t, elbo_error *error)
{
    struct list l;
    if (!sharded(t)) return ELBO_OK;
    ELBO_TRY(list_open(&l, 4 * GROUPS * t->team.ranks, error));
    add_arena(&l, t, (char *)t->model.weights, sizeof *t->model.weights);
    if (t->model.working) add_arena(&l, t, t->model.working, sizeof(uint16_t));
    return list_exchange(&l, t, error);
}

/* ---- rank 0 reads ---- */

static elbo_status make_staging(struct trainer *t, elbo_error *error)
{
    if (t->sharded_staging) return ELBO_OK;
    return t->backend->allocate(t->backend, &t->sharded_staging, LARGEST_READ * sizeof(float), "the moments of other ranks", error);
}

/* Every rank's part in one read: pieces go to rank 0's staging memory, in place. */
static elbo_status take_part(struct trainer *t, const struct request *q, elbo_error *error)
{
    const struct optimizer *o = &t->optimizer;
    const char *arena = q->moment ? o->moment2 : o->moment1;
    size_t element = dtype_bytes(optimizer_moments(&o->config));
    struct list l;
    ELBO_TRY(make_staging(t, error));
    ELBO_TRY(list_open(&l, GROUPS * t->team.ranks, error));
    for (unsigned g = 0; g < GROUPS; g++)
        for (size_t r = 0; r < t->team.ranks; r++) {
            struct optimizer_piece theirs = piece_of(o, g, r), both = overlap(theirs, q->first, q->count);
            char *to = (char *)t->sharded_staging + (both.first - q->first) * element;
            const char *from = arena + (o->moment_at[g] + both.first - theirs.first) * element;
            if (!both.count) continue;
            if (!t->team.rank && r) list_add(&l, r, to, both.count * element, true);
            else if (!t->team.rank) t->backend->copy(t->backend, to, from, both.count * element);
            else if (r == t->team.rank) list_add(&l, 0, from, both.count * element, false);
        }
    return list_exchange(&l, t, error);
}

static elbo_status tell(struct trainer *t, struct request *q, elbo_error *error)
{
    struct request *all = calloc(t->team.ranks, sizeof *all);
    if (!all) return elbo_fail(error, ELBO_MEMORY, "no memory for the requests of %zu ranks", t->team.ranks);
    elbo_status status = collectives_gather(t->team.collectives, q, sizeof *q, all, error);
    *q = all[0];
    free(all);
    return status;
}

elbo_status sharded_read(struct trainer *t, unsigned moment, void *to, size_t first, size_t count, elbo_error *error)
{
    size_t element = dtype_bytes(optimizer_moments(&t->optimizer.config));
    for (size_t at = 0; at < count; at += LARGEST_READ) {
        struct request q = {moment, first + at, count - at < LARGEST_READ ? count - at : LARGEST_READ};
        ELBO_TRY(tell(t, &q, error));
        ELBO_TRY(take_part(t, &q, error));
        t->backend->download(t->backend, (char *)to + at * element, t->sharded_staging, q.count * element);
    }
    return ELBO_OK;
}

elbo_status sharded_serve(struct trainer *t, elbo_error *error)
{
    for (;;) {
        struct request q = {0};
        ELBO_TRY(tell(t, &q, error));
        if (!q.count) return ELBO_OK;
        ELBO_TRY(take_part(t, &q, error));
    }
}

elbo_status sharded_done(struct trainer *t, elbo_error *error)
{
    struct request q = {0};
    return tell(t, &q, error);
}
