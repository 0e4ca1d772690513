/* The objective's table: weights of all four schedules against known values, their division by the sentences, the
 * figures of a step, options without effect, and refusals. */
#include "ops/ops.h"
#include "step/objective.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS = 100, RECONSTRUCTION = 0, KL = 1 };

static const struct model_config model = {.latent = {.kind = LATENT_NORMAL, .width = 8}};
static const struct model_config without = {.latent = {.kind = LATENT_NONE, .width = 8}};

/* Returns a config with beta from 0.5 to 2 over half of the steps. */
static struct objective_config usual(void)
{
    return (struct objective_config){.beta_schedule = BETA_LINEAR,
                                     .beta = 2,
                                     .beta_start = 0.5,
                                     .beta_warmup = 0.5,
                                     .beta_cycles = 4,
                                     .lambda = 3,
                                     .free_bits = 0.25,
                                     .free_bits_groups = 4};
}

static struct objective create(const struct objective_config *config, const struct model_config *of)
{
    struct objective o;
    elbo_error error = {0};
    if (objective_create(&o, config, of, STEPS, &error)) fail_msg("%s", error.message);
    return o;
}

static void near(double got, double wanted)
{
    if (!(fabs(got - wanted) <= 1e-12 * fabs(wanted))) fail_msg("%.17g instead of %.17g", got, wanted);
}

/* ---- weights ---- */

struct known {
    size_t update;
    double beta;
};

static void holds(int schedule, double warmup, const struct known *known, size_t count)
{
    struct objective_config config = usual();
    config.beta_schedule = schedule;
    config.beta_warmup = warmup;
    struct objective o = create(&config, &model);
    for (size_t i = 0; i < count; i++)
        for (unsigned answer = 0; answer < 2; answer++) {
            objective_weigh(&o, answer, known[i].update, 1);
            near(o.scale[answer][RECONSTRUCTION], 3);
            near(o.scale[answer][KL], known[i].beta);
        }
}

#define HOLDS(schedule, warmup, ...)                                                                                   \
    holds(schedule, warmup, (const struct known[]){__VA_ARGS__},                                                       \
          sizeof((const struct known[]){__VA_ARGS__}) / sizeof(struct known))

static void linear_rises_over_the_warm_up(void **state)
{
    (void)state;
    HOLDS(BETA_LINEAR, 0.5, {0, 0.5}, {10, 0.8}, {25, 1.25}, {49, 1.97}, {50, 2}, {75, 2}, {99, 2}, {100, 2});
    HOLDS(BETA_LINEAR, 1, {0, 0.5}, {50, 1.25}, {100, 2});
    HOLDS(BETA_LINEAR, 0, {0, 2}, {1, 2}, {99, 2});
}

static void constant_never_moves(void **state)
{
    (void)state;
    HOLDS(BETA_CONSTANT, 0.5, {0, 2}, {25, 2}, {50, 2}, {99, 2});
}

/* Four cycles of 25 steps; with a warm-up of 0.8, beta rises over 20 steps of each. */
static void cyclical_begins_anew(void **state)
{
    (void)state;
    HOLDS(BETA_CYCLICAL, 0.8, {0, 0.5}, {10, 1.25}, {20, 2}, {24, 2}, {25, 0.5}, {35, 1.25}, {49, 2}, {50, 0.5},
          {75, 0.5}, {79, 0.8}, {99, 2});
    HOLDS(BETA_CYCLICAL, 0, {0, 2}, {25, 2}, {99, 2});
}

/* 1 / (1 + exp(-12 (t - 1/2))), stretched to 0 at t = 0 and 1 at t = 1: at t = 1/4 it is (0.0474258731775668 -
 * 0.0024726231566348) / 0.9950547536867305. */
static void logistic_is_half_in_the_middle(void **state)
{
    (void)state;
    HOLDS(BETA_LOGISTIC, 1, {0, 0.5}, {25, 0.5 + 1.5 * 0.0449532500209320 / 0.9950547536867305}, {50, 1.25},
          {75, 2 - 1.5 * 0.0449532500209320 / 0.9950547536867305}, {100, 2});
    HOLDS(BETA_LOGISTIC, 0.5, {0, 0.5}, {25, 1.25}, {50, 2}, {99, 2});
}

/* The rise begins after the hold, in the run or in each cycle. */
static void a_hold_comes_before_the_rise(void **state)
{
    (void)state;
    struct objective_config config = usual();
    config.beta_hold = 0.2;
    struct objective o = create(&config, &model);
    static const struct known linear[] = {{0, 0.5}, {19, 0.5}, {20, 0.5}, {45, 1.25}, {70, 2}, {99, 2}};
    for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) {
        objective_weigh(&o, 0, linear[i].update, 1);
        near(o.scale[0][KL], linear[i].beta);
    }
    config.beta_schedule = BETA_CYCLICAL; /* hold for a half, rise for a quarter, stay for a quarter */
    config.beta_hold = 0.5;
    config.beta_warmup = 0.25;
    config.beta_cycles = 2;
    o = create(&config, &model);
    static const struct known cycles[] = {{0, 0.5}, {24, 0.5}, {31, 1.22}, {38, 2}, {49, 2}, {50, 0.5}, {81, 1.22}};
    for (size_t i = 0; i < sizeof cycles / sizeof *cycles; i++) {
        objective_weigh(&o, 0, cycles[i].update, 1);
        near(o.scale[0][KL], cycles[i].beta);
    }
}

/* Known values of 1 / (1 + exp(-k (u - x0))) with k = 0.0025 and x0 = 2500. */
static void a_logistic_slope_of_its_own(void **state)
{
    (void)state;
    struct objective_config config = usual();
    config.beta_schedule = BETA_LOGISTIC;
    config.beta = 1;
    config.beta_start = 0;
    config.beta_slope = 0.0025;
    config.beta_center = 2500;
    struct objective o = create(&config, &model);
    static const struct known known[] = {
        {0, 0.0019267346633274757}, {2500, 0.5}, {2900, 0.7310585786300049}, {5000, 0.9980732653366725}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        objective_weigh(&o, 0, known[i].update, 1);
        near(o.scale[0][KL], known[i].beta);
    }
}

/* The device scales a weight that a controller owns: its column is one over the sentences, whatever the schedule says.
 * The switch of dropped variances comes after the terms; it is 1 where beta is 1. */
static void columns_of_what_the_device_decides(void **state)
{
    (void)state;
    struct objective_config config = usual();
    struct model_config du = model;
    config.free_bits = 0;
    config.target_kl = 3;
    config.beta_max = 1;
    struct objective o = create(&config, &model);
    assert_true(o.controllers == 1 && o.owner[KL] && !o.owner[RECONSTRUCTION] && objective_columns(&o) == 2);
    assert_string_equal(o.owner[KL]->name, "target_kl");
    objective_weigh(&o, 0, 10, 5);
    near(o.scale[0][KL], 1);
    near(o.scale[0][RECONSTRUCTION], 3);
    assert_float_equal(o.weights[KL], 1.0f / 5, 0);
    o = create(&config, &without);
    assert_int_equal(o.controllers, 0);

    config = usual();
    config.beta = 1;
    config.beta_start = 0;
    du.latent.normalize = LATENT_DU;
    o = create(&config, &du);
    assert_int_equal(objective_columns(&o), 2); /* nothing is dropped */
    du.latent.variance_dropout = 0.2;
    o = create(&config, &du);
    assert_int_equal(objective_columns(&o), 3);
    objective_weigh(&o, 0, 49, 7);
    objective_weigh(&o, 1, 50, 7);
    assert_true(o.weights[2] == 0 && o.weights[5] == 1);
    assert_float_equal(o.weights[3 + KL], 1.0f / 7, 0);
    config.bow = 0.5; /* adds a term between the KL and the switch; its weight is below 1 */
    o = create(&config, &du);
    assert_int_equal(objective_columns(&o), 4);
    objective_weigh(&o, 0, 50, 7);
    assert_true(o.weights[3] == 1);

    o = create(&config, &model); /* without a switch, answer 0 leaves the weights of answer 1 unchanged */
    objective_weigh(&o, 1, 50, 7);
    float before[4];
    memcpy(before, o.weights + objective_columns(&o), sizeof before);
    objective_weigh(&o, 0, 50, 7);
    assert_memory_equal(before, o.weights + objective_columns(&o), sizeof before);
    config.mu_forcing = 2;
    o = create(&config, &without); /* terms of a latent without a latent */
    assert_int_equal(o.count, 2);
}

static void refused(const struct objective_config *config, const struct model_config *of, const char *words)
{
    elbo_error error = {0};
    if (objective_check(config, of, &error) != ELBO_USAGE || !strstr(error.message, words))
        fail_msg("%s instead of: %s", error.message, words);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    struct objective_config config = usual();
    struct model_config rated = model;
    elbo_error error = {0};
    config.target_kl = 2;
    config.beta_max = 1;
    refused(&config, &model, "not above the 2 nats");
    config.free_bits_kind = FREE_BITS_TOTAL;
    assert_int_equal(objective_check(&config, &model, &error), ELBO_OK);
    config.beta_min = 2;
    refused(&config, &model, "exchange them");
    config.beta_min = 0;
    config.min_rate = 1;
    refused(&config, &model, "objective.target_kl and objective.min_rate both move beta");
    assert_int_equal(objective_check(&config, &without, &error), ELBO_OK);
    config.target_kl = 0;
    refused(&config, &model, "set objective.free_bits=0");
    config.free_bits = 0;
    assert_int_equal(objective_check(&config, &model, &error), ELBO_OK);
    rated.latent.kind = LATENT_SLASHED;
    rated.latent.rate = 8;
    refused(&config, &rated, "objective.min_rate moves a KL that objective.rate = 8 fixes");
    assert_string_equal(objective_idle(&config, &model, "beta"), "objective.min_rate moves beta");
    assert_string_equal(objective_idle(&config, &model, "kp"), "it belongs to objective.target_kl");
    assert_null(objective_idle(&config, &without, "target_kl")); /* switched off: no conflict */
    assert_string_equal(objective_idle(&config, &without, "min_rate"), "latent.kind=none has no KL");
}

/* The loss is a mean over the step's sentences, so op_elbo sums values over slots that these weights scale. The rows of
 * the two answers follow each other, in the order of op_elbo's weights. */
static void what_fixes_the_kl_stands_alone(void **state)
{
    (void)state;
    struct objective_config config = usual();
    struct model_config exact = model, shares = model, none = without;
    elbo_error error = {0};
    exact.latent.kind = LATENT_SLASHED;
    exact.latent.rate = 2;
    config.free_bits = 0;
    config.beta_max = 1;
    config.target_kl = 3;
    refused(&config, &exact, "objective.target_kl moves a KL that objective.rate = 2 fixes");
    config = usual();
    config.autoencoder_steps = 4;
    shares.share_embedding = none.share_embedding = true;
    refused(&config, &shares, "encoder.share_embedding=false");
    assert_int_equal(objective_check(&config, &none, &error), ELBO_OK);
}

static void weights_are_over_the_sentences(void **state)
{
    (void)state;
    struct objective_config config = usual();
    struct objective o = create(&config, &model);
    assert_int_equal(o.count, ELBO_WEIGHTS);
    objective_weigh(&o, 0, 0, 7);
    objective_weigh(&o, 1, 25, 14);
    const float wanted[] = {(float)(3.0 / 7), (float)(0.5 / 7), (float)(3.0 / 14), (float)(1.25 / 14)};
    for (size_t i = 0; i < 4; i++) assert_float_equal(o.weights[i], wanted[i], 0);
    assert_float_equal(o.weights[ELBO_WEIGHT_NLL], (float)(o.scale[0][RECONSTRUCTION] / 7), 0);
    assert_float_equal(o.weights[ELBO_WEIGHT_KL], (float)(o.scale[0][KL] / 7), 0);
    objective_weigh(&o, 0, 50, 7); /* the other answer's row stays */
    assert_float_equal(o.weights[1], (float)(2.0 / 7), 0);
    assert_float_equal(o.weights[3], wanted[3], 0);
}

/* ---- figures ---- */

static void figures_are_of_a_sentence(void **state)
{
    (void)state;
    struct objective_config config = usual();
    struct objective_figure f[OBJECTIVE_MOST_FIGURES];
    const struct objective_figure wanted[] = {{"reconstruction", 12, false, true},
                                              {"lambda", 3, true, false},
                                              {"kl", 2, false, true},
                                              {"kl_free", 2.5, false, false},
                                              {"beta", 0.5, true, true}};
    float parts[ELBO_PARTS];
    parts[ELBO_NLL] = 48;
    parts[ELBO_KL] = 8;
    parts[ELBO_KL_FREE] = 10;
    for (int k = 0; k < 2; k++) { /* without a latent the KL is reported as 0 */
        struct objective o = create(&config, k ? &without : &model);
        assert_int_equal(objective_parts(&o), ELBO_PARTS);
        objective_weigh(&o, 0, 0, 4);
        parts[ELBO_LOSS] =
            o.weights[ELBO_WEIGHT_NLL] * parts[ELBO_NLL] + o.weights[ELBO_WEIGHT_KL] * parts[ELBO_KL_FREE];
        size_t n = objective_figures(&o, f, parts, o.scale[0], 4);
        assert_int_equal(n, sizeof wanted / sizeof *wanted);
        for (size_t i = 0; i < n; i++) {
            assert_string_equal(f[i].name, wanted[i].name);
            near(f[i].value, wanted[i].value);
            assert_int_equal(f[i].is_weight, wanted[i].is_weight);
            assert_int_equal(f[i].on_console, wanted[i].on_console);
            assert_float_equal(objective_figure(f, n, wanted[i].name), wanted[i].value, 0);
        }
        near(parts[ELBO_LOSS], 3 * 12 + 0.5 * 2.5);
        assert_true(isnan(objective_figure(f, n, "gamma")));
        assert_true(isnan(objective_figure(f, 4, "beta"))); /* a figure that was not counted */
        assert_true(isnan(objective_figure(f, 0, "kl")));
    }
}

/* ---- options ---- */

enum { KEYS = 10 }; /* options of the first two terms and of the words; further terms have their own tests */

/* The reasons why the section's first options are idle, in the order of its rows. */
static const char *const keys[] = {"beta_schedule", "beta",           "beta_start", "beta_warmup",      "beta_cycles",
                                   "lambda",        "free_bits_kind", "free_bits",  "free_bits_groups", "word_dropout"};
static const char cycles[] = "only objective.beta_schedule=cyclical has cycles",
                  groups[] = "only objective.free_bits_kind=group has groups",
                  start[] = "objective.beta_schedule=constant has no start",
                  warm_up[] = "objective.beta_schedule=constant has no warm-up",
                  no_bits[] = "objective.free_bits=0 has no free bits", no_kl[] = "latent.kind=none has no KL";

static const struct {
    int schedule, kind;
    double free_bits;
    bool latent;
    const char *because[KEYS];
} idle[] = {
    {BETA_LINEAR, FREE_BITS_DIMENSION, 0.25, true, {[4] = cycles, [8] = groups}},
    {BETA_LOGISTIC, FREE_BITS_TOTAL, 0.25, true, {[4] = cycles, [8] = groups}},
    {BETA_CONSTANT, FREE_BITS_DIMENSION, 0.25, true, {[2] = start, [3] = warm_up, [4] = cycles, [8] = groups}},
    {BETA_CYCLICAL, FREE_BITS_DIMENSION, 0.25, true, {[8] = groups}},
    {BETA_CYCLICAL, FREE_BITS_GROUP, 0.25, true, {0}},
    {BETA_CYCLICAL, FREE_BITS_GROUP, 0, true, {[6] = no_bits, [8] = no_bits}},
    {BETA_CYCLICAL, FREE_BITS_TOTAL, 0, true, {[6] = no_bits, [8] = no_bits}},
    {BETA_CYCLICAL,
     FREE_BITS_GROUP,
     0.25,
     false,
     {no_kl, no_kl, no_kl, no_kl, no_kl, [6] = no_kl, [7] = no_kl, [8] = no_kl}},
    {BETA_CONSTANT,
     FREE_BITS_DIMENSION,
     0,
     false, /* an option that switches itself off conflicts with nothing */
     {no_kl, no_kl, no_kl, no_kl, no_kl, [6] = no_kl, [8] = no_kl}},
};

static void every_option_says_why_it_is_idle(void **state)
{
    (void)state;
    assert_int_equal(sizeof keys / sizeof *keys, KEYS);
    assert_true(sizeof objective_rows / sizeof *objective_rows >= KEYS);
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
        struct objective_config config = usual();
        config.beta_schedule = idle[i].schedule;
        config.free_bits_kind = idle[i].kind;
        config.free_bits = idle[i].free_bits;
        for (size_t k = 0; k < KEYS; k++) {
            assert_string_equal(objective_rows[k].key, keys[k]);
            const char *because = objective_idle(&config, idle[i].latent ? &model : &without, keys[k]);
            const char *wanted = idle[i].because[k];
            if (!because != !wanted || (because && strcmp(because, wanted)))
                fail_msg("case %zu, %s: %s instead of %s", i, keys[k], because ? because : "in force",
                         wanted ? wanted : "in force");
        }
        assert_null(objective_idle(&config, &model, "gamma"));
    }
}

/* ---- controllers ---- */

static void controllers_have_their_settings(void **state)
{
    (void)state;
    struct objective_config config = usual();
    float s[CONTROLLER_SETTINGS] = {0};
    config.free_bits = 0;
    config.target_kl = 3;
    config.kp = 0.5;
    config.ki = 0.25;
    config.beta_min = 0.125;
    config.beta_max = 2;
    struct objective o = create(&config, &model);
    o.owner[KL]->set(&config, s);
    assert_true(s[CONTROLLER_TARGET] == 3 && s[CONTROLLER_P] == 0.5f && s[CONTROLLER_I] == 0.25f);
    assert_true(s[CONTROLLER_LEAST] == 0.125f && s[CONTROLLER_MOST] == 2 && o.owner[KL]->first(&config) == 0.125);
    config.target_kl = 0;
    config.min_rate = 5;
    config.min_rate_step = 0.0625;
    o = create(&config, &model);
    memset(s, 0, sizeof s);
    o.owner[KL]->set(&config, s);
    assert_true(s[CONTROLLER_TARGET] == 5 && s[CONTROLLER_I] == 0.0625f && o.owner[KL]->first(&config) == 0);
    near(log1p(exp(o.owner[KL]->first_sum(&config))), 1);
}

/* ---- against collapse ---- */

static void a_rate_is_raised(void **state)
{
    (void)state;
    enum { MIXED = 1, EXACT, SLASHED };
    static const struct {
        int model, kind; /* model; kind of free bits */
        double free_bits, dropout, target, least;
        const char *remedy, *once, *twice;
    } cases[] = {
        {0, FREE_BITS_DIMENSION, 0.25, 0, 0, 0, "objective.word_dropout=0.3, or larger objective.free_bits than 0.25",
         "objective.free_bits is 1", "objective.free_bits is 4"},
        {SLASHED, FREE_BITS_DIMENSION, 0.25, 0.3, 0, 0,
         "larger objective.free_bits than 0.25, or latent.kind=slashed with objective.rate", "objective.free_bits is 1",
         "objective.free_bits is 4"},
        {0, FREE_BITS_DIMENSION, 0, 0, 0, 0, "objective.free_bits=0.25", "objective.free_bits is 0.1",
         "objective.free_bits is 0.4"},
        {0, FREE_BITS_TOTAL, 0, 0, 0, 0, "objective.free_bits=0.25", "objective.free_bits is 0.8",
         "objective.free_bits is 3.2"},
        {0, FREE_BITS_GROUP, 0, 0, 0, 0, "objective.free_bits=0.25", "objective.free_bits is 0.2",
         "objective.free_bits is 0.8"},
        {MIXED, FREE_BITS_DIMENSION, 0, 0, 0, 0, "objective.free_bits=0.25 with objective.free_bits_kind=total",
         "objective.free_bits is 0.8", "objective.free_bits is 3.2"},
        {0, 0, 0, 0, 4, 0, "a larger objective.target_kl than 4", "objective.target_kl is 6",
         "objective.target_kl is 9"},
        {0, 0, 0, 0, 0, 4, "a larger objective.min_rate than 4", "objective.min_rate is 6", "objective.min_rate is 9"},
        {EXACT, 0, 0, 0, 0, 0, "a larger objective.rate than 2", "objective.rate is 3", "objective.rate is 4.5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct objective_config config = usual();
        struct model_config of = model;
        char text[160];
        config.free_bits_kind = cases[i].kind;
        config.free_bits = cases[i].free_bits;
        config.word_dropout = cases[i].dropout;
        config.target_kl = cases[i].target;
        config.min_rate = cases[i].least;
        if (cases[i].model == MIXED) of.latent.prior = PRIOR_MIXTURE;
        if (cases[i].model == EXACT || cases[i].model == SLASHED) of.latent.kind = LATENT_SLASHED;
        if (cases[i].model == EXACT) of.latent.rate = 2;
        objective_remedy(text, sizeof text, &config, &of);
        assert_string_equal(text, cases[i].remedy);
        objective_raised(text, sizeof text, &config, &of, 1);
        assert_string_equal(text, cases[i].once);
        objective_raised(text, sizeof text, &config, &of, 2);
        assert_string_equal(text, cases[i].twice);
        objective_raise(&config, &of, 1);
        assert_true((config.free_bits_kind == FREE_BITS_TOTAL) ==
                    (cases[i].kind == FREE_BITS_TOTAL || cases[i].model == MIXED));
    }
}

/* ---- options of the remedies without effect ---- */

static const char *idle_of(const struct objective_config *config, const struct model_config *of, const char *key)
{
    const char *because = objective_idle(config, of, key);
    return because ? because : "in force";
}

static void remedies_say_why_they_are_idle(void **state)
{
    (void)state;
    struct objective_config c = usual(), off = {.beta_schedule = BETA_LOGISTIC};
    struct model_config exact = model, none = without;
    exact.latent.kind = LATENT_SLASHED;
    exact.latent.rate = 2;
    static const char *const weights[] = {"target_kl", "min_rate", "beta_hold", "beta_slope"};
    struct objective_config on = {.beta_schedule = BETA_LOGISTIC,
                                  .target_kl = 1,
                                  .min_rate = 1,
                                  .beta_hold = 0.1,
                                  .beta_slope = 0.1,
                                  .denoise_drop = 0.1,
                                  .denoise_blank = 0.1,
                                  .denoise_swap = 0.1};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        assert_string_equal(idle_of(&on, &without, weights[i]), "latent.kind=none has no KL");
        assert_string_equal(idle_of(&off, &without, weights[i]), "in force"); /* switched off */
    }
    static const char *const noises[] = {"denoise_drop", "denoise_blank", "denoise_swap"};
    for (size_t i = 0; i < sizeof noises / sizeof *noises; i++) {
        assert_string_equal(idle_of(&on, &without, noises[i]), "latent.kind=none has no encoder");
        assert_string_equal(idle_of(&off, &without, noises[i]), "in force");
        assert_string_equal(idle_of(&on, &model, noises[i]), "in force");
    }
    struct objective_config blank = {.denoise_blank = 0.1}, least = {.min_rate = 1};
    assert_string_equal(idle_of(&blank, &without, "denoise_swap"), "in force");
    assert_string_equal(idle_of(&off, &without, "denoise_blank"), "in force");
    struct model_config marked = model, told = without;
    marked.dropped_mark = told.dropped_mark = DROPPED_OWN;
    assert_string_equal(idle_of(&blank, &marked, "dropped_mark"), "in force");
    assert_non_null(strstr(idle_of(&blank, &told, "dropped_mark"), "no word becomes a mark"));
    assert_string_equal(idle_of(&least, &exact, "beta"), "objective.min_rate moves beta");
    assert_string_equal(idle_of(&c, &none, "rate"), "in force");
    none.latent.rate = 2;
    assert_string_equal(idle_of(&c, &none, "rate"), "latent.kind=none has no KL");
    assert_string_equal(idle_of(&c, &model, "rate"), "in force");
    assert_string_equal(idle_of(&c, &model, "rate_scope"), "it belongs to objective.rate");
    assert_string_equal(idle_of(&c, &exact, "rate_scope"), "in force");
    assert_non_null(strstr(idle_of(&c, &exact, "beta"), "objective.rate fixes the KL"));
    assert_non_null(strstr(idle_of(&c, &exact, "free_bits"), "nothing is free"));
    assert_string_equal(idle_of(&off, &exact, "free_bits"), "in force");
    assert_string_equal(idle_of(&on, &exact, "beta"), "objective.target_kl moves beta");
    c.beta_schedule = BETA_LOGISTIC;
    assert_string_equal(idle_of(&c, &model, "beta_center"), "it belongs to objective.beta_slope");
    assert_string_equal(idle_of(&c, &model, "beta_warmup"), "in force");
    c.beta_slope = 0.1;
    assert_string_equal(idle_of(&c, &model, "beta_center"), "in force");
    assert_string_equal(idle_of(&c, &model, "beta_warmup"), "objective.beta_slope says how beta rises");
    assert_string_equal(idle_of(&c, &model, "kp"), "it belongs to objective.target_kl");
    assert_string_equal(idle_of(&c, &model, "aggressive_most"), "it belongs to objective.aggressive_steps");
    assert_non_null(strstr(idle_of(&c, &model, "aggressive_information_window"), "aggressive_until=information"));
    c.aggressive_steps = 4;
    assert_string_equal(idle_of(&c, &model, "aggressive_most"), "in force");
    c.aggressive_steps = 0;
    c.aggressive_until = AGGRESSIVE_INFORMATION;
    assert_string_equal(idle_of(&c, &model, "aggressive_most"), "in force");
    assert_string_equal(idle_of(&c, &model, "aggressive_information_window"), "in force");
}

static void groups_must_divide_the_latent(void **state)
{
    (void)state;
    struct objective o;
    struct objective_config config = usual();
    elbo_error error = {0};
    config.free_bits_kind = FREE_BITS_GROUP;
    assert_int_equal(objective_check(&config, &model, &error), ELBO_OK);
    config.free_bits_groups = 3;
    assert_int_equal(objective_check(&config, &model, &error), ELBO_USAGE);
    assert_string_equal(error.message,
                        "objective.free_bits_groups = 3 does not divide latent.width = 8; choose a divisor");
    assert_int_equal(objective_create(&o, &config, &model, STEPS, &error), ELBO_USAGE);
    assert_int_equal(objective_check(&config, &without, &error), ELBO_OK); /* no latent, so nothing to group */
    config.free_bits_kind = FREE_BITS_TOTAL;
    assert_int_equal(objective_check(&config, &model, &error), ELBO_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(linear_rises_over_the_warm_up),
                                       cmocka_unit_test(constant_never_moves),
                                       cmocka_unit_test(cyclical_begins_anew),
                                       cmocka_unit_test(logistic_is_half_in_the_middle),
                                       cmocka_unit_test(a_hold_comes_before_the_rise),
                                       cmocka_unit_test(a_logistic_slope_of_its_own),
                                       cmocka_unit_test(columns_of_what_the_device_decides),
                                       cmocka_unit_test(contradictions_are_refused),
                                       cmocka_unit_test(weights_are_over_the_sentences),
                                       cmocka_unit_test(figures_are_of_a_sentence),
                                       cmocka_unit_test(every_option_says_why_it_is_idle),
                                       cmocka_unit_test(what_fixes_the_kl_stands_alone),
                                       cmocka_unit_test(controllers_have_their_settings),
                                       cmocka_unit_test(a_rate_is_raised),
                                       cmocka_unit_test(remedies_say_why_they_are_idle),
                                       cmocka_unit_test(groups_must_divide_the_latent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
