/* Philox4x32-10 noise by address (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
 *
 *   key     = mix(run seed, purpose, step)           purpose: hash of an op's stable name
 *   counter = { coordinate / 4, draw, sample lo, sample hi }
 *
 * Values are addressed, never streamed: element `coordinate` of sample `sample` is word coordinate % 4 of its block.
 * The layout is cuRAND's (counter = {offset / 4, subsequence}), so a GPU draws the same integers. */
#ifndef BASE_PHILOX_H
#define BASE_PHILOX_H

#include <math.h>
#include <stdint.h>

struct philox_block {
    uint32_t word[4];
};

struct noise_key {
    uint32_t word[2];
};

/* splitmix64's finalizer: the 64-bit mix behind every key and shuffle. */
static inline uint64_t mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* FNV-1a hash of a stable name, the `purpose` of a key. */
static inline uint64_t noise_purpose(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

static inline struct noise_key noise_key(uint64_t seed, uint64_t purpose, uint64_t step)
{
    uint64_t k = mix64(mix64(mix64(seed) ^ purpose) ^ step);
    return (struct noise_key){{(uint32_t)k, (uint32_t)(k >> 32)}};
}

static inline struct philox_block philox(struct noise_key key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3)
{
    uint32_t k0 = key.word[0], k1 = key.word[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0, p1 = (uint64_t)0xcd9e8d57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return (struct philox_block){{c0, c1, c2, c3}};
}

/* Returns the block of coordinates 4 * block .. 4 * block + 3 of a sample. */
static inline struct philox_block noise_block(struct noise_key key, uint64_t sample, uint32_t draw, uint32_t block)
{
    return philox(key, block, draw, (uint32_t)sample, (uint32_t)(sample >> 32));
}

static inline uint32_t noise_bits(struct noise_key key, uint64_t sample, uint32_t draw, uint64_t coordinate)
{
    return noise_block(key, sample, draw, (uint32_t)(coordinate / 4)).word[coordinate % 4];
}

/* Maps bits to a uniform in (0, 1): (bits + 0.5) / 2^32. */
static inline double noise_uniform(uint32_t bits)
{
    return ((double)bits + 0.5) * 0x1p-32;
}

/* Draws four normals from a block by Box-Muller in cuRAND's order: r sin, then r cos, of words (0, 1) and (2, 3). */
static inline void noise_normal4(float out[4], struct philox_block b)
{
    for (int pair = 0; pair < 2; pair++) {
        float u = (float)b.word[2 * pair] * 0x1p-32f + 0x1p-33f;
        float v = (float)b.word[2 * pair + 1] * (0x1p-32f * 6.2831855f) + (0x1p-33f * 6.2831855f);
        float r = sqrtf(-2.0f * logf(u));
        out[2 * pair] = r * sinf(v);
        out[2 * pair + 1] = r * cosf(v);
    }
}

#endif
