/* The step by hand, as its header describes: the bits of the trainer's own steps, launched one by one or ahead; what an
 * evaluation of a batch leaves unchanged; and freeing a step in any state, also after an allocation failed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "train/trainer_job.h"

#include "device/backends.h"
#include "counted_memory.h"
#include "job/threads.h"
#include "step/memory.h"
#include "step/schedule.h"
#include "train/step_options.h"

static elbo_error error;

static void must(elbo_status status)
{
    if (status) fail_msg("%s", error.message);
}

/* ---- the trainer's steps, by hand ---- */

enum { STEPS = 6, SKIPPED = 3 };

static struct temporary folder;

static int setup(void **state)
{
    (void)state;
    folder = temporary_open();
    job_corpus(&folder, 60, 12);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temporary_remove(folder.path);
    return 0;
}

struct hand {
    struct step step;
    struct backend *backend;
    struct slot_loader *loader;
    float *read[2];
    struct step_schedule schedule[2];
    struct step_figures figures; /* figures of the last finished step */
    bool applied;
};

static void hand_open(struct hand *h, const struct job *job)
{
    const struct trainer *t = job->trainer;
    struct step_options options = step_options_of(&job->config, &t->model, 1, 0);
    *h = (struct hand){.applied = false};
    must(backend_open(&h->backend, "cpu", 2, &error));
    must(step_create(&h->step, &options, h->backend, &error));
    must(model_initialize(&h->step.model, job->config.seed, &error));
    must(slot_loader_open(&h->loader, t->train, &options.slots, &error));
    for (size_t i = 0; i < 2; i++) h->read[i] = calloc(step_read_floats(&h->step), sizeof(float));
}

static void hand_close(struct hand *h)
{
    slot_loader_close(h->loader);
    step_free(&h->step);
    h->backend->destroy(h->backend);
    free(h->read[0]);
    free(h->read[1]);
}

static const struct slot_batch *hand_launch(struct hand *h, uint64_t number, bool ahead)
{
    const struct slot_batch *batch;
    struct step_schedule *schedule = &h->schedule[number % 2];
    must(slot_loader_next(h->loader, &batch, &error));
    assert_int_equal(batch->step, number - 1);
    must(step_run(&h->step, schedule, batch, ahead, &error));
    must(step_update(&h->step, schedule, number, number == SKIPPED, &error));
    step_read_later(&h->step, h->read[number % 2]);
    return batch;
}

static void hand_finish(struct hand *h, uint64_t number)
{
    step_figures(&h->step, &h->figures, &h->schedule[number % 2], h->read[number % 2], h->applied);
    h->applied = h->figures.applied;
    assert_int_equal(h->applied, number != SKIPPED);
    assert_true(h->figures.finite);
}

static void assert_same_state(const struct step *a, const struct step *b)
{
    size_t n = parameters_arena_elements(a->parameters), moment = dtype_bytes(optimizer_moments(&a->optimizer.config));
    assert_int_equal(n, parameters_arena_elements(b->parameters));
    assert_memory_equal(a->model.weights, b->model.weights, n * sizeof *a->model.weights);
    assert_memory_equal(a->optimizer.moment1, b->optimizer.moment1, a->optimizer.moments * moment);
    assert_int_equal(!a->optimizer.moment2, !b->optimizer.moment2);
    if (a->optimizer.moment2)
        assert_memory_equal(a->optimizer.moment2, b->optimizer.moment2, a->optimizer.moments * moment);
    assert_int_equal(a->optimizer.updates, b->optimizer.updates);
}

static void assert_same_figures(const struct step_figures *a, const struct step_figures *b, size_t z)
{
    assert_float_equal(a->loss, b->loss, 0);
    assert_float_equal(a->gradient_norm, b->gradient_norm, 0);
    assert_float_equal(a->learning_rate, b->learning_rate, 0);
    assert_int_equal(a->applied, b->applied);
    assert_int_equal(a->sentences, b->sentences);
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        assert_string_equal(a->terms[i].name, b->terms[i].name);
        assert_float_equal(a->terms[i].value, b->terms[i].value, 0);
    }
    assert_int_equal(!a->kl_dim, !b->kl_dim);
    assert_int_equal(!a->moments, !b->moments);
    if (a->kl_dim) assert_memory_equal(a->kl_dim, b->kl_dim, z * sizeof *a->kl_dim);
    if (a->moments) assert_memory_equal(a->moments, b->moments, 4 * z * sizeof *a->moments);
}

/* Checks the figures: the loss is the sum of the weighted terms, and the KL is the sum over its dimensions. */
static void assert_sums(const struct step_figures *f, size_t z)
{
    double kl = 0,
           weighed =
               objective_figure(f->terms, f->count, "lambda") * objective_figure(f->terms, f->count, "reconstruction") +
               objective_figure(f->terms, f->count, "beta") * objective_figure(f->terms, f->count, "kl_free");
    assert_true(f->loss > 0 && fabs(weighed - f->loss) < 1e-5 * f->loss);
    for (size_t j = 0; f->kl_dim && j < z; j++) kl += f->kl_dim[j] / (double)f->sentences;
    assert_true(fabs(objective_figure(f->terms, f->count, "kl") - kl) < 1e-5);
}

static const char *const kinds[][4] = {
    {"--optimizer.clip=0.5"},
    {"--optimizer.kind=sgd", "--train.recompute=block", "--objective.beta_schedule=cyclical"},
    {"--optimizer.moments=bf16", "--determinism=world_invariant", "--parallel.lanes=2"},
    {"--optimizer.encoder_factor=0", "--objective.free_bits_kind=total", "--objective.free_bits=3"},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void open_job(struct job *job, size_t kind)
{
    const char *list[8] = {"--train.steps=6", "--train.skip=3"};
    for (size_t i = 0; i < 4; i++) list[i + 2] = kinds[kind][i];
    job_open(job, &folder, "run", list);
}

static void close_job(struct job *job)
{
    char path[512];
    job_close(job);
    temporary_remove(temporary_path(path, &folder, "run"));
}

static void the_bits_of_the_trainer(void **state)
{
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        struct job job;
        struct hand h;
        open_job(&job, k);
        if (trainer_run(job.trainer, &job.error)) fail_msg("%s", job.error.message);
        size_t z = job.trainer->model.latent.width;
        for (int ahead = 0; ahead < 2; ahead++) {
            hand_open(&h, &job);
            for (uint64_t number = 1; number <= STEPS; number++) {
                hand_launch(&h, number, ahead && number > 1);
                if (ahead && number > 1) hand_finish(&h, number - 1);
                if (!ahead || number == STEPS) hand_finish(&h, number);
                if (!ahead || number > 1) assert_sums(&h.figures, z);
            }
            assert_int_equal(h.step.optimizer.updates, STEPS - 1);
            assert_same_state(&h.step, &job.trainer->step);
            assert_same_figures(&h.figures, &job.trainer->done.figures, z);
            hand_close(&h);
        }
        close_job(&job);
    }
}

/* Both rows have the same count of updates if the step before is known, and two counts if it may still be left out. */
static void ahead_comes_for_both_answers(void **state)
{
    (void)state;
    struct job job;
    struct hand h;
    open_job(&job, 0);
    hand_open(&h, &job);
    const struct optimizer_config *c = &job.config.optimizer;
    for (uint64_t number = 1; number <= 2; number++) {
        hand_launch(&h, number, false);
        hand_finish(&h, number);
        for (unsigned answer = 0; answer < 2; answer++)
            assert_int_equal(h.schedule[number % 2].updates[answer], number - 1);
    }
    const struct slot_batch *batch = hand_launch(&h, 3, true);
    const struct step_schedule *s = &h.schedule[1];
    assert_int_equal(s->sentences, batch->sentences);
    for (unsigned answer = 0; answer < 2; answer++) {
        uint64_t updates = 2 + answer;
        assert_int_equal(s->updates[answer], updates);
        assert_float_equal(s->learning_rate[answer], c->learning_rate * schedule_learning_rate(c, updates, STEPS), 0);
        assert_float_equal(s->scale[answer][1], schedule_beta(&job.config.objective, updates, STEPS), 0);
    }
    assert_true(s->learning_rate[0] < s->learning_rate[1] && s->scale[0][1] < s->scale[1][1]);
    h.applied = true; /* the figures use the row that the answer of the step before selects */
    hand_finish(&h, 3);
    assert_float_equal(h.figures.learning_rate, s->learning_rate[1], 0);
    assert_float_equal(objective_figure(h.figures.terms, h.figures.count, "beta"), s->scale[1][1], 0);
    hand_close(&h);
    close_job(&job);
}

/* ---- a look ---- */

struct looked {
    size_t before, after;
    uint64_t step;
};

static void look(void *context, const struct call *call, bool after)
{
    struct looked *l = context;
    l->before += !after;
    l->after += after;
    l->step = call->step;
}

/* A look runs the slots again and nothing else: weights, moments and counts stay. Gradients and figures are then the
 * look's own, with the same bits if nothing was updated since, and other bits if the weights have moved. */
static void a_look_updates_nothing(void **state)
{
    (void)state;
    struct job job;
    struct hand h;
    const struct slot_batch *batch;
    struct looked looked = {0};
    open_job(&job, 0);
    hand_open(&h, &job);
    struct step *s = &h.step;
    size_t n = parameters_arena_elements(s->parameters), all = n + sums_figures(&s->recording);
    float *weights = malloc(n * sizeof *weights), *gradients = malloc(all * sizeof *gradients),
          *moment = malloc(n * sizeof *moment);
    must(slot_loader_next(h.loader, &batch, &error));
    must(slot_loader_next(h.loader, &batch, &error)); /* the second batch, whose step is not 0 */
    must(step_run(s, &h.schedule[1], batch, false, &error));
    memcpy(weights, s->model.weights, n * sizeof *weights);
    memcpy(gradients, s->optimizer.gradients, all * sizeof *gradients);
    must(step_look(s, batch, look, &looked, &error));
    assert_memory_equal(s->optimizer.gradients, gradients, all * sizeof *gradients);
    assert_memory_equal(s->model.weights, weights, n * sizeof *weights);
    assert_true(looked.before > 100 && looked.before == looked.after && looked.step == batch->step);
    assert_null(s->recording.executor.hook);

    must(step_update(s, &h.schedule[1], 1, false, &error));
    memcpy(weights, s->model.weights, n * sizeof *weights);
    memcpy(moment, s->optimizer.moment2, n * sizeof *moment);
    size_t ops = looked.before;
    must(step_look(s, batch, look, &looked, &error));
    assert_int_equal(looked.before, 2 * ops);
    assert_memory_equal(s->model.weights, weights, n * sizeof *weights);
    assert_memory_equal(s->optimizer.moment2, moment, n * sizeof *moment);
    assert_int_equal(s->optimizer.updates, 0);
    assert_memory_not_equal(s->optimizer.gradients, gradients, n * sizeof *gradients);
    assert_memory_not_equal(s->optimizer.gradients + n, gradients + n, (all - n) * sizeof *gradients);
    free(weights);
    free(gradients);
    free(moment);
    hand_close(&h);
    close_job(&job);
}

/* ---- any state ---- */

static const struct stack_config stack = {.width = 8, .layers = 1, .heads = 2, .pooling = POOLING_MEAN};

static struct step_options tiny(void)
{
    return (struct step_options){.model = {.encoder = stack,
                                           .decoder = stack,
                                           .latent = {.width = 4, .memory = 1, .sample = true},
                                           .vocabulary = 20,
                                           .positions = 8},
                                 .objective = {.beta_schedule = BETA_CONSTANT, .beta = 1, .lambda = 1},
                                 .optimizer = {.kind = OPTIMIZER_ADAMW,
                                               .learning_rate = 1e-3,
                                               .schedule = SCHEDULE_CONSTANT,
                                               .encoder_factor = 1,
                                               .latent_factor = 1,
                                               .decoder_factor = 1},
                                 .slots = {.slots = 2, .encoder_tokens = 24, .decoder_tokens = 24, .sentences = 4},
                                 .sums = {.lanes = 2, .ordered = true},
                                 .seed = 1,
                                 .steps = 1};
}

enum { SENTENCES = 4 };

/* Runs one step on four sentences, with share[i] of them in slot i. */
static struct step_figures one_step(const struct step_options *options, const size_t *share, float *read)
{
    static const uint32_t words[] = {3, 4, 5, 6, 7, 8};
    const uint32_t *tokens[SENTENCES] = {words, words + 1, words + 3, words + 2};
    const size_t lengths[SENTENCES] = {3, 2, 1, 4};
    const struct elbo_marks marks = {.start = 0, .end = 1, .unknown = 2};
    struct slot slots[SENTENCES];
    struct slot_batch batch = {.sentences = SENTENCES, .count = options->slots.slots, .slots = slots};
    struct step_schedule schedule;
    struct step_figures f;
    struct backend *backend;
    struct step s;
    must(backend_open(&backend, "cpu", 1, &error));
    must(step_create(&s, options, backend, &error));
    must(model_initialize(&s.model, 1, &error));
    for (size_t i = 0, at = 0; i < batch.count; at += share[i++]) {
        must(slot_allocate(&slots[i], &options->slots, &error));
        must(slot_fill(&slots[i], &options->slots, &marks, tokens + at, lengths + at, share[i], at, &error));
    }
    must(step_run(&s, &schedule, &batch, false, &error));
    must(step_update(&s, &schedule, 1, false, &error));
    step_read_later(&s, read);
    step_figures(&s, &f, &schedule, read, false);
    assert_true(f.applied && f.finite && f.gradient_norm > 0);
    assert_int_equal(s.optimizer.updates, 1);
    for (size_t i = 0; i < batch.count; i++) slot_free(&slots[i]);
    step_free(&s);
    backend->destroy(backend);
    return f;
}

static void close_to(double got, double wanted)
{
    if (!(fabs(got - wanted) <= 1e-5 * fabs(wanted))) fail_msg("%.9g instead of %.9g", got, wanted);
}

/* Slots and lanes divide a step's sentences: the sums are those of one slot with all sentences, but for rounding. */
static void slots_and_lanes_add_up(void **state)
{
    (void)state;
    static const struct {
        size_t slots, lanes, share[SENTENCES];
    } cases[] = {{1, 1, {4}}, {2, 1, {2, 2}}, {2, 2, {3, 1}}, {4, 1, {1, 1, 1, 1}}, {4, 3, {1, 1, 1, 1}}};
    float read[128];
    struct step_figures all = {.loss = 0};
    float kl_dim[4], moments[16];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct step_options options = tiny();
        options.slots.slots = cases[i].slots;
        options.sums.lanes = cases[i].lanes;
        struct step_figures f = one_step(&options, cases[i].share, read);
        if (!i) {
            all = f;
            memcpy(kl_dim, f.kl_dim, sizeof kl_dim);
            memcpy(moments, f.moments, sizeof moments);
        }
        close_to(f.loss, all.loss);
        close_to(f.gradient_norm, all.gradient_norm);
        for (size_t k = 0; k < f.count; k++) close_to(f.terms[k].value, all.terms[k].value);
        for (size_t j = 0; j < 4; j++) close_to(f.kl_dim[j], kl_dim[j]);
        for (size_t j = 0; j < 16; j++) close_to(f.moments[j], moments[j]);
    }
}

/* A language model has the same terms, and no figures of a latent. */
static void without_a_latent(void **state)
{
    (void)state;
    float read[128];
    struct step_options options = tiny();
    options.model.latent.kind = LATENT_NONE;
    options.slots.encoder_tokens = 0;
    struct step_figures f = one_step(&options, (const size_t[]){3, 1}, read);
    assert_null(f.kl_dim);
    assert_null(f.moments);
    assert_float_equal(objective_figure(f.terms, f.count, "kl"), 0, 0);
    assert_sums(&f, 0);
    close_to(f.loss, objective_figure(f.terms, f.count, "reconstruction"));
}

/* ---- two ranks ---- */

struct member {
    struct thread_rank *rank;
    struct step_options options;
    double norm;
    float *weights; /* weights of the whole arena after the step */
    size_t elements;
};

static elbo_status step_of(struct member *m, struct backend *backend, elbo_error *why)
{
    static const uint32_t words[] = {3, 4, 5, 6, 7, 8};
    const uint32_t *tokens[SENTENCES] = {words, words + 1, words + 3, words + 2};
    const size_t lengths[SENTENCES] = {3, 2, 1, 4};
    const struct elbo_marks marks = {.start = 0, .end = 1, .unknown = 2};
    struct slot slots[2];
    struct slot_batch batch = {.sentences = SENTENCES, .count = 2, .slots = slots};
    struct step_schedule schedule;
    struct step_figures f;
    struct step s;
    float read[128];
    m->options.sums.ranks = m->rank->base.ranks;
    m->options.sums.rank = m->rank->base.rank;
    m->options.sums.collectives = m->rank->base.ranks > 1 ? &m->rank->base : NULL;
    ELBO_TRY(step_create(&s, &m->options, backend, why));
    ELBO_TRY(model_initialize(&s.model, 1, why));
    for (size_t i = 0; i < 2; i++) {
        ELBO_TRY(slot_allocate(&slots[i], &m->options.slots, why));
        ELBO_TRY(slot_fill(&slots[i], &m->options.slots, &marks, tokens + 2 * i, lengths + 2 * i, 2, 2 * i, why));
    }
    ELBO_TRY(step_run(&s, &schedule, &batch, false, why));
    ELBO_TRY(step_update(&s, &schedule, 1, false, why));
    ELBO_TRY(step_whole(&s, why));
    step_read_later(&s, read);
    step_figures(&s, &f, &schedule, read, false);
    m->norm = f.gradient_norm;
    m->elements = parameters_arena_elements(s.parameters);
    m->weights = malloc(m->elements * sizeof *m->weights);
    memcpy(m->weights, s.model.weights, m->elements * sizeof *m->weights);
    for (size_t i = 0; i < 2; i++) slot_free(&slots[i]);
    step_free(&s);
    return ELBO_OK;
}

static void *act(void *argument)
{
    struct backend *backend;
    elbo_error why;
    if (backend_open(&backend, "cpu", 1, &why)) return "no backend";
    elbo_status status = step_of(argument, backend, &why);
    backend->destroy(backend);
    return status ? "the step failed" : NULL;
}

static void step_on(size_t ranks, struct member *members, bool zero)
{
    struct thread_world world;
    struct thread_rank each[THREAD_RANKS];
    thread_world_open(&world, each, ranks);
    for (size_t r = 0; r < ranks; r++) {
        members[r] = (struct member){.rank = &each[r], .options = tiny()};
        members[r].options.sums.zero = zero;
        members[r].options.sums.bucket = 2 * PARAMETER_ALIGNMENT;
        members[r].options.optimizer.clip = 0.01;
        members[r].options.optimizer.encoder_factor = 0;
        members[r].options.optimizer.latent_factor = 0.5;
    }
    const char *failed = thread_world_run(&world, act, members, sizeof *members);
    if (failed) fail_msg("%s", failed);
    thread_world_close(&world);
}

/* With a frozen part and clipped gradients, two ranks that share the moments get the weights of one rank. */
static void shared_moments_are_those_of_one(void **state)
{
    (void)state;
    struct member one, two[2];
    step_on(1, &one, false);
    for (int zero = 0; zero < 2; zero++) {
        step_on(2, two, zero);
        for (size_t r = 0; r < 2; r++) {
            assert_float_equal(two[r].norm, one.norm, 0);
            assert_int_equal(two[r].elements, one.elements);
            assert_memory_equal(two[r].weights, one.weights, one.elements * sizeof *one.weights);
            free(two[r].weights);
        }
    }
    assert_true(one.norm > 0.01);
    free(one.weights);
}

/* The guard's inputs and outputs are in the backend's memory; rows and settings are in the host's. */
static void inputs_of_the_update(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t rank;
        bool resident;
    } inputs[] = {
        {"scalars", 2, true}, {"control", 1, true}, {"loss", 1, true}, {"rows", 2, false}, {"settings", 1, false}};
    struct backend *backend;
    struct step s;
    struct step_options options = tiny();
    must(backend_open(&backend, "cpu", 1, &error));
    must(step_create(&s, &options, backend, &error));
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        value v = graph_input_named(s.optimizer.kind[0].graph, inputs[i].name);
        assert_true(v.index);
        assert_int_equal(graph_value(s.optimizer.kind[0].graph, v)->rank, inputs[i].rank);
        assert_int_equal(graph_value(s.optimizer.kind[0].graph, v)->resident, inputs[i].resident);
    }
    step_free(&s);
    backend->destroy(backend);
}

/* In bf16 the weights are held twice, the second time in half the bytes; the table is cut off at the end of its
 * room. */
static void the_memory_of_bf16(void **state)
{
    (void)state;
    struct backend *backend;
    struct step s;
    struct memory_table t;
    struct step_options options = tiny();
    options.model.precision = PRECISION_BF16;
    must(backend_open(&backend, "cpu", 1, &error));
    must(step_record(&s, &options, &error));
    must(step_plan(&s, backend, &error));
    memory_table_of(&t, &s);
    size_t arena = parameters_arena_elements(s.parameters) * sizeof(float);
    assert_int_equal(t.masters, arena);
    assert_int_equal(t.weights, arena + arena / 2);
    char text[1000], whole[1000];
    memory_print(whole, sizeof whole, &t);
    assert_non_null(strstr(whole, "total"));
    for (size_t room = 1; room < strlen(whole); room += 7) {
        memset(text, 'x', sizeof text);
        memory_print(text, room, &t);
        assert_memory_equal(text, whole, room - 1);
        assert_int_equal(text[room - 1], 0);
        for (size_t i = room; i < sizeof text; i++) assert_int_equal(text[i], 'x');
    }
    step_free(&s);
    backend->destroy(backend);
}

static void assert_empty(const struct step *s)
{
    assert_true(!s->parameters && !s->recording.g && !s->recording.state && !s->backend);
    assert_true(!s->model.backend && !s->model.weights && !s->model.arena);
    assert_true(!s->optimizer.backend && !s->optimizer.all && !s->optimizer.gradients && !s->optimizer.kind[0].graph);
    assert_true(!s->sums.reduction && !s->sums.gathering && !s->sums.buckets.list);
}

/* Runs the first `parts` of record, plan, allocate and part, then frees the step. */
static void end_after(struct backend *backend, unsigned parts)
{
    struct step s = {.backend = NULL};
    struct step_options options = tiny();
    if (parts > 0) must(step_record(&s, &options, &error));
    if (parts > 1) must(step_plan(&s, backend, &error));
    if (parts > 2) must(step_allocate(&s, &error));
    if (parts > 3) step_part(&s);
    step_free(&s);
    assert_empty(&s);
    step_free(&s); /* freeing twice is allowed */
}

static void any_state_ends(void **state)
{
    (void)state;
    struct backend *backend;
    must(backend_open(&backend, "cpu", 1, &error));
    end_after(backend, 3); /* the backend's own scratch */
    for (unsigned parts = 0; parts <= 4; parts++) {
        long before = atomic_load(&memory_held);
        end_after(backend, parts);
        assert_int_equal(atomic_load(&memory_held), before);
    }
    long before = atomic_load(&memory_held);
    struct step s;
    struct step_options options = tiny();
    options.objective.free_bits_kind = FREE_BITS_GROUP;
    options.objective.free_bits_groups = 3;
    assert_int_equal(step_record(&s, &options, &error), ELBO_USAGE);
    assert_empty(&s);
    assert_int_equal(step_create(&s, &options, backend, &error), ELBO_USAGE);
    assert_empty(&s);
    assert_int_equal(atomic_load(&memory_held), before);
    backend->destroy(backend);
}

/* Each allocation of step_create fails once. */
static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    if (!COUNTED) skip();
    struct backend *backend;
    struct step_options options = tiny();
    struct step s;
    size_t failed = 0;
    must(backend_open(&backend, "cpu", 1, &error));
    end_after(backend, 3);
    for (long which = 1;; which++) {
        long before = atomic_load(&memory_held);
        atomic_store(&memory_until, which);
        elbo_status status = step_create(&s, &options, backend, &error);
        bool over = atomic_exchange(&memory_until, 0) > 0;
        if (status && status != ELBO_MEMORY) fail_msg("call %ld: %s", which, error.message);
        if (!status) step_free(&s);
        assert_empty(&s);
        if (atomic_load(&memory_held) != before)
            fail_msg("call %ld failed: %ld blocks stay", which, atomic_load(&memory_held) - before);
        if (over) break;
        failed += status == ELBO_MEMORY;
    }
    assert_true(failed > 100);
    backend->destroy(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_bits_of_the_trainer),
                                       cmocka_unit_test(ahead_comes_for_both_answers),
                                       cmocka_unit_test(a_look_updates_nothing),
                                       cmocka_unit_test(slots_and_lanes_add_up),
                                       cmocka_unit_test(without_a_latent),
                                       cmocka_unit_test(any_state_ends),
                                       cmocka_unit_test(memory_may_run_out_anywhere),
                                       cmocka_unit_test(shared_moments_are_those_of_one),
                                       cmocka_unit_test(inputs_of_the_update),
                                       cmocka_unit_test(the_memory_of_bf16)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
