/* attention: softmax(q k^T / sqrt(W)) v within each sentence, causal or not, with grouped heads and latent keys in
 * front. The same with a cache, one row at a time. Rotary positions. */
#include "ops/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS, KV_HEADS, WIDTH, CAUSAL };

static struct attention_config config_of(const struct trial *t)
{
    return (struct attention_config){(size_t)t->option[HEADS], (size_t)t->option[KV_HEADS], (size_t)t->option[WIDTH],
                                     t->option[CAUSAL], (size_t)t->real[0]};
}

static void record(struct graph *g, const struct trial *t, const value *in, value *out)
{
    struct attention_config c = config_of(t);
    out[0] = op_attention(g, in[0], harness_input(g, "offsets"), c.memory ? in[1] : NO_VALUE, &c);
}

/* Returns key (which = 0) or value (1) j of sentence s for key head h; latent ones come first. */
static const double *kv(const struct trial *t, double *const *in, size_t s, size_t h, size_t j, size_t which)
{
    struct attention_config c = config_of(t);
    size_t row = (c.heads + 2 * c.kv_heads) * c.head_width;
    if (j < c.memory) return in[1] + ((s * c.memory + j) * 2 + which) * c.kv_heads * c.head_width + h * c.head_width;
    return in[0] + ((size_t)t->batch->offsets[s] + j - c.memory) * row +
           (c.heads + which * c.kv_heads + h) * c.head_width;
}

static void reference(const struct trial *t, double *const *in, double *const *out)
{
    struct attention_config c = config_of(t);
    size_t row = (c.heads + 2 * c.kv_heads) * c.head_width;
    for (size_t n = 0; n < t->batch->tokens; n++)
        for (size_t h = 0; h < c.heads; h++) {
            size_t s = (size_t)t->batch->sentence[n],
                   length = (size_t)(t->batch->offsets[s + 1] - t->batch->offsets[s]);
            size_t keys = c.memory + (c.causal ? (size_t)t->batch->position[n] + 1 : length);
            double p[256], sum = 0, *y = out[0] + (n * c.heads + h) * c.head_width;
            for (size_t j = 0; j < keys; j++) {
                const double *q = in[0] + n * row + h * c.head_width, *k = kv(t, in, s, h * c.kv_heads / c.heads, j, 0);
                double dot = 0;
                for (size_t d = 0; d < c.head_width; d++) dot += q[d] * k[d];
                sum += p[j] = exp(dot / sqrt((double)c.head_width));
            }
            for (size_t d = 0; d < c.head_width; d++) y[d] = 0;
            for (size_t j = 0; j < keys; j++)
                for (size_t d = 0; d < c.head_width; d++)
                    y[d] += p[j] / sum * kv(t, in, s, h * c.kv_heads / c.heads, j, 1)[d];
        }
}

static void try(const struct ragged *lengths, size_t heads, size_t kv_heads, size_t width, bool causal, size_t memory,
                size_t tail)
{
    char name[128];
    struct batch *b = batch_of(lengths);
    snprintf(name, sizeof name, "attention, %zu sentences, %zu tokens, %zu/%zu heads of %zu, memory %zu%s",
             b->sentences, b->tokens, heads, kv_heads, width, memory, causal ? ", causal" : "");
    struct trial t = {.name = name,
                      .batch = b,
                      .tail = tail,
                      .inputs = memory ? 2 : 1,
                      .record = record,
                      .reference = reference,
                      .option = {(long)heads, (long)kv_heads, (long)width, causal},
                      .real = {(double)memory}};
    t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, (heads + 2 * kv_heads) * width, 0, 1};
    t.in[1] = (struct operand){DIM_SENTENCES, b->sentences, memory * 2 * kv_heads * width, 0, 1};
    harness_try(&t);
    free(b);
}

static void every(bool causal)
{
    static const size_t heads[][3] = {{1, 1, 1}, {2, 1, 3}, {2, 2, 4}, {1, 1, 5}, {4, 2, 2}, {3, 1, 7}, {1, 1, 17}};
    static const size_t memory[] = {0, 1, 3};
    for (size_t i = 0; i < harness_ragged_count; i++)
        try(&harness_ragged[i], heads[i % 7][0], heads[i % 7][1], heads[i % 7][2], causal, memory[i % 3], i % 4 * 9);
    /* all kinds of heads with all memories */
    for (size_t h = 0; h < 7; h++)
        for (size_t m = 0; m < 3; m++)
            try(&(struct ragged){3, {2, 5, 1}}, heads[h][0], heads[h][1], heads[h][2], causal, memory[m], 5);
}

static void bidirectional(void **state)
{
    (void)state;
    every(false);
}

static void causal(void **state)
{
    (void)state;
    every(true);
}

/* ---- cached ---- */

enum { ROOM = 20, SENTENCES = 3 };

struct shape {
    size_t heads, kv_heads, width, memory;
};

static size_t row_of(const struct shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->width;
}

/* Computes all rows at once, packed and causal. */
static void packed(float *out, const struct shape *s, const struct batch *b, const float *qkv, const float *memory,
                   struct backend *backend)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{0, 0, b->tokens, b->sentences, b->sentences}};
    struct attention_config c = {s->heads, s->kv_heads, s->width, true, s->memory};
    assert_int_equal(graph_create(&g, "packed", NULL, &capacities, &error), ELBO_OK);
    value x = graph_input(g, "qkv", DTYPE_F32, 2, (struct dim[]){{DIM_DEC_TOKENS, 0}, {DIM_FIXED, row_of(s)}}),
          m = NO_VALUE;
    if (s->memory)
        m = graph_input(g, "memory", DTYPE_F32, 2,
                        (struct dim[]){{DIM_SENTENCES, 0}, {DIM_FIXED, s->memory * 2 * s->kv_heads * s->width}});
    value offsets = harness_input(g, "offsets"), y = op_attention(g, x, offsets, m, &c);
    graph_keep(g, y);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    e.inputs[graph_value(g, x)->binding] = qkv;
    e.inputs[graph_value(g, offsets)->binding] = b->offsets;
    if (m.index) e.inputs[graph_value(g, m)->binding] = memory;
    struct execution run = {.count = {0, 0, b->tokens, b->sentences, b->sentences}};
    harness_run(&e, &run);
    memcpy(out, executor_pointer(&e, y), b->tokens * s->heads * s->width * sizeof *out);
    free(arena);
    executor_free(&e);
    graph_free(g);
}

/* Computes one row per sentence at a time. Sentences that have ended repeat their last token, as generation does. With
 * `moving`, a sentence takes the next row at each token, and the history names the rows of its earlier tokens. */
static void one_by_one(float *out, const struct shape *s, const struct batch *b, const float *qkv, const float *memory,
                       bool moving, struct backend *backend)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{[DIM_DRAWS] = SENTENCES + 2}};
    struct attention_config c = {s->heads, s->kv_heads, s->width, true, s->memory};
    size_t row = row_of(s), kv = s->kv_heads * s->width, outs = s->heads * s->width;
    assert_int_equal(graph_create(&g, "cached", NULL, &capacities, &error), ELBO_OK);
    struct dim n = {DIM_DRAWS, 0};
    value x = graph_input(g, "qkv", DTYPE_F32, 2, (struct dim[]){n, {DIM_FIXED, row}}), m = NO_VALUE;
    value position = graph_input(g, "position", DTYPE_I32, 1, &n);
    value cache =
        graph_state(g, "cache", DTYPE_F32, 4, (struct dim[]){n, {DIM_FIXED, ROOM}, {DIM_FIXED, 2}, {DIM_FIXED, kv}});
    if (s->memory) m = graph_input(g, "memory", DTYPE_F32, 2, (struct dim[]){n, {DIM_FIXED, s->memory * 2 * kv}});
    value history = moving ? graph_input(g, "history", DTYPE_I32, 2, (struct dim[]){n, {DIM_FIXED, ROOM}}) : NO_VALUE;
    value y = op_attention_cached(g, x, position, m, history, cache, &c);
    graph_keep(g, y);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes),
         *state[] = {harness_memory((SENTENCES + 2) * ROOM * 2 * kv * sizeof(float))};
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, state, &error), ELBO_OK);
    float *rows = harness_memory(SENTENCES * row * sizeof *rows);
    int32_t at[SENTENCES], from[SENTENCES][ROOM];
    size_t m_width = s->memory * 2 * kv;
    float *remembered = harness_memory(SENTENCES * m_width * sizeof *remembered);
    e.inputs[graph_value(g, x)->binding] = rows;
    e.inputs[graph_value(g, position)->binding] = at;
    if (m.index) e.inputs[graph_value(g, m)->binding] = remembered;
    if (moving) e.inputs[graph_value(g, history)->binding] = from;
    for (int32_t t = 0; t < ROOM; t++) {
        for (size_t r = 0; r < SENTENCES; r++) {
            size_t i = moving ? (r + (size_t)t) % SENTENCES : r;
            int32_t length = b->offsets[i + 1] - b->offsets[i];
            int32_t token = t < length ? t : length - 1;
            at[r] = moving ? t : token; /* a place in the cache is written only once */
            for (size_t j = 0; j < ROOM; j++) from[r][j] = (int32_t)((i + SENTENCES * ROOM - j) % SENTENCES);
            memcpy(rows + r * row, qkv + (size_t)(b->offsets[i] + token) * row, row * sizeof *rows);
            if (m_width) memcpy(remembered + r * m_width, memory + i * m_width, m_width * sizeof *memory);
        }
        struct execution run = {.count = {[DIM_DRAWS] = SENTENCES}};
        harness_run(&e, &run);
        const float *now = executor_pointer(&e, y);
        for (size_t r = 0; r < SENTENCES; r++) {
            size_t i = moving ? (r + (size_t)t) % SENTENCES : r;
            if (b->offsets[i] + at[r] >= b->offsets[i + 1]) continue;
            memcpy(out + (size_t)(b->offsets[i] + at[r]) * outs, now + r * outs, outs * sizeof *out);
        }
    }
    free(rows);
    free(remembered);
    free(arena);
    free(state[0]);
    executor_free(&e);
    graph_free(g);
}

static void cached_equals_packed(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    static const struct shape shapes[] = {{1, 1, 1, 0}, {2, 1, 3, 1}, {2, 2, 4, 0},  {1, 1, 5, 3},
                                          {4, 2, 2, 1}, {3, 1, 7, 0}, {1, 1, 17, 1}, {2, 2, 16, 3}};
    struct batch *b = batch_of(&(struct ragged){SENTENCES, {7, 1, 20}});
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        size_t n = b->tokens * row_of(s), outs = b->tokens * s->heads * s->width;
        size_t m = SENTENCES * s->memory * 2 * s->kv_heads * s->width;
        double *wide = calloc(n + m + outs, sizeof *wide);
        float *x = calloc(n + m, sizeof *x), *a = calloc(outs, sizeof *a), *c = calloc(outs, sizeof *c), *first = NULL;
        harness_normal(wide, n + m, 0, 1, i);
        for (size_t k = 0; k < n + m; k++) x[k] = (float)wide[k];
        for (size_t d = 0; d < harness_devices; d++) {
            char what[96];
            snprintf(what, sizeof what, "cached attention %zu, %s, %zu threads", i, harness_device[d].variant,
                     harness_device[d].threads);
            one_by_one(c, s, b, x, x + n, true, harness_device[d].backend);
            memcpy(a, c, outs * sizeof *a);
            one_by_one(c, s, b, x, x + n, false, harness_device[d].backend);
            assert_memory_equal(a, c, outs * sizeof *a); /* the place of the cache changes nothing */
            packed(a, s, b, x, x + n, harness_device[d].backend);
            for (size_t k = 0; k < outs; k++) wide[k] = a[k];
            harness_close_to(what, harness_error_f32(c, wide, outs, 0), TOLERANCE_CACHED);
            if (harness_device[d].threads == 1) {
                free(first);
                first = malloc(outs * sizeof *first);
                memcpy(first, c, outs * sizeof *first);
            }
            assert_memory_equal(first, c, outs * sizeof *first);
        }
        free(first);
        free(wide);
        free(x);
        free(a);
        free(c);
    }
    free(b);
}

/* ---- rotary ---- */

static void record_rotary(struct graph *g, const struct trial *t, const value *in, value *out)
{
    out[0] = op_rotary(g, in[0], harness_input(g, "position"), (size_t)t->option[HEADS], (size_t)t->option[WIDTH]);
}

static void rotary_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t row = t->in[0].width, width = (size_t)t->option[WIDTH], half = width / 2;
    memcpy(out[0], in[0], t->in[0].rows * row * sizeof **out);
    for (size_t n = 0; n < t->in[0].rows; n++)
        for (size_t h = 0; h < (size_t)t->option[HEADS]; h++)
            for (size_t i = 0; i < half; i++) {
                double angle = t->batch->position[n] / pow(10000, 2.0 * (double)i / (double)width);
                const double *x = in[0] + n * row + h * width;
                double *y = out[0] + n * row + h * width;
                y[i] = x[i] * cos(angle) - x[i + half] * sin(angle);
                y[i + half] = x[i] * sin(angle) + x[i + half] * cos(angle);
            }
}

static void rotary(void **state)
{
    (void)state;
    static const size_t heads[][3] = {{1, 2, 0}, {2, 4, 3}, {1, 6, 6}, {3, 10, 10}, {1, 32, 16}, {2, 34, 1}};
    for (size_t i = 0; i < harness_ragged_count; i++) {
        char name[64];
        const size_t *h = heads[i % 6];
        struct batch *b = batch_of(&harness_ragged[i]);
        snprintf(name, sizeof name, "rotary, sentences %zu, %zu heads of %zu, %zu copied", i, h[0], h[1], h[2]);
        struct trial t = {.name = name,
                          .batch = b,
                          .tail = i % 3 * 20,
                          .inputs = 1,
                          .option = {(long)h[0], 0, (long)h[1]},
                          .record = record_rotary,
                          .reference = rotary_reference};
        t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, h[0] * h[1] + h[2], 0, 1};
        harness_try(&t);
        free(b);
    }
}

/* Scores depend on distances alone: rotating all positions by the same amount changes no product. */
static void rotary_sees_distances(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    struct batch *b = batch_rows(6);
    double *x = calloc(2 * 6 * 8, sizeof *x), *y = x + 48, products[2][36];
    harness_normal(x, 48, 0, 1, 3);
    for (int shift = 0; shift < 2; shift++) {
        elbo_error error = {0};
        struct graph *g;
        struct executor e;
        struct graph_capacities capacities = {{0, 0, 6, 1, 1}};
        float in[48];
        assert_int_equal(graph_create(&g, "rotary", NULL, &capacities, &error), ELBO_OK);
        value v = graph_input(g, "x", DTYPE_F32, 2, (struct dim[]){{DIM_DEC_TOKENS, 0}, {DIM_FIXED, 8}});
        value position = harness_input(g, "position"), r = op_rotary(g, v, position, 1, 8);
        graph_keep(g, r);
        assert_int_equal(executor_create(&e, g, harness_device[0].backend, &error), ELBO_OK);
        void *arena = harness_memory(e.plan.bytes);
        assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
        for (int i = 0; i < 48; i++) in[i] = (float)x[i];
        for (int i = 0; i < 6; i++) b->position[i] = i + 11 * shift;
        e.inputs[graph_value(g, v)->binding] = in;
        e.inputs[graph_value(g, position)->binding] = b->position;
        struct execution run = {.count = {0, 0, 6, 1, 1}};
        harness_run(&e, &run);
        for (int i = 0; i < 48; i++) y[i] = ((float *)executor_pointer(&e, r))[i];
        for (int i = 0; i < 36; i++) {
            products[shift][i] = 0;
            for (int d = 0; d < 8; d++) products[shift][i] += y[i / 6 * 8 + d] * y[i % 6 * 8 + d];
        }
        free(arena);
        executor_free(&e);
        graph_free(g);
    }
    harness_close_to("rotary products", harness_error(products[1], products[0], 36, 0), TOLERANCE_FORWARD);
    free(x);
    free(b);
}

HARNESS_MAIN(FAMILY_ATTENTION, cmocka_unit_test(bidirectional), cmocka_unit_test(causal),
             cmocka_unit_test(cached_equals_packed), cmocka_unit_test(rotary), cmocka_unit_test(rotary_sees_distances))
