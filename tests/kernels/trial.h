/* One harness for every launcher of kernels/: a trial names a launcher's arrays, calls the launcher, and gives its
 * formula in double. It runs on the emulated device in several warp orders, or on a real device several times
 * (device.h). It demands:
 *
 *   the same bits in every run; unchanged inputs; outputs close to the double reference (tests/tolerances.h);
 *   no access past an array's end, which faults on the emulated device, because every array is its own allocation.
 *
 * Before a run, outputs hold the values to add to; other outputs hold NaN, and huge numbers in every second run.
 *
 * Inputs are rounded to their type before the reference reads them. The error of a bf16 result is at most twice that of
 * the reference rounded once to bf16; f32 results of bf16 inputs must meet the f32 tolerance. */
#ifndef TESTS_KERNELS_TRIAL_H
#define TESTS_KERNELS_TRIAL_H

#include "kernels/kernels.h"
#include "tolerances.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum array_type { ARRAY_F32, ARRAY_BF16, ARRAY_F64, ARRAY_I32, ARRAY_U64 };
enum { MOST_ARRAYS = 16 };

struct array {
    enum array_type type;
    size_t count;
    double *value;  /* before the launch, rounded; null: NaN */
    double *expect; /* after the launch; null: an input, or not compared */
    void *initial;  /* `value` in bytes */
    void *device;   /* device memory while the launcher runs */
    void *first;    /* bytes after the first run */
    bool scratch;   /* may differ between runs */
    size_t skipped; /* leading elements that are not compared */
    bool exact;     /* no tolerance: the bits must equal expect */
    bool replaced;  /* expect is the new value, `value` is not added */
    bool shifted;   /* begins one element past an aligned address */
};

struct trial {
    char name[160];        /* the launcher in words, then its sizes and options */
    enum kernel_type type; /* the launcher's T */
    struct array arrays[MOST_ARRAYS];
    size_t count;
    uint64_t seed;
    double tolerance; /* of f32 outputs */
};

void trial_begin(struct trial *t, enum kernel_type type, const char *format, ...) __attribute__((format(printf, 3, 4)));
enum array_type trial_t(const struct trial *t); /* T as an array's type */

/* Arrays are numbered from 0 in the order of creation; each function returns the new array's number. */
int trial_normal(struct trial *t, enum array_type type, size_t count, double mean, double deviation);
int trial_integers(struct trial *t, const int32_t *values, size_t count);
int trial_samples(struct trial *t, size_t count); /* (S) u64, some beyond 32 bits */
/* The header of a launch: an address of noise, and the true numbers of tokens and sentences. */
enum { TRIAL_SEED = 0x1234567, TRIAL_PURPOSE = 0x89abcde, TRIAL_STEP = 5, TRIAL_DRAW = 3 };
int trial_header(struct trial *t, size_t tokens, size_t sentences);
int trial_output(struct trial *t, enum array_type type, size_t count);
int trial_scratch(struct trial *t, enum array_type type, size_t count);
/* An array that the launcher adds to if `add`, else overwrites. */
int trial_sum(struct trial *t, enum array_type type, size_t count, bool add);

static inline const double *trial_value(const struct trial *t, int array)
{
    return t->arrays[array].value;
}

/* Returns the array's expected values, to be filled in. For a sum they are the added part: trial_run adds the values
 * before. */
double *trial_expect(struct trial *t, int array);
/* The same for an array that is read and overwritten: the expected values are the new values. */
double *trial_expect_new(struct trial *t, int array);

/* Returns the array's device pointer, for launchers; null for -1 and for empty arrays. */
static inline void *at(const struct trial *t, int array)
{
    return array < 0 ? NULL : t->arrays[array].device;
}

/* Makes an array unaligned: it begins one element past an aligned address. */
static inline void trial_shift(struct trial *t, int array)
{
    t->arrays[array].shifted = true;
}

/* Runs the launcher device_runs times and compares. Frees the trial's memory. */
void trial_run(struct trial *t, int (*launch)(const struct trial *t, const void *context), const void *context);

double trial_round(double v, enum array_type type);

/* Ragged sentences: lengths drawn from the seed, with empty sentences and sentences of one token among them. */
struct sentences {
    size_t sentences, tokens, longest;
    int32_t offsets[65], sentence[2048], position[2048];
};
void trial_sentences(struct sentences *s, size_t sentences, size_t longest, uint64_t seed);
uint64_t trial_random(uint64_t *seed);

/* The shapes of a test: the given ones, and with ELBO_TEST_FULL=1 also SWEEP_SHAPES ragged ones. In a ragged shape
 * every dimension takes sizes at and beside the edges of tiles (1, 7, 8, 9, 15, 16, 17, 31, ... 1025) up to its `most`.
 * Each size meets several sizes of the other dimensions, and the product of the dimensions is at most `volume`.
 *
 *     static const size_t given[][2] = {{1, 1}, {3, 5}};
 *     static const struct sweep shapes = SWEEP(given, 20000, 1025, 600);
 *     for (size_t i = 0; i < sweep_count(&shapes); i++) {
 *         size_t s[2];
 *         sweep_shape(s, &shapes, i); */
enum { SWEEP_DIMENSIONS = 6, SWEEP_SHAPES = 24 };

struct sweep {
    const size_t *given;
    size_t count, dimensions, volume;
    size_t most[SWEEP_DIMENSIONS];
};

#define SWEEP(given, volume, ...)                                                                                      \
    {                                                                                                                  \
        &(given)[0][0], sizeof(given) / sizeof *(given), sizeof *(given) / sizeof(size_t), volume,                     \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
size_t sweep_count(const struct sweep *sweep);
void sweep_shape(size_t *shape, const struct sweep *sweep, size_t i);

/* Runs the tests, then reports the worst errors. Exits with 77 if there is no device. */
#define TRIAL_MAIN(...)                                                                                                \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                                               \
        if (trial_skips()) return 77;                                                                                  \
        int failed = cmocka_run_group_tests(tests, NULL, NULL);                                                        \
        return trial_report() || failed;                                                                               \
    }
bool trial_skips(void);
/* Prints a summary, and appends one line per launcher and type to $ELBO_TEST_RESULTS. Returns true if a launcher saw
 * too few shapes. */
bool trial_report(void);

#endif
