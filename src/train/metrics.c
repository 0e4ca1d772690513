/* Appends rows to metrics.jsonl: see metrics.h. */
#include "train/metrics.h"
#include "base/files.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_BYTES_LOG2 = 34 };

struct metrics {
    int descriptor;
    bool torn; /* the last line is part of a row and could not be removed */
    char path[FILES_PATH];
};

/* Keeps the rows up to `last_step`. Lines that are torn or have no step are dropped too. */
static elbo_status drop_later(const char *path, uint64_t last_step, elbo_error *error)
{
    char *text;
    size_t size;
    ELBO_TRY(file_read(&text, &size, path, (size_t)1 << MOST_BYTES_LOG2, error));
    struct file_writer w;
    elbo_status status = file_replace(&w, path, error);
    if (status) {
        free(text);
        return status;
    }
    for (size_t at = 0; at < size && !status;) {
        const char *end = memchr(text + at, '\n', size - at);
        if (!end) break;
        size_t length = (size_t)(end - text) - at;
        bool starved;
        json_t *row = json_read(text + at, length, 0, NULL, &starved), *step = json_object_get(row, "step");
        if (starved) status = elbo_fail(error, ELBO_MEMORY, "no memory to read a row of %s", path);
        if (json_is_integer(step) && (uint64_t)json_integer_value(step) <= last_step)
            status = file_append(&w, text + at, length + 1, error);
        json_decref(row);
        at += length + 1;
    }
    if (!status) status = file_commit(&w, error);
    file_abort(&w);
    free(text);
    return status;
}

elbo_status metrics_open(struct metrics **out, const char *run_dir, uint64_t last_step, elbo_error *error)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (!m) return elbo_fail(error, ELBO_MEMORY, "no memory to open the log of metrics");
    elbo_status status = file_join(m->path, run_dir, "metrics.jsonl", error);
    if (!status && file_is_regular(m->path)) status = drop_later(m->path, last_step, error);
    if (!status) {
        m->descriptor = open(m->path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (m->descriptor < 0) status = file_fail(error, "open", m->path, errno);
    }
    if (status) {
        free(m);
        return status;
    }
    *out = m;
    return ELBO_OK;
}

/* Writes the whole text. After a failure it removes the part that was written, if the system allows. */
static elbo_status write_all(struct metrics *m, const char *text, size_t size, elbo_error *error)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = write(m->descriptor, text + at, size - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            int number = n < 0 ? errno : EIO;
            struct stat about;
            if (at) m->torn = fstat(m->descriptor, &about) || ftruncate(m->descriptor, about.st_size - (off_t)at);
            return file_fail(error, "write", m->path, number);
        }
        at += (size_t)n;
    }
    return ELBO_OK;
}

elbo_status metrics_write(struct metrics *m, const json_t *row, elbo_error *error)
{
    char *text = json_text(row, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text) return elbo_fail(error, ELBO_MEMORY, "no memory for a row of metrics");
    size_t size = strlen(text);
    text[size] = '\n'; /* the line end replaces the terminator, so that a row takes one write */
    elbo_status status = ELBO_OK;
    if (m->torn) status = write_all(m, "\n", 1, error);
    if (!status) m->torn = false;
    if (!status) status = write_all(m, text, size + 1, error);
    free(text);
    return status;
}

elbo_status metrics_sync(struct metrics *m, elbo_error *error)
{
    return fsync(m->descriptor) ? file_fail(error, "fsync", m->path, errno) : ELBO_OK;
}

void metrics_close(struct metrics *m)
{
    if (!m) return;
    close(m->descriptor);
    free(m);
}
