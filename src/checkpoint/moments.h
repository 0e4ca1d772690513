/* The optimizer's moments on their way to a checkpoint's files and back, wherever they are: all here, or shared out
 * among ranks (ZeRO), each of which keeps its pieces. Three sources of the same moments:
 *
 *   here       one rank has all
 *   gathered   rank 0 writes whole moments, and the others send their pieces as it comes to them: needs no common
 * folder beside     every rank writes a file of its own pieces, beside the others', where all see one folder
 *
 * A checkpoint of any of them is read by any number of ranks. */
#ifndef CHECKPOINT_MOMENTS_H
#define CHECKPOINT_MOMENTS_H

#include "checkpoint/arena.h"
#include "checkpoint/checkpoint.h"
#include "job/collectives.h"

enum { MOMENTS = 2, MOMENTS_NAME = 192 };

struct moments;

struct moments_source {
    const char *name;
    bool whole; /* the optimizer's file holds whole moments, by `read` */
    elbo_status (*read)(struct moments *m, unsigned which, void *to, size_t at, size_t elements, elbo_error *error);
    /* Other files of a checkpoint, as struct checkpoint_contents.others; null: none. */
    elbo_status (*others)(void *moments, const char *folder, struct manifest_file **entries, size_t *count,
                          elbo_error *error);
    /* The other ranks' part while rank 0 saves, and the call that lets them go; null: they take no part. */
    elbo_status (*serve)(struct moments *m, elbo_error *error);
    elbo_status (*done)(struct moments *m, elbo_error *error);
};

extern const struct moments_source moments_here, moments_gathered, moments_beside;

struct moments {
    const struct moments_source *source;
    struct backend *backend;
    const struct parameters *parameters;
    enum dtype type;
    void *memory[MOMENTS]; /* null: the optimizer has none of it            */
    /* The ranks that share them out; null collectives: all are here. Rank r's pieces are pieces[begin[r]] to
     * pieces[begin[r + 1]]. */
    struct collectives *collectives;
    const struct arena_piece *pieces;
    const size_t *begin;
    void *staging; /* of `gathered`                                  */
    bool told;     /* of `beside`: this save has told the others where */
};

/* Chooses the source: of shared moments `beside` where every rank sees what rank 0 writes into the run directory. All
 * ranks call it. Without it they are `gathered`. */
elbo_status moments_choose(struct moments *m, const char *run_dir, elbo_error *error);
/* Releases staging memory. */
void moments_close(struct moments *m);

/* The arenas of this rank: what is written into the optimizer's file, and what is loaded. */
struct arena moments_arena(struct moments *m, unsigned which);

/* Name of a moment's tensor: "moment1.NAME". */
void moments_name(char name[MOMENTS_NAME], unsigned which, const char *parameter);

/* Around rank 0's save: the other ranks serve, rank 0 lets them go. */
elbo_status moments_serve(struct moments *m, elbo_error *error);
elbo_status moments_done(struct moments *m, elbo_error *error);

/* Whether a checkpoint's moments lie in files beside each other; loads those. ELBO_INPUT where elements are missing. */
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
