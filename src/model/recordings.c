/* The recordings of the VAE: the whole model reads here as a list of equations. */
#include "model/model.h"
#include "model/recorder.h"

#include <stdio.h>
#include <stdlib.h>

static elbo_status begin(struct recorder *r, struct recording *out, const char *name, const struct model_config *config,
                         struct parameters *parameters, const struct graph_capacities *capacities, elbo_error *error)
{
    *out = (struct recording){0};
    ELBO_TRY(graph_create(&out->g, name, parameters, capacities, error));
    *r = (struct recorder){.g = out->g, .parameters = parameters, .config = config, .precision = model_dtype(config)};
    graph_precision(out->g, r->precision);
    return ELBO_OK;
}

static elbo_status finish(struct recording *out, elbo_error *error)
{
    elbo_status status = graph_check(out->g, error);
    if (status) {
        graph_free(out->g);
        free(out->caches);
        *out = (struct recording){0};
    }
    return status;
}

static value samples(struct recorder *r)
{
    return graph_input(r->g, "sample", DTYPE_U64, 1, (struct dim[]){{DIM_SENTENCES, 0}});
}

/* The sum of a value over a step's slots, in state. */
static value accumulated(struct graph *g, value x)
{
    if (!x.index) return NO_VALUE;
    const struct value_info info = *graph_value(g, x);
    value sum = graph_state(g, info.name, DTYPE_F32, info.rank, info.dim);
    op_accumulate(g, sum, x);
    return sum;
}

elbo_status record_train(struct recording *out, const struct model_config *config, struct parameters *parameters,
                         const struct graph_capacities *capacities, const struct train_recording *options,
                         elbo_error *error)
{
    struct recorder r;
    ELBO_TRY(begin(&r, out, "train", config, parameters, capacities, error));
    r.training = true;
    struct graph *g = r.g;
    value sample = samples(&r), z = NO_VALUE, kl = NO_VALUE;
    value rows = graph_input(g, "weights", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 2}, {DIM_FIXED, ELBO_WEIGHTS}});
    value control = graph_input(g, "control", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, CONTROL_SIZE}});
    graph_resident(g, control);
    graph_scope(g, "elbo.weights");
    value weights = op_select_row(g, rows, control);
    if (config->latent.kind != LATENT_NONE) {
        struct sequence source = sequence_packed(&r, "encoder", DIM_ENC_TOKENS, sample);
        value stats = latent_head_record(&r, encoder_record(&r, &source));
        graph_scope(g, "latent");
        struct latent_sample latent = op_latent(g, stats, sample, config->latent.sample);
        z = latent.z;
        kl = latent.kl;
        out->moments = op_column_moments(g, stats);
        graph_keep(g, out->moments);
    }
    struct sequence target = sequence_packed(&r, "decoder", DIM_DEC_TOKENS, sample);
    value y = decoder_record(&r, &target, z);
    value labels = graph_input(g, "decoder.labels", DTYPE_I32, 1, (struct dim[]){{DIM_DEC_TOKENS, 0}});
    graph_pad(g, labels, PAD_MINUS_ONE);
    graph_scope(g, "decoder.output");
    value nll = op_linear_cross_entropy(g, y, decoder_output_weights(&r), labels);
    graph_scope(g, "elbo");
    struct elbo_value elbo = op_elbo(g, nll, kl, weights, &options->free_bits);
    out->loss = elbo.loss;
    out->kl_dim = elbo.kl_dim;
    if (!graph_check(g, error)) {
        graph_keep(g, elbo.loss);
        if (elbo.kl_dim.index) graph_keep(g, elbo.kl_dim);
        out->sum_loss = accumulated(g, elbo.loss);
        out->sum_kl_dim = accumulated(g, elbo.kl_dim);
        out->sum_moments = accumulated(g, out->moments);
        struct autodiff_options autodiff = {
            .wanted = options->wanted, .policy = options->recompute, .add = &op_add_type};
        graph_differentiate(g, elbo.loss, &autodiff, error);
    }
    return finish(out, error);
}

elbo_status record_encode(struct recording *out, const struct model_config *config, struct parameters *parameters,
                          const struct graph_capacities *capacities, elbo_error *error)
{
    struct recorder r;
    ELBO_TRY(begin(&r, out, "encode", config, parameters, capacities, error));
    struct sequence source = sequence_packed(&r, "encoder", DIM_ENC_TOKENS, NO_VALUE);
    out->stats = latent_head_record(&r, encoder_record(&r, &source));
    graph_keep(r.g, out->stats);
    return finish(out, error);
}

elbo_status record_score(struct recording *out, const struct model_config *config, struct parameters *parameters,
                         const struct graph_capacities *capacities, elbo_error *error)
{
    struct recorder r;
    ELBO_TRY(begin(&r, out, "score", config, parameters, capacities, error));
    value z = NO_VALUE;
    if (config->latent.kind != LATENT_NONE)
        z = graph_input(r.g, "z", DTYPE_F32, 2, (struct dim[]){{DIM_DRAWS, 0}, {DIM_FIXED, config->latent.width}});
    struct sequence target = sequence_packed(&r, "decoder", DIM_DEC_TOKENS, NO_VALUE);
    value y = decoder_record(&r, &target, z);
    value labels = graph_input(r.g, "decoder.labels", DTYPE_I32, 1, (struct dim[]){{DIM_DEC_TOKENS, 0}});
    graph_pad(r.g, labels, PAD_MINUS_ONE);
    graph_scope(r.g, "decoder.output");
    value nll = op_linear_cross_entropy(r.g, y, decoder_output_weights(&r), labels);
    out->token_nll = nll;
    out->nll = op_segment_sum(r.g, nll, target.offsets, DIM_SENTENCES);
    graph_keep(r.g, out->token_nll);
    graph_keep(r.g, out->nll);
    return finish(out, error);
}

elbo_status record_step(struct recording *out, const struct model_config *config, struct parameters *parameters,
                        size_t rows, size_t room, bool history, elbo_error *error)
{
    struct recorder r;
    struct graph_capacities capacities = {{[DIM_DRAWS] = rows}};
    ELBO_TRY(begin(&r, out, "step", config, parameters, &capacities, error));
    const struct stack_config *d = &config->decoder;
    struct dim n[] = {{DIM_DRAWS, 0}};
    struct sequence s = {.cached = true};
    s.ids = graph_input(r.g, "ids", DTYPE_I32, 1, n);
    s.position = graph_input(r.g, "position", DTYPE_I32, 1, n);
    if (history) s.history = graph_input(r.g, "history", DTYPE_I32, 2, (struct dim[]){n[0], {DIM_FIXED, room}});
    value z = NO_VALUE;
    if (config->latent.kind != LATENT_NONE)
        z = graph_input(r.g, "z", DTYPE_F32, 2, (struct dim[]){n[0], {DIM_FIXED, config->latent.width}});
    size_t kv = (d->kv_heads ? d->kv_heads : d->heads) * (d->width / d->heads);
    out->caches = calloc(d->layers + 1, sizeof *out->caches);
    if (!out->caches) {
        graph_free(out->g);
        out->g = NULL;
        return elbo_fail(error, ELBO_MEMORY, "no memory for the key/value caches");
    }
    for (size_t l = 0; l < d->layers; l++)
        out->caches[l] = graph_state(r.g, "cache", r.precision, 4,
                                     (struct dim[]){n[0], {DIM_FIXED, room}, {DIM_FIXED, 2}, {DIM_FIXED, kv}});
    s.cache = out->caches;
    value y = decoder_record(&r, &s, z);
    graph_scope(r.g, "decoder.output");
    out->logits = op_cast(r.g, op_linear(r.g, y, decoder_output_weights(&r), NO_VALUE), DTYPE_F32);
    graph_keep(r.g, out->logits);
    return finish(out, error);
}
