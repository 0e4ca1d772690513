/* The encoder: a stack that reads all of `start words end`, pooled to one row per sentence. */
#include "model/stack.h"

value encoder_record(struct recorder *r, const struct sequence *source)
{
    const struct stack_config *c = &r->config->encoder;
    const struct stack stack = {"encoder", c, PART_ENCODER, false};
    const struct stack_input in = {.sequence = source, .embedded = stack_label(r, &stack, source, NO_VALUE)};
    value x = stack_kind_of(c)->record(r, &stack, &in);
    static const enum pool_kind kinds[] = {[POOLING_MEAN] = POOL_MEAN,
                                           [POOLING_FIRST] = POOL_FIRST,
                                           [POOLING_LAST] = POOL_LAST,
                                           [POOLING_ATTENTION] = POOL_ATTENTION};
    const struct stack_kind *kind = stack_kind_of(c);
    enum pool_kind pooling = c->pooling == POOLING_LAST && kind->last ? kind->last(c) : kinds[c->pooling];
    graph_scope(r->g, "encoder.pool");
    value query = NO_VALUE;
    if (c->pooling == POOLING_ATTENTION)
        query = recorder_parameter(r, PART_ENCODER, init_normal(0.02), 1, c->width, 0, "encoder.pool.query");
    return op_pool(r->g, x, source->offsets, query, pooling);
}
