/* Writes the model card: README.md with the front matter that model hubs read. */
#include "export/hf.h"

#include "model/latent.h"
#include "model/stack.h"

#include <math.h>
#include <string.h>

static void front(struct export_words *w, const char *library, const char *task)
{
    export_print(w, "---\nlibrary_name: %s\npipeline_tag: %s\ntags:\n- text-vae\n- elbo\n---\n\n", library, task);
}

static void what_it_is(struct export_words *w, const struct export_source *s)
{
    const struct model_config *m = &s->model->config;
    const struct stack_config *d = &m->decoder, *e = &m->encoder;
    export_print(w, "# %s\n\n", s->name);
    if (m->latent.kind == LATENT_NONE)
        export_print(w, "A language model: the decoder of a text variational autoencoder without its latent.\n\n");
    else
        export_print(w, "A text variational autoencoder: an encoder reads a sentence into a Gaussian over z, a decoder "
                        "writes the sentence back from z.\n\n");
    export_print(w, "| what | value |\n|---|---|\n| parameters | %.2f M |\n| training steps | %llu |\n",
                 (double)parameters_total(s->model->parameters) / 1e6, (unsigned long long)s->step);
    if (m->latent.kind != LATENT_NONE)
        export_print(w, "| encoder | %s, %zu layers of width %zu |\n| z | %zu dimensions, prior %s%s |\n",
                     stack_kind_of(e)->name, e->layers, e->width, m->latent.width, prior_kind_of(&m->latent)->name,
                     s->fitted ? ", and one fitted after training" : "");
    export_print(w,
                 "| decoder | %s, %zu layers of width %zu |\n| vocabulary | %zu tokens |\n| longest sentence | %zu "
                 "tokens |\n| trained by | elbo %s |\n\n",
                 stack_kind_of(d)->name, d->layers, d->width, m->vocabulary, s->max_length, s->program);
}

/* Prints a figure of the evaluation and its estimator. */
static void figure(struct export_words *w, const json_t *e, const char *key, const char *unit, const char *estimator)
{
    const json_t *v = json_object_get(e, key);
    if (json_is_number(v))
        export_print(w, "| %s | %.*f | %s | %s |\n", key, json_is_integer(v) ? 0 : 3, json_number_value(v), unit,
                     estimator);
}

/* Prints the corpus' name, without its parent folders and without characters that would break a line of Markdown. */
static void measured_on(struct export_words *w, const json_t *evaluation, const json_t *e)
{
    const char *name = json_string_value(json_object_get(evaluation, "corpus")),
               *hash = json_string_value(json_object_get(evaluation, "corpus_hash"));
    char plain[128];
    const char *slash = name ? strrchr(name, '/') : NULL;
    snprintf(plain, sizeof plain, "%s", slash ? slash + 1 : name ? name : "");
    for (char *p = plain; *p; p++)
        if ((unsigned char)*p < ' ' || strchr("`|<>", *p)) *p = '_';
    export_print(w,
                 "## Evaluation\n\n`elbo eval` measured these figures on the corpus `%s` (hash %.16s): %lld sentences, "
                 "%lld predicted tokens.\n\n",
                 plain, hash ? hash : "unknown", (long long)json_integer_value(json_object_get(e, "sentences")),
                 (long long)json_integer_value(json_object_get(e, "tokens")));
}

static void figures(struct export_words *w, const json_t *evaluation)
{
    const json_t *e = json_object_get(evaluation, "figures");
    if (!e) {
        export_print(w, "## Evaluation\n\nNot evaluated: `elbo eval` has not measured these weights.\n\n");
        return;
    }
    char iwae[160];
    bool bound = !json_is_false(json_object_get(e, "bound")),
         latent = json_array_size(json_object_get(e, "kl_per_dim")) || json_object_get(e, "kl_mc");
    measured_on(w, evaluation, e);
    export_print(w, "| figure | value | unit | estimator and bound |\n|---|---|---|---|\n");
    snprintf(iwae, sizeof iwae,
             "importance-weighted with %lld samples of z: an upper bound on -log p(x) in expectation",
             (long long)json_integer_value(json_object_get(e, "iwae_samples")));
    figure(w, e, "neg_elbo", "nats a sentence",
           !latent ? "exact: -log p(x)"
           : bound ? "one z a sentence from its posterior: an upper bound on -log p(x) in expectation"
                   : "z is the posterior's mean: no bound on -log p(x)");
    figure(w, e, "neg_elbo_standard_error", "nats a sentence", "over sentences");
    figure(w, e, "ppl_token", "",
           !latent ? "exp of neg_elbo a token, end marks counted"
           : bound ? "exp of neg_elbo a token, end marks counted: an upper bound"
                   : "exp of neg_elbo a token, end marks counted: no bound");
    figure(w, e, "bits_per_byte", "bits",
           !latent ? "neg_elbo over the text's bytes"
           : bound ? "neg_elbo over the text's bytes: an upper bound"
                   : "neg_elbo over the text's bytes: no bound");
    figure(w, e, "token_accuracy", "share", "tokens than which none is likelier, teacher-forced");
    if (latent) {
        figure(w, e, "iwae_nll", "nats a sentence", iwae);
        figure(w, e, "reconstruction", "nats a sentence",
               bound ? "-log p(x|z), one z a sentence from its posterior" : "-log p(x|z) at the posterior's mean");
        figure(w, e, "kl", "nats a sentence",
               json_object_get(e, "kl_mc") ? "log q(z|x) - log p(z) at a draw: Monte Carlo"
                                           : "KL of posterior and prior in closed form: the rate");
        figure(w, e, "own_z_gain", "nats a sentence",
               "-log p(x|z) under another sentence's z, less that under its own");
        figure(w, e, "active_units", "dimensions", "whose mu varies by more than 0.01 over the sentences");
        figure(w, e, "mutual_information", "nats", "of x and z, by the aggregate posterior; at most the next figure");
        figure(w, e, "mutual_information_bound", "nats", "log of the sentences that it was estimated from");
        figure(w, e, "fitted_neg_elbo", "nats a sentence",
               "as neg_elbo, under the prior that was fitted after training");
        figure(w, e, "fitted_iwae_nll", "nats a sentence", "as iwae_nll, under the fitted prior");
    }
    export_print(w, "\n");
}

elbo_status hf_card(const struct export_source *s, const char *folder, const char *library, const char *task,
                    const char *use, elbo_error *error)
{
    struct export_words w = {0};
    front(&w, library, task);
    what_it_is(&w, s);
    export_print(&w, "## Use\n\n```python\n%s```\n\n", use);
    figures(&w, s->evaluation);
    elbo_status status = w.failed ? elbo_fail(error, ELBO_MEMORY, "no memory for the model card")
                                  : export_text(folder, "README.md", w.text.text, w.text.size, error);
    elbo_text_free(&w.text);
    return status;
}
