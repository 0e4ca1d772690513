/* The bag of words: embeddings, one hidden layer, a norm. Pooling reduces a sentence to one row, which loses the order
 * of words (the encoder of neural topic models: Miao et al. 2016).
 *
 *   x = token[ids]     y = norm(gelu(x W^T + b))
 *
 * The norm gives the latent head rows of the scale that its initialization assumes, as a Transformer's last norm
 * does. */
#include "model/stack.h"

static value record(struct recorder *r, const struct stack *s, const struct stack_input *in)
{
    size_t width = s->config->width;
    const struct sequence *rows = in->sequence;
    const struct token_rows addresses = {rows->sentence, rows->position, rows->sample};
    value x = stack_add_embedded(r, in, stack_embed(r, s, rows));
    struct dropping drop = op_dropping(r->g, &addresses, r->training ? s->config->dropout : 0, "dropout");
    x = op_dropout(r->g, x, &drop);
    graph_scope(r->g, "%s.hidden", s->name);
    value y = recorder_linear(r, s->part, x, width, 0.02, true, true,
                              "encoder.hidden"); /* only an encoder can be a bag of words */
    graph_scope(r->g, "%s.norm", s->name);
    value gamma = recorder_parameter(r, s->part, init_constant(1), 1, width, 0, "%s.norm.weight", s->name);
    value beta = recorder_parameter(r, s->part, init_constant(0), 1, width, 0, "%s.norm.bias", s->name);
    return op_norm(r->g, y, NULL, NO_VALUE, gamma, beta, false).y;
}

static size_t describe(struct stack_figure *figures, const struct stack_config *c)
{
    (void)figures, (void)c;
    return 0;
}

static const char *const options[] = {"dropout", NULL};

const struct stack_kind bow_kind = {.name = "bow",
                                    .cannot_decode = "a bag of words has no order to write words in",
                                    .options = options,
                                    .record = record,
                                    .describe = describe};
