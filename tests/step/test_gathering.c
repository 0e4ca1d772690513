/* gathering: before each step of a slot the weights that the step reads have arrived, on any number of ranks; weights
 * that later steps read may still be under way. In bf16 most masters stay with their rank until they are made whole. */
#include "graph/autodiff.h"
#include "device/backends.h"
#include "step/recording.h"
#include "step/gathering.h"
#include "job/threads.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { BLOCK = PARAMETER_ALIGNMENT, FIGURES = 2 * BLOCK, STALE = 0x7fc1 };

static float value_of(size_t i)
{
    return (float)(i % 8191) + 1;
}

static uint16_t narrow_of(size_t i)
{
    return (uint16_t)(i % 8191 + 1);
}

/* A side stream that runs work at once and records the calls. */
static _Thread_local struct {
    size_t count, marked, awaited; /* pieces */
} side;

static void side_begin(struct backend *b)
{
    (void)b;
}

static void side_mark(struct backend *b, size_t which, size_t count)
{
    (void)b;
    side.marked = which + 1;
    side.count = count;
}

static void side_await(struct backend *b, size_t which, size_t count)
{
    (void)b;
    side.awaited = which + 1;
    side.count = count;
}

struct job {
    struct thread_rank *rank;
    const struct recording *recording;
    const struct parameters *parameters;
    const struct buckets *buckets;
    unsigned groups;
    bool bf16, aside;
    float *master;
    uint16_t *working;
    size_t late;   /* parameters that had not arrived at the first step */
    size_t stayed; /* masters that had not traveled at the end of the slot */
};

static bool trained(const struct job *j, size_t element)
{
    const struct parameter_group *groups = parameters_groups(j->parameters);
    unsigned g = 0;
    while (element >= groups[g].offset + groups[g].elements) g++;
    return j->groups >> g & 1;
}

/* Keeps the rank's own pieces right and makes the pieces of other ranks stale. */
static void make_stale(struct job *j)
{
    size_t elements = parameters_arena_elements(j->parameters);
    for (size_t i = 0; i < elements; i++) {
        bool frozen = !trained(j, i);
        j->master[i] = frozen ? value_of(i) : NAN;
        j->working[i] = frozen ? narrow_of(i) : STALE;
    }
    for (size_t k = 0; k < j->buckets->count; k++) {
        struct lane_run mine = bucket_piece(&j->buckets->list[k], j->rank->base.ranks, j->rank->base.rank);
        while (mine.count) {
            struct bucket_range s = bucket_take(&j->buckets->list[k], &mine);
            for (size_t i = s.first; i < s.first + s.count && s.first < elements; i++) {
                j->master[i] = value_of(i);
                j->working[i] = narrow_of(i);
            }
        }
    }
}

static bool is_there(const struct job *j, const struct value_info *info)
{
    const struct parameter *p = parameters_get(j->parameters, info->binding);
    for (size_t i = p->offset; i < p->offset + p->elements; i++) {
        bool narrow = j->bf16 && info->dtype == DTYPE_BF16;
        if (narrow ? j->working[i] != narrow_of(i) : !(j->master[i] == value_of(i))) return false;
    }
    return true;
}

static const char *look(struct job *j, size_t step, bool later)
{
    const struct graph *g = j->recording->g;
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order);
    for (size_t s = step; s < (later ? steps : step + 1); s++)
        for (unsigned k = 0; k < MAX_INPUTS; k++) {
            const struct node *n = graph_node_get(g, order[s]);
            const struct value_info *info = graph_value(g, n->in[k]);
            if (!n->in[k].index || info->class != VALUE_PARAMETER || is_there(j, info)) continue;
            if (!later) return "a step reads what is not there";
            j->late++;
        }
    return NULL;
}

static void *gather(void *argument)
{
    struct job *j = argument;
    struct backend *backend = NULL;
    struct gathering *g = NULL;
    elbo_error error = {0};
    const uint32_t *order;
    size_t steps = graph_schedule(j->recording->g, &order);
    if (cpu_backend_create(&backend, 1, NULL, &error)) return "no backend";
    struct gathering_options o = {.backend = backend,
                                  .collectives = &j->rank->base,
                                  .buckets = j->buckets,
                                  .parameters = j->parameters,
                                  .groups = j->groups,
                                  .slot = j->recording->g,
                                  .arenas = {.master = j->master, .working = j->bf16 ? j->working : NULL}};
    if (j->aside) backend->side.begin = backend->side.end = side_begin;
    if (j->aside) backend->side.mark = side_mark, backend->side.await = side_await;
    const char *failed = gathering_create(&g, &o, &error) ? "not created" : NULL;
    for (int turn = 0; turn < 2 && !failed; turn++) {
        make_stale(j);
        j->late = side.marked = side.awaited = 0;
        for (size_t done = 0; done <= steps && !failed; done++) {
            if (gathering_step(g, done, steps, &error)) failed = "a step failed";
            if (done == 0 && !failed) failed = look(j, 0, true);
            if (done < steps && !failed) failed = look(j, done, false);
            if (j->aside && (side.marked != j->buckets->count || side.awaited > side.count)) failed = "pieces are lost";
        }
        if (j->aside && (side.awaited != j->buckets->count || side.count != j->buckets->count)) failed = "not awaited";
    }
    for (size_t i = 0; i < parameters_arena_elements(j->parameters); i++) j->stayed += !(j->master[i] == value_of(i));
    if (!failed) {
        make_stale(j);
        if (gathering_whole(g, &error)) failed = "not made whole";
        for (size_t i = 0; i < parameters_arena_elements(j->parameters) && !failed; i++)
            if (!(j->master[i] == value_of(i)) || (j->bf16 && j->working[i] != narrow_of(i))) failed = "not whole";
    }
    gathering_free(g);
    backend->destroy(backend);
    return (void *)failed;
}

static void weights_come_as_steps_read_them(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 12; seed++) {
        elbo_error error = {0};
        struct backend *backend;
        struct parameters *p = NULL;
        struct recording recording = {0};
        struct buckets b;
        struct graph_capacities capacities = {
            {[DIM_ENC_TOKENS] = 64, [DIM_DEC_TOKENS] = 64, [DIM_SENTENCES] = 8, [DIM_DRAWS] = 8}};
        const struct stack_config stack = {.width = 32, .layers = 3, .heads = 2};
        struct model_config config = {.encoder = stack,
                                      .decoder = stack,
                                      .vocabulary = 300,
                                      .positions = 14,
                                      .latent = {.width = 8, .memory = 1, .sample = true},
                                      .precision = seed % 2 ? PRECISION_BF16 : PRECISION_F32};
        size_t ranks = 2 + seed % 4, ready[512] = {0};
        unsigned groups = seed % 5 == 4 ? 0x3c : (1u << GROUPS) - 1; /* with a frozen encoder */
        config.tie_output = config.share_embedding = seed % 3 != 0;
        assert_int_equal(cpu_backend_create(&backend, 1, NULL, &error), ELBO_OK);
        struct objective objective;
        struct train_recording wanted = {.wanted = groups};
        if (objective_create(&objective, &(struct objective_config){0}, &config, 1, &error) ||
            parameters_create(&p, &error) ||
            record_train(&recording, &config, &objective, p, &capacities, &wanted, &error) ||
            recording_layout(&recording, p, &error))
            fail_msg("%s", error.message);
        assert_true(parameters_count(p) <= 512);
        graph_ready(recording.g, ready);
        if (buckets_create(&b, p, ready, FIGURES, (1 + seed % 3) * 8 * BLOCK, &error)) fail_msg("%s", error.message);
        struct thread_world world;
        struct thread_rank members[THREAD_RANKS];
        struct job jobs[THREAD_RANKS];
        size_t elements = parameters_arena_elements(p);
        thread_world_open(&world, members, ranks);
        world.late = seed / 2 % 2;
        for (size_t r = 0; r < ranks; r++)
            jobs[r] = (struct job){&members[r],
                                   &recording,
                                   p,
                                   &b,
                                   groups,
                                   seed % 2,
                                   seed / 2 % 2 == 0 && seed % 3 == 0,
                                   calloc(elements, sizeof(float)),
                                   calloc(elements, sizeof(uint16_t)),
                                   0,
                                   0};
        const char *failed = thread_world_run(&world, gather, jobs, sizeof *jobs);
        if (failed) fail_msg("seed %u: %s", seed, failed);
        for (size_t r = 0; r < ranks; r++) {
            if (world.late) assert_true(jobs[r].late > 0); /* the first step did not wait for all weights */
            assert_true(seed % 2 ? jobs[r].stayed > elements / 8
                                 : !jobs[r].stayed); /* in bf16 most masters stay with their rank */
        }
        for (size_t r = 0; r < ranks; r++) {
            free(jobs[r].master);
            free(jobs[r].working);
        }
        thread_world_close(&world);
        recording_free(&recording, backend);
        buckets_free(&b);
        parameters_free(p);
        backend->destroy(backend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights_come_as_steps_read_them)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
