/* Recording: values and nodes are kept in growing arrays. A graph is built once and then only read. */
#include "graph/graph.h"
#include "graph/names.h"
#include "graph/parameters.h"
#include "base/philox.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct graph {
    char *name;
    struct parameters *parameters;
    struct graph_capacities capacities;
    struct value_info *values;
    size_t value_count, value_room;
    struct node **nodes; /* pointers, so that nodes keep their address while others are recorded */
    size_t node_count, node_room;
    uint32_t *schedule;
    size_t schedule_count, schedule_room;
    char **strings;
    size_t string_count, string_room;
    uint32_t *parameter_value, *gradient_value; /* parameter -> value, 0: none yet */
    size_t parameter_room;
    uint32_t *input_value; /* (inputs) input -> value */
    size_t inputs, input_room, states;
    struct names input_names;
    const char *scope;
    int block;
    enum dtype precision;
    elbo_error error;
};

static bool grow(struct graph *g, void *array, size_t *room, size_t count, size_t size)
{
    if (count < *room) return true;
    size_t next = *room ? *room * 2 : 64;
    void **slot = array;
    void *grown = realloc(*slot, next * size);
    if (!grown) {
        graph_starve(g, "for a longer list of the graph's values or nodes");
        return false;
    }
    *slot = grown;
    *room = next;
    return true;
}

static const char *intern(struct graph *g, const char *text)
{
    if (g->string_count && !strcmp(g->strings[g->string_count - 1], text)) return g->strings[g->string_count - 1];
    if (!grow(g, &g->strings, &g->string_room, g->string_count, sizeof *g->strings)) return "?";
    char *copy = strdup(text);
    if (!copy) return graph_starve(g, "to record a name"), "?";
    return g->strings[g->string_count++] = copy;
}

elbo_status graph_create(struct graph **out, const char *name, struct parameters *parameters,
                         const struct graph_capacities *capacities, elbo_error *error)
{
    struct graph *g = calloc(1, sizeof *g);
    if (!g) return elbo_fail(error, ELBO_MEMORY, "no memory to record the graph \"%s\"", name);
    g->parameters = parameters;
    g->capacities = *capacities;
    g->block = -1;
    g->name = strdup(name);
    g->scope = intern(g, name);
    graph_activation(g, "none", DTYPE_F32, 0, NULL); /* index 0 means "none" */
    if (!g->name || g->error.code) {
        graph_free(g);
        return elbo_fail(error, ELBO_MEMORY, "no memory to record the graph \"%s\"", name);
    }
    *out = g;
    return ELBO_OK;
}

void graph_free(struct graph *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->string_count; i++) free(g->strings[i]);
    for (size_t i = 0; i < g->node_count; i++) free(g->nodes[i]);
    free(g->strings);
    free(g->nodes);
    free(g->values);
    free(g->schedule);
    free(g->parameter_value);
    free(g->gradient_value);
    free(g->input_value);
    names_free(&g->input_names);
    free(g->name);
    free(g);
}

void graph_precision(struct graph *g, enum dtype precision)
{
    g->precision = precision;
}

elbo_status graph_check(const struct graph *g, elbo_error *error)
{
    if (g->error.code) *error = g->error;
    return g->error.code;
}

static void stick(struct graph *g, elbo_status code, const char *what)
{
    if (!g->error.code)
        elbo_fail(&g->error, code, "graph \"%s\", %s: %s", g->name ? g->name : "?", g->scope ? g->scope : "?", what);
}

value graph_fail(struct graph *g, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    stick(g, ELBO_INTERNAL, what);
    return NO_VALUE;
}

value graph_starve(struct graph *g, const char *what)
{
    char text[256];
    snprintf(text, sizeof text, "no memory %s", what);
    stick(g, ELBO_MEMORY, text);
    return NO_VALUE;
}

/* ---- values ---- */

static value add_value(struct graph *g, enum value_class class, const char *name, enum dtype dtype, size_t rank,
                       const struct dim *dim)
{
    if (rank > MAX_RANK) return graph_fail(g, "%s has rank %zu, at most %d are kept", name, rank, MAX_RANK);
    if (!grow(g, &g->values, &g->value_room, g->value_count, sizeof *g->values)) return NO_VALUE;
    struct value_info *v = &g->values[g->value_count];
    *v = (struct value_info){.class = class, .dtype = dtype, .rank = rank, .name = intern(g, name)};
    for (size_t d = 0; d < rank; d++) {
        if (d && dim[d].kind != DIM_FIXED) return graph_fail(g, "%s: only the first dimension is counted", name);
        v->dim[d] = dim[d];
    }
    return (value){(uint32_t)g->value_count++};
}

value graph_activation(struct graph *g, const char *name, enum dtype dtype, size_t rank, const struct dim *dim)
{
    return add_value(g, VALUE_ACTIVATION, name, dtype, rank, dim);
}

value graph_input(struct graph *g, const char *name, enum dtype dtype, size_t rank, const struct dim *dim)
{
    value v = add_value(g, VALUE_INPUT, name, dtype, rank, dim);
    if (!v.index || !grow(g, &g->input_value, &g->input_room, g->inputs, sizeof *g->input_value)) return NO_VALUE;
    if (!graph_input_named(g, name).index && !names_add(&g->input_names, g->values[v.index].name, v.index))
        return graph_starve(g, "to record an input");
    g->values[v.index].binding = (uint32_t)g->inputs;
    g->input_value[g->inputs++] = v.index;
    return v;
}

value graph_state(struct graph *g, const char *name, enum dtype dtype, size_t rank, const struct dim *dim)
{
    value v = add_value(g, VALUE_STATE, name, dtype, rank, dim);
    if (v.index) g->values[v.index].binding = (uint32_t)g->states++;
    return v;
}

static value parameter_slot(struct graph *g, size_t p, bool gradient)
{
    if (p >= g->parameter_room) {
        size_t room = 2 * parameters_count(g->parameters) + 64;
        uint32_t *values = realloc(g->parameter_value, room * sizeof *values);
        if (values) g->parameter_value = values;
        uint32_t *gradients = realloc(g->gradient_value, room * sizeof *gradients);
        if (gradients) g->gradient_value = gradients;
        if (!values || !gradients) return graph_starve(g, "to record a parameter");
        memset(values + g->parameter_room, 0, (room - g->parameter_room) * sizeof *values);
        memset(gradients + g->parameter_room, 0, (room - g->parameter_room) * sizeof *gradients);
        g->parameter_room = room;
    }
    uint32_t *slot = gradient ? &g->gradient_value[p] : &g->parameter_value[p];
    if (!*slot) {
        const struct parameter *info = parameters_get(g->parameters, p);
        struct dim dim[MAX_RANK];
        for (size_t d = 0; d < info->rank; d++) dim[d] = (struct dim){DIM_FIXED, info->shape[d]};
        enum dtype dtype = gradient || info->master ? DTYPE_F32 : g->precision;
        value v = add_value(g, gradient ? VALUE_GRADIENT : VALUE_PARAMETER, info->name, dtype, info->rank, dim);
        if (!v.index) return v;
        g->values[v.index].binding = (uint32_t)p;
        *slot = v.index;
    }
    return (value){*slot};
}

value graph_parameter(struct graph *g, size_t p)
{
    return parameter_slot(g, p, false);
}

value graph_gradient(struct graph *g, size_t p)
{
    return parameter_slot(g, p, true);
}

void graph_keep(struct graph *g, value v)
{
    g->values[v.index].kept = true;
}

void graph_longest(struct graph *g, value v, size_t rows)
{
    g->values[v.index].longest = rows;
}

void graph_pad(struct graph *g, value v, enum pad_rule rule)
{
    g->values[v.index].pad = rule;
}

void graph_wide_gradient(struct graph *g, value v)
{
    g->values[v.index].wide_gradient = true;
}

void graph_resident(struct graph *g, value v)
{
    g->values[v.index].resident = true;
}

const struct value_info *graph_value(const struct graph *g, value v)
{
    return &g->values[v.index];
}

size_t graph_values(const struct graph *g)
{
    return g->value_count;
}

size_t graph_inputs(const struct graph *g)
{
    return g->inputs;
}

size_t graph_states(const struct graph *g)
{
    return g->states;
}

value graph_input_at(const struct graph *g, size_t binding)
{
    return (value){g->input_value[binding]};
}

value graph_input_named(const struct graph *g, const char *name)
{
    size_t v;
    return names_find(&g->input_names, name, &v) ? (value){(uint32_t)v} : NO_VALUE;
}

struct parameters *graph_parameters(const struct graph *g)
{
    return g->parameters;
}

const struct graph_capacities *graph_capacity(const struct graph *g)
{
    return &g->capacities;
}

size_t graph_dim(const struct graph *g, value v, size_t d, const size_t count[DIM_KINDS])
{
    const struct dim *dim = &g->values[v.index].dim[d];
    return dim->kind == DIM_FIXED ? dim->size : count[dim->kind] + dim->size;
}

size_t graph_elements(const struct graph *g, value v, const size_t count[DIM_KINDS])
{
    size_t n = 1;
    for (size_t d = 0; d < g->values[v.index].rank; d++) n *= graph_dim(g, v, d, count);
    return n;
}

size_t dtype_bytes(enum dtype dtype)
{
    return dtype == DTYPE_U64 ? 8 : dtype == DTYPE_BF16 ? 2 : 4;
}

size_t graph_bytes(const struct graph *g, value v, const size_t count[DIM_KINDS])
{
    return graph_elements(g, v, count) * dtype_bytes(g->values[v.index].dtype);
}

size_t graph_width(const struct graph *g, value v)
{
    const struct value_info *info = &g->values[v.index];
    return info->rank ? info->dim[info->rank - 1].size : 1;
}

/* ---- nodes ---- */

void graph_scope(struct graph *g, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    g->scope = intern(g, text);
}

void graph_block(struct graph *g, int block)
{
    g->block = block;
}

uint64_t graph_purpose(const struct graph *g, const char *what)
{
    char text[320];
    snprintf(text, sizeof text, "%s.%s", g->scope, what);
    return noise_purpose(text);
}

struct node *graph_node(struct graph *g, const struct op_type *type)
{
    struct node *n = calloc(1, sizeof *n);
    bool room = n && grow(g, &g->nodes, &g->node_room, g->node_count, sizeof *g->nodes) &&
                grow(g, &g->schedule, &g->schedule_room, g->schedule_count, sizeof *g->schedule);
    if (!room) {
        graph_starve(g, "to record a node");
        free(n);
        return NULL;
    }
    *n = (struct node){.type = type, .name = g->scope, .number = g->node_count, .block = g->block};
    g->schedule[g->schedule_count++] = (uint32_t)g->node_count;
    g->nodes[g->node_count++] = n;
    return n;
}

void node_in(struct graph *g, struct node *n, unsigned slot, value v)
{
    (void)g;
    if (n) n->in[slot] = v;
}

void node_out_into(struct graph *g, struct node *n, unsigned slot, value v, enum write_mode mode)
{
    if (!n || !v.index) return;
    n->out[slot] = v;
    n->mode[slot] = mode;
    if (!g->values[v.index].producer && g->values[v.index].class == VALUE_ACTIVATION)
        g->values[v.index].producer = (uint32_t)g->node_count;
}

value node_out(struct graph *g, struct node *n, unsigned slot, const char *name, enum dtype dtype, size_t rank,
               const struct dim *dim)
{
    if (!n) return NO_VALUE;
    value v = graph_activation(g, name, dtype, rank, dim);
    node_out_into(g, n, slot, v, WRITE);
    return v;
}

size_t graph_nodes(const struct graph *g)
{
    return g->node_count;
}

struct node *graph_node_at(struct graph *g, size_t i)
{
    return g->nodes[i];
}

const struct node *graph_node_get(const struct graph *g, size_t i)
{
    return g->nodes[i];
}

size_t graph_schedule(const struct graph *g, const uint32_t **order)
{
    *order = g->schedule;
    return g->schedule_count;
}

/* Removes replaced nodes from the schedule. Forward nodes that read their outputs are deferred until right after the
 * fused node that writes these outputs. The order among deferred nodes is kept. */
void graph_defer_replaced(struct graph *g)
{
    bool *late = calloc(g->value_count, sizeof *late);
    uint32_t *deferred = malloc((g->schedule_count + 1) * sizeof *deferred);
    if (!late || !deferred) {
        graph_starve(g, "to order the graph");
        free(late);
        free(deferred);
        return;
    }
    size_t kept = 0, waiting = 0;
    for (size_t i = 0; i < g->schedule_count; i++) {
        uint32_t index = g->schedule[i];
        struct node *n = g->nodes[index];
        bool wait = n->replaced;
        for (unsigned k = 0; k < MAX_INPUTS && !n->backward; k++)
            if (n->in[k].index && late[n->in[k].index]) wait = true;
        if (wait) {
            for (unsigned k = 0; k < MAX_OUTPUTS; k++)
                if (n->out[k].index) late[n->out[k].index] = true;
            if (!n->replaced) deferred[waiting++] = index;
            continue;
        }
        g->schedule[kept++] = index;
        bool fused = false;
        for (unsigned k = 0; k < MAX_OUTPUTS; k++)
            if (n->out[k].index && late[n->out[k].index]) late[n->out[k].index] = false, fused = true;
        if (!fused) continue;
        /* Release the deferred nodes whose inputs are now all written. */
        size_t still = 0;
        for (size_t w = 0; w < waiting; w++) {
            struct node *d = g->nodes[deferred[w]];
            bool blocked = false;
            for (unsigned k = 0; k < MAX_INPUTS; k++)
                if (d->in[k].index && late[d->in[k].index]) blocked = true;
            if (blocked) {
                deferred[still++] = deferred[w];
                continue;
            }
            for (unsigned k = 0; k < MAX_OUTPUTS; k++)
                if (d->out[k].index) late[d->out[k].index] = false;
            g->schedule[kept++] = deferred[w];
        }
        waiting = still;
    }
    g->schedule_count = kept;
    free(late);
    free(deferred);
}
