/* Choosing a token; see choose.h.
 *
 *   x (V) logits      e (V) exp((x - max) / temperature), 0 where it is below 1e-38
 *
 * Tokens are ordered by x, not by e, because close logits may have equal e. `lowest` and `highest` bracket the
 * threshold: the tokens above `highest` are too few, those above `lowest` are enough. The tokens in between, lowest < x
 * <= highest, are the candidates. */
#include "model/choose.h"

#include "base/philox.h"

#include <math.h>
#include <stdlib.h>

enum {
    LANES = 16,   /* partial sums that the compiler may keep in vectors */
    BLOCK = 1024, /* tokens whose masses are summed in f32 before they are added to a double */
    FEW = 64,     /* candidates that are sorted */
    PART = 32,    /* candidates are gathered once they are a 32nd of the tokens or fewer */
    TRIALS = 4,   /* draws from all tokens before the kept ones are searched for */
};

struct row {
    const float *x, *e;
    const uint32_t *ids; /* null: 0 .. count - 1 */
    size_t count;
};

struct choose_scratch {
    float *e;               /* (V) */
    double *blocks;         /* (V / BLOCK + 1) mass of each block */
    float *x_left, *e_left; /* (V / PART + FEW + 1) gathered candidates */
    uint32_t *ids_left;     /* (V / PART + FEW + 1) */
};

void choose_scratch_free(struct choose_scratch *s)
{
    if (!s) return;
    free(s->e);
    free(s->blocks);
    free(s->x_left);
    free(s->e_left);
    free(s->ids_left);
    free(s);
}

elbo_status choose_scratch_make(struct choose_scratch **out, size_t v, elbo_error *error)
{
    struct choose_scratch *s = calloc(1, sizeof *s);
    if (s) {
        s->e = malloc(v * sizeof *s->e);
        s->blocks = malloc((v / BLOCK + 1) * sizeof *s->blocks);
        s->x_left = malloc((v / PART + FEW + 1) * sizeof *s->x_left);
        s->e_left = malloc((v / PART + FEW + 1) * sizeof *s->e_left);
        s->ids_left = malloc((v / PART + FEW + 1) * sizeof *s->ids_left);
    }
    *out = s;
    if (s && s->e && s->blocks && s->x_left && s->e_left && s->ids_left) return ELBO_OK;
    choose_scratch_free(s);
    *out = NULL;
    return elbo_fail(error, ELBO_MEMORY, "no memory to sample from %zu tokens", v);
}

/* ---- passes over a row ---- */

static float largest(const float *x, size_t n)
{
    float lane[LANES], top = -INFINITY;
    size_t i = 0;
    for (size_t j = 0; j < LANES; j++) lane[j] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j]; /* a NaN is never taken */
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    for (size_t j = 0; j < LANES; j++) top = lane[j] > top ? lane[j] : top;
    return top;
}

/* exp(x) for x <= 0, within 2e-7; 0 below -88 and for a NaN. x = k log 2 + r, |r| <= log(2) / 2. */
static inline __attribute__((always_inline)) float exponential(float x)
{
    float y = x > -88.0f ? x : -88.0f;
    float k = (y * 1.44269504f + 12582912.0f) - 12582912.0f; /* 1.5 * 2^23 rounds to a whole number, -127 or more */
    float r = y - k * 0.693359375f + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union {
        int32_t bits;
        float value;
    } scale = {.bits = ((int32_t)k + 127) << 23}; /* 2^k, and 0 for k = -127 */
    return p * scale.value;
}

static inline __attribute__((always_inline)) double exponentials_here(float *all, double *blocks, const float *x,
                                                                      size_t n, float top, float inverse)
{
    double total = 0;
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t size = n - at < BLOCK ? n - at : BLOCK, i = 0;
        float lane[LANES] = {0}, *e = all + at;
        for (; i < size; i++) e[i] = exponential((x[at + i] - top) * inverse);
        for (i = 0; i + LANES <= size; i += LANES)
            for (size_t j = 0; j < LANES; j++) lane[j] += e[i + j];
        double sum = 0;
        for (; i < size; i++) sum += (double)e[i];
        for (size_t j = 0; j < LANES; j++) sum += (double)lane[j];
        blocks[at / BLOCK] = sum;
        total += sum;
    }
    return total;
}

#ifdef __x86_64__ /* again in wider vectors: the same operations, so the same bits */
__attribute__((target("avx2"))) static double exponentials_avx2(float *all, double *blocks, const float *x, size_t n,
                                                                float top, float inverse)
{
    return exponentials_here(all, blocks, x, n, top, inverse);
}
#define HAS_AVX2 __builtin_cpu_supports("avx2")
#else
#define exponentials_avx2 exponentials_here
#define HAS_AVX2          0
#endif

/* Computes e (n) and the mass of each block; returns the total mass. */
static double exponentials(float *all, double *blocks, const float *x, size_t n, float top, float inverse)
{
    return (HAS_AVX2 ? exponentials_avx2 : exponentials_here)(all, blocks, x, n, top, inverse);
}

struct held {
    double mass;
    size_t count;
};

typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t quad_mask __attribute__((vector_size(16)));

/* Returns the mass and the count of the tokens above `threshold`; `blocks`, if given, gets the mass of each block.
 * Vectorized by hand, because compilers do not vectorize a conditional sum. */
static struct held above(const struct row *r, float threshold, double *blocks)
{
    struct held all = {0};
    quad limit = {threshold, threshold, threshold, threshold};
    for (size_t at = 0; at < r->count; at += BLOCK) {
        size_t size = r->count - at < BLOCK ? r->count - at : BLOCK, i = 0;
        const float *x = r->x + at, *e = r->e + at;
        quad mass[LANES / 4] = {0};
        quad_mask count[LANES / 4] = {0};
        for (; i + LANES <= size; i += LANES)
            for (size_t j = 0; j < LANES / 4; j++) {
                quad_mask more = *(const quad *)(x + i + 4 * j) > limit; /* -1 or 0 */
                mass[j] += (quad)((quad_mask) * (const quad *)(e + i + 4 * j) & more);
                count[j] -= more;
            }
        double sum = 0;
        for (; i < size; i++)
            if (x[i] > threshold) sum += (double)e[i], all.count++;
        for (size_t j = 0; j < LANES; j++) {
            sum += (double)mass[j / 4][j % 4];
            all.count += (size_t)count[j / 4][j % 4];
        }
        if (blocks) blocks[at / BLOCK] = sum;
        all.mass += sum;
    }
    return all;
}

/* ---- the kept tokens ---- */

struct candidate {
    float x, e;
    uint32_t id;
};

struct kept {
    float highest;                    /* every token above it is kept */
    struct candidate candidates[FEW]; /* and these, the likeliest first, */
    size_t count;
    float tied; /* or the first `tied_count` of the tokens with this logit; */
    size_t tied_count;
    double mass; /* mass of `candidates` or of the tied tokens */
};

/* Returns whether one of LANES logits is a candidate. */
static bool any_between(const float *x, float lowest, float highest)
{
    quad low = {lowest, lowest, lowest, lowest}, high = {highest, highest, highest, highest};
    quad_mask any = {0};
    for (size_t j = 0; j < LANES; j += 4) any |= (*(const quad *)(x + j) > low) & (*(const quad *)(x + j) <= high);
    return any[0] | any[1] | any[2] | any[3];
}

/* Gathers the candidates of `from`, which may be the result of an earlier call. The arrays have room for one more
 * element, because a rejected token is written before the count moves. */
static struct row gather(const struct row *from, float lowest, float highest, struct choose_scratch *s)
{
    size_t n = 0;
    for (size_t at = 0; at < from->count; at += LANES) {
        size_t end = from->count - at < LANES ? from->count : at + LANES;
        if (end == at + LANES && !any_between(from->x + at, lowest, highest)) continue;
        for (size_t i = at; i < end; i++) {
            float logit = from->x[i];
            s->x_left[n] = logit;
            s->e_left[n] = from->e[i];
            s->ids_left[n] = from->ids ? from->ids[i] : (uint32_t)i;
            n += (logit > lowest) & (logit <= highest);
        }
    }
    return (struct row){s->x_left, s->e_left, s->ids_left, n};
}

static bool before(struct candidate a, struct candidate b)
{
    return a.x > b.x || (a.x >= b.x && a.id < b.id);
}

/* The search for the threshold above which the tokens first hold `wanted` or number `most`. low and high are the mass
 * and count above the two ends. */
struct bracket {
    float lowest, highest;
    struct held low, high;
    double wanted;
    size_t most;
    double over, under; /* how far each end is beyond the goal, as shares of it */
};

static double beyond(const struct bracket *b, struct held h)
{
    return fmax(h.mass / b->wanted, (double)h.count / (double)b->most) - 1;
}

static bool inside(const struct bracket *b, float threshold)
{
    return threshold > b->lowest && threshold < b->highest;
}

/* Moves one end to `threshold`, above which the tokens hold `h`. Halves the other end's weight, so that its turn
 * comes. */
static void narrow(struct bracket *b, float threshold, struct held h)
{
    double found = beyond(b, h);
    if (found >= 0) {
        b->lowest = threshold, b->low = h, b->over = found;
        b->under *= 0.5;
    } else {
        b->highest = threshold, b->high = h, b->under = found;
        b->over *= 0.5;
    }
}

/* For a small `most`: raises `lowest` to a threshold that at least `most` group maxima exceed, so at least `most`
 * tokens do. A group is a lane of a block. */
static void skip_most(struct bracket *b, const struct row *r, struct choose_scratch *s)
{
    size_t groups = r->count / BLOCK * LANES;
    if (b->most > groups / 2) return;
    for (size_t g = 0; g < groups; g += LANES) {
        const float *x = r->x + g / LANES * BLOCK;
        float lane[LANES];
        for (size_t j = 0; j < LANES; j++) lane[j] = x[j];
        for (size_t i = LANES; i < BLOCK; i += LANES)
            for (size_t j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
        for (size_t j = 0; j < LANES; j++) s->x_left[g + j] = lane[j];
    }
    struct row maxima = {s->x_left, s->x_left, NULL, groups};
    struct bracket m = {.lowest = b->lowest, .highest = b->highest, .wanted = INFINITY, .most = b->most};
    for (int i = 0; i < 16; i++) {
        float middle = 0.5f * m.lowest + 0.5f * m.highest;
        narrow(&m, middle, (struct held){0, above(&maxima, middle, NULL).count});
    }
    b->lowest = m.lowest;
}

/* Keeps the candidates that b wants; r holds all candidates: either at most FEW, or many with the same logit
 * `highest`. */
static void take(struct kept *k, const struct row *r, const struct bracket *b)
{
    size_t candidates = b->low.count - b->high.count, most = b->most - b->high.count, i = 0;
    double wanted = b->wanted - b->high.mass;
    *k = (struct kept){.highest = b->highest, .tied = b->highest};
    if (candidates > FEW) {
        while (!(r->x[i] >= b->highest && r->x[i] <= b->highest)) i++;
        while (k->tied_count < candidates && k->tied_count < most && k->mass < wanted)
            k->mass = (double)++k->tied_count * (double)r->e[i];
        return;
    }
    for (; i < r->count; i++) { /* insertion sort */
        struct candidate c = {r->x[i], r->e[i], r->ids[i]};
        if (!(c.x > b->lowest && c.x <= b->highest)) continue;
        size_t j = k->count++;
        for (; j > 0 && before(c, k->candidates[j - 1]); j--) k->candidates[j] = k->candidates[j - 1];
        k->candidates[j] = c;
    }
    size_t few = 0;
    for (; few < k->count && few < most && k->mass < wanted; few++) k->mass += (double)k->candidates[few].e;
    k->count = few;
}

/* Finds the likeliest tokens of r that hold what b wants. The bracket shrinks by regula falsi (the Illinois variant),
 * and every third time by half, until few candidates are left or no number lies between its ends. */
static void keep(struct kept *k, struct row r, struct bracket b, struct choose_scratch *s)
{
    struct held base = {0}; /* tokens above `highest` that are no longer in r */
    b.low = above(&r, b.lowest, NULL);
    b.over = fmax(beyond(&b, b.low), 0);
    for (unsigned turn = 1;; turn++) {
        size_t left = b.low.count - b.high.count;
        if (left <= r.count / PART || (left <= FEW && !r.ids)) {
            r = gather(&r, b.lowest, b.highest, s);
            base = b.high;
        }
        float half = 0.5f * b.lowest + 0.5f * b.highest, middle = half;
        if (turn % 3) middle = b.lowest + (float)(b.over / (b.over - b.under)) * (b.highest - b.lowest);
        if (!inside(&b, middle)) middle = half;
        if (left <= FEW || !inside(&b, middle)) break;
        struct held h = above(&r, middle, NULL);
        narrow(&b, middle, (struct held){base.mass + h.mass, base.count + h.count});
    }
    take(k, &r, &b);
}

/* ---- the draw ---- */

/* Returns the token at which the running sum, by id, of the masses above `threshold` passes `target`; `blocks` holds
 * each block's mass. */
static size_t pass(const struct row *r, const double *blocks, float threshold, double target)
{
    size_t b = 0, chosen = 0, last = (r->count - 1) / BLOCK;
    while (b < last && target >= blocks[b]) target -= blocks[b++];
    while (b > 0 && blocks[b] <= 0) { /* rounding led past the last mass: take its last token */
        target = INFINITY;
        b--;
    }
    size_t end = b < last ? (b + 1) * BLOCK : r->count;
    for (size_t i = b * BLOCK; i < end; i++) {
        if (!(r->x[i] > threshold && r->e[i] > 0)) continue;
        chosen = i;
        target -= (double)r->e[i];
        if (target < 0) break;
    }
    return chosen;
}

static size_t draw(const struct row *r, const struct kept *k, double uniform, double *blocks)
{
    double likelier = above(r, k->highest, blocks).mass, target = uniform * (likelier + k->mass);
    if (target < likelier) return pass(r, blocks, k->highest, target);
    target -= likelier;
    if (!k->tied_count) {
        size_t i = 0;
        while (i + 1 < k->count && (target -= (double)k->candidates[i].e) >= 0) i++;
        return k->candidates[i].id;
    }
    size_t which = (size_t)(target / k->mass * (double)k->tied_count), chosen = 0;
    if (which >= k->tied_count) which = k->tied_count - 1;
    for (size_t i = 0; i < r->count; i++) {
        if (!(r->x[i] >= k->tied && r->x[i] <= k->tied)) continue;
        chosen = i;
        if (!which--) break;
    }
    return chosen;
}

/* Returns whether token t is kept, and moves an end of the bracket to its logit. Among equal logits, smaller ids come
 * first. */
static bool is_kept(const struct row *r, size_t t, struct bracket *b)
{
    float x = r->x[t];
    if (x > b->highest) return true;
    if (x <= b->lowest) return false;
    struct held h = above(r, x, NULL);
    narrow(b, x, h);
    if (beyond(b, h) >= 0) return false;
    size_t before_it = 0;
    for (size_t i = 0; i < t; i++) before_it += r->x[i] >= x && r->x[i] <= x;
    h.mass += (double)before_it * (double)r->e[t];
    h.count += before_it;
    return beyond(b, h) < 0;
}

double choose_log_sum(const float *x, size_t v)
{
    float top = largest(x, v), e[BLOCK];
    double sum = 0, block;
    if (!isfinite(top)) return NAN;
    for (size_t at = 0; at < v; at += BLOCK)
        sum += exponentials(e, &block, x + at, v - at < BLOCK ? v - at : BLOCK, top, 1);
    return (double)top + log(sum);
}

void choose_ban(float *logits, size_t vocabulary, const struct generate_options *o, const struct elbo_marks *marks)
{
    if (marks->start < vocabulary) logits[marks->start] = -INFINITY;
    if (marks->unknown < vocabulary && !o->allow_unknown) logits[marks->unknown] = -INFINITY;
    for (size_t i = 0; i < o->never_count; i++)
        if (o->never[i] < vocabulary && o->never[i] != marks->end) logits[o->never[i]] = -INFINITY;
}

uint32_t choose_token(float *x, size_t v, const struct generate_options *o, const struct elbo_marks *marks,
                      uint64_t sample, size_t position, struct choose_scratch *s)
{
    choose_ban(x, v, o, marks);
    float top = largest(x, v);
    if (!isfinite(top)) {
        for (size_t i = 0; i < v && top > 0; i++)
            if (isinf(x[i]) && x[i] > 0) return (uint32_t)i;
        return marks->end;
    }
    if (o->greedy || o->temperature <= 0 || o->top_k == 1) {
        size_t i = 0;
        while (!(x[i] >= top)) i++;
        return (uint32_t)i;
    }
    float temperature = (float)fmin(fmax(o->temperature, 1e-30), 1e30); /* within the range that f32 can divide by */
    double total = exponentials(s->e, s->blocks, x, v, top, 1 / temperature);
    struct noise_key key = noise_key(o->seed, noise_purpose("generate.token"), 0);
    struct row r = {x, s->e, NULL, v};
    bool all = o->top_p >= 1, cut = !all || (o->top_k && o->top_k < v);
    /* Tokens with less than 1 / V of the mass 1 - top_p hold less than 1 - top_p together; tokens more than 88
     * temperatures below the top hold nothing. */
    float depth = all ? 88 : (float)fmin(88, 1e-3 - log((1 - o->top_p) * total / (double)v));
    float lowest = nextafterf(top - depth * temperature, -INFINITY); /* one step lower, to be safe against rounding */
    struct bracket b = {.lowest = lowest,
                        .highest = top,
                        .under = -1,
                        .wanted = all ? INFINITY : o->top_p * total,
                        .most = o->top_k ? o->top_k : v};
    if (cut) skip_most(&b, &r, s);
    for (uint32_t trial = 0; trial < TRIALS; trial++) {
        size_t t = pass(&r, s->blocks, -INFINITY, total * noise_uniform(noise_bits(key, sample, trial, position)));
        if (!cut || is_kept(&r, t, &b)) return (uint32_t)t;
    }
    struct kept k;
    keep(&k, r, b, s);
    return (uint32_t)draw(&r, &k, noise_uniform(noise_bits(key, sample, TRIALS, position)), s->blocks);
}
