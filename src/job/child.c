/* Starts and ends a launcher's processes: see child.h. */
#include "job/child.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- in the child, between fork and exec ---- */

static void place(int from, int to)
{
    if (from < 0) return;
    if (from == to)
        fcntl(to, F_SETFD, 0);
    else
        dup2(from, to);
}

/* Replaces a terminal as standard input, because reading from it would stop a process group that is not the
 * terminal's. */
static void place_input(void)
{
    if (!isatty(STDIN_FILENO)) return;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    place(null, STDIN_FILENO);
}

static void set_variables(const struct child_plan *plan, int beat)
{
    char number[16];
    for (size_t i = 0; i < plan->variable_count; i++) setenv(plan->variables[i].name, plan->variables[i].value, 1);
    unsetenv("ELBO_HEARTBEAT_FD");
    if (beat < 0) return;
    snprintf(number, sizeof number, "%d", beat);
    fcntl(beat, F_SETFD, 0);
    setenv("ELBO_HEARTBEAT_FD", number, 1);
}

/* Never returns. Either the program runs, or errno goes into `report` and the process kills itself, which runs no exit
 * handler of the launcher. */
static void become(const struct child_plan *plan, pid_t launcher, int output, int beat, int report)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, plan->death_signal);
    if (getppid() != launcher) raise(SIGKILL); /* the launcher died before the line above */
    place_input();
    if (!plan->own_output) place(output, STDOUT_FILENO);
    if (!plan->own_errors) place(output, STDERR_FILENO);
    set_variables(plan, beat);
    for (const int *number = (const int[]){SIGPIPE, SIGTERM, SIGINT, SIGUSR1, 0}; *number; number++)
        signal(*number, SIG_DFL); /* a background process ignores SIGINT, and forwarded signals must reach a rank */
    sigprocmask(SIG_SETMASK, plan->mask, NULL);
    execvp(plan->command[0], plan->command);
    int number = errno;
    if (write(report, &number, sizeof number) < 0) raise(SIGKILL);
    for (;;) raise(SIGKILL);
}

/* ---- in the launcher ---- */

static void close_pair(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0) close(pair[i]);
    pair[0] = pair[1] = -1;
}

/* Opens the pipes of output and report, and the heartbeat's sockets; unwanted ones stay -1. */
static bool open_pairs(int output[2], int beat[2], int report[2], const struct child_plan *plan)
{
    bool piped = !plan->own_output || !plan->own_errors;
    return (!piped || !pipe2(output, O_CLOEXEC)) &&
           (!plan->heartbeat || !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, beat)) && !pipe2(report, O_CLOEXEC);
}

elbo_status child_start(struct child *child, const struct child_plan *plan, elbo_error *error)
{
    int output[2] = {-1, -1}, beat[2] = {-1, -1}, report[2] = {-1, -1}, number = 0;
    pid_t launcher = getpid(), pid = -1;
    *child = (struct child){0, -1, -1};
    if (open_pairs(output, beat, report, plan)) pid = fork();
    if (pid == 0) become(plan, launcher, output[1], beat[1], report[1]);
    if (pid < 0) number = errno;
    for (int *p = (int[]){output[1], beat[1], report[1], -2}; *p != -2; p++)
        if (*p >= 0) close(*p);
    output[1] = beat[1] = report[1] = -1;
    if (pid < 0) {
        close_pair(output), close_pair(beat), close_pair(report);
        return elbo_fail(error, ELBO_IO, "cannot start a process: %s", strerror(number));
    }
    setpgid(pid, pid); /* in both processes, whichever runs first */
    ssize_t size;
    do size = read(report[0], &number, sizeof number); /* exec closes the child's end */
    while (size < 0 && errno == EINTR);
    close_pair(report);
    if (size == sizeof number) {
        close_pair(output), close_pair(beat);
        waitpid(pid, NULL, 0);
        return elbo_fail(error, ELBO_USAGE, "cannot start '%.200s': %s", plan->command[0], strerror(number));
    }
    *child = (struct child){pid, output[0], beat[0]};
    for (int *p = (int[]){output[0], beat[0], -2}; *p != -2; p++)
        if (*p >= 0) fcntl(*p, F_SETFL, O_NONBLOCK);
    return ELBO_OK;
}

void child_signal(const struct child *child, int number)
{
    if (child->pid > 0) kill(-child->pid, number);
}

void child_close(struct child *child)
{
    if (child->output >= 0) close(child->output);
    if (child->beat >= 0) close(child->beat);
    child->output = child->beat = -1;
}

/* Sends SIGKILL to every child of this process, as the kernel lists them. */
static void kill_children(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "re");
    long pid;
    while (file && fscanf(file, "%ld", &pid) == 1)
        if (pid > 1) kill((pid_t)pid, SIGKILL);
    if (file) fclose(file);
}

void child_end_descendants(void)
{
    const double late = clock_seconds() + 2; /* limit for processes that the kernel does not let go */
    while (clock_seconds() < late) {
        kill_children(); /* their children become children of this process */
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) continue;
        if (pid < 0) return; /* no children left */
        poll(NULL, 0, 2);
    }
}
