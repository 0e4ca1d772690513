/* Moves the optimizer's moments to a checkpoint's files and back. One rank may hold all moments, or ranks share them
 * out (ZeRO) and each keeps its pieces. There are three sources of the same moments:
 *
 *   here       one rank has all moments
 *   gathered   rank 0 writes whole moments, and the other ranks send it their pieces; needs no common folder
 *   beside     every rank writes a file of its own pieces, beside the others'; all ranks see one folder
 *
 * Any number of ranks can read a checkpoint of any source. */
#ifndef CHECKPOINT_MOMENTS_H
#define CHECKPOINT_MOMENTS_H

#include "checkpoint/arena.h"
#include "checkpoint/checkpoint.h"
#include "job/collectives.h"

enum { MOMENTS = 2, MOMENTS_NAME = 192 };

struct moments;

struct moments_source {
    const char *name;
    bool whole; /* the optimizer's file holds whole moments, read by `read` */
    elbo_status (*read)(struct moments *m, unsigned which, void *to, size_t at, size_t elements, elbo_error *error);
    /* Writes other files of a checkpoint, as struct checkpoint_contents.others; null: none. */
    elbo_status (*others)(void *moments, const char *folder, struct manifest_file **entries, size_t *count,
                          elbo_error *error);
    /* serve: the other ranks' part while rank 0 saves. done: rank 0's call that ends their part. Null: they have no
     * part. */
    elbo_status (*serve)(struct moments *m, elbo_error *error);
    elbo_status (*done)(struct moments *m, elbo_error *error);
};

extern const struct moments_source moments_here, moments_gathered, moments_beside;

struct moments {
    const struct moments_source *source;
    struct backend *backend;
    const struct parameters *parameters;
    enum dtype type;
    void *memory[MOMENTS]; /* null: the optimizer does not have this moment */
    /* The ranks that share the moments out; null collectives: all moments are here. Rank r has pieces[begin[r]] up to
     * pieces[begin[r + 1]]. */
    struct collectives *collectives;
    const struct arena_piece *pieces;
    const size_t *begin;
    void *staging; /* device memory of `gathered` */
    bool told;     /* for `beside`: this save has told the other ranks the folder */
};

/* Chooses the source of shared moments: `beside` if every rank sees the file that rank 0 writes into the run directory,
 * else `gathered`. All ranks call it. Without this call the source is `gathered`. */
elbo_status moments_choose(struct moments *m, const char *run_dir, elbo_error *error);
/* Releases staging memory. */
void moments_close(struct moments *m);

/* Returns this rank's arena of a moment, for writing the optimizer's file and for loading. */
struct arena moments_arena(struct moments *m, unsigned which);

/* Writes the name of a moment's tensor: "moment1.NAME". */
void moments_name(char name[MOMENTS_NAME], unsigned which, const char *parameter);

/* Surround rank 0's save: the other ranks call moments_serve, and rank 0 calls moments_done to end it. */
elbo_status moments_serve(struct moments *m, elbo_error *error);
elbo_status moments_done(struct moments *m, elbo_error *error);

/* moments_are_beside: whether a checkpoint's moments are in files beside each other. moments_load_beside: loads those
 * files; ELBO_INPUT if elements are missing. */
bool moments_are_beside(const struct checkpoint *c);
elbo_status moments_load_beside(struct moments *m, const struct checkpoint *c, elbo_error *error);

/* ---- for the sources ---- */

static inline size_t moments_ranks(const struct moments *m)
{
    return m->collectives ? m->collectives->ranks : 1;
}

static inline size_t moments_rank(const struct moments *m)
{
    return m->collectives ? m->collectives->rank : 0;
}

#endif
