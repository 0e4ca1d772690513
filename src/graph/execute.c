/* Execution of a schedule: kernel checks and workspace sizes, binding of memory, staging of inputs, and the walk over
 * the nodes, which a backend may capture and replay. */
#include "graph/execute.h"
#include "base/checked.h"
#include "base/redzone.h"
#include "graph/parameters.h"

#include <stdlib.h>
#include <string.h>

enum { STAGE_ALIGNMENT = 256 };

void node_sizes(struct shape_view *s, const struct graph *g, const struct node *n, const size_t count[DIM_KINDS])
{
    *s = (struct shape_view){0};
    for (unsigned k = 0; k < MAX_INPUTS; k++)
        for (size_t d = 0; n->in[k].index && d < graph_value(g, n->in[k])->rank; d++)
            s->in[k][d] = graph_dim(g, n->in[k], d, count);
    for (unsigned k = 0; k < MAX_OUTPUTS; k++)
        for (size_t d = 0; n->out[k].index && d < graph_value(g, n->out[k])->rank; d++)
            s->out[k][d] = graph_dim(g, n->out[k], d, count);
}

static const struct placed_weight *placed(const struct executor *e, value v)
{
    const struct value_info *info = graph_value(e->graph, v);
    const struct placed_weight *all = e->weights.placed;
    return all && info->class == VALUE_PARAMETER && all[info->binding].data ? &all[info->binding] : NULL;
}

static void node_types(struct call *call, const struct graph *g, const struct node *n)
{
    for (unsigned k = 0; k < MAX_INPUTS; k++) call->in_type[k] = graph_value(g, n->in[k])->dtype;
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) call->out_type[k] = graph_value(g, n->out[k])->dtype;
}

void *executor_pointer(const struct executor *e, value v)
{
    if (!v.index) return NULL;
    const struct value_info *info = graph_value(e->graph, v);
    const struct parameters *p = graph_parameters(e->graph);
    if (placed(e, v)) return (void *)placed(e, v)->data;
    switch (info->class) {
    case VALUE_INPUT:
        return e->staged && !info->resident ? e->staged + e->staged_at[info->binding]
                                            : (void *)e->inputs[info->binding];
    case VALUE_PARAMETER: {
        size_t offset = parameters_get(p, info->binding)->offset;
        return info->dtype == DTYPE_BF16 ? (char *)e->weights.working + offset * sizeof(uint16_t)
                                         : (char *)(e->weights.master + offset);
    }
    case VALUE_GRADIENT:
        return e->gradients + parameters_get(p, info->binding)->offset;
    case VALUE_STATE:
        return e->states[info->binding];
    case VALUE_ACTIVATION:
        break;
    }
    return e->arena + e->plan.offset[v.index];
}

/* Refuses ops that the backend cannot run, and collects the scratch bytes of each step at the capacities. */
static elbo_status look_at_kernels(struct executor *e, elbo_error *error)
{
    const struct graph *g = e->graph;
    struct backend *backend = e->backend;
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order);
    for (size_t s = 0; s < steps; s++) {
        const struct node *n = graph_node_get(g, order[s]);
        const struct kernel *kernel = &backend->kernels[n->type->index];
        if (!kernel->run)
            return elbo_fail(error, ELBO_DEVICE, "the backend %s has no kernel for the op %s (%s)", backend->name,
                             n->type->name, n->name);
        struct call call = {.backend = backend, .node = n, .attr = &n->attr};
        node_types(&call, g, n);
        node_sizes(&call.size, g, n, graph_capacity(g)->count);
        if (kernel->refuse) ELBO_TRY(kernel->refuse(&call, error));
        if (!kernel->workspace) continue;
        for (unsigned k = 0; k < MAX_OUTPUTS; k++) call.out[k] = n->out[k].index ? &call : NULL;
        for (unsigned k = 0; k < MAX_INPUTS; k++) call.in[k] = n->in[k].index ? &call : NULL;
        size_t per_worker = 0;
        kernel->workspace(&call, &e->scratch[s], &per_worker);
        if (per_worker > e->workspace_worker) e->workspace_worker = per_worker;
    }
    return ELBO_OK;
}

elbo_status executor_create(struct executor *e, const struct graph *g, struct backend *backend, elbo_error *error)
{
    *e = (struct executor){.graph = g, .backend = backend};
    ELBO_TRY(graph_check(g, error));
    const uint32_t *order;
    e->scratch = calloc(graph_schedule(g, &order) + 1, sizeof *e->scratch);
    e->inputs = calloc(graph_inputs(g) + 1, sizeof *e->inputs);
    elbo_status status =
        e->scratch && e->inputs ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the inputs of a graph");
    if (!status) status = look_at_kernels(e, error);
    if (!status) status = plan_create(&e->plan, g, e->scratch, error);
    if (status) executor_free(e);
    return status;
}

void executor_forget(struct executor *e)
{
    if (e->captures) e->backend->capture.forget(e->backend, &e->captures);
}

void executor_free(struct executor *e)
{
    executor_forget(e);
    if (e->staged) e->backend->memory.release(e->backend, e->staged);
    free(e->staged_at);
    plan_free(&e->plan);
    free(e->scratch);
    free(e->inputs);
    *e = (struct executor){0};
}

/* Allocates room for the header and the inputs, at their capacities, in the backend's memory. */
static elbo_status stage_inputs(struct executor *e, elbo_error *error)
{
    const struct graph *g = e->graph;
    size_t bytes = align_up(sizeof(struct call_header), STAGE_ALIGNMENT);
    e->staged_at = malloc((graph_inputs(g) + 1) * sizeof *e->staged_at);
    if (!e->staged_at) return elbo_fail(error, ELBO_MEMORY, "no memory for the inputs of a graph");
    for (size_t i = 0; i < graph_inputs(g); i++) {
        value v = graph_input_at(g, i);
        if (graph_value(g, v)->resident) continue;
        e->staged_at[i] = bytes;
        bytes = align_up(bytes + graph_bytes(g, v, graph_capacity(g)->count), STAGE_ALIGNMENT);
    }
    e->staged_bytes = bytes;
    return e->backend->memory.allocate(e->backend, (void **)&e->staged, bytes, "the inputs of a step", error);
}

/* Fills elements from .. to of an input's copy by the input's pad rule. Rules other than PAD_ZERO apply to 4-byte
 * integers; other types are zeroed. */
static void pad(void *copy, const struct value_info *info, size_t from, size_t to, size_t element)
{
    int32_t *x = copy, most = 0;
    if (from >= to) return;
    if (info->pad == PAD_ZERO || info->dtype != DTYPE_I32) {
        memset((char *)copy + from * element, 0, (to - from) * element);
        return;
    }
    for (size_t i = 0; i < from && info->pad == PAD_MOST; i++) most = x[i] > most ? x[i] : most;
    for (size_t i = from; i < to; i++)
        x[i] = info->pad == PAD_MINUS_ONE ? -1
               : info->pad == PAD_ROW     ? (int32_t)i
               : info->pad == PAD_MOST    ? most
               : from                     ? x[from - 1]
                                          : 0;
}

static void send_inputs(struct executor *e, const struct execution *run, const size_t padded[DIM_KINDS])
{
    const struct graph *g = e->graph;
    char *copy = e->backend->stream.stage(e->backend);
    struct call_header header = {.seed = run->seed, .step = run->step, .draw = run->draw};
    for (unsigned k = 0; k < DIM_KINDS; k++) header.count[k] = run->count[k];
    memcpy(copy, &header, sizeof header);
    for (size_t i = 0; i < graph_inputs(g); i++) {
        value v = graph_input_at(g, i);
        const struct value_info *info = graph_value(g, v);
        if (info->resident || !e->inputs[i]) continue;
        char *to = copy + e->staged_at[i];
        size_t n = graph_elements(g, v, run->count), element = dtype_bytes(info->dtype);
        memcpy(to, e->inputs[i], n * element);
        pad(to, info, n, graph_elements(g, v, padded), element);
    }
    e->backend->stream.send(e->backend, e->staged, e->staged_bytes);
}

/* Returns whether the op has bf16 values that its kernel cannot take. */
static bool needs_bf16(const struct executor *e, const struct node *n)
{
    unsigned may = e->backend->kernels[n->type->index].bf16_outputs;
    for (unsigned k = 0; k < MAX_INPUTS; k++)
        if (graph_value(e->graph, n->in[k])->dtype == DTYPE_BF16) return true;
    for (unsigned k = 0; k < MAX_OUTPUTS; k++)
        if (graph_value(e->graph, n->out[k])->dtype == DTYPE_BF16 && !(may >> k & 1)) return true;
    return false;
}

/* Checks that the kernel can read its placed weights, and that all other weights lie in an arena. */
static elbo_status check_placed(const struct executor *e, const struct node *n, elbo_error *error)
{
    const struct kernel *kernel = &e->backend->kernels[n->type->index];
    for (unsigned k = 0; k < MAX_INPUTS; k++) {
        const struct value_info *info = graph_value(e->graph, n->in[k]);
        if (!n->in[k].index || info->class != VALUE_PARAMETER) continue;
        const struct placed_weight *at = placed(e, n->in[k]);
        if (!at && !e->weights.master)
            return elbo_fail(error, ELBO_INTERNAL, "%s: the weight %s lies nowhere", n->name, info->name);
        if (at && at->type != BLOCK_F32 && !(kernel->block_inputs >> k & 1))
            return elbo_fail(error, ELBO_INTERNAL, "%s: the op %s of the backend %s reads no weights in %s (%s)",
                             n->name, n->type->name, e->backend->name, block_infos[at->type].name, info->name);
    }
    return ELBO_OK;
}

elbo_status executor_bind(struct executor *e, void *arena, struct weight_arenas weights, float *gradients,
                          void **states, elbo_error *error)
{
    const uint32_t *order;
    size_t steps = graph_schedule(e->graph, &order);
    for (size_t s = 0; s < steps && !e->backend->device.bf16; s++)
        if (needs_bf16(e, graph_node_get(e->graph, order[s])))
            return elbo_fail(error, ELBO_DEVICE,
                             "the backend %s computes in f32 only; set precision=f32, or train on a GPU "
                             "(--device=cuda)",
                             e->backend->name);
    if (e->plan.bytes && !arena)
        return elbo_fail(error, ELBO_INTERNAL, "an execution wants an arena of %zu bytes and is given none",
                         e->plan.bytes);
    if (e->captures) e->backend->capture.forget(e->backend, &e->captures); /* captures hold the old addresses */
    e->arena = arena;
    e->weights = weights;
    for (size_t s = 0; s < steps && weights.placed; s++)
        ELBO_TRY(check_placed(e, graph_node_get(e->graph, order[s]), error));
    e->gradients = gradients;
    e->states = states;
    if (e->backend->memory.separate && !e->staged) ELBO_TRY(stage_inputs(e, error));
    if (e->staged) ELBO_TRY(e->backend->stream.reserve_staging(e->backend, e->staged_bytes, error));
    return e->backend->memory.reserve ? e->backend->memory.reserve(e->backend, e->workspace_worker, error) : ELBO_OK;
}

/* Under the address sanitizer, opens only the op's own values, at their counts, and its scratch, and closes the rest of
 * the arena. */
static void guard_arena(const struct executor *e, size_t step, const struct node *n, const size_t count[DIM_KINDS])
{
    if (!REDZONE_BYTES || e->backend->memory.separate) return;
    redzone_close(e->arena, e->plan.bytes);
    redzone_open(e->arena + e->plan.scratch[step], e->scratch[step]);
    for (unsigned k = 0; k < MAX_INPUTS + MAX_OUTPUTS; k++) {
        value v = k < MAX_INPUTS ? n->in[k] : n->out[k - MAX_INPUTS];
        if (v.index && graph_value(e->graph, v)->class == VALUE_ACTIVATION)
            redzone_open(e->arena + e->plan.offset[v.index], graph_bytes(e->graph, v, count));
    }
}

static bool bound(const struct executor *e, value v)
{
    const struct value_info *info = graph_value(e->graph, v);
    return info->class != VALUE_INPUT || e->inputs[info->binding];
}

/* Rounds the longest sentence up to a few lengths, so that the choice of a launch has few variants: multiples of 8 up
 * to 64, then four lengths per octave. Returns at most `rows`, and `rows` when the length is not known. */
static size_t length_bucket(size_t longest, size_t rows)
{
    size_t step = 8;
    while (longest > 8 * step) step *= 2;
    size_t bucket = (longest + step - 1) / step * step;
    return !longest || bucket > rows ? rows : bucket;
}

static size_t longest_of(const struct graph *g, const struct node *n, const struct replay_key *key)
{
    for (unsigned k = 0; k < MAX_INPUTS; k++) {
        enum dim_kind kind = n->in[k].index ? graph_value(g, n->in[k])->dim[0].kind : DIM_FIXED;
        if (kind == DIM_ENC_TOKENS || kind == DIM_DEC_TOKENS) return key->longest[kind];
        if (n->in[k].index && graph_value(g, n->in[k])->longest) return graph_value(g, n->in[k])->longest;
    }
    return 0;
}

static elbo_status walk(struct executor *e, const struct execution *run, const struct replay_key *key,
                        elbo_error *error)
{
    const struct graph *g = e->graph;
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order);
    if (run->progress) ELBO_TRY(run->progress(run->progress_context, 0, steps, error));
    for (size_t s = 0; s < steps; s++) {
        const struct node *n = graph_node_get(g, order[s]);
        struct call call = {.backend = e->backend,
                            .node = n,
                            .attr = &n->attr,
                            .seed = run->seed,
                            .step = run->step,
                            .draw = run->draw,
                            .longest = longest_of(g, n, key),
                            .header = (const struct call_header *)e->staged};
        node_types(&call, g, n);
        node_sizes(&call.size, g, n, key->count);
        call.scratch = e->arena + e->plan.scratch[s];
        for (unsigned k = 0; k < MAX_INPUTS; k++) {
            call.in[k] = executor_pointer(e, n->in[k]);
            call.in_blocks[k] = placed(e, n->in[k]) ? placed(e, n->in[k])->type : BLOCK_F32;
            if (n->in[k].index && (!call.in[k] || !bound(e, n->in[k])))
                return elbo_fail(error, ELBO_INTERNAL, "%s: the input %s is not bound", n->name,
                                 graph_value(g, n->in[k])->name);
        }
        for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
            call.out[k] = executor_pointer(e, n->out[k]);
            call.add[k] = n->mode[k] == WRITE_ADD || (n->mode[k] == WRITE_ADD_LATER_SLOTS && !key->first_slot);
        }
        guard_arena(e, s, n, key->count);
        if (e->hook) e->hook(e->hook_context, &call, false);
        e->backend->kernels[n->type->index].run(&call);
        if (e->hook) e->hook(e->hook_context, &call, true);
        if (run->progress) ELBO_TRY(run->progress(run->progress_context, s + 1, steps, error));
    }
    return ELBO_OK;
}

elbo_status executor_run(struct executor *e, const struct execution *run, elbo_error *error)
{
    const struct graph *g = e->graph;
    struct backend *backend = e->backend;
    static const char *const kinds[DIM_KINDS] = {"fixed", "encoder tokens", "decoder tokens", "sentences", "draws"};
    struct replay_key key = {.first_slot = run->first_slot, .progress = run->progress};
    for (unsigned k = DIM_ENC_TOKENS; k < DIM_KINDS; k++) {
        size_t capacity = graph_capacity(g)->count[k];
        if (run->count[k] > capacity)
            return elbo_fail(error, ELBO_INTERNAL, "%zu %s exceed the recording's capacity of %zu", run->count[k],
                             kinds[k], capacity);
        key.count[k] = backend->capture.rows ? backend->capture.rows(run->count[k], capacity) : run->count[k];
        key.longest[k] = length_bucket(run->longest[k], key.count[k]);
    }
    if (e->staged) send_inputs(e, run, key.count);
    bool captures = backend->capture.replay && !e->hook;
    if (!captures || !backend->capture.replay(backend, &e->captures, &key)) {
        bool capturing = captures && backend->capture.begin(backend, &e->captures, &key);
        ELBO_TRY(walk(e, run, &key, error));
        if (capturing && !backend->capture.end(backend, &e->captures, &key)) ELBO_TRY(walk(e, run, &key, error));
    }
    if (REDZONE_BYTES && !backend->memory.separate) redzone_open(e->arena, e->plan.bytes);
    return backend->stream.check ? backend->stream.check(backend, error) : ELBO_OK;
}
