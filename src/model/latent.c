/* The latent: the tables of posteriors and priors, the checks of their options, the recording of the head, the draw and
 * the KL, and draws and densities on the host. */
#include "model/latent.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

extern const struct posterior_kind posterior_normal, posterior_delta, posterior_slashed;
extern const struct prior_kind prior_standard, prior_diagonal, prior_mixture, prior_vamp;

const struct posterior_kind *posterior_kind_of(const struct latent_config *c)
{
    static const struct posterior_kind *const kinds[] = {
        [LATENT_NORMAL] = &posterior_normal, [LATENT_DELTA] = &posterior_delta, [LATENT_SLASHED] = &posterior_slashed};
    return kinds[c->kind];
}

const struct prior_kind *prior_kind_of(const struct latent_config *c)
{
    static const struct prior_kind *const kinds[] = {[PRIOR_STANDARD] = &prior_standard,
                                                     [PRIOR_DIAGONAL] = &prior_diagonal,
                                                     [PRIOR_MIXTURE] = &prior_mixture,
                                                     [PRIOR_VAMP] = &prior_vamp};
    return kinds[c->prior];
}

bool latent_has_dimensions(const struct latent_config *c)
{
    return c->kind != LATENT_NONE && prior_kind_of(c)->kl;
}

const char *latent_kl_name(const struct latent_config *c)
{
    return c->kind == LATENT_NONE || latent_has_dimensions(c) ? "kl" : "kl_mc";
}

elbo_status latent_check(const struct latent_config *c, size_t positions, elbo_error *error)
{
    static const char *const ways[] = {"none", "batch", "du"};
    if (c->normalize != LATENT_PLAIN && c->kind != LATENT_NORMAL)
        return elbo_fail(
            error, ELBO_USAGE,
            "latent.normalize = %s scales the mu of latent.kind=normal, and latent.kind = %s makes its own "
            "of another; set latent.normalize=none%s",
            ways[c->normalize], posterior_kind_of(c)->name,
            c->kind == LATENT_SLASHED ? ", or objective.rate with objective.rate_scope=dimension" : "");
    if (c->rate > 0 && c->kind != LATENT_SLASHED)
        return elbo_fail(error, ELBO_USAGE,
                         "objective.rate = %g is exact for latent.kind=slashed only, and latent.kind is %s; set "
                         "latent.kind=slashed, or objective.rate=0",
                         c->rate, posterior_kind_of(c)->name);
    if (c->rate > 0 && c->prior != PRIOR_STANDARD)
        return elbo_fail(error, ELBO_USAGE,
                         "objective.rate = %g is a KL against N(0, 1), and latent.prior is %s; set "
                         "latent.prior=standard, or objective.rate=0",
                         c->rate, prior_kind_of(c)->name);
    if (c->prior == PRIOR_VAMP && c->pseudo_length > positions)
        return elbo_fail(
            error, ELBO_USAGE,
            "latent.pseudo_length = %zu is longer than a sentence can be: data.max_length and two marks are %zu "
            "rows; set latent.pseudo_length to at most %zu, or raise data.max_length",
            c->pseudo_length, positions, positions);
    return ELBO_OK;
}

static bool has_rate(const struct latent_config *c)
{
    return c->kind == LATENT_SLASHED && c->rate > 0;
}

const char *latent_running(const struct latent_config *c)
{
    if (c->kind == LATENT_NORMAL && c->normalize != LATENT_PLAIN) return "latent.normalize.running";
    return has_rate(c) && c->rate_scope != RATE_SENTENCE ? "latent.rate.running" : NULL;
}

bool latent_running_centered(const struct latent_config *c)
{
    return c->kind == LATENT_NORMAL;
}

const char *latent_idle(const struct latent_config *c, const char *key)
{
    if (!strcmp(key, "kind")) return NULL;
    if (c->kind == LATENT_NONE) return "latent.kind=none has no latent";
    if (!strcmp(key, "delta") && c->kind != LATENT_DELTA) return "it belongs to latent.kind=delta";
    if (!strcmp(key, "gamma") && c->normalize == LATENT_PLAIN) return "latent.normalize=none scales nothing";
    if (!strcmp(key, "alpha") && c->normalize != LATENT_DU) return "it belongs to latent.normalize=du";
    if (!strcmp(key, "variance_dropout") && c->normalize != LATENT_DU && c->variance_dropout > 0)
        return "it belongs to latent.normalize=du";
    if (!strcmp(key, "statistics_share") && !latent_running(c)) return "nothing here has running statistics";
    if (!strcmp(key, "components") && c->prior != PRIOR_MIXTURE) return "it belongs to latent.prior=mixture";
    if (!strncmp(key, "pseudo_", 7) && c->prior != PRIOR_VAMP) return "it belongs to latent.prior=vamp";
    return NULL;
}

/* ---- recording ---- */

value latent_normalized(struct recorder *r, value x, value gain, value bias, const struct normalization *c, value *sums)
{
    struct parameter running = {.name = latent_running(&r->config->latent),
                                .rank = 2,
                                .shape = {2, c->groups},
                                .part = PART_LATENT,
                                .master = true,
                                .init = init_constant(0),
                                .init_tail = init_constant(1),
                                .tail = 1};
    struct normalization how = *c;
    how.batch = r->training;
    struct normalized n = op_normalize(r->g, x, recorder_declare(r, &running), gain, bias, &how);
    *sums = n.sums;
    return n.y;
}

/* Records the head and the posterior's stats. The head computes in f32 at every precision. */
static value record_stats(struct recorder *r, value h, value sample, value *sums)
{
    const struct model_config *m = r->config;
    const struct posterior_kind *kind = posterior_kind_of(&m->latent);
    size_t width = kind->head_width(&m->latent);
    struct parameter weight = {.name = "latent.head.weight",
                               .rank = 2,
                               .shape = {width, m->encoder.width},
                               .part = PART_LATENT,
                               .decay = true,
                               .master = true};
    struct parameter bias = {
        .name = "latent.head.bias", .rank = 1, .shape = {width}, .part = PART_LATENT, .master = true};
    kind->initialize(&weight, &bias, m);
    graph_scope(r->g, "latent.head");
    value w = recorder_declare(r, &weight), b = recorder_declare(r, &bias);
    return kind->stats(r, op_linear(r->g, op_cast(r->g, h, DTYPE_F32), w, b), sample, sums);
}

value latent_record_stats(struct recorder *r, value h)
{
    value unused = NO_VALUE;
    return record_stats(r, h, NO_VALUE, &unused);
}

/* Returns (S, 1) log q(z|x) - log p(z) at the draw. */
static value drawn_kl(struct recorder *r, const struct prior_kind *prior, const struct latent_pass *pass)
{
    value q = op_gaussian_log_density(r->g, pass->z, pass->stats, 1);
    return op_add(r->g, q, prior->log_density(r, pass->z, -1));
}

struct latent_pass latent_record(struct recorder *r, value h, value sample)
{
    const struct latent_config *c = &r->config->latent;
    const struct prior_kind *prior = prior_kind_of(c);
    struct latent_pass pass = {0};
    pass.stats = record_stats(r, h, sample, &pass.sums);
    graph_scope(r->g, "latent");
    struct latent_sample drawn = op_latent(r->g, pass.stats, sample, c->sample);
    pass.z = drawn.z;
    pass.normal_kl = drawn.kl;
    pass.kl = prior->kl ? prior->kl(r, &pass) : drawn_kl(r, prior, &pass);
    return pass;
}

/* ---- on the host ---- */

static const double LOG_2PI = 1.8378770664093454836;

static void normals(float eps[4], const struct latent_noise *n, uint64_t sample, size_t block)
{
    noise_normal4(eps, noise_block(noise_key(n->seed, n->purpose, n->step), sample, n->draw, (uint32_t)block));
}

struct latent latent_standard(size_t width)
{
    return (struct latent){.prior = &prior_standard, .width = width};
}

struct latent latent_with(const struct gaussians *density)
{
    return (struct latent){.prior = &prior_standard, .width = density->width, .density = density};
}

elbo_status latent_learned(float **values, const struct model *m, const char *name, elbo_error *error)
{
    size_t index;
    if (!parameters_find(m->parameters, name, &index))
        return elbo_fail(error, ELBO_INTERNAL, "the model has no %s", name);
    const struct parameter *p = parameters_get(m->parameters, index);
    *values = malloc(p->elements * sizeof **values);
    if (!*values) return elbo_fail(error, ELBO_MEMORY, "no memory for the prior");
    const struct placed_weight *placed = m->placed ? &m->placed[index] : NULL;
    if (placed && placed->data) {
        block_dequantize(placed->type, *values, placed->data, p->elements);
        return ELBO_OK;
    }
    m->backend->memory.download(m->backend, *values, m->weights + p->offset, p->elements * sizeof **values);
    return m->backend->stream.check ? m->backend->stream.check(m->backend, error) : ELBO_OK;
}

elbo_status latent_open(struct latent *l, struct model *m, elbo_error *error)
{
    bool none = m->config.latent.kind == LATENT_NONE;
    *l = (struct latent){.prior = prior_kind_of(&m->config.latent), .width = none ? 0 : m->config.latent.width};
    if (none || !l->prior->open) return ELBO_OK;
    ELBO_TRY(l->prior->open(l, m, error));
    if (!gaussians_finish(&l->own))
        return elbo_fail(error, ELBO_INPUT, "the prior that the model has learned has a deviation of 0 or none at all");
    l->density = &l->own;
    return ELBO_OK;
}

void latent_close(struct latent *l)
{
    gaussians_free(&l->own);
    *l = (struct latent){0};
}

double latent_prior_log_density(const struct latent *l, const float *z)
{
    double sum = 0;
    if (l->density) return gaussians_log_density(l->density, z);
    for (size_t j = 0; j < l->width; j++) sum -= 0.5 * (LOG_2PI + (double)z[j] * z[j]);
    return sum;
}

double latent_draw(const struct latent *l, float *z, const float *stats, const struct latent_noise *noise,
                   uint64_t sample)
{
    float eps[4] = {0};
    for (size_t j = 0; j < l->width; j++) {
        if (noise && j % 4 == 0) normals(eps, noise, sample, j / 4);
        z[j] = stats[j] + expf(0.5f * stats[l->width + j]) * eps[j % 4];
    }
    return latent_prior_log_density(l, z) - latent_log_density(z, stats, l->width);
}

void latent_prior_samples(const struct latent *l, float *z, size_t rows, const struct latent_noise *noise,
                          uint64_t first)
{
    for (size_t i = 0; i < rows; i++) {
        float eps[4], *own = z + i * l->width;
        uint64_t sample = first + i;
        for (size_t j = 0; j < l->width; j++) {
            if (j % 4 == 0) normals(eps, noise, sample, j / 4);
            own[j] = eps[j % 4];
        }
        if (!l->density) continue;
        struct noise_key key = noise_key(noise->seed, noise->purpose, noise->step);
        struct philox_block choice = noise_block(key, sample, noise->draw + 1, 0);
        gaussians_sample(l->density, own, (double)noise_uniform(choice.word[0]));
    }
}

double latent_kl(const struct latent *l, const float *stats, double *kl_dim)
{
    return l->prior->host_kl ? l->prior->host_kl(l, stats, kl_dim) : NAN;
}

double latent_log_density(const float *z, const float *stats, size_t width)
{
    double sum = 0;
    for (size_t j = 0; j < width; j++) {
        double logvar = stats[width + j], d = (double)z[j] - stats[j];
        sum -= 0.5 * (LOG_2PI + logvar + d * d * exp(-logvar));
    }
    return sum;
}
