#include "graph/account.h"
#include "graph/execute.h"

#include <stdio.h>
#include <string.h>

struct account account_node(const struct graph *g, const struct node *n, const size_t count[DIM_KINDS])
{
    struct account a = {0};
    double written = 0;
    for (unsigned k = 0; k < MAX_INPUTS; k++)
        if (n->in[k].index) a.bytes += (double)graph_bytes(g, n->in[k], count);
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
        if (!n->out[k].index) continue;
        double bytes = (double)graph_bytes(g, n->out[k], count);
        a.bytes += n->mode[k] == WRITE ? bytes : 2 * bytes;
        written += (double)graph_elements(g, n->out[k], count);
    }
    struct shape_view s;
    node_sizes(&s, g, n, count);
    if (n->type->bytes) a.bytes = n->type->bytes(&s, a.bytes, (double)dtype_bytes(graph_value(g, n->in[0])->dtype));
    a.flops = n->type->flops ? n->type->flops(&s, &n->attr) : written;
    return a;
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
        const struct value_info *v = graph_value(g, n->out[0]);
        for (size_t d = 0, at = 0; d < v->rank && at < sizeof shape; d++)
            at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%zu", d ? " x " : "", graph_dim(g, n->out[0], d, count));
        struct account a = account_node(g, n, count);
        snprintf(text, sizeof text, "%-34s %-30s %-20s %10.3f MFLOP %10.3f MB%s", n->name, n->type->name, shape,
                 a.flops / 1e6, a.bytes / 1e6, n->backward ? "  backward" : "");
        line(context, text);
    }
}
