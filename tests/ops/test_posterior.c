/* posterior: the maps of delta-VAEs and of slashed normals against published values and against their exact KL, and the
 * floored variances of DU-VAEs with dropout by addressed noise. normalize: batch normalization, and exact rates of
 * rows, of all rows and of dimensions, by statistics of the batch and by running statistics. running: one step of the
 * statistics. */
#include "ops/harness.h"
#include "base/philox.h"
#include "ops/posterior.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- maps ---- */

enum { MAP, SWITCH }; /* SWITCH: 0 none, 1 on, 2 off */

static value switches(struct graph *g, const struct trial *t)
{
    return t->option[SWITCH] ? harness_input(g, "weights") : NO_VALUE;
}

static void record_map(struct graph *g, const struct trial *t, const value *in, value *out)
{
    value sample = t->real[1] > 0 ? harness_input(g, "sample") : NO_VALUE;
    out[0] = op_posterior(g, in[0], (enum posterior_map)t->option[MAP], t->real[0], t->real[1], sample, switches(g, t),
                          ELBO_WEIGHT_KL);
}

/* Returns stdplus(x), the y with log y^2 - y^2 = -x^2 - 1 on the side of x, by bisection. */
static double stdplus(double x)
{
    double low = x < 0 ? 0 : 1, high = x < 0 ? 1 : 2 + fabs(x);
    for (int i = 0; i < 200; i++) {
        double y = (low + high) / 2, f = 2 * log(y) - y * y + x * x + 1; /* rises below 1, falls above */
        if ((f < 0) == (x < 0))
            low = y;
        else
            high = y;
    }
    return (low + high) / 2;
}

static bool drops(const struct trial *t, size_t s, size_t j)
{
    struct noise_key key = noise_key(HARNESS_SEED, noise_purpose(HARNESS_SCOPE ".dropout"), HARNESS_STEP);
    if (!(t->real[1] > 0) || t->option[SWITCH] == 2) return false;
    return noise_bits(key, t->batch->sample[s], HARNESS_DRAW, j) < (uint32_t)(t->real[1] * 0x1p32);
}

static void map_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t z = t->in[0].width / 2;
    double bounds[2] = {0, 0};
    if (t->option[MAP] == POSTERIOR_DELTA) posterior_bounds(bounds, t->real[0]);
    for (size_t i = 0; i < t->batch->sentences * z; i++) {
        size_t s = i / z, j = i % z, at = s * 2 * z + j;
        double a = in[0][at], b = in[0][at + z], *mu = &out[0][at], *logvar = &out[0][at + z];
        if (t->option[MAP] == POSTERIOR_DELTA) {
            double sigma = bounds[0] + (bounds[1] - bounds[0]) / (1 + exp(-b));
            *logvar = 2 * log(sigma);
            *mu = sqrt(2 * t->real[0] + 1 + *logvar - sigma * sigma + fmax(0, a));
        } else if (t->option[MAP] == POSTERIOR_SLASHED) {
            *mu = sqrt(2) * a;
            *logvar = 2 * log(stdplus(sqrt(2) * b));
        } else {
            double p = t->option[SWITCH] == 2 ? 0 : t->real[1];
            *mu = a;
            *logvar = log(t->real[0] + (drops(t, s, j) ? 0 : exp(b) / (1 - p)));
        }
    }
}

static const size_t shapes[][2] = {{1, 1},  {1, 2},  {2, 4},   {3, 5},  {5, 7},
                                   {15, 8}, {17, 3}, {33, 17}, {2, 64}, {64, 11}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void maps(void **state)
{
    static const struct {
        long map, how;
        double real, p, mean, deviation;
    } cases[] = {{POSTERIOR_DELTA, 0, 0.15, 0, 0.3, 1.5},     {POSTERIOR_DELTA, 0, 0.05, 0, -0.5, 1},
                 {POSTERIOR_DELTA, 0, 2, 0, 0.2, 3},          {POSTERIOR_SLASHED, 0, 0, 0, 0, 1},
                 {POSTERIOR_SLASHED, 0, 0, 0, -2, 1.5},       {POSTERIOR_FLOOR, 0, 0.0585498, 0, -1, 1},
                 {POSTERIOR_FLOOR, 0, 0.0585498, 0.3, -1, 1}, {POSTERIOR_FLOOR, 1, 0.1, 0.5, -1, 1},
                 {POSTERIOR_FLOOR, 2, 0.1, 0.5, -1, 1}};
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (size_t i = 0; i < SHAPES; i++) {
            char name[64];
            struct batch *b = batch_rows(0);
            b->sentences = shapes[i][0];
            for (size_t s = 0; s < b->sentences; s++) b->sample[s] = 0xfffffffcu + 3 * s;
            if (cases[k].how == 2) b->weights[ELBO_WEIGHT_KL] = 0;
            snprintf(name, sizeof name, "posterior case %zu, %zu x %zu", k, shapes[i][0], shapes[i][1]);
            struct trial t = {.name = name,
                              .batch = b,
                              .tail = i % 3 * 20,
                              .inputs = 1,
                              .option = {cases[k].map, cases[k].how},
                              .real = {cases[k].real, cases[k].p},
                              .record = record_map,
                              .reference = map_reference};
            t.in[0] =
                (struct operand){DIM_SENTENCES, b->sentences, 2 * shapes[i][1], cases[k].mean, cases[k].deviation};
            harness_try(&t);
            free(b);
        }
}

/* Computes stats (S, 2Z) of a head's rows on a device. */
static void run_map(const struct device *d, enum posterior_map map, double real, const float *head, float *stats,
                    size_t sentences, size_t z)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{[DIM_SENTENCES] = sentences}};
    assert_int_equal(graph_create(&g, "map", NULL, &capacities, &error), ELBO_OK);
    value in = graph_input(g, "head", DTYPE_F32, 2, (struct dim[]){{DIM_SENTENCES, 0}, {DIM_FIXED, 2 * z}});
    value out = op_posterior(g, in, map, real, 0, NO_VALUE, NO_VALUE, 0);
    graph_keep(g, out);
    assert_int_equal(executor_create(&e, g, d->backend, &error), ELBO_OK);
    char *arena = device_memory(d, e.plan.bytes, NULL);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    e.inputs[graph_value(g, in)->binding] = head;
    harness_run(&e, &(struct execution){.first_slot = true, .count = {[DIM_SENTENCES] = sentences}});
    device_read(d, stats, executor_pointer(&e, out), sentences * 2 * z * sizeof *stats);
    device_release(d, arena);
    executor_free(&e);
    graph_free(g);
}

static double kl_of(double mu, double logvar)
{
    return (mu * mu + exp(logvar) - 1 - logvar) / 2;
}

/* Checks known values of stdplus. Then checks the equation itself and the KL a^2 + b^2 far from 0 on both sides, across
 * the edge of the approximant, and at 0. */
static void slashed_values(void **state)
{
    static const double x[] = {-2, -1, -.5, .5, 1, 2},
                        y[] = {.0823639, .3982390, .6699120, 1.3721205, 1.7737512, 2.6337895};
    static const double more[] = {0,       1e-20, -1e-20, 1e-6, -1e-6, 0.001, -0.001, 0.0282, -0.0282, 0.0283,
                                  -0.0283, 0.02,  -0.02,  3,    -3,    8,     -8,     0.3,    -0.3,    1.5};
    enum { MORE = sizeof more / sizeof *more };
    (void)state;
    for (size_t k = 0; k < 6; k++) assert_true(fabs(stdplus(x[k]) - y[k]) < 1e-6);
    for (size_t d = 0; d < harness_devices; d++) {
        float head[2 * (6 + MORE)], stats[2 * (6 + MORE)];
        for (size_t k = 0; k < 6 + MORE; k++) {
            head[2 * k] = 0.25f;
            head[2 * k + 1] = (float)(k < 6 ? x[k] / sqrt(2) : more[k - 6]);
        }
        run_map(&harness_device[d], POSTERIOR_SLASHED, 0, head, stats, 6 + MORE, 1);
        for (size_t k = 0; k < 6 + MORE; k++) {
            double mu = (double)stats[2 * k], logvar = (double)stats[2 * k + 1], b = (double)head[2 * k + 1];
            if (k < 6) assert_true(fabs(exp(logvar / 2) - y[k]) < 1e-6);
            double given = 0.0625 + b * b;
            harness_close_to("a slashed KL", fabs(kl_of(mu, logvar) - given) / given, 5e-7);
            if (k >= 6 && fabs(b) > 1e-19 && fabs(b) < 1e-5) /* log y = x / sqrt 2 - x^2 / 6 */
                harness_close_to("near 0", fabs(logvar - 2 * (b - b * b / 3)) / fabs(b), 2e-7);
            assert_true((logvar > 0) == (b > 0) || b == 0);
        }
    }
}

/* Checks known bounds of sigma, and the KL delta + max(0, m) / 2 for any b. */
static void committed_values(void **state)
{
    static const struct {
        double delta, least, most;
    } known[] = {{.15, .641181, 1.409343}, {.05, .785377, 1.231349}};
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        double bounds[2];
        posterior_bounds(bounds, known[k].delta);
        assert_true(fabs(bounds[0] - known[k].least) < 1e-6 && fabs(bounds[1] - known[k].most) < 1e-6);
        for (size_t d = 0; d < harness_devices; d++) {
            enum { PAIRS = 15 * 6 };
            static const float m[] = {-3, -0.5f, 0, 0.2f, 2, 30};
            float head[2 * PAIRS], stats[2 * PAIRS];
            for (size_t i = 0; i < PAIRS; i++) {
                head[2 * i] = m[i % 6];
                head[2 * i + 1] = (float)((double)(i / 6) * 2 - 14);
            }
            run_map(&harness_device[d], POSTERIOR_DELTA, known[k].delta, head, stats, PAIRS, 1);
            for (size_t i = 0; i < PAIRS; i++) {
                double kl = kl_of((double)stats[2 * i], (double)stats[2 * i + 1]);
                double given = known[k].delta + fmax(0, (double)head[2 * i]) / 2;
                harness_close_to("a committed KL", fabs(kl - given) / given, 1e-6);
            }
        }
    }
}

/* A variance of alpha / (2 pi e) with mu = 0 has a KL of .948213 nats. */
static void floored_values(void **state)
{
    (void)state;
    double floor = 1 / (2 * M_PI * M_E);
    assert_true(fabs(floor - .0585498) < 1e-7 && fabs(kl_of(0, log(floor)) - .948213) < 1e-6);
    for (size_t d = 0; d < harness_devices; d++) {
        const float head[2] = {0, -80};
        float stats[2];
        run_map(&harness_device[d], POSTERIOR_FLOOR, floor, head, stats, 1, 1);
        assert_true(fabs(kl_of((double)stats[0], (double)stats[1]) - .948213) < 1e-6);
    }
}

/* ---- normalization ---- */

enum { HOW, GIVEN, ALONE }; /* GIVEN: 1 a gain, 2 a bias; ALONE: by running statistics */
enum { BY_ROW, BY_SLOT, BY_DIMENSION, CENTERED };

static struct normalization normalization_of(const struct trial *t)
{
    size_t width = t->in[0].width, z = width / 2;
    long how = t->option[HOW];
    return (struct normalization){.scope = how == BY_ROW ? NORMALIZE_ROWS : NORMALIZE_COLUMNS,
                                  .groups = how == BY_ROW || how == BY_SLOT ? 1 : z,
                                  .columns = how == CENTERED ? z : width,
                                  .center = how == CENTERED,
                                  .batch = !t->option[ALONE],
                                  .level = t->real[0],
                                  .epsilon = t->real[1]};
}

static void record_normalize(struct graph *g, const struct trial *t, const value *in, value *out)
{
    struct normalization c = normalization_of(t);
    value running = graph_input_named(g, "running");
    if (!running.index)
        running = graph_input(g, "running", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 2}, {DIM_FIXED, c.groups}});
    struct normalized n =
        op_normalize(g, in[0], c.scope == NORMALIZE_ROWS ? NO_VALUE : running, t->option[GIVEN] & 1 ? in[1] : NO_VALUE,
                     t->option[GIVEN] & 2 ? in[t->option[GIVEN] & 1 ? 2 : 1] : NO_VALUE, &c);
    out[0] = n.y;
}

static void normalize_reference(const struct trial *t, double *const *in, double *const *out)
{
    struct normalization c = normalization_of(t);
    size_t rows = t->in[0].rows, width = t->in[0].width, k_count = c.groups;
    const double *x = in[0];
    memcpy(out[0], x, rows * width * sizeof *x);
    for (size_t k = 0; k < k_count; k++) {
        double gain = t->option[GIVEN] & 1 ? in[1][k] : 1;
        double bias = t->option[GIVEN] & 2 ? in[t->option[GIVEN] & 1 ? 2 : 1][k] : 0;
        double mean = c.center ? (double)t->batch->running[k] : 0, square = (double)t->batch->running[k_count + k];
        bool batch = c.batch && rows > 1;
        if (batch && c.scope == NORMALIZE_COLUMNS) {
            if (c.center) mean = 0;
            for (size_t s = 0; s < rows && c.center; s++) mean += x[s * width + k] / (double)rows;
            square = 0;
            for (size_t s = 0; s < rows; s++)
                for (size_t i = k; i < c.columns; i += k_count)
                    square += pow(x[s * width + i] - mean, 2) / (double)rows;
        }
        for (size_t s = 0; s < rows; s++) {
            if (c.scope == NORMALIZE_ROWS) {
                square = 0;
                for (size_t i = 0; i < c.columns; i++) square += x[s * width + i] * x[s * width + i];
            }
            for (size_t i = k; i < c.columns; i += k_count)
                out[0][s * width + i] = (x[s * width + i] - mean) * c.level * gain / sqrt(square + c.epsilon) + bias;
        }
    }
}

static void normalize(void **state)
{
    (void)state;
    for (long how = BY_ROW; how <= CENTERED; how++)
        for (size_t i = 0; i < SHAPES; i++)
            for (long given = 0; given < 4; given++) {
                char name[96];
                struct batch *b = batch_rows(0);
                b->sentences = shapes[i][0];
                long alone = how != BY_ROW && (given + (long)i) % 3 == 2;
                snprintf(name, sizeof name, "normalize %ld, given %ld%s, %zu x %zu", how, given,
                         alone ? ", running" : "", shapes[i][0], shapes[i][1]);
                struct trial t = {.name = name,
                                  .batch = b,
                                  .tail = i % 3 * 20,
                                  .inputs = 1 + (size_t)(given & 1) + (size_t)(given >> 1),
                                  .option = {how, given, alone},
                                  .real = {2.5, how == BY_ROW && !(given & 1) ? 0 : 1e-3},
                                  .record = record_normalize,
                                  .reference = normalize_reference};
                size_t groups = how == BY_ROW || how == BY_SLOT ? 1 : shapes[i][1];
                t.in[0] = (struct operand){DIM_SENTENCES, b->sentences, 2 * shapes[i][1], 0.4, 1.5};
                t.in[1] = (struct operand){DIM_FIXED, groups, 0, 0.8, 0.3};
                t.in[2] = (struct operand){DIM_FIXED, groups, 0, 0.2, 0.5};
                for (size_t k = 0; k < 2 * groups; k++) b->running[k] = 0.3f + 0.1f * (float)(k % 7);
                harness_try(&t);
                free(b);
            }
}

/* Checks exact rates to six digits: of each row (0 for a row of zeros), of the slot's mean, and of each dimension. By
 * slot and by dimension, also checks the sums for the running statistics. */
static void rates(void **state)
{
    enum { S = 5, Z = 8 };
    (void)state;
    for (size_t d = 0; d < harness_devices; d++)
        for (long how = BY_ROW; how <= BY_DIMENSION; how++) {
            elbo_error error = {0};
            struct graph *g;
            struct executor e;
            struct graph_capacities capacities = {{[DIM_SENTENCES] = S}};
            struct batch *b = batch_rows(0);
            struct trial t = {.batch = b, .option = {how}, .real = {sqrt(how == BY_DIMENSION ? 1.0 : 8.0)}};
            float x[S * 2 * Z], y[S * 2 * Z], sums[2 * Z + 1];
            double wide[S * 2 * Z], each[S] = {0}, dimension[Z] = {0}, whole = 0;
            t.in[0] = (struct operand){DIM_SENTENCES, S, 2 * Z, 0, 1};
            harness_normal(wide, S * 2 * Z, 0.1, 3, 5);
            for (size_t i = 0; i < S * 2 * Z; i++) x[i] = (float)wide[i] * (how == BY_ROW && i / (2 * Z) == 2 ? 0 : 1);
            assert_int_equal(graph_create(&g, "rates", NULL, &capacities, &error), ELBO_OK);
            struct normalization c = normalization_of(&t);
            value in = graph_input(g, "x", DTYPE_F32, 2, (struct dim[]){{DIM_SENTENCES, 0}, {DIM_FIXED, 2 * Z}});
            value running =
                graph_input(g, "running", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 2}, {DIM_FIXED, c.groups}});
            struct normalized n = op_normalize(g, in, how == BY_ROW ? NO_VALUE : running, NO_VALUE, NO_VALUE, &c);
            graph_keep(g, n.y);
            if (n.sums.index) graph_keep(g, n.sums);
            assert_int_equal(executor_create(&e, g, harness_device[d].backend, &error), ELBO_OK);
            char *arena = device_memory(&harness_device[d], e.plan.bytes, NULL);
            assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
            e.inputs[graph_value(g, in)->binding] = x;
            e.inputs[graph_value(g, running)->binding] = b->running;
            harness_run(&e, &(struct execution){.first_slot = true, .count = {[DIM_SENTENCES] = S}});
            device_read(&harness_device[d], y, executor_pointer(&e, n.y), sizeof y);
            for (size_t i = 0; i < S * 2 * Z; i++) {
                double square = (double)y[i] * (double)y[i];
                each[i / (2 * Z)] += square;
                dimension[i % Z] += square / S;
                whole += square / S;
            }
            for (size_t s = 0; s < S && how == BY_ROW; s++)
                harness_close_to("a row's rate", fabs(each[s] / 8 - (s != 2)), 1e-6);
            for (size_t j = 0; j < Z && how == BY_DIMENSION; j++)
                harness_close_to("a dimension's rate", fabs(dimension[j] - 1), 1e-6);
            if (how == BY_SLOT) harness_close_to("the mean rate", fabs(whole / 8 - 1), 1e-6);
            if (how != BY_ROW) {
                double square = 0;
                device_read(&harness_device[d], sums, executor_pointer(&e, n.sums), (2 * c.groups + 1) * sizeof *sums);
                assert_true(sums[0] == S);
                for (size_t i = 0; i < S * 2 * Z; i++)
                    if (how == BY_SLOT || i % Z == 0) square += (double)x[i] * (double)x[i];
                harness_close_to("the sum that runs along", fabs((double)sums[1 + c.groups] / square - 1), 1e-6);
            }
            device_release(&harness_device[d], arena);
            executor_free(&e);
            graph_free(g);
            free(b);
        }
}

/* ---- running statistics ---- */

static void run_running(float *running, float *sums, float *control, bool center, struct backend *backend)
{
    elbo_error error = {0};
    struct graph *g;
    struct executor e;
    struct graph_capacities capacities = {{0}};
    assert_int_equal(graph_create(&g, "running", NULL, &capacities, &error), ELBO_OK);
    value in[] = {graph_input(g, "running", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 2}, {DIM_FIXED, 3}}),
                  graph_input(g, "sums", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 7}}),
                  graph_input(g, "control", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, CONTROL_SIZE}})};
    const void *data[] = {running, sums, control};
    op_running(g, in[0], in[1], in[2], center, 0.25);
    assert_int_equal(executor_create(&e, g, backend, &error), ELBO_OK);
    assert_int_equal(
        executor_bind(&e, harness_memory(e.plan.bytes + 64), (struct weight_arenas){0}, NULL, NULL, &error), ELBO_OK);
    for (size_t i = 0; i < 3; i++) e.inputs[graph_value(g, in[i])->binding] = data[i];
    harness_run(&e, &(struct execution){.first_slot = true});
    free(e.arena);
    executor_free(&e);
    graph_free(g);
}

/* Rows of mean 5 and variance 4 move the running statistics; centered sums are about the old running mean. */
static void running(void **state)
{
    (void)state;
    if (!harness_on_host()) skip();
    for (size_t d = 0; d < harness_devices; d++)
        for (int center = 0; center < 2; center++)
            for (int way = 0; way < 4; way++) { /* 0 applied; 1 not applied; 2 one sentence; 3 no sentence */
                float running[6] = {1, 2, 3, 9, 9, 9}, before[6], control[CONTROL_SIZE] = {way != 1};
                float sums[7] = {way == 2 ? 1.0f : way == 3 ? 0.0f : 10.0f};
                memcpy(before, running, sizeof running);
                for (int k = 0; k < 3; k++) {
                    double around = center ? 5 - (double)running[k] : 5;
                    sums[1 + k] = (float)(10 * around);
                    sums[4 + k] = (float)(10 * (4 + around * around));
                }
                run_running(running, sums, control, center, harness_device[d].backend);
                for (int k = 0; k < 3; k++) {
                    double mean = way ? before[k] : center ? before[k] + 0.25 * (5 - before[k]) : before[k];
                    double square = way ? 9 : 0.75 * 9 + 0.25 * (center ? 4 : 29);
                    harness_close_to("a running mean", fabs(running[k] - mean), 1e-6);
                    harness_close_to("a running square", fabs(running[3 + k] - square), 1e-5);
                }
            }
}

HARNESS_MAIN(FAMILY_POSTERIOR, cmocka_unit_test(maps), cmocka_unit_test(slashed_values),
             cmocka_unit_test(committed_values), cmocka_unit_test(floored_values), cmocka_unit_test(normalize),
             cmocka_unit_test(rates), cmocka_unit_test(running))
