/* A as product.c takes it: rows rounded to 8 bits, in groups. SPAN blocks of 32 share one scale. */
#ifndef CPU_QUANTIZED_ACTIVATIONS_H
#define CPU_QUANTIZED_ACTIVATIONS_H

#include "cpu/quantized/weights.h"

enum { SPAN = 4 };

/* Returns the bytes of a rounded block of a group of R rows: 8 R times four bytes, R scales, and R or 2 R corrections.
 * A correction is the whole number at which the sum of a block or half begins, because weights are stored larger than
 * they are; or (Q4_K) the sum of the block's whole numbers, which the offset multiplies. */
static inline size_t rounded_bytes(const struct kind *t, size_t rows)
{
    return rows * (BLOCK + 4 + 4 * (size_t)t->halves);
}

/* ---- reductions over all lanes, by halving the vector ---- */

typedef int32_t quad __attribute__((vector_size(16)));

#define LARGER(a, b) (((a) & ((a) > (b))) | ((b) & ~((a) > (b))))
#define SUM(a, b)    ((a) + (b))
#if QUANTIZED_LANES == 16
#define THIRD(x)   __builtin_shufflevector(x, x, 8, 9, 10, 11)
#define FOURTH(x)  __builtin_shufflevector(x, x, 12, 13, 14, 15)
#define QUAD(f, x) f(f(FIRST(x), SECOND(x)), f(THIRD(x), FOURTH(x)))
#elif QUANTIZED_LANES == 8
#define QUAD(f, x) f(FIRST(x), SECOND(x))
#else
#define QUAD(f, x) (x)
#endif
#define OVER_LANES(name, f)                                                                                            \
    static inline int32_t name(ints x)                                                                                 \
    {                                                                                                                  \
        quad four = QUAD(f, x), turned = __builtin_shufflevector(four, four, 2, 3, 0, 1);                              \
        four = f(four, turned);                                                                                        \
        turned = __builtin_shufflevector(four, four, 1, 0, 3, 2);                                                      \
        four = f(four, turned);                                                                                        \
        return four[0];                                                                                                \
    }
OVER_LANES(most_of, LARGER)
OVER_LANES(sum_of, SUM)

/* ---- a block ---- */

enum { VECTORS = BLOCK / LANES, INFINITE = 0x7f800000 };

/* Returns the bits of the largest magnitudes, a lane each. Bits of magnitudes are ordered as the magnitudes are. */
static inline ints magnitudes(const float *x)
{
    floats v[VECTORS];
    ints most = {0};
    memcpy(v, x, sizeof v);
    for (int i = 0; i < VECTORS; i++) {
        ints magnitude = (ints)v[i] & 0x7fffffff;
        most = LARGER(magnitude, most);
    }
    return most;
}

/* Rounds a block to 32 whole numbers, and sums each half. */
static inline void round_block(int8_t *q, int32_t sums[2], const float *x, float inverse)
{
    const float whole = 0x1.8p23f; /* adding it leaves the whole number in the lowest bits */
    floats v[VECTORS];
    ints half[2] = {{0}};
    memcpy(v, x, sizeof v);
    for (int i = 0; i < VECTORS; i++) {
        ints number = (ints)(v[i] * inverse + whole) << 24 >> 24;
        narrow bytes = __builtin_convertvector(number, narrow);
        memcpy(q + i * LANES, &bytes, sizeof bytes);
        half[i >= VECTORS / 2] += number;
    }
    sums[0] = sum_of(half[0]);
    sums[1] = sum_of(half[1]);
}

/* ---- a group ---- */

/* Returns the scale of a row's next `blocks` blocks; *inverse is the factor before rounding. */
static inline float scale_of(float *inverse, const float *x, size_t blocks)
{
    ints most = {0};
    float largest;
    for (size_t b = 0; b < blocks; b++) {
        ints here = magnitudes(x + b * BLOCK);
        most = LARGER(here, most);
    }
    int32_t bits = most_of(most);
    memcpy(&largest, &bits, sizeof largest);
    bool zero = largest < 0x1p-100f;
    *inverse = zero ? 0 : 127 / largest;
    return zero ? 0 : bits >= INFINITE ? __builtin_nanf("") : largest / 127;
}

/* Rounds row i of a group's next blocks. */
static inline void round_row(char *to, const struct kind *t, const float *x, size_t i, size_t rows, size_t blocks,
                             bool whole)
{
    float inverse, scale = scale_of(&inverse, x, blocks);
    for (size_t b = 0; b < blocks; b++, to += rounded_bytes(t, rows)) {
        int32_t *fours = (int32_t *)(void *)to, *begin = fours + (FOURS + 1) * rows, sums[2];
        int8_t q[BLOCK];
        round_block(q, sums, x + b * BLOCK, inverse);
        for (size_t k = 0; k < FOURS; k++) memcpy(&fours[whole ? i * FOURS + k : k * rows + i], q + 4 * k, 4);
        ((float *)fours)[FOURS * rows + i] = scale;
        if (t->offset) {
            ((float *)begin)[i] = (float)(sums[0] + sums[1]);
        } else {
            begin[i] = -t->larger * (t->halves == 1 ? sums[0] + sums[1] : sums[0]);
            if (t->halves == 2) begin[rows + i] = -t->larger * sums[1];
        }
    }
}

/* Rounds rows of A, k from `from` to from + depth, as a group of `rows`, with zeros past the last row. With `whole` the
 * bytes of a row stay together; else the first four bytes of each row come first. */
static inline void round_rows(char *to, const struct quantized_product *p, size_t first, size_t rows, size_t from,
                              size_t depth, bool whole)
{
    static const float zeros[SPAN * BLOCK];
    const struct kind *t = &kinds[p->type];
    for (size_t k = 0; k < depth; k += SPAN * BLOCK, to += SPAN * rounded_bytes(t, rows))
        for (size_t i = 0; i < rows; i++)
            round_row(to, t, first + i < p->m ? p->a + (first + i) * p->row + from + k : zeros, i, rows,
                      least(SPAN, (depth - k) / BLOCK), whole);
}

#endif
