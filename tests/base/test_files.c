/* Tests that files are read whole or refused with a reason, and that a write leaves the old file or the new one, never
 * a part. */
#include "base/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "temporary.h"

struct fixture {
    struct temporary folder;
    char a[512], b[512];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->folder = temporary_open();
    temporary_path(f->a, &f->folder, "a");
    temporary_path(f->b, &f->folder, "b");
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

static size_t entries(const char *path)
{
    size_t count = 0;
    DIR *folder = opendir(path);
    while (readdir(folder)) count++;
    closedir(folder);
    return count - 2;
}

static void reads_what_was_written(void **state)
{
    struct fixture *f = *state;
    elbo_error error = {0};
    size_t size = 700001, got; /* longer than a buffer, and not a multiple of one */
    unsigned char *data = malloc(size);
    for (size_t i = 0; i < size; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
    assert_int_equal(file_write(f->a, data, size, &error), ELBO_OK);
    char *text;
    assert_int_equal(file_read(&text, &got, f->a, size, &error), ELBO_OK);
    assert_int_equal(got, size);
    assert_memory_equal(text, data, size);
    assert_int_equal(text[size], 0);
    int fd;
    assert_int_equal(file_open_regular(&fd, &got, f->a, &error), ELBO_OK);
    assert_int_equal(got, size);
    memset(text, 0, size);
    assert_int_equal(file_read_at(fd, text, size - 1000, 1000, f->a, &error), ELBO_OK);
    assert_memory_equal(text, data + 1000, size - 1000);
    assert_int_equal(file_read_at(fd, text, 1000, size - 999, f->a, &error), ELBO_INPUT); /* one byte past the end */
    assert_non_null(strstr(error.message, "became shorter"));
    assert_non_null(strstr(error.message, f->a));
    close(fd);
    assert_int_equal(entries(f->folder.path), 1); /* no temporary file is left */
    free(text);
    free(data);
}

static void pieces_and_patches(void **state)
{
    struct fixture *f = *state;
    elbo_error error = {0};
    struct file_writer writer;
    assert_int_equal(file_create(&writer, f->a, &error), ELBO_OK);
    assert_int_equal(file_append(&writer, "....", 4, &error), ELBO_OK);
    for (int i = 0; i < 100000; i++) assert_int_equal(file_append(&writer, "0123456789", 10, &error), ELBO_OK);
    assert_int_equal(file_patch(&writer, 0, "head", 4, &error), ELBO_OK);
    assert_int_equal(file_append(&writer, "end", 3, &error), ELBO_OK);
    assert_int_equal(file_patch(&writer, 1000005, "xx", 3, &error), ELBO_INTERNAL); /* past the end */
    assert_int_equal(file_commit(&writer, &error), ELBO_OK);
    file_abort(&writer);
    size_t size;
    char *text = temporary_read(f->a, &size);
    assert_int_equal(size, 1000007);
    assert_memory_equal(text, "head0123456789", 14);
    assert_memory_equal(text + size - 4, "9end", 4);
    free(text);
}

static void an_abandoned_write_leaves_the_old_file(void **state)
{
    struct fixture *f = *state;
    elbo_error error = {0};
    assert_int_equal(file_write(f->a, "old", 3, &error), ELBO_OK);
    struct file_writer writer;
    assert_int_equal(file_replace(&writer, f->a, &error), ELBO_OK);
    assert_int_equal(file_append(&writer, "new", 3, &error), ELBO_OK);
    file_abort(&writer);
    size_t size;
    char *text = temporary_read(f->a, &size);
    assert_string_equal(text, "old");
    free(text);
    assert_int_equal(entries(f->folder.path), 1);
    assert_int_equal(file_write(f->a, "new", 3, &error), ELBO_OK);
    text = temporary_read(f->a, &size);
    assert_string_equal(text, "new");
    free(text);
}

static void a_new_file_must_be_new(void **state)
{
    struct fixture *f = *state;
    elbo_error error = {0};
    assert_int_equal(file_write_new(f->a, "1", 1, &error), ELBO_OK);
    assert_int_equal(file_write_new(f->a, "2", 1, &error), ELBO_IO);
    assert_non_null(strstr(error.message, f->a));
    /* A link is not followed, even if it dangles. */
    assert_int_equal(symlink("nowhere", f->b), 0);
    assert_int_equal(file_write_new(f->b, "2", 1, &error), ELBO_IO);
    assert_int_equal(entries(f->folder.path), 2);
}

static void refusals_name_the_path(void **state)
{
    struct fixture *f = *state;
    elbo_error error = {0};
    char *text;
    size_t size;
    int fd;
    assert_int_equal(file_read(&text, &size, f->a, 100, &error), ELBO_IO);
    assert_non_null(strstr(error.message, f->a));
    assert_non_null(strstr(error.message, "No such file"));
    assert_int_equal(file_read(&text, &size, f->folder.path, 100, &error), ELBO_IO);
    assert_non_null(strstr(error.message, "a folder"));
    assert_int_equal(mkfifo(f->b, 0600), 0);
    assert_int_equal(file_open_regular(&fd, &size, f->b, &error), ELBO_IO); /* must not wait for a writer */
    assert_non_null(strstr(error.message, "pipe"));
    temporary_write(f->a, "12345", 5);
    assert_int_equal(file_read(&text, &size, f->a, 4, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "at most 4"));
    temporary_write(f->a, "", 0);
    assert_int_equal(file_open_regular(&fd, &size, f->a, &error), ELBO_OK);
    assert_int_equal(size, 0);
    close(fd);
    struct file_writer writer;
    assert_int_equal(file_replace(&writer, "/proc/no/such/folder/file", &error), ELBO_IO);
    char joined[FILES_PATH], *endless = malloc(2 * FILES_PATH);
    memset(endless, 'x', 2 * FILES_PATH - 1);
    endless[2 * FILES_PATH - 1] = 0;
    assert_int_equal(file_join(joined, endless, "b", &error), ELBO_IO);
    assert_int_equal(file_replace(&writer, endless, &error), ELBO_IO);
    free(endless);
}

static void folders_come_and_go(void **state)
{
    struct fixture *f = *state;
    elbo_error error = {0};
    char deep[512], inside[512], joined[FILES_PATH];
    temporary_path(deep, &f->folder, "x/y/z");
    assert_int_equal(file_make_folder(deep, &error), ELBO_OK);
    assert_int_equal(file_make_folder(deep, &error), ELBO_OK);
    assert_true(file_is_folder(deep));
    temporary_path(inside, &f->folder, "x/y/z/file");
    temporary_write(inside, "1", 1);
    assert_int_equal(file_make_folder(inside, &error), ELBO_IO);
    assert_int_equal(file_join(joined, deep, "file", &error), ELBO_OK);
    assert_string_equal(joined, inside);
    temporary_path(joined, &f->folder, "x/y");
    assert_int_equal(file_remove_folder(joined, &error), ELBO_IO); /* it holds a folder */
    assert_true(file_is_regular(inside));
    assert_int_equal(file_remove_folder(deep, &error), ELBO_OK);
    assert_false(file_is_folder(deep));
    assert_int_equal(file_remove_folder(deep, &error), ELBO_OK);
    assert_int_equal(file_remove(inside, &error), ELBO_OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(reads_what_was_written), TEST(pieces_and_patches),     TEST(an_abandoned_write_leaves_the_old_file),
        TEST(a_new_file_must_be_new), TEST(refusals_name_the_path), TEST(folders_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
