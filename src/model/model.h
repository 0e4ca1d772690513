/* A model: its parameters on a backend, and the recordings that share them.
 *
 *   train    slot (encoder + decoder stream) -> loss parts, KL per dimension, moments of the posterior
 *            (step/recording.h)
 *   encode   encoder stream -> stats (S, 2Z)
 *   score    z (S, Z) + decoder stream -> nll (S) nats per sentence
 *   step     one new token per row + z, with a key/value cache -> logits (R, V)
 *
 * All recordings of a model share its weights and one activation arena, as large as the largest needs. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "graph/autodiff.h"
#include "graph/execute.h"
#include "graph/parameters.h"
#include "model/config.h"
#include "ops/ops.h"
#include "text/slots.h"

/* Type of activations and working weights. */
static inline enum dtype model_dtype(const struct model_config *config)
{
    return config->precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

struct model {
    struct model_config config;
    struct parameters *parameters;
    struct backend *backend;
    float *weights;                     /* f32, the only truth                                  */
    void *working;                      /* the same in bf16 where the precision says so, or null */
    const struct placed_weight *placed; /* (parameters) that lie elsewhere; belongs to the caller; null: none */
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

/* Initial weights, by address (parameters_initialize). */
elbo_status model_initialize(struct model *m, uint64_t seed, elbo_error *error);

/* The same of one part of the model alone. */
elbo_status model_initialize_part(struct model *m, enum parameter_part part, uint64_t seed, elbo_error *error);

/* Makes the working weights anew from the f32 ones; after the latter were written by anything but the optimizer. */
elbo_status model_refresh(struct model *m, elbo_error *error);

/* Whether training alone reads a parameter: a model is whole without it. */
bool model_trains_only(const struct parameter *p);

/* Only the table of parameters, laid out in the order of their declaration. */
elbo_status model_declare(struct parameters **parameters, const struct model_config *config, elbo_error *error);

/* Allocates the weights (all zero) of parameters that are laid out already, and belong to the model from now on, also
 * where it fails. */
elbo_status model_allocate(struct model *m, const struct model_config *config, struct parameters *parameters,
                           struct backend *backend, elbo_error *error);

struct recording {
    struct graph *g;
    struct executor executor;
    bool planned;
    value loss, kl_dim, moments;             /* train: of one slot                    */
    value sum_loss, sum_kl_dim, sum_moments; /* train: over a step's slots */
    value sum_statistics;                    /* the same of op_normalize's sums; or none */
    value stats;                             /* encode         */
    value nll, token_nll;                    /* score: (S) and (N), nats */
    value token_right;                       /* score: (N) 1 where the label has the largest logit, else 0 */
    value logits;                            /* step, decode   */
    void **state;
    bool state_given; /* recording_place_state */
    int32_t *uniform; /* inputs that are the same in every execution (sequence_uniform) */
};

/* Recording functions; `parameters` may be declared by them. The result is not yet bound to memory. (The training
 * step's is step/recording.h's.) */
elbo_status record_encode(struct recording *out, const struct model_config *config, struct parameters *parameters,
                          const struct graph_capacities *capacities, elbo_error *error);
elbo_status record_score(struct recording *out, const struct model_config *config, struct parameters *parameters,
                         const struct graph_capacities *capacities, elbo_error *error);
/* z (S, Z) and packed rows -> logits (N, V) behind each row; for exports. */
elbo_status record_decode(struct recording *out, const struct model_config *config, struct parameters *parameters,
                          const struct graph_capacities *capacities, elbo_error *error);
/* `room`: positions of the cache; rows are counted by DIM_DRAWS. beam: with the inputs by
 * which a row is continued by others, "history" among them (model/stack.h). */
elbo_status record_step(struct recording *out, const struct model_config *config, struct parameters *parameters,
                        size_t rows, size_t room, bool beam, elbo_error *error);
void recording_free(struct recording *r, struct backend *backend);

/* Plans the recording for a backend: what it wants of memory is known then (executor.plan), and nothing is allocated.
 */
elbo_status recording_plan(struct recording *r, struct backend *backend, elbo_error *error);

/* Plans `r` if need be, makes the model's arena large enough for it and binds it. Other recordings of the model that
 * were bound before are bound again through `others`. Gradients may be null without a backward pass. */
elbo_status model_bind(struct model *m, struct recording *const *recordings, size_t count, float *gradients,
                       elbo_error *error);

/* Elements of a recording's state, all of it f32; and its place in memory that belongs to the caller. Before
 * model_bind. */
size_t recording_state_elements(const struct recording *r);
elbo_status recording_place_state(struct recording *r, float *memory, elbo_error *error);

/* Points the recording's inputs at a slot's arrays (what it does not read is left out) and sets its counts. */
void recording_bind_slot(struct recording *r, const struct slot *slot, struct execution *run);
/* Binds one named input; false when the recording has none of that name. */
bool recording_bind_input(struct recording *r, const char *name, const void *data);

/* Copies a kept value to the host. */
void recording_read(const struct recording *r, value v, void *to, const size_t count[DIM_KINDS]);
/* A kept value as it lies, which may be written until the next execution, where the host can reach it; else copied to
 * `buffer`, which is not used otherwise. */
void *recording_reach(const struct recording *r, value v, void *buffer, const size_t count[DIM_KINDS]);

#endif
