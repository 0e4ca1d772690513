/* Saves a checkpoint. This file is about the order of the system calls:
 *
 *   mkdir step-N.tmp -> files: create new, write, fsync, close -> fsync of the folders inside -> the manifest in
 *   the same way, fsync of step-N.tmp -> rename to step-N, never onto another one -> fsync of the parent
 *   -> `latest` (aside, fsync, rename, fsync) -> old ones: rename to .tmp, fsync of the parent, then they are removed.
 *
 * So a folder without .tmp is complete, and the remains of an interrupted save or delete end in .tmp. Nothing opens
 * them, and the next save removes them, so their removal needs no sync. With several ranks, each writes its own files
 * between begin and commit, and one rank commits after a barrier. */
#include "checkpoint/checkpoint.h"

#include "base/files.h"
#include "checkpoint/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct save {
    char checkpoints[FILES_PATH]; /* RUN/checkpoints */
    char aside[FILES_PATH];       /* .../step-N.tmp */
    char target[FILES_PATH];      /* .../step-N */
    char name[CHECKPOINT_NAME];   /* step-N */
};

/* ---- names ---- */

void checkpoint_name(char out[CHECKPOINT_NAME], uint64_t step)
{
    snprintf(out, CHECKPOINT_NAME, "step-%08" PRIu64, step);
}

bool checkpoint_parse_name(uint64_t *step, const char *name)
{
    if (strncmp(name, "step-", 5) || strlen(name) < 13 || strlen(name) > 5 + 19) return false;
    *step = 0;
    for (const char *c = name + 5; *c; c++) {
        if (*c < '0' || *c > '9') return false;
        *step = 10 * *step + (uint64_t)(*c - '0');
    }
    char back[CHECKPOINT_NAME];
    checkpoint_name(back, *step);
    return !strcmp(back, name);
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x > y ? -1 : x < y;
}

elbo_status checkpoint_list(uint64_t **out, size_t *count, const char *folder, elbo_error *error)
{
    uint64_t *steps = NULL, step;
    size_t used = 0, capacity = 0;
    *out = NULL;
    *count = 0;
    DIR *entries = opendir(folder);
    if (!entries) return errno == ENOENT ? ELBO_OK : file_fail(error, "read the folder", folder, errno);
    for (struct dirent *entry; (errno = 0, entry = readdir(entries));) {
        if (!checkpoint_parse_name(&step, entry->d_name)) continue;
        if (used == capacity) {
            capacity = 2 * capacity + 16;
            uint64_t *larger = realloc(steps, capacity * sizeof *steps);
            if (!larger) {
                free(steps);
                closedir(entries);
                return elbo_fail(error, ELBO_MEMORY, "no memory for a list of %zu checkpoints", capacity);
            }
            steps = larger;
        }
        steps[used++] = step;
    }
    int number = errno; /* an incomplete list is an error, because a run could be taken for an empty one */
    closedir(entries);
    if (number) {
        free(steps);
        return file_fail(error, "read the folder", folder, number);
    }
    if (used) qsort(steps, used, sizeof *steps, newest_first);
    *out = steps;
    *count = used;
    return ELBO_OK;
}

bool checkpoint_any(const char *run_dir)
{
    char folder[FILES_PATH];
    elbo_error ignored;
    uint64_t *steps;
    size_t count;
    if (file_join(folder, run_dir, CHECKPOINT_FOLDER, &ignored)) return false;
    if (checkpoint_list(&steps, &count, folder, &ignored)) return true; /* unreadable, so the run must not start over */
    free(steps);
    return count > 0;
}

/* ---- removing ---- */

/* Removes a folder of ours that ends in .tmp, and its sub-folders, one deep. */
static elbo_status remove_tree(const char *path, elbo_error *error)
{
    struct stat about;
    if (lstat(path, &about)) return errno == ENOENT ? ELBO_OK : file_fail(error, "inspect", path, errno);
    if (!S_ISDIR(about.st_mode)) return file_remove(path, error);
    char inside[FILES_PATH];
    DIR *entries = opendir(path);
    if (!entries) return file_fail(error, "read the folder", path, errno);
    elbo_status status = ELBO_OK;
    for (struct dirent *entry; status == ELBO_OK && (errno = 0, entry = readdir(entries));) {
        if (entry->d_name[0] == '.') continue;
        status = file_join(inside, path, entry->d_name, error);
        if (status == ELBO_OK && lstat(inside, &about) == 0 && S_ISDIR(about.st_mode))
            status = file_remove_folder(inside, error);
    }
    if (status == ELBO_OK && errno) status = file_fail(error, "read the folder", path, errno);
    closedir(entries);
    ELBO_TRY(status);
    return file_remove_folder(path, error);
}

/* Removes the remains of an interrupted save or delete: step-*.tmp, latest.*.tmp. */
static elbo_status clear_leftovers(const char *checkpoints, elbo_error *error)
{
    DIR *entries = opendir(checkpoints);
    if (!entries) return file_fail(error, "read the folder", checkpoints, errno);
    elbo_status status = ELBO_OK;
    for (struct dirent *entry; status == ELBO_OK && (errno = 0, entry = readdir(entries));) {
        const char *name = entry->d_name;
        size_t length = strlen(name);
        if (length < 4 || strcmp(name + length - 4, ".tmp") ||
            (strncmp(name, "step-", 5) && strncmp(name, "latest.", 7)))
            continue;
        char path[FILES_PATH];
        status = file_join(path, checkpoints, name, error);
        if (status == ELBO_OK) status = remove_tree(path, error);
    }
    if (status == ELBO_OK && errno) status = file_fail(error, "read the folder", checkpoints, errno);
    closedir(entries);
    return status;
}

static elbo_status remove_checkpoint(const char *checkpoints, uint64_t step, elbo_error *error)
{
    char name[CHECKPOINT_NAME], path[FILES_PATH], aside[FILES_PATH];
    checkpoint_name(name, step);
    ELBO_TRY(file_join(path, checkpoints, name, error));
    if ((size_t)snprintf(aside, sizeof aside, "%s.tmp", path) >= sizeof aside)
        return elbo_fail(error, ELBO_IO, "the path %.200s... is too long", path);
    if (rename(path, aside)) return file_fail(error, "rename", path, errno);
    ELBO_TRY(file_sync_folder(checkpoints, error));
    return remove_tree(aside, error);
}

/* Keeps `best`, `pinned`, `step` and the keep - 1 newest before it. Later checkpoints belong to a future that is
 * computed anew after a fallback; they are replaced or outgrown as training reaches them. */
static elbo_status rotate(const char *checkpoints, uint64_t step, uint64_t best, uint64_t pinned, size_t keep,
                          elbo_error *error)
{
    uint64_t *steps;
    size_t count, kept = 1;
    if (keep == 0) return ELBO_OK;
    ELBO_TRY(checkpoint_list(&steps, &count, checkpoints, error));
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < count && status == ELBO_OK; i++) {
        if (steps[i] >= step || steps[i] == best || steps[i] == pinned || kept++ < keep) continue;
        status = remove_checkpoint(checkpoints, steps[i], error);
    }
    free(steps);
    return status;
}

/* ---- writing ---- */

struct hashed_file {
    struct file_writer writer;
    struct checksums *sums;
};

static elbo_status write_hashed(void *context, const void *bytes, size_t size, elbo_error *error)
{
    struct hashed_file *file = context;
    ELBO_TRY(checksums_update(file->sums, bytes, size, error));
    return file_append(&file->writer, bytes, size, error);
}

static elbo_status write_contents(struct hashed_file *file, const struct checkpoint_file *from, elbo_error *error)
{
    struct sink sink = {write_hashed, file};
    if (from->tensors)
        return safetensors_write(&sink, from->tensors, from->tensor_count, from->notes, from->note_count, error);
    return sink_write(&sink, from->bytes, from->size, error);
}

/* Calls `each` once for every folder inside that files are in. */
static elbo_status each_folder(const struct save *save, const struct checkpoint_contents *contents,
                               elbo_status (*each)(const char *path, elbo_error *error), elbo_error *error)
{
    for (size_t i = 0; i < contents->file_count; i++) {
        const char *name = contents->files[i].name, *slash = strchr(name, '/');
        if (!slash) continue;
        size_t length = (size_t)(slash - name), k = 0;
        while (strncmp(contents->files[k].name, name, length + 1)) k++;
        if (k < i) continue; /* an earlier file is in the same folder */
        char path[FILES_PATH];
        ELBO_TRY(file_join(path, save->aside, name, error));
        path[strlen(path) - strlen(slash)] = 0;
        ELBO_TRY(each(path, error));
    }
    return ELBO_OK;
}

static elbo_status make_inside(const char *path, elbo_error *error)
{
    return mkdir(path, 0777) ? file_fail(error, "create the folder", path, errno) : ELBO_OK;
}

elbo_status checkpoint_write_file(struct manifest_file *entry, const char *folder, const struct checkpoint_file *from,
                                  elbo_error *error)
{
    entry->name = from->name;
    char path[FILES_PATH];
    ELBO_TRY(file_join(path, folder, from->name, error));
    struct hashed_file file = {.writer = {.descriptor = -1}};
    ELBO_TRY(checksums_begin(&file.sums, error));
    elbo_status status = file_create(&file.writer, path, error);
    if (status == ELBO_OK) status = write_contents(&file, from, error);
    if (status == ELBO_OK) status = file_seal(&file.writer, error);
    file_abort(&file.writer);
    if (status == ELBO_OK) return checksums_end(entry, file.sums, error);
    checksums_abort(file.sums);
    return status;
}

static elbo_status begin(struct save *save, const char *run_dir, uint64_t step, elbo_error *error)
{
    if (step > 9999999999999999999u / 10)
        return elbo_fail(error, ELBO_INTERNAL, "step %" PRIu64 " is out of range", step);
    ELBO_TRY(file_join(save->checkpoints, run_dir, CHECKPOINT_FOLDER, error));
    ELBO_TRY(file_make_folder(save->checkpoints, error));
    ELBO_TRY(clear_leftovers(save->checkpoints, error));
    checkpoint_name(save->name, step);
    ELBO_TRY(file_join(save->target, save->checkpoints, save->name, error));
    if ((size_t)snprintf(save->aside, FILES_PATH, "%s.tmp", save->target) >= FILES_PATH)
        return elbo_fail(error, ELBO_IO, "the path %.200s... is too long", save->target);
    if (mkdir(save->aside, 0777)) return file_fail(error, "create the folder", save->aside, errno);
    return ELBO_OK;
}

/* Gives step-N.tmp its name. A step-N exists already after a fallback to an earlier step (it was damaged, or is
 * computed anew). The two then change names in one system call, so that one of them exists at every moment. */
static elbo_status rename_into_place(const struct save *save, elbo_error *error)
{
    if (renameat2(AT_FDCWD, save->aside, AT_FDCWD, save->target, RENAME_NOREPLACE) == 0) return ELBO_OK;
    if (errno == EEXIST) {
        if (renameat2(AT_FDCWD, save->aside, AT_FDCWD, save->target, RENAME_EXCHANGE) == 0) return ELBO_OK;
        if (errno != EINVAL && errno != ENOSYS) return file_fail(error, "exchange", save->target, errno);
    } else if (errno != EINVAL && errno != ENOSYS) {
        return file_fail(error, "rename to", save->target, errno);
    }
    /* The file system knows neither flag. The lock on the run directory keeps other processes away meanwhile. */
    struct stat about;
    char old[FILES_PATH];
    if ((size_t)snprintf(old, sizeof old, "%s.old.tmp", save->target) >= sizeof old)
        return elbo_fail(error, ELBO_IO, "the path %.200s... is too long", save->target);
    if (lstat(save->target, &about) == 0 && rename(save->target, old))
        return file_fail(error, "rename", save->target, errno);
    if (rename(save->aside, save->target)) return file_fail(error, "rename to", save->target, errno);
    return ELBO_OK;
}

static elbo_status write_manifest(const struct save *save, const struct checkpoint_contents *contents,
                                  struct manifest_file *files, size_t count, elbo_error *error)
{
    struct manifest manifest = {
        .step = contents->step,
        .ranks = contents->ranks ? contents->ranks : 1,
        .program = elbo_version(),
        .config_hash = contents->config_hash,
        .counters = contents->counters,
        .files = files,
        .count = count,
    };
    char *text, path[FILES_PATH];
    size_t size;
    ELBO_TRY(file_join(path, save->aside, CHECKPOINT_MANIFEST, error));
    ELBO_TRY(manifest_compose(&text, &size, &manifest, error));
    elbo_status status = file_write_new(path, text, size, error);
    free(text);
    return status;
}

static elbo_status append_entries(struct manifest_file **entries, size_t *count, const struct manifest_file *others,
                                  size_t other_count, elbo_error *error)
{
    struct manifest_file *all = realloc(*entries, (*count + other_count) * sizeof *all);
    if (!all) return elbo_fail(error, ELBO_MEMORY, "no memory for the entries of %zu files", *count + other_count);
    memcpy(all + *count, others, other_count * sizeof *all);
    *entries = all;
    *count += other_count;
    return ELBO_OK;
}

static elbo_status write_all_files(const struct save *save, const struct checkpoint_contents *contents,
                                   elbo_error *error)
{
    for (size_t i = 0; i < contents->file_count; i++)
        if (!manifest_name_is_good(contents->files[i].name))
            return elbo_fail(error, ELBO_INTERNAL, "%s cannot be the name of a checkpoint's file",
                             contents->files[i].name);
    ELBO_TRY(each_folder(save, contents, make_inside, error));
    struct manifest_file *entries = calloc(contents->file_count + 1, sizeof *entries), *others = NULL;
    size_t count = contents->file_count, other_count = 0;
    if (!entries) return elbo_fail(error, ELBO_MEMORY, "no memory for the entries of %zu files", contents->file_count);
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < contents->file_count && status == ELBO_OK; i++)
        status = checkpoint_write_file(&entries[i], save->aside, &contents->files[i], error);
    if (status == ELBO_OK && contents->others)
        status = contents->others(contents->context, save->aside, &others, &other_count, error);
    if (status == ELBO_OK && other_count) status = append_entries(&entries, &count, others, other_count, error);
    if (status == ELBO_OK) status = each_folder(save, contents, file_sync_folder, error);
    if (status == ELBO_OK) status = write_manifest(save, contents, entries, count, error);
    for (size_t i = 0; i < contents->file_count; i++) free(entries[i].chunks);
    for (size_t i = 0; i < other_count; i++) {
        free(others[i].chunks);
        free((char *)others[i].name);
    }
    free(others);
    free(entries);
    return status;
}

/* Makes `which`, "latest" or "best", name a checkpoint. */
static elbo_status name_checkpoint(const char *checkpoints, const char *which, const char *name, elbo_error *error)
{
    char path[FILES_PATH], text[CHECKPOINT_NAME + 1];
    ELBO_TRY(file_join(path, checkpoints, which, error));
    int size = snprintf(text, sizeof text, "%s\n", name);
    return file_write(path, text, (size_t)size, error);
}

elbo_status checkpoint_mark(const char *run_dir, const char *which, uint64_t step, elbo_error *error)
{
    char folder[FILES_PATH], name[CHECKPOINT_NAME];
    ELBO_TRY(file_join(folder, run_dir, CHECKPOINT_FOLDER, error));
    checkpoint_name(name, step);
    return name_checkpoint(folder, which, name, error);
}

elbo_status checkpoint_save(const char *run_dir, const struct checkpoint_contents *contents, size_t keep,
                            elbo_error *error)
{
    struct save save;
    elbo_status status = begin(&save, run_dir, contents->step, error);
    if (status) return elbo_fail_in(error, "the checkpoint of step %" PRIu64 " was not saved: ", contents->step);
    status = write_all_files(&save, contents, error);
    if (status == ELBO_OK) status = rename_into_place(&save, error);
    if (status) {
        elbo_error ignored;
        remove_tree(save.aside, &ignored); /* frees the space; the next save removes the rest */
        return elbo_fail_in(error, "the checkpoint of step %" PRIu64 " was not saved: ", contents->step);
    }
    status = file_sync_folder(save.checkpoints, error);
    if (status == ELBO_OK) status = name_checkpoint(save.checkpoints, "latest", save.name, error);
    if (status == ELBO_OK && contents->best && contents->best == contents->step)
        status = name_checkpoint(save.checkpoints, "best", save.name, error);
    if (status)
        return elbo_fail_in(error,
                            "the checkpoint of step %" PRIu64 " is written, but perhaps not durable: ", contents->step);
    status = clear_leftovers(save.checkpoints, error); /* the checkpoint that it replaced */
    if (status == ELBO_OK)
        status = rotate(save.checkpoints, contents->step, contents->best, contents->pinned, keep, error);
    if (status)
        return elbo_fail_in(error, "the checkpoint of step %" PRIu64 " is saved, but old ones stay: ", contents->step);
    return ELBO_OK;
}
