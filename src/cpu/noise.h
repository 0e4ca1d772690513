/* Addressed noise (base/philox.h), many blocks at once. */
#ifndef CPU_NOISE_H
#define CPU_NOISE_H

#include "base/philox.h"
#include "cpu/cpu.h"

enum { NOISE_BLOCKS = 16 };

/* word[w][i]: word w of block first + i of a sample. Round by round over all blocks, so that it vectorizes. */
static inline void noise_blocks(uint32_t word[4][NOISE_BLOCKS], struct noise_key key, uint64_t sample, uint32_t draw, uint32_t first)
{
    uint32_t k0 = key.word[0], k1 = key.word[1];
    SIMD for (uint32_t i = 0; i < NOISE_BLOCKS; i++)
    {
        word[0][i] = first + i;
        word[1][i] = draw;
        word[2][i] = (uint32_t)sample;
        word[3][i] = (uint32_t)(sample >> 32);
    }
    for (int round = 0; round < 10; round++) {
        SIMD for (int i = 0; i < NOISE_BLOCKS; i++)
        {
            uint64_t p0 = (uint64_t)0xd2511f53u * word[0][i], p1 = (uint64_t)0xcd9e8d57u * word[2][i];
            word[0][i] = (uint32_t)(p1 >> 32) ^ word[1][i] ^ k0;
            word[2][i] = (uint32_t)(p0 >> 32) ^ word[3][i] ^ k1;
            word[1][i] = (uint32_t)p1;
            word[3][i] = (uint32_t)p0;
        }
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
}

#endif
