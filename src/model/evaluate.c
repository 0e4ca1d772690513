#include "model/evaluate.h"
#include "base/philox.h"
#include "elbo/corpus.h"
#include "graph/backends.h"
#include "model/posterior.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct work {
    struct model *m;
    const struct elbo_corpus *corpus;
    const struct evaluate_options *o;
    struct evaluation *e;
    struct recording encode, score;
    size_t sentences, z, capacity; /* capacity: sentences of a slot */
    float *stats;                  /* (sentences, 2Z)               */
    float *slot_z, *slot_nll;      /* (capacity, Z), (capacity)     */
    double *nll, *weight;          /* (sentences) of the first draw: reconstruction; log p(z) - log q(z|x) */
    double *iwae;                  /* (sentences) running log sum of weights */
    double *other;                 /* (sentences) whose z a sentence is given then */
    size_t visited;                /* slots of this pass */
};

static struct posterior_noise noise_of(const struct work *w, size_t draw)
{
    return (struct posterior_noise){w->o->seed, noise_purpose("evaluate.posterior"), 0, (uint32_t)draw};
}

static elbo_status visit_own(struct work *w, const struct slot *slot, size_t draw, elbo_error *error);

static elbo_status combine(const struct work *w, elbo_status status, void *data, size_t bytes, elbo_error *error)
{
    return w->o->ranks > 1 ? w->o->combine(w->o->context, status, data, bytes, error) : status;
}

static bool is_own(struct work *w)
{
    return w->o->ranks < 2 || w->visited++ % w->o->ranks == w->o->rank;
}

/* Calls `visit` for each slot, of this rank's, of a single pass over the sentences under evaluation. */
static elbo_status each_slot(struct work *w, elbo_status (*visit)(struct work *, const struct slot *, size_t, elbo_error *),
                             size_t draw, elbo_error *error)
{
    struct slot_options s = w->o->slots;
    s.slots = 1;
    s.shuffle = false;
    s.single_pass = true;
    s.word_dropout = 0;
    if (s.too_long == SLOT_SKIP) s.too_long = SLOT_TRUNCATE; /* every sentence counts here */
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
        if (visit == visit_own && draw == 0) w->e->shortened += batch->shortened; /* once, of several passes */
        for (size_t i = 0; i < batch->count && !status; i++) {
            const struct slot *slot = &batch->slots[i];
            if (slot->sentences && slot->source[0] >= w->sentences)
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
    for (size_t i = 0; i < slot->sentences; i++)
        if (slot->source[i] < w->sentences)
            memcpy(all + slot->source[i] * 2 * w->z, rows + i * 2 * w->z, 2 * w->z * sizeof *rows);
    free(rows);
    return ELBO_OK;
}

static elbo_status run_score(struct work *w, const struct slot *slot, elbo_error *error)
{
    struct execution run = {.seed = 0};
    recording_bind_slot(&w->score, slot, &run);
    recording_bind_input(&w->score, "z", w->slot_z);
    ELBO_TRY(executor_run(&w->score.executor, &run, error));
    recording_read(&w->score, w->score.nll, w->slot_nll, run.count);
    return ELBO_OK;
}

/* NLL under draw `draw` of each sentence's own posterior. */
static elbo_status visit_own(struct work *w, const struct slot *slot, size_t draw, elbo_error *error)
{
    struct posterior_noise noise = noise_of(w, draw);
    size_t n = slot->sentences;
    for (size_t i = 0; i < n && w->z; i++) {
        size_t s = slot->source[i] < w->sentences ? slot->source[i] : w->sentences - 1;
        double lw = posterior_sample(w->slot_z + i * w->z, w->stats + s * 2 * w->z, w->z,
                                     w->o->posterior_mean ? NULL : &noise, slot->source[i]);
        if (slot->source[i] < w->sentences) w->weight[s] = lw;
    }
    ELBO_TRY(run_score(w, slot, error));
    const struct slot_stream *d = &slot->decoder;
    for (size_t i = 0; i < n; i++) {
        size_t s = slot->source[i];
        if (s >= w->sentences) continue;
        double nll = w->slot_nll[i], log_weight = w->weight[s] - nll;
        if (draw == 0) {
            w->nll[s] = nll;
            w->iwae[s] = log_weight;
            w->e->tokens += (size_t)(d->offsets[i + 1] - d->offsets[i]);
            size_t kept = (size_t)(d->offsets[i + 1] - d->offsets[i]) - 1; /* without the end mark */
            size_t whole = elbo_corpus_length(w->corpus, ELBO_STREAM_DECODER, s);
            w->e->words += slot_share(elbo_corpus_sentence_words(w->corpus, s), kept, whole) + 1;
            w->e->bytes += slot_share(elbo_corpus_sentence_bytes(w->corpus, s), kept, whole);
            uint32_t unknown = elbo_corpus_marks(w->corpus, ELBO_STREAM_DECODER)->unknown;
            for (int32_t t = d->offsets[i]; t < d->offsets[i + 1]; t++)
                w->e->unknown_share += d->labels[t] == (int32_t)unknown;
        } else {
            double top = fmax(w->iwae[s], log_weight);
            w->iwae[s] = top + log(exp(w->iwae[s] - top) + exp(log_weight - top));
        }
    }
    return ELBO_OK;
}

/* Whose z a sentence is given: i -> i + shift in the order of a keyed permutation, never its own. */
static elbo_status visit_other(struct work *w, const struct slot *slot, size_t draw, elbo_error *error)
{
    struct posterior_noise noise = noise_of(w, 0);
    (void)draw;
    size_t n = slot->sentences;
    for (size_t i = 0; i < n; i++) {
        size_t s = slot->source[i] < w->sentences ? slot->source[i] : 0;
        size_t whose = (size_t)w->other[s];
        posterior_sample(w->slot_z + i * w->z, w->stats + whose * 2 * w->z, w->z, w->o->posterior_mean ? NULL : &noise, whose);
    }
    ELBO_TRY(run_score(w, slot, error));
    for (size_t i = 0; i < n; i++)
        if (slot->source[i] < w->sentences) w->weight[slot->source[i]] = w->slot_nll[i];
    return ELBO_OK;
}

/* A random cyclic permutation without fixed points: sentences in a shuffled order, each takes the next one's z. */
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
    float *z;      /* (n, Z) a sample of each posterior                      */
    double *terms; /* (n) log q(z_i | x_i) - log (1/n) sum_j q(z_i | x_j) */
};

static void aggregate_term(void *argument, size_t i, size_t worker)
{
    (void)worker;
    const struct aggregate *a = argument;
    const struct work *w = a->w;
    struct posterior_noise noise = noise_of(w, 0);
    float *z = a->z + i * w->z;
    posterior_sample(z, w->stats + i * 2 * w->z, w->z, &noise, i);
    double top = -INFINITY, sum = 0, own = 0;
    for (size_t j = 0; j < a->n; j++) {
        double q = posterior_log_density(z, w->stats + j * 2 * w->z, w->z);
        if (j == i) own = q;
        if (q > top) sum = sum * exp(top - q) + 1, top = q;
        else sum += exp(q - top);
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

/* What the ranks counted in their slots. */
static elbo_status combine_counts(struct work *w, elbo_error *error)
{
    struct counts {
        size_t tokens, words, bytes;
        double unknown;
    } *all, *own;
    struct evaluation *e = w->e;
    if (w->o->ranks < 2) return ELBO_OK;
    all = calloc(w->o->ranks, sizeof *all);
    elbo_status status = all ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the counts of %zu ranks", w->o->ranks);
    if (all) {
        own = &all[w->o->rank];
        *own = (struct counts){e->tokens, e->words, e->bytes, e->unknown_share};
    }
    status = combine(w, status, all, w->o->ranks * sizeof *all, error);
    e->tokens = e->words = e->bytes = 0;
    e->unknown_share = 0;
    for (size_t r = 0; r < w->o->ranks && !status; r++) {
        e->tokens += all[r].tokens;
        e->words += all[r].words;
        e->bytes += all[r].bytes;
        e->unknown_share += all[r].unknown;
    }
    free(all);
    return status;
}

static elbo_status measure(struct work *w, elbo_error *error)
{
    struct evaluation *e = w->e;
    size_t draws = w->z && w->o->iwae_samples > 1 ? w->o->iwae_samples : 1, numbers = w->sentences * sizeof(double);
    elbo_status status = w->z ? each_slot(w, visit_encode, 0, error) : ELBO_OK;
    ELBO_TRY(combine(w, status, w->stats, w->sentences * 2 * w->z * sizeof *w->stats, error));
    for (size_t k = 0; k < draws && !status; k++) status = each_slot(w, visit_own, k, error);
    ELBO_TRY(combine(w, status, w->nll, numbers, error));
    ELBO_TRY(combine(w, ELBO_OK, w->iwae, numbers, error));
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
    if (w->o->iwae_samples && w->z && !w->o->posterior_mean) {
        for (size_t s = 0; s < w->sentences; s++) w->iwae[s] = log((double)draws) - w->iwae[s];
        mean_and_error(&e->iwae_nll, &e->iwae_error, w->iwae, NULL, w->sentences);
        e->iwae_samples = draws;
    }
    for (size_t s = 0; s < w->sentences; s++)
        w->weight[s] = w->z ? posterior_kl(w->stats + s * 2 * w->z, w->z, e->kl_dim) : 0;
    for (size_t j = 0; j < w->z; j++) e->kl_dim[j] /= n;
    mean_and_error(&e->kl, &unused, w->weight, NULL, w->sentences);
    mean_and_error(&e->neg_elbo, &e->neg_elbo_error, w->nll, w->weight, w->sentences);
    double nats = n * (e->iwae_samples ? e->iwae_nll : e->neg_elbo);
    e->sentences = w->sentences;
    e->unknown_share /= (double)e->tokens;
    e->ppl_token = exp(nats / (double)e->tokens);
    e->ppl_word = exp(nats / (double)e->words);
    e->bits_per_byte = nats / log(2.0) / (double)e->bytes;
    return ELBO_OK;
}

static elbo_status prepare(struct work *w, elbo_error *error)
{
    const struct slot_options *s = &w->o->slots;
    w->capacity = slot_sentence_capacity(s);
    struct graph_capacities encode = {{[DIM_ENC_TOKENS] = s->encoder_tokens, [DIM_SENTENCES] = w->capacity,
                                       [DIM_DRAWS] = w->capacity}};
    struct graph_capacities score = {{[DIM_DEC_TOKENS] = s->decoder_tokens, [DIM_SENTENCES] = w->capacity,
                                      [DIM_DRAWS] = w->capacity}};
    struct recording *both[] = {&w->score, &w->encode};
    if (w->z) ELBO_TRY(record_encode(&w->encode, &w->m->config, w->m->parameters, &encode, error));
    ELBO_TRY(record_score(&w->score, &w->m->config, w->m->parameters, &score, error));
    ELBO_TRY(model_bind(w->m, both, w->z ? 2 : 1, NULL, error));
    size_t n = w->sentences, z = w->z ? w->z : 1;
    w->stats = calloc(n * 2 * z, sizeof *w->stats);
    w->slot_z = malloc(w->capacity * z * sizeof *w->slot_z);
    w->slot_nll = malloc(w->capacity * sizeof *w->slot_nll);
    w->nll = calloc(n, sizeof *w->nll);
    w->weight = calloc(n, sizeof *w->weight);
    w->iwae = calloc(n, sizeof *w->iwae);
    w->other = calloc(n, sizeof *w->other);
    w->e->kl_dim = calloc(z, sizeof *w->e->kl_dim);
    if (!w->stats || !w->slot_z || !w->slot_nll || !w->nll || !w->weight || !w->iwae || !w->other || !w->e->kl_dim)
        return elbo_fail(error, ELBO_MEMORY, "no memory to evaluate %zu sentences", n);
    return ELBO_OK;
}

elbo_status evaluate(struct evaluation *out, struct model *m, const struct elbo_corpus *corpus,
                     const struct evaluate_options *options, elbo_error *error)
{
    *out = (struct evaluation){0};
    struct work w = {.m = m, .corpus = corpus, .o = options, .e = out};
    w.sentences = elbo_corpus_sentences(corpus);
    if (options->sentences && options->sentences < w.sentences) w.sentences = options->sentences;
    w.z = m->config.latent.kind == LATENT_NONE ? 0 : m->config.latent.width;
    out->latent_width = w.z;
    elbo_status status = combine(&w, prepare(&w, error), NULL, 0, error);
    if (!status) status = measure(&w, error);
    recording_free(&w.encode, m->backend);
    recording_free(&w.score, m->backend);
    free(w.stats);
    free(w.slot_z);
    free(w.slot_nll);
    free(w.nll);
    free(w.weight);
    free(w.iwae);
    free(w.other);
    if (status) evaluation_free(out);
    return status;
}

void evaluation_free(struct evaluation *e)
{
    free(e->kl_dim);
    e->kl_dim = NULL;
}
