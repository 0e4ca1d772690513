/* What a run is made of, and its way to a checkpoint and back. Private to the trainer. */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include "base/files.h"
#include "elbo/corpus.h"
#include "model/model.h"
#include "text/slots.h"
#include "train/config.h"
#include "train/metrics.h"
#include "step/optimizer.h"
#include "train/run_lock.h"
#include "train/team.h"
#include "train/trainer.h"

#include <signal.h>

/* A step that was launched and whose figures are on their way. */
struct pending {
    bool live;
    uint64_t step; /* from 1                                       */
    size_t sentences, tokens, words, shortened;
    double beta[2], learning_rate[2]; /* for both answers of the step before     */
    int signal;                       /* that came to a rank                          */
    double seconds;                   /* of this rank's own work                      */
    size_t straggler;                 /* the slowest rank ...                         */
    double straggles;                 /* ... and its time over the middle one's       */
    float *read;                      /* (ELBO_PARTS + Z + 4 Z + CONTROL_SIZE) in host memory that copies reach later */
};

enum { MOST_AHEAD = 2 };

struct trainer {
    const struct elbo_config *config;
    const struct options *options;
    struct train_report report;
    struct model_config model_config;
    struct run_lock lock;
    bool locked, signals_blocked;
    sigset_t old_signals;
    struct elbo_corpus *train, *valid;
    struct backend *backend;
    struct model model;
    struct optimizer optimizer;
    struct team team;
    bool apart;               /* a rank's weights are of the last update in its own pieces only */
    void *sharded_staging;    /* of sharded.c */
    bool shards, shards_told; /* every rank writes its moments (shards.h); this save has told the others where */
    struct recording recording;
    struct slot_loader *loader;
    struct metrics *metrics;
    float weights[2][ELBO_WEIGHTS]; /* the loss's step scalars */
    struct pending pending[MOST_AHEAD];
    uint64_t done; /* steps whose figures are known; draws: launched */
    bool applied;  /* the update of step `done`                   */

    /* ---- the state that a checkpoint holds beside weights and moments ---- */
    uint64_t draws;     /* training forward passes: the noise's step   */
    uint64_t next;      /* data cursor                                 */
    uint64_t skipped;   /* updates left out, in all                    */
    uint64_t bad;       /* steps in a row that were not finite         */
    uint64_t shortened; /* sentences cut or left out, in all           */
    double *variance; /* (Z + 1) running mean of mu's variance over a step's sentences, and its weight: active units */
    uint64_t best_step; /* whose evaluation is the best so far by checkpoint.best; 0: none     */
    double best;        /* that figure                                                          */
    uint64_t worse;     /* evaluations since                                                    */
    uint64_t rewound;   /* step that the run went back to last, by --rewind; 0: never           */

    /* ---- of the last step ---- */
    double loss, reconstruction, kl, kl_free, gradient_norm, beta, learning_rate;
    bool step_skipped, row_lost; /* row_lost: its metrics could not be written */
    size_t sentences, tokens, words;
    double *kl_dim; /* (Z) sums over the batch                     */
    double begun, step_began, save_seconds;
    int signal;        /* after which the run stops                   */
    bool bettered;     /* the evaluation of this step is the best     */
    elbo_status ended; /* how; ELBO_OK as well where every rank knows */
    size_t straggler;
    double straggles;
    double exposed,
        exposed_sum; /* seconds that the sum over ranks held up a step, behind its backward pass; NaN: not known */
    uint64_t exposed_steps;
    uint64_t first_draw, tokens_since,
        saved_step; /* saved_step: of the last checkpoint that this process wrote; 0: none */
    struct last_validation {
        uint64_t step; /* 0: none yet */
        double neg_elbo, reconstruction, kl, own_z_gain;
        size_t active_units;
    } validation;
};

/* What is read back of a step: floats. */
static inline size_t trainer_read_floats(size_t z)
{
    return ELBO_PARTS + 5 * z + CONTROL_SIZE;
}

/* Those that a run stops for; of SIGHUP not where it is ignored already (nohup). */
static inline sigset_t trainer_signals(void)
{
    sigset_t set;
    struct sigaction hangup;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    if (!sigaction(SIGHUP, NULL, &hangup) && hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
    return set;
}

elbo_status state_save(struct trainer *t, elbo_error *error);
/* From `path`: a run directory or a checkpoint; it names the checkpoint that was taken then. */
elbo_status state_load(struct trainer *t, char path[FILES_PATH], elbo_error *error);

/* Weights of a checkpoint into a model whose parameters are laid out. */
struct checkpoint;
elbo_status state_load_weights(struct model *m, const struct checkpoint *c, elbo_error *error);

#endif
