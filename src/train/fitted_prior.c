/* Reads and writes the fitted prior of a checkpoint: see fitted_prior.h. */
#include "train/fitted_prior.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEM "prior"

enum { LOG_WEIGHT, MEAN, FACTOR, TENSORS };

static void describe(struct safetensors_tensor t[TENSORS], const struct gaussians *g)
{
    size_t k = g->count, z = g->width;
    t[LOG_WEIGHT] = (struct safetensors_tensor){
        .name = "log_weight", .dtype = SAFETENSORS_F64, .rank = 1, .shape = {k}, .data = g->log_weight};
    t[MEAN] = (struct safetensors_tensor){
        .name = "mean", .dtype = SAFETENSORS_F64, .rank = 2, .shape = {k, z}, .data = g->mean};
    t[FACTOR] = (struct safetensors_tensor){
        .name = "factor", .dtype = SAFETENSORS_F64, .rank = g->full ? 3 : 2, .shape = {k, z, z}, .data = g->factor};
}

static elbo_status refuse(const struct checkpoint *c, const char *name, const char *why, elbo_error *error)
{
    return elbo_fail(error, ELBO_INPUT, "%s/%s: %s; fit it again with `elbo fit-prior`", checkpoint_path(c), name, why);
}

static elbo_status read_density(struct fitted_prior *p, const struct checkpoint *c, const struct safetensors *file,
                                const char *name, size_t width, elbo_error *error)
{
    const struct safetensors_tensor *factor = safetensors_find(file, "factor");
    if (!factor || factor->rank < 2 || factor->rank > 3 || !factor->shape[0] || factor->shape[1] != width)
        return refuse(c, name, "it is no density for this model's z", error);
    struct safetensors_tensor t[TENSORS];
    struct gaussians *g = &p->density;
    const struct safetensors_tensor *found;
    double weights = 0;
    /* Match all shapes before allocating, because a shape like (K, Z, 0) would promise any K. */
    describe(t, &(struct gaussians){.count = factor->shape[0], .width = width, .full = factor->rank == 3});
    for (size_t i = 0; i < TENSORS; i++) ELBO_TRY(safetensors_match(&found, file, &t[i], error));
    ELBO_TRY(gaussians_allocate(g, factor->shape[0], width, factor->rank == 3, error));
    describe(t, g);
    for (size_t i = 0; i < TENSORS; i++) ELBO_TRY(safetensors_copy(file, (void *)t[i].data, &t[i], error));
    for (size_t k = 0; k < g->count; k++) weights += exp(g->log_weight[k]);
    bool finite = gaussians_finish(g);
    for (size_t i = 0; i < g->count * width; i++) finite = finite && isfinite(g->mean[i]);
    for (size_t i = 0; i < safetensors_bytes(&t[FACTOR]) / sizeof(double); i++)
        finite = finite && isfinite(g->factor[i]) && isfinite(g->inverse[i]);
    if (finite && fabs(weights - 1) < 1e-6) return ELBO_OK;
    return refuse(c, name, "its numbers are no density", error);
}

elbo_status fitted_prior_load(struct fitted_prior *p, const struct checkpoint *c, size_t width, elbo_error *error)
{
    const char *name = checkpoint_named(c, STEM "-");
    struct safetensors *file;
    *p = (struct fitted_prior){0};
    if (!name) return ELBO_OK;
    ELBO_TRY(checkpoint_tensors(&file, c, name, error));
    elbo_status status = read_density(p, c, file, name, width, error);
    const char *sentences = safetensors_note(file, "sentences"), *corpus = safetensors_note(file, "corpus");
    if (sentences) p->sentences = strtoull(sentences, NULL, 10);
    if (corpus) snprintf(p->corpus, sizeof p->corpus, "%s", corpus);
    safetensors_free(file);
    return status;
}

elbo_status fitted_prior_save(const struct fitted_prior *p, const struct checkpoint *c, elbo_error *error)
{
    struct safetensors_tensor tensors[TENSORS];
    char sentences[32];
    const struct safetensors_note notes[] = {{"sentences", sentences}, {"corpus", p->corpus}};
    describe(tensors, &p->density);
    snprintf(sentences, sizeof sentences, "%zu", p->sentences);
    return checkpoint_attach(
        c, STEM, "safetensors",
        &(struct checkpoint_file){.tensors = tensors, .tensor_count = TENSORS, .notes = notes, .note_count = 2}, error);
}

void fitted_prior_close(struct fitted_prior *p)
{
    gaussians_free(&p->density);
    *p = (struct fitted_prior){0};
}
