/* One training step: its recording, the model and optimizer that it works on, the sums over slots, lanes and ranks, and
 * the figures that come out. Whatever trains or measures a step uses it: the trainer, `elbo bench`, `elbo plan`,
 * `elbo info`, programs of the core library.
 *
 *     struct step s;
 *     step_record(&s, &options, &error);             -- the graph, once; parameters and buckets are laid out
 *     step_plan(&s, backend, &error);                -- its memory (step/memory.h tells it); nothing is allocated yet
 *     step_allocate(&s, &error);                     -- weights zero: model_initialize(&s.model, ...), or a checkpoint
 *     for each batch of slots {
 *         step_run(&s, &schedule, batch, false, &error);        -- gradients and figures of all slots
 *         step_update(&s, &schedule, number, false, &error);    -- applied where it is finite
 *         step_read_later(&s, read);                            -- (step_read_floats) figures, when the backend is done
 *         step_figures(&s, &figures, &schedule, read);
 *     }
 *     step_free(&s);
 *
 * Where the encoder is trained ahead of the decoder (objective.aggressive_steps) a step is one of three passes
 * (step_run_pass): PASS_ENCODER computes no gradients of the decoder, by a recording of its own.
 *
 * Nothing in a step waits for the device. So that a step may be launched before the one before it is known to be
 * applied, whatever depends on the count of updates comes for both answers (struct step_schedule). */
#ifndef STEP_STEP_H
#define STEP_STEP_H

#include "step/controls.h"
#include "step/objective.h"
#include "step/optimizer.h"
#include "step/recording.h"
#include "step/sums.h"

struct step_options {
    struct model_config model; /* its vocabulary and positions are set                         */
    struct objective_config objective;
    struct optimizer_config optimizer;
    struct slot_options slots; /* capacities, and how many in a batch                          */
    struct sums_options sums;
    enum recompute_policy recompute;
    uint64_t seed; /* of the noise                                                 */
    size_t steps;  /* of the schedules                                             */
};

/* Updates of the whole model, of encoder and latent head by their gradients alone, and of the decoder. */
enum step_pass { PASS_WHOLE, PASS_ENCODER, PASS_DECODER, PASSES };

/* Updates `begin` .. begin + steps of the run, over which schedules run from their start to their end. */
struct step_phase {
    uint64_t begin;
    size_t steps;
    bool autoencoder; /* the KL weighs nothing */
};

struct step {
    struct step_options options;
    struct objective objective;
    struct parameters *parameters; /* the model's, once it is allocated */
    struct recording recording;
    struct recording encoder; /* without gradients of the decoder; none where passes do not alternate */
    struct step_phase phase;
    enum step_pass pass; /* launched last */
    struct model model;
    struct optimizer optimizer;
    struct sums sums;
    struct controls controls;
    struct backend *backend;
    bool apart; /* a rank's weights are of the last update in its own pieces only */
};

/* ELBO_USAGE: the objective contradicts itself. */
elbo_status step_record(struct step *s, const struct step_options *options, elbo_error *error);
/* ELBO_DEVICE: the backend cannot compute an op of the recording. */
elbo_status step_plan(struct step *s, struct backend *backend, elbo_error *error);
/* ELBO_MEMORY says for what. */
elbo_status step_allocate(struct step *s, elbo_error *error);
/* All three. */
elbo_status step_create(struct step *s, const struct step_options *options, struct backend *backend, elbo_error *error);
/* In any state, also after a failure. */
void step_free(struct step *s);
/* Lets go of what ranks share, before their collectives go; step_free comes later. */
void step_part(struct step *s);

/* Binds the recording again, after others were bound to the model (model_bind). */
elbo_status step_bind(struct step *s, elbo_error *error);

/* Scalars of a step, for an update before it that was left out [0] and applied [1]. */
struct step_schedule {
    size_t sentences;
    enum step_pass pass;
    uint64_t updates[2];             /* applied before this step      */
    uint64_t part_updates[2][PARTS]; /* the same of each of its parts */
    double learning_rate[2];
    double scale[2][OBJECTIVE_MOST_TERMS]; /* the terms' weights of a sentence */
};

/* Launches every slot of this rank and the sums. `ahead`: the step before is still under way. */
elbo_status step_run(struct step *s, struct step_schedule *schedule, const struct slot_batch *batch, bool ahead,
                     elbo_error *error);
/* The same of a pass; others than PASS_WHOLE where objective.aggressive_steps asks for them. */
elbo_status step_run_pass(struct step *s, struct step_schedule *schedule, enum step_pass pass,
                          const struct slot_batch *batch, bool ahead, elbo_error *error);
/* Launches the update; `number` of the step, from 1, addresses the noise that rounds moments. */
elbo_status step_update(struct step *s, const struct step_schedule *schedule, uint64_t number, bool skip,
                        elbo_error *error);

/* Runs the batch's slots once more with a hook around every op: nothing travels, nothing is updated. Gradients and
 * figures are those of this pass afterwards. */
elbo_status step_look(struct step *s, const struct slot_batch *batch, execute_hook hook, void *context,
                      elbo_error *error);

/* States that steps change in the backend's memory beside weights and moments, f32, and that a run keeps by name. */
struct step_state {
    const char *name;
    float *memory;
    size_t elements;
};
enum { STEP_MOST_STATES = OBJECTIVE_MOST_TERMS, STEP_STATE_NAME = 64 };
/* Into states (STEP_MOST_STATES) and names (STEP_MOST_STATES), which they point to; returns how many. */
size_t step_states(struct step *s, struct step_state *states, char (*names)[STEP_STATE_NAME]);

/* After something else than steps has written them. */
void step_states_restored(struct step *s);

/* The parts that a pass updates, as bits of enum parameter_part. */
unsigned step_parts(enum step_pass pass);

/* Begins the decoder anew: first weights, drawn by `seed`, and moments that have seen nothing; no step is under way. */
elbo_status step_reset_decoder(struct step *s, uint64_t seed, elbo_error *error);

/* All weights on every rank, for what is no training step. */
elbo_status step_whole(struct step *s, elbo_error *error);

/* Figures of the step launched last, as floats, in memory of backend->memory.allocate_host; there once the backend's
 * mark that follows is reached. */
size_t step_read_floats(const struct step *s);
void step_read_later(const struct step *s, float *to);

struct step_figures {
    double loss, gradient_norm, learning_rate;
    bool applied, finite; /* the update; the loss and the norm                        */
    bool clipped;         /* the update, of a gradient longer than optimizer.clip  */
    double under_free;    /* share of the KL's parts at or under their free bits; NaN: there are none */
    size_t sentences, count;
    struct objective_figure terms[OBJECTIVE_MOST_FIGURES];
    const float *kl_dim;  /* (Z) sums over the batch, within `read`; null: none        */
    const float *moments; /* (2 Z, 2) sums and squares of mu | logvar over the batch, within `read`; null: none */
};

/* Takes the figures from `read`, and counts the update if it was applied. `applied`: whether the step before was. */
void step_figures(struct step *s, struct step_figures *f, const struct step_schedule *schedule, const float *read,
                  bool applied);

#endif
