/* A folder that is built next to its place and then exchanged whole; see stage.h. */
#include "base/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the place ---- */

static bool is_mount_point(const char *path)
{
#ifdef STATX_ATTR_MOUNT_ROOT
    struct statx about;
    if (!statx(AT_FDCWD, path, 0, STATX_TYPE, &about) && about.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT)
        return about.stx_attributes & STATX_ATTR_MOUNT_ROOT;
#endif
    char parent[FILES_PATH];
    struct stat here, above;
    elbo_error unused;
    if (file_join(parent, path, "..", &unused) || stat(path, &here) || stat(parent, &above)) return false;
    return here.st_dev != above.st_dev || here.st_ino == above.st_ino; /* the root is its own parent */
}

static elbo_status trim(char out[FILES_PATH], const char *path, elbo_error *error)
{
    size_t size = strlen(path);
    if (!size || size >= FILES_PATH)
        return elbo_fail(error, ELBO_USAGE, "a path of %zu bytes is not usable; use 1 to %d", size, FILES_PATH - 1);
    memcpy(out, path, size + 1);
    while (size > 1 && out[size - 1] == '/') out[--size] = 0;
    return ELBO_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_dots(const char *name)
{
    return !*name || !strcmp(name, ".") || !strcmp(name, "..");
}

/* Returns whether the current folder is this folder or lies below it. */
static bool holds_current(const struct stat *folder)
{
    char path[FILES_PATH] = ".";
    struct stat about, above;
    size_t size = 1;
    if (stat(path, &about)) return false;
    for (;;) {
        if (about.st_dev == folder->st_dev && about.st_ino == folder->st_ino) return true;
        if (size + 4 > sizeof path) return false;
        memcpy(path + size, "/..", 4);
        size += 3;
        if (stat(path, &above) || (above.st_dev == about.st_dev && above.st_ino == about.st_ino))
            return false; /* the root */
        about = above;
    }
}

/* Checks that the place can be exchanged: a folder, not a mount point, not the current folder or one above it. */
static elbo_status check_place(char place[FILES_PATH], const struct stat *about, elbo_error *error)
{
    struct stat link;
    if (!S_ISDIR(about->st_mode))
        return elbo_fail(error, ELBO_IO,
                         "%s is a file, and a folder is to be made there; remove it or choose another "
                         "folder",
                         place);
    if (lstat(place, &link)) return file_fail(error, "inspect", place, errno);
    if (S_ISLNK(link.st_mode) || is_dots(base_name(place))) {
        char real[PATH_MAX];
        if (!realpath(place, real)) return file_fail(error, "resolve", place, errno);
        ELBO_TRY(trim(place, real, error));
    }
    if (holds_current(about))
        return elbo_fail(error, ELBO_USAGE,
                         "%s is or holds the current folder, which cannot be replaced whole; name another "
                         "one, such as ./corpus",
                         place);
    if (is_mount_point(place))
        return elbo_fail(error, ELBO_USAGE,
                         "%s is a mount point, which cannot be replaced whole; name a folder in it, "
                         "such as %s/corpus",
                         place, strcmp(place, "/") ? place : "");
    return ELBO_OK;
}

elbo_status stage_place(char place[FILES_PATH], const char *folder, elbo_error *error)
{
    struct stat about;
    ELBO_TRY(trim(place, folder, error));
    if (!stat(place, &about)) return check_place(place, &about, error);
    if (errno != ENOENT && errno != ENOTDIR) return file_fail(error, "inspect", place, errno);
    if (!lstat(place, &about))
        return elbo_fail(error, ELBO_USAGE, "%s is a symbolic link to nothing; remove it, or make the folder it names",
                         place);
    if (is_dots(base_name(place)))
        return elbo_fail(error, ELBO_USAGE, "%s does not end with the name of a folder to make; give one", place);
    return ELBO_OK;
}

/* Sets out = parent/.name + suffix. */
static elbo_status beside(char out[FILES_PATH], const char *place, const char *suffix, elbo_error *error)
{
    const char *name = base_name(place);
    int size = snprintf(out, FILES_PATH, "%.*s.%s%s", (int)(name - place), place, name, suffix);
    if (size < 0 || size >= FILES_PATH) return elbo_fail(error, ELBO_IO, "the path %s is too long", place);
    return ELBO_OK;
}

static void parent_of(char out[FILES_PATH], const char *place)
{
    size_t size = (size_t)(base_name(place) - place);
    memcpy(out, place, size);
    out[size] = 0;
    if (!size) strcpy(out, ".");
}

/* ---- sweeping ---- */

/* Removes a folder and everything below it. Symbolic links are removed, not followed. A missing folder is no error. */
static elbo_status remove_tree(const char *path, elbo_error *error)
{
    struct stat about;
    if (lstat(path, &about)) return errno == ENOENT ? ELBO_OK : file_fail(error, "inspect", path, errno);
    if (!S_ISDIR(about.st_mode)) return file_remove(path, error);
    DIR *folder = opendir(path);
    if (!folder) return file_fail(error, "read the folder", path, errno);
    elbo_status status = ELBO_OK;
    for (struct dirent *entry; status == ELBO_OK && (errno = 0, entry = readdir(folder));) {
        if (is_dots(entry->d_name)) continue;
        char *inside = malloc(FILES_PATH); /* on the heap because this function recurses */
        status = inside ? file_join(inside, path, entry->d_name, error)
                        : elbo_fail(error, ELBO_MEMORY, "no memory to remove %s", path);
        if (status == ELBO_OK) status = remove_tree(inside, error);
        free(inside);
    }
    if (status == ELBO_OK && errno) status = file_fail(error, "read the folder", path, errno);
    closedir(folder);
    if (status == ELBO_OK && rmdir(path) && errno != ENOENT)
        status = file_fail(error, "remove the folder", path, errno);
    return status;
}

/* ---- the lock ---- */

static elbo_status take_lock(struct stage *stage, elbo_error *error)
{
    for (int tries = 0; tries < 100; tries++) {
        struct stat held, named;
        int fd = open(stage->lock_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
        if (fd < 0) return file_fail(error, "create", stage->lock_path, errno);
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            int number = errno;
            char text[32] = "";
            ssize_t got = pread(fd, text, sizeof text - 1, 0);
            text[got > 0 ? got : 0] = 0;
            long process = strtol(text, NULL, 10);
            close(fd);
            if (number != EWOULDBLOCK) return file_fail(error, "lock", stage->lock_path, number);
            if (process > 0)
                snprintf(text, sizeof text, " (%ld)", process);
            else
                *text = 0;
            return elbo_fail(error, ELBO_BUSY,
                             "another process%s is making %s; wait for it to end, or choose another "
                             "folder",
                             text, stage->place);
        }
        /* the previous holder may have removed the name after this process opened it */
        if (!fstat(fd, &held) && !lstat(stage->lock_path, &named) && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev) {
            char text[32];
            int size = snprintf(text, sizeof text, "%ld\n", (long)getpid());
            stage->lock = fd;
            /* the process id only informs others that find the lock taken, so a failed write is no error */
            if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)size, 0) != size) return ELBO_OK;
            return ELBO_OK;
        }
        close(fd);
    }
    return elbo_fail(error, ELBO_BUSY, "%s comes and goes; try again", stage->lock_path);
}

static elbo_status sweep(struct stage *stage, elbo_error *error)
{
    struct stat about;
    if (lstat(stage->place, &about) && errno == ENOENT && !lstat(stage->old, &about)) {
        if (rename(stage->old, stage->place)) return file_fail(error, "rename to", stage->place, errno);
    }
    ELBO_TRY(remove_tree(stage->old, error));
    ELBO_TRY(remove_tree(stage->work, error));
    if (mkdir(stage->work, 0777)) return file_fail(error, "create the folder", stage->work, errno);
    return ELBO_OK;
}

elbo_status stage_open(struct stage *stage, const char *folder, elbo_error *error)
{
    char parent[FILES_PATH];
    stage->lock = -1;
    ELBO_TRY(stage_place(stage->place, folder, error));
    ELBO_TRY(beside(stage->work, stage->place, ".elbo-new", error));
    ELBO_TRY(beside(stage->old, stage->place, ".elbo-old", error));
    ELBO_TRY(beside(stage->lock_path, stage->place, ".elbo-lock", error));
    parent_of(parent, stage->place);
    if (!file_is_folder(parent)) ELBO_TRY(file_make_folder(parent, error));
    ELBO_TRY(take_lock(stage, error));
    elbo_status status = sweep(stage, error);
    if (status != ELBO_OK) stage_close(stage);
    return status;
}

void stage_close(struct stage *stage)
{
    if (stage->lock < 0) return;
    elbo_error unused;
    remove_tree(stage->work, &unused); /* the next stage sweeps leftovers */
    unlink(stage->lock_path);
    close(stage->lock);
    stage->lock = -1;
}

/* ---- the commit ---- */

static elbo_status sync_work(const char *work, elbo_error *error)
{
    DIR *folder = opendir(work);
    if (!folder) return file_fail(error, "read the folder", work, errno);
    elbo_status status = ELBO_OK;
    for (struct dirent *entry; status == ELBO_OK && (errno = 0, entry = readdir(folder));) {
        char inside[FILES_PATH];
        if (is_dots(entry->d_name)) continue;
        status = file_join(inside, work, entry->d_name, error);
        if (status == ELBO_OK && file_is_folder(inside)) status = file_sync_folder(inside, error);
    }
    if (status == ELBO_OK && errno) status = file_fail(error, "read the folder", work, errno);
    closedir(folder);
    return status == ELBO_OK ? file_sync_folder(work, error) : status;
}

/* Replaces the place by two renames, for file systems that cannot exchange. */
static elbo_status by_two_renames(const struct stage *stage, elbo_error *error)
{
    if (rename(stage->place, stage->old)) return file_fail(error, "rename", stage->place, errno);
    if (!rename(stage->work, stage->place)) return ELBO_OK;
    int number = errno;
    if (rename(stage->old, stage->place))
        return elbo_fail(error, ELBO_IO, "cannot rename to %s: %s; what stood there is %s now", stage->place,
                         strerror(number), stage->old);
    return file_fail(error, "rename to", stage->place, number);
}

elbo_status stage_commit(struct stage *stage, elbo_error *error)
{
    char parent[FILES_PATH];
    struct stat about;
    parent_of(parent, stage->place);
    ELBO_TRY(sync_work(stage->work, error));
    if (lstat(stage->place, &about)) {
        if (errno != ENOENT) return file_fail(error, "inspect", stage->place, errno);
        if (rename(stage->work, stage->place)) return file_fail(error, "rename to", stage->place, errno);
    } else if (renameat2(AT_FDCWD, stage->work, AT_FDCWD, stage->place, RENAME_EXCHANGE)) {
        int number = errno;
        if (number == EBUSY || number == EXDEV)
            return elbo_fail(error, ELBO_IO,
                             "cannot replace %s whole: %s; it may be a mount point, or of a lower layer of an "
                             "overlay: remove it, or choose another folder",
                             stage->place, strerror(number));
        if (number != EINVAL && number != ENOSYS && number != EOPNOTSUPP)
            return file_fail(error, "exchange", stage->place, number);
        ELBO_TRY(by_two_renames(stage, error));
    }
    elbo_status status = file_sync_folder(parent, error);
    elbo_error unused;
    /* not earlier, because a power failure could bring back an emptied folder */
    if (status == ELBO_OK) remove_tree(stage->old, &unused);
    if (status != ELBO_OK) { /* the replaced folder is left for the next stage to sweep */
        unlink(stage->lock_path);
        close(stage->lock);
        stage->lock = -1;
    }
    return status;
}
