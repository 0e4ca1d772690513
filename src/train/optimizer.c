#include "train/optimizer.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>

_Static_assert(STEP_SCALARS <= 16, "room for the step's scalars");

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

static value range(struct graph *g, const char *what, enum dtype dtype, unsigned group, size_t elements)
{
    char name[32];
    snprintf(name, sizeof name, "%s.%u", what, group);
    value v = graph_input(g, name, dtype, 1, (struct dim[]){{DIM_FIXED, elements}});
    graph_resident(g, v);
    return v;
}

static elbo_status bind(struct executor *e, struct graph *g, struct optimizer *o, struct weight_arenas weights, elbo_error *error)
{
    ELBO_TRY(executor_create(e, g, o->backend, error));
    const struct parameter_group *groups = parameters_groups(o->parameters);
    for (unsigned k = 0; k < GROUPS; k++) {
        const struct {
            const char *what;
            void *data;
        } ranges[] = {{"gradient", o->gradients + groups[k].offset}, {"weights", (float *)weights.master + groups[k].offset},
                      {"working", weights.working ? (uint16_t *)weights.working + groups[k].offset : NULL},
                      {"moment1", o->moment1 + groups[k].offset},
                      {"moment2", o->moment2 ? o->moment2 + groups[k].offset : NULL}, {"scalars", o->scalars[k]}};
        for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
            char name[32];
            snprintf(name, sizeof name, "%s.%u", ranges[i].what, k);
            value v = graph_input_named(g, name);
            if (v.index) e->inputs[graph_value(g, v)->binding] = ranges[i].data;
        }
    }
    return ELBO_OK;
}

elbo_status optimizer_create(struct optimizer *o, const struct optimizer_config *config, struct parameters *parameters,
                             struct weight_arenas weights, struct backend *backend, elbo_error *error)
{
    *o = (struct optimizer){.config = *config, .parameters = parameters, .backend = backend};
    size_t bytes = parameters_arena_elements(parameters) * sizeof(float);
    ELBO_TRY(backend->allocate(backend, (void **)&o->gradients, bytes, "gradients", error));
    ELBO_TRY(backend->allocate(backend, (void **)&o->moment1, bytes, "the optimizer's first moments", error));
    if (config->kind == OPTIMIZER_ADAMW)
        ELBO_TRY(backend->allocate(backend, (void **)&o->moment2, bytes, "the optimizer's second moments", error));
    struct graph_capacities none = {{0}};
    ELBO_TRY(graph_create(&o->norm_graph, "norm", parameters, &none, error));
    ELBO_TRY(graph_create(&o->update_graph, "update", parameters, &none, error));
    const struct parameter_group *groups = parameters_groups(parameters);
    for (unsigned k = 0; k < GROUPS; k++) {
        size_t n = groups[k].elements;
        o->factor[k] = part_factor(config, groups[k].part);
        o->trained[k] = n && o->factor[k] > 0;
        if (!o->trained[k]) continue;
        o->record[k] = op_squared_norm(o->norm_graph, range(o->norm_graph, "gradient", DTYPE_F32, k, n));
        graph_keep(o->norm_graph, o->record[k]);
        struct graph *g = o->update_graph;
        value w = range(g, "weights", DTYPE_F32, k, n), m = range(g, "moment1", DTYPE_F32, k, n);
        value d = range(g, "gradient", DTYPE_F32, k, n);
        value working = weights.working ? range(g, "working", DTYPE_BF16, k, n) : NO_VALUE;
        char scalars[32];
        snprintf(scalars, sizeof scalars, "scalars.%u", k);
        value s = graph_input(g, scalars, DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, STEP_SCALARS}});
        if (config->kind == OPTIMIZER_ADAMW)
            op_adamw(g, w, working, m, range(g, "moment2", DTYPE_F32, k, n), d, s);
        else
            op_sgd(g, w, working, m, d, s);
    }
    ELBO_TRY(bind(&o->norm, o->norm_graph, o, weights, error));
    ELBO_TRY(bind(&o->update, o->update_graph, o, weights, error));
    ELBO_TRY(backend->allocate(backend, &o->arena, o->norm.plan.bytes, "the norm's record", error));
    ELBO_TRY(executor_bind(&o->norm, o->arena, weights, o->gradients, NULL, error));
    return executor_bind(&o->update, o->arena, weights, o->gradients, NULL, error);
}

void optimizer_free(struct optimizer *o)
{
    void *memory[] = {o->gradients, o->moment1, o->moment2, o->arena};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i]) o->backend->release(o->backend, memory[i]);
    executor_free(&o->norm);
    executor_free(&o->update);
    graph_free(o->norm_graph);
    graph_free(o->update_graph);
    *o = (struct optimizer){0};
}

elbo_status optimizer_norm(struct optimizer *o, double *norm, elbo_error *error)
{
    struct execution run = {.seed = 0};
    ELBO_TRY(executor_run(&o->norm, &run, error));
    double sum = 0;
    for (unsigned k = 0; k < GROUPS; k++) {
        if (!o->trained[k]) continue;
        float record[NORM_RECORD];
        o->backend->download(o->backend, record, executor_pointer(&o->norm, o->record[k]), sizeof record);
        sum += record[NORM_NOT_FINITE] > 0 ? (double)NAN : (double)record[NORM_SQUARED];
    }
    *norm = sqrt(sum);
    return ELBO_OK;
}

elbo_status optimizer_update(struct optimizer *o, double learning_rate, double norm, elbo_error *error)
{
    const struct optimizer_config *c = &o->config;
    const struct parameter_group *groups = parameters_groups(o->parameters);
    double scale = c->clip > 0 && norm > c->clip ? c->clip / norm : 1.0, t = (double)(o->updates + 1);
    for (unsigned k = 0; k < GROUPS; k++) {
        float *s = o->scalars[k];
        s[STEP_LEARNING_RATE] = (float)(learning_rate * o->factor[k]);
        s[STEP_GRADIENT_SCALE] = (float)scale;
        s[STEP_DECAY] = (float)(groups[k].decay ? c->weight_decay : 0);
        s[STEP_BETA1] = (float)c->beta1;
        s[STEP_BETA2] = (float)c->beta2;
        s[STEP_EPSILON] = (float)c->epsilon;
        s[STEP_CORRECTION1] = (float)(1.0 / (1.0 - pow(c->beta1, t)));
        s[STEP_CORRECTION2] = (float)(1.0 / (1.0 - pow(c->beta2, t)));
        s[STEP_MOMENTUM] = (float)c->momentum;
    }
    struct execution run = {.seed = 0};
    ELBO_TRY(executor_run(&o->update, &run, error));
    o->updates++;
    return ELBO_OK;
}
