/* In a real backward pass each bucket is sent before the next bucket's last gradient is computed, and only the last
 * bucket is left at the end. */
#include "base/checked.h"
#include "elbo/tokenizer.h"
#include "graph/autodiff.h"
#include "device/backends.h"
#include "step/recording.h"
#include "step/reduction.h"
#include "job/threads.h"
#include "text/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

enum { BLOCK = PARAMETER_ALIGNMENT };

static elbo_error error;

static void must(elbo_status status)
{
    if (status) fail_msg("%s", error.message);
}

enum { MOST_EVENTS = 1 << 16 };

/* An event on a rank, in order: a bucket was sent, or a kernel wrote gradients. */
struct event {
    bool begun;
    size_t first, count; /* elements of the arena that were sent or written */
};

struct pass {
    struct thread_rank *rank;
    elbo_status (*begin)(struct collectives *, const struct transfer *, size_t, elbo_error *);
    const struct model_config *config;
    struct parameters *parameters;
    struct buckets buckets;
    float *arena;
    size_t elements, gradients;
    struct event *events;
    size_t count;
};

static struct pass passes[2];

static void note(struct pass *p, bool begun, const void *data, size_t elements)
{
    uintptr_t at = (uintptr_t)data, from = (uintptr_t)p->arena;
    if (at < from || at >= from + p->elements * sizeof *p->arena || p->count == MOST_EVENTS) return;
    p->events[p->count++] = (struct event){begun, (at - from) / sizeof *p->arena, elements};
}

static elbo_status begin(struct collectives *c, const struct transfer *list, size_t count, elbo_error *own)
{
    struct pass *p = &passes[c->rank];
    for (size_t i = 0; i < count; i++)
        if (!list[i].receive) note(p, true, list[i].data, list[i].bytes / sizeof *p->arena);
    return p->begin(c, list, count, own);
}

static void wrote(void *context, const struct call *call, bool after)
{
    for (unsigned k = 0; k < MAX_OUTPUTS && after; k++)
        if (call->out[k]) note(context, false, call->out[k], 1);
}

static elbo_status advance(void *context, size_t done, size_t steps, elbo_error *own)
{
    if (!done) return ELBO_OK;
    return done < steps ? reduction_step(context, done - 1, own) : reduction_finish(context, own);
}

static void fill(struct slot *slot, const struct slot_options *options)
{
    const struct elbo_marks marks = {.start = 0, .end = 1, .unknown = 2};
    uint32_t words[40];
    const uint32_t *tokens[4];
    size_t lengths[4] = {3, 10, 1, 8};
    for (size_t i = 0; i < 40; i++) words[i] = 3 + (uint32_t)i;
    for (size_t s = 0; s < 4; s++) tokens[s] = words + 10 * s;
    must(slot_fill(slot, options, &marks, tokens, lengths, 4, 0, &error));
}

static void *train(void *argument)
{
    struct pass *p = argument;
    struct backend *backend = NULL;
    struct reduction *r = NULL;
    struct recording recording = {0}, *list[] = {&recording};
    struct model m = {0};
    const struct objective_config terms = {.beta_schedule = BETA_CONSTANT, .beta = 1, .lambda = 1};
    struct objective objective;
    struct parameters *parameters;
    struct graph_capacities capacities = {
        {[DIM_ENC_TOKENS] = 64, [DIM_DEC_TOKENS] = 64, [DIM_SENTENCES] = 8, [DIM_DRAWS] = 8}};
    struct slot_options options = {
        .slots = 1, .encoder_tokens = 64, .decoder_tokens = 64, .sentences = 8, .max_length = 12};
    struct train_recording wanted = {.wanted = (1u << GROUPS) - 1};
    struct slot slot = {0};
    size_t ready[512] = {0};
    const float control[CONTROL_SIZE] = {0};
    must(cpu_backend_create(&backend, 1, NULL, &error));
    must(objective_create(&objective, &terms, p->config, 1, &error));
    must(parameters_create(&parameters, &error));
    must(record_train(&recording, p->config, &objective, parameters, &capacities, &wanted, &error));
    must(recording_layout(&recording, parameters, &error));
    must(model_allocate(&m, p->config, parameters, backend, &error));
    must(model_initialize(&m, 5, &error));
    assert_true(parameters_count(m.parameters) <= 512);
    graph_ready(recording.g, ready);
    p->gradients = parameters_arena_elements(m.parameters);
    size_t figures = align_up(recording_state_elements(&recording), BLOCK);
    p->elements = p->gradients + figures;
    p->arena = calloc(p->elements, sizeof *p->arena);
    must(buckets_create(&p->buckets, m.parameters, ready, figures, 16 * BLOCK, &error));
    must(recording_place_state(&recording, p->arena + p->gradients, &error));
    must(model_bind(&m, list, 1, p->arena, &error));
    struct reduction_options o = {.backend = backend,
                                  .collectives = &p->rank->base,
                                  .arena = p->arena,
                                  .elements = p->elements,
                                  .lanes = 2,
                                  .ordered = true,
                                  .buckets = &p->buckets};
    must(reduction_create(&r, &o, &error));
    must(slot_allocate(&slot, &options, &error));
    fill(&slot, &options);
    struct execution run = {.first_slot = true, .seed = 1, .progress = advance, .progress_context = r};
    for (unsigned answer = 0; answer < 2; answer++) objective_weigh(&objective, answer, 0, 1);
    recording_bind_input(&recording, "weights", objective.weights);
    recording_bind_input(&recording, "control", control);
    recording_bind_slot(&recording, &slot, &run);
    recording.executor.hook = wrote;
    recording.executor.hook_context = p;
    must(executor_run(&recording.executor, &run, &error));
    reduction_free(r);
    recording_free(&recording, backend);
    model_free(&m);
    slot_free(&slot);
    backend->destroy(backend);
    return NULL;
}

/* Returns the bucket of an element; buckets that are ready at the same step count as one. */
static size_t bucket_of(const struct buckets *b, size_t element)
{
    for (size_t k = 0; k < b->count; k++)
        for (size_t i = 0; i < b->list[k].ranges; i++)
            if (element - b->list[k].range[i].first < b->list[k].range[i].count) return b->list[k].ready;
    fail_msg("no bucket has element %zu", element);
    return 0;
}

static void on_its_way_before_the_next_is_done(void **state)
{
    struct thread_world world;
    struct thread_rank members[2];
    pthread_t threads[2];
    const struct stack_config stack = {.width = 32, .layers = 3, .heads = 2, .dropout = 0.1};
    struct model_config config = {.encoder = stack,
                                  .decoder = stack,
                                  .vocabulary = 300,
                                  .positions = 14,
                                  .latent = {.width = 8, .memory = 1, .sample = true},
                                  .tie_output = true};
    (void)state;
    thread_world_open(&world, members, 2);
    for (size_t r = 0; r < 2; r++) {
        passes[r] = (struct pass){.rank = &members[r],
                                  .begin = members[r].base.begin,
                                  .config = &config,
                                  .events = calloc(MOST_EVENTS, sizeof(struct event))};
        members[r].base.begin = begin;
        assert_int_equal(pthread_create(&threads[r], NULL, train, &passes[r]), 0);
    }
    for (size_t r = 0; r < 2; r++) pthread_join(threads[r], NULL);
    for (size_t r = 0; r < 2; r++) {
        struct pass *p = &passes[r];
        const struct buckets *b = &p->buckets;
        size_t begun = 0, last = b->list[b->count - 1].ready, left = 0, sent = 0;
        bool ended = false;
        for (size_t i = p->count; i-- > 0;) /* from the end: buckets sent after the last kernel that wrote */
            if (!p->events[i].begun)
                break;
            else
                left += p->events[i].count;
        for (size_t i = 0; i < p->count; i++) {
            size_t own = bucket_of(b, p->events[i].first);
            if (p->events[i].begun) {
                begun = own > begun ? own : begun;
                sent += p->events[i].count;
                continue;
            }
            if (p->events[i].first >= p->gradients) continue; /* the figures go with the last bucket */
            /* At the last write to a gradient of bucket `own`, all earlier buckets that are ready must have been
             * sent. */
            bool later = false;
            for (size_t j = i + 1; j < p->count && !later; j++)
                later = !p->events[j].begun && bucket_of(b, p->events[j].first) == own;
            if (later) continue;
            for (size_t k = 0; k < b->count; k++)
                if (b->list[k].ready < own && b->list[k].ready > begun)
                    fail_msg("bucket of step %zu waits though that of %zu is done", b->list[k].ready, own);
            ended = ended || own == last;
        }
        assert_true(ended);
        size_t in_last = 0;
        for (size_t k = 0; k < b->count; k++) in_last += b->list[k].ready == last ? b->list[k].elements : 0;
        assert_true(b->count > 8 && in_last < p->elements / 2);
        assert_true(left <= in_last); /* this rank sends roots of the other's piece and sums of its own */
        printf("rank %zu: %zu buckets; of %zu bytes %zu were left to send when the backward pass ended\n", r, b->count,
               sent * sizeof(float), left * sizeof(float));
        free(p->events);
        free(p->arena);
        buckets_free(&p->buckets);
    }
    thread_world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(on_its_way_before_the_next_is_done)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
