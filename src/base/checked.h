/* Arithmetic on numbers that came from a file: each helper returns false instead of wrapping round. */
#ifndef BASE_CHECKED_H
#define BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>

static inline bool checked_add(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool checked_mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* Rounds up to a multiple of `unit`, a power of two. */
static inline bool checked_align(size_t *out, size_t a, size_t unit)
{
    if (!checked_add(out, a, unit - 1)) return false;
    *out &= ~(unit - 1);
    return true;
}

static inline size_t align_up(size_t a, size_t unit)
{
    return (a + unit - 1) / unit * unit;
}

#endif
