/* Tests .npy: numpy.load reads the written file (when NumPy is installed), the reader reads it back, and headers that
 * lie are refused. */
#include "formats/npy.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static elbo_status append(void *context, const void *bytes, size_t size, elbo_error *error)
{
    (void)error;
    struct npy *buffer = context; /* rows: bytes so far */
    char *grown = realloc((void *)buffer->data, buffer->rows + size + 1);
    assert_non_null(grown);
    if (size) memcpy(grown + buffer->rows, bytes, size);
    buffer->data = grown;
    buffer->rows += size;
    return ELBO_OK;
}

static void round_trip(void **state)
{
    (void)state;
    const float data[6] = {1, 2, 3, 4, -5, 6.5f};
    const size_t shapes[][2] = {{2, 3}, {6, 1}, {0, 3}, {1, 6}};
    for (size_t i = 0; i < 4; i++) {
        struct npy buffer = {0}, read = {0};
        elbo_error error = {0};
        assert_int_equal(npy_write(&(struct sink){append, &buffer}, data, shapes[i][0], shapes[i][1], &error), ELBO_OK);
        assert_int_equal((buffer.rows - 4 * shapes[i][0] * shapes[i][1]) % 64, 0);
        assert_int_equal(npy_parse(&read, buffer.data, buffer.rows, &error), ELBO_OK);
        assert_int_equal(read.rows, shapes[i][0]);
        assert_int_equal(read.width, shapes[i][1]);
        if (read.rows) assert_memory_equal(read.data, data, 4 * read.rows * read.width);
        for (size_t size = 0; size < buffer.rows; size++) { /* every truncation */
            char *copy = malloc(size + 1);
            assert_non_null(copy);
            memcpy(copy, buffer.data, size);
            assert_int_equal(npy_parse(&read, copy, size, &error), ELBO_INPUT);
            free(copy);
        }
        free((void *)buffer.data);
    }
}

static void numpy_reads_it(void **state)
{
    (void)state;
    if (system("/usr/bin/python3 -c 'import numpy' 2>/dev/null")) skip();
    char path[] = "/tmp/elbo-npy-XXXXXX", command[256];
    struct sink_fd target = {mkstemp(path), path};
    assert_true(target.fd >= 0);
    const float data[6] = {1, 2, 3, 4, -5, 6.5f};
    elbo_error error = {0};
    struct sink sink = sink_to_fd(&target);
    assert_int_equal(npy_write(&sink, data, 2, 3, &error), ELBO_OK);
    assert_int_equal(close(target.fd), 0);
    snprintf(command, sizeof command,
             "/usr/bin/python3 -c \"import numpy; assert numpy.load('%s').tolist() == [[1, 2, 3], [4, -5, 6.5]]\"",
             path);
    assert_int_equal(system(command), 0);
    unlink(path);
}

static elbo_status parse_text(const char *dictionary, size_t data, elbo_error *error)
{
    size_t length = strlen(dictionary), size = 10 + length + data;
    unsigned char *bytes = calloc(size, 1);
    assert_non_null(bytes);
    memcpy(bytes, "\x93NUMPY\x01", 7);
    bytes[8] = (unsigned char)length;
    memcpy(bytes + 10, dictionary, length);
    struct npy out;
    elbo_status status = npy_parse(&out, bytes, size, error);
    free(bytes);
    return status;
}

static void headers_that_lie_are_refused(void **state)
{
    (void)state;
    elbo_error error = {0};
    assert_int_equal(parse_text("{'fortran_order': False, 'shape': (2,), 'descr': '<f4'}\n", 8, &error), ELBO_OK);
    const char *bad[] = {
        "",
        "{",
        "{}",
        "{'descr': '<f4'}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse_text(bad[i], 8, &error) != ELBO_INPUT) fail_msg("accepted: %s", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(numpy_reads_it),
        cmocka_unit_test(headers_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
