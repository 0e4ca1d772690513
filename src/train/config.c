/* Assembles the table of options from the sections, each of which is declared beside the struct that it fills. */
#include "train/config.h"

#include "model/latent.h"
#include "model/stack.h"
#include "step/objective.h"
#include "train/aliases.h"

#include <pthread.h>
#include <stdint.h>

#define SECTION(prefix, rows, field)                                                                                   \
    {                                                                                                                  \
        prefix, rows, sizeof rows / sizeof *rows, offsetof(struct elbo_config, field)                                  \
    }
#define WHOLE(prefix, rows)                                                                                            \
    {                                                                                                                  \
        prefix, rows, sizeof rows / sizeof *rows, 0                                                                    \
    }

static const struct option_section sections[] = {
    WHOLE("", common_rows),
    SECTION("init", init_rows, init),
    WHOLE("run", run_rows),
    SECTION("data", data_rows, data),
    SECTION("encoder", stack_rows, model.encoder),
    SECTION("encoder", encoder_rows, model),
    SECTION("decoder", stack_rows, model.decoder),
    SECTION("decoder", decoder_rows, model),
    SECTION("latent", latent_rows, model.latent),
    SECTION("objective", objective_rows, objective),
    SECTION("objective", rate_rows, model.latent),
    SECTION("objective", mark_rows, model),
    SECTION("optimizer", optimizer_rows, optimizer),
    SECTION("train", train_rows, train),
    SECTION("checkpoint", checkpoint_rows, checkpoint),
    SECTION("log", log_rows, log),
    SECTION("parallel", parallel_rows, parallel),
    WHOLE("", product_rows),
    SECTION("", prepare_rows, prepare),
    SECTION("tokenizer", tokenizer_rows, prepare),
    SECTION("eval", eval_rows, eval),
    SECTION("", eval_switch_rows, eval),
    SECTION("prior", fit_rows, fit),
    SECTION("", generate_rows, generate),
    WHOLE("", switch_rows),
    SECTION("", launch_rows, launch),
};

#define COMMAND(bit, name, word, ...) {word, COMMAND_##bit},
static const struct option_command commands[] = {ELBO_COMMANDS(COMMAND)};

static struct option_table table;

static void concatenate(void)
{
    static struct option rows[256];
    static char keys[256 * 32];
    size_t count = options_concatenate(rows, sizeof rows / sizeof *rows, keys, sizeof keys, sections,
                                       sizeof sections / sizeof *sections);
    table = (struct option_table){rows,           count,
                                  commands,       sizeof commands / sizeof *commands,
                                  config_aliases, sizeof config_aliases / sizeof *config_aliases};
}

const struct option_table *elbo_config_table(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, concatenate);
    return &table;
}

elbo_status elbo_config_read_saved(struct options *options, const char *yaml, size_t size, const char *name,
                                   elbo_error *error)
{
    ELBO_TRY(options_set(options, "objective.dropped_mark", "unknown", name, error));
    return options_read_yaml_text(options, yaml, size, name, error);
}

/* ---- rules between options ---- */

elbo_status elbo_config_check(const struct elbo_config *config, elbo_error *error)
{
    const struct model_config *model = &config->model;
    bool latent = model->latent.kind != LATENT_NONE;
    ELBO_TRY(stack_check("decoder", &model->decoder, error));
    size_t written = stack_embedding_width(&model->decoder), read = stack_embedding_width(&model->encoder);
    if (model->tie_output && written != model->decoder.width)
        return elbo_fail(error, ELBO_USAGE,
                         "decoder.tie_output needs token vectors of the decoder's width, but decoder.%s = %zu and "
                         "decoder.width = %zu; make them equal or set decoder.tie_output=false",
                         stack_embedding_option(&model->decoder), written, model->decoder.width);
    if (latent) {
        ELBO_TRY(stack_check("encoder", &model->encoder, error));
        ELBO_TRY(stack_check_injection(&model->decoder, model->latent.injection, error));
        if (model->share_embedding && read != written)
            return elbo_fail(error, ELBO_USAGE,
                             "encoder.share_embedding needs equal widths, but encoder.%s = %zu and decoder.%s = "
                             "%zu; make them equal or set encoder.share_embedding=false",
                             stack_embedding_option(&model->encoder), read, stack_embedding_option(&model->decoder),
                             written);
    }
    if (latent) ELBO_TRY(latent_check(&model->latent, config->data.max_length + 2, error));
    ELBO_TRY(objective_check(&config->objective, model, error));
    size_t prefix = stack_prefix(model), beside = prefix > 1 ? prefix + 1 : 2; /* the encoder has two marks */
    if (config->train.slot_tokens < config->data.max_length + beside)
        return elbo_fail(error, ELBO_USAGE,
                         "train.slot_tokens = %zu cannot hold a sentence of data.max_length = %zu tokens%s; set "
                         "train.slot_tokens to at least %zu, or data.max_length to at most %zu",
                         config->train.slot_tokens, config->data.max_length,
                         prefix ? ", its mark and its prefix" : " and its two marks", config->data.max_length + beside,
                         config->train.slot_tokens > beside ? config->train.slot_tokens - beside : 0);
    if (config->parallel.lanes > config->train.slots)
        return elbo_fail(
            error, ELBO_USAGE,
            "parallel.lanes = %zu exceeds train.slots = %zu, and a lane needs a slot; lower the one or raise "
            "the other",
            config->parallel.lanes, config->train.slots);
    if (config->objective.autoencoder_steps && config->objective.autoencoder_steps >= config->train.steps)
        return elbo_fail(
            error, ELBO_USAGE,
            "objective.autoencoder_steps = %zu leaves none of train.steps = %zu with a KL; lower the one or "
            "raise the other",
            config->objective.autoencoder_steps, config->train.steps);
    if (config->train.skip > config->train.steps)
        return elbo_fail(error, ELBO_USAGE, "train.skip = %zu is beyond train.steps = %zu; steps count from 1",
                         config->train.skip, config->train.steps);
    return ELBO_OK;
}
