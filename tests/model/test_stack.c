/* The interface of stacks: an encoder that reads vectors in place of ids, and options that a kind of stack ignores. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/backends.h"
#include "elbo/tokenizer.h"
#include "model/latent.h"
#include "model/stack.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS = 40, SENTENCES = 4, V = 30, D = 16, Z = 3 };

static elbo_error error;

static void must(elbo_status status)
{
    if (status) fail_msg("%s", error.message);
}

/* Computes posteriors of a slot from its ids, or from vectors that are rows of the token table. */
static void encode(struct model *m, const struct slot *slot, const float *vectors, float *stats)
{
    struct graph_capacities capacities = {
        {[DIM_ENC_TOKENS] = TOKENS, [DIM_SENTENCES] = SENTENCES, [DIM_DRAWS] = SENTENCES}};
    struct recording r = {0}, *list[] = {&r};
    struct recorder to;
    must(recorder_begin(&to, &r.g, "encode", &m->config, m->parameters, &capacities, &error));
    struct sequence source = sequence_packed(&to, "encoder", DIM_ENC_TOKENS, NO_VALUE);
    if (vectors) {
        source.vectors = graph_input(r.g, "vectors", DTYPE_F32, 2, (struct dim[]){{DIM_ENC_TOKENS, 0}, {DIM_FIXED, D}});
        source.ids = source.id_order = NO_VALUE;
    }
    r.stats = latent_record_stats(&to, encoder_record(&to, &source));
    graph_keep(r.g, r.stats);
    must(graph_check(r.g, &error));
    must(model_bind(m, list, 1, NULL, &error));
    struct execution run = {.seed = 1};
    recording_bind_slot(&r, slot, &run);
    if (vectors) assert_true(recording_bind_input(&r, "vectors", vectors));
    must(executor_run(&r.executor, &run, &error));
    recording_read(&r, r.stats, stats, run.count);
    recording_free(&r, m->backend);
}

static void vectors_stand_for_ids(void **state)
{
    (void)state;
    struct backend *backend;
    struct model m;
    struct slot slot;
    const struct stack_config stack = {.width = D, .layers = 2, .heads = 2};
    struct model_config config = {.encoder = stack,
                                  .decoder = stack,
                                  .vocabulary = V,
                                  .positions = 12,
                                  .latent = {.width = Z, .memory = 1, .sample = true}};
    const struct elbo_marks marks = {.start = 0, .end = 1, .unknown = 2};
    const uint32_t words[] = {5, 9, 3, 29, 7, 7, 4, 11};
    const uint32_t *texts[SENTENCES] = {words, words + 2, words + 5, words};
    const size_t lengths[SENTENCES] = {3, 5, 1, 0};
    const struct slot_options options = {.encoder_tokens = TOKENS, .decoder_tokens = TOKENS, .sentences = SENTENCES};
    must(cpu_backend_create(&backend, 1, NULL, &error));
    must(model_create(&m, &config, backend, &error));
    must(model_initialize(&m, 3, &error));
    must(slot_allocate(&slot, &options, &error));
    must(slot_fill(&slot, &options, &marks, texts, lengths, SENTENCES, 0, &error));
    size_t table;
    assert_true(parameters_find(m.parameters, "encoder.embedding.token.weight", &table));
    const float *rows = m.weights + parameters_get(m.parameters, table)->offset;
    float vectors[TOKENS * D], by_ids[SENTENCES * 2 * Z], by_vectors[SENTENCES * 2 * Z];
    for (size_t n = 0; n < slot.encoder.tokens; n++)
        memcpy(vectors + n * D, rows + (size_t)slot.encoder.ids[n] * D, D * sizeof *vectors);
    encode(&m, &slot, NULL, by_ids);
    encode(&m, &slot, vectors, by_vectors);
    assert_memory_equal(by_ids, by_vectors, sizeof by_ids);
    vectors[D + 1] += 0.5f; /* changes the first sentence's first word */
    encode(&m, &slot, vectors, by_vectors);
    assert_memory_not_equal(by_ids, by_vectors, 2 * Z * sizeof *by_ids);
    assert_memory_equal(by_ids + 2 * Z, by_vectors + 2 * Z, (SENTENCES - 1) * 2 * Z * sizeof *by_ids);
    slot_free(&slot);
    model_free(&m);
    backend->destroy(backend);
}

/* Reports options without effect: those of a prior that is not in use, and all options if there is no latent. */
static void idle_options_of_the_latent(void **state)
{
    (void)state;
    struct latent_config c = {.kind = LATENT_NORMAL};
    assert_non_null(latent_idle(&c, "components"));
    assert_null(latent_idle(&c, "width"));
    c.prior = PRIOR_MIXTURE;
    assert_null(latent_idle(&c, "components"));
    c.kind = LATENT_NONE;
    assert_non_null(latent_idle(&c, "width"));
    assert_null(latent_idle(&c, "kind"));
}

static bool has_node(const struct graph *g, const char *name)
{
    const uint32_t *order;
    for (size_t steps = graph_schedule(g, &order), s = 0; s < steps; s++)
        if (!strcmp(graph_node_get(g, order[s])->name, name)) return true;
    return false;
}

/* Nodes are named by their place in the model, for profiles and errors. */
static void nodes_have_names(void **state)
{
    (void)state;
    const struct stack_config stack = {.width = D, .layers = 1, .heads = 2};
    struct model_config config = {.encoder = stack,
                                  .decoder = stack,
                                  .vocabulary = V,
                                  .positions = 12,
                                  .latent = {.width = Z, .memory = 1, .injection = INJECT_BOTH}};
    struct graph_capacities capacities = {{[DIM_DEC_TOKENS] = TOKENS, [DIM_SENTENCES] = 1, [DIM_DRAWS] = 1}};
    struct backend *backend;
    struct model m;
    struct recording r;
    must(cpu_backend_create(&backend, 1, NULL, &error));
    must(model_create(&m, &config, backend, &error));
    must(record_score(&r, &config, m.parameters, &capacities, &error));
    static const char *const names[] = {"decoder.latent", "decoder.0.attention.norm", "decoder.0.feed_forward.norm",
                                        "decoder.norm", "decoder.output"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!has_node(r.g, names[i])) fail_msg("no node is called %s", names[i]);
    recording_free(&r, backend);
    model_free(&m);
    backend->destroy(backend);
}

static size_t held;

static elbo_status (*allocate_really)(struct backend *, void **, size_t, const char *, elbo_error *);
static void (*release_really)(struct backend *, void *);

static elbo_status allocate(struct backend *b, void **memory, size_t bytes, const char *what, elbo_error *why)
{
    held++;
    return allocate_really(b, memory, bytes, what, why);
}

static void release(struct backend *b, void *memory)
{
    held--;
    release_really(b, memory);
}

/* A model in bf16 holds weights twice, and frees both. */
static void a_model_gives_back_what_it_has(void **state)
{
    (void)state;
    const struct stack_config stack = {.width = D, .layers = 1, .heads = 2};
    struct model_config config = {.encoder = stack,
                                  .decoder = stack,
                                  .vocabulary = V,
                                  .positions = 12,
                                  .latent = {.width = Z, .memory = 1, .sample = true},
                                  .precision = PRECISION_BF16};
    struct backend *backend;
    struct model m;
    must(cpu_backend_create(&backend, 1, NULL, &error));
    allocate_really = backend->memory.allocate;
    release_really = backend->memory.release;
    backend->memory.allocate = allocate;
    backend->memory.release = release;
    must(model_create(&m, &config, backend, &error));
    assert_int_equal(held, 2);
    model_free(&m);
    assert_int_equal(held, 0);
    backend->destroy(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(vectors_stand_for_ids),
                                       cmocka_unit_test(idle_options_of_the_latent), cmocka_unit_test(nodes_have_names),
                                       cmocka_unit_test(a_model_gives_back_what_it_has)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
