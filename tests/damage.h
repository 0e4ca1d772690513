/* Damage to a file's bytes: a flipped bit, more of them, a truncation, bytes appended, zeroed, swapped, duplicated or
 * moved. Include after the system headers. */
#ifndef TESTS_DAMAGE_H
#define TESTS_DAMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum damage {
    DAMAGE_FLIP,
    DAMAGE_FLIPS,
    DAMAGE_TRUNCATE,
    DAMAGE_APPEND,
    DAMAGE_ZERO,
    DAMAGE_SWAP,
    DAMAGE_DUPLICATE,
    DAMAGE_INSERT,
    DAMAGES
};

static const char *const damage_names[] = {"a flipped bit",
                                           "flipped bits",
                                           "a truncation",
                                           "bytes appended",
                                           "zeroed bytes",
                                           "swapped bytes",
                                           "bytes duplicated in place",
                                           "bytes repeated"};

static inline size_t damage_draw(uint64_t *random, size_t below)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(*random >> 33) % below;
}

/* `out` has room for 2 * size + 64; the new size. False when the bytes are as before. */
static inline bool damage(unsigned char *out, size_t *out_size, const unsigned char *in, size_t size, enum damage kind,
                          uint64_t *random)
{
    memcpy(out, in, size);
    *out_size = size;
    size_t a = damage_draw(random, size), b = damage_draw(random, size), low = a < b ? a : b, high = a < b ? b : a;
    size_t length = 1 + damage_draw(random, size - high);
    switch (kind) {
    case DAMAGE_FLIP:
        out[a] ^= (unsigned char)(1u << damage_draw(random, 8));
        break;
    case DAMAGE_FLIPS:
        for (size_t n = 2 + damage_draw(random, 30); n > 0; n--)
            out[damage_draw(random, size)] ^= (unsigned char)(1u << damage_draw(random, 8));
        break;
    case DAMAGE_TRUNCATE:
        *out_size = a;
        break;
    case DAMAGE_APPEND:
        memset(out + size, damage_draw(random, 2) ? 0 : '}', 1 + a % 64);
        *out_size += 1 + a % 64;
        break;
    case DAMAGE_ZERO:
        memset(out + high, 0, length);
        break;
    case DAMAGE_SWAP:
        if (length > high - low) length = high - low;
        memcpy(out + low, in + high, length);
        memcpy(out + high, in + low, length);
        break;
    case DAMAGE_DUPLICATE:
        memmove(out + low, in + high, length);
        break;
    case DAMAGE_INSERT:
        memcpy(out + high + length, in + high, size - high);
        *out_size += length;
        break;
    default:
        break;
    }
    return *out_size != size || memcmp(out, in, size) != 0;
}

#endif
