/* Exports a decoder for llama.cpp: model.gguf of the architecture gpt2 or llama, in f32. z comes in behind blocks, as a
 * control vector, or as rows that a program computes (elbo-latent.safetensors) and gives in the place of tokens. */
#include "formats/gguf.h"
#include "base/files.h"
#include "export/hf.h"
#include "export/part.h"
#include "model/stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static elbo_status to_file(void *context, const void *bytes, size_t size, elbo_error *error)
{
    return file_append(context, bytes, size, error);
}

static elbo_status write_file(const struct gguf *g, const struct safetensors_tensor *tensors, size_t count,
                              const char *folder, const char *name, elbo_error *error)
{
    char path[FILES_PATH];
    struct file_writer writer;
    ELBO_TRY(file_join(path, folder, name, error));
    ELBO_TRY(file_create(&writer, path, error));
    struct sink sink = {to_file, &writer};
    elbo_status status = gguf_write(&sink, g, tensors, count, error);
    if (!status) status = file_seal(&writer, error);
    file_abort(&writer);
    return status;
}

static const char *architecture(const struct model *m)
{
    return part_is_llama(&m->config.decoder) ? "llama" : "gpt2";
}

/* ---- tensors ---- */

static elbo_status gpt2_tensors(struct part *p, elbo_error *error)
{
    static const struct pair layers[] = {{"attn_norm", "attention.norm"},     {"attn_qkv", "attention.qkv"},
                                         {"attn_output", "attention.output"}, {"ffn_norm", "feed_forward.norm"},
                                         {"ffn_up", "feed_forward.input"},    {"ffn_down", "feed_forward.output"}};
    ELBO_TRY(part_keep(p, "position_embd.weight", "decoder.embedding.position.weight", error));
    return part_each_layer(p, "blk", "decoder", layers, sizeof layers / sizeof *layers, part_keep_both, error);
}

/* Keeps the rows of `heads` heads in llama.cpp's order: it rotates neighbors 2i and 2i + 1 of a head, and elbo rotates
 * i and i + W / 2. */
static elbo_status keep_turned_rows(struct part *p, const char *to, const char *from, size_t first, size_t heads,
                                    elbo_error *error)
{
    const struct parameter *parameter;
    const float *w = export_weights(p->s, &parameter, "%s", from);
    size_t width = p->c->width / p->c->heads, columns = w ? parameter->shape[1] : 0;
    float *out;
    if (!w) return elbo_fail(error, ELBO_INTERNAL, "the model has no tensor %s", from);
    ELBO_TRY(export_tensors_make(&p->t, &out, to, heads * width, columns, error));
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < width; i++) {
            size_t row = first + h * width + (i % 2) * (width / 2) + i / 2;
            memcpy(out + (h * width + i) * columns, w + row * columns, columns * sizeof *out);
        }
    return ELBO_OK;
}

static elbo_status llama_layer(struct part *p, size_t layer, elbo_error *error)
{
    size_t kv = part_kv_heads(p->c), head = p->c->width / p->c->heads, q = p->c->width, f = part_ff_width(p->c);
    char qkv[PART_NAME], input[PART_NAME], to[PART_NAME];
    snprintf(qkv, sizeof qkv, "decoder.%zu.attention.qkv.weight", layer);
    snprintf(input, sizeof input, "decoder.%zu.feed_forward.input.weight", layer);
    const struct {
        const char *to, *from;
        size_t first, rows, heads; /* heads: reorder the rows of so many heads; 0: keep them */
    } pieces[] = {{"attn_q", qkv, 0, q, p->c->heads},
                  {"attn_k", qkv, q, kv * head, kv},
                  {"attn_v", qkv, q + kv * head, kv * head, 0},
                  {"ffn_gate", input, 0, f, 0},
                  {"ffn_up", input, f, f, 0}};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        snprintf(to, sizeof to, "blk.%zu.%s.weight", layer, pieces[i].to);
        if (pieces[i].heads)
            ELBO_TRY(keep_turned_rows(p, to, pieces[i].from, pieces[i].first, pieces[i].heads, error));
        else
            ELBO_TRY(part_keep_rows(p, to, pieces[i].from, pieces[i].first, pieces[i].rows, error));
    }
    return ELBO_OK;
}

static elbo_status llama_tensors(struct part *p, elbo_error *error)
{
    static const struct pair whole[] = {{"attn_norm", "attention.norm"},
                                        {"attn_output", "attention.output"},
                                        {"ffn_norm", "feed_forward.norm"},
                                        {"ffn_down", "feed_forward.output"}};
    for (size_t layer = 0; layer < p->c->layers; layer++) ELBO_TRY(llama_layer(p, layer, error));
    return part_each_layer(p, "blk", "decoder", whole, sizeof whole / sizeof *whole, part_keep_both, error);
}

static elbo_status tensors(struct part *p, elbo_error *error)
{
    ELBO_TRY(part_keep(p, "token_embd.weight", "decoder.embedding.token.weight", error));
    ELBO_TRY(part_is_llama(p->c) ? llama_tensors(p, error) : gpt2_tensors(p, error));
    ELBO_TRY(part_keep_both(p, "output_norm", "decoder.norm", error));
    if (p->s->model->config.tie_output) return ELBO_OK;
    return part_keep(p, "output.weight", "decoder.output.weight", error);
}

/* ---- keys ---- */

static void text(struct gguf *g, const char *key, const char *words)
{
    gguf_text(g, key, words, strlen(words));
}

/* Writes a key such as "gpt2.context_length". */
static const char *own(char key[64], const char *arch, const char *what)
{
    snprintf(key, 64, "%s.%s", arch, what);
    return key;
}

static void sizes(struct gguf *g, const struct export_source *s, const char *arch)
{
    const struct model_config *m = &s->model->config;
    const struct stack_config *c = &m->decoder;
    bool llama = part_is_llama(c);
    const struct {
        const char *key;
        size_t value;
    } numbers[] = {{"context_length", m->positions + stack_prefix(m)},
                   {"embedding_length", c->width},
                   {"feed_forward_length", part_ff_width(c)},
                   {"block_count", c->layers},
                   {"attention.head_count", c->heads},
                   {"vocab_size", m->vocabulary},
                   {"attention.head_count_kv", part_kv_heads(c)},
                   {"rope.dimension_count", c->width / c->heads}};
    char key[64];
    for (size_t i = 0; i < (llama ? 8 : 6); i++)
        gguf_unsigned(g, own(key, arch, numbers[i].key), (uint32_t)numbers[i].value);
    gguf_real(g, own(key, arch, llama ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"), 1e-5f);
    if (llama) gguf_real(g, "llama.rope.freq_base", 10000);
}

/* Writes keys that tell programs how z comes in. */
static void latent(struct gguf *g, const struct export_source *s)
{
    const struct model_config *m = &s->model->config;
    char ways[96];
    if (m->latent.kind == LATENT_NONE) return;
    stack_injection_text(ways, sizeof ways, stack_injection(&m->decoder, m->latent.injection));
    text(g, "elbo.latent.injection", ways);
    gguf_unsigned(g, "elbo.latent.width", (uint32_t)m->latent.width);
    gguf_unsigned(g, "elbo.latent.prefix", (uint32_t)stack_prefix(m));
}

static void marks(struct gguf *g, const struct export_source *s)
{
    gguf_unsigned(g, "tokenizer.ggml.bos_token_id", s->marks->start);
    gguf_unsigned(g, "tokenizer.ggml.eos_token_id", s->marks->end);
    gguf_unsigned(g, "tokenizer.ggml.padding_token_id", s->marks->end);
}

static elbo_status starved(elbo_error *error)
{
    return elbo_fail(error, ELBO_MEMORY, "no memory for the vocabulary");
}

/* Writes the pieces by id. An id without text (a merge that made an earlier piece again) is an unused token. */
static elbo_status pieces(struct gguf *g, const json_t *vocabulary, size_t count, const struct export_source *s,
                          elbo_error *error)
{
    enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, UNUSED = 5 };
    const char **piece = calloc(count, sizeof *piece);
    size_t *size = calloc(count, sizeof *size);
    int32_t *type = calloc(count, sizeof *type);
    const char *key;
    size_t length;
    json_t *id;
    elbo_status status = piece && size && type ? ELBO_OK : starved(error);
    json_object_keylen_foreach((json_t *)vocabulary, key, length, id)
    {
        size_t at = (size_t)json_integer_value(id);
        if (status || at >= count) continue;
        piece[at] = key;
        size[at] = length;
    }
    if (!status) gguf_texts(g, "tokenizer.ggml.tokens", count);
    for (size_t i = 0; i < count && !status; i++) {
        char unused[32];
        bool mark = i == s->marks->start || i == s->marks->end;
        type[i] = !piece[i] ? UNUSED : mark ? CONTROL : i == s->marks->unknown ? UNKNOWN : NORMAL;
        snprintf(unused, sizeof unused, "[unused %zu]", i);
        gguf_item(g, piece[i] ? piece[i] : unused, piece[i] ? size[i] : strlen(unused));
    }
    if (!status) gguf_integers(g, "tokenizer.ggml.token_type", type, count);
    free(piece);
    free(size);
    free(type);
    return status;
}

static elbo_status merges(struct gguf *g, const json_t *list, elbo_error *error)
{
    gguf_texts(g, "tokenizer.ggml.merges", json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        char *words;
        if (asprintf(&words, "%s %s", json_string_value(json_array_get(pair, 0)),
                     json_string_value(json_array_get(pair, 1))) < 0)
            return starved(error);
        gguf_item(g, words, strlen(words));
        free(words);
    }
    return ELBO_OK;
}

/* Writes byte-level BPE with GPT-2's expression, or no vocabulary for words, because llama.cpp has no tokenizer of
 * words. */
static elbo_status tokenizer(struct gguf *g, const struct export_source *s, elbo_error *error)
{
    json_t *ours, *vocabulary;
    bool words;
    ELBO_TRY(hf_vocabulary(&ours, &vocabulary, &words, s, error));
    elbo_status status = ELBO_OK;
    if (words) {
        text(g, "tokenizer.ggml.model", "no_vocab");
    } else {
        text(g, "tokenizer.ggml.model", "gpt2");
        text(g, "tokenizer.ggml.pre", "gpt-2");
        status = pieces(g, vocabulary, s->model->config.vocabulary, s, error);
        if (!status) status = merges(g, json_object_get(ours, "merges"), error);
        gguf_truth(g, "tokenizer.ggml.add_bos_token", true);
        gguf_truth(g, "tokenizer.ggml.add_eos_token", false);
    }
    marks(g, s);
    json_decref(ours);
    json_decref(vocabulary);
    return status;
}

static elbo_status write_model(const struct export_source *s, const char *folder, elbo_error *error)
{
    struct part p = {.s = s, .c = &s->model->config.decoder, .stack = "decoder"};
    struct gguf g = {0};
    const char *arch = architecture(s->model);
    text(&g, "general.architecture", arch);
    text(&g, "general.name", s->name);
    gguf_unsigned(&g, "general.file_type", 0);
    sizes(&g, s, arch);
    latent(&g, s);
    export_tensors_begin(&p.t, s);
    elbo_status status = tokenizer(&g, s, error);
    if (!status) status = tensors(&p, error);
    if (!status) status = write_file(&g, p.t.tensors, p.t.count, folder, "model.gguf", error);
    export_tensors_free(&p.t);
    gguf_free(&g);
    return status;
}

/* ---- control vectors ---- */

elbo_status export_control_vector_check(const struct model *m, elbo_error *error)
{
    unsigned ways =
        m->config.latent.kind == LATENT_NONE ? 0 : stack_injection(&m->config.decoder, m->config.latent.injection);
    char text_of[96];
    stack_injection_text(text_of, sizeof text_of, ways & ~(unsigned)INJECT_RESIDUAL);
    if (!(ways & INJECT_RESIDUAL))
        return elbo_fail(
            error, ELBO_USAGE,
            "--format=cvec: a control vector is added behind blocks, and z comes in by %s here; train with "
            "--latent.injection=residual",
            ways ? text_of : "no way");
    if (ways != INJECT_RESIDUAL || m->config.latent.skip)
        return elbo_fail(error, ELBO_USAGE,
                         "--format=cvec: z also comes in by %s, which a control vector cannot carry; train with "
                         "--latent.injection=residual alone",
                         *text_of ? text_of : "latent.skip");
    return ELBO_OK;
}

elbo_status export_control_vector(const struct model *m, const float *z, const char *folder, const char *name,
                                  elbo_error *error)
{
    const struct model_config *c = &m->config;
    size_t layers = c->decoder.layers, d = c->decoder.width, k = c->latent.width;
    struct gguf g = {0};
    struct safetensors_tensor *t = calloc(layers, sizeof *t);
    float *rows = calloc(layers * d, sizeof *rows);
    char(*names)[32] = calloc(layers, sizeof *names);
    const struct export_source s = {.model = (struct model *)m};
    elbo_status status = t && rows && names ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for a control vector");
    for (size_t layer = 1; layer < layers && !status; layer++) {
        const struct parameter *p;
        const float *w = export_weights(&s, &p, "decoder.%zu.residual.weight", layer);
        if (!w) {
            status = elbo_fail(error, ELBO_INTERNAL, "the model has no decoder.%zu.residual.weight", layer);
            break;
        }
        for (size_t i = 0; i < d; i++) {
            double sum = 0;
            for (size_t j = 0; j < k; j++) sum += (double)w[i * k + j] * (double)z[j];
            rows[layer * d + i] = (float)sum;
        }
        snprintf(names[layer], sizeof names[layer], "direction.%zu", layer);
        t[layer] = (struct safetensors_tensor){
            .name = names[layer], .dtype = SAFETENSORS_F32, .rank = 1, .shape = {d}, .data = rows + layer * d};
    }
    if (!status) {
        text(&g, "general.architecture", "controlvector");
        text(&g, "controlvector.model_hint", architecture(m));
        gguf_integer(&g, "controlvector.layer_count", (int32_t)layers - 1);
        status = write_file(&g, t + 1, layers - 1, folder, name, error);
    }
    gguf_free(&g);
    free(t);
    free(rows);
    free(names);
    return status;
}

/* ---- the format ---- */

static elbo_status check(const struct export_source *s, const struct export_options *o, elbo_error *error)
{
    if (o->part != EXPORT_WHOLE)
        return elbo_fail(error, ELBO_USAGE, "--part belongs to --format=hf; --format=gguf has the decoder alone");
    if (s->model->config.latent.kind != LATENT_NONE && s->model->config.latent.skip)
        return elbo_fail(error, ELBO_USAGE,
                         "--format=gguf: latent.skip adds z in front of every layer and of the output layer, and "
                         "llama.cpp has no place for that; use --format=hf or --format=onnx");
    return part_check_decoder(s, "--format=gguf",
                              "llama.cpp takes z from latent.injection=residual, prefix or embedding; --format=hf and "
                              "--format=onnx take every model",
                              error);
}

static const char use[] =
    "# z behind blocks (latent.injection=residual): elbo encode RUN --format=cvec --out=vectors < sentences.txt\n"
    "# llama-cli -m model.gguf --control-vector vectors/sentence-000001.gguf\n"
    "# rows in front (prefix) and added vectors (embedding): elbo-latent.safetensors; check/check_gguf.py is an "
    "example.\n";

static elbo_status write(const struct export_source *s, const struct export_options *o, const char *folder,
                         elbo_error *error)
{
    (void)o;
    ELBO_TRY(write_model(s, folder, error));
    ELBO_TRY(part_write_additions(s, folder, error));
    ELBO_TRY(export_facts(s, folder, error));
    ELBO_TRY(hf_tokenizer(s, folder, error));
    return hf_card(s, folder, "gguf", "text-generation", use, error);
}

const struct export_format export_gguf = {.name = "gguf", .check = check, .write = write};
