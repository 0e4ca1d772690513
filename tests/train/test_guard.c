/* The guard against numbers that are not finite.
 *
 *   train.skip=K   leaves weights, moments, running statistics and the update count unchanged; cursor and draws advance
 *   planted        a NaN or infinity planted in the loss or in one gradient of step K, in any slot, ends with the same
 *                  bits and counters as the run with train.skip=K, and its other rows of metrics are the same
 *   in a row       fewer than max_bad_steps are survived; that many end the run: the error names step, place and
 *                  remedy, and the checkpoint holds the finite weights of the last good update
 *   divergence     a real divergence, by an absurd learning rate without clipping */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "trainer_job.h"

#include "checkpoint/checkpoint.h"

struct fixture {
    struct temporary folder;
};

static int setup(void **state)
{
    static struct fixture f;
    f.folder = temporary_open();
    job_corpus(&f.folder, 60, 12);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    temporary_remove(f->folder.path);
    return 0;
}

/* State that must be the same. */
struct snapshot {
    size_t arena, z;
    float *weights, *moment1, *moment2;
    double *variance;
    uint64_t draws, updates, next, skipped, bad;
};

static void *copy(const void *from, size_t size)
{
    void *to = malloc(size);
    if (!to) abort();
    return memcpy(to, from, size);
}

static struct snapshot take(const struct trainer *t)
{
    size_t n = parameters_arena_elements(t->step.parameters), z = t->model.latent.width;
    return (struct snapshot){n,
                             z,
                             copy(t->step.model.weights, n * 4),
                             copy(t->step.optimizer.moment1, n * 4),
                             copy(t->step.optimizer.moment2, n * 4),
                             copy(t->variance, (z + 1) * 8),
                             t->state.counters.draws,
                             t->step.optimizer.updates,
                             t->state.counters.next,
                             t->state.counters.skipped,
                             t->state.counters.bad};
}

static void drop(struct snapshot *s)
{
    free(s->weights);
    free(s->moment1);
    free(s->moment2);
    free(s->variance);
}

static void assert_same_bits(const struct snapshot *a, const struct snapshot *b)
{
    assert_int_equal(a->arena, b->arena);
    assert_memory_equal(a->weights, b->weights, a->arena * 4);
    assert_memory_equal(a->moment1, b->moment1, a->arena * 4);
    assert_memory_equal(a->moment2, b->moment2, a->arena * 4);
    assert_memory_equal(a->variance, b->variance, (a->z + 1) * 8);
    assert_int_equal(a->updates, b->updates);
}

/* ---- planting ---- */

struct plant {
    const char *op; /* the output of ops of this kind gets the value */
    unsigned output;
    uint64_t first, last; /* steps, from 0 */
    unsigned slot;        /* slot of the step */
    float what;
    uint64_t step;
    unsigned seen; /* runs of the op in this step */
    size_t planted;
};

/* Plants once per slot of a chosen step, at the first op of the kind, because any op of the kind serves. */
static void plant_hook(void *context, const struct call *call, bool after)
{
    struct plant *p = context;
    if (!after || strcmp(call->node->type->name, p->op) || !call->out[p->output]) return;
    if (call->step != p->step) {
        p->step = call->step;
        p->seen = 0;
    }
    if (p->seen++ != p->slot || call->step < p->first || call->step > p->last) return;
    ((float *)call->out[p->output])[0] = p->what;
    p->planted++;
}

static struct snapshot run(struct fixture *f, const char *name, const char *const *arguments, struct plant *p)
{
    struct job job;
    job_open(&job, &f->folder, name, arguments);
    if (p) {
        p->step = UINT64_MAX;
        job.trainer->step.recording.executor.hook = plant_hook;
        job.trainer->step.recording.executor.hook_context = p;
    }
    if (trainer_run(job.trainer, &job.error)) fail_msg("%s", job.error.message);
    struct snapshot s = take(job.trainer);
    job_close(&job);
    return s;
}

/* Reads the rows of metrics.jsonl without `wall`, one string each; rows of step `but` become empty. */
static size_t rows(char *out[64], struct fixture *f, const char *name, json_int_t but)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", f->folder.path, name);
    size_t size, n = 0;
    char *text = temporary_read(path, &size), *line = strtok(text, "\n");
    for (; line; line = strtok(NULL, "\n")) {
        json_t *row = json_loads(line, 0, NULL);
        assert_non_null(row);
        json_object_del(row, "wall");
        bool hidden = json_integer_value(json_object_get(row, "step")) == but;
        out[n++] = hidden ? strdup("") : json_dumps(row, JSON_SORT_KEYS);
        json_decref(row);
    }
    free(text);
    return n;
}

static void skipping_changes_nothing_but_cursor_and_draws(void **state)
{
    struct fixture *f = *state;
    struct snapshot before = run(f, "to3", (const char *const[]){"--train.stop_after=3", NULL}, NULL);
    struct snapshot after = run(f, "to4", (const char *const[]){"--train.stop_after=4", "--train.skip=4", NULL}, NULL);
    struct snapshot trained = run(f, "to4-trained", (const char *const[]){"--train.stop_after=4", NULL}, NULL);
    assert_same_bits(&before, &after);
    assert_int_equal(after.updates, 3);
    assert_int_equal(after.draws, 4);
    assert_int_equal(after.skipped, 1);
    assert_int_equal(after.next, trained.next);
    assert_true(after.next > before.next);
    assert_memory_not_equal(after.weights, trained.weights, after.arena * 4);
    drop(&before);
    drop(&after);
    drop(&trained);
}

static void a_planted_nan_equals_the_skipped_step(void **state)
{
    struct fixture *f = *state;
    struct snapshot skip = run(f, "skip", (const char *const[]){"--train.skip=4", NULL}, NULL);
    char *wanted[64], *got[64];
    size_t n = rows(wanted, f, "skip", 4);
    assert_int_equal(n, 8);
    struct plant plants[] = {
        {.op = "elbo", .first = 3, .last = 3, .slot = 1, .what = NAN},
        {.op = "elbo", .first = 3, .last = 3, .slot = 0, .what = INFINITY},
        {.op = "linear_backward_weight", .first = 3, .last = 3, .slot = 0, .what = NAN},
        {.op = "linear_backward_weight", .first = 3, .last = 3, .slot = 9, .what = -INFINITY},
        {.op = "linear_backward_weight", .output = 1, .first = 3, .last = 3, .slot = 2, .what = NAN},
        {.op = "norm_backward", .output = 1, .first = 3, .last = 3, .slot = 0, .what = NAN},
    };
    for (size_t i = 0; i < sizeof plants / sizeof *plants; i++) {
        char name[32];
        snprintf(name, sizeof name, "planted-%zu", i);
        struct snapshot planted = run(f, name, NULL, &plants[i]);
        assert_int_equal(plants[i].planted, 1);
        assert_same_bits(&skip, &planted);
        assert_int_equal(planted.draws, 8);
        assert_int_equal(planted.updates, 7);
        assert_int_equal(planted.next, skip.next);
        assert_int_equal(planted.skipped, 1);
        assert_int_equal(planted.bad, 0);
        assert_int_equal(rows(got, f, name, 4), n);
        for (size_t r = 0; r < n; r++) {
            assert_string_equal(wanted[r], got[r]);
            free(got[r]);
        }
        drop(&planted);
    }
    for (size_t r = 0; r < n; r++) free(wanted[r]);
    struct plant none = {.op = "elbo", .first = 100, .last = 100}; /* without the NaN, the bits differ */
    struct snapshot whole = run(f, "whole", NULL, &none);
    assert_memory_not_equal(skip.weights, whole.weights, skip.arena * 4);
    drop(&whole);
    drop(&skip);
}

/* Checks that the newest checkpoint's weights are finite, and equal those of `s` if given. */
static void assert_saved(struct fixture *f, const char *name, uint64_t step, const struct trainer *t)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", f->folder.path, name);
    struct checkpoint *c;
    elbo_error error = {0};
    if (checkpoint_open(&c, path, NULL, NULL, &error)) fail_msg("%s", error.message);
    assert_int_equal(checkpoint_step(c), step);
    struct safetensors *file;
    if (checkpoint_tensors(&file, c, "model.safetensors", &error)) fail_msg("%s", error.message);
    for (size_t i = 0; i < parameters_count(t->step.parameters); i++) {
        const struct parameter *p = parameters_get(t->step.parameters, i);
        struct safetensors_tensor wanted = {.name = p->name, .dtype = SAFETENSORS_F32, .rank = p->rank};
        memcpy(wanted.shape, p->shape, p->rank * sizeof *p->shape);
        float *x = malloc(p->elements * 4);
        if (safetensors_copy(file, x, &wanted, &error)) fail_msg("%s", error.message);
        assert_memory_equal(x, t->step.model.weights + p->offset, p->elements * 4);
        for (size_t k = 0; k < p->elements; k++) assert_true(isfinite(x[k]));
        free(x);
    }
    safetensors_free(file);
    checkpoint_close(c);
}

static void a_few_in_a_row_are_survived(void **state)
{
    struct fixture *f = *state;
    struct plant p = {.op = "elbo", .first = 2, .last = 5, .what = NAN};
    struct snapshot s = run(f, "four", NULL, &p);
    assert_int_equal(p.planted, 4);
    assert_int_equal(s.skipped, 4);
    assert_int_equal(s.updates, 4);
    assert_int_equal(s.bad, 0);
    drop(&s);
}

static void too_many_in_a_row_end_the_run(void **state)
{
    struct fixture *f = *state;
    struct snapshot before = run(f, "to2", (const char *const[]){"--train.stop_after=2", NULL}, NULL);
    struct plant p = {.op = "elbo", .first = 2, .last = 6, .what = NAN, .step = UINT64_MAX};
    struct job job;
    job_open(&job, &f->folder, "five", NULL);
    job.trainer->step.recording.executor.hook = plant_hook;
    job.trainer->step.recording.executor.hook_context = &p;
    assert_int_equal(trainer_run(job.trainer, &job.error), ELBO_DIVERGED);
    assert_non_null(strstr(job.error.message, "5 steps in a row, up to step 7"));
    assert_non_null(strstr(job.error.message, "optimizer.learning_rate"));
    struct snapshot after = take(job.trainer);
    assert_same_bits(&before, &after);
    assert_saved(f, "five", 7, job.trainer);
    job_close(&job);
    /* the run can go on from this checkpoint */
    struct snapshot on = run(f, "five", (const char *const[]){"--optimizer.learning_rate=0.0001", NULL}, NULL);
    assert_int_equal(on.draws, 8);
    assert_int_equal(on.updates, 3);
    drop(&on);
    drop(&before);
    drop(&after);
}

static void a_real_divergence_is_named(void **state)
{
    struct fixture *f = *state;
    const char *const absurd[] = {"--optimizer.kind=sgd",
                                  "--optimizer.learning_rate=1000",
                                  "--optimizer.clip=0",
                                  "--optimizer.warmup_steps=0",
                                  "--train.steps=200",
                                  "--objective.dropped_mark=unknown",
                                  NULL};
    struct job job;
    job_open(&job, &f->folder, "absurd", absurd);
    assert_int_equal(trainer_run(job.trainer, &job.error), ELBO_DIVERGED);
    char step[32];
    snprintf(step, sizeof step, "up to step %llu;", (unsigned long long)job.trainer->state.counters.draws);
    const char *const parts[] = {step, "first in encoder.0.attention (attention, output 0)", "optimizer.learning_rate",
                                 "optimizer.clip", "/absurd"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(job.error.message, parts[i])) fail_msg("'%s' is not in: %s", parts[i], job.error.message);
    assert_null(strstr(job.error.message, "the norm of the gradient"));
    assert_non_null(strstr(job.said, "(update skipped)"));
    assert_saved(f, "absurd", job.trainer->state.counters.draws, job.trainer);
    job_close(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(skipping_changes_nothing_but_cursor_and_draws, setup, teardown),
        cmocka_unit_test_setup_teardown(a_planted_nan_equals_the_skipped_step, setup, teardown),
        cmocka_unit_test_setup_teardown(a_few_in_a_row_are_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_in_a_row_end_the_run, setup, teardown),
        cmocka_unit_test_setup_teardown(a_real_divergence_is_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
