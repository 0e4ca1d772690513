/* One training step: its recording, its model and optimizer, the sums over slots, lanes and ranks, and the resulting
 * figures. Everything that trains or measures a step uses it: the trainer, `elbo bench`, `elbo plan`, `elbo info`,
 * programs of the core library.
 *
 *     struct step s;
 *     step_record(&s, &options, &error);             -- the graph, once; parameters and buckets are laid out
 *     step_plan(&s, backend, &error);                -- its memory (see step/memory.h); nothing is allocated yet
 *     step_allocate(&s, &error);                     -- weights zero: model_initialize(&s.model, ...), or a checkpoint
 *     for each batch of slots {
 *         step_run(&s, &schedule, batch, false, &error);        -- gradients and figures of all slots
 *         step_update(&s, &schedule, number, false, &error);    -- applied if it is finite
 *         step_read_later(&s, read);                            -- (step_read_floats) figures, when the backend is done
 *         step_figures(&s, &figures, &schedule, read, true);
 *     }
 *     step_free(&s);
 *
 * If the encoder is trained ahead of the decoder (objective.aggressive_steps), a step is one of three passes
 * (step_run_pass). PASS_ENCODER has its own recording, which computes no gradients of the decoder.
 *
 * A step never waits for the device. A step may be launched before the previous one is known to be applied, so all
 * values that depend on the count of updates are given for both answers (struct step_schedule). */
#ifndef STEP_STEP_H
#define STEP_STEP_H

#include "step/controls.h"
#include "step/objective.h"
#include "step/optimizer.h"
#include "step/recording.h"
#include "step/sums.h"

struct step_options {
    struct model_config model; /* with vocabulary and positions set */
    struct objective_config objective;
    struct optimizer_config optimizer;
    struct slot_options slots; /* capacities, and the number of slots in a batch */
    struct sums_options sums;
    enum recompute_policy recompute;
    uint64_t seed; /* of the noise */
    size_t steps;  /* of the schedules */
};

/* Updates of the whole model, of encoder and latent head by their gradients alone, and of the decoder. */
enum step_pass { PASS_WHOLE, PASS_ENCODER, PASS_DECODER, PASSES };

/* Updates `begin` .. begin + steps of the run, over which schedules run from start to end. */
struct step_phase {
    uint64_t begin;
    size_t steps;
    bool autoencoder; /* the KL has weight 0 */
};

struct step {
    struct step_options options;
    struct objective objective;
    struct parameters *parameters; /* owned by the model once it is allocated */
    struct recording recording;
    struct recording encoder; /* without gradients of the decoder; none if passes do not alternate */
    struct step_phase phase;
    enum step_pass pass; /* launched last */
    struct model model;
    struct optimizer optimizer;
    struct sums sums;
    struct controls controls;
    struct backend *backend;
    bool apart; /* the last update's weights are only in the pieces of their ranks */
};

/* Records the graph. ELBO_USAGE: the objective's options contradict each other. */
elbo_status step_record(struct step *s, const struct step_options *options, elbo_error *error);
/* Plans the memory. ELBO_DEVICE: the backend cannot compute an op of the recording. */
elbo_status step_plan(struct step *s, struct backend *backend, elbo_error *error);
/* Allocates the memory. ELBO_MEMORY names the part that did not fit. */
elbo_status step_allocate(struct step *s, elbo_error *error);
/* Records, plans and allocates. */
elbo_status step_create(struct step *s, const struct step_options *options, struct backend *backend, elbo_error *error);
/* Frees a step in any state, also after a failure. */
void step_free(struct step *s);
/* Releases what ranks share, before their collectives are destroyed; step_free comes later. */
void step_part(struct step *s);

/* Binds the recordings again, after other recordings were bound to the model (model_bind). */
elbo_status step_bind(struct step *s, elbo_error *error);

/* Scalars of a step, for a previous update that was skipped [0] or applied [1]. */
struct step_schedule {
    size_t sentences;
    enum step_pass pass;
    uint64_t updates[2];             /* applied before this step */
    uint64_t part_updates[2][PARTS]; /* the same for each part */
    double learning_rate[2];
    double scale[2][OBJECTIVE_MOST_TERMS]; /* the terms' weights per sentence */
};

/* Launches every slot of this rank and the sums. `ahead`: the previous step is still under way. */
elbo_status step_run(struct step *s, struct step_schedule *schedule, const struct slot_batch *batch, bool ahead,
                     elbo_error *error);
/* Launches one pass; passes other than PASS_WHOLE require objective.aggressive_steps. */
elbo_status step_run_pass(struct step *s, struct step_schedule *schedule, enum step_pass pass,
                          const struct slot_batch *batch, bool ahead, elbo_error *error);
/* Launches the update; `number` of the step, from 1, addresses the noise that rounds moments. */
elbo_status step_update(struct step *s, const struct step_schedule *schedule, uint64_t number, bool skip,
                        elbo_error *error);

/* Runs the batch's slots once more with a hook around every op. Nothing is sent or updated. Afterwards gradients and
 * figures are those of this pass. */
elbo_status step_look(struct step *s, const struct slot_batch *batch, execute_hook hook, void *context,
                      elbo_error *error);

/* f32 states in the backend's memory that steps change, besides weights and moments, and that a run keeps by name. */
struct step_state {
    const char *name;
    float *memory;
    size_t elements;
};
enum { STEP_MOST_STATES = OBJECTIVE_MOST_TERMS, STEP_STATE_NAME = 64 };
/* Lists the states (STEP_MOST_STATES) and their names (STEP_MOST_STATES), which the states point to; returns their
 * number. */
size_t step_states(struct step *s, struct step_state *states, char (*names)[STEP_STATE_NAME]);

/* Call after anything but a step has written the states. */
void step_states_restored(struct step *s);

/* Returns the parts that a pass updates, as bits of enum parameter_part. */
unsigned step_parts(enum step_pass pass);

/* Reinitializes the decoder, with initial weights drawn by `seed` and zero moments. No step may be under way. */
elbo_status step_reset_decoder(struct step *s, uint64_t seed, elbo_error *error);

/* Gathers all weights on every rank, for work other than training steps. */
elbo_status step_whole(struct step *s, elbo_error *error);

/* Read the figures of the step launched last, as floats, into memory of backend->memory.allocate_host. The figures are
 * complete once the backend reaches its next mark. */
size_t step_read_floats(const struct step *s);
void step_read_later(const struct step *s, float *to);

struct step_figures {
    double loss, gradient_norm, learning_rate;
    bool applied, finite; /* applied: the update; finite: the loss and the norm */
    bool clipped;         /* the applied update's gradient was longer than optimizer.clip */
    double under_free;    /* share of the KL's parts at or below their free bits; NaN: no free bits */
    size_t sentences, count;
    struct objective_figure terms[OBJECTIVE_MOST_FIGURES];
    const float *kl_dim;  /* (Z) sums over the batch, within `read`; null: none */
    const float *moments; /* (2 Z, 2) sums and squares of mu | logvar over the batch, within `read`; null: none */
};

/* Takes the figures from `read`, and counts the update if it was applied. `applied`: whether the previous step was
 * applied. */
void step_figures(struct step *s, struct step_figures *f, const struct step_schedule *schedule, const float *read,
                  bool applied);

#endif
