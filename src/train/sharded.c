#include "train/sharded.h"

#include <stdlib.h>

enum { LARGEST_READ = 1 << 18 }; /* elements */

struct request {
    uint64_t moment, first, count; /* count 0: done */
};

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

/* The sums of every rank's blocks reach every rank. */
static elbo_status exchange_sums(void *context, elbo_error *error)
{
    struct trainer *t = context;
    const struct optimizer *o = &t->optimizer;
    size_t own = o->section[t->team.rank], count = o->section[t->team.rank + 1] - own;
    struct list l;
    ELBO_TRY(list_open(&l, 2 * t->team.ranks, error));
    for (size_t r = 0; r < t->team.ranks; r++) {
        if (r == t->team.rank) continue;
        list_add(&l, r, o->sums + own, count * sizeof *o->sums, false);
        list_add(&l, r, o->sums + o->section[r], (o->section[r + 1] - o->section[r]) * sizeof *o->sums, true);
    }
    return list_exchange(&l, t, error);
}

/* ---- who has what ---- */

struct optimizer_share sharded_share(struct trainer *t)
{
    bool shares = t->config->parallel.zero && t->team.collectives && t->team.ranks > 1;
    return (struct optimizer_share){shares ? t->team.ranks : 1, shares ? t->team.rank : 0, &t->team.buckets,
                                    exchange_sums, t};
}

bool sharded(const struct trainer *t)
{
    return t->optimizer.share.ranks > 1;
}

/* What both ranges have. */
static size_t overlap(size_t *first, size_t first_a, size_t count_a, size_t first_b, size_t count_b)
{
    size_t begin = first_a > first_b ? first_a : first_b, end_a = first_a + count_a, end_b = first_b + count_b;
    size_t end = end_a < end_b ? end_a : end_b;
    *first = begin;
    return end > begin ? end - begin : 0;
}

bool sharded_next(struct sharded_part *part, size_t *piece, const struct optimizer *o, size_t first, size_t count)
{
    while (*piece < o->piece_count) {
        const struct optimizer_piece *own = &o->pieces[(*piece)++];
        size_t begin, n = overlap(&begin, own->first, own->count, first, count);
        if (!n) continue;
        *part = (struct sharded_part){begin - first, own->moment + begin - own->first, n};
        return true;
    }
    return false;
}

/* ---- rank 0 reads ---- */

static elbo_status make_staging(struct trainer *t, elbo_error *error)
{
    if (t->sharded_staging) return ELBO_OK;
    return t->backend->memory.allocate(t->backend, &t->sharded_staging, LARGEST_READ * sizeof(float),
                                       "the moments of other ranks", error);
}

/* Every rank's part in one read: pieces go to rank 0's staging memory, in place. */
static elbo_status take_part(struct trainer *t, const struct request *q, elbo_error *error)
{
    const struct optimizer *o = &t->optimizer;
    const char *arena = q->moment ? o->moment2 : o->moment1;
    size_t element = dtype_bytes(optimizer_moments(&o->config));
    struct list l;
    ELBO_TRY(make_staging(t, error));
    ELBO_TRY(list_open(&l, o->begin[t->team.ranks] + 1, error));
    for (size_t r = 0; r < t->team.ranks; r++)
        for (size_t i = o->begin[r]; i < o->begin[r + 1]; i++) {
            const struct optimizer_piece *theirs = &o->all[i];
            size_t begin, n = overlap(&begin, theirs->first, theirs->count, q->first, q->count);
            char *to = (char *)t->sharded_staging + (begin - q->first) * element;
            const char *from = arena + (theirs->moment + begin - theirs->first) * element;
            if (!n) continue;
            if (!t->team.rank && r)
                list_add(&l, r, to, n * element, true);
            else if (!t->team.rank)
                t->backend->memory.copy(t->backend, to, from, n * element);
            else if (r == t->team.rank)
                list_add(&l, 0, from, n * element, false);
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
        t->backend->memory.download(t->backend, (char *)to + at * element, t->sharded_staging, q.count * element);
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
