/* Ops between one row per token and one row per sentence: pool, broadcast_add, segment_sum, prefix. One tile sums a
 * sentence's rows in order. */
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "ops/ops.h"

#include <math.h>

enum { ROWS = 32, COLUMNS = 64, SENTENCES = 4 };

static void put(float *to, float v, bool add)
{
    *to = add ? *to + v : v;
}

static void pool(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *x = c->in[IN_POOL_X], *query = c->in[IN_POOL_QUERY];
    const int32_t *offsets = c->in[IN_POOL_OFFSETS];
    float *weights = c->out[OUT_POOL_WEIGHTS];
    size_t d = c->size.in[IN_POOL_X][1], end = least(c->size.out[OUT_POOL_Y][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        float *y = (float *)c->out[OUT_POOL_Y] + s * d;
        size_t from = (size_t)offsets[s], to = (size_t)offsets[s + 1];
        memset(y, 0, d * sizeof *y);
        if (from == to) continue;
        if (c->attr->i[ATTR_POOL] == POOL_FIRST || c->attr->i[ATTR_POOL] == POOL_LAST) {
            memcpy(y, x + (c->attr->i[ATTR_POOL] == POOL_FIRST ? from : to - 1) * d, d * sizeof *y);
            continue;
        }
        if (c->attr->i[ATTR_POOL] == POOL_ENDS) {
            memcpy(y, x + (to - 1) * d, d / 2 * sizeof *y);
            memcpy(y + d / 2, x + from * d + d / 2, (d - d / 2) * sizeof *y);
            continue;
        }
        float top = -INFINITY, sum = 0;
        for (size_t n = from; n < to && query; n++) {
            weights[n] = cpu_dot(x + n * d, query, d);
            top = weights[n] > top ? weights[n] : top;
        }
        for (size_t n = from; n < to && query; n++) sum += weights[n] = cpu_exp(weights[n] - top);
        for (size_t n = from; n < to; n++) {
            float w = query ? (weights[n] /= sum) : 1.0f / (float)(to - from);
            SIMD for (size_t i = 0; i < d; i++) y[i] += w * x[n * d + i];
        }
    }
}

void CPU(pool)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.out[OUT_POOL_Y][0], SENTENCES), pool, c);
}

/* dx = w dy + dscore query;  dscore = w (dy . x - sum over the sentence of w dy . x);  dquery = sum of dscore x. */
void CPU(pool_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = (c->size.in[IN_POOL_BACKWARD_WEIGHTS][0] + 1) * sizeof(float);
}

static void pool_backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *query = c->in[IN_POOL_BACKWARD_QUERY], *x = c->in[IN_POOL_BACKWARD_X],
                *weights = c->in[IN_POOL_BACKWARD_WEIGHTS];
    const int32_t *offsets = c->in[IN_POOL_BACKWARD_OFFSETS];
    size_t d = c->size.in[IN_POOL_BACKWARD_DY][1],
           end = least(c->size.in[IN_POOL_BACKWARD_DY][0], (tile + 1) * SENTENCES);
    float *score = c->scratch, *dx = c->out[OUT_POOL_BACKWARD_DX];
    bool add = c->add[OUT_POOL_BACKWARD_DX];
    for (size_t s = tile * SENTENCES; s < end; s++) {
        const float *dy = (const float *)c->in[IN_POOL_BACKWARD_DY] + s * d;
        size_t from = (size_t)offsets[s], to = (size_t)offsets[s + 1];
        size_t one = c->attr->i[ATTR_POOL] == POOL_FIRST ? from : to - 1;
        size_t half =
            c->attr->i[ATTR_POOL] == POOL_ENDS ? d / 2 : d; /* columns from `half` on come from the first row */
        float level = 0;
        for (size_t n = from; n < to && query; n++) level += weights[n] * (score[n] = cpu_dot(dy, x + n * d, d));
        for (size_t n = from; n < to && query; n++) score[n] = weights[n] * (score[n] - level);
        for (size_t n = from; n < to && dx; n++) {
            float w = query                                ? weights[n]
                      : c->attr->i[ATTR_POOL] == POOL_MEAN ? 1.0f / (float)(to - from)
                      : n == one                           ? 1.0f
                                                           : 0.0f;
            if (query) {
                SIMD for (size_t i = 0; i < d; i++) put(&dx[n * d + i], w * dy[i] + score[n] * query[i], add);
            } else {
                float first = n == from ? 1.0f : 0.0f;
                SIMD for (size_t i = 0; i < half; i++) put(&dx[n * d + i], w * dy[i], add);
                SIMD for (size_t i = half; i < d; i++) put(&dx[n * d + i], first * dy[i], add);
            }
        }
    }
}

static void query_backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *x = c->in[IN_POOL_BACKWARD_X], *score = c->scratch;
    size_t rows = c->size.in[IN_POOL_BACKWARD_X][0], d = c->size.in[IN_POOL_BACKWARD_X][1], from = tile * COLUMNS,
           width = least(COLUMNS, d - from);
    float sum[COLUMNS] = {0}, *out = c->out[OUT_POOL_BACKWARD_DQUERY];
    for (size_t n = 0; n < rows; n++) {
        const float *row = x + n * d + from;
        SIMD for (size_t i = 0; i < width; i++) sum[i] += score[n] * row[i];
    }
    for (size_t i = 0; i < width; i++) put(&out[from + i], sum[i], c->add[OUT_POOL_BACKWARD_DQUERY]);
}

void CPU(pool_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_POOL_BACKWARD_DY][0], SENTENCES), pool_backward, c);
    if (c->out[OUT_POOL_BACKWARD_DQUERY])
        cpu_run(c, tiles_of(c->size.in[IN_POOL_BACKWARD_X][1], COLUMNS), query_backward, c);
}

static void broadcast(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *sentence = c->in[IN_BROADCAST_ADD_SENTENCE];
    size_t d = c->size.in[IN_BROADCAST_ADD_X][1], end = least(c->size.in[IN_BROADCAST_ADD_X][0], (tile + 1) * ROWS);
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *x = (const float *)c->in[IN_BROADCAST_ADD_X] + n * d,
                    *v = (const float *)c->in[IN_BROADCAST_ADD_V] + (size_t)sentence[n] * d;
        float *y = (float *)c->out[OUT_BROADCAST_ADD_Y] + n * d;
        SIMD for (size_t i = 0; i < d; i++) y[i] = x[i] + v[i];
    }
}

void CPU(broadcast_add)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_BROADCAST_ADD_X][0], ROWS), broadcast, c);
}

static void segment(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *offsets = c->in[IN_SEGMENT_SUM_OFFSETS];
    size_t d = c->size.in[IN_SEGMENT_SUM_X][1] ? c->size.in[IN_SEGMENT_SUM_X][1] : 1,
           end = least(c->size.out[OUT_SEGMENT_SUM_Y][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        float *y = (float *)c->out[OUT_SEGMENT_SUM_Y] + s * d;
        if (!c->add[OUT_SEGMENT_SUM_Y]) memset(y, 0, d * sizeof *y);
        for (int32_t n = offsets[s]; n < offsets[s + 1]; n++) {
            const float *x = (const float *)c->in[IN_SEGMENT_SUM_X] + (size_t)n * d;
            SIMD for (size_t i = 0; i < d; i++) y[i] += x[i];
        }
    }
}

void CPU(segment_sum)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.out[OUT_SEGMENT_SUM_Y][0], SENTENCES), segment, c);
}

static void prefix(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *position = c->in[IN_PREFIX_POSITION], *sentence = c->in[IN_PREFIX_SENTENCE];
    size_t d = c->size.in[IN_PREFIX_X][1], rows = (size_t)c->attr->i[ATTR_PREFIX],
           end = least(c->size.in[IN_PREFIX_X][0], (tile + 1) * ROWS);
    for (size_t n = tile * ROWS; n < end; n++) {
        size_t s = sentence ? (size_t)sentence[n] : n, j = (size_t)position[n];
        const float *from = j < rows ? (const float *)c->in[IN_PREFIX_PREFIX] + (s * rows + j) * d
                                     : (const float *)c->in[IN_PREFIX_X] + n * d;
        memcpy((float *)c->out[OUT_PREFIX_Y] + n * d, from, d * sizeof *from);
    }
}

void CPU(prefix)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_PREFIX_X][0], ROWS), prefix, c);
}

/* Writes dx: dy of the rows behind the prefix, 0 for the rows that the prefix replaced. */
static void behind_prefix(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *position = c->in[IN_PREFIX_BACKWARD_POSITION];
    size_t d = c->size.in[IN_PREFIX_BACKWARD_DY][1],
           end = least(c->size.in[IN_PREFIX_BACKWARD_DY][0], (tile + 1) * ROWS);
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *dy = (const float *)c->in[IN_PREFIX_BACKWARD_DY] + n * d;
        float *dx = (float *)c->out[OUT_PREFIX_BACKWARD_DX] + n * d,
              share = position[n] < c->attr->i[ATTR_PREFIX] ? 0.0f : 1.0f;
        SIMD for (size_t i = 0; i < d; i++) put(&dx[i], share * dy[i], c->add[OUT_PREFIX_BACKWARD_DX]);
    }
}

/* Writes dprefix: dy of the first rows of each sentence, 0 for rows that the sentence lacks. */
static void of_prefix(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *offsets = c->in[IN_PREFIX_BACKWARD_OFFSETS];
    size_t d = c->size.in[IN_PREFIX_BACKWARD_DY][1], rows = (size_t)c->attr->i[ATTR_PREFIX],
           end = least(c->size.out[OUT_PREFIX_BACKWARD_DPREFIX][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t j = 0; j < rows; j++) {
            size_t n = (size_t)offsets[s] + j;
            const float *dy = (const float *)c->in[IN_PREFIX_BACKWARD_DY] + n * d;
            float *dprefix = (float *)c->out[OUT_PREFIX_BACKWARD_DPREFIX] + (s * rows + j) * d;
            if (n < (size_t)offsets[s + 1]) {
                SIMD for (size_t i = 0; i < d; i++) put(&dprefix[i], dy[i], c->add[OUT_PREFIX_BACKWARD_DPREFIX]);
            } else if (!c->add[OUT_PREFIX_BACKWARD_DPREFIX]) {
                memset(dprefix, 0, d * sizeof *dprefix);
            }
        }
}

void CPU(prefix_backward)(const struct call *c)
{
    if (c->out[OUT_PREFIX_BACKWARD_DX])
        cpu_run(c, tiles_of(c->size.in[IN_PREFIX_BACKWARD_DY][0], ROWS), behind_prefix, c);
    if (c->out[OUT_PREFIX_BACKWARD_DPREFIX])
        cpu_run(c, tiles_of(c->size.out[OUT_PREFIX_BACKWARD_DPREFIX][0], SENTENCES), of_prefix, c);
}
