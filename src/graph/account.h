/* Floating-point operations and bytes of each node, derived from the recording. */
#ifndef GRAPH_ACCOUNT_H
#define GRAPH_ACCOUNT_H

#include "graph/graph.h"

struct account {
    double flops; /* a multiply and an add count as 2 */
    double bytes; /* each input read once and each output written once, unless the op says otherwise */
};

struct call;
struct account account_call(const struct call *c);
struct account account_node(const struct graph *g, const struct node *n, const size_t count[DIM_KINDS]);
struct account account_graph(const struct graph *g, const size_t count[DIM_KINDS]);

/* Prints one line per scheduled node: name, op, shape of output 0, FLOPs, bytes. */
void account_print(const struct graph *g, const size_t count[DIM_KINDS], void (*line)(void *context, const char *text),
                   void *context);

#endif
