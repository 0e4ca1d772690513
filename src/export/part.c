/* Parts of a model under the names of a known architecture: see part.h. */
#include "export/part.h"

#include "model/stack.h"

#include <stdio.h>
#include <string.h>

enum { STEM = 160 };

static void name_of(char name[PART_NAME], const char *stem, bool bias)
{
    snprintf(name, PART_NAME, "%.*s.%s", STEM, stem, bias ? "bias" : "weight");
}

static elbo_status missing(const char *name, elbo_error *error)
{
    return elbo_fail(error, ELBO_INTERNAL, "the model has no tensor %s", name);
}

/* Keeps a parameter of the stack under the name `to`. */
elbo_status part_keep(struct part *p, const char *to, const char *from, elbo_error *error)
{
    const struct parameter *parameter;
    if (!export_weights(p->s, &parameter, "%s", from)) return missing(from, error);
    return export_tensors_keep(&p->t, parameter, to, error);
}

/* Keeps `weight` and `bias`; only `weight` if the model has no bias. */
elbo_status part_keep_both(struct part *p, const char *to, const char *from, elbo_error *error)
{
    char source[PART_NAME], target[PART_NAME];
    const struct parameter *parameter;
    for (int bias = 0; bias < 2; bias++) {
        name_of(source, from, bias);
        name_of(target, to, bias);
        if (bias && !export_weights(p->s, &parameter, "%s", source)) return ELBO_OK;
        ELBO_TRY(part_keep(p, target, source, error));
    }
    return ELBO_OK;
}

/* Keeps rows first .. first + rows of a matrix or of a bias. */
elbo_status part_keep_rows(struct part *p, const char *to, const char *from, size_t first, size_t rows,
                           elbo_error *error)
{
    const struct parameter *parameter;
    const float *w = export_weights(p->s, &parameter, "%s", from);
    float *out;
    if (!w) return missing(from, error);
    size_t columns = parameter->rank > 1 ? parameter->shape[1] : 0, per = columns ? columns : 1;
    ELBO_TRY(export_tensors_make(&p->t, &out, to, rows, columns, error));
    memcpy(out, w + first * per, rows * per * sizeof *out);
    return ELBO_OK;
}

/* Keeps a matrix (out, in) as (in, out), the layout of GPT-2's layers, and its bias. */
elbo_status part_keep_turned(struct part *p, const char *to, const char *from, elbo_error *error)
{
    char name[PART_NAME], bias[PART_NAME];
    const struct parameter *parameter;
    float *out;
    const float *w = export_weights(p->s, &parameter, "%s.weight", from);
    if (!w) return missing(from, error);
    size_t rows = parameter->shape[0], columns = parameter->shape[1];
    name_of(name, to, false);
    ELBO_TRY(export_tensors_make(&p->t, &out, name, columns, rows, error));
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) out[j * rows + i] = w[i * columns + j];
    name_of(name, to, true);
    name_of(bias, from, true);
    return part_keep(p, name, bias, error);
}

/* Calls `one` for each pair of names in each layer. */
elbo_status part_each_layer(struct part *p, const char *to, const char *from, const struct pair *pairs, size_t count,
                            elbo_status (*one)(struct part *, const char *, const char *, elbo_error *),
                            elbo_error *error)
{
    char target[PART_NAME], source[PART_NAME];
    for (size_t layer = 0; layer < p->c->layers; layer++)
        for (size_t i = 0; i < count; i++) {
            snprintf(target, sizeof target, "%s.%zu.%s", to, layer, pairs[i].to);
            snprintf(source, sizeof source, "%s.%zu.%s", from, layer, pairs[i].from);
            ELBO_TRY(one(p, target, source, error));
        }
    return ELBO_OK;
}

size_t part_kv_heads(const struct stack_config *c)
{
    return c->kv_heads ? c->kv_heads : c->heads;
}

size_t part_ff_width(const struct stack_config *c)
{
    return c->ff_width ? c->ff_width : 4 * c->width;
}

/* Writes the additions of z and labels, under the names of docs/model.md. */
elbo_status part_write_additions(const struct export_source *s, const char *folder, elbo_error *error)
{
    static const char *const kinds[] = {".latent.", ".residual.", ".skip.", ".embedding.label."};
    struct part p = {.s = s};
    elbo_status status = ELBO_OK;
    export_tensors_begin(&p.t, s);
    for (size_t i = 0; i < parameters_count(s->model->parameters) && !status; i++) {
        const struct parameter *w = parameters_get(s->model->parameters, i);
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds && !status; k++)
            if (!strncmp(w->name, "decoder.", 8) && strstr(w->name, kinds[k]))
                status = export_tensors_keep(&p.t, w, w->name, error);
    }
    if (!status && p.t.count) status = export_tensors_write(&p.t, folder, "elbo-latent.safetensors", error);
    export_tensors_free(&p.t);
    return status;
}

bool part_is_llama(const struct stack_config *c)
{
    return c->norm == NORM_RMSNORM;
}

static elbo_status refuse(const char *who, const char *what, const char *remedy, elbo_error *error)
{
    return elbo_fail(error, ELBO_USAGE, "%s: %s; %s", who, what, remedy);
}

elbo_status part_check_decoder(const struct export_source *s, const char *who, const char *remedy, elbo_error *error)
{
    const struct stack_config *c = &s->model->config.decoder;
    unsigned ways =
        s->model->config.latent.kind == LATENT_NONE ? 0 : stack_injection(c, s->model->config.latent.injection);
    if (c->kind != STACK_TRANSFORMER)
        return refuse(who, "no architecture of transformers is a recurrent decoder", remedy, error);
    if (ways & INJECT_MEMORY)
        return refuse(who,
                      "latent.injection has memory, keys and values of every layer that z makes, "
                      "and neither GPT2LMHeadModel nor LlamaForCausalLM has a place for them",
                      remedy, error);
    if (c->embedding_norm) return refuse(who, "decoder.embedding_norm is none of GPT-2's or Llama's", remedy, error);
    if (c->norm_position != NORM_PRE)
        return refuse(who, "decoder.norm_position is post, and GPT-2 and Llama norm before a branch", remedy, error);
    if (part_is_llama(c) && (c->positions != POSITION_ROTARY || c->activation != ACTIVATION_SWIGLU))
        return refuse(who,
                      "with rmsnorm only decoder.positions=rotary and decoder.activation=swiglu are "
                      "a known architecture, LlamaForCausalLM",
                      remedy, error);
    if (!part_is_llama(c) &&
        (c->positions != POSITION_LEARNED || c->activation != ACTIVATION_GELU || part_kv_heads(c) != c->heads))
        return refuse(who,
                      "with layernorm only decoder.positions=learned, decoder.activation=gelu and as "
                      "many kv_heads as heads are a known architecture, GPT2LMHeadModel",
                      remedy, error);
    return ELBO_OK;
}
