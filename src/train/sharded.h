/* Moments that ranks share out (parallel.zero): each rank updates its piece of every group of parameters, and then all
 * have all weights again. Where the ranks do not share the run directory (else train/shards.h), rank 0 writes a
 * checkpoint's whole moments, and the others send their pieces as it comes to them. */
#ifndef TRAIN_SHARDED_H
#define TRAIN_SHARDED_H

#include "train/state.h"

/* The share of this rank. */
struct optimizer_share sharded_share(struct trainer *t);
bool sharded(const struct trainer *t);

/* Elements first .. first + count of the arena of moments (0 or 1), of the type that they have here, into host memory.
 * Rank 0's, while the others are in sharded_serve. */
elbo_status sharded_read(struct trainer *t, unsigned moment, void *to, size_t first, size_t count, elbo_error *error);
/* The others send pieces until rank 0 says, by sharded_done, that it is through. */
elbo_status sharded_serve(struct trainer *t, elbo_error *error);
elbo_status sharded_done(struct trainer *t, elbo_error *error);

/* Where elements first .. first + count of the whole arena lie in this rank's moments: the next part, while there is
 * one; `piece` is 0 before the first. */
struct sharded_part {
    size_t from, at, count; /* element of the range, of this rank's arena, how many */
};
bool sharded_next(struct sharded_part *part, size_t *piece, const struct optimizer *o, size_t first, size_t count);

#endif
