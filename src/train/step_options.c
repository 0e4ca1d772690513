/* Derives the options of slots and steps from the configuration of a run: see step_options.h. */
#include "train/step_options.h"
#include "base/checked.h"
#include "model/stack.h"

struct slot_options slot_options_of(const struct elbo_config *c)
{
    return (struct slot_options){.slots = c->train.slots,
                                 .encoder_tokens = c->model.latent.kind == LATENT_NONE ? 0 : c->train.slot_tokens,
                                 .decoder_tokens = c->train.slot_tokens,
                                 .prefix = stack_prefix(&c->model),
                                 .sentences = c->train.slot_sentences,
                                 .max_length = c->data.max_length,
                                 .too_long = (enum slot_too_long)c->data.too_long,
                                 .shuffle = true,
                                 .seed = c->seed,
                                 .word_dropout = c->objective.word_dropout,
                                 .drop = c->objective.denoise_drop,
                                 .blank = c->objective.denoise_blank,
                                 .swap = c->objective.denoise_swap};
}

static struct sums_options sums_options_of(const struct elbo_config *c, size_t ranks, size_t rank)
{
    size_t lanes = c->parallel.lanes ? c->parallel.lanes : c->train.slots < 8 ? c->train.slots : 8;
    return (struct sums_options){.ranks = ranks,
                                 .rank = rank,
                                 .lanes = c->determinism == DETERMINISM_WORLD_INVARIANT ? lanes : 0,
                                 .ordered = c->determinism != DETERMINISM_FAST || c->parallel.zero,
                                 .zero = c->parallel.zero,
                                 .bucket = align_up((size_t)(c->parallel.bucket * (1 << 18)), PARAMETER_ALIGNMENT)};
}

struct step_options step_options_of(const struct elbo_config *c, const struct model_config *model, size_t ranks,
                                    size_t rank)
{
    struct slot_options slots = slot_options_of(c);
    if (model->dropped_mark == DROPPED_OWN) slots.mark = (int32_t)model->vocabulary; /* the row behind the tokens */
    return (struct step_options){.model = *model,
                                 .objective = c->objective,
                                 .optimizer = c->optimizer,
                                 .slots = slots,
                                 .sums = sums_options_of(c, ranks, rank),
                                 .recompute = (enum recompute_policy)c->train.recompute,
                                 .seed = c->seed,
                                 .steps = c->train.steps};
}
