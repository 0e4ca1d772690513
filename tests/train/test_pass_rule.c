/* Which pass comes next, step by step, for given figures; and a step's information against the formula over its
 * sentences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "train/passes.h"

#include <math.h>
#include <string.h>

enum { STEPS = 16 };

struct course {
    const char *passes; /* e encoder, d decoder, w whole */
    struct objective_config c;
    double loss[STEPS], information[STEPS];
};

/* Follows a course in which a step's figures are known before the next step is launched, or `delay` steps later. */
static void follow(const struct course *o, size_t delay)
{
    struct training_passes p = {0};
    enum step_pass made[STEPS];
    size_t steps = strlen(o->passes);
    for (size_t t = 0; t < steps; t++) {
        if (t >= delay) passes_note(&p, t - delay, made[t - delay], o->loss[t - delay], o->information[t - delay]);
        made[t] = passes_next(&p, &o->c, t);
        char letter = made[t] == PASS_ENCODER ? 'e' : made[t] == PASS_DECODER ? 'd' : 'w';
        if (letter != o->passes[t]) fail_msg("%s, delay %zu: step %zu is %c", o->passes, delay, t, letter);
    }
}

#define RULE(steps, most, window) .aggressive_steps = steps, .aggressive_most = most, .aggressive_window = window

static const struct course courses[] = {
    /* as many passes as allowed, while the loss falls */
    {"eeedeeed", {RULE(99, 3, 1)}, {9, 8, 7, 6, 5, 4, 3, 2}, {0}},
    /* the loss is no lower than before, which is known two steps later */
    {"eeedeeed", {RULE(99, 9, 1)}, {5, 5, 5, 5, 5, 5, 5, 5}, {0}},
    /* a window of two: means 7, 5, 6 */
    {"eeeeeeedee", {RULE(99, 9, 2)}, {8, 6, 5, 5, 6, 6, 1, 1, 1, 1}, {0}},
    /* a step that was not applied has no loss */
    {"eeeede", {RULE(99, 9, 1)}, {NAN, 5, 5, 5, 5, 5}, {0}},
    /* after a decoder's pass the comparison starts again, without the losses of the encoder's last passes */
    {"eeedeeeed", {RULE(99, 9, 1)}, {5, 5, 1, 0, 9, 8, 8, 7, 7}, {0}},
    /* the phase's steps; after an autoencoder's phase, the remaining steps */
    {"eedeww", {RULE(4, 2, 9)}, {0}, {0}},
    {"wwweedeeww", {RULE(8, 2, 1), .autoencoder_steps = 3}, {1, 1, 1, 9, 8, 7, 6, 5, 4, 3}, {0}},
    {"wwwwww", {RULE(3, 2, 1), .autoencoder_steps = 4}, {0}, {0}},
};

static void losses_choose(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof courses / sizeof *courses; i++)
        for (size_t delay = 1; delay <= 2; delay++) follow(&courses[i], delay);
}

#define INFORMED(window) .aggressive_until = AGGRESSIVE_INFORMATION, .aggressive_information_window = window

static const struct course informed[] = {
    /* means 1, 2, 2 are known with step 5: step 7 is whole, and so are all later steps */
    {"eedeedewww", {RULE(0, 2, 9), INFORMED(2)}, {0}, {1, 1, 1.5, 2.5, 2, 2, 9, 9, 9, 9}},
    {"eedeedewww", {RULE(50, 2, 9), INFORMED(2)}, {0}, {1, 1, 1.5, 2.5, 2, 1, 9, 9, 9, 9}},
    /* a small increase counts */
    {"eedeedeede", {RULE(0, 2, 9), INFORMED(2)}, {0}, {1, 1, 1, 1.001, 1, 1.002, 1, 1.003, 1, 1}},
    /* a step that was not applied has no information */
    {"eedeedeeww", {RULE(0, 2, 9), INFORMED(2)}, {0}, {NAN, 1, 1, 2, 2, 2, 2, 9, 9, 9}},
    /* aggressive_steps ends the phase anyway; without the option information ends nothing */
    {"eedeww", {RULE(4, 2, 9), INFORMED(2)}, {0}, {1, 2, 3, 4, 5, 6}},
    {"eedeedeede", {RULE(50, 2, 9), .aggressive_information_window = 2}, {0}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    /* an autoencoder's phase is not counted */
    {"wwwweedeedew", {RULE(0, 2, 9), INFORMED(2), .autoencoder_steps = 4}, {0}, {9, 9, 9, 9, 1, 1, 2, 2, 2, 2, 2}},
};

static void information_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof informed / sizeof *informed; i++)
        for (size_t delay = 1; delay <= 2; delay++) follow(&informed[i], delay);
}

/* ---- a step's information ---- */

enum { SENTENCES = 5, WIDTH = 3 };

static void information_is_the_formula(void **state)
{
    (void)state;
    static const double mu[SENTENCES][WIDTH] = {
        {1, -2, 0.5}, {0.25, 4, 0.5}, {-3, 1, 0.5}, {2, 2.5, 0.5}, {0.5, -1, 0.5}};
    static const double logvar[SENTENCES][WIDTH] = {
        {-1, -3, 0}, {-2, -3, 0}, {-1.5, -3, 0}, {-0.5, -3, 0}, {-2.5, -3, 0}};
    float moments[2 * WIDTH * 2];
    double wanted = 0;
    for (size_t j = 0; j < WIDTH; j++) {
        double sum[2] = {0}, square[2] = {0}, between = 0, spread = 0;
        for (size_t s = 0; s < SENTENCES; s++) {
            const double x[2] = {mu[s][j], logvar[s][j]};
            for (size_t k = 0; k < 2; k++) sum[k] += x[k], square[k] += x[k] * x[k];
        }
        for (size_t s = 0; s < SENTENCES; s++) {
            double from_mu = mu[s][j] - sum[0] / SENTENCES, from_logvar = logvar[s][j] - sum[1] / SENTENCES;
            between += from_mu * from_mu / (SENTENCES - 1);
            spread += from_logvar * from_logvar / SENTENCES;
        }
        double mean = sum[1] / SENTENCES;
        wanted += (log(between + exp(mean + spread / 2)) - mean) / 2;
        for (size_t k = 0; k < 2; k++) {
            moments[(k * WIDTH + j) * 2] = (float)sum[k];
            moments[(k * WIDTH + j) * 2 + 1] = (float)square[k];
        }
    }
    struct step_figures f = {.sentences = SENTENCES, .moments = moments};
    assert_true(fabs(passes_information(&f, WIDTH) - wanted) < 1e-6);
    assert_true(wanted > 1);
    f.sentences = 1;
    assert_true(isnan(passes_information(&f, WIDTH)));
    f = (struct step_figures){.sentences = SENTENCES};
    assert_true(isnan(passes_information(&f, WIDTH)));
    /* Two equal sentences: z carries no information, also if rounding makes a variance negative. */
    const float alike[] = {2, 1.9999999f, 2, 1.9999999f, -2, 1.9999999f, -2, 1.9999999f};
    f = (struct step_figures){.sentences = 2, .moments = alike};
    assert_true(fabs(passes_information(&f, 2)) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(losses_choose), cmocka_unit_test(information_ends),
                                       cmocka_unit_test(information_is_the_formula)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
