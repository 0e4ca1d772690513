/* latent.kind=normal: the head's output is mu | logvar itself (Kingma and Welling 2014). latent.normalize=batch gives
 * mu over a slot's sentences the deviation gamma and a learned mean (BN-VAE, Zhu et al. 2020). latent.normalize=du
 * learns the deviations, whose root mean square is gamma, and keeps the variances above a floor (DU-VAE, Shen et al.
 * 2021). */
#include "model/latent.h"

#include <math.h>

static size_t head_width(const struct latent_config *c)
{
    return 2 * c->width;
}

/* The posterior starts informative: mu rows N(0, (1.13 / sqrt(D))^2), which is 0.1 at width 128, logvar rows N(0,
 * 0.02^2) with bias -3. The head reads rows of a norm's scale, so mu begins with the same deviation at every width. A
 * constant 0.1 would begin with 4.4 nats a dimension at width 768. */
static void initialize(struct parameter *weight, struct parameter *bias, const struct model_config *m)
{
    weight->tail = bias->tail = m->latent.width;
    weight->init = init_normal(0.1 * sqrt(128.0 / (double)m->encoder.width));
    weight->init_tail = init_normal(0.02);
    bias->init = init_constant(0);
    bias->init_tail = init_constant(-3);
}

/* Returns (1, Z) deviations rescaled to the root mean square gamma, so that only their ratios are learned. */
static value deviations(struct recorder *r, const struct latent_config *c)
{
    struct parameter weight = {.name = "latent.normalize.weight",
                               .rank = 2,
                               .shape = {1, c->width},
                               .part = PART_LATENT,
                               .master = true,
                               .init = init_constant(c->gamma)};
    struct normalization whole = {
        .scope = NORMALIZE_ROWS, .groups = 1, .columns = c->width, .level = c->gamma * sqrt((double)c->width)};
    return op_normalize(r->g, recorder_declare(r, &weight), NO_VALUE, NO_VALUE, NO_VALUE, &whole).y;
}

static value normalized(struct recorder *r, value head, value *sums)
{
    const struct latent_config *c = &r->config->latent;
    bool du = c->normalize == LATENT_DU;
    struct parameter bias = {.name = "latent.normalize.bias",
                             .rank = 1,
                             .shape = {c->width},
                             .part = PART_LATENT,
                             .master = true,
                             .init = init_constant(0)};
    struct normalization n = {.scope = NORMALIZE_COLUMNS,
                              .groups = c->width,
                              .columns = c->width,
                              .center = true,
                              .level = du ? 1 : c->gamma,
                              .epsilon = 1e-5};
    value gain = du ? deviations(r, c) : NO_VALUE;
    return latent_normalized(r, head, gain, recorder_declare(r, &bias), &n, sums);
}

static value stats(struct recorder *r, value head, value sample, value *sums)
{
    const struct latent_config *c = &r->config->latent;
    if (c->normalize == LATENT_PLAIN) return head;
    graph_scope(r->g, "latent.normalize");
    value x = normalized(r, head, sums);
    if (c->normalize != LATENT_DU) return x;
    return op_posterior(r->g, x, POSTERIOR_FLOOR, c->alpha / (2 * M_PI * M_E), r->training ? c->variance_dropout : 0,
                        sample, r->switches, r->switch_beta);
}

const struct posterior_kind posterior_normal = {
    .name = "normal", .head_width = head_width, .initialize = initialize, .stats = stats};
