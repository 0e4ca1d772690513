#include "cli/run.h"
#include "base/philox.h"
#include "model/posterior.h"
#include "train/memory.h"

#include <stdlib.h>
#include <string.h>

static elbo_status reapply(void *context, elbo_error *error)
{
    struct cli *cli = context;
    for (size_t i = 0; i < cli->override_count; i++)
        ELBO_TRY(options_read_argument(cli->options, cli->overrides[i], cli->mask, error));
    return ELBO_OK;
}

static void warn(void *context, const char *message)
{
    struct cli *cli = context;
    log_warning(&cli->log, "%s", message);
}

elbo_status cli_open_run(struct run *run, struct cli *cli, elbo_error *error)
{
    return run_open(run, cli->arguments[0], cli->options, &cli->config, reapply, warn, cli, error);
}

elbo_status cli_needs_latent(const struct run *run, elbo_error *error)
{
    if (run->model.config.latent.kind != LATENT_NONE) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE, "%s is a language model without a latent (latent.kind none); this command needs one",
                     checkpoint_path(run->checkpoint));
}

elbo_status cli_add_sentence(struct cli_sentences *s, struct run *run, const char *text, size_t size, elbo_error *error)
{
    if (s->count == s->capacity) {
        size_t room = s->capacity ? 2 * s->capacity : 64;
        struct elbo_ids *ids = realloc(s->ids, room * sizeof *ids);
        if (ids) s->ids = ids;
        char **texts = realloc(s->text, room * sizeof *texts);
        if (texts) s->text = texts;
        if (!ids || !texts) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", room);
        s->capacity = room;
    }
    struct elbo_ids *to = &s->ids[s->count];
    *to = (struct elbo_ids){0};
    s->text[s->count] = strndup(text, size);
    if (!s->text[s->count]) return elbo_fail(error, ELBO_MEMORY, "no memory for a sentence");
    s->count++;
    ELBO_TRY(elbo_tokenizer_encode(run->tokenizer, to, text, size, error));
    s->shortened += to->count > run->config->data.max_length;
    return ELBO_OK;
}

elbo_status cli_read_sentences(struct cli_sentences *s, struct run *run, struct cli *cli, elbo_error *error)
{
    struct elbo_text line = {0};
    size_t replaced = 0;
    bool more;
    elbo_status status;
    while (!(status = cli_read_line(&more, &line, &replaced, error)) && more)
        if ((status = cli_add_sentence(s, run, line.text ? line.text : "", line.size, error))) break;
    elbo_text_free(&line);
    if (!status && replaced) log_warning(&cli->log, "%zu ill-formed parts of UTF-8 became U+FFFD", replaced);
    if (!status && s->shortened)
        log_warning(&cli->log, "%zu sentences are longer than the model's %zu tokens and were cut", s->shortened,
                    run->config->data.max_length);
    return status;
}

void cli_free_sentences(struct cli_sentences *s)
{
    for (size_t i = 0; i < s->count; i++) {
        elbo_ids_free(&s->ids[i]);
        free(s->text[i]);
    }
    free(s->ids);
    free(s->text);
}

elbo_status cli_encode(float **z, float **stats_out, const struct cli_sentences *s, struct run *run, struct cli *cli,
                       elbo_error *error)
{
    ELBO_TRY(cli_needs_latent(run, error));
    size_t width = run->model.config.latent.width;
    float *stats = malloc((s->count * 2 * width + 1) * sizeof *stats), *rows = malloc((s->count * width + 1) * sizeof *rows);
    elbo_status status = stats && rows ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", s->count);
    struct slot_options slots = slot_options_of(&cli->config);
    slots.too_long = SLOT_TRUNCATE;
    if (!status && s->count) status = encode_sentences(&run->model, stats, s->ids, s->count, &slots, &run->marks, error);
    struct posterior_noise noise = {cli->config.seed, noise_purpose("encode.posterior"), 0, 0};
    for (size_t i = 0; i < s->count && !status; i++)
        posterior_sample(rows + i * width, stats + i * 2 * width, width, cli->config.generate.posterior_mean ? NULL : &noise, i);
    if (status || !stats_out) {
        free(stats);
        stats = NULL;
    }
    if (status) {
        free(rows);
        return status;
    }
    *z = rows;
    if (stats_out) *stats_out = stats;
    return ELBO_OK;
}

elbo_status cli_generate(struct elbo_ids **out, const float *z, size_t rows, bool greedy, struct run *run, struct cli *cli,
                         elbo_error *error)
{
    const struct generate_config *g = &cli->config.generate;
    struct generate_options o = {.max_length = g->max_length ? g->max_length : cli->config.data.max_length,
                                 .temperature = g->temperature, .top_p = g->top_p, .top_k = g->top_k,
                                 .greedy = greedy || g->greedy, .allow_unknown = g->allow_unknown, .seed = cli->config.seed,
                                 .beam = g->beam, .length_penalty = g->length_penalty};
    static const char *const drawing[] = {"temperature", "top_p", "top_k", "greedy"};
    for (size_t i = 0; i < sizeof drawing / sizeof *drawing && g->beam; i++)
        if (options_given(cli->options, drawing[i]))
            return elbo_fail(error, ELBO_USAGE, "--beam=%zu searches and draws nothing: leave --%s away, or --beam", g->beam, drawing[i]);
    if (!g->beam && options_given(cli->options, "length_penalty"))
        return elbo_fail(error, ELBO_USAGE, "--length_penalty belongs to a search: give --beam too, say --beam=5");
    *out = calloc(rows + 1, sizeof **out);
    if (!*out) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", rows);
    elbo_status status = generate(&run->model, *out, z, rows, &o, &run->marks, error);
    if (status) cli_free_ids(*out, rows);
    return status;
}

void cli_free_ids(struct elbo_ids *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) elbo_ids_free(&ids[i]);
    free(ids);
}

elbo_status cli_text(struct elbo_text *text, const struct run *run, const struct elbo_ids *ids, elbo_error *error)
{
    return elbo_tokenizer_decode(run->tokenizer, text, ids->ids, ids->count, error);
}
