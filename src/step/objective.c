/* The table of the objective's terms and its controllers: their checks, their options without effect, what they record,
 * and a step's weights and figures. */
#include "step/objective.h"
#include "step/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool no_latent(const struct model_config *m)
{
    return m->latent.kind == LATENT_NONE;
}

/* ---- reconstruction ---- */

static double weigh_reconstruction(const struct objective_config *c, size_t update, size_t steps)
{
    (void)update, (void)steps;
    return c->lambda;
}

/* ---- KL, and the free bits that op_elbo subtracts from it ---- */

static const char *kl_absent(const struct objective_context *c)
{
    return no_latent(c->model) ? "latent.kind=none has no KL" : NULL;
}

static elbo_status check_kl(const struct objective_context *c, elbo_error *error)
{
    static const char *const kinds[] = {"dimension", "total", "group"};
    const struct objective_config *o = c->config;
    bool parts = o->free_bits_kind != FREE_BITS_TOTAL;
    if (parts && o->free_bits > 0 && !latent_has_dimensions(&c->model->latent))
        return elbo_fail(error, ELBO_USAGE,
                         "objective.free_bits_kind = %s wants a KL by dimension, and latent.prior = %s has a whole one "
                         "only; set objective.free_bits_kind=total, or objective.free_bits=0",
                         kinds[o->free_bits_kind], prior_kind_of(&c->model->latent)->name);
    if (o->free_bits_kind != FREE_BITS_GROUP || c->model->latent.width % o->free_bits_groups == 0) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE,
                     "objective.free_bits_groups = %zu does not divide latent.width = %zu; choose a divisor",
                     o->free_bits_groups, c->model->latent.width);
}

static bool fixes_rate(const struct model_config *m)
{
    return m->latent.kind == LATENT_SLASHED && m->latent.rate > 0;
}

/* A KL without dimensions is one part. A KL with a fixed rate has no free bits. */
static struct free_bits free_bits_of(const struct objective_config *c, const struct model_config *m)
{
    bool dimensions = latent_has_dimensions(&m->latent);
    struct free_bits f = {.nats = fixes_rate(m) ? 0 : c->free_bits, .groups = c->free_bits_groups};
    f.kind = c->free_bits_kind == FREE_BITS_TOTAL || !dimensions ? FREE_TOTAL
             : c->free_bits_kind == FREE_BITS_GROUP              ? FREE_PER_GROUP
                                                                 : FREE_PER_DIMENSION;
    f.form = c->free_bits_form == FREE_BITS_MASK ? FREE_MASK : FREE_HINGE;
    f.scope = c->free_bits_scope == FREE_BITS_SENTENCE ? FREE_SENTENCE : FREE_SLOT;
    return f;
}

/* Returns the free nats of a sentence in all. */
static double free_nats(const struct objective_context *c)
{
    const struct objective_config *o = c->config;
    double parts = o->free_bits_kind == FREE_BITS_TOTAL   ? 1
                   : o->free_bits_kind == FREE_BITS_GROUP ? (double)o->free_bits_groups
                                                          : (double)c->model->latent.width;
    return o->free_bits * parts;
}

/* ---- mu-forcing (Liu et al. 2019): max(0, mu_forcing - half the spread of mu over the slot's sentences) ---- */

static bool forces_nothing(const struct objective_config *c)
{
    return !(c->mu_forcing > 0);
}

static const char *mu_absent(const struct objective_context *c)
{
    return no_latent(c->model) ? "latent.kind=none has no mu" : NULL;
}

static value record_mu_forcing(const struct objective_context *c, const struct training_pass *pass)
{
    return op_spread_hinge(pass->recorder->g, pass->latent.stats, c->config->mu_forcing);
}

/* ---- the bag of words (Zhao et al. 2017): z alone predicts, linearly, the sentence's tokens in any order ---- */

static bool bags_nothing(const struct objective_config *c)
{
    return !(c->bow > 0);
}

static const char *bow_absent(const struct objective_context *c)
{
    return no_latent(c->model) ? "latent.kind=none has no z" : NULL;
}

static double weigh_bow(const struct objective_config *c, size_t update, size_t steps)
{
    (void)update, (void)steps;
    return c->bow;
}

static value record_bow(const struct objective_context *c, const struct training_pass *pass)
{
    struct recorder *r = pass->recorder;
    struct parameter weight = {.name = "objective.bow.weight",
                               .rank = 2,
                               .shape = {c->model->vocabulary, c->model->latent.width},
                               .part = PART_DECODER,
                               .decay = true,
                               .master = true,
                               .init = init_normal(0.02)};
    struct parameter bias = {.name = "objective.bow.bias",
                             .rank = 1,
                             .shape = {c->model->vocabulary},
                             .part = PART_DECODER,
                             .master = true,
                             .init = init_constant(0)};
    value w = recorder_declare(r, &weight), b = recorder_declare(r, &bias);
    return op_bag_cross_entropy(r->g, op_linear(r->g, pass->latent.z, w, b), pass->labels, pass->offsets);
}

/* ---- the table: first the two terms of op_elbo, whose weights are at ELBO_WEIGHT_NLL and ELBO_WEIGHT_KL ---- */

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct objective_term terms[] = {
    {.name = "reconstruction",
     .weight = "lambda",
     .parts = 1,
     .part = ELBO_NLL,
     .part_names = NAMES("reconstruction"),
     .options = NAMES("lambda"),
     .weigh = weigh_reconstruction},
    {.name = "kl",
     .weight = "beta",
     .tells_weight = true,
     .parts = 2,
     .part = ELBO_KL,
     .part_names = NAMES("kl", "kl_free"),
     .options = NAMES("beta", "beta_schedule", "beta_start", "beta_warmup", "beta_cycles", "beta_hold", "beta_slope",
                      "beta_center", "target_kl", "kp", "ki", "beta_min", "beta_max", "min_rate", "min_rate_step",
                      "free_bits", "free_bits_kind", "free_bits_groups", "free_bits_form", "free_bits_scope"),
     .absent = kl_absent,
     .check = check_kl,
     .weigh = schedule_beta},
    {.name = "mu_forcing",
     .options = NAMES("mu_forcing"),
     .off = forces_nothing,
     .absent = mu_absent,
     .record = record_mu_forcing},
    {.name = "bow",
     .weight = "bow_weight",
     .options = NAMES("bow"),
     .off = bags_nothing,
     .absent = bow_absent,
     .weigh = weigh_bow,
     .record = record_bow},
};

enum { TERMS = sizeof terms / sizeof *terms };
_Static_assert((int)TERMS <= (int)OBJECTIVE_MOST_TERMS, "an objective has room for all terms");
_Static_assert(ELBO_KL_FREE == ELBO_KL + 1, "the parts of the KL's term are neighbours");

/* ---- controllers ---- */

static bool targets_nothing(const struct objective_config *c)
{
    return !(c->target_kl > 0);
}

static elbo_status check_free_rate(const struct objective_context *c, const char *name, elbo_error *error)
{
    if (!fixes_rate(c->model)) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE, "objective.%s moves a KL that objective.rate = %g fixes; set one of them to 0",
                     name, c->model->latent.rate);
}

/* Below the free bits there is no gradient, so no beta can lower the KL further. */
static elbo_status check_target(const struct objective_context *c, elbo_error *error)
{
    const struct objective_config *o = c->config;
    ELBO_TRY(check_free_rate(c, "target_kl", error));
    if (o->beta_min > o->beta_max)
        return elbo_fail(error, ELBO_USAGE, "objective.beta_min = %g is above objective.beta_max = %g; exchange them",
                         o->beta_min, o->beta_max);
    if (free_nats(c) < o->target_kl) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE,
                     "objective.target_kl = %g is not above the %g nats that objective.free_bits leaves free, and no "
                     "beta lowers the KL under them; set objective.free_bits=0",
                     o->target_kl, free_nats(c));
}

static void set_target(const struct objective_config *c, float s[CONTROLLER_SETTINGS])
{
    s[CONTROLLER_TARGET] = (float)c->target_kl;
    s[CONTROLLER_P] = (float)c->kp;
    s[CONTROLLER_I] = (float)c->ki;
    s[CONTROLLER_LEAST] = (float)c->beta_min;
    s[CONTROLLER_MOST] = (float)c->beta_max;
}

static double least_beta(const struct objective_config *c)
{
    return c->beta_min;
}

static double nothing(const struct objective_config *c)
{
    (void)c;
    return 0;
}

static bool demands_nothing(const struct objective_config *c)
{
    return !(c->min_rate > 0);
}

static elbo_status check_rate(const struct objective_context *c, elbo_error *error)
{
    ELBO_TRY(check_free_rate(c, "min_rate", error));
    if (!(c->config->free_bits > 0)) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE,
                     "objective.min_rate = %g raises the KL by a negative beta, which has no gradient under "
                     "objective.free_bits = %g; set objective.free_bits=0",
                     c->config->min_rate, c->config->free_bits);
}

static void set_rate(const struct objective_config *c, float s[CONTROLLER_SETTINGS])
{
    s[CONTROLLER_TARGET] = (float)c->min_rate;
    s[CONTROLLER_I] = (float)c->min_rate_step;
}

/* u = 1, so that the KL has weight 0 at the first step. */
static double multiplier_of_one(const struct objective_config *c)
{
    (void)c;
    return log(exp(1.0) - 1.0);
}

static const struct objective_controller controllers[] = {
    {.name = "target_kl",
     .weight = "beta",
     .options = NAMES("kp", "ki", "beta_min", "beta_max"),
     .off = targets_nothing,
     .check = check_target,
     .rule = CONTROLLER_PI,
     .part = ELBO_KL,
     .set = set_target,
     .first = least_beta,
     .first_sum = nothing},
    {.name = "min_rate",
     .weight = "beta",
     .options = NAMES("min_rate_step"),
     .off = demands_nothing,
     .check = check_rate,
     .rule = CONTROLLER_MULTIPLIER,
     .part = ELBO_KL,
     .set = set_rate,
     .first = nothing,
     .first_sum = multiplier_of_one},
};

enum { CONTROLLERS = sizeof controllers / sizeof *controllers };

/* Returns the active controller of a weight; null: none. */
static const struct objective_controller *owner_of(const struct objective_config *c, const char *weight)
{
    for (size_t k = 0; weight && k < CONTROLLERS; k++)
        if (!strcmp(controllers[k].weight, weight) && !controllers[k].off(c)) return &controllers[k];
    return NULL;
}

static elbo_status check_controllers(const struct objective_context *c, elbo_error *error)
{
    for (size_t k = 0; k < CONTROLLERS; k++) {
        const struct objective_controller *own = &controllers[k], *first;
        if (own->off(c->config) || kl_absent(c)) continue;
        first = owner_of(c->config, own->weight);
        if (first != own)
            return elbo_fail(error, ELBO_USAGE, "objective.%s and objective.%s both move %s; set one of them to 0",
                             first->name, own->name, own->weight);
        ELBO_TRY(own->check(c, error));
    }
    return ELBO_OK;
}

elbo_status objective_check(const struct objective_config *config, const struct model_config *model, elbo_error *error)
{
    if (config->autoencoder_steps && !no_latent(model) && model->share_embedding)
        return elbo_fail(
            error, ELBO_USAGE,
            "objective.autoencoder_steps begins the decoder anew, and the encoder reads its token table; set "
            "encoder.share_embedding=false");
    const struct objective_context c = {config, model};
    for (size_t k = 0; k < TERMS; k++)
        if (terms[k].check && !(terms[k].absent && terms[k].absent(&c))) ELBO_TRY(terms[k].check(&c, error));
    return check_controllers(&c, error);
}

/* Terms of op_elbo are always in force: without a latent the KL is 0. */
static bool in_force(const struct objective_term *t, const struct objective_context *c)
{
    if (!t->record) return true;
    return !(t->off && t->off(c->config)) && !(t->absent && t->absent(c));
}

elbo_status objective_create(struct objective *o, const struct objective_config *config,
                             const struct model_config *model, size_t steps, elbo_error *error)
{
    *o = (struct objective){.config = *config, .model = *model, .steps = steps};
    const struct objective_context c = {config, model};
    for (size_t k = 0; k < TERMS; k++)
        if (in_force(&terms[k], &c)) o->terms[o->count++] = &terms[k];
    for (size_t k = 0; k < o->count; k++) {
        o->owner[k] = no_latent(model) ? NULL : owner_of(config, o->terms[k]->weight);
        o->controllers += o->owner[k] != NULL;
    }
    o->gated = !no_latent(model) && model->latent.normalize == LATENT_DU && model->latent.variance_dropout > 0;
    return objective_check(config, model, error);
}

bool objective_aggressive(const struct objective_config *c)
{
    return c->aggressive_steps || c->aggressive_until == AGGRESSIVE_INFORMATION;
}

/* ---- options without effect ---- */

struct rule {
    const char *key;
    bool (*idle)(const struct objective_config *c);
    const char *because;
};

static bool constant_beta(const struct objective_config *c)
{
    return c->beta_schedule == BETA_CONSTANT;
}

static bool not_cyclical(const struct objective_config *c)
{
    return c->beta_schedule != BETA_CYCLICAL;
}

static bool no_free_bits(const struct objective_config *c)
{
    return !(c->free_bits > 0);
}

static bool not_grouped(const struct objective_config *c)
{
    return c->free_bits_kind != FREE_BITS_GROUP;
}

static bool no_slope(const struct objective_config *c)
{
    return c->beta_schedule != BETA_LOGISTIC;
}

static bool stretched(const struct objective_config *c)
{
    return c->beta_schedule != BETA_LOGISTIC || !(c->beta_slope > 0);
}

static bool sloped(const struct objective_config *c)
{
    return !stretched(c);
}

static bool has_target(const struct objective_config *c)
{
    return !targets_nothing(c);
}

static bool has_rate(const struct objective_config *c)
{
    return !demands_nothing(c);
}

static bool not_aggressive(const struct objective_config *c)
{
    return !objective_aggressive(c);
}

static bool not_until_information(const struct objective_config *c)
{
    return c->aggressive_until != AGGRESSIVE_INFORMATION;
}

static const struct rule rules[] = {
    {"beta", has_target, "objective.target_kl moves beta"},
    {"beta_schedule", has_target, "objective.target_kl moves beta"},
    {"beta_start", has_target, "objective.target_kl moves beta"},
    {"beta_warmup", has_target, "objective.target_kl moves beta"},
    {"beta_cycles", has_target, "objective.target_kl moves beta"},
    {"beta_hold", has_target, "objective.target_kl moves beta"},
    {"beta_slope", has_target, "objective.target_kl moves beta"},
    {"beta_center", has_target, "objective.target_kl moves beta"},
    {"beta", has_rate, "objective.min_rate moves beta"},
    {"beta_schedule", has_rate, "objective.min_rate moves beta"},
    {"beta_start", has_rate, "objective.min_rate moves beta"},
    {"beta_warmup", has_rate, "objective.min_rate moves beta"},
    {"beta_cycles", has_rate, "objective.min_rate moves beta"},
    {"beta_hold", has_rate, "objective.min_rate moves beta"},
    {"beta_slope", has_rate, "objective.min_rate moves beta"},
    {"beta_center", has_rate, "objective.min_rate moves beta"},
    {"kp", targets_nothing, "it belongs to objective.target_kl"},
    {"ki", targets_nothing, "it belongs to objective.target_kl"},
    {"beta_min", targets_nothing, "it belongs to objective.target_kl"},
    {"beta_max", targets_nothing, "it belongs to objective.target_kl"},
    {"aggressive_most", not_aggressive, "it belongs to objective.aggressive_steps"},
    {"aggressive_window", not_aggressive, "it belongs to objective.aggressive_steps"},
    {"aggressive_information_window", not_until_information, "it belongs to objective.aggressive_until=information"},
    {"min_rate_step", demands_nothing, "it belongs to objective.min_rate"},
    {"beta_hold", constant_beta, "objective.beta_schedule=constant has no start"},
    {"beta_slope", no_slope, "only objective.beta_schedule=logistic has a slope"},
    {"beta_center", stretched, "it belongs to objective.beta_slope"},
    {"beta_warmup", sloped, "objective.beta_slope says how beta rises"},
    {"beta_hold", sloped, "objective.beta_slope says how beta rises"},
    {"free_bits_form", no_free_bits, "objective.free_bits=0 has no free bits"},
    {"free_bits_scope", no_free_bits, "objective.free_bits=0 has no free bits"},
    {"beta_start", constant_beta, "objective.beta_schedule=constant has no start"},
    {"beta_warmup", constant_beta, "objective.beta_schedule=constant has no warm-up"},
    {"beta_cycles", not_cyclical, "only objective.beta_schedule=cyclical has cycles"},
    {"free_bits_kind", no_free_bits, "objective.free_bits=0 has no free bits"},
    {"free_bits_groups", no_free_bits, "objective.free_bits=0 has no free bits"},
    {"free_bits_groups", not_grouped, "only objective.free_bits_kind=group has groups"},
};

static bool is_among(const char *const *names, const char *key)
{
    while (*names && strcmp(*names, key)) names++;
    return *names;
}

const char *objective_idle(const struct objective_config *config, const struct model_config *model, const char *key)
{
    const struct objective_context c = {config, model};
    /* an option that is switched off contradicts nothing */
    bool frees_nothing = (!strcmp(key, "free_bits") && no_free_bits(config)) ||
                         (!strcmp(key, "target_kl") && targets_nothing(config)) ||
                         (!strcmp(key, "min_rate") && demands_nothing(config)) ||
                         (!strcmp(key, "beta_hold") && !(config->beta_hold > 0)) ||
                         (!strcmp(key, "beta_slope") && !(config->beta_slope > 0));
    for (size_t k = 0; k < TERMS && !frees_nothing; k++) {
        const struct objective_term *t = &terms[k];
        bool own = t->absent && is_among(t->options, key) && !(t->off && t->off(config));
        if (own && t->absent(&c)) return t->absent(&c);
    }
    bool drops = config->word_dropout > 0 || (config->denoise_blank > 0 && !no_latent(model));
    if (!strcmp(key, "dropped_mark") && model->dropped_mark == DROPPED_OWN && !drops)
        return "no word becomes a mark without word_dropout or denoise_blank";
    bool noisy = (!strcmp(key, "denoise_drop") && config->denoise_drop > 0) ||
                 (!strcmp(key, "denoise_blank") && config->denoise_blank > 0) ||
                 (!strcmp(key, "denoise_swap") && config->denoise_swap > 0);
    if (noisy && no_latent(model)) return "latent.kind=none has no encoder";
    if (!strcmp(key, "rate") || !strcmp(key, "rate_scope"))
        return no_latent(model) && model->latent.rate > 0         ? "latent.kind=none has no KL"
               : !strcmp(key, "rate_scope") && !fixes_rate(model) ? "it belongs to objective.rate"
                                                                  : NULL;
    bool fixed = fixes_rate(model) && config->target_kl <= 0 && config->min_rate <= 0; /* a fixed rate refuses both */
    if (!strncmp(key, "beta", 4) && fixed) return "objective.rate fixes the KL, so that no weight of it has a gradient";
    if (!strncmp(key, "free_bits", 9) && fixes_rate(model) && !no_free_bits(config))
        return "objective.rate fixes the KL, of which nothing is free";
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(rules[i].key, key) && rules[i].idle(config)) return rules[i].because;
    return NULL;
}

/* ---- against collapse ---- */

void objective_remedy(char *text, size_t size, const struct objective_config *c, const struct model_config *m)
{
    if (m->latent.kind == LATENT_SLASHED && m->latent.rate > 0)
        snprintf(text, size, "a larger objective.rate than %g", m->latent.rate);
    else if (c->target_kl > 0)
        snprintf(text, size, "a larger objective.target_kl than %g", c->target_kl);
    else if (c->min_rate > 0)
        snprintf(text, size, "a larger objective.min_rate than %g", c->min_rate);
    else if (!(c->free_bits > 0))
        snprintf(text, size, "objective.free_bits=0.25%s",
                 latent_has_dimensions(&m->latent) ? "" : " with objective.free_bits_kind=total");
    else if (c->word_dropout <= 0)
        snprintf(text, size, "objective.word_dropout=0.3, or larger objective.free_bits than %g", c->free_bits);
    else
        snprintf(text, size, "larger objective.free_bits than %g, or latent.kind=slashed with objective.rate",
                 c->free_bits);
}

/* Returns the setting that raises the rate, and its option. */
static double *raised_of(struct objective_config *c, struct model_config *m, const char **option)
{
    bool exact = m->latent.kind == LATENT_SLASHED && m->latent.rate > 0;
    *option = exact              ? "objective.rate"
              : c->target_kl > 0 ? "objective.target_kl"
              : c->min_rate > 0  ? "objective.min_rate"
                                 : "objective.free_bits";
    return exact ? &m->latent.rate : c->target_kl > 0 ? &c->target_kl : c->min_rate > 0 ? &c->min_rate : &c->free_bits;
}

void objective_raise(struct objective_config *c, struct model_config *m, size_t times)
{
    const char *option;
    double *rate = raised_of(c, m, &option);
    for (size_t i = 0; i < times; i++) {
        if (rate != &c->free_bits) {
            *rate *= 1.5;
            continue;
        }
        if (!latent_has_dimensions(&m->latent)) c->free_bits_kind = FREE_BITS_TOTAL;
        /* dimensions of one part that has free bits */
        double dimensions = c->free_bits_kind == FREE_BITS_TOTAL   ? (double)m->latent.width
                            : c->free_bits_kind == FREE_BITS_GROUP ? (double)(m->latent.width / c->free_bits_groups)
                                                                   : 1;
        *rate = fmax(0.1 * dimensions, *rate * 4);
    }
}

void objective_raised(char *text, size_t size, const struct objective_config *config, const struct model_config *model,
                      size_t times)
{
    struct objective_config c = *config;
    struct model_config m = *model;
    const char *option;
    objective_raise(&c, &m, times);
    double rate = *raised_of(&c, &m, &option);
    snprintf(text, size, "%s is %g", option, rate);
}

/* ---- recording ---- */

static size_t own_terms(const struct objective *o)
{
    size_t own = 0;
    for (size_t k = 0; k < o->count; k++) own += o->terms[k]->record != NULL;
    return own;
}

size_t objective_parts(const struct objective *o)
{
    return ELBO_PARTS + own_terms(o);
}

size_t objective_columns(const struct objective *o)
{
    return o->count + o->gated;
}

value objective_weights(const struct objective *o, struct graph *g, value control)
{
    value rows =
        graph_input(g, "weights", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 2}, {DIM_FIXED, objective_columns(o)}});
    value scales = NO_VALUE;
    if (o->controllers) {
        scales = graph_input(g, "scales", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, objective_columns(o)}});
        graph_resident(g, scales);
    }
    graph_scope(g, "elbo.weights");
    return op_select_row(g, rows, control, scales);
}

struct elbo_value objective_record(const struct objective *o, const struct training_pass *pass, value weights)
{
    struct graph *g = pass->recorder->g;
    struct free_bits free_bits = free_bits_of(&o->config, &o->model);
    value own[OBJECTIVE_MOST_TERMS];
    unsigned weight[OBJECTIVE_MOST_TERMS];
    size_t count = 0;
    graph_scope(g, "elbo");
    struct elbo_value elbo = op_elbo(g, pass->nll, pass->latent.kl, weights, &free_bits);
    const struct objective_context c = {&o->config, &o->model};
    for (size_t k = 0; k < o->count; k++) {
        if (!o->terms[k]->record) continue;
        graph_scope(g, "objective.%s", o->terms[k]->name);
        own[count] = o->terms[k]->record(&c, pass);
        weight[count++] = (unsigned)k;
    }
    if (!count) return elbo;
    graph_scope(g, "objective");
    elbo.loss = op_objective(g, elbo.loss, own, weight, count, weights);
    return elbo;
}

/* ---- a step's weights and figures ---- */

void objective_weigh(struct objective *o, unsigned answer, size_t update, size_t sentences)
{
    size_t columns = objective_columns(o);
    for (size_t k = 0; k < o->count; k++) {
        bool own = o->terms[k]->weigh && !o->owner[k]; /* the device scales weights that a controller owns */
        o->scale[answer][k] = own ? o->terms[k]->weigh(&o->config, update, o->steps) : 1;
        if (o->autoencoder && o->terms[k]->part == ELBO_KL) o->scale[answer][k] = 0;
        o->weights[answer * columns + k] = (float)(o->scale[answer][k] / (double)sentences);
        if (o->gated && !strcmp(o->terms[k]->name, "kl"))
            o->weights[answer * columns + o->count] = o->scale[answer][k] >= 1;
    }
}

size_t objective_figures(const struct objective *o, struct objective_figure *figures, const float *parts,
                         const double *scale, double sentences)
{
    size_t n = 0, own = ELBO_PARTS;
    for (size_t k = 0; k < o->count; k++) {
        const struct objective_term *t = o->terms[k];
        for (unsigned i = 0; i < t->parts; i++)
            figures[n++] = (struct objective_figure){t->part_names[i], parts[t->part + i] / sentences, false, i == 0};
        if (!t->parts) figures[n++] = (struct objective_figure){t->name, parts[own++] / sentences, false, true};
        if (t->weight) figures[n++] = (struct objective_figure){t->weight, scale[k], true, t->tells_weight};
    }
    return n;
}

double objective_figure(const struct objective_figure *figures, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(figures[i].name, name)) return figures[i].value;
    return NAN;
}
