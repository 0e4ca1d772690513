/* The one instruction in which the paths differ, and its number of 32-bit lanes: sums += four products of bytes in each
 * lane. Weights w are bytes from -127 to 127, or 0 to 63 if `small`. With OFFSET, weights are stored larger by OFFSET,
 * as 0 .. 255, because some processors want unsigned bytes. Activations a are from -127 to 127; `dot` takes the same
 * four in every lane.
 *
 * QUANTIZED_EMULATED computes the same byte by byte in C, on any machine. */
#ifndef CPU_QUANTIZED_DOT_H
#define CPU_QUANTIZED_DOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(QUANTIZED_VNNI) || defined(QUANTIZED_AMX)
#define QUANTIZED_ROWS  8
#define QUANTIZED_LANES 16
enum { OFFSET = 128 };
#elif defined(QUANTIZED_AVX2)
#define QUANTIZED_ROWS  4
#define QUANTIZED_LANES 8
enum { OFFSET = 0 };
#elif defined(QUANTIZED_NEON) || defined(QUANTIZED_WASM)
#define QUANTIZED_ROWS  8
#define QUANTIZED_LANES 4
enum { OFFSET = 0 };
#else
#define QUANTIZED_ROWS  4
#define QUANTIZED_LANES 4
enum { OFFSET = 0 };
#endif
enum { LANES = QUANTIZED_LANES };
enum { ROWS = QUANTIZED_ROWS }; /* rows of A whose sums stay in registers */

#if defined(QUANTIZED_VNNI) || defined(QUANTIZED_AMX)
typedef int32_t ints __attribute__((vector_size(64)));
typedef float floats __attribute__((vector_size(64)));
#elif defined(QUANTIZED_AVX2)
typedef int32_t ints __attribute__((vector_size(32)));
typedef float floats __attribute__((vector_size(32)));
#else
typedef int32_t ints __attribute__((vector_size(16)));
typedef float floats __attribute__((vector_size(16)));
#endif

static inline ints every_lane(int32_t x)
{
    return x - (ints){0};
}

#if !defined(QUANTIZED_EMULATED) && (defined(QUANTIZED_VNNI) || defined(QUANTIZED_AMX) || defined(QUANTIZED_AVX2))
#include <immintrin.h>
#endif

#if !defined(QUANTIZED_EMULATED) && (defined(QUANTIZED_VNNI) || defined(QUANTIZED_AMX))

static inline ints dot_lanes(ints sums, ints w, ints a, bool small)
{
    (void)small;
    return (ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)w, (__m512i)a);
}

#elif !defined(QUANTIZED_EMULATED) && defined(QUANTIZED_AVX2)

/* Adds pairs in 16 bits. |w|, and a with w's sign, keep a pair within 2 * 127 * 127 (or 128, because a block written by
 * another program may hold -128). */
static inline ints dot_lanes(ints sums, ints w, ints a, bool small)
{
    __m256i weights = (__m256i)w, four = (__m256i)a;
    __m256i pairs = small ? _mm256_maddubs_epi16(weights, four)
                          : _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(four, weights));
    return sums + (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

#elif !defined(QUANTIZED_EMULATED) && defined(QUANTIZED_NEON)
#include <arm_neon.h>

static inline ints dot_lanes(ints sums, ints w, ints a, bool small)
{
    (void)small;
    return (ints)vdotq_s32((int32x4_t)sums, (int8x16_t)w, (int8x16_t)a);
}

#elif !defined(QUANTIZED_EMULATED) && defined(QUANTIZED_WASM)
#include <wasm_simd128.h>

static inline ints dot_lanes(ints sums, ints w, ints a, bool small)
{
    (void)small;
    v128_t weights = (v128_t)w, four = (v128_t)a;
    v128_t low = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(weights), wasm_i16x8_extend_low_i8x16(four)),
           high = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(weights), wasm_i16x8_extend_high_i8x16(four));
    return sums +
           (ints)wasm_i32x4_add(wasm_i32x4_shuffle(low, high, 0, 2, 4, 6), wasm_i32x4_shuffle(low, high, 1, 3, 5, 7));
}

#elif !defined(QUANTIZED_EMULATED)

/* Plain C: multiplies bytes of even and of odd places in 16 bits, which hold the sum of two products. */
static inline ints dot_lanes(ints sums, ints w, ints a, bool small)
{
    typedef int16_t shorts __attribute__((vector_size(16)));
    (void)small;
    shorts weights = (shorts)w, four = (shorts)a;
    ints pairs = (ints)((weights << 8 >> 8) * (four << 8 >> 8) + (weights >> 8) * (four >> 8));
    return sums + (pairs << 16 >> 16) + (pairs >> 16);
}

#else

static inline ints dot_lanes(ints sums, ints w, ints a, bool small)
{
    (void)small;
    int8_t four[4 * LANES], bytes[4 * LANES];
    memcpy(four, &a, sizeof four);
    memcpy(bytes, &w, sizeof bytes);
    for (int i = 0; i < 4 * LANES; i++) sums[i / 4] += (OFFSET ? (int)(uint8_t)bytes[i] : (int)bytes[i]) * four[i];
    return sums;
}

#endif

static inline ints dot(ints sums, ints w, int32_t a, bool small)
{
    return dot_lanes(sums, w, every_lane(a), small);
}

/* ---- tiles: 16 x 16 sums at once (AMX) ---- */

#if defined(QUANTIZED_AMX)
enum { SIDE = 16 };

/* Shapes: A has SIDE rows of `depth` bytes; W has depth / 4 rows of LANES times four bytes; the sums have SIDE rows of
 * LANES. */
struct tile_shapes {
    uint8_t palette, start, zero[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64)));
enum { TILE_SUMS, TILE_A, TILE_W }; /* the intrinsics below need literal numbers */

static inline struct tile_shapes shapes_of(size_t depth)
{
    struct tile_shapes s = {.palette = 1};
    s.bytes[TILE_SUMS] = s.bytes[TILE_W] = LANES * 4;
    s.bytes[TILE_A] = (uint16_t)depth;
    s.rows[TILE_SUMS] = s.rows[TILE_A] = SIDE;
    s.rows[TILE_W] = (uint8_t)(depth / 4);
    return s;
}

#if !defined(QUANTIZED_EMULATED)

static inline void tiles_begin(const struct tile_shapes *s)
{
    _tile_loadconfig(s);
}

static inline void tiles_end(void)
{
    _tile_release();
}

/* to (SIDE, LANES) = a (SIDE, depth) w. Rows of a are `next` bytes apart. */
static inline void tile_product(int32_t *to, const int8_t *a, size_t next, const ints *w)
{
    _tile_zero(0);
    _tile_loadd(1, a, next);
    _tile_loadd(2, w, LANES * 4);
    _tile_dpbsud(0, 1, 2);
    _tile_stored(0, to, LANES * 4);
}

#else

static _Thread_local struct tile_shapes tiles_now; /* shapes that the last tiles_begin set */

static inline void tiles_begin(const struct tile_shapes *s)
{
    tiles_now = *s;
}

static inline void tiles_end(void)
{
    tiles_now = (struct tile_shapes){0};
}

static inline void tile_product(int32_t *to, const int8_t *a, size_t next, const ints *w)
{
    const uint8_t *bytes = (const uint8_t *)w;
    memset(to, 0xff, sizeof *to * SIDE * LANES);
    for (size_t i = 0; i < tiles_now.rows[TILE_SUMS]; i++)
        for (size_t j = 0; j < tiles_now.bytes[TILE_SUMS] / 4; j++) {
            to[i * LANES + j] = 0;
            for (size_t k = 0; k < tiles_now.bytes[TILE_A]; k++)
                to[i * LANES + j] += a[i * next + k] * bytes[k / 4 * LANES * 4 + j * 4 + k % 4];
        }
}

#endif
#endif

#endif
