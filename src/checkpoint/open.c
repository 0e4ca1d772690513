/* Opens a checkpoint. Folders and files are opened relative to one another with O_NOFOLLOW, and only names in the
 * manifest are opened. All files are opened first, so that a trainer that deletes the checkpoint meanwhile takes
 * nothing away. Then each file is read with pread to verify its checksums, and later again for its tensors. Files are
 * not mapped, because a mapped file that shrinks raises a signal in the place of an error. */
#include "checkpoint/checkpoint.h"

#include "base/files.h"
#include "checkpoint/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BUFFER = 1 << 20 };

struct opened {
    int descriptor;   /* -1: not opened */
    const char *name; /* owned by the manifest */
    uint64_t size;
    void *bytes; /* the whole file, read on first use; null: not read yet */
};

struct checkpoint {
    char path[FILES_PATH];
    struct manifest manifest;
    struct opened *files; /* (manifest.count) */
};

/* ---- one file ---- */

/* Opens a regular file below `folder`, "name" or "sub/name", following no link. */
static elbo_status open_inside(int *out, uint64_t *size, int folder, const char *name, elbo_error *error)
{
    char first[MANIFEST_MOST_NAME + 1];
    const char *slash = strchr(name, '/'), *last = slash ? slash + 1 : name;
    int parent = folder;
    if (slash) {
        snprintf(first, sizeof first, "%.*s", (int)(slash - name), name);
        parent = openat(folder, first, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (parent < 0) return file_fail(error, "open the folder", first, errno);
    }
    /* O_NONBLOCK, because opening a pipe must not wait before fstat can refuse it */
    int fd = openat(parent, last, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK), number = errno;
    if (slash) close(parent);
    if (fd < 0) return file_fail(error, "open", name, number);
    struct stat about;
    if (fstat(fd, &about) || !S_ISREG(about.st_mode)) {
        close(fd);
        return elbo_fail(error, ELBO_INPUT, "%s is not a regular file", name);
    }
    *out = fd;
    *size = (uint64_t)about.st_size;
    return ELBO_OK;
}

static elbo_status read_exactly(int fd, void *buffer, size_t size, uint64_t offset, const char *name, elbo_error *error)
{
    char *to = buffer;
    while (size > 0) {
        ssize_t got = pread(fd, to, size, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return file_fail(error, "read", name, errno);
        if (got == 0)
            return elbo_fail(error, ELBO_INPUT, "%s ended at byte %" PRIu64 " while it was read", name, offset);
        to += got;
        size -= (size_t)got;
        offset += (uint64_t)got;
    }
    return ELBO_OK;
}

static elbo_status compare_sums(const struct manifest_file *found, const struct manifest_file *wanted,
                                elbo_error *error)
{
    for (size_t i = 0; i < wanted->chunk_count; i++) {
        if (found->chunks[i] == wanted->chunks[i]) continue;
        uint64_t from = (uint64_t)i * MANIFEST_CHUNK, to = from + MANIFEST_CHUNK;
        if (to > wanted->bytes) to = wanted->bytes;
        return elbo_fail(error, ELBO_INPUT, "%s is damaged between byte %" PRIu64 " and byte %" PRIu64, wanted->name,
                         from, to);
    }
    if (found->xxh3 != wanted->xxh3)
        return elbo_fail(error, ELBO_INPUT, "%s does not match its checksum", wanted->name);
    return ELBO_OK;
}

static elbo_status verify_bytes(int fd, const struct manifest_file *wanted, elbo_error *error)
{
    struct checksums *sums;
    ELBO_TRY(checksums_begin(&sums, error));
    size_t room = wanted->bytes < READ_BUFFER ? (size_t)wanted->bytes + 1 : READ_BUFFER;
    unsigned char *buffer = malloc(room);
    elbo_status status = buffer ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to read %s", wanted->name);
    for (uint64_t offset = 0; status == ELBO_OK && offset < wanted->bytes;) {
        size_t part = wanted->bytes - offset < READ_BUFFER ? (size_t)(wanted->bytes - offset) : READ_BUFFER;
        status = read_exactly(fd, buffer, part, offset, wanted->name, error);
        if (status == ELBO_OK) status = checksums_update(sums, buffer, part, error);
        offset += part;
    }
    free(buffer);
    if (status) {
        checksums_abort(sums);
        return status;
    }
    struct manifest_file found = {0};
    ELBO_TRY(checksums_end(&found, sums, error));
    status = compare_sums(&found, wanted, error);
    free(found.chunks);
    return status;
}

static elbo_status open_file(struct opened *out, int folder, const struct manifest_file *wanted, elbo_error *error)
{
    out->name = wanted->name;
    ELBO_TRY(open_inside(&out->descriptor, &out->size, folder, wanted->name, error));
    if (out->size == wanted->bytes && out->size <= SIZE_MAX / 2) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT, "%s has %" PRIu64 " bytes, the manifest says %" PRIu64 ": it is %s",
                     wanted->name, out->size, wanted->bytes,
                     out->size < wanted->bytes ? "truncated" : "not the file that was saved");
}

/* ---- one checkpoint ---- */

static elbo_status open_manifest(struct manifest *out, int folder, elbo_error *error)
{
    int fd;
    uint64_t size;
    ELBO_TRY(open_inside(&fd, &size, folder, CHECKPOINT_MANIFEST, error));
    char *text = NULL;
    elbo_status status = ELBO_OK;
    if (size > MANIFEST_MOST_BYTES)
        status =
            elbo_fail(error, ELBO_INPUT, "has %" PRIu64 " bytes, at most %d are possible", size, MANIFEST_MOST_BYTES);
    else if (!(text = malloc((size_t)size + 1)))
        status = elbo_fail(error, ELBO_MEMORY, "no memory for the manifest's %" PRIu64 " bytes", size);
    if (status == ELBO_OK) status = read_exactly(fd, text, (size_t)size, 0, CHECKPOINT_MANIFEST, error);
    if (status == ELBO_OK) status = manifest_parse(out, text, (size_t)size, error);
    if (status == ELBO_INPUT) elbo_fail_in(error, CHECKPOINT_MANIFEST " ");
    free(text);
    close(fd);
    return status;
}

static elbo_status open_all(struct checkpoint *checkpoint, int folder, elbo_error *error)
{
    ELBO_TRY(open_manifest(&checkpoint->manifest, folder, error));
    size_t count = checkpoint->manifest.count;
    checkpoint->files = calloc(count + 1, sizeof *checkpoint->files);
    if (!checkpoint->files) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu files", count);
    for (size_t i = 0; i < count; i++) checkpoint->files[i].descriptor = -1;
    for (size_t i = 0; i < count; i++)
        ELBO_TRY(open_file(&checkpoint->files[i], folder, &checkpoint->manifest.files[i], error));
    for (size_t i = 0; i < count; i++)
        ELBO_TRY(verify_bytes(checkpoint->files[i].descriptor, &checkpoint->manifest.files[i], error));
    return ELBO_OK;
}

/* Opens a checkpoint whose `folder` is open at `path`. `step` is the step in its name; NULL: any step. */
static elbo_status open_checkpoint(struct checkpoint **out, int folder, const char *path, const uint64_t *step,
                                   elbo_error *error)
{
    struct checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (!checkpoint) return elbo_fail(error, ELBO_MEMORY, "no memory to open %s", path);
    snprintf(checkpoint->path, sizeof checkpoint->path, "%s", path);
    elbo_status status = open_all(checkpoint, folder, error);
    if (status == ELBO_OK && step && *step != checkpoint->manifest.step)
        status = elbo_fail(error, ELBO_INPUT, "holds step %" PRIu64 ", which its name does not say",
                           checkpoint->manifest.step);
    if (status) {
        checkpoint_close(checkpoint);
        return elbo_fail_in(error, "%s: ", path);
    }
    *out = checkpoint;
    return ELBO_OK;
}

/* ---- a run directory ---- */

struct refusal {
    struct refusal *next;
    elbo_error why;
};

struct search {
    int checkpoints;                /* descriptor of RUN/checkpoints */
    const char *path;               /* path of RUN/checkpoints */
    struct refusal *refused, **end; /* in order; reported after the search, dropped when it begins anew */
    size_t count;
};

static void refuse(struct search *search, const elbo_error *why)
{
    struct refusal *r = malloc(sizeof *r);
    search->count++;
    if (!r) return;
    *r = (struct refusal){NULL, *why};
    *search->end = r;
    search->end = &r->next;
}

static void forget(struct search *search)
{
    while (search->refused) {
        struct refusal *next = search->refused->next;
        free(search->refused);
        search->refused = next;
    }
    search->end = &search->refused;
    search->count = 0;
}

/* Tries one checkpoint. Returns true if the search is over: *out is set, or `error` is one that no other checkpoint can
 * mend. */
static bool try_step(struct checkpoint **out, struct search *search, uint64_t step, elbo_status *status,
                     elbo_error *error)
{
    char name[CHECKPOINT_NAME], path[FILES_PATH];
    checkpoint_name(name, step);
    *status = file_join(path, search->path, name, error);
    if (*status) return true;
    int folder = openat(search->checkpoints, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) {
        if (errno == ENOTDIR || errno == ELOOP)
            *status = elbo_fail(error, ELBO_INPUT, "%s is not a folder (symbolic links are not followed)", path);
        else
            *status = file_fail(error, "open the folder", path, errno);
    } else {
        *status = open_checkpoint(out, folder, path, &step, error);
        close(folder);
    }
    if (*status == ELBO_OK || *status == ELBO_MEMORY) return true;
    refuse(search, error);
    return false;
}

/* Reads the step in the small file `which` ("latest", "best"). Sets `missing` if there is no such file. */
static elbo_status read_name(uint64_t *step, bool *missing, int checkpoints, const char *path, const char *which,
                             elbo_error *error)
{
    char text[CHECKPOINT_NAME + 1] = {0};
    int fd;
    uint64_t size;
    *missing = faccessat(checkpoints, which, F_OK, AT_SYMLINK_NOFOLLOW) && errno == ENOENT;
    if (*missing) return elbo_fail(error, ELBO_INPUT, "%s has no %s", path, which);
    ELBO_TRY(open_inside(&fd, &size, checkpoints, which, error));
    if (size >= sizeof text || size < 2) size = 0;
    elbo_status status = size ? read_exactly(fd, text, (size_t)size, 0, which, error) : ELBO_OK;
    close(fd);
    ELBO_TRY(status);
    size_t length = strlen(text);
    if (length && text[length - 1] == '\n') text[length - 1] = 0;
    if (checkpoint_parse_name(step, text)) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT, "%s/%s does not name a checkpoint", path, which);
}

/* Reads the step in `latest`. Returns false if it names no checkpoint, which is a refusal unless the file is
 * missing. */
static bool read_latest(uint64_t *step, struct search *search)
{
    elbo_error error;
    bool missing;
    if (!read_name(step, &missing, search->checkpoints, search->path, "latest", &error)) return true;
    if (!missing) refuse(search, &error);
    return false;
}

static bool search_once(struct checkpoint **out, struct search *search, bool named, uint64_t latest,
                        elbo_status *status, elbo_error *error)
{
    if (named && try_step(out, search, latest, status, error)) return true;
    uint64_t *steps;
    size_t count;
    *status = checkpoint_list(&steps, &count, search->path, error);
    if (*status) return true;
    bool done = false;
    for (size_t i = 0; i < count && !done; i++)
        if (!named || steps[i] != latest) done = try_step(out, search, steps[i], status, error);
    free(steps);
    return done;
}

/* A trainer may save and delete while its run is searched. If `latest` has moved since a refusal, the search begins
 * anew, and refusals of checkpoints that were deleted meanwhile are not reported. */
static elbo_status open_best(struct checkpoint **out, struct search *search, elbo_error *error)
{
    enum { MOST_SEARCHES = 200 };
    elbo_status status = ELBO_OK;
    for (int i = 0;; i++) {
        uint64_t latest = 0, moved = 0;
        forget(search);
        bool named = read_latest(&latest, search), done = search_once(out, search, named, latest, &status, error);
        if (done && (status || !search->count)) return status;
        struct search again = *search;
        again.end = &again.refused;
        again.refused = NULL;
        bool renamed = read_latest(&moved, &again) != named || moved != latest;
        forget(&again);
        if (renamed && i < MOST_SEARCHES) {
            if (done) checkpoint_close(*out);
            *out = NULL;
            continue;
        }
        if (done) return status;
        break;
    }
    if (search->count == 0)
        return elbo_fail(error, ELBO_INPUT, "%s holds no checkpoint yet; train first, or give another run",
                         search->path);
    if (search->refused) *error = search->refused->why;
    return elbo_fail_in(error, "no checkpoint can be used (%zu tried). ", search->count);
}

static elbo_status open_run(struct checkpoint **out, int checkpoints, const char *path, checkpoint_warning warn,
                            void *context, elbo_error *error)
{
    char inside[FILES_PATH];
    struct search search = {.checkpoints = checkpoints, .path = inside};
    search.end = &search.refused;
    elbo_status status = file_join(inside, path, CHECKPOINT_FOLDER, error);
    if (status == ELBO_OK) status = open_best(out, &search, error);
    for (const struct refusal *r = search.refused; r && warn; r = r->next) warn(context, r->why.message);
    forget(&search);
    return status;
}

/* Opens the checkpoint that RUN/checkpoints/best or RUN/checkpoints/latest names; its folder is beside the file. */
static elbo_status open_named(struct checkpoint **out, const char *path, elbo_error *error)
{
    char folder[FILES_PATH], name[CHECKPOINT_NAME], inside[FILES_PATH];
    const char *slash = strrchr(path, '/'), *which = slash ? slash + 1 : path;
    uint64_t step;
    bool missing;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    int checkpoints = open(*folder ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (checkpoints < 0) return file_fail(error, "open the folder", folder, errno);
    elbo_status status = read_name(&step, &missing, checkpoints, folder, which, error);
    close(checkpoints);
    ELBO_TRY(status);
    checkpoint_name(name, step);
    ELBO_TRY(file_join(inside, folder, name, error));
    return checkpoint_open(out, inside, NULL, NULL, error);
}

static bool names_checkpoint(const char *path)
{
    const char *slash = strrchr(path, '/'), *which = slash ? slash + 1 : path;
    return (!strcmp(which, "best") || !strcmp(which, "latest")) && file_is_regular(path);
}

elbo_status checkpoint_open(struct checkpoint **out, const char *path, checkpoint_warning warn, void *context,
                            elbo_error *error)
{
    *out = NULL;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 && errno == ENOTDIR && names_checkpoint(path)) return open_named(out, path, error);
    if (folder < 0) return file_fail(error, "open the run or checkpoint", path, errno);
    elbo_status status;
    if (faccessat(folder, CHECKPOINT_MANIFEST, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        status = open_checkpoint(out, folder, path, NULL, error);
        close(folder);
        return status;
    }
    /* This symbolic link is the only one followed, because users keep `checkpoints` on another disk. */
    int checkpoints = openat(folder, CHECKPOINT_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC), number = errno;
    bool begun = faccessat(folder, "config.yaml", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    close(folder);
    if (checkpoints < 0 && number == ENOENT && begun)
        return elbo_fail(error, ELBO_INPUT,
                         "%s has no checkpoint yet: its training has saved none so far; wait for one, or lower "
                         "checkpoint.every",
                         path);
    if (checkpoints < 0 && number == ENOENT)
        return elbo_fail(error, ELBO_INPUT,
                         "%s is neither a run directory (it has no %s/) nor a checkpoint (it has no %s)", path,
                         CHECKPOINT_FOLDER, CHECKPOINT_MANIFEST);
    if (checkpoints < 0) return file_fail(error, "open the checkpoints of", path, number);
    status = open_run(out, checkpoints, path, warn, context, error);
    close(checkpoints);
    return status;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (!checkpoint) return;
    for (size_t i = 0; checkpoint->files && i < checkpoint->manifest.count; i++) {
        if (checkpoint->files[i].descriptor >= 0) close(checkpoint->files[i].descriptor);
        free(checkpoint->files[i].bytes);
    }
    free(checkpoint->files);
    manifest_free(&checkpoint->manifest);
    free(checkpoint);
}

/* ---- contents ---- */

const char *checkpoint_path(const struct checkpoint *checkpoint)
{
    return checkpoint->path;
}

uint64_t checkpoint_step(const struct checkpoint *checkpoint)
{
    return checkpoint->manifest.step;
}

size_t checkpoint_ranks(const struct checkpoint *checkpoint)
{
    return checkpoint->manifest.ranks;
}

const char *checkpoint_config_hash(const struct checkpoint *checkpoint)
{
    return checkpoint->manifest.config_hash;
}

const char *checkpoint_program(const struct checkpoint *checkpoint)
{
    return checkpoint->manifest.program;
}

json_t *checkpoint_counters(const struct checkpoint *checkpoint)
{
    return checkpoint->manifest.counters;
}

static bool find(size_t *index, const struct checkpoint *checkpoint, const char *name)
{
    for (*index = 0; *index < checkpoint->manifest.count; ++*index)
        if (!strcmp(checkpoint->manifest.files[*index].name, name)) return true;
    return false;
}

bool checkpoint_has(const struct checkpoint *checkpoint, const char *name)
{
    size_t index;
    return find(&index, checkpoint, name);
}

const char *checkpoint_named(const struct checkpoint *checkpoint, const char *beginning)
{
    size_t length = strlen(beginning);
    for (size_t i = 0; i < checkpoint->manifest.count; i++)
        if (!strncmp(checkpoint->manifest.files[i].name, beginning, length)) return checkpoint->manifest.files[i].name;
    return NULL;
}

const struct manifest *checkpoint_manifest(const struct checkpoint *checkpoint)
{
    return &checkpoint->manifest;
}

static elbo_status find_opened(struct opened **out, const struct checkpoint *checkpoint, const char *name,
                               elbo_error *error)
{
    size_t index;
    if (!find(&index, checkpoint, name))
        return elbo_fail(error, ELBO_INPUT, "%s: its manifest does not name %s", checkpoint->path, name);
    *out = &checkpoint->files[index];
    return ELBO_OK;
}

elbo_status checkpoint_bytes(const void **bytes, size_t *size, const struct checkpoint *checkpoint, const char *name,
                             elbo_error *error)
{
    struct opened *file;
    ELBO_TRY(find_opened(&file, checkpoint, name, error));
    if (!file->bytes) {
        char *read = malloc((size_t)file->size + 1);
        if (!read)
            return elbo_fail(error, ELBO_MEMORY, "no memory to read the %" PRIu64 " bytes of %s", file->size, name);
        if (read_exactly(file->descriptor, read, (size_t)file->size, 0, name, error)) {
            free(read);
            return elbo_fail_in(error, "%s: ", checkpoint->path);
        }
        read[file->size] = 0;
        file->bytes = read;
    }
    *bytes = file->bytes;
    *size = (size_t)file->size;
    return ELBO_OK;
}

static elbo_status read_opened(void *context, void *to, uint64_t at, size_t size, elbo_error *error)
{
    const struct opened *file = context;
    return read_exactly(file->descriptor, to, size, at, file->name, error);
}

elbo_status checkpoint_tensors(struct safetensors **out, const struct checkpoint *checkpoint, const char *name,
                               elbo_error *error)
{
    struct opened *file;
    ELBO_TRY(find_opened(&file, checkpoint, name, error));
    struct safetensors_reader reader = {read_opened, file, file->size};
    if (safetensors_open(out, &reader, error)) return elbo_fail_in(error, "%s/%s: ", checkpoint->path, name);
    return ELBO_OK;
}
