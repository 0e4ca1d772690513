/* Reads or makes the job's secret: see secret.h. */
#include "job/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MADE = 2 * WIRE_KEY }; /* characters of a secret made by rank 0 */

static const char remedy[] = "set the variable ELBO_SECRET, the same for every rank, or --parallel.secret_file";

static elbo_status take(struct secret *secret, const char *text, size_t size, const char *from, elbo_error *error)
{
    static const char purpose[] = "elbo rendezvous";
    if (size < SECRET_LEAST || size > SECRET_MOST)
        return elbo_fail(error, ELBO_USAGE,
                         "%s holds a secret of %zu bytes; it takes %d to %d: `openssl rand -hex 32` makes one", from,
                         size, SECRET_LEAST, SECRET_MOST);
    _Static_assert(sizeof purpose - 1 < crypto_generichash_KEYBYTES_MIN, "padded to the shortest key");
    unsigned char pad[crypto_generichash_KEYBYTES_MIN] = {0};
    memcpy(pad, purpose, sizeof purpose);
    crypto_generichash(secret->key, sizeof secret->key, (const unsigned char *)text, size, pad, sizeof pad);
    return ELBO_OK;
}

/* Checks the owner and the mode of a file or folder. Returns null if only this user can access it, else what is
 * wrong. */
static const char *exposed(int fd, bool folder)
{
    struct stat about;
    if (fstat(fd, &about)) return strerror(errno);
    if (folder ? !S_ISDIR(about.st_mode) : !S_ISREG(about.st_mode))
        return folder ? "it is no folder" : "it is no regular file";
    if (about.st_uid != geteuid()) return "it belongs to another user";
    if (about.st_mode & 077)
        return folder ? "others can enter it (its mode must be 0700)" : "others can open it (its mode must be 0600)";
    if (!folder && (about.st_mode & 07177)) return "its mode must be 0600"; /* or 0400 */
    return NULL;
}

/* Reads up to `room` bytes; returns -1 if the file cannot be read or is longer. */
static ssize_t read_all(int fd, char *out, size_t room)
{
    size_t size = 0;
    for (;;) {
        ssize_t n = pread(fd, out + size, room - size, (off_t)size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 || size + (size_t)n == room) return -1;
        if (n == 0) return (ssize_t)size;
        size += (size_t)n;
    }
}

static elbo_status read_file(struct secret *secret, const char *path, elbo_error *error)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ELOOP)
        return elbo_fail(error, ELBO_USAGE, "parallel.secret_file = %.200s is a symbolic link; name the file itself",
                         path);
    if (fd < 0)
        return elbo_fail(error, ELBO_IO, "cannot open parallel.secret_file = %.200s: %s", path, strerror(errno));
    elbo_status status = ELBO_OK;
    char text[SECRET_MOST + 3];
    const char *wrong = exposed(fd, false);
    ssize_t size = wrong ? 0 : read_all(fd, text, sizeof text);
    if (wrong)
        status = elbo_fail(error, ELBO_USAGE,
                           "parallel.secret_file = %.200s: %s; chmod 0600 makes it this user's alone", path, wrong);
    else if (size < 0)
        status = elbo_fail(error, ELBO_USAGE, "parallel.secret_file = %.200s: more than %d bytes", path, SECRET_MOST);
    close(fd);
    if (size > 0 && text[size - 1] == '\n') size--;
    if (size > 0 && text[size - 1] == '\r') size--;
    if (status == ELBO_OK) status = take(secret, text, (size_t)size, "parallel.secret_file", error);
    sodium_memzero(text, sizeof text);
    return status;
}

/* ---- the file that rank 0 makes ---- */

/* Opens the folder, which rank 0 makes first. Returns -1 with errno if it does not exist. */
static int open_folder(const char *path, bool make)
{
    if (make && mkdir(path, 0700) && errno != EEXIST) return -1;
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static bool is_private_folder(const char *path)
{
    int fd = *path == '/' ? open_folder(path, false) : -1;
    bool good = fd >= 0 && !exposed(fd, true);
    if (fd >= 0) close(fd);
    return good;
}

static void choose_folder(struct secret *secret, const char *runtime)
{
    if (runtime && strlen(runtime) < sizeof secret->folder_path - 8 && is_private_folder(runtime))
        snprintf(secret->folder_path, sizeof secret->folder_path, "%s/elbo", runtime);
    else
        snprintf(secret->folder_path, sizeof secret->folder_path, "/tmp/elbo-%lu", (unsigned long)geteuid());
}

static elbo_status not_private(const struct secret *secret, const char *what, const char *wrong, elbo_error *error)
{
    return elbo_fail(error, ELBO_USAGE, "%s%s%s cannot hold the job's secret: %s; remove it, or %s",
                     secret->folder_path, *what ? "/" : "", what, wrong, remedy);
}

/* Whether the descriptor's file is still the file under the name. */
static bool is_there(const struct secret *secret, int fd)
{
    struct stat here, there;
    return !fstat(fd, &here) && !fstatat(secret->folder, secret->name, &there, AT_SYMLINK_NOFOLLOW) &&
           here.st_ino == there.st_ino && here.st_dev == there.st_dev;
}

/* Opens the file under its name and locks it as secret->file, so that no other job of this user meets there. */
static elbo_status lock_file(struct secret *secret, elbo_error *error)
{
    while (secret->file < 0) {
        int fd = openat(secret->folder, secret->name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
        const char *wrong = fd < 0 ? strerror(errno) : exposed(fd, false);
        bool locked = !wrong && !flock(fd, LOCK_EX | LOCK_NB);
        if (locked && is_there(secret, fd))
            secret->file = fd; /* else the job before has just removed the file */
        else if (fd >= 0)
            close(fd);
        if (wrong) return not_private(secret, secret->name, wrong, error);
        if (!locked)
            return elbo_fail(error, ELBO_BUSY,
                             "another job of this user is starting under the same name (%s/%s); give one of them "
                             "another --parallel.port",
                             secret->folder_path, secret->name);
    }
    return ELBO_OK;
}

static elbo_status leave(struct secret *secret, elbo_error *error)
{
    unsigned char random[WIRE_KEY];
    char text[MADE + 1];
    secret->folder = open_folder(secret->folder_path, true);
    const char *wrong = secret->folder < 0 ? strerror(errno) : exposed(secret->folder, true);
    if (wrong) return not_private(secret, "", wrong, error);
    ELBO_TRY(lock_file(secret, error));
    randombytes_buf(random, sizeof random);
    sodium_bin2hex(text, sizeof text, random, sizeof random);
    elbo_status status = ELBO_OK;
    if (ftruncate(secret->file, 0) || pwrite(secret->file, text, MADE, 0) != MADE)
        status = not_private(secret, secret->name, strerror(errno), error);
    else
        status = take(secret, text, MADE, secret->name, error);
    sodium_memzero(random, sizeof random);
    sodium_memzero(text, sizeof text);
    return status;
}

elbo_status secret_look(struct secret *secret, bool *there, elbo_error *error)
{
    char text[MADE + 2];
    *there = false;
    int folder = open_folder(secret->folder_path, false);
    if (folder < 0 && errno == ENOENT) return ELBO_OK;
    const char *wrong = folder < 0 ? strerror(errno) : exposed(folder, true);
    int fd = wrong ? -1 : openat(folder, secret->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    int number = errno;
    if (folder >= 0) close(folder);
    if (wrong) return not_private(secret, "", wrong, error);
    if (fd < 0 && number == ENOENT) return ELBO_OK;
    wrong = fd < 0 ? strerror(number) : exposed(fd, false);
    if (wrong) {
        if (fd >= 0) close(fd);
        return not_private(secret, secret->name, wrong, error);
    }
    ssize_t size = read_all(fd, text, sizeof text);
    close(fd);
    elbo_status status = ELBO_OK;
    if (size == MADE) { /* any other size: the file is being written */
        status = take(secret, text, MADE, secret->name, error);
        *there = status == ELBO_OK;
    }
    sodium_memzero(text, sizeof text);
    return status;
}

/* ---- sources of the secret ---- */

elbo_status secret_open(struct secret *secret, const struct ranks *ranks, const struct rendezvous_options *options,
                        elbo_error *error)
{
    *secret = (struct secret){.folder = -1, .file = -1};
    if (sodium_init() < 0) return elbo_fail(error, ELBO_INTERNAL, "libsodium finds no source of random numbers");
    if (*options->secret_file) return read_file(secret, options->secret_file, error);
    if (options->secret) return take(secret, options->secret, strlen(options->secret), "ELBO_SECRET", error);
    if (!ranks->one_host)
        return elbo_fail(
            error, ELBO_USAGE,
            "%zu ranks on several hosts meet at %s over the network, and have no secret to know each other "
            "by; %s (`openssl rand -hex 32` makes one)",
            ranks->world, ranks->address, remedy);
    secret->met = true;
    choose_folder(secret, options->runtime_folder);
    snprintf(secret->name, sizeof secret->name, "%s-%u", ranks->job, ranks->restart);
    return ranks->rank == 0 ? leave(secret, error) : ELBO_OK;
}

void secret_close(struct secret *secret)
{
    if (secret->file >= 0) {
        unlinkat(secret->folder, secret->name, 0);
        close(secret->file);
    }
    if (secret->folder >= 0) close(secret->folder);
    secret->file = secret->folder = -1;
    sodium_memzero(secret->key, sizeof secret->key);
}
