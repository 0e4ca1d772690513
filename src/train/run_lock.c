/* Locks the run directory by flock. The lock belongs to the open file, so a crash releases it and nothing is left to
 * clean. */
#include "train/run_lock.h"

#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

/* Describes the owner as far as the file tells: " (process 123 on host)", or nothing. */
static void describe_owner(char *out, size_t size, int fd)
{
    char text[128], host[81] = "";
    long process = 0;
    *out = 0;
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    if (got <= 0) return;
    text[got] = 0;
    if (sscanf(text, "%ld %80[A-Za-z0-9._-]", &process, host) >= 1 && process > 0)
        snprintf(out, size, " (process %ld%s%s)", process, *host ? " on " : "", host);
}

/* Writes the owner, only for the message of a process that finds the lock taken. A failure does not stop the
 * training. */
static void write_owner(int fd)
{
    char text[128], host[64] = "";
    if (gethostname(host, sizeof host - 1)) *host = 0;
    int size = snprintf(text, sizeof text, "%ld %s\n", (long)getpid(), host);
    if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)size, 0) != size) return;
}

elbo_status run_directory_lock(struct run_lock *lock, const char *run_dir, elbo_error *error)
{
    char path[FILES_PATH], owner[160];
    lock->fd = -1;
    ELBO_TRY(file_join(path, run_dir, "lock", error));
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
    if (fd < 0) return file_fail(error, "open", path, errno);
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        int number = errno;
        describe_owner(owner, sizeof owner, fd);
        close(fd);
        if (number != EWOULDBLOCK) return file_fail(error, "lock", path, number);
        return elbo_fail(error, ELBO_BUSY,
                         "%s is in use by another process%s; wait for it to end, or choose another --run.dir", run_dir,
                         owner);
    }
    write_owner(fd);
    lock->fd = fd;
    return ELBO_OK;
}

void run_directory_unlock(struct run_lock *lock)
{
    if (lock->fd >= 0) close(lock->fd);
    lock->fd = -1;
}
