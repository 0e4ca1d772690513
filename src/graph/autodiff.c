/* Reverse-mode differentiation: marks the wanted values, chooses the values to drop, and walks the forward nodes
 * backwards, emitting each op's gradient nodes into the same graph. */
#include "graph/autodiff.h"
#include "graph/parameters.h"

#include <stdlib.h>
#include <string.h>

struct autodiff {
    struct graph *g;
    size_t forward_nodes, forward_values;
    enum recompute_policy policy;
    const struct op_type *add;
    bool *wanted;        /* (values) depends on a wanted parameter */
    value *gradient;     /* (values) the buffer that holds the gradient so far */
    bool *shared;        /* (values) this buffer is also another value's gradient */
    bool *dropped;       /* (values) not kept for the backward pass */
    uint32_t *readings;  /* (values) inputs of forward nodes that are this value */
    value *again;        /* (values) the recomputed stand-in, in this block */
    uint32_t *stood_for; /* (stand_ins) the values that have a stand-in */
    size_t stand_ins;
    int block; /* the recompute block that the walk is in */
    const struct node *at;
};

struct graph *autodiff_graph(struct autodiff *ad)
{
    return ad->g;
}

bool autodiff_wants(struct autodiff *ad, value v)
{
    return v.index && v.index < ad->forward_values && ad->wanted[v.index];
}

value autodiff_output(struct autodiff *ad, const struct node *n, unsigned k)
{
    return n->out[k].index ? ad->gradient[n->out[k].index] : NO_VALUE;
}

struct node *autodiff_node(struct autodiff *ad, const struct op_type *type, const struct node *n)
{
    struct node *b = graph_node(ad->g, type);
    if (!b) return NULL;
    b->attr = n->attr;
    b->name = n->name;
    b->block = n->block;
    b->backward = true;
    return b;
}

static value like(struct autodiff *ad, const struct value_info *info)
{
    return graph_activation(ad->g, info->name, info->wide_gradient ? DTYPE_F32 : info->dtype, info->rank, info->dim);
}

/* Returns the buffer that v's gradient goes to. A parameter's gradient lies in the gradient arena, where the first
 * contribution in a step's first slot overwrites. */
static value gradient_target(struct autodiff *ad, value v, bool *first)
{
    const struct value_info info = *graph_value(ad->g, v);
    *first = !ad->gradient[v.index].index;
    if (!*first) return ad->gradient[v.index];
    return info.class == VALUE_PARAMETER ? graph_gradient(ad->g, info.binding) : like(ad, &info);
}

static void emit_add(struct autodiff *ad, value into, value a, value b, enum write_mode mode)
{
    struct node *add = autodiff_node(ad, ad->add, ad->at);
    node_in(ad->g, add, IN_FIRST, a);
    node_in(ad->g, add, IN_FIRST + 1, b);
    node_out_into(ad->g, add, OUT_RESULT, into, mode);
}

void autodiff_write(struct autodiff *ad, struct node *b, unsigned slot, value v)
{
    if (!b || !autodiff_wants(ad, v)) return;
    const struct value_info info = *graph_value(ad->g, v);
    bool parameter = info.class == VALUE_PARAMETER, first;
    if (ad->shared[v.index]) {
        /* The buffer so far is also another value's gradient, so the sum gets its own buffer. */
        value part = like(ad, &info), sum = like(ad, &info);
        node_out_into(ad->g, b, slot, part, WRITE);
        emit_add(ad, sum, ad->gradient[v.index], part, WRITE);
        ad->gradient[v.index] = sum;
        ad->shared[v.index] = false;
        return;
    }
    value target = gradient_target(ad, v, &first);
    enum write_mode mode = !first ? WRITE_ADD : parameter ? WRITE_ADD_LATER_SLOTS : WRITE;
    ad->gradient[v.index] = target;
    if (mode == WRITE || (b->type->accumulates >> slot & 1)) {
        node_out_into(ad->g, b, slot, target, mode);
        return;
    }
    value part = like(ad, &info);
    node_out_into(ad->g, b, slot, part, WRITE);
    emit_add(ad, target, part, NO_VALUE, mode);
}

struct node *autodiff_emit_operands(struct autodiff *ad, const struct op_type *type, const struct node *n,
                                    const struct autodiff_operand *operands, size_t count)
{
    value in[MAX_INPUTS + MAX_OUTPUTS];
    for (size_t i = 0; i < count; i++)
        in[i] = operands[i].use == OPERAND_READ ? autodiff_read(ad, operands[i].v) : operands[i].v;
    struct node *b = autodiff_node(ad, type, n);
    for (size_t i = 0; i < count; i++)
        if (operands[i].use != OPERAND_GIVEN) node_in(ad->g, b, operands[i].slot, in[i]);
    for (size_t i = 0; i < count; i++)
        if (operands[i].use == OPERAND_GIVEN) autodiff_write(ad, b, operands[i].slot, operands[i].v);
    return b;
}

void autodiff_pass(struct autodiff *ad, value v, value d)
{
    if (!autodiff_wants(ad, v)) return;
    const struct value_info info = *graph_value(ad->g, v);
    bool same = graph_value(ad->g, d)->dtype == (info.wide_gradient ? DTYPE_F32 : info.dtype);
    if (info.class != VALUE_PARAMETER && !ad->gradient[v.index].index && same) {
        ad->gradient[v.index] = d;
        ad->shared[v.index] = true;
        return;
    }
    if (ad->shared[v.index]) {
        value sum = like(ad, &info);
        emit_add(ad, sum, ad->gradient[v.index], same ? d : NO_VALUE, WRITE);
        if (!same) emit_add(ad, sum, d, NO_VALUE, WRITE_ADD);
        ad->gradient[v.index] = sum;
        ad->shared[v.index] = false;
        return;
    }
    bool first;
    value target = gradient_target(ad, v, &first);
    ad->gradient[v.index] = target;
    emit_add(ad, target, d, NO_VALUE,
             !first                          ? WRITE_ADD
             : info.class == VALUE_PARAMETER ? WRITE_ADD_LATER_SLOTS
                                             : WRITE);
}

void autodiff_replace(struct autodiff *ad, const struct node *n, struct node *b, unsigned output, unsigned slot)
{
    graph_node_at(ad->g, n->number)->replaced = true;
    if (b) {
        b->out[slot] = n->out[output];
        b->mode[slot] = WRITE;
    }
}

bool autodiff_has(struct autodiff *ad, value v)
{
    return v.index >= ad->forward_values || !ad->dropped[v.index] || ad->again[v.index].index;
}

static void stand_in(struct autodiff *ad, value v, value fresh)
{
    if (!ad->again[v.index].index) ad->stood_for[ad->stand_ins++] = v.index;
    ad->again[v.index] = fresh;
}

static void forget_stand_ins(struct autodiff *ad)
{
    while (ad->stand_ins) ad->again[ad->stood_for[--ad->stand_ins]] = NO_VALUE;
}

void autodiff_again(struct autodiff *ad, value v, value fresh)
{
    if (ad->dropped[v.index] && fresh.index) stand_in(ad, v, fresh);
}

bool autodiff_sole_reader(struct autodiff *ad, const struct node *n, value v)
{
    bool reads = false;
    for (unsigned k = 0; k < MAX_INPUTS; k++) reads = reads || n->in[k].index == v.index;
    return reads && ad->readings[v.index] == 1;
}

value autodiff_read(struct autodiff *ad, value v)
{
    if (!v.index || v.index >= ad->forward_values || !ad->dropped[v.index]) return v;
    if (ad->again[v.index].index) return ad->again[v.index];
    struct node *n = graph_node_at(ad->g, graph_value(ad->g, v)->producer - 1);
    unsigned k = 0;
    while (n->out[k].index != v.index) k++;
    if (n->type->recompute) {
        value r = n->type->recompute(ad, n, k);
        if (r.index) {
            stand_in(ad, v, r);
            return r;
        }
    }
    value in[MAX_INPUTS];
    for (unsigned i = 0; i < MAX_INPUTS; i++) in[i] = autodiff_read(ad, n->in[i]);
    struct node *clone = autodiff_node(ad, n->type, n);
    if (!clone) return NO_VALUE;
    for (unsigned i = 0; i < MAX_INPUTS; i++) node_in(ad->g, clone, i, in[i]);
    for (unsigned o = 0; o < MAX_OUTPUTS; o++) {
        if (!n->out[o].index) continue;
        const struct value_info info = *graph_value(ad->g, n->out[o]);
        value fresh = node_out(ad->g, clone, o, info.name, info.dtype, info.rank, info.dim);
        autodiff_again(ad, n->out[o], fresh);
    }
    return ad->again[v.index];
}

/* Marks the values that the policy drops and that can be recomputed from kept values. */
static void choose_dropped(struct autodiff *ad)
{
    if (ad->policy == KEEP_ALL) return;
    for (size_t i = 0; i < ad->forward_nodes; i++) {
        const struct node *n = graph_node_at(ad->g, i);
        /* For expensive ops, drop only output 0, and only if it can be rebuilt from output 1. */
        bool cheap = n->type->cheap || (n->type->recompute && n->out[OUT_SECOND].index);
        bool drop = ad->policy == RECOMPUTE_CHEAP_OPS ? cheap : n->block >= 0;
        for (unsigned k = 0; k < MAX_OUTPUTS && drop; k++)
            if (n->out[k].index && !graph_value(ad->g, n->out[k])->kept)
                ad->dropped[n->out[k].index] = ad->policy == RECOMPUTE_BLOCKS || n->type->cheap || k == OUT_RESULT;
    }
    if (ad->policy != RECOMPUTE_BLOCKS) return;
    /* A value read from another block, or from no block, is a boundary and is kept. If the reading op's output 1
     * replaces its inputs in the backward pass, output 1 is kept instead. */
    for (size_t i = 0; i < ad->forward_nodes; i++) {
        const struct node *n = graph_node_at(ad->g, i);
        for (unsigned k = 0; k < MAX_INPUTS; k++) {
            uint32_t producer = n->in[k].index ? graph_value(ad->g, n->in[k])->producer : 0;
            if (!producer || graph_node_at(ad->g, producer - 1)->block == n->block) continue;
            ad->dropped[n->type->sums && n->out[OUT_SECOND].index ? n->out[OUT_SECOND].index : n->in[k].index] = false;
        }
    }
}

static void mark_wanted(struct autodiff *ad, unsigned wanted)
{
    const struct parameters *parameters = graph_parameters(ad->g);
    for (uint32_t i = 1; i < ad->forward_values; i++) {
        const struct value_info *info = graph_value(ad->g, (value){i});
        if (info->class != VALUE_PARAMETER) continue;
        const struct parameter *p = parameters_get(parameters, info->binding);
        unsigned group = 2 * (unsigned)p->part + (p->decay ? 0 : 1);
        ad->wanted[i] = wanted >> group & 1;
    }
    for (size_t i = 0; i < ad->forward_nodes; i++) {
        const struct node *n = graph_node_at(ad->g, i);
        bool any = false;
        for (unsigned k = 0; k < MAX_INPUTS; k++) any = any || (n->in[k].index && ad->wanted[n->in[k].index]);
        if (!any || !n->type->gradient) continue;
        for (unsigned k = 0; k < MAX_OUTPUTS; k++)
            if (n->out[k].index) ad->wanted[n->out[k].index] = true;
    }
}

static void count_readings(struct autodiff *ad)
{
    for (size_t i = 0; i < ad->forward_nodes; i++)
        for (unsigned k = 0; k < MAX_INPUTS; k++) ad->readings[graph_node_at(ad->g, i)->in[k].index]++;
}

static bool has_gradient(struct autodiff *ad, const struct node *n)
{
    for (unsigned k = 0; k < MAX_OUTPUTS; k++)
        if (n->out[k].index && ad->gradient[n->out[k].index].index) return true;
    return false;
}

elbo_status graph_differentiate(struct graph *g, value loss, const struct autodiff_options *options, elbo_error *error)
{
    ELBO_TRY(graph_check(g, error));
    size_t values = graph_values(g);
    struct autodiff ad = {.g = g, .policy = options->policy, .add = options->add, .block = -1};
    ad.forward_nodes = graph_nodes(g);
    ad.forward_values = values;
    ad.wanted = calloc(values, sizeof *ad.wanted);
    ad.gradient = calloc(values, sizeof *ad.gradient);
    ad.shared = calloc(values, sizeof *ad.shared);
    ad.dropped = calloc(values, sizeof *ad.dropped);
    ad.again = calloc(values, sizeof *ad.again);
    ad.stood_for = calloc(values, sizeof *ad.stood_for);
    ad.readings = calloc(values, sizeof *ad.readings);
    /* A failure is sticky, so that a graph without its backward pass is never taken for a complete one. */
    bool there = ad.wanted && ad.gradient && ad.shared && ad.dropped && ad.again && ad.stood_for && ad.readings;
    if (!there) graph_starve(g, "to differentiate it");
    elbo_status status = graph_check(g, error);
    if (!status) {
        mark_wanted(&ad, options->wanted);
        choose_dropped(&ad);
        count_readings(&ad);
        for (size_t i = ad.forward_nodes; i-- > 0;) {
            const struct node *n = graph_node_at(g, i);
            bool is_loss = n->out[OUT_RESULT].index == loss.index;
            if (!n->type->gradient || (!is_loss && !has_gradient(&ad, n))) continue;
            bool any = false;
            for (unsigned k = 0; k < MAX_INPUTS; k++) any = any || autodiff_wants(&ad, n->in[k]);
            if (!any) continue;
            if (ad.policy == RECOMPUTE_BLOCKS && n->block != ad.block) {
                forget_stand_ins(&ad);
                ad.block = n->block;
            }
            ad.at = n;
            n->type->gradient(&ad, n);
        }
        graph_defer_replaced(g);
        status = graph_check(g, error);
    }
    free(ad.wanted);
    free(ad.gradient);
    free(ad.shared);
    free(ad.dropped);
    free(ad.again);
    free(ad.stood_for);
    free(ad.readings);
    return status;
}

void graph_ready(const struct graph *g, size_t *ready)
{
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order);
    for (size_t s = 0; s < steps; s++) {
        const struct node *n = graph_node_get(g, order[s]);
        for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
            const struct value_info *info = graph_value(g, n->out[k]);
            if (n->out[k].index && info->class == VALUE_GRADIENT) ready[info->binding] = s;
        }
    }
}
