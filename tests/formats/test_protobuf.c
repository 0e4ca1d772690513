/* Tests the bytes of Protocol Buffers messages with the format's own examples. */
#include "formats/protobuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void bytes_of_messages(void **state)
{
    (void)state;
    static const unsigned char expected[] = {0x08, 0x96, 0x01, 0x12, 0x07, 't',  'e',  's',  't',  'i',  'n',
                                             'g',  0x1a, 0x03, 0x08, 0x96, 0x01, 0x25, 0x00, 0x00, 0x80, 0x3f,
                                             0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    struct bytes inner = {0}, p = {0};
    protobuf_integer(&inner, 1, 150);
    protobuf_integer(&p, 1, 150);
    protobuf_text(&p, 2, "testing");
    protobuf_message(&p, 3, &inner);
    protobuf_float(&p, 4, 1);
    protobuf_integer(&p, 5, -1);
    assert_false(p.failed);
    assert_int_equal(p.size, sizeof expected);
    assert_memory_equal(p.at, expected, sizeof expected);
    bytes_free(&inner);
    bytes_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_of_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
