/* elbo eval: measures a model on a corpus. */
#include "cli/run.h"
#include "base/json.h"

#include "elbo/corpus.h"
#include "model/evaluate.h"
#include "text/ngram.h"
#include "train/memory.h"

#include <math.h>
#include <string.h>

static json_t *to_json(const struct evaluation *e, const struct ngram_baseline *b, const struct elbo_config *c)
{
    json_t *dims = json_array();
    int failed = 0;
    for (size_t j = 0; j < e->latent_width; j++) failed |= json_array_append_new(dims, json_real(e->kl_dim[j]));
    json_t *all = json_pack(
        "{s:f, s:f, s:f, s:f, s:o, s:I, s:I, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:s}",
        "neg_elbo", e->neg_elbo, "neg_elbo_standard_error", e->neg_elbo_error, "reconstruction", e->reconstruction, "kl", e->kl,
        "kl_per_dim", dims, "active_units", (json_int_t)e->active_units, "active_units_0.1", (json_int_t)e->active_units_tenth,
        "mutual_information", e->mutual_information, "mutual_information_bound", e->mutual_information_bound,
        "mutual_information_sentences", (json_int_t)e->mutual_information_sentences, "own_z_gain", e->own_z_gain, "ppl_token",
        e->ppl_token, "ppl_word", e->ppl_word, "bits_per_byte", e->bits_per_byte, "unknown_share", e->unknown_share, "sentences",
        (json_int_t)e->sentences, "tokens", (json_int_t)e->tokens, "words", (json_int_t)e->words, "bytes", (json_int_t)e->bytes,
        "shortened", (json_int_t)e->shortened, "posterior", c->eval.posterior == POSTERIOR_MEAN ? "mean" : "sample");
    /* Without samples there is no importance-weighted estimate; null says so. */
    failed |= json_object_set_new(all, "iwae_nll", e->iwae_samples ? json_real(e->iwae_nll) : json_null());
    failed |= json_object_set_new(all, "iwae_standard_error", e->iwae_samples ? json_real(e->iwae_error) : json_null());
    failed |= json_object_set_new(all, "iwae_samples", json_integer((json_int_t)e->iwae_samples));
    if (*c->eval.baseline) {
        failed |= json_object_set_new(all, "unigram_nll", json_real(b->unigram));
        failed |= json_object_set_new(all, "bigram_nll", json_real(b->bigram));
    }
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static void to_text(const struct evaluation *e, const struct ngram_baseline *b)
{
    printf("neg_elbo             %10.3f nats a sentence (standard error %.3f)\n", e->neg_elbo, e->neg_elbo_error);
    printf("  reconstruction     %10.3f\n  kl                 %10.3f\n", e->reconstruction, e->kl);
    if (e->iwae_samples)
        printf("iwae_nll             %10.3f with %zu samples (standard error %.3f)\n", e->iwae_nll, e->iwae_samples, e->iwae_error);
    if (e->latent_width)
        printf("active units         %6zu of %zu above 0.01, %zu above 0.1\n", e->active_units, e->latent_width, e->active_units_tenth);
    if (e->mutual_information_sentences)
        printf("mutual information   %10.3f over %zu sentences (bound %.2f)\n", e->mutual_information,
               e->mutual_information_sentences, e->mutual_information_bound);
    if (e->latent_width) printf("own z gain           %10.3f nats: what a sentence's own z is worth against another's\n", e->own_z_gain);
    printf("perplexity           %10.2f per token, %.2f per word (end marks counted)\n", e->ppl_token, e->ppl_word);
    printf("bits per byte        %10.3f\n", e->bits_per_byte);
    printf("unknown share        %10.4f of %zu predicted tokens, %zu sentences, %zu words\n", e->unknown_share, e->tokens,
           e->sentences, e->words);
    if (b->unigram > 0)
        printf("baselines            %10.3f nats a sentence from word counts (neg_elbo is %.1f %% below), %.3f from word pairs\n",
               b->unigram, 100 * (1 - e->neg_elbo / b->unigram), b->bigram);
}

static elbo_status baselines(struct ngram_baseline *b, const char *folder, const struct elbo_corpus *test, elbo_error *error)
{
    if (!*folder) return ELBO_OK;
    struct elbo_corpus *train;
    ELBO_TRY(elbo_corpus_open(&train, folder, error));
    elbo_status status = ngram_baseline(b, train, test, error);
    elbo_corpus_close(train);
    return status;
}

static elbo_status measure(struct cli *cli, struct run *run, const struct elbo_corpus *corpus, elbo_error *error)
{
    const struct elbo_config *c = &cli->config;
    if (elbo_corpus_vocabulary(corpus, ELBO_STREAM_DECODER) != run->model.config.vocabulary)
        return elbo_fail(error, ELBO_INPUT, "%s has %zu ids, the model %zu; prepare it with --tokenizer.from=%s", c->data.test,
                         elbo_corpus_vocabulary(corpus, ELBO_STREAM_DECODER), run->model.config.vocabulary, cli->arguments[0]);
    const char *hash = json_string_value(json_object_get(checkpoint_counters(run->checkpoint), "tokenizer"));
    if (hash && strcmp(hash, elbo_corpus_tokenizer_hash(corpus)))
        return elbo_fail(error, ELBO_INPUT, "%s has another tokenizer than the model; prepare it with --tokenizer.from=%s",
                         c->data.test, cli->arguments[0]);
    struct evaluate_options o = {.slots = slot_options_of(c), .sentences = c->eval.sentences,
                                 .iwae_samples = c->eval.iwae_samples, .mi_sentences = c->eval.mi_sentences, .own_z = true,
                                 .posterior_mean = c->eval.posterior == POSTERIOR_MEAN, .seed = c->seed};
    struct evaluation e;
    struct ngram_baseline b = {0};
    ELBO_TRY(baselines(&b, c->eval.baseline, corpus, error));
    ELBO_TRY(evaluate(&e, &run->model, corpus, &o, error));
    if (e.shortened) log_warning(&cli->log, "%zu sentences were cut to %zu tokens: the figures are of what was left", e.shortened,
                                 c->data.max_length);
    elbo_status status = ELBO_OK;
    if (c->json)
        status = json_print(stdout, to_json(&e, &b, c), JSON_INDENT(2) | JSON_REAL_PRECISION(9), "the measurements", error);
    else
        to_text(&e, &b);
    evaluation_free(&e);
    return status;
}

elbo_status cli_eval(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct elbo_corpus *corpus = NULL;
    ELBO_TRY(cli_open_run(&run, cli, error));
    elbo_status status = *cli->config.data.test ? elbo_corpus_open(&corpus, cli->config.data.test, error)
                                                : elbo_fail(error, ELBO_USAGE, "--data.test is missing: a corpus to evaluate on");
    if (!status) status = measure(cli, &run, corpus, error);
    if (corpus) elbo_corpus_close(corpus);
    run_close(&run);
    return status;
}
