/* Evaluation of a corpus: encodes the sentences, scores them under draws of z slot by slot, and reduces the sums of all
 * ranks to the estimates in evaluate.h. */
#include "model/evaluate.h"
#include "base/philox.h"
#include "elbo/corpus.h"
#include "model/latent.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct work {
    struct model *m;
    const struct elbo_corpus *corpus;
    const struct evaluate_options *o;
    struct evaluation *e;
    struct recording encode, score;
    struct latent latent;
    size_t sentences, z, capacity; /* sentences evaluated; capacity: sentences of a slot */
    size_t *source, *row;     /* (sentences) number in the corpus; (source[sentences - 1] + 1) the inverse, or NO_ROW */
    float *stats;             /* (sentences, 2Z) */
    float *slot_z, *slot_nll; /* (capacity, Z), (capacity) */
    float *token_nll, *right; /* (tokens of a slot) right: 1 where the label has the largest logit */
    double *nll, *weight;     /* (sentences) NLL of the first draw; log p(z) - log q(z|x) of the current draw */
    double *iwae;             /* (sentences) running log sum of importance weights */
    struct fitted {
        double log_q, log_p, log_own; /* at the last draw: posterior, fitted prior, model's prior */
        double kl, iwae;              /* at the first draw: log q - log p; running log sum of importance weights */
        double cross, own_cross;      /* at the first draw: -log p, of the fitted prior and of the model's prior */
    } * fitted;                       /* (sentences) null: no prior is fitted */
    double *drawn_kl;    /* (sentences) log q(z|x) - log p(z) at the first draw; null: the KL has a closed form */
    double *other;       /* (sentences) index of the sentence whose z is used for own_z_gain */
    size_t visited;      /* slots visited in this pass */
    double unknown_nats; /* of the first draw */
    size_t known_bytes;
    struct elbo_ids known;
    struct elbo_text text;
};

#define NO_ROW SIZE_MAX

/* Returns the index of a corpus sentence among the evaluated ones; NO_ROW if it is not evaluated. */
static size_t row_of(const struct work *w, uint64_t source)
{
    return source <= w->source[w->sentences - 1] ? w->row[source] : NO_ROW;
}

/* Chooses the first sentences of the corpus, except those that SLOT_SKIP leaves out. */
static elbo_status choose_sentences(struct work *w, elbo_error *error)
{
    const struct slot_options *s = &w->o->slots;
    size_t all = elbo_corpus_sentences(w->corpus),
           wanted = w->o->sentences && w->o->sentences < all ? w->o->sentences : all;
    w->source = malloc(wanted * sizeof *w->source);
    w->row = malloc(all * sizeof *w->row);
    if (!w->source || !w->row) return elbo_fail(error, ELBO_MEMORY, "no memory to choose %zu sentences", wanted);
    for (size_t i = 0; i < all && w->sentences < wanted; i++) {
        size_t length = elbo_corpus_length(w->corpus, ELBO_STREAM_DECODER, i),
               read = elbo_corpus_length(w->corpus, ELBO_STREAM_ENCODER, i);
        bool longer = s->max_length && (length > s->max_length || (w->z && read > s->max_length));
        w->e->shortened += longer;
        w->row[i] = longer && s->too_long == SLOT_SKIP ? NO_ROW : w->sentences;
        if (w->row[i] != NO_ROW) w->source[w->sentences++] = i;
    }
    if (w->sentences) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT, "every sentence of %s is longer than data.max_length = %zu tokens and left out",
                     elbo_corpus_folder(w->corpus), s->max_length);
}

static struct latent_noise noise_of(const struct work *w, size_t draw)
{
    return (struct latent_noise){w->o->seed, noise_purpose("evaluate.posterior"), 0, (uint32_t)draw};
}

static elbo_status combine(const struct work *w, elbo_status status, void *data, size_t bytes, elbo_error *error)
{
    return w->o->ranks > 1 ? w->o->combine(w->o->context, status, data, bytes, error) : status;
}

static bool is_own(struct work *w)
{
    return w->o->ranks < 2 || w->visited++ % w->o->ranks == w->o->rank;
}

/* Calls `visit` for each of this rank's slots in a single pass over the evaluated sentences. */
static elbo_status each_slot(struct work *w,
                             elbo_status (*visit)(struct work *, const struct slot *, size_t, elbo_error *),
                             size_t draw, elbo_error *error)
{
    struct slot_options s = w->o->slots;
    s.slots = 1;
    s.shuffle = false;
    s.single_pass = true;
    s.word_dropout = s.drop = s.blank = s.swap = 0;
    s.first = s.step = 0;
    if (w->m->config.latent.kind == LATENT_NONE) s.encoder_tokens = 0;
    struct slot_loader *loader;
    ELBO_TRY(slot_loader_open(&loader, w->corpus, &s, error));
    elbo_status status = ELBO_OK;
    w->visited = 0;
    for (bool more = true; more && !status;) {
        const struct slot_batch *batch;
        status = slot_loader_next(loader, &batch, error);
        if (status) break;
        for (size_t i = 0; i < batch->count && !status; i++) {
            const struct slot *slot = &batch->slots[i];
            if (slot->sentences && slot->source[0] > w->source[w->sentences - 1])
                more = false;
            else if (slot->sentences && is_own(w))
                status = visit(w, slot, draw, error);
        }
        more = more && !batch->last;
    }
    slot_loader_close(loader);
    return status;
}

static elbo_status visit_encode(struct work *w, const struct slot *slot, size_t draw, elbo_error *error)
{
    (void)draw;
    struct execution run = {.seed = 0};
    recording_bind_slot(&w->encode, slot, &run);
    ELBO_TRY(executor_run(&w->encode.executor, &run, error));
    float *all = w->stats, *rows = malloc(slot->sentences * 2 * w->z * sizeof *rows);
    if (!rows) return elbo_fail(error, ELBO_MEMORY, "no memory for the posteriors of a slot");
    recording_read(&w->encode, w->encode.stats, rows, run.count);
    for (size_t i = 0; i < slot->sentences; i++) {
        size_t row = row_of(w, slot->source[i]);
        if (row != NO_ROW) memcpy(all + row * 2 * w->z, rows + i * 2 * w->z, 2 * w->z * sizeof *rows);
    }
    free(rows);
    return ELBO_OK;
}

static elbo_status run_score(struct work *w, const struct slot *slot, bool tokens, elbo_error *error)
{
    struct execution run = {.seed = 0};
    recording_bind_slot(&w->score, slot, &run);
    recording_bind_input(&w->score, "z", w->slot_z);
    ELBO_TRY(executor_run(&w->score.executor, &run, error));
    recording_read(&w->score, w->score.nll, w->slot_nll, run.count);
    if (tokens) recording_read(&w->score, w->score.token_nll, w->token_nll, run.count);
    if (tokens) recording_read(&w->score, w->score.token_right, w->right, run.count);
    return ELBO_OK;
}

/* Counts a sentence, at the first draw only. Its tokens of the slot are first .. end. */
static elbo_status count_sentence(struct work *w, const struct slot_stream *d, size_t row, size_t first, size_t end,
                                  elbo_error *error)
{
    struct evaluation *e = w->e;
    enum elbo_stream s = ELBO_STREAM_DECODER;
    size_t kept = end - first - 1 /* without the end mark */, source = w->source[row],
           whole = elbo_corpus_length(w->corpus, s, source), unknown = 0, right = 0;
    e->tokens += end - first;
    e->words += slot_share(elbo_corpus_sentence_words(w->corpus, source), kept, whole) + 1;
    e->bytes += slot_share(elbo_corpus_sentence_bytes(w->corpus, source), kept, whole);
    for (size_t t = first; t < end; t++) right += w->right[t] > 0;
    e->token_accuracy += (double)right;
    if (e->rows) e->rows[row] = (struct evaluation_row){.sentence = source, .tokens = end - first, .right = right};
    w->known.count = 0;
    for (size_t t = first; t < end; t++) {
        bool is = d->labels[t] == (int32_t)elbo_corpus_marks(w->corpus, s)->unknown;
        unknown += is;
        if (is)
            w->unknown_nats += w->token_nll[t];
        else if (t + 1 < end)
            w->known.ids[w->known.count++] = (uint32_t)d->labels[t];
    }
    e->unknown_share += (double)unknown;
    if (!unknown) {
        w->known_bytes += slot_share(elbo_corpus_sentence_bytes(w->corpus, source), kept, whole);
        return ELBO_OK;
    }
    ELBO_TRY(elbo_tokenizer_decode(elbo_corpus_tokenizer(w->corpus, s), &w->text, w->known.ids, w->known.count, error));
    w->known_bytes += w->text.size + 1;
    return ELBO_OK;
}

/* Computes the log densities of a draw's z under the posterior, the fitted prior and the model's prior. */
static void look_at_fitted(struct work *w, size_t row, const float *z)
{
    struct fitted *f = &w->fitted[row];
    f->log_q = latent_log_density(z, w->stats + row * 2 * w->z, w->z);
    f->log_p = gaussians_log_density(w->o->fitted, z);
    f->log_own = latent_prior_log_density(&w->latent, z);
}

static void add_weight(double *sum, double log_weight, bool first)
{
    double top = fmax(*sum, log_weight);
    *sum = first ? log_weight : top + log(exp(*sum - top) + exp(log_weight - top));
}

static void count_fitted(struct fitted *f, double nll, bool first)
{
    add_weight(&f->iwae, f->log_p - f->log_q - nll, first);
    if (!first) return;
    f->kl = f->log_q - f->log_p;
    f->cross = -f->log_p;
    f->own_cross = -f->log_own;
}

/* Computes the NLL of each sentence under draw `draw` of its own posterior. */
static elbo_status visit_own(struct work *w, const struct slot *slot, size_t draw, elbo_error *error)
{
    struct latent_noise noise = noise_of(w, draw);
    size_t n = slot->sentences;
    for (size_t i = 0; i < n && w->z; i++) {
        size_t row = row_of(w, slot->source[i]), s = row != NO_ROW ? row : w->sentences - 1;
        const float *stats = w->stats + s * 2 * w->z;
        bool mean = w->o->posterior_mean;
        double lw =
            mean && !w->drawn_kl ? 0 : latent_draw(&w->latent, w->slot_z + i * w->z, stats, &noise, slot->source[i]);
        if (row != NO_ROW && draw == 0 && w->drawn_kl) w->drawn_kl[s] = -lw;
        if (mean) lw = latent_draw(&w->latent, w->slot_z + i * w->z, stats, NULL, slot->source[i]);
        if (row != NO_ROW) w->weight[s] = lw;
        if (row != NO_ROW && w->fitted) look_at_fitted(w, row, w->slot_z + i * w->z);
    }
    ELBO_TRY(run_score(w, slot, draw == 0, error));
    const struct slot_stream *d = &slot->decoder;
    for (size_t i = 0; i < n; i++) {
        size_t s = row_of(w, slot->source[i]);
        if (s == NO_ROW) continue;
        double nll = w->slot_nll[i], log_weight = w->weight[s] - nll;
        if (w->fitted) count_fitted(&w->fitted[s], nll, draw == 0);
        if (draw == 0) {
            w->nll[s] = nll;
            w->iwae[s] = log_weight;
            ELBO_TRY(
                count_sentence(w, d, s, (size_t)d->offsets[i] + w->o->slots.prefix, (size_t)d->offsets[i + 1], error));
        } else {
            add_weight(&w->iwae[s], log_weight, false);
        }
    }
    return ELBO_OK;
}

/* Computes the NLL of each sentence under the z of another sentence (choose_others). */
static elbo_status visit_other(struct work *w, const struct slot *slot, size_t draw, elbo_error *error)
{
    struct latent_noise noise = noise_of(w, 0);
    (void)draw;
    size_t n = slot->sentences;
    for (size_t i = 0; i < n; i++) {
        size_t row = row_of(w, slot->source[i]), whose = (size_t)w->other[row != NO_ROW ? row : 0];
        latent_draw(&w->latent, w->slot_z + i * w->z, w->stats + whose * 2 * w->z, w->o->posterior_mean ? NULL : &noise,
                    w->source[whose]);
    }
    ELBO_TRY(run_score(w, slot, false, error));
    for (size_t i = 0; i < n; i++) {
        size_t row = row_of(w, slot->source[i]);
        if (row != NO_ROW) w->weight[row] = w->slot_nll[i];
    }
    return ELBO_OK;
}

/* Chooses a random cyclic permutation without fixed points: in a shuffled order, each sentence takes the z of the
 * next. */
static elbo_status choose_others(struct work *w, elbo_error *error)
{
    size_t n = w->sentences;
    size_t *order = malloc(n * sizeof *order);
    if (!order) return elbo_fail(error, ELBO_MEMORY, "no memory to permute %zu sentences", n);
    for (size_t i = 0; i < n; i++) order[i] = slot_order(w->o->seed ^ noise_purpose("evaluate.own_z"), 0, i, n);
    for (size_t i = 0; i < n; i++) w->other[order[i]] = (double)order[(i + 1) % n];
    free(order);
    return ELBO_OK;
}

/* ---- mutual information over the first n sentences ---- */

struct aggregate {
    const struct work *w;
    size_t n;
    float *z;      /* (n, Z) a sample of each posterior */
    double *terms; /* (n) log q(z_i | x_i) - log (1/n) sum_j q(z_i | x_j) */
};

static void aggregate_term(void *argument, size_t i, size_t worker)
{
    (void)worker;
    const struct aggregate *a = argument;
    const struct work *w = a->w;
    struct latent_noise noise = noise_of(w, 0);
    float *z = a->z + i * w->z;
    latent_draw(&w->latent, z, w->stats + i * 2 * w->z, &noise, w->source[i]);
    double top = -INFINITY, sum = 0, own = 0;
    for (size_t j = 0; j < a->n; j++) {
        double q = latent_log_density(z, w->stats + j * 2 * w->z, w->z);
        if (j == i) own = q;
        if (q > top)
            sum = sum * exp(top - q) + 1, top = q;
        else
            sum += exp(q - top);
    }
    a->terms[i] = own - (top + log(sum / (double)a->n));
}

static elbo_status mutual_information(struct work *w, elbo_error *error)
{
    struct aggregate a = {.w = w, .n = w->o->mi_sentences < w->sentences ? w->o->mi_sentences : w->sentences};
    if (!a.n || !w->z) return ELBO_OK;
    a.terms = malloc(a.n * sizeof *a.terms);
    a.z = malloc(a.n * w->z * sizeof *a.z);
    if (!a.terms || !a.z) {
        free(a.terms);
        free(a.z);
        return elbo_fail(error, ELBO_MEMORY, "no memory for the mutual information of %zu sentences", a.n);
    }
    backend_host_run(w->m->backend, a.n, aggregate_term, &a);
    double sum = 0;
    for (size_t i = 0; i < a.n; i++) sum += a.terms[i];
    free(a.terms);
    free(a.z);
    w->e->mutual_information = sum / (double)a.n;
    w->e->mutual_information_bound = log((double)a.n);
    w->e->mutual_information_sentences = a.n;
    return ELBO_OK;
}

static void active_units(struct work *w)
{
    for (size_t j = 0; j < w->z; j++) {
        double mean = 0, square = 0;
        for (size_t s = 0; s < w->sentences; s++) mean += w->stats[s * 2 * w->z + j];
        mean /= (double)w->sentences;
        for (size_t s = 0; s < w->sentences; s++) {
            double d = w->stats[s * 2 * w->z + j] - mean;
            square += d * d;
        }
        double variance = square / (double)w->sentences;
        w->e->active_units += variance >= 0.01;
        w->e->active_units_tenth += variance >= 0.1;
    }
}

static void mean_and_error(double *mean, double *error, const double *x, const double *y, size_t n)
{
    double sum = 0, square = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] + (y ? y[i] : 0);
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = x[i] + (y ? y[i] : 0) - *mean;
        square += d * d;
    }
    *error = n > 1 ? sqrt(square / (double)(n - 1) / (double)n) : 0;
}

/* Sums the counts of all ranks. */
static elbo_status combine_counts(struct work *w, elbo_error *error)
{
    struct counts {
        size_t tokens, words, bytes, known_bytes;
        double unknown, unknown_nats, right;
    } * all, *own;
    struct evaluation *e = w->e;
    if (w->o->ranks < 2) return ELBO_OK;
    all = calloc(w->o->ranks, sizeof *all);
    elbo_status status =
        all ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the counts of %zu ranks", w->o->ranks);
    if (all) {
        own = &all[w->o->rank];
        *own = (struct counts){e->tokens,        e->words,        e->bytes,         w->known_bytes,
                               e->unknown_share, w->unknown_nats, e->token_accuracy};
    }
    status = combine(w, status, all, w->o->ranks * sizeof *all, error);
    e->tokens = e->words = e->bytes = w->known_bytes = 0;
    e->unknown_share = w->unknown_nats = e->token_accuracy = 0;
    for (size_t r = 0; r < w->o->ranks && !status; r++) {
        e->tokens += all[r].tokens;
        e->words += all[r].words;
        e->bytes += all[r].bytes;
        w->known_bytes += all[r].known_bytes;
        e->unknown_share += all[r].unknown;
        w->unknown_nats += all[r].unknown_nats;
        e->token_accuracy += all[r].right;
    }
    free(all);
    return status;
}

/* Computes the estimates under the fitted prior; overwrites `w->weight`. */
static void measure_fitted(struct work *w, size_t draws)
{
    struct evaluation *e = w->e;
    const struct {
        double *mean, *error;
        size_t from;
    } means[] = {{&e->fitted_kl, NULL, offsetof(struct fitted, kl)},
                 {&e->fitted_cross_entropy, NULL, offsetof(struct fitted, cross)},
                 {&e->prior_cross_entropy, NULL, offsetof(struct fitted, own_cross)},
                 {&e->fitted_iwae_nll, &e->fitted_iwae_error, offsetof(struct fitted, iwae)}};
    for (size_t k = 0; k < sizeof means / sizeof *means; k++) {
        double unused;
        for (size_t s = 0; s < w->sentences; s++)
            memcpy(&w->weight[s], (const char *)&w->fitted[s] + means[k].from, sizeof w->weight[s]);
        for (size_t s = 0; s < w->sentences && means[k].error; s++) w->weight[s] = log((double)draws) - w->weight[s];
        mean_and_error(means[k].mean, means[k].error ? means[k].error : &unused, w->weight, NULL, w->sentences);
    }
    e->fitted_neg_elbo = e->reconstruction + e->fitted_kl;
    e->fitted = true;
}

static elbo_status measure(struct work *w, elbo_error *error)
{
    struct evaluation *e = w->e;
    bool iwae = w->z && w->o->iwae_samples && !w->o->posterior_mean;
    size_t draws = iwae ? w->o->iwae_samples : 1, numbers = w->sentences * sizeof(double);
    elbo_status status = w->z ? each_slot(w, visit_encode, 0, error) : ELBO_OK;
    ELBO_TRY(combine(w, status, w->stats, w->sentences * 2 * w->z * sizeof *w->stats, error));
    for (size_t k = 0; k < draws && !status; k++) status = each_slot(w, visit_own, k, error);
    ELBO_TRY(combine(w, status, w->nll, numbers, error));
    ELBO_TRY(combine(w, ELBO_OK, w->iwae, numbers, error));
    if (w->drawn_kl) ELBO_TRY(combine(w, ELBO_OK, w->drawn_kl, numbers, error));
    if (w->fitted) ELBO_TRY(combine(w, ELBO_OK, w->fitted, w->sentences * sizeof *w->fitted, error));
    ELBO_TRY(combine_counts(w, error));
    if (w->z && w->o->own_z && w->sentences > 1) {
        memset(w->weight, 0, numbers);
        status = choose_others(w, error);
        if (!status) status = each_slot(w, visit_other, 0, error);
        ELBO_TRY(combine(w, status, w->weight, numbers, error));
        double sum = 0;
        for (size_t s = 0; s < w->sentences; s++) sum += w->weight[s] - w->nll[s];
        e->own_z_gain = sum / (double)w->sentences;
    }
    ELBO_TRY(mutual_information(w, error));
    active_units(w);
    double n = (double)w->sentences, unused;
    mean_and_error(&e->reconstruction, &unused, w->nll, NULL, w->sentences);
    if (w->fitted) measure_fitted(w, draws);
    if (iwae) {
        for (size_t s = 0; s < w->sentences; s++) w->iwae[s] = log((double)draws) - w->iwae[s];
        mean_and_error(&e->iwae_nll, &e->iwae_error, w->iwae, NULL, w->sentences);
        e->iwae_samples = draws;
    }
    for (size_t s = 0; s < w->sentences; s++)
        w->weight[s] = !w->z         ? 0
                       : w->drawn_kl ? w->drawn_kl[s]
                                     : latent_kl(&w->latent, w->stats + s * 2 * w->z, e->kl_dim);
    for (size_t j = 0; j < w->z && e->kl_dim; j++) e->kl_dim[j] /= n;
    mean_and_error(&e->kl, &unused, w->weight, NULL, w->sentences);
    mean_and_error(&e->neg_elbo, &e->neg_elbo_error, w->nll, w->weight, w->sentences);
    double nats = n * (e->iwae_samples ? e->iwae_nll : e->neg_elbo);
    e->sentences = w->sentences;
    e->unknown_share /= (double)e->tokens;
    e->token_accuracy /= (double)e->tokens;
    e->ppl_token = exp(nats / (double)e->tokens);
    e->wordless = e->words <= 2 * e->sentences && e->tokens > e->words; /* one word a sentence, several tokens a word */
    e->ppl_word = exp(nats / (double)e->words);
    e->bits_per_byte = nats / log(2.0) / (double)e->bytes;
    e->known_bits_per_byte = (n * e->neg_elbo - w->unknown_nats) / log(2.0) / (double)w->known_bytes;
    for (size_t s = 0; s < w->sentences && e->rows; s++) {
        e->rows[s].reconstruction = w->nll[s];
        e->rows[s].kl = w->weight[s];
        e->rows[s].iwae = iwae ? w->iwae[s] : 0;
    }
    return ELBO_OK;
}

static elbo_status prepare(struct work *w, elbo_error *error)
{
    const struct slot_options *s = &w->o->slots;
    ELBO_TRY(choose_sentences(w, error));
    ELBO_TRY(latent_open(&w->latent, w->m, error));
    w->capacity = slot_sentence_capacity(s);
    struct graph_capacities encode = {
        {[DIM_ENC_TOKENS] = s->encoder_tokens, [DIM_SENTENCES] = w->capacity, [DIM_DRAWS] = w->capacity}};
    struct graph_capacities score = {
        {[DIM_DEC_TOKENS] = s->decoder_tokens, [DIM_SENTENCES] = w->capacity, [DIM_DRAWS] = w->capacity}};
    struct recording *both[] = {&w->score, &w->encode};
    if (w->z) ELBO_TRY(record_encode(&w->encode, &w->m->config, w->m->parameters, &encode, error));
    ELBO_TRY(record_score(&w->score, &w->m->config, w->m->parameters, &score, error));
    ELBO_TRY(model_bind(w->m, both, w->z ? 2 : 1, NULL, error));
    size_t n = w->sentences, z = w->z ? w->z : 1;
    w->stats = calloc(n * 2 * z, sizeof *w->stats);
    w->slot_z = malloc(w->capacity * z * sizeof *w->slot_z);
    w->slot_nll = malloc(w->capacity * sizeof *w->slot_nll);
    w->token_nll = malloc(s->decoder_tokens * sizeof *w->token_nll);
    w->right = malloc(s->decoder_tokens * sizeof *w->right);
    w->known.ids = malloc(s->decoder_tokens * sizeof *w->known.ids);
    if (w->o->fitted && w->z && !w->o->posterior_mean) w->fitted = calloc(n, sizeof *w->fitted);
    if (w->o->rows) w->e->rows = calloc(n, sizeof *w->e->rows);
    w->nll = calloc(n, sizeof *w->nll);
    w->weight = calloc(n, sizeof *w->weight);
    w->iwae = calloc(n, sizeof *w->iwae);
    w->other = calloc(n, sizeof *w->other);
    if (latent_has_dimensions(&w->m->config.latent) || !w->z)
        w->e->kl_dim = calloc(z, sizeof *w->e->kl_dim);
    else
        w->drawn_kl = calloc(n, sizeof *w->drawn_kl);
    if (!w->stats || !w->slot_z || !w->slot_nll || !w->token_nll || !w->right || !w->known.ids ||
        (w->o->rows && !w->e->rows) || !w->nll || !w->weight ||
        (w->o->fitted && w->z && !w->o->posterior_mean && !w->fitted) || !w->iwae || !w->other ||
        (!w->e->kl_dim && !w->drawn_kl))
        return elbo_fail(error, ELBO_MEMORY, "no memory to evaluate %zu sentences", n);
    return ELBO_OK;
}

elbo_status evaluate(struct evaluation *out, struct model *m, const struct elbo_corpus *corpus,
                     const struct evaluate_options *options, elbo_error *error)
{
    *out = (struct evaluation){0};
    struct work w = {.m = m, .corpus = corpus, .o = options, .e = out};
    w.z = m->config.latent.kind == LATENT_NONE ? 0 : m->config.latent.width;
    out->latent_width = w.z;
    elbo_status status = combine(&w, prepare(&w, error), NULL, 0, error);
    if (!status) status = measure(&w, error);
    recording_free(&w.encode, m->backend);
    recording_free(&w.score, m->backend);
    free(w.stats);
    free(w.slot_z);
    free(w.slot_nll);
    free(w.token_nll);
    free(w.right);
    free(w.source);
    free(w.row);
    elbo_ids_free(&w.known);
    elbo_text_free(&w.text);
    free(w.nll);
    free(w.weight);
    free(w.iwae);
    free(w.drawn_kl);
    free(w.fitted);
    latent_close(&w.latent);
    free(w.other);
    if (status) evaluation_free(out);
    return status;
}

void evaluation_free(struct evaluation *e)
{
    free(e->kl_dim);
    free(e->rows);
    e->kl_dim = NULL;
    e->rows = NULL;
}
