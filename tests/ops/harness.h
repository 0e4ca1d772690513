/* One harness for all ops. A trial names an op's inputs, records the op, and gives its mathematics as naive loops in
 * double.
 *
 * A trial is recorded as "parameters -> op -> weighted sum of its outputs" and differentiated, so that gradient rules
 * are tested as well as kernels. It runs on every instruction set of the machine with 1, 2, 3 and 8 threads, or with
 * ELBO_TEST_DEVICE=cuda on a GPU:
 *
 *   any number of threads and every run give the same bits;
 *   outputs and gradients are close to the double reference (tests/tolerances.h);
 *   a step's first slot overwrites a gradient arena of NaN, a later slot adds; an op recorded twice adds in place;
 *   activations, scratch and unused capacity hold NaN beforehand; the gaps between gradients are not written.
 *
 * The reference gradient is the central difference in double of every element, or an exact gradient that is itself
 * checked against differences of some elements. */
#ifndef TESTS_OPS_HARNESS_H
#define TESTS_OPS_HARNESS_H

#include "graph/autodiff.h"
#include "device/backends.h"
#include "graph/execute.h"
#include "graph/parameters.h"
#include "ops/ops.h"
#include "tolerances.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { MOST_OPERANDS = 5, MOST_RESULTS = 2, MOST_TOKENS = 2048, MOST_SENTENCES = 64, MOST_DEVICES = 16 };

/* ---- sentences ---- */

struct batch {
    size_t sentences, tokens;
    int32_t offsets[MOST_SENTENCES + 1], sentence[MOST_TOKENS], position[MOST_TOKENS];
    int32_t ids[MOST_TOKENS], order[MOST_TOKENS], labels[MOST_TOKENS];
    uint64_t sample[MOST_SENTENCES];
    float weights[ELBO_WEIGHTS];
    float running[2 * MOST_SENTENCES]; /* statistics of up to MOST_SENTENCES groups */
};

/* Ragged lengths. Together they have one token, one sentence, empty sentences, no sentences, and sums around tile
 * edges. */
struct ragged {
    size_t sentences, length[12];
};
extern const struct ragged harness_ragged[];
extern const size_t harness_ragged_count;

struct batch *batch_of(const struct ragged *lengths); /* ids and labels are 0; the caller frees it */
struct batch *batch_rows(size_t rows);                /* one sentence */
/* Sets ids and labels in 0 .. vocabulary - 1, with repetitions, and the order of the ids. */
void batch_words(struct batch *b, size_t vocabulary, uint64_t seed);

/* ---- trials ---- */

struct operand {
    enum dim_kind kind; /* DIM_FIXED: a parameter; else rows that are looked up in a parameter */
    size_t rows, width; /* width 0: rank 1 */
    double mean, deviation;
};

struct trial {
    const char *name;
    const struct batch *batch;
    size_t tail; /* capacity beyond the counts */
    struct operand in[MOST_OPERANDS];
    size_t inputs;
    long option[4];
    double real[2];
    bool forward_only; /* no gradients; counted inputs of rank 1 are graph inputs */
    bool is_loss;      /* out[0][0] is minimized; the op is not repeated */
    bool large;        /* fewer thread counts */
    void (*record)(struct graph *g, const struct trial *t, const value *in, value *out);
    void (*reference)(const struct trial *t, double *const *in, double *const *out);
    /* Writes din, the gradient given dout; null stands for central differences of every element. A null din[k] is not
     * wanted. */
    void (*gradient)(const struct trial *t, double *const *in, double *const *dout, double *const *din);
};

enum { HARNESS_SEED = 12345, HARNESS_STEP = 7, HARNESS_DRAW = 2 };
#define HARNESS_SCOPE "test.op"

void harness_try(const struct trial *t);
void harness_report(void); /* prints the worst errors of all trials so far */
/* Returns an integer or scalar input of the batch by the name of its field. */
value harness_input(struct graph *g, const char *name);

/* ---- for other tests of graphs ---- */

struct device {
    struct backend *backend;
    const char *variant;
    size_t threads;
};
extern struct device harness_device[MOST_DEVICES];
extern size_t harness_devices;

/* Returns memory of a device: a copy of `from`, or NaN if `from` is null. */
void *device_memory(const struct device *d, size_t bytes, const void *from);
void device_read(const struct device *d, void *to, const void *from, size_t bytes);
void device_release(const struct device *d, void *memory);
/* Returns whether trials run on CPUs. Tests that pass their own memory to an executor run on CPUs only. */
bool harness_on_host(void);

/* loss = sum of coefficient * value over up to four pairs: the test's own op, in every device's table. */
value harness_loss(struct graph *g, const value *values, const value *coefficients, size_t count);
/* The same loss, but its gradient cannot be added in place. */
value harness_loss_apart(struct graph *g, const value *values, const value *coefficients, size_t count);

double harness_error(const double *a, const double *b, size_t n, double floor);
double harness_error_f32(const float *a, const double *b, size_t n, double floor);
double harness_norm(const double *a, size_t n);
void harness_close_to(const char *what, double error, double tolerance);
/* Draws normal values from addressed noise, rounded to f32 as the kernels will see them. */
void harness_normal(double *to, size_t n, double mean, double deviation, uint64_t seed);
/* Runs `e` and counts its ops for harness_covers. Fails the test on an error. */
void harness_run(struct executor *e, const struct execution *run);
void *harness_memory(size_t bytes); /* filled with NaN */

/* Checks that each of `count` recordings is refused with words[i] in the message. record(g, i) has four sentences,
 * tokens and draws to record with. */
void harness_refuses(void (*record)(struct graph *g, size_t i), const char *const *words, size_t count);

/* ---- programs ---- */

enum family {
    FAMILY_EMBEDDING,
    FAMILY_LINEAR,
    FAMILY_NORM,
    FAMILY_ATTENTION,
    FAMILY_RECURRENT,
    FAMILY_SENTENCE,
    FAMILY_LATENT,
    FAMILY_POSTERIOR,
    FAMILY_PRIOR,
    FAMILY_LOSS,
    FAMILY_ELEMENTWISE,
    FAMILY_OPTIMIZER,
    FAMILY_NONE
};

bool harness_skips(void); /* prints the reason if the wanted device is missing */
int harness_open(void **state);
int harness_close(void **state);
/* Checks that this program ran every op that the table in harness.c gives to its family. An op without an entry in the
 * table does not compile. */
void harness_covers(void **state);
extern enum family harness_family;

#define HARNESS_MAIN(family, ...)                                                                                      \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        const struct CMUnitTest tests[] = {__VA_ARGS__, cmocka_unit_test(harness_covers)};                             \
        harness_family = family;                                                                                       \
        if (harness_skips()) return 77;                                                                                \
        return cmocka_run_group_tests(tests, harness_open, harness_close);                                             \
    }

#endif
