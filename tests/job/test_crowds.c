/* Tests that crowds of strangers, silent, slow, or connecting and leaving, delay the start by less than a second; a
 * host that waits for each connection must be found out. */
#include "job/hosting.h"
#include "base/clock.h"

#include <sys/resource.h>
#include <sys/wait.h>

struct crowd {
    unsigned port;
    volatile bool over;
    size_t came;
    pthread_t thread;
};

static void *scan(void *context)
{
    struct crowd *c = context;
    for (; !c->over; c->came++) {
        int fd = dial(c->port);
        if (c->came % 3 == 0) send_bytes(fd, "GET / HTTP/1.1\r\n\r\n", 18);
        close(fd);
    }
    return NULL;
}

/* Sends a right hello, one byte every few milliseconds, without end. */
static void *dawdle(void *context)
{
    struct crowd *c = context;
    struct ranks ranks = rank_of(0, 8, c->port);
    struct terms_of t;
    say_hello(&t, &ranks, 3);
    int fd = dial(c->port);
    for (; !c->over; c->came++) {
        send_bytes(fd, t.hello + c->came % t.hello_size, 1);
        usleep(5000);
    }
    close(fd);
    return NULL;
}

/* Returns the seconds in which the 7 other ranks of 8 meet rank 0, while strangers have been connecting since
 * before. */
static double meet_in_a_crowd(host_function serve, size_t silent, bool scanning, size_t slow)
{
    enum { MOST = 400 };
    int fds[MOST];
    struct hosting h;
    struct job job;
    open_host(&h, serve, 8, 0, 30);
    struct crowd scanner = {.port = h.ranks.port}, dawdlers[8];
    make_job(&job, 8, h.ranks.port);
    for (size_t i = 0; i < silent; i++) fds[i] = dial(h.ranks.port);
    if (scanning && pthread_create(&scanner.thread, NULL, scan, &scanner)) abort();
    for (size_t i = 0; i < slow; i++) {
        dawdlers[i] = (struct crowd){.port = h.ranks.port};
        if (pthread_create(&dawdlers[i].thread, NULL, dawdle, &dawdlers[i])) abort();
    }
    if (scanning || slow) usleep(50000);
    double before = clock_seconds();
    for (size_t r = 1; r < 8; r++)
        if (pthread_create(&job.members[r].thread, NULL, run_member, &job.members[r])) abort();
    for (size_t r = 1; r < 8; r++) pthread_join(job.members[r].thread, NULL);
    pthread_join(h.thread, NULL);
    double seconds = clock_seconds() - before;
    scanner.over = true; /* only now, because strangers can still connect while the socket listens */
    for (size_t i = 0; i < slow; i++) dawdlers[i].over = true;
    if (scanning) pthread_join(scanner.thread, NULL);
    for (size_t i = 0; i < slow; i++) pthread_join(dawdlers[i].thread, NULL);
    for (size_t i = 0; i < silent; i++) close(fds[i]);
    close(h.listening);
    memcpy(job.members[0].bytes, job.id, ID);
    const char *failure = h.status ? h.error.message : job_failure(&job);
    if (failure) fail_msg("%s", failure);
    return seconds;
}

static void crowds_do_not_delay_the_start(void **state)
{
    (void)state;
    const struct {
        size_t silent;
        bool scanning;
        size_t slow;
    } crowds[] = {{400, false, 0}, {0, true, 0}, {0, false, 8}, {400, true, 8}};
    double alone = meet_in_a_crowd(meeting_serve, 0, false, 0);
    for (size_t i = 0; i < sizeof crowds / sizeof *crowds; i++) {
        double seconds = meet_in_a_crowd(meeting_serve, crowds[i].silent, crowds[i].scanning, crowds[i].slow);
        print_message("8 ranks, %zu silent, %zu slow, port scan %d: %.3f s (alone %.3f s)\n", crowds[i].silent,
                      crowds[i].slow, crowds[i].scanning, seconds, alone);
        if (seconds - alone >= 1) fail_msg("the start was delayed by %.3f s", seconds - alone);
    }
    fault_one_by_one = true;
    double seconds = meet_in_a_crowd(faulty_serve, 150, false, 0);
    fault_one_by_one = false;
    if (seconds - alone < 1) fail_msg("a host that waits for each connection was not found out: %.3f s", seconds);
}

/* The host may open so few files that strangers use up all descriptors. */
static void few_descriptors_are_enough(void **state)
{
    (void)state;
    struct rlimit few = {24, 24};
    struct job job;
    int report[2], fds[200];
    struct {
        elbo_status status;
        elbo_error error;
    } end = {0};
    unsigned port = free_ports(1);
    make_job(&job, 4, port);
    if (pipe(report)) abort();
    pid_t pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_NOFILE, &few);
        run_member(&job.members[0]);
        end.status = job.members[0].status;
        end.error = job.members[0].error;
        _exit(write(report[1], &end, sizeof end) != sizeof end);
    }
    for (size_t i = 0; i < 200; i++) fds[i] = dial(port);
    double before = clock_seconds();
    for (size_t r = 1; r < 4; r++)
        if (pthread_create(&job.members[r].thread, NULL, run_member, &job.members[r])) abort();
    for (size_t r = 1; r < 4; r++) pthread_join(job.members[r].thread, NULL);
    double seconds = clock_seconds() - before;
    if (read(report[0], &end, sizeof end) != sizeof end || waitpid(pid, NULL, 0) != pid) abort();
    for (size_t i = 0; i < 200; i++) close(fds[i]);
    close(report[0]);
    close(report[1]);
    const char *failure = end.status ? end.error.message : job_failure(&job);
    if (failure) fail_msg("%s", failure);
    if (seconds >= 1) fail_msg("the start was delayed by %.3f s", seconds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crowds_do_not_delay_the_start),
        cmocka_unit_test(few_descriptors_are_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
