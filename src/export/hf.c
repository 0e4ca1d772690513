/* Exports a Hugging Face folder with its own code: the whole model under elbo's names. */
#include "export/hf.h"

#include <string.h>

static const char use[] = "from transformers import AutoModel, AutoTokenizer\n"
                          "\n"
                          "model = AutoModel.from_pretrained(DIR, trust_remote_code=True).eval()\n"
                          "tokenizer = AutoTokenizer.from_pretrained(DIR, trust_remote_code=True)\n"
                          "batch = tokenizer([\"a sentence\"], return_tensors=\"pt\", padding=True)\n";
static const char with_latent[] = "mu, logvar = model.encode(batch.input_ids, batch.attention_mask)\n"
                                  "tokenizer.batch_decode(model.generate(mu), skip_special_tokens=True)\n"
                                  "tokenizer.batch_decode(model.sample(5, do_sample=True, temperature=0.8, top_p=0.9), "
                                  "skip_special_tokens=True)\n";
static const char without[] = "tokenizer.batch_decode(model.sample(5, do_sample=True, temperature=0.8, top_p=0.9), "
                              "skip_special_tokens=True)\n";

static elbo_status keep_fitted(struct export_tensors *t, const struct gaussians *g, elbo_error *error)
{
    size_t k = g->count, z = g->width, per = g->full ? z * z : z;
    float *weight, *mean, *factor;
    ELBO_TRY(export_tensors_make(t, &weight, "latent.fitted.log_weight", k, 0, error));
    ELBO_TRY(export_tensors_make(t, &mean, "latent.fitted.mean", k, z, error));
    ELBO_TRY(export_tensors_make(t, &factor, "latent.fitted.factor", k, per, error));
    if (g->full) {
        struct safetensors_tensor *last = &t->tensors[t->count - 1];
        last->rank = 3;
        last->shape[1] = last->shape[2] = z;
    }
    for (size_t i = 0; i < k; i++) weight[i] = (float)g->log_weight[i];
    for (size_t i = 0; i < k * z; i++) mean[i] = (float)g->mean[i];
    for (size_t i = 0; i < k * per; i++) factor[i] = (float)g->factor[i];
    return ELBO_OK;
}

static elbo_status write_weights(const struct export_source *s, const char *folder, elbo_error *error)
{
    struct export_tensors t;
    elbo_status status = ELBO_OK;
    export_tensors_begin(&t, s);
    for (size_t i = 0; i < parameters_count(s->model->parameters) && !status; i++) {
        const struct parameter *p = parameters_get(s->model->parameters, i);
        if (!model_trains_only(p)) status = export_tensors_keep(&t, p, p->name, error);
    }
    if (!status && s->fitted) status = keep_fitted(&t, s->fitted, error);
    if (!status) status = export_tensors_write(&t, folder, "model.safetensors", error);
    export_tensors_free(&t);
    return status;
}

static elbo_status write_whole(const struct export_source *s, const char *folder, elbo_error *error)
{
    struct export_words words = {0};
    bool latent = s->model->config.latent.kind != LATENT_NONE;
    ELBO_TRY(export_json(folder, "config.json", hf_config(s), error));
    ELBO_TRY(export_copy(folder, "configuration_elbo.py", error));
    ELBO_TRY(export_copy(folder, "modeling_elbo.py", error));
    ELBO_TRY(write_weights(s, folder, error));
    ELBO_TRY(hf_tokenizer(s, folder, error));
    export_print(&words, "%s%s", use, latent ? with_latent : without);
    elbo_status status = words.failed ? elbo_fail(error, ELBO_MEMORY, "no memory for the model card")
                                      : hf_card(s, folder, "transformers", "text-generation", words.text.text, error);
    elbo_text_free(&words.text);
    return status;
}

static elbo_status write(const struct export_source *s, const struct export_options *o, const char *folder,
                         elbo_error *error)
{
    return o->part == EXPORT_WHOLE ? write_whole(s, folder, error) : hf_part_write(s, o->part, folder, error);
}

static elbo_status check(const struct export_source *s, const struct export_options *o, elbo_error *error)
{
    return o->part == EXPORT_WHOLE ? ELBO_OK : hf_part_check(s, o->part, error);
}

const struct export_format export_hf = {.name = "hf", .check = check, .write = write};
