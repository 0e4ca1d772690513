/* Goes back to an earlier checkpoint of a run: see rewind.h. */
#include "train/rewind.h"
#include "checkpoint/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Finds a free name: `before`, the step and `after`, with a number behind the step if the name is taken. */
static elbo_status free_name(char out[FILES_PATH], const char *folder, const char *before, uint64_t step,
                             const char *after, elbo_error *error)
{
    char name[96];
    for (unsigned i = 1;; i++) {
        if (i == 1)
            snprintf(name, sizeof name, "%s%08" PRIu64 "%s", before, step, after);
        else
            snprintf(name, sizeof name, "%s%08" PRIu64 ".%u%s", before, step, i, after);
        ELBO_TRY(file_join(out, folder, name, error));
        if (access(out, F_OK)) return ELBO_OK;
    }
}

static elbo_status put_aside(const char *folder, uint64_t step, elbo_error *error)
{
    char name[CHECKPOINT_NAME], path[FILES_PATH], aside[FILES_PATH];
    checkpoint_name(name, step);
    ELBO_TRY(file_join(path, folder, name, error));
    ELBO_TRY(free_name(aside, folder, "abandoned-step-", step, "", error));
    return rename(path, aside) ? file_fail(error, "rename", path, errno) : ELBO_OK;
}

/* Copies the rows so far to another name, because the run drops the rows after its step. */
static elbo_status keep_rows(const char *run_dir, uint64_t newest, elbo_error *error)
{
    char path[FILES_PATH], aside[FILES_PATH], *text;
    size_t size;
    ELBO_TRY(file_join(path, run_dir, "metrics.jsonl", error));
    if (!file_is_regular(path)) return ELBO_OK;
    ELBO_TRY(free_name(aside, run_dir, "metrics.abandoned-", newest, ".jsonl", error));
    ELBO_TRY(file_read(&text, &size, path, (size_t)1 << 34, error));
    elbo_status status = file_write(aside, text, size, error);
    free(text);
    return status;
}

static bool has(const uint64_t *steps, size_t count, uint64_t step)
{
    for (size_t i = 0; i < count; i++)
        if (steps[i] == step) return true;
    return false;
}

static elbo_status no_such(const char *dir, const uint64_t *steps, size_t count, uint64_t step, elbo_error *error)
{
    char list[256] = "";
    for (size_t i = count; i-- > 0 && strlen(list) < sizeof list - 32;)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%" PRIu64, *list ? ", " : "", steps[i]);
    return elbo_fail(error, ELBO_USAGE, "--rewind=%" PRIu64 ": %s has no checkpoint of that step; it has %s", step, dir,
                     *list ? list : "none");
}

/* Whether the newest checkpoint belongs to a run that has already gone back to the step. */
static elbo_status went_back(bool *before, struct train_report *report, const char *run_dir, uint64_t step,
                             elbo_error *error)
{
    struct checkpoint *newest;
    ELBO_TRY(checkpoint_open(&newest, run_dir, console_warning, report, error));
    const json_t *rewound = json_object_get(checkpoint_counters(newest), "rewound");
    *before =
        json_is_integer(rewound) && (uint64_t)json_integer_value(rewound) == step && checkpoint_step(newest) > step;
    checkpoint_close(newest);
    return ELBO_OK;
}

/* Goes back. `latest` moves first, so that a process that ends in between begins at the step as well and puts the rest
 * aside. */
static elbo_status go_back(struct train_report *report, const struct elbo_config *config, const char *folder,
                           const char *to, const uint64_t *steps, size_t count, elbo_error *error)
{
    const char *dir = config->run_dir;
    uint64_t step = config->rewind;
    struct checkpoint *good;
    ELBO_TRY(checkpoint_open(&good, to, NULL, NULL, error));
    checkpoint_close(good);
    if (steps[0] > step) ELBO_TRY(keep_rows(dir, steps[0], error));
    ELBO_TRY(checkpoint_mark(dir, "latest", step, error));
    size_t aside = 0;
    for (; aside < count && steps[aside] > step; aside++) ELBO_TRY(put_aside(folder, steps[aside], error));
    if (aside)
        console_line(report, "back to step %" PRIu64 ": %zu later checkpoints are put aside as %s/abandoned-*", step,
                     aside, folder);
    return file_sync_folder(folder, error);
}

elbo_status rewind_run(struct train_report *report, const struct elbo_config *config, char from[FILES_PATH],
                       elbo_error *error)
{
    const char *dir = config->run_dir;
    char folder[FILES_PATH], name[CHECKPOINT_NAME], to[FILES_PATH];
    uint64_t step = config->rewind, *steps;
    size_t count;
    bool before = false;
    ELBO_TRY(file_join(folder, dir, CHECKPOINT_FOLDER, error));
    ELBO_TRY(checkpoint_list(&steps, &count, folder, error));
    checkpoint_name(name, step);
    elbo_status status = count ? went_back(&before, report, dir, step, error) : ELBO_OK;
    if (!status && !before && !has(steps, count, step)) status = no_such(dir, steps, count, step, error);
    if (!status) status = file_join(to, folder, name, error);
    if (!status && !before) status = go_back(report, config, folder, to, steps, count, error);
    free(steps);
    ELBO_TRY(status);
    if (before)
        console_line(report, "%s went back to step %" PRIu64 " before and goes on from its newest checkpoint", dir,
                     step);
    snprintf(from, FILES_PATH, "%s", before ? dir : to);
    return ELBO_OK;
}
