/* The recording of a training slot: forward pass, objective, sums over a step's slots, and backward pass. */
#include "step/recording.h"

#include <stdlib.h>

/* Records the sum of a value over a step's slots, in state. */
static value accumulated(struct graph *g, value x)
{
    if (!x.index) return NO_VALUE;
    const struct value_info info = *graph_value(g, x);
    value sum = graph_state(g, info.name, DTYPE_F32, info.rank, info.dim);
    op_accumulate(g, sum, x);
    return sum;
}

/* Records the sums of mu, logvar and their squares over the slot's sentences, which give the active units. */
static value moments_of(struct graph *g, value stats)
{
    if (!stats.index) return NO_VALUE;
    graph_scope(g, "latent");
    value moments = op_column_moments(g, stats);
    graph_keep(g, moments);
    return moments;
}

static void record(struct recording *out, struct recorder *r, const struct objective *objective, value *statistics)
{
    struct graph *g = r->g;
    struct training_pass pass = {.sample = graph_input(g, "sample", DTYPE_U64, 1, (struct dim[]){{DIM_SENTENCES, 0}})};
    value control = graph_input(g, "control", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, CONTROL_SIZE}});
    graph_resident(g, control);
    value weights = objective_weights(objective, g, control);
    if (objective->gated) {
        r->switches = weights;
        r->switch_beta = objective->count;
    }
    training_record(&pass, r);
    *statistics = pass.latent.sums;
    out->moments = moments_of(g, pass.latent.stats);
    struct elbo_value elbo = objective_record(objective, &pass, weights);
    out->loss = elbo.loss;
    if (latent_has_dimensions(&r->config->latent)) out->kl_dim = elbo.kl_dim;
}

elbo_status record_train(struct recording *out, const struct model_config *config, const struct objective *objective,
                         struct parameters *parameters, const struct graph_capacities *capacities,
                         const struct train_recording *options, elbo_error *error)
{
    struct recorder r;
    *out = (struct recording){0};
    ELBO_TRY(recorder_begin(&r, &out->g, "train", config, parameters, capacities, error));
    value statistics = NO_VALUE;
    r.training = true;
    record(out, &r, objective, &statistics);
    elbo_status status = graph_check(r.g, error);
    if (!status) {
        graph_keep(r.g, out->loss);
        if (out->kl_dim.index) graph_keep(r.g, out->kl_dim);
        if (statistics.index) graph_keep(r.g, statistics);
        out->sum_loss = accumulated(r.g, out->loss);
        out->sum_kl_dim = accumulated(r.g, out->kl_dim);
        out->sum_moments = accumulated(r.g, out->moments);
        out->sum_statistics = accumulated(r.g, statistics);
        struct autodiff_options autodiff = {
            .wanted = options->wanted, .policy = options->recompute, .add = &op_add_type};
        status = graph_differentiate(r.g, out->loss, &autodiff, error);
    }
    if (status) {
        graph_free(out->g);
        *out = (struct recording){0};
    }
    return status;
}

elbo_status recording_layout(const struct recording *r, struct parameters *parameters, elbo_error *error)
{
    size_t *ready = calloc(parameters_count(parameters) + 1, sizeof *ready);
    if (!ready) return elbo_fail(error, ELBO_MEMORY, "no memory to lay out the parameters");
    graph_ready(r->g, ready);
    elbo_status status = parameters_layout(parameters, ready, error);
    free(ready);
    return status;
}
