/* Saves a hand-made training state to a checkpoint and loads the same bits: moments in f32 and bf16, of either
 * optimizer, on one rank or sharded over ranks; statistics and counters that a checkpoint lacks; and checkpoints of
 * other data, models and devices. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "checkpoint/training_state.h"
#include "device/backends.h"
#include "job/threads.h"
#include "counted_memory.h"
#include "temporary.h"

static elbo_error error;
static struct temporary folder;
static struct backend *backend;

static void must(elbo_status status)
{
    if (status) fail_msg("%s", error.message);
}

static int setup(void **state)
{
    (void)state;
    folder = temporary_open();
    return cpu_backend_create(&backend, 1, NULL, &error);
}

static int teardown(void **state)
{
    (void)state;
    backend->destroy(backend);
    temporary_remove(folder.path);
    return 0;
}

static const char *run_dir(void)
{
    static char path[512];
    static unsigned number;
    char name[16];
    snprintf(name, sizeof name, "run-%u", number++);
    mkdir(temporary_path(path, &folder, name), 0777);
    return path;
}

/* ---- a state ---- */

enum { LATENT = 3, RANKS = 3 };

struct fixture {
    struct parameters *parameters;
    struct training_state state;
    double variance[LATENT + 1];
    uint32_t seen[2]; /* a second statistic */
    struct safetensors_tensor statistics[2];
    size_t elements; /* number of moment elements on this rank */
};

static struct parameters *declare(bool further)
{
    struct parameters *p;
    const struct parameter all[] = {
        {.name = "encoder.embedding.weight", .rank = 2, .shape = {50, 8}, .part = PART_ENCODER, .decay = true},
        {.name = "latent.bias", .rank = 1, .shape = {7}, .part = PART_LATENT},
        {.name = "decoder.linear.weight", .rank = 2, .shape = {40, 60}, .part = PART_DECODER, .decay = true},
        {.name = "decoder.norm.weight", .rank = 1, .shape = {40}, .part = PART_DECODER},
        {.name = "decoder.further", .rank = 1, .shape = {3}, .part = PART_DECODER},
    };
    must(parameters_create(&p, &error));
    for (size_t i = 0; i < (further ? 5 : 4); i++) {
        size_t index;
        must(parameters_declare(p, &index, &all[i], &error));
    }
    must(parameters_layout(p, NULL, &error));
    return p;
}

static void *allocate(size_t bytes)
{
    void *memory;
    must(backend->memory.allocate(backend, &memory, bytes, "a test", &error));
    return memory;
}

/* Makes two moments, or one as for SGD, of all elements, or of a share of `elements`. Memory is zero. */
static struct fixture *open_state(enum dtype type, unsigned moments, size_t elements, bool further)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->parameters = declare(further);
    size_t all = parameters_arena_elements(f->parameters);
    f->elements = elements ? elements : all;
    f->statistics[0] = (struct safetensors_tensor){
        .name = "posterior.variance", .dtype = SAFETENSORS_F64, .rank = 1, .shape = {LATENT + 1}, .data = f->variance};
    f->statistics[1] = (struct safetensors_tensor){
        .name = "term.seen", .dtype = SAFETENSORS_U32, .rank = 1, .shape = {2}, .data = f->seen};
    f->state = (struct training_state){
        .best = {.figure = "neg_elbo"},
        .backend = backend,
        .parameters = f->parameters,
        .weights = allocate(all * sizeof(float)),
        .moments = {.source = &moments_here, .backend = backend, .parameters = f->parameters, .type = type},
        .statistics = f->statistics,
        .statistic_count = 2,
        .vocabulary = 50,
        .positions = 9,
        .corpus = "c0",
        .tokenizer = "t0"};
    for (unsigned k = 0; k < moments; k++) f->state.moments.memory[k] = allocate(f->elements * dtype_bytes(type));
    return f;
}

static void close_state(struct fixture *f)
{
    moments_close(&f->state.moments);
    for (unsigned k = 0; k < MOMENTS; k++)
        if (f->state.moments.memory[k]) backend->memory.release(backend, f->state.moments.memory[k]);
    backend->memory.release(backend, f->state.weights);
    parameters_free(f->parameters);
    free(f);
}

/* Returns the bits of element `at` of an arena, which differ between elements less than 4000 apart; bf16 uses the lower
 * half. */
static uint32_t bits_of(unsigned arena, enum dtype type, size_t at)
{
    uint32_t bits = 0x3f000000u + (arena << 20) + (uint32_t)(at % 4000) * (type == DTYPE_BF16 ? 1u : 257u);
    return type == DTYPE_BF16 ? bits & 0xffffu : bits;
}

/* Returns whether element `at` belongs to a parameter; the gaps between parameters are zero in every arena. */
static bool belongs(const struct parameters *p, size_t at)
{
    for (size_t i = 0; i < parameters_count(p); i++) {
        const struct parameter *own = parameters_get(p, i);
        if (at >= own->offset && at < own->offset + own->elements) return true;
    }
    return false;
}

static uint32_t wanted_at(const struct fixture *f, unsigned arena, enum dtype type, size_t at)
{
    return belongs(f->parameters, at) ? bits_of(arena, type, at) : 0;
}

static void fill(struct fixture *f)
{
    size_t all = parameters_arena_elements(f->parameters);
    const struct moments *m = &f->state.moments;
    for (size_t at = 0; at < all; at++) {
        uint32_t bits = wanted_at(f, 0, DTYPE_F32, at);
        memcpy(f->state.weights + at, &bits, sizeof bits);
    }
    size_t rank = moments_rank(m), pieces = m->collectives ? m->begin[rank + 1] - m->begin[rank] : 1;
    const struct arena_piece whole = {0, all, 0, 0}, *list = m->collectives ? m->pieces + m->begin[rank] : &whole;
    for (unsigned k = 0; k < MOMENTS && m->memory[k]; k++)
        for (size_t i = 0; i < pieces; i++)
            for (size_t e = 0; e < list[i].count; e++) {
                uint32_t bits = wanted_at(f, 1 + k, m->type, list[i].first + e);
                size_t each = dtype_bytes(m->type);
                memcpy((char *)m->memory[k] + (list[i].at + e) * each, &bits, each);
            }
    for (size_t j = 0; j <= LATENT; j++) f->variance[j] = 1.0 / (double)(j + 3);
    f->seen[0] = 17, f->seen[1] = 0xffffffffu;
    f->state.counters = (struct training_counters){
        .draws = 12, .updates = 10, .next = 345, .skipped = 2, .bad = 1, .shortened = 7, .rewound = 4};
    f->state.best = (struct training_best){.figure = f->state.best.figure, .step = 8, .worse = 3, .value = 0.1};
}

/* Checks that the state is that of fill(), except for the padding of a share. */
static void assert_filled(const struct fixture *f)
{
    const struct moments *m = &f->state.moments;
    size_t all = parameters_arena_elements(f->parameters), rank = moments_rank(m);
    size_t pieces = m->collectives ? m->begin[rank + 1] - m->begin[rank] : 1;
    const struct arena_piece whole = {0, all, 0, 0}, *list = m->collectives ? m->pieces + m->begin[rank] : &whole;
    for (size_t at = 0; at < all; at++) {
        uint32_t bits;
        memcpy(&bits, f->state.weights + at, sizeof bits);
        if (bits != wanted_at(f, 0, DTYPE_F32, at)) fail_msg("weight %zu is %08x", at, bits);
    }
    for (unsigned k = 0; k < MOMENTS && m->memory[k]; k++)
        for (size_t i = 0; i < pieces; i++)
            for (size_t e = 0; e < list[i].count; e++) {
                uint32_t bits = 0;
                size_t each = dtype_bytes(m->type);
                memcpy(&bits, (const char *)m->memory[k] + (list[i].at + e) * each, each);
                if (bits != wanted_at(f, 1 + k, m->type, list[i].first + e))
                    fail_msg("rank %zu: moment %u of element %zu is %08x", rank, k + 1, list[i].first + e, bits);
            }
    for (size_t j = 0; j <= LATENT; j++) assert_float_equal(f->variance[j], 1.0 / (double)(j + 3), 0);
    assert_true(f->seen[0] == 17 && f->seen[1] == 0xffffffffu);
}

static void assert_counted(const struct training_state *s)
{
    const struct training_counters *c = &s->counters;
    assert_int_equal(c->draws, 12);
    assert_int_equal(c->updates, 10);
    assert_int_equal(c->next, 345);
    assert_int_equal(c->skipped, 2);
    assert_int_equal(c->bad, 1);
    assert_int_equal(c->shortened, 7);
    assert_int_equal(c->rewound, 4);
    assert_string_equal(s->best.figure, "neg_elbo");
    assert_int_equal(s->best.step, 8);
    assert_int_equal(s->best.worse, 3);
    assert_float_equal(s->best.value, 0.1, 0);
}

/* ---- saving and loading ---- */

static const struct training_files files = {"seed: 1\n", "{\"a\": 1}", 8};

/* Saves on one rank of a job. */
static elbo_status save(struct training_state *s, const char *dir, elbo_error *why)
{
    return training_state_save(s, dir, moments_rank(&s->moments) ? NULL : &files, 0, why);
}

static struct checkpoint *saved(struct fixture *f)
{
    const char *dir = run_dir();
    struct checkpoint *c;
    must(save(&f->state, dir, &error));
    must(checkpoint_open(&c, dir, NULL, NULL, &error));
    return c;
}

static void load(struct fixture *f, const struct checkpoint *c)
{
    struct training_changes changes;
    must(training_state_load(&f->state, &changes, c, &error));
    assert_false(changes.corpus || changes.instructions);
}

static void refused(struct fixture *f, const struct checkpoint *c, elbo_status status, const char *words)
{
    struct training_changes changes;
    error = (elbo_error){0};
    assert_int_equal(training_state_load(&f->state, &changes, c, &error), status);
    if (!strstr(error.message, words)) fail_msg("'%s' is not in: %s", words, error.message);
}

static void the_same_bits_come_back(void **state)
{
    (void)state;
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t t = 0; t < 2; t++)
        for (unsigned moments = 1; moments <= MOMENTS; moments++) {
            struct fixture *from = open_state(types[t], moments, 0, false),
                           *to = open_state(types[t], moments, 0, false);
            const void *bytes;
            size_t size;
            struct safetensors *file;
            fill(from);
            struct checkpoint *c = saved(from);
            assert_int_equal(checkpoint_step(c), 12);
            assert_int_equal(checkpoint_ranks(c), 1);
            must(checkpoint_bytes(&bytes, &size, c, "config.yaml", &error));
            assert_string_equal(bytes, files.yaml);
            must(checkpoint_bytes(&bytes, &size, c, "tokenizer.json", &error));
            assert_int_equal(size, files.tokenizer_size);
            assert_memory_equal(bytes, files.tokenizer, size);
            assert_true(checkpoint_has(c, "state/algorithms.bin")); /* records the CPU's instruction set */
            must(checkpoint_tensors(&file, c, "state/optimizer.safetensors", &error));
            assert_int_equal(safetensors_count(file), 4 * moments + 2);
            assert_int_equal(safetensors_find(file, "moment1.latent.bias")->dtype, SAFETENSORS_F32);
            safetensors_free(file);
            load(to, c);
            assert_filled(to);
            assert_counted(&to->state);
            checkpoint_close(c);
            close_state(from);
            close_state(to);
        }
}

/* A moment that is loaded as another type has the same value where both types can hold it. */
static void moments_of_another_type(void **state)
{
    (void)state;
    struct fixture *half = open_state(DTYPE_BF16, MOMENTS, 0, false), *full = open_state(DTYPE_F32, MOMENTS, 0, false),
                   *again = open_state(DTYPE_BF16, MOMENTS, 0, false), *one = open_state(DTYPE_F32, 1, 0, false);
    fill(half);
    struct checkpoint *c = saved(half);
    load(full, c);
    checkpoint_close(c);
    c = saved(full);
    load(again, c);
    assert_filled(again);
    load(one, c); /* the second moment is skipped */
    assert_memory_equal(one->state.moments.memory[0], full->state.moments.memory[0], full->elements * sizeof(float));
    checkpoint_close(c);
    c = saved(one);
    refused(full, c, ELBO_INPUT, "moment2.encoder.embedding.weight");
    checkpoint_close(c);
    close_state(half);
    close_state(full);
    close_state(again);
    close_state(one);
}

/* ---- shares ---- */

/* Pieces of the whole arena for three ranks, in blocks that cross the bounds of parameters. */
static const struct arena_piece shares[] = {
    {0, 100, 0, 0},    {1000, 1100, 100, 0}, {3000, 50, 1200, 0},                     /* rank 0 */
    {100, 900, 0, 0},  {3050, 700, 900, 0},                                           /* rank 1 */
    {2100, 900, 0, 0}, {3750, 1000, 900, 0}, {4750, 5 * 1024 + 1024 - 4750, 1900, 0}, /* rank 2 */
};
static const size_t begin[RANKS + 1] = {0, 3, 5, 8};

struct rank {
    struct thread_rank *member;
    struct fixture *f;
    const char *dir;
    bool loads, lacks; /* lacks: no memory for the checksums of all ranks */
    elbo_error why;
};

static void *act(void *argument)
{
    struct rank *r = argument;
    struct checkpoint *c;
    struct training_changes changes;
    if (r->lacks) memory_lacks.count = RANKS, memory_lacks.size = sizeof(uint64_t);
    if (!r->loads) return save(&r->f->state, r->dir, &r->why) ? r->why.message : NULL;
    if (checkpoint_open(&c, r->dir, NULL, NULL, &r->why)) return r->why.message;
    elbo_status status = training_state_load(&r->f->state, &changes, c, &r->why);
    checkpoint_close(c);
    return status ? r->why.message : NULL;
}

/* Lets each allocation fail once; the load must fail with it. */
static void load_starving(struct fixture *f, const struct checkpoint *c)
{
    struct training_changes changes;
    bool over = !COUNTED;
    for (long which = 1; !over; which++) {
        long before = atomic_load(&memory_held);
        atomic_store(&memory_until, which);
        elbo_status status = training_state_load(&f->state, &changes, c, &error);
        over = atomic_exchange(&memory_until, 0) > 0;
        if (status != (over ? ELBO_OK : ELBO_MEMORY)) fail_msg("call %ld: %d, %s", which, status, error.message);
        if (atomic_load(&memory_held) != before) fail_msg("call %ld: memory stays", which);
    }
}

static size_t share_elements(size_t rank)
{
    size_t elements = 0;
    for (size_t i = begin[rank]; i < begin[rank + 1]; i++) elements += shares[i].count;
    return elements;
}

static void open_ranks(struct rank ranks[RANKS], struct thread_rank members[RANKS], enum dtype type,
                       const struct moments_source *source)
{
    for (size_t r = 0; r < RANKS; r++) {
        ranks[r] =
            (struct rank){&members[r], open_state(type, MOMENTS, share_elements(r), false), NULL, false, false, {0}};
        struct moments *m = &ranks[r].f->state.moments;
        m->source = source;
        m->collectives = &members[r].base;
        m->pieces = shares;
        m->begin = begin;
    }
}

static void act_all(struct thread_world *world, struct rank ranks[RANKS], const char *dir, bool loads)
{
    for (size_t r = 0; r < RANKS; r++) {
        ranks[r].dir = dir;
        ranks[r].loads = loads;
    }
    const char *why = thread_world_run(world, act, ranks, sizeof *ranks);
    if (why) fail_msg("%s", why);
}

/* Both ways of three ranks to write are read by one rank and by three ranks; three ranks also read what one rank
 * wrote. */
static void shares_and_wholes_are_one(void **state)
{
    (void)state;
    const struct moments_source *const sources[] = {&moments_gathered, &moments_beside};
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    struct thread_world world;
    struct thread_rank members[RANKS];
    struct rank ranks[RANKS];
    thread_world_open(&world, members, RANKS);
    for (size_t s = 0; s < 2; s++)
        for (size_t t = 0; t < 2; t++) {
            struct fixture *whole = open_state(types[t], MOMENTS, 0, false);
            struct checkpoint *c;
            assert_int_equal(parameters_arena_elements(whole->parameters), 6 * 1024);
            char dir[512];
            snprintf(dir, sizeof dir, "%s", run_dir());
            open_ranks(ranks, members, types[t], sources[s]);
            for (size_t r = 0; r < RANKS; r++) fill(ranks[r].f);
            act_all(&world, ranks, dir, false);
            must(checkpoint_open(&c, dir, NULL, NULL, &error));
            assert_int_equal(moments_are_beside(c), sources[s] == &moments_beside);
            assert_int_equal(checkpoint_ranks(c), sources[s] == &moments_beside ? RANKS : 1);
            load(whole, c);
            assert_filled(whole);
            assert_counted(&whole->state);
            load_starving(whole, c);
            checkpoint_close(c);
            for (size_t r = 0; r < RANKS; r++) close_state(ranks[r].f);
            open_ranks(ranks, members, types[t], sources[s]);
            act_all(&world, ranks, dir, true);
            for (size_t r = 0; r < RANKS; r++) assert_filled(ranks[r].f);
            for (size_t r = 0; r < RANKS; r++) close_state(ranks[r].f);
            snprintf(dir, sizeof dir, "%s", run_dir());
            must(save(&whole->state, dir, &error));
            open_ranks(ranks, members, types[t], sources[s]);
            act_all(&world, ranks, dir, true);
            for (size_t r = 0; r < RANKS; r++) {
                assert_filled(ranks[r].f);
                close_state(ranks[r].f);
            }
            close_state(whole);
        }
    thread_world_close(&world);
}

/* When a save fails on rank 0 before the others are told, the other ranks return, and the next save succeeds. */
static void a_failed_save_lets_the_others_go(void **state)
{
    (void)state;
    const struct moments_source *const sources[] = {&moments_gathered, &moments_beside};
    struct thread_world world;
    struct thread_rank members[RANKS];
    struct rank ranks[RANKS];
    thread_world_open(&world, members, RANKS);
    for (size_t s = 0; s < 2; s++) {
        char dir[512], file[512];
        snprintf(dir, sizeof dir, "%s", run_dir());
        temporary_write(temporary_path(file, &folder, "no-folder"), "x", 1);
        open_ranks(ranks, members, DTYPE_F32, sources[s]);
        for (size_t r = 0; r < RANKS; r++) fill(ranks[r].f);
        for (int turn = 0; turn < 2; turn++) { /* the second turn follows a good save */
            for (size_t r = 0; r < RANKS; r++) {
                ranks[r].dir = file;
                ranks[r].why.message[0] = 0;
            }
            const char *why = thread_world_run(&world, act, ranks, sizeof *ranks);
            assert_ptr_equal(why, ranks[0].why.message);
            if (strncmp(why, "the checkpoint of step 12 was not saved: ", 41)) fail_msg("%s", why);
            for (size_t r = 1; r < RANKS; r++) assert_int_equal(ranks[r].why.message[0], 0);
            act_all(&world, ranks, dir, false);
        }
        struct fixture *whole = open_state(DTYPE_F32, MOMENTS, 0, false);
        struct checkpoint *c;
        must(checkpoint_open(&c, dir, NULL, NULL, &error));
        load(whole, c);
        assert_filled(whole);
        checkpoint_close(c);
        close_state(whole);
        for (size_t r = 0; r < RANKS; r++) close_state(ranks[r].f);
    }
    thread_world_close(&world);
}

/* When one rank lacks the memory for the entries of all files, nothing is saved and no rank waits. */
static void one_rank_without_memory(void **state)
{
    (void)state;
    if (!COUNTED) skip();
    struct thread_world world;
    struct thread_rank members[RANKS];
    struct rank ranks[RANKS];
    thread_world_open(&world, members, RANKS);
    open_ranks(ranks, members, DTYPE_F32, &moments_beside);
    for (size_t r = 0; r < RANKS; r++) {
        fill(ranks[r].f);
        ranks[r].dir = r ? ranks[0].dir : run_dir();
        ranks[r].lacks = r == 1;
    }
    alarm(30);
    assert_non_null(thread_world_run(&world, act, ranks, sizeof *ranks));
    alarm(0);
    for (size_t r = 0; r < RANKS; r++) {
        if (ranks[r].why.code != ELBO_MEMORY) fail_msg("rank %zu: %s", r, ranks[r].why.message);
        assert_non_null(strstr(ranks[r].why.message, "was not saved: "));
        close_state(ranks[r].f);
    }
    thread_world_close(&world);
}

/* ---- missing and changed parts of a checkpoint ---- */

static void statistics_that_are_missing_stay(void **state)
{
    (void)state;
    struct fixture *from = open_state(DTYPE_F32, 1, 0, false), *to = open_state(DTYPE_F32, 1, 0, false);
    fill(from);
    from->state.statistic_count = 1; /* without term.seen */
    struct checkpoint *c = saved(from);
    fill(to);
    to->variance[0] = 99;
    load(to, c);
    assert_filled(to);
    checkpoint_close(c);
    from->state.statistic_count = 2;
    from->statistics[1].shape[0] = 1; /* there, but with another shape */
    c = saved(from);
    refused(to, c, ELBO_INPUT, "term.seen");
    checkpoint_close(c);
    close_state(from);
    close_state(to);
}

static void counters_must_be_there(void **state)
{
    (void)state;
    const char *const names[] = {"draws", "updates", "next", "skipped", "bad", "shortened", "vocabulary"};
    struct fixture *f = open_state(DTYPE_F32, 1, 0, false);
    fill(f);
    struct checkpoint *c = saved(f);
    json_t *counters = checkpoint_counters(c);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char words[128];
        json_t *kept = json_incref(json_object_get(counters, names[i]));
        snprintf(words, sizeof words, "the checkpoint's counter %s is missing or negative", names[i]);
        json_object_del(counters, names[i]);
        refused(f, c, ELBO_INPUT, words);
        json_object_set_new(counters, names[i], json_integer(-1));
        refused(f, c, ELBO_INPUT, words);
        json_object_set_new(counters, names[i], json_string("12"));
        refused(f, c, ELBO_INPUT, words);
        json_object_set_new(counters, names[i], kept);
    }
    json_object_set_new(counters, "rewound", json_integer(-4));
    refused(f, c, ELBO_INPUT, "counter rewound is missing or negative");
    json_object_del(counters, "rewound"); /* a run that never went back has no such counter */
    load(f, c);
    checkpoint_close(c);
    f->state.counters.rewound = 0;
    c = saved(f);
    assert_null(json_object_get(checkpoint_counters(c), "rewound"));
    checkpoint_close(c);
    close_state(f);
}

static void the_best_is_of_one_figure(void **state)
{
    (void)state;
    struct fixture *f = open_state(DTYPE_F32, 1, 0, false);
    fill(f);
    struct checkpoint *c = saved(f);
    json_t *best = json_object_get(checkpoint_counters(c), "best");
    f->state.best = (struct training_best){.figure = "own_z_gain", .step = 5, .worse = 6, .value = 7};
    load(f, c); /* another figure: nothing to compare with */
    assert_int_equal(f->state.best.step, 0);
    assert_int_equal(f->state.best.worse, 0);
    f->state.best.figure = "neg_elbo";
    load(f, c);
    assert_counted(&f->state);
    json_object_del(best, "worse");
    refused(f, c, ELBO_INPUT, "counter worse is missing");
    json_object_del(best, "value");
    refused(f, c, ELBO_INPUT, "counter best has no value");
    json_object_del(checkpoint_counters(c), "best");
    load(f, c);
    assert_int_equal(f->state.best.step, 0);
    checkpoint_close(c);
    f->state.best.figure = "none";
    c = saved(f);
    assert_null(json_object_get(checkpoint_counters(c), "best"));
    load(f, c);
    checkpoint_close(c);
    close_state(f);
}

static void other_data_are_refused_or_told(void **state)
{
    (void)state;
    struct fixture *f = open_state(DTYPE_F32, 1, 0, false);
    struct training_changes changes;
    fill(f);
    struct checkpoint *c = saved(f);
    f->state.vocabulary = 51;
    refused(f, c, ELBO_INPUT, "was trained with 50 token types, data.train has 51; give the corpus it was trained on");
    f->state.vocabulary = 50;
    f->state.tokenizer = "t1";
    refused(f, c, ELBO_INPUT, "was trained with another tokenizer than data.train has");
    assert_non_null(strstr(error.message, "--tokenizer.from="));
    f->state.tokenizer = "t0";
    f->state.corpus = "c1";
    must(training_state_load(&f->state, &changes, c, &error));
    assert_true(changes.corpus && !changes.instructions);
    json_object_del(checkpoint_counters(c), "corpus");
    f->state.corpus = "c0";
    must(training_state_load(&f->state, &changes, c, &error));
    assert_true(changes.corpus);
    json_object_del(checkpoint_counters(c), "tokenizer");
    refused(f, c, ELBO_INPUT, "another tokenizer");
    checkpoint_close(c);
    close_state(f);
}

static void another_model_is_refused(void **state)
{
    (void)state;
    struct fixture *f = open_state(DTYPE_F32, 1, 0, false), *more = open_state(DTYPE_F32, 1, 0, true);
    fill(f);
    struct checkpoint *c = saved(f);
    refused(more, c, ELBO_INPUT, "decoder.further");
    assert_non_null(strstr(error.message, checkpoint_path(c)));
    assert_int_equal(weights_load(more->state.weights, more->parameters, backend, c, &error), ELBO_INPUT);
    memset(f->state.weights, 0, parameters_arena_elements(f->parameters) * sizeof(float));
    must(weights_load(f->state.weights, f->parameters, backend, c, &error));
    assert_filled(f);
    checkpoint_close(c);
    close_state(f);
    close_state(more);
}

/* ---- choices of a backend ---- */

static const char *chosen;
static bool takes;

static size_t save_choices(struct backend *own, void *to)
{
    (void)own;
    if (to) memcpy(to, chosen, strlen(chosen));
    return strlen(chosen);
}

static bool restore_choices(struct backend *own, const void *from, size_t bytes)
{
    (void)own;
    return takes && bytes == strlen(chosen) && !memcmp(from, chosen, bytes);
}

static void choices_of_the_backend(void **state)
{
    (void)state;
    struct fixture *f = open_state(DTYPE_F32, 1, 0, false);
    struct backend choosy = *backend;
    struct training_changes changes;
    choosy.device.save_choices = save_choices;
    choosy.device.restore_choices = restore_choices;
    fill(f);
    f->state.backend = f->state.moments.backend = &choosy;
    chosen = "";
    struct checkpoint *c = saved(f); /* nothing was chosen yet */
    assert_false(checkpoint_has(c, "state/algorithms.bin"));
    load(f, c);
    checkpoint_close(c);
    chosen = "algorithm 7";
    c = saved(f);
    assert_true(checkpoint_has(c, "state/algorithms.bin"));
    takes = true;
    load(f, c);
    takes = false; /* choices of another device: reported, and the run continues */
    must(training_state_load(&f->state, &changes, c, &error));
    assert_true(changes.instructions && !changes.corpus);
    choosy.device.restore_choices = NULL; /* a backend without choices ignores and saves none */
    choosy.device.save_choices = NULL;
    load(f, c);
    checkpoint_close(c);
    c = saved(f);
    assert_false(checkpoint_has(c, "state/algorithms.bin"));
    checkpoint_close(c);
    close_state(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits_come_back),        cmocka_unit_test(moments_of_another_type),
        cmocka_unit_test(shares_and_wholes_are_one),      cmocka_unit_test(a_failed_save_lets_the_others_go),
        cmocka_unit_test(one_rank_without_memory),        cmocka_unit_test(statistics_that_are_missing_stay),
        cmocka_unit_test(counters_must_be_there),         cmocka_unit_test(the_best_is_of_one_figure),
        cmocka_unit_test(other_data_are_refused_or_told), cmocka_unit_test(another_model_is_refused),
        cmocka_unit_test(choices_of_the_backend)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
