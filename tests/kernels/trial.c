/* Runs the trials of trial.h: makes arrays, launches in every order, compares with the double reference, and counts the
 * shapes that each launcher has seen. */
#include "kernels/trial.h"
#include "base/philox.h"
#include "kernels/device.h"

#include <cuda_runtime.h>

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_LAUNCHERS = 64, MOST_SHAPES = 1024, LEAST_SHAPES = 5, CHOSEN_ELEMENTS = 4096 };

/* Statistics of one launcher and type. */
struct seen {
    char launcher[64];
    enum kernel_type type;
    size_t trials, runs, shapes;
    uint64_t shape[MOST_SHAPES]; /* hashes of the sizes in the names */
    double f32, bf16, seconds;   /* worst relative error; worst error in roundings of the result */
    bool chosen;                 /* the launcher has had its trial that runs many times */
};
static struct seen all[MOST_LAUNCHERS];
static size_t launchers;

static size_t element(enum array_type type)
{
    return type == ARRAY_BF16 ? 2 : type == ARRAY_F32 || type == ARRAY_I32 ? 4 : 8;
}

/* Returns the upper half of an f32, rounded to nearest even. */
static uint16_t bf16_of(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    if ((word & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (uint16_t)((word + 0x7fffu + (word >> 16 & 1)) >> 16);
}

static float f32_of(uint16_t bits)
{
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static void encode(void *to, size_t i, enum array_type type, double v)
{
    switch (type) {
    case ARRAY_F32:
        ((float *)to)[i] = (float)v;
        break;
    case ARRAY_BF16:
        ((uint16_t *)to)[i] = bf16_of((float)v);
        break;
    case ARRAY_F64:
        ((double *)to)[i] = v;
        break;
    case ARRAY_I32:
        ((int32_t *)to)[i] = (int32_t)v;
        break;
    case ARRAY_U64:
        ((uint64_t *)to)[i] = (uint64_t)v;
        break;
    }
}

static double decode(const void *from, size_t i, enum array_type type)
{
    switch (type) {
    case ARRAY_F32:
        return (double)((const float *)from)[i];
    case ARRAY_BF16:
        return (double)f32_of(((const uint16_t *)from)[i]);
    case ARRAY_F64:
        return ((const double *)from)[i];
    case ARRAY_I32:
        return (double)((const int32_t *)from)[i];
    case ARRAY_U64:
        return (double)((const uint64_t *)from)[i];
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

int trial_header(struct trial *t, size_t tokens, size_t sentences)
{
    struct kernel_header h = {.seed = TRIAL_SEED,
                              .step = TRIAL_STEP,
                              .draw = TRIAL_DRAW,
                              .count = {[HEADER_DEC_TOKENS] = tokens, [HEADER_SENTENCES] = sentences}};
    size_t words = sizeof h / sizeof h.seed;
    struct array *a = new_array(t, ARRAY_U64, words, true);
    memcpy(a->initial, &h, sizeof h);
    for (size_t i = 0; i < words; i++) a->value[i] = decode(a->initial, i, ARRAY_U64);
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

/* ---- shapes ---- */

static const size_t edges[] = {1,  2,  7,  8,   9,   15,  16,  17,  31,  32,   33,   63,
                               64, 65, 96, 127, 128, 129, 255, 256, 257, 1000, 1024, 1025};
enum { EDGES = sizeof edges / sizeof *edges };

static bool full(void)
{
    const char *wanted = getenv("ELBO_TEST_FULL");
    return wanted && *wanted && strcmp(wanted, "0") != 0;
}

size_t sweep_count(const struct sweep *sweep)
{
    return sweep->count + (full() ? SWEEP_SHAPES : 0);
}

/* Strides are coprime with the number of edges, so every dimension meets each of its edges. */
void sweep_shape(size_t *shape, const struct sweep *sweep, size_t i)
{
    static const size_t stride[SWEEP_DIMENSIONS] = {1, 5, 7, 11, 13, 17};
    size_t volume = 1, usable[SWEEP_DIMENSIONS], largest;
    _Static_assert((size_t)SWEEP_SHAPES == (size_t)EDGES, "every edge once");
    if (i < sweep->count) {
        memcpy(shape, sweep->given + i * sweep->dimensions, sweep->dimensions * sizeof *shape);
        return;
    }
    for (size_t d = 0; d < sweep->dimensions; d++) {
        for (usable[d] = 0; usable[d] < EDGES && edges[usable[d]] <= sweep->most[d];) usable[d]++;
        assert_true(usable[d] > 0);
        shape[d] = ((i - sweep->count + d * 3) * stride[d]) % EDGES; /* an edge's number first */
        if (shape[d] >= usable[d]) shape[d] %= usable[d];
        volume *= edges[shape[d]];
    }
    while (volume > sweep->volume) { /* the largest gives way */
        largest = 0;
        for (size_t d = 1; d < sweep->dimensions; d++)
            if (shape[d] > shape[largest]) largest = d;
        assert_true(shape[largest] > 0);
        volume = volume / edges[shape[largest]] * edges[shape[largest] - 1];
        shape[largest]--;
    }
    for (size_t d = 0; d < sweep->dimensions; d++) shape[d] = edges[shape[d]];
}

/* ---- statistics ---- */

/* The launcher's name is the trial's name up to the first size. The digits that follow are hashed as the shape, up to
 * options that are numbers. */
static struct seen *seen_of(const struct trial *t, uint64_t *shape)
{
    char launcher[sizeof all->launcher];
    size_t n = strcspn(t->name, "0123456789,");
    while (n && t->name[n - 1] == ' ') n--;
    snprintf(launcher, sizeof launcher, "%.*s", (int)n, t->name);
    assert_true(n > 0);
    *shape = 0;
    for (const char *p = t->name + n;
         *p && strncmp(p, "wanted", 6) && strncmp(p, "given", 5) && strncmp(p, " bf16", 5) && strncmp(p, " f32", 4);
         p++)
        if (isdigit((unsigned char)*p))
            *shape = mix64(*shape * 32 + (isdigit((unsigned char)p[-1]) ? 0u : 16u) + (uint64_t)(*p - '0'));
    for (size_t i = 0; i < launchers; i++)
        if (all[i].type == t->type && !strcmp(all[i].launcher, launcher)) return &all[i];
    assert_true(launchers < MOST_LAUNCHERS);
    struct seen *new = &all[launchers++];
    memcpy(new->launcher, launcher, sizeof launcher);
    new->type = t->type;
    return new;
}

static void count_shape(struct seen *seen, uint64_t shape)
{
    for (size_t i = 0; i < seen->shapes; i++)
        if (seen->shape[i] == shape) return;
    if (seen->shapes < MOST_SHAPES) seen->shape[seen->shapes++] = shape;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- running and comparing ---- */

static void cuda(const struct trial *t, int error, const char *what)
{
    if (error) fail_msg("%s: %s: %s (%s)", t->name, what, cudaGetErrorName((cudaError_t)error), device_message());
}

/* Returns the relative error in the Euclidean norm. *floor: the error of the reference rounded once to the output's
 * type. */
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

static void compare(const struct trial *t, size_t index, const struct array *a, struct seen *seen)
{
    for (size_t i = a->skipped; i < a->count && a->exact; i++) {
        unsigned char wanted[8];
        encode(wanted, 0, a->type, a->expect[i]);
        if (memcmp(wanted, (const char *)a->first + i * element(a->type), element(a->type)))
            fail_msg("%s: array %zu, element %zu has other bits than %g", t->name, index, i, a->expect[i]);
    }
    if (a->exact) return;
    double floor, error = relative(a, a->first, &floor), limit = t->tolerance;
    if (a->type == ARRAY_BF16) limit = TOLERANCE_BF16_RATIO * floor + t->tolerance;
    if (!(error <= limit)) fail_msg("%s: array %zu is off by %.3g, at most %.3g", t->name, index, error, limit);
    if (a->type == ARRAY_BF16 && floor > 0) seen->bf16 = fmax(seen->bf16, error / floor);
    if (a->type != ARRAY_BF16) seen->f32 = fmax(seen->f32, error);
}

enum { PATTERN_NAN = 0xff, PATTERN_HUGE = 0x7f };

static void run_once(struct trial *t, int (*launch)(const struct trial *t, const void *context), const void *context,
                     size_t run)
{
    bool first = run == 0;
    for (size_t i = 0; i < t->count; i++) {
        struct array *a = &t->arrays[i];
        size_t bytes = a->count * element(a->type), shift = a->shifted ? element(a->type) : 0;
        a->device = NULL;
        if (!a->value) memset(a->initial, run % 2 ? PATTERN_HUGE : PATTERN_NAN, bytes);
        cuda(t, cudaMalloc(&a->device, bytes + shift), "cudaMalloc");
        if (shift) a->device = (char *)a->device + shift;
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
        cuda(t, cudaFree((char *)a->device - (a->shifted ? element(a->type) : 0)), "cudaFree");
        if (a->value && !a->expect && memcmp(after, a->initial, bytes))
            fail_msg("%s: input %zu was changed", t->name, i);
        if (!first && !a->scratch && memcmp(after, a->first, bytes))
            fail_msg("%s: array %zu differs between %s", t->name, i, device_difference());
        if (first)
            a->first = after;
        else
            free(after);
    }
}

void trial_run(struct trial *t, int (*launch)(const struct trial *t, const void *context), const void *context)
{
    uint64_t shape;
    struct seen *seen = seen_of(t, &shape);
    size_t elements = 0, run = 0;
    double began = now();
    for (size_t i = 0; i < t->count; i++) elements += t->arrays[i].count;
    bool chosen = !seen->chosen && elements >= CHOSEN_ELEMENTS;
    seen->chosen |= chosen;
    for (; run < device_runs(chosen) && device_prepare(run, t->seed, now() - began); run++)
        run_once(t, launch, context, run);
    for (size_t i = 0; i < t->count; i++) {
        struct array *a = &t->arrays[i];
        if (a->expect) compare(t, i, a, seen);
        free(a->value);
        free(a->expect);
        free(a->initial);
        free(a->first);
    }
    t->count = 0;
    seen->trials++;
    if (run > seen->runs) seen->runs = run;
    seen->seconds += now() - began;
    count_shape(seen, shape);
}

bool trial_skips(void)
{
    const char *why = device_missing();
    if (why) printf("skipped: %s\n", why);
    return why != NULL;
}

bool trial_report(void)
{
    const char *path = getenv("ELBO_TEST_RESULTS");
    FILE *results = path && *path ? fopen(path, "a") : NULL;
    double f32 = 0, bf16 = 0;
    size_t trials = 0, runs = 0;
    bool few = false;
    for (size_t i = 0; i < launchers; i++) {
        const struct seen *s = &all[i];
        f32 = fmax(f32, s->f32);
        bf16 = fmax(bf16, s->bf16);
        trials += s->trials;
        if (s->runs > runs) runs = s->runs;
        if (s->shapes < LEAST_SHAPES) {
            printf("%s, %s: only %zu shapes, at least %d\n", s->launcher, s->type == KERNEL_BF16 ? "bf16" : "f32",
                   s->shapes, (int)LEAST_SHAPES);
            few = true;
        }
        if (results)
            fprintf(results,
                    "{\"launcher\": \"%s\", \"type\": \"%s\", \"device\": \"%s\", \"shapes\": %zu, \"trials\": %zu, "
                    "\"runs\": %zu, \"worst_f32\": %.3g, \"worst_bf16_roundings\": %.3g, \"seconds\": %.3f}\n",
                    s->launcher, s->type == KERNEL_BF16 ? "bf16" : "f32", device_name(), s->shapes, s->trials, s->runs,
                    s->f32, s->bf16, s->seconds);
    }
    if (path && *path && !results) printf("%s cannot be written\n", path);
    if (results) fclose(results);
    printf("%zu trials, up to %zu runs each; f32 off by at most %.2g, bf16 by at most %.2f roundings of the result\n",
           trials, runs, f32, bf16);
    return few || (path && *path && !results);
}
