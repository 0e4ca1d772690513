/* Buckets hold every element once, in the order of readiness, for any parameters. */
#include "step/optimizer.h"
#include "step/sums.h"
#include "job/random_parameters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { BLOCK = PARAMETER_ALIGNMENT, FIGURES = 2 * BLOCK };

static elbo_error error;

static void must(elbo_status status)
{
    if (status) fail_msg("%s", error.message);
}

static void everything_once_and_in_time(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        size_t ready[RANDOM_PARAMETERS], count = 1 + random_below(seed, 5, 0, RANDOM_PARAMETERS),
                                         room = random_below(seed, 6, 0, 9) * BLOCK;
        struct parameters *p = random_parameters(seed, count, ready);
        size_t arena = parameters_arena_elements(p), elements = arena + FIGURES;
        struct buckets b;
        must(buckets_create(&b, p, ready, FIGURES, room, &error));
        size_t *seen = calloc(elements / BLOCK, sizeof *seen), sum = 0; /* 1 + the bucket of each block */
        for (size_t k = 0; k < b.count; k++) {
            size_t own = 0;
            assert_true(!room || b.list[k].elements <= room);
            assert_true(!k || b.list[k].ready >= b.list[k - 1].ready);
            if (b.list[k].elements < room && k + 1 < b.count) /* last piece of a split range */
                assert_true(k && b.list[k - 1].elements == room && b.list[k].ready == b.list[k - 1].ready);
            for (size_t i = 0; i < b.list[k].ranges; i++) {
                struct bucket_range s = b.list[k].range[i];
                assert_true(s.count && s.first % BLOCK == 0 && s.count % BLOCK == 0 && s.first + s.count <= elements);
                for (size_t at = s.first; at < s.first + s.count; at += BLOCK) {
                    assert_int_equal(seen[at / BLOCK], 0);
                    seen[at / BLOCK] = k + 1;
                }
                own += s.count;
            }
            assert_int_equal(own, b.list[k].elements);
            sum += own;
        }
        assert_int_equal(sum, elements);
        for (size_t i = 0; i < count; i++) {
            const struct parameter *own = parameters_get(p, i);
            for (size_t at = own->offset; at < own->offset + own->elements; at += BLOCK)
                assert_true(b.list[seen[at / BLOCK] - 1].ready >= ready[i]);
        }
        assert_int_equal(b.list[seen[elements / BLOCK - 1] - 1].ready,
                         b.list[b.count - 1].ready); /* the figures come last */
        free(seen);
        buckets_free(&b);
        parameters_free(p);
    }
}

/* The shares of all ranks together are the parameters of the buckets, and no share reaches behind the buckets. */
static void shares_are_of_the_buckets(void **state)
{
    (void)state;
    size_t ready[RANDOM_PARAMETERS];
    struct parameters *p = random_parameters(3, 20, ready);
    struct buckets b;
    must(buckets_create(&b, p, ready, FIGURES, 4 * BLOCK, &error));
    size_t left = parameters_arena_elements(p);
    for (; b.count > 1; b.count--) {
        size_t sum = 0;
        for (size_t rank = 0; rank < 3; rank++)
            sum += optimizer_share_elements(p, &(struct optimizer_share){.ranks = 3, .rank = rank, .buckets = &b});
        assert_int_equal(sum, left);
        for (size_t i = 0; i < b.list[b.count - 1].ranges; i++) {
            struct bucket_range s = b.list[b.count - 1].range[i];
            if (s.first < parameters_arena_elements(p)) left -= s.count;
        }
    }
    buckets_free(&b);
    parameters_free(p);
}

/* Moments are shared from two ranks on, and only if the option is set. */
static void moments_are_shared_out(void **state)
{
    (void)state;
    for (size_t ranks = 0; ranks < 4; ranks++)
        for (int zero = 0; zero < 2; zero++) {
            struct sums s = {.options = {.ranks = ranks, .rank = ranks ? ranks - 1 : 0, .zero = zero}};
            struct optimizer_share share = sums_share(&s);
            bool shares = zero && ranks > 1;
            assert_int_equal(share.ranks, shares ? ranks : 1);
            assert_int_equal(share.rank, shares ? ranks - 1 : 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything_once_and_in_time),
                                       cmocka_unit_test(shares_are_of_the_buckets),
                                       cmocka_unit_test(moments_are_shared_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
