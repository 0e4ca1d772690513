/* Exports a model as one file of few bits (infer/file.h): chooses each tensor's type and writes the file. */
#include "export/hf.h"

#include "base/files.h"
#include "formats/bytes.h"
#include "infer/file.h"
#include "model/latent.h"

#include <stdlib.h>
#include <string.h>

static elbo_status starved(elbo_error *error)
{
    return elbo_fail(error, ELBO_MEMORY, "no memory for the head of a model's file");
}

/* ---- the type of a tensor ---- */

static enum block_type type_of(const struct parameter *p, int bits)
{
    enum infer_use use = infer_use_of(p->name);
    size_t columns = p->rank == 2 ? p->shape[1] : 0;
    if (bits == 32 || !columns || use == INFER_EXACT || columns % block_infos[BLOCK_Q8_0].values) return BLOCK_F32;
    if (bits == 8) return BLOCK_Q8_0;
    bool super = columns % block_infos[BLOCK_Q4_K].values == 0;
    if (use == INFER_TABLE) return super ? BLOCK_Q6_K : BLOCK_Q8_0;
    return super ? BLOCK_Q4_K : BLOCK_Q4_0;
}

/* ---- the head ---- */

static elbo_status add_words(struct bytes *b, const json_t *own, elbo_error *error)
{
    const json_t *words = json_object_get(own, "words");
    size_t count = json_array_size(words), at = 0;
    bytes_add32(b, (uint32_t)count);
    bytes_add32(b, 0);
    for (size_t i = 0; i < count; i++) bytes_add32(b, (uint32_t)(at += json_string_length(json_array_get(words, i))));
    for (size_t i = 0; i < count; i++)
        bytes_add(b, json_string_value(json_array_get(words, i)), json_string_length(json_array_get(words, i)));
    return at > UINT32_MAX ? elbo_fail(error, ELBO_USAGE, "its words are longer than 4 GiB together") : ELBO_OK;
}

static uint32_t id_of(const json_t *vocabulary, const char *left, const char *right)
{
    json_t *piece = json_sprintf("%s%s", left, right);
    const json_t *id = json_object_get(vocabulary, piece ? json_string_value(piece) : "");
    json_decref(piece);
    return (uint32_t)json_integer_value(id);
}

static void add_merges(struct bytes *b, const json_t *own, const json_t *vocabulary)
{
    const json_t *merges = json_object_get(own, "merges");
    bytes_add32(b, (uint32_t)json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *pair = json_array_get(merges, i);
        const char *left = json_string_value(json_array_get(pair, 0)),
                   *right = json_string_value(json_array_get(pair, 1));
        bytes_add32(b, id_of(vocabulary, left, ""));
        bytes_add32(b, id_of(vocabulary, right, ""));
        bytes_add32(b, id_of(vocabulary, left, right));
    }
}

static elbo_status add_tokenizer(struct bytes *b, const struct export_source *s, elbo_error *error)
{
    json_t *own, *vocabulary;
    bool words;
    ELBO_TRY(hf_vocabulary(&own, &vocabulary, &words, s, error));
    bool split = !words && json_array_size(json_object_get(own, "merges"));
    elbo_status status = ELBO_OK;
    bytes_add32(b, words ? INFER_WORDS : INFER_BYTES);
    bytes_add32(b, split ? INFER_GPT2 : INFER_NO_SPLIT);
    bytes_add32(b, s->marks->start);
    bytes_add32(b, s->marks->end);
    bytes_add32(b, s->marks->unknown);
    if (words)
        status = add_words(b, own, error);
    else
        add_merges(b, own, vocabulary);
    json_decref(own);
    json_decref(vocabulary);
    return status;
}

static elbo_status add_prior(struct bytes *b, const struct export_source *s, elbo_error *error)
{
    struct latent own;
    ELBO_TRY(latent_open(&own, s->model, error));
    const struct gaussians *g = s->fitted ? s->fitted : own.density;
    if (g) {
        size_t each = g->full ? g->width * g->width : g->width;
        bytes_add32(b, (uint32_t)g->count);
        bytes_add32(b, g->full);
        bytes_add(b, g->log_weight, g->count * sizeof(double));
        bytes_add(b, g->mean, g->count * g->width * sizeof(double));
        bytes_add(b, g->factor, g->count * each * sizeof(double));
    }
    latent_close(&own);
    return ELBO_OK;
}

static void add_config(struct bytes *b, const struct export_source *s)
{
    struct model_config c = s->model->config;
    size_t size = infer_config_text(NULL, 0, &c);
    char *text = malloc(size + 1);
    b->failed |= !text;
    if (text) infer_config_text(text, size + 1, &c);
    bytes_add(b, text, text ? size : 0);
    free(text);
}

/* The exported parameters, sorted by name. */
struct list {
    const struct parameter **of;
    size_t count;
};

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct parameter *const *)a)->name, (*(const struct parameter *const *)b)->name);
}

static elbo_status list_parameters(struct list *l, const struct export_source *s, elbo_error *error)
{
    size_t all = parameters_count(s->model->parameters);
    *l = (struct list){calloc(all + 1, sizeof *l->of), 0};
    if (!l->of) return starved(error);
    for (size_t i = 0; i < all; i++) {
        const struct parameter *p = parameters_get(s->model->parameters, i);
        if (!model_trains_only(p)) l->of[l->count++] = p;
    }
    qsort(l->of, l->count, sizeof *l->of, by_name);
    return ELBO_OK;
}

static uint64_t aligned(uint64_t size)
{
    return (size + INFER_ALIGNMENT - 1) / INFER_ALIGNMENT * INFER_ALIGNMENT;
}

/* Adds the tensors' entries, with data from offset `first` on; sets the end of the last tensor. */
static elbo_status add_tensors(struct bytes *b, uint64_t *end, const struct list *l, int bits, uint64_t first,
                               elbo_error *error)
{
    *end = first;
    for (size_t i = 0; i < l->count; i++) {
        const struct parameter *p = l->of[i];
        char name[INFER_NAME] = {0};
        enum block_type type = type_of(p, bits);
        if (strlen(p->name) >= sizeof name || p->rank > 2)
            return elbo_fail(error, ELBO_INTERNAL, "%s has no place in a model's file", p->name);
        memcpy(name, p->name, strlen(p->name));
        bytes_add(b, name, sizeof name);
        bytes_add32(b, type);
        bytes_add32(b, (uint32_t)p->rank);
        bytes_add64(b, p->shape[0]);
        bytes_add64(b, p->rank == 2 ? p->shape[1] : 1);
        bytes_add64(b, *end);
        *end += aligned(block_bytes(type, p->elements));
    }
    return ELBO_OK;
}

/* Adds the sections' bytes in the order of enum infer_section, each at a multiple of 8. */
static elbo_status fill_sections(struct bytes *b, size_t end_of[INFER_PRIOR + 1], const struct export_source *s,
                                 elbo_error *error)
{
    for (int kind = INFER_CONFIG; kind <= INFER_PRIOR; kind++) {
        static const unsigned char zeros[8];
        if (kind == INFER_CONFIG) add_config(b, s);
        if (kind == INFER_TOKENIZER) ELBO_TRY(add_tokenizer(b, s, error));
        for (size_t i = 0; kind == INFER_BANNED && i < s->banned->count; i++) bytes_add32(b, s->banned->ids[i]);
        for (size_t i = 0; kind == INFER_LABELS && i < s->model->config.labels; i++)
            bytes_add(b, s->labels[i], strlen(s->labels[i]) + 1);
        if (kind == INFER_PRIOR && s->model->config.latent.kind != LATENT_NONE) ELBO_TRY(add_prior(b, s, error));
        end_of[kind] = b->size;
        bytes_add(b, zeros, -b->size % sizeof zeros);
    }
    return b->failed ? starved(error) : ELBO_OK;
}

/* Makes the whole head with both checksums 0: fixed part, list of sections, sections, and last the list of tensors,
 * which holds their offsets. */
static elbo_status make_head(struct bytes *head, uint64_t *file_bytes, const struct export_source *s,
                             const struct list *l, int bits, elbo_error *error)
{
    static const unsigned char zeros[INFER_ALIGNMENT];
    struct bytes parts = {0}, tensors = {0};
    size_t end_of[INFER_PRIOR + 1] = {0}, start = 0, at = INFER_HEAD + INFER_PRIOR * INFER_SECTION_BYTES;
    elbo_status status = fill_sections(&parts, end_of, s, error);
    size_t list_at = at + parts.size, head_bytes = (size_t)aligned(list_at + l->count * INFER_TENSOR_BYTES);
    if (!status) status = add_tensors(&tensors, file_bytes, l, bits, head_bytes, error);
    if (!status) {
        bytes_add(head, "elbo-inf", 8);
        bytes_add32(head, INFER_VERSION);
        bytes_add32(head, INFER_PRIOR);
        bytes_add64(head, *file_bytes);
        bytes_add64(head, head_bytes);
        bytes_add64(head, 0);
        bytes_add64(head, 0);
        for (uint32_t kind = INFER_CONFIG; kind <= INFER_PRIOR; kind++) {
            bool own = kind == INFER_TENSORS, none = kind == INFER_PRIOR && end_of[kind] == start;
            bytes_add32(head, none ? 0 : kind);
            bytes_add32(head, 0);
            bytes_add64(head, own ? list_at : at + start);
            bytes_add64(head, own ? tensors.size : end_of[kind] - start);
            start = (end_of[kind] + 7) / 8 * 8;
        }
        bytes_add(head, parts.at, parts.size);
        bytes_add(head, tensors.at, tensors.size);
        bytes_add(head, zeros, head_bytes - head->size);
        if (head->failed || tensors.failed) status = starved(error);
    }
    bytes_free(&parts);
    bytes_free(&tensors);
    return status;
}

/* ---- tensors ---- */

/* A piece of a tensor that threads round; each run of blocks is one task. */
struct piece {
    enum block_type type;
    unsigned char *to;
    const float *from;
    size_t count, each; /* values of the piece; values of a run */
};

static void round_run(void *context, size_t run, size_t worker)
{
    (void)worker;
    const struct piece *p = context;
    size_t at = run * p->each, now = p->count - at < p->each ? p->count - at : p->each;
    block_quantize(p->type, p->to + block_bytes(p->type, at), p->from + at, now);
}

static void round_piece(struct backend *backend, enum block_type type, unsigned char *to, const float *from,
                        size_t count)
{
    enum { BLOCKS = 64 };
    struct piece p = {type, to, from, count, BLOCKS * block_infos[type].values};
    backend_host_run(backend, (count + p.each - 1) / p.each, round_run, &p);
}

/* Writes the rows of a parameter, some at a time, and zeros up to the alignment. */
static elbo_status write_tensor(struct file_writer *w, uint64_t *sum, const struct export_source *s,
                                const struct parameter *p, enum block_type type, elbo_error *error)
{
    enum { MOST = 1 << 20, ROWS = 8 }; /* values at a time; ROWS rows have a multiple of 8 bytes (infer_sum) */
    size_t row = p->rank == 2 ? p->shape[1] : p->elements, some = (MOST / row / ROWS + 1) * ROWS * row, total = 0;
    if (some > p->elements) some = p->elements;
    unsigned char *blocks = calloc(1, block_bytes(type, some) + INFER_ALIGNMENT);
    const float *values = s->model->weights + p->offset;
    elbo_status status = blocks ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to round %s", p->name);
    for (size_t at = 0; at < p->elements && !status; at += some) {
        size_t now = p->elements - at < some ? p->elements - at : some, size = block_bytes(type, now);
        round_piece(s->model->backend, type, blocks, values + at, now);
        total += size;
        if (at + now == p->elements) { /* the last piece, followed by zeros */
            size_t gap = (size_t)(aligned(total) - total);
            memset(blocks + size, 0, gap);
            size += gap;
        }
        *sum = infer_sum_more(*sum, blocks, size);
        status = file_append(w, blocks, size, error);
    }
    free(blocks);
    return status;
}

static elbo_status write_file(struct file_writer *w, const struct export_source *s, const struct list *l, int bits,
                              elbo_error *error)
{
    struct bytes head = {0};
    uint64_t size = 0, sum;
    elbo_status status = make_head(&head, &size, s, l, bits, error);
    if (!status) status = file_append(w, head.at, head.size, error);
    sum = size - head.size;
    for (size_t i = 0; i < l->count && !status; i++)
        status = write_tensor(w, &sum, s, l->of[i], type_of(l->of[i], bits), error);
    if (!status) {
        memcpy(head.at + INFER_REST_AT, &sum, sizeof sum);
        sum = infer_head_sum(head.at, head.size);
        memcpy(head.at + INFER_SUM_AT, &sum, sizeof sum);
        status = file_patch(w, 0, head.at, head.size, error);
    }
    bytes_free(&head);
    return status;
}

static elbo_status write_bits(const struct export_source *s, const char *folder, int bits, elbo_error *error)
{
    char path[FILES_PATH];
    struct file_writer writer;
    struct list l;
    ELBO_TRY(list_parameters(&l, s, error));
    elbo_status status = file_join(path, folder, "model.elbo", error);
    if (!status) status = file_create(&writer, path, error);
    if (!status) {
        status = write_file(&writer, s, &l, bits, error);
        if (!status) status = file_seal(&writer, error);
        file_abort(&writer);
    }
    free(l.of);
    return status;
}

static elbo_status write_as(const struct export_source *s, const char *folder, int bits, elbo_error *error)
{
    static const char use[] =
        "elbo-infer DIR/model.elbo reconstruct < sentences.txt\n"
        "elbo eval RUN --weights=DIR/model.elbo --data.test=corpus/test    # what the rounding costs\n";
    ELBO_TRY(write_bits(s, folder, bits, error));
    return hf_card(s, folder, "elbo", "text-generation", use, error);
}

static elbo_status write32(const struct export_source *s, const struct export_options *o, const char *folder,
                           elbo_error *error)
{
    (void)o;
    return write_as(s, folder, 32, error);
}

static elbo_status write8(const struct export_source *s, const struct export_options *o, const char *folder,
                          elbo_error *error)
{
    (void)o;
    return write_as(s, folder, 8, error);
}

static elbo_status write4(const struct export_source *s, const struct export_options *o, const char *folder,
                          elbo_error *error)
{
    (void)o;
    return write_as(s, folder, 4, error);
}

static elbo_status check(const struct export_source *s, const struct export_options *o, elbo_error *error)
{
    (void)s;
    if (o->part != EXPORT_WHOLE)
        return elbo_fail(error, ELBO_USAGE, "--part belongs to --format=hf; f32, q8 and q4 hold the whole model");
    if (o->check)
        return elbo_fail(error, ELBO_USAGE,
                         "--check belongs to --format=hf, onnx and gguf; elbo eval --weights=FILE measures what is in "
                         "a file of f32, q8 or q4");
    return ELBO_OK;
}

const struct export_format export_f32 = {.name = "f32", .check = check, .write = write32},
                           export_q8 = {.name = "q8", .check = check, .write = write8},
                           export_q4 = {.name = "q4", .check = check, .write = write4};
