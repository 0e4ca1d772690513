/* Files: reading, durable writing and folders. The result of every system call is checked; see files.h. */
#include "base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 18 };

elbo_status file_fail(elbo_error *error, const char *verb, const char *path, int number)
{
    const char *remedy = "";
    switch (number) {
    case ENOENT:
        remedy = "; check the path";
        break;
    case EACCES:
    case EPERM:
        remedy = "; check the permissions";
        break;
    case ENOSPC:
    case EDQUOT:
        remedy = "; free some space or write elsewhere";
        break;
    case EROFS:
        remedy = "; write elsewhere";
        break;
    case EMFILE:
    case ENFILE:
        remedy = "; raise the limit on open files (ulimit -n)";
        break;
    case ELOOP:
        remedy = "; symbolic links are not followed here";
        break;
    default:
        break;
    }
    return elbo_fail(error, number == ENOMEM ? ELBO_MEMORY : ELBO_IO, "cannot %s %s: %s%s", verb, path,
                     strerror(number), remedy);
}

/* ---- reading ---- */

elbo_status file_open_regular(int *descriptor, size_t *size, const char *path, elbo_error *error)
{
    /* O_NONBLOCK because opening a FIFO must not hang before fstat can refuse it */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return file_fail(error, "open", path, errno);
    struct stat about;
    if (fstat(fd, &about)) {
        int number = errno;
        close(fd);
        return file_fail(error, "inspect", path, number);
    }
    if (!S_ISREG(about.st_mode)) {
        close(fd);
        return elbo_fail(error, ELBO_IO, "%s is %s, not a regular file; give the path of a file", path,
                         S_ISDIR(about.st_mode) ? "a folder" : "a device or pipe");
    }
    if (about.st_size < 0 || (uintmax_t)about.st_size > SIZE_MAX / 2) {
        close(fd);
        return elbo_fail(error, ELBO_INPUT, "%s is too large to address", path);
    }
    *descriptor = fd;
    *size = (size_t)about.st_size;
    return ELBO_OK;
}

elbo_status file_read(char **data, size_t *size, const char *path, size_t limit, elbo_error *error)
{
    int fd;
    size_t want;
    ELBO_TRY(file_open_regular(&fd, &want, path, error));
    if (want > limit) {
        close(fd);
        return elbo_fail(error, ELBO_INPUT, "%s has %zu bytes; at most %zu are accepted for a file of this kind", path,
                         want, limit);
    }
    char *text = malloc(want + 1);
    if (!text) {
        close(fd);
        return elbo_fail(error, ELBO_MEMORY, "no memory for the %zu bytes of %s", want, path);
    }
    size_t got = 0;
    while (got < want) {
        ssize_t n = read(fd, text + got, want - got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            int number = errno;
            close(fd);
            free(text);
            if (n == 0) return elbo_fail(error, ELBO_INPUT, "%s became shorter while it was read; try again", path);
            return file_fail(error, "read", path, number);
        }
        got += (size_t)n;
    }
    close(fd);
    text[want] = 0;
    *data = text;
    *size = want;
    return ELBO_OK;
}

elbo_status file_read_at(int descriptor, void *data, size_t size, uint64_t offset, const char *path, elbo_error *error)
{
    char *to = data;
    while (size) {
        ssize_t n = pread(descriptor, to, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return file_fail(error, "read", path, errno);
        if (n == 0) return elbo_fail(error, ELBO_INPUT, "%s became shorter while it was read", path);
        to += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return ELBO_OK;
}

elbo_status file_read_descriptor(char **data, size_t *size, int descriptor, const char *name, elbo_error *error)
{
    size_t capacity = 1 << 16, used = 0;
    char *text = malloc(capacity);
    if (!text) return elbo_fail(error, ELBO_MEMORY, "no memory to read %s", name);
    for (;;) {
        if (capacity - used < 2) {
            char *larger = capacity > SIZE_MAX / 2 ? NULL : realloc(text, 2 * capacity);
            if (!larger) {
                free(text);
                return elbo_fail(error, ELBO_MEMORY, "no memory for %s after %zu bytes; write it to a file first", name,
                                 used);
            }
            text = larger;
            capacity *= 2;
        }
        ssize_t n = read(descriptor, text + used, capacity - used - 1);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            int number = errno;
            free(text);
            return file_fail(error, "read", name, number);
        }
        if (n == 0) break;
        used += (size_t)n;
    }
    text[used] = 0;
    *data = text;
    *size = used;
    return ELBO_OK;
}

/* ---- writing ---- */

static elbo_status write_all(int fd, const unsigned char *data, size_t size, const char *path, elbo_error *error)
{
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return file_fail(error, "write", path, n < 0 ? errno : EIO);
        data += n;
        size -= (size_t)n;
    }
    return ELBO_OK;
}

static elbo_status open_new(struct file_writer *writer, elbo_error *error)
{
    writer->buffer = malloc(BUFFER);
    if (!writer->buffer) return elbo_fail(error, ELBO_MEMORY, "no memory to write %s", writer->path);
    writer->descriptor = open(writer->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (writer->descriptor >= 0) return ELBO_OK;
    int number = errno;
    free(writer->buffer);
    writer->buffer = NULL;
    return file_fail(error, "create", writer->path, number);
}

static elbo_status copy_path(char out[FILES_PATH], const char *path, elbo_error *error)
{
    size_t size = strlen(path);
    if (!size || size >= FILES_PATH)
        return elbo_fail(error, ELBO_IO, "a path of %zu bytes is not usable; use 1 to %d", size, FILES_PATH - 1);
    memcpy(out, path, size + 1);
    return ELBO_OK;
}

static void writer_reset(struct file_writer *writer)
{
    writer->descriptor = -1;
    writer->written = 0;
    writer->buffer = NULL;
    writer->used = 0;
    writer->path[0] = writer->target[0] = 0;
}

elbo_status file_create(struct file_writer *writer, const char *path, elbo_error *error)
{
    writer_reset(writer);
    ELBO_TRY(copy_path(writer->path, path, error));
    return open_new(writer, error);
}

elbo_status file_replace(struct file_writer *writer, const char *path, elbo_error *error)
{
    writer_reset(writer);
    ELBO_TRY(copy_path(writer->target, path, error));
    int size = snprintf(writer->path, FILES_PATH, "%s.%ld.tmp", path, (long)getpid());
    if (size < 0 || size >= FILES_PATH) return elbo_fail(error, ELBO_IO, "the path %s is too long", path);
    /* a file with this process's id was left by a dead process, so its removal harms nobody */
    if (unlink(writer->path) && errno != ENOENT) return file_fail(error, "remove", writer->path, errno);
    return open_new(writer, error);
}

static elbo_status flush(struct file_writer *writer, elbo_error *error)
{
    size_t used = writer->used;
    writer->used = 0;
    return write_all(writer->descriptor, writer->buffer, used, writer->path, error);
}

elbo_status file_append(struct file_writer *writer, const void *data, size_t size, elbo_error *error)
{
    writer->written += size;
    if (size > BUFFER - writer->used) {
        ELBO_TRY(flush(writer, error));
        if (size >= BUFFER) return write_all(writer->descriptor, data, size, writer->path, error);
    }
    if (size) memcpy(writer->buffer + writer->used, data, size);
    writer->used += size;
    return ELBO_OK;
}

elbo_status file_patch(struct file_writer *writer, uint64_t offset, const void *data, size_t size, elbo_error *error)
{
    if (offset > writer->written || size > writer->written - offset)
        return elbo_fail(error, ELBO_INTERNAL, "patch past the end of %s", writer->path);
    ELBO_TRY(flush(writer, error));
    const unsigned char *from = data;
    while (size) {
        ssize_t n = pwrite(writer->descriptor, from, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return file_fail(error, "write", writer->path, n < 0 ? errno : EIO);
        from += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return ELBO_OK;
}

static elbo_status sync_parent(const char *path, elbo_error *error)
{
    char folder[FILES_PATH];
    ELBO_TRY(copy_path(folder, path, error));
    size_t size = strlen(folder);
    while (size > 1 && folder[size - 1] == '/') folder[--size] = 0;
    char *slash = strrchr(folder, '/');
    if (!slash) return file_sync_folder(".", error);
    slash[slash == folder] = 0;
    return file_sync_folder(folder, error);
}

elbo_status file_seal(struct file_writer *writer, elbo_error *error)
{
    ELBO_TRY(flush(writer, error));
    /* a failed fsync is never retried on the same descriptor because the kernel may have dropped the pages */
    if (fsync(writer->descriptor)) return file_fail(error, "make durable", writer->path, errno);
    int fd = writer->descriptor;
    writer->descriptor = -1;
    free(writer->buffer);
    writer->buffer = NULL;
    if (close(fd)) {
        int number = errno;
        unlink(writer->path);
        return file_fail(error, "close", writer->path, number);
    }
    return ELBO_OK;
}

elbo_status file_commit(struct file_writer *writer, elbo_error *error)
{
    ELBO_TRY(file_seal(writer, error));
    if (writer->target[0] && rename(writer->path, writer->target)) {
        int number = errno;
        unlink(writer->path);
        return file_fail(error, "rename to", writer->target, number);
    }
    return sync_parent(writer->path, error);
}

void file_abort(struct file_writer *writer)
{
    if (writer->descriptor >= 0) {
        close(writer->descriptor);
        unlink(writer->path);
    }
    free(writer->buffer);
    writer->descriptor = -1;
    writer->buffer = NULL;
}

static elbo_status write_and_commit(struct file_writer *writer, const void *data, size_t size, elbo_error *error)
{
    elbo_status status = file_append(writer, data, size, error);
    if (status == ELBO_OK) status = file_commit(writer, error);
    file_abort(writer);
    return status;
}

elbo_status file_write(const char *path, const void *data, size_t size, elbo_error *error)
{
    struct file_writer writer;
    ELBO_TRY(file_replace(&writer, path, error));
    return write_and_commit(&writer, data, size, error);
}

elbo_status file_write_new(const char *path, const void *data, size_t size, elbo_error *error)
{
    struct file_writer writer;
    ELBO_TRY(file_create(&writer, path, error));
    return write_and_commit(&writer, data, size, error);
}

/* ---- folders ---- */

elbo_status file_join(char out[FILES_PATH], const char *folder, const char *name, elbo_error *error)
{
    size_t length = strlen(folder);
    const char *slash = length && folder[length - 1] == '/' ? "" : "/";
    int size = snprintf(out, FILES_PATH, "%s%s%s", folder, slash, name);
    if (size < 0 || size >= FILES_PATH)
        return elbo_fail(error, ELBO_IO, "the path %.60s.../%s is longer than %d bytes; use a shorter one", folder,
                         name, FILES_PATH - 1);
    return ELBO_OK;
}

elbo_status file_sync_folder(const char *path, elbo_error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return file_fail(error, "open the folder", path, errno);
    int number = fsync(fd) ? errno : 0;
    close(fd);
    /* some network file systems cannot sync a folder and return EINVAL; this is not an error here */
    if (number && number != EINVAL) return file_fail(error, "make durable the folder", path, number);
    return ELBO_OK;
}

elbo_status file_make_folder(const char *path, elbo_error *error)
{
    char part[FILES_PATH];
    ELBO_TRY(copy_path(part, path, error));
    for (char *end = part;;) {
        end = strchr(end + 1, '/');
        if (end) *end = 0;
        if (mkdir(part, 0777) == 0) {
            ELBO_TRY(sync_parent(part, error));
        } else if (errno != EEXIST) {
            return file_fail(error, "create the folder", part, errno);
        } else if (!file_is_folder(part)) {
            return elbo_fail(error, ELBO_IO,
                             "cannot create the folder %s: a file of that name is there; remove it or "
                             "choose another folder",
                             part);
        }
        if (!end) return ELBO_OK;
        *end = '/';
    }
}

elbo_status file_remove(const char *path, elbo_error *error)
{
    if (unlink(path) && errno != ENOENT) return file_fail(error, "remove", path, errno);
    return ELBO_OK;
}

elbo_status file_remove_folder(const char *path, elbo_error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? ELBO_OK : file_fail(error, "open the folder", path, errno);
    DIR *folder = fdopendir(fd);
    if (!folder) {
        int number = errno;
        close(fd);
        return file_fail(error, "read the folder", path, number);
    }
    elbo_status status = ELBO_OK;
    for (struct dirent *entry; status == ELBO_OK && (errno = 0, entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (unlinkat(fd, entry->d_name, 0) && errno != ENOENT) {
            int number = errno;
            char inside[FILES_PATH];
            if (file_join(inside, path, entry->d_name, error) == ELBO_OK)
                status = file_fail(error, "remove", inside, number);
            else
                status = error->code;
        }
    }
    if (status == ELBO_OK && errno) status = file_fail(error, "read the folder", path, errno);
    closedir(folder);
    if (status == ELBO_OK && rmdir(path) && errno != ENOENT)
        status = file_fail(error, "remove the folder", path, errno);
    return status;
}

bool file_is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool file_is_regular(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}
