/* Tests the lines that describe a model: writing and reading, and refusal of other lines. */
#include "infer/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static elbo_status read_text(struct model_config *c, const char *text)
{
    elbo_error error = {0};
    return infer_config_read(c, text, strlen(text), &error);
}

static char *text_of(const struct model_config *c)
{
    size_t size = infer_config_text(NULL, 0, c);
    char *text = malloc(size + 1);
    assert_non_null(text);
    assert_int_equal(infer_config_text(text, size + 1, c), size);
    assert_int_equal(strlen(text), size);
    return text;
}

static void there_and_back(void **state)
{
    (void)state;
    struct model_config c, back;
    assert_int_equal(read_text(&c, "decoder.kind=lstm\nencoder.bidirectional=true\nlatent.injection=init,concat\n"
                                   "latent.delta=0.12345678901234567\nobjective.dropped_mark=unknown\n"
                                   "vocabulary=32000\npositions=102\nlabels=3\n"),
                     ELBO_OK);
    assert_int_equal(c.decoder.kind, STACK_LSTM);
    assert_true(c.encoder.bidirectional);
    assert_int_equal(c.latent.injection, INJECT_INIT | INJECT_CONCAT);
    assert_true(c.latent.delta == 0.12345678901234567);
    assert_int_equal(c.dropped_mark, DROPPED_UNKNOWN);
    assert_int_equal(c.vocabulary, 32000);
    assert_int_equal(c.encoder.heads, 4); /* a default */
    char *text = text_of(&c);
    assert_int_equal(read_text(&back, text), ELBO_OK);
    assert_memory_equal(&c, &back, sizeof c);
    free(text);
}

static void without_ways_for_z(void **state)
{
    (void)state;
    struct model_config c;
    assert_int_equal(read_text(&c, "vocabulary=5\npositions=9\n"), ELBO_OK);
    c.latent.injection = 0;
    char *text = text_of(&c);
    assert_null(strstr(text, "injection"));
    assert_int_equal(read_text(&c, text), ELBO_OK);
    assert_int_equal(c.latent.injection, INJECT_BOTH);
    free(text);
}

static void nothing_behind_the_size_is_read(void **state)
{
    (void)state;
    static const char text[] = "vocabulary=5\npositions=97777\n";
    struct model_config c;
    elbo_error error = {0};
    assert_int_equal(infer_config_read(&c, text, strlen("vocabulary=5\npositions=9"), &error), ELBO_OK);
    assert_int_equal(c.positions, 9);
}

static void lines_of_others(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "vocabulary=5\n",
        "positions=9\n",
        "vocabulary=5\npositions=9\nvocabulary=5\n",
        "vocabulary=5\npositions=9\nencoder.colour=red\n",
        "vocabulary=5\npositions=9\ndecoder.kind=mamba\n",
        "vocabulary=5\npositions=9\nencoder.width=0\n",
        "vocabulary=5\npositions=9\nencoder.width=-1\n",
        "vocabulary=5\npositions=9\nlatent.delta=nan\n",
        "vocabulary=5\npositions=9\nlatent.injection=init,init\n",
        "vocabulary=0\npositions=9\n",
        "vocabulary=5\npositions=1000003\n",
        "vocabulary=5\npositions=99999999999999999999999\n",
        "vocabulary=5\npositions=9\nno line\n",
        "vocabulary=5\npositions=9\n\n",
    };
    struct model_config c;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (read_text(&c, bad[i]) != ELBO_INPUT) fail_msg("taken: %s", bad[i]);
}

static void the_message_says_which_line(void **state)
{
    (void)state;
    static const char text[] = "vocabulary=5\npositions=9\ndecoder.kind=mamba\n";
    struct model_config c;
    elbo_error error = {0};
    assert_int_equal(infer_config_read(&c, text, strlen(text), &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "decoder.kind = mamba"));
    assert_non_null(strstr(error.message, "newer"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(without_ways_for_z),
        cmocka_unit_test(nothing_behind_the_size_is_read),
        cmocka_unit_test(lines_of_others),
        cmocka_unit_test(the_message_says_which_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
