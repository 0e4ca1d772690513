/* The system calls of this process on files below one folder: numbered, recorded, made to fail, or made its last.
 *
 *     watch_begin("/dev/shm/x/run", WATCH_ALL);               -- from here on, calls on paths below it are counted
 *     watch.at = 17; watch.effect = EFFECT_ERROR; watch.number = ENOSPC;    -- the 17th (from 0) fails
 *     ... code under test ...
 *     size_t calls = watch_end();
 *
 * The functions below take the C library's place in the program (or, in a preloaded library, in any program) that
 * includes this header, once. Paths are absolute, or relative to a folder that was opened by an absolute one. State is
 * global because these functions have no context; one test uses one watch at a time. */
#ifndef TESTS_WATCHED_CALLS_H
#define TESTS_WATCHED_CALLS_H

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum call_kind {
    CALL_CREATE, /* open for writing */
    CALL_WRITE,
    CALL_FSYNC,
    CALL_CLOSE,
    CALL_MKDIR,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_RMDIR,
    CALL_TRUNCATE,
    CALL_OPEN, /* for reading */
    CALL_READ,
    CALL_STAT,
    CALL_LIST, /* opendir, fdopendir, readdir */
    CALL_MAP,
    CALL_KINDS,
};
#define WATCH_CHANGES ((1u << (CALL_TRUNCATE + 1)) - 1) /* what a crash between two of them can tell apart ...   */
#define WATCH_OPENS   (WATCH_CHANGES | 1u << CALL_OPEN) /* ... and where folders are opened to be synced or read */
#define WATCH_ALL     ((1u << CALL_KINDS) - 1)

enum call_effect {
    EFFECT_NONE,
    EFFECT_KILL,  /* SIGKILL instead of the call             */
    EFFECT_TEAR,  /* half of the write (all of any other call), then SIGKILL */
    EFFECT_ERROR, /* -1 and watch.number; a failing close closes */
    EFFECT_SHORT, /* half of the bytes are read or written   */
    EFFECT_FULL,  /* as on a full disk: half of the first write, then watch.number for all that takes space */
};

struct system_call {
    enum call_kind kind;
    const char *path, *other; /* absolute; `other`: where a rename goes */
    int flags;                /* of open, of renameat2 */
    int descriptor;           /* of write, fsync, close, truncate; what open returned */
    const void *bytes;
    size_t size;  /* bytes written; new size of a truncated file */
    off_t offset; /* -1: at the file's position, or its end */
};

enum { WATCH_DESCRIPTORS = 256, WATCH_PATH = 600 };

struct watch {
    char root[WATCH_PATH];
    bool on;
    unsigned kinds; /* those that are counted and affected */
    atomic_size_t count;
    size_t at, times; /* calls at .. at + times - 1 are affected; times 0 means one */
    enum call_effect effect;
    int number;
    enum call_kind hit; /* what the affected call was */
    size_t hits;
    void (*record)(void *context, const struct system_call *call); /* told of each change that succeeded */
    void *context;
    char paths[WATCH_DESCRIPTORS][WATCH_PATH]; /* of open descriptors below the root */
};

static struct watch watch;

static inline void watch_begin(const char *root, unsigned kinds)
{
    memset(&watch, 0, sizeof watch);
    snprintf(watch.root, sizeof watch.root, "%s", root);
    watch.kinds = kinds;
    watch.on = true;
}

static inline size_t watch_end(void)
{
    watch.on = false;
    return atomic_load(&watch.count);
}

/* ---- what happens to a call ---- */

enum fate { FATE_NORMAL, FATE_FAIL, FATE_HALF, FATE_LAST };

static inline bool watch_below(const char *path)
{
    size_t length = strlen(watch.root);
    return watch.on && path && !strncmp(path, watch.root, length) && (path[length] == '/' || !path[length]);
}

/* The absolute path of `path` at `folder` when it lies below the root, else NULL. */
static inline const char *watch_path(char out[WATCH_PATH], int folder, const char *path)
{
    if (!watch.on) return NULL;
    if (path[0] == '/' || folder == AT_FDCWD)
        snprintf(out, WATCH_PATH, "%s", path);
    else if (folder >= 0 && folder < WATCH_DESCRIPTORS && watch.paths[folder][0])
        snprintf(out, WATCH_PATH, "%.400s/%.190s", watch.paths[folder], path);
    else
        return NULL;
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') out[--length] = 0;
    return watch_below(out) ? out : NULL;
}

static inline bool watch_descriptor(int descriptor)
{
    return watch.on && descriptor >= 0 && descriptor < WATCH_DESCRIPTORS && watch.paths[descriptor][0];
}

static inline enum fate watch_fate(enum call_kind kind)
{
    if (!(watch.kinds >> kind & 1)) return FATE_NORMAL;
    size_t n = atomic_fetch_add(&watch.count, 1), times = watch.times ? watch.times : 1;
    if (watch.effect == EFFECT_NONE || n < watch.at || n - watch.at >= times) return FATE_NORMAL;
    watch.hit = kind;
    watch.hits++;
    switch (watch.effect) {
    case EFFECT_KILL:
        kill(getpid(), SIGKILL);
        return FATE_FAIL;
    case EFFECT_TEAR:
        return FATE_LAST;
    case EFFECT_SHORT:
        return FATE_HALF;
    case EFFECT_FULL:
        if (n == watch.at && kind == CALL_WRITE) return FATE_HALF;
        if (kind != CALL_CREATE && kind != CALL_WRITE && kind != CALL_MKDIR) return FATE_NORMAL;
        errno = watch.number;
        return FATE_FAIL;
    default:
        errno = watch.number;
        return FATE_FAIL;
    }
}

/* A call is over: the process may be, too; if it succeeded, it is told. */
static inline void watch_told(enum fate fate, bool succeeded, struct system_call call)
{
    int number = errno;
    if (fate == FATE_LAST) kill(getpid(), SIGKILL);
    if (watch.record && succeeded) watch.record(watch.context, &call);
    errno = number;
}

/* ---- the C library's own ---- */

#define WATCH_REAL(name, result, ...)                                                                                  \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

/* ---- opening and closing ---- */

static int watch_open(int folder, const char *path, int flags, mode_t mode)
{
    WATCH_REAL(openat, int, int, const char *, int, ...);
    char whole[WATCH_PATH];
    if (!watch_path(whole, folder, path)) {
        int fd = real(folder, path, flags, mode);
        if (fd >= 0 && fd < WATCH_DESCRIPTORS) watch.paths[fd][0] = 0;
        return fd;
    }
    enum call_kind kind = (flags & O_ACCMODE) == O_RDONLY ? CALL_OPEN : CALL_CREATE;
    enum fate fate = watch_fate(kind);
    if (fate == FATE_FAIL) return -1;
    int fd = real(folder, path, flags, mode);
    if (fd >= WATCH_DESCRIPTORS) abort();
    if (fd >= 0) memcpy(watch.paths[fd], whole, sizeof whole);
    watch_told(fate, fd >= 0, (struct system_call){.kind = kind, .path = whole, .flags = flags, .descriptor = fd});
    return fd;
}

#define WATCH_MODE(flags, mode)                                                                                        \
    mode_t mode = 0;                                                                                                   \
    if ((flags)&O_CREAT) {                                                                                             \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode = (mode_t)va_arg(list, int);                                                                              \
        va_end(list);                                                                                                  \
    }

int open(const char *path, int flags, ...)
{
    WATCH_MODE(flags, mode)
    return watch_open(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    WATCH_MODE(flags, mode)
    return watch_open(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    WATCH_MODE(flags, mode)
    return watch_open(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    WATCH_MODE(flags, mode)
    return watch_open(folder, path, flags, mode);
}

int close(int fd)
{
    WATCH_REAL(close, int, int);
    if (!watch_descriptor(fd)) return real(fd);
    char path[WATCH_PATH];
    memcpy(path, watch.paths[fd], sizeof path);
    enum fate fate = watch_fate(CALL_CLOSE);
    int number = errno;
    watch.paths[fd][0] = 0;
    int result = real(fd);
    if (fate == FATE_FAIL) {
        errno = number;
        return -1;
    }
    watch_told(fate, !result, (struct system_call){.kind = CALL_CLOSE, .path = path, .descriptor = fd});
    return result;
}

/* ---- bytes ---- */

static ssize_t watch_write(int fd, const void *bytes, size_t size, off_t offset)
{
    WATCH_REAL(pwrite, ssize_t, int, const void *, size_t, off_t);
    static ssize_t (*plain)(int, const void *, size_t);
    if (!plain) *(void **)&plain = dlsym(RTLD_NEXT, "write");
    enum fate fate = FATE_NORMAL;
    if (watch_descriptor(fd)) {
        fate = watch_fate(CALL_WRITE);
        if (fate == FATE_FAIL) return -1;
        if ((fate == FATE_HALF || fate == FATE_LAST) && size > 1) size /= 2;
    }
    ssize_t result = offset < 0 ? plain(fd, bytes, size) : real(fd, bytes, size, offset);
    if (watch_descriptor(fd))
        watch_told(fate, result >= 0,
                   (struct system_call){.kind = CALL_WRITE,
                                        .path = watch.paths[fd],
                                        .descriptor = fd,
                                        .bytes = bytes,
                                        .size = result > 0 ? (size_t)result : 0,
                                        .offset = offset});
    return result;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    return watch_write(fd, bytes, size, -1);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    return watch_write(fd, bytes, size, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
    return watch_write(fd, bytes, size, offset);
}

/* True when the call is to fail; halves the size of a short one. */
static bool watch_read(int fd, size_t *size)
{
    if (!watch_descriptor(fd)) return false;
    enum fate fate = watch_fate(CALL_READ);
    if (fate == FATE_HALF && *size > 1) *size /= 2;
    return fate == FATE_FAIL;
}

ssize_t read(int fd, void *bytes, size_t size)
{
    WATCH_REAL(read, ssize_t, int, void *, size_t);
    return watch_read(fd, &size) ? -1 : real(fd, bytes, size);
}

ssize_t pread(int fd, void *bytes, size_t size, off_t offset)
{
    WATCH_REAL(pread, ssize_t, int, void *, size_t, off_t);
    return watch_read(fd, &size) ? -1 : real(fd, bytes, size, offset);
}

ssize_t pread64(int fd, void *bytes, size_t size, off64_t offset)
{
    WATCH_REAL(pread64, ssize_t, int, void *, size_t, off64_t);
    return watch_read(fd, &size) ? -1 : real(fd, bytes, size, offset);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    WATCH_REAL(mmap, void *, void *, size_t, int, int, int, off_t);
    if (watch_descriptor(fd) && watch_fate(CALL_MAP) == FATE_FAIL) return MAP_FAILED;
    return real(at, size, protection, flags, fd, offset);
}

int fsync(int fd)
{
    WATCH_REAL(fsync, int, int);
    if (!watch_descriptor(fd)) return real(fd);
    enum fate fate = watch_fate(CALL_FSYNC);
    if (fate == FATE_FAIL) return -1;
    /* nothing here survives a real power failure anyway: the kernel is spared the work */
    watch_told(fate, true, (struct system_call){.kind = CALL_FSYNC, .path = watch.paths[fd], .descriptor = fd});
    return 0;
}

int fdatasync(int fd)
{
    return fsync(fd);
}

static int watch_truncate(int fd, off_t size)
{
    WATCH_REAL(ftruncate, int, int, off_t);
    if (!watch_descriptor(fd)) return real(fd, size);
    enum fate fate = watch_fate(CALL_TRUNCATE);
    if (fate == FATE_FAIL) return -1;
    int result = real(fd, size);
    watch_told(
        fate, !result,
        (struct system_call){.kind = CALL_TRUNCATE, .path = watch.paths[fd], .descriptor = fd, .size = (size_t)size});
    return result;
}

int ftruncate(int fd, off_t size)
{
    return watch_truncate(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return watch_truncate(fd, size);
}

/* ---- names ---- */

int mkdirat(int folder, const char *path, mode_t mode)
{
    WATCH_REAL(mkdirat, int, int, const char *, mode_t);
    char whole[WATCH_PATH];
    if (!watch_path(whole, folder, path)) return real(folder, path, mode);
    enum fate fate = watch_fate(CALL_MKDIR);
    if (fate == FATE_FAIL) return -1;
    int result = real(folder, path, mode);
    watch_told(fate, !result, (struct system_call){.kind = CALL_MKDIR, .path = whole});
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int renameat2(int from, const char *a, int to, const char *b, unsigned flags)
{
    WATCH_REAL(renameat2, int, int, const char *, int, const char *, unsigned);
    char old[WATCH_PATH], new[WATCH_PATH];
    if (!watch_path(old, from, a) || !watch_path(new, to, b)) return real(from, a, to, b, flags);
    enum fate fate = watch_fate(CALL_RENAME);
    if (fate == FATE_FAIL) return -1;
    int result = real(from, a, to, b, flags);
    watch_told(fate, !result,
               (struct system_call){.kind = CALL_RENAME, .path = old, .other = new, .flags = (int)flags});
    return result;
}

int renameat(int from, const char *a, int to, const char *b)
{
    return renameat2(from, a, to, b, 0);
}

int rename(const char *a, const char *b)
{
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, 0);
}

int unlinkat(int folder, const char *path, int flags)
{
    WATCH_REAL(unlinkat, int, int, const char *, int);
    char whole[WATCH_PATH];
    if (!watch_path(whole, folder, path)) return real(folder, path, flags);
    enum call_kind kind = flags & AT_REMOVEDIR ? CALL_RMDIR : CALL_UNLINK;
    enum fate fate = watch_fate(kind);
    if (fate == FATE_FAIL) return -1;
    int result = real(folder, path, flags);
    watch_told(fate, !result, (struct system_call){.kind = kind, .path = whole});
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- looking ---- */

int fstatat(int folder, const char *path, struct stat *about, int flags)
{
    WATCH_REAL(fstatat, int, int, const char *, struct stat *, int);
    char whole[WATCH_PATH];
    if (watch_path(whole, folder, path) && watch_fate(CALL_STAT) == FATE_FAIL) return -1;
    return real(folder, path, about, flags);
}

int stat(const char *path, struct stat *about)
{
    return fstatat(AT_FDCWD, path, about, 0);
}

int lstat(const char *path, struct stat *about)
{
    return fstatat(AT_FDCWD, path, about, AT_SYMLINK_NOFOLLOW);
}

int fstat(int fd, struct stat *about)
{
    WATCH_REAL(fstat, int, int, struct stat *);
    if (watch_descriptor(fd) && watch_fate(CALL_STAT) == FATE_FAIL) return -1;
    return real(fd, about);
}

int faccessat(int folder, const char *path, int mode, int flags)
{
    WATCH_REAL(faccessat, int, int, const char *, int, int);
    char whole[WATCH_PATH];
    if (watch_path(whole, folder, path) && watch_fate(CALL_STAT) == FATE_FAIL) return -1;
    return real(folder, path, mode, flags);
}

DIR *opendir(const char *path)
{
    WATCH_REAL(opendir, DIR *, const char *);
    char whole[WATCH_PATH];
    if (!watch_path(whole, AT_FDCWD, path)) return real(path);
    if (watch_fate(CALL_LIST) == FATE_FAIL) return NULL;
    DIR *list = real(path);
    if (list) memcpy(watch.paths[dirfd(list)], whole, sizeof whole);
    return list;
}

DIR *fdopendir(int fd)
{
    WATCH_REAL(fdopendir, DIR *, int);
    return watch_descriptor(fd) && watch_fate(CALL_LIST) == FATE_FAIL ? NULL : real(fd);
}

struct dirent *readdir(DIR *list)
{
    WATCH_REAL(readdir, struct dirent *, DIR *);
    return watch_descriptor(dirfd(list)) && watch_fate(CALL_LIST) == FATE_FAIL ? NULL : real(list);
}

int closedir(DIR *list)
{
    WATCH_REAL(closedir, int, DIR *);
    int fd = dirfd(list);
    if (fd >= 0 && fd < WATCH_DESCRIPTORS) watch.paths[fd][0] = 0;
    return real(list);
}

#endif
