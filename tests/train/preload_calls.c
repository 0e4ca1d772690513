/* Applies watched_calls.h to any program: loaded before it with LD_PRELOAD, and controlled by the environment.
 *
 *   WATCH_ROOT=/dev/shm/x/run                    counts calls on files below this folder, from 0
 *   WATCH_EFFECT=kill|tear|error|short|full WATCH_AT=17 [WATCH_NUMBER=28] [WATCH_TIMES=1000000]
 *   WATCH_LOG=FILE                               writes a line for each call: number, kind, path */
#include "watched_calls.h"

static void log_call(void *context, const struct system_call *call)
{
    static const char *const kinds[] = {"create", "write",  "fsync", "close",    "mkdir",
                                        "rename", "unlink", "rmdir", "truncate", "open"};
    char line[2 * WATCH_PATH];
    if (call->kind >= CALL_READ) return;
    int size = snprintf(line, sizeof line, "%zu %s %s\n", atomic_load(&watch.count) - 1, kinds[call->kind], call->path);
    if (write((int)(intptr_t)context, line, (size_t)size) != size) abort();
}

static size_t number(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void begin(void)
{
    static const char *const effects[] = {"none", "kill", "tear", "error", "short", "full"};
    const char *root = getenv("WATCH_ROOT"), *effect = getenv("WATCH_EFFECT"), *log = getenv("WATCH_LOG");
    if (!root) return;
    watch_begin(root, WATCH_OPENS);
    for (size_t i = 0; effect && i < sizeof effects / sizeof *effects; i++)
        if (!strcmp(effect, effects[i])) watch.effect = (enum call_effect)i;
    watch.at = number("WATCH_AT", 0);
    watch.times = number("WATCH_TIMES", 1);
    watch.number = (int)number("WATCH_NUMBER", EIO);
    if (!log) return;
    watch.context = (void *)(intptr_t)open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    watch.record = log_call;
}
