/* Ops between one row per token and one row per sentence: pooling of five kinds, broadcast, segment sums, prefixes,
 * with empty sentences. */
#include "ops/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const size_t widths[] = {1, 3, 8, 17, 33, 5};

/* ---- pooling ---- */

static void record_pool(struct graph *g, const struct trial *t, const value *in, value *out)
{
    out[0] =
        op_pool(g, in[0], harness_input(g, "offsets"), t->inputs > 1 ? in[1] : NO_VALUE, (enum pool_kind)t->option[0]);
}

static void pool_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width;
    for (size_t s = 0; s < t->batch->sentences; s++) {
        size_t from = (size_t)t->batch->offsets[s], to = (size_t)t->batch->offsets[s + 1];
        double weight[128], sum = 0;
        for (size_t n = from; n < to; n++) {
            double score = 0;
            for (size_t i = 0; i < width && t->option[0] == POOL_ATTENTION; i++)
                score += in[0][n * width + i] * in[1][i];
            weight[n - from] = t->option[0] == POOL_FIRST  ? n == from
                               : t->option[0] == POOL_LAST ? n == to - 1
                                                           : exp(score);
            sum += weight[n - from];
        }
        for (size_t i = 0; i < width; i++) {
            out[0][s * width + i] = 0;
            for (size_t n = from; n < to; n++) out[0][s * width + i] += weight[n - from] / sum * in[0][n * width + i];
            if (t->option[0] == POOL_ENDS && to > from)
                out[0][s * width + i] = in[0][(i < width / 2 ? to - 1 : from) * width + i];
        }
    }
}

static void pool_of(enum pool_kind kind)
{
    for (size_t i = 0; i < harness_ragged_count; i++) {
        char name[64];
        struct batch *b = batch_of(&harness_ragged[i]);
        snprintf(name, sizeof name, "pool %d, sentences %zu, width %zu", kind, i, widths[i % 6]);
        struct trial t = {.name = name,
                          .batch = b,
                          .tail = i % 3 * 20,
                          .inputs = kind == POOL_ATTENTION ? 2 : 1,
                          .option = {kind},
                          .record = record_pool,
                          .reference = pool_reference};
        t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, widths[i % 6], 0, 1};
        t.in[1] =
            (struct operand){DIM_FIXED, widths[i % 6], 0, 0, 1 / sqrt((double)widths[i % 6])}; /* no weight near 1 */
        harness_try(&t);
        free(b);
    }
}

static void pool_mean(void **state)
{
    (void)state;
    pool_of(POOL_MEAN);
}

static void pool_first(void **state)
{
    (void)state;
    pool_of(POOL_FIRST);
}

static void pool_last(void **state)
{
    (void)state;
    pool_of(POOL_LAST);
}

static void pool_attention(void **state)
{
    (void)state;
    pool_of(POOL_ATTENTION);
}

static void pool_ends(void **state)
{
    (void)state;
    pool_of(POOL_ENDS);
}

/* ---- broadcast ---- */

static void record_broadcast(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_broadcast_add(g, in[0], in[1], harness_input(g, "sentence"), harness_input(g, "offsets"));
}

static void broadcast_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width;
    for (size_t n = 0; n < t->batch->tokens; n++)
        for (size_t i = 0; i < width; i++)
            out[0][n * width + i] = in[0][n * width + i] + in[1][(size_t)t->batch->sentence[n] * width + i];
}

static void broadcast_add(void **state)
{
    (void)state;
    for (size_t i = 0; i < harness_ragged_count; i++) {
        char name[64];
        struct batch *b = batch_of(&harness_ragged[i]);
        snprintf(name, sizeof name, "broadcast, sentences %zu, width %zu", i, widths[i % 6]);
        struct trial t = {.name = name,
                          .batch = b,
                          .tail = i % 3 * 20,
                          .inputs = 2,
                          .record = record_broadcast,
                          .reference = broadcast_reference};
        t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, widths[i % 6], 0, 1};
        t.in[1] = (struct operand){DIM_SENTENCES, b->sentences, widths[i % 6], 0, 1};
        harness_try(&t);
        free(b);
    }
}

/* ---- sums ---- */

static void record_sum(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_segment_sum(g, in[0], harness_input(g, "offsets"), DIM_SENTENCES);
}

static void sum_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width ? t->in[0].width : 1;
    for (size_t s = 0; s < t->batch->sentences; s++)
        for (size_t i = 0; i < width; i++) {
            out[0][s * width + i] = 0;
            for (int32_t n = t->batch->offsets[s]; n < t->batch->offsets[s + 1]; n++)
                out[0][s * width + i] += in[0][(size_t)n * width + i];
        }
}

static void segment_sum(void **state)
{
    (void)state;
    for (size_t i = 0; i < harness_ragged_count; i++)
        for (size_t rank = 1; rank <= 2; rank++) {
            char name[64];
            struct batch *b = batch_of(&harness_ragged[i]);
            snprintf(name, sizeof name, "segment sum, sentences %zu, rank %zu", i, rank);
            struct trial t = {.name = name,
                              .batch = b,
                              .tail = i % 3 * 20,
                              .inputs = 1,
                              .record = record_sum,
                              .reference = sum_reference,
                              .forward_only = true};
            t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, rank == 2 ? widths[i % 6] : 0, 0.5, 1};
            harness_try(&t);
            free(b);
        }
}

/* ---- prefix ---- */

enum { PREFIX_ROWS, PREFIX_STEP };

static void record_prefix(struct graph *g, const struct trial *t, const value *in, value *out)
{
    bool step = t->option[PREFIX_STEP];
    out[0] = op_prefix(g, in[0], in[1], harness_input(g, "position"), step ? NO_VALUE : harness_input(g, "sentence"),
                       step ? NO_VALUE : harness_input(g, "offsets"));
}

static void prefix_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width, rows = (size_t)t->option[PREFIX_ROWS];
    for (size_t n = 0; n < t->batch->tokens; n++) {
        size_t j = (size_t)t->batch->position[n], s = t->option[PREFIX_STEP] ? n : (size_t)t->batch->sentence[n];
        for (size_t i = 0; i < width; i++)
            out[0][n * width + i] = j < rows ? in[1][(s * rows + j) * width + i] : in[0][n * width + i];
    }
}

/* Includes sentences shorter than the prefix, and one new token per row, which has no gradient. */
static void prefix(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * harness_ragged_count; i++) {
        char name[64];
        bool step = i % 2;
        size_t rows = i % 4 + 1;
        struct batch *b = batch_of(&harness_ragged[i / 2]);
        snprintf(name, sizeof name, "prefix of %zu, sentences %zu, width %zu%s", rows, i / 2, widths[i % 6],
                 step ? ", step" : "");
        struct trial t = {.name = name,
                          .batch = b,
                          .tail = i % 3 * 20,
                          .inputs = 2,
                          .option = {(long)rows, step},
                          .forward_only = step,
                          .record = record_prefix,
                          .reference = prefix_reference};
        t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, widths[i % 6], 0, 1};
        t.in[1] = step ? (struct operand){DIM_DEC_TOKENS, b->tokens, rows * widths[i % 6], 0, 1}
                       : (struct operand){DIM_SENTENCES, b->sentences, rows * widths[i % 6], 0, 1};
        harness_try(&t);
        free(b);
    }
}

HARNESS_MAIN(FAMILY_SENTENCE, cmocka_unit_test(pool_mean), cmocka_unit_test(pool_first), cmocka_unit_test(pool_last),
             cmocka_unit_test(pool_attention), cmocka_unit_test(pool_ends), cmocka_unit_test(broadcast_add),
             cmocka_unit_test(segment_sum), cmocka_unit_test(prefix))
