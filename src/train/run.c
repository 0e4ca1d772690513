/* Opens a trained model for use: see run.h. */
#include "train/run.h"
#include "base/files.h"
#include "device/backends.h"
#include "model/generate.h"
#include "text/tokenizer.h"
#include "checkpoint/training_state.h"

#include <string.h>

static elbo_status counter(const struct run *r, const char *name, size_t *to, elbo_error *error)
{
    const json_t *v = json_object_get(checkpoint_counters(r->checkpoint), name);
    if (!json_is_integer(v) || json_integer_value(v) < 1)
        return elbo_fail(error, ELBO_INPUT, "%s: the counter %s is missing or not positive",
                         checkpoint_path(r->checkpoint), name);
    *to = (size_t)json_integer_value(v);
    return ELBO_OK;
}

static elbo_status find_line_ends(struct run *r, elbo_error *error)
{
    struct elbo_text text = {0};
    elbo_status status = ELBO_OK;
    for (uint32_t id = 0; id < elbo_tokenizer_vocabulary(r->tokenizer) && !status; id++) {
        status = elbo_tokenizer_decode(r->tokenizer, &text, &id, 1, error);
        if (!status && text.size && (memchr(text.text, '\n', text.size) || memchr(text.text, '\r', text.size)))
            status = generate_append(&r->line_ends, id, error);
    }
    elbo_text_free(&text);
    return status;
}

static elbo_status open_all(struct run *r, struct options *options, elbo_status (*reapply)(void *, elbo_error *),
                            void *context, elbo_error *error)
{
    const void *yaml;
    size_t size;
    char name[FILES_PATH];
    ELBO_TRY(file_join(name, checkpoint_path(r->checkpoint), "config.yaml", error));
    ELBO_TRY(checkpoint_bytes(&yaml, &size, r->checkpoint, "config.yaml", error));
    ELBO_TRY(elbo_config_read_saved(options, yaml, size, name, error));
    ELBO_TRY(reapply(context, error));
    ELBO_TRY(file_join(name, checkpoint_path(r->checkpoint), "tokenizer.json", error));
    const void *tokenizer;
    ELBO_TRY(checkpoint_bytes(&tokenizer, &size, r->checkpoint, "tokenizer.json", error));
    ELBO_TRY(tokenizer_parse(&r->tokenizer, tokenizer, size, name, error));
    r->marks = *elbo_tokenizer_marks(r->tokenizer);
    ELBO_TRY(find_line_ends(r, error));
    struct model_config model = r->config->model;
    model.precision = PRECISION_F32; /* measurements and outputs are computed from the f32 weights */
    ELBO_TRY(counter(r, "vocabulary", &model.vocabulary, error));
    ELBO_TRY(counter(r, "positions", &model.positions, error));
    ELBO_TRY(label_names_of_counters(&r->labels, checkpoint_counters(r->checkpoint), error));
    model.labels = r->labels.count;
    if (model.vocabulary != elbo_tokenizer_vocabulary(r->tokenizer))
        return elbo_fail(error, ELBO_INPUT, "%s: its tokenizer has %zu ids, its weights %zu",
                         checkpoint_path(r->checkpoint), elbo_tokenizer_vocabulary(r->tokenizer), model.vocabulary);
    ELBO_TRY(elbo_config_check(r->config, error));
    ELBO_TRY(backend_open(&r->backend, r->config->device, r->config->threads, error));
    ELBO_TRY(model_create(&r->model, &model, r->backend, error));
    ELBO_TRY(weights_load(r->model.weights, r->model.parameters, r->backend, r->checkpoint, error));
    if (*r->config->weights) ELBO_TRY(rounded_open(&r->rounded, &r->model, r->config->weights, error));
    if (model.latent.kind != LATENT_NONE)
        ELBO_TRY(fitted_prior_load(&r->fitted, r->checkpoint, model.latent.width, error));
    return model_refresh(&r->model, error);
}

elbo_status run_open(struct run *r, const char *path, struct options *options, const struct elbo_config *config,
                     elbo_status (*reapply)(void *, elbo_error *), checkpoint_warning warn, void *context,
                     elbo_error *error)
{
    *r = (struct run){.config = config};
    ELBO_TRY(checkpoint_open(&r->checkpoint, path, warn, context, error));
    elbo_status status = open_all(r, options, reapply, context, error);
    if (status) run_close(r);
    return status;
}

void run_close(struct run *r)
{
    if (r->model.backend) model_free(&r->model);
    if (r->backend) r->backend->destroy(r->backend);
    rounded_close(&r->rounded);
    if (r->tokenizer) elbo_tokenizer_close(r->tokenizer);
    fitted_prior_close(&r->fitted);
    label_names_free(&r->labels);
    if (r->checkpoint) checkpoint_close(r->checkpoint);
    elbo_ids_free(&r->line_ends);
    *r = (struct run){0};
}
