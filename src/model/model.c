/* Models and recordings: declaring, allocating and initializing parameters, binding recordings to one arena, and moving
 * inputs and results. */
#include "model/model.h"
#include "base/checked.h"
#include "model/training.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

elbo_status model_declare(struct parameters **parameters, const struct model_config *config, elbo_error *error)
{
    struct graph_capacities least = {
        {[DIM_ENC_TOKENS] = 2, [DIM_DEC_TOKENS] = 1, [DIM_SENTENCES] = 1, [DIM_DRAWS] = 1}};
    struct recorder r;
    struct graph *g = NULL;
    ELBO_TRY(parameters_create(parameters, error));
    elbo_status status = recorder_begin(&r, &g, "declare", config, *parameters, &least, error);
    if (!status) {
        training_record(&(struct training_pass){0}, &r);
        status = graph_check(g, error);
    }
    if (!status) status = parameters_layout(*parameters, NULL, error);
    graph_free(g);
    if (status) {
        parameters_free(*parameters);
        *parameters = NULL;
    }
    return status;
}

elbo_status model_allocate(struct model *m, const struct model_config *config, struct parameters *parameters,
                           struct backend *backend, elbo_error *error)
{
    *m = (struct model){.config = *config, .parameters = parameters, .backend = backend};
    size_t n = parameters_arena_elements(m->parameters);
    ELBO_TRY(backend->memory.allocate(backend, (void **)&m->weights, n * sizeof(float), "weights", error));
    if (model_dtype(config) == DTYPE_F32) return ELBO_OK;
    return backend->memory.allocate(backend, &m->working, n * dtype_bytes(DTYPE_BF16), "the working weights in bf16",
                                    error);
}

elbo_status model_create(struct model *m, const struct model_config *config, struct backend *backend, elbo_error *error)
{
    struct parameters *parameters;
    *m = (struct model){.backend = backend};
    ELBO_TRY(model_declare(&parameters, config, error));
    return model_allocate(m, config, parameters, backend, error);
}

bool model_trains_only(const struct parameter *p)
{
    return !strncmp(p->name, "objective.", 10) || strstr(p->name, ".embedding.mark.");
}

/* Casts the whole weight arena at once, by a graph of its own. */
elbo_status model_refresh(struct model *m, elbo_error *error)
{
    if (!m->working) return ELBO_OK;
    struct graph *g;
    struct executor e = {0};
    struct graph_capacities none = {{0}};
    struct dim dim[] = {{DIM_FIXED, parameters_arena_elements(m->parameters)}};
    ELBO_TRY(graph_create(&g, "working", m->parameters, &none, error));
    value from = graph_input(g, "weights", DTYPE_F32, 1, dim), to = graph_input(g, "working", DTYPE_BF16, 1, dim);
    graph_resident(g, from);
    graph_resident(g, to);
    op_cast_into(g, to, from);
    elbo_status status = executor_create(&e, g, m->backend, error);
    if (!status) {
        e.inputs[graph_value(g, from)->binding] = m->weights;
        e.inputs[graph_value(g, to)->binding] = m->working;
        status = executor_bind(&e, NULL, model_weights(m), NULL, NULL, error);
    }
    if (!status) status = executor_run(&e, &(struct execution){0}, error);
    executor_free(&e);
    graph_free(g);
    return status;
}

static elbo_status initialize(struct model *m, unsigned parts, uint64_t seed, elbo_error *error)
{
    enum { PIECE = 1 << 18 };
    float *host = malloc(PIECE * sizeof *host);
    if (!host) return elbo_fail(error, ELBO_MEMORY, "no memory to initialize weights, %d at a time", PIECE);
    for (size_t i = 0; i < parameters_count(m->parameters); i++) {
        const struct parameter *p = parameters_get(m->parameters, i);
        for (size_t k = 0; k < p->elements && parts >> p->part & 1; k += PIECE) {
            size_t n = p->elements - k < PIECE ? p->elements - k : PIECE;
            parameters_initial(host, p, k, n, seed);
            m->backend->memory.upload(m->backend, m->weights + p->offset + k, host, n * sizeof *host);
        }
    }
    free(host);
    return model_refresh(m, error);
}

elbo_status model_initialize(struct model *m, uint64_t seed, elbo_error *error)
{
    return initialize(m, (1u << PARTS) - 1, seed, error);
}

elbo_status model_initialize_part(struct model *m, enum parameter_part part, uint64_t seed, elbo_error *error)
{
    return initialize(m, 1u << part, seed, error);
}

void model_free(struct model *m)
{
    if (m->weights) m->backend->memory.release(m->backend, m->weights);
    if (m->working) m->backend->memory.release(m->backend, m->working);
    if (m->arena) m->backend->memory.release(m->backend, m->arena);
    parameters_free(m->parameters);
    *m = (struct model){0};
}

void recording_free(struct recording *r, struct backend *backend)
{
    if (r->g && r->state && !r->state_given)
        for (size_t i = 0; i < graph_states(r->g); i++) backend->memory.release(backend, r->state[i]);
    free(r->state);
    free(r->uniform);
    if (r->planned) executor_free(&r->executor);
    graph_free(r->g);
    *r = (struct recording){0};
}

static elbo_status allocate_state(struct model *m, struct recording *r, elbo_error *error)
{
    if (r->state || !graph_states(r->g)) return ELBO_OK;
    r->state = calloc(graph_states(r->g), sizeof *r->state);
    if (!r->state) return elbo_fail(error, ELBO_MEMORY, "no memory for the state of a recording");
    for (uint32_t v = 1; v < graph_values(r->g); v++) {
        const struct value_info *info = graph_value(r->g, (value){v});
        if (info->class != VALUE_STATE) continue;
        size_t bytes = graph_bytes(r->g, (value){v}, graph_capacity(r->g)->count);
        ELBO_TRY(m->backend->memory.allocate(m->backend, &r->state[info->binding], bytes, "the state of a recording",
                                             error));
    }
    return ELBO_OK;
}

/* Returns the elements that a state takes, rounded up so that the next one is aligned for wide loads. */
static size_t state_room(const struct recording *r, uint32_t v)
{
    enum { APART = 4 };
    return align_up(graph_elements(r->g, (value){v}, graph_capacity(r->g)->count), APART);
}

size_t recording_state_elements(const struct recording *r)
{
    size_t elements = 0;
    for (uint32_t v = 1; v < graph_values(r->g); v++)
        if (graph_value(r->g, (value){v})->class == VALUE_STATE) elements += state_room(r, v);
    return elements;
}

elbo_status recording_place_state(struct recording *r, float *memory, elbo_error *error)
{
    r->state = calloc(graph_states(r->g) + 1, sizeof *r->state);
    if (!r->state) return elbo_fail(error, ELBO_MEMORY, "no memory for the state of a recording");
    r->state_given = true;
    for (uint32_t v = 1; v < graph_values(r->g); v++) {
        const struct value_info *info = graph_value(r->g, (value){v});
        if (info->class != VALUE_STATE) continue;
        r->state[info->binding] = memory;
        memory += state_room(r, v);
    }
    return ELBO_OK;
}

/* Fills the inputs of sequence_uniform: row i is row i % length of sequence i / length. */
static elbo_status bind_uniform(struct recording *r, elbo_error *error)
{
    value position = graph_input_named(r->g, "uniform.position"), offsets = graph_input_named(r->g, "uniform.offsets");
    if (!position.index) return ELBO_OK;
    size_t rows = graph_value(r->g, position)->dim[0].size, length = graph_value(r->g, offsets)->longest;
    size_t count = rows / length;
    r->uniform = malloc((3 * rows + count + 1) * sizeof *r->uniform);
    if (!r->uniform) return elbo_fail(error, ELBO_MEMORY, "no memory for the places of %zu rows", rows);
    int32_t *at = r->uniform, *order = at + rows, *sentence = order + rows, *first = sentence + rows;
    for (size_t i = 0; i < rows; i++) {
        at[i] = (int32_t)(i % length);
        sentence[i] = (int32_t)(i / length);
        order[i] = (int32_t)(i % count * length + i / count); /* by rising position, stable */
    }
    for (size_t k = 0; k <= count; k++) first[k] = (int32_t)(k * length);
    recording_bind_input(r, "uniform.position", at);
    recording_bind_input(r, "uniform.position_order", order);
    recording_bind_input(r, "uniform.sentence", sentence);
    recording_bind_input(r, "uniform.offsets", first);
    return ELBO_OK;
}

elbo_status recording_plan(struct recording *r, struct backend *backend, elbo_error *error)
{
    if (r->planned) return ELBO_OK;
    ELBO_TRY(executor_create(&r->executor, r->g, backend, error));
    r->planned = true;
    return bind_uniform(r, error);
}

elbo_status model_bind(struct model *m, struct recording *const *recordings, size_t count, float *gradients,
                       elbo_error *error)
{
    size_t bytes = m->arena_bytes;
    for (size_t i = 0; i < count; i++) {
        struct recording *r = recordings[i];
        ELBO_TRY(recording_plan(r, m->backend, error));
        ELBO_TRY(allocate_state(m, r, error));
        if (r->executor.plan.bytes > bytes) bytes = r->executor.plan.bytes;
    }
    if (bytes > m->arena_bytes || !m->arena) {
        if (m->arena) m->backend->memory.release(m->backend, m->arena);
        m->arena = NULL;
        m->arena_bytes = 0;
        ELBO_TRY(m->backend->memory.allocate(m->backend, &m->arena, bytes, "activations", error));
        m->arena_bytes = bytes;
        /* Touch the arena now, so that training takes its planned memory at the start, not at the first full slot. */
        if (gradients && !m->backend->memory.separate) memset(m->arena, 0, bytes);
    }
    for (size_t i = 0; i < count; i++)
        ELBO_TRY(executor_bind(&recordings[i]->executor, m->arena, model_weights(m), gradients, recordings[i]->state,
                               error));
    return ELBO_OK;
}

bool recording_bind_input(struct recording *r, const char *name, const void *data)
{
    value v = graph_input_named(r->g, name);
    if (v.index) r->executor.inputs[graph_value(r->g, v)->binding] = data;
    return v.index != 0;
}

static void bind_stream(struct recording *r, const char *name, const struct slot_stream *s)
{
    const struct {
        const char *name;
        const void *data;
    } inputs[] = {{"ids", s->ids},           {"id_order", s->id_order},
                  {"position", s->position}, {"position_order", s->position_order},
                  {"sentence", s->sentence}, {"offsets", s->offsets},
                  {"labels", s->labels}};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        char full[64];
        snprintf(full, sizeof full, "%s.%s", name, inputs[i].name);
        recording_bind_input(r, full, inputs[i].data);
    }
}

void recording_bind_slot(struct recording *r, const struct slot *slot, struct execution *run)
{
    bind_stream(r, "encoder", &slot->encoder);
    bind_stream(r, "decoder", &slot->decoder);
    recording_bind_input(r, "sample", slot->sample);
    recording_bind_input(r, "label", slot->label);
    recording_bind_input(r, "label_order", slot->label_order);
    run->count[DIM_ENC_TOKENS] = graph_capacity(r->g)->count[DIM_ENC_TOKENS] ? slot->encoder.tokens : 0;
    run->count[DIM_DEC_TOKENS] = graph_capacity(r->g)->count[DIM_DEC_TOKENS] ? slot->decoder.tokens : 0;
    run->longest[DIM_ENC_TOKENS] = slot->encoder.longest;
    run->longest[DIM_DEC_TOKENS] = slot->decoder.longest;
    run->count[DIM_SENTENCES] = run->count[DIM_DRAWS] = slot->sentences;
}

void recording_read(const struct recording *r, value v, void *to, const size_t count[DIM_KINDS])
{
    r->executor.backend->memory.download(r->executor.backend, to, executor_pointer(&r->executor, v),
                                         graph_bytes(r->g, v, count));
}

void *recording_reach(const struct recording *r, value v, void *buffer, const size_t count[DIM_KINDS])
{
    if (!r->executor.backend->memory.separate) return executor_pointer(&r->executor, v);
    recording_read(r, v, buffer, count);
    return buffer;
}
