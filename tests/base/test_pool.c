/* Tests for any number of threads and tiles that the pool runs every tile exactly once, that worker numbers are in
 * range and never shared by two tiles at a time, and that the tiles' writes are visible to the caller. Also runs under
 * the thread sanitizer. */
#include "base/pool.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { MOST_TILES = 1000, MOST_THREADS = 8 };

struct count {
    size_t threads;
    unsigned char times[MOST_TILES]; /* not atomic: tiles are disjoint, and the end of a run publishes them */
    atomic_int inside[MOST_THREADS];
    atomic_int wrong;
    atomic_int others; /* tiles run by workers other than the caller */
};

static void count_tile(void *argument, size_t tile, size_t worker)
{
    struct count *count = argument;
    if (worker >= count->threads || tile >= MOST_TILES) {
        atomic_fetch_add(&count->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&count->inside[worker], 1) != 0) atomic_fetch_add(&count->wrong, 1);
    count->times[tile]++;
    if (worker) atomic_fetch_add(&count->others, 1);
    atomic_fetch_sub(&count->inside[worker], 1);
}

static void every_tile_runs_once(void **state)
{
    (void)state;
    const size_t threads[] = {1, 2, 3, 8}, tiles[] = {0, 1, 2, 3, 7, 64, MOST_TILES};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        struct pool *pool = NULL;
        elbo_error error = {0};
        assert_int_equal(pool_create(&pool, threads[i], &error), ELBO_OK);
        assert_int_equal(pool_threads(pool), threads[i]);
        for (size_t repeat = 0; repeat < 200; repeat++) {
            for (size_t k = 0; k < sizeof tiles / sizeof *tiles; k++) {
                struct count count = {.threads = threads[i]};
                pool_run(pool, tiles[k], count_tile, &count);
                assert_int_equal(count.wrong, 0);
                for (size_t t = 0; t < MOST_TILES; t++) assert_int_equal(count.times[t], t < tiles[k]);
            }
        }
        pool_destroy(pool);
    }
}

static void slow_tile(void *argument, size_t tile, size_t worker)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    count_tile(argument, tile, worker);
}

static void other_threads_take_part(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    elbo_error error = {0};
    assert_int_equal(pool_create(&pool, 4, &error), ELBO_OK);
    struct count count = {.threads = 4};
    pool_run(pool, 64, slow_tile, &count);
    assert_int_equal(count.wrong, 0);
    assert_true(count.others > 0);
    struct count pair = {.threads = 4}; /* the smallest run that several threads share */
    pool_run(pool, 2, slow_tile, &pair);
    assert_int_equal(pair.wrong, 0);
    pool_destroy(pool);
}

static void blocked_tile(void *argument, size_t tile, size_t worker)
{
    (void)tile;
    sigset_t mask;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (worker && !sigismember(&mask, SIGTERM)) atomic_fetch_add(&((struct count *)argument)->wrong, 1);
}

static void workers_block_signals(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    elbo_error error = {0};
    assert_int_equal(pool_create(&pool, 3, &error), ELBO_OK);
    struct count count = {.threads = 3};
    pool_run(pool, 20, blocked_tile, &count);
    assert_int_equal(count.wrong, 0);
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_false(sigismember(&mask, SIGTERM)); /* the caller's own mask is unchanged */
    pool_destroy(pool);
}

static void zero_means_the_machine_and_too_many_are_refused(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    elbo_error error = {0};
    assert_int_equal(pool_create(&pool, 0, &error), ELBO_OK);
    assert_true(pool_threads(pool) >= 1);
    pool_destroy(pool);
    pool = NULL;
    assert_int_equal(pool_create(&pool, 100000, &error), ELBO_USAGE);
    assert_null(pool);
    assert_non_null(strstr(error.message, "100000"));
    pool_destroy(NULL);
}

static void created_and_destroyed_unused(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        struct pool *pool = NULL;
        elbo_error error = {0};
        assert_int_equal(pool_create(&pool, 4, &error), ELBO_OK);
        pool_destroy(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_runs_once),
        cmocka_unit_test(other_threads_take_part),
        cmocka_unit_test(workers_block_signals),
        cmocka_unit_test(zero_means_the_machine_and_too_many_are_refused),
        cmocka_unit_test(created_and_destroyed_unused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
