/* Counting the FLOPs and bytes of calls, nodes and whole graphs: per input and output by default, or by the op's own
 * rule. */
#include "graph/account.h"
#include "graph/execute.h"

#include <stdio.h>
#include <string.h>

static double elements(const size_t dim[MAX_RANK])
{
    double n = (double)dim[0];
    for (unsigned d = 1; d < MAX_RANK && dim[d]; d++) n *= (double)dim[d];
    return n;
}

struct account account_call(const struct call *c)
{
    struct account a = {0};
    double written = 0;
    for (unsigned k = 0; k < MAX_INPUTS; k++) a.bytes += elements(c->size.in[k]) * (double)dtype_bytes(c->in_type[k]);
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
        double n = elements(c->size.out[k]);
        bool read = c->add[k] || c->node->mode[k] == WRITE_UPDATE;
        a.bytes += n * (double)dtype_bytes(c->out_type[k]) * (read ? 2 : 1);
        written += n;
    }
    const struct op_type *type = c->node->type;
    if (type->bytes) a.bytes = type->bytes(&c->size, a.bytes, (double)dtype_bytes(c->in_type[IN_FIRST]));
    a.flops = type->flops ? type->flops(&c->size, &c->node->attr) : written;
    return a;
}

struct account account_node(const struct graph *g, const struct node *n, const size_t count[DIM_KINDS])
{
    struct call c = {.node = n};
    node_sizes(&c.size, g, n, count);
    for (unsigned k = 0; k < MAX_INPUTS; k++) c.in_type[k] = graph_value(g, n->in[k])->dtype;
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
        c.out_type[k] = graph_value(g, n->out[k])->dtype;
        c.add[k] = n->mode[k] != WRITE;
    }
    return account_call(&c);
}

struct account account_graph(const struct graph *g, const size_t count[DIM_KINDS])
{
    struct account sum = {0};
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order);
    for (size_t s = 0; s < steps; s++) {
        struct account a = account_node(g, graph_node_get(g, order[s]), count);
        sum.flops += a.flops;
        sum.bytes += a.bytes;
    }
    return sum;
}

void account_print(const struct graph *g, const size_t count[DIM_KINDS], void (*line)(void *context, const char *text),
                   void *context)
{
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order);
    for (size_t s = 0; s < steps; s++) {
        const struct node *n = graph_node_get(g, order[s]);
        char shape[96] = "", text[320];
        const struct value_info *v = graph_value(g, n->out[OUT_RESULT]);
        for (size_t d = 0, at = 0; d < v->rank && at < sizeof shape; d++)
            at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%zu", d ? " x " : "",
                                   graph_dim(g, n->out[OUT_RESULT], d, count));
        struct account a = account_node(g, n, count);
        snprintf(text, sizeof text, "%-34s %-30s %-20s %10.3f MFLOP %10.3f MB%s", n->name, n->type->name, shape,
                 a.flops / 1e6, a.bytes / 1e6, n->backward ? "  backward" : "");
        line(context, text);
    }
}
