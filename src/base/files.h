/* Files: reading, and writing such that a crash leaves the old file or the new one.
 *
 *     struct file_writer writer;
 *     ELBO_TRY(file_replace(&writer, "out/manifest.json", error));
 *     elbo_status status = file_append(&writer, text, size, error);
 *     if (status == ELBO_OK) status = file_commit(&writer, error);
 *     file_abort(&writer);                    -- harmless after a commit
 *
 * A commit writes, fsyncs, closes and renames the file, then fsyncs the folder; each call is checked. Every error names
 * the path, the system's message, and a remedy where one is known. */
#ifndef BASE_FILES_H
#define BASE_FILES_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FILES_PATH = 4096 };

/* ---- reading ---- */

/* Reads a regular file of at most `limit` bytes. `*data` ends with a NUL that `*size` does not count. free()
 * `*data`. */
elbo_status file_read(char **data, size_t *size, const char *path, size_t limit, elbo_error *error);

/* Reads an open stream (a pipe, standard input) to its end. `name` is for messages. free() `*data`. */
elbo_status file_read_descriptor(char **data, size_t *size, int descriptor, const char *name, elbo_error *error);

/* Opens a regular file for reading. Refuses folders, devices and pipes without blocking on them. close() it. */
elbo_status file_open_regular(int *descriptor, size_t *size, const char *path, elbo_error *error);

/* Reads exactly `size` bytes at `offset`. ELBO_INPUT: the file ends before, because it became shorter. */
elbo_status file_read_at(int descriptor, void *data, size_t size, uint64_t offset, const char *path, elbo_error *error);

/* ---- writing ---- */

struct file_writer {
    int descriptor;   /* -1 once committed or aborted */
    uint64_t written; /* bytes appended */
    unsigned char *buffer;
    size_t used;
    char path[FILES_PATH];   /* the file being written */
    char target[FILES_PATH]; /* the name after the commit; empty: `path` stays */
};

/* Opens a new file that must not exist yet. */
elbo_status file_create(struct file_writer *writer, const char *path, elbo_error *error);
/* Opens a file that replaces `path` at the commit. */
elbo_status file_replace(struct file_writer *writer, const char *path, elbo_error *error);
elbo_status file_append(struct file_writer *writer, const void *data, size_t size, elbo_error *error);
/* Overwrites bytes appended before, such as a header whose sizes are known only at the end. */
elbo_status file_patch(struct file_writer *writer, uint64_t offset, const void *data, size_t size, elbo_error *error);
elbo_status file_commit(struct file_writer *writer, elbo_error *error);
/* Ends a file of file_create. Its bytes are durable, but its name only once its folder is synced. Use this for several
 * new files in one folder, so that the folder is synced once. */
elbo_status file_seal(struct file_writer *writer, elbo_error *error);
void file_abort(struct file_writer *writer);

/* Writes a whole file: durable, atomic, replaces an existing file. */
elbo_status file_write(const char *path, const void *data, size_t size, elbo_error *error);
/* Writes a whole file that must not exist yet: durable. */
elbo_status file_write_new(const char *path, const void *data, size_t size, elbo_error *error);

/* ---- folders ---- */

/* Sets out = folder/name. Fails when the result does not fit. */
elbo_status file_join(char out[FILES_PATH], const char *folder, const char *name, elbo_error *error);
/* Fsyncs a folder, which makes the names in it durable. */
elbo_status file_sync_folder(const char *path, elbo_error *error);
/* Creates a folder and its missing parents, durably. An existing folder is no error. */
elbo_status file_make_folder(const char *path, elbo_error *error);
/* Removes a folder that holds only files. The removal is not synced. A sub-folder in the folder is refused. A missing
 * folder is no error. */
elbo_status file_remove_folder(const char *path, elbo_error *error);
/* Removes a file. A missing file is no error. */
elbo_status file_remove(const char *path, elbo_error *error);

bool file_is_folder(const char *path);
bool file_is_regular(const char *path);

/* Fails with the message of errno `number`: "cannot VERB PATH: No space left on device; ...". */
elbo_status file_fail(elbo_error *error, const char *verb, const char *path, int number);

#endif
