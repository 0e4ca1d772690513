/* Builds config.json of a Hugging Face folder, which src/export/files/configuration_elbo.py reads. */
#include "export/hf.h"

#include "model/latent.h"
#include "model/stack.h"

static json_t *stack_json(const struct stack_config *c)
{
    static const char *const norms[] = {[NORM_LAYERNORM] = "layernorm", [NORM_RMSNORM] = "rmsnorm"};
    static const char *const places[] = {[NORM_PRE] = "pre", [NORM_POST] = "post"};
    static const char *const positions[] = {[POSITION_LEARNED] = "learned", [POSITION_ROTARY] = "rotary"};
    static const char *const activations[] = {[ACTIVATION_GELU] = "gelu", [ACTIVATION_SWIGLU] = "swiglu"};
    static const char *const poolings[] = {
        [POOLING_MEAN] = "mean", [POOLING_FIRST] = "first", [POOLING_LAST] = "last", [POOLING_ATTENTION] = "attention"};
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:b, s:s, s:s, s:f, s:I, s:b, s:b, s:s}", "kind",
                     stack_kind_of(c)->name, "width", (json_int_t)c->width, "layers", (json_int_t)c->layers, "heads",
                     (json_int_t)c->heads, "kv_heads", (json_int_t)(c->kv_heads ? c->kv_heads : c->heads), "ff_width",
                     (json_int_t)(c->ff_width ? c->ff_width : 4 * c->width), "norm", norms[c->norm], "norm_position",
                     places[c->norm_position], "embedding_norm", (int)c->embedding_norm, "positions",
                     positions[c->positions], "activation", activations[c->activation], "dropout", c->dropout,
                     "embedding_width", (json_int_t)stack_embedding_width(c), "bidirectional", (int)c->bidirectional,
                     "residual", (int)c->residual, "pooling", poolings[c->pooling]);
}

static json_t *injection_json(const struct model_config *m)
{
    static const char *const ways[] = {INJECTION_NAMES};
    unsigned bits = stack_injection(&m->decoder, m->latent.injection);
    json_t *list = json_array();
    int failed = 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (bits >> i & 1) failed |= json_array_append_new(list, json_string(ways[i]));
    if (!failed) return list;
    json_decref(list);
    return NULL;
}

static json_t *latent_json(const struct export_source *s)
{
    static const char *const kinds[] = {
        [LATENT_NORMAL] = "normal", [LATENT_NONE] = "none", [LATENT_DELTA] = "delta", [LATENT_SLASHED] = "slashed"};
    static const char *const ways[] = {[LATENT_PLAIN] = "none", [LATENT_BATCH] = "batch", [LATENT_DU] = "du"};
    static const char *const scopes[] = {
        [RATE_SENTENCE] = "sentence", [RATE_SLOT] = "slot", [RATE_DIMENSION] = "dimension"};
    const struct latent_config *c = &s->model->config.latent;
    if (c->kind == LATENT_NONE) return json_pack("{s:s, s:[]}", "kind", kinds[c->kind], "injection");
    return json_pack(
        "{s:s, s:I, s:o, s:I, s:I, s:b, s:b, s:s, s:I, s:I, s:I, s:f, s:s, s:f, s:f, s:f, s:s, s:I, s:b}", "kind",
        kinds[c->kind], "width", (json_int_t)c->width, "injection", injection_json(&s->model->config), "memory",
        (json_int_t)c->memory, "prefix", (json_int_t)stack_prefix(&s->model->config), "skip", (int)c->skip, "init_tanh",
        (int)c->init_tanh, "prior", prior_kind_of(c)->name, "components", (json_int_t)c->components, "pseudo_inputs",
        (json_int_t)c->pseudo_inputs, "pseudo_length", (json_int_t)c->pseudo_length, "delta", c->delta, "normalize",
        ways[c->normalize], "gamma", c->gamma, "alpha", c->alpha, "rate", c->kind == LATENT_SLASHED ? c->rate : 0.0,
        "rate_scope", scopes[c->rate_scope], "fitted_components", (json_int_t)(s->fitted ? s->fitted->count : 0),
        "fitted_full", (int)(s->fitted && s->fitted->full));
}

/* The start mark is never generated; the unknown mark only on request. */
static json_t *banned_json(const struct export_source *s)
{
    json_t *list = json_pack("[I, I]", (json_int_t)s->marks->start, (json_int_t)s->marks->unknown);
    int failed = 0;
    for (size_t i = 0; i < s->banned->count; i++)
        failed |= json_array_append_new(list, json_integer(s->banned->ids[i]));
    if (!failed) return list;
    json_decref(list);
    return NULL;
}

static json_t *names_json(const struct export_source *s)
{
    json_t *list = json_array();
    int failed = 0;
    for (size_t i = 0; i < s->model->config.labels; i++)
        failed |= json_array_append_new(list, json_string(s->labels[i]));
    if (!failed) return list;
    json_decref(list);
    return NULL;
}

json_t *hf_config(const struct export_source *s)
{
    const struct model_config *m = &s->model->config;
    return json_pack("{s:s, s:[s], s:{s:s, s:s}, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:o, s:o, s:o, s:o, s:o}",
                     "model_type", "elbo", "architectures", "ElboModel", "auto_map", "AutoConfig",
                     "configuration_elbo.ElboConfig", "AutoModel", "modeling_elbo.ElboModel", "torch_dtype", "float32",
                     "bos_token_id", (json_int_t)s->marks->start, "eos_token_id", (json_int_t)s->marks->end,
                     "pad_token_id", (json_int_t)s->marks->end, "unk_token_id", (json_int_t)s->marks->unknown,
                     "vocab_size", (json_int_t)m->vocabulary, "max_positions", (json_int_t)m->positions,
                     "share_embedding", (int)m->share_embedding, "tie_output", (int)m->tie_output, "banned_ids",
                     banned_json(s), "label_names", names_json(s), "encoder_stack", stack_json(&m->encoder),
                     "decoder_stack", stack_json(&m->decoder), "latent", latent_json(s));
}
