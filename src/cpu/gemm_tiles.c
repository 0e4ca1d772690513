/* The product of a part on a processor that multiplies tiles (AMX): 16 x 32 by 32 x 16 in bf16, summed in f32, at
 * sixteen times the rate of f32 multiply-adds.
 *
 * An f32 number is the sum of three bf16 numbers, x = x0 + x1 + x2. Each one is the rounded remainder of those before,
 * and holds 8 of the 24 bits, with a sign. Therefore
 *
 *   x y = x0 y0 + (x1 y0 + x0 y1) + (x2 y0 + x1 y1 + x0 y2)      and less than 2^-23 |x y| */
#include "cpu/gemm_part.h"
#include "cpu/gemm_tiles_packing.h"

/* The products of parts are exact in f32. They are added smallest first, and the sums are nearer to the exact ones than
 * a chain of f32 multiply-adds is. Two cases differ from f32. Magnitudes above 3.389e38, which bf16 cannot hold, act as
 * infinities, and the remainder of an infinity is NaN, so a result that would be infinite may be NaN. Parts below
 * 2^-126 count as zero.
 *
 *   for columns of C in strips, for k in blocks:   pack B, which stays in the L2 cache
 *     for rows of C in panels of SIDE:             pack A
 *       SIDE x SIDE of C:                          six products a step of k; then C += sums, while the next is computed
 *
 * If C has at most one panel of rows, each number of B is used once. Then each step of B is packed in the L1 cache,
 * between the products of the step before.
 *
 * Each element of C is one chain of sums along k per block; the blocks are added in order. */

enum { KC = 384, STRIP = 512 }; /* longest block of k; lanes of a strip of such blocks (more if k is shorter) */
enum { GROUP = 4 };             /* panels packed together if rows do not lie along k, or if each panel is used once */
/* Rows of C up to which its transpose is computed, if the larger operand's rows then need no transposition. */
enum { TURNED = 64 };
enum { STORE_EVERY = 3 }; /* steps between stores of a tile */

static size_t block_of(size_t k)
{
    return k ? tiles_of(tiles_of(k, tiles_of(k, KC)), DEPTH) * DEPTH : DEPTH;
}

size_t CPU(gemm_part_scratch)(void)
{
    return (size_t)(STRIP / SIDE + GROUP) * (KC / DEPTH) * STEP;
}

/* Returns the columns of a strip. */
static size_t strip_of(size_t block)
{
    return (size_t)STRIP * KC / block / SIDE * SIDE;
}

size_t CPU(gemm_cost)(const struct product *p, size_t *rows, size_t *columns)
{
    enum { PRODUCTS = 56 }; /* elements of C whose step of k costs as much as packing one element */
    *rows = tiles_of(*rows, SIDE) * SIDE;
    *columns = tiles_of(*columns, SIDE) * SIDE;
    return *rows * *columns / PRODUCTS + tiles_of(*columns, strip_of(block_of(p->k))) * *rows + *columns;
}

/* ---- SIDE x SIDE of C ---- */

struct sums {
    float x[SIDE][SIDE] __attribute__((aligned(64)));
    const struct product *p;
    size_t i, j, rows, columns; /* position in C */
    bool first, last;           /* whether this is the first or last block of k */
    bool turned;                /* x holds C's transpose */
};

static void turn(float x[SIDE][SIDE])
{
    for (size_t i = 0; i < SIDE; i += T)
        for (size_t j = 0; j <= i; j += T) {
            vec a[T], b[T];
            for (size_t r = 0; r < T; r++) a[r] = load(&x[i + r][j]), b[r] = load(&x[j + r][i]);
            transpose(a);
            transpose(b);
            for (size_t r = 0; r < T; r++) store(&x[j + r][i], a[r]), store(&x[i + r][j], b[r]);
        }
}

/* C += sums (+ bias) for rows from .. to, then the activation. */
static void finish(struct sums *s, size_t from, size_t to)
{
    if (from >= s->rows) return;
    const struct product *p = s->p;
    __mmask16 low = first(s->columns), high = first(s->columns > T ? s->columns - T : 0);
    if (s->turned && from == 0) turn(s->x);
    for (size_t r = from; r < least(to, s->rows); r++) {
        float *c = p->c + (s->i + r) * p->ldc + s->j;
        __m512 a = _mm512_load_ps(s->x[r]), b = _mm512_load_ps(s->x[r] + T);
        if (p->add || !s->first) {
            a += _mm512_maskz_loadu_ps(low, c);
            b += _mm512_maskz_loadu_ps(high, c + T);
        }
        if (p->bias && s->first) {
            a += _mm512_maskz_loadu_ps(low, p->bias + s->j);
            b += _mm512_maskz_loadu_ps(high, p->bias + s->j + T);
        }
        _mm512_mask_storeu_ps(c, low, a);
        _mm512_mask_storeu_ps(c + T, high, b);
        if (s->last) activate(p, s->i + r, s->j, s->columns);
    }
}

#define LOAD_A(part)                                                                                                   \
    do {                                                                                                               \
        _tile_loadd(4, a + (part)*2 * TILE, 64);                                                                       \
        _tile_loadd(5, a + (part)*2 * TILE + TILE, 64);                                                                \
    } while (0)
#define LOAD_B(part)                                                                                                   \
    do {                                                                                                               \
        _tile_loadd(6, b + (part)*2 * TILE, 64);                                                                       \
        if (!narrow) _tile_loadd(7, b + (part)*2 * TILE + TILE, 64);                                                   \
    } while (0)
#define MULTIPLY()                                                                                                     \
    do {                                                                                                               \
        _tile_dpbf16ps(0, 4, 6);                                                                                       \
        if (!narrow) _tile_dpbf16ps(1, 4, 7);                                                                          \
        _tile_dpbf16ps(2, 5, 6);                                                                                       \
        if (!narrow) _tile_dpbf16ps(3, 5, 7);                                                                          \
    } while (0)

static inline void clear_sums(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static inline __attribute__((always_inline)) void store_sums(struct sums *s, const bool narrow)
{
    _tile_stored(0, &s->x[0][0], sizeof *s->x);
    if (!narrow) _tile_stored(1, &s->x[0][T], sizeof *s->x);
    _tile_stored(2, &s->x[T][0], sizeof *s->x);
    if (!narrow) _tile_stored(3, &s->x[T][T], sizeof *s->x);
}

/* The six products of a step for a transpose, in the order in which the straight kernel adds them. `middle` runs after
 * the fourth product, `after` after each other one. */
#define MULTIPLY_TURNED(after, middle)                                                                                 \
    do {                                                                                                               \
        LOAD_B(0);                                                                                                     \
        LOAD_A(2);                                                                                                     \
        MULTIPLY();                                                                                                    \
        after;                                                                                                         \
        LOAD_A(1);                                                                                                     \
        MULTIPLY();                                                                                                    \
        after;                                                                                                         \
        LOAD_B(1);                                                                                                     \
        MULTIPLY();                                                                                                    \
        after;                                                                                                         \
        LOAD_A(0);                                                                                                     \
        MULTIPLY();                                                                                                    \
        middle;                                                                                                        \
        LOAD_B(2);                                                                                                     \
        MULTIPLY();                                                                                                    \
        after;                                                                                                         \
        LOAD_B(0);                                                                                                     \
        MULTIPLY();                                                                                                    \
        after;                                                                                                         \
    } while (0)

/* Sums over `steps` of k, while the sums `before` are added to C. A transpose adds its parts in the same order.
 * `narrow` leaves out the second half of the columns. `turned` and `narrow` are constants where this is inlined. */
static inline __attribute__((always_inline)) void multiply(size_t steps, const char *a, const char *b, struct sums *s,
                                                           struct sums *before, const bool turned, const bool narrow)
{
    size_t row = 0, each = steps ? tiles_of(before->rows, steps) : 0;
    clear_sums();
    for (size_t step = 0; step < steps; step++, a += STEP, b += STEP, row += each) {
        if (turned) {
            MULTIPLY_TURNED((void)0, finish(before, row, row + each));
        } else {
            LOAD_A(0);
            LOAD_B(2);
            MULTIPLY();
            LOAD_B(1);
            MULTIPLY();
            LOAD_A(1);
            MULTIPLY();
            LOAD_B(0);
            MULTIPLY();
            finish(before, row, row + each);
            LOAD_A(2);
            MULTIPLY();
            LOAD_A(0);
            MULTIPLY();
        }
        /* A store behind more than about 130 waiting products waits a quarter of a microsecond, so one store comes
         * sooner. */
        if (step % STORE_EVERY == STORE_EVERY - 1) _tile_stored(0, s->x, sizeof *s->x);
    }
    finish(before, row, SIDE);
    store_sums(s, narrow);
}

static __attribute__((noinline)) void multiply_straight(size_t steps, const char *a, const char *b, struct sums *s,
                                                        struct sums *before)
{
    multiply(steps, a, b, s, before, false, false);
}

static __attribute__((noinline)) void multiply_turned(size_t steps, const char *a, const char *b, struct sums *s,
                                                      struct sums *before)
{
    multiply(steps, a, b, s, before, true, false);
}

static __attribute__((noinline)) void multiply_narrow(size_t steps, const char *a, const char *b, struct sums *s,
                                                      struct sums *before)
{
    multiply(steps, a, b, s, before, true, true);
}

/* ---- C of at most one panel of rows: its transpose by panels of rows of B ---- */

/* Panels of `down`, whose rows lie along k, each against the one packed panel b. */
struct stream {
    const struct operand *down;
    size_t pc, depth, steps;
    size_t lane; /* first lane of the panel */
    tiles a, b;  /* a: two steps, used in turn */
};

/* A step that is being packed, row after row. */
struct packing {
    const float *x, *later; /* the next row; the row that is prefetched with it */
    size_t next;            /* floats from a row to the next */
    size_t rows;            /* rows left */
    __mmask16 low, high;    /* masks of a row's numbers within the depth */
    tiles to;
};

static inline struct packing packing_of(const struct stream *s, size_t step)
{
    size_t k = step * DEPTH, depth = least(DEPTH, s->depth - k), ahead = step + AHEAD, panel = s->lane;
    struct packing p = {.next = s->down->lane,
                        .rows = least(SIDE, s->down->lanes - s->lane),
                        .low = first(depth),
                        .high = first(depth > T ? depth - T : 0),
                        .to = s->a + step % 2 * STEP};
    for (; ahead >= s->steps; ahead -= s->steps) panel += SIDE;
    p.x = s->down->data + s->lane * p.next + s->pc + k;
    p.later = s->down->data + panel * p.next + s->pc + ahead * DEPTH;
    return p;
}

static inline void pack_some(struct packing *p, size_t rows)
{
    rows = least(rows, p->rows);
    p->rows -= rows;
    for (; rows; rows--) {
        __builtin_prefetch(p->later, 0, 2);
        __builtin_prefetch(p->later + T, 0, 2);
        pack_row(p->to, p->x, p->low, p->high);
        p->x += p->next;
        p->later += p->next;
        p->to += 64;
    }
}

/* Computes the sums of a panel, and packs the next step meanwhile. */
static inline __attribute__((always_inline)) void stream_panel(const struct stream *p, struct sums *s,
                                                               const bool narrow)
{
    enum { SIXTH = (SIDE + 5) / 6 };
    clear_sums();
    struct packing next = {0};
    if (p->steps) {
        next = packing_of(p, 0);
        pack_some(&next, SIDE);
    }
    for (size_t step = 0; step < p->steps; step++) {
        tiles a = p->a + step % 2 * STEP, b = p->b + step * STEP;
        if (step + 1 < p->steps) next = packing_of(p, step + 1);
        MULTIPLY_TURNED(pack_some(&next, SIXTH), pack_some(&next, SIXTH));
    }
    store_sums(s, narrow);
}

static __attribute__((noinline)) void stream_wide(const struct stream *p, struct sums *s)
{
    stream_panel(p, s, false);
}

static __attribute__((noinline)) void stream_narrow(const struct stream *p, struct sums *s)
{
    stream_panel(p, s, true);
}

static void stream_part(const struct product *p, const struct operand *across, const struct operand *down,
                        float *scratch)
{
    struct sums sums = {.p = p, .turned = true};
    struct stream s = {.down = down, .a = (tiles)scratch, .b = (tiles)scratch + 2 * STEP};
    size_t block = block_of(p->k);
    for (s.pc = 0; s.pc < p->k || s.pc == 0; s.pc += block) {
        s.depth = least(block, p->k - s.pc);
        s.steps = tiles_of(s.depth, DEPTH);
        pack(s.b, across, 0, across->lanes, s.pc, s.depth, false);
        sums.rows = p->m;
        sums.first = s.pc == 0;
        sums.last = s.pc + block >= p->k;
        for (s.lane = 0; s.lane < down->lanes; s.lane += SIDE) {
            sums.j = s.lane;
            sums.columns = least(SIDE, p->n - s.lane);
            (across->lanes > T ? stream_wide : stream_narrow)(&s, &sums);
            finish(&sums, 0, SIDE);
        }
    }
}

/* ---- a part ---- */

static void configure(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } all = {.palette = 1};
    for (int i = 0; i < 8; i++) all.row_bytes[i] = 64, all.rows[i] = T;
    _tile_loadconfig(&all);
}

void CPU(gemm_part)(const struct product *p, float *scratch)
{
    bool turned = p->a.col == 1 && p->b.row == 1 && p->m <= TURNED && p->m < p->n;
    struct operand rows = {p->a.data, p->a.row, p->a.col, p->m}, columns = {p->b.data, p->b.col, p->b.row, p->n};
    struct operand down = turned ? columns : rows, across = turned ? rows : columns;
    struct sums sums[2], *now = &sums[0], *before = &sums[1];
    size_t block = block_of(p->k), strip = strip_of(block), group = down.along == 1 && !turned ? SIDE : GROUP * SIDE;
    tiles a = (tiles)scratch, b = a + (size_t)GROUP * (KC / DEPTH) * STEP;
    void (*compute)(size_t, const char *, const char *, struct sums *, struct sums *) = !turned ? multiply_straight
                                                                                        : across.lanes > T
                                                                                            ? multiply_turned
                                                                                            : multiply_narrow;
    before->rows = 0;
    configure();
    if (turned && p->m <= SIDE) {
        stream_part(p, &across, &down, scratch);
        _tile_release();
        return;
    }
    for (size_t jc = 0; jc < across.lanes; jc += strip)
        for (size_t pc = 0; pc < p->k || pc == 0; pc += block) {
            size_t depth = least(block, p->k - pc), steps = tiles_of(depth, DEPTH),
                   end = least(across.lanes, jc + strip);
            pack(b, &across, jc, end, pc, depth, false);
            for (size_t ic = 0; ic < down.lanes; ic += group) {
                size_t below = least(down.lanes, ic + group),
                       count = tiles_of(below - ic, SIDE) * tiles_of(end - jc, SIDE), done = 0;
                pack(a, &down, ic, below, pc, depth, true);
                for (size_t i = ic; i < below; i += SIDE)
                    for (size_t j = jc; j < end; j += SIDE, done++) {
                        now->p = p;
                        now->i = turned ? j : i;
                        now->j = turned ? i : j;
                        now->rows = least(SIDE, p->m - now->i);
                        now->columns = least(SIDE, p->n - now->j);
                        now->first = pc == 0;
                        now->last = pc + block >= p->k;
                        now->turned = turned;
                        for (size_t r = 0; r < now->rows && (p->add || pc); r++) {
                            __builtin_prefetch(p->c + (now->i + r) * p->ldc + now->j, 1);
                            __builtin_prefetch(p->c + (now->i + r) * p->ldc + now->j + T, 1);
                        }
                        for (size_t r = 0; r < now->rows && p->slope && now->last; r++) {
                            __builtin_prefetch(p->slope + (now->i + r) * p->ldc + now->j);
                            __builtin_prefetch(p->slope + (now->i + r) * p->ldc + now->j + T);
                        }
                        if (!turned) fetch(&down, below, least(down.lanes, below + group), pc, depth, done, count);
                        compute(steps, a + (i - ic) / SIDE * steps * STEP, b + (j - jc) / SIDE * steps * STEP, now,
                                before);
                        struct sums *swap = now;
                        now = before;
                        before = swap;
                    }
            }
        }
    finish(before, 0, SIDE);
    _tile_release();
}

bool CPU(gemm_few)(const struct call *call, const struct product *p)
{
    (void)call;
    (void)p;
    return false;
}
