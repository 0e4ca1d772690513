/* The states that the update graph changes besides the weights: the controllers' scales and states, and the latent's
 * running statistics. */
#include "step/controls.h"
#include "ops/posterior.h"

#include <stdio.h>
#include <string.h>

static size_t floats_of(const struct objective *o)
{
    return objective_columns(o) + o->controllers * CONTROLLER_STATE;
}

elbo_status controls_create(struct controls *c, const struct objective *o, struct backend *backend, elbo_error *error)
{
    float first[OBJECTIVE_MOST_TERMS * (1 + CONTROLLER_STATE) + 1], *state = first + objective_columns(o);
    *c = (struct controls){.objective = o, .backend = backend};
    if (!o->controllers) return ELBO_OK;
    first[o->count] = 1; /* the switch's scale; unused without a switch */
    ELBO_TRY(backend->memory.allocate(backend, (void **)&c->memory, floats_of(o) * sizeof *c->memory,
                                      "the controllers of the objective", error));
    for (size_t k = 0, i = 0; k < o->count; k++) {
        const struct objective_controller *own = o->owner[k];
        first[k] = own ? (float)own->first(&o->config) : 1;
        if (!own) continue;
        own->set(&o->config, c->settings[i++]);
        state[CONTROLLER_WEIGHT] = state[CONTROLLER_USED] = first[k];
        state[CONTROLLER_SUM] = (float)own->first_sum(&o->config);
        state += CONTROLLER_STATE;
    }
    backend->memory.upload(backend, c->memory, first, floats_of(o) * sizeof *first);
    return ELBO_OK;
}

void controls_free(struct controls *c)
{
    if (c->memory) c->backend->memory.release(c->backend, c->memory);
    *c = (struct controls){0};
}

static value resident(struct graph *g, const char *name, size_t floats)
{
    value v = graph_input(g, name, DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, floats}});
    graph_resident(g, v);
    return v;
}

void controls_record(void *context, struct graph *g, value figures, value control)
{
    const struct controls *c = context;
    const struct objective *o = c->objective;
    const struct running_statistics *s = &c->running;
    if (s->groups) {
        value tensor = graph_input(g, "running", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, 2}, {DIM_FIXED, s->groups}});
        graph_resident(g, tensor);
        graph_scope(g, "latent.running");
        op_running(g, tensor, resident(g, "statistics", 2 * s->groups + 1), control, s->center, s->share);
    }
    if (!o->controllers) return;
    value scales = resident(g, "scales", objective_columns(o));
    for (size_t k = 0, i = 0; k < o->count; k++) {
        const struct objective_controller *own = o->owner[k];
        char name[64], settings[64];
        if (!own) continue;
        snprintf(name, sizeof name, "controller.%zu", i);
        snprintf(settings, sizeof settings, "controller.%zu.settings", i++);
        graph_scope(g, "objective.%s", own->name);
        op_controller(g, resident(g, name, CONTROLLER_STATE), scales, figures, control,
                      graph_input(g, settings, DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, CONTROLLER_SETTINGS}}),
                      own->rule, own->part, k);
    }
}

void controls_bind(struct controls *c, struct optimizer *o)
{
    optimizer_bind(o, "running", c->running.tensor);
    optimizer_bind(o, "statistics", c->running.sums);
    optimizer_bind(o, "scales", controls_scales(c));
    for (size_t i = 0; i < c->objective->controllers; i++) {
        char name[64];
        snprintf(name, sizeof name, "controller.%zu", i);
        optimizer_bind(o, name, controls_states(c) + i * CONTROLLER_STATE);
        snprintf(name, sizeof name, "controller.%zu.settings", i);
        optimizer_bind(o, name, c->settings[i]);
    }
}

void controls_set(struct controls *c, size_t sentences)
{
    for (size_t i = 0; i < c->objective->controllers; i++) c->settings[i][CONTROLLER_SENTENCES] = (float)sentences;
}

const float *controls_scales(const struct controls *c)
{
    return c->memory;
}

float *controls_states(const struct controls *c)
{
    return c->memory ? c->memory + objective_columns(c->objective) : NULL;
}

size_t controls_state_floats(const struct controls *c)
{
    return c->memory ? c->objective->controllers * CONTROLLER_STATE : 0;
}

void controls_restored(struct controls *c)
{
    const struct objective *o = c->objective;
    float all[OBJECTIVE_MOST_TERMS * (1 + CONTROLLER_STATE) + 1], *state = all + objective_columns(o);
    if (!c->memory) return;
    c->backend->memory.download(c->backend, all, c->memory, floats_of(o) * sizeof *all);
    for (size_t k = 0; k < o->count; k++) {
        if (!o->owner[k]) continue;
        all[k] = state[CONTROLLER_WEIGHT];
        state += CONTROLLER_STATE;
    }
    c->backend->memory.upload(c->backend, c->memory, all, o->count * sizeof *all);
}

void controls_used(const struct controls *c, double *scale, const float *states)
{
    const struct objective *o = c->objective;
    for (size_t k = 0; k < o->count; k++) {
        if (!o->owner[k]) continue;
        scale[k] = (double)states[CONTROLLER_USED];
        states += CONTROLLER_STATE;
    }
}
