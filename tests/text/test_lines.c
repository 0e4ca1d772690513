/* Lines follow the bytes at every length and block border. A file that shrinks or changes in a pass or between passes
 * is an error that names it. Many files are read without being open at once. */
#include "text/lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "temporary.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>

struct fixture {
    struct temporary folder;
    char path[512];
    elbo_error error;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->folder = temporary_open();
    temporary_path(f->path, &f->folder, "text.txt");
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

/* Makes lines of these lengths, the last without a line end. */
static char *make(const size_t *lengths, size_t count, size_t *size)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += lengths[i] + 1;
    char *text = malloc(total), *end = text;
    for (size_t i = 0; i < count; i++) {
        memset(end, 'a' + (int)(i % 26), lengths[i]);
        end += lengths[i];
        *end++ = '\n';
    }
    *size = total - 1;
    return text;
}

static void every_length(void **state)
{
    struct fixture *f = *state;
    enum { BLOCK = 1 << 18 };
    const size_t lengths[] = {0, 1, BLOCK - 5, 3, BLOCK, 0, BLOCK - 1, 7, BLOCK + 1, 3 * BLOCK, 2, 9 * BLOCK + 11, 1};
    enum { COUNT = sizeof lengths / sizeof *lengths };
    size_t size;
    char *text = make(lengths, COUNT, &size);
    temporary_write(f->path, text, size);
    for (int memory = 0; memory < 2; memory++) {
        struct line_source source;
        if (memory)
            line_source_memory(&source, "memory", text, size);
        else if (line_source_open(&source, f->path, &f->error))
            fail_msg("%s", f->error.message);
        for (int pass = 0; pass < 2; pass++) {
            struct line line;
            bool more;
            line_source_rewind(&source);
            for (size_t i = 0; i < COUNT; i++) {
                if (line_next(&more, &line, &source, &f->error)) fail_msg("%s", f->error.message);
                assert_true(more);
                assert_int_equal(line.size, lengths[i]);
                assert_int_equal(line.number, i + 1);
                for (size_t b = 0; b < line.size; b++)
                    if (line.text[b] != 'a' + (int)(i % 26)) fail_msg("line %zu has another byte at %zu", i, b);
            }
            for (int again = 0; again < 2; again++) {
                assert_int_equal(line_next(&more, &line, &source, &f->error), ELBO_OK);
                assert_false(more);
            }
        }
        line_source_close(&source);
    }
    free(text);
}

static void ends_and_marks(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "\xef\xbb\xbf"
                               "one\r\n\r\r\ntwo\rthree\n\0x\n\xef\xbb\xbflast";
    static const char *const wanted[] = {"one", "", "two\rthree", "\0x", "\xef\xbb\xbflast"};
    static const size_t sizes[] = {3, 0, 9, 2, 7};
    struct line_source source;
    struct line line;
    bool more;
    temporary_write(f->path, text, sizeof text - 1);
    if (line_source_open(&source, f->path, &f->error)) fail_msg("%s", f->error.message);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(line_next(&more, &line, &source, &f->error), ELBO_OK);
        assert_int_equal(line.size, sizes[i]);
        assert_memory_equal(line.text, wanted[i], sizes[i]);
    }
    line_source_close(&source);
}

enum { LINES = 100000 };

static void write_lines(const struct fixture *f, char letter)
{
    char *text = malloc(LINES * 10);
    for (int i = 0; i < LINES; i++) {
        memset(text + 10 * i, letter, 9);
        text[10 * i + 9] = '\n';
    }
    temporary_write(f->path, text, LINES * 10);
    free(text);
}

/* Reads a pass, and calls `middle` in its middle. */
static elbo_status pass(struct fixture *f, struct line_source *source, void (*middle)(struct fixture *f))
{
    struct line line;
    bool more = true;
    line_source_rewind(source);
    for (int i = 0; more; i++) {
        if (i == LINES / 2 && middle) middle(f);
        ELBO_TRY(line_next(&more, &line, source, &f->error));
    }
    return ELBO_OK;
}

static void shrink(struct fixture *f)
{
    if (truncate(f->path, 1000)) abort();
}

static void empty(struct fixture *f)
{
    if (truncate(f->path, 0)) abort();
}

static void overwrite(struct fixture *f)
{
    write_lines(f, 'z');
}

static void a_file_that_changes_is_an_error(void **state)
{
    struct fixture *f = *state;
    void (*const changes[])(struct fixture *) = {shrink, empty, overwrite};
    for (size_t i = 0; i < 3; i++)
        for (int within = 0; within < 2; within++) {
            struct line_source source;
            write_lines(f, 'a');
            if (line_source_open(&source, f->path, &f->error)) fail_msg("%s", f->error.message);
            assert_int_equal(pass(f, &source, NULL), ELBO_OK);
            if (!within) changes[i](f);
            assert_int_equal(pass(f, &source, within ? changes[i] : NULL), ELBO_INPUT);
            assert_non_null(strstr(f->error.message, f->path));
            assert_non_null(strstr(f->error.message, i < 2 ? "became shorter" : "changed while it was read"));
            line_source_close(&source);
        }
    /* appended lines are not read in this run */
    struct line_source source;
    write_lines(f, 'a');
    if (line_source_open(&source, f->path, &f->error)) fail_msg("%s", f->error.message);
    FILE *file = fopen(f->path, "ab");
    fputs("more\n", file);
    fclose(file);
    assert_int_equal(pass(f, &source, NULL), ELBO_OK);
    assert_int_equal(source.number, LINES);
    line_source_close(&source);
}

static void more_files_than_may_be_open(void **state)
{
    struct fixture *f = *state;
    enum { FILES = 200 };
    static struct line_source sources[FILES];
    struct rlimit limit, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = 40;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    temporary_write(f->path, "a line\n", 7);
    for (int i = 0; i < FILES; i++)
        if (line_source_open(&sources[i], f->path, &f->error)) fail_msg("%s", f->error.message);
    for (int i = 0; i < FILES; i++)
        if (pass(f, &sources[i], NULL)) fail_msg("%s", f->error.message);
    for (int i = 0; i < FILES; i++) line_source_close(&sources[i]);
    setrlimit(RLIMIT_NOFILE, &limit);
}

static size_t open_files(void)
{
    DIR *list = opendir("/proc/self/fd");
    size_t count = 0;
    while (readdir(list)) count++;
    closedir(list);
    return count;
}

/* A pipe is read once and kept. All opened files are closed, and standard input is left open. */
static void a_pipe_is_read_once(void **state)
{
    struct fixture *f = *state;
    size_t files = open_files();
    int input = dup(STDIN_FILENO);
    for (int standard = 0; standard < 2; standard++) {
        int ends[2];
        char path[64];
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(write(ends[1], "one\ntwo\n", 8), 8);
        close(ends[1]);
        if (standard) dup2(ends[0], STDIN_FILENO);
        snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
        struct line_source source;
        if (line_source_open(&source, standard ? "-" : path, &f->error)) fail_msg("%s", f->error.message);
        close(ends[0]);
        for (int again = 0; again < 2; again++) {
            struct line line;
            bool more;
            line_source_rewind(&source);
            for (size_t i = 0; i < 2; i++) {
                assert_int_equal(line_next(&more, &line, &source, &f->error), ELBO_OK);
                assert_true(more && line.size == 3 && line.number == i + 1);
            }
            assert_int_equal(line_next(&more, &line, &source, &f->error), ELBO_OK);
            assert_false(more);
        }
        line_source_close(&source);
        assert_int_equal(open_files(), files + 1);
        assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
    }
    dup2(input, STDIN_FILENO);
    close(input);
    assert_int_equal(open_files(), files);
}

/* Opening checks the kind of a file if it can be read. */
static void what_is_no_text_is_not_opened(void **state)
{
    struct fixture *f = *state;
    struct line_source source;
    temporary_write(f->path, "\x1f\x8b\x08\0\0\0\0\0\0\3", 10);
    assert_int_equal(line_source_open(&source, f->path, &f->error), ELBO_INPUT);
    assert_non_null(strstr(f->error.message, "gzip"));
    temporary_write(f->path, "", 0);
    assert_int_equal(line_source_open(&source, f->path, &f->error), ELBO_INPUT);
    assert_non_null(strstr(f->error.message, "is empty"));
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(line_source_open(&source, f->path, &f->error), ELBO_IO);
    assert_non_null(strstr(f->error.message, f->path));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_length),
        TEST(ends_and_marks),
        TEST(a_file_that_changes_is_an_error),
        TEST(more_files_than_may_be_open),
        TEST(a_pipe_is_read_once),
        TEST(what_is_no_text_is_not_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
