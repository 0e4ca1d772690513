/* elementwise.cu: add, GELU, SwiGLU, dropout, casts, column sums of bias gradients, against double. */
#include "kernels/trial.h"
#include "base/philox.h"

#include <math.h>

struct context {
    size_t rows, width;
    bool add;
    uint32_t threshold;
    float scale;
    int header;
    enum kernel_type from;
    int y, a, b, c, d, e;
};

#define LAUNCH(name, ...)                                                                                              \
    static int launch_##name(const struct trial *t, const void *context)                                               \
    {                                                                                                                  \
        const struct context *c = context;                                                                             \
        return __VA_ARGS__;                                                                                            \
    }

LAUNCH(add, add_cuda(&(struct add_args){.y = at(t, c->y),
                                        .a = at(t, c->a),
                                        .b = at(t, c->b),
                                        .elements = c->rows,
                                        .add = c->add,
                                        .y_type = t->type,
                                        .type = c->from},
                     NULL))
LAUNCH(gelu,
       gelu_forward_cuda(
           &(struct gelu_forward_args){.y = at(t, c->y), .x = at(t, c->a), .elements = c->rows, .type = t->type}, NULL))
LAUNCH(gelu_backward, gelu_backward_cuda(&(struct gelu_backward_args){.dx = at(t, c->y),
                                                                      .dy = at(t, c->b),
                                                                      .x = at(t, c->a),
                                                                      .elements = c->rows,
                                                                      .add = c->add,
                                                                      .type = t->type},
                                         NULL))
LAUNCH(tanh,
       tanh_forward_cuda(
           &(struct tanh_forward_args){.y = at(t, c->y), .x = at(t, c->a), .elements = c->rows, .type = t->type}, NULL))
LAUNCH(tanh_backward, tanh_backward_cuda(&(struct tanh_backward_args){.dx = at(t, c->y),
                                                                      .dy = at(t, c->b),
                                                                      .y = at(t, c->a),
                                                                      .elements = c->rows,
                                                                      .add = c->add,
                                                                      .type = t->type},
                                         NULL))
LAUNCH(swiglu, swiglu_forward_cuda(
                   &(struct swiglu_forward_args){
                       .y = at(t, c->y), .x = at(t, c->a), .rows = c->rows, .width = c->width, .type = t->type},
                   NULL))
LAUNCH(swiglu_backward, swiglu_backward_cuda(&(struct swiglu_backward_args){.dx = at(t, c->y),
                                                                            .dy = at(t, c->b),
                                                                            .x = at(t, c->a),
                                                                            .rows = c->rows,
                                                                            .width = c->width,
                                                                            .add = c->add,
                                                                            .type = t->type},
                                             NULL))
LAUNCH(dropout,
       dropout_cuda(&(struct dropout_args){.y = at(t, c->y),
                                           .x = at(t, c->a),
                                           .dropout = &(struct kernel_dropout){at(t, c->b),
                                                                               at(t, c->c),
                                                                               at(t, c->d),
                                                                               c->threshold,
                                                                               c->scale,
                                                                               {TRIAL_PURPOSE, at(t, c->header)}},
                                           .rows = c->rows,
                                           .width = c->width,
                                           .add = c->add,
                                           .type = t->type},
                    NULL))
LAUNCH(bias_backward, bias_backward_cuda(&(struct bias_backward_args){.dbias = at(t, c->y),
                                                                      .scratch = at(t, c->b),
                                                                      .dy = at(t, c->a),
                                                                      .rows = c->rows,
                                                                      .width = c->width,
                                                                      .add = c->add,
                                                                      .type = t->type},
                                         NULL))

static const size_t counts[][1] = {{0}, {1}, {7}, {256}, {1000}, {2048}, {4099}};
static const size_t rows_widths[][2] = {{0, 9}, {1, 1}, {3, 5}, {64, 17}, {65, 64}, {130, 33}, {7, 520}};
static const size_t sentences_longest_widths[][3] = {{0, 1, 3},   {1, 1, 1},    {2, 5, 3},  {5, 9, 4},
                                                     {9, 20, 33}, {12, 30, 62}, {4, 8, 257}};
static const struct sweep flat_shapes = SWEEP(counts, 1025, 1025), row_shapes = SWEEP(rows_widths, 40000, 1025, 1025),
                          dropout_shapes = SWEEP(sentences_longest_widths, 40000, 33, 65, 1025);

static double gelu_of(double x, double *slope)
{
    double u = sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), th = tanh(u);
    *slope = 0.5 * (1 + th) + 0.5 * x * (1 - th * th) * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
    return 0.5 * x * (1 + th);
}

static void try_flat(enum kernel_type type, size_t n, bool option)
{
    struct trial t;
    struct context c = {.rows = n, .add = option, .from = type};
    double *y, slope;
    for (int two = 0; two < 2; two++) {
        trial_begin(&t, type, "add %zu%s%s", n, option ? ", add" : "", two ? "" : ", one operand");
        c.a = trial_normal(&t, trial_t(&t), n, 0, 1);
        c.b = two ? trial_normal(&t, trial_t(&t), n, 0, 1) : -1;
        c.y = trial_sum(&t, trial_t(&t), n, option);
        y = trial_expect(&t, c.y);
        for (size_t i = 0; i < n; i++) y[i] = trial_value(&t, c.a)[i] + (two ? trial_value(&t, c.b)[i] : 0);
        trial_run(&t, launch_add, &c);
    }
    trial_begin(&t, type, "gelu %zu", n);
    c.a = trial_normal(&t, trial_t(&t), n, 0, 2);
    c.y = trial_output(&t, trial_t(&t), n);
    y = trial_expect(&t, c.y);
    for (size_t i = 0; i < n; i++) y[i] = gelu_of(trial_value(&t, c.a)[i], &slope);
    trial_run(&t, launch_gelu, &c);

    trial_begin(&t, type, "gelu backward %zu%s", n, option ? ", add" : "");
    c.a = trial_normal(&t, trial_t(&t), n, 0.5, 2); /* keeps a single element away from the slope's zero, which is
                                                     * ill-conditioned */
    c.b = trial_normal(&t, trial_t(&t), n, 0, 1);
    c.y = trial_sum(&t, trial_t(&t), n, option);
    y = trial_expect(&t, c.y);
    for (size_t i = 0; i < n; i++) {
        gelu_of(trial_value(&t, c.a)[i], &slope);
        y[i] = trial_value(&t, c.b)[i] * slope;
    }
    trial_run(&t, launch_gelu_backward, &c);

    trial_begin(&t, type, "tanh %zu", n);
    c.a = trial_normal(&t, trial_t(&t), n, 0, 2);
    c.y = trial_output(&t, trial_t(&t), n);
    y = trial_expect(&t, c.y);
    for (size_t i = 0; i < n; i++) y[i] = tanh(trial_value(&t, c.a)[i]);
    trial_run(&t, launch_tanh, &c);

    trial_begin(&t, type, "tanh backward %zu%s", n, option ? ", add" : "");
    c.a = trial_normal(&t, trial_t(&t), n, 0, 0.4); /* the output of tanh */
    c.b = trial_normal(&t, trial_t(&t), n, 0, 1);
    c.y = trial_sum(&t, trial_t(&t), n, option);
    y = trial_expect(&t, c.y);
    for (size_t i = 0; i < n; i++)
        y[i] = trial_value(&t, c.b)[i] * (1 - trial_value(&t, c.a)[i] * trial_value(&t, c.a)[i]);
    trial_run(&t, launch_tanh_backward, &c);

    for (int from = KERNEL_F32; from <= KERNEL_BF16; from++) {
        trial_begin(&t, type, "cast %zu from %s%s", n, from ? "bf16" : "f32", option ? ", add" : "");
        c.from = (enum kernel_type)from;
        c.b = -1;
        c.a = trial_normal(&t, from ? ARRAY_BF16 : ARRAY_F32, n, 0, 10);
        c.y = trial_sum(&t, trial_t(&t), n, option);
        y = trial_expect(&t, c.y);
        for (size_t i = 0; i < n; i++)
            y[i] = option ? trial_value(&t, c.a)[i] : trial_round(trial_value(&t, c.a)[i], trial_t(&t));
        if (!option) t.tolerance = 0; /* one rounding, so the result is exact */
        trial_run(&t, launch_add, &c);
    }
}

static void flat(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&flat_shapes); i++) {
            size_t n;
            sweep_shape(&n, &flat_shapes, i);
            for (int option = 0; option < 2; option++) try_flat((enum kernel_type)type, n, option);
        }
}

/* Sizes that allow packs, but one array is not aligned to them. */
static void unaligned_arrays_match(void **state)
{
    enum { N = 64 };
    static const struct {
        const char *name;
        int (*launch)(const struct trial *t, const void *context);
        int arrays;
    } op[] = {{"add", launch_add, 3}, {"gelu", launch_gelu, 2}, {"gelu backward", launch_gelu_backward, 3}};
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (int k = 0; k < 3; k++)
            for (int shifted = 0; shifted < op[k].arrays; shifted++) {
                struct trial t;
                struct context c = {.rows = N, .b = -1, .from = (enum kernel_type)type};
                double slope;
                trial_begin(&t, (enum kernel_type)type, "%s %d, array %d unaligned", op[k].name, N, shifted);
                c.a = trial_normal(&t, trial_t(&t), N, 0, 2);
                c.y = trial_output(&t, trial_t(&t), N);
                if (op[k].arrays == 3) c.b = trial_normal(&t, trial_t(&t), N, 0, 1);
                trial_shift(&t, shifted == 0 ? c.a : shifted == 1 ? c.y : c.b);
                double *y = trial_expect(&t, c.y);
                for (size_t i = 0; i < N; i++) {
                    double a = trial_value(&t, c.a)[i], b = c.b < 0 ? 0 : trial_value(&t, c.b)[i],
                           g = gelu_of(a, &slope);
                    y[i] = k == 0 ? a + b : k == 1 ? g : b * slope;
                }
                trial_run(&t, op[k].launch, &c);
            }
}

static void try_swiglu(enum kernel_type type, size_t rows, size_t width, bool add)
{
    struct trial t;
    struct context c = {.rows = rows, .width = width, .add = add};
    for (int back = 0; back < 2; back++) {
        trial_begin(&t, type, "swiglu%s %zu x %zu%s", back ? " backward" : "", rows, width, add ? ", add" : "");
        c.a = trial_normal(&t, trial_t(&t), rows * 2 * width, 0, 1.5);
        if (back) c.b = trial_normal(&t, trial_t(&t), rows * width, 0, 1);
        c.y = back ? trial_sum(&t, trial_t(&t), rows * 2 * width, add) : trial_output(&t, trial_t(&t), rows * width);
        double *y = trial_expect(&t, c.y);
        for (size_t i = 0; i < rows * width; i++) {
            size_t at_gate = i / width * 2 * width + i % width;
            double gate = trial_value(&t, c.a)[at_gate], up = trial_value(&t, c.a)[at_gate + width];
            double s = 1 / (1 + exp(-gate)), d = back ? trial_value(&t, c.b)[i] : 0;
            if (!back) {
                y[i] = gate * s * up;
            } else {
                y[at_gate] = d * up * (s + gate * s * (1 - s));
                y[at_gate + width] = d * gate * s;
            }
        }
        trial_run(&t, back ? launch_swiglu_backward : launch_swiglu, &c);
    }
}

static void try_bias(enum kernel_type type, size_t rows, size_t width, bool option)
{
    struct trial t;
    struct context c = {.rows = rows, .width = width, .add = option};
    trial_begin(&t, type, "bias backward %zu x %zu%s", rows, width, option ? ", add" : "");
    c.a = trial_normal(&t, trial_t(&t), rows * width, 0.2, 1);
    c.b = trial_scratch(&t, ARRAY_F32, bias_scratch_floats(rows, width));
    c.y = trial_sum(&t, ARRAY_F32, width, option);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < rows * width; i++) y[i % width] += trial_value(&t, c.a)[i];
    trial_run(&t, launch_bias_backward, &c);
}

static void rows(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&row_shapes); i++) {
            size_t n[2];
            sweep_shape(n, &row_shapes, i);
            for (int option = 0; option < 2; option++) {
                try_swiglu((enum kernel_type)type, n[0], n[1], option);
                try_bias((enum kernel_type)type, n[0], n[1], option);
            }
        }
}

static void try_dropout(enum kernel_type type, size_t count, size_t longest, size_t width, bool add)
{
    struct trial t;
    struct sentences s;
    trial_sentences(&s, count, longest, width);
    double p = 0.3;
    struct context c = {.rows = s.tokens,
                        .width = width,
                        .add = add,
                        .threshold = (uint32_t)(p * 4294967296.0),
                        .scale = (float)(1 / (1 - p))};
    trial_begin(&t, type, "dropout %zu x %zu%s", s.tokens, width, add ? ", add" : "");
    c.a = trial_normal(&t, trial_t(&t), s.tokens * width, 0, 1);
    c.b = trial_integers(&t, s.sentence, s.tokens);
    c.c = trial_integers(&t, s.position, s.tokens);
    c.d = trial_samples(&t, count);
    c.header = trial_header(&t, 0, count);
    c.y = trial_sum(&t, trial_t(&t), s.tokens * width, add);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < s.tokens * width; i++) {
        uint64_t sample = (uint64_t)trial_value(&t, c.d)[s.sentence[i / width]];
        uint64_t coordinate = (uint64_t)s.position[i / width] * width + i % width;
        struct noise_key key = noise_key(TRIAL_SEED, TRIAL_PURPOSE, TRIAL_STEP);
        if (noise_bits(key, sample, TRIAL_DRAW, coordinate) >= c.threshold)
            y[i] = trial_value(&t, c.a)[i] * (double)c.scale;
    }
    trial_run(&t, launch_dropout, &c);
}

/* An element is kept if its bits equal the threshold. */
static void the_threshold_is_kept(void **state)
{
    (void)state;
    struct trial t;
    struct context c = {.rows = 1, .width = 8, .scale = 2};
    trial_begin(&t, KERNEL_F32, "dropout 1 x 8, the threshold met");
    c.a = trial_normal(&t, ARRAY_F32, 8, 1, 0.1);
    c.b = trial_integers(&t, (const int32_t[]){0}, 1);
    c.c = trial_integers(&t, (const int32_t[]){0}, 1);
    c.d = trial_samples(&t, 1);
    c.header = trial_header(&t, 0, 1);
    c.y = trial_output(&t, ARRAY_F32, 8);
    struct noise_key key = noise_key(TRIAL_SEED, TRIAL_PURPOSE, TRIAL_STEP);
    uint64_t sample = (uint64_t)trial_value(&t, c.d)[0];
    c.threshold = noise_bits(key, sample, TRIAL_DRAW, 3);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < 8; i++)
        if (noise_bits(key, sample, TRIAL_DRAW, i) >= c.threshold) y[i] = trial_value(&t, c.a)[i] * 2;
    assert_true(y[3] != 0);
    trial_run(&t, launch_dropout, &c);
}

static void dropout_is_addressed(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&dropout_shapes); i++) {
            size_t n[3];
            sweep_shape(n, &dropout_shapes, i);
            for (int add = 0; add < 2; add++) try_dropout((enum kernel_type)type, n[0], n[1], n[2], add);
        }
}

TRIAL_MAIN(cmocka_unit_test(flat), cmocka_unit_test(unaligned_arrays_match), cmocka_unit_test(rows),
           cmocka_unit_test(dropout_is_addressed), cmocka_unit_test(the_threshold_is_kept))
