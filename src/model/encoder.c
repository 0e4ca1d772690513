/* The encoder: a bidirectional stack over `start words end`, pooled to one row per sentence. A further kind of encoder
 * (an LSTM, say) is another branch here. */
#include "model/recorder.h"

value encoder_record(struct recorder *r, const struct sequence *source)
{
    const struct stack_config *c = &r->config->encoder;
    value x = transformer_record(r, "encoder", c, PART_ENCODER, source, NO_VALUE, NO_VALUE, false);
    static const enum pool_kind kinds[] = {[POOLING_MEAN] = POOL_MEAN,
                                           [POOLING_FIRST] = POOL_FIRST,
                                           [POOLING_LAST] = POOL_LAST,
                                           [POOLING_ATTENTION] = POOL_ATTENTION};
    graph_scope(r->g, "encoder.pool");
    value query = NO_VALUE;
    if (c->pooling == POOLING_ATTENTION)
        query = recorder_parameter(r, PART_ENCODER, init_normal(0.02), 1, c->width, 0, "encoder.pool.query");
    return op_pool(r->g, x, source->offsets, query, kinds[c->pooling]);
}
