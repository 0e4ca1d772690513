/* latent.kind=normal: the head's output is mu | logvar itself (Kingma and Welling 2014). */
#include "model/latent.h"

#include <math.h>

static size_t head_width(const struct latent_config *c)
{
    return 2 * c->width;
}

/* It starts informative: mu rows N(0, (1.13 / sqrt(D))^2), which is 0.1 at width 128, logvar rows N(0, 0.02^2) with
 * bias -3. The rows that it reads have the scale of a norm, so mu begins with the same deviation at every width: a
 * constant 0.1 would begin with 4.4 nats a dimension at width 768. */
static void initialize(struct parameter *weight, struct parameter *bias, const struct model_config *m)
{
    weight->tail = bias->tail = m->latent.width;
    weight->init = init_normal(0.1 * sqrt(128.0 / (double)m->encoder.width));
    weight->init_tail = init_normal(0.02);
    bias->init = init_constant(0);
    bias->init_tail = init_constant(-3);
}

static value stats(struct recorder *r, value head)
{
    (void)r;
    return head;
}

const struct posterior_kind posterior_normal = {
    .name = "normal", .head_width = head_width, .initialize = initialize, .stats = stats};
