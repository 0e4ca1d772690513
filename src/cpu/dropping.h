/* Dropout of rows: an element is kept if its 32 noise bits at (sample, position * width + column) are at least p
 * 2^32. */
#ifndef CPU_DROPPING_H
#define CPU_DROPPING_H

#include "cpu/cpu.h"
#include "cpu/noise.h"
#include "ops/ops.h"

enum { DROPPING_COLUMNS = 4 * NOISE_BLOCKS }; /* columns at a time */

struct dropping_rows {
    struct noise_key key;
    const int32_t *sentence, *position; /* (N) */
    const uint64_t *sample;             /* (S) */
    uint32_t draw, least_kept;
    float scale;
};

/* `sentence` is the index of the call's input `sentence`; `position` and `sample` are the two inputs after it. */
static inline struct dropping_rows dropping_of(const struct call *c, unsigned sentence)
{
    double p = c->attr->f[ATTR_DROPOUT], threshold = p * 0x1p32;
    return (struct dropping_rows){.key = noise_key(c->seed, c->attr->purpose, c->step),
                                  .sentence = c->in[sentence],
                                  .position = c->in[sentence + 1],
                                  .sample = c->in[sentence + 2],
                                  .draw = c->draw,
                                  .least_kept = threshold >= 0x1p32 ? UINT32_MAX : (uint32_t)threshold,
                                  .scale = (float)(1.0 / (1.0 - p))};
}

/* Out of line, because with both counts of blocks inlined the compiler made norms with dropout 2.5 times as slow. */
static __attribute__((noinline, unused)) void dropping_half(uint32_t *word, struct noise_key key, uint64_t sample,
                                                            uint32_t draw, uint32_t first)
{
    noise_blocks(word, NOISE_BLOCKS / 2, key, sample, draw, first);
}

/* to[i] = v[i] * scale, or 0 if dropped, for `count` columns (at most DROPPING_COLUMNS) from `column` on of row n,
 * which has `width` columns. `to` may be v. */
static inline void dropping_columns(float *to, const float *v, const struct dropping_rows *d, size_t n, size_t column,
                                    size_t count, size_t width)
{
    uint32_t word[DROPPING_COLUMNS + 4];
    uint64_t first = (uint64_t)d->position[n] * width + column, sample = d->sample[d->sentence[n]];
    uint32_t block = (uint32_t)(first / 4), offset = (uint32_t)(first % 4);
    bool half = count <= DROPPING_COLUMNS / 2;
    if (half)
        dropping_half(word, d->key, sample, d->draw, block);
    else
        noise_blocks(word, NOISE_BLOCKS, d->key, sample, d->draw, block);
    if (offset) { /* the columns end in one more block */
        unsigned blocks = half ? NOISE_BLOCKS / 2 : NOISE_BLOCKS;
        struct philox_block b = noise_block(d->key, sample, d->draw, block + blocks);
        memcpy(word + 4 * blocks, b.word, sizeof b.word);
    }
    SIMD for (size_t i = 0; i < count; i++) to[i] = word[offset + i] >= d->least_kept ? v[i] * d->scale : 0.0f;
}

#endif
