/* Exports one stack of a model under the names of a known architecture, without code of its own.
 *
 *   decoder   GPT2LMHeadModel: pre-norm, layer norm, learned positions, gelu, as many key heads as heads
 *             LlamaForCausalLM: pre-norm, RMS norm, rotary positions, swiglu
 *   encoder   BertModel: post-norm, layer norm, a norm behind the embeddings, learned positions, gelu; with
 *             sentence-transformers' modules behind it: pooling, then mu's rows as a dense layer
 *
 * The additions of z and labels to a decoder's rows are in elbo-latent.safetensors beside it, under elbo's names. */
#include "export/hf.h"
#include "export/part.h"

#include "base/files.h"
#include "model/latent.h"
#include "model/stack.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the decoder ---- */

static elbo_status gpt2_tensors(struct part *p, elbo_error *error)
{
    static const struct pair norms[] = {{"ln_1", "attention.norm"}, {"ln_2", "feed_forward.norm"}},
                             layers[] = {{"attn.c_attn", "attention.qkv"},
                                         {"attn.c_proj", "attention.output"},
                                         {"mlp.c_fc", "feed_forward.input"},
                                         {"mlp.c_proj", "feed_forward.output"}};
    ELBO_TRY(part_keep(p, "transformer.wte.weight", "decoder.embedding.token.weight", error));
    ELBO_TRY(part_keep(p, "transformer.wpe.weight", "decoder.embedding.position.weight", error));
    ELBO_TRY(part_each_layer(p, "transformer.h", "decoder", norms, 2, part_keep_both, error));
    ELBO_TRY(part_each_layer(p, "transformer.h", "decoder", layers, 4, part_keep_turned, error));
    return part_keep_both(p, "transformer.ln_f", "decoder.norm", error);
}

static json_t *gpt2_config(const struct part *p)
{
    const struct export_source *s = p->s;
    const struct parameter *positions;
    export_weights(s, &positions, "decoder.embedding.position.weight");
    return json_pack(
        "{s:s, s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:b, s:f, s:f, s:f, s:I, s:I}", "model_type", "gpt2",
        "architectures", "GPT2LMHeadModel", "torch_dtype", "float32", "vocab_size",
        (json_int_t)s->model->config.vocabulary, "n_positions", (json_int_t)(positions ? positions->shape[0] : 0),
        "n_embd", (json_int_t)p->c->width, "n_layer", (json_int_t)p->c->layers, "n_head", (json_int_t)p->c->heads,
        "n_inner", (json_int_t)part_ff_width(p->c), "activation_function", "gelu_new", "layer_norm_epsilon", 1e-5,
        "tie_word_embeddings", (int)s->model->config.tie_output, "resid_pdrop", 0.0, "embd_pdrop", 0.0, "attn_pdrop",
        0.0, "bos_token_id", (json_int_t)s->marks->start, "eos_token_id", (json_int_t)s->marks->end);
}

static elbo_status llama_layer(struct part *p, size_t layer, elbo_error *error)
{
    size_t head = p->c->width / p->c->heads, q = p->c->heads * head, kv = part_kv_heads(p->c) * head,
           f = part_ff_width(p->c);
    const struct {
        const char *to, *from;
        size_t first, rows;
    } pieces[] = {{"self_attn.q_proj", "attention.qkv", 0, q},
                  {"self_attn.k_proj", "attention.qkv", q, kv},
                  {"self_attn.v_proj", "attention.qkv", q + kv, kv},
                  {"mlp.gate_proj", "feed_forward.input", 0, f},
                  {"mlp.up_proj", "feed_forward.input", f, f}};
    char to[PART_NAME], from[PART_NAME];
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        snprintf(to, sizeof to, "model.layers.%zu.%s.weight", layer, pieces[i].to);
        snprintf(from, sizeof from, "decoder.%zu.%s.weight", layer, pieces[i].from);
        ELBO_TRY(part_keep_rows(p, to, from, pieces[i].first, pieces[i].rows, error));
    }
    return ELBO_OK;
}

static elbo_status llama_tensors(struct part *p, elbo_error *error)
{
    static const struct pair whole[] = {{"input_layernorm", "attention.norm"},
                                        {"self_attn.o_proj", "attention.output"},
                                        {"post_attention_layernorm", "feed_forward.norm"},
                                        {"mlp.down_proj", "feed_forward.output"}};
    ELBO_TRY(part_keep(p, "model.embed_tokens.weight", "decoder.embedding.token.weight", error));
    for (size_t layer = 0; layer < p->c->layers; layer++) ELBO_TRY(llama_layer(p, layer, error));
    ELBO_TRY(part_each_layer(p, "model.layers", "decoder", whole, 4, part_keep_both, error));
    return part_keep_both(p, "model.norm", "decoder.norm", error);
}

static json_t *llama_config(const struct part *p)
{
    const struct export_source *s = p->s;
    return json_pack(
        "{s:s, s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:b, s:b, s:b, s:I, s:I}",
        "model_type", "llama", "architectures", "LlamaForCausalLM", "torch_dtype", "float32", "vocab_size",
        (json_int_t)s->model->config.vocabulary, "max_position_embeddings",
        (json_int_t)(s->model->config.positions + stack_prefix(&s->model->config)), "hidden_size",
        (json_int_t)p->c->width, "num_hidden_layers", (json_int_t)p->c->layers, "num_attention_heads",
        (json_int_t)p->c->heads, "num_key_value_heads", (json_int_t)part_kv_heads(p->c), "head_dim",
        (json_int_t)(p->c->width / p->c->heads), "intermediate_size", (json_int_t)part_ff_width(p->c), "hidden_act",
        "silu", "rms_norm_eps", 1e-5, "rope_theta", 10000.0, "attention_bias", 0, "mlp_bias", 0, "tie_word_embeddings",
        (int)s->model->config.tie_output, "bos_token_id", (json_int_t)s->marks->start, "eos_token_id",
        (json_int_t)s->marks->end);
}

static const char decoder_use[] =
    "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    "model = AutoModelForCausalLM.from_pretrained(DIR)\n"
    "tokenizer = AutoTokenizer.from_pretrained(DIR)\n"
    "# elbo-latent.safetensors, where it is there, holds what z adds: rows are inputs_embeds = table[ids] + z W^T\n"
    "# for decoder.latent.embedding.weight W; see elbo's docs/model.md for the other names.\n";

static elbo_status write_decoder(const struct export_source *s, const char *folder, elbo_error *error)
{
    struct part p = {.s = s, .c = &s->model->config.decoder, .stack = "decoder"};
    bool llama = part_is_llama(p.c);
    export_tensors_begin(&p.t, s);
    elbo_status status = llama ? llama_tensors(&p, error) : gpt2_tensors(&p, error);
    if (!status && !s->model->config.tie_output)
        status = part_keep(&p, "lm_head.weight", "decoder.output.weight", error);
    if (!status) status = export_tensors_write(&p.t, folder, "model.safetensors", error);
    if (!status) status = export_json(folder, "config.json", llama ? llama_config(&p) : gpt2_config(&p), error);
    export_tensors_free(&p.t);
    if (!status) status = part_write_additions(s, folder, error);
    if (!status) status = hf_tokenizer(s, folder, error);
    return status ? status : hf_card(s, folder, "transformers", "text-generation", decoder_use, error);
}

/* Ends every refusal. */
static const char whole[] = "leave --part out: the whole model has no such limit";

static elbo_status refuse(const char *what, const char *remedy, elbo_error *error)
{
    return elbo_fail(error, ELBO_USAGE, "%s; %s", what, remedy);
}

/* ---- the encoder ---- */

static const char *token_table(const struct export_source *s)
{
    return s->model->config.share_embedding ? "decoder.embedding.token.weight" : "encoder.embedding.token.weight";
}

static elbo_status bert_layer(struct part *p, size_t layer, elbo_error *error)
{
    static const char *const parts[] = {"query", "key", "value"};
    char to[PART_NAME], from[PART_NAME];
    for (size_t i = 0; i < 3; i++)
        for (int bias = 0; bias < 2; bias++) {
            snprintf(to, sizeof to, "encoder.layer.%zu.attention.self.%s.%s", layer, parts[i],
                     bias ? "bias" : "weight");
            snprintf(from, sizeof from, "encoder.%zu.attention.qkv.%s", layer, bias ? "bias" : "weight");
            ELBO_TRY(part_keep_rows(p, to, from, i * p->c->width, p->c->width, error));
        }
    return ELBO_OK;
}

/* Adds tensors that BertModel requires and no result uses: zero token types, and a pooler that passes on the first
 * row. */
static elbo_status bert_unused(struct part *p, elbo_error *error)
{
    float *types, *weight, *bias;
    size_t d = p->c->width;
    ELBO_TRY(export_tensors_make(&p->t, &types, "embeddings.token_type_embeddings.weight", 2, d, error));
    ELBO_TRY(export_tensors_make(&p->t, &weight, "pooler.dense.weight", d, d, error));
    ELBO_TRY(export_tensors_make(&p->t, &bias, "pooler.dense.bias", d, 0, error));
    for (size_t i = 0; i < d; i++) weight[i * d + i] = 1;
    return ELBO_OK;
}

static elbo_status bert_tensors(struct part *p, elbo_error *error)
{
    static const struct pair layers[] = {{"attention.output.dense", "attention.output"},
                                         {"attention.output.LayerNorm", "attention.norm"},
                                         {"intermediate.dense", "feed_forward.input"},
                                         {"output.dense", "feed_forward.output"},
                                         {"output.LayerNorm", "feed_forward.norm"}};
    ELBO_TRY(part_keep(p, "embeddings.word_embeddings.weight", token_table(p->s), error));
    ELBO_TRY(part_keep(p, "embeddings.position_embeddings.weight", "encoder.embedding.position.weight", error));
    ELBO_TRY(part_keep_both(p, "embeddings.LayerNorm", "encoder.embedding.norm", error));
    for (size_t layer = 0; layer < p->c->layers; layer++) ELBO_TRY(bert_layer(p, layer, error));
    ELBO_TRY(part_each_layer(p, "encoder.layer", "encoder", layers, 5, part_keep_both, error));
    return bert_unused(p, error);
}

static json_t *bert_config(const struct part *p)
{
    const struct export_source *s = p->s;
    return json_pack("{s:s, s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:s, s:f, s:f, s:f, s:I, s:s}", "model_type",
                     "bert", "architectures", "BertModel", "torch_dtype", "float32", "vocab_size",
                     (json_int_t)s->model->config.vocabulary, "max_position_embeddings",
                     (json_int_t)s->model->config.positions, "hidden_size", (json_int_t)p->c->width,
                     "num_hidden_layers", (json_int_t)p->c->layers, "num_attention_heads", (json_int_t)p->c->heads,
                     "intermediate_size", (json_int_t)part_ff_width(p->c), "type_vocab_size", 2, "hidden_act",
                     "gelu_new", "layer_norm_eps", 1e-5, "hidden_dropout_prob", 0.0, "attention_probs_dropout_prob",
                     0.0, "pad_token_id", (json_int_t)s->marks->end, "position_embedding_type", "absolute");
}

/* Writes the rows of mu in the latent head, with the effect of latent.normalize on mu folded in. */
static elbo_status dense_tensors(struct part *p, elbo_error *error)
{
    const struct latent_config *c = &p->s->model->config.latent;
    const struct parameter *shape, *other;
    const float *head = export_weights(p->s, &shape, "latent.head.weight");
    const float *own = export_weights(p->s, &other, "latent.head.bias");
    const float *running = export_weights(p->s, &other, "latent.normalize.running");
    const float *shift = export_weights(p->s, &other, "latent.normalize.bias");
    const float *scale = export_weights(p->s, &other, "latent.normalize.weight");
    float *weight, *bias;
    size_t z = c->width, d = shape->shape[1];
    double square = 0;
    ELBO_TRY(export_tensors_make(&p->t, &weight, "linear.weight", z, d, error));
    ELBO_TRY(export_tensors_make(&p->t, &bias, "linear.bias", z, 0, error));
    for (size_t j = 0; j < z && scale; j++) square += (double)scale[j] * scale[j];
    for (size_t j = 0; j < z; j++) {
        double gain = 1, mean = 0, added = 0;
        if (running) {
            gain = c->gamma * (scale ? sqrt((double)z / square) * scale[j] : 1) / sqrt((double)running[z + j] + 1e-5);
            mean = running[j];
            added = shift[j];
        }
        for (size_t i = 0; i < d; i++) weight[j * d + i] = (float)(gain * head[j * d + i]);
        bias[j] = (float)(gain * (own[j] - mean) + added);
    }
    return ELBO_OK;
}

static elbo_status write_dense(const struct export_source *s, const char *folder, elbo_error *error)
{
    char inner[FILES_PATH];
    struct part p = {.s = s, .c = &s->model->config.encoder};
    ELBO_TRY(file_join(inner, folder, "2_Dense", error));
    ELBO_TRY(file_make_folder(inner, error));
    export_tensors_begin(&p.t, s);
    elbo_status status = dense_tensors(&p, error);
    if (!status) status = export_tensors_write(&p.t, inner, "model.safetensors", error);
    export_tensors_free(&p.t);
    if (status) return status;
    return export_json(inner, "config.json",
                       json_pack("{s:I, s:I, s:b, s:s}", "in_features", (json_int_t)p.c->width, "out_features",
                                 (json_int_t)s->model->config.latent.width, "bias", 1, "activation_function",
                                 "torch.nn.modules.linear.Identity"),
                       error);
}

static elbo_status write_pooling(const struct export_source *s, const char *folder, elbo_error *error)
{
    char inner[FILES_PATH];
    int pooling = s->model->config.encoder.pooling;
    ELBO_TRY(file_join(inner, folder, "1_Pooling", error));
    ELBO_TRY(file_make_folder(inner, error));
    return export_json(inner, "config.json",
                       json_pack("{s:I, s:b, s:b, s:b, s:b, s:b, s:b, s:b}", "word_embedding_dimension",
                                 (json_int_t)s->model->config.encoder.width, "pooling_mode_cls_token",
                                 (int)(pooling == POOLING_FIRST), "pooling_mode_mean_tokens",
                                 (int)(pooling == POOLING_MEAN), "pooling_mode_max_tokens", 0,
                                 "pooling_mode_mean_sqrt_len_tokens", 0, "pooling_mode_weightedmean_tokens", 0,
                                 "pooling_mode_lasttoken", (int)(pooling == POOLING_LAST), "include_prompt", 1),
                       error);
}

static json_t *module_json(int number, const char *path, const char *type)
{
    return json_pack("{s:i, s:o, s:s, s:s}", "idx", number, "name", json_sprintf("%d", number), "path", path, "type",
                     type);
}

static elbo_status write_modules(const struct export_source *s, const char *folder, elbo_error *error)
{
    ELBO_TRY(export_json(folder, "modules.json",
                         json_pack("[o, o, o]", module_json(0, "", "sentence_transformers.models.Transformer"),
                                   module_json(1, "1_Pooling", "sentence_transformers.models.Pooling"),
                                   module_json(2, "2_Dense", "sentence_transformers.models.Dense")),
                         error));
    ELBO_TRY(export_json(
        folder, "sentence_bert_config.json",
        json_pack("{s:I, s:b}", "max_seq_length", (json_int_t)s->model->config.positions, "do_lower_case", 0), error));
    ELBO_TRY(write_pooling(s, folder, error));
    return write_dense(s, folder, error);
}

static const char encoder_use[] =
    "from sentence_transformers import SentenceTransformer\n\n"
    "SentenceTransformer(DIR).encode([\"a sentence\"])        # mu, the posterior's mean\n";

static elbo_status write_encoder(const struct export_source *s, const char *folder, elbo_error *error)
{
    struct part p = {.s = s, .c = &s->model->config.encoder, .stack = "encoder"};
    export_tensors_begin(&p.t, s);
    elbo_status status = bert_tensors(&p, error);
    if (!status) status = export_tensors_write(&p.t, folder, "model.safetensors", error);
    if (!status) status = export_json(folder, "config.json", bert_config(&p), error);
    export_tensors_free(&p.t);
    if (!status) status = write_modules(s, folder, error);
    if (!status) status = hf_tokenizer(s, folder, error);
    return status ? status : hf_card(s, folder, "sentence-transformers", "sentence-similarity", encoder_use, error);
}

static elbo_status check_encoder(const struct export_source *s, elbo_error *error)
{
    const struct model_config *m = &s->model->config;
    const struct stack_config *c = &m->encoder;
    if (m->latent.kind == LATENT_NONE)
        return refuse("--part=encoder: a language model (latent.kind none) has no encoder", whole, error);
    if (c->kind != STACK_TRANSFORMER || c->norm != NORM_LAYERNORM || c->norm_position != NORM_POST ||
        !c->embedding_norm || c->positions != POSITION_LEARNED || c->activation != ACTIVATION_GELU ||
        part_kv_heads(c) != c->heads)
        return refuse("--part=encoder writes BertModel, which is encoder.kind=transformer with norm=layernorm, "
                      "norm_position=post, embedding_norm=true, positions=learned, activation=gelu and as many "
                      "kv_heads as heads, and this encoder is another",
                      whole, error);
    if (m->latent.kind != LATENT_NORMAL)
        return refuse("--part=encoder: mu of this latent.kind is no linear layer of what the encoder gives, which is "
                      "what sentence-transformers has behind its pooling",
                      whole, error);
    if (c->pooling == POOLING_ATTENTION)
        return refuse("--part=encoder: sentence-transformers pools by mean, first and last, not by attention", whole,
                      error);
    if (m->labels)
        return refuse("--part=encoder: this encoder is told each sentence's label, and BertModel cannot be", whole,
                      error);
    return ELBO_OK;
}

elbo_status hf_part_check(const struct export_source *s, int part, elbo_error *error)
{
    return part == EXPORT_DECODER ? part_check_decoder(s, "--part=decoder", whole, error) : check_encoder(s, error);
}

elbo_status hf_part_write(const struct export_source *s, int part, const char *folder, elbo_error *error)
{
    return part == EXPORT_DECODER ? write_decoder(s, folder, error) : write_encoder(s, folder, error);
}
