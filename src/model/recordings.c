/* The recordings of a trained VAE: encoding, scoring, decoding to logits, and one decoding step. */
#include "model/latent.h"

#include <stdio.h>
#include <stdlib.h>

static elbo_status begin(struct recorder *r, struct recording *out, const char *name, const struct model_config *config,
                         struct parameters *parameters, const struct graph_capacities *capacities, elbo_error *error)
{
    *out = (struct recording){0};
    return recorder_begin(r, &out->g, name, config, parameters, capacities, error);
}

static elbo_status finish(struct recording *out, elbo_error *error)
{
    elbo_status status = graph_check(out->g, error);
    if (status) {
        graph_free(out->g);
        *out = (struct recording){0};
    }
    return status;
}

elbo_status record_encode(struct recording *out, const struct model_config *config, struct parameters *parameters,
                          const struct graph_capacities *capacities, elbo_error *error)
{
    struct recorder r;
    ELBO_TRY(begin(&r, out, "encode", config, parameters, capacities, error));
    struct sequence source = sequence_packed(&r, "encoder", DIM_ENC_TOKENS, NO_VALUE);
    out->stats = latent_record_stats(&r, encoder_record(&r, &source));
    graph_keep(r.g, out->stats);
    return finish(out, error);
}

/* Returns the decoder's rows of packed sentences, with z as an input. */
static value decode(struct recorder *r, struct sequence *target, value *z)
{
    const struct latent_config *c = &r->config->latent;
    if (c->kind != LATENT_NONE)
        *z = graph_input(r->g, "z", DTYPE_F32, 2, (struct dim[]){{DIM_DRAWS, 0}, {DIM_FIXED, c->width}});
    *target = sequence_packed(r, "decoder", DIM_DEC_TOKENS, NO_VALUE);
    return decoder_record(r, target, *z);
}

elbo_status record_score(struct recording *out, const struct model_config *config, struct parameters *parameters,
                         const struct graph_capacities *capacities, elbo_error *error)
{
    struct recorder r;
    ELBO_TRY(begin(&r, out, "score", config, parameters, capacities, error));
    struct sequence target;
    value z = NO_VALUE, y = decode(&r, &target, &z);
    value labels = graph_input(r.g, "decoder.labels", DTYPE_I32, 1, (struct dim[]){{DIM_DEC_TOKENS, 0}});
    graph_pad(r.g, labels, PAD_MINUS_ONE);
    graph_scope(r.g, "decoder.output");
    value nll = op_linear_cross_entropy(r.g, y, decoder_output_weights(&r), labels, &out->token_right);
    out->token_nll = nll;
    out->nll = op_segment_sum(r.g, nll, target.offsets, DIM_SENTENCES);
    graph_keep(r.g, out->token_nll);
    graph_keep(r.g, out->token_right);
    graph_keep(r.g, out->nll);
    return finish(out, error);
}

elbo_status record_decode(struct recording *out, const struct model_config *config, struct parameters *parameters,
                          const struct graph_capacities *capacities, elbo_error *error)
{
    struct recorder r;
    ELBO_TRY(begin(&r, out, "decode", config, parameters, capacities, error));
    struct sequence target;
    value z = NO_VALUE, y = decode(&r, &target, &z);
    graph_scope(r.g, "decoder.output");
    out->logits = op_linear(r.g, y, decoder_output_weights(&r), NO_VALUE);
    graph_keep(r.g, out->logits);
    return finish(out, error);
}

elbo_status record_step(struct recording *out, const struct model_config *config, struct parameters *parameters,
                        size_t rows, size_t room, bool beam, elbo_error *error)
{
    struct recorder r;
    struct graph_capacities capacities = {{[DIM_DRAWS] = rows}};
    ELBO_TRY(begin(&r, out, "step", config, parameters, &capacities, error));
    struct dim n[] = {{DIM_DRAWS, 0}};
    struct sequence s = {.ids = graph_input(r.g, "ids", DTYPE_I32, 1, n),
                         .position = graph_input(r.g, "position", DTYPE_I32, 1, n)};
    if (config->labels) s.label = graph_input(r.g, "label", DTYPE_I32, 1, n);
    value z = NO_VALUE;
    if (config->latent.kind != LATENT_NONE)
        z = graph_input(r.g, "z", DTYPE_F32, 2, (struct dim[]){n[0], {DIM_FIXED, config->latent.width}});
    value y = decoder_record_step(&r, &s, z, room, beam);
    graph_scope(r.g, "decoder.output");
    out->logits = op_cast(r.g, op_linear(r.g, y, decoder_output_weights(&r), NO_VALUE), DTYPE_F32);
    graph_keep(r.g, out->logits);
    return finish(out, error);
}
