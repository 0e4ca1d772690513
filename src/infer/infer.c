/* Implements elbo/infer.h: a model's file, its tokenizer, and elbo's own graphs on a CPU. */
#include "elbo/infer.h"

#include "base/philox.h"
#include "device/backends.h"
#include "infer/words.h"
#include "model/generate.h"
#include "model/latent.h"
#include "model/stack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_SENTENCES = 16 };
static const size_t packed_bytes = sizeof(void *) < 8 ? (size_t)64 << 20 : (size_t)1 << 30;

struct elbo_infer {
    struct infer_file *file;
    struct infer_coder *coder;
    struct backend *backend;
    struct model model;
    struct placed_weight *placed; /* pointers to the weights in the file */
    struct elbo_marks marks;
    struct elbo_ids never;  /* tokens that are never generated */
    struct gaussians prior; /* the file's; count 0: N(0, 1) */
};

/* ---- opening ---- */

/* Checks that the file has each parameter in its shape. */
static elbo_status check_tensors(const struct parameters *all, const struct infer_file *f, elbo_error *error)
{
    for (size_t i = 0; i < parameters_count(all); i++) {
        const struct parameter *p = parameters_get(all, i);
        const struct infer_tensor *t = infer_find(f, p->name);
        size_t columns = p->rank == 2 ? p->shape[1] : 1;
        if (!t) return elbo_fail(error, ELBO_INPUT, "it has no tensor %s", p->name);
        if (t->rank != p->rank || t->shape[0] != p->shape[0] || t->shape[1] != columns)
            return elbo_fail(error, ELBO_INPUT, "%s is %zu x %zu, and should be %zu x %zu", p->name, t->shape[0],
                             t->shape[1], p->shape[0], columns);
    }
    return ELBO_OK;
}

/* Points the model's weights into the file. */
static elbo_status place(struct elbo_infer *m, elbo_error *error)
{
    const struct parameters *all = m->model.parameters;
    m->placed = calloc(parameters_count(all) + 1, sizeof *m->placed);
    if (!m->placed) return elbo_fail(error, ELBO_MEMORY, "no memory for a list of %zu tensors", parameters_count(all));
    for (size_t i = 0; i < parameters_count(all); i++) {
        const struct infer_tensor *t = infer_find(m->file, parameters_get(all, i)->name);
        m->placed[i] = (struct placed_weight){t->data, t->type};
    }
    m->model.placed = m->placed;
    return ELBO_OK;
}

static elbo_status open_model(struct elbo_infer *m, const struct elbo_infer_options *o, elbo_error *error)
{
    char device[32];
    snprintf(device, sizeof device, o->instructions ? "cpu:%s" : "cpu", o->instructions);
    struct model_config config = m->file->config;
    struct parameters *parameters;
    config.precision = PRECISION_F32;
    config.dropped_mark = DROPPED_UNKNOWN; /* inference drops no words, so a mark of its own is never read */
    ELBO_TRY(stack_check("encoder", &config.encoder, error));
    ELBO_TRY(stack_check("decoder", &config.decoder, error));
    if (config.latent.kind != LATENT_NONE)
        ELBO_TRY(stack_check_injection(&config.decoder, config.latent.injection, error));
    if (config.latent.kind != LATENT_NONE) ELBO_TRY(latent_check(&config.latent, config.positions, error));
    ELBO_TRY(model_declare(&parameters, &config, error));
    elbo_status status = check_tensors(parameters, m->file, error);
    if (!status) status = backend_open(&m->backend, device, o->threads, error);
    if (status) {
        parameters_free(parameters);
        return status;
    }
    if (!o->frugal) cpu_backend_keep_packed(m->backend, packed_bytes);
    m->model = (struct model){.config = config, .parameters = parameters, .backend = m->backend};
    return place(m, error);
}

static elbo_status open_prior(struct elbo_infer *m, elbo_error *error)
{
    const struct infer_file *f = m->file;
    size_t k = f->components, z = f->config.latent.width, each = f->full ? z * z : z;
    if (!f->prior) return ELBO_OK;
    ELBO_TRY(gaussians_allocate(&m->prior, k, z, f->full, error));
    memcpy(m->prior.log_weight, f->prior, k * sizeof(double));
    memcpy(m->prior.mean, f->prior + k * sizeof(double), k * z * sizeof(double));
    memcpy(m->prior.factor, f->prior + k * (1 + z) * sizeof(double), k * each * sizeof(double));
    if (gaussians_finish(&m->prior)) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT, "its prior has a deviation of 0 or none at all");
}

static elbo_status open_never(struct elbo_infer *m, elbo_error *error)
{
    for (size_t i = 0; i < m->file->banned_count; i++) {
        uint32_t id;
        memcpy(&id, m->file->banned + 4 * i, sizeof id);
        ELBO_TRY(generate_append(&m->never, id, error));
    }
    return ELBO_OK;
}

static elbo_status open_all(struct elbo_infer *m, const struct elbo_infer_options *o, elbo_error *error)
{
    const struct infer_words *w = &m->file->words;
    m->marks = (struct elbo_marks){w->start, w->end, w->unknown};
    if (o->verify) ELBO_TRY(infer_verify(m->file, error));
    ELBO_TRY(infer_coder_open(&m->coder, m->file, error));
    ELBO_TRY(open_prior(m, error));
    ELBO_TRY(open_never(m, error));
    return open_model(m, o, error);
}

elbo_status elbo_infer_open(struct elbo_infer **out, const char *path, const struct elbo_infer_options *options,
                            elbo_error *error)
{
    struct elbo_infer *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m) return elbo_fail(error, ELBO_MEMORY, "no memory for a model");
    elbo_status status = infer_open(&m->file, path, error);
    if (!status) {
        status = open_all(m, options, error);
        if (status) elbo_fail_in(error, "%s: ", path);
    }
    if (status)
        elbo_infer_close(m);
    else
        *out = m;
    return status;
}

void elbo_infer_close(struct elbo_infer *m)
{
    if (!m) return;
    if (m->model.backend) model_free(&m->model);
    if (m->backend) m->backend->destroy(m->backend);
    gaussians_free(&m->prior);
    free(m->never.ids);
    free(m->placed);
    infer_coder_close(m->coder);
    infer_close(m->file);
    free(m);
}

/* ---- properties of the model ---- */

size_t elbo_infer_latent_width(const struct elbo_infer *m)
{
    return m->model.config.latent.kind == LATENT_NONE ? 0 : m->model.config.latent.width;
}

size_t elbo_infer_longest(const struct elbo_infer *m)
{
    return m->model.config.positions - 2;
}

size_t elbo_infer_labels(const struct elbo_infer *m)
{
    return m->model.config.labels;
}

const char *elbo_infer_label(const struct elbo_infer *m, size_t index)
{
    const char *name = m->file->labels;
    for (size_t i = 0; i < index; i++) name += strlen(name) + 1;
    return name;
}

static elbo_status label_of(int32_t *out, const struct elbo_infer *m, const char *label, elbo_error *error)
{
    size_t count = elbo_infer_labels(m);
    *out = 0;
    if (!count && label) return elbo_fail(error, ELBO_USAGE, "the model knows no labels; leave the label out");
    if (count && !label)
        return elbo_fail(error, ELBO_USAGE, "the model is told each sentence's label: give one of %zu, such as %s",
                         count, elbo_infer_label(m, 0));
    for (size_t i = 0; i < count; i++)
        if (!strcmp(elbo_infer_label(m, i), label)) {
            *out = (int32_t)i;
            return ELBO_OK;
        }
    return count ? elbo_fail(error, ELBO_USAGE, "the model knows no label %.60s, but %zu others, such as %s", label,
                             count, elbo_infer_label(m, 0))
                 : ELBO_OK;
}

/* ---- sentences ---- */

static void free_all(struct elbo_ids *ids, size_t count)
{
    for (size_t i = 0; ids && i < count; i++) free(ids[i].ids);
    free(ids);
}

/* Reads (count) sentences into ids; the caller releases them by free_all. */
static elbo_status read_all(struct elbo_ids **out, struct elbo_infer *m, const char *const *sentences, size_t count,
                            elbo_error *error)
{
    struct elbo_ids *ids = calloc(count + 1, sizeof *ids);
    elbo_status status = ids ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", count);
    for (size_t i = 0; i < count && !status; i++) {
        status = infer_encode_text(m->coder, &ids[i], sentences[i], strlen(sentences[i]), error);
        if (ids[i].count > elbo_infer_longest(m)) ids[i].count = elbo_infer_longest(m);
    }
    if (status)
        free_all(ids, count);
    else
        *out = ids;
    return status;
}

static struct slot_options slot_of(const struct elbo_infer *m, int32_t label)
{
    size_t longest = elbo_infer_longest(m);
    return (struct slot_options){.slots = 1,
                                 .encoder_tokens = SLOT_SENTENCES * slot_encoder_rows(longest),
                                 .decoder_tokens = SLOT_SENTENCES * (longest + 2 + stack_prefix(&m->model.config)),
                                 .prefix = stack_prefix(&m->model.config),
                                 .sentences = SLOT_SENTENCES,
                                 .max_length = longest,
                                 .too_long = SLOT_TRUNCATE,
                                 .label = label};
}

static elbo_status encode(struct elbo_infer *m, float *stats, const struct elbo_ids *ids, size_t count, int32_t label,
                          elbo_error *error)
{
    struct slot_options o = slot_of(m, label);
    return encode_sentences(&m->model, stats, ids, count, &o, &m->marks, error);
}

elbo_status elbo_infer_encode(struct elbo_infer *m, const char *const *sentences, size_t count, const char *label,
                              float *mu, float *logvar, elbo_error *error)
{
    size_t z = elbo_infer_latent_width(m);
    int32_t number;
    struct elbo_ids *ids;
    if (!z) return elbo_fail(error, ELBO_USAGE, "the model is a language model without a latent: it encodes nothing");
    ELBO_TRY(label_of(&number, m, label, error));
    ELBO_TRY(read_all(&ids, m, sentences, count, error));
    float *stats = malloc((2 * count * z + 1) * sizeof *stats);
    elbo_status status = stats ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for %zu posteriors", count);
    if (!status) status = encode(m, stats, ids, count, number, error);
    for (size_t i = 0; i < count && !status; i++) {
        if (mu) memcpy(mu + i * z, stats + 2 * i * z, z * sizeof *mu);
        if (logvar) memcpy(logvar + i * z, stats + (2 * i + 1) * z, z * sizeof *logvar);
    }
    free(stats);
    free_all(ids, count);
    return status;
}

elbo_status elbo_infer_draw(struct elbo_infer *m, float *z, size_t count, uint64_t seed, elbo_error *error)
{
    struct latent_noise noise = {seed, noise_purpose("sample.prior"), 0, 0};
    if (!elbo_infer_latent_width(m))
        return elbo_fail(error, ELBO_USAGE, "the model is a language model without a latent: there is no prior");
    struct latent prior = m->prior.count ? latent_with(&m->prior) : latent_standard(elbo_infer_latent_width(m));
    latent_prior_samples(&prior, z, count, &noise, 0);
    return ELBO_OK;
}

elbo_status elbo_infer_write(struct elbo_infer *m, struct elbo_text *text, const float *z, size_t count,
                             const struct elbo_infer_writing *how, elbo_error *error)
{
    struct generate_options o = {.max_length = how->max_length ? how->max_length : elbo_infer_longest(m),
                                 .temperature = how->temperature,
                                 .top_p = how->top_p > 0 ? how->top_p : 1,
                                 .top_k = how->top_k,
                                 .greedy = !(how->temperature > 0) && !how->beam,
                                 .never = m->never.ids,
                                 .never_count = m->never.count,
                                 .seed = how->seed,
                                 .beam = how->beam,
                                 .length_penalty = 1};
    if (o.max_length > elbo_infer_longest(m) + 1)
        return elbo_fail(error, ELBO_USAGE, "the model has no positions for %zu tokens; give at most %zu", o.max_length,
                         elbo_infer_longest(m) + 1);
    if (!z && elbo_infer_latent_width(m)) return elbo_fail(error, ELBO_USAGE, "the model writes from z: give its rows");
    ELBO_TRY(label_of(&o.label, m, how->label, error));
    size_t batch = generate_batch(&o), width = elbo_infer_latent_width(m);
    struct elbo_ids *ids = calloc(batch + 1, sizeof *ids);
    elbo_status status = ids ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", batch);
    for (size_t at = 0; at < count && !status; at += batch) {
        size_t rows = count - at < batch ? count - at : batch;
        o.first_row = how->first + at;
        status = generate(&m->model, ids, z ? z + at * width : NULL, rows, &o, &m->marks, error);
        for (size_t i = 0; i < rows && !status; i++)
            status = infer_decode_text(m->coder, &text[at + i], ids[i].ids, ids[i].count, error);
    }
    free_all(ids, batch);
    return status;
}

/* ---- scores ---- */

struct scoring {
    struct recording score;
    struct slot slot;
    struct slot_options options;
    float nll[SLOT_SENTENCES];
};

/* Scores the `count` sentences of one slot; `z` has their rows, or is null. */
static elbo_status score_slot(struct scoring *s, struct elbo_infer *m, double *out, const struct elbo_ids *ids,
                              size_t count, const float *z, elbo_error *error)
{
    const uint32_t *tokens[SLOT_SENTENCES];
    size_t lengths[SLOT_SENTENCES];
    struct execution run = {.seed = 0};
    for (size_t i = 0; i < count; i++) {
        tokens[i] = ids[i].ids;
        lengths[i] = ids[i].count;
    }
    ELBO_TRY(slot_fill(&s->slot, &s->options, &m->marks, tokens, lengths, count, 0, error));
    recording_bind_slot(&s->score, &s->slot, &run);
    recording_bind_input(&s->score, "z", z);
    ELBO_TRY(executor_run(&s->score.executor, &run, error));
    recording_read(&s->score, s->score.nll, s->nll, run.count);
    for (size_t i = 0; i < count; i++) out[i] = (double)s->nll[i];
    return ELBO_OK;
}

static elbo_status score_all(struct elbo_infer *m, double *out, const struct elbo_ids *ids, size_t count,
                             const float *z, int32_t label, elbo_error *error)
{
    struct scoring s = {.options = slot_of(m, label)};
    struct recording *list[] = {&s.score};
    struct graph_capacities most = {
        {[DIM_DEC_TOKENS] = s.options.decoder_tokens, [DIM_SENTENCES] = SLOT_SENTENCES, [DIM_DRAWS] = SLOT_SENTENCES}};
    size_t width = elbo_infer_latent_width(m);
    ELBO_TRY(slot_allocate(&s.slot, &s.options, error));
    elbo_status status = record_score(&s.score, &m->model.config, m->model.parameters, &most, error);
    if (!status) status = model_bind(&m->model, list, 1, NULL, error);
    for (size_t at = 0; at < count && !status; at += SLOT_SENTENCES)
        status = score_slot(&s, m, out + at, ids + at, count - at < SLOT_SENTENCES ? count - at : SLOT_SENTENCES,
                            z ? z + at * width : NULL, error);
    recording_free(&s.score, m->backend);
    slot_free(&s.slot);
    return status;
}

elbo_status elbo_infer_score(struct elbo_infer *m, const char *const *sentences, size_t count, const char *label,
                             double *reconstruction, double *kl, elbo_error *error)
{
    size_t z = elbo_infer_latent_width(m);
    struct latent own = {0};
    struct elbo_ids *ids;
    int32_t number;
    ELBO_TRY(label_of(&number, m, label, error));
    ELBO_TRY(read_all(&ids, m, sentences, count, error));
    float *stats = calloc(2 * count * z + 1, sizeof *stats), *mu = calloc(count * z + 1, sizeof *mu);
    elbo_status status = stats && mu ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for %zu posteriors", count);
    if (!status && z) status = encode(m, stats, ids, count, number, error);
    for (size_t i = 0; i < count && !status; i++) memcpy(mu + i * z, stats + 2 * i * z, z * sizeof *mu);
    if (!status && reconstruction) status = score_all(m, reconstruction, ids, count, z ? mu : NULL, number, error);
    if (!status && kl && z) status = latent_open(&own, &m->model, error);
    for (size_t i = 0; i < count && kl && !status; i++) kl[i] = z ? latent_kl(&own, stats + 2 * i * z, NULL) : 0;
    latent_close(&own);
    free(stats);
    free(mu);
    free_all(ids, count);
    return status;
}
