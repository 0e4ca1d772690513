#include "train/optimizer.h"

#include <math.h>
#include <stdio.h>

_Static_assert((int)GROUPS <= (int)MOST_NORMS, "the guard takes all groups");

static double part_factor(const struct optimizer_config *c, enum parameter_part part)
{
    return part == PART_ENCODER ? c->encoder_factor : part == PART_LATENT ? c->latent_factor : c->decoder_factor;
}

unsigned optimizer_wanted(const struct optimizer_config *c)
{
    unsigned wanted = 0;
    for (unsigned g = 0; g < GROUPS; g++)
        if (part_factor(c, g / 2) > 0) wanted |= 1u << g;
    return wanted;
}

enum dtype optimizer_moments(const struct optimizer_config *c)
{
    return c->moments == MOMENTS_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

struct optimizer_piece optimizer_piece_of(const struct parameter_group *group, struct optimizer_share share)
{
    size_t blocks = group->elements / PARAMETER_ALIGNMENT, ranks = share.ranks ? share.ranks : 1;
    size_t first = blocks / ranks * share.rank + (share.rank < blocks % ranks ? share.rank : blocks % ranks);
    size_t count = blocks / ranks + (share.rank < blocks % ranks);
    return (struct optimizer_piece){group->offset + first * PARAMETER_ALIGNMENT, count * PARAMETER_ALIGNMENT};
}

static value range(struct graph *g, const char *what, enum dtype dtype, unsigned group, size_t elements)
{
    char name[32];
    snprintf(name, sizeof name, "%s.%u", what, group);
    value v = graph_input(g, name, dtype, 1, (struct dim[]){{DIM_FIXED, elements}});
    graph_resident(g, v);
    return v;
}

static void bind(struct optimizer *o, const char *name, const void *data)
{
    value v = graph_input_named(o->graph, name);
    if (v.index) o->executor.inputs[graph_value(o->graph, v)->binding] = data;
}

static void bind_ranges(struct optimizer *o, struct weight_arenas weights)
{
    const struct parameter_group *groups = parameters_groups(o->parameters);
    size_t moment = dtype_bytes(optimizer_moments(&o->config));
    for (unsigned k = 0; k < GROUPS; k++) {
        size_t at = optimizer_piece_of(&groups[k], o->share).first, own = o->moment_at[k];
        const struct {
            const char *what;
            const void *data;
        } ranges[] = {{"gradient", o->gradients + groups[k].offset},
                      {"piece", o->gradients + at},
                      {"weights", weights.master + at},
                      {"working", weights.working ? (const uint16_t *)weights.working + at : NULL},
                      {"moment1", (const char *)o->moment1 + own * moment},
                      {"moment2", o->moment2 ? (const char *)o->moment2 + own * moment : NULL},
                      {"scalars", o->scalars + k * STEP_SCALARS}};
        for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
            char name[32];
            snprintf(name, sizeof name, "%s.%u", ranges[i].what, k);
            bind(o, name, ranges[i].data);
        }
    }
}

static value small(struct graph *g, const char *name, size_t rank, const struct dim *dim, bool resident)
{
    value v = graph_input(g, name, DTYPE_F32, rank, dim);
    if (resident) graph_resident(g, v);
    return v;
}

/* Norms, guard, then each group's update. */
static void record(struct optimizer *o, bool working)
{
    struct graph *g = o->graph;
    const struct parameter_group *groups = parameters_groups(o->parameters);
    value gradient[GROUPS] = {{0}}, norms[GROUPS];
    enum dtype moments = optimizer_moments(&o->config);
    size_t count = 0;
    for (unsigned k = 0; k < GROUPS; k++) {
        if (!o->trained[k]) continue;
        gradient[k] = range(g, "gradient", DTYPE_F32, k, groups[k].elements);
        norms[count++] = op_squared_norm(g, gradient[k]);
    }
    struct dim rows[] = {{DIM_FIXED, 2 * GROUPS}, {DIM_FIXED, STEP_SCALARS}}, of_groups[] = {{DIM_FIXED, GROUPS}, {DIM_FIXED, STEP_SCALARS}};
    op_guard(g, small(g, "scalars", 2, of_groups, true), small(g, "control", 1, (struct dim[]){{DIM_FIXED, CONTROL_SIZE}}, true), norms,
             count, small(g, "loss", 1, (struct dim[]){{DIM_FIXED, ELBO_PARTS}}, true), small(g, "rows", 2, rows, false),
             small(g, "settings", 1, (struct dim[]){{DIM_FIXED, GUARD_SETTINGS}}, false));
    for (unsigned k = 0; k < GROUPS; k++) {
        struct optimizer_piece piece = optimizer_piece_of(&groups[k], o->share);
        size_t n = piece.count;
        if (!o->trained[k] || !n) continue;
        value d = n == groups[k].elements ? gradient[k] : range(g, "piece", DTYPE_F32, k, n);
        value w = range(g, "weights", DTYPE_F32, k, n), m = range(g, "moment1", moments, k, n);
        value copy = working ? range(g, "working", DTYPE_BF16, k, n) : NO_VALUE;
        value s = range(g, "scalars", DTYPE_F32, k, STEP_SCALARS);
        if (o->config.kind == OPTIMIZER_ADAMW)
            op_adamw(g, w, copy, m, range(g, "moment2", moments, k, n), d, s, piece.first);
        else
            op_sgd(g, w, copy, m, d, s, piece.first);
    }
}

elbo_status optimizer_create(struct optimizer *o, const struct optimizer_config *config, struct parameters *parameters,
                             struct weight_arenas weights, const struct optimizer_options *options, struct backend *backend, elbo_error *error)
{
    *o = (struct optimizer){.config = *config, .parameters = parameters, .backend = backend};
    if (options) o->share = options->share;
    const struct parameter_group *groups = parameters_groups(parameters);
    for (unsigned k = 0; k < GROUPS; k++) {
        o->moment_at[k] = o->moments;
        o->moments += optimizer_piece_of(&groups[k], o->share).count;
    }
    size_t elements = parameters_arena_elements(parameters), figures = options ? options->figures : 0;
    size_t bytes = o->moments * dtype_bytes(optimizer_moments(config));
    ELBO_TRY(backend->allocate(backend, (void **)&o->gradients, (elements + figures) * sizeof(float), "gradients", error));
    ELBO_TRY(backend->allocate(backend, &o->moment1, bytes, "the optimizer's first moments", error));
    if (config->kind == OPTIMIZER_ADAMW)
        ELBO_TRY(backend->allocate(backend, &o->moment2, bytes, "the optimizer's second moments", error));
    ELBO_TRY(backend->allocate(backend, (void **)&o->control, CONTROL_SIZE * sizeof(float), "the guard's decision", error));
    ELBO_TRY(backend->allocate(backend, (void **)&o->scalars, GROUPS * STEP_SCALARS * sizeof(float), "the step's scalars", error));
    struct graph_capacities none = {{0}};
    ELBO_TRY(graph_create(&o->graph, "update", parameters, &none, error));
    for (unsigned k = 0; k < GROUPS; k++) {
        o->factor[k] = part_factor(config, groups[k].part);
        o->trained[k] = groups[k].elements && o->factor[k] > 0;
    }
    record(o, weights.working);
    ELBO_TRY(executor_create(&o->executor, o->graph, backend, error));
    bind_ranges(o, weights);
    bind(o, "control", o->control);
    bind(o, "scalars", o->scalars);
    bind(o, "rows", o->rows);
    bind(o, "settings", o->settings);
    ELBO_TRY(backend->allocate(backend, &o->arena, o->executor.plan.bytes, "the norms", error));
    return executor_bind(&o->executor, o->arena, weights, o->gradients, NULL, error);
}

void optimizer_free(struct optimizer *o)
{
    void *memory[] = {o->gradients, o->moment1, o->moment2, o->control, o->scalars, o->arena};
    executor_free(&o->executor);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i]) o->backend->release(o->backend, memory[i]);
    graph_free(o->graph);
    *o = (struct optimizer){0};
}

void optimizer_watch(struct optimizer *o, const void *loss)
{
    bind(o, "loss", loss);
}

elbo_status optimizer_update(struct optimizer *o, const struct update *u, elbo_error *error)
{
    const struct optimizer_config *c = &o->config;
    const struct parameter_group *groups = parameters_groups(o->parameters);
    for (unsigned answer = 0; answer < 2; answer++)
        for (unsigned k = 0; k < GROUPS; k++) {
            float *s = o->rows[answer][k];
            double t = (double)(u->number[answer] + 1);
            s[STEP_LEARNING_RATE] = (float)(u->learning_rate[answer] * o->factor[k]);
            s[STEP_GRADIENT_SCALE] = 1;
            s[STEP_DECAY] = (float)(groups[k].decay ? c->weight_decay : 0);
            s[STEP_BETA1] = (float)c->beta1;
            s[STEP_BETA2] = (float)c->beta2;
            s[STEP_EPSILON] = (float)c->epsilon;
            s[STEP_CORRECTION1] = (float)(1.0 / (1.0 - pow(c->beta1, t)));
            s[STEP_CORRECTION2] = (float)(1.0 / (1.0 - pow(c->beta2, t)));
            s[STEP_MOMENTUM] = (float)c->momentum;
            s[STEP_APPLY] = 0; /* the guard's to say */
        }
    o->settings[GUARD_CLIP] = (float)c->clip;
    o->settings[GUARD_SKIP] = u->skip;
    struct execution run = {.seed = u->seed, .step = u->step};
    return executor_run(&o->executor, &run, error);
}
