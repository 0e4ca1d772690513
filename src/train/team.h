/* The ranks of one run: who they are, that they do the same, and what they tell each other at every step. A run of one
 * rank is a team too, which tells nobody anything.
 *
 * Rank 0 writes: the run directory, checkpoints, metrics, the console. */
#ifndef TRAIN_TEAM_H
#define TRAIN_TEAM_H

#include "job/bonds.h"
#include "job/collectives.h"
#include "step/gathering.h"
#include "job/ranks.h"
#include "step/reduction.h"
#include "text/slots.h"
#include "train/config.h"

struct trainer;
struct pending;

struct team {
    struct ranks who;
    struct collectives *collectives; /* null: alone */
    struct collectives *host;        /* MPI, where it only brought the GPUs' ranks together; or null */
    struct bonds bonds;              /* to the ranks that were met over TCP */
    struct buckets buckets;
    struct reduction *reduction;
    struct gathering *gathering; /* null: no rank updates weights for others */
    size_t ranks, rank;
    uint64_t checked; /* step at which all weights were last the same */
    char *notes;      /* (ranks) what was told of a step              */
};

/* Lanes of a configuration on so many ranks; refuses fewer lanes or slots than ranks. */
size_t team_lanes(const struct elbo_config *config, size_t ranks);
/* Whether gradients are added in an order that is laid down: also where each rank keeps the sums of its pieces. */
bool team_ordered(const struct elbo_config *config);
elbo_status team_fits(const struct elbo_config *config, size_t ranks, elbo_error *error);

/* The slots of this rank's lanes, into own_first and own_count. */
void team_own_slots(const struct team *team, const struct elbo_config *config, struct slot_options *slots);
/* Elements of a bucket, at most. */
size_t team_bucket(const struct elbo_config *config);
/* The buckets of a training graph's gradients, and of the figures behind them. */
elbo_status team_buckets(struct buckets *b, const struct elbo_config *config, const struct graph *g,
                         const struct parameters *p, size_t figures, elbo_error *error);

/* Who this rank is; opens its device. */
elbo_status team_detect(struct team *team, const struct elbo_config *config, struct backend **backend,
                        elbo_error *error);
/* Joins the other ranks; where there are none, nothing happens. */
elbo_status team_join(struct team *team, const struct elbo_config *config, struct backend *backend, elbo_error *error);
/* `ended`: how the run did. After a failure of this rank alone the others are not waited for. */
void team_close(struct team *team, const struct backend *backend, elbo_status ended);

/* Every rank calls it with how it did so far; fails everywhere if it failed anywhere. */
elbo_status team_agree(struct trainer *t, elbo_status status, elbo_error *error);

/* Refuses ranks that were given other options or another corpus. */
elbo_status team_compare(struct trainer *t, elbo_error *error);

/* A step's note: sent when the step was launched, read when its figures are. */
elbo_status team_tell(struct trainer *t, unsigned which, struct pending *p, elbo_error *error);
elbo_status team_hear(struct trainer *t, unsigned which, struct pending *p, elbo_error *error);

/* The execute_progress of a slot of the ranks' training graph; context: the team. Of the last one (`sums`): buckets of
 * gradients that a step has finished set out, and at its end all have arrived. Of the first one, where weights are
 * updated by pieces (`gathers`): they come in as steps need them. Null: of neither. */
execute_progress team_progress(bool gathers, bool sums);

/* The text of the first rank that has any reaches every rank. */
elbo_status team_first_word(struct trainer *t, char *text, size_t size, elbo_error *error);

/* Fails with rank and tensor where a rank's weights are not rank 0's. */
elbo_status team_check_weights(struct trainer *t, elbo_error *error);

#endif
