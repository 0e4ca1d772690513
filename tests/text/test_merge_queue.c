/* The queue of merges against the minimum of a plain list: mixtures of pushes and pops, few and many ranks, ranks that
 * share a slot of the table of runs, and places that rise or not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "base/philox.h"
#include "text/merge_queue.h"

enum { MOST = 400, ROUNDS = 600 };

struct item {
    uint32_t rank, place;
};

static size_t least(const struct item *list, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (list[i].rank < list[best].rank || (list[i].rank == list[best].rank && list[i].place < list[best].place))
            best = i;
    return best;
}

static void pops_the_least(void **state)
{
    (void)state;
    struct merge_queue queue = {0};
    elbo_error error = {0};
    uint64_t random = 1;
    size_t popped = 0;
    for (size_t round = 0; round < ROUNDS; round++) {
        struct item list[MOST];
        size_t count = 0, pushes = 1 + (random = mix64(random)) % MOST;
        uint32_t ranks = 1 + (uint32_t)((random = mix64(random)) % (round % 3 ? 7 : 500)),
                 step = round % 2 ? 1 : MERGE_RUNS, next = 0;
        bool rising = round % 4 < 2;
        assert_int_equal(merge_queue_reserve(&queue, pushes, &error), ELBO_OK);
        while (pushes || count) {
            random = mix64(random);
            if (pushes && (random % 3 || !count)) {
                struct item item = {(uint32_t)(random >> 8) % ranks * step, rising ? next++ : (uint32_t)(random >> 40)};
                assert_int_equal(merge_queue_push(&queue, item.rank, item.place, &error), ELBO_OK);
                list[count++] = item;
                pushes--;
                continue;
            }
            uint32_t rank, place;
            size_t at = least(list, count);
            assert_true(merge_queue_pop(&queue, &rank, &place));
            assert_int_equal(rank, list[at].rank);
            assert_int_equal(place, list[at].place);
            list[at] = list[--count];
            popped++;
            if (round % 50 == 49 && count > 20) { /* reset while it holds many entries */
                merge_queue_clear(&queue);
                count = pushes = 0;
            }
        }
        uint32_t rank, place;
        assert_false(merge_queue_pop(&queue, &rank, &place));
    }
    assert_true(popped > 50000);
    merge_queue_free(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pops_the_least)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
