/* latent.kind=slashed: the slashed normal. The head gives (a, b) for each dimension, mu = sqrt 2 a and sigma =
 * stdplus(sqrt 2 b), so that the KL against N(0, 1) is the squared length of the head's output; see ops/posterior.c.
 * Fixing this length makes a rate exact: of a sentence, of the mean over a slot, or of each dimension over a slot. */
#include "model/latent.h"

#include <math.h>

static size_t head_width(const struct latent_config *c)
{
    return 2 * c->width;
}

/* The posterior starts as informative as a normal one: the same mu, and sigma = exp(-3 / 2) = stdplus(-1.4318). */
static void initialize(struct parameter *weight, struct parameter *bias, const struct model_config *m)
{
    weight->tail = bias->tail = m->latent.width;
    weight->init = init_normal(0.1 * sqrt(128.0 / (double)m->encoder.width / 2));
    weight->init_tail = init_normal(0.02);
    bias->init = init_constant(0);
    bias->init_tail = init_constant(-1.0124);
}

static value scaled(struct recorder *r, value head, value *sums)
{
    const struct latent_config *c = &r->config->latent;
    struct normalization n = {.scope = c->rate_scope == RATE_SENTENCE ? NORMALIZE_ROWS : NORMALIZE_COLUMNS,
                              .groups = c->rate_scope == RATE_DIMENSION ? c->width : 1,
                              .columns = 2 * c->width,
                              .level = sqrt(c->rate)};
    if (c->rate_scope == RATE_SENTENCE) return op_normalize(r->g, head, NO_VALUE, NO_VALUE, NO_VALUE, &n).y;
    if (c->rate_scope == RATE_DIMENSION) n.level = sqrt(c->rate / (double)c->width);
    return latent_normalized(r, head, NO_VALUE, NO_VALUE, &n, sums);
}

static value stats(struct recorder *r, value head, value sample, value *sums)
{
    (void)sample;
    if (r->config->latent.rate > 0) {
        graph_scope(r->g, "latent.rate");
        head = scaled(r, head, sums);
    }
    graph_scope(r->g, "latent.slashed");
    return op_posterior(r->g, head, POSTERIOR_SLASHED, 0, 0, NO_VALUE, NO_VALUE, 0);
}

const struct posterior_kind posterior_slashed = {
    .name = "slashed", .head_width = head_width, .initialize = initialize, .stats = stats};
