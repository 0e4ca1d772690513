/* reduction: the sum over lanes along their tree, bit for bit, on any number of ranks and with any buckets, and the
 * bytes sent. Buckets that are sent as they become ready give the same bits, although all other numbers are still
 * wrong. Sums that stay with the rank of their piece send half the bytes. */
#include "base/philox.h"
#include "device/backends.h"
#include "graph/parameters.h"
#include "job/random_parameters.h"
#include "step/reduction.h"
#include "job/threads.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { BLOCK = PARAMETER_ALIGNMENT, MOST_LANES = 12, FIGURES = 2 * BLOCK };

/* Returns values of many magnitudes, so that another order of additions gives other bits. */
static float value_of(size_t lane, size_t i)
{
    struct philox_block b = noise_block(noise_key(7, 1, 0), lane, 0, (uint32_t)i);
    return ((float)(int32_t)b.word[0] / 3e9f) * (float)(1u << b.word[1] % 12);
}

static float tree(size_t first, size_t count, size_t i)
{
    if (count == 1) return value_of(first, i);
    size_t left = lanes_left(count);
    return tree(first, left, i) + tree(first + left, count - left, i);
}

struct job {
    struct thread_rank *rank;
    size_t lanes, elements, bucket;
    bool ordered;
    size_t kept;
    float *got;
    size_t bytes;
};

static _Thread_local int begun, joined; /* calls of a side stream that runs work at once */

static void side_begin(struct backend *b)
{
    (void)b;
    begun++;
}

static void side_end(struct backend *b)
{
    (void)b;
    begun--;
}

static void side_join(struct backend *b)
{
    (void)b;
    joined++;
}

static void *reduce(void *argument)
{
    struct job *job = argument;
    struct backend *backend = NULL;
    struct reduction *r = NULL;
    struct buckets buckets;
    elbo_error error = {0};
    if (cpu_backend_create(&backend, 1, NULL, &error)) return "no backend";
    if (buckets_create_plain(&buckets, job->elements, job->bucket, &error)) return "no buckets";
    backend->side.begin = side_begin;
    backend->side.end = side_end;
    backend->side.join = side_join;
    begun = joined = 0;
    struct reduction_options o = {.backend = backend,
                                  .collectives = job->rank->base.ranks > 1 ? &job->rank->base : NULL,
                                  .arena = job->got,
                                  .elements = job->elements,
                                  .lanes = job->lanes,
                                  .ordered = job->ordered,
                                  .kept = job->kept,
                                  .buckets = &buckets};
    const char *failed = reduction_create(&r, &o, &error) ? "not created" : NULL;
    for (int step = 0; step < 2 && !failed; step++) { /* the second step starts from the memory that the first left */
        struct lane_run own = reduction_own(r);
        for (size_t lane = own.first; lane < own.first + own.count; lane++) {
            for (size_t i = 0; i < job->elements; i++) job->got[i] = value_of(lane, i);
            reduction_lane(r, lane);
        }
        if (reduction_finish(r, &error)) failed = "not finished";
        if (!failed && (begun || joined != (o.collectives ? step + 1 : 0))) failed = "not joined";
    }
    job->bytes = reduction_bytes(job->elements, job->lanes, job->rank->base.ranks, job->rank->base.rank, job->ordered,
                                 buckets_largest(&buckets));
    reduction_free(r);
    buckets_free(&buckets);
    backend->destroy(backend);
    return (void *)failed;
}

static void run(struct job *jobs, struct thread_rank *ranks, size_t count, size_t lanes, size_t elements, size_t bucket,
                bool ordered, size_t kept)
{
    struct thread_world world;
    thread_world_open(&world, ranks, count);
    for (size_t r = 0; r < count; r++)
        jobs[r] = (struct job){&ranks[r], lanes, elements, bucket, ordered, kept, calloc(elements, sizeof(float)), 0};
    const char *failed = thread_world_run(&world, reduce, jobs, sizeof *jobs);
    if (failed) fail_msg("%s", failed);
    thread_world_close(&world);
}

static void the_tree_on_every_number_of_ranks(void **state)
{
    static const struct {
        size_t elements, bucket;
    } sizes[] = {
        {BLOCK, BLOCK}, {3 * BLOCK, 0}, {7 * BLOCK, 2 * BLOCK}, {16 * BLOCK, 5 * BLOCK}, {2 * BLOCK, 64 * BLOCK}};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t lanes = 1; lanes <= MOST_LANES; lanes += lanes < 9 ? 1 : 3) {
            float *wanted = calloc(sizes[s].elements, sizeof *wanted);
            for (size_t i = 0; i < sizes[s].elements; i++) wanted[i] = tree(0, lanes, i);
            for (size_t ranks = 1; ranks <= lanes; ranks++) {
                struct job jobs[THREAD_RANKS];
                struct thread_rank members[THREAD_RANKS];
                run(jobs, members, ranks, lanes, sizes[s].elements, sizes[s].bucket, true, 0);
                for (size_t r = 0; r < ranks; r++) {
                    assert_memory_equal(jobs[r].got, wanted, sizes[s].elements * sizeof *wanted);
                    free(jobs[r].got);
                }
            }
            free(wanted);
        }
}

/* With one lane per rank, each rank sends its arena once, in pieces, and sends its piece of the sum to the others
 * unless the sums stay: a reduce-scatter and all-gather, or a reduce-scatter alone. */
static void what_travels(void **state)
{
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        struct job jobs[THREAD_RANKS];
        struct thread_rank members[THREAD_RANKS];
        size_t ranks = (size_t)2 << i / 2, elements = 64 * BLOCK, piece = elements / ranks * sizeof(float), steps = 2,
               ways = i % 2 ? 1 : 2;
        run(jobs, members, ranks, ranks, elements, 16 * BLOCK, true, i % 2 ? elements : 0);
        for (size_t r = 0; r < ranks; r++) {
            assert_int_equal(members[r].sent, steps * ways * (ranks - 1) * piece);
            assert_int_equal(jobs[r].bytes, (ranks - 1) * 16 * BLOCK / ranks * sizeof(float));
            free(jobs[r].got);
        }
    }
}

static void any_order(void **state)
{
    (void)state;
    struct job jobs[THREAD_RANKS];
    struct thread_rank members[THREAD_RANKS];
    run(jobs, members, 3, 3, 4 * BLOCK, 0, false, 0);
    for (size_t r = 0; r < 3; r++) {
        for (size_t i = 0; i < 4 * BLOCK; i++) {
            double sum = 0, size = 0;
            for (size_t lane = 0; lane < 3; lane++) {
                sum += value_of(lane, i);
                size += value_of(lane, i) < 0 ? -value_of(lane, i) : value_of(lane, i);
            }
            assert_true(jobs[r].got[i] - sum <= 1e-6 * size && sum - jobs[r].got[i] <= 1e-6 * size);
        }
        free(jobs[r].got);
    }
}

/* ---- sums that are sent while gradients that are not ready are wrong ---- */

struct late {
    struct thread_rank *rank;
    size_t lanes, elements;
    const struct buckets *buckets;
    float *got;
    size_t kept;
};

static void *reduce_what_is_ready(void *argument)
{
    struct late *job = argument;
    struct backend *backend = NULL;
    struct reduction *r = NULL;
    elbo_error own = {0};
    if (cpu_backend_create(&backend, 1, NULL, &own)) return "no backend";
    struct reduction_options o = {.backend = backend,
                                  .collectives = &job->rank->base,
                                  .arena = job->got,
                                  .elements = job->elements,
                                  .lanes = job->lanes,
                                  .ordered = true,
                                  .kept = job->kept,
                                  .buckets = job->buckets};
    const char *failed = reduction_create(&r, &o, &own) ? "not created" : NULL;
    for (int turn = 0; turn < 2 && !failed; turn++) {
        struct lane_run lanes = reduction_own(r);
        for (size_t lane = lanes.first; lane < lanes.first + lanes.count; lane++) {
            bool last = lane + 1 == lanes.first + lanes.count;
            for (size_t i = 0; i < job->elements; i++) job->got[i] = last ? NAN : value_of(lane, i);
            for (size_t step = 0; step < RANDOM_STEPS && last && !failed;
                 step++) { /* elements that are ready now were wrong until now */
                for (size_t k = 0; k < job->buckets->count; k++)
                    for (size_t n = 0; n < job->buckets->list[k].ranges && job->buckets->list[k].ready == step; n++)
                        for (size_t c = 0, i = job->buckets->list[k].range[n].first;
                             c < job->buckets->list[k].range[n].count; c++, i++)
                            job->got[i] = value_of(lane, i);
                if (reduction_step(r, step, &own)) failed = "a step failed";
            }
            reduction_lane(r, lane);
        }
        if (!failed && reduction_finish(r, &own)) failed = "not finished";
    }
    reduction_free(r);
    backend->destroy(backend);
    return (void *)failed;
}

static void sums_of_what_is_ready(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        elbo_error error;
        size_t ready[RANDOM_PARAMETERS], count = 1 + random_below(seed, 5, 0, 12),
                                         room = random_below(seed, 6, 0, 5) * BLOCK;
        size_t ranks = 2 + random_below(seed, 7, 0, 4), lanes = ranks + random_below(seed, 8, 0, 6);
        struct parameters *p = random_parameters(seed, count, ready);
        struct buckets b;
        if (buckets_create(&b, p, ready, FIGURES, room, &error)) fail_msg("%s", error.message);
        struct thread_world world;
        struct thread_rank members[THREAD_RANKS];
        struct late jobs[THREAD_RANKS];
        thread_world_open(&world, members, ranks);
        world.late = seed % 2;
        size_t elements = parameters_arena_elements(p) + FIGURES, kept = seed % 3 ? 0 : parameters_arena_elements(p);
        for (size_t r = 0; r < ranks; r++)
            jobs[r] = (struct late){&members[r], lanes, elements, &b, calloc(elements, sizeof(float)), kept};
        const char *failed = thread_world_run(&world, reduce_what_is_ready, jobs, sizeof *jobs);
        if (failed) fail_msg("seed %llu: %s", (unsigned long long)seed, failed);
        for (size_t k = 0; k < b.count; k++)
            for (size_t r = 0; r < ranks; r++) {
                struct lane_run mine = bucket_piece(&b.list[k], ranks, r), all = {0, b.list[k].elements};
                for (size_t at = 0; all.count;) {
                    struct bucket_range s = bucket_take(&b.list[k], &all);
                    for (size_t c = 0; c < s.count; c++, at++) {
                        float wanted = tree(0, lanes, s.first + c);
                        if (s.first < kept && (at < mine.first || at >= mine.first + mine.count)) continue;
                        assert_memory_equal(&jobs[r].got[s.first + c], &wanted, sizeof wanted);
                    }
                }
            }
        for (size_t r = 0; r < ranks; r++) free(jobs[r].got);
        thread_world_close(&world);
        buckets_free(&b);
        parameters_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_tree_on_every_number_of_ranks),
                                       cmocka_unit_test(what_travels), cmocka_unit_test(any_order),
                                       cmocka_unit_test(sums_of_what_is_ready)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
