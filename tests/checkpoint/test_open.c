/* Tests opening: a file of one byte, and a link in the place of a checkpoint, which the warning must name as a link. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "temporary.h"

#include "checkpoint/checkpoint.h"

#include <unistd.h>

static void note(void *context, const char *message)
{
    snprintf(context, 1024, "%s", message);
}

static void a_link_is_no_checkpoint(void **state)
{
    (void)state;
    struct temporary folder = temporary_open();
    char path[512], moved[512], warning[1024] = "";
    elbo_error error = {0};
    const struct checkpoint_file file = {.name = "byte", .bytes = "x", .size = 1};
    struct checkpoint_contents contents = {.config_hash = "", .files = &file, .file_count = 1};
    struct checkpoint *checkpoint = NULL;
    for (contents.step = 1; contents.step < 3; contents.step++)
        if (checkpoint_save(folder.path, &contents, 0, &error)) fail_msg("%s", error.message);
    temporary_path(path, &folder, "checkpoints/step-00000002");
    temporary_path(moved, &folder, "elsewhere");
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(symlink(moved, path), 0);
    if (checkpoint_open(&checkpoint, folder.path, note, warning, &error)) fail_msg("%s", error.message);
    assert_int_equal(checkpoint_step(checkpoint), 1);
    assert_non_null(strstr(warning, "step-00000002 is not a folder (symbolic links are not followed)"));
    const void *bytes;
    size_t size;
    assert_int_equal(checkpoint_bytes(&bytes, &size, checkpoint, "byte", &error), ELBO_OK);
    assert_true(size == 1 && *(const char *)bytes == 'x');
    checkpoint_close(checkpoint);
    temporary_remove(folder.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_link_is_no_checkpoint)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
