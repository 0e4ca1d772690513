/* Between one row per token and one row per sentence. A sentence's rows are summed in order by one tile. */
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
    const float *x = c->in[0], *query = c->in[2];
    const int32_t *offsets = c->in[1];
    float *weights = c->out[1];
    size_t d = c->size.in[0][1], end = least(c->size.out[0][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        float *y = (float *)c->out[0] + s * d;
        size_t from = (size_t)offsets[s], to = (size_t)offsets[s + 1];
        memset(y, 0, d * sizeof *y);
        if (from == to) continue;
        if (c->attr->i[0] == POOL_FIRST || c->attr->i[0] == POOL_LAST) {
            memcpy(y, x + (c->attr->i[0] == POOL_FIRST ? from : to - 1) * d, d * sizeof *y);
            continue;
        }
        if (c->attr->i[0] == POOL_ENDS) {
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
    cpu_run(c, tiles_of(c->size.out[0][0], SENTENCES), pool, c);
}

/* dx = w dy + dscore query;  dscore = w (dy . x - sum over the sentence of w dy . x);  dquery = sum of dscore x. */
void CPU(pool_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = (c->size.in[4][0] + 1) * sizeof(float);
}

static void pool_backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *query = c->in[2], *x = c->in[3], *weights = c->in[4];
    const int32_t *offsets = c->in[1];
    size_t d = c->size.in[0][1], end = least(c->size.in[0][0], (tile + 1) * SENTENCES);
    float *score = c->scratch, *dx = c->out[0];
    bool add = c->add[0];
    for (size_t s = tile * SENTENCES; s < end; s++) {
        const float *dy = (const float *)c->in[0] + s * d;
        size_t from = (size_t)offsets[s], to = (size_t)offsets[s + 1];
        size_t one = c->attr->i[0] == POOL_FIRST ? from : to - 1;
        size_t half = c->attr->i[0] == POOL_ENDS ? d / 2 : d; /* columns behind it come from the first row */
        float level = 0;
        for (size_t n = from; n < to && query; n++) level += weights[n] * (score[n] = cpu_dot(dy, x + n * d, d));
        for (size_t n = from; n < to && query; n++) score[n] = weights[n] * (score[n] - level);
        for (size_t n = from; n < to && dx; n++) {
            float w = query                        ? weights[n]
                      : c->attr->i[0] == POOL_MEAN ? 1.0f / (float)(to - from)
                      : n == one                   ? 1.0f
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
    const float *x = c->in[3], *score = c->scratch;
    size_t rows = c->size.in[3][0], d = c->size.in[3][1], from = tile * COLUMNS, width = least(COLUMNS, d - from);
    float sum[COLUMNS] = {0}, *out = c->out[1];
    for (size_t n = 0; n < rows; n++) {
        const float *row = x + n * d + from;
        SIMD for (size_t i = 0; i < width; i++) sum[i] += score[n] * row[i];
    }
    for (size_t i = 0; i < width; i++) put(&out[from + i], sum[i], c->add[1]);
}

void CPU(pool_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[0][0], SENTENCES), pool_backward, c);
    if (c->out[1]) cpu_run(c, tiles_of(c->size.in[3][1], COLUMNS), query_backward, c);
}

static void broadcast(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *sentence = c->in[2];
    size_t d = c->size.in[0][1], end = least(c->size.in[0][0], (tile + 1) * ROWS);
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *x = (const float *)c->in[0] + n * d, *v = (const float *)c->in[1] + (size_t)sentence[n] * d;
        float *y = (float *)c->out[0] + n * d;
        SIMD for (size_t i = 0; i < d; i++) y[i] = x[i] + v[i];
    }
}

void CPU(broadcast_add)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[0][0], ROWS), broadcast, c);
}

static void segment(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *offsets = c->in[1];
    size_t d = c->size.in[0][1] ? c->size.in[0][1] : 1, end = least(c->size.out[0][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        float *y = (float *)c->out[0] + s * d;
        if (!c->add[0]) memset(y, 0, d * sizeof *y);
        for (int32_t n = offsets[s]; n < offsets[s + 1]; n++) {
            const float *x = (const float *)c->in[0] + (size_t)n * d;
            SIMD for (size_t i = 0; i < d; i++) y[i] += x[i];
        }
    }
}

void CPU(segment_sum)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.out[0][0], SENTENCES), segment, c);
}

static void prefix(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *position = c->in[2], *sentence = c->in[3];
    size_t d = c->size.in[0][1], rows = (size_t)c->attr->i[ATTR_PREFIX],
           end = least(c->size.in[0][0], (tile + 1) * ROWS);
    for (size_t n = tile * ROWS; n < end; n++) {
        size_t s = sentence ? (size_t)sentence[n] : n, j = (size_t)position[n];
        const float *from = j < rows ? (const float *)c->in[1] + (s * rows + j) * d : (const float *)c->in[0] + n * d;
        memcpy((float *)c->out[0] + n * d, from, d * sizeof *from);
    }
}

void CPU(prefix)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[0][0], ROWS), prefix, c);
}

/* dx: the rows that the prefix did not replace. */
static void behind_prefix(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *position = c->in[1];
    size_t d = c->size.in[0][1], end = least(c->size.in[0][0], (tile + 1) * ROWS);
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *dy = (const float *)c->in[0] + n * d;
        float *dx = (float *)c->out[0] + n * d, share = position[n] < c->attr->i[ATTR_PREFIX] ? 0.0f : 1.0f;
        SIMD for (size_t i = 0; i < d; i++) put(&dx[i], share * dy[i], c->add[0]);
    }
}

/* dprefix: the first rows of each sentence; 0 for rows that it lacks. */
static void of_prefix(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *offsets = c->in[2];
    size_t d = c->size.in[0][1], rows = (size_t)c->attr->i[ATTR_PREFIX],
           end = least(c->size.out[1][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t j = 0; j < rows; j++) {
            size_t n = (size_t)offsets[s] + j;
            const float *dy = (const float *)c->in[0] + n * d;
            float *dprefix = (float *)c->out[1] + (s * rows + j) * d;
            if (n < (size_t)offsets[s + 1]) {
                SIMD for (size_t i = 0; i < d; i++) put(&dprefix[i], dy[i], c->add[1]);
            } else if (!c->add[1]) {
                memset(dprefix, 0, d * sizeof *dprefix);
            }
        }
}

void CPU(prefix_backward)(const struct call *c)
{
    if (c->out[0]) cpu_run(c, tiles_of(c->size.in[0][0], ROWS), behind_prefix, c);
    if (c->out[1]) cpu_run(c, tiles_of(c->size.out[1][0], SENTENCES), of_prefix, c);
}
