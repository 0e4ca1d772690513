/* Writes elbo.json into exports that other programs compute with: the model's options, and the prior. */
#include "export/hf.h"

#include "model/latent.h"

static json_t *numbers_json(const double *x, size_t count)
{
    json_t *list = json_array();
    int failed = 0;
    for (size_t i = 0; i < count; i++) failed |= json_array_append_new(list, json_real(x[i]));
    if (!failed) return list;
    json_decref(list);
    return NULL;
}

/* Returns the density of the prior that `sample` draws from. */
static json_t *density_json(const struct gaussians *g)
{
    size_t each = g->full ? g->width * g->width : g->width;
    return json_pack("{s:o, s:o, s:o, s:b}", "log_weight", numbers_json(g->log_weight, g->count), "mean",
                     numbers_json(g->mean, g->count * g->width), "factor", numbers_json(g->factor, g->count * each),
                     "full", (int)g->full);
}

elbo_status export_facts(const struct export_source *s, const char *folder, elbo_error *error)
{
    struct latent latent;
    json_t *facts = hf_config(s);
    elbo_status status = latent_open(&latent, s->model, error);
    const struct gaussians *density = s->fitted ? s->fitted : latent.density;
    if (!status && facts && json_object_set_new(facts, "prior", density ? density_json(density) : json_null()))
        status = elbo_fail(error, ELBO_MEMORY, "no memory for elbo.json");
    latent_close(&latent);
    if (!status) return export_json(folder, "elbo.json", facts, error);
    json_decref(facts);
    return status;
}
