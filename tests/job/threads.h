/* Ranks as threads of one process: an implementation of the collectives over shared memory, for tests. */
#ifndef TESTS_PARALLEL_THREADS_H
#define TESTS_PARALLEL_THREADS_H

#include "job/collectives.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { THREAD_RANKS = 16, THREAD_TRANSFERS = 1024 };

struct thread_world {
    size_t ranks;
    bool late; /* transfers happen in wait, and poll does not see them finished */
    pthread_barrier_t barrier;
    const struct transfer *lists[THREAD_RANKS];
    size_t counts[THREAD_RANKS];
    const void *notes[THREAD_RANKS];
    float *sums[THREAD_RANKS];
};

struct thread_rank {
    struct collectives base; /* must be the first member */
    struct thread_world *world;
    size_t sent, messages; /* bytes and pieces that this rank sent */
    struct transfer waiting[THREAD_TRANSFERS];
    size_t waiting_count;
    char note[4096];
    size_t note_bytes;
};

/* Matches the k-th piece that a rank expects from `peer` with the k-th piece that `peer` lists for it. */
static elbo_status thread_exchange(struct collectives *c, const struct transfer *list, size_t count, elbo_error *error)
{
    struct thread_rank *me = (struct thread_rank *)c;
    struct thread_world *w = me->world;
    size_t taken[THREAD_RANKS] = {0};
    w->lists[c->rank] = list;
    w->counts[c->rank] = count;
    pthread_barrier_wait(&w->barrier);
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < count; i++) {
        const struct transfer *to = &list[i];
        if (!to->receive) {
            me->sent += to->bytes;
            me->messages++;
            continue;
        }
        size_t k = taken[to->peer]++, at = 0;
        const struct transfer *theirs = w->lists[to->peer];
        for (; at < w->counts[to->peer]; at++)
            if (!theirs[at].receive && theirs[at].peer == c->rank && k-- == 0) break;
        if (at == w->counts[to->peer] || theirs[at].bytes != to->bytes)
            status = elbo_fail(error, ELBO_PEER, "rank %zu waits for a piece that rank %zu does not send", c->rank,
                               to->peer);
        else
            memcpy(to->data, theirs[at].data, to->bytes);
    }
    pthread_barrier_wait(&w->barrier);
    return status;
}

static elbo_status thread_begin_sum(struct collectives *c, float *x, size_t count, elbo_error *error)
{
    struct thread_world *w = ((struct thread_rank *)c)->world;
    if (!count) return elbo_fail(error, ELBO_INTERNAL, "a sum of nothing");
    float *out = malloc(count * sizeof *out);
    w->sums[c->rank] = x;
    pthread_barrier_wait(&w->barrier);
    for (size_t i = 0; i < count; i++) {
        out[i] = 0;
        for (size_t r = w->ranks; r-- > 0;) out[i] += w->sums[r][i];
    }
    pthread_barrier_wait(&w->barrier);
    memcpy(x, out, count * sizeof *out);
    free(out);
    return ELBO_OK;
}

static elbo_status thread_begin(struct collectives *c, const struct transfer *list, size_t count, elbo_error *error)
{
    struct thread_rank *me = (struct thread_rank *)c;
    if (!me->world->late) return thread_exchange(c, list, count, error);
    if (count > THREAD_TRANSFERS || me->waiting_count)
        return elbo_fail(error, ELBO_INTERNAL, "too much is begun at once");
    for (size_t i = 0; i < count; i++) me->waiting[i] = list[i];
    me->waiting_count = count;
    return ELBO_OK;
}

static elbo_status thread_poll(struct collectives *c, bool *through, elbo_error *error)
{
    (void)error;
    *through = !((struct thread_rank *)c)->world->late;
    return ELBO_OK;
}

static elbo_status thread_wait(struct collectives *c, elbo_error *error)
{
    struct thread_rank *me = (struct thread_rank *)c;
    size_t count = me->waiting_count;
    me->waiting_count = 0;
    return me->world->late ? thread_exchange(c, me->waiting, count, error) : ELBO_OK;
}

static elbo_status thread_post(struct collectives *c, unsigned which, const void *mine, size_t bytes, elbo_error *error)
{
    struct thread_rank *me = (struct thread_rank *)c;
    (void)which;
    if (bytes > sizeof me->note) return elbo_fail(error, ELBO_INTERNAL, "a note of %zu bytes", bytes);
    memcpy(me->note, mine, bytes);
    me->note_bytes = bytes;
    return ELBO_OK;
}

static elbo_status thread_collect(struct collectives *c, unsigned which, void *all, elbo_error *error)
{
    struct thread_rank *me = (struct thread_rank *)c;
    struct thread_world *w = me->world;
    (void)which;
    (void)error;
    w->notes[c->rank] = me->note;
    pthread_barrier_wait(&w->barrier);
    for (size_t r = 0; r < w->ranks; r++) memcpy((char *)all + r * me->note_bytes, w->notes[r], me->note_bytes);
    pthread_barrier_wait(&w->barrier);
    return ELBO_OK;
}

static inline void thread_world_open(struct thread_world *w, struct thread_rank *ranks, size_t count)
{
    *w = (struct thread_world){.ranks = count};
    pthread_barrier_init(&w->barrier, NULL, (unsigned)count);
    for (size_t r = 0; r < count; r++)
        ranks[r] = (struct thread_rank){.base = {.name = "threads",
                                                 .ranks = count,
                                                 .rank = r,
                                                 .begin = thread_begin,
                                                 .begin_sum = thread_begin_sum,
                                                 .poll = thread_poll,
                                                 .wait = thread_wait,
                                                 .post = thread_post,
                                                 .collect = thread_collect},
                                        .world = w};
}

/* Runs one thread per rank, each with its element of `jobs`. Returns the message of the first rank that failed, or
 * null. */
static inline const char *thread_world_run(const struct thread_world *w, void *(*run)(void *), void *jobs, size_t each)
{
    pthread_t threads[THREAD_RANKS];
    const char *first = NULL;
    for (size_t r = 0; r < w->ranks; r++)
        if (pthread_create(&threads[r], NULL, run, (char *)jobs + r * each)) abort();
    for (size_t r = 0; r < w->ranks; r++) {
        void *failed;
        pthread_join(threads[r], &failed);
        if (failed && !first) first = failed;
    }
    return first;
}

static inline void thread_world_close(struct thread_world *w)
{
    pthread_barrier_destroy(&w->barrier);
}

#endif
