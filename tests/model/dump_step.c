/* A tool of the tests: makes a small model with weights far from their initial values, runs two slots of a training
 * step and the other recordings on random sentences, and writes all inputs and outputs to one safetensors file, which
 * test_torch.py recomputes.
 *
 *   model_dump_step OUT.safetensors [key=value ...]      keys: the table in main
 *
 *   w.<name>, g.<name>   weights, gradients (NaN beforehand)       <slot>.<stream>.<array>   the slots
 *   <slot>.eps, .z, .stats, .parts, .kl_dim, .moments, .nll (per sentence), .logits (S, T, V) of the cached path */
#include "base/philox.h"
#include "elbo/tokenizer.h"
#include "formats/safetensors.h"
#include "device/backends.h"
#include "step/recording.h"
#include "model/latent.h"
#include "model/stack.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 2, MOST_TENSORS = 512, CAPACITY = 150 };

static struct safetensors_tensor tensors[MOST_TENSORS];
static size_t tensor_count;
static elbo_error error;

static void must(elbo_status status)
{
    if (!status) return;
    fprintf(stderr, "%s\n", error.message);
    exit(1);
}

static void *copy_of(const void *data, size_t bytes)
{
    void *copy = malloc(bytes + 1);
    if (!copy) abort();
    return memcpy(copy, data, bytes);
}

static void put(const char *prefix, const char *name, enum safetensors_dtype dtype, const void *data, size_t rank,
                const size_t *shape)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    struct safetensors_tensor *t = &tensors[tensor_count++];
    *t = (struct safetensors_tensor){.name = strdup(full), .dtype = dtype, .rank = rank};
    memcpy(t->shape, shape, rank * sizeof *shape);
    t->data = copy_of(data, safetensors_bytes(t));
}

static void put_f32(const char *prefix, const char *name, const float *data, size_t rows, size_t columns)
{
    put(prefix, name, SAFETENSORS_F32, data, columns ? 2 : 1, (size_t[]){rows, columns});
}

static void put_stream(const char *prefix, const char *name, const struct slot_stream *s, size_t sentences)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s.", prefix, name);
    put(full, "ids", SAFETENSORS_I32, s->ids, 1, &s->tokens);
    put(full, "offsets", SAFETENSORS_I32, s->offsets, 1, (size_t[]){sentences + 1});
    if (s->labels) put(full, "labels", SAFETENSORS_I32, s->labels, 1, &s->tokens);
}

/* Gives weights the size that training gives them, so that no gradient is tiny. */
static void perturb(struct model *m, uint64_t seed)
{
    parameters_initialize(m->parameters, m->weights, seed);
    for (size_t i = 0; i < parameters_count(m->parameters); i++) {
        const struct parameter *p = parameters_get(m->parameters, i);
        float deviation = p->rank > 1 ? 0.7f / sqrtf((float)p->shape[1]) : 0.15f;
        if (strstr(p->name, "embedding.token") || strstr(p->name, "embedding.position")) deviation = 0.5f;
        struct noise_key key = noise_key(seed, noise_purpose(p->name), 1);
        for (size_t k = 0; k < p->elements; k++) {
            float four[4];
            noise_normal4(four, noise_block(key, k / 4, 0, 0));
            m->weights[p->offset + k] += deviation * four[k % 4];
        }
    }
}

static void fill(struct slot *slot, const struct slot_options *options, size_t sentences, size_t longest,
                 size_t vocabulary, uint64_t seed, uint64_t first)
{
    const struct elbo_marks marks = {.start = 0, .end = 1, .unknown = 2};
    uint32_t words[CAPACITY], *at = words;
    const uint32_t *tokens[CAPACITY];
    size_t lengths[CAPACITY];
    struct noise_key key = noise_key(seed, noise_purpose("sentences"), first);
    for (size_t s = 0; s < sentences; s++) {
        lengths[s] = s == 1 ? 0 : (size_t)(noise_uniform(noise_bits(key, s, 0, 0)) * (double)longest) + 1;
        tokens[s] = at;
        for (size_t i = 0; i < lengths[s]; i++)
            *at++ = 2 + (uint32_t)(noise_uniform(noise_bits(key, s, 1, i)) * (double)(vocabulary - 2));
    }
    must(slot_fill(slot, options, &marks, tokens, lengths, sentences, first, &error));
}

/* Sets labels 0 .. labels - 1 out of order, some of them several times, and the sentences by rising label. */
static void label(struct slot *slot, size_t labels)
{
    size_t at = 0;
    for (size_t s = 0; s < slot->sentences && labels; s++) slot->label[s] = (int32_t)((5 * s + 2) % 7 % labels);
    for (size_t k = 0; k < labels; k++)
        for (size_t s = 0; s < slot->sentences; s++)
            if (slot->label[s] == (int32_t)k) slot->label_order[at++] = (int32_t)s;
}

/* Feeds the sentences' own tokens to the cached path and writes its logits (S, T, V). */
static void dump_logits(struct model *m, const char *prefix, const struct slot *slot, const float *z)
{
    struct recording step, *list[] = {&step};
    size_t sentences = slot->sentences, room = slot->decoder.longest, v = m->config.vocabulary;
    must(record_step(&step, &m->config, m->parameters, sentences + 1, room, false, &error));
    must(model_bind(m, list, 1, NULL, &error));
    float *all = calloc(sentences * room * v, sizeof *all), *now = calloc(sentences * v, sizeof *now);
    int32_t ids[CAPACITY], position[CAPACITY];
    recording_bind_input(&step, "ids", ids);
    recording_bind_input(&step, "position", position);
    recording_bind_input(&step, "z", z);
    recording_bind_input(&step, "label", slot->label);
    for (size_t t = 0; t < room; t++) {
        struct execution run = {.count = {[DIM_DRAWS] = sentences}};
        for (size_t s = 0; s < sentences; s++) {
            int32_t from = slot->decoder.offsets[s], length = slot->decoder.offsets[s + 1] - from;
            position[s] = (int32_t)t;
            ids[s] = slot->decoder.ids[from + ((int32_t)t < length ? (int32_t)t : length - 1)];
        }
        must(executor_run(&step.executor, &run, &error));
        recording_read(&step, step.logits, now, run.count);
        for (size_t s = 0; s < sentences; s++) memcpy(all + (s * room + t) * v, now + s * v, v * sizeof *now);
    }
    put(prefix, "logits", SAFETENSORS_F32, all, 3, (size_t[]){sentences, room, v});
    free(all);
    free(now);
    recording_free(&step, m->backend);
}

/* Writes stats, z and the score of each sentence from the recordings that evaluation uses. */
static void dump_others(struct model *m, const char *prefix, const struct slot *slot,
                        const struct graph_capacities *capacities, const struct execution *noise)
{
    size_t width = m->config.latent.width, sentences = slot->sentences;
    float *stats = calloc(sentences + 1, 2 * width * sizeof *stats), *z = calloc(sentences + 1, width * sizeof *z);
    float *nll = calloc(sentences + 1, sizeof *nll);
    struct recording r, *list[] = {&r};
    struct execution run = {.first_slot = true};
    if (m->config.latent.kind != LATENT_NONE) {
        must(record_encode(&r, &m->config, m->parameters, capacities, &error));
        must(model_bind(m, list, 1, NULL, &error));
        recording_bind_slot(&r, slot, &run);
        must(executor_run(&r.executor, &run, &error));
        recording_read(&r, r.stats, stats, run.count);
        recording_free(&r, m->backend);
        struct latent latent = latent_standard(width);
        struct latent_noise address = {noise->seed, noise_purpose("latent.noise"), noise->step, noise->draw};
        for (size_t s = 0; s < sentences; s++)
            latent_draw(&latent, z + s * width, stats + s * 2 * width, m->config.latent.sample ? &address : NULL,
                        slot->sample[s]);
        put_f32(prefix, "stats", stats, sentences, 2 * width);
        put_f32(prefix, "z", z, sentences, width);
    }
    must(record_score(&r, &m->config, m->parameters, capacities, &error));
    must(model_bind(m, list, 1, NULL, &error));
    recording_bind_slot(&r, slot, &run);
    recording_bind_input(&r, "z", z);
    must(executor_run(&r.executor, &run, &error));
    recording_read(&r, r.nll, nll, run.count);
    recording_free(&r, m->backend);
    put_f32(prefix, "nll", nll, sentences, 0);
    dump_logits(m, prefix, slot, z);
    free(stats);
    free(z);
    free(nll);
}

static void dump_train(struct model *m, const struct objective *objective, const struct train_recording *options,
                       const struct graph_capacities *capacities, struct slot *slots, struct execution *run)
{
    struct recording r, *list[] = {&r};
    size_t total = parameters_arena_elements(m->parameters);
    float *gradients = malloc(total * sizeof *gradients), parts[ELBO_PARTS];
    memset(gradients, 0xff, total * sizeof *gradients);
    must(record_train(&r, &m->config, objective, m->parameters, capacities, options, &error));
    must(model_bind(m, list, 1, gradients, &error));
    memset(m->arena, 0xff, m->arena_bytes);
    const float control[CONTROL_SIZE] = {0};
    recording_bind_input(&r, "weights", objective->weights);
    recording_bind_input(&r, "control", control);
    for (int i = 0; i < SLOTS; i++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "%d.", i);
        run->first_slot = i == 0;
        recording_bind_slot(&r, &slots[i], run);
        must(executor_run(&r.executor, run, &error));
        recording_read(&r, r.loss, parts, run->count);
        put_f32(prefix, "parts", parts, ELBO_PARTS, 0);
        if (!r.kl_dim.index) continue;
        float *some = malloc(graph_bytes(r.g, r.moments, run->count));
        recording_read(&r, r.kl_dim, some, run->count);
        put_f32(prefix, "kl_dim", some, m->config.latent.width, 0);
        recording_read(&r, r.moments, some, run->count);
        put_f32(prefix, "moments", some, 2 * m->config.latent.width, 2);
        free(some);
    }
    for (size_t i = 0; i < parameters_count(m->parameters); i++) {
        const struct parameter *p = parameters_get(m->parameters, i);
        put("w.", p->name, SAFETENSORS_F32, m->weights + p->offset, p->rank, p->shape);
        put("g.", p->name, SAFETENSORS_F32, gradients + p->offset, p->rank, p->shape);
    }
    printf("%zu\n", r.executor.plan.bytes);
    recording_free(&r, m->backend);
    free(gradients);
}

int main(int count, char **arguments)
{
    struct model_config c = {.encoder = {.width = 12, .layers = 2, .heads = 2},
                             .decoder = {.width = 12, .layers = 2, .heads = 2},
                             .latent = {.width = 6,
                                        .components = 3,
                                        .pseudo_inputs = 4,
                                        .pseudo_length = 3,
                                        .memory = 1,
                                        .sample = true,
                                        .delta = 0.15,
                                        .gamma = 0.5,
                                        .alpha = 1},
                             .vocabulary = 19};
    size_t longest = 8, sentences = 5, threads = 2, seed = 3;
    int init_tanh = 0, bidirectional = 0, residual[2] = {0}, embedding_norm[2] = {0};
    int injection = INJECT_BOTH, skip = 0, kind = 0, groups = 1, form = 0, scope = 0, recompute = 0, wanted = WANT_ALL,
        share = 0, tie = 0, sample = 1;
    double nats = 0.3, nll_weight = 0.125, kl_weight = 0.0875;
    const struct {
        const char *key;
        size_t *size;
        int *number;
        double *real;
    } keys[] = {
#define STACK(s)                                                                                                       \
    {#s ".kind", NULL, &c.s.kind, NULL}, {#s ".width", &c.s.width, NULL, NULL},                                        \
        {#s ".layers", &c.s.layers, NULL, NULL}, {#s ".heads", &c.s.heads, NULL, NULL},                                \
        {#s ".kv_heads", &c.s.kv_heads, NULL, NULL}, {#s ".ff_width", &c.s.ff_width, NULL, NULL},                      \
        {#s ".norm", NULL, &c.s.norm, NULL}, {#s ".norm_position", NULL, &c.s.norm_position, NULL},                    \
        {#s ".positions", NULL, &c.s.positions, NULL}, {#s ".activation", NULL, &c.s.activation, NULL},                \
        {#s ".pooling", NULL, &c.s.pooling, NULL}, {#s ".dropout", NULL, NULL, &c.s.dropout},                          \
        {#s ".embedding_width", &c.s.embedding_width, NULL, NULL}

        STACK(encoder),
        STACK(decoder),
        {"latent.kind", NULL, &c.latent.kind, NULL},
        {"latent.width", &c.latent.width, NULL, NULL},
        {"latent.delta", NULL, NULL, &c.latent.delta},
        {"latent.normalize", NULL, &c.latent.normalize, NULL},
        {"latent.gamma", NULL, NULL, &c.latent.gamma},
        {"latent.alpha", NULL, NULL, &c.latent.alpha},
        {"objective.rate", NULL, NULL, &c.latent.rate},
        {"objective.rate_scope", NULL, &c.latent.rate_scope, NULL},
        {"latent.prior", NULL, &c.latent.prior, NULL},
        {"latent.components", &c.latent.components, NULL, NULL},
        {"latent.pseudo_inputs", &c.latent.pseudo_inputs, NULL, NULL},
        {"latent.pseudo_length", &c.latent.pseudo_length, NULL, NULL},
        {"latent.injection", NULL, &injection, NULL},
        {"latent.memory", &c.latent.memory, NULL, NULL},
        {"latent.prefix", &c.latent.prefix, NULL, NULL},
        {"latent.sample", NULL, &sample, NULL},
        {"latent.skip", NULL, &skip, NULL},
        {"latent.init_tanh", NULL, &init_tanh, NULL},
        {"encoder.bidirectional", NULL, &bidirectional, NULL},
        {"encoder.residual", NULL, &residual[0], NULL},
        {"encoder.embedding_norm", NULL, &embedding_norm[0], NULL},
        {"decoder.embedding_norm", NULL, &embedding_norm[1], NULL},
        {"decoder.residual", NULL, &residual[1], NULL},
        {"share_embedding", NULL, &share, NULL},
        {"tie_output", NULL, &tie, NULL},
        {"vocabulary", &c.vocabulary, NULL, NULL},
        {"labels", &c.labels, NULL, NULL},
        {"longest", &longest, NULL, NULL},
        {"sentences", &sentences, NULL, NULL},
        {"threads", &threads, NULL, NULL},
        {"seed", &seed, NULL, NULL},
        {"free.kind", NULL, &kind, NULL},
        {"free.nats", NULL, NULL, &nats},
        {"free.groups", NULL, &groups, NULL},
        {"free.form", NULL, &form, NULL},
        {"free.scope", NULL, &scope, NULL},
        {"recompute", NULL, &recompute, NULL},
        {"wanted", NULL, &wanted, NULL},
        {"weight.nll", NULL, NULL, &nll_weight},
        {"weight.kl", NULL, NULL, &kl_weight},
    };
    if (count < 2) return 2;
    for (int i = 2; i < count; i++) {
        char *equals = strchr(arguments[i], '=');
        bool found = false;
        for (size_t k = 0; equals && k < sizeof keys / sizeof *keys; k++) {
            if (strlen(keys[k].key) != (size_t)(equals - arguments[i]) ||
                strncmp(keys[k].key, arguments[i], strlen(keys[k].key)))
                continue;
            found = true;
            if (keys[k].size) *keys[k].size = strtoull(equals + 1, NULL, 10);
            if (keys[k].number) *keys[k].number = (int)strtol(equals + 1, NULL, 10);
            if (keys[k].real) *keys[k].real = strtod(equals + 1, NULL);
        }
        if (!found) return fprintf(stderr, "unknown key: %s\n", arguments[i]), 2;
    }
    c.latent.injection = (unsigned)injection;
    c.latent.sample = sample;
    c.latent.skip = skip;
    c.latent.init_tanh = init_tanh;
    c.encoder.bidirectional = bidirectional;
    c.encoder.residual = residual[0];
    c.encoder.embedding_norm = embedding_norm[0];
    c.decoder.embedding_norm = embedding_norm[1];
    c.decoder.residual = residual[1];
    c.share_embedding = share;
    c.tie_output = tie;
    c.positions = longest + 2;
    struct backend *backend;
    struct model m;
    must(cpu_backend_create(&backend, threads, NULL, &error));
    must(model_create(&m, &c, backend, &error));
    perturb(&m, seed);
    struct slot_options options = {
        .encoder_tokens = CAPACITY, .decoder_tokens = CAPACITY, .sentences = 20, .prefix = stack_prefix(&c)};
    struct graph_capacities capacities = {{0, CAPACITY, CAPACITY, 20, 20}};
    struct slot slots[SLOTS];
    struct execution run = {.seed = seed, .step = 11, .draw = 0};
    for (size_t i = 0; i < SLOTS; i++) {
        must(slot_allocate(&slots[i], &options, &error));
        fill(&slots[i], &options, sentences + 2 * i, longest, c.vocabulary, seed, 100 * (i + 1));
        label(&slots[i], c.labels);
    }
    static const int kinds[] = {
        [FREE_PER_DIMENSION] = FREE_BITS_DIMENSION, [FREE_TOTAL] = FREE_BITS_TOTAL, [FREE_PER_GROUP] = FREE_BITS_GROUP};
    struct objective_config terms = {.free_bits_kind = kinds[kind],
                                     .free_bits = nats,
                                     .free_bits_groups = (size_t)groups,
                                     .free_bits_form = form,
                                     .free_bits_scope = scope,
                                     .beta_schedule = BETA_CONSTANT,
                                     .beta = kl_weight,
                                     .lambda = nll_weight};
    struct objective objective;
    struct train_recording train = {.recompute = (enum recompute_policy)recompute, .wanted = (unsigned)wanted};
    must(objective_create(&objective, &terms, &c, 1, &error));
    objective_weigh(&objective, 0, 0, 1);
    objective_weigh(&objective, 1, 0, 1);
    put_f32("", "weights", objective.weights, objective.count, 0);
    dump_train(&m, &objective, &train, &capacities, slots, &run);
    for (size_t i = 0; i < SLOTS; i++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "%zu.", i);
        size_t width = (c.latent.width + 3) / 4 * 4;
        float *eps = calloc(slots[i].sentences + 1, width * sizeof *eps);
        struct noise_key key = noise_key(run.seed, noise_purpose("latent.noise"), run.step);
        for (size_t s = 0; s < slots[i].sentences && sample; s++)
            for (size_t j = 0; j < width; j += 4)
                noise_normal4(eps + s * width + j, noise_block(key, slots[i].sample[s], run.draw, (uint32_t)(j / 4)));
        put(prefix, "label", SAFETENSORS_I32, slots[i].label, 1, &slots[i].sentences);
        put_f32(prefix, "eps", eps, slots[i].sentences, width);
        free(eps);
        put_stream(prefix, "encoder", &slots[i].encoder, slots[i].sentences);
        put_stream(prefix, "decoder", &slots[i].decoder, slots[i].sentences);
        dump_others(&m, prefix, &slots[i], &capacities, &run);
        slot_free(&slots[i]);
    }
    struct sink_fd file = {open(arguments[1], O_WRONLY | O_CREAT | O_TRUNC, 0600), arguments[1]};
    struct sink sink = sink_to_fd(&file);
    must(safetensors_write(&sink, tensors, tensor_count, NULL, 0, &error));
    close(file.fd);
    for (size_t i = 0; i < tensor_count; i++) free((void *)tensors[i].name), free((void *)tensors[i].data);
    model_free(&m);
    backend->destroy(backend);
    return 0;
}
