/* Records the forward pass of a training slot: encoder, latent, decoder, and the cross entropy of each predicted
 * token. */
#include "model/training.h"

void training_record(struct training_pass *p, struct recorder *r)
{
    struct graph *g = r->g;
    const struct model_config *config = r->config;
    if (!p->sample.index) p->sample = graph_input(g, "sample", DTYPE_U64, 1, (struct dim[]){{DIM_SENTENCES, 0}});
    p->recorder = r;
    if (config->latent.kind != LATENT_NONE) {
        struct sequence source = sequence_packed(r, "encoder", DIM_ENC_TOKENS, p->sample);
        p->latent = latent_record(r, encoder_record(r, &source), p->sample);
    }
    struct sequence target = sequence_packed(r, "decoder", DIM_DEC_TOKENS, p->sample);
    p->offsets = target.offsets;
    p->rows = decoder_record(r, &target, p->latent.z);
    p->labels = graph_input(g, "decoder.labels", DTYPE_I32, 1, (struct dim[]){{DIM_DEC_TOKENS, 0}});
    graph_pad(g, p->labels, PAD_MINUS_ONE);
    graph_scope(g, "decoder.output");
    p->nll = op_linear_cross_entropy(g, p->rows, decoder_output_weights(r), p->labels, NULL);
}
