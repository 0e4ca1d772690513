/* Files: reading them, and writing them so that a crash leaves the old file or the new one.
 *
 *     struct file_writer writer;
 *     ELBO_TRY(file_replace(&writer, "out/manifest.json", error));
 *     elbo_status status = file_append(&writer, text, size, error);
 *     if (status == ELBO_OK) status = file_commit(&writer, error);
 *     file_abort(&writer);                    -- harmless after a commit
 *
 * A commit is: write, fsync, close, rename, fsync of the folder; each is checked. Every error names the path, what the
 * system said, and what to do where that is known. */
#ifndef BASE_FILES_H
#define BASE_FILES_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FILES_PATH = 4096 };

/* ---- reading ---- */

/* Reads a regular file of at most `limit` bytes; `*data` ends with a NUL that `*size` does not count; free() it. */
elbo_status file_read(char **data, size_t *size, const char *path, size_t limit, elbo_error *error);

/* Reads an open stream (a pipe, standard input) to its end. `name` is for messages. free() `*data`. */
elbo_status file_read_descriptor(char **data, size_t *size, int descriptor, const char *name, elbo_error *error);

/* Opens a regular file for reading; refuses folders, devices and pipes without waiting for them. close() it. */
elbo_status file_open_regular(int *descriptor, size_t *size, const char *path, elbo_error *error);

/* Reads exactly `size` bytes at `offset`. ELBO_INPUT when the file ends before: it has become shorter. */
elbo_status file_read_at(int descriptor, void *data, size_t size, uint64_t offset, const char *path, elbo_error *error);

/* ---- writing ---- */

struct file_writer {
    int descriptor;   /* -1 once committed or aborted                    */
    uint64_t written; /* bytes appended                                  */
    unsigned char *buffer;
    size_t used;
    char path[FILES_PATH];   /* where the bytes go                              */
    char target[FILES_PATH]; /* its name after the commit; empty: keeps `path`  */
};

/* A new file that must not exist yet. */
elbo_status file_create(struct file_writer *writer, const char *path, elbo_error *error);
/* A file that takes the place of `path` at the commit. */
elbo_status file_replace(struct file_writer *writer, const char *path, elbo_error *error);
elbo_status file_append(struct file_writer *writer, const void *data, size_t size, elbo_error *error);
/* Overwrites bytes that were appended before (a header whose sizes are known at the end). */
elbo_status file_patch(struct file_writer *writer, uint64_t offset, const void *data, size_t size, elbo_error *error);
elbo_status file_commit(struct file_writer *writer, elbo_error *error);
/* Ends a file of file_create: its bytes are durable, its name only once its folder is synced. For several new files in
 * one folder, which then takes one sync. */
elbo_status file_seal(struct file_writer *writer, elbo_error *error);
void file_abort(struct file_writer *writer);

/* The two above in one call: durable, atomic, replaces what was there. */
elbo_status file_write(const char *path, const void *data, size_t size, elbo_error *error);
/* Durable, must not exist yet. */
elbo_status file_write_new(const char *path, const void *data, size_t size, elbo_error *error);

/* ---- folders ---- */

/* out = folder/name; fails when the result does not fit. */
elbo_status file_join(char out[FILES_PATH], const char *folder, const char *name, elbo_error *error);
/* fsync of a folder: makes the names in it durable. */
elbo_status file_sync_folder(const char *path, elbo_error *error);
/* Creates a folder and its missing parents, durably; one that exists is fine. */
elbo_status file_make_folder(const char *path, elbo_error *error);
/* Removes a folder that holds only files; what of that is durable is left open. A sub-folder in it is refused. A folder
 * that is not there is fine. */
elbo_status file_remove_folder(const char *path, elbo_error *error);
/* Removes a file; one that is not there is fine. */
elbo_status file_remove(const char *path, elbo_error *error);

bool file_is_folder(const char *path);
bool file_is_regular(const char *path);

/* Fails with what errno says: "cannot VERB PATH: No space left on device; ...". */
elbo_status file_fail(elbo_error *error, const char *verb, const char *path, int number);

#endif
