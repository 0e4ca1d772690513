/* elbo fit-prior: fits a density to a trained model's latents and keeps the density in the checkpoint. */
#include "base/json.h"
#include "cli/run.h"

#include "elbo/corpus.h"
#include "model/fit.h"
#include "train/step_options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Mean over the rows of -log N(z; 0, 1) in nats, for comparison. */
static double standard_nats(const struct latents *l)
{
    double sum = 0;
    for (size_t i = 0; i < l->count * l->width; i++) sum += 0.5 * ((double)l->z[i] * l->z[i] + log(2 * M_PI));
    return sum / (double)l->count;
}

static elbo_status tell(const struct fitted_prior *p, const struct fit_report *report, const struct latents *l,
                        const struct run *run, bool json, elbo_error *error)
{
    const struct gaussians *g = &p->density;
    if (json)
        return json_print(stdout,
                          json_pack("{s:s, s:I, s:s, s:I, s:I, s:f, s:f}", "checkpoint",
                                    checkpoint_path(run->checkpoint), "components", (json_int_t)g->count, "covariance",
                                    g->full ? "full" : "diagonal", "sentences", (json_int_t)p->sentences, "iterations",
                                    (json_int_t)report->iterations, "cross_entropy", -report->log_density,
                                    "standard_cross_entropy", standard_nats(l)),
                          JSON_INDENT(2) | JSON_REAL_PRECISION(9), "the fit", error);
    printf(
        "%zu Gaussian%s of %s covariance, fitted to %zu sentences in %zu step%s: -E log p %.3f nats (N(0, 1): %.3f)\n",
        g->count, g->count > 1 ? "s" : "", g->full ? "full" : "diagonal", p->sentences, report->iterations,
        report->iterations > 1 ? "s" : "", -report->log_density, standard_nats(l));
    printf("kept in %s\n", checkpoint_path(run->checkpoint));
    return ELBO_OK;
}

/* Warns when, in some dimension, the means vary over the sentences far less than a posterior is wide. A density of such
 * means says little about where the posteriors' draws lie. */
static void warn_of_narrow(struct cli *cli, const struct latents *l)
{
    size_t narrow = 0;
    for (size_t j = 0; j < l->width; j++) {
        double mean = 0, square = 0, within = 0;
        for (size_t i = 0; i < l->count; i++) mean += (double)l->z[i * l->width + j] / (double)l->count;
        for (size_t i = 0; i < l->count; i++) {
            double d = l->z[i * l->width + j] - mean;
            square += d * d;
            within += exp((double)l->stats[(2 * i + 1) * l->width + j]);
        }
        narrow += square < 0.1 * within;
    }
    if (narrow)
        log_warning(&cli->log,
                    "in %zu of %zu dimensions the means vary far less than a posterior is wide, and eval will find "
                    "its draws unlikely; --prior.of=sample fits the posteriors themselves",
                    narrow, l->width);
}

static elbo_status fit(struct cli *cli, struct run *run, const struct elbo_corpus *corpus, elbo_error *error)
{
    const struct elbo_config *c = &cli->config;
    const struct fit_config *f = &c->fit;
    struct slot_options slots = slot_options_of(c);
    struct fit_options o = {.components = f->kind == FIT_GAUSSIAN ? 1 : f->components,
                            .full = f->covariance == FIT_FULL,
                            .iterations = f->iterations,
                            .seed = c->seed};
    struct latents l;
    struct fit_report report;
    int32_t *labels;
    ELBO_TRY(label_numbers(&labels, &run->labels, corpus, error));
    slots.labels = labels;
    elbo_status status = latents_of_corpus(&l, &run->model, corpus, &slots, f->sentences, error);
    free(labels);
    ELBO_TRY(status);
    if (f->of == FIT_SAMPLE)
        latents_draw(&l, c->seed);
    else
        warn_of_narrow(cli, &l);
    struct fitted_prior p = {.sentences = l.count};
    snprintf(p.corpus, sizeof p.corpus, "%s", elbo_corpus_hash(corpus));
    status = gaussians_fit(&p.density, &report, l.z, l.count, l.width, &o, run->backend, error);
    if (!status) status = fitted_prior_save(&p, run->checkpoint, error);
    if (!status) status = tell(&p, &report, &l, run, c->json, error);
    fitted_prior_close(&p);
    latents_free(&l);
    return status;
}

elbo_status cli_fit_prior(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct elbo_corpus *corpus = NULL;
    const struct elbo_config *c = &cli->config;
    static const char *const of_mixtures[] = {"components", "iterations"};
    for (size_t i = 0; i < 2 && c->fit.kind == FIT_GAUSSIAN; i++) {
        char key[32];
        snprintf(key, sizeof key, "prior.%s", of_mixtures[i]);
        if (options_given(cli->options, key))
            return elbo_fail(
                error, ELBO_USAGE,
                "--%s belongs to --prior.kind=mixture; --prior.kind=gaussian has one Gaussian, in one step", key);
    }
    ELBO_TRY(cli_open_run(&run, cli, error));
    elbo_status status = cli_needs_latent(&run, error);
    if (!status && !*c->data.train)
        status =
            elbo_fail(error, ELBO_USAGE, "--data.train is missing: the corpus whose latents the prior is fitted to");
    if (!status) status = elbo_corpus_open(&corpus, c->data.train, error);
    if (!status) status = cli_same_tokenizer(&run, corpus, c->data.train, cli, error);
    if (!status) status = fit(cli, &run, corpus, error);
    if (corpus) elbo_corpus_close(corpus);
    run_close(&run);
    return status;
}
