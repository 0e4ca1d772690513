/* Tests a latent as a line of JSON: the three forms, and refusals that name the line and the element. */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "formats/latent_line.h"

static elbo_status parse(float z[3], const char *text, elbo_error *error)
{
    *error = (elbo_error){0};
    return latent_line_parse(z, 3, text, strlen(text), 7, error);
}

static void three_forms(void **state)
{
    (void)state;
    static const char *const texts[] = {"[1, -2.5, 3e2]", "{\"text\": \"a\", \"z\": [1, -2.5, 300]}",
                                        "{\"mu\": [1, -2.5, 300.0]}", "{\"mu\": [9, 9, 9], \"z\": [1, -2.5, 300]}",
                                        "{\"text\": \"a\\u0000b\", \"z\": [1, -2.5, 300]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        float z[3] = {0};
        elbo_error error;
        assert_int_equal(parse(z, texts[i], &error), ELBO_OK);
        assert_true(z[0] == 1 && z[1] == -2.5f && z[2] == 300);
    }
}

static void the_largest_f32_is_taken(void **state)
{
    (void)state;
    float z[3];
    elbo_error error;
    assert_int_equal(parse(z, "[3.4028234663852886e38, -3.4028234663852886e38, 1e-60]", &error), ELBO_OK);
    assert_true(z[0] == FLT_MAX && z[1] == -FLT_MAX && z[2] == 0);
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {{"[1, 2]", "an array of 3 numbers, as the model's z has, and found 2"},
                 {"{\"mu\": [1, 2, 3, 4]}", "found 4"},
                 {"{\"x\": [1, 2, 3]}", "neither \"z\" nor \"mu\""},
                 {"{\"z\": 5}", "under \"z\" or \"mu\""},
                 {"[1, \"2\", 3]", "element 1"},
                 {"[1, 2, null]", "element 2"},
                 {"[1, 2, 3", "not JSON"},
                 {"", "not JSON"},
                 {"[NaN, 2, 3]", "not JSON"},
                 {"[1, 3.41e38, 3]", "element 1 is 3.41e+38"},
                 {"[-1e39, 2, 3]", "element 0 is -1e+39"},
                 {"{\"z\": [1, 2, 3], \"z\": [1, 2, 3]}", "not JSON"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float z[3];
        elbo_error error;
        assert_int_equal(parse(z, cases[i].text, &error), ELBO_INPUT);
        if (!strstr(error.message, cases[i].part) || !strstr(error.message, "line 7"))
            fail_msg("%s: '%s' does not say '%s' and the line", cases[i].text, error.message, cases[i].part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(three_forms), cmocka_unit_test(the_largest_f32_is_taken),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
