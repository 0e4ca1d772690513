/* Buckets, and sums that set out while the backward pass still runs: what is in them, what they sum, and when.
 *
 *   buckets        every element once, in the order of readiness, whatever the parameters
 *   sums           bit for bit the tree's, though of a bucket that is not ready yet every number is wrong
 *   a real pass    a bucket is on its way before the next one's last gradient is computed, and only the last is left at the end */
#include "base/checked.h"
#include "base/philox.h"
#include "elbo/tokenizer.h"
#include "graph/backends.h"
#include "model/model.h"
#include "parallel/reduction.h"
#include "parallel/threads.h"
#include "text/slots.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

enum { BLOCK = PARAMETER_ALIGNMENT, MOST_PARAMETERS = 40, FIGURES = 2 * BLOCK };

static elbo_error error;

static void must(elbo_status status)
{
    if (status) fail_msg("%s", error.message);
}

static unsigned random_below(uint64_t seed, uint64_t what, uint64_t i, unsigned bound)
{
    return noise_block(noise_key(seed, 3, 0), what, 0, (uint32_t)i).word[0] % bound;
}

/* Parameters of random sizes and parts, finished at random times; several at once, and some never. */
static struct parameters *random_parameters(uint64_t seed, size_t count, size_t *ready)
{
    struct parameters *p;
    must(parameters_create(&p, &error));
    for (size_t i = 0; i < count; i++) {
        char name[16];
        size_t index;
        snprintf(name, sizeof name, "p%zu", i);
        struct parameter d = {.name = name, .rank = 1, .shape = {1 + random_below(seed, 0, i, 5 * BLOCK)},
                              .part = random_below(seed, 1, i, PARTS), .decay = random_below(seed, 2, i, 2)};
        must(parameters_declare(p, &index, &d, &error));
        ready[i] = random_below(seed, 3, i, 12);
    }
    must(parameters_layout(p, random_below(seed, 4, 0, 2) ? ready : NULL, &error));
    return p;
}

static void everything_once_and_in_time(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        size_t ready[MOST_PARAMETERS], count = 1 + random_below(seed, 5, 0, MOST_PARAMETERS), room = random_below(seed, 6, 0, 9) * BLOCK;
        struct parameters *p = random_parameters(seed, count, ready);
        size_t arena = parameters_arena_elements(p), elements = arena + FIGURES;
        struct buckets b;
        must(buckets_create(&b, p, ready, FIGURES, room, &error));
        size_t *seen = calloc(elements / BLOCK, sizeof *seen), sum = 0; /* 1 + the bucket of each block */
        for (size_t k = 0; k < b.count; k++) {
            size_t own = 0;
            assert_true(!room || b.list[k].elements <= room);
            assert_true(!k || b.list[k].ready >= b.list[k - 1].ready);
            for (size_t i = 0; i < b.list[k].ranges; i++) {
                struct bucket_range s = b.list[k].range[i];
                assert_true(s.count && s.first % BLOCK == 0 && s.count % BLOCK == 0 && s.first + s.count <= elements);
                for (size_t at = s.first; at < s.first + s.count; at += BLOCK) {
                    assert_int_equal(seen[at / BLOCK], 0);
                    seen[at / BLOCK] = k + 1;
                }
                own += s.count;
            }
            assert_int_equal(own, b.list[k].elements);
            sum += own;
        }
        assert_int_equal(sum, elements);
        for (size_t i = 0; i < count; i++) {
            const struct parameter *own = parameters_get(p, i);
            for (size_t at = own->offset; at < own->offset + own->elements; at += BLOCK)
                assert_true(b.list[seen[at / BLOCK] - 1].ready >= ready[i]);
        }
        assert_int_equal(b.list[seen[elements / BLOCK - 1] - 1].ready, b.list[b.count - 1].ready); /* figures come last */
        free(seen);
        buckets_free(&b);
        parameters_free(p);
    }
}

/* ---- sums ---- */

struct job {
    struct thread_rank *rank;
    size_t lanes, elements;
    const struct buckets *buckets;
    float *got;
};

static float value_of(size_t lane, size_t i)
{
    struct philox_block b = noise_block(noise_key(7, 1, 0), lane, 0, (uint32_t)i);
    return ((float)(int32_t)b.word[0] / 3e9f) * (float)(1u << b.word[1] % 12);
}

static float tree(size_t first, size_t count, size_t i)
{
    if (count == 1) return value_of(first, i);
    size_t left = lanes_left(count);
    return tree(first, left, i) + tree(first + left, count - left, i);
}

static void *reduce(void *argument)
{
    struct job *job = argument;
    struct backend *backend = NULL;
    struct reduction *r = NULL;
    elbo_error own = {0};
    if (cpu_backend_create(&backend, 1, NULL, &own)) return "no backend";
    struct reduction_options o = {.backend = backend, .collectives = &job->rank->base, .arena = job->got, .elements = job->elements,
                                  .lanes = job->lanes, .ordered = true, .buckets = job->buckets};
    const char *failed = reduction_create(&r, &o, &own) ? "not created" : NULL;
    for (int turn = 0; turn < 2 && !failed; turn++) {
        struct lane_run lanes = reduction_own(r);
        for (size_t lane = lanes.first; lane < lanes.first + lanes.count; lane++) {
            bool last = lane + 1 == lanes.first + lanes.count;
            for (size_t i = 0; i < job->elements; i++) job->got[i] = last ? NAN : value_of(lane, i);
            for (size_t step = 0; step < 12 && last && !failed; step++) { /* what is ready now was wrong until now */
                for (size_t k = 0; k < job->buckets->count; k++)
                    for (size_t n = 0; n < job->buckets->list[k].ranges && job->buckets->list[k].ready == step; n++)
                        for (size_t c = 0, i = job->buckets->list[k].range[n].first; c < job->buckets->list[k].range[n].count; c++, i++)
                            job->got[i] = value_of(lane, i);
                if (reduction_step(r, step, &own)) failed = "a step failed";
            }
            reduction_lane(r, lane);
        }
        if (!failed && reduction_finish(r, &own)) failed = "not finished";
    }
    reduction_free(r);
    backend->destroy(backend);
    return (void *)failed;
}

static void sums_of_what_is_ready(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        size_t ready[MOST_PARAMETERS], count = 1 + random_below(seed, 5, 0, 12), room = random_below(seed, 6, 0, 5) * BLOCK;
        size_t ranks = 2 + random_below(seed, 7, 0, 4), lanes = ranks + random_below(seed, 8, 0, 6);
        struct parameters *p = random_parameters(seed, count, ready);
        struct buckets b;
        must(buckets_create(&b, p, ready, FIGURES, room, &error));
        struct thread_world world;
        struct thread_rank members[THREAD_RANKS];
        struct job jobs[THREAD_RANKS];
        pthread_t threads[THREAD_RANKS];
        thread_world_open(&world, members, ranks);
        world.late = seed % 2;
        size_t elements = parameters_arena_elements(p) + FIGURES;
        for (size_t r = 0; r < ranks; r++) {
            jobs[r] = (struct job){&members[r], lanes, elements, &b, calloc(elements, sizeof(float))};
            assert_int_equal(pthread_create(&threads[r], NULL, reduce, &jobs[r]), 0);
        }
        for (size_t r = 0; r < ranks; r++) {
            void *failed;
            pthread_join(threads[r], &failed);
            if (failed) fail_msg("seed %llu, rank %zu: %s", (unsigned long long)seed, r, (const char *)failed);
        }
        for (size_t i = 0; i < elements; i++) {
            float wanted = tree(0, lanes, i);
            for (size_t r = 0; r < ranks; r++) assert_memory_equal(&jobs[r].got[i], &wanted, sizeof wanted);
        }
        for (size_t r = 0; r < ranks; r++) free(jobs[r].got);
        thread_world_close(&world);
        buckets_free(&b);
        parameters_free(p);
    }
}

/* ---- a real backward pass ---- */

enum { MOST_EVENTS = 1 << 16 };

/* What happened on a rank, in order: a bucket set out, or a kernel wrote gradients. */
struct event {
    bool begun;
    size_t first, count; /* elements of the arena: what set out; what was written */
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

static elbo_status advance(void *context, size_t step, size_t steps, elbo_error *own)
{
    return step + 1 < steps ? reduction_step(context, step, own) : reduction_finish(context, own);
}

static void fill(struct slot *slot, const struct slot_options *options)
{
    const struct text_marks marks = {.start = 0, .end = 1, .unknown = 2};
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
    struct graph_capacities capacities = {{[DIM_ENC_TOKENS] = 64, [DIM_DEC_TOKENS] = 64, [DIM_SENTENCES] = 8, [DIM_DRAWS] = 8}};
    struct slot_options options = {.slots = 1, .encoder_tokens = 64, .decoder_tokens = 64, .sentences = 8, .max_length = 12};
    struct train_recording wanted = {.wanted = (1u << GROUPS) - 1};
    struct slot slot = {0};
    size_t ready[512] = {0};
    const float weights[2][ELBO_WEIGHTS] = {{1, 1}, {1, 1}};
    const float control[CONTROL_SIZE] = {0};
    must(cpu_backend_create(&backend, 1, NULL, &error));
    must(model_create(&m, p->config, backend, &error));
    must(model_initialize(&m, 5, &error));
    must(record_train(&recording, p->config, m.parameters, &capacities, &wanted, &error));
    assert_true(parameters_count(m.parameters) <= 512);
    graph_ready(recording.g, ready);
    p->gradients = parameters_arena_elements(m.parameters);
    size_t figures = align_up(recording_state_elements(&recording), BLOCK);
    p->elements = p->gradients + figures;
    p->arena = calloc(p->elements, sizeof *p->arena);
    must(buckets_create(&p->buckets, m.parameters, ready, figures, 16 * BLOCK, &error));
    must(recording_place_state(&recording, p->arena + p->gradients, &error));
    must(model_bind(&m, list, 1, p->arena, &error));
    struct reduction_options o = {.backend = backend, .collectives = &p->rank->base, .arena = p->arena, .elements = p->elements, .lanes = 2,
                                  .ordered = true, .buckets = &p->buckets};
    must(reduction_create(&r, &o, &error));
    must(slot_allocate(&slot, &options, &error));
    fill(&slot, &options);
    struct execution run = {.first_slot = true, .seed = 1, .progress = advance, .progress_context = r};
    recording_bind_input(&recording, "weights", weights);
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

/* The bucket of an element; with those that are ready at the same step it is one. */
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
    struct model_config config = {.encoder = stack, .decoder = stack, .vocabulary = 300, .positions = 14,
                                  .latent = {.width = 8, .memory = 1, .sample = true}, .tie_output = true};
    (void)state;
    thread_world_open(&world, members, 2);
    for (size_t r = 0; r < 2; r++) {
        passes[r] = (struct pass){.rank = &members[r], .begin = members[r].base.begin, .config = &config,
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
        for (size_t i = p->count; i-- > 0;) /* from behind: what set out after the last kernel that wrote */
            if (!p->events[i].begun) break;
            else left += p->events[i].count;
        for (size_t i = 0; i < p->count; i++) {
            size_t own = bucket_of(b, p->events[i].first);
            if (p->events[i].begun) {
                begun = own > begun ? own : begun;
                sent += p->events[i].count;
                continue;
            }
            if (p->events[i].first >= p->gradients) continue; /* figures: with the last bucket */
            /* A gradient of bucket `own`: all buckets before it whose turn has come are under way by its last write. */
            bool later = false;
            for (size_t j = i + 1; j < p->count && !later; j++) later = !p->events[j].begun && bucket_of(b, p->events[j].first) == own;
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
        assert_true(left <= in_last); /* this rank's sends: roots of the other's piece, sums of its own */
        printf("rank %zu: %zu buckets; of %zu bytes %zu were left to send when the backward pass ended\n", r, b->count, sent * sizeof(float),
               left * sizeof(float));
        free(p->events);
        free(p->arena);
        buckets_free(&p->buckets);
    }
    thread_world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything_once_and_in_time), cmocka_unit_test(sums_of_what_is_ready),
                                       cmocka_unit_test(on_its_way_before_the_next_is_done)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
