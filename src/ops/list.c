/* The table of op types, and the two rules on rows that the ops share. */
#include "ops/ops.h"

const struct op_type *const op_types[OP_COUNT] = {
#define OP_ENTRY(name) [OP_##name] = &op_##name##_type,
    ELBO_OPS(OP_ENTRY)
#undef OP_ENTRY
};

struct dim op_rows(const struct graph *g, value v)
{
    return graph_value(g, v)->dim[0];
}

bool op_same_rows(const struct graph *g, value a, value b)
{
    struct dim x = op_rows(g, a), y = op_rows(g, b);
    return x.kind == y.kind && x.size == y.size;
}
