/* Tests differentiation of whole graphs: random graphs against finite differences in double, values that are used
 * several times, tied tables, gradients that cannot be added in place, pruning by group, and recomputation with the
 * same bits. */
#include "ops/harness.h"
#include "base/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- random graphs of ROWS x WIDTH values; each step makes one or two from earlier ones ---- */

enum { ROWS = 3, SPARE = 2, WIDTH = 8, MOST_STEPS = 10, MOST_VALUES = 2 * MOST_STEPS + 1, GRAPHS = 150, LOSSES = 3 };
enum kind { ADD, GELU_OF, LINEAR, LINEAR_GELU, LAYER_NORM, RMS_NORM, KINDS };
enum { X, WEIGHT0, WEIGHT1, BIAS0, BIAS1, GAMMA, BETA, PARAMETERS };

struct step {
    enum kind kind;
    size_t a, b, p; /* values that are read; index of the weight */
    int block;
    bool residual;
};

struct program {
    struct step step[MOST_STEPS];
    size_t steps, loss[LOSSES];
    bool apart;
    double *weights[PARAMETERS], coefficient[LOSSES][ROWS * WIDTH];
};

static const struct parameter descriptions[PARAMETERS] = {
    [X] = {.name = "x", .rank = 2, .shape = {ROWS + SPARE, WIDTH}, .part = PART_ENCODER, .decay = true},
    [WEIGHT0] = {.name = "w0", .rank = 2, .shape = {WIDTH, WIDTH}, .part = PART_LATENT, .decay = true},
    [WEIGHT1] = {.name = "w1", .rank = 2, .shape = {WIDTH, WIDTH}, .part = PART_DECODER, .decay = true},
    [BIAS0] = {.name = "b0", .rank = 1, .shape = {WIDTH}, .part = PART_LATENT},
    [BIAS1] = {.name = "b1", .rank = 1, .shape = {WIDTH}, .part = PART_DECODER},
    [GAMMA] = {.name = "gamma", .rank = 1, .shape = {WIDTH}, .part = PART_DECODER},
    [BETA] = {.name = "beta", .rank = 1, .shape = {WIDTH}, .part = PART_ENCODER},
};

static size_t elements(size_t p)
{
    return p == X ? ROWS * WIDTH : descriptions[p].rank == 2 ? WIDTH * WIDTH : WIDTH;
}

static size_t pick(uint64_t *state, size_t n)
{
    *state = mix64(*state);
    return (size_t)(*state >> 33) % n;
}

static size_t results(const struct step *s)
{
    return s->kind == LAYER_NORM || s->kind == RMS_NORM ? 1 + s->residual : 1;
}

static void make(struct program *p, uint64_t seed)
{
    uint64_t state = seed;
    size_t values = 1;
    int block = -1, next = 0;
    *p = (struct program){.steps = 3 + pick(&state, MOST_STEPS - 2), .apart = pick(&state, 2)};
    for (size_t i = 0; i < p->steps; i++) {
        if (pick(&state, 3) == 0) block = pick(&state, 4) ? next++ : -1;
        /* Prefers recent values, so that graphs are deep and still branch. */
        p->step[i] = (struct step){.kind = (enum kind)pick(&state, KINDS), .p = pick(&state, 2), .block = block};
        p->step[i].a = pick(&state, 2) ? values - 1 : pick(&state, values);
        p->step[i].b = pick(&state, values);
        p->step[i].residual = pick(&state, 2);
        values += results(&p->step[i]);
    }
    for (size_t l = 0; l < LOSSES; l++) {
        p->loss[l] = l ? pick(&state, values) : values - 1;
        harness_normal(p->coefficient[l], ROWS * WIDTH, 0, 1, seed * 10 + l);
    }
    for (size_t k = 0; k < PARAMETERS; k++) {
        p->weights[k] = calloc(elements(k), sizeof(double));
        double deviation = k == WEIGHT0 || k == WEIGHT1 ? 0.4 : k == X ? 1 : 0.3;
        harness_normal(p->weights[k], elements(k), k == GAMMA, deviation, seed * 100 + k);
    }
}

static void unmake(struct program *p)
{
    for (size_t k = 0; k < PARAMETERS; k++) free(p->weights[k]);
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/* Evaluates the program in double. */
static double evaluate(const struct program *p)
{
    static double v[MOST_VALUES][ROWS][WIDTH];
    size_t values = 1;
    memcpy(v[0], p->weights[X], sizeof v[0]);
    for (size_t i = 0; i < p->steps; i++) {
        const struct step *s = &p->step[i];
        for (size_t n = 0; n < ROWS; n++) {
            const double *a = v[s->a][n], *b = v[s->b][n];
            double *y = v[values][n], sum[WIDTH], mean = 0, square = 0;
            bool norm = s->kind == LAYER_NORM || s->kind == RMS_NORM;
            for (size_t j = 0; j < WIDTH; j++) {
                sum[j] = a[j] + (s->residual ? b[j] : 0);
                mean += s->kind == LAYER_NORM ? sum[j] / WIDTH : 0;
            }
            for (size_t j = 0; j < WIDTH; j++) square += (sum[j] - mean) * (sum[j] - mean) / WIDTH;
            for (size_t j = 0; j < WIDTH; j++) {
                if (s->kind == ADD) y[j] = a[j] + b[j];
                if (s->kind == GELU_OF) y[j] = gelu(a[j]);
                if (s->kind == LINEAR || s->kind == LINEAR_GELU) {
                    double dot = p->weights[BIAS0 + s->p][j];
                    for (size_t k = 0; k < WIDTH; k++) dot += a[k] * p->weights[WEIGHT0 + s->p][j * WIDTH + k];
                    y[j] = s->kind == LINEAR ? dot : gelu(dot);
                }
                if (norm) y[j] = (sum[j] - mean) / sqrt(square + 1e-5) * p->weights[GAMMA][j];
                if (s->kind == LAYER_NORM) y[j] += p->weights[BETA][j];
                if (norm && s->residual) v[values + 1][n][j] = sum[j];
            }
        }
        values += results(s);
    }
    double loss = 0;
    for (size_t l = 0; l < LOSSES; l++)
        for (size_t i = 0; i < ROWS * WIDTH; i++) loss += p->coefficient[l][i] * v[p->loss[l]][i / WIDTH][i % WIDTH];
    return loss;
}

struct recorded {
    struct parameters *parameters;
    struct graph *g;
    size_t ready[PARAMETERS];
};

static void record(struct recorded *r, const struct program *p, enum recompute_policy policy, unsigned wanted)
{
    elbo_error error = {0};
    struct graph_capacities capacities = {{[DIM_DEC_TOKENS] = ROWS + SPARE}};
    value w[PARAMETERS], v[MOST_VALUES], c[LOSSES], of[LOSSES];
    size_t values = 0, index;
    *r = (struct recorded){0};
    assert_int_equal(parameters_create(&r->parameters, &error), ELBO_OK);
    assert_int_equal(graph_create(&r->g, "random", r->parameters, &capacities, &error), ELBO_OK);
    for (size_t k = 0; k < PARAMETERS; k++) {
        assert_int_equal(parameters_declare(r->parameters, &index, &descriptions[k], &error), ELBO_OK);
        w[k] = graph_parameter(r->g, index);
    }
    value ids = harness_input(r->g, "ids");
    v[values++] = op_embedding(r->g, w[X], ids, ids, NO_VALUE);
    for (size_t i = 0; i < p->steps; i++) {
        const struct step *s = &p->step[i];
        graph_block(r->g, s->block);
        value a = v[s->a], b = v[s->b];
        switch (s->kind) {
        case ADD:
            v[values++] = op_add(r->g, a, b);
            break;
        case GELU_OF:
            v[values++] = op_gelu(r->g, a);
            break;
        case LINEAR:
            v[values++] = op_linear(r->g, a, w[WEIGHT0 + s->p], w[BIAS0 + s->p]);
            break;
        case LINEAR_GELU:
            v[values++] = op_linear_gelu(r->g, a, w[WEIGHT0 + s->p], w[BIAS0 + s->p]);
            break;
        default: {
            bool rms = s->kind == RMS_NORM;
            struct normed n =
                op_norm(r->g, a, NULL, s->residual ? b : NO_VALUE, w[GAMMA], rms ? NO_VALUE : w[BETA], rms);
            v[values++] = n.y;
            if (s->residual) v[values++] = n.sum;
        }
        }
    }
    graph_block(r->g, -1);
    for (size_t l = 0; l < LOSSES; l++) {
        char name[16];
        snprintf(name, sizeof name, "c%zu", l);
        of[l] = v[p->loss[l]];
        c[l] = graph_input(r->g, name, DTYPE_F32, 2, (struct dim[]){{DIM_DEC_TOKENS, 0}, {DIM_FIXED, WIDTH}});
    }
    value loss = p->apart ? harness_loss_apart(r->g, of, c, LOSSES) : harness_loss(r->g, of, c, LOSSES);
    graph_keep(r->g, loss);
    struct autodiff_options options = {.wanted = wanted, .policy = policy, .add = &op_add_type};
    if (graph_differentiate(r->g, loss, &options, &error)) fail_msg("%s", error.message);
    graph_ready(r->g, r->ready);
    assert_int_equal(parameters_layout(r->parameters, r->ready, &error), ELBO_OK);
}

static void unrecord(struct recorded *r)
{
    graph_free(r->g);
    parameters_free(r->parameters);
}

/* Runs `slots` slots and returns the gradients in the order of the enumeration. */
static void gradients_of(float *to[PARAMETERS], struct recorded *r, const struct program *p, unsigned slots)
{
    elbo_error error = {0};
    struct executor e;
    static const int32_t ids[ROWS] = {0, 1, 2};
    float coefficient[LOSSES][ROWS * WIDTH];
    assert_int_equal(executor_create(&e, r->g, harness_device[harness_devices - 1].backend, &error), ELBO_OK);
    size_t total = parameters_arena_elements(r->parameters);
    float *weights = harness_memory(total * sizeof *weights), *gradients = harness_memory(total * sizeof *gradients);
    void *arena = harness_memory(e.plan.bytes);
    for (size_t k = 0; k < PARAMETERS; k++)
        for (size_t i = 0; i < elements(k); i++)
            weights[parameters_get(r->parameters, k)->offset + i] = (float)p->weights[k][i];
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){.master = weights}, gradients, NULL, &error),
                     ELBO_OK);
    e.inputs[graph_value(r->g, graph_input_named(r->g, "ids"))->binding] = ids;
    for (size_t l = 0; l < LOSSES; l++) {
        char name[16];
        snprintf(name, sizeof name, "c%zu", l);
        for (size_t i = 0; i < ROWS * WIDTH; i++) coefficient[l][i] = (float)p->coefficient[l][i];
        e.inputs[graph_value(r->g, graph_input_named(r->g, name))->binding] = coefficient[l];
    }
    for (unsigned s = 0; s < slots; s++)
        harness_run(&e, &(struct execution){.count = {[DIM_DEC_TOKENS] = ROWS}, .first_slot = s == 0});
    for (size_t k = 0; k < PARAMETERS; k++) {
        to[k] = malloc(elements(k) * sizeof(float));
        memcpy(to[k], gradients + parameters_get(r->parameters, k)->offset, elements(k) * sizeof(float));
    }
    free(weights);
    free(gradients);
    free(arena);
    executor_free(&e);
}

static void release(float *gradients[PARAMETERS])
{
    for (size_t k = 0; k < PARAMETERS; k++) free(gradients[k]);
}

static bool is_poison(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        if (bits != UINT32_MAX) return false;
    }
    return true;
}

/* A parameter that no loss reaches has no gradient, so its part of the arena must still hold the NaN from before. */
static void against_differences(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        struct program p;
        struct recorded r;
        float *g[PARAMETERS], *twice[PARAMETERS];
        double *d[PARAMETERS], whole = 0;
        make(&p, seed);
        record(&r, &p, KEEP_ALL, (unsigned)WANT_ALL);
        gradients_of(g, &r, &p, 1);
        gradients_of(twice, &r, &p, 2);
        for (size_t k = 0; k < PARAMETERS; k++) {
            d[k] = calloc(elements(k), sizeof(double));
            for (size_t i = 0; i < elements(k); i++) {
                double x = p.weights[k][i], h = 1e-5;
                p.weights[k][i] = x + h;
                double up = evaluate(&p);
                p.weights[k][i] = x - h;
                d[k][i] = (up - evaluate(&p)) / (2 * h);
                p.weights[k][i] = x;
            }
            whole += pow(harness_norm(d[k], elements(k)), 2);
        }
        for (size_t k = 0; k < PARAMETERS; k++) {
            char what[64];
            double floor = 1e-3 * sqrt(whole / PARAMETERS);
            snprintf(what, sizeof what, "graph %d, gradient of %s", (int)seed, descriptions[k].name);
            if (harness_norm(d[k], elements(k)) == 0 && is_poison(g[k], elements(k))) continue;
            double error = harness_error_f32(g[k], d[k], elements(k), floor);
            harness_close_to(what, error, TOLERANCE_GRADIENT);
            worst = fmax(worst, error);
            for (size_t i = 0; i < elements(k); i++) d[k][i] = 2 * g[k][i];
            harness_close_to(what, harness_error_f32(twice[k], d[k], elements(k), floor), TOLERANCE_REORDERED);
        }
        for (size_t k = 0; k < PARAMETERS; k++) free(d[k]);
        release(g);
        release(twice);
        unrecord(&r);
        unmake(&p);
    }
    print_message("%d random graphs: worst gradient error %.2g\n", GRAPHS, worst);
}

static void recomputation_keeps_the_bits(void **state)
{
    (void)state;
    size_t smaller = 0;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        struct program p;
        struct recorded kept;
        float *a[PARAMETERS], *b[PARAMETERS];
        make(&p, seed);
        record(&kept, &p, KEEP_ALL, (unsigned)WANT_ALL);
        gradients_of(a, &kept, &p, 2);
        for (enum recompute_policy policy = RECOMPUTE_CHEAP_OPS; policy <= RECOMPUTE_BLOCKS; policy++) {
            struct recorded again;
            record(&again, &p, policy, (unsigned)WANT_ALL);
            gradients_of(b, &again, &p, 2);
            for (size_t k = 0; k < PARAMETERS; k++)
                if (memcmp(a[k], b[k], elements(k) * sizeof(float)))
                    fail_msg("graph %d, policy %d: the gradient of %s has other bits", (int)seed, (int)policy,
                             descriptions[k].name);
            smaller += graph_nodes(again.g) > graph_nodes(kept.g);
            release(b);
            unrecord(&again);
        }
        release(a);
        unrecord(&kept);
        unmake(&p);
    }
    assert_true(smaller > GRAPHS / 2); /* most graphs recompute something */
}

/* Unwanted groups have no gradient value and no node that writes one, and do not change the bits of the other
 * groups. */
static void unwanted_groups_are_pruned(void **state)
{
    (void)state;
    static const unsigned sets[] = {0, 1, 2, 4, 8, 16, 32, 3, 12, 48, 21, 42};
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct program p;
        struct recorded all;
        float *a[PARAMETERS], *b[PARAMETERS];
        make(&p, seed);
        record(&all, &p, KEEP_ALL, (unsigned)WANT_ALL);
        gradients_of(a, &all, &p, 1);
        for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
            struct recorded some;
            record(&some, &p, s % 2 ? KEEP_ALL : RECOMPUTE_BLOCKS, sets[s]);
            gradients_of(b, &some, &p, 1);
            size_t backward = 0, backward_all = 0;
            for (size_t i = 0; i < graph_nodes(some.g); i++) backward += graph_node_get(some.g, i)->backward;
            for (size_t i = 0; i < graph_nodes(all.g); i++) backward_all += graph_node_get(all.g, i)->backward;
            if (!sets[s]) assert_int_equal(backward, 0);
            if (s % 2) assert_true(backward <= backward_all);
            for (uint32_t v = 1; v < graph_values(some.g); v++) {
                const struct value_info *info = graph_value(some.g, (value){v});
                if (info->class != VALUE_GRADIENT) continue;
                const struct parameter *own = parameters_get(some.parameters, info->binding);
                assert_true(sets[s] >> (2 * (unsigned)own->part + !own->decay) & 1);
            }
            for (size_t k = 0; k < PARAMETERS; k++) {
                const struct parameter *own = &descriptions[k];
                if (sets[s] >> (2 * (unsigned)own->part + !own->decay) & 1)
                    assert_memory_equal(a[k], b[k], elements(k) * sizeof(float));
                else
                    assert_true(is_poison(b[k], elements(k)));
            }
            release(b);
            unrecord(&some);
        }
        release(a);
        unrecord(&all);
        unmake(&p);
    }
}

/* ready[] must order the parameters like the last writes of their gradients. */
static void ready_follows_the_last_write(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        struct program p;
        struct recorded r;
        size_t last[PARAMETERS] = {0};
        make(&p, seed);
        record(&r, &p, KEEP_ALL, (unsigned)WANT_ALL);
        for (size_t i = 0; i < graph_nodes(r.g); i++)
            for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
                value v = graph_node_get(r.g, i)->out[k];
                if (v.index && graph_value(r.g, v)->class == VALUE_GRADIENT) last[graph_value(r.g, v)->binding] = i + 1;
            }
        for (size_t a = 0; a < PARAMETERS; a++)
            for (size_t b = 0; b < PARAMETERS; b++)
                if (last[a] && last[b] && last[a] < last[b]) assert_true(r.ready[a] <= r.ready[b]);
        unrecord(&r);
        unmake(&p);
    }
}

/* ---- fixed graphs, through the harness: every device, both slots, recorded twice ---- */

/* Two embeddings and the loss read one table. */
static void record_tied(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    value ids = harness_input(g, "ids"), order = harness_input(g, "order"), labels = harness_input(g, "labels");
    value x = op_embedding(g, in[0], ids, order, NO_VALUE);
    value y = op_embedding(g, in[0], ids, order, op_gelu(g, x));
    out[0] = op_linear_cross_entropy(g, y, in[0], labels, NULL);
}

static void tied_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width, vocabulary = t->in[0].rows;
    for (size_t n = 0; n < t->batch->tokens; n++) {
        double sum = 0, target = 0;
        const double *row = in[0] + (size_t)t->batch->ids[n] * width;
        for (size_t v = 0; v < vocabulary; v++) {
            double dot = 0;
            for (size_t i = 0; i < width; i++) dot += (row[i] + gelu(row[i])) * in[0][v * width + i];
            sum += exp(dot);
            if ((int32_t)v == t->batch->labels[n]) target = dot;
        }
        out[0][n] = log(sum) - target;
    }
}

static void tied_weights(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 3, 2}, {7, 5, 4}, {40, 9, 7}, {70, 3, 16}};
    for (size_t i = 0; i < 4; i++) {
        struct batch *b = batch_rows(shapes[i][0]);
        batch_words(b, shapes[i][1], i);
        struct trial t = {.name = "tied table",
                          .batch = b,
                          .inputs = 1,
                          .tail = 4 * i,
                          .record = record_tied,
                          .reference = tied_reference};
        t.in[0] = (struct operand){DIM_FIXED, shapes[i][1], shapes[i][2], 0, 0.7};
        harness_try(&t);
        free(b);
    }
}

/* Two layers share a weight, and a residual bypasses both. */
static void record_shared(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    value x = in[0];
    for (int layer = 0; layer < 2; layer++) x = op_add(g, x, op_linear_gelu(g, x, in[1], in[2]));
    out[0] = op_add(g, x, x);
    out[1] = in[0];
}

static void shared_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width;
    for (size_t n = 0; n < t->in[0].rows; n++) {
        double x[32], y[32];
        for (size_t i = 0; i < width; i++) x[i] = out[1][n * width + i] = in[0][n * width + i];
        for (int layer = 0; layer < 2; layer++) {
            for (size_t o = 0; o < width; o++) {
                double dot = in[2][o];
                for (size_t i = 0; i < width; i++) dot += x[i] * in[1][o * width + i];
                y[o] = gelu(dot);
            }
            for (size_t i = 0; i < width; i++) x[i] += y[i];
        }
        for (size_t i = 0; i < width; i++) out[0][n * width + i] = 2 * x[i];
    }
}

static void shared_weights_and_residuals(void **state)
{
    (void)state;
    for (size_t width = 1; width < 20; width += 3) {
        struct batch *b = batch_rows(1 + width);
        struct trial t = {.name = "shared layers",
                          .batch = b,
                          .inputs = 3,
                          .tail = width,
                          .record = record_shared,
                          .reference = shared_reference};
        t.in[0] = (struct operand){DIM_DEC_TOKENS, b->tokens, width, 0, 1};
        t.in[1] = (struct operand){DIM_FIXED, width, width, 0, 1 / sqrt((double)width)};
        t.in[2] = (struct operand){DIM_FIXED, width, 0, 0, 0.5};
        harness_try(&t);
        free(b);
    }
}

HARNESS_MAIN(FAMILY_NONE, cmocka_unit_test(against_differences), cmocka_unit_test(recomputation_keeps_the_bits),
             cmocka_unit_test(unwanted_groups_are_pruned), cmocka_unit_test(ready_follows_the_last_write),
             cmocka_unit_test(tied_weights), cmocka_unit_test(shared_weights_and_residuals))
