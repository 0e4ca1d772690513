/* latent.kind=delta: a committed rate (Razavi et al. 2019). Each dimension's KL against N(0, 1) is delta + max(0, m) /
 * 2, whatever the head gives; see ops/posterior.c. */
#include "model/latent.h"

#include <math.h>

static size_t head_width(const struct latent_config *c)
{
    return 2 * c->width;
}

/* The rows of m begin like those of a normal mu, so that some m of each sentence are above 0; sigma begins in the
 * middle of its range. */
static void initialize(struct parameter *weight, struct parameter *bias, const struct model_config *m)
{
    weight->tail = bias->tail = m->latent.width;
    weight->init = init_normal(0.1 * sqrt(128.0 / (double)m->encoder.width));
    weight->init_tail = init_normal(0.02);
    bias->init = bias->init_tail = init_constant(0);
}

static value stats(struct recorder *r, value head, value sample, value *sums)
{
    (void)sample, (void)sums;
    graph_scope(r->g, "latent.delta");
    return op_posterior(r->g, head, POSTERIOR_DELTA, r->config->latent.delta, 0, NO_VALUE, NO_VALUE, 0);
}

const struct posterior_kind posterior_delta = {
    .name = "delta", .head_width = head_width, .initialize = initialize, .stats = stats};
