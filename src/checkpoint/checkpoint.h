/* Checkpoints: RUN/checkpoints/step-00001000/, saved so that a crash at any moment leaves the one before or the new
 * one, and opened only when every byte verifies.
 *
 *     struct checkpoint_file files[] = {
 *         {.name = "model.safetensors", .tensors = weights, .tensor_count = n},
 *         {.name = "config.json", .bytes = text, .size = strlen(text)},
 *         {.name = "state/optimizer.safetensors", .tensors = moments, .tensor_count = m},
 *     };
 *     status = checkpoint_save(run_dir, &(struct checkpoint_contents){step, hash, counters, files, 3}, keep, &error);
 *
 *     struct checkpoint *checkpoint;
 *     status = checkpoint_open(&checkpoint, "runs/a", warn, NULL, &error);      -- or one of its checkpoints
 *     status = checkpoint_tensors(&weights, checkpoint, "model.safetensors", &error);
 *
 * Saving: write aside into step-N.tmp (each file new, fsynced), manifest last, rename, fsync of the parent; only then
 * `latest` is moved (a small file that holds the folder's name); only then old ones are deleted. A save that fails
 * loses nothing: report it and go on. */
#ifndef CHECKPOINT_CHECKPOINT_H
#define CHECKPOINT_CHECKPOINT_H

#include "elbo/status.h"
#include "formats/safetensors.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- saving ---- */

struct checkpoint_file {
    const char *name;                         /* at most one folder deep: "state/optimizer.safetensors" */
    const struct safetensors_tensor *tensors; /* written as safetensors when not NULL ...               */
    size_t tensor_count;
    const struct safetensors_note *notes; /* (with this __metadata__)                                   */
    size_t note_count;
    const void *bytes; /* ... else these bytes as they are                                              */
    size_t size;
};

struct manifest_file;

struct checkpoint_contents {
    uint64_t step;
    const char *config_hash;
    json_t *counters; /* an object, borrowed; integers are signed 64-bit, doubles come back exactly; NULL: empty */
    const struct checkpoint_file *files;
    size_t file_count;
    size_t ranks;    /* that write it */
    uint64_t best;   /* step that is kept whatever `keep` says, and named in `best`; 0: none */
    uint64_t pinned; /* another that is kept; 0: none */
    /* Other ranks' files: called when `files` are written in `folder`, before the manifest. *entries, their names and
     * chunks are free()d. Null: none. */
    elbo_status (*others)(void *context, const char *folder, struct manifest_file **entries, size_t *count,
                          elbo_error *error);
    void *context;
};

/* Writes one file into the folder that `others` is told, durably, and fills its entry of the manifest: free
 * entry->chunks. */
elbo_status checkpoint_write_file(struct manifest_file *entry, const char *folder, const struct checkpoint_file *file,
                                  elbo_error *error);

/* Saves, moves `latest`, then deletes all but this one and the `keep - 1` newest before it (keep = 0: deletes none).
 * A checkpoint of the same step is replaced atomically. The caller holds the run directory's lock. */
elbo_status checkpoint_save(const char *run_dir, const struct checkpoint_contents *contents, size_t keep,
                            elbo_error *error);

/* Makes `which` ("latest" or "best") name the checkpoint of `step`, atomically. */
elbo_status checkpoint_mark(const char *run_dir, const char *which, uint64_t step, elbo_error *error);

/* Whether the run directory has anything that claims to be a checkpoint, good or damaged: if not, `resume: auto` starts
 * afresh. */
bool checkpoint_any(const char *run_dir);

/* ---- opening ---- */

struct checkpoint;

/* Told of each checkpoint that was refused, and why, when another one may serve. */
typedef void (*checkpoint_warning)(void *context, const char *message);

/* `path` is one checkpoint, which must verify, or RUN/checkpoints/best or latest, which name one, or a run directory:
 * then what `latest` names is tried first, then all others, newest first. Works while a trainer saves there and
 * deletes: what was opened is read. `warn` may be NULL. No symbolic link inside is followed. ELBO_INPUT: damaged,
 * foreign, of another version (with file and byte range), or none found; ELBO_IO: not there, not readable. */
elbo_status checkpoint_open(struct checkpoint **out, const char *path, checkpoint_warning warn, void *context,
                            elbo_error *error);
void checkpoint_close(struct checkpoint *checkpoint);

const char *checkpoint_path(const struct checkpoint *checkpoint);
uint64_t checkpoint_step(const struct checkpoint *checkpoint);
size_t checkpoint_ranks(const struct checkpoint *checkpoint); /* that wrote it */
const char *checkpoint_config_hash(const struct checkpoint *checkpoint);
const char *checkpoint_program(const struct checkpoint *checkpoint); /* the version of elbo that wrote it */
json_t *checkpoint_counters(const struct checkpoint *checkpoint);    /* borrowed */

/* A file that the manifest names: its bytes (read whole, for small ones; valid until the checkpoint is closed; a NUL
 * follows them), whether it is there, or its tensors (safetensors_free before the checkpoint is closed). */
bool checkpoint_has(const struct checkpoint *checkpoint, const char *name);
elbo_status checkpoint_bytes(const void **bytes, size_t *size, const struct checkpoint *checkpoint, const char *name,
                             elbo_error *error);
elbo_status checkpoint_tensors(struct safetensors **out, const struct checkpoint *checkpoint, const char *name,
                               elbo_error *error);

/* The first file of the manifest whose name begins so; null: there is none. */
const char *checkpoint_named(const struct checkpoint *checkpoint, const char *beginning);

/* ---- adding to one that is saved ---- */

/* Adds a file to a checkpoint, in the place of the one that was added under the same stem before:
 * "prior-000002.suffix". `file->name` is not read. A crash at any moment leaves the checkpoint as it was, or with the
 * new file: the file is written under a name that the manifest does not know, then the manifest is replaced. The file
 * before it is removed by the next addition, for those who are reading it. */
elbo_status checkpoint_attach(const struct checkpoint *checkpoint, const char *stem, const char *suffix,
                              const struct checkpoint_file *file, elbo_error *error);

/* ---- shared by the two halves ---- */

struct manifest;
const struct manifest *checkpoint_manifest(const struct checkpoint *checkpoint);

enum { CHECKPOINT_NAME = 32 };
#define CHECKPOINT_FOLDER   "checkpoints"
#define CHECKPOINT_MANIFEST "manifest.json"

void checkpoint_name(char out[CHECKPOINT_NAME], uint64_t step); /* step-00001000 */
bool checkpoint_parse_name(uint64_t *step, const char *name);   /* exactly such a name */

/* The steps that have a folder of such a name in `folder`, newest first; free() them. A missing folder has none. */
elbo_status checkpoint_list(uint64_t **steps, size_t *count, const char *folder, elbo_error *error);

#endif
