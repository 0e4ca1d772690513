/* Checkpoints: RUN/checkpoints/step-00001000/. A crash during a save leaves the checkpoint before or the new one. A
 * checkpoint is opened only if every byte verifies.
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
 * A save writes into step-N.tmp (each file new, fsynced), the manifest last, renames the folder and syncs its parent.
 * Only then `latest` moves (a small file that holds the folder's name), and only then old checkpoints are deleted. A
 * failed save loses nothing: the caller reports it and goes on. */
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
    const struct safetensors_tensor *tensors; /* not NULL: written as safetensors */
    size_t tensor_count;
    const struct safetensors_note *notes; /* the safetensors' __metadata__ */
    size_t note_count;
    const void *bytes; /* without tensors: written as they are */
    size_t size;
};

struct manifest_file;

struct checkpoint_contents {
    uint64_t step;
    const char *config_hash;
    json_t *counters; /* an object, borrowed; integers are signed 64-bit, doubles come back exactly; NULL: empty */
    const struct checkpoint_file *files;
    size_t file_count;
    size_t ranks;    /* number of ranks that write the checkpoint */
    uint64_t best;   /* step kept regardless of `keep`, and named in `best`; 0: none */
    uint64_t pinned; /* another step kept regardless of `keep`; 0: none */
    /* Writes other ranks' files: called after `files` are written in `folder`, before the manifest. The caller frees
     * *entries, their names and their chunks. Null: no other files. */
    elbo_status (*others)(void *context, const char *folder, struct manifest_file **entries, size_t *count,
                          elbo_error *error);
    void *context;
};

/* Writes one file durably into the folder that `others` receives, and fills in its entry of the manifest. The caller
 * frees entry->chunks. */
elbo_status checkpoint_write_file(struct manifest_file *entry, const char *folder, const struct checkpoint_file *file,
                                  elbo_error *error);

/* Saves, moves `latest`, then deletes all but this checkpoint and the `keep - 1` newest before it (keep = 0: deletes
 * none). A checkpoint of the same step is replaced atomically. The caller holds the run directory's lock. */
elbo_status checkpoint_save(const char *run_dir, const struct checkpoint_contents *contents, size_t keep,
                            elbo_error *error);

/* Makes `which` ("latest" or "best") name the checkpoint of `step`, atomically. */
elbo_status checkpoint_mark(const char *run_dir, const char *which, uint64_t step, elbo_error *error);

/* Whether the run directory has anything that claims to be a checkpoint, good or damaged. If not, `resume: auto` begins
 * a new run. */
bool checkpoint_any(const char *run_dir);

/* ---- opening ---- */

struct checkpoint;

/* Receives each checkpoint that was refused, and the reason, when another checkpoint may serve. */
typedef void (*checkpoint_warning)(void *context, const char *message);

/* Opens a checkpoint. `path` is one checkpoint, which must verify; or RUN/checkpoints/best or latest, which name one;
 * or a run directory, where the checkpoint that `latest` names is tried first, then all others, newest first. A trainer
 * may save and delete there meanwhile, because opened files stay readable. `warn` may be NULL. No symbolic link inside
 * is followed. ELBO_INPUT: damaged, foreign, of another version (with file and byte range), or no checkpoint found;
 * ELBO_IO: missing or unreadable. */
elbo_status checkpoint_open(struct checkpoint **out, const char *path, checkpoint_warning warn, void *context,
                            elbo_error *error);
void checkpoint_close(struct checkpoint *checkpoint);

const char *checkpoint_path(const struct checkpoint *checkpoint);
uint64_t checkpoint_step(const struct checkpoint *checkpoint);
size_t checkpoint_ranks(const struct checkpoint *checkpoint); /* number of ranks that wrote it */
const char *checkpoint_config_hash(const struct checkpoint *checkpoint);
const char *checkpoint_program(const struct checkpoint *checkpoint); /* version of elbo that wrote it */
json_t *checkpoint_counters(const struct checkpoint *checkpoint);    /* borrowed */

/* Access a file that the manifest names. checkpoint_has: whether the checkpoint has it. checkpoint_bytes: all of its
 * bytes, for small files; they end with a NUL and are valid until the checkpoint is closed. checkpoint_tensors: its
 * tensors, to be released by safetensors_free before the checkpoint is closed. */
bool checkpoint_has(const struct checkpoint *checkpoint, const char *name);
elbo_status checkpoint_bytes(const void **bytes, size_t *size, const struct checkpoint *checkpoint, const char *name,
                             elbo_error *error);
elbo_status checkpoint_tensors(struct safetensors **out, const struct checkpoint *checkpoint, const char *name,
                               elbo_error *error);

/* Returns the first file of the manifest whose name has this beginning, or null. */
const char *checkpoint_named(const struct checkpoint *checkpoint, const char *beginning);

/* ---- adding to a saved checkpoint ---- */

/* Adds a file to a checkpoint under the next name of its stem, "prior-000002.suffix"; it replaces the file added before
 * under that stem. `file->name` is not read. A crash at any moment leaves the checkpoint as it was or with the new
 * file, because the file is written under a name that the manifest does not know, and the manifest is replaced after
 * it. The replaced file is removed only by the next addition, so that its present readers can finish. */
elbo_status checkpoint_attach(const struct checkpoint *checkpoint, const char *stem, const char *suffix,
                              const struct checkpoint_file *file, elbo_error *error);

/* ---- shared by saving and opening ---- */

struct manifest;
const struct manifest *checkpoint_manifest(const struct checkpoint *checkpoint);

enum { CHECKPOINT_NAME = 32 };
#define CHECKPOINT_FOLDER   "checkpoints"
#define CHECKPOINT_MANIFEST "manifest.json"

void checkpoint_name(char out[CHECKPOINT_NAME], uint64_t step); /* step-00001000 */
bool checkpoint_parse_name(uint64_t *step, const char *name);   /* accepts exactly such a name */

/* Lists the steps of the checkpoint folders in `folder`, newest first; the caller frees them. A missing folder has
 * none. */
elbo_status checkpoint_list(uint64_t **steps, size_t *count, const char *folder, elbo_error *error);

#endif
