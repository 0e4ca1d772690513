/* The ranks of one run: who they are, that they do the same, and what they tell each other at every step. A run of one
 * rank is a team too, which tells nobody anything.
 *
 * Rank 0 writes: the run directory, checkpoints, metrics, the console. */
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
    struct collectives *collectives; /* null: alone */
    struct collectives *host;        /* MPI, where it only brought the GPUs' ranks together; or null */
    struct bonds bonds;              /* to the ranks that were met over TCP */
    size_t ranks, rank;
    uint64_t checked; /* step at which all weights were last the same */
    char *notes;      /* (ranks) what was told of a step              */
};

/* Who this rank is; opens its device. */
elbo_status team_detect(struct team *team, const struct elbo_config *config, struct backend **backend,
                        elbo_error *error);
/* Joins the other ranks; where there are none, nothing happens. */
elbo_status team_join(struct team *team, const struct elbo_config *config, struct backend *backend, elbo_error *error);
/* `ended`: how the run did. After a failure of this rank alone the others are not waited for. */
void team_close(struct team *team, elbo_status ended);

/* Every rank calls it with how it did so far; fails everywhere if it failed anywhere. */
elbo_status team_agree(struct team *team, elbo_status status, elbo_error *error);

/* Things that must be the same on every rank. */
struct team_likeness {
    const struct options *options;
    const char *corpus, *data; /* its hash, and its path */
    struct backend *backend;
};

/* Refuses ranks that were given other options or another corpus, or compute on other devices. */
elbo_status team_compare(struct team *team, const struct team_likeness *of, elbo_error *error);

/* News of a step from all ranks. */
struct team_news {
    int signal;       /* that came to one of them, or 0                        */
    size_t straggler; /* the slowest rank ...                                  */
    double straggles; /* ... and its time over the middle one's; 0: not known  */
};

/* A step's note, of number `which`: sent when the step was launched, with a signal that came to this rank (or 0) and
 * the seconds of its own work; read when the step's figures are. Without other ranks `news` is left as it is. */
elbo_status team_tell(struct team *team, unsigned which, int signal, double seconds, elbo_error *error);
elbo_status team_hear(struct team *team, unsigned which, struct team_news *news, elbo_error *error);

/* The text of the first rank that has any reaches every rank. */
elbo_status team_first_word(struct team *team, char *text, size_t size, elbo_error *error);

/* Fails with rank and tensor where a rank's weights are not rank 0's at this step. */
elbo_status team_check_weights(struct team *team, const struct model *m, uint64_t step, elbo_error *error);

#endif
