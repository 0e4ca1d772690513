/* Tests that a process below this one that a signal has stopped is found at any depth, with the time since then. */
#include "base/clock.h"
#include "job/stopped.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Starts a process with a sleeping child; *child is the child's process id. */
static pid_t start(int *child)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int below = fork();
        if (!below) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) pause();
        }
        if (write(ends[1], &below, sizeof below) != sizeof below) _exit(1);
        for (;;) pause();
    }
    assert_int_equal(read(ends[0], child, sizeof *child), sizeof *child);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

/* Looks until a process has been stopped for `wanted` seconds (0: until none is), for five seconds at most. */
static double look(struct stopped *s, double wanted)
{
    double seconds = 0, until = clock_seconds() + 5;
    do {
        usleep(10000);
        seconds = stopped_seconds(s);
    } while ((wanted > 0 ? seconds < wanted : s->pid != 0) && clock_seconds() < until);
    return seconds;
}

static void found_however_deep(void **state)
{
    struct stopped s = {0};
    int child;
    pid_t pid = start(&child);
    (void)state;
    assert_true(look(&s, 0) == 0);
    for (int k = 0; k < 2; k++) { /* the process itself, then its child */
        pid_t which = k ? child : pid;
        kill(which, SIGSTOP);
        double began = clock_seconds(), seconds = look(&s, 0.1);
        assert_int_equal(s.pid, which);
        assert_true(seconds >= 0.1 && seconds <= clock_seconds() - began);
        kill(which, SIGCONT);
        assert_true(look(&s, 0) == 0 && s.pid == 0);
    }
    kill(child, SIGKILL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* A watcher that has not looked for seconds was itself stopped, so the time restarts. */
static void a_time_without_a_look_does_not_count(void **state)
{
    int child;
    pid_t pid = start(&child);
    (void)state;
    kill(child, SIGSTOP);
    struct stopped s = {0};
    look(&s, 0.05);
    s.since -= 100;
    assert_true(stopped_seconds(&s) > 100);
    s.seen -= 3;
    assert_true(stopped_seconds(&s) == 0);
    kill(child, SIGKILL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(found_however_deep),
                                       cmocka_unit_test(a_time_without_a_look_does_not_count)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
