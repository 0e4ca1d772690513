/* Computes and writes the model's own figures for comparing an export with it: see reference.h. */
#include "export/reference.h"

#include "base/files.h"
#include "export/format.h"
#include "model/generate.h"
#include "model/stack.h"

#include <stdlib.h>
#include <string.h>

struct reference {
    const struct export_source *s;
    struct model *model;
    const struct elbo_ids *sentences;
    size_t count, with_logits, rows; /* rows of logits */
    float *stats, *mu, *logits;      /* (n, 2Z), (n, Z), (rows, V) */
    struct elbo_ids *greedy;         /* (n) */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t length_of(const struct reference *r, size_t i)
{
    return least(r->sentences[i].count, r->s->max_length);
}

static elbo_status encode(struct reference *r, elbo_error *error)
{
    size_t width = r->model->config.latent.width, tokens = r->s->max_length + 2;
    struct slot_options slots = {.slots = 1,
                                 .encoder_tokens = tokens * 4,
                                 .decoder_tokens = tokens * 4,
                                 .max_length = r->s->max_length,
                                 .too_long = SLOT_TRUNCATE};
    if (r->model->config.latent.kind == LATENT_NONE) return ELBO_OK;
    ELBO_TRY(encode_sentences(r->model, r->stats, r->sentences, r->count, &slots, r->s->marks, error));
    for (size_t i = 0; i < r->count; i++) memcpy(r->mu + i * width, r->stats + i * 2 * width, width * sizeof *r->mu);
    return ELBO_OK;
}

/* Computes the logits of the first sentences; each step reads the sentence's own words. */
static elbo_status teach(struct reference *r, struct recording *step, elbo_error *error)
{
    int32_t ids[REFERENCE_LOGITS], position[REFERENCE_LOGITS], label[REFERENCE_LOGITS] = {0};
    size_t n = r->with_logits, v = r->model->config.vocabulary, longest = 0, first[REFERENCE_LOGITS] = {0};
    float *now = malloc(n * v * sizeof *now + 1);
    for (size_t i = 0; i < n; i++) {
        first[i] = i ? first[i - 1] + length_of(r, i - 1) + 1 : 0;
        longest = longest < length_of(r, i) ? length_of(r, i) : longest;
    }
    elbo_status status = now ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the logits of %zu sentences", n);
    recording_bind_input(step, "ids", ids);
    recording_bind_input(step, "position", position);
    recording_bind_input(step, "label", label);
    if (r->model->config.latent.kind != LATENT_NONE) recording_bind_input(step, "z", r->mu);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)r->s->marks->start;
    if (!status) status = generate_prefix(r->model, step, position, n, error);
    for (size_t at = 0; at <= longest && !status; at++) {
        struct execution run = {.count = {[DIM_DRAWS] = n}};
        for (size_t i = 0; i < n; i++) {
            size_t word = at ? least(at, length_of(r, i)) : 0;
            ids[i] = word ? (int32_t)r->sentences[i].ids[word - 1] : (int32_t)r->s->marks->start;
            position[i] = (int32_t)(stack_prefix(&r->model->config) + at);
        }
        status = executor_run(&step->executor, &run, error);
        if (status) break;
        recording_read(step, step->logits, now, run.count);
        for (size_t i = 0; i < n; i++)
            if (at <= length_of(r, i)) memcpy(r->logits + (first[i] + at) * v, now + i * v, v * sizeof *now);
    }
    free(now);
    return status;
}

static elbo_status decode(struct reference *r, elbo_error *error)
{
    struct recording step = {0}, *list[] = {&step};
    struct model *m = r->model;
    struct generate_options o = {
        .max_length = r->s->max_length, .greedy = true, .never = r->s->banned->ids, .never_count = r->s->banned->count};
    const float *z = m->config.latent.kind == LATENT_NONE ? NULL : r->mu;
    size_t room = r->s->max_length + 1 + stack_prefix(&m->config);
    ELBO_TRY(record_step(&step, &m->config, m->parameters, r->with_logits, room, false, error));
    elbo_status status = model_bind(m, list, 1, NULL, error);
    if (!status) status = teach(r, &step, error);
    recording_free(&step, m->backend);
    return status ? status : generate(m, r->greedy, z, r->count, &o, r->s->marks, error);
}

/* ---- files ---- */

/* Joins sentences one behind the other: *ids, and *offsets (count + 1). The caller frees both. */
static elbo_status join(int32_t **ids, int32_t **offsets, const struct elbo_ids *of, size_t count, size_t most,
                        elbo_error *error)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += least(of[i].count, most);
    *ids = malloc(total * sizeof **ids + 1);
    *offsets = calloc(count + 1, sizeof **offsets);
    if (!*ids || !*offsets) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", count);
    for (size_t i = 0; i < count; i++) {
        size_t length = least(of[i].count, most), at = (size_t)(*offsets)[i];
        for (size_t j = 0; j < length; j++) (*ids)[at + j] = (int32_t)of[i].ids[j];
        (*offsets)[i + 1] = (int32_t)(at + length);
    }
    return ELBO_OK;
}

static elbo_status to_file(void *context, const void *bytes, size_t size, elbo_error *error)
{
    return file_append(context, bytes, size, error);
}

static elbo_status write_tensors(const struct reference *r, const char *folder, elbo_error *error)
{
    enum { IDS, OFFSETS, GREEDY, GREEDY_OFFSETS, WORDS };
    static const char *const names[] = {"ids", "offsets", "greedy", "greedy_offsets"};
    int32_t *words[WORDS] = {0};
    char path[FILES_PATH];
    struct file_writer writer;
    size_t z = r->model->config.latent.kind == LATENT_NONE ? 0 : r->model->config.latent.width, count = WORDS;
    struct safetensors_tensor t[WORDS + 3];
    float *logvar = malloc(r->count * z * sizeof *logvar + 1);
    elbo_status status = logvar ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", r->count);
    if (!status) status = join(&words[IDS], &words[OFFSETS], r->sentences, r->count, r->s->max_length, error);
    if (!status) status = join(&words[GREEDY], &words[GREEDY_OFFSETS], r->greedy, r->count, SIZE_MAX, error);
    for (size_t i = 0; i < WORDS && !status; i++) {
        size_t rows = i % 2 ? r->count + 1 : (size_t)words[i + 1][r->count];
        t[i] = (struct safetensors_tensor){
            .name = names[i], .dtype = SAFETENSORS_I32, .rank = 1, .shape = {rows}, .data = words[i]};
    }
    for (size_t i = 0; i < r->count * z && !status; i++) logvar[i] = r->stats[(i / z * 2 + 1) * z + i % z];
    t[count++] = (struct safetensors_tensor){.name = "logits",
                                             .dtype = SAFETENSORS_F32,
                                             .rank = 2,
                                             .shape = {r->rows, r->model->config.vocabulary},
                                             .data = r->logits};
    if (z)
        t[count++] = (struct safetensors_tensor){
            .name = "mu", .dtype = SAFETENSORS_F32, .rank = 2, .shape = {r->count, z}, .data = r->mu};
    if (z)
        t[count++] = (struct safetensors_tensor){
            .name = "logvar", .dtype = SAFETENSORS_F32, .rank = 2, .shape = {r->count, z}, .data = logvar};
    if (!status) status = file_join(path, folder, "reference.safetensors", error);
    if (!status) status = file_create(&writer, path, error);
    if (!status) {
        status = safetensors_write(&(struct sink){to_file, &writer}, t, count, NULL, 0, error);
        if (!status) status = file_seal(&writer, error);
        file_abort(&writer);
    }
    for (size_t i = 0; i < WORDS; i++) free(words[i]);
    free(logvar);
    return status;
}

/* Adds the text of some ids; null if the text does not give the ids back, for example when a sentence was cut within a
 * character. */
static elbo_status text_of(json_t *list, struct elbo_tokenizer *tokenizer, const struct elbo_ids *ids, size_t length,
                           bool back, elbo_error *error)
{
    struct elbo_text text = {0}, clean = {0};
    struct elbo_ids again = {0};
    size_t replaced, first;
    elbo_status status = elbo_tokenizer_decode(tokenizer, &text, ids->ids, length, error);
    if (!status) status = elbo_text_repair(&clean, &replaced, &first, text.text ? text.text : "", text.size, error);
    if (!status && back)
        status = elbo_tokenizer_encode(tokenizer, &again, clean.text ? clean.text : "", clean.size, error);
    bool same =
        !back || (again.count == length && (!length || !memcmp(again.ids, ids->ids, length * sizeof *again.ids)));
    if (!status &&
        json_array_append_new(list, same ? json_stringn(clean.text ? clean.text : "", clean.size) : json_null()))
        status = elbo_fail(error, ELBO_MEMORY, "no memory for the sentences to compare");
    elbo_text_free(&text);
    elbo_text_free(&clean);
    elbo_ids_free(&again);
    return status;
}

static elbo_status write_texts(const struct reference *r, struct elbo_tokenizer *tokenizer, const char *folder,
                               elbo_error *error)
{
    json_t *text = json_array(), *greedy = json_array();
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < r->count && !status; i++) {
        status = text_of(text, tokenizer, &r->sentences[i], length_of(r, i), true, error);
        if (!status) status = text_of(greedy, tokenizer, &r->greedy[i], r->greedy[i].count, false, error);
    }
    if (!status)
        return export_json(folder, "reference.json",
                           json_pack("{s:o, s:o, s:i, s:I}", "text", text, "greedy", greedy, "label", 0, "logits_of",
                                     (json_int_t)r->with_logits),
                           error);
    json_decref(text);
    json_decref(greedy);
    return status;
}

elbo_status export_reference(const struct export_source *s, struct elbo_tokenizer *tokenizer,
                             const struct elbo_ids *sentences, size_t count, const char *folder, elbo_error *error)
{
    struct model *m = s->model;
    struct reference r = {.s = s, .model = m, .sentences = sentences, .count = count};
    size_t z = m->config.latent.width;
    r.with_logits = least(count, REFERENCE_LOGITS);
    for (size_t i = 0; i < r.with_logits; i++) r.rows += length_of(&r, i) + 1;
    r.stats = calloc(count * 2 * z + 1, sizeof *r.stats);
    r.mu = calloc(count * z + 1, sizeof *r.mu);
    r.logits = calloc(r.rows * m->config.vocabulary + 1, sizeof *r.logits);
    r.greedy = calloc(count + 1, sizeof *r.greedy);
    elbo_status status = r.stats && r.mu && r.logits && r.greedy
                             ? ELBO_OK
                             : elbo_fail(error, ELBO_MEMORY, "no memory to compare %zu sentences", count);
    if (!status) status = encode(&r, error);
    if (!status) status = decode(&r, error);
    if (!status) status = write_tensors(&r, folder, error);
    if (!status) status = write_texts(&r, tokenizer, folder, error);
    for (size_t i = 0; i < count && r.greedy; i++) elbo_ids_free(&r.greedy[i]);
    free(r.greedy);
    free(r.logits);
    free(r.mu);
    free(r.stats);
    return status;
}
