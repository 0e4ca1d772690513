/* Tests that a staged folder replaces its place whole, with and without an atomic exchange of the system,
 * whichever process dies; that leftovers are cleared; and that a place that cannot be replaced whole is refused
 * without a change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/stage.h"
#include "temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- the system's renames, which can refuse the exchange or end the process ---- */

static struct {
    bool no_exchange;
    int die_before; /* the process ends instead of this rename, counted from 1; 0: never */
    int seen;
} renames;

static int rename_call(const char *from, const char *to, unsigned flags)
{
    if (renames.no_exchange && flags & RENAME_EXCHANGE) {
        errno = EINVAL;
        return -1;
    }
    if (++renames.seen == renames.die_before) _exit(77);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

int renameat2(int from, const char *a, int to, const char *b, unsigned flags)
{
    (void)from, (void)to;
    return rename_call(a, b, flags);
}

int rename(const char *a, const char *b)
{
    return rename_call(a, b, 0);
}

/* ---- the fixture ---- */

struct fixture {
    struct temporary folder;
    char place[512];
    elbo_error error;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->folder = temporary_open();
    temporary_path(f->place, &f->folder, "place");
    memset(&renames, 0, sizeof renames);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    temporary_remove(f->folder.path);
    free(f);
    return 0;
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[2 * FILES_PATH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    temporary_write(path, text, strlen(text));
}

/* Builds a folder of two files with the same text, one of them in a subfolder, so that a mix of two folders shows. */
static elbo_status build(const char *place, const char *text, elbo_error *error)
{
    static struct stage stage;
    char sub[FILES_PATH + 16];
    ELBO_TRY(stage_open(&stage, place, error));
    put(stage.work, "a", text);
    snprintf(sub, sizeof sub, "%s/sub", stage.work);
    if (mkdir(sub, 0777)) abort();
    put(sub, "b", text);
    elbo_status status = stage_commit(&stage, error);
    stage_close(&stage);
    return status;
}

static bool holds(const char *place, const char *text)
{
    const char *const names[] = {"a", "sub/b"};
    for (int i = 0; i < 2; i++) {
        char path[FILES_PATH];
        size_t size;
        snprintf(path, sizeof path, "%s/%s", place, names[i]);
        if (!file_is_regular(path)) return false;
        char *found = temporary_read(path, &size);
        bool same = !strcmp(found, text);
        free(found);
        if (!same) return false;
    }
    return true;
}

/* Fails when the parent holds an entry besides `place`. */
static void nothing_beside(const struct fixture *f)
{
    DIR *list = opendir(f->folder.path);
    for (struct dirent *entry; (entry = readdir(list));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && strcmp(entry->d_name, "place"))
            fail_msg("%s is left", entry->d_name);
    closedir(list);
}

static void built_and_replaced(void **state)
{
    struct fixture *f = *state;
    const char *const texts[] = {"one", "two", "three"};
    for (int exchange = 1; exchange >= 0; exchange--) {
        renames.no_exchange = !exchange;
        for (int i = 0; i < 3; i++) {
            if (build(f->place, texts[i], &f->error)) fail_msg("%s", f->error.message);
            assert_true(holds(f->place, texts[i]));
            nothing_beside(f);
        }
    }
}

/* After a death at any rename, the place holds one of the two folders whole; without an exchange the next process may
 * have to put the folder back. */
static void a_death_leaves_one_whole(void **state)
{
    struct fixture *f = *state;
    for (int exchange = 0; exchange < 2; exchange++)
        for (int at = 1; at <= (exchange ? 1 : 2); at++) {
            renames.no_exchange = !exchange;
            renames.die_before = 0;
            if (build(f->place, "old", &f->error)) fail_msg("%s", f->error.message);
            pid_t child = fork();
            if (!child) {
                renames.seen = 0;
                renames.die_before = at;
                build(f->place, "new", &f->error);
                _exit(1);
            }
            int how;
            assert_int_equal(waitpid(child, &how, 0), child);
            assert_int_equal(WEXITSTATUS(how), 77);
            struct stage stage;
            if (at == 1) assert_true(holds(f->place, "old"));
            if (stage_open(&stage, f->place, &f->error)) fail_msg("%s", f->error.message);
            assert_true(holds(f->place, "old")); /* put back if it had been moved aside */
            stage_close(&stage);
            assert_true(holds(f->place, "old"));
            nothing_beside(f);
        }
}

static void one_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct stage stage, second;
    if (stage_open(&stage, f->place, &f->error)) fail_msg("%s", f->error.message);
    assert_int_equal(stage_open(&second, f->place, &f->error), ELBO_BUSY);
    assert_non_null(strstr(f->error.message, "another process"));
    assert_non_null(strstr(f->error.message, f->place));
    stage_close(&second);
    assert_true(file_is_folder(stage.work)); /* the second open has changed nothing */
    stage_close(&stage);
    if (stage_open(&second, f->place, &f->error)) fail_msg("%s", f->error.message);
    stage_close(&second);
    assert_false(file_is_folder(f->place));
    assert_int_equal(build(f->place, "x", &f->error), ELBO_OK);
    nothing_beside(f);
}

static void what_cannot_be_replaced_is_refused(void **state)
{
    struct fixture *f = *state;
    char place[FILES_PATH], link[512], file[512], inside[600];
    temporary_path(link, &f->folder, "link");
    temporary_path(file, &f->folder, "file");
    put(f->folder.path, "file", "text");
    assert_int_equal(stage_place(place, file, &f->error), ELBO_IO);
    snprintf(inside, sizeof inside, "%s/corpus", file);
    assert_int_equal(build(inside, "x", &f->error), ELBO_IO);
    assert_int_equal(symlink(f->place, link), 0);
    assert_int_equal(stage_place(place, link, &f->error), ELBO_USAGE);
    assert_non_null(strstr(f->error.message, "link to nothing"));
    static const char *const never[] = {"/", "/proc", ".", "./", "", "nowhere/.."};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (stage_place(place, never[i], &f->error) != ELBO_USAGE) fail_msg("'%s' is accepted", never[i]);
    /* The current folder and its parents are refused. */
    char *home = getcwd(NULL, 0), deep[600];
    if (build(f->place, "x", &f->error)) fail_msg("%s", f->error.message);
    snprintf(deep, sizeof deep, "%s/sub", f->place);
    assert_int_equal(chdir(deep), 0);
    const char *const above[] = {"..", f->place, deep, "../..", "../../place"};
    for (size_t i = 0; i < sizeof above / sizeof *above; i++) {
        if (stage_place(place, above[i], &f->error) != ELBO_USAGE) fail_msg("'%s' is accepted", above[i]);
        assert_non_null(strstr(f->error.message, "the current folder"));
    }
    assert_int_equal(stage_place(place, "../other", &f->error), ELBO_OK);
    assert_int_equal(chdir(home), 0);
    free(home);
}

/* A link stays and names the new folder; extra slashes and missing parents do not matter; modes follow the umask. */
static void places_by_other_names(void **state)
{
    struct fixture *f = *state;
    char link[512], slashes[600], deep[600];
    struct stat about;
    mode_t mask = umask(027);
    temporary_path(link, &f->folder, "link");
    snprintf(slashes, sizeof slashes, "%s//", f->place);
    if (build(slashes, "one", &f->error)) fail_msg("%s", f->error.message);
    assert_true(holds(f->place, "one"));
    assert_int_equal(symlink("place", link), 0);
    if (build(link, "two", &f->error)) fail_msg("%s", f->error.message);
    assert_true(holds(f->place, "two"));
    assert_int_equal(lstat(link, &about), 0);
    assert_true(S_ISLNK(about.st_mode));
    unlink(link);
    nothing_beside(f);
    assert_int_equal(stat(f->place, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0750);
    snprintf(deep, sizeof deep, "%s/x/y", f->folder.path);
    if (build(deep, "three", &f->error)) fail_msg("%s", f->error.message);
    assert_true(holds(deep, "three"));
    umask(mask);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(built_and_replaced),    TEST(a_death_leaves_one_whole),
        TEST(one_at_a_time),         TEST(what_cannot_be_replaced_is_refused),
        TEST(places_by_other_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
