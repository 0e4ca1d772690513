/* Packing for gemm_tiles.c: f32 numbers as three parts of 16 bits each, in the tiles' layout. A step of a panel is
 * DEPTH places of k of SIDE lanes: [part][tile][row]. */
#ifndef CPU_GEMM_TILES_PACKING_H
#define CPU_GEMM_TILES_PACKING_H

#include "cpu/cpu.h"
#include "cpu/transpose.h"

#include <immintrin.h>

enum { T = 16 };                                 /* rows of a tile, and its columns of 32 bits */
enum { DEPTH = 32, PARTS = 3, SIDE = 2 * T };    /* k of a step; parts of a number; rows and columns of C */
enum { TILE = T * 64, STEP = 2 * PARTS * TILE }; /* bytes: [part][tile][row] */
enum { AHEAD = 4 };                              /* steps between prefetch and packing */

typedef char *tiles; /* aligned to a cache line */

/* A panel is SIDE lanes of x(i, p) = data[i * lane + p * along]; lanes are rows of A or columns of B. */
struct operand {
    const float *data;
    size_t lane, along, lanes;
};

static inline __mmask16 first(size_t n)
{
    return n >= T ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* Splits the numbers of 16 places of k (low) and of the next 16 places (high) into parts of 16 bits, interleaved as k
 * is ordered in a tile's rows. Adding half of the cut-off digits rounds. The last part has at most 8 bits left and is
 * cut without rounding, so that NaN stays NaN. */
static inline void split(__m512 low, __m512 high, tiles to)
{
    const __m512i half = _mm512_set1_epi32(0x8000), kept = _mm512_set1_epi32(-65536);
    enum { KEPT_OF_A_OR_C = 0xea }; /* (a & b) | c */
    for (int part = 0; part + 1 < PARTS; part++, to += 2 * TILE) {
        __m512i l = _mm512_add_epi32((__m512i)low, half), h = _mm512_add_epi32((__m512i)high, half);
        _mm512_store_si512(to, _mm512_ternarylogic_epi32(h, kept, _mm512_srli_epi32(l, 16), KEPT_OF_A_OR_C));
        low -= (__m512)_mm512_and_si512(l, kept);
        high -= (__m512)_mm512_and_si512(h, kept);
    }
    _mm512_store_si512(
        to, _mm512_ternarylogic_epi32((__m512i)high, kept, _mm512_srli_epi32((__m512i)low, 16), KEPT_OF_A_OR_C));
}

/* Loads up to 16 vectors, data[i * next], of which the first `valid` lanes count, and transposes them. */
static inline void load_transposed(vec r[VL], const float *data, size_t next, size_t count, size_t valid)
{
    for (size_t i = 0; i < VL; i++)
        r[i] = i < count ? (vec)_mm512_maskz_loadu_ps(first(valid), data + i * next) : (vec){0};
    transpose(r);
}

/* Packs a row of a tile of A: numbers that lie along k. */
static inline void pack_row(tiles to, const float *x, __mmask16 low_there, __mmask16 high_there)
{
    split(_mm512_maskz_loadu_ps(low_there, x), _mm512_maskz_loadu_ps(high_there, x + T), to);
}

/* Packs a tile of A: one row per lane. */
static void pack_rows(tiles to, const float *x, const struct operand *from, size_t lanes, size_t depth)
{
    if (from->along == 1) {
        __mmask16 low = first(depth), high = first(depth > T ? depth - T : 0);
        for (size_t i = 0; i < T; i++)
            pack_row(to + i * 64, x + (i < lanes ? i * from->lane : 0), i < lanes ? low : 0, i < lanes ? high : 0);
    } else {
        vec a[VL], b[VL];
        load_transposed(a, x, from->along, depth, lanes);
        load_transposed(b, x + T * from->along, from->along, depth > T ? depth - T : 0, lanes);
        for (size_t i = 0; i < T; i++) split(a[i], b[i], to + i * 64);
    }
}

/* Packs a tile of B: row i holds each lane's two numbers at i and i + 16 of k, the lanes in order. */
static void pack_columns(tiles to, const float *x, const struct operand *from, size_t lanes, size_t depth)
{
    if (from->lane == 1) {
        for (size_t i = 0; i < T; i++) {
            const float *row = x + i * from->along;
            __m512 low = i < depth ? _mm512_maskz_loadu_ps(first(lanes), row) : (__m512){0};
            __m512 high = T + i < depth ? _mm512_maskz_loadu_ps(first(lanes), row + T * from->along) : (__m512){0};
            split(low, high, to + i * 64);
        }
        return;
    }
    vec a[VL], b[VL];
    load_transposed(a, x, from->lane, lanes, depth);
    load_transposed(b, x + T, from->lane, lanes, depth > T ? depth - T : 0);
    for (size_t i = 0; i < T; i++) split(a[i], b[i], to + i * 64);
}

/* Packs one step of the panel from `lane` on, k from pc to pc + depth <= pc + DEPTH, with zeros up to whole tiles. One
 * stride of the operand is 1. */
static void pack_step(tiles to, const struct operand *from, size_t lane, size_t pc, size_t depth, bool rows)
{
    for (size_t t = 0; t < 2; t++) {
        size_t l = lane + t * T, lanes = from->lanes > l ? least(T, from->lanes - l) : 0;
        (rows ? pack_rows : pack_columns)(to + t * TILE, from->data + l * from->lane + pc * from->along, from, lanes,
                                          depth);
    }
}

/* Prefetches part `share` of `shares` of the lines of lanes lane .. end, k from pc to pc + depth, into the L2 cache. */
static void fetch(const struct operand *from, size_t lane, size_t end, size_t pc, size_t depth, size_t share,
                  size_t shares)
{
    enum { LINE = 16 };
    if (lane >= end) return;
    bool along = from->along == 1;
    size_t lanes = end - lane, rows = along ? lanes : depth, row = along ? from->lane : from->along,
           length = along ? depth : lanes;
    const float *x = from->data + lane * from->lane + pc * from->along;
    for (size_t r = rows * share / shares; r < rows * (share + 1) / shares; r++)
        for (size_t i = 0; i < length; i += LINE) __builtin_prefetch(x + r * row + i, 0, 2);
}

/* A step of a panel. Steps are packed in the order in which the operand's rows lie in memory. */
struct place {
    size_t panel, step;
};

static inline void advance(struct place *at, bool along, size_t steps, size_t panels)
{
    if (along) {
        if (++at->step == steps) at->step = 0, at->panel++;
    } else if (++at->panel == panels) {
        at->panel = 0, at->step++;
    }
}

/* Packs the panels of lanes lane .. end, k from pc to pc + depth. Prefetches the data AHEAD steps before packing, and,
 * if rows lie along k, the first rows behind the last panel too. */
static void pack(tiles to, const struct operand *from, size_t lane, size_t end, size_t pc, size_t depth, bool rows)
{
    size_t steps = tiles_of(depth, DEPTH), panels = tiles_of(end - lane, SIDE), count = steps * panels;
    bool along = from->along == 1;
    struct place later = {0}, now = {0};
    for (size_t i = 0; count && i < count + AHEAD; i++) {
        if (i < count || along) {
            size_t l = lane + later.panel * SIDE, k = later.step * DEPTH;
            fetch(from, l, least(from->lanes, l + SIDE), pc + k, least(DEPTH, depth - k), 0, 1);
            advance(&later, along, steps, panels);
        }
        if (i < AHEAD) continue;
        size_t k = now.step * DEPTH;
        pack_step(to + (now.panel * steps + now.step) * STEP, from, lane + now.panel * SIDE, pc + k,
                  least(DEPTH, depth - k), rows);
        advance(&now, along, steps, panels);
    }
}

#endif
