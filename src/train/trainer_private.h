/* The parts of a run. Private to the trainer. */
#ifndef TRAIN_TRAINER_PRIVATE_H
#define TRAIN_TRAINER_PRIVATE_H

#include "checkpoint/training_state.h"
#include "elbo/corpus.h"
#include "step/step.h"
#include "text/slots.h"
#include "train/metrics.h"
#include "train/run_lock.h"
#include "train/signals.h"
#include "train/team.h"
#include "train/label_names.h"
#include "train/trainer.h"

/* A step that was launched and whose figures are on their way. */
struct launched {
    uint64_t step; /* from 1                        */
    enum step_pass pass;
    size_t tokens, words, dropped, shortened;
    struct step_schedule schedule;
    struct team_news news;
    double seconds; /* of this rank's own work       */
    float *read;    /* (step_read_floats) in host memory that copies reach later */
};

enum { MOST_AHEAD = 2 };

/* Steps that are done, and the last one's figures. */
struct done {
    uint64_t step; /* whose figures are known; the state's draws: launched */
    bool applied;  /* its update                                           */
    enum step_pass pass;
    struct step_figures figures;
    double information; /* passes_information */
    size_t tokens, words, dropped;
    struct team_news news;
    /* Seconds that the sum over ranks held up a step, behind its backward pass; NaN: not known. */
    double exposed, exposed_sum;
    uint64_t exposed_steps;
};

struct clock {
    double begun, step_began;
    uint64_t first_draw, tokens_since; /* of this process; since the last line */
};

/* The evaluation on data.valid that was last. */
struct last_validation {
    uint64_t step; /* 0: none yet */
    double neg_elbo, reconstruction, kl, own_z_gain;
    size_t active_units;
    bool bettered; /* it is the best by checkpoint.best */
    bool dead;     /* and a rollback is due */
    double mutual_information;
};

struct trainer {
    const struct elbo_config *config;
    struct options *options;
    struct train_report report;
    struct run_lock lock;
    bool locked, signals_blocked;
    sigset_t old_signals;
    struct elbo_corpus *train, *valid;
    struct label_names labels;            /* of a model with data.labels                   */
    int32_t *train_labels, *valid_labels; /* numbers of the corpora's classes; null: none  */
    struct backend *backend;
    struct team team;
    struct model_config model; /* the configuration's, with the corpus's vocabulary */
    struct step step;
    struct slot_loader *loader, *beside; /* beside: of the encoder's passes; null where there are none */
    struct metrics *metrics;
    bool row_lost; /* its last row could not be written */

    struct training_state state; /* what a checkpoint holds */
    double *variance; /* (Z + 1) running mean of mu's variance over a step's sentences, and its weight: active units */
    struct safetensors_tensor statistics[1 + STEP_MOST_STATES];
    struct kept_states {
        struct step_state list[STEP_MOST_STATES]; /* on the backend */
        char names[STEP_MOST_STATES][STEP_STATE_NAME];
        size_t count;
        float *copy; /* of all of them, behind one another: what a checkpoint reads and fills */
    } states;
    uint64_t saved_step; /* of the last checkpoint that this process wrote; 0: none */

    struct launched launched[MOST_AHEAD];
    struct done done;
    struct clock clock;
    struct last_validation validation;
    int signal;        /* after which the run stops                   */
    elbo_status ended; /* how; ELBO_OK as well where every rank knows */
};

/* The step anew, with the rate as the watch over the latent has raised it; weights and moments are the caller's to
 * restore. Counters stay. Between two steps, on every rank. */
elbo_status trainer_rebuild(struct trainer *t, elbo_error *error);

/* The step's states between the backend and the copy that checkpoints read and fill. */
void trainer_fetch_states(struct trainer *t);
void trainer_give_states(struct trainer *t);

/* The figure of checkpoint.best, by its name. */
const char *trainer_best_figure(const struct elbo_config *config);

#endif
