/* The decoder: a causal stack over `start words`. z enters by one or several ways: an attention's latent memory (one
 * key and value per layer, Li et al. 2020, "Optimus"), a vector added to every input or after blocks, rows in front of
 * the sentence (Li and Liang 2021), a recurrent stack's first state (Bowman et al. 2016) or its inputs. Without z the
 * decoder is a language model. */
#include "model/stack.h"

#include <stdlib.h>

static struct stack stack_of(const struct recorder *r)
{
    return (struct stack){"decoder", &r->config->decoder, PART_DECODER, true};
}

/* Prepares z for each way of the injection. */
static void inject(struct stack_input *in, struct recorder *r, value z)
{
    const struct model_config *m = r->config;
    z = op_cast(r->g, z, r->precision);
    in->injection = stack_injection(&m->decoder, m->latent.injection);
    if (in->injection & INJECT_EMBEDDING) {
        graph_scope(r->g, "decoder.latent");
        in->embedded = recorder_linear(r, PART_DECODER, z, stack_embedding_width(&m->decoder), 0.02, false, false,
                                       "decoder.latent.embedding");
    }
    if (in->injection & INJECT_PREFIX) {
        graph_scope(r->g, "decoder.latent");
        in->prefix = recorder_linear(r, PART_DECODER, z, m->latent.prefix * stack_embedding_width(&m->decoder), 0.02,
                                     true, false, "decoder.latent.prefix");
    }
    in->latent = z;
    if (m->latent.skip) in->skip = z;
}

static struct stack_input input_of(struct recorder *r, const struct stack *stack, const struct sequence *sequence,
                                   value z)
{
    struct stack_input in = {.sequence = sequence};
    if (z.index) inject(&in, r, z);
    in.embedded = stack_label(r, stack, sequence, in.embedded);
    return in;
}

value decoder_record(struct recorder *r, const struct sequence *target, value z)
{
    const struct stack stack = stack_of(r);
    struct stack_input in = input_of(r, &stack, target, z);
    return stack_skip(r, &stack, &in, stack_kind_of(stack.config)->record(r, &stack, &in), -1);
}

value decoder_record_step(struct recorder *r, struct sequence *sequence, value z, size_t room, bool beam)
{
    const struct stack stack = stack_of(r);
    const struct stack_kind *kind = stack_kind_of(stack.config);
    const struct dim rows = {DIM_DRAWS, 0};
    size_t states = kind->states(stack.config);
    value *state = calloc(states + 1, sizeof *state);
    if (!state) return graph_starve(r->g, "for the state of a decoding step");
    if (beam) kind->reorder(r, sequence, rows, room);
    for (size_t i = 0; i < states; i++) state[i] = kind->state(r, &stack, rows, room, i);
    struct stack_input in = input_of(r, &stack, sequence, z);
    value y = stack_skip(r, &stack, &in, kind->step(r, &stack, &in, state), -1);
    free(state);
    return y;
}

value decoder_output_weights(struct recorder *r)
{
    if (r->config->tie_output) return recorder_token_table(r, "decoder");
    return recorder_parameter(r, PART_DECODER, init_normal(0.02), 2, r->config->vocabulary, r->config->decoder.width,
                              "decoder.output.weight");
}
