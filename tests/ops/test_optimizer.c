/* The optimizer's update: 20 steps of AdamW and of SGD with momentum against double precision, the squared norm with
 * values that are not finite, bf16 moments to the bit, the guard and controllers, and the same bits with any number of
 * threads. */
#include "ops/harness.h"
#include "base/bf16.h"
#include "base/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 20, ARENAS = 3 };

static const size_t sizes[] = {1, 3, 15, 16, 17, 100, 1023, 1024, 1025, 2048, 4097, 32767, 32768, 32769, 70001, 131072};
enum { SIZES = sizeof sizes / sizeof *sizes };

struct update {
    size_t n;
    float *arena[ARENAS], *gradient, scalars[STEP_SCALARS]; /* weights, moments */
    double *wide[ARENAS];
    struct graph *g;
    struct executor e;
};

/* `first` is the index of the range's first element in the arena. */
static void open_update(struct update *u, size_t n, bool adam, enum dtype moments, size_t first,
                        struct backend *backend)
{
    static const char *const names[] = {"weights", "moment1", "moment2", "gradient"};
    elbo_error error = {0};
    struct graph_capacities capacities = {{0}};
    value v[4];
    *u = (struct update){.n = n};
    assert_int_equal(graph_create(&u->g, "update", NULL, &capacities, &error), ELBO_OK);
    for (int i = 0; i < 4; i++)
        v[i] = graph_input(u->g, names[i], i == 1 || i == 2 ? moments : DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, n}});
    value scalars = graph_input(u->g, "scalars", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, STEP_SCALARS}});
    if (adam)
        op_adamw(u->g, v[0], NO_VALUE, v[1], v[2], v[3], scalars, first);
    else
        op_sgd(u->g, v[0], NO_VALUE, v[1], v[3], scalars, first);
    assert_int_equal(executor_create(&u->e, u->g, backend, &error), ELBO_OK);
    assert_int_equal(executor_bind(&u->e, NULL, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    for (int i = 0; i < ARENAS; i++) {
        u->arena[i] = calloc(n, sizeof(float));
        u->wide[i] = calloc(n, sizeof(double));
        u->e.inputs[graph_value(u->g, v[i])->binding] = u->arena[i];
    }
    u->gradient = calloc(n, sizeof(float));
    u->e.inputs[graph_value(u->g, v[3])->binding] = u->gradient;
    u->e.inputs[graph_value(u->g, scalars)->binding] = u->scalars;
    harness_normal(u->wide[0], n, 0, 0.5, 1);
    for (size_t i = 0; i < n; i++) u->arena[0][i] = (float)u->wide[0][i];
}

static void close_update(struct update *u)
{
    for (int i = 0; i < ARENAS; i++) free(u->arena[i]), free(u->wide[i]);
    free(u->gradient);
    executor_free(&u->e);
    graph_free(u->g);
}

static double s(const struct update *u, int i)
{
    return u->scalars[i];
}

static void step(struct update *u, int t, bool adam)
{
    double *g = malloc(u->n * sizeof *g);
    harness_normal(g, u->n, 0.1, 1, 100 + (uint64_t)t);
    for (size_t i = 0; i < u->n; i++) u->gradient[i] = (float)g[i];
    u->scalars[STEP_LEARNING_RATE] = 0.01f / (float)t;
    u->scalars[STEP_GRADIENT_SCALE] = 0.7f;
    u->scalars[STEP_DECAY] = 0.1f;
    u->scalars[STEP_BETA1] = 0.9f;
    u->scalars[STEP_ONE_MINUS_BETA1] = 0.1f;
    u->scalars[STEP_BETA2] = 0.99f;
    u->scalars[STEP_ONE_MINUS_BETA2] = 0.01f;
    u->scalars[STEP_EPSILON] = 1e-6f;
    u->scalars[STEP_CORRECTION1] = (float)(1 / (1 - pow(0.9, t)));
    u->scalars[STEP_CORRECTION2] = (float)(1 / (1 - pow(0.99, t)));
    u->scalars[STEP_MOMENTUM] = 0.8f;
    u->scalars[STEP_APPLY] = 1;
    harness_run(&u->e, &(struct execution){.first_slot = true});
    for (size_t i = 0; i < u->n; i++) {
        double x = g[i] * s(u, STEP_GRADIENT_SCALE), *w = u->wide[0], *m = u->wide[1], *v = u->wide[2];
        double move;
        if (adam) {
            m[i] = s(u, STEP_BETA1) * m[i] + s(u, STEP_ONE_MINUS_BETA1) * x;
            v[i] = s(u, STEP_BETA2) * v[i] + s(u, STEP_ONE_MINUS_BETA2) * x * x;
            move = m[i] * s(u, STEP_CORRECTION1) / (sqrt(v[i] * s(u, STEP_CORRECTION2)) + s(u, STEP_EPSILON));
        } else {
            move = m[i] = s(u, STEP_MOMENTUM) * m[i] + x;
        }
        w[i] -= s(u, STEP_LEARNING_RATE) * (move + s(u, STEP_DECAY) * w[i]);
    }
    free(g);
}

static void update(bool adam)
{
    for (size_t k = 0; k < SIZES; k++) {
        float *first[ARENAS] = {NULL};
        for (size_t d = 0; d < harness_devices; d++) {
            struct update u;
            char what[96];
            open_update(&u, sizes[k], adam, DTYPE_F32, 0, harness_device[d].backend);
            for (int t = 1; t <= (sizes[k] < 5000 ? STEPS : 3); t++) step(&u, t, adam);
            for (int i = 0; i < (adam ? 3 : 2); i++) {
                snprintf(what, sizeof what, "%s of %zu, arena %d, %s, %zu threads", adam ? "adamw" : "sgd", sizes[k], i,
                         harness_device[d].variant, harness_device[d].threads);
                harness_close_to(what, harness_error_f32(u.arena[i], u.wide[i], u.n, 0), TOLERANCE_OPTIMIZER);
                if (harness_device[d].threads == 1) {
                    free(first[i]);
                    first[i] = malloc(u.n * sizeof(float));
                    memcpy(first[i], u.arena[i], u.n * sizeof(float));
                }
                if (memcmp(first[i], u.arena[i], u.n * sizeof(float)))
                    fail_msg("%s: other bits than with 1 thread", what);
            }
            close_update(&u);
        }
        for (int i = 0; i < ARENAS; i++) free(first[i]);
    }
}

static void adamw(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    update(true);
}

static void sgd(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    update(false);
}

/* ---- moments in bf16 ---- */

enum { SEED = 77, STEP = 12 };
static const size_t narrow_first = 3 * 1024 + 2,
                    narrow_far = ((size_t)1 << 34) - 1501; /* from index 2^34 on, the noise has another sample */

/* Runs one update of elements first .. first + n of an arena whose values depend on the index alone. Betas are a half
 * and gradients have twelve bits, so each moment is one sum rounded to f32, and the stored bits are known. */
static void narrow_update(uint16_t *moment1, uint16_t *moment2, size_t first, size_t n, bool adam,
                          struct backend *backend)
{
    struct update u;
    struct noise_key key = noise_key(SEED, noise_purpose("optimizer.moments"), STEP);
    open_update(&u, n, adam, DTYPE_BF16, first, backend);
    uint16_t *m = (uint16_t *)u.arena[1], *v = (uint16_t *)u.arena[2];
    for (size_t i = 0; i < n; i++) {
        u.gradient[i] = (float)((int)(mix64(first + i) % 8191) - 4095) / 1024.0f;
        m[i] = bf16_nearest((float)((double)(mix64(9 * (first + i)) % 1000) / 300 - 1.5));
        v[i] = bf16_nearest((float)(mix64(7 * (first + i)) % 1000) / 250.0f);
        u.wide[1][i] = 0.5 * (double)bf16_widen(m[i]) + (adam ? 0.25 : 0.5) * (double)u.gradient[i];
        u.wide[2][i] = 0.5 * (double)bf16_widen(v[i]) + 0.125 * pow((double)u.gradient[i], 2);
    }
    memcpy(u.scalars,
           (float[STEP_SCALARS]){[STEP_LEARNING_RATE] = 0.01f,
                                 [STEP_GRADIENT_SCALE] = 0.5f,
                                 [STEP_BETA1] = 0.5f,
                                 [STEP_ONE_MINUS_BETA1] = 0.5f,
                                 [STEP_BETA2] = 0.5f,
                                 [STEP_ONE_MINUS_BETA2] = 0.5f,
                                 [STEP_EPSILON] = 1e-6f,
                                 [STEP_CORRECTION1] = 2,
                                 [STEP_CORRECTION2] = 2,
                                 [STEP_MOMENTUM] = 0.5f,
                                 [STEP_APPLY] = 1},
           sizeof u.scalars);
    harness_run(&u.e, &(struct execution){.first_slot = true, .seed = SEED, .step = STEP});
    for (size_t i = 0; i < n; i++) {
        uint32_t word = noise_bits(key, (first + i) >> 34, 0, first + i);
        assert_int_equal(m[i], bf16_stochastic((float)u.wide[1][i], word));
        if (adam) assert_int_equal(v[i], bf16_stochastic((float)u.wide[2][i], word >> 16));
    }
    memcpy(moment1, m, n * sizeof *m);
    memcpy(moment2, v, n * sizeof *v);
    close_update(&u);
}

/* The noise is per element, so any instruction set, number of threads and division of the arena give the same bits. */
static void narrow_moments(void **state)
{
    enum { N = 70001 };
    (void)state;
    if (!harness_on_host()) skip();
    uint16_t *whole = calloc(2 * N, sizeof *whole), *cut = calloc(2 * N, sizeof *cut);
    for (int adam = 0; adam < 2; adam++)
        for (size_t d = 0; d < harness_devices; d++) {
            struct backend *backend = harness_device[d].backend;
            narrow_update(whole, whole + N, narrow_first, N, adam, backend);
            for (size_t at = 0, n; at < N; at += n) {
                n = at == 0 ? 1 : at == 1 ? 1021 : N - at < 32770 ? N - at : 32770;
                narrow_update(cut + at, cut + N + at, narrow_first + at, n, adam, backend);
            }
            assert_memory_equal(whole, cut, 2 * N * sizeof *whole);
            narrow_update(whole, whole + N, narrow_far, 3000, adam, backend);
        }
    free(whole);
    free(cut);
}

/* ---- squared norm ---- */

static void norm_of(float record[NORM_RECORD], const float *x, size_t n, struct backend *backend)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{0}};
    assert_int_equal(graph_create(&g, "norm", NULL, &capacities, &error), ELBO_OK);
    value v = graph_input(g, "gradient", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, n}}), r = op_squared_norm(g, v);
    graph_keep(g, r);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    e.inputs[graph_value(g, v)->binding] = x;
    harness_run(&e, &(struct execution){.first_slot = true});
    memcpy(record, executor_pointer(&e, r), NORM_RECORD * sizeof *record);
    free(arena);
    executor_free(&e);
    graph_free(g);
}

static void squared_norm(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    for (size_t k = 0; k < SIZES; k++) {
        size_t n = sizes[k];
        double *wide = malloc(n * sizeof *wide);
        float *x = malloc(n * sizeof *x), first[NORM_RECORD] = {0};
        harness_normal(wide, n, 0.2, 1, k);
        for (size_t i = 0; i < n; i++) x[i] = (float)wide[i];
        for (size_t d = 0; d < harness_devices; d++) {
            float record[NORM_RECORD];
            double norm = pow(harness_norm(wide, n), 2);
            norm_of(record, x, n, harness_device[d].backend);
            harness_close_to("squared norm", harness_error_f32(record, &norm, 1, 0), TOLERANCE_FORWARD);
            assert_true(record[NORM_NOT_FINITE] == 0);
            if (harness_device[d].threads == 1) memcpy(first, record, sizeof first);
            assert_memory_equal(first, record, sizeof first);
        }
        free(wide);
        free(x);
    }
}

/* Sums in pieces of whole blocks, with the sums in another order; the bits must be those of one sum. */
static void pieces_of(float record[NORM_RECORD], const float *x, size_t n, struct backend *backend)
{
    enum { PIECES = 3, MOST = 128 };
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{0}};
    size_t all = (n + SQUARES_BLOCK - 1) / SQUARES_BLOCK, place = 0;
    double sums[MOST];
    int32_t at[MOST];
    const void *data[2 * PIECES + 2] = {[0] = sums, [1] = at};
    assert_true(all <= MOST);
    assert_int_equal(graph_create(&g, "norm", NULL, &capacities, &error), ELBO_OK);
    value whole = graph_input(g, "sums", DTYPE_U64, 1, (struct dim[]){{DIM_FIXED, all}});
    value places = graph_input(g, "at", DTYPE_I32, 1, (struct dim[]){{DIM_FIXED, all}}),
          in[2 * PIECES + 2] = {whole, places};
    for (size_t k = PIECES; k-- > 0;) { /* last piece first */
        size_t begin = all * k / PIECES, end = all * (k + 1) / PIECES,
               last = end * SQUARES_BLOCK < n ? end * SQUARES_BLOCK : n;
        char name[32];
        if (begin == end) continue;
        snprintf(name, sizeof name, "piece.%zu", k);
        in[2 + 2 * k] = graph_input(g, name, DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, last - begin * SQUARES_BLOCK}});
        snprintf(name, sizeof name, "sums.%zu", k);
        in[3 + 2 * k] = graph_input(g, name, DTYPE_U64, 1, (struct dim[]){{DIM_FIXED, end - begin}});
        data[2 + 2 * k] = x + begin * SQUARES_BLOCK;
        data[3 + 2 * k] = sums + place;
        op_block_squares(g, in[3 + 2 * k], in[2 + 2 * k]);
        for (size_t b = begin; b < end; b++) at[b] = (int32_t)place++;
    }
    value r = op_combined_norm(g, whole, places);
    graph_keep(g, r);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    for (size_t i = 0; i < 2 * PIECES + 2; i++)
        if (data[i]) e.inputs[graph_value(g, in[i])->binding] = data[i];
    harness_run(&e, &(struct execution){.first_slot = true});
    memcpy(record, executor_pointer(&e, r), NORM_RECORD * sizeof *record);
    free(arena);
    executor_free(&e);
    graph_free(g);
}

static void norm_in_pieces(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    static const size_t lengths[] = {1, 1024, 1025, 3 * 1024, 40 * 1024 + 5, 100 * 1024};
    double *wide = malloc(100 * 1024 * sizeof *wide);
    float *x = malloc(100 * 1024 * sizeof *x), whole[NORM_RECORD], pieces[NORM_RECORD];
    harness_normal(wide, 100 * 1024, 0.2, 1, 3);
    for (int bad = 0; bad < 2; bad++)
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
            for (size_t d = 0; d < harness_devices; d++) {
                for (size_t i = 0; i < lengths[k]; i++) x[i] = (float)wide[i];
                if (bad) x[lengths[k] / 2] = NAN;
                norm_of(whole, x, lengths[k], harness_device[d].backend);
                pieces_of(pieces, x, lengths[k], harness_device[d].backend);
                assert_true(pieces[NORM_NOT_FINITE] == whole[NORM_NOT_FINITE] && pieces[NORM_NOT_FINITE] == (float)bad);
                if (!bad) assert_memory_equal(whole, pieces, sizeof whole);
            }
    free(wide);
    free(x);
}

/* Finds one value that is not finite at any place. The square of a large finite value raises no false alarm. */
static void squared_norm_finds_what_is_not_finite(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    static const size_t n = 5000, places[] = {0, 1, 1023, 1024, 4095, 4096, 4999};
    const float bad[] = {INFINITY, -INFINITY, NAN};
    float *x = malloc(n * sizeof *x), record[NORM_RECORD];
    for (size_t d = 0; d < harness_devices; d++) {
        for (size_t p = 0; p < sizeof places / sizeof *places; p++)
            for (size_t b = 0; b < 3; b++) {
                for (size_t i = 0; i < n; i++) x[i] = 0.5f;
                x[places[p]] = bad[b];
                norm_of(record, x, n, harness_device[d].backend);
                assert_true(record[NORM_NOT_FINITE] > 0);
            }
        x[4999] = x[0] = 3e38f;
        x[4096] = x[1] = 0.5f;
        norm_of(record, x, n, harness_device[d].backend);
        assert_true(record[NORM_NOT_FINITE] == 0);
    }
    free(x);
}

/* ---- the guard, and a selection by its decision ---- */

enum { GUARDED = 3 };

struct guarded {
    float rows[2][GUARDED][STEP_SCALARS], scalars[GUARDED][STEP_SCALARS], settings[GUARD_SETTINGS],
        control[CONTROL_SIZE];
    float loss[ELBO_PARTS], gradient[2][2000], picked[GUARDED * STEP_SCALARS];
};

/* Runs a graph of two norms, the guard, and a selection by the guard's decision. */
static void run_guard(struct guarded *d, struct backend *backend)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{0}};
    enum { K = GUARDED * STEP_SCALARS };
    const size_t n = sizeof d->gradient[0] / sizeof(float);
    assert_int_equal(graph_create(&g, "guard", NULL, &capacities, &error), ELBO_OK);
    struct dim vector[] = {{DIM_FIXED, n}}, record[] = {{DIM_FIXED, CONTROL_SIZE}}, parts[] = {{DIM_FIXED, ELBO_PARTS}};
    struct dim settings[] = {{DIM_FIXED, GUARD_SETTINGS}}, rows[] = {{DIM_FIXED, 2}, {DIM_FIXED, K}};
    struct dim scalars[] = {{DIM_FIXED, GUARDED}, {DIM_FIXED, STEP_SCALARS}};
    value in[] = {graph_input(g, "scalars", DTYPE_F32, 2, scalars),   graph_input(g, "control", DTYPE_F32, 1, record),
                  graph_input(g, "loss", DTYPE_F32, 1, parts),        graph_input(g, "rows", DTYPE_F32, 2, rows),
                  graph_input(g, "settings", DTYPE_F32, 1, settings), graph_input(g, "a", DTYPE_F32, 1, vector),
                  graph_input(g, "b", DTYPE_F32, 1, vector)};
    const void *data[] = {d->scalars, d->control, d->loss, d->rows, d->settings, d->gradient[0], d->gradient[1]};
    value norms[] = {op_squared_norm(g, in[5]), op_squared_norm(g, in[6])};
    op_guard(g, in[0], in[1], norms, 2, in[2], in[3], in[4]);
    value picked = op_select_row(g, in[3], in[1], NO_VALUE);
    graph_keep(g, picked);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) e.inputs[graph_value(g, in[i])->binding] = data[i];
    harness_run(&e, &(struct execution){.first_slot = true});
    memcpy(d->picked, executor_pointer(&e, picked), sizeof d->picked);
    free(arena);
    executor_free(&e);
    graph_free(g);
}

static void try_guard(float before, float clip, float skip, float loss, float planted)
{
    for (size_t at = 0; at < harness_devices; at++) {
        struct guarded d = {
            .settings = {[GUARD_CLIP] = clip, [GUARD_SKIP] = skip}, .control = {before}, .loss = {loss}};
        double sum = 0, wide[2000];
        for (int k = 0; k < 2; k++) {
            harness_normal(wide, 2000, 0, 1, 70 + (uint64_t)k);
            for (int i = 0; i < 2000; i++) sum += pow((double)(d.gradient[k][i] = (float)wide[i]), 2);
            for (int i = 0; i < GUARDED; i++)
                for (int j = 0; j < STEP_SCALARS; j++) d.rows[k][i][j] = (float)(100 * k + 10 * i + j + 1);
        }
        if (planted != 0) d.gradient[1][1999] = planted;
        run_guard(&d, harness_device[at].backend);
        double norm = sqrt(sum), scale = clip > 0 && norm > clip ? clip / norm : 1;
        bool finite = isfinite(loss) && planted == 0, applied = finite && skip == 0;
        assert_true(d.control[CONTROL_APPLIED] == applied);
        assert_true(d.control[CONTROL_FINITE] == finite);
        if (planted == 0)
            harness_close_to("the norm", fabs((double)d.control[CONTROL_NORM] - norm) / norm, TOLERANCE_OPTIMIZER);
        else
            assert_false(isfinite(d.control[CONTROL_NORM]));
        for (int i = 0; i < GUARDED; i++)
            for (int j = 0; j < STEP_SCALARS; j++) {
                float row = d.rows[before != 0][i][j];
                if (j == STEP_APPLY)
                    assert_true(d.scalars[i][j] == applied);
                else if (j != STEP_GRADIENT_SCALE)
                    assert_true(d.scalars[i][j] == row);
                else if (planted == 0)
                    harness_close_to("the gradient's scale", fabs((double)d.scalars[i][j] - row * scale) / row,
                                     TOLERANCE_OPTIMIZER);
            }
        assert_memory_equal(d.picked, d.rows[applied], sizeof d.picked);
    }
}

static void guard(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    for (int before = 0; before < 2; before++) {
        try_guard((float)before, 0, 0, 3, 0);
        try_guard((float)before, 1e6f, 0, -2, 0);
        try_guard((float)before, 1, 0, 0, 0);
        try_guard((float)before, 5, 1, 1, 0);
        try_guard((float)before, 5, 0, NAN, 0);
        try_guard((float)before, 5, 0, INFINITY, 0);
        try_guard((float)before, 5, 0, 1, NAN);
        try_guard((float)before, 0, 1, 1, -INFINITY);
    }
}

/* ---- a controller, and the scales of a selection ---- */

struct controlled {
    float state[CONTROLLER_STATE], scales[3], figures[ELBO_PARTS], control[CONTROL_SIZE], settings[CONTROLLER_SETTINGS];
    float rows[2][3], picked[3];
};

/* Runs a step of the controller of weight 1 by the KL, then a selection by the scales that the step leaves. */
static void run_controller(struct controlled *d, enum controller_rule rule, struct backend *backend)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{0}};
    assert_int_equal(graph_create(&g, "controller", NULL, &capacities, &error), ELBO_OK);
    const struct {
        const char *name;
        size_t floats;
        const float *data;
    } inputs[] = {{"state", CONTROLLER_STATE, d->state},
                  {"scales", 3, d->scales},
                  {"figures", ELBO_PARTS, d->figures},
                  {"control", CONTROL_SIZE, d->control},
                  {"settings", CONTROLLER_SETTINGS, d->settings}};
    value in[5], rows = graph_input(g, "rows", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 2}, {DIM_FIXED, 3}});
    for (size_t i = 0; i < 5; i++)
        in[i] = graph_input(g, inputs[i].name, DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, inputs[i].floats}});
    op_controller(g, in[0], in[1], in[2], in[3], in[4], rule, ELBO_KL, 1);
    value picked = op_select_row(g, rows, in[3], in[1]);
    graph_keep(g, picked);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    void *arena = harness_memory(e.plan.bytes);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    for (size_t i = 0; i < 5; i++) e.inputs[graph_value(g, in[i])->binding] = inputs[i].data;
    e.inputs[graph_value(g, rows)->binding] = d->rows;
    harness_run(&e, &(struct execution){.first_slot = true});
    memcpy(d->picked, executor_pointer(&e, picked), sizeof d->picked);
    free(arena);
    executor_free(&e);
    graph_free(g);
}

/* The KL is 10 (1 - beta). The controller brings the KL to its target and holds it there. A target out of reach leaves
 * the integral at the bound, and the next error within reach brings it back at once. */
static void pi_controller(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    for (size_t at = 0; at < harness_devices; at++) {
        struct controlled d = {.scales = {1, 0, 1}, .control = {1, 0, 1}, .rows = {{9, 9, 9}, {2, 0.5f, 3}}};
        const float set[] = {4, 0.01f, 0.01f, 0, 1, 8};
        memcpy(d.settings, set, sizeof set);
        double sum = 0, beta = 0;
        for (int step = 0; step < 400; step++) {
            float before = d.state[CONTROLLER_WEIGHT];
            d.settings[CONTROLLER_TARGET] = step < 200   ? 4
                                            : step < 300 ? -50
                                                         : 4; /* the second target is out of reach */
            d.figures[ELBO_KL] = (float)(8 * 10 * (1 - beta));
            double e = (double)d.settings[CONTROLLER_TARGET] - d.figures[ELBO_KL] / 8.0;
            double rest = 0.01f / (1 + exp(e)), next = sum - 0.01f * e;
            if (e < 0 && rest + next > 1) next = fmax(sum, 1 - rest);
            if (e > 0 && rest + next < 0) next = fmin(sum, 0 - rest);
            sum = next;
            beta = fmin(fmax(rest + sum, 0), 1);
            run_controller(&d, CONTROLLER_PI, harness_device[at].backend);
            assert_true(d.state[CONTROLLER_USED] == before);
            harness_close_to("beta", fabs(d.state[CONTROLLER_WEIGHT] - beta), 1e-5);
            harness_close_to("its sum", fabs(d.state[CONTROLLER_SUM] - sum), 1e-5);
            assert_true(d.scales[1] == d.state[CONTROLLER_WEIGHT] && d.scales[0] == 1 && d.scales[2] == 1);
            assert_true(d.picked[0] == 2 && d.picked[1] == 0.5f * d.scales[1] && d.picked[2] == 3);
            beta = d.state[CONTROLLER_WEIGHT], sum = d.state[CONTROLLER_SUM];
            if (step == 199 || step == 399) harness_close_to("the KL", fabs(10 * (1 - beta) - 4) / 4, 0.01);
            if (step == 299) assert_true(beta == 1 && sum <= 1); /* without the bound it would be 60 */
        }
        struct controlled left = d;
        left.control[CONTROL_APPLIED] = 0; /* an update that is not applied moves nothing */
        run_controller(&left, CONTROLLER_PI, harness_device[at].backend);
        assert_true(left.state[CONTROLLER_USED] == d.state[CONTROLLER_WEIGHT]);
        assert_true(left.state[CONTROLLER_WEIGHT] == d.state[CONTROLLER_WEIGHT]);
        assert_true(left.state[CONTROLLER_SUM] == d.state[CONTROLLER_SUM] && left.scales[1] == d.scales[1]);
    }
}

/* Checks the multiplier's steps, and the rate that it demands of a KL of 6 - 4 weight. */
static void multiplier(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    for (size_t at = 0; at < harness_devices; at++) {
        struct controlled d = {.state = {0, 0, 0.541324854f}, .scales = {1, 0, 1}, .control = {1, 0, 1}};
        const float set[] = {5, 0, 0.05f, 0, 0, 8};
        memcpy(d.settings, set, sizeof set);
        for (int step = 0; step < 600; step++) {
            double v = d.state[CONTROLLER_SUM], kl = 6 - 4 * (double)d.state[CONTROLLER_WEIGHT];
            d.figures[ELBO_KL] = (float)(8 * kl);
            run_controller(&d, CONTROLLER_MULTIPLIER, harness_device[at].backend);
            v += 0.05f * (5 - d.figures[ELBO_KL] / 8.0) / (1 + exp(-v));
            harness_close_to("the multiplier", fabs(d.state[CONTROLLER_SUM] - v), 1e-6);
            harness_close_to("its weight", fabs(d.state[CONTROLLER_WEIGHT] - (1 - log(1 + exp(v)))), 1e-6);
        }
        harness_close_to("the KL", fabs(6 - 4 * (double)d.state[CONTROLLER_WEIGHT] - 5) / 5, 0.01);
    }
}

HARNESS_MAIN(FAMILY_OPTIMIZER, cmocka_unit_test(pi_controller), cmocka_unit_test(multiplier), cmocka_unit_test(adamw),
             cmocka_unit_test(sgd), cmocka_unit_test(narrow_moments), cmocka_unit_test(squared_norm),
             cmocka_unit_test(norm_in_pieces), cmocka_unit_test(guard),
             cmocka_unit_test(squared_norm_finds_what_is_not_finite))
