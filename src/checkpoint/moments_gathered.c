/* Rank 0 asks for ranges of a moment, and every rank sends its pieces of each range, until rank 0 sends an empty
 * request. */
#include "checkpoint/moments.h"

#include <stdlib.h>

enum { LARGEST_READ = 1 << 18 }; /* elements */

struct request {
    uint64_t which, first, count; /* count 0: done */
};

static elbo_status make_staging(struct moments *m, elbo_error *error)
{
    if (m->staging) return ELBO_OK;
    return m->backend->memory.allocate(m->backend, &m->staging, LARGEST_READ * sizeof(float),
                                       "the moments of other ranks", error);
}

/* Takes this rank's part in one read: pieces go to their places in rank 0's staging memory. */
static elbo_status take_part(struct moments *m, const struct request *q, elbo_error *error)
{
    const char *arena = m->memory[q->which != 0];
    size_t element = dtype_bytes(m->type), ranks = moments_ranks(m), rank = moments_rank(m), n = 0;
    ELBO_TRY(make_staging(m, error));
    struct transfer *list = calloc(m->begin[ranks] + 1, sizeof *list);
    if (!list) return elbo_fail(error, ELBO_MEMORY, "no memory for the pieces of %zu messages", m->begin[ranks] + 1);
    for (size_t r = 0; r < ranks; r++) {
        struct arena_part part;
        const struct arena_piece *pieces = m->pieces + m->begin[r];
        size_t count = m->begin[r + 1] - m->begin[r], piece = 0;
        while (arena_next(&part, &piece, pieces, count, q->first, q->count)) {
            char *to = (char *)m->staging + part.from * element;
            const char *from = arena + part.at * element;
            if (!rank && r)
                list[n++] = (struct transfer){r, to, part.count * element, true};
            else if (!rank)
                m->backend->memory.copy(m->backend, to, from, part.count * element);
            else if (r == rank)
                list[n++] = (struct transfer){0, (void *)from, part.count * element, false};
        }
    }
    elbo_status status = collectives_exchange(m->collectives, list, n, error);
    free(list);
    return status;
}

static elbo_status tell(struct moments *m, struct request *q, elbo_error *error)
{
    struct request *all = calloc(moments_ranks(m), sizeof *all);
    if (!all) return elbo_fail(error, ELBO_MEMORY, "no memory for the requests of %zu ranks", moments_ranks(m));
    elbo_status status = collectives_gather(m->collectives, q, sizeof *q, all, error);
    *q = all[0];
    free(all);
    return status;
}

static elbo_status read_range(struct moments *m, unsigned which, void *to, size_t first, size_t count,
                              elbo_error *error)
{
    size_t element = dtype_bytes(m->type);
    for (size_t at = 0; at < count; at += LARGEST_READ) {
        struct request q = {which, first + at, count - at < LARGEST_READ ? count - at : LARGEST_READ};
        ELBO_TRY(tell(m, &q, error));
        ELBO_TRY(take_part(m, &q, error));
        m->backend->memory.download(m->backend, (char *)to + at * element, m->staging, q.count * element);
    }
    return ELBO_OK;
}

static elbo_status serve(struct moments *m, elbo_error *error)
{
    for (;;) {
        struct request q = {0};
        ELBO_TRY(tell(m, &q, error));
        if (!q.count) return ELBO_OK;
        ELBO_TRY(take_part(m, &q, error));
    }
}

static elbo_status done(struct moments *m, elbo_error *error)
{
    struct request q = {0};
    return tell(m, &q, error);
}

const struct moments_source moments_gathered = {
    .name = "gathered", .whole = true, .read = read_range, .serve = serve, .done = done};
