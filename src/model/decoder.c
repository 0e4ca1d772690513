/* The decoder: a causal stack over `start words`, told z through its latent memory (one key and value per layer, Li et
 * al. 2020, "Optimus"), through its inputs (z W^T added to each), or both; without z it is a language model. */
#include "model/recorder.h"

value decoder_record(struct recorder *r, const struct sequence *target, value z)
{
    const struct model_config *m = r->config;
    value embedded = NO_VALUE, memory = NO_VALUE;
    if (z.index) z = op_cast(r->g, z, r->precision);
    if (z.index && m->latent.injection != INJECTION_MEMORY) {
        graph_scope(r->g, "decoder.latent");
        embedded =
            recorder_linear(r, PART_DECODER, z, m->decoder.width, 0.02, false, false, "decoder.latent.embedding");
    }
    if (z.index && m->latent.injection != INJECTION_EMBEDDING) memory = z;
    return transformer_record(r, "decoder", &m->decoder, PART_DECODER, target, embedded, memory, true);
}

value decoder_output_weights(struct recorder *r)
{
    if (r->config->tie_output) return recorder_token_table(r, "decoder");
    return recorder_parameter(r, PART_DECODER, init_normal(0.02), 2, r->config->vocabulary, r->config->decoder.width,
                              "decoder.output.weight");
}
