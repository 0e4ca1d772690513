/* Drawing tokens: the frequencies of many draws against probabilities in closed form, the independence of the noise
 * along rows and positions, and the same sentences for any division of rows into calls. Seeds are fixed, so nothing
 * depends on luck. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counted_memory.h"

#include "base/philox.h"
#include "device/backends.h"
#include "model/choose.h"
#include "model/latent.h"

enum { V = 12, START = 0, END = 1, UNKNOWN = 2, DRAWS = 20000 };

static void prior_rows(float *z, size_t rows, size_t width, const struct latent_noise *noise, uint64_t first)
{
    struct latent latent = latent_standard(width);
    latent_prior_samples(&latent, z, rows, noise, first);
}

static const struct elbo_marks marks = {.start = START, .end = END, .unknown = UNKNOWN};

/* Returns a chi-square statistic as a normal deviate (Wilson and Hilferty 1931). */
static double deviate(double chi, double freedom)
{
    double c = 2 / (9 * freedom);
    return (cbrt(chi / freedom) - (1 - c)) / sqrt(c);
}

static const double SURPRISE = 4.4; /* a deviate that occurs once in 200,000 times */

/* ---- the reference: every token sorted, in double ---- */

static const float *sorted_logits;

static int likelier(const void *a, const void *b)
{
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    float x = sorted_logits[i], y = sorted_logits[j];
    if (x > y || x < y) return x > y ? -1 : 1;
    return i < j ? -1 : i > j;
}

/* Computes p (v), the probability of every token by the definition in docs/model.md. */
static size_t reference(double *p, const float *logits, size_t v, const struct generate_options *o)
{
    size_t *order = malloc(v * sizeof *order), n = 0, kept = 0;
    double total = 0, held = 0;
    for (size_t i = 0; i < v; i++) {
        bool never = i == START || (i == UNKNOWN && !o->allow_unknown);
        for (size_t j = 0; j < o->never_count; j++) never |= o->never[j] == i;
        p[i] = 0;
        if (!never) order[n++] = i;
    }
    sorted_logits = logits;
    qsort(order, n, sizeof *order, likelier);
    for (size_t i = 0; i < n; i++) total += exp((double)(logits[order[i]] - logits[order[0]]) / o->temperature);
    while (kept < n && (!o->top_k || kept < o->top_k) && (!kept || o->top_p >= 1 || held < o->top_p * total)) {
        size_t token = order[kept++];
        held += p[token] = exp((double)(logits[token] - logits[order[0]]) / o->temperature);
    }
    for (size_t i = 0; i < v; i++) p[i] /= held;
    free(order);
    return kept;
}

/* Draws and compares frequencies; tokens with fewer than 5 expected draws are counted together. */
static void agrees(const float *logits, size_t v, const struct generate_options *o, const char *what)
{
    elbo_error error = {0};
    struct choose_scratch *scratch;
    double *p = malloc(v * sizeof *p), chi = 0, rare = 0, rare_seen = 0;
    float *x = malloc(v * sizeof *x);
    size_t *seen = calloc(v, sizeof *seen), cells = 0, draws = v > V ? 4000 : DRAWS;
    assert_int_equal(choose_scratch_make(&scratch, v, &error), ELBO_OK);
    size_t kept = reference(p, logits, v, o);
    for (size_t i = 0; i < draws; i++) {
        memcpy(x, logits, v * sizeof *x);
        size_t token = choose_token(x, v, o, &marks, i / 50, i % 50, scratch);
        if (token >= v || p[token] <= 0)
            fail_msg("%s: token %zu was drawn, which is not among the %zu kept", what, token, kept);
        seen[token]++;
    }
    for (size_t i = 0; i < v; i++) {
        double expected = p[i] * (double)draws, d = (double)seen[i] - expected;
        if (expected >= 5)
            chi += d * d / expected, cells++;
        else
            rare += expected, rare_seen += (double)seen[i];
    }
    if (rare >= 5) chi += (rare_seen - rare) * (rare_seen - rare) / rare, cells++;
    if (cells > 1 && deviate(chi, (double)(cells - 1)) > SURPRISE)
        fail_msg("%s: the frequencies of %zu draws are not those of %zu kept tokens (chi-square %.1f of %zu cells)",
                 what, draws, kept, chi, cells);
    choose_scratch_free(scratch);
    free(p);
    free(x);
    free(seen);
}

static void frequencies_are_the_definition(void **state)
{
    (void)state;
    static const float spread[V] = {9, 0.3f, 8, 2.0f, 1.5f, 1.1f, 0.7f, 0.1f, -0.4f, -1.0f, -1.9f, -3.0f};
    static const float tied[V] = {5, 1, 5, 2, 2, 1, 1, 1, 0, 0, 0, 0};
    static const float equal[V] = {3, 3, 3, 3, 3, 3,
                                   3, 3, 3, 3, 3, 3}; /* ten may be drawn: each probability is a tenth */
    static const float steep[V] = {0, 4096, 0, 4096.0005f, 4095.9995f, 4095.999f, 4095.9985f, 4095.998f, 4000, 1, 2, 3};
    static const float wide[V] = {0, 3e38f, 0, -3e38f, 1e38f, -1e38f, 0, 1e30f, -1e30f, 5, 2e38f, -2e38f};
    static const uint32_t never[] = {4, 11};
    static const struct {
        const float *logits;
        struct generate_options o;
    } cases[] = {
        {spread, {.temperature = 1, .top_p = 1}},
        {spread, {.temperature = 0.5, .top_p = 0.9}}, /* sharpened probabilities keep fewer tokens than temperature 1 */
        {spread, {.temperature = 2.5, .top_p = 0.8}}, /* flattened probabilities keep more */
        {spread, {.temperature = 1, .top_p = 0.5}},
        {spread, {.temperature = 0.7, .top_p = 1, .top_k = 4}},
        {spread, {.temperature = 1.3, .top_p = 0.6, .top_k = 9}},  /* top_p cuts first */
        {spread, {.temperature = 1.3, .top_p = 0.95, .top_k = 3}}, /* top_k cuts first */
        {spread, {.temperature = 1, .top_p = 1, .top_k = 1}},
        {spread, {.temperature = 1, .top_p = 0.000001}},
        {spread, {.temperature = 0.0001, .top_p = 1}},
        {spread, {.temperature = 1, .top_p = 0.9, .allow_unknown = true}},
        {spread, {.temperature = 1, .top_p = 0.9, .never = never, .never_count = 2}},
        {tied, {.temperature = 1, .top_p = 0.62}},
        {tied, {.temperature = 1, .top_p = 1, .top_k = 5}},
        {tied, {.temperature = 1e-30, .top_p = 0.6}},
        {tied, {.temperature = 0.8, .top_p = 0.999999}},
        {equal, {.temperature = 1, .top_p = 0.5}},       /* exactly five tokens hold the share */
        {equal, {.temperature = 3, .top_p = 0.5000001}}, /* six tokens hold the share */
        {equal, {.temperature = 3, .top_p = 0.4999999}},
        {equal, {.temperature = 1, .top_p = 0.7, .top_k = 6}},
        {steep, {.temperature = 0.0005, .top_p = 0.9999}}, /* neighboring floats, a temperature apart */
        {wide, {.temperature = 1e30, .top_p = 0.5}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char what[96];
        struct generate_options o = cases[i].o;
        o.seed = 100 + i;
        snprintf(what, sizeof what, "case %zu: temperature %g, top_p %g, top_k %zu", i, o.temperature, o.top_p,
                 o.top_k);
        agrees(cases[i].logits, V, &o, what);
    }
}

/* Large vocabularies find the kept set by other methods than small ones. */
static void large_vocabularies(void **state)
{
    (void)state;
    static const double top_p[] = {0.9, 0.3, 0.02, 1, 0.999}; /* first draws do not meet the small shares */
    for (size_t kind = 0; kind < 4; kind++)
        for (size_t i = 0; i < sizeof top_p / sizeof *top_p; i++) {
            size_t v = kind == 3 ? 5000 : 1500 + 937 * i;
            float *logits = malloc(v * sizeof *logits), eps[4];
            for (size_t t = 0; t < v; t++) {
                noise_normal4(eps, noise_block(noise_key(kind, i, 0), t, 0, 0));
                logits[t] = kind == 0   ? 0.2f * eps[0]
                            : kind == 1 ? 2.5f * eps[0]
                            : kind == 2 ? eps[0] - logf((float)t + 1)
                                        : (float)(t * 7919 % 4);
            }
            char what[96];
            struct generate_options o = {.temperature = 0.8,
                                         .top_p = top_p[i],
                                         .top_k = i == 3   ? 40
                                                  : i == 4 ? 300
                                                           : 0,
                                         .seed = 7};
            snprintf(what, sizeof what, "logits of kind %zu, V %zu, top_p %g, top_k %zu", kind, v, o.top_p, o.top_k);
            agrees(logits, v, &o, what);
            free(logits);
        }
}

/* The sum is within the documented error for any fraction of a power of two. */
static void sums_of_exponentials(void **state)
{
    (void)state;
    for (float x = 0; x > -6; x -= 0.01f) {
        const float logits[V] = {0, x, x, x, x, x, x, x, x, x, x, x};
        double wanted = log(1 + (V - 1) * exp((double)x));
        if (fabs(choose_log_sum(logits, V) - wanted) > 1e-6) fail_msg("exp(%g)", (double)x);
    }
}

/* Two of many tokens hold little probability. Values that another row left in the scratch must not be taken for
 * theirs. */
static void rows_do_not_see_each_other(void **state)
{
    (void)state;
    enum { MANY = 4096, FIRST = 100, SECOND = 3000 };
    elbo_error error = {0};
    struct choose_scratch *scratch;
    static float x[MANY];
    const struct generate_options o = {.temperature = 1, .top_p = 1, .top_k = 2, .seed = 1};
    size_t seen[2] = {0};
    assert_int_equal(choose_scratch_make(&scratch, MANY, &error), ELBO_OK);
    for (size_t row = 0; row < 80; row++) {
        float base = row % 2 ? 0 : 1000;
        for (size_t i = 0; i < MANY; i++) x[i] = base;
        x[FIRST] = base + 1;
        x[SECOND] = base + 1.0625f;
        size_t token = choose_token(x, MANY, &o, &marks, row, 0, scratch);
        assert_true(token == FIRST || token == SECOND);
        seen[token == SECOND] += row % 2;
    }
    assert_true(seen[0] > 8 && seen[1] > 8);
    choose_scratch_free(scratch);
}

static void what_is_not_finite(void **state)
{
    (void)state;
    elbo_error error = {0};
    struct choose_scratch *scratch;
    assert_int_equal(choose_scratch_make(&scratch, V, &error), ELBO_OK);
    for (int greedy = 0; greedy < 2; greedy++) {
        struct generate_options o = {.temperature = 1, .top_p = 0.9, .greedy = greedy};
        float x[V];
        for (size_t i = 0; i < V; i++) x[i] = NAN;
        assert_int_equal(choose_token(x, V, &o, &marks, 0, 0, scratch), END);
        x[5] = -3; /* the only logit that is not NaN */
        for (size_t i = 0; i < 50; i++) assert_int_equal(choose_token(x, V, &o, &marks, i, 0, scratch), 5);
        x[7] = INFINITY;
        assert_int_equal(choose_token(x, V, &o, &marks, 0, 0, scratch), 7);
    }
    choose_scratch_free(scratch);
}

/* ---- the noise ---- */

/* Checks that pairs of tokens (0 .. n - 1) are independent and uniform. */
static void independent(const size_t *pairs, size_t n, const char *what)
{
    double total = 0, chi = 0;
    for (size_t i = 0; i < n * n; i++) total += (double)pairs[i];
    for (size_t i = 0; i < n * n; i++)
        chi += pow((double)pairs[i] - total / (double)(n * n), 2) / (total / (double)(n * n));
    if (deviate(chi, (double)(n * n - 1)) > SURPRISE)
        fail_msg("%s repeat each other (chi-square %.0f of %zu cells)", what, chi, n * n);
}

enum { LONGEST = 6, TOY = 11, WIDTH = 3, ROWS = 3000 };

static void make(struct model *m, bool weights)
{
    elbo_error error = {0};
    struct backend *backend;
    struct stack_config stack = {.width = 8, .layers = 1, .heads = 2};
    struct model_config c = {.encoder = stack,
                             .decoder = stack,
                             .latent = {.kind = LATENT_NORMAL, .width = WIDTH, .memory = 1, .sample = true},
                             .share_embedding = true,
                             .tie_output = false,
                             .vocabulary = TOY,
                             .positions = LONGEST + 2};
    assert_int_equal(cpu_backend_create(&backend, 2, NULL, &error), ELBO_OK);
    assert_int_equal(model_create(m, &c, backend, &error), ELBO_OK);
    if (weights) assert_int_equal(model_initialize(m, 5, &error), ELBO_OK);
    for (size_t i = 0; weights && i < parameters_arena_elements(m->parameters); i++) m->weights[i] *= 12;
}

static void drop(struct model *m)
{
    struct backend *b = m->backend;
    model_free(m);
    b->destroy(b);
}

static void write_rows(struct model *m, struct elbo_ids *out, const float *z, size_t rows, struct generate_options o)
{
    elbo_error error = {0};
    memset(out, 0, rows * sizeof *out);
    if (generate(m, out, z, rows, &o, &marks, &error)) fail_msg("%s", error.message);
}

/* A model with zero weights gives every token the same probability, so the drawn tokens are the noise. */
static void noise_along_rows_and_positions(void **state)
{
    (void)state;
    enum { N = TOY - 3 }; /* tokens that may be drawn */
    struct model m;
    make(&m, false);
    static struct elbo_ids out[ROWS];
    static float z[ROWS * WIDTH];
    write_rows(&m, out, z, ROWS,
               (struct generate_options){.max_length = LONGEST, .temperature = 1, .top_p = 1, .seed = 3});
    for (size_t lag = 1; lag <= 4; lag++) {
        size_t rows[N * N] = {0}, positions[N * N] = {0};
        char what[64];
        for (size_t r = 0; r < ROWS; r++)
            for (size_t p = 0; p < out[r].count; p++) {
                size_t a = out[r].ids[p] - 3;
                if (r + lag < ROWS && p < out[r + lag].count) rows[a * N + out[r + lag].ids[p] - 3]++;
                if (p + lag < out[r].count) positions[a * N + out[r].ids[p + lag] - 3]++;
            }
        snprintf(what, sizeof what, "rows at a distance of %zu", lag);
        independent(rows, N, what);
        snprintf(what, sizeof what, "positions at a distance of %zu", lag);
        independent(positions, N, what);
    }
    /* Pairs rows of different chunks and of different seeds, and trials of one token. */
    size_t chunks[N * N] = {0};
    static struct elbo_ids other[ROWS];
    for (size_t r = 0; r + 64 < ROWS; r++)
        if (out[r].count && out[r + 64].count) chunks[(out[r].ids[0] - 3) * N + out[r + 64].ids[0] - 3]++;
    independent(chunks, N, "rows of neighbouring chunks");
    write_rows(&m, other, z, ROWS,
               (struct generate_options){.max_length = LONGEST, .temperature = 1, .top_p = 1, .seed = 4});
    size_t seeds[N * N] = {0};
    for (size_t r = 0; r < ROWS; r++) {
        if (out[r].count && other[r].count) seeds[(out[r].ids[0] - 3) * N + other[r].ids[0] - 3]++;
        elbo_ids_free(&other[r]);
    }
    independent(seeds, N, "two seeds");
    for (size_t r = 0; r < ROWS; r++) elbo_ids_free(&out[r]);
    drop(&m);
}

/* Without a limit a sentence ends where the positions end, less one position for the end mark. */
static void as_long_as_there_are_positions(void **state)
{
    (void)state;
    enum { SOME = 64 };
    struct model m;
    make(&m, false);
    static struct elbo_ids out[SOME];
    static float z[SOME * WIDTH];
    size_t longest = 0;
    write_rows(&m, out, z, SOME, (struct generate_options){.temperature = 1, .top_p = 1});
    for (size_t r = 0; r < SOME; r++) {
        if (out[r].count > longest) longest = out[r].count;
        elbo_ids_free(&out[r]);
    }
    assert_int_equal(longest, m.config.positions - 1);
    drop(&m);
}

/* Each allocation fails once, for drawing and for beam search; all memory that was taken is freed. */
static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    if (!COUNTED) skip();
    struct model m;
    elbo_error error = {0};
    struct elbo_ids out[2];
    const float z[2 * WIDTH] = {0};
    make(&m, true);
    for (size_t beam = 0; beam < 4; beam += 3) {
        struct generate_options o = {.max_length = LONGEST, .temperature = 1, .top_p = 0.9, .beam = beam};
        size_t failed = 0;
        write_rows(&m, out, z, 2, o); /* the model's arena stays */
        for (size_t i = 0; i < 2; i++) elbo_ids_free(&out[i]);
        for (long which = 1;; which++) {
            long before = atomic_load(&memory_held);
            memset(out, 0, sizeof out);
            atomic_store(&memory_until, which);
            elbo_status status = generate(&m, out, z, 2, &o, &marks, &error);
            bool over = atomic_exchange(&memory_until, 0) > 0;
            for (size_t i = 0; i < 2; i++) elbo_ids_free(&out[i]);
            if (status != (over ? ELBO_OK : ELBO_MEMORY)) fail_msg("beam %zu, call %ld: %d", beam, which, status);
            if (atomic_load(&memory_held) != before) fail_msg("beam %zu, call %ld: memory stays", beam, which);
            if (over) break;
            failed++;
        }
        assert_true(failed > 20);
    }
    drop(&m);
}

static void calls_do_not_matter(void **state)
{
    (void)state;
    enum { SOME = 150 };
    static const size_t pieces[] = {1, 2, 64, 70, 13};
    struct model m;
    make(&m, true);
    struct latent_noise noise = {1, noise_purpose("test"), 0, 0};
    float z[SOME * WIDTH];
    struct elbo_ids whole[SOME], part[SOME];
    prior_rows(z, SOME, WIDTH, &noise, 0);
    for (size_t beam = 0; beam < 4; beam += 3) {
        struct generate_options o = {.max_length = LONGEST,
                                     .temperature = 0.9,
                                     .top_p = 0.8,
                                     .seed = 3,
                                     .first_row = 1000,
                                     .beam = beam,
                                     .length_penalty = 1};
        write_rows(&m, whole, z, SOME, o);
        for (size_t at = 0, k = 0; at < SOME; at += pieces[k++]) {
            o.first_row = 1000 + at;
            write_rows(&m, part + at, z + at * WIDTH, pieces[k], o);
        }
        for (size_t i = 0; i < SOME; i++) {
            assert_int_equal(whole[i].count, part[i].count);
            if (whole[i].count) assert_memory_equal(whole[i].ids, part[i].ids, whole[i].count * sizeof *whole[i].ids);
            elbo_ids_free(&whole[i]);
            elbo_ids_free(&part[i]);
        }
    }
    drop(&m);
}

/* Banned tokens are never written by any method; the search without them is the search among the rest. */
static void never_written(void **state)
{
    (void)state;
    enum { SOME = 200 };
    static const uint32_t never[] = {4, 5, 6, 7, 8, 10};
    struct model m;
    make(&m, true);
    struct latent_noise noise = {1, noise_purpose("test"), 0, 0};
    static float z[SOME * WIDTH];
    static struct elbo_ids out[SOME];
    prior_rows(z, SOME, WIDTH, &noise, 0);
    for (int way = 0; way < 3; way++) {
        size_t tokens = 0;
        write_rows(&m, out, z, SOME,
                   (struct generate_options){.max_length = LONGEST,
                                             .temperature = 1,
                                             .top_p = 0.9,
                                             .greedy = way == 1,
                                             .beam = way == 2 ? 3 : 0,
                                             .never = never,
                                             .never_count = 6});
        for (size_t i = 0; i < SOME; i++) {
            for (size_t p = 0; p < out[i].count; p++, tokens++) assert_true(out[i].ids[p] == 3 || out[i].ids[p] == 9);
            elbo_ids_free(&out[i]);
        }
        assert_true(tokens > 0);
    }
    drop(&m);
}

static void prior_rows_are_normal(void **state)
{
    (void)state;
    enum { N = 4000, D = 5, BINS = 16 };
    static float z[N * D];
    struct latent_noise noise = {9, noise_purpose("sample.prior"), 0, 0};
    prior_rows(z, N, D, &noise, 0);
    size_t bins[BINS] = {0};
    double chi = 0, along_rows = 0, along_columns = 0;
    for (size_t i = 0; i < N * D; i++) {
        bins[(size_t)(0.5 * erfc(-(double)z[i] / sqrt(2)) * BINS)]++;
        if (i + D < N * D) along_rows += (double)z[i] * (double)z[i + D];
        if (i % D) along_columns += (double)z[i] * (double)z[i - 1];
    }
    for (size_t i = 0; i < BINS; i++) chi += pow((double)bins[i] - N * D / (double)BINS, 2) / (N * D / (double)BINS);
    assert_true(deviate(chi, BINS - 1) < SURPRISE);
    assert_true(fabs(along_rows) / sqrt(N * D) < SURPRISE); /* independent products: normal with this width */
    assert_true(fabs(along_columns) / sqrt(N * (D - 1)) < SURPRISE);
    float later[D];
    prior_rows(later, 1, D, &noise, 17);
    assert_memory_equal(later, z + 17 * D, sizeof later);
    assert_memory_not_equal(later, z + 16 * D, sizeof later);
}

/* Marks and tokens outside the vocabulary ban nothing, and the end mark is never banned. */
static void bans_keep_to_the_vocabulary(void **state)
{
    (void)state;
    const uint32_t never[] = {V, 4, END, V - 1};
    struct generate_options o = {.never = never, .never_count = 4};
    for (int unknown = 0; unknown < 2; unknown++)
        for (int beyond = 0; beyond < 2; beyond++) {
            struct elbo_marks m = beyond ? (struct elbo_marks){.start = V, .end = END, .unknown = V} : marks;
            float x[V + 1];
            for (size_t i = 0; i <= V; i++) x[i] = (float)i;
            o.allow_unknown = unknown;
            choose_ban(x, V, &o, &m);
            for (size_t i = 0; i <= V; i++) {
                bool banned = i == 4 || i == V - 1 || (!beyond && (i == START || (i == UNKNOWN && !unknown)));
                if (banned != (bool)isinf(x[i])) fail_msg("token %zu, unknown %d, marks beyond %d", i, unknown, beyond);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_are_the_definition),
        cmocka_unit_test(large_vocabularies),
        cmocka_unit_test(sums_of_exponentials),
        cmocka_unit_test(rows_do_not_see_each_other),
        cmocka_unit_test(what_is_not_finite),
        cmocka_unit_test(as_long_as_there_are_positions),
        cmocka_unit_test(memory_may_run_out_anywhere),
        cmocka_unit_test(noise_along_rows_and_positions),
        cmocka_unit_test(calls_do_not_matter),
        cmocka_unit_test(never_written),
        cmocka_unit_test(prior_rows_are_normal),
        cmocka_unit_test(bans_keep_to_the_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
