/* Finds options without effect and refuses or reports them: see effects.h. */
#include "train/effects.h"
#include "model/latent.h"
#include "model/stack.h"
#include "step/objective.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef bool (*condition)(const struct elbo_config *c);

static bool no_latent(const struct elbo_config *c)
{
    return c->model.latent.kind == LATENT_NONE;
}
static bool is_sgd(const struct elbo_config *c)
{
    return c->optimizer.kind == OPTIMIZER_SGD;
}
static bool is_adamw(const struct elbo_config *c)
{
    return c->optimizer.kind == OPTIMIZER_ADAMW;
}
static bool constant_rate(const struct elbo_config *c)
{
    return c->optimizer.schedule == SCHEDULE_CONSTANT;
}
static bool no_valid(const struct elbo_config *c)
{
    return !*c->data.valid;
}
static bool evaluates_nothing(const struct elbo_config *c)
{
    return !*c->data.valid && c->train.eval_every;
}
static bool never_evaluates(const struct elbo_config *c)
{
    return !c->train.eval_every;
}
static bool no_best(const struct elbo_config *c)
{
    return c->checkpoint.best == BEST_NONE;
}
static bool not_invariant(const struct elbo_config *c)
{
    return c->determinism != DETERMINISM_WORLD_INVARIANT;
}
static bool on_cpu(const struct elbo_config *c)
{
    return !strncmp(c->device, "cpu", 3);
}
static bool is_bf16(const struct elbo_config *c)
{
    return c->model.precision == PRECISION_BF16;
}
static bool no_init(const struct elbo_config *c)
{
    return !*c->init.from;
}
static bool warmup_exceeds(const struct elbo_config *c)
{
    return c->train.steps && c->optimizer.warmup_steps > c->train.steps;
}
static bool cycles_exceed(const struct elbo_config *c)
{
    return c->objective.beta_schedule == BETA_CYCLICAL && c->train.steps && c->objective.beta_cycles > c->train.steps;
}
static bool samples_nothing(const struct elbo_config *c)
{
    return no_latent(c) && c->eval.iwae_samples;
}
static bool of_the_mean(const struct elbo_config *c)
{
    return c->eval.posterior == POSTERIOR_MEAN && c->eval.iwae_samples;
}

static bool needs_latent_phase(const struct elbo_config *c)
{
    return no_latent(c) && c->objective.autoencoder_steps;
}
static bool needs_encoder(const struct elbo_config *c)
{
    return no_latent(c) && c->objective.aggressive_steps;
}
static bool needs_information(const struct elbo_config *c)
{
    return no_latent(c) && c->objective.aggressive_until == AGGRESSIVE_INFORMATION;
}

/* A key that ends in a dot stands for its section. No rule holds against a value that switches an option off (0
 * samples, 0 nats). */
static const struct rule {
    const char *key;
    condition idle;
    const char *because;
} rules[] = {
    {"encoder.", no_latent, "latent.kind=none has no encoder"},
    {"objective.autoencoder_steps", needs_latent_phase, "latent.kind=none has no KL"},
    {"objective.aggressive_steps", needs_encoder, "latent.kind=none has no encoder"},
    {"objective.aggressive_until", needs_information, "latent.kind=none has no encoder"},
    {"optimizer.beta1", is_sgd, "it belongs to optimizer.kind=adamw"},
    {"optimizer.beta2", is_sgd, "it belongs to optimizer.kind=adamw"},
    {"optimizer.epsilon", is_sgd, "it belongs to optimizer.kind=adamw"},
    {"optimizer.momentum", is_adamw, "it belongs to optimizer.kind=sgd"},
    {"optimizer.min_learning_rate_ratio", constant_rate,
     "optimizer.schedule=constant stays at optimizer.learning_rate"},
    {"optimizer.encoder_factor", no_latent, "latent.kind=none has no encoder"},
    {"optimizer.latent_factor", no_latent, "latent.kind=none has no latent"},
    {"train.eval_sentences", no_valid, "there is no data.valid"},
    {"train.eval_sentences", never_evaluates, "train.eval_every=0 evaluates never"},
    {"train.eval_every", evaluates_nothing, "there is no data.valid"},
    {"train.patience", no_best, "checkpoint.best=none names no figure"},
    {"checkpoint.best", no_valid, "there is no data.valid"},
    {"checkpoint.best", never_evaluates, "train.eval_every=0 evaluates never"},
    {"parallel.lanes", not_invariant, "only determinism=world_invariant has lanes"},
    {"tf32", on_cpu, "a CPU has no TF32"},
    {"tf32", is_bf16, "precision=bf16 has no f32 products"},
    {"optimizer.warmup_steps", warmup_exceeds,
     "it is longer than train.steps, so that optimizer.learning_rate is never reached"},
    {"objective.beta_cycles", cycles_exceed, "there are more cycles than train.steps"},
    {"init.parts", no_init, "there is no init.from"},
    {"eval.iwae_samples", samples_nothing, "the model has no latent"},
    {"eval.mi_sentences", no_latent, "the model has no latent"},
    {"eval.posterior", no_latent, "the model has no latent"},
    {"eval.iwae_samples", of_the_mean, "eval.posterior=mean draws no samples"},
};

/* Returns the rest of a key within a section, or null if the key is of another section. */
static const char *within(const char *key, const char *section)
{
    size_t size = strlen(section);
    return !strncmp(key, section, size) && key[size] == '.' ? key + size + 1 : NULL;
}

/* Asks the rules that the sections keep beside their tables. */
static const char *own_rules(const struct elbo_config *c, const char *key)
{
    const struct model_config *m = &c->model;
    const char *own;
    if ((own = within(key, "objective"))) return objective_idle(&c->objective, m, own);
    if ((own = within(key, "latent"))) {
        const char *because = latent_idle(&m->latent, own);
        return because ? because : stack_injection_idle(m, own);
    }
    if ((own = within(key, "encoder")) && !no_latent(c)) return stack_idle("encoder", &m->encoder, own);
    if ((own = within(key, "decoder"))) return stack_idle("decoder", &m->decoder, own);
    return NULL;
}

const char *effects_idle(const struct elbo_config *config, const char *key)
{
    const char *because = own_rules(config, key);
    if (because) return because;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        size_t size = strlen(rules[i].key);
        bool whole = rules[i].key[size - 1] != '.';
        if (!strncmp(rules[i].key, key, size) && (!whole || !key[size]) && rules[i].idle(config))
            return rules[i].because;
    }
    return NULL;
}

struct search {
    const struct elbo_config *config;
    const struct option *refused;
    FILE *said;
    size_t count;
};

static void look(void *context, const struct option *row, const char *where, bool is_default)
{
    struct search *s = context;
    const char *because = effects_idle(s->config, row->key);
    if (!because) return;
    if (!strcmp(where, OPTIONS_COMMAND_LINE)) {
        if (!s->refused) s->refused = row;
    } else if (!is_default) {
        fprintf(s->said, "%s%s (%s)", s->count++ ? ", " : "these options do not do here what they say: ", row->key,
                because);
    }
}

elbo_status effects_check(char **said, const struct options *options, const struct elbo_config *config,
                          elbo_error *error)
{
    size_t size = 0;
    struct search s = {.config = config};
    *said = NULL;
    s.said = open_memstream(said, &size);
    if (!s.said) return elbo_fail(error, ELBO_MEMORY, "no memory to check the options");
    options_each_given(options, look, &s);
    bool failed = ferror(s.said);
    failed |= fclose(s.said) != 0;
    if (failed || s.refused || !s.count) {
        free(*said);
        *said = NULL;
    }
    if (failed) return elbo_fail(error, ELBO_MEMORY, "no memory to check the options");
    if (s.refused)
        return elbo_fail(error, ELBO_USAGE, "--%s has no effect here: %s; leave it out, or change the other option",
                         s.refused->key, effects_idle(config, s.refused->key));
    return ELBO_OK;
}

elbo_status effects_settle_mark(struct options *options, const struct elbo_config *config, int kept, elbo_error *error)
{
    static const char key[] = "objective.dropped_mark";
    bool idle = effects_idle(config, key) != NULL;
    if (options_given(options, key) && !idle) return ELBO_OK;
    bool own = kept < 0 ? !idle : kept == DROPPED_OWN;
    return options_set(options, key, own ? "own" : "unknown", "the run", error);
}
