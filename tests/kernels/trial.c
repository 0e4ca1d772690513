/* Runs the trials of trial.h. */
#include "kernels/trial.h"
#include "base/philox.h"
#include "sim.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double worst_f32, worst_bf16;
static size_t trials;

static size_t element(enum array_type type)
{
    return type == ARRAY_BF16 ? 2 : type == ARRAY_F32 || type == ARRAY_I32 ? 4 : 8;
}

static void encode(void *to, size_t i, enum array_type type, double v)
{
    switch (type) {
    case ARRAY_F32: ((float *)to)[i] = (float)v; break;
    case ARRAY_BF16: ((__nv_bfloat16 *)to)[i] = __float2bfloat16((float)v); break;
    case ARRAY_F64: ((double *)to)[i] = v; break;
    case ARRAY_I32: ((int32_t *)to)[i] = (int32_t)v; break;
    case ARRAY_U64: ((uint64_t *)to)[i] = (uint64_t)v; break;
    }
}

static double decode(const void *from, size_t i, enum array_type type)
{
    switch (type) {
    case ARRAY_F32: return (double)((const float *)from)[i];
    case ARRAY_BF16: return (double)__bfloat162float(((const __nv_bfloat16 *)from)[i]);
    case ARRAY_F64: return ((const double *)from)[i];
    case ARRAY_I32: return (double)((const int32_t *)from)[i];
    case ARRAY_U64: return (double)((const uint64_t *)from)[i];
    }
    return 0;
}

double trial_round(double v, enum array_type type)
{
    unsigned char bytes[8];
    encode(bytes, 0, type, v);
    return decode(bytes, 0, type);
}

uint64_t trial_random(uint64_t *seed)
{
    return mix64(++*seed);
}

void trial_begin(struct trial *t, enum kernel_type type, const char *format, ...)
{
    va_list arguments;
    size_t length;
    memset(t, 0, sizeof *t);
    va_start(arguments, format);
    vsnprintf(t->name, sizeof t->name - 8, format, arguments);
    va_end(arguments);
    length = strlen(t->name);
    memcpy(t->name + length, type == KERNEL_BF16 ? " bf16" : " f32", type == KERNEL_BF16 ? 6 : 5);
    t->type = type;
    t->tolerance = TOLERANCE_FORWARD;
    t->seed = noise_purpose(t->name);
}

enum array_type trial_t(const struct trial *t)
{
    return t->type == KERNEL_BF16 ? ARRAY_BF16 : ARRAY_F32;
}

static struct array *new_array(struct trial *t, enum array_type type, size_t count, bool filled)
{
    assert_true(t->count < MOST_ARRAYS);
    struct array *a = &t->arrays[t->count++];
    size_t bytes = count ? count * element(type) : 1;
    a->type = type;
    a->count = count;
    a->initial = malloc(bytes);
    assert_non_null(a->initial);
    memset(a->initial, 0xff, bytes);
    if (filled) {
        a->value = calloc(count ? count : 1, sizeof *a->value);
        assert_non_null(a->value);
    }
    return a;
}

static void fill(struct trial *t, struct array *a, double mean, double deviation)
{
    struct noise_key key = noise_key(t->seed, t->count, 0);
    for (size_t i = 0; i < a->count; i++) {
        float eps[4];
        noise_normal4(eps, noise_block(key, 0, 0, (uint32_t)(i / 4)));
        encode(a->initial, i, a->type, mean + deviation * (double)eps[i % 4]);
        a->value[i] = decode(a->initial, i, a->type);
    }
}

int trial_normal(struct trial *t, enum array_type type, size_t count, double mean, double deviation)
{
    fill(t, new_array(t, type, count, true), mean, deviation);
    return (int)t->count - 1;
}

int trial_integers(struct trial *t, const int32_t *values, size_t count)
{
    struct array *a = new_array(t, ARRAY_I32, count, true);
    if (count) memcpy(a->initial, values, count * sizeof *values);
    for (size_t i = 0; i < count; i++) a->value[i] = values[i];
    return (int)t->count - 1;
}

int trial_samples(struct trial *t, size_t count)
{
    struct array *a = new_array(t, ARRAY_U64, count, true);
    uint64_t seed = t->seed;
    for (size_t i = 0; i < count; i++) {
        uint64_t sample = trial_random(&seed) >> (i % 2 ? 12 : 40); /* exact as a double */
        memcpy((char *)a->initial + i * sizeof sample, &sample, sizeof sample);
        a->value[i] = (double)sample;
    }
    return (int)t->count - 1;
}

int trial_output(struct trial *t, enum array_type type, size_t count)
{
    new_array(t, type, count, false);
    return (int)t->count - 1;
}

int trial_scratch(struct trial *t, enum array_type type, size_t count)
{
    new_array(t, type, count, false)->scratch = true;
    return (int)t->count - 1;
}

int trial_sum(struct trial *t, enum array_type type, size_t count, bool add)
{
    return add ? trial_normal(t, type, count, 0.1, 0.7) : trial_output(t, type, count);
}

double *trial_expect(struct trial *t, int array)
{
    struct array *a = &t->arrays[array];
    a->expect = calloc(a->count ? a->count : 1, sizeof *a->expect);
    assert_non_null(a->expect);
    return a->expect;
}

double *trial_expect_new(struct trial *t, int array)
{
    t->arrays[array].replaced = true;
    return trial_expect(t, array);
}

void trial_sentences(struct sentences *s, size_t sentences, size_t longest, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->sentences = sentences;
    for (size_t i = 0; i < sentences; i++) {
        size_t length = i % 5 == 3 ? 0 : i % 5 == 1 ? 1 : i ? trial_random(&seed) % longest + 1 : longest;
        if (length > s->longest) s->longest = length;
        for (size_t p = 0; p < length; p++) {
            s->sentence[s->tokens] = (int32_t)i;
            s->position[s->tokens++] = (int32_t)p;
        }
        s->offsets[i + 1] = (int32_t)s->tokens;
    }
    assert_true(s->tokens <= sizeof s->position / sizeof *s->position);
}

/* ---- running and comparing ---- */

static void cuda(const struct trial *t, int error, const char *what)
{
    if (error) fail_msg("%s: %s: %s (%s)", t->name, what, cudaGetErrorName((cudaError_t)error), sim_message());
}

/* Relative error in the Euclidean norm, and that of the reference rounded once to the output's type. */
static double relative(const struct array *a, const void *got, double *floor)
{
    double difference = 0, rounding = 0, norm = 0;
    for (size_t i = a->skipped; i < a->count; i++) {
        double e = a->expect[i] + (a->value && !a->replaced ? a->value[i] : 0), v = decode(got, i, a->type);
        difference += (v - e) * (v - e);
        rounding += pow(trial_round(e, a->type) - e, 2);
        norm += e * e;
    }
    if (norm == 0) norm = 1;
    *floor = sqrt(rounding / norm);
    return sqrt(difference / norm);
}

static void compare(const struct trial *t, size_t index, const struct array *a)
{
    double floor, error = relative(a, a->first, &floor), limit = t->tolerance;
    if (a->type == ARRAY_BF16) limit = TOLERANCE_BF16_RATIO * floor + t->tolerance;
    if (!(error <= limit)) fail_msg("%s: array %zu is off by %.3g, at most %.3g", t->name, index, error, limit);
    if (a->type == ARRAY_BF16 && floor > 0 && error / floor > worst_bf16) worst_bf16 = error / floor;
    if (a->type != ARRAY_BF16 && error > worst_f32) worst_f32 = error;
}

static void run_once(struct trial *t, int (*launch)(const struct trial *t, const void *context), const void *context,
                     bool first)
{
    for (size_t i = 0; i < t->count; i++) {
        struct array *a = &t->arrays[i];
        size_t bytes = a->count * element(a->type);
        a->device = NULL;
        cuda(t, cudaMalloc(&a->device, bytes), "cudaMalloc");
        cuda(t, cudaMemcpy(a->device, a->initial, bytes, cudaMemcpyHostToDevice), "copy to the device");
    }
    cuda(t, launch(t, context), "launch");
    cuda(t, cudaDeviceSynchronize(), "synchronize");
    for (size_t i = 0; i < t->count; i++) {
        struct array *a = &t->arrays[i];
        size_t bytes = a->count * element(a->type);
        void *after = malloc(bytes ? bytes : 1);
        assert_non_null(after);
        cuda(t, cudaMemcpy(after, a->device, bytes, cudaMemcpyDeviceToHost), "copy from the device");
        cuda(t, cudaFree(a->device), "cudaFree");
        if (a->value && !a->expect && memcmp(after, a->initial, bytes)) fail_msg("%s: input %zu was changed", t->name, i);
        if (!first && !a->scratch && memcmp(after, a->first, bytes))
            fail_msg("%s: array %zu differs between orders of warps", t->name, i);
        if (first)
            a->first = after;
        else
            free(after);
    }
}

void trial_run(struct trial *t, int (*launch)(const struct trial *t, const void *context), const void *context)
{
    for (int order = 0; order < SIM_ORDERS; order++) {
        sim_set_order((enum sim_order)order, t->seed | 1);
        run_once(t, launch, context, order == 0);
    }
    for (size_t i = 0; i < t->count; i++) {
        struct array *a = &t->arrays[i];
        if (a->expect) compare(t, i, a);
        free(a->value);
        free(a->expect);
        free(a->initial);
        free(a->first);
    }
    t->count = 0;
    trials++;
}

void trial_report(void)
{
    printf("%zu trials in %d orders; f32 off by at most %.2g, bf16 by at most %.2f roundings of the result\n", trials,
           (int)SIM_ORDERS, worst_f32, worst_bf16);
}
