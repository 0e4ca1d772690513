/* Attention within packed sentences: y = softmax(scale q k^T) v, one tile per (sentence, key/value head). Keys (and, in
 * the backward pass, values) are laid out transposed and padded to the vector width, so that one pass over whole
 * vectors computes a query's scores. Sums of rows stay in registers. Gradients of keys and values add QUERIES queries
 * at a time. */
#include "cpu/kernels.h"
#include "cpu/transpose.h"
#include "ops/attention.h"

#include <math.h>

struct heads {
    size_t heads, kv, width, memory, group, row; /* group: query heads per key/value head; row: width of qkv */
    bool causal;
    float scale;
};

static struct heads heads_of(const struct call *c)
{
    const int64_t *i = c->attr->i;
    struct heads h = {.heads = (size_t)i[ATTENTION_HEADS],
                      .kv = (size_t)i[ATTENTION_KV_HEADS],
                      .width = (size_t)i[ATTENTION_HEAD_WIDTH],
                      .memory = (size_t)i[ATTENTION_MEMORY],
                      .causal = i[ATTENTION_CAUSAL]};
    h.group = h.heads / h.kv;
    h.row = (h.heads + 2 * h.kv) * h.width;
    h.scale = 1.0f / sqrtf((float)h.width);
    return h;
}

static size_t padded(size_t n)
{
    return (n + VL - 1) / VL * VL;
}

/* The rows of a sentence's keys (which = 0) or values (1) of one head; latent rows come first. */
struct rows {
    const float *latent, *own;
    size_t latents, latent_row, own_row;
};

static struct rows rows_of(const struct heads *h, const float *qkv, const float *memory, size_t begin, size_t sentence,
                           size_t head, unsigned which)
{
    struct rows r = {.latents = h->memory, .latent_row = 2 * h->kv * h->width, .own_row = h->row};
    if (h->memory) r.latent = memory + (sentence * h->memory * 2 + which) * h->kv * h->width + head * h->width;
    r.own = qkv + begin * h->row + (h->heads + which * h->kv + head) * h->width;
    return r;
}

static const float *row_of(const struct rows *r, size_t j)
{
    return j < r->latents ? r->latent + j * r->latent_row : r->own + (j - r->latents) * r->own_row;
}

/* out[d][j] = column d of row j, and zeros for the padding. */
static void transpose_rows(float *out, const struct rows *rows, size_t width, size_t keys, size_t pad)
{
    for (size_t j = 0; j < pad; j += VL) {
        size_t d = 0, count = least(VL, keys - j);
        for (; d + VL <= width; d += VL) {
            vec block[VL];
            for (size_t i = 0; i < VL; i++) block[i] = i < count ? load(row_of(rows, j + i) + d) : (vec){0};
            transpose(block);
            for (size_t i = 0; i < VL; i++) store(out + (d + i) * pad + j, block[i]);
        }
        for (; d < width; d++)
            for (size_t i = 0; i < VL; i++) out[d * pad + j + i] = i < count ? row_of(rows, j + i)[d] : 0;
    }
}

/* y[d] += sum_j w[j * next] x[j * row + d], j < n. */
static inline void add_weighted(float *restrict y, const float *restrict w, size_t next, const float *restrict x,
                                size_t row, size_t n, size_t width)
{
    enum { AT_ONCE = 4 };
    size_t d = 0;
    for (; d + AT_ONCE * VL <= width; d += AT_ONCE * VL) {
        vec sum[AT_ONCE];
        for (size_t v = 0; v < AT_ONCE; v++) sum[v] = load(y + d + v * VL);
        for (size_t j = 0; j < n; j++)
            for (size_t v = 0; v < AT_ONCE; v++) sum[v] += w[j * next] * load(x + j * row + d + v * VL);
        for (size_t v = 0; v < AT_ONCE; v++) store(y + d + v * VL, sum[v]);
    }
    for (; d + VL <= width; d += VL) {
        vec sum = load(y + d);
        for (size_t j = 0; j < n; j++) sum += w[j * next] * load(x + j * row + d);
        store(y + d, sum);
    }
    for (; d < width; d++)
        for (size_t j = 0; j < n; j++) y[d] += w[j * next] * x[j * row + d];
}

/* y[d] += sum_j w[j] row_j[d], j < n; n is at least the number of latent rows. */
static void add_rows(float *y, const float *w, const struct rows *rows, size_t n, size_t width)
{
    add_weighted(y, w, 1, rows->latent, rows->latent_row, rows->latents, width);
    add_weighted(y, w + rows->latents, 1, rows->own, rows->own_row, n - rows->latents, width);
}

/* s[j] = scale * sum_d x[d] t[d][j] over `n` (a multiple of the vector width). */
static inline void scores(float *restrict s, const float *restrict x, const float *restrict t, size_t width, size_t pad,
                          size_t n, float scale)
{
    for (size_t j = 0; j < n; j += VL) {
        vec even = {0}, odd = {0};
        size_t d = 0;
        for (; d + 2 <= width; d += 2) {
            even += x[d] * load(t + d * pad + j);
            odd += x[d + 1] * load(t + (d + 1) * pad + j);
        }
        if (d < width) even += x[d] * load(t + d * pad + j);
        store(s + j, (even + odd) * scale);
    }
}

/* ---- forward ---- */

static size_t longest_keys(const struct call *c, unsigned rows)
{
    return padded(c->size.in[rows][0] + (size_t)c->attr->i[ATTENTION_MEMORY]) + VL;
}

void CPU(attention_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)shared;
    struct heads h = heads_of(c);
    *per_worker = longest_keys(c, 0) * (h.width + 1) * sizeof(float);
}

static void forward(void *argument, size_t tile, size_t worker)
{
    const struct call *c = argument;
    struct heads h = heads_of(c);
    const float *qkv = c->in[IN_ATTENTION_QKV], *memory = c->in[IN_ATTENTION_MEMORY];
    const int32_t *offsets = c->in[IN_ATTENTION_OFFSETS];
    float *out = c->out[OUT_ATTENTION_Y], *lse = c->out[OUT_ATTENTION_LSE];
    size_t sentence = tile / h.kv, head = tile % h.kv;
    size_t begin = (size_t)offsets[sentence], length = (size_t)offsets[sentence + 1] - begin;
    size_t keys = length + h.memory, pad = padded(keys);
    float *kt = cpu_scratch(c, worker), *p = kt + pad * h.width;
    struct rows ks = rows_of(&h, qkv, memory, begin, sentence, head, 0),
                vs = rows_of(&h, qkv, memory, begin, sentence, head, 1);
    transpose_rows(kt, &ks, h.width, keys, pad);
    for (size_t q = head * h.group; q < (head + 1) * h.group; q++)
        for (size_t i = 0; i < length; i++) {
            size_t seen = h.causal ? h.memory + i + 1 : keys, n = padded(seen);
            scores(p, qkv + (begin + i) * h.row + q * h.width, kt, h.width, pad, n, h.scale);
            float row_max = -INFINITY, row_sum;
            for (size_t j = seen; j < n; j++) p[j] = -INFINITY;
            SIMD_MAX(row_max) for (size_t j = 0; j < n; j++) row_max = p[j] > row_max ? p[j] : row_max;
            SIMD for (size_t j = 0; j < n; j++) p[j] = cpu_exp(p[j] - row_max);
            row_sum = cpu_sum(p, n);
            lse[(begin + i) * h.heads + q] = row_max + logf(row_sum);
            float *y = out + (begin + i) * h.heads * h.width + q * h.width, inverse_sum = 1.0f / row_sum;
            SIMD for (size_t j = 0; j < n; j++) p[j] *= inverse_sum;
            memset(y, 0, h.width * sizeof *y);
            add_rows(y, p, &vs, seen, h.width);
        }
}

void CPU(attention)(const struct call *c)
{
    size_t sentences = c->size.in[IN_ATTENTION_OFFSETS][0] - 1;
    cpu_run(c, sentences * (size_t)c->attr->i[ATTENTION_KV_HEADS], forward, c);
}

/* ---- backward ---- */

enum { QUERIES = 16 }; /* queries whose weights are kept before they are added to the gradients of keys and values */

void CPU(attention_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)shared;
    struct heads h = heads_of(c);
    *per_worker = longest_keys(c, 1) * (4 * h.width + 2 * QUERIES) * sizeof(float);
}

static void put(float *to, const float *from, size_t n, bool add)
{
    if (!add)
        memcpy(to, from, n * sizeof *to);
    else
        for (size_t i = 0; i < n; i++) to[i] += from[i];
}

static void backward(void *argument, size_t tile, size_t worker)
{
    const struct call *c = argument;
    struct heads h = heads_of(c);
    const float *dout = c->in[IN_ATTENTION_BACKWARD_DY], *qkv = c->in[IN_ATTENTION_BACKWARD_QKV],
                *memory = c->in[IN_ATTENTION_BACKWARD_MEMORY], *out = c->in[IN_ATTENTION_BACKWARD_Y],
                *lse = c->in[IN_ATTENTION_BACKWARD_LSE];
    const int32_t *offsets = c->in[IN_ATTENTION_BACKWARD_OFFSETS];
    float *dqkv = c->out[OUT_ATTENTION_BACKWARD_DQKV], *dmemory = c->out[OUT_ATTENTION_BACKWARD_DMEMORY];
    size_t sentence = tile / h.kv, head = tile % h.kv;
    size_t begin = (size_t)offsets[sentence], length = (size_t)offsets[sentence + 1] - begin;
    size_t keys = length + h.memory, pad = padded(keys);
    float *kt = cpu_scratch(c, worker), *vt = kt + pad * h.width, *dk = vt + pad * h.width, *dv = dk + pad * h.width;
    float *p_rows = dv + pad * h.width, *ds_rows = p_rows + QUERIES * pad; /* (QUERIES, pad) */
    struct rows ks = rows_of(&h, qkv, memory, begin, sentence, head, 0),
                vs = rows_of(&h, qkv, memory, begin, sentence, head, 1);
    transpose_rows(kt, &ks, h.width, keys, pad);
    transpose_rows(vt, &vs, h.width, keys, pad);
    memset(dk, 0, 2 * pad * h.width * sizeof *dk);
    for (size_t q = head * h.group; q < (head + 1) * h.group; q++)
        for (size_t first = 0; first < length; first += QUERIES) {
            size_t end = least(length, first + QUERIES);
            const float *queries = qkv + (begin + first) * h.row + q * h.width,
                        *dys = dout + ((begin + first) * h.heads + q) * h.width;
            for (size_t i = first; i < end; i++) {
                size_t seen = h.causal ? h.memory + i + 1 : keys, n = padded(seen), at = begin + i;
                const float *dy = dys + (i - first) * h.heads * h.width, *y = out + (at * h.heads + q) * h.width;
                float *p = p_rows + (i - first) * pad, *ds = ds_rows + (i - first) * pad;
                float row_lse = lse[at * h.heads + q], dP_sum = 0;
                SIMD_SUM(dP_sum) for (size_t d = 0; d < h.width; d++) dP_sum += dy[d] * y[d];
                scores(p, queries + (i - first) * h.row, kt, h.width, pad, n, h.scale);
                scores(ds, dy, vt, h.width, pad, n, 1.0f);
                SIMD for (size_t j = 0; j < n; j++)
                {
                    p[j] = cpu_exp(p[j] - row_lse);
                    ds[j] = p[j] * (ds[j] - dP_sum) * h.scale;
                }
                if (!dqkv) continue;
                float *to = dqkv + at * h.row + q * h.width;
                if (!c->add[OUT_ATTENTION_BACKWARD_DQKV]) memset(to, 0, h.width * sizeof *to);
                add_rows(to, ds, &ks, seen, h.width);
            }
            for (size_t j = 0; j < (h.causal ? h.memory + end : keys);
                 j++) { /* i: first query of this group that sees key j */
                size_t i = h.causal && j > h.memory + first ? j - h.memory - first : 0, n = end - first - i;
                add_weighted(dk + j * h.width, ds_rows + i * pad + j, pad, queries + i * h.row, h.row, n, h.width);
                add_weighted(dv + j * h.width, p_rows + i * pad + j, pad, dys + i * h.heads * h.width,
                             h.heads * h.width, n, h.width);
            }
        }
    size_t kv_width = h.kv * h.width;
    for (size_t j = 0; j < h.memory && dmemory; j++) {
        float *to = dmemory + (sentence * h.memory + j) * 2 * kv_width + head * h.width;
        put(to, dk + j * h.width, h.width, c->add[OUT_ATTENTION_BACKWARD_DMEMORY]);
        put(to + kv_width, dv + j * h.width, h.width, c->add[OUT_ATTENTION_BACKWARD_DMEMORY]);
    }
    for (size_t j = 0; j < length && dqkv; j++) {
        float *to = dqkv + (begin + j) * h.row + (h.heads + head) * h.width;
        put(to, dk + (h.memory + j) * h.width, h.width, c->add[OUT_ATTENTION_BACKWARD_DQKV]);
        put(to + kv_width, dv + (h.memory + j) * h.width, h.width, c->add[OUT_ATTENTION_BACKWARD_DQKV]);
    }
}

void CPU(attention_backward)(const struct call *c)
{
    size_t sentences = c->size.in[IN_ATTENTION_BACKWARD_OFFSETS][0] - 1;
    cpu_run(c, sentences * (size_t)c->attr->i[ATTENTION_KV_HEADS], backward, c);
}

/* ---- one new token per row ----
 *
 * A tile is some heads of a row. All heads of the tile read a key before the next key, in memory order. Values follow
 * the same way. */

static size_t longest_cached(const struct call *c)
{
    return padded(c->size.out[OUT_ATTENTION_CACHED_CACHE][1] + (size_t)c->attr->i[ATTENTION_MEMORY]) + VL;
}

void CPU(attention_cached_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)shared;
    *per_worker = (size_t)c->attr->i[ATTENTION_HEADS] * longest_cached(c) * sizeof(float);
}

/* Returns all heads' keys (which 0) or values (1) at position j of a row: from the row's own part of the cache, or from
 * the part of the row that `history` names. */
static float *cached_row(const struct call *c, size_t row, size_t at, size_t j, size_t which)
{
    const int32_t *history = c->in[IN_ATTENTION_CACHED_HISTORY];
    const size_t *dim = c->size.out[OUT_ATTENTION_CACHED_CACHE]; /* (R, room, 2, Hk W) */
    size_t from = history && j < at ? (size_t)history[row * dim[1] + j] : row;
    return (float *)c->out[OUT_ATTENTION_CACHED_CACHE] + ((from * dim[1] + j) * 2 + which) * dim[3];
}

/* Returns a row's key or value j in the same way; latent ones come first. */
static const float *seen(const struct call *c, const struct heads *h, size_t row, size_t at, size_t j, size_t which)
{
    size_t kv_width = h->kv * h->width;
    if (j >= h->memory) return cached_row(c, row, at, j - h->memory, which);
    return (const float *)c->in[IN_ATTENTION_CACHED_MEMORY] + ((row * h->memory + j) * 2 + which) * kv_width;
}

/* Softmax in place: exp(score - max) / sum. */
static void softmax_in_place(float *p, size_t keys)
{
    float row_max = -INFINITY, row_sum;
    size_t n = padded(keys);
    for (size_t j = keys; j < n; j++) p[j] = -INFINITY;
    SIMD_MAX(row_max) for (size_t j = 0; j < n; j++) row_max = p[j] > row_max ? p[j] : row_max;
    SIMD for (size_t j = 0; j < n; j++) p[j] = cpu_exp(p[j] - row_max);
    row_sum = cpu_sum(p, n);
    SIMD for (size_t j = 0; j < n; j++) p[j] /= row_sum;
}

/* y[d] += sum_i w[i] v[i][d], i < n. `n` is a constant where this is inlined. */
static inline __attribute__((always_inline)) void add_values(float *y, const float *w, const float *const *v,
                                                             const size_t n, size_t width)
{
    size_t d = 0;
    for (; d + VL <= width; d += VL) {
        vec sum = load(y + d);
        for (size_t i = 0; i < n; i++) sum += w[i] * load(v[i] + d);
        store(y + d, sum);
    }
    for (; d < width; d++)
        for (size_t i = 0; i < n; i++) y[d] += w[i] * v[i][d];
}

struct cached {
    const struct call *call;
    size_t tiles, each; /* tiles of a row; key/value heads of a tile */
};

static void cached(void *argument, size_t tile, size_t worker)
{
    enum { TOGETHER = 4 };
    const struct cached *all = argument;
    const struct call *c = all->call;
    struct heads h = heads_of(c);
    size_t row = tile / all->tiles, first = tile % all->tiles * all->each, end = least(first + all->each, h.kv);
    size_t at = (size_t)((const int32_t *)c->in[IN_ATTENTION_CACHED_POSITION])[row], keys = h.memory + at + 1,
           pad = longest_cached(c);
    const float *qkv = (const float *)c->in[IN_ATTENTION_CACHED_QKV] + row * h.row;
    float *out = (float *)c->out[OUT_ATTENTION_CACHED_Y] + row * h.heads * h.width, *p = cpu_scratch(c, worker);
    for (unsigned which = 0; which < 2; which++)
        memcpy(cached_row(c, row, at, at, which) + first * h.width, qkv + (h.heads + which * h.kv + first) * h.width,
               (end - first) * h.width * sizeof(float));
    for (size_t j = 0; j < keys; j++) {
        const float *k = seen(c, &h, row, at, j, 0);
        for (size_t q = first * h.group; q < end * h.group; q++)
            p[(q - first * h.group) * pad + j] =
                cpu_dot(qkv + q * h.width, k + q / h.group * h.width, h.width) * h.scale;
    }
    for (size_t q = first * h.group; q < end * h.group; q++) softmax_in_place(p + (q - first * h.group) * pad, keys);
    memset(out + first * h.group * h.width, 0, (end - first) * h.group * h.width * sizeof *out);
    for (size_t j = 0; j < keys; j += TOGETHER) {
        const float *v[TOGETHER];
        size_t n = least(TOGETHER, keys - j);
        for (size_t i = 0; i < n; i++) v[i] = seen(c, &h, row, at, j + i, 1);
        for (size_t q = first * h.group; q < end * h.group; q++) {
            const float *w = p + (q - first * h.group) * pad + j, *of[TOGETHER];
            for (size_t i = 0; i < n; i++) of[i] = v[i] + q / h.group * h.width;
            if (n == TOGETHER)
                add_values(out + q * h.width, w, of, TOGETHER, h.width);
            else
                for (size_t i = 0; i < n; i++) add_values(out + q * h.width, w + i, of + i, 1, h.width);
        }
    }
}

void CPU(attention_cached)(const struct call *c)
{
    size_t rows = c->size.in[IN_ATTENTION_CACHED_QKV][0], heads = (size_t)c->attr->i[ATTENTION_KV_HEADS];
    size_t tiles = least(heads, tiles_of(2 * backend_threads(c->backend), rows ? rows : 1));
    struct cached all = {.call = c, .each = tiles_of(heads, tiles ? tiles : 1)};
    all.tiles = tiles_of(heads, all.each);
    cpu_run(c, rows * all.tiles, cached, &all);
}

/* ---- rotary ---- */

enum { ROWS = 16 };

void CPU(rotary_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)shared;
    *per_worker = (size_t)c->attr->i[ROTARY_HEAD_WIDTH] * sizeof(float);
}

static void rotate(void *argument, size_t tile, size_t worker)
{
    const struct call *c = argument;
    const int32_t *position = c->in[IN_ROTARY_POSITION];
    size_t heads = (size_t)c->attr->i[ROTARY_HEADS], width = (size_t)c->attr->i[ROTARY_HEAD_WIDTH], half = width / 2;
    size_t row = c->size.in[IN_ROTARY_X][1], end = least(c->size.in[IN_ROTARY_X][0], (tile + 1) * ROWS);
    float direction = (float)c->attr->i[ROTARY_DIRECTION];
    float *cosine = cpu_scratch(c, worker), *sine = cosine + half;
    bool add = c->add[OUT_ROTARY_Y];
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *x = (const float *)c->in[IN_ROTARY_X] + n * row;
        float *y = (float *)c->out[OUT_ROTARY_Y] + n * row;
        for (size_t i = 0; i < half; i++) {
            double angle = position[n] * pow(10000.0, -2.0 * (double)i / (double)width);
            cosine[i] = (float)cos(angle);
            sine[i] = direction * (float)sin(angle);
        }
        for (size_t h = 0; h < heads; h++) {
            const float *a = x + h * width, *b = a + half;
            float *ya = y + h * width, *yb = ya + half;
            SIMD for (size_t i = 0; i < half; i++)
            {
                float u = a[i] * cosine[i] - b[i] * sine[i], v = b[i] * cosine[i] + a[i] * sine[i];
                ya[i] = add ? ya[i] + u : u;
                yb[i] = add ? yb[i] + v : v;
            }
        }
        for (size_t i = heads * width; i < row; i++) y[i] = add ? y[i] + x[i] : x[i];
    }
}

void CPU(rotary)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_ROTARY_X][0], ROWS), rotate, c);
}
