/* elbo info: shows what a corpus or a run holds. --graph lists the ops of a run's training step with their FLOPs and
 * bytes. */
#include "cli/run.h"

#include "base/files.h"
#include "base/json.h"
#include "elbo/corpus.h"
#include "graph/account.h"
#include "model/latent.h"
#include "model/stack.h"
#include "train/step_options.h"

#include <stdlib.h>
#include <string.h>

/* Shares of the sentences for which the shortest sufficient length, in tokens without marks, is shown. */
enum { PERCENTILES = 4 };
static const double percentiles[PERCENTILES] = {0.5, 0.9, 0.99, 1};

static elbo_status lengths_json(json_t **out, const struct elbo_corpus *corpus, elbo_error *error)
{
    size_t lengths[PERCENTILES];
    ELBO_TRY(elbo_corpus_percentiles(corpus, ELBO_STREAM_DECODER, lengths, percentiles, PERCENTILES, error));
    *out = json_array();
    int failed = 0;
    for (size_t i = 0; i < PERCENTILES; i++) {
        size_t over, cut;
        elbo_corpus_longer_than(corpus, ELBO_STREAM_DECODER, lengths[i], &over, &cut);
        failed |= json_array_append_new(*out, json_pack("{s:f, s:I, s:I, s:I}", "percent", 100 * percentiles[i],
                                                        "length", (json_int_t)lengths[i], "longer", (json_int_t)over,
                                                        "tokens_cut", (json_int_t)cut));
    }
    if (!failed) return ELBO_OK;
    json_decref(*out);
    return elbo_fail(error, ELBO_MEMORY, "no memory for the lengths of the sentences");
}

static elbo_status lengths_text(const struct elbo_corpus *corpus, elbo_error *error)
{
    size_t lengths[PERCENTILES];
    ELBO_TRY(elbo_corpus_percentiles(corpus, ELBO_STREAM_DECODER, lengths, percentiles, PERCENTILES, error));
    double tokens = (double)elbo_corpus_tokens(corpus, ELBO_STREAM_DECODER);
    printf("lengths      within   tokens   longer sentences   tokens that data.max_length cuts there\n");
    for (size_t i = 0; i < PERCENTILES; i++) {
        size_t over, cut;
        elbo_corpus_longer_than(corpus, ELBO_STREAM_DECODER, lengths[i], &over, &cut);
        printf("%17.0f %% %8zu %18zu %13zu (%.1f %%)\n", 100 * percentiles[i], lengths[i], over, cut,
               tokens > 0 ? 100 * (double)cut / tokens : 0.0);
    }
    return ELBO_OK;
}

/* Returns the number of sentences of each class, or null for a corpus without labels. */
static json_t *classes_json(const struct elbo_corpus *corpus)
{
    size_t count = elbo_corpus_classes(corpus);
    size_t *sentences = calloc(count + 1, sizeof *sentences);
    json_t *all = count && sentences ? json_object() : json_null();
    int failed = !sentences;
    for (size_t i = 0; i < elbo_corpus_sentences(corpus) && count && sentences; i++)
        sentences[elbo_corpus_label(corpus, i)]++;
    for (size_t k = 0; k < count && sentences; k++)
        failed |= json_object_set_new(all, elbo_corpus_class(corpus, k), json_integer((json_int_t)sentences[k]));
    free(sentences);
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static elbo_status corpus_json(json_t **out, const struct elbo_corpus *corpus, elbo_error *error)
{
    enum elbo_stream stream = ELBO_STREAM_DECODER;
    const char *kind = elbo_tokenizer_kind_name(elbo_tokenizer_kind(elbo_corpus_tokenizer(corpus, stream)));
    json_t *lengths;
    ELBO_TRY(lengths_json(&lengths, corpus, error));
    *out = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:i, s:s, s:s, s:s, s:o}", "kind", "corpus", "sentences",
        (json_int_t)elbo_corpus_sentences(corpus), "tokens", (json_int_t)elbo_corpus_tokens(corpus, stream), "words",
        (json_int_t)elbo_corpus_words(corpus), "bytes", (json_int_t)elbo_corpus_bytes(corpus), "longest",
        (json_int_t)elbo_corpus_longest(corpus, stream), "unknown", (json_int_t)elbo_corpus_unknown(corpus, stream),
        "tokenizer", kind, "vocabulary", (json_int_t)elbo_corpus_vocabulary(corpus, stream), "streams",
        elbo_corpus_shares_stream(corpus) ? 1 : 2, "hash", elbo_corpus_hash(corpus), "tokenizer_hash",
        elbo_corpus_tokenizer_hash(corpus), "set", elbo_corpus_set(corpus), "lengths", lengths);
    if (*out && elbo_corpus_classes(corpus) && json_object_set_new(*out, "labels", classes_json(corpus))) {
        json_decref(*out);
        *out = NULL;
    }
    return *out ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for what is known of the corpus");
}

static elbo_status corpus_text(const struct elbo_corpus *corpus, elbo_error *error)
{
    enum elbo_stream stream = ELBO_STREAM_DECODER;
    double sentences = (double)elbo_corpus_sentences(corpus), tokens = (double)elbo_corpus_tokens(corpus, stream);
    printf("corpus       %s\n", elbo_corpus_folder(corpus));
    printf("sentences    %zu\n", elbo_corpus_sentences(corpus));
    printf("tokens       %zu (%.1f a sentence, longest %zu, marks not counted)\n", elbo_corpus_tokens(corpus, stream),
           tokens / sentences, elbo_corpus_longest(corpus, stream));
    printf("words        %zu\n", elbo_corpus_words(corpus));
    printf("bytes        %zu\n", elbo_corpus_bytes(corpus));
    printf("unknown      %zu (%.2f %% of the tokens)\n", elbo_corpus_unknown(corpus, stream),
           tokens > 0 ? 100 * (double)elbo_corpus_unknown(corpus, stream) / tokens : 0.0);
    printf("tokenizer    %s, vocabulary %zu\n",
           elbo_tokenizer_kind_name(elbo_tokenizer_kind(elbo_corpus_tokenizer(corpus, stream))),
           elbo_corpus_vocabulary(corpus, stream));
    printf("hash         %s (tokenizer %s)\n", elbo_corpus_hash(corpus), elbo_corpus_tokenizer_hash(corpus));
    json_t *classes = elbo_corpus_classes(corpus) ? classes_json(corpus) : NULL, *n;
    const char *name;
    json_object_foreach(classes, name, n)
        printf("label        %s: %lld sentences\n", name, (long long)json_integer_value(n));
    json_decref(classes);
    if (*elbo_corpus_set(corpus)) printf("part of      the split %s\n", elbo_corpus_set(corpus));
    return lengths_text(corpus, error);
}

/* Prints a corpus as one object, and a split as an object with a list of its parts. */
static elbo_status parts_json(struct elbo_corpus *const *parts, size_t count, elbo_error *error)
{
    json_t *list = json_array(), *one;
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < count && status == ELBO_OK; i++) {
        status = corpus_json(&one, parts[i], error);
        if (status == ELBO_OK && (json_object_set_new(one, "folder", json_string(elbo_corpus_folder(parts[i]))) |
                                  json_array_append_new(list, one)))
            status = elbo_fail(error, ELBO_MEMORY, "no memory for what is known of the corpus");
    }
    json_t *all = count == 1
                      ? json_incref(json_array_get(list, 0))
                      : json_pack("{s:s, s:s, s:O}", "kind", "split", "set", elbo_corpus_set(parts[0]), "parts", list);
    json_decref(list);
    if (status == ELBO_OK)
        return json_print(stdout, all, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "what is known of the corpus", error);
    json_decref(all);
    return status;
}

static elbo_status info_corpus(struct cli *cli, elbo_error *error)
{
    struct elbo_corpus *parts[ELBO_PREPARE_PARTS];
    size_t count;
    ELBO_TRY(elbo_corpus_open_parts(parts, &count, cli->arguments[0], error));
    elbo_status status = cli->config.json ? parts_json(parts, count, error) : ELBO_OK;
    for (size_t i = 0; i < count && !cli->config.json && status == ELBO_OK; i++) {
        if (i) putchar('\n');
        status = corpus_text(parts[i], error);
    }
    while (count) elbo_corpus_close(parts[--count]);
    return status;
}

/* ---- a run ---- */

/* Returns the last row of the run's metrics.jsonl that has `key`; JSON null when there is none; NULL when memory runs
 * out. */
static json_t *last_row(const char *folder, const char *key)
{
    char path[FILES_PATH], *text = NULL;
    size_t size = 0;
    elbo_error unused;
    json_t *found = NULL;
    bool starved = false;
    if (file_join(path, folder, "metrics.jsonl", &unused) || !file_is_regular(path)) return json_null();
    elbo_status status = file_read(&text, &size, path, (size_t)1 << 34, &unused);
    if (status) return status == ELBO_MEMORY ? NULL : json_null();
    for (size_t end = size; end && !found && !starved;) {
        size_t begin = end - 1;
        while (begin && text[begin - 1] != '\n') begin--;
        json_t *row = json_read(text + begin, end - begin, 0, NULL, &starved);
        if (json_object_get(row, key)) found = json_incref(row);
        json_decref(row);
        end = begin;
    }
    free(text);
    return found || starved ? found : json_null();
}

static json_t *stack_json(const struct stack_config *c)
{
    struct stack_figure figures[STACK_MOST_FIGURES];
    size_t count = stack_kind_of(c)->describe(figures, c);
    json_t *all = json_pack("{s:s, s:I}", "kind", stack_kind_of(c)->name, "width", (json_int_t)c->width);
    int failed = 0;
    for (size_t i = 0; i < count; i++)
        failed |= json_object_set_new(all, figures[i].name, json_integer((json_int_t)figures[i].value));
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static json_t *latent_json(const struct latent_config *c)
{
    char injection[96];
    stack_injection_text(injection, sizeof injection, c->injection);
    json_t *all = json_pack("{s:I, s:s, s:s}", "width", (json_int_t)c->width, "injection", injection, "prior",
                            prior_kind_of(c)->name);
    size_t components = c->prior == PRIOR_MIXTURE ? c->components : c->prior == PRIOR_VAMP ? c->pseudo_inputs : 0;
    if (components && json_object_set_new(all, "components", json_integer((json_int_t)components))) {
        json_decref(all);
        all = NULL;
    }
    return all;
}

/* Describes the run as one object. The text output is made from it too. */
static json_t *describe_run(const struct run *run, const char *folder)
{
    const struct model_config *m = &run->model.config;
    bool latent = m->latent.kind != LATENT_NONE;
    json_t *all = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s}", "kind", "run", "checkpoint",
                            checkpoint_path(run->checkpoint), "step", (json_int_t)checkpoint_step(run->checkpoint),
                            "parameters", (json_int_t)parameters_total(run->model.parameters), "vocabulary",
                            (json_int_t)m->vocabulary, "max_length", (json_int_t)run->config->data.max_length,
                            "tokenizer", elbo_tokenizer_kind_name(elbo_tokenizer_kind(run->tokenizer)), "program",
                            checkpoint_program(run->checkpoint));
    int failed = json_object_set_new(all, "steps", json_integer((json_int_t)run->config->train.steps));
    failed |= json_object_set(all, "counters", checkpoint_counters(run->checkpoint));
    failed |= json_object_set_new(all, "config_hash", json_string(checkpoint_config_hash(run->checkpoint)));
    failed |= json_object_set_new(all, "encoder", latent ? stack_json(&m->encoder) : json_null());
    failed |= json_object_set_new(all, "decoder", stack_json(&m->decoder));
    failed |= json_object_set_new(all, "latent", latent ? latent_json(&m->latent) : json_null());
    if (run->labels.count)
        failed |= json_object_set(all, "labels", json_object_get(checkpoint_counters(run->checkpoint), "labels"));
    if (run->fitted.density.count)
        failed |= json_object_set_new(all, "fitted_prior",
                                      json_pack("{s:I, s:s, s:I}", "components", (json_int_t)run->fitted.density.count,
                                                "covariance", run->fitted.density.full ? "full" : "diagonal",
                                                "sentences", (json_int_t)run->fitted.sentences));
    failed |= json_object_set_new(all, "last", last_row(folder, "loss"));
    failed |= json_object_set_new(all, "last_valid", last_row(folder, "valid"));
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static void stack_text(const char *name, const json_t *stack)
{
    if (!json_is_object(stack)) return;
    printf("%-12s", name);
    const char *key;
    json_t *v;
    const char *separator = " ";
    json_object_foreach((json_t *)stack, key, v)
    {
        if (json_is_string(v))
            printf("%s%s %s", separator, key, json_string_value(v));
        else
            printf("%s%s %lld", separator, key, (long long)json_integer_value(v));
        separator = ", ";
    }
    putchar('\n');
}

static double number(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

static void run_text(const json_t *all)
{
    const json_t *counters = json_object_get(all, "counters"), *row = json_object_get(all, "last");
    const json_t *valid = json_object_get(json_object_get(all, "last_valid"), "valid");
    printf("run          %s\n", json_string_value(json_object_get(all, "checkpoint")));
    printf("step         %.0f of %.0f (%.0f updates, %.0f skipped)\n", number(all, "step"), number(all, "steps"),
           number(counters, "updates"), number(counters, "skipped"));
    printf("parameters   %.0f\n", number(all, "parameters"));
    stack_text("encoder", json_object_get(all, "encoder"));
    stack_text("decoder", json_object_get(all, "decoder"));
    stack_text("latent", json_object_get(all, "latent"));
    stack_text("fitted prior", json_object_get(all, "fitted_prior"));
    printf("tokenizer    %s, vocabulary %.0f, sentences of up to %.0f tokens\n",
           json_string_value(json_object_get(all, "tokenizer")), number(all, "vocabulary"), number(all, "max_length"));
    const char *corpus = json_string_value(json_object_get(counters, "corpus"));
    printf("corpus       %s\n", corpus ? corpus : "unknown");
    if (json_is_object(row))
        printf("last row     step %.0f: loss %.3f, reconstruction %.3f, kl %.3f, beta %.3f\n", number(row, "step"),
               number(row, "loss"), number(row, "reconstruction"), number(row, "kl"), number(row, "beta"));
    if (json_is_object(valid))
        printf("last valid   step %.0f: neg_elbo %.3f, kl %.3f, %.0f active units, own z gain %.2f\n",
               number(json_object_get(all, "last_valid"), "step"), number(valid, "neg_elbo"), number(valid, "kl"),
               number(valid, "active_units"), number(valid, "own_z_gain"));
}

static void graph_line(void *context, const char *text)
{
    (void)context;
    puts(text);
}

/* Prints the training step's ops with the row counts at the slot's capacities. */
static elbo_status print_graph(const struct run *run, elbo_error *error)
{
    struct step_options options = step_options_of(run->config, &run->model.config, 1, 0);
    struct step step;
    ELBO_TRY(step_record(&step, &options, error));
    const size_t *capacities = graph_capacity(step.recording.g)->count;
    account_print(step.recording.g, capacities, graph_line, NULL);
    struct account all = account_graph(step.recording.g, capacities);
    printf("a slot of %zu tokens and %zu sentences: %.3f GFLOP, %.3f MB\n", capacities[DIM_DEC_TOKENS],
           capacities[DIM_SENTENCES], all.flops / 1e9, all.bytes / 1e6);
    step_free(&step);
    return ELBO_OK;
}

static bool is_run(const char *path)
{
    char inside[FILES_PATH];
    elbo_error unused;
    if (!file_join(inside, path, "model.safetensors", &unused) && file_is_regular(inside)) return true;
    return !file_join(inside, path, CHECKPOINT_FOLDER, &unused) && file_is_folder(inside);
}

static elbo_status info_run(struct cli *cli, elbo_error *error)
{
    struct run run;
    ELBO_TRY(cli_open_run(&run, cli, error));
    elbo_status status = ELBO_OK;
    json_t *all = cli->config.graph ? NULL : describe_run(&run, cli->arguments[0]);
    if (cli->config.graph)
        status = print_graph(&run, error);
    else if (!all)
        status = elbo_fail(error, ELBO_MEMORY, "no memory for the result");
    else if (!cli->config.json)
        run_text(all);
    else
        status = json_print(stdout, json_incref(all), JSON_INDENT(2) | JSON_REAL_PRECISION(9),
                            "what is known of the run", error);
    json_decref(all);
    run_close(&run);
    return status;
}

elbo_status cli_info(struct cli *cli, elbo_error *error)
{
    if (is_run(cli->arguments[0])) return info_run(cli, error);
    if (cli->config.graph)
        return elbo_fail(error, ELBO_USAGE, "--graph shows the ops of a run; %s is none", cli->arguments[0]);
    return info_corpus(cli, error);
}
