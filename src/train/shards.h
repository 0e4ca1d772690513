/* Moments that ranks share out, in files that they write side by side: state/optimizer-R-of-N.safetensors holds rank
 * R's pieces of parameters, "moment1.NAME@FIRST" (n) F32, elements FIRST .. FIRST + n of NAME's. Any number of ranks
 * reads them. Where the ranks do not share the run directory, rank 0 writes whole moments instead (sharded.h). */
#ifndef TRAIN_SHARDS_H
#define TRAIN_SHARDS_H

#include "train/state.h"

struct arena;
struct checkpoint;
struct manifest_file;

/* Sets t->shards where moments are shared out and every rank sees what rank 0 writes into the run directory. */
elbo_status shards_probe(struct trainer *t, elbo_error *error);

/* A save: rank 0's struct checkpoint_contents.others (context: the trainer); meanwhile the other ranks are in
 * shards_serve, which shards_done lets go where the save did not come so far. */
elbo_status shards_write(void *trainer, const char *folder, struct manifest_file **entries, size_t *count,
                         elbo_error *error);
elbo_status shards_serve(struct trainer *t, elbo_error *error);
elbo_status shards_done(struct trainer *t, elbo_error *error);

/* Whether a checkpoint's moments are in shards; their way into the moments' arenas (2). ELBO_INPUT where elements are
 * missing. */
bool shards_in(const struct checkpoint *c);
elbo_status shards_load(struct trainer *t, const struct checkpoint *c, const struct arena *moments, elbo_error *error);

#endif
