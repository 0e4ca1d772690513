/* The ranks of one run: which rank this is, whether all ranks do the same, and what they tell each other at every step.
 * A run of one rank is a team too, without messages.
 *
 * Only rank 0 writes: the run directory, checkpoints, metrics, the console. */
#ifndef TRAIN_TEAM_H
#define TRAIN_TEAM_H

#include "base/options.h"
#include "job/bonds.h"
#include "job/collectives.h"
#include "job/ranks.h"
#include "model/model.h"
#include "train/config.h"

struct team {
    struct ranks who;
    struct collectives *collectives; /* null: a single rank */
    struct collectives *host;        /* MPI, if it only brought the GPUs' ranks together; or null */
    struct bonds bonds;              /* connections to the ranks that were met over TCP */
    size_t ranks, rank;
    uint64_t checked; /* last step at which all ranks' weights were equal */
    char *notes;      /* (ranks) notes on a step */
};

/* Detects which rank this is, and opens its device. */
elbo_status team_detect(struct team *team, const struct elbo_config *config, struct backend **backend,
                        elbo_error *error);
/* Joins the other ranks, if there are any. */
elbo_status team_join(struct team *team, const struct elbo_config *config, struct backend *backend, elbo_error *error);
/* Leaves the team. `ended` is the status of the run. After a failure of this rank alone the others are not waited
 * for. */
void team_close(struct team *team, elbo_status ended);

/* Fails on every rank if `status` is a failure on one. Every rank calls it with its status so far. */
elbo_status team_agree(struct team *team, elbo_status status, elbo_error *error);

/* Properties that must be equal on every rank. */
struct team_likeness {
    const struct options *options;
    const char *corpus, *data; /* hash and path of the corpus */
    struct backend *backend;
};

/* Refuses ranks that were given other options or another corpus, or that compute on other devices. */
elbo_status team_compare(struct team *team, const struct team_likeness *of, elbo_error *error);

/* News of a step from all ranks. */
struct team_news {
    int signal;       /* received by one of the ranks, or 0 */
    size_t straggler; /* slowest rank */
    double straggles; /* time of the slowest rank over the median rank's; 0: unknown */
};

/* team_tell sends this rank's note on the step in slot `which` when the step is launched: a received signal (or 0), and
 * the seconds of its own work. team_hear reads all ranks' notes with the step's figures. Without other ranks `news` is
 * unchanged. */
elbo_status team_tell(struct team *team, unsigned which, int signal, double seconds, elbo_error *error);
elbo_status team_hear(struct team *team, unsigned which, struct team_news *news, elbo_error *error);

/* Gives every rank the text of the first rank that has one. */
elbo_status team_first_word(struct team *team, char *text, size_t size, elbo_error *error);

/* Compares the weights of all ranks at this step. The error names a rank and a tensor that differ from rank 0's. */
elbo_status team_check_weights(struct team *team, const struct model *m, uint64_t step, elbo_error *error);

#endif
