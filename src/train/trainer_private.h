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

/* A launched step whose figures are on their way. */
struct launched {
    uint64_t step; /* counted from 1 */
    enum step_pass pass;
    size_t tokens, words, dropped, shortened;
    struct step_schedule schedule;
    struct team_news news;
    double seconds; /* time of this rank's own work */
    float *read;    /* (step_read_floats) host memory that the device's copies reach later */
};

enum { MOST_AHEAD = 2 };

/* The finished steps, and the figures of the last one. */
struct done {
    uint64_t step; /* last step whose figures are known; the state's draws count launched steps */
    bool applied;  /* the step's update was applied */
    enum step_pass pass;
    struct step_figures figures;
    double information; /* passes_information */
    size_t tokens, words, dropped;
    struct team_news news;
    /* Seconds by which the sum over ranks outlasted a step's backward pass; NaN: unknown. */
    double exposed, exposed_sum;
    uint64_t exposed_steps;
};

struct clock {
    double begun, step_began;
    uint64_t first_draw, tokens_since; /* of this process; since the last line */
};

/* The last evaluation on data.valid. */
struct last_validation {
    uint64_t step; /* 0: none yet */
    double neg_elbo, reconstruction, kl, own_z_gain;
    size_t active_units;
    bool bettered; /* the best so far by checkpoint.best */
    bool dead;     /* the latent is dead, and a rollback is due */
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
    struct label_names labels;            /* of a model with data.labels */
    int32_t *train_labels, *valid_labels; /* the model's numbers for the corpora's classes; null: none */
    struct backend *backend;
    struct team team;
    struct model_config model; /* the configuration's, with the corpus's vocabulary */
    struct step step;
    struct slot_loader *loader, *beside; /* beside: for encoder passes, or null */
    struct metrics *metrics;
    bool row_lost; /* the last row could not be written */

    struct training_state state; /* contents of a checkpoint */
    double *variance; /* (Z + 1) running mean of mu's variance over a step's sentences, and its weight; gives active
                         units */
    struct safetensors_tensor statistics[1 + STEP_MOST_STATES];
    struct kept_states {
        struct step_state list[STEP_MOST_STATES]; /* on the backend */
        char names[STEP_MOST_STATES][STEP_STATE_NAME];
        size_t count;
        float *copy; /* all states, one behind the other; checkpoints read and fill it */
    } states;
    uint64_t saved_step; /* step of the last checkpoint that this process wrote; 0: none */

    struct launched launched[MOST_AHEAD];
    struct done done;
    struct clock clock;
    struct last_validation validation;
    int signal;        /* signal that stops the run, or 0 */
    elbo_status ended; /* status at the end; ELBO_OK also if every rank knows of the end */
};

/* Builds the step again with the rate raised by the watch over the latent. The caller restores weights and moments;
 * counters stay. Every rank calls it between two steps. */
elbo_status trainer_rebuild(struct trainer *t, elbo_error *error);

/* Copy the step's states between the backend and the copy that checkpoints read and fill. */
void trainer_fetch_states(struct trainer *t);
void trainer_give_states(struct trainer *t);

/* Returns the name of the figure of checkpoint.best. */
const char *trainer_best_figure(const struct elbo_config *config);

#endif
