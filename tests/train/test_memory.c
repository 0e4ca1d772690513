/* The memory table against an opened training: every row equals what the trainer holds. Also the bytes that ranks send,
 * by hand, and the memory of the machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "trainer_job.h"

#include "base/checked.h"
#include "step/lanes.h"
#include "step/memory.h"
#include "train/step_options.h"

#include <malloc.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/wait.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ELBO_TEST_SANITIZED 1 /* sanitizers change sizes and use more memory */
#else
#define ELBO_TEST_SANITIZED 0
#endif

static struct temporary folder;

/* Returns the table of a job's configuration, with the vocabulary and positions of the trained model. */
static struct memory_table plan(const struct job *job)
{
    struct memory_table t;
    elbo_error error = {0};
    const struct elbo_config *c = &job->config;
    struct step_options options = step_options_of(c, &job->trainer->model, c->parallel.ranks, 0);
    struct step step;
    if (step_record(&step, &options, &error) || step_plan(&step, job->trainer->backend, &error))
        fail_msg("%s", error.message);
    memory_table_of(&t, &step);
    memory_wire(&t, &step, c->parallel.bandwidth, c->parallel.latency);
    step_free(&step);
    return t;
}

static size_t slot_size(const struct elbo_config *c)
{
    struct slot slot;
    elbo_error error = {0};
    struct slot_options options = slot_options_of(c);
    assert_int_equal(slot_allocate(&slot, &options, &error), ELBO_OK);
    size_t bytes = malloc_usable_size(slot.memory);
    slot_free(&slot);
    return bytes;
}

static void what_a_training_holds(void **state)
{
    (void)state;
    static const char *const kinds[][4] = {{"--train.slot_tokens=4000"},
                                           {"--optimizer.kind=sgd", "--train.slots=5"},
                                           {"--latent.injection=prefix", "--train.slot_tokens=200"},
                                           {"--latent.injection=residual", "--decoder.layers=3"},
                                           {"--optimizer.moments=bf16", "--train.recompute=block"},
                                           {"--optimizer.encoder_factor=0", "--train.slot_sentences=3"}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct job job;
        job_open(&job, &folder, "run", (const char *const[]){kinds[k][0], kinds[k][1], NULL});
        struct memory_table t = plan(&job);
        const struct trainer *trainer = job.trainer;
        const struct parameters *p = trainer->step.parameters;
        size_t arena = parameters_arena_elements(p) * sizeof(float), elements = 0;
        for (size_t i = 0; i < parameters_count(p); i++) elements += parameters_get(p, i)->elements;
        assert_int_equal(t.parameters, elements);
        assert_int_equal(t.weights, arena);
        assert_int_equal(t.masters, 0);
        assert_int_equal(t.gradients,
                         arena + align_up(recording_state_elements(&trainer->step.recording), PARAMETER_ALIGNMENT) *
                                     sizeof(float));
        for (unsigned g = 0; g < GROUPS; g++) /* a group without a learning rate is not updated */
            assert_int_equal(trainer->step.optimizer.kind[0].trained[g],
                             parameters_groups(p)[g].elements &&
                                 (k != 5 || parameters_groups(p)[g].part != PART_ENCODER));
        size_t moments = trainer->step.optimizer.moment2 ? 2 : 1;
        assert_int_equal(t.moments, moments * trainer->step.optimizer.moments *
                                        dtype_bytes(optimizer_moments(&job.config.optimizer)));
        assert_int_equal(t.activations, trainer->step.model.arena_bytes);
        assert_int_equal(t.sums, 0);
        assert_int_equal(t.total, t.weights + t.gradients + t.moments + t.activations + t.workspace + t.slots + t.sums);
        assert_true(t.unshared > t.activations);
        size_t slots = 2 * job.config.train.slots, held = slots * slot_size(&job.config);
        if (!ELBO_TEST_SANITIZED && (held < t.slots || held > t.slots + 24 * slots))
            fail_msg("%zu bytes of slots are planned, and %zu held", t.slots, held);
        assert_int_equal(t.ranks, 1);
        assert_true(t.wire <= 0);
        job_close(&job);
    }
}

/* Four ranks. All gradients are sent in pieces, and return as sums, or as weights with ZeRO. A rank sends three
 * quarters of both. */
static void what_ranks_send(void **state)
{
    (void)state;
    struct job job;
    job_open(&job, &folder, "run", NULL);
    struct elbo_config *c = &job.config;
    struct memory_table alone = plan(&job);
    c->parallel.ranks = 4;
    c->train.slots = 4;
    for (int zero = 0; zero < 2; zero++)
        for (int level = DETERMINISM_FAST; level <= DETERMINISM_WORLD_INVARIANT; level++) {
            c->determinism = level;
            c->parallel.zero = zero;
            c->parallel.bucket = 1000;
            c->parallel.bandwidth = c->parallel.latency = 0;
            struct memory_table t = plan(&job);
            double gradients = (double)t.gradients, back = zero ? (double)t.weights : gradients;
            assert_int_equal(t.ranks, 4);
            assert_int_equal(t.gradients, alone.gradients);
            assert_float_equal(t.wire, (gradients + back) * 3 / 4, 0.5);
            assert_true(t.exposed <= 0 && t.wire_seconds <= 0);
            assert_int_equal(t.slots, alone.slots / 3); /* one slot of four, where a single rank has three */
            if (zero)
                assert_in_range(t.moments, alone.moments / 4, alone.moments / 2);
            else
                assert_int_equal(t.moments, alone.moments);
            assert_true(zero || level != DETERMINISM_FAST ? t.sums > 0 : true);
            assert_int_equal(t.total,
                             t.weights + t.gradients + t.moments + t.activations + t.workspace + t.slots + t.sums);
            c->parallel.bandwidth = 0.5; /* GB/s */
            c->parallel.latency = 7;     /* us */
            double each = 2 * 3 * 7e-6, travel = t.wire / 0.5e9;
            struct memory_table one = plan(&job); /* a single bucket, so nothing hides its transfer */
            assert_float_equal(one.wire_seconds, travel + each, 1e-12);
            assert_float_equal(one.exposed, one.wire_seconds, 1e-12);
            c->parallel.bucket = 0.004; /* MiB */
            struct memory_table many = plan(&job);
            double buckets = (many.wire_seconds - travel) / each, last = (many.exposed - each) / travel;
            assert_true(buckets > 1.5 && fabs(buckets - round(buckets)) < 1e-6);
            assert_true(last > 0.01 && last < 0.9);
        }
    /* Eight lanes on three ranks: the first has lanes 0 to 2, which are two whole parts of the tree of sums, and sends
     * both. */
    c->determinism = DETERMINISM_WORLD_INVARIANT;
    c->parallel.zero = 0;
    c->parallel.ranks = 3;
    c->train.slots = c->parallel.lanes = 8;
    struct memory_table t = plan(&job);
    size_t first = lane_run_of(8, 3, 0).count, roots = first == 3 ? 2 : 1;
    assert_float_equal(t.wire, ((double)roots + 1) * (double)t.gradients * 2 / 3, 0.5);
    job_close(&job);
}

/* Available memory is the smaller of the machine's free memory and the process's limit. */
static void what_there_is(void **state)
{
    (void)state;
    size_t left = memory_available();
    assert_true(left > 1 << 20);
    pid_t child = fork();
    if (!child) {
        struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = RLIM_INFINITY};
        int bad = getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = (rlim_t)left / 2;
        bad |= setrlimit(RLIMIT_AS, &limit);
        _exit(bad || memory_available() != left / 2);
    }
    int code = 1;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(ELBO_TEST_SANITIZED || code == 0);
    struct memory_table t = {.total = 1000};
    elbo_error error = {0};
    assert_int_equal(memory_check(&t, 0, &error), ELBO_OK);
    assert_int_equal(memory_check(&t, 1000, &error), ELBO_OK);
    assert_int_equal(memory_check(&t, 999, &error), ELBO_MEMORY);
}

static int begin(void **state)
{
    (void)state;
    folder = temporary_open();
    job_corpus(&folder, 60, 9);
    return 0;
}

static int end(void **state)
{
    (void)state;
    temporary_remove(folder.path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_a_training_holds), cmocka_unit_test(what_ranks_send),
                                       cmocka_unit_test(what_there_is)};
    return cmocka_run_group_tests(tests, begin, end);
}
