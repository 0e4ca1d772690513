/* Tests small saves: one byte of step 0, the steps that are kept, leftovers that cannot be cleared, and a list of steps
 * without memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "counted_memory.h"
#include "temporary.h"

#include "checkpoint/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct temporary folder;
static unsigned runs;

static int setup(void **state)
{
    (void)state;
    folder = temporary_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temporary_remove(folder.path);
    return 0;
}

static const char *inside(const char *name)
{
    static char path[512];
    char full[256];
    snprintf(full, sizeof full, "run-%u/%s", runs, name);
    return temporary_path(path, &folder, full);
}

static const char *run_dir(void)
{
    static char path[512];
    runs++;
    snprintf(path, sizeof path, "%s", inside(""));
    path[strlen(path) - 1] = 0;
    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

static bool exists(const char *name)
{
    struct stat about;
    return lstat(inside(name), &about) == 0;
}

static elbo_status save_step(const char *run, uint64_t step, size_t keep, elbo_error *error)
{
    const struct checkpoint_file file = {.name = "byte", .bytes = "x", .size = 1};
    const struct checkpoint_contents contents = {.step = step, .config_hash = "", .files = &file, .file_count = 1};
    return checkpoint_save(run, &contents, keep, error);
}

/* Saves a file of one byte at step 0, which cannot be the best step. */
static void the_smallest_checkpoint(void **state)
{
    (void)state;
    const char *run = run_dir();
    const struct checkpoint_file file = {.name = "byte", .bytes = "x", .size = 1};
    struct checkpoint *checkpoint = NULL;
    elbo_error error = {0};
    const void *bytes;
    size_t size;
    if (checkpoint_save(run, &(struct checkpoint_contents){.config_hash = "", .files = &file, .file_count = 1}, 1,
                        &error) ||
        checkpoint_open(&checkpoint, run, NULL, NULL, &error) ||
        checkpoint_bytes(&bytes, &size, checkpoint, "byte", &error))
        fail_msg("%s", error.message);
    assert_true(checkpoint_step(checkpoint) == 0 && size == 1 && *(const char *)bytes == 'x');
    assert_false(exists("checkpoints/best"));
    checkpoint_close(checkpoint);
}

/* A folder that is nested too deeply is not elbo's, so the save must fail and name it. */
static void what_cannot_be_cleared_is_named(void **state)
{
    char name[64];
    (void)state;
    const char *run = run_dir();
    elbo_error error = {0};
    assert_int_equal(mkdir(inside("checkpoints"), 0700), 0);
    assert_int_equal(mkdir(inside("checkpoints/step-00000006.tmp"), 0700), 0);
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "checkpoints/step-00000006.tmp/%d", i);
        assert_int_equal(mkdir(inside(name), 0700), 0);
    }
    assert_int_equal(mkdir(inside("checkpoints/step-00000006.tmp/20/deep"), 0700), 0);
    assert_int_not_equal(save_step(run, 7, 0, &error), ELBO_OK);
    assert_non_null(strstr(error.message, "/20/deep"));
}

static void as_many_stay_as_are_kept(void **state)
{
    (void)state;
    for (size_t keep = 0; keep < 4; keep++) {
        const char *run = run_dir();
        elbo_error error = {0};
        for (uint64_t step = 1; step <= 5; step++)
            if (save_step(run, step, keep, &error)) fail_msg("%s", error.message);
        size_t left = 0;
        for (uint64_t step = 1; step <= 5; step++) {
            char name[CHECKPOINT_NAME + 16] = "checkpoints/";
            checkpoint_name(name + strlen(name), step);
            left += exists(name);
        }
        assert_int_equal(left, keep ? keep : 5);
    }
}

static size_t open_files(void)
{
    size_t count = 0;
    for (int i = 0; i < 256; i++) count += fcntl(i, F_GETFD) >= 0;
    return count;
}

static void a_list_without_memory(void **state)
{
    (void)state;
    if (!COUNTED) skip();
    elbo_error error = {0};
    assert_int_equal(save_step(run_dir(), 1, 0, &error), ELBO_OK);
    bool over = false;
    for (long which = 1; !over; which++) {
        long before = atomic_load(&memory_held);
        size_t files = open_files(), count;
        uint64_t *steps = NULL;
        atomic_store(&memory_until, which);
        elbo_status status = checkpoint_list(&steps, &count, inside("checkpoints"), &error);
        over = atomic_exchange(&memory_until, 0) > 0;
        assert_true(over == !status);
        free(steps);
        assert_int_equal(open_files(), files);
        assert_int_equal(atomic_load(&memory_held), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_checkpoint), cmocka_unit_test(what_cannot_be_cleared_is_named),
        cmocka_unit_test(as_many_stay_as_are_kept), cmocka_unit_test(a_list_without_memory)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
