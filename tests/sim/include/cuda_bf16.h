/* bfloat16 of the emulation: the upper half of an f32, rounded to nearest even. Every NaN becomes 0x7fff. */
#ifndef SIM_CUDA_BF16_H
#define SIM_CUDA_BF16_H

#include <stdint.h>
#include <string.h>

typedef struct __nv_bfloat16 {
    uint16_t bits;
} __nv_bfloat16;

typedef struct __attribute__((aligned(4))) __nv_bfloat162 {
    __nv_bfloat16 x, y;
} __nv_bfloat162;

static inline float __bfloat162float(__nv_bfloat16 x)
{
    uint32_t word = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static inline __nv_bfloat16 __float2bfloat16(float value)
{
    uint32_t word;
    __nv_bfloat16 x;
    memcpy(&word, &value, sizeof word);
    if ((word & 0x7fffffffu) > 0x7f800000u)
        x.bits = 0x7fff;
    else
        x.bits = (uint16_t)((word + 0x7fffu + (word >> 16 & 1)) >> 16);
    return x;
}

static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    __nv_bfloat16 x = {bits};
    return x;
}

#define __float2bfloat16_rn __float2bfloat16

static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    __nv_bfloat162 pair = {__float2bfloat16(x), __float2bfloat16(y)};
    return pair;
}

#endif
