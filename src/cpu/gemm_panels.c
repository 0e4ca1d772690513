/* The product of a part with packed panels and a register-blocked micro-kernel of fused multiply-adds.
 *
 *   for columns of B in blocks of NC, for k as far as the scratch goes:
 *     pack B, per block of about KC, into panels of NR columns
 *     for rows of A in blocks of MB:
 *       pack A the same way into panels of MR rows
 *       for tiles of C, for one block of k after the other:
 *         micro-kernel MR x NR over the block
 *
 * Each element of C is one chain of fused multiply-adds along k per block; the blocks are added in order. */
#include "cpu/gemm_part.h"
#include "cpu/panel_product.h"
#include "cpu/transpose.h"

enum { MR = PANEL_ROWS, NRV = 2 };
enum { NR = PANEL, KC = 256, NC = 512, MB = 36 * MR };
/* Floats packed at a time, unless one block of k needs more: half of a large L2 cache. */
enum { PACKED = 1 << 18 };
enum { DOWN = 4, ACROSS = 2 }; /* panels of a tile */
enum { DIRECT = 512 };         /* columns of B up to which packing rows of A along k does not pay */
enum { AT_ONCE = MR * NRV };   /* elements of C whose multiply-adds cost about as much as packing one element */

size_t CPU(gemm_part_scratch)(void)
{
    const size_t block = (size_t)(MB + NC) * 2 * KC; /* one block of k, at most 2 KC */
    return (block > PACKED ? block : PACKED) * sizeof(float);
}

/* Returns the length of a block along k: about KC. Blocks have nearly one size, because a short one would read and
 * write all of C for few steps. Up to 2 KC, k is one block. */
static size_t block_of(size_t k)
{
    size_t blocks = k > 2 * KC ? (k + KC / 2) / KC : 1;
    return k ? tiles_of(tiles_of(k, blocks), 16) * 16 : 16;
}

enum { LINE = 16, AHEAD = 8 }; /* floats of a cache line; rows between prefetch and packing */

/* Packs x(i, p) = data[i * lane + p * along], i < valid, p < k, into panels of `w` rows: out[panel][p][i % w], with
 * zeros up to whole panels. `w` is a constant where this is inlined. */
static inline __attribute__((always_inline)) void pack_panels(float *out, const float *data, size_t lane, size_t along,
                                                              const size_t w, size_t valid, size_t k)
{
    if (lane == 1) { /* row after row across all panels, so that reads are contiguous */
        size_t whole = valid / w * w;
        for (size_t p = 0; p < k; p++) {
            const float *row = data + p * along;
            for (size_t i = 0; i < valid; i += LINE) __builtin_prefetch(row + AHEAD * along + i);
            for (size_t i = 0; i < whole; i += w) memcpy(out + i * k + p * w, row + i, w * sizeof(float));
            for (size_t i = whole; i < tiles_of(valid, w) * w; i++)
                out[whole * k + p * w + i - whole] = i < valid ? row[i] : 0.0f;
        }
        return;
    }
    for (size_t first = 0; first < valid; first += w, out += w * k) {
        const float *from = data + first * lane;
        size_t rows = least(w, valid - first), p = 0;
        /* Transposes blocks in registers. A store may run past its row of the panel into the next row, which is written
         * later. */
        for (; along == 1 && p + VL <= k; p += VL)
            for (size_t i0 = 0; i0 < w; i0 += VL) {
                vec r[VL];
                for (size_t i = 0; i < VL; i++) r[i] = i0 + i < rows ? load(from + (i0 + i) * lane + p) : (vec){0};
                transpose(r);
                if (i0 + VL <= w)
                    for (size_t q = 0; q < VL; q++) store(out + (p + q) * w + i0, r[q]);
                else
                    for (size_t q = 0; q < VL; q++) memcpy(out + (p + q) * w + i0, &r[q], (w - i0) * sizeof(float));
            }
        for (; p < k; p++)
            for (size_t i = 0; i < w; i++) out[p * w + i] = i < rows ? from[i * lane + p * along] : 0.0f;
    }
}

/* acc = x^T b (k, NR); then C = acc (+ bias), or C += acc. x (k, MR) is a panel or, if `direct`, MR rows of A that are
 * `row` bytes apart. */
static inline __attribute__((always_inline)) void micro(size_t k, const float *restrict a, const bool direct,
                                                        size_t row, const float *restrict b, float *restrict c,
                                                        size_t ldc, bool add, const float *bias)
{
    enum { EACH = 5, BASES = (MR + EACH - 1) / EACH }; /* rows that one base register and a scaled index reach */
    const char *base[BASES];
    vec acc[MR][NRV];
    for (size_t i = 0; i < BASES; i++) base[i] = (const char *)a + i * EACH * row;
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NRV; j++) acc[i][j] = (vec){0};
    for (size_t i = 0; i < MR; i++) /* C is fetched during the loop over k */
        for (size_t j = 0; j < NRV; j++) __builtin_prefetch(c + i * ldc + j * VL, 1);
    for (size_t p = 0; p < k; p++) {
        vec bv[NRV];
#pragma GCC unroll 2
        for (int j = 0; j < NRV; j++) bv[j] = load(b + j * VL);
#pragma GCC unroll 16
        for (size_t i = 0; i < MR; i++) {
            float x = direct ? *(const float *)(base[i / EACH] + i % EACH * row) : a[i];
#pragma GCC unroll 2
            for (int j = 0; j < NRV; j++) acc[i][j] += x * bv[j];
        }
#pragma GCC unroll 4
        for (int i = 0; i < BASES; i++) base[i] += sizeof *a;
        a += MR;
        b += NR;
    }
#define EVERY(expression)                                                                                              \
    _Pragma("GCC unroll 16") for (size_t i = 0; i < MR; i++) _Pragma("GCC unroll 2") for (size_t j = 0; j < NRV; j++)  \
        expression
    if (add) EVERY(acc[i][j] += load(c + i * ldc + j * VL));
    if (bias) EVERY(acc[i][j] += load(bias + j * VL));
    EVERY(store(c + i * ldc + j * VL, acc[i][j]));
#undef EVERY
}

static __attribute__((noinline)) void micro_packed(size_t k, const float *a, const float *b, float *c, size_t ldc,
                                                   bool add, const float *bias)
{
    micro(k, a, false, 0, b, c, ldc, add, bias);
}

static __attribute__((noinline)) void micro_direct(size_t k, const float *a, size_t row, const float *b, float *c,
                                                   size_t ldc, bool add, const float *bias)
{
    micro(k, a, true, row, b, c, ldc, add, bias);
}

/* The packed region: rows ic .. ic + mc of A, columns jc .. jc + nc of B, k from pc to pc + kc. The block that begins
 * at k has its panels of B from bpack + k * columns on, and its panels of A from apack + k * rows on. Rows of A before
 * `whole` are not packed; their panels are read from A. */
struct stage {
    const struct product *p;
    float *apack, *bpack;
    size_t jc, nc, pc, kc, ic, mc;
    size_t rows, columns; /* packed rows and columns, rounded up to whole panels */
    size_t block;         /* length of a block of k */
    size_t whole;         /* rows of A that are read in place: whole panels, if A's rows lie along k */
    bool last, direct;
};

/* Panels packed side by side; more rows of the scratch at a time would conflict in a few sets of the L1 cache. */
enum { TOGETHER = 4 };

/* Packs x(i, p) = data[i * lane + p * along], i < valid, p < k, into panels of `w`. */
static inline __attribute__((always_inline)) void pack_rows(float *out, const float *data, size_t lane, size_t along,
                                                            const size_t w, size_t valid, size_t k)
{
    for (size_t i = 0; i < valid; i += TOGETHER * w)
        pack_panels(out + i * k, data + i * lane, lane, along, w, least(TOGETHER * w, valid - i), k);
}

/* Packs B if this is the first block of rows, and the rows of A that are not read in place. */
static void pack(const struct stage *s)
{
    const struct matrix *a = &s->p->a, *b = &s->p->b;
    for (size_t k = 0; k < s->kc; k += s->block) {
        size_t depth = least(s->block, s->kc - k);
        if (s->ic == 0)
            pack_rows(s->bpack + k * s->columns, b->data + (s->pc + k) * b->row + s->jc * b->col, b->col, b->row, NR,
                      s->nc, depth);
        pack_rows(s->apack + k * s->rows, a->data + (s->ic + s->whole) * a->row + (s->pc + k) * a->col, a->row, a->col,
                  MR, s->mc - s->whole, depth);
    }
}

/* Computes rows i0 .. i1, columns j0 .. j1 of the packed region over one block of k. */
static void compute_block(const struct stage *s, size_t i0, size_t i1, size_t j0, size_t j1, size_t k)
{
    const struct product *p = s->p;
    size_t depth = least(s->block, s->kc - k);
    bool first = s->pc + k == 0, add = p->add || !first;
    for (size_t j = j0; j < j1; j += NR)
        for (size_t i = i0; i < i1; i += MR) {
            const float *b = s->bpack + k * s->columns + j * depth;
            float *c = p->c + (s->ic + i) * p->ldc + s->jc + j;
            const float *bias = p->bias && first ? p->bias + s->jc + j : NULL;
            bool whole = i + MR <= i1 && j + NR <= j1;
            float edge[MR * NR] __attribute__((aligned(64)));
            float *to = whole ? c : edge;
            size_t ldc = whole ? p->ldc : NR;
            if (i < s->whole)
                micro_direct(depth, p->a.data + (s->ic + i) * p->a.row + s->pc + k, p->a.row * sizeof(float), b, to,
                             ldc, whole && add, whole ? bias : NULL);
            else
                micro_packed(depth, s->apack + k * s->rows + (i - s->whole) * depth, b, to, ldc, whole && add,
                             whole ? bias : NULL);
            if (whole) continue;
            for (size_t r = 0; r < least(MR, i1 - i); r++)
                for (size_t q = 0; q < least(NR, j1 - j); q++) {
                    float v = edge[r * NR + q];
                    if (add) v += c[r * p->ldc + q];
                    if (bias) v += bias[q];
                    c[r * p->ldc + q] = v;
                }
        }
}

static void compute_tile(const struct stage *s, size_t i0, size_t i1, size_t j0, size_t j1)
{
    const struct product *p = s->p;
    size_t k = 0;
    do {
        compute_block(s, i0, i1, j0, j1, k); /* K = 0 runs one empty block, which writes C */
        k += s->block;
    } while (k < s->kc);
    for (size_t i = i0; i < i1 && s->last; i++) activate(p, s->ic + i, s->jc + j0, j1 - j0);
}

void CPU(gemm_part)(const struct product *p, float *scratch)
{
    struct stage s = {.p = p, .direct = p->a.col == 1 && p->n <= DIRECT, .bpack = scratch};
    size_t rows = tiles_of(least(p->m, MB), MR) * MR, columns = tiles_of(least(p->n, NC), NR) * NR;
    s.block = block_of(p->k);
    size_t deep = PACKED / ((s.direct ? MR : rows) + columns) / s.block * s.block;
    if (deep < s.block) deep = s.block;
    for (s.jc = 0; s.jc < p->n; s.jc += NC)
        for (s.pc = 0; s.pc < p->k || s.pc == 0; s.pc += deep) {
            s.nc = least(NC, p->n - s.jc);
            s.kc = least(deep, p->k - s.pc);
            s.last = s.pc + deep >= p->k;
            s.columns = tiles_of(s.nc, NR) * NR;
            s.apack = s.bpack + s.columns * s.kc;
            for (s.ic = 0; s.ic < p->m; s.ic += MB) {
                s.mc = least(MB, p->m - s.ic);
                s.whole = s.direct ? s.mc / MR * MR : 0;
                s.rows = tiles_of(s.mc - s.whole, MR) * MR;
                pack(&s);
                for (size_t i = 0; i < s.mc; i += DOWN * MR)
                    for (size_t j = 0; j < s.nc; j += ACROSS * NR)
                        compute_tile(&s, i, least(i + DOWN * MR, s.mc), j, least(j + ACROSS * NR, s.nc));
            }
        }
}

size_t CPU(gemm_cost)(const struct product *p, size_t *rows, size_t *columns)
{
    *rows = tiles_of(*rows, MR) * MR;
    *columns = tiles_of(*columns, NR) * NR;
    bool direct = p->a.col == 1 && *columns <= DIRECT;
    size_t packed =
        *columns +
        (direct ? *rows / 2 : tiles_of(*columns, NC) * *rows); /* rows that are read in place come from memory once */
    return *rows * *columns / AT_ONCE + packed;
}

/* ---- a few rows against weights stored along k ----
 *
 * Packing all weights would cost more than the product. Instead, blocks of weights are transposed in registers and used
 * there for up to FEW rows, or stored in a panel for up to SOME rows; the next blocks are prefetched meanwhile. Each
 * element is the same chain of multiply-adds as above, so a row has the same bits alone and among others. */

enum { FEW = 8, SOME = 64 };

/* A thread computes `each` neighboring columns, because it prefetches the columns that it reads next. */
struct few {
    const struct call *call;
    const struct product *p;
    size_t each;
};

/* Prefetches as many lines as a block of VL columns and VL of k holds. */
static inline void fetch(const float *at)
{
#pragma GCC unroll 16
    for (size_t i = 0; i < VL * VL; i += PANEL_LINE) __builtin_prefetch(at + i, 0, 2);
}

/* Returns where the weights of column j, from k on, lie if blocks of `columns` columns follow each other in memory;
 * null if there are gaps between columns. */
static inline const float *ahead_of(const struct product *p, size_t j, size_t k, size_t columns)
{
    return p->b.col == p->k ? p->b.data + j * p->b.col + k * columns : NULL;
}

/* r[q] = weights of columns j .. j + VL at k + q, with zeros past the edges. */
static inline void columns_along_k(vec r[VL], const struct matrix *b, size_t j, size_t columns, size_t k, size_t depth)
{
    const float *from = b->data + j * b->col + k;
    if (columns == VL && depth == VL) {
#pragma GCC unroll 16
        for (size_t i = 0; i < VL; i++) {
            r[i] = load(from + i * b->col);
            __builtin_prefetch(from + i * b->col + 4 * PANEL_LINE);
        }
    } else {
        for (size_t i = 0; i < VL; i++) {
            r[i] = (vec){0};
            if (i < columns) memcpy(&r[i], from + i * b->col, depth * sizeof(float));
        }
    }
    transpose(r);
}

/* Stores or adds the sums of `rows` rows, which lie `row` floats apart, to columns j .. j + columns of C, for the block
 * of k from pc on. */
static inline void put_sums(const struct product *p, const float *sums, size_t row, size_t i, size_t rows, size_t j,
                            size_t columns, size_t pc)
{
    for (size_t r = 0; r < rows; r++) {
        float *c = p->c + (i + r) * p->ldc + j;
        for (size_t q = 0; q < columns; q++) {
            float v = sums[r * row + q];
            if (p->add || pc > 0) v += c[q];
            if (p->bias && pc == 0) v += p->bias[j + q];
            c[q] = v;
        }
    }
}

/* Computes columns j .. j + columns of the first m rows of C over the block of k from pc on. Stores the weights in
 * panel (k, PANEL) too, unless it is null. `m` and whether `panel` is null are constants where this is inlined, so that
 * the sums stay in registers. */
static inline __attribute__((always_inline)) void few_block(const struct product *p, size_t j, size_t columns,
                                                            size_t pc, const size_t m, float *panel, const float *ahead)
{
    const size_t stop = least(p->k, pc + block_of(p->k));
    vec acc[FEW] = {{0}};
    for (size_t k = pc; k < stop; k += VL) {
        vec r[VL];
        size_t depth = least(VL, stop - k);
        if (ahead) fetch(ahead + (k - pc) * VL);
        columns_along_k(r, &p->b, j, columns, k, depth);
        if (panel) { /* rows past the depth are overwritten later, or not read */
#pragma GCC unroll 16
            for (size_t q = 0; q < VL; q++) store(panel + q * PANEL, r[q]);
            panel += VL * PANEL;
        }
        const float *a = p->a.data + k;
        if (depth == VL) {
#pragma GCC unroll 16
            for (size_t q = 0; q < VL; q++)
#pragma GCC unroll 8
                for (size_t i = 0; i < m; i++) acc[i] += a[i * p->a.row + q] * r[q];
        } else {
            for (size_t q = 0; q < depth; q++)
#pragma GCC unroll 8
                for (size_t i = 0; i < m; i++) acc[i] += a[i * p->a.row + q] * r[q];
        }
    }
    float sums[FEW * VL];
#pragma GCC unroll 8
    for (size_t i = 0; i < m; i++) store(sums + i * VL, acc[i]);
    put_sums(p, sums, VL, 0, m, j, columns, pc);
}

#define FEW_BLOCK(m)                                                                                                   \
    static __attribute__((noinline)) void few_block_##m(const struct product *p, size_t j, size_t columns, size_t pc)  \
    {                                                                                                                  \
        few_block(p, j, columns, pc, m, NULL, ahead_of(p, j + VL, pc, VL));                                            \
    }
FEW_BLOCK(1)
FEW_BLOCK(2)
FEW_BLOCK(3)
FEW_BLOCK(4)
FEW_BLOCK(5)
FEW_BLOCK(6)
FEW_BLOCK(7)
FEW_BLOCK(8)

static void few_rows(void *argument, size_t tile, size_t worker)
{
    static void (*const blocks[])(const struct product *, size_t, size_t, size_t) = {
        NULL, few_block_1, few_block_2, few_block_3, few_block_4, few_block_5, few_block_6, few_block_7, few_block_8};
    (void)worker;
    const struct few *f = argument;
    const struct product *p = f->p;
    size_t end = least(p->n, (tile + 1) * f->each);
    for (size_t j = tile * f->each; j < end; j += VL) {
        size_t columns = least(VL, end - j), pc = 0;
        do blocks[p->m](p, j, columns, pc);
        while ((pc += block_of(p->k)) < p->k);
        for (size_t i = 0; i < p->m; i++) activate(p, i, j, columns);
    }
}

enum { HELD = VL == 8 ? 4 : 8 }; /* rows whose sums stay in registers together with a block of weights */

static __attribute__((noinline)) void held_block(const struct product *p, size_t j, size_t columns, size_t pc,
                                                 float *panel, const float *ahead)
{
    few_block(p, j, columns, pc, HELD, panel, ahead);
}

/* Computes PANEL columns, one block of k at a time: transposes the weights for the first rows, and stores them in a
 * panel for the other rows. Each group of rows prefetches one line of the next columns per k, and the first rows
 * prefetch the remaining lines. */
static void some_panel(const struct product *p, size_t j, float *panel)
{
    const size_t block = block_of(p->k), group = panel_rows(p->m - HELD), groups = tiles_of(p->m - HELD, group),
                 columns = least(PANEL, p->n - j), lines = tiles_of(PANEL, PANEL_LINE);
    float sums[PANEL_ROWS * PANEL] __attribute__((aligned(64)));
    for (size_t pc = 0; pc < p->k || pc == 0; pc += block) {
        size_t depth = least(block, p->k - pc);
        const float *next = ahead_of(p, j + PANEL, pc, PANEL);
        for (size_t half = 0; half < columns; half += VL)
            held_block(p, j + half, least(VL, columns - half), pc, panel + half,
                       next && half / PANEL_LINE >= groups ? next + half * depth : NULL);
        for (size_t g = 0; g < groups; g++) {
            size_t i = HELD + g * group, rows = least(group, p->m - i);
            const float *x = p->a.data + i * p->a.row + pc,
                        *ahead = next && g < lines ? next + g * depth * PANEL_LINE : NULL;
            CPU(panel_product)(rows, sums, x, p->a.row, panel, depth, ahead);
            put_sums(p, sums, PANEL, i, rows, j, columns, pc);
        }
    }
    for (size_t i = 0; i < p->m; i++) activate(p, i, j, columns);
}

static void some_rows(void *argument, size_t tile, size_t worker)
{
    const struct few *f = argument;
    size_t end = least(f->p->n, (tile + 1) * f->each);
    for (size_t j = tile * f->each; j < end; j += PANEL) some_panel(f->p, j, cpu_scratch(f->call, worker));
}

bool CPU(gemm_few)(const struct call *call, const struct product *p)
{
    if (p->m > SOME || p->a.col != 1 || p->b.row != 1) return false;
    size_t threads = pool_threads(cpu_of(call)->pool), shares = threads > FEW_THREADS ? SHARES * threads : threads;
    struct few f = {call, p, tiles_of(tiles_of(p->n, shares), PANEL) * PANEL};
    cpu_run(call, tiles_of(p->n, f.each), p->m <= FEW ? few_rows : some_rows, &f);
    return true;
}
