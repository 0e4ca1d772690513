/* Tests that the generator gives Random123's known answers, that noise gives the word of its address, and that it is
 * uniform or normal as declared. */
#include "base/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void assert_block(struct philox_block block, const uint32_t expected[4])
{
    for (int i = 0; i < 4; i++) assert_int_equal(block.word[i], expected[i]);
}

static void known_answers(void **state)
{
    (void)state;
    const uint32_t zeros[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const uint32_t ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    assert_block(philox((struct noise_key){{0, 0}}, 0, 0, 0, 0), zeros);
    assert_block(philox((struct noise_key){{~0u, ~0u}}, ~0u, ~0u, ~0u, ~0u), ones);
}

static void an_address_has_its_own_word(void **state)
{
    (void)state;
    struct noise_key key = noise_key(7, noise_purpose("test"), 3);
    for (uint64_t coordinate = 0; coordinate < 64; coordinate++) {
        struct philox_block block = philox(key, (uint32_t)(coordinate / 4), 5, 0x9abcdef0u, 0x12345678u);
        assert_int_equal(noise_bits(key, 0x123456789abcdef0u, 5, coordinate), block.word[coordinate % 4]);
    }
    /* Each part of the address changes the word. */
    uint32_t here = noise_bits(key, 1, 2, 3);
    assert_int_not_equal(here, noise_bits(key, 1ull << 32 | 1, 2, 3));
    assert_int_not_equal(here, noise_bits(key, 1, 3, 3));
    assert_int_not_equal(here, noise_bits(key, 1, 2, 4));
    assert_int_not_equal(here, noise_bits(noise_key(8, noise_purpose("test"), 3), 1, 2, 3));
    assert_int_not_equal(here, noise_bits(noise_key(7, noise_purpose("tesu"), 3), 1, 2, 3));
    assert_int_not_equal(here, noise_bits(noise_key(7, noise_purpose("test"), 4), 1, 2, 3));
}

static void moments(void **state)
{
    (void)state;
    enum { BLOCKS = 100000 };
    struct noise_key key = noise_key(1, noise_purpose("moments"), 0);
    double uniform = 0, normal[4] = {0};
    for (uint32_t b = 0; b < BLOCKS; b++) {
        struct philox_block block = noise_block(key, 11, 0, b);
        float z[4];
        noise_normal4(z, block);
        for (int i = 0; i < 4; i++) {
            double u = noise_uniform(block.word[i]), x = z[i];
            assert_true(u > 0 && u < 1);
            uniform += u;
            for (int m = 0; m < 4; m++, x *= z[i]) normal[m] += x;
        }
    }
    double n = 4.0 * BLOCKS; /* tolerances: five standard errors */
    assert_true(fabs(uniform / n - 0.5) < 5 * sqrt(1 / 12.0 / n));
    assert_true(fabs(normal[0] / n) < 5 * sqrt(1 / n));
    assert_true(fabs(normal[1] / n - 1) < 5 * sqrt(2 / n));
    assert_true(fabs(normal[2] / n) < 5 * sqrt(15 / n));
    assert_true(fabs(normal[3] / n - 3) < 5 * sqrt(96 / n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(an_address_has_its_own_word),
        cmocka_unit_test(moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
