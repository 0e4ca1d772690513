/* The thread pool: one mutex, two condition variables, one atomic tile counter.
 *
 * A run opens a job, wakes the workers and starts on the tiles itself. Workers that wake while the job is open join it;
 * the caller closes the job when the counter is exhausted and waits only for the workers that joined. So a sleeping
 * worker never delays a run that was over before it woke, which on a busy machine is the common case for small ops.
 *
 * Workers and the caller poll for 0.1 to 0.2 ms before they sleep, because a step has hundreds of short runs and waking
 * a thread takes longer than many of them. With more threads than processors nobody polls, because polling would keep
 * another thread from working. */
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POOL_MOST_THREADS = 1024, LOOKS = 4000 };

struct worker {
    struct pool *pool;
    size_t index; /* 1 .. threads - 1; the caller is 0 */
    pthread_t thread;
};

struct pool {
    size_t threads;
    unsigned looks;       /* polls before a thread sleeps */
    pthread_mutex_t lock; /* guards all changes except those of `next` */
    pthread_cond_t opened, left;
    bool open, stop;
    atomic_size_t generation; /* of the job; a worker joins each generation at most once */
    atomic_size_t joined;     /* workers inside the open job */
    pool_tile run;
    void *argument;
    size_t tiles;
    _Alignas(64) atomic_size_t next; /* the first tile not taken yet */
    _Alignas(64) struct worker workers[];
};

static void work(struct pool *pool, pool_tile run, void *argument, size_t tiles, size_t worker)
{
    for (;;) {
        /* Relaxed, because the mutex publishes the tile's data on joining and on leaving. */
        size_t tile = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (tile >= tiles) return;
        run(argument, tile, worker);
    }
}

/* Polls until *value differs from `than` (`differs`) or equals `than` (otherwise), at most pool->looks times. */
static void look(const struct pool *pool, const atomic_size_t *value, size_t than, bool differs)
{
    for (unsigned i = 0; i < pool->looks; i++) {
        if ((atomic_load_explicit(value, memory_order_relaxed) != than) == differs) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

static void *worker_main(void *argument)
{
    struct worker *self = argument;
    struct pool *pool = self->pool;
    size_t seen = 0;
    for (;;) {
        look(pool, &pool->generation, seen, true);
        pthread_mutex_lock(&pool->lock);
        while (!pool->stop && pool->generation == seen) pthread_cond_wait(&pool->opened, &pool->lock);
        if (pool->stop) break;
        seen = pool->generation;
        if (!pool->open) { /* the job was closed before this worker woke */
            pthread_mutex_unlock(&pool->lock);
            continue;
        }
        pool->joined++;
        pool_tile run = pool->run;
        void *job = pool->argument;
        size_t tiles = pool->tiles;
        pthread_mutex_unlock(&pool->lock);
        work(pool, run, job, tiles, self->index);
        pthread_mutex_lock(&pool->lock);
        if (--pool->joined == 0) pthread_cond_signal(&pool->left);
        pthread_mutex_unlock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static size_t processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (size_t)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* the machine has more processors than cpu_set_t holds */
    if (online < 1) return 1;
    return online < POOL_MOST_THREADS ? (size_t)online : POOL_MOST_THREADS;
}

elbo_status pool_create(struct pool **out, size_t threads, elbo_error *error)
{
    if (threads > POOL_MOST_THREADS)
        return elbo_fail(error, ELBO_USAGE, "threads is %zu, at most %d make sense; 0 takes one per processor", threads,
                         POOL_MOST_THREADS);
    if (threads == 0) threads = processors();
    size_t bytes = (sizeof(struct pool) + threads * sizeof(struct worker) + 63) / 64 * 64;
    struct pool *pool = aligned_alloc(64, bytes);
    if (!pool) return elbo_fail(error, ELBO_MEMORY, "no memory for a pool of %zu threads (%zu bytes)", threads, bytes);
    memset(pool, 0, bytes);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->opened, NULL);
    pthread_cond_init(&pool->left, NULL);
    pool->threads = 1;
    pool->looks = threads <= processors() ? LOOKS : 0;

    /* Workers block all signals, because the program's main thread handles them. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = 0;
    while (!failed && pool->threads < threads) {
        struct worker *worker = &pool->workers[pool->threads];
        worker->pool = pool;
        worker->index = pool->threads;
        failed = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (!failed) pool->threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        size_t started = pool->threads;
        pool_destroy(pool);
        return elbo_fail(error, ELBO_MEMORY, "thread %zu of %zu did not start: %s; ask for fewer with --threads=%zu",
                         started + 1, threads, strerror(failed), started);
    }
    *out = pool;
    return ELBO_OK;
}

void pool_destroy(struct pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->opened);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 1; i < pool->threads; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->left);
    pthread_cond_destroy(&pool->opened);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

size_t pool_threads(const struct pool *pool)
{
    return pool->threads;
}

void pool_run(struct pool *pool, size_t tiles, pool_tile run, void *argument)
{
    if (tiles <= 1 || pool->threads == 1) {
        for (size_t tile = 0; tile < tiles; tile++) run(argument, tile, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->run = run;
    pool->argument = argument;
    pool->tiles = tiles;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->open = true;
    pool->generation++;
    if (tiles == 2)
        pthread_cond_signal(&pool->opened); /* two tiles can use only one worker */
    else
        pthread_cond_broadcast(&pool->opened);
    pthread_mutex_unlock(&pool->lock);

    work(pool, run, argument, tiles, 0);

    pthread_mutex_lock(&pool->lock);
    pool->open = false;
    pthread_mutex_unlock(&pool->lock);
    look(pool, &pool->joined, 0, false);
    pthread_mutex_lock(&pool->lock);
    while (pool->joined > 0) pthread_cond_wait(&pool->left, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
