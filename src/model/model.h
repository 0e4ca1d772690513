/* A model: its parameters on a backend, and the recordings that share them.
 *
 *   train    slot (encoder + decoder stream) -> loss parts, KL per dimension, moments of the posterior
 *            (step/recording.h)
 *   encode   encoder stream -> stats (S, 2Z)
 *   score    z (S, Z) + decoder stream -> nll (S) nats per sentence
 *   step     one new token per row + z, with a key/value cache -> logits (R, V)
 *
 * All recordings of a model share its weights and one activation arena, whose size is that of the largest recording. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "graph/autodiff.h"
#include "graph/execute.h"
#include "graph/parameters.h"
#include "model/config.h"
#include "ops/ops.h"
#include "text/slots.h"

/* Returns the type of activations and working weights. */
static inline enum dtype model_dtype(const struct model_config *config)
{
    return config->precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

struct model {
    struct model_config config;
    struct parameters *parameters;
    struct backend *backend;
    float *weights;                     /* f32 master weights */
    void *working;                      /* the same in bf16 if the precision is bf16, else null */
    const struct placed_weight *placed; /* (parameters) weights outside the arena, owned by the caller; null: none */
    void *arena;
    size_t arena_bytes;
};

/* Declares and lays out the parameters and allocates the weights (all zero). */
elbo_status model_create(struct model *m, const struct model_config *config, struct backend *backend,
                         elbo_error *error);
void model_free(struct model *m);

static inline struct weight_arenas model_weights(const struct model *m)
{
    return (struct weight_arenas){m->weights, m->working, m->placed};
}

/* Sets the initial weights, by address (parameters_initialize). */
elbo_status model_initialize(struct model *m, uint64_t seed, elbo_error *error);

/* Sets the initial weights of one part of the model. */
elbo_status model_initialize_part(struct model *m, enum parameter_part part, uint64_t seed, elbo_error *error);

/* Recomputes the working weights from the f32 ones; needed after any write to the latter except the optimizer's. */
elbo_status model_refresh(struct model *m, elbo_error *error);

/* Returns whether only training reads a parameter, so that a model is complete without it. */
bool model_trains_only(const struct parameter *p);

/* Creates only the table of parameters, laid out in the order of their declaration. */
elbo_status model_declare(struct parameters **parameters, const struct model_config *config, elbo_error *error);

/* Allocates the weights (all zero) of parameters that are already laid out. The model owns the parameters from now on,
 * even after a failure. */
elbo_status model_allocate(struct model *m, const struct model_config *config, struct parameters *parameters,
                           struct backend *backend, elbo_error *error);

struct recording {
    struct graph *g;
    struct executor executor;
    bool planned;
    value loss, kl_dim, moments;             /* train: of one slot */
    value sum_loss, sum_kl_dim, sum_moments; /* train: summed over a step's slots */
    value sum_statistics;                    /* train: op_normalize's sums, summed likewise; or none */
    value stats;                             /* encode */
    value nll, token_nll;                    /* score: (S) and (N), nats */
    value token_right;                       /* score: (N) 1 where the label has the largest logit, else 0 */
    value logits;                            /* step, decode */
    void **state;
    bool state_given; /* set by recording_place_state */
    int32_t *uniform; /* inputs that are the same in every execution (sequence_uniform) */
};

/* Recording functions; they may declare `parameters`. The result is not yet bound to memory. (step/recording.h records
 * the training step.) */
elbo_status record_encode(struct recording *out, const struct model_config *config, struct parameters *parameters,
                          const struct graph_capacities *capacities, elbo_error *error);
elbo_status record_score(struct recording *out, const struct model_config *config, struct parameters *parameters,
                         const struct graph_capacities *capacities, elbo_error *error);
/* Records z (S, Z) and packed rows -> logits (N, V) of each row; for exports. */
elbo_status record_decode(struct recording *out, const struct model_config *config, struct parameters *parameters,
                          const struct graph_capacities *capacities, elbo_error *error);
/* Records one decoding step. `room`: positions of the cache; DIM_DRAWS counts the rows. beam: adds the inputs by which
 * one row continues another, such as "history" (model/stack.h). */
elbo_status record_step(struct recording *out, const struct model_config *config, struct parameters *parameters,
                        size_t rows, size_t room, bool beam, elbo_error *error);
void recording_free(struct recording *r, struct backend *backend);

/* Plans the recording for a backend. The plan gives its memory needs (executor.plan); no device memory is allocated. */
elbo_status recording_plan(struct recording *r, struct backend *backend, elbo_error *error);

/* Plans the recordings if necessary, makes the model's arena large enough, and binds them. A larger arena replaces the
 * old one, so recordings bound before must be bound again. Gradients may be null without a backward pass. */
elbo_status model_bind(struct model *m, struct recording *const *recordings, size_t count, float *gradients,
                       elbo_error *error);

/* Return the elements of a recording's state, all of it f32, and place the state in the caller's memory. Call before
 * model_bind. */
size_t recording_state_elements(const struct recording *r);
elbo_status recording_place_state(struct recording *r, float *memory, elbo_error *error);

/* Points the recording's inputs at a slot's arrays (skipping those that it does not read) and sets its counts. */
void recording_bind_slot(struct recording *r, const struct slot *slot, struct execution *run);
/* Binds one named input; returns false when the recording has no input of that name. */
bool recording_bind_input(struct recording *r, const char *name, const void *data);

/* Copies a kept value to the host. */
void recording_read(const struct recording *r, value v, void *to, const size_t count[DIM_KINDS]);
/* Returns a kept value's own memory, which may be written until the next execution, if the host can access it. Else
 * copies the value to `buffer` and returns `buffer`. */
void *recording_reach(const struct recording *r, value v, void *buffer, const size_t count[DIM_KINDS]);

#endif
