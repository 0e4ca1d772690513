/* The product of one path (product.h): C = A W^T (+ bias) with the instructions that dot.h names.
 *
 *   for rows of A, as many as fit in the scratch, and for k in slices:
 *     round A's rows, in groups whose sums stay in registers
 *     for LANES columns of C, prefetching the memory of the next ones:
 *       one or two rows:  blocks of W's rows times A's, whose lanes are then added up
 *       more:             pack the slice of W's rows, a lane each; for groups of rows, sums over its blocks
 *
 * Both ways give the same whole numbers for a block, and add blocks in the same order. */
#include "cpu/quantized/activations.h"

#ifndef QUANTIZED_NAME
#define QUANTIZED_NAME generic
#endif
#define JOIN_(a, b)     a##_##b
#define JOIN(a, b)      JOIN_(a, b)
#define QUANTIZED(name) JOIN(quantized_##name, QUANTIZED_NAME)

extern const struct quantized_kernel QUANTIZED(kernel);

/* A packed block of W: 8 vectors with four bytes of k in each lane, then a vector of scales, then a vector of the
 * second half's scales for 16 k (Q6_K) or of offsets (Q4_K). */
enum { PANEL_VECTORS = FOURS + 2, PANEL_BYTES = SLICE / BLOCK * PANEL_VECTORS * LANES * 4 };

static inline size_t panel_vectors(const struct kind *t)
{
    return t->halves > 1 || t->offset ? FOURS + 2 : FOURS + 1;
}
enum { COPY_BYTES = LANES * SLICE / BLOCK * 34 }; /* a copy of LANES rows; a block has at most 34 bytes */
enum {
    MOST_HALVES = 2,
    ROW_BYTES = BLOCK + 4 + 4 * MOST_HALVES,
    ROWS_BYTES = QUANTIZED_SCRATCH - PANEL_BYTES - COPY_BYTES
};

/* ---- a row or two: W in place ---- */

enum { FEW = QUANTIZED_FEW };

struct few {
    const char *a; /* the group's current block */
    size_t done, blocks;
    floats sum[FEW], span[FEW];
};

enum { ADDED = (int)LANES < (int)FOURS ? (int)LANES : (int)FOURS }; /* vectors that are added, or pairs of halves */

/* Returns the sum of the lanes of each row's vector, a lane each. */
static inline ints add_lanes(ints *r)
{
#pragma GCC unroll 4
    for (int n = ADDED; n > 1; n /= 2)
#pragma GCC unroll 4
        for (int i = 0; i < n / 2; i++) r[i] = LOW(r[i], r[i + n / 2]) + HIGH(r[i], r[i + n / 2]);
    return r[0];
}

/* Multiplies LANES rows by a, and sums over a block or over each half of it. */
static inline void dot_rows(ints sums[2], const eight row[LANES], eight a, const int halves, bool small)
{
#if defined(QUANTIZED_VNNI) || defined(QUANTIZED_AMX) || defined(QUANTIZED_AVX2)
    static const eight first = {-1, -1, -1, -1, 0, 0, 0, 0};
    for (int h = 0; h < halves; h++) {
        eight part = halves == 1 ? a : h ? a & ~first : a & first;
        ints r[FOURS];
        for (int i = 0; i < FOURS; i++) r[i] = dot_lanes((ints){0}, ROW(row, i), PAIR(part, part), small);
        sums[h] = add_lanes(r);
    }
#else
    ints low[LANES], high[LANES];
    for (int i = 0; i < LANES; i++) {
        low[i] = dot_lanes((ints){0}, FIRST(row[i]), FIRST(a), small);
        high[i] = dot_lanes(halves == 1 ? low[i] : (ints){0}, SECOND(row[i]), SECOND(a), small);
    }
    if (halves == 2) sums[1] = add_lanes(high);
    sums[0] = add_lanes(halves == 1 ? high : low);
#endif
}

/* Adds the sums of a span's blocks, times the span's scale. */
static inline void add_span(struct few *f, const float *d, const size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        f->sum[i] += f->span[i] * d[i];
        f->span[i] = (floats){0};
    }
}

EACH take_sums(struct few *f, const size_t rows, const struct kind t, const eight row[LANES], floats scale,
               floats second)
{
    const int32_t *fours = (const int32_t *)(const void *)f->a, *begin = fours + (FOURS + 1) * rows;
#pragma GCC unroll 2
    for (size_t i = 0; i < rows; i++) {
        eight a;
        ints part[2];
        memcpy(&a, fours + FOURS * i, sizeof a);
        dot_rows(part, row, a, t.halves, t.small);
#pragma GCC unroll 2
        for (int h = 0; h < t.halves; h++) {
            if (!t.offset) part[h] += every_lane(begin[(size_t)h * rows + i]);
            f->span[i] += __builtin_convertvector(part[h], floats) * (h ? second : scale);
        }
        if (t.offset) f->span[i] -= second * ((const float *)begin)[i];
    }
    f->a += rounded_bytes(&t, rows);
    if (++f->done % SPAN == 0 || f->done == f->blocks) add_span(f, (const float *)(fours + FOURS * rows), rows);
}

/* ---- more rows: W packed ---- */

static inline __attribute__((always_inline)) void put_panel(ints **at, const struct kind t, const eight row[LANES],
                                                            floats scale, floats second)
{
    lanes_of(*at, row);
    ((floats *)*at)[FOURS] = scale;
    if (panel_vectors(&t) > FOURS + 1) ((floats *)*at)[FOURS + 1] = second;
    *at += panel_vectors(&t);
}

/* Prefetches a block's lines `ahead` vectors behind it, which belong to the next panel if W is kept packed. 0
 * prefetches nothing. */
static inline void fetch_panel(const ints *w, const size_t vectors, size_t ahead)
{
    const char *at = (const char *)(w + ahead);
    if (!ahead) return;
#pragma GCC unroll 16
    for (size_t i = 0; i < vectors * sizeof *w; i += LINE) __builtin_prefetch(at + i, 0, 2);
}

/* Adds `blocks` blocks to sums[i] for row i of a group. `rows` and `t` are constants where this is inlined. */
static inline __attribute__((always_inline)) void sum_blocks(floats *sums, const size_t rows, const struct kind t,
                                                             const char *a, const ints *w, size_t blocks, size_t ahead)
{
    const int each = FOURS / t.halves;
    const size_t vectors = panel_vectors(&t);
    floats all[ROWS];
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) all[i] = sums[i];
    for (size_t first = 0; first < blocks; first += SPAN) {
        const float *d = (const float *)(const void *)a + FOURS * rows;
        floats span[ROWS];
#pragma GCC unroll 8
        for (size_t i = 0; i < rows; i++) span[i] = (floats){0};
        for (size_t b = first; b < least(blocks, first + SPAN); b++, a += rounded_bytes(&t, rows), w += vectors) {
            fetch_panel(w, vectors, ahead);
            const int32_t *fours = (const int32_t *)(const void *)a, *begin = fours + (FOURS + 1) * rows;
            const floats *scales = (const floats *)w + FOURS;
#pragma GCC unroll 2
            for (int h = 0; h < t.halves; h++) {
                ints part[ROWS];
#pragma GCC unroll 8
                for (size_t i = 0; i < rows; i++)
                    part[i] = t.offset ? (ints){0} : every_lane(begin[(size_t)h * rows + i]);
#pragma GCC unroll 8
                for (int k = h * each; k < (h + 1) * each; k++)
#pragma GCC unroll 8
                    for (size_t i = 0; i < rows; i++)
                        part[i] = dot(part[i], w[k], fours[(size_t)k * rows + i], t.small);
#pragma GCC unroll 8
                for (size_t i = 0; i < rows; i++) span[i] += __builtin_convertvector(part[i], floats) * scales[h];
            }
            if (!t.offset) continue;
#pragma GCC unroll 8
            for (size_t i = 0; i < rows; i++) span[i] -= scales[1] * ((const float *)begin)[i];
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < rows; i++) all[i] += span[i] * d[i];
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) sums[i] = all[i];
}

/* ---- the functions of each block type ---- */

#define SUMS(type, rows)                                                                                               \
    static __attribute__((noinline)) void sums_##type##_##rows(floats *sums, const char *a, const ints *w,             \
                                                               size_t blocks, size_t ahead)                            \
    {                                                                                                                  \
        sum_blocks(sums, rows, kinds[BLOCK_##type], a, w, blocks, ahead);                                              \
    }
#define TAKE_FEW(type, name, n)                                                                                        \
    EACH take_##type##_##n(void *to, const eight row[LANES], floats scale, floats second)                              \
    {                                                                                                                  \
        take_sums(to, n, kinds[BLOCK_##type], row, scale, second);                                                     \
    }                                                                                                                  \
    static void few_##type##_##n(const struct rows *w, struct few *f)                                                  \
    {                                                                                                                  \
        each_##name(w, take_##type##_##n, f);                                                                          \
    }
#define TYPE(type, name)                                                                                               \
    EACH take_panel_##type(void *to, const eight row[LANES], floats scale, floats second)                              \
    {                                                                                                                  \
        put_panel(to, kinds[BLOCK_##type], row, scale, second);                                                        \
    }                                                                                                                  \
    static void pack_##type(const struct rows *w, ints *to)                                                            \
    {                                                                                                                  \
        each_##name(w, take_panel_##type, &to);                                                                        \
    }                                                                                                                  \
    TAKE_FEW(type, name, 1)                                                                                            \
    TAKE_FEW(type, name, 2)                                                                                            \
    SUMS(type, 1)                                                                                                      \
    SUMS(type, 2)                                                                                                      \
    SUMS(type, 4)                                                                                                      \
    SUMS_OF_8(type)
#if QUANTIZED_ROWS == 8
#define SUMS_OF_8(type) SUMS(type, 8)
#define OF_8(type)      , sums_##type##_8
#else
#define SUMS_OF_8(type)
#define OF_8(type)
#endif
TYPE(Q8_0, q8_0)
TYPE(Q4_0, q4_0)
TYPE(Q4_K, q4_k)
TYPE(Q6_K, q6_k)

static const struct compiled {
    void (*pack)(const struct rows *w, ints *to);
    void (*few[FEW])(const struct rows *w, struct few *f);                                    /* for 1, 2 rows */
    void (*sums[4])(floats *sums, const char *a, const ints *w, size_t blocks, size_t ahead); /* for 1, 2, 4, 8 rows */
} compiled[BLOCK_TYPES] = {
#define COMPILED(type)                                                                                                 \
    [BLOCK_##type] = {                                                                                                 \
        pack_##type, {few_##type##_1, few_##type##_2}, {sums_##type##_1, sums_##type##_2, sums_##type##_4 OF_8(type)}}
    COMPILED(Q8_0), COMPILED(Q4_0), COMPILED(Q4_K), COMPILED(Q6_K)};

#if defined(QUANTIZED_AMX)
enum { GROUP = SIDE };

/* The same sums for SIDE rows by tiles: a block or a half gives 16 x 16 whole numbers. */
static void sum_tiles(floats sums[SIDE], const struct kind *t, const char *a, const ints *w, size_t blocks,
                      size_t ahead)
{
    int32_t part[2][SIDE * LANES] __attribute__((aligned(64)));
    floats span[SIDE] = {{0}};
    const size_t vectors = panel_vectors(t);
    for (size_t b = 0; b < blocks; b++, a += rounded_bytes(t, SIDE), w += vectors) {
        const int32_t *begin = (const int32_t *)(const void *)a + (FOURS + 1) * SIDE;
        const float *d = (const float *)(const void *)a + FOURS * SIDE;
        const floats *scales = (const floats *)w + FOURS;
        fetch_panel(w, vectors, ahead);
        for (int h = 0; h < t->halves; h++) {
            int32_t *now = part[(b + (size_t)h) % 2];
            tile_product(now, (const int8_t *)a + h * BLOCK / 2, BLOCK, w + h * FOURS / 2);
            for (int i = 0; i < SIDE; i++) {
                ints whole = *(const ints *)(const void *)(now + i * LANES);
                if (!t->offset) whole += begin[h * SIDE + i];
                span[i] += __builtin_convertvector(whole, floats) * scales[h];
            }
        }
        for (int i = 0; i < SIDE && t->offset; i++) span[i] -= scales[1] * ((const float *)begin)[i];
        if ((b + 1) % SPAN && b + 1 < blocks) continue;
        for (int i = 0; i < SIDE; i++) {
            sums[i] += span[i] * d[i];
            span[i] = (floats){0};
        }
    }
}
#else
enum { GROUP = ROWS };
#endif

/* ---- the whole product ---- */

/* Returns the rows of the next group when `left` rows are left: a tile if they fill more than half of it, else as many
 * as registers hold. */
static inline size_t group_of(size_t left)
{
#if defined(QUANTIZED_AMX)
    if (left > SIDE / 2) return SIDE;
#endif
    size_t rows = ROWS;
    while (rows > left) rows /= 2;
    return rows;
}

/* begin reads the sums over earlier slices of columns from j on, where sums begin at column `start`; finish writes
 * them. */
static void begin(const struct quantized_product *p, floats *sums, size_t first, size_t rows, size_t start, size_t j)
{
    size_t columns = least(start + LANES, p->n) - j;
    for (size_t i = 0; i < rows; i++)
        memcpy((float *)&sums[i] + (j - start), p->c + (first + i) * p->ldc + j, columns * sizeof(float));
}

static void finish(const struct quantized_product *p, floats *sums, size_t first, size_t rows, size_t start, size_t j,
                   bool last)
{
    size_t columns = least(start + LANES, p->n) - j;
    floats bias = {0};
    if (last && p->bias) {
        memcpy((float *)&bias + (j - start), p->bias + j, columns * sizeof(float));
        for (size_t i = 0; i < rows; i++) sums[i] += bias;
    }
    for (size_t i = 0; i < rows; i++) {
        float *c = p->c + (first + i) * p->ldc + j;
        if (columns == LANES)
            memcpy(c, &sums[i], sizeof *sums);
        else
            memcpy(c, (float *)&sums[i] + (j - start), columns * sizeof *c);
    }
}

/* A slice of k: of W, and of A's rounded rows. */
struct slice {
    struct source source;
    const char *a;
    size_t from, depth;
    bool first, last;
};

/* Computes columns from j on of the packed ones, which begin at `start`, for rows first .. end. */
static void compute(const struct quantized_product *p, const struct slice *s, const ints *w, size_t first, size_t end,
                    size_t start, size_t j, size_t ahead)
{
    size_t blocks = s->depth / BLOCK;
    const char *a = s->a;
    for (size_t i = first; i < end;) {
        size_t rows = group_of(end - i), there = least(rows, end - i);
        floats sums[GROUP] = {{0}};
        if (!s->first) begin(p, sums, i, there, start, j);
#if defined(QUANTIZED_AMX)
        if (rows == SIDE)
            sum_tiles(sums, &kinds[p->type], a, w, blocks, i == first ? ahead : 0);
        else
#endif
            compiled[p->type].sums[rows == 8 ? 3 : rows / 2](sums, a, w, blocks, i == first ? ahead : 0);
        a += blocks * rounded_bytes(&kinds[p->type], rows);
        finish(p, sums, i, there, start, j, s->last);
        i += rows;
    }
}

/* Computes LANES columns from j on for rows first .. end. The last columns are computed together with some before them,
 * which may belong to other parts of C if W is packed. */
static void multiply(const struct quantized_product *p, const struct slice *s, ints *packed, size_t first, size_t end,
                     size_t j)
{
    if (p->panels && p->m > FEW) {
        const size_t vectors = panel_vectors(&kinds[p->type]);
        const ints *w = (const ints *)(const void *)p->panels + (j / LANES * p->k + s->from) / BLOCK * vectors;
        compute(p, s, w, first, end, j + LANES <= p->n ? j : p->n - LANES, j, p->k / BLOCK * vectors);
        return;
    }
    size_t start = least(j, s->source.n - LANES);
    struct rows w = rows_of(p->type, &s->source, start, s->depth);
    if (p->m > FEW) {
        compiled[p->type].pack(&w, packed);
        compute(p, s, packed, first, end, start, j, 0);
    } else {
        struct few f = {.a = s->a, .blocks = s->depth / BLOCK};
        if (!s->first) begin(p, f.sum, 0, p->m, start, j);
        compiled[p->type].few[p->m - 1](&w, &f);
        finish(p, f.sum, 0, p->m, start, j, s->last);
    }
}

/* Rows first .. end, rounded group by group; returns where they end. */
static char *round_groups(const struct quantized_product *p, char *to, size_t first, size_t end, size_t from,
                          size_t depth)
{
    for (size_t i = first; i < end;) {
        bool few = p->m <= FEW;
        size_t rows = few ? p->m : group_of(end - i);
        round_rows(to, p, i, rows, from, depth, few || rows > ROWS);
        to += depth / BLOCK * rounded_bytes(&kinds[p->type], rows);
        i += rows;
    }
    return to;
}

static void product(const struct quantized_product *p, void *scratch)
{
    /* Rounds all slices at once if they fit, so that W is read from beginning to end; else one by one, for as many rows
     * as fit. */
    const size_t padded = (p->m + GROUP - 1) / GROUP * GROUP;
    const bool fits = padded * (p->k / BLOCK) * ROW_BYTES <= ROWS_BYTES;
    const size_t range = fits ? p->k : least(p->k, SLICE),
                 most = ROWS_BYTES / (range / BLOCK * ROW_BYTES) / GROUP * GROUP;
    const bool laid = p->panels && p->m > FEW;
    const size_t slice =
        /* A slice that is packed or copied here fits in the scratch. */
        laid || (p->m <= FEW && p->n >= LANES) ? range : SLICE;
    ints *packed = scratch;
    unsigned char *copy = (unsigned char *)scratch + PANEL_BYTES;
    char *rounded = (char *)copy + COPY_BYTES;
#if defined(QUANTIZED_AMX)
    struct tile_shapes shapes = shapes_of(BLOCK / (size_t)kinds[p->type].halves);
    tiles_begin(&shapes);
#endif
    for (size_t first = 0; first < p->m; first += most) {
        const size_t end = least(p->m, first + most);
        for (size_t from = 0; from < p->k; from += range) {
            size_t stop = least(p->k, from + range), each = 0;
            for (size_t k = from; k < stop; k += slice) {
                char *to = rounded + (k - from) / slice * each;
                char *behind = round_groups(p, to, first, end, k, least(slice, stop - k));
                if (k == from) each = (size_t)(behind - to);
            }
            for (size_t j = 0; j < p->n; j += LANES)
                for (size_t k = from; k < stop; k += slice) {
                    struct slice s = {.from = k,
                                      .a = rounded + (k - from) / slice * each,
                                      .depth = least(slice, stop - k),
                                      .first = k == 0,
                                      .last = k + slice >= p->k};
                    if (!laid) s.source = slice_of(p, k, s.depth, copy);
                    multiply(p, &s, packed, first, end, j);
                }
        }
    }
#if defined(QUANTIZED_AMX)
    tiles_end();
#endif
}

static void pack(const struct quantized_product *p, size_t t, void *to)
{
    struct source all = {p->w, block_bytes(p->type, p->k), p->n, 0};
    struct rows w = rows_of(p->type, &all, least(t * LANES, p->n - LANES), p->k);
    compiled[p->type].pack(&w, to);
}

static size_t panel_bytes(enum block_type type, size_t k)
{
    return k / BLOCK * panel_vectors(&kinds[type]) * sizeof(ints);
}

const struct quantized_kernel QUANTIZED(kernel) = {product, pack, panel_bytes, LANES};
