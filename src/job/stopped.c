/* Finds stopped processes below this one through /proc: see stopped.h. */
#include "job/stopped.h"
#include "base/clock.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { DEEPEST = 6 }; /* levels of launchers that start launchers */

static bool is_stopped(long pid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "re");
    if (file && fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 0;
    if (file) fclose(file);
    return state == 'T';
}

/* Searches the processes below `parent`. The kernel lists children by thread, so every thread is searched. `depth`
 * limits the levels. */
static pid_t stopped_below(long parent, int depth)
{
    char path[64];
    pid_t found = 0;
    long pid, thread;
    snprintf(path, sizeof path, "/proc/%ld/task", parent);
    DIR *threads = depth ? opendir(path) : NULL;
    for (struct dirent *entry; threads && !found && (entry = readdir(threads));) {
        thread = strtol(entry->d_name, NULL, 10);
        snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", parent, thread);
        FILE *file = thread > 0 ? fopen(path, "re") : NULL;
        while (file && !found && fscanf(file, "%ld", &pid) == 1)
            found = is_stopped(pid) ? (pid_t)pid : stopped_below(pid, depth - 1);
        if (file) fclose(file);
    }
    if (threads) closedir(threads);
    return found;
}

double stopped_seconds(struct stopped *s)
{
    pid_t pid = stopped_below(getpid(), DEEPEST);
    double now = clock_seconds();
    if (pid != s->pid || now - s->seen > 2) s->since = now;
    s->pid = pid;
    s->seen = now;
    return pid ? now - s->since : 0;
}
