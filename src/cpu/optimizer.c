/* The optimizer's update: the gradient's norm, the guard, controllers of loss weights, AdamW and SGD. The squared norm
 * is summed in blocks of 1,024 elements, then over the blocks in order. */
#include "base/bf16.h"
#include "cpu/kernels.h"
#include "cpu/noise.h"
#include "ops/ops.h"

#include <math.h>

enum { BLOCK = SQUARES_BLOCK, BLOCKS = 32, ELEMENTS = 1 << 15, CHUNK = 1024, GROUP = 4 * NOISE_BLOCKS };

void CPU(squared_norm_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = (tiles_of(c->size.in[IN_SQUARED_NORM_GRADIENT][0], BLOCK) + 1) * sizeof(double);
}

struct squares {
    const struct call *call;
    double *sums;
};

static void blocks(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct squares *q = argument;
    const struct call *c = q->call;
    size_t n = c->size.in[IN_SQUARED_NORM_GRADIENT][0], end = least(tiles_of(n, BLOCK), (tile + 1) * BLOCKS);
    for (size_t b = tile * BLOCKS; b < end; b++) {
        const float *g = (const float *)c->in[IN_SQUARED_NORM_GRADIENT] + b * BLOCK;
        size_t count = least(BLOCK, n - b * BLOCK);
        double sum = 0;
        SIMD_SUM(sum) for (size_t i = 0; i < count; i++) sum += (double)g[i] * (double)g[i];
        q->sums[b] = sum;
    }
}

static void sum_blocks(const struct call *c, double *sums)
{
    struct squares q = {c, sums};
    cpu_run(c, tiles_of(tiles_of(c->size.in[IN_SQUARED_NORM_GRADIENT][0], BLOCK), BLOCKS), blocks, &q);
}

/* Adds up n blocks in order. Block i's sum is sums[at[i]], or sums[i] if `at` is null. */
static void add_blocks(float *record, const double *sums, const int32_t *at, size_t n)
{
    double sum = 0;
    size_t bad = 0;
    for (size_t b = 0; b < n; b++) {
        double each = sums[at ? (size_t)at[b] : b];
        sum += each;
        bad += !isfinite(each);
    }
    record[NORM_SQUARED] = (float)sum;
    record[NORM_NOT_FINITE] = (float)bad;
}

void CPU(squared_norm)(const struct call *c)
{
    sum_blocks(c, c->scratch);
    add_blocks(c->out[OUT_SQUARED_NORM_RECORD], c->scratch, NULL,
               tiles_of(c->size.in[IN_SQUARED_NORM_GRADIENT][0], BLOCK));
}

void CPU(block_squares)(const struct call *c)
{
    sum_blocks(c, c->out[OUT_BLOCK_SQUARES_SUMS]);
}

void CPU(combined_norm)(const struct call *c)
{
    add_blocks(c->out[OUT_COMBINED_NORM_RECORD], c->in[IN_COMBINED_NORM_SUMS], c->in[IN_COMBINED_NORM_AT],
               c->size.in[IN_COMBINED_NORM_AT][0]);
}

void CPU(select_row)(const struct call *c)
{
    const float *rows = c->in[IN_SELECT_ROW_ROWS], *control = c->in[IN_SELECT_ROW_CONTROL],
                *scales = c->in[IN_SELECT_ROW_SCALES];
    size_t width = c->size.out[OUT_SELECT_ROW_Y][0];
    float *y = c->out[OUT_SELECT_ROW_Y];
    memcpy(y, rows + (control[CONTROL_APPLIED] != 0 ? width : 0), width * sizeof *rows);
    for (size_t i = 0; scales && i < width; i++) y[i] *= scales[i];
}

void CPU(controller)(const struct call *c)
{
    const float *figures = c->in[IN_CONTROLLER_FIGURES], *control = c->in[IN_CONTROLLER_CONTROL],
                *set = c->in[IN_CONTROLLER_SETTINGS];
    float *state = c->out[OUT_CONTROLLER_STATE], *scales = c->out[OUT_CONTROLLER_SCALES];
    state[CONTROLLER_USED] = state[CONTROLLER_WEIGHT];
    if (control[CONTROL_APPLIED] == 0) return;
    double y = (double)figures[c->attr->i[ATTR_CONTROLLER_PART]] / (double)set[CONTROLLER_SENTENCES];
    double e = (double)set[CONTROLLER_TARGET] - y, sum = state[CONTROLLER_SUM], i = set[CONTROLLER_I], weight;
    if (c->attr->i[ATTR_CONTROLLER_RULE] == CONTROLLER_PI) {
        double least = set[CONTROLLER_LEAST], most = set[CONTROLLER_MOST];
        double rest = (double)set[CONTROLLER_P] / (1 + exp(e)) + least, next = sum - i * e;
        if (e < 0) next = fmin(next, fmax(sum, most - rest));
        if (e > 0) next = fmax(next, fmin(sum, least - rest));
        state[CONTROLLER_SUM] = (float)next;
        weight = fmin(fmax(rest + next, least), most);
    } else {
        state[CONTROLLER_SUM] = (float)(sum + i * e / (1 + exp(-sum)));
        sum = state[CONTROLLER_SUM];
        weight = 1 - (sum > 0 ? sum + log1p(exp(-sum)) : log1p(exp(sum)));
    }
    state[CONTROLLER_WEIGHT] = scales[c->attr->i[ATTR_CONTROLLER_INDEX]] = (float)weight;
}

void CPU(guard)(const struct call *c)
{
    const float *loss = c->in[IN_GUARD_LOSS], *settings = c->in[IN_GUARD_SETTINGS];
    float *scalars = c->out[OUT_GUARD_SCALARS], *control = c->out[OUT_GUARD_CONTROL];
    size_t count = c->size.out[OUT_GUARD_SCALARS][0] * STEP_SCALARS;
    const float *row = (const float *)c->in[IN_GUARD_ROWS] + (control[CONTROL_APPLIED] != 0 ? count : 0);
    double sum = 0;
    for (unsigned k = 4; k < MAX_INPUTS; k++) {
        const float *norm = c->in[k];
        if (norm) sum += norm[NORM_NOT_FINITE] > 0 ? (double)NAN : (double)norm[NORM_SQUARED];
    }
    double norm = sqrt(sum), clip = settings[GUARD_CLIP];
    bool finite = isfinite(norm) && isfinite(loss[ELBO_LOSS]), applied = finite && settings[GUARD_SKIP] == 0;
    for (size_t i = 0; i < count; i++) scalars[i] = row[i];
    for (size_t i = 0; i < count; i += STEP_SCALARS) {
        if (clip > 0 && norm > clip) scalars[i + STEP_GRADIENT_SCALE] *= (float)(clip / norm);
        scalars[i + STEP_APPLY] = applied;
    }
    control[CONTROL_APPLIED] = applied;
    control[CONTROL_NORM] = (float)norm;
    control[CONTROL_FINITE] = finite;
}

/* ---- moments in bf16: widened, computed in f32 and stored again, a chunk at a time ---- */

/* Noise for up to CHUNK elements, in whole groups of blocks, from the block of the first element on. */
struct rounding {
    uint32_t words[CHUNK + 2 * GROUP];
};

/* Returns the word of each element's noise: the lower half rounds the first moment, the upper half the second. The
 * noise's address (sample and coordinate) is the element's index. */
static const uint32_t *rounding_words(struct rounding *r, const struct call *c, size_t from, size_t n)
{
    struct noise_key key = noise_key(c->seed, c->attr->purpose, c->step);
    uint64_t at = (uint64_t)c->attr->i[ATTR_MOMENTS_FIRST] + from;
    if (at >> 34 == (at + CHUNK + 2 * GROUP) >> 34) {
        for (size_t i = 0; i < at % 4 + n; i += GROUP)
            noise_blocks(r->words + i, NOISE_BLOCKS, key, at >> 34, c->draw, (uint32_t)((at + i) / 4));
        return r->words + at % 4;
    }
    for (size_t i = 0; i < n; i++) r->words[i] = noise_bits(key, (at + i) >> 34, c->draw, at + i);
    return r->words;
}

static void widen(float *to, const uint16_t *from, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++) to[i] = bf16_widen(from[i]);
}

static void narrow(uint16_t *to, const float *from, const uint32_t *words, unsigned shift, size_t n)
{
    SIMD for (size_t i = 0; i < n; i++) to[i] = bf16_stochastic(from[i], words[i] >> shift);
}

/* ---- AdamW ---- */

static void adamw_step(float *w, float *m, float *v, const float *g, const float *s, size_t n)
{
    float rate = s[STEP_LEARNING_RATE], scale = s[STEP_GRADIENT_SCALE], decay = s[STEP_DECAY],
          epsilon = s[STEP_EPSILON];
    float b1 = s[STEP_BETA1], rest1 = s[STEP_ONE_MINUS_BETA1], b2 = s[STEP_BETA2], rest2 = s[STEP_ONE_MINUS_BETA2];
    float c1 = s[STEP_CORRECTION1], c2 = s[STEP_CORRECTION2];
    SIMD for (size_t i = 0; i < n; i++)
    {
        float gi = g[i] * scale;
        m[i] = b1 * m[i] + rest1 * gi;
        v[i] = b2 * v[i] + rest2 * gi * gi;
        w[i] -= rate * (m[i] * c1 / (sqrtf(v[i] * c2) + epsilon) + decay * w[i]);
    }
}

static void adamw(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t from = tile * ELEMENTS, end = least(c->size.in[IN_ADAMW_GRADIENT][0], from + ELEMENTS);
    const float *g = c->in[IN_ADAMW_GRADIENT], *s = c->in[IN_ADAMW_SCALARS];
    float *w = c->out[OUT_ADAMW_WEIGHTS];
    if (c->out_type[OUT_ADAMW_MOMENT1] != DTYPE_BF16) {
        adamw_step(w + from, (float *)c->out[OUT_ADAMW_MOMENT1] + from, (float *)c->out[OUT_ADAMW_MOMENT2] + from,
                   g + from, s, end - from);
        return;
    }
    for (size_t n; from < end; from += n) {
        float m[CHUNK], v[CHUNK];
        struct rounding noise;
        uint16_t *moment1 = (uint16_t *)c->out[OUT_ADAMW_MOMENT1] + from,
                 *moment2 = (uint16_t *)c->out[OUT_ADAMW_MOMENT2] + from;
        n = least(CHUNK, end - from);
        widen(m, moment1, n);
        widen(v, moment2, n);
        adamw_step(w + from, m, v, g + from, s, n);
        const uint32_t *words = rounding_words(&noise, c, from, n);
        narrow(moment1, m, words, 0, n);
        narrow(moment2, v, words, 16, n);
    }
}

void CPU(adamw)(const struct call *c)
{
    if (((const float *)c->in[IN_ADAMW_SCALARS])[STEP_APPLY] == 0) return;
    cpu_run(c, tiles_of(c->size.in[IN_ADAMW_GRADIENT][0], ELEMENTS), adamw, c);
}

/* ---- SGD ---- */

static void sgd_step(float *w, float *m, const float *g, const float *s, size_t n)
{
    float rate = s[STEP_LEARNING_RATE], scale = s[STEP_GRADIENT_SCALE], decay = s[STEP_DECAY], b = s[STEP_MOMENTUM];
    SIMD for (size_t i = 0; i < n; i++)
    {
        m[i] = b * m[i] + g[i] * scale;
        w[i] -= rate * (m[i] + decay * w[i]);
    }
}

static void sgd(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t from = tile * ELEMENTS, end = least(c->size.in[IN_SGD_GRADIENT][0], from + ELEMENTS);
    const float *g = c->in[IN_SGD_GRADIENT], *s = c->in[IN_SGD_SCALARS];
    float *w = c->out[OUT_SGD_WEIGHTS];
    if (c->out_type[OUT_SGD_MOMENT] != DTYPE_BF16) {
        sgd_step(w + from, (float *)c->out[OUT_SGD_MOMENT] + from, g + from, s, end - from);
        return;
    }
    for (size_t n; from < end; from += n) {
        float m[CHUNK];
        struct rounding noise;
        uint16_t *moment = (uint16_t *)c->out[OUT_SGD_MOMENT] + from;
        n = least(CHUNK, end - from);
        widen(m, moment, n);
        sgd_step(w + from, m, g + from, s, n);
        const uint32_t *words = rounding_words(&noise, c, from, n);
        narrow(moment, m, words, 0, n);
    }
}

void CPU(sgd)(const struct call *c)
{
    if (((const float *)c->in[IN_SGD_SCALARS])[STEP_APPLY] == 0) return;
    cpu_run(c, tiles_of(c->size.in[IN_SGD_GRADIENT][0], ELEMENTS), sgd, c);
}
