/* Implements the public calls of elbo/run.h. */
#include "elbo/run.h"
#include "model/generate.h"
#include "train/step_options.h"
#include "train/run.h"
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct elbo_run {
    struct elbo_config config;
    struct options *options;
    struct run run;
    size_t threads;
    int32_t label;
    bool labelled; /* elbo_run_set_label was called */
};

static elbo_status set_threads(void *context, elbo_error *error)
{
    elbo_run *run = context;
    char text[32];
    snprintf(text, sizeof text, "%zu", run->threads);
    return options_set(run->options, "threads", text, "elbo_run_open", error);
}

elbo_status elbo_run_open(elbo_run **out, const char *path, size_t threads, elbo_error *error)
{
    elbo_run *run = calloc(1, sizeof *run);
    if (!run) return elbo_fail(error, ELBO_MEMORY, "no memory to open %s", path);
    run->threads = threads;
    elbo_status status = options_open(&run->options, elbo_config_table(), &run->config, error);
    if (!status) status = run_open(&run->run, path, run->options, &run->config, set_threads, NULL, run, error);
    if (status) {
        elbo_run_close(run);
        return status;
    }
    *out = run;
    return ELBO_OK;
}

void elbo_run_close(elbo_run *run)
{
    if (!run) return;
    run_close(&run->run);
    options_free(run->options);
    free(run);
}

size_t elbo_run_latent_width(const elbo_run *run)
{
    return run->run.model.config.latent.kind == LATENT_NONE ? 0 : run->run.model.config.latent.width;
}

uint64_t elbo_run_step(const elbo_run *run)
{
    return checkpoint_step(run->run.checkpoint);
}

struct elbo_tokenizer *elbo_run_tokenizer(const elbo_run *run)
{
    return run->run.tokenizer;
}

elbo_status elbo_run_set_label(elbo_run *run, const char *label, elbo_error *error)
{
    if (!run->run.labels.count) return elbo_fail(error, ELBO_USAGE, "this model was trained without labels");
    ELBO_TRY(label_number(&run->label, &run->run.labels, label, error));
    run->labelled = true;
    return ELBO_OK;
}

static elbo_status needs_label(const elbo_run *run, elbo_error *error)
{
    if (!run->run.labels.count || run->labelled) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE, "this model wants a label: call elbo_run_set_label first");
}

elbo_status elbo_run_encode(elbo_run *run, float *mu, float *logvar, const char *const *texts, const size_t *sizes,
                            size_t count, elbo_error *error)
{
    size_t z = elbo_run_latent_width(run);
    if (!z) return elbo_fail(error, ELBO_USAGE, "this model has no latent to encode to");
    ELBO_TRY(needs_label(run, error));
    struct elbo_ids *ids = calloc(count + 1, sizeof *ids);
    float *stats = malloc((count * 2 * z + 1) * sizeof *stats);
    elbo_status status =
        ids && stats ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to encode %zu sentences", count);
    struct elbo_text text = {0};
    for (size_t i = 0; i < count && !status; i++) {
        size_t replaced, first;
        status = elbo_text_repair(&text, &replaced, &first, texts[i], sizes ? sizes[i] : strlen(texts[i]), error);
        if (!status)
            status = elbo_tokenizer_encode(run->run.tokenizer, &ids[i], text.text ? text.text : "", text.size, error);
    }
    elbo_text_free(&text);
    struct slot_options slots = slot_options_of(&run->config);
    slots.too_long = SLOT_TRUNCATE;
    slots.label = run->label;
    if (!status && count) status = encode_sentences(&run->run.model, stats, ids, count, &slots, &run->run.marks, error);
    for (size_t i = 0; i < count && !status; i++) {
        memcpy(mu + i * z, stats + i * 2 * z, z * sizeof *mu);
        memcpy(logvar + i * z, stats + (i * 2 + 1) * z, z * sizeof *logvar);
    }
    for (size_t i = 0; i < count && ids; i++) elbo_ids_free(&ids[i]);
    free(ids);
    free(stats);
    return status;
}

elbo_status elbo_run_decode(elbo_run *run, struct elbo_text *texts, const float *z, size_t count,
                            const struct elbo_decode_options *o, elbo_error *error)
{
    struct generate_options options = {.max_length = o->max_length ? o->max_length : run->config.data.max_length,
                                       .temperature = o->temperature,
                                       .top_p = o->top_p > 0 ? o->top_p : 1,
                                       .top_k = o->top_k,
                                       .greedy = o->temperature <= 0,
                                       .allow_unknown = o->allow_unknown,
                                       .never = run->run.line_ends.ids,
                                       .never_count = run->run.line_ends.count,
                                       .seed = o->seed,
                                       .label = run->label};
    ELBO_TRY(needs_label(run, error));
    struct elbo_ids *ids = calloc(count + 1, sizeof *ids);
    if (!ids) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", count);
    elbo_status status =
        generate(&run->run.model, ids, elbo_run_latent_width(run) ? z : NULL, count, &options, &run->run.marks, error);
    for (size_t i = 0; i < count && !status; i++)
        status = elbo_tokenizer_decode(run->run.tokenizer, &texts[i], ids[i].ids, ids[i].count, error);
    for (size_t i = 0; i < count; i++) elbo_ids_free(&ids[i]);
    free(ids);
    return status;
}

elbo_status elbo_train(const char *config, const char *const *overrides, size_t override_count,
                       void (*line)(void *context, const char *text), void *context, elbo_error *error)
{
    struct elbo_config target;
    struct options *options;
    struct train_report report = {line, line, context};
    struct trainer *trainer = NULL;
    ELBO_TRY(options_open(&options, elbo_config_table(), &target, error));
    elbo_status status = config ? options_read_yaml(options, config, error) : ELBO_OK;
    for (size_t i = 0; i < override_count && !status; i++)
        status = options_read_argument(options, overrides[i], COMMAND_TRAIN, error);
    if (!status) status = trainer_open(&trainer, &target, options, &report, error);
    if (!status) status = trainer_run(trainer, error);
    trainer_close(trainer);
    options_free(options);
    return status;
}
