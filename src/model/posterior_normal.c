/* latent.kind=normal: the head's output is mu | logvar itself (Kingma and Welling 2014). */
#include "model/latent.h"

static size_t head_width(const struct latent_config *c)
{
    return 2 * c->width;
}

/* It starts informative: mu rows N(0, 0.1^2), logvar rows N(0, 0.02^2) with bias -3. */
static void initialize(struct parameter *weight, struct parameter *bias, const struct model_config *m)
{
    weight->tail = bias->tail = m->latent.width;
    weight->init = init_normal(0.1);
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
