/* optimizer.cu: the squared norm and its count of non-finite blocks, AdamW and SGD with momentum, the guard, the
 * controller and the selected row, against double. */
#include "kernels/trial.h"
#include "base/bf16.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* order of ops/ops.h. 1 - beta has an inconsistent value here, so that a kernel must read it instead of computing it */
enum {
    RATE,
    SCALE,
    DECAY,
    BETA1,
    ONE_MINUS_BETA1,
    BETA2,
    ONE_MINUS_BETA2,
    EPSILON,
    CORRECTION1,
    CORRECTION2,
    MOMENTUM,
    APPLY,
    SCALARS
};
enum { APPLIED, NORM, FINITE, CONTROL };

struct context {
    size_t count;
    size_t groups, norms;
    int y, rows, control, settings, loss, records[KERNEL_MOST_NORMS];
    size_t first;
    bool multiplier;
    int state, scales;
    int weights, moment1, moment2, working, gradient, scalars, record, scratch, header, places, sums;
};

static int squared_norm(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return squared_norm_cuda(&(struct squared_norm_args){.record = at(t, c->record),
                                                         .scratch = at(t, c->scratch),
                                                         .gradient = at(t, c->gradient),
                                                         .elements = c->count},
                             NULL);
}

/* Moments have the trial's type; f32 moments take no noise. */
static struct kernel_noise noise_of(const struct trial *t, const struct context *c)
{
    return (struct kernel_noise){TRIAL_PURPOSE, t->type == KERNEL_BF16 ? at(t, c->header) : NULL};
}

static int adamw(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return adamw_cuda(&(struct adamw_args){.weights = at(t, c->weights),
                                           .moment1 = at(t, c->moment1),
                                           .moment2 = at(t, c->moment2),
                                           .working = at(t, c->working),
                                           .gradient = at(t, c->gradient),
                                           .scalars = at(t, c->scalars),
                                           .elements = c->count,
                                           .first = c->first,
                                           .noise = noise_of(t, c),
                                           .moments = t->type},
                      NULL);
}

static int sgd(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return sgd_cuda(&(struct sgd_args){.weights = at(t, c->weights),
                                       .moment = at(t, c->moment1),
                                       .working = at(t, c->working),
                                       .gradient = at(t, c->gradient),
                                       .scalars = at(t, c->scalars),
                                       .elements = c->count,
                                       .first = c->first,
                                       .noise = noise_of(t, c),
                                       .moments = t->type},
                    NULL);
}

static int select_row(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return select_row_cuda(&(struct select_row_args){.y = at(t, c->y),
                                                     .rows = at(t, c->rows),
                                                     .control = at(t, c->control),
                                                     .scales = at(t, c->scales),
                                                     .width = c->count},
                           NULL);
}

/* Uses figure 2 of the step and weight 1 of three. */
static int controller(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return controller_cuda(&(struct controller_args){.state = at(t, c->state),
                                                     .weight = (float *)at(t, c->scales) + 1,
                                                     .figure = (const float *)at(t, c->loss) + 2,
                                                     .control = at(t, c->control),
                                                     .settings = at(t, c->settings),
                                                     .multiplier = c->multiplier},
                           NULL);
}

static int guard(const struct trial *t, const void *context)
{
    const struct context *c = context;
    const float *norms[KERNEL_MOST_NORMS];
    for (size_t k = 0; k < c->norms; k++) norms[k] = at(t, c->records[k]);
    return guard_cuda(&(struct guard_args){.scalars = at(t, c->scalars),
                                           .control = at(t, c->control),
                                           .loss = at(t, c->loss),
                                           .rows = at(t, c->rows),
                                           .settings = at(t, c->settings),
                                           .norms = norms,
                                           .count = c->norms,
                                           .groups = c->groups},
                      NULL);
}

static int floats(struct trial *t, const double *values, size_t count)
{
    int index = trial_normal(t, ARRAY_F32, count, 0, 0);
    for (size_t i = 0; i < count; i++) {
        ((float *)t->arrays[index].initial)[i] = (float)values[i];
        t->arrays[index].value[i] = (double)(float)values[i];
    }
    return index;
}

static int scalars_of(struct trial *t, bool apply)
{
    return floats(t, (const double[SCALARS]){1e-2, 0.5, 0.1, 0.9, 0.125, 0.99, 0.015, 1e-8, 1.25, 2.5, 0.8, apply},
                  SCALARS);
}

static void absolute(struct trial *t, int array)
{
    for (size_t i = 0; i < t->arrays[array].count; i++) {
        t->arrays[array].value[i] = fabs(t->arrays[array].value[i]);
        ((float *)t->arrays[array].initial)[i] = (float)t->arrays[array].value[i];
    }
}

/* `shifted`: the unaligned array among weights, moments, working copy and gradient; -1: none. */
static void try(size_t count, bool working, bool is_sgd, int shifted)
{
    struct trial t;
    struct context c = {.count = count, .working = -1};
    trial_begin(&t, KERNEL_F32, "%s %zu%s%s", is_sgd ? "sgd" : "adamw", count, working ? ", working copy" : "",
                shifted < 0 ? "" : ", shifted");
    c.weights = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.moment1 = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.moment2 = trial_normal(&t, ARRAY_F32, count, 0, 1);
    absolute(&t, c.moment2);
    c.gradient = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.scalars = scalars_of(&t, true);
    if (working) c.working = trial_output(&t, ARRAY_BF16, count);
    double *weights = trial_expect_new(&t, c.weights), *m1 = trial_expect_new(&t, c.moment1);
    double *m2 = is_sgd ? NULL : trial_expect_new(&t, c.moment2), *copy = working ? trial_expect(&t, c.working) : NULL;
    const double *s = trial_value(&t, c.scalars);
    for (size_t i = 0; i < count; i++) {
        double g = trial_value(&t, c.gradient)[i] * s[SCALE], w = trial_value(&t, c.weights)[i];
        if (is_sgd) {
            m1[i] = s[MOMENTUM] * trial_value(&t, c.moment1)[i] + g;
            weights[i] = w - s[RATE] * (m1[i] + s[DECAY] * w);
        } else {
            m1[i] = s[BETA1] * trial_value(&t, c.moment1)[i] + s[ONE_MINUS_BETA1] * g;
            m2[i] = s[BETA2] * trial_value(&t, c.moment2)[i] + s[ONE_MINUS_BETA2] * g * g;
            weights[i] =
                w - s[RATE] * (m1[i] * s[CORRECTION1] / (sqrt(m2[i] * s[CORRECTION2]) + s[EPSILON]) + s[DECAY] * w);
        }
        if (working) copy[i] = weights[i];
    }
    const int arrays[] = {c.weights, c.moment1, c.moment2, c.gradient, c.working};
    if (shifted >= 0) trial_shift(&t, arrays[shifted]);
    trial_run(&t, is_sgd ? sgd : adamw, &c);
}

/* ---- moments in bf16 ---- */

/* Rounds to twelve significant bits. With betas of one half all products of the moments are then exact, so each moment
 * is one sum rounded to f32 in any arithmetic, and the stored bits are known exactly. */
static void shorten(struct trial *t, int array)
{
    struct array *a = &t->arrays[array];
    for (size_t i = 0; i < a->count; i++) {
        uint32_t bits;
        float *x = (float *)a->initial + i;
        memcpy(&bits, x, sizeof bits);
        bits &= 0xfffff000u;
        memcpy(x, &bits, sizeof bits);
        a->value[i] = (double)*x;
    }
}

static void all_equal(struct trial *t, int array, float value)
{
    struct array *a = &t->arrays[array];
    uint16_t narrow = bf16_nearest(value);
    for (size_t i = 0; i < a->count; i++) {
        if (a->type == ARRAY_F32)
            memcpy((float *)a->initial + i, &value, sizeof value);
        else
            memcpy((uint16_t *)a->initial + i, &narrow, sizeof narrow);
        a->value[i] = (double)value;
    }
}

/* Returns the value that the CPU stores, which must be a neighbor of `value`. */
static double stored(double value, uint32_t noise)
{
    uint16_t got = bf16_stochastic((float)value, noise);
    uint32_t bits;
    float narrow = (float)value;
    memcpy(&bits, &narrow, sizeof bits);
    assert_true(got == bits >> 16 || ((bits & 0xffff) && got == (bits >> 16) + 1));
    return (double)bf16_widen(got);
}

/* The mean of the stored values must be within five deviations of `value`; the deviation of one draw is at most half a
 * spacing. */
static void unbiased(const double *got, size_t count, double value)
{
    double mean = 0, spacing = ldexp(1, ilogb(value) - 7);
    for (size_t i = 0; i < count; i++) mean += got[i] / (double)count;
    assert_true(fabs(mean - value) <= 5 * spacing / 2 / sqrt((double)count));
}

static void try_narrow(size_t count, size_t first, bool is_sgd, bool constant)
{
    struct trial t;
    struct context c = {.count = count, .first = first, .working = -1};
    trial_begin(&t, KERNEL_BF16, "%s %zu from %zu%s", is_sgd ? "sgd" : "adamw", count, first,
                constant ? ", all equal" : "");
    c.weights = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.moment1 = trial_normal(&t, ARRAY_BF16, count, 0, 1);
    c.moment2 = trial_normal(&t, ARRAY_BF16, count, 0, 1);
    for (size_t i = 0; i < count; i++) {
        ((uint16_t *)t.arrays[c.moment2].initial)[i] &= 0x7fff;
        t.arrays[c.moment2].value[i] = fabs(t.arrays[c.moment2].value[i]);
    }
    c.gradient = trial_normal(&t, ARRAY_F32, count, 0, 1);
    shorten(&t, c.gradient);
    if (constant) {
        all_equal(&t, c.moment1, 1.125f);
        all_equal(&t, c.moment2, 0.75f);
        all_equal(&t, c.gradient, 0x1.23p-6f);
    }
    if (count > 2 && !constant) { /* non-finite moments stay non-finite; the weights beside them are not compared */
        const uint16_t infinite = 0x7f80;
        const uint32_t full = 0x7fffffff; /* the NaN that GPUs produce: anything added to its bits would wrap around */
        memcpy(t.arrays[c.moment1].initial, &infinite, sizeof infinite);
        memcpy(t.arrays[c.moment2].initial, &infinite, sizeof infinite);
        t.arrays[c.moment1].value[0] = t.arrays[c.moment2].value[0] = INFINITY;
        memcpy((float *)t.arrays[c.gradient].initial + 1, &full, sizeof full);
        t.arrays[c.gradient].value[1] = (double)((float *)t.arrays[c.gradient].initial)[1];
        t.arrays[c.weights].skipped = 2;
    }
    c.scalars =
        floats(&t, (const double[SCALARS]){1e-2, 0.5, 0.1, 0.5, 0.25, 0.5, 0.25, 1e-8, 1.25, 2.5, 0.5, true}, SCALARS);
    c.header = trial_header(&t, 0, 0);
    double *weights = trial_expect_new(&t, c.weights), *m1 = trial_expect_new(&t, c.moment1);
    double *m2 = is_sgd ? NULL : trial_expect_new(&t, c.moment2);
    const double *s = trial_value(&t, c.scalars);
    struct noise_key key = noise_key(TRIAL_SEED, TRIAL_PURPOSE, TRIAL_STEP);
    double m = 0, v = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t where = first + i;
        uint32_t word = noise_bits(key, where >> 34, TRIAL_DRAW, where & (((uint64_t)1 << 34) - 1));
        double g = trial_value(&t, c.gradient)[i] * s[SCALE], w = trial_value(&t, c.weights)[i];
        m = is_sgd ? s[MOMENTUM] * trial_value(&t, c.moment1)[i] + g
                   : s[BETA1] * trial_value(&t, c.moment1)[i] + s[ONE_MINUS_BETA1] * g;
        v = s[BETA2] * trial_value(&t, c.moment2)[i] + s[ONE_MINUS_BETA2] * g * g;
        m1[i] = stored(m, word);
        if (!is_sgd) m2[i] = stored(v, word >> 16);
        weights[i] =
            w - s[RATE] * ((is_sgd ? m : m * s[CORRECTION1] / (sqrt(v * s[CORRECTION2]) + s[EPSILON])) + s[DECAY] * w);
    }
    t.arrays[c.moment1].exact = t.arrays[c.moment2].exact = true;
    if (constant) unbiased(m1, count, m);
    if (constant && !is_sgd) unbiased(m2, count, v);
    trial_run(&t, is_sgd ? sgd : adamw, &c);
}

/* An update that is not applied changes nothing. */
static void try_skipped(size_t count, bool is_sgd)
{
    struct trial t;
    struct context c = {.count = count};
    trial_begin(&t, KERNEL_F32, "%s %zu, not applied", is_sgd ? "sgd" : "adamw", count);
    c.weights = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.moment1 = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.moment2 = trial_normal(&t, ARRAY_F32, count, 1, 0.1);
    c.working = trial_normal(&t, ARRAY_BF16, count, 0, 1);
    c.gradient = trial_normal(&t, ARRAY_F32, count, 0, 1);
    c.scalars = scalars_of(&t, false);
    trial_run(&t, is_sgd ? sgd : adamw, &c); /* without expected values these are inputs, which must not change */
}

static void try_select(size_t count, bool second, bool scaled)
{
    struct trial t;
    struct context c = {.count = count, .scales = -1};
    trial_begin(&t, KERNEL_F32, "select row %d of width %zu%s", second, count, scaled ? ", scaled" : "");
    if (scaled) c.scales = trial_normal(&t, ARRAY_F32, count, 1, 0.5);
    c.rows = trial_normal(&t, ARRAY_F32, 2 * count, 0, 1);
    c.control = floats(&t, (const double[CONTROL]){second, 7, 0}, CONTROL);
    c.y = trial_output(&t, ARRAY_F32, count);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < count; i++)
        y[i] = trial_value(&t, c.rows)[second * count + i] * (scaled ? trial_value(&t, c.scales)[i] : 1);
    if (!scaled) t.tolerance = 0;
    trial_run(&t, select_row, &c);
}

static void try_guard(size_t groups, size_t norms, bool before, double clip, bool skip, double loss, double bad)
{
    struct trial t;
    struct context c = {.groups = groups, .norms = norms};
    size_t width = groups * SCALARS;
    double sum = 0;
    trial_begin(&t, KERNEL_F32, "guard of %zu groups, %zu norms, clip %g%s%s%s", groups, norms, clip,
                before ? ", applied before" : "", skip ? ", skip" : "",
                bad > 0 || !isfinite(loss) ? ", not finite" : "");
    for (size_t k = 0; k < norms; k++) {
        c.records[k] = floats(&t, (const double[2]){1.5 + (double)k, k + 1 == norms ? bad : 0}, 2);
        sum += trial_value(&t, c.records[k])[0];
    }
    c.loss = floats(&t, (const double[4]){loss, 1, 2, 3}, 4);
    c.rows = trial_normal(&t, ARRAY_F32, 2 * width, 0.5, 0.3);
    c.settings = floats(&t, (const double[2]){clip, skip}, 2);
    c.control = floats(&t, (const double[CONTROL]){before, 3, 1}, CONTROL);
    c.scalars = trial_output(&t, ARRAY_F32, width);
    double *scalars = trial_expect(&t, c.scalars), *control = trial_expect_new(&t, c.control), norm = sqrt(sum);
    bool finite = !(bad > 0) && isfinite(loss), applied = finite && !skip;
    for (size_t i = 0; i < width; i++) {
        scalars[i] = trial_value(&t, c.rows)[before * width + i];
        if (i % SCALARS == SCALE && clip > 0 && norm > clip && !(bad > 0)) scalars[i] *= clip / norm;
        if (i % SCALARS == APPLY) scalars[i] = applied;
    }
    control[APPLIED] = applied;
    control[NORM] = norm;
    control[FINITE] = finite;
    if (bad > 0) t.arrays[c.control].skipped = 2; /* the norm is NaN; the scalars show the decision */
    trial_run(&t, guard, &c);
}

static void try_controller(bool multiplier, bool applied, double target, double sum, double least, double most)
{
    enum { P_GAIN = 1, I_GAIN = 2 };
    struct trial t;
    struct context c = {.multiplier = multiplier};
    const double set[] = {target, 0.3, 0.02, least, most, 8};
    trial_begin(&t, KERNEL_F32, "controller %d, target %g, sum %g, within %g .. %g%s", multiplier, target, sum, least,
                most, applied ? "" : ", not applied");
    c.state = floats(&t, (const double[3]){0.4, 0.1, sum}, 3);
    c.scales = floats(&t, (const double[3]){1, 0.4, 2}, 3);
    c.loss = floats(&t, (const double[5]){3, 5, 36, 7, 9}, 5);
    c.control = floats(&t, (const double[CONTROL]){applied, 7, 1}, CONTROL);
    c.settings = floats(&t, set, 6);
    double *state = trial_expect_new(&t, c.state), *scales = trial_expect_new(&t, c.scales);
    double e = (double)(float)target - 4.5, i = (double)(float)set[I_GAIN], p = (double)(float)set[P_GAIN];
    for (int k = 0; k < 3; k++) {
        state[k] = trial_value(&t, c.state)[k];
        scales[k] = trial_value(&t, c.scales)[k];
    }
    state[1] = state[0];
    if (applied && multiplier) {
        state[2] += i * e / (1 + exp(-state[2]));
        state[0] = 1 - log(1 + exp(state[2]));
    } else if (applied) {
        double rest = p / (1 + exp(e)) + (double)(float)least, next = state[2] - i * e;
        if (e < 0 && rest + next > most) next = fmax(state[2], most - rest);
        if (e > 0 && rest + next < (double)(float)least) next = fmin(state[2], (double)(float)least - rest);
        state[2] = next;
        state[0] = fmin(fmax(rest + state[2], (double)(float)least), (double)(float)most);
    }
    if (applied) scales[1] = state[0];
    trial_run(&t, controller, &c);
}

static void controllers_match(void **unused)
{
    (void)unused;
    for (int applied = 0; applied < 2; applied++) {
        try_controller(false, applied, 3, 0.2, 0, 1);     /* the KL is above: beta rises */
        try_controller(false, applied, 6, 0.2, 0, 1);     /* below: it falls             */
        try_controller(false, applied, 3, 0.9, 0, 1);     /* at the upper bound          */
        try_controller(false, applied, 6, 0.9, 0.05, 1);  /* and back from it            */
        try_controller(false, applied, 6, -0.4, 0.05, 1); /* at the lower bound          */
        try_controller(false, applied, 3, -0.4, 0.05, 1);
        try_controller(false, applied, 300, 0.1, 0, 1);
        try_controller(true, applied, 3, 0.5, 0, 0);
        try_controller(true, applied, 6, -2, 0, 0);
        try_controller(true, applied, 6, 4, 0, 0);
    }
}

static void decisions_match(void **state)
{
    static const size_t given[][2] = {{1, 1}, {2, 1}, {31, 2}, {256, 7}, {1025, 8}}; /* columns or groups, norms */
    static const struct sweep sizes = SWEEP(given, 8200, 1025, KERNEL_MOST_NORMS);
    (void)state;
    for (size_t i = 0; i < sweep_count(&sizes); i++) {
        size_t n[2];
        sweep_shape(n, &sizes, i);
        for (int way = 0; way < 4; way++) try_select(n[0], way & 1, way & 2);
        if (i >= sizes.count) try_guard(n[0], n[1], i % 2, 1.0, i % 3 == 0, 2, i % 4 == 3 ? 1 : 0);
    }
    for (int second = 0; second < 2; second++) try_select(0, second, second);
    const float *const too_many[KERNEL_MOST_NORMS + 1] = {NULL};
    assert_int_not_equal(guard_cuda(&(struct guard_args){.scalars = NULL,
                                                         .control = NULL,
                                                         .loss = NULL,
                                                         .rows = NULL,
                                                         .settings = NULL,
                                                         .norms = too_many,
                                                         .count = KERNEL_MOST_NORMS + 1,
                                                         .groups = 1},
                                    NULL),
                         0);
    for (int option = 0; option < 8; option++) {
        double loss = option & 2 ? 3.5 : option & 4 ? INFINITY : NAN;
        try_guard(6, 6, option & 1, 1.0, option == 3, loss, 0);
        try_guard(1, 1, option & 1, 100, false, 2, option & 4 ? 1 : 0);
        try_guard(40, 8, option & 1, 0, option & 2, -1, 0); /* more scalars than threads */
        try_guard(3, 2, option & 1, 1.99, false, 0, 0);     /* the norm of 2 is just above */
        try_guard(17, 5, option & 1, 0.5, false, 0, 0);
    }
    for (size_t i = 0; i < 5; i++)
        for (int is_sgd = 0; is_sgd < 2; is_sgd++) try_skipped((const size_t[]){1, 255, 256, 257, 3001}[i], is_sgd);
}

static const size_t counts[][1] = {{0}, {1}, {255}, {1024}, {1025}, {3001}, {9999}, {8192}, {70004}};
static const struct sweep shapes = SWEEP(counts, 1025, 1025);

static void updates_match(void **state)
{
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n;
        sweep_shape(&n, &shapes, i);
        for (int option = 0; option < 4; option++) try(n, option & 1, option & 2, -1);
    }
    for (int shifted = 0; shifted < 5; shifted++)
        for (int is_sgd = 0; is_sgd < 2; is_sgd++) try(4100, true, is_sgd, shifted);
}

static void narrow_moments_match(void **state)
{
    static const size_t beyond = ((size_t)1 << 34) - 2048;
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n;
        sweep_shape(&n, &shapes, i);
        for (int is_sgd = 0; is_sgd < 2; is_sgd++) try_narrow(n, i % 3 == 1 ? 5 + i : i * 1024, is_sgd, false);
    }
    for (int is_sgd = 0; is_sgd < 2; is_sgd++) {
        try_narrow(4096, beyond, is_sgd, false);
        try_narrow(4096, beyond + 1, is_sgd, false);
        try_narrow(65536, 0, is_sgd, true);
    }
}

static int pieces(const struct trial *t, const void *context)
{
    const struct context *c = context;
    int e = block_squares_cuda(at(t, c->sums), at(t, c->gradient), c->count, NULL);
    return e ? e
             : combined_norm_cuda(&(struct combined_norm_args){.record = at(t, c->record),
                                                               .scratch = at(t, c->scratch),
                                                               .sums = at(t, c->sums),
                                                               .at = at(t, c->places),
                                                               .blocks = (c->count + 1023) / 1024},
                                  NULL);
}

/* The norm in one launch; or `in_pieces`, from block sums that were computed in order and are gathered in reverse. */
static void try_norm(size_t count, size_t bad, bool shifted, bool in_pieces)
{
    struct trial t;
    struct context c = {.count = count};
    size_t blocks = (count + 1023) / 1024;
    int32_t *places = calloc(blocks + 1, sizeof *places);
    for (size_t i = 0; i < blocks; i++) places[i] = (int32_t)(blocks - 1 - i);
    trial_begin(&t, KERNEL_F32, "squared norm %zu, %zu bad%s", count, bad, in_pieces ? ", in pieces" : "");
    if (in_pieces) c.places = trial_integers(&t, places, blocks);
    if (in_pieces) c.sums = trial_scratch(&t, ARRAY_F64, blocks);
    c.gradient = trial_normal(&t, ARRAY_F32, count, 0.1, 1);
    c.scratch = trial_scratch(&t, ARRAY_F64, squared_norm_scratch_doubles(count));
    c.record = trial_output(&t, ARRAY_F32, 2);
    double *record = trial_expect(&t, c.record);
    for (size_t i = 0; i < count; i++) record[0] += pow(trial_value(&t, c.gradient)[i], 2);
    if (bad) { /* one in each of the last blocks; the sum is then not compared, but the count is exact */
        float values[2] = {INFINITY, NAN}, *g = t.arrays[c.gradient].initial;
        for (size_t i = 0; i < bad; i++) g[count - 1 - i * 1024] = values[i % 2];
        t.arrays[c.record].expect[0] = 0;
        t.arrays[c.record].expect[1] = (double)bad;
        t.arrays[c.record].skipped = 1;
    }
    if (shifted) trial_shift(&t, c.gradient);
    trial_run(&t, in_pieces ? pieces : squared_norm, &c);
    free(places);
}

static void norm_matches(void **state)
{
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n;
        sweep_shape(&n, &shapes, i);
        for (int in_pieces = 0; in_pieces < 2; in_pieces++) try_norm(n, 0, false, in_pieces);
    }
    for (int in_pieces = 0; in_pieces < 2; in_pieces++) {
        try_norm(5000, 1, false, in_pieces);
        try_norm(5000, 3, true, in_pieces);
        try_norm(70001, 40, false, in_pieces);
    }
}

TRIAL_MAIN(cmocka_unit_test(updates_match), cmocka_unit_test(narrow_moments_match), cmocka_unit_test(controllers_match),
           cmocka_unit_test(decisions_match), cmocka_unit_test(norm_matches))
