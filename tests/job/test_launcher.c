/* Tests the launcher's small parts: a heartbeat is written only where the launcher listens and never blocks a rank;
 * lines come out whole, whatever pieces they arrive in. tests/cli/launch.bats tests the launcher itself. */
#include "job/heartbeat.h"
#include "job/prefix.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static void listen_at(int fd)
{
    char number[16];
    snprintf(number, sizeof number, "%d", fd);
    setenv("ELBO_HEARTBEAT_FD", number, 1);
}

static void a_beat_is_a_byte(void **state)
{
    (void)state;
    int pair[2];
    char bytes[8];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    listen_at(pair[1]);
    for (int i = 0; i < 3; i++) launcher_heartbeat();
    assert_int_equal(recv(pair[0], bytes, sizeof bytes, MSG_DONTWAIT), 3);
    for (int i = 0; i < 100000; i++) launcher_heartbeat(); /* nobody reads: must not block */
    close(pair[0]);
    launcher_heartbeat(); /* the reader is closed: must not die */
    close(pair[1]);
    launcher_heartbeat();
    unsetenv("ELBO_HEARTBEAT_FD");
    launcher_heartbeat();
}

static void other_descriptors_are_not_written_to(void **state)
{
    (void)state;
    char path[] = "/tmp/elbo-beat-XXXXXX";
    int file = mkstemp(path);
    listen_at(file);
    launcher_heartbeat();
    assert_int_equal(lseek(file, 0, SEEK_END), 0);
    close(file);
    unlink(path);
    static const char *const garbage[] = {"", "-1", "x", "1x", "99999999999999999999", " ", "0.5", "2147483647"};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        setenv("ELBO_HEARTBEAT_FD", garbage[i], 1);
        launcher_heartbeat();
    }
    unsetenv("ELBO_HEARTBEAT_FD");
}

/* Writes `text` in pieces of `piece` bytes and returns the output. */
static char *through_prefix(const char *text, size_t size, size_t piece, bool end)
{
    static struct prefix prefix;
    static char out[1 << 17];
    int in[2], through[2];
    size_t got = 0;
    prefix = (struct prefix){.rank = 7};
    assert_int_equal(pipe2(in, O_NONBLOCK), 0);
    assert_int_equal(pipe2(through, O_NONBLOCK), 0);
    fcntl(through[1], F_SETPIPE_SZ, sizeof out);
    for (size_t at = 0; at < size; at += piece) {
        size_t n = at + piece < size ? piece : size - at;
        assert_int_equal(write(in[1], text + at, n), n);
        assert_true(prefix_copy(&prefix, in[0], through[1]));
    }
    close(in[1]);
    if (end) assert_false(prefix_copy(&prefix, in[0], through[1]));
    for (ssize_t n; (n = read(through[0], out + got, sizeof out - 1 - got)) > 0;) got += (size_t)n;
    out[got] = 0;
    close(in[0]);
    close(through[0]);
    close(through[1]);
    return out;
}

static void lines_come_out_whole(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 9; piece++) {
        assert_string_equal(through_prefix("one\n\ntwo\nrest", 13, piece, true), "[7] one\n[7] \n[7] two\n[7] rest\n");
        assert_string_equal(through_prefix("one\nrest", 8, piece, false), "[7] one\n"); /* the rest may still come */
    }
    assert_string_equal(through_prefix("", 0, 1, true), "");
}

static void long_lines_are_broken_and_nothing_is_lost(void **state)
{
    (void)state;
    static char text[3 * PREFIX_LINE];
    memset(text, 'x', sizeof text);
    for (size_t size = PREFIX_LINE - 2; size < PREFIX_LINE + 3; size++) {
        text[size - 1] = '\n';
        char *out = through_prefix(text, size, 1000, true);
        size_t kept = 0, lines = 0;
        for (char *p = out; *p; p++) kept += *p == 'x', lines += *p == '\n';
        assert_int_equal(kept, size - 1);
        assert_int_equal(lines, size <= PREFIX_LINE ? 1 : 2);
        text[size - 1] = 'x';
    }
    char *out = through_prefix(text, sizeof text, 4096, true);
    size_t kept = 0;
    for (char *p = out; *p; p++) kept += *p == 'x';
    assert_int_equal(kept, sizeof text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_beat_is_a_byte),
        cmocka_unit_test(other_descriptors_are_not_written_to),
        cmocka_unit_test(lines_come_out_whole),
        cmocka_unit_test(long_lines_are_broken_and_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
