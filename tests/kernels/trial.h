/* One harness for every launcher of kernels/: a trial names a launcher's arrays, calls it, and gives its mathematics in
 * double. It runs on the emulated device in three warp orders, or on a real one several times (device.h):
 *
 *   the same bits in every run; inputs untouched; outputs close to the double reference (tests/tolerances.h);
 *   every array is an allocation of its own, so an access past its end faults when emulated;
 *   beforehand outputs hold the values to add to, else NaN, and in every second run huge numbers.
 *
 * Inputs are rounded to their type before the reference sees them. A bf16 result may err at most twice as much as the
 * reference rounded once to bf16; f32 results of bf16 inputs are held to the f32 tolerance. */
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
    double *value;  /* before the launch, rounded; null: NaN          */
    double *expect; /* after it; null: an input, or not looked at     */
    void *initial;  /* the bytes of value                             */
    void *device;   /* while the launcher runs                        */
    void *first;    /* what the first order left                      */
    bool scratch;   /* need not be the same in every order        */
    size_t skipped; /* first elements that are not compared       */
    bool exact;     /* no tolerance: expect is met to the bit     */
    bool replaced;  /* expect stands for itself, nothing is added */
    bool shifted;   /* begins one element behind an aligned address */
};

struct trial {
    char name[160];        /* the launcher in words, then its sizes and options */
    enum kernel_type type; /* T, as the launchers' */
    struct array arrays[MOST_ARRAYS];
    size_t count;
    uint64_t seed;
    double tolerance; /* of f32 outputs */
};

void trial_begin(struct trial *t, enum kernel_type type, const char *format, ...) __attribute__((format(printf, 3, 4)));
enum array_type trial_t(const struct trial *t); /* T as an array's type */

/* Arrays are numbered from 0 in the order in which they are made; each returns its number. */
int trial_normal(struct trial *t, enum array_type type, size_t count, double mean, double deviation);
int trial_integers(struct trial *t, const int32_t *values, size_t count);
int trial_samples(struct trial *t, size_t count); /* (S) u64, some beyond 32 bits */
/* The header of a launch: an address of noise, and how many tokens and sentences are true ones. */
enum { TRIAL_SEED = 0x1234567, TRIAL_PURPOSE = 0x89abcde, TRIAL_STEP = 5, TRIAL_DRAW = 3 };
int trial_header(struct trial *t, size_t tokens, size_t sentences);
int trial_output(struct trial *t, enum array_type type, size_t count);
int trial_scratch(struct trial *t, enum array_type type, size_t count);
/* An array that the launcher adds to where `add`, else overwrites. */
int trial_sum(struct trial *t, enum array_type type, size_t count, bool add);

static inline const double *trial_value(const struct trial *t, int array)
{
    return t->arrays[array].value;
}

/* What the launcher must leave there. Of a sum, the reference of what is added: trial_run adds the values before. */
double *trial_expect(struct trial *t, int array);
/* The same for an array that is read and overwritten: the new values themselves. */
double *trial_expect_new(struct trial *t, int array);

/* The device's pointer, for launchers; null for -1 and for empty arrays. */
static inline void *at(const struct trial *t, int array)
{
    return array < 0 ? NULL : t->arrays[array].device;
}

/* Takes an array's alignment from it: it begins one element further on. */
static inline void trial_shift(struct trial *t, int array)
{
    t->arrays[array].shifted = true;
}

/* Runs the launcher as often as the device says, and compares. Frees the trial's memory. */
void trial_run(struct trial *t, int (*launch)(const struct trial *t, const void *context), const void *context);

double trial_round(double v, enum array_type type);

/* Ragged sentences of some total: lengths from the seed with empty ones and ones of a single token between them. */
struct sentences {
    size_t sentences, tokens, longest;
    int32_t offsets[65], sentence[2048], position[2048];
};
void trial_sentences(struct sentences *s, size_t sentences, size_t longest, uint64_t seed);
uint64_t trial_random(uint64_t *seed);

/* The shapes of a test: those given, and with ELBO_TEST_FULL=1 also SWEEP_SHAPES ragged ones. In these every dimension
 * takes sizes at and beside the edges of tiles (1, 7, 8, 9, 15, 16, 17, 31, ... 1025) up to `most` of that dimension,
 * each size with others of the other dimensions, and their product is at most `volume`.
 *
 *     static const size_t given[][2] = {{1, 1}, {3, 5}};
 *     static const struct sweep shapes = SWEEP(given, 20000, 1025, 600);
 *     for (size_t i = 0; i < sweep_count(&shapes); i++) {
 *         size_t s[2];
 *         sweep_shape(s, &shapes, i);
 */
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

/* Runs the tests, then says the worst errors. A program that has no device ends with 77. */
#define TRIAL_MAIN(...)                                                                                                \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                                               \
        if (trial_skips()) return 77;                                                                                  \
        int failed = cmocka_run_group_tests(tests, NULL, NULL);                                                        \
        return trial_report() || failed;                                                                               \
    }
bool trial_skips(void);
/* Prints a line, and appends one per launcher and type to $ELBO_TEST_RESULTS. True when a launcher saw too few shapes.
 */
bool trial_report(void);

#endif
