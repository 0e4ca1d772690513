/* bf16 on the host: the upper half of an f32. */
#ifndef BASE_BF16_H
#define BASE_BF16_H

#include <stdint.h>
#include <string.h>

static inline float bf16_widen(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* Rounds to the nearest bf16, ties to even. An infinity or a NaN only loses its lower half, so a computed NaN stays a
 * NaN. */
static inline uint16_t bf16_nearest(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits += 0x7fffu + (bits >> 16 & 1);
    return (uint16_t)(bits >> 16);
}

/* Rounds up or down by the lower 16 bits of `noise`. The mean of the results over all noise values is x. */
static inline uint16_t bf16_stochastic(float x, uint32_t noise)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits += noise & 0xffffu;
    return (uint16_t)(bits >> 16);
}

#endif
