/* Tests the names that a manifest may hold, that a refused manifest is left empty, and checksums without memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "counted_memory.h"

#include "checkpoint/manifest.h"

static void names_in_a_manifest(void **state)
{
    (void)state;
    char longest[MANIFEST_MOST_NAME + 2] = "";
    static const char *const good[] = {"a",   "a/b", "model.safetensors", "state/optimizer-0-of-3.safetensors",
                                       "-_.", "9",   "README.A-Z"};
    static const char *const bad[] = {"",     "/",    "/a",  "a/",  "a/b/c",    "..",  "../a",
                                      "a/..", "a//b", "a b", "a\n", "\xc3\xa9", "a\\b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!manifest_name_is_good(good[i])) fail_msg("%s is refused", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (manifest_name_is_good(bad[i])) fail_msg("%s is taken", bad[i]);
    memset(longest, 'a', MANIFEST_MOST_NAME);
    assert_true(manifest_name_is_good(longest));
    longest[MANIFEST_MOST_NAME] = 'a';
    assert_false(manifest_name_is_good(longest));
}

/* Parsing that fails leaves the manifest empty, whatever it held. */
static void a_refused_manifest_is_empty(void **state)
{
    (void)state;
    elbo_error error = {0};
    struct manifest manifest;
    memset(&manifest, 0x55, sizeof manifest);
    assert_int_equal(manifest_parse(&manifest, "{}", 2, &error), ELBO_INPUT);
    assert_true(!manifest.count && !manifest.files && !manifest.owner);
}

static void checksums_without_memory(void **state)
{
    (void)state;
    if (!COUNTED) skip();
    bool over = false;
    for (long which = 1; !over; which++) {
        long before = atomic_load(&memory_held);
        struct checksums *sums = NULL;
        elbo_error error = {0};
        atomic_store(&memory_until, which);
        elbo_status status = checksums_begin(&sums, &error);
        over = atomic_exchange(&memory_until, 0) > 0;
        assert_int_equal(status, over ? ELBO_OK : ELBO_MEMORY);
        if (over) checksums_abort(sums);
        assert_int_equal(atomic_load(&memory_held), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_in_a_manifest),
                                       cmocka_unit_test(a_refused_manifest_is_empty),
                                       cmocka_unit_test(checksums_without_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
