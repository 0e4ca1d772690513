/* The watch over the latent, evaluation by evaluation: when a decoder counts as dead, when the run warns or rolls back,
 * and which states are kept. test_monitor.py tests it in trainings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "model/evaluate.h"
#include "train/monitor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 400 };

struct note {
    uint64_t step;
    double gain;
    bool rolls;
    const char *warning; /* a part of the warning; null: no warning */
};

static struct trainer *t; /* with its config and its text */
static struct elbo_config config;
static char said[1024];

static void warned(void *context, const char *text)
{
    (void)context;
    snprintf(said, sizeof said, "%s", text);
}

static void begin(int on_collapse)
{
    free(t);
    t = calloc(1, sizeof *t);
    config = (struct elbo_config){.train = {.steps = STEPS, .collapse_gain = 2, .on_collapse = on_collapse}};
    t->config = &config;
    t->model.latent = (struct latent_config){.kind = LATENT_NORMAL, .width = 8};
    t->report = (struct train_report){warned, warned, NULL};
}

/* A rollback is made only as far as the watch sees it. */
static void follow(const struct note *notes, size_t count)
{
    struct training_watch *w = &t->state.counters.watch;
    for (size_t i = 0; i < count; i++) {
        struct evaluation e = {.own_z_gain = notes[i].gain, .kl = 1, .mutual_information = 1};
        *said = 0;
        t->state.counters.draws = notes[i].step;
        bool rolls = monitor_note(t, &e);
        if (rolls != notes[i].rolls) fail_msg("step %zu: rolls back: %d", (size_t)notes[i].step, rolls);
        const char *warning = notes[i].warning;
        if (warning ? !strstr(said, warning) : *said != 0) fail_msg("step %zu: '%s'", (size_t)notes[i].step, said);
        if (!rolls) continue;
        w->rollbacks++;
        w->rolled = notes[i].step;
        w->alive = w->kept != 0;
    }
}

#define FOLLOW(...)                                                                                                    \
    follow((const struct note[]){__VA_ARGS__}, sizeof((const struct note[]){__VA_ARGS__}) / sizeof(struct note))

static void a_dead_decoder_is_told_once(void **state)
{
    (void)state;
    begin(COLLAPSE_WARN);
    /* the decoder has a quarter of the steps to come alive in */
    FOLLOW({50, 0, false, NULL}, {99, 0, false, NULL}, {100, 0, false, "or --train.on_collapse=rollback"},
           {150, 0, false, NULL});
    FOLLOW({200, 2, false, NULL}, {250, NAN, false, NULL}, {300, 1.9, false, "step 300: the decoder does not read z"},
           {350, 0, false, NULL});
    begin(COLLAPSE_IGNORE);
    FOLLOW({100, 0, false, NULL}, {200, 5, false, NULL}, {300, 0, false, NULL});
}

static void three_rollbacks(void **state)
{
    (void)state;
    begin(COLLAPSE_ROLLBACK);
    FOLLOW({99, 0, false, NULL}, {100, 0, true, NULL});
    FOLLOW({174, 0, false, NULL}, {175, 0, true, NULL}); /* a quarter of the remaining steps */
    FOLLOW({200, 3, false, NULL});
    t->state.counters.watch.kept = 200;
    FOLLOW({230, 1, true, NULL});
    FOLLOW({240, 1, false, "as often as it may be"}, {250, 1, false, NULL});
}

static void first_weights_need_steps(void **state)
{
    (void)state;
    begin(COLLAPSE_ROLLBACK);
    FOLLOW({300, 0, true, NULL});
    begin(COLLAPSE_ROLLBACK);
    FOLLOW({301, 0, false, "too few steps are left"});
    begin(COLLAPSE_ROLLBACK);
    FOLLOW({200, 2, false, NULL});
    t->state.counters.watch.kept = 200;
    FOLLOW({399, 0, true, NULL}); /* a rollback to a checkpoint needs no steps */
}

static void figures_are_remembered(void **state)
{
    (void)state;
    begin(COLLAPSE_IGNORE);
    const struct training_watch *w = &t->state.counters.watch;
    struct evaluation e = {.own_z_gain = 3, .kl = 5, .mutual_information = 4};
    monitor_note(t, &e);
    assert_true(w->known && w->gain == 3 && w->kl == 5 && w->information == 4 && !w->alive);
    e.kl = NAN;
    monitor_note(t, &e);
    assert_true(!w->known && w->gain == 3 && w->kl == 0 && w->information == 0);
    e = (struct evaluation){.own_z_gain = NAN, .kl = 7, .mutual_information = 7};
    assert_false(monitor_note(t, &e));
    assert_true(w->kl == 0);
    t->model.latent.kind = LATENT_NONE;
    e.own_z_gain = 1;
    assert_false(monitor_note(t, &e));
    assert_true(w->gain == 3);
}

static bool keeps(uint64_t alive, uint64_t draws, uint64_t kept)
{
    t->state.counters.watch.last_alive = alive;
    t->state.counters.draws = draws;
    t->state.counters.watch.kept = kept;
    return monitor_keeps(t);
}

static void what_is_alive_is_kept(void **state)
{
    (void)state;
    begin(COLLAPSE_ROLLBACK);
    FOLLOW({200, 2, false, NULL});
    assert_true(monitor_keeps(t));
    config.checkpoint.every = 100;
    assert_true(keeps(50, 50, 0) && keeps(300, 300, 200));
    assert_false(keeps(299, 299, 200) || keeps(300, 310, 200) || keeps(0, 0, 0));
    t->model.latent.kind = LATENT_NONE;
    assert_false(keeps(300, 300, 200));
    begin(COLLAPSE_WARN);
    assert_false(keeps(300, 300, 0));
    free(t);
    t = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_dead_decoder_is_told_once), cmocka_unit_test(three_rollbacks),
                                       cmocka_unit_test(first_weights_need_steps),
                                       cmocka_unit_test(figures_are_remembered),
                                       cmocka_unit_test(what_is_alive_is_kept)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
