/* Implements elbo launch (launcher.h): one loop around poll() over a signalfd, the ranks' output and their
 * heartbeats. */
#include "job/launcher.h"

#include "base/clock.h"
#include "job/child.h"
#include "job/prefix.h"
#include "job/sockets.h"
#include "job/stopped.h"
#include "job/told.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const double never = 1e300;

struct rank {
    struct child child;
    struct prefix prefix;
    double beaten; /* time of its last beat, or of its start */
};

/* The result of one start of the job, by its first failure. */
struct verdict {
    bool failed, mendable; /* mendable: a restart may succeed */
    int code;              /* exit code for the launcher */
    char text[400];
};

struct job {
    const struct launch *launch;
    struct rank *ranks; /* (count) */
    size_t count, alive;
    struct pollfd *polled; /* (1 + 2 count) */
    int signals;           /* signalfd */
    sigset_t old_mask;
    unsigned restart;
    bool forwarded[NSIG]; /* signals sent on to the ranks */
    unsigned asked;       /* number of signals that ask for an end */
    bool ending;          /* ranks are being ended; later results do not count */
    double kill_at;
    struct stopped stopped;
    struct verdict verdict;
};

/* ---- messages ---- */

static void say(const struct job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct job *j, const char *format, ...)
{
    char line[640];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (j->launch->say) j->launch->say(j->launch->context, line);
}

/* Writes "rank 3", or the command's own name. */
static const char *who(char out[128], const struct job *j, size_t index)
{
    if (j->launch->ranks)
        snprintf(out, 128, "rank %zu", index);
    else
        snprintf(out, 128, "%.120s", j->launch->command[0]);
    return out;
}

static void how(char *out, size_t room, int status)
{
    if (WIFSIGNALED(status))
        snprintf(out, room, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, room, "ended with exit code %d", WEXITSTATUS(status));
}

/* ---- the end of a rank ---- */

static void end_all(struct job *j)
{
    j->ending = true;
    j->kill_at = clock_seconds() + j->launch->grace;
    for (size_t i = 0; i < j->count; i++) {
        child_signal(&j->ranks[i].child, SIGTERM);
        child_signal(&j->ranks[i].child, SIGCONT); /* so that a stopped one receives SIGTERM */
    }
}

static int code_of(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Whether a restart may help. Other launchers and shells give 128 + signal for a killed process. */
static bool is_mendable(const struct job *j, int code)
{
    /* A code that elbo does not use comes from the launcher, or from its library in a rank. mpirun gives 1 when it has
     * lost a rank. */
    if (!j->launch->ranks && (code == ELBO_INTERNAL || code > ELBO_PEER)) return true;
    return code == ELBO_DEVICE || code == ELBO_PEER || (code > 128 && code < 128 + NSIG);
}

/* Whether an end is no failure: done, stopped after saving, or ended by a signal that was sent on. */
static bool is_orderly(const struct job *j, int code)
{
    return code == ELBO_OK || code == ELBO_INTERRUPTED || (code > 128 && code < 128 + NSIG && j->forwarded[code - 128]);
}

static void judge(struct job *j, size_t index, int status)
{
    char name[128], end[96];
    int code = code_of(status);
    who(name, j, index);
    how(end, sizeof end, status);
    j->verdict.code = code;
    snprintf(j->verdict.text, sizeof j->verdict.text, "%s %s", name, end);
    if (is_orderly(j, code)) return;
    j->verdict.failed = true;
    j->verdict.mendable = is_mendable(j, code);
    if (j->alive) say(j, "%s; ending the other%s", j->verdict.text, j->alive > 1 ? "s" : "");
    end_all(j);
}

/* Whether the second end is a likelier cause of the job's end than the first. A killed rank comes before a rank that
 * failed because of it. */
static bool is_worse(const struct job *j, int before, int status)
{
    bool was_orderly = is_orderly(j, code_of(before)), orderly = is_orderly(j, code_of(status));
    if (was_orderly || orderly) return was_orderly && (!orderly || code_of(status) > code_of(before));
    return !WIFSIGNALED(before) && WIFSIGNALED(status);
}

/* Reaps the ranks that have ended, and judges by the worst of them. */
static void reap(struct job *j)
{
    size_t cause = j->count;
    int status, cause_status = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        size_t i = 0;
        while (i < j->count && j->ranks[i].child.pid != pid) i++;
        if (i == j->count) continue; /* a rank's own child, inherited by the launcher */
        j->ranks[i].child.pid = 0;
        j->alive--;
        if (cause < j->count && !is_worse(j, cause_status, status)) continue;
        cause = i;
        cause_status = status;
    }
    bool known = j->ending || (is_orderly(j, code_of(cause_status)) && j->verdict.code);
    if (cause < j->count && !known) judge(j, cause, cause_status);
}

/* ---- signals from outside ---- */

static void forward(struct job *j, int number)
{
    if (number == SIGHUP) number = SIGTERM; /* the terminal is gone, so save and stop */
    bool again = (number == SIGTERM || number == SIGINT) && (j->forwarded[SIGTERM] || j->forwarded[SIGINT]);
    j->asked++;
    if (again && !j->ending) {
        say(j, "a second signal: ending the ranks in %.3g s", j->launch->grace);
        end_all(j);
    }
    if (j->forwarded[number]) return;
    j->forwarded[number] = true;
    for (size_t i = 0; i < j->count; i++) child_signal(&j->ranks[i].child, number);
}

static void read_signals(struct job *j)
{
    struct signalfd_siginfo info;
    bool ended = false;
    while (read(j->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            ended = true;
        else
            forward(j, (int)info.ssi_signo);
    }
    if (ended) reap(j);
}

/* ---- output and heartbeats ---- */

static void copy_output(struct rank *rank)
{
    if (prefix_copy(&rank->prefix, rank->child.output, STDERR_FILENO)) return;
    close(rank->child.output);
    rank->child.output = -1;
}

static void take_beats(struct rank *rank)
{
    char beats[64];
    ssize_t n = read(rank->child.beat, beats, sizeof beats);
    if (n > 0) rank->beaten = clock_seconds();
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return;
    close(rank->child.beat); /* the other end is closed */
    rank->child.beat = -1;
}

/* Finds the living rank that has been silent for longest, and returns the time at which it counts as hung. */
static double hangs_at(const struct job *j, size_t *which)
{
    double oldest = never;
    if (!(j->launch->hang_timeout > 0) || !j->launch->beats || j->ending || j->asked) return never;
    for (size_t i = 0; i < j->count; i++)
        if (j->ranks[i].child.pid && j->ranks[i].beaten < oldest) {
            oldest = j->ranks[i].beaten;
            *which = i;
        }
    return oldest < never ? oldest + j->launch->hang_timeout : never;
}

static void look_for_hangs(struct job *j)
{
    size_t which = 0;
    char name[128];
    if (clock_seconds() < hangs_at(j, &which)) return;
    j->verdict = (struct verdict){.failed = true, .mendable = true, .code = 128 + SIGKILL};
    snprintf(j->verdict.text, sizeof j->verdict.text, "%s hangs: no heartbeat for %.3g s", who(name, j, which),
             j->launch->hang_timeout);
    say(j, "%s; ending all", j->verdict.text);
    end_all(j);
}

/* Whether to look for stopped processes: when another launcher started the ranks, their heartbeats do not arrive
 * here. */
static bool looks_for_stopped(const struct job *j)
{
    return j->launch->hang_timeout > 0 && !j->launch->beats && !j->ending && !j->asked;
}

static void look_for_stopped(struct job *j)
{
    double seconds = looks_for_stopped(j) ? stopped_seconds(&j->stopped) : 0;
    if (seconds < j->launch->hang_timeout || !looks_for_stopped(j)) return;
    j->verdict = (struct verdict){.failed = true, .mendable = true, .code = 128 + SIGKILL};
    snprintf(j->verdict.text, sizeof j->verdict.text, "process %d has been stopped for %.3g s", (int)j->stopped.pid,
             seconds);
    say(j, "%s; ending all", j->verdict.text);
    end_all(j);
}

/* ---- one start of the job ---- */

static int milliseconds(const struct job *j)
{
    size_t which;
    double until = hangs_at(j, &which), now = clock_seconds();
    if (j->ending && j->kill_at < until) until = j->kill_at;
    if (looks_for_stopped(j) && now + 0.25 < until) until = now + 0.25;
    return until <= now ? 0 : until - now > 1e3 ? 1000000 : (int)((until - now) * 1e3) + 1;
}

static void turn(struct job *j)
{
    j->polled[0] = (struct pollfd){.fd = j->signals, .events = POLLIN};
    for (size_t i = 0; i < j->count; i++) {
        j->polled[1 + 2 * i] = (struct pollfd){.fd = j->ranks[i].child.output, .events = POLLIN};
        j->polled[2 + 2 * i] = (struct pollfd){.fd = j->ranks[i].child.beat, .events = POLLIN};
    }
    if (poll(j->polled, 1 + 2 * j->count, milliseconds(j)) > 0) {
        for (size_t i = 0; i < j->count; i++) {
            if (j->polled[1 + 2 * i].revents) copy_output(&j->ranks[i]);
            if (j->polled[2 + 2 * i].revents) take_beats(&j->ranks[i]);
        }
        if (j->polled[0].revents) read_signals(j);
    }
    look_for_hangs(j);
    look_for_stopped(j);
    if (j->ending && clock_seconds() >= j->kill_at) {
        for (size_t i = 0; i < j->count; i++) child_signal(&j->ranks[i].child, SIGKILL);
        j->kill_at = never;
    }
}

static elbo_status start_all(struct job *j, elbo_error *error)
{
    struct child_variable variables[TOLD_MOST];
    const bool several = j->launch->ranks > 0;
    struct told told = {.restart = j->restart, .ranks = j->launch->ranks};
    if (several) ELBO_TRY(sockets_free_port(&told.port, error));
    told_secret(&told);
    struct child_plan plan = {
        .command = j->launch->command,
        .variables = variables,
        .own_errors = !several,
        .heartbeat = j->launch->hang_timeout > 0 && j->launch->beats,
        .death_signal = several ? SIGKILL : SIGTERM, /* another launcher ends its ranks itself */
        .mask = &j->old_mask,
    };
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < j->count && status == ELBO_OK; i++) {
        plan.own_output = !several || i == 0;
        plan.variable_count = told_variables(variables, &told, i);
        j->ranks[i].prefix.rank = i;
        j->ranks[i].prefix.used = 0;
        status = child_start(&j->ranks[i].child, &plan, error);
        j->alive += status == ELBO_OK;
        j->ranks[i].beaten = clock_seconds();
    }
    sodium_memzero(variables, sizeof variables);
    sodium_memzero(&told, sizeof told);
    return status;
}

static elbo_status run_once(struct job *j, elbo_error *error)
{
    j->alive = 0;
    j->ending = false;
    j->verdict = (struct verdict){0};
    j->stopped = (struct stopped){0};
    for (size_t i = 0; i < j->count; i++) j->ranks[i].child = (struct child){0, -1, -1};
    elbo_status status = start_all(j, error);
    while (status == ELBO_OK && j->alive) turn(j);
    child_end_descendants();
    for (size_t i = 0; i < j->count; i++) {
        if (j->ranks[i].child.output >= 0) copy_output(&j->ranks[i]);
        prefix_flush(&j->ranks[i].prefix, STDERR_FILENO);
        child_close(&j->ranks[i].child);
    }
    return status;
}

/* ---- starts one after another ---- */

/* Waits before a restart. Returns false if a signal asks for an end meanwhile. */
static bool wait_to_restart(struct job *j)
{
    double seconds = j->launch->pause;
    for (unsigned i = 0; i < j->restart && seconds < 30; i++) seconds *= 2;
    if (seconds > 30) seconds = 30;
    say(j, "%s; restart %u of %zu in %.3g s", j->verdict.text, j->restart + 1, j->launch->max_restarts, seconds);
    const double until = clock_seconds() + seconds;
    for (double left; !j->asked && (left = until - clock_seconds()) > 0;) {
        struct pollfd one = {.fd = j->signals, .events = POLLIN};
        if (poll(&one, 1, (int)(left * 1e3) + 1) > 0) read_signals(j);
    }
    return !j->asked;
}

static elbo_status run_all(struct job *j, elbo_error *error)
{
    for (;; j->restart++) {
        ELBO_TRY(run_once(j, error));
        if (!j->verdict.failed || !j->verdict.mendable || j->asked || j->restart == j->launch->max_restarts)
            return ELBO_OK;
        if (!wait_to_restart(j)) return ELBO_OK;
    }
}

static void report(const struct job *j, elbo_error *error)
{
    const struct verdict *v = &j->verdict;
    if (!v->code) return;
    const char *hint =
        v->failed && j->launch->max_restarts && !v->mendable && !j->asked ? "; starting again would not mend it" : "";
    if (j->restart)
        elbo_fail(error, ELBO_INTERNAL, "%s, after %u restart%s%s", v->text, j->restart, j->restart > 1 ? "s" : "",
                  hint);
    else
        elbo_fail(error, ELBO_INTERNAL, "%s%s", v->text, hint);
}

/* Receives signals by a descriptor from here on; `old` gets the previous actions. */
static elbo_status take_signals(struct job *j, struct sigaction old[2], elbo_error *error)
{
    static const int wanted[] = {SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGHUP};
    sigset_t set;
    struct sigaction hangup, fallback = {.sa_handler = SIG_DFL}, ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) sigaddset(&set, wanted[i]);
    if (!sigaction(SIGHUP, NULL, &hangup) && hangup.sa_handler == SIG_IGN) sigdelset(&set, SIGHUP); /* nohup */
    sigaction(SIGCHLD, &fallback, &old[0]); /* if SIGCHLD were ignored, children would leave no status */
    sigaction(SIGPIPE, &ignore, &old[1]);
    sigprocmask(SIG_BLOCK, &set, &j->old_mask);
    j->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (j->signals < 0) return elbo_fail(error, ELBO_IO, "cannot take signals: %s", strerror(errno));
    return ELBO_OK;
}

static void give_signals_back(struct job *j, const struct sigaction old[2])
{
    read_signals(j); /* signals of the last moment */
    if (j->signals >= 0) close(j->signals);
    sigaction(SIGCHLD, &old[0], NULL);
    sigaction(SIGPIPE, &old[1], NULL);
    sigprocmask(SIG_SETMASK, &j->old_mask, NULL);
}

elbo_status launcher_run(int *code, const struct launch *launch, elbo_error *error)
{
    struct sigaction old[2];
    struct job j = {.launch = launch, .count = launch->ranks ? launch->ranks : 1, .signals = -1};
    if (sodium_init() < 0) return elbo_fail(error, ELBO_INTERNAL, "libsodium finds no source of random numbers");
    j.ranks = calloc(j.count, sizeof *j.ranks);
    j.polled = calloc(1 + 2 * j.count, sizeof *j.polled);
    elbo_status status = ELBO_OK;
    if (!j.ranks || !j.polled) status = elbo_fail(error, ELBO_MEMORY, "no memory to watch %zu ranks", j.count);
    if (status == ELBO_OK) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        status = take_signals(&j, old, error);
        if (status == ELBO_OK) status = run_all(&j, error);
        give_signals_back(&j, old);
    }
    if (status == ELBO_OK) {
        *code = j.verdict.code;
        report(&j, error);
    }
    free(j.polled);
    free(j.ranks);
    return status;
}
