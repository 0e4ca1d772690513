/* The table of options fills the whole configuration: defaults are valid and consistent, the commented file holds them,
 * the effective file can be read back, and rules between options hold. */
#include "train/config.h"
#include "train/effects.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct options *open_config(struct elbo_config *config)
{
    struct options *options;
    elbo_error error = {0};
    memset(config, 0, sizeof *config);
    if (options_open(&options, elbo_config_table(), config, &error)) fail_msg("%s", error.message);
    return options;
}

static void keys_are_distinct_and_sections_together(void **state)
{
    (void)state;
    const struct option_table *table = elbo_config_table();
    for (size_t i = 0; i < table->count; i++)
        for (size_t j = 0; j < i; j++) {
            if (!strcmp(table->rows[i].key, table->rows[j].key)) fail_msg("twice: %s", table->rows[i].key);
            if (table->rows[i].offset == table->rows[j].offset) fail_msg("same field: %s", table->rows[i].key);
        }
}

static void the_commented_file_holds_the_defaults(void **state)
{
    (void)state;
    struct elbo_config config, copy;
    elbo_error error = {0};
    struct options *options = open_config(&config), *other = open_config(&copy);
    char *text = options_commented_yaml(elbo_config_table(), ~0u), *effective = options_yaml(options, ~0u);
    if (options_read_yaml_text(other, text, strlen(text), "init", &error)) fail_msg("%s", error.message);
    char *again = options_yaml(other, ~0u);
    assert_string_equal(effective, again);
    free(again);
    /* a configuration with every section changed */
    const char *const changes[] = {"--seed=9",
                                   "--train.steps=3",
                                   "--encoder.heads=8",
                                   "--latent.injection=memory",
                                   "--objective.free_bits=0.1",
                                   "--run.dir=a \"b\"",
                                   "--optimizer.learning_rate=3e-4"};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        if (options_read_argument(options, changes[i], ~0u, &error)) fail_msg("%s", error.message);
    free(effective);
    effective = options_yaml(options, ~0u);
    if (options_read_yaml_text(other, effective, strlen(effective), "run", &error)) fail_msg("%s", error.message);
    again = options_yaml(other, ~0u);
    assert_string_equal(effective, again);
    assert_int_equal(copy.train.steps, 3);
    assert_int_equal(copy.model.latent.injection, INJECT_MEMORY);
    free(again);
    free(effective);
    free(text);
    options_free(options);
    options_free(other);
}

static void rules_between_options(void **state)
{
    (void)state;
    const char *const wrong[][3] = {
        {"--decoder.heads=3", "", "decoder.heads = 3 does not divide decoder.width = 128"},
        {"--encoder.kv_heads=3", "", "encoder.kv_heads = 3 does not divide"},
        {"--encoder.width=64", "", "encoder.share_embedding"},
        {"--train.slot_tokens=101", "", "at least 102"},
        {"--decoder.heads=128", "--decoder.positions=rotary", "is odd"},
        {"--objective.free_bits_kind=group", "--objective.free_bits_groups=5", "free_bits_groups"},
        {"--train.steps=5", "--train.skip=6", "train.skip"},
        {"--train.slots=4", "--parallel.lanes=5", "parallel.lanes = 5 exceeds train.slots = 4"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct elbo_config config;
        elbo_error error = {0};
        struct options *options = open_config(&config);
        if (elbo_config_check(&config, &error)) fail_msg("the defaults: %s", error.message);
        for (int k = 0; k < 2; k++)
            if (*wrong[i][k] && options_read_argument(options, wrong[i][k], ~0u, &error)) fail_msg("%s", error.message);
        assert_int_equal(elbo_config_check(&config, &error), ELBO_USAGE);
        if (!strstr(error.message, wrong[i][2])) fail_msg("%s: %s", wrong[i][0], error.message);
        options_free(options);
    }
    /* without a latent there is no encoder, so its options raise no error */
    struct elbo_config config;
    elbo_error error = {0};
    struct options *options = open_config(&config);
    options_read_argument(options, "--latent.kind=none", ~0u, &error);
    options_read_argument(options, "--encoder.width=100", ~0u, &error);
    options_read_argument(options, "--train.slots=4", ~0u, &error);
    options_read_argument(options, "--parallel.lanes=4", ~0u, &error);
    assert_int_equal(elbo_config_check(&config, &error), ELBO_OK);
    options_free(options);
}

/* A rule for a key applies to that key alone; a rule for a section applies to all its keys. */
static void what_stands_idle(void **state)
{
    (void)state;
    struct elbo_config config;
    elbo_error error = {0};
    struct options *options = open_config(&config);
    assert_null(effects_idle(&config, "optimizer.beta1"));
    assert_non_null(effects_idle(&config, "optimizer.momentum"));
    assert_null(effects_idle(&config, "optimizer.momentum_of_another"));
    assert_null(effects_idle(&config, "encoder.width"));
    options_read_argument(options, "--optimizer.kind=sgd", ~0u, &error);
    options_read_argument(options, "--latent.kind=none", ~0u, &error);
    assert_non_null(effects_idle(&config, "optimizer.beta1"));
    assert_null(effects_idle(&config, "optimizer.momentum"));
    assert_non_null(effects_idle(&config, "encoder.width"));
    assert_null(effects_idle(&config, "decoder.width"));
    options_free(options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_distinct_and_sections_together),
        cmocka_unit_test(the_commented_file_holds_the_defaults),
        cmocka_unit_test(rules_between_options),
        cmocka_unit_test(what_stands_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
