/* Tests that connections kept after the meeting tell which rank ended without a farewell, and nothing else. */
#include "job/bonds.h"
#include "base/clock.h"

#include "job/job.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* Returns the rank that is lost within `seconds`, or BONDS_NONE. */
static size_t lost_within(struct bonds *bonds, double seconds)
{
    size_t lost;
    for (double until = clock_seconds() + seconds; (lost = bonds_lost(bonds)) == BONDS_NONE && clock_seconds() < until;)
        usleep(1000);
    return lost;
}

static void meet(struct job *job, size_t world)
{
    make_job(job, world, free_ports(1));
    for (size_t r = 0; r < world; r++) job->members[r].keeps = true;
    run_job(job);
    const char *failure = job_failure(job);
    if (failure) fail_msg("%s", failure);
    for (size_t r = 0; r < world; r++) assert_int_equal(job->members[r].bonds.count, r ? 1 : world - 1);
}

static void part(struct job *job)
{
    for (size_t r = 0; r < job->world; r++) bonds_close(&job->members[r].bonds, true);
}

static void a_rank_that_ends_is_named_and_all_learn_of_it(void **state)
{
    (void)state;
    for (size_t gone = 1; gone < 5; gone++) {
        struct job job;
        meet(&job, 5);
        for (size_t r = 0; r < 5; r++) assert_int_equal(bonds_lost(&job.members[r].bonds), BONDS_NONE);
        double before = clock_seconds();
        bonds_close(&job.members[gone].bonds, false);
        assert_int_equal(lost_within(&job.members[0].bonds, 2), gone);
        assert_int_equal(bonds_lost(&job.members[0].bonds), gone); /* the answer stays */
        assert_true(clock_seconds() - before >= 0.2);              /* messages sent before the loss are read first */
        for (size_t r = 1; r < 5; r++)
            if (r != gone) assert_int_equal(bonds_lost(&job.members[r].bonds), BONDS_NONE);
        bonds_close(&job.members[0].bonds, false); /* rank 0 ends because of the loss */
        for (size_t r = 1; r < 5; r++)
            if (r != gone) assert_int_equal(lost_within(&job.members[r].bonds, 2), 0);
        part(&job);
    }
}

static void a_farewell_is_no_loss(void **state)
{
    (void)state;
    struct job job;
    meet(&job, 3);
    bonds_close(&job.members[2].bonds, true);
    assert_int_equal(lost_within(&job.members[0].bonds, 0.5), BONDS_NONE);
    assert_int_equal(job.members[0].bonds.count, 1);
    bonds_close(&job.members[1].bonds, false); /* the remaining rank is still watched */
    assert_int_equal(lost_within(&job.members[0].bonds, 2), 1);
    part(&job);
}

static void other_words_end_the_watch_and_not_the_job(void **state)
{
    (void)state;
    struct job job;
    meet(&job, 3);
    assert_true(send_bytes(job.members[1].bonds.polled[0].fd, "what is this", 12));
    assert_int_equal(lost_within(&job.members[0].bonds, 0.5), BONDS_NONE);
    bonds_close(&job.members[1].bonds, false);
    assert_int_equal(lost_within(&job.members[0].bonds, 0.5), BONDS_NONE);
    part(&job);
}

/* A reset connection, as from a host that restarted, is a loss. */
static void a_reset_is_a_loss(void **state)
{
    (void)state;
    struct job job;
    meet(&job, 2);
    struct linger now = {.l_onoff = 1};
    setsockopt(job.members[1].bonds.polled[0].fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    bonds_close(&job.members[1].bonds, false);
    assert_int_equal(lost_within(&job.members[0].bonds, 2), 1);
    part(&job);
}

static void who_finds_no_room_is_told_so(void **state)
{
    (void)state;
    elbo_error error;
    struct bonds few, other;
    int a[2], b[2];
    assert_int_equal(bonds_open(&few, 1, 10, &error), ELBO_OK);
    assert_int_equal(bonds_open(&other, 1, 10, &error), ELBO_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a) | socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    assert_true(bonds_keep(&few, a[0], 1));
    assert_false(bonds_keep(&few, b[0], 2));
    assert_true(bonds_keep(&other, b[1], 0));
    bonds_say_farewell(b[0]);
    close(b[0]);
    assert_int_equal(lost_within(&other, 0.5), BONDS_NONE);
    close(a[1]);
    bonds_close(&few, true);
    bonds_close(&other, true);
}

static void none_are_lost_where_none_were_kept(void **state)
{
    (void)state;
    struct bonds none = {0};
    assert_int_equal(bonds_lost(&none), BONDS_NONE);
    bonds_close(&none, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_that_ends_is_named_and_all_learn_of_it),
        cmocka_unit_test(a_farewell_is_no_loss),
        cmocka_unit_test(other_words_end_the_watch_and_not_the_job),
        cmocka_unit_test(a_reset_is_a_loss),
        cmocka_unit_test(who_finds_no_room_is_told_so),
        cmocka_unit_test(none_are_lost_where_none_were_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
