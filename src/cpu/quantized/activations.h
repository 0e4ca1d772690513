/* A, as product.c takes it: rows rounded to 8 bits in blocks of 32, in groups. */
#ifndef CPU_QUANTIZED_ACTIVATIONS_H
#define CPU_QUANTIZED_ACTIVATIONS_H

#include "cpu/quantized/weights.h"

/* A rounded block of a group of R rows: 8 R times four bytes, R scales, and R or 2 R numbers: whole numbers at which
 * the sums of a block or of its halves begin, since weights are stored larger than they are, or (Q4_K) sums of the
 * block's activations, which the offsets are multiplied with. */
static inline size_t rounded_bytes(const struct kind *t, size_t rows)
{
    return rows * (BLOCK + 4 + 4 * (size_t)t->halves);
}

struct rounded {
    int8_t q[BLOCK];
    float d;
};

static inline void round_block(struct rounded *to, const float *x)
{
    enum { VECTORS = BLOCK / LANES };
    const float whole = 0x1.8p23f; /* adding it leaves whole numbers in the lowest bits */
    floats v[VECTORS], poison = {0};
    ints most = {0}; /* bits of magnitudes, which are in the same order */
    memcpy(v, x, sizeof v);
    for (int i = 0; i < VECTORS; i++) {
        ints magnitude = (ints)v[i] & 0x7fffffff, more = magnitude > most;
        most = (magnitude & more) | (most & ~more);
        poison += v[i] * 0.0f; /* not a number where one of them is infinite or none */
    }
    float largest, none = 0;
    int32_t bits = 0;
    for (int l = 0; l < LANES; l++) {
        bits = most[l] > bits ? most[l] : bits;
        none += poison[l];
    }
    memcpy(&largest, &bits, sizeof largest);
    bool zero = largest < 0x1p-100f;
    float inverse = zero ? 0 : 127 / largest;
    to->d = (zero ? 0 : largest / 127) + none;
    for (int i = 0; i < VECTORS; i++) {
        narrow q = __builtin_convertvector((ints)(v[i] * inverse + whole), narrow);
        memcpy(to->q + i * LANES, &q, sizeof q);
    }
}

static inline int32_t sum_of(const int8_t *q, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += q[i];
    return sum;
}

/* Rows of A, k from `from` to from + depth, as a group of `rows`; `whole`: each row's
 * bytes stay together, else the first four of each come first. */
static inline void round_rows(char *to, const struct quantized_product *p, size_t first, size_t rows, size_t from,
                              size_t depth, bool whole)
{
    const struct kind *t = &kinds[p->type];
    const int half = BLOCK / t->halves;
    for (size_t b = 0; b < depth / BLOCK; b++, to += rounded_bytes(t, rows)) {
        int32_t *fours = (int32_t *)(void *)to, *begin = fours + (FOURS + 1) * rows;
        float *d = (float *)(fours + FOURS * rows), *sums = (float *)begin;
        for (size_t i = 0; i < rows; i++) {
            struct rounded r = {0};
            if (first + i < p->m) round_block(&r, p->a + (first + i) * p->row + from + b * BLOCK);
            for (size_t k = 0; k < FOURS; k++)
                memcpy(&fours[whole ? i * FOURS + k : k * rows + i], r.q + 4 * k, sizeof *fours);
            d[i] = r.d;
            if (t->offset) sums[i] = r.d * (float)sum_of(r.q, BLOCK);
            for (int h = 0; h < t->halves && !t->offset; h++)
                begin[(size_t)h * rows + i] = -t->larger * sum_of(r.q + h * half, half);
        }
    }
}

#endif
