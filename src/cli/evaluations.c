/* Appends the figures of `elbo eval` to evaluations.jsonl of a run and finds the newest line of a checkpoint's
 * weights. */
#include "cli/evaluations.h"

#include "base/files.h"
#include "base/json.h"
#include "checkpoint/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_BYTES = 256 << 20 };

/* Writes the path RUN/evaluations.jsonl for a checkpoint RUN/checkpoints/NAME, and "" for a checkpoint elsewhere. */
static elbo_status place(char out[FILES_PATH], const struct checkpoint *c, elbo_error *error)
{
    char folder[FILES_PATH];
    *out = 0;
    snprintf(folder, sizeof folder, "%s", checkpoint_path(c));
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(folder, '/');
        if (!slash || slash == folder || (i && strcmp(slash, "/checkpoints"))) return ELBO_OK;
        *slash = 0;
    }
    return file_join(out, folder, "evaluations.jsonl", error);
}

/* Identifies the weights: the XXH3 of model.safetensors, as 16 hexadecimal digits. */
static void identity(char out[17], const struct checkpoint *c)
{
    const struct manifest *m = checkpoint_manifest(c);
    uint64_t sum = 0;
    for (size_t i = 0; i < m->count; i++)
        if (!strcmp(m->files[i].name, "model.safetensors")) sum = m->files[i].xxh3;
    snprintf(out, 17, "%016" PRIx64, sum);
}

static elbo_status append(int descriptor, const char *line, const char *path, elbo_error *error)
{
    struct stat status;
    char last = '\n', *whole;
    if (fstat(descriptor, &status)) return file_fail(error, "look at", path, errno);
    if (!S_ISREG(status.st_mode)) return elbo_fail(error, ELBO_IO, "%s is no regular file", path);
    if (status.st_size && pread(descriptor, &last, 1, status.st_size - 1) != 1)
        return file_fail(error, "read", path, errno);
    int size = asprintf(&whole, "%s%s\n", last == '\n' ? "" : "\n", line); /* ends a line that was cut short */
    if (size < 0) return elbo_fail(error, ELBO_MEMORY, "no memory for a line of %s", path);
    ssize_t written = write(descriptor, whole, (size_t)size);
    free(whole);
    if (written == size) return ELBO_OK;
    return file_fail(error, "write to", path, written < 0 ? errno : ENOSPC);
}

elbo_status evaluations_add(const struct checkpoint *c, const struct elbo_corpus *corpus, const char *name,
                            json_t *figures, elbo_error *error)
{
    char path[FILES_PATH], weights[17];
    ELBO_TRY(place(path, c, error));
    if (!*path) return ELBO_OK;
    identity(weights, c);
    json_t *root = json_pack("{s:I, s:s, s:s, s:s, s:s, s:O}", "step", (json_int_t)checkpoint_step(c), "weights",
                             weights, "program", elbo_version(), "corpus", name, "corpus_hash",
                             elbo_corpus_hash(corpus), "figures", figures);
    char *line = json_text(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(root);
    if (!line) return elbo_fail(error, ELBO_MEMORY, "no memory for a line of %s", path);
    int descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    elbo_status status = descriptor < 0 ? file_fail(error, "open", path, errno) : append(descriptor, line, path, error);
    if (descriptor >= 0 && close(descriptor) && !status) status = file_fail(error, "write to", path, errno);
    free(line);
    return status;
}

static json_t *line_of(const char *text, size_t size, const char *weights, uint64_t step, bool *starved)
{
    json_t *line = json_read(text, size, 0, NULL, starved);
    const char *measured = json_string_value(json_object_get(line, "weights"));
    if (measured && !strcmp(measured, weights) &&
        json_integer_value(json_object_get(line, "step")) == (json_int_t)step &&
        json_is_object(json_object_get(line, "figures")))
        return line;
    json_decref(line);
    return NULL;
}

elbo_status evaluations_last(json_t **out, const struct checkpoint *c, elbo_error *error)
{
    char path[FILES_PATH], weights[17], *text;
    size_t size;
    *out = NULL;
    ELBO_TRY(place(path, c, error));
    if (!*path || !file_is_regular(path)) return ELBO_OK;
    ELBO_TRY(file_read(&text, &size, path, MOST_BYTES, error));
    identity(weights, c);
    bool starved = false;
    for (size_t end = size; end && !*out && !starved;) {
        size_t start = end - 1; /* start of the line that ends with the byte before `end` */
        while (start && text[start - 1] != '\n') start--;
        *out = line_of(text + start, end - start, weights, checkpoint_step(c), &starved);
        end = start;
    }
    free(text);
    return starved ? elbo_fail(error, ELBO_MEMORY, "no memory for a line of %s", path) : ELBO_OK;
}
