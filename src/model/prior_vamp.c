/* latent.prior=vamp: the mixture, with equal weights, of the posteriors of K learned pseudo-inputs (Tomczak and Welling
 * 2018, "VAE with a VampPrior"). A pseudo-input is some rows that the encoder reads in place of embedded words. The
 * encoder applies no dropout to these rows, so the prior is the same density in training and evaluation. */
#include "model/latent.h"
#include "model/stack.h"

#include <math.h>
#include <stdlib.h>

#define TENSOR "latent.prior.inputs" /* (K rows, D) */

/* Returns (K, 2Z) posteriors of the pseudo-inputs. */
static value posteriors(struct recorder *r)
{
    const struct latent_config *c = &r->config->latent;
    struct recorder plain = *r;
    plain.training = false;
    graph_scope(r->g, "latent.prior");
    struct sequence s = sequence_uniform(&plain, c->pseudo_inputs, c->pseudo_length);
    s.vectors = recorder_declare(r, &(struct parameter){.name = TENSOR,
                                                        .rank = 2,
                                                        .shape = {c->pseudo_inputs * c->pseudo_length,
                                                                  stack_embedding_width(&r->config->encoder)},
                                                        .part = PART_LATENT,
                                                        .init = init_normal(0.02)});
    return latent_record_stats(&plain, encoder_record(&plain, &s));
}

static value log_density(struct recorder *r, value z, double sign)
{
    value stats = posteriors(r);
    graph_scope(r->g, "latent");
    return op_mixture_log_density(r->g, z, stats, NO_VALUE, sign);
}

static elbo_status run(float *stats, struct recording *r, struct model *m, elbo_error *error)
{
    struct recorder recorder;
    struct graph_capacities none = {{0}};
    struct execution execution = {.seed = 0};
    ELBO_TRY(recorder_begin(&recorder, &r->g, "pseudo", &m->config, m->parameters, &none, error));
    r->stats = posteriors(&recorder);
    graph_keep(r->g, r->stats);
    ELBO_TRY(graph_check(r->g, error));
    ELBO_TRY(model_bind(m, &r, 1, NULL, error));
    ELBO_TRY(executor_run(&r->executor, &execution, error));
    recording_read(r, r->stats, stats, execution.count);
    return m->backend->stream.check ? m->backend->stream.check(m->backend, error) : ELBO_OK;
}

static elbo_status open(struct latent *l, struct model *m, elbo_error *error)
{
    size_t count = m->config.latent.pseudo_inputs, width = l->width;
    struct recording r = {0};
    float *stats = malloc(count * 2 * width * sizeof *stats);
    elbo_status status = stats ? gaussians_allocate(&l->own, count, width, false, error)
                               : elbo_fail(error, ELBO_MEMORY, "no memory for %zu pseudo-inputs", count);
    if (!status) status = run(stats, &r, m, error);
    for (size_t k = 0; k < count && !status; k++) {
        const float *mu = stats + k * 2 * width;
        l->own.log_weight[k] = -log((double)count);
        for (size_t j = 0; j < width; j++) {
            l->own.mean[k * width + j] = mu[j];
            l->own.factor[k * width + j] = exp(0.5 * (double)mu[width + j]);
        }
    }
    recording_free(&r, m->backend);
    free(stats);
    return status;
}

const struct prior_kind prior_vamp = {.name = "vamp", .log_density = log_density, .open = open};
