/* Shared by the commands that use a trained model: opens the run, reads sentences, encodes them to latents and reads
 * the options of generation. See run.h. */
#include "cli/run.h"
#include "base/philox.h"
#include "elbo/corpus.h"
#include "model/latent.h"
#include "train/step_options.h"

#include <stdlib.h>
#include <string.h>

static elbo_status reapply(void *context, elbo_error *error)
{
    struct cli *cli = context;
    for (size_t i = 0; i < cli->override_count; i++)
        ELBO_TRY(options_read_argument(cli->options, cli->overrides[i], cli->mask, error));
    if (cli->mask == COMMAND_EXPORT) cli->config.device = "cpu"; /* export only moves weights and computes nothing */
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
    return elbo_fail(error, ELBO_USAGE,
                     "%s is a language model without a latent (latent.kind none); this command needs one",
                     checkpoint_path(run->checkpoint));
}

elbo_status cli_same_tokenizer(const struct run *run, const struct elbo_corpus *corpus, const char *name,
                               const struct cli *cli, elbo_error *error)
{
    if (elbo_corpus_vocabulary(corpus, ELBO_STREAM_DECODER) != run->model.config.vocabulary)
        return elbo_fail(error, ELBO_INPUT, "%s has %zu ids, the model %zu; prepare it with --tokenizer.from=%s", name,
                         elbo_corpus_vocabulary(corpus, ELBO_STREAM_DECODER), run->model.config.vocabulary,
                         cli->arguments[0]);
    const char *hash = json_string_value(json_object_get(checkpoint_counters(run->checkpoint), "tokenizer"));
    if (!hash || !strcmp(hash, elbo_corpus_tokenizer_hash(corpus))) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT, "%s has another tokenizer than the model; prepare it with --tokenizer.from=%s",
                     name, cli->arguments[0]);
}

elbo_status cli_add_sentence(struct cli_sentences *s, struct run *run, const char *text, size_t size, elbo_error *error)
{
    if (s->count == s->capacity) {
        size_t room = s->capacity ? 2 * s->capacity : 64;
        struct elbo_ids *ids = realloc(s->ids, room * sizeof *ids);
        if (ids) s->ids = ids;
        struct elbo_text *texts = realloc(s->text, room * sizeof *texts);
        if (texts) s->text = texts;
        if (!ids || !texts) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", room);
        memset(ids + s->capacity, 0, (room - s->capacity) * sizeof *ids);
        memset(texts + s->capacity, 0, (room - s->capacity) * sizeof *texts);
        s->capacity = room;
    }
    struct elbo_ids *to = &s->ids[s->count];
    size_t replaced, first;
    ELBO_TRY(elbo_text_repair(&s->text[s->count], &replaced, &first, text, size, error)); /* a copy with its length */
    ELBO_TRY(elbo_tokenizer_encode(run->tokenizer, to, text, size, error));
    s->count++;
    s->shortened += to->count > run->config->data.max_length;
    return ELBO_OK;
}

elbo_status cli_read_batch(struct cli_sentences *s, struct cli_input *in, size_t most, struct run *run,
                           elbo_error *error)
{
    struct cli_line line;
    s->first += s->count;
    s->count = 0;
    while (s->count < most) {
        ELBO_TRY(cli_input_line(in, !s->count, &line, error));
        if (!line.text) break;
        ELBO_TRY(cli_add_sentence(s, run, line.text, line.size, error));
    }
    return ELBO_OK;
}

void cli_report_sentences(const struct cli_sentences *s, const struct cli_input *in, struct run *run, struct cli *cli)
{
    if (in && in->replaced) log_warning(&cli->log, "%zu ill-formed parts of UTF-8 became U+FFFD", in->replaced);
    if (s->shortened)
        log_warning(&cli->log, "%zu %s longer than the model's %zu tokens and %s cut", s->shortened,
                    s->shortened == 1 ? "sentence is" : "sentences are", run->config->data.max_length,
                    s->shortened == 1 ? "was" : "were");
}

void cli_free_sentences(struct cli_sentences *s)
{
    for (size_t i = 0; i < s->capacity; i++) {
        elbo_ids_free(&s->ids[i]);
        elbo_text_free(&s->text[i]);
    }
    free(s->ids);
    free(s->text);
}

elbo_status cli_label(int32_t *label, const struct run *run, const struct cli *cli, elbo_error *error)
{
    const char *name = cli->config.generate.label;
    *label = 0;
    if (!run->labels.count && *name)
        return elbo_fail(error, ELBO_USAGE, "--label=%s: this model was trained without data.labels; leave it out",
                         name);
    if (!run->labels.count) return ELBO_OK;
    if (*name) return label_number(label, &run->labels, name, error);
    return label_missing(&run->labels, error);
}

elbo_status cli_encode_sentences(float **z, float **stats_out, const struct cli_sentences *s, struct run *run,
                                 struct cli *cli, elbo_error *error)
{
    ELBO_TRY(cli_needs_latent(run, error));
    size_t width = run->model.config.latent.width;
    float *stats = malloc((s->count * 2 * width + 1) * sizeof *stats),
          *rows = malloc((s->count * width + 1) * sizeof *rows);
    elbo_status status = stats && rows ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", s->count);
    struct slot_options slots = slot_options_of(&cli->config);
    slots.too_long = SLOT_TRUNCATE;
    if (!status) status = cli_label(&slots.label, run, cli, error);
    if (!status && s->count)
        status = encode_sentences(&run->model, stats, s->ids, s->count, &slots, &run->marks, error);
    struct latent latent = latent_standard(width); /* the draw depends on the posterior alone */
    struct latent_noise noise = {cli->config.seed, noise_purpose("encode.posterior"), 0, 0};
    for (size_t i = 0; i < s->count && !status; i++)
        latent_draw(&latent, rows + i * width, stats + i * 2 * width,
                    cli->config.generate.posterior_mean ? NULL : &noise, s->first + i);
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

elbo_status cli_generate_options(struct generate_options *o, bool greedy, const struct run *run, struct cli *cli,
                                 elbo_error *error)
{
    const struct generate_config *g = &cli->config.generate;
    *o = (struct generate_options){.max_length = g->max_length ? g->max_length : cli->config.data.max_length,
                                   .temperature = g->temperature,
                                   .top_p = g->top_p,
                                   .top_k = g->top_k,
                                   .greedy = greedy || g->greedy,
                                   .allow_unknown = g->allow_unknown,
                                   .never = run->line_ends.ids,
                                   .never_count = run->line_ends.count,
                                   .seed = cli->config.seed,
                                   .beam = g->beam,
                                   .length_penalty = g->length_penalty};
    static const char *const drawing[] = {"temperature", "top_p", "top_k", "greedy"};
    for (size_t i = 0; i < sizeof drawing / sizeof *drawing && g->beam; i++)
        if (options_given(cli->options, drawing[i]))
            return elbo_fail(error, ELBO_USAGE, "--beam=%zu searches and draws nothing: leave out --%s or --beam",
                             g->beam, drawing[i]);
    for (size_t i = 0; i < 3 && g->greedy; i++)
        if (options_given(cli->options, drawing[i]))
            return elbo_fail(error, ELBO_USAGE,
                             "--greedy takes the likeliest token and --%s draws one: leave one of them out",
                             drawing[i]);
    if (!g->beam && options_given(cli->options, "length_penalty"))
        return elbo_fail(error, ELBO_USAGE, "--length_penalty belongs to a search: give --beam too, say --beam=5");
    ELBO_TRY(cli_label(&o->label, run, cli, error));
    size_t most = run->model.config.positions - 1;
    if (g->max_length > most)
        return elbo_fail(error, ELBO_USAGE,
                         "--max_length=%zu is beyond the %zu tokens that the model has positions for; give at most %zu",
                         g->max_length, most, most);
    return ELBO_OK;
}

elbo_status cli_text(struct elbo_text *text, const struct run *run, const struct elbo_ids *ids, elbo_error *error)
{
    return elbo_tokenizer_decode(run->tokenizer, text, ids->ids, ids->count, error);
}
