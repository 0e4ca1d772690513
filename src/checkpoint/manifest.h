/* The manifest of a checkpoint: the names and sizes of its files, and checksums that verify every byte.
 *
 *   {"elbo": "checkpoint", "version": 1, "program": "0.1.0", "step": 1000, "ranks": 1, "config_hash": "...",
 *    "counters": {...}, "chunk_bytes": 16777216,
 *    "files": [{"name": "model.safetensors", "bytes": 123, "xxh3": "<16 hex>", "chunks": ["<16 hex>", ...]}, ...],
 *    "checksum": "<16 hex>"}
 *
 * xxh3 is the XXH3-64 of the whole file. chunks holds the hash of each 16 MiB of the file, so that damage is reported
 * with its place. `checksum`, always last, is the hash of the manifest itself (base/sealed.h). */
#ifndef CHECKPOINT_MANIFEST_H
#define CHECKPOINT_MANIFEST_H

#include "base/sealed.h"
#include "elbo/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MANIFEST_VERSION = 1,
    MANIFEST_CHUNK = SEALED_CHUNK, /* bytes */
    MANIFEST_MOST_BYTES = 64 << 20,
    MANIFEST_MOST_NAME = 128,
};

struct manifest_file {
    const char *name; /* "model.safetensors" or "state/optimizer.safetensors": see manifest_name_is_good */
    uint64_t bytes;
    uint64_t xxh3;
    uint64_t *chunks; /* (ceil(bytes / MANIFEST_CHUNK)) */
    size_t chunk_count;
};

struct manifest {
    uint64_t step;
    size_t ranks;
    const char *program, *config_hash;
    json_t *counters; /* an object that the caller stores */
    struct manifest_file *files;
    size_t count;
    json_t *owner; /* owns the strings after parsing */
};

/* Whether a name is at most one folder deep, of letters, digits and ". _ -", and never hidden, so that it cannot leave
 * the checkpoint. */
bool manifest_name_is_good(const char *name);

/* Composes the text; the caller frees it. */
elbo_status manifest_compose(char **text, size_t *size, const struct manifest *manifest, elbo_error *error);

/* Parses a manifest. ELBO_INPUT says whether it is damaged, foreign, or of another version. */
elbo_status manifest_parse(struct manifest *out, const char *text, size_t size, elbo_error *error);
void manifest_free(struct manifest *manifest);

/* ---- checksums of a file, updated as its bytes are written or read ---- */

struct checksums;

elbo_status checksums_begin(struct checksums **out, elbo_error *error);
elbo_status checksums_update(struct checksums *sums, const void *bytes, size_t size, elbo_error *error);
/* Fills in all of `file` but its name. Ends `sums` in either case; the caller frees file->chunks. */
elbo_status checksums_end(struct manifest_file *file, struct checksums *sums, elbo_error *error);
void checksums_abort(struct checksums *sums); /* accepts NULL */

#endif
