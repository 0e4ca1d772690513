/* elbo eval: measures a model on a corpus. */
#include "base/json.h"
#include "cli/evaluations.h"
#include "cli/run.h"

#include "elbo/corpus.h"
#include "model/evaluate.h"
#include "model/latent.h"
#include "text/ngram.h"
#include "text/slots.h"
#include "train/effects.h"
#include "train/step_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Returns x as JSON. JSON has no infinity and no NaN: such a figure, or one that is left out, becomes null, and `why`
 * gets the reason under its name. */
static json_t *figure(json_t *why, const char *name, double x, const char *left_out)
{
    if (!left_out && isfinite(x)) return json_real(x);
    json_object_set_new(why, name,
                        json_string(left_out   ? left_out
                                    : isnan(x) ? "not a number"
                                               : "infinite: more than a number can hold"));
    return json_null();
}

static const char *const no_words = "the text has no blanks between words";
static const char *const no_samples = "no samples were drawn";

/* ---- by label ---- */

/* Figures of the sentences of one label, summed over the sentences. */
struct by_label {
    const char *name;
    size_t sentences, tokens, right;
    double reconstruction, kl, iwae;
};

/* *out: (elbo_corpus_classes) for a labeled corpus, null for one without labels. free() it. */
static elbo_status sum_by_label(struct by_label **out, const struct evaluation *e, const struct elbo_corpus *corpus,
                                elbo_error *error)
{
    size_t count = elbo_corpus_classes(corpus);
    *out = count ? calloc(count, sizeof **out) : NULL;
    if (!count) return ELBO_OK;
    if (!*out) return elbo_fail(error, ELBO_MEMORY, "no memory for the figures of %zu labels", count);
    for (size_t k = 0; k < count; k++) (*out)[k].name = elbo_corpus_class(corpus, k);
    for (size_t i = 0; i < e->sentences; i++) {
        const struct evaluation_row *r = &e->rows[i];
        struct by_label *to = &(*out)[elbo_corpus_label(corpus, r->sentence)];
        to->sentences++;
        to->tokens += r->tokens;
        to->right += r->right;
        to->reconstruction += r->reconstruction;
        to->kl += r->kl;
        to->iwae += r->iwae;
    }
    return ELBO_OK;
}

static double accuracy(const struct by_label *l)
{
    return (double)l->right / (double)l->tokens;
}

static json_t *labels_json(const struct by_label *l, size_t count, bool iwae)
{
    json_t *all = json_object();
    int failed = 0;
    for (size_t k = 0; k < count; k++) {
        if (!l[k].sentences) continue;
        double n = (double)l[k].sentences;
        json_t *one =
            json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "sentences", (json_int_t)l[k].sentences, "tokens",
                      (json_int_t)l[k].tokens, "neg_elbo", (l[k].reconstruction + l[k].kl) / n, "reconstruction",
                      l[k].reconstruction / n, "reconstruction_per_token", l[k].reconstruction / (double)l[k].tokens,
                      "token_accuracy", accuracy(&l[k]), "kl", l[k].kl / n);
        if (iwae) failed |= json_object_set_new(one, "iwae_nll", json_real(l[k].iwae / n));
        failed |= json_object_set_new(all, l[k].name, one);
    }
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static void labels_text(FILE *out, const struct by_label *l, size_t count)
{
    if (l) fputs("by label              sentences   neg_elbo  reconstruction  a token    right       kl\n", out);
    for (size_t k = 0; k < count && l; k++) {
        double n = (double)l[k].sentences;
        if (l[k].sentences)
            fprintf(out, "  %-20.60s %8zu %10.3f %15.3f %8.3f %8.4f %8.3f\n", l[k].name, l[k].sentences,
                    (l[k].reconstruction + l[k].kl) / n, l[k].reconstruction / n,
                    l[k].reconstruction / (double)l[k].tokens, accuracy(&l[k]), l[k].kl / n);
    }
}

static json_t *to_json(const struct evaluation *e, const struct ngram_baseline *b, const struct elbo_config *c,
                       const struct by_label *by_label, size_t labels)
{
    json_t *dims = json_array(), *why = json_object(), *all = json_object();
    int failed = 0;
    bool mean = c->eval.posterior == POSTERIOR_MEAN, latent = e->latent_width > 0;
    const struct {
        const char *name;
        double value;
        const char *left_out;
    } figures[] = {{"neg_elbo", e->neg_elbo, NULL},
                   {"neg_elbo_standard_error", e->neg_elbo_error, NULL},
                   {"reconstruction", e->reconstruction, NULL},
                   {"kl", e->kl, NULL},
                   {"mutual_information", e->mutual_information, NULL},
                   {"mutual_information_bound", e->mutual_information_bound, NULL},
                   {"own_z_gain", e->own_z_gain, NULL},
                   {"ppl_token", e->ppl_token, NULL},
                   {"ppl_word", e->ppl_word, e->wordless ? no_words : NULL},
                   {"bits_per_byte", e->bits_per_byte, NULL},
                   {"known_bits_per_byte", e->known_bits_per_byte, NULL},
                   {"unknown_share", e->unknown_share, NULL},
                   {"token_accuracy", e->token_accuracy, NULL},
                   {"iwae_nll", e->iwae_nll, e->iwae_samples ? NULL : no_samples},
                   {"iwae_standard_error", e->iwae_error, e->iwae_samples ? NULL : no_samples}};
    const struct {
        const char *name;
        size_t value;
    } counts[] = {{"active_units", e->active_units},
                  {"active_units_0.1", e->active_units_tenth},
                  {"mutual_information_sentences", e->mutual_information_sentences},
                  {"iwae_samples", e->iwae_samples},
                  {"sentences", e->sentences},
                  {"tokens", e->tokens},
                  {"words", e->words},
                  {"bytes", e->bytes},
                  {"shortened", e->shortened}};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        failed |= json_object_set_new(all, figures[i].name,
                                      figure(why, figures[i].name, figures[i].value, figures[i].left_out));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        failed |= json_object_set_new(all, counts[i].name, json_integer((json_int_t)counts[i].value));
    for (size_t j = 0; j < e->latent_width && e->kl_dim; j++)
        failed |= json_array_append_new(dims, isfinite(e->kl_dim[j]) ? json_real(e->kl_dim[j]) : json_null());
    if (latent && !e->kl_dim) failed |= json_object_set_new(all, "kl_mc", figure(why, "kl_mc", e->kl, NULL));
    failed |= json_object_set(all, "kl_per_dim", e->kl_dim ? dims : json_null());
    json_decref(dims);
    failed |= json_object_set_new(all, "posterior", json_string(mean ? "mean" : "sample"));
    failed |= json_object_set_new(all, "bound", json_boolean(!mean || !latent));
    const struct {
        const char *name;
        double value;
        const char *left_out;
    } fitted[] = {{"fitted_cross_entropy", e->fitted_cross_entropy, NULL},
                  {"prior_cross_entropy", e->prior_cross_entropy, NULL},
                  {"fitted_kl_mc", e->fitted_kl, NULL},
                  {"fitted_neg_elbo", e->fitted_neg_elbo, NULL},
                  {"fitted_iwae_nll", e->fitted_iwae_nll, e->iwae_samples ? NULL : no_samples},
                  {"fitted_iwae_standard_error", e->fitted_iwae_error, e->iwae_samples ? NULL : no_samples}};
    for (size_t i = 0; i < sizeof fitted / sizeof *fitted && e->fitted; i++)
        failed |=
            json_object_set_new(all, fitted[i].name, figure(why, fitted[i].name, fitted[i].value, fitted[i].left_out));
    if (latent_running(&c->model.latent)) failed |= json_object_set_new(all, "statistics", json_string("running"));
    if (*c->eval.baseline) {
        failed |= json_object_set_new(all, "unigram_nll", figure(why, "unigram_nll", b->unigram, NULL));
        failed |= json_object_set_new(all, "bigram_nll", figure(why, "bigram_nll", b->bigram, NULL));
    }
    if (by_label) failed |= json_object_set_new(all, "by_label", labels_json(by_label, labels, e->iwae_samples));
    if (json_object_size(why)) failed |= json_object_set(all, "null_because", why);
    json_decref(why);
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static void baseline_text(FILE *out, const char *from, double nats, double neg_elbo)
{
    double share = 100 * (1 - neg_elbo / nats);
    fprintf(out, "  from %-14s %12.3f nats a sentence (neg_elbo is %.1f %% %s)\n", from, nats, fabs(share),
            share < 0 ? "above" : "below");
}

static void to_text(FILE *out, const struct evaluation *e, const struct ngram_baseline *b, bool mean)
{
    bool drawn = e->latent_width && !e->kl_dim;
    fprintf(out, "neg_elbo             %10.3f nats a sentence (standard error %.3f)%s\n", e->neg_elbo,
            e->neg_elbo_error, mean && e->latent_width ? "; at the posterior's mean: not a bound" : "");
    fprintf(out, "  reconstruction     %10.3f\n  %-16s   %10.3f%s\n", e->reconstruction, drawn ? "kl_mc" : "kl", e->kl,
            drawn ? ": log q(z|x) - log p(z) at a draw" : "");
    if (e->iwae_samples)
        fprintf(out, "iwae_nll             %10.3f with %zu samples (standard error %.3f)\n", e->iwae_nll,
                e->iwae_samples, e->iwae_error);
    if (e->fitted) {
        fprintf(out, "under the fitted prior%9.3f nats of -log p(z); under the model's own %.3f\n",
                e->fitted_cross_entropy, e->prior_cross_entropy);
        fprintf(out, "  neg_elbo           %10.3f, kl_mc %.3f", e->fitted_neg_elbo, e->fitted_kl);
        if (e->iwae_samples)
            fprintf(out, ", iwae_nll %.3f (standard error %.3f)", e->fitted_iwae_nll, e->fitted_iwae_error);
        fputc('\n', out);
    }
    if (e->latent_width)
        fprintf(out, "active units         %6zu of %zu above 0.01, %zu above 0.1\n", e->active_units, e->latent_width,
                e->active_units_tenth);
    if (e->mutual_information_sentences)
        fprintf(out, "mutual information   %10.3f over %zu sentences (bound %.2f)\n", e->mutual_information,
                e->mutual_information_sentences, e->mutual_information_bound);
    if (e->latent_width)
        fprintf(out, "own z gain           %10.3f nats: what a sentence's own z is worth against another's\n",
                e->own_z_gain);
    fprintf(out, "perplexity           %10.2f per token", e->ppl_token);
    if (e->wordless)
        fprintf(out, " (none per word: %s)\n", no_words);
    else if (isfinite(e->ppl_word))
        fprintf(out, ", %.2f per word (end marks counted)\n", e->ppl_word);
    else
        fputs(", per word more than a number can hold\n", out);
    fprintf(out, "bits per byte        %10.3f\n", e->bits_per_byte);
    if (e->unknown_share > 0)
        fprintf(out,
                "  of known words     %10.3f: the line above pays one mark for all bytes of an unknown word; this one "
                "leaves both out\n",
                e->known_bits_per_byte);
    fprintf(out, "token accuracy       %10.4f: the share of the tokens below that the model finds likeliest\n",
            e->token_accuracy);
    fprintf(out, "unknown share        %10.4f of %zu predicted tokens, %zu sentences, %zu words\n", e->unknown_share,
            e->tokens, e->sentences, e->words);
    if (!(b->unigram > 0)) return;
    fputs("baselines, on the same tokens\n", out);
    baseline_text(out, "word counts", b->unigram, e->neg_elbo);
    baseline_text(out, "word pairs", b->bigram, e->neg_elbo);
}

/* Writes a line of JSON for each sentence: its number in the corpus (from 0), its tokens with the end mark, how many of
 * them are the model's likeliest token, its nats, and its label where the corpus has labels. */
static elbo_status sentence_rows(const struct evaluation *e, const struct elbo_corpus *labelled, elbo_error *error)
{
    for (size_t i = 0; i < e->sentences; i++) {
        const struct evaluation_row *r = &e->rows[i];
        double figures[] = {r->reconstruction + r->kl, r->reconstruction, r->kl, r->iwae};
        static const char *const names[] = {"neg_elbo", "reconstruction", "kl", "iwae_nll"};
        json_t *row = json_pack("{s:I, s:I, s:I}", "sentence", (json_int_t)r->sentence, "tokens", (json_int_t)r->tokens,
                                "right", (json_int_t)r->right);
        if (row && e->latent_width && !e->kl_dim &&
            json_object_set_new(row, "kl_mc", isfinite(r->kl) ? json_real(r->kl) : json_null())) {
            json_decref(row);
            row = NULL;
        }
        for (size_t k = 0; k < (e->iwae_samples ? 4 : 3) && row; k++)
            if (json_object_set_new(row, names[k], isfinite(figures[k]) ? json_real(figures[k]) : json_null())) {
                json_decref(row);
                row = NULL;
            }
        if (labelled &&
            json_object_set_new(row, "label",
                                json_string(elbo_corpus_class(labelled, elbo_corpus_label(labelled, r->sentence))))) {
            json_decref(row);
            row = NULL;
        }
        ELBO_TRY(json_print(stdout, row, JSON_COMPACT | JSON_REAL_PRECISION(9), "a sentence's figures", error));
    }
    return ELBO_OK;
}

/* Measures the n-gram baselines on the sentences and tokens that the model is measured on. */
static elbo_status baselines(struct ngram_baseline *b, const struct elbo_config *c, const struct elbo_corpus *test,
                             elbo_error *error)
{
    if (!*c->eval.baseline) return ELBO_OK;
    struct ngram_scope scope = {c->eval.sentences, c->data.max_length, c->data.too_long == SLOT_SKIP};
    struct elbo_corpus *train;
    ELBO_TRY(elbo_corpus_open(&train, c->eval.baseline, error));
    elbo_status status = ngram_baseline(b, train, test, &scope, error);
    elbo_corpus_close(train);
    return status;
}

/* Checks the options of the command line. The notes on the run's configuration are dropped, because the user of this
 * command did not choose it. */
static elbo_status check_effects(struct cli *cli, elbo_error *error)
{
    char *said;
    elbo_status status = effects_check(&said, cli->options, &cli->config, error);
    free(said);
    return status;
}

/* Keeps the figures in the run, where exports look for them. A failure here is only a warning, because the figures
 * themselves were computed. */
static void keep(struct cli *cli, const struct run *run, const struct elbo_corpus *corpus, json_t *figures)
{
    elbo_error why;
    if (evaluations_add(run->checkpoint, corpus, cli->config.data.test, figures, &why))
        log_warning(&cli->log, "the figures are not kept in the run, so exports will not show them: %s", why.message);
}

/* Prints the figures and takes over the reference to `figures`, which is null when memory ran out. */
static elbo_status tell(struct cli *cli, const struct evaluation *e, const struct ngram_baseline *b, json_t *figures,
                        const struct by_label *by_label, size_t labels, elbo_error *error)
{
    const struct elbo_config *c = &cli->config;
    if (c->json && !c->eval.per_sentence)
        return json_print(stdout, figures, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "the measurements", error);
    FILE *out = c->eval.per_sentence ? stderr : stdout;
    to_text(out, e, b, c->eval.posterior == POSTERIOR_MEAN);
    labels_text(out, by_label, labels);
    json_decref(figures);
    return ELBO_OK;
}

static elbo_status measure(struct cli *cli, struct run *run, const struct elbo_corpus *corpus, elbo_error *error)
{
    const struct elbo_config *c = &cli->config;
    ELBO_TRY(cli_same_tokenizer(run, corpus, c->data.test, cli, error));
    struct evaluate_options o = {.slots = slot_options_of(c),
                                 .sentences = c->eval.sentences,
                                 .iwae_samples = c->eval.iwae_samples,
                                 .mi_sentences = c->eval.mi_sentences,
                                 .own_z = true,
                                 .posterior_mean = c->eval.posterior == POSTERIOR_MEAN,
                                 .rows = c->eval.per_sentence || elbo_corpus_classes(corpus),
                                 .fitted = run->fitted.density.count ? &run->fitted.density : NULL,
                                 .seed = c->seed};
    struct evaluation e;
    struct ngram_baseline b = {0};
    ELBO_TRY(check_effects(cli, error));
    ELBO_TRY(baselines(&b, c, corpus, error));
    int32_t *numbers;
    struct by_label *by_label = NULL;
    ELBO_TRY(label_numbers(&numbers, &run->labels, corpus, error));
    o.slots.labels = numbers;
    elbo_status status = evaluate(&e, &run->model, corpus, &o, error);
    free(numbers);
    ELBO_TRY(status);
    if (latent_running(&c->model.latent))
        log_line(&cli->log, "mu and KL go by the running statistics of training, not by those of the sentences here");
    if (e.shortened && c->data.too_long == SLOT_SKIP)
        log_warning(&cli->log, "%zu sentences of more than %zu tokens were left out", e.shortened, c->data.max_length);
    else if (e.shortened)
        log_warning(&cli->log, "%zu sentences were cut to %zu tokens: the figures are of what was left", e.shortened,
                    c->data.max_length);
    status = sum_by_label(&by_label, &e, corpus, error);
    if (!status && c->eval.per_sentence) status = sentence_rows(&e, by_label ? corpus : NULL, error);
    if (!status) {
        json_t *figures = to_json(&e, &b, c, by_label, elbo_corpus_classes(corpus));
        if (figures) keep(cli, run, corpus, figures);
        status = tell(cli, &e, &b, figures, by_label, elbo_corpus_classes(corpus), error);
    }
    free(by_label);
    evaluation_free(&e);
    return status;
}

elbo_status cli_eval(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct elbo_corpus *corpus = NULL;
    if (cli->config.json && cli->config.eval.per_sentence)
        return elbo_fail(error, ELBO_USAGE, "--per-sentence writes lines of JSON already; leave --json out");
    ELBO_TRY(cli_open_run(&run, cli, error));
    elbo_status status = *cli->config.data.test
                             ? elbo_corpus_open(&corpus, cli->config.data.test, error)
                             : elbo_fail(error, ELBO_USAGE, "--data.test is missing: a corpus to evaluate on");
    if (!status) status = measure(cli, &run, corpus, error);
    if (corpus) elbo_corpus_close(corpus);
    run_close(&run);
    return status;
}
