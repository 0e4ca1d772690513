/* W as product.c takes it: LANES rows at once, in blocks of 32. A longer block is several blocks of 32. */
#ifndef CPU_QUANTIZED_WEIGHTS_H
#define CPU_QUANTIZED_WEIGHTS_H

#include "cpu/quantized/dot.h"
#include "cpu/quantized/product.h"

enum { BLOCK = 32, FOURS = BLOCK / 4, SLICE = 1024, LINE = 64 };

/* How the blocks of a type are read. */
struct kind {
    int halves;  /* halves of a block, each with its own scale */
    bool offset; /* the weights of a block have an offset in f32 */
    bool small;  /* weights are stored as 0 .. 63 */
    int larger;  /* stored minus true weight, if there is no offset */
};
static const struct kind kinds[BLOCK_TYPES] = {[BLOCK_Q8_0] = {1, false, false, OFFSET},
                                               [BLOCK_Q4_0] = {1, false, true, 8},
                                               [BLOCK_Q4_K] = {1, true, true, 0},
                                               [BLOCK_Q6_K] = {2, false, true, 32}};

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- eight times four bytes of LANES rows, transposed ---- */

typedef int32_t eight __attribute__((vector_size(32)));
typedef uint8_t bytes32 __attribute__((vector_size(32)));
typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint32_t unsigneds __attribute__((vector_size(4 * LANES)));
typedef uint16_t binary16s __attribute__((vector_size(2 * LANES)));
typedef int8_t narrow __attribute__((vector_size(LANES)));

#define FIRST(x)  __builtin_shufflevector(x, x, 0, 1, 2, 3)
#define SECOND(x) __builtin_shufflevector(x, x, 4, 5, 6, 7)
#if defined(QUANTIZED_VNNI) || defined(QUANTIZED_AMX)
#define PAIR(a, b)  __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define ROW(row, i) PAIR((row)[i], (row)[(i) + 8]) /* two halves, a row in each */
#define LOW(a, b)   __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27)
#define HIGH(a, b)  __builtin_shufflevector(a, b, 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(QUANTIZED_AVX2)
#define PAIR(a, b)  (a)
#define ROW(row, i) ((row)[i])
#define LOW(a, b)   __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b)  __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

/* Rounds of perfect interleaving for n vectors of n lanes, or of 2 n lanes whose halves are transposed each. */
static inline void interleave(ints *r, const int n)
{
    ints t[FOURS];
#pragma GCC unroll 8
    for (int round = n; round > 1; round /= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < n / 2; i++) {
            t[2 * i] = LOW(r[i], r[i + n / 2]);
            t[2 * i + 1] = HIGH(r[i], r[i + n / 2]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) r[i] = t[i];
    }
}

/* to[k] = number k of each row, a lane each: a transpose. */
static inline void lanes_of(ints to[FOURS], const eight row[LANES])
{
#if defined(QUANTIZED_VNNI) || defined(QUANTIZED_AMX) || defined(QUANTIZED_AVX2)
    for (int i = 0; i < FOURS; i++) to[i] = ROW(row, i);
    interleave(to, FOURS);
#else
    for (int i = 0; i < LANES; i++) {
        to[i] = FIRST(row[i]);
        to[i + LANES] = SECOND(row[i]);
    }
    interleave(to, LANES);
    interleave(to + LANES, LANES);
#endif
}

static inline bytes32 load32(const unsigned char *p)
{
    bytes32 x;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline bytes16 load16(const unsigned char *p)
{
    bytes16 x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* ---- binary16 ---- */

/* Same as half_to_float, but no step meets a subnormal float, which some processors handle in microcode. */
static inline floats floats_of(binary16s h)
{
    unsigneds x = __builtin_convertvector(h, unsigneds), m = (x & 0x7fff) << 13;
    unsigneds special = (unsigneds)((x & 0x7c00) == 0x7c00), subnormal = (unsigneds)((x & 0x7c00) == 0);
    unsigneds normal = (m + (112u << 23)) | (special & 0x7f800000);
    floats tiny = (floats)(m + (113u << 23)) - 0x1p-14f;
    return (floats)((((unsigneds)tiny & subnormal) | (normal & ~subnormal)) | (x & 0x8000) << 16);
}

/* ---- blocks, one after the other ---- */

/* LANES rows of W, from a block on. */
struct rows {
    const unsigned char *first;
    size_t row; /* bytes from a row to the next */
    size_t blocks;
    const unsigned char *next; /* memory to prefetch, LANES blocks per block; null: none */
};

/* A function that takes a block of 32: its bytes, one row for each lane; the scales of the lanes; and the scales of the
 * second half, or offsets. */
typedef void take_block(void *to, const eight row[LANES], floats scale, floats second);
#define EACH static inline __attribute__((always_inline)) void

static inline __attribute__((always_inline)) void fetch(const struct rows *p, size_t b, const int bytes)
{
    if (!p->next) return;
    const unsigned char *at = p->next + b * LANES * (size_t)bytes;
#pragma GCC unroll 64
    for (int line = 0; line < LANES * bytes; line += LINE) __builtin_prefetch(at + line, 0, 2);
}

/* Returns the bytes from a row to the next, hidden from the compiler. The compiler would keep sixteen multiples of them
 * in slow places, and adding them is cheap. */
static inline size_t stride_of(const struct rows *p)
{
    size_t row = p->row;
    __asm__("" : "+r"(row));
    return row;
}

/* Returns the binary16 number at `at` of each row, as floats. */
static inline floats scales_of(const unsigned char *at, size_t row)
{
    binary16s h;
#pragma GCC unroll 16
    for (int l = 0; l < LANES; l++, at += row) memcpy((char *)&h + 2 * l, at, 2);
    return floats_of(h);
}

EACH each_q8_0(const struct rows *p, take_block take, void *to)
{
    for (size_t b = 0; b < p->blocks; b++) {
        const size_t stride = stride_of(p);
        const unsigned char *first = p->first + b * 34, *from = first;
        eight row[LANES];
        fetch(p, b, 34);
#pragma GCC unroll 16
        for (int l = 0; l < LANES; l++, from += stride) row[l] = (eight)(load32(from + 2) ^ OFFSET);
        take(to, row, scales_of(first, stride), (floats){0});
    }
}

EACH each_q4_0(const struct rows *p, take_block take, void *to)
{
    for (size_t b = 0; b < p->blocks; b++) {
        const size_t stride = stride_of(p);
        const unsigned char *first = p->first + b * 18, *from = first;
        eight row[LANES];
        fetch(p, b, 18);
#pragma GCC unroll 16
        for (int l = 0; l < LANES; l++, from += stride) {
            bytes16 x = load16(from + 2), low = x & 15, high = x >> 4;
            row[l] = (eight)__builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
                                                    17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
        }
        take(to, row, scales_of(first, stride), (floats){0});
    }
}

typedef float eight_floats __attribute__((vector_size(32)));
typedef uint8_t eight_bytes __attribute__((vector_size(8)));
typedef int8_t eight_signed __attribute__((vector_size(8)));

/* Unpacks eight six-bit scales and eight offsets (base/blocks.c: get_six), a byte each. */
static inline void six_bits(eight_bytes *scale, eight_bytes *offset, const unsigned char *s)
{
    uint32_t low, mid, top, both[2];
    memcpy(&low, s, 4);
    memcpy(&mid, s + 4, 4);
    memcpy(&top, s + 8, 4);
    both[0] = low & 0x3f3f3f3f;
    both[1] = (top & 0x0f0f0f0f) | (low >> 6 & 0x03030303) << 4;
    memcpy(scale, both, sizeof both);
    both[0] = mid & 0x3f3f3f3f;
    both[1] = (top >> 4 & 0x0f0f0f0f) | (mid >> 6 & 0x03030303) << 4;
    memcpy(offset, both, sizeof both);
}

EACH each_q4_k(const struct rows *p, take_block take, void *to)
{
    for (size_t b = 0; b < p->blocks; b++) {
        const size_t stride = stride_of(p);
        eight row[LANES], other[LANES];
        ints scale[FOURS], offset[FOURS];
        const unsigned char *first = p->first + b * 144, *from = first;
        float d[LANES], e[LANES];
        floats scales = scales_of(first, stride), offsets = scales_of(first + 2, stride);
        memcpy(d, &scales, sizeof d);
        memcpy(e, &offsets, sizeof e);
        fetch(p, b, 144);
        for (int l = 0; l < LANES; l++, from += stride) {
            eight_bytes six, more;
            six_bits(&six, &more, from + 4);
            row[l] = (eight)(__builtin_convertvector(six, eight_floats) * d[l]);
            other[l] = (eight)(__builtin_convertvector(more, eight_floats) * e[l]);
        }
        lanes_of(scale, row);
        lanes_of(offset, other);
        for (int j = 0; j < 8; j += 2) {
            from = first + 16 + j * 16;
            for (int l = 0; l < LANES; l++, from += stride) {
                bytes32 x = load32(from);
                row[l] = (eight)(x & 15);
                other[l] = (eight)(x >> 4);
            }
            take(to, row, (floats)scale[j], (floats)offset[j]);
            take(to, other, (floats)scale[j + 1], (floats)offset[j + 1]);
        }
    }
}

EACH each_q6_k(const struct rows *p, take_block take, void *to)
{
    for (size_t b = 0; b < p->blocks; b++) {
        const size_t stride = stride_of(p);
        eight row[4][LANES];
        ints scale[FOURS];
        const unsigned char *first = p->first + b * 210, *from;
        float d[LANES];
        floats scales = scales_of(first + 208, stride);
        memcpy(d, &scales, sizeof d);
        fetch(p, b, 210);
        for (int h = 0; h < 2; h++) { /* scales 8 h + 2 j and 8 h + 2 j + 1 are those of block 4 h + j */
            from = first + 192 + 8 * h;
            for (int l = 0; l < LANES; l++, from += stride) {
                eight_signed some;
                memcpy(&some, from, sizeof some);
                row[0][l] = (eight)(__builtin_convertvector(some, eight_floats) * d[l]);
            }
            lanes_of(scale, row[0]);
            from = first;
            for (int l = 0; l < LANES; l++, from += stride) {
                bytes32 low = load32(from + h * 64), next = load32(from + h * 64 + 32),
                        top = load32(from + 128 + h * 32);
                row[0][l] = (eight)((low & 15) | (top & 3) << 4);
                row[1][l] = (eight)((next & 15) | (top >> 2 & 3) << 4);
                row[2][l] = (eight)((low >> 4) | (top >> 4 & 3) << 4);
                row[3][l] = (eight)((next >> 4) | (top >> 6) << 4);
            }
            for (int j = 0; j < 4; j++) take(to, row[j], (floats)scale[2 * j], (floats)scale[2 * j + 1]);
        }
    }
}

/* ---- the rows in memory ---- */

/* W's rows, k from `from` on. */
struct source {
    const unsigned char *w;
    size_t row, n, from;
};

/* Returns LANES rows from j on, a slice of depth k. As many bytes are prefetched of the next LANES rows as are read of
 * these. */
static inline struct rows rows_of(enum block_type type, const struct source *s, size_t j, size_t depth)
{
    const unsigned char *first = s->w + j * s->row;
    size_t skipped = block_bytes(type, s->from);
    bool more = j + 2 * LANES <= s->n;
    return (struct rows){.first = first,
                         .row = s->row,
                         .blocks = depth / block_infos[type].values,
                         .next = more ? first - skipped + LANES * (s->row + skipped) : NULL};
}

/* Returns the slice from `from` on. If W has fewer rows than lanes, the slice is a copy in which W's first row stands
 * in for the missing rows. */
static inline struct source slice_of(const struct quantized_product *p, size_t from, size_t depth, unsigned char *copy)
{
    struct source s = {p->w + block_bytes(p->type, from), block_bytes(p->type, p->k), p->n, from};
    size_t bytes = block_bytes(p->type, depth);
    if (p->n >= LANES) return s;
    for (size_t l = 0; l < LANES; l++) memcpy(copy + l * bytes, s.w + (l < p->n ? l : 0) * s.row, bytes);
    return (struct source){copy, bytes, LANES, 0};
}

#endif
