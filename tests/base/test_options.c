/* Tests one table of options: values arrive exactly; wrong values are refused with the place, the range and a
 * suggestion; and written options read back the same. */
#include "base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct target {
    size_t steps, width;
    uint64_t seed;
    double rate;
    bool json, fast;
    const char *name;
    int kind;
    unsigned ways;
};

enum { ONE = 1, TWO = 2 };
static const char *const kinds[] = {"alpha", "beta", NULL}, *const ways[] = {"both", "memory", "prefix", NULL};

static const struct option rows[] = {
    {"seed", OPTION_SEED, offsetof(struct target, seed), "1", 0, 0, "", "of the noise", ONE | TWO, NULL, OPTION_NONE,
     false},
    {"json", OPTION_BOOL, offsetof(struct target, json), "false", 0, 0, "", "as JSON", ONE | TWO, NULL, OPTION_NONE,
     false},
    {"train.steps", OPTION_SIZE, offsetof(struct target, steps), "200", 1, 1000, "steps", "length", ONE, NULL,
     OPTION_NONE, false},
    {"train.rate", OPTION_DOUBLE, offsetof(struct target, rate), "0.001", 0, 10, "", "rate", ONE, NULL, OPTION_NONE,
     false},
    {"train.fast", OPTION_BOOL, offsetof(struct target, fast), "true", 0, 0, "", "fast", ONE, NULL, OPTION_NONE, false},
    {"model.width", OPTION_SIZE, offsetof(struct target, width), "8", 0, 64, "", "width", ONE, NULL, OPTION_NONE,
     false},
    {"model.name", OPTION_STRING, offsetof(struct target, name), "none", 0, 0, "", "name", TWO, NULL, OPTION_NONE,
     false},
    {"model.kind", OPTION_CHOICE, offsetof(struct target, kind), "beta", 0, 0, "", "kind", ONE, kinds, OPTION_NONE,
     false},
    {"model.ways", OPTION_SET, offsetof(struct target, ways), "both", 0, 0, "", "ways", ONE, ways, OPTION_NONE, false},
};
static const struct option_command commands[] = {{"one", ONE}, {"two", TWO}};
static const struct option_alias aliases[] = {{"lr", "train.rate", NULL},
                                              {"epochs", "train.steps", "there are no epochs"},
                                              {"lr", "model.name", NULL},
                                              {"name", "model.kind", NULL}};
static const struct option_table table = {rows,    sizeof rows / sizeof *rows,      commands, 2,
                                          aliases, sizeof aliases / sizeof *aliases};

struct fixture {
    struct target target;
    struct options *options;
    elbo_error error;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    return options_open(&f->options, &table, &f->target, &f->error);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    options_free(f->options);
    free(f);
    return 0;
}

static elbo_status yaml(struct fixture *f, const char *text)
{
    return options_read_yaml_text(f->options, text, strlen(text), "c.yaml", &f->error);
}

static void assert_says(const struct fixture *f, const char *part)
{
    if (!strstr(f->error.message, part)) fail_msg("'%s' is not in: %s", part, f->error.message);
}

static void defaults(void **state)
{
    const struct target *t = &((struct fixture *)*state)->target;
    assert_int_equal(t->seed, 1);
    assert_int_equal(t->steps, 200);
    assert_int_equal(t->width, 8);
    assert_true(t->rate == 0.001 && t->fast && !t->json);
    assert_string_equal(t->name, "none");
    assert_int_equal(t->kind, 1);
    assert_int_equal(t->ways, 1);
}

static void later_readers_win(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(yaml(f, "# a comment\nseed: 18446744073709551615\ntrain:\n  steps: 7\n  rate: 1e-3\nmodel: {kind: "
                             "alpha, name: \"a: b\"}\n"),
                     ELBO_OK);
    assert_int_equal(f->target.steps, 7);
    assert_true(f->target.seed == UINT64_MAX);
    assert_int_equal(f->target.kind, 0);
    assert_string_equal(f->target.name, "a: b");
    assert_string_equal(options_where(f->options, "train.steps"), "c.yaml:4:10");
    assert_int_equal(options_read_argument(f->options, "--train.steps=9", ONE, &f->error), ELBO_OK);
    assert_int_equal(options_read_argument(f->options, "--json", ONE, &f->error), ELBO_OK);
    assert_int_equal(options_read_argument(f->options, "--train.fast=false", ONE, &f->error), ELBO_OK);
    assert_int_equal(options_read_argument(f->options, "--model.name=x=y", TWO, &f->error), ELBO_OK);
    assert_int_equal(f->target.steps, 9);
    assert_true(f->target.json && !f->target.fast);
    assert_string_equal(f->target.name, "x=y");
    assert_true(options_given(f->options, "train.steps"));
    assert_false(options_given(f->options, "model.width"));
}

static void switches_take_the_words_that_people_use(void **state)
{
    struct fixture *f = *state;
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1", "False", "TRUE"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char argument[64], text[64];
        snprintf(argument, sizeof argument, "--json=%s", words[i]);
        assert_int_equal(options_read_argument(f->options, argument, ONE, &f->error), ELBO_OK);
        assert_int_equal(f->target.json, i % 2);
        snprintf(text, sizeof text, "train:\n  fast: %s\n", words[i]);
        assert_int_equal(yaml(f, text), ELBO_OK);
        assert_int_equal(f->target.fast, i % 2);
    }
}

static void wrong_values_are_refused(void **state)
{
    struct fixture *f = *state;
    const char *const wrong[][2] = {
        {"--train.steps=0", "out of range"},
        {"--train.steps=1001", "from 1 to 1000 (steps)"},
        {"--train.steps=-1", "out of range"},
        {"--train.steps=1.5", "not a whole number"},
        {"--train.steps= 5", "not a whole"},
        {"--train.steps=", "not a whole number"},
        {"--train.steps=99999999999999999999", "not a whole"},
        {"--train.rate=fast", "not a number"},
        {"--train.rate=nan", "not a number"},
        {"--train.rate=inf", "not a number"},
        {"--train.rate=1e999", "not a number"},
        {"--train.rate=0x1", "not a number"},
        {"--train.rate=11", "from 0 to 10"},
        {"--train.fast=maybe", "true or false"},
        {"--model.kind=alpa", "did you mean alpha?"},
        {"--model.kind=zzz", "one of alpha | beta"},
        {"--model.ways=memry", "has 'memry', which is not known (did you mean memory?)"},
        {"--model.ways=prefix,zzz", "model.ways takes a comma list of both | memory | prefix"},
        {"--model.ways=prefix,memory,prefix", "has prefix twice"},
        {"--model.ways=", "has an empty name"},
        {"--model.ways=prefix,", "has an empty name"},
        {"--model.ways=,prefix", "has an empty name"},
        {"--model.ways=prefix, ,memory", "has an empty name"},
        {"--model.ways=prefix memory", "'prefix memory', which is not known"},
        {"--seed=18446744073709551616", "not a whole number"},
        {"--seed=+1", "not a whole number"},
        {"--train.steps", "has no value"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct target before = f->target;
        if (options_read_argument(f->options, wrong[i][0], ~0u, &f->error) != ELBO_USAGE) fail_msg("%s", wrong[i][0]);
        assert_says(f, wrong[i][1]);
        assert_memory_equal(&before, &f->target, sizeof before);
    }
    assert_int_equal(options_read_argument(f->options, "--model.name=\xff", ~0u, &f->error), ELBO_USAGE);
    assert_says(f, "UTF-8");
}

static void keep_row(void *context, const struct option *row, const char *now, const char *before)
{
    snprintf(context, 64, "%s: %s, %s", row->key, now, before);
}

/* Names come in any order, with or without blanks; they are written in the order of the choices. */
static void lists_are_sets(void **state)
{
    struct fixture *f = *state;
    struct fixture other = {0};
    char said[64] = "", *text;
    assert_int_equal(options_read_argument(f->options, "--model.ways= prefix , memory ", ONE, &f->error), ELBO_OK);
    assert_int_equal(f->target.ways, 6);
    text = options_yaml(f->options, ONE);
    assert_non_null(strstr(text, "  ways: memory,prefix\n"));
    free(text);
    assert_int_equal(yaml(f, "model:\n  ways: both, prefix\n"), ELBO_OK);
    assert_int_equal(f->target.ways, 5);
    assert_int_equal(options_open(&other.options, &table, &other.target, &f->error), ELBO_OK);
    options_compare(f->options, other.options, keep_row, said);
    assert_string_equal(said, "model.ways: both,prefix, both");
    options_free(other.options);
}

static void unknown_keys_get_a_suggestion(void **state)
{
    struct fixture *f = *state;
    const char *const unknown[][2] = {
        {"--train.setps=3", "did you mean train.steps?"},
        {"--steps=3", "did you mean train.steps?"},
        {"--model.rate=3", "did you mean train.rate?"},
        {"--sed=3", "did you mean seed?"},
        {"--lr=3", "did you mean train.rate?"},
        {"--train.lr=3", "did you mean train.rate?"},
        {"--epochs=3", "did you mean train.steps? there are no epochs"},
        {"--no-json", "write json=false"},
        {"--no_fast", "unknown option"},
        {"--train-steps=3", "did you mean train.steps?"},
        {"--qqqqqq=3", "unknown option 'qqqqqq'"},
    };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_int_equal(options_read_argument(f->options, unknown[i][0], ~0u, &f->error), ELBO_USAGE);
        assert_says(f, unknown[i][1]);
    }
    assert_null(strstr(f->error.message, "did you mean"));
    assert_int_equal(options_read_argument(f->options, "--model.name=a", ONE, &f->error), ELBO_USAGE);
    assert_says(f, "did you mean --model.kind?"); /* an alias of an option that this command takes */
    assert_int_equal(options_read_argument(f->options, "--lr=a", TWO, &f->error), ELBO_USAGE);
    assert_says(f, "did you mean model.name?");
    assert_int_equal(options_read_argument(f->options, "--train.steps=5", TWO, &f->error), ELBO_USAGE);
    assert_says(f, "belongs to: one");
}

static void malformed_yaml_has_a_place(void **state)
{
    struct fixture *f = *state;
    const char *const wrong[][2] = {
        {"seed: 1\ntrain: a: b\n", "c.yaml:2:9: malformed YAML"},
        {"train:\n  steps: [1, 2]\n", "c.yaml:2:10: a list"},
        {"seed: 1\nseed: 2\n", "c.yaml:2:1: seed stands twice"},
        {"train:\n  rate: 1\nmodel:\n  width: 1\ntrain:\n  steps: 1\n", "c.yaml:5:1: this section stands twice"},
        {"seed: &a 1\n", "c.yaml:1:7: anchors"},
        {"seed: *a\n", "c.yaml:1:7: aliases"},
        {"train:\n  stepz: 1\n", "c.yaml:2:3: unknown option 'train.stepz'; did you mean train.steps?"},
        {"train:\n  steps: many\n", "c.yaml:2:10: train.steps = 'many' is not a whole number"},
        {"a: {a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}}\n", "nested too deeply"},
        {"- seed\n", "c.yaml:1:1: a configuration is a map"},
        {"seed: 1\n---\nseed: 2\n", "second document"},
        {"seed: \"1\n", "malformed YAML"},
        {"model: {name: \"a\\0b\"}\n", "NUL"},
        {"seed: 1\n\xff\n", "UTF-8"},
        {"[a]: 1\n", "a list is not accepted"},
        {"[train]\nsteps = 5\n", "looks like TOML"},
        {"# of a run\nseed = 5\n", "looks like TOML"},
        {"train:\n  steps:\n", "train.steps has no value; leave the line out for the default, 200"},
        {"seed: ~\n", "seed has no value"},
        {"trian:\n", "unknown option 'trian'"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (yaml(f, wrong[i][0]) != ELBO_USAGE) fail_msg("accepted: %s", wrong[i][0]);
        assert_says(f, wrong[i][1]);
    }
    assert_int_equal(yaml(f, ""), ELBO_OK);
    assert_int_equal(yaml(f, "# nothing\n"), ELBO_OK);
    assert_int_equal(yaml(f, "train:\nmodel: ~\n"), ELBO_OK);
    assert_int_equal(yaml(f, "train:\n  # steps: 5\nmodel:\n  name: ~\n"), ELBO_OK);
    assert_string_equal(f->target.name, "");
    assert_int_equal(yaml(f, "model:\n  name: \"~\"\n"), ELBO_OK);
    assert_string_equal(f->target.name, "~");
    assert_int_equal(yaml(f, "{\"train\": {\"steps\": 31, \"fast\": false}}"), ELBO_OK); /* JSON is YAML */
    assert_true(f->target.steps == 31 && !f->target.fast);
    assert_int_equal(options_read_yaml(f->options, "/no/such.yaml", &f->error), ELBO_IO);
}

static void what_is_written_reads_back(void **state)
{
    struct fixture *f = *state;
    const char *const names[] = {"",
                                 "plain",
                                 "true",
                                 "a: b # c",
                                 "\"quoted\" \\ back",
                                 "tab\tline\nreturn\r\x01\x7f",
                                 "\xc2\x85\xe2\x80\xa8\xef\xbb\xbf",
                                 " \xe6\x97\xa5\xf0\x9f\x98\x80 ",
                                 "%TAG",
                                 "'"};
    const double rates[] = {0, 0.1, 1.0 / 3, 1e-300, 5e-324, 9.999999999999998, 2.2250738585072014e-308};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(options_set(f->options, "model.name", names[i], "test", &f->error), ELBO_OK);
        f->target.rate = rates[i % 7];
        f->target.seed = UINT64_MAX - i;
        f->target.fast = i % 2;
        f->target.ways = i % 7 + 1;
        char *text = options_yaml(f->options, ONE | TWO);
        struct target copy;
        memset(&copy, 0, sizeof copy); /* the comparison includes padding */
        struct options *options;
        assert_int_equal(options_open(&options, &table, &copy, &f->error), ELBO_OK);
        if (options_read_yaml_text(options, text, strlen(text), "copy", &f->error)) fail_msg("%s", f->error.message);
        assert_string_equal(copy.name, names[i]);
        copy.name = f->target.name;
        assert_memory_equal(&copy, &f->target, sizeof copy);
        options_free(options);
        free(text);
    }
}

static void texts_show_the_rows(void **state)
{
    (void)state;
    char *help = options_help(&table, TWO), *page = options_reference(&table);
    char *few = options_brief_help(&table, ONE, (const char *const[]){"seed", "train.steps", NULL}, NULL);
    assert_non_null(strstr(few, "--seed=1"));
    assert_non_null(strstr(few, "--train.steps=200"));
    assert_null(strstr(few, "train.rate"));
    free(few);
    assert_non_null(strstr(help, "--model.name=none"));
    assert_null(strstr(help, "train.steps")); /* belongs to another command */
    assert_non_null(strstr(page, "| `train.steps` | `200` | a whole number from 1 to 1000 (steps) | length | one |"));
    assert_non_null(strstr(page, "one of alpha \\| beta"));
    free(help);
    free(page);
}

/* Each section's rows only know their own struct. In one row the ranks may differ. */
static void sections_are_one_table(void **state)
{
    (void)state;
    struct part {
        size_t size;
        const char *name;
    };
    struct whole {
        struct part left, right;
        size_t alone;
    } target;
    static const struct option part[] = {
        {"size", OPTION_SIZE, offsetof(struct part, size), "3", 0, 9, "", "size", ONE, NULL, OPTION_NONE, false},
        {"name", OPTION_STRING, offsetof(struct part, name), "", 0, 0, "", "name", ONE, NULL, OPTION_NONE, true}};
    static const struct option single[] = {
        {"alone", OPTION_SIZE, offsetof(struct whole, alone), "5", 0, 9, "", "alone", ONE, NULL, OPTION_NONE, false}};
    const struct option_section sections[] = {{"left", part, 2, offsetof(struct whole, left)},
                                              {"right", part, 2, offsetof(struct whole, right)},
                                              {"", single, 1, 0}};
    struct option all[5];
    char keys[64];
    assert_int_equal(options_concatenate(all, 4, keys, sizeof keys, sections, 3), 4);
    assert_int_equal(options_concatenate(all, 5, keys, 20, sections, 3), 2); /* room for "left.size" and "left.name" */
    assert_int_equal(options_concatenate(all, 5, keys, 19, sections, 3), 1);
    assert_int_equal(options_concatenate(all, 5, keys, sizeof keys, sections, 3), 5);
    const struct option_table own = {all, 5, commands, 2, NULL, 0};
    struct options *options;
    elbo_error error;
    assert_false(options_open(&options, &own, &target, &error));
    assert_false(options_set(options, "right.size", "7", "here", &error));
    assert_false(options_set(options, "right.name", "mine", "here", &error));
    assert_int_equal(target.left.size, 3);
    assert_int_equal(target.right.size, 7);
    assert_int_equal(target.alone, 5);
    char *text = options_shared_yaml(options, ONE);
    assert_string_equal(text, "alone: 5\nleft:\n  size: 3\nright:\n  size: 7\n");
    free(text);
    options_free(options);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(defaults),
        TEST(later_readers_win),
        TEST(switches_take_the_words_that_people_use),
        TEST(wrong_values_are_refused),
        TEST(lists_are_sets),
        TEST(unknown_keys_get_a_suggestion),
        TEST(malformed_yaml_has_a_place),
        TEST(what_is_written_reads_back),
        TEST(texts_show_the_rows),
        TEST(sections_are_one_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
