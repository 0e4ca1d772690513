/* latent.cu: the reparameterization and the KL with addressed noise, both ways, column moments, the log density of a
 * Gaussian and the hinge on the spread of mu, both ways, against double. The noise must equal the CPU's: the same
 * integers, and normals in f32. */
#include "kernels/trial.h"
#include "base/philox.h"

#include <math.h>

struct context {
    size_t sentences, width;
    bool sample_z, add, add_stats, one;
    double sign, margin;
    int header;
    int z, kl, stats, sample, dstats, dz, dkl;
};

static int forward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return latent_forward_cuda(
        &(struct latent_forward_args){.z = at(t, c->z),
                                      .kl = at(t, c->kl),
                                      .stats = at(t, c->stats),
                                      .sample = at(t, c->sample),
                                      .sentences = c->sentences,
                                      .width = c->width,
                                      .sample_z = c->sample_z,
                                      .noise = (struct kernel_noise){TRIAL_PURPOSE, at(t, c->header)}},
        NULL);
}

static int backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return latent_backward_cuda(
        &(struct latent_backward_args){.dstats = at(t, c->dstats),
                                       .dz = at(t, c->dz),
                                       .dkl = at(t, c->dkl),
                                       .stats = at(t, c->stats),
                                       .sample = at(t, c->sample),
                                       .sentences = c->sentences,
                                       .width = c->width,
                                       .sample_z = c->sample_z,
                                       .add = c->add,
                                       .noise = (struct kernel_noise){TRIAL_PURPOSE, at(t, c->header)}},
        NULL);
}

static int moments(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return column_moments_cuda(
        &(struct column_moments_args){
            .out = at(t, c->z), .x = at(t, c->stats), .header = at(t, c->header), .columns = c->width},
        NULL);
}

static const uint64_t *counted_at(const struct trial *t, const struct context *c)
{
    return ((const struct kernel_header *)at(t, c->header))->count + HEADER_SENTENCES;
}

static int density(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return gaussian_log_density_cuda(&(struct gaussian_log_density_args){.out = at(t, c->kl),
                                                                         .z = at(t, c->z),
                                                                         .stats = at(t, c->stats),
                                                                         .counted = counted_at(t, c),
                                                                         .rows = c->sentences,
                                                                         .width = c->width,
                                                                         .one = c->one,
                                                                         .sign = (float)c->sign},
                                     NULL);
}

static int density_backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return gaussian_log_density_backward_cuda(&(struct gaussian_log_density_backward_args){.dz = at(t, c->dz),
                                                                                           .dstats = at(t, c->dstats),
                                                                                           .dout = at(t, c->dkl),
                                                                                           .z = at(t, c->z),
                                                                                           .stats = at(t, c->stats),
                                                                                           .counted = counted_at(t, c),
                                                                                           .rows = c->sentences,
                                                                                           .width = c->width,
                                                                                           .one = c->one,
                                                                                           .sign = (float)c->sign,
                                                                                           .add_dz = c->add,
                                                                                           .add_dstats = c->add_stats},
                                              NULL);
}

static int spread(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return spread_hinge_cuda(&(struct spread_hinge_args){.out = at(t, c->kl),
                                                         .spread = at(t, c->z),
                                                         .stats = at(t, c->stats),
                                                         .counted = counted_at(t, c),
                                                         .width = c->width,
                                                         .margin = (float)c->margin},
                             NULL);
}

static int spread_backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return spread_hinge_backward_cuda(&(struct spread_hinge_backward_args){.dstats = at(t, c->dstats),
                                                                           .dout = at(t, c->dkl),
                                                                           .stats = at(t, c->stats),
                                                                           .spread = at(t, c->z),
                                                                           .counted = counted_at(t, c),
                                                                           .rows = c->sentences,
                                                                           .width = c->width,
                                                                           .add = c->add},
                                      NULL);
}

static double noise_at(const struct context *c, const struct trial *t, size_t s, size_t j)
{
    float eps[4];
    if (!c->sample_z) return 0;
    struct noise_key key = noise_key(TRIAL_SEED, TRIAL_PURPOSE, TRIAL_STEP);
    noise_normal4(eps, noise_block(key, (uint64_t)trial_value(t, c->sample)[s], TRIAL_DRAW, (uint32_t)(j / 4)));
    return (double)eps[j % 4];
}

static void try(size_t sentences, size_t width, bool sample_z, bool add, unsigned given)
{
    struct trial t;
    struct context c = {.sentences = sentences, .width = width, .sample_z = sample_z, .add = add, .dz = -1, .dkl = -1};
    trial_begin(&t, KERNEL_F32, "latent %zu x %zu%s", sentences, width, sample_z ? "" : ", z = mu");
    c.stats = trial_normal(&t, ARRAY_F32, sentences * 2 * width, -0.2, 1);
    c.sample = trial_samples(&t, sentences);
    c.header = trial_header(&t, 0, sentences);
    c.z = trial_output(&t, ARRAY_F32, sentences * width);
    c.kl = trial_output(&t, ARRAY_F32, sentences * width);
    double *z = trial_expect(&t, c.z), *kl = trial_expect(&t, c.kl);
    for (size_t i = 0; i < sentences * width; i++) {
        const double *stats = trial_value(&t, c.stats) + i / width * 2 * width;
        double mu = stats[i % width], logvar = stats[width + i % width];
        z[i] = mu + exp(logvar / 2) * noise_at(&c, &t, i / width, i % width);
        kl[i] = (mu * mu + exp(logvar) - 1 - logvar) / 2;
    }
    trial_run(&t, forward, &c);

    trial_begin(&t, KERNEL_F32, "latent backward %zu x %zu%s, given %u", sentences, width, add ? ", add" : "", given);
    c.stats = trial_normal(&t, ARRAY_F32, sentences * 2 * width, -0.2, 1);
    c.sample = trial_samples(&t, sentences);
    c.header = trial_header(&t, 0, sentences);
    if (given & 1) c.dz = trial_normal(&t, ARRAY_F32, sentences * width, 0, 1);
    if (given & 2) c.dkl = trial_normal(&t, ARRAY_F32, sentences * width, 0, 1);
    c.dstats = trial_sum(&t, ARRAY_F32, sentences * 2 * width, add);
    double *d = trial_expect(&t, c.dstats);
    for (size_t i = 0; i < sentences * width; i++) {
        size_t at_mu = i / width * 2 * width + i % width;
        double mu = trial_value(&t, c.stats)[at_mu], logvar = trial_value(&t, c.stats)[at_mu + width];
        double dz = given & 1 ? trial_value(&t, c.dz)[i] : 0, dkl = given & 2 ? trial_value(&t, c.dkl)[i] : 0;
        d[at_mu] = dz + dkl * mu;
        d[at_mu + width] =
            dz * noise_at(&c, &t, i / width, i % width) * exp(logvar / 2) / 2 + dkl * (exp(logvar) - 1) / 2;
    }
    trial_run(&t, backward, &c);

    trial_begin(&t, KERNEL_F32, "column moments %zu x %zu", sentences, width);
    size_t counted = sentences - sentences / 5; /* rows past the count are padding */
    c.stats = trial_normal(&t, ARRAY_F32, sentences * width, 0.5, 1);
    c.header = trial_header(&t, 0, counted);
    c.z = trial_output(&t, ARRAY_F32, 2 * width);
    double *out = trial_expect(&t, c.z);
    for (size_t i = 0; i < counted * width; i++) {
        double v = trial_value(&t, c.stats)[i];
        out[2 * (i % width)] += v;
        out[2 * (i % width) + 1] += v * v;
    }
    trial_run(&t, moments, &c);
}

/* Returns the true number of sentences; the rest are padding. */
static size_t counted_of(size_t sentences)
{
    return sentences - sentences / 5;
}

/* given: the wanted gradients, 1 dz, 2 dstats */
static void try_density(size_t sentences, size_t width, bool one, bool add, bool add_stats, unsigned given)
{
    struct trial t;
    size_t counted = counted_of(sentences), rows = one ? 1 : sentences;
    struct context c = {.sentences = sentences,
                        .width = width,
                        .one = one,
                        .add = add,
                        .add_stats = add_stats,
                        .sign = add ? -1 : 0.5,
                        .dz = -1,
                        .dstats = -1};
    trial_begin(&t, KERNEL_F32, "log density %zu x %zu%s", sentences, width, one ? ", one row" : "");
    c.z = trial_normal(&t, ARRAY_F32, sentences * width, 0.3, 1);
    c.stats = trial_normal(&t, ARRAY_F32, rows * 2 * width, -0.2, 0.7);
    c.header = trial_header(&t, 0, counted);
    c.kl = trial_output(&t, ARRAY_F32, sentences);
    double *out = trial_expect(&t, c.kl);
    for (size_t i = 0; i < counted * width; i++) {
        const double *mu = trial_value(&t, c.stats) + (one ? 0 : i / width * 2 * width) + i % width;
        double distance = trial_value(&t, c.z)[i] - mu[0];
        out[i / width] -= c.sign * (log(2 * M_PI) + mu[width] + distance * distance / exp(mu[width])) / 2;
    }
    trial_run(&t, density, &c);

    trial_begin(&t, KERNEL_F32, "log density backward %zu x %zu%s%s%s, given %u", sentences, width,
                one ? ", one row" : "", add ? ", add" : "", add_stats ? ", add to the statistics" : "", given);
    c.z = trial_normal(&t, ARRAY_F32, sentences * width, 0.3, 1);
    c.stats = trial_normal(&t, ARRAY_F32, rows * 2 * width, -0.2, 0.7);
    c.dkl = trial_normal(&t, ARRAY_F32, sentences, 0.2, 1);
    c.header = trial_header(&t, 0, counted);
    if (given & 1) c.dz = trial_sum(&t, ARRAY_F32, sentences * width, add);
    if (given & 2) c.dstats = trial_sum(&t, ARRAY_F32, rows * 2 * width, add_stats);
    double *dz = given & 1 ? trial_expect(&t, c.dz) : NULL, *dstats = given & 2 ? trial_expect(&t, c.dstats) : NULL;
    for (size_t i = 0; i < counted * width; i++) {
        size_t at_mu = (one ? 0 : i / width * 2 * width) + i % width;
        const double *mu = trial_value(&t, c.stats) + at_mu;
        double distance = trial_value(&t, c.z)[i] - mu[0], d = c.sign * trial_value(&t, c.dkl)[i / width];
        double slope = d * distance / exp(mu[width]);
        if (dz) dz[i] -= slope;
        if (dstats) {
            dstats[at_mu] += slope;
            dstats[at_mu + width] += (slope * distance - d) / 2;
        }
    }
    trial_run(&t, density_backward, &c);
}

static void density_matches(void **state)
{
    static const size_t given[][2] = {{0, 5}, {1, 1}, {2, 3}, {5, 4}, {17, 33}, {64, 32}, {9, 130}, {40, 7}};
    static const struct sweep shapes = SWEEP(given, 40000, 1025, 1025);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[2];
        sweep_shape(n, &shapes, i);
        for (int option = 0; option < 8; option++)
            try_density(n[0], n[1], option & 1, option & 2, option & 4, (unsigned)(i + (size_t)option) % 3 + 1);
    }
}

enum { ABOVE, AT_ZERO, NO_SENTENCE, NO_MARGIN };

static void try_spread(size_t sentences, size_t width, unsigned how, bool add)
{
    struct trial t;
    size_t counted = how == NO_SENTENCE ? 0 : counted_of(sentences);
    struct context c = {.sentences = sentences,
                        .width = width,
                        .add = add,
                        .margin = how == AT_ZERO     ? 0.01
                                  : how == NO_MARGIN ? 0
                                                     : 3 * (double)width};
    trial_begin(&t, KERNEL_F32, "spread %zu x %zu, %u", sentences, width, how);
    c.stats = trial_normal(&t, ARRAY_F32, sentences * 2 * width, 0.4, 1);
    c.header = trial_header(&t, 0, counted);
    c.kl = trial_output(&t, ARRAY_F32, 1);
    c.z = trial_output(&t, ARRAY_F32, width + 1);
    double *out = trial_expect(&t, c.kl), *mean = trial_expect(&t, c.z), sum = 0;
    for (size_t i = 0; i < counted * width; i++)
        mean[i % width] += trial_value(&t, c.stats)[i / width * 2 * width + i % width] / (double)counted;
    for (size_t i = 0; i < counted * width; i++)
        sum += pow(trial_value(&t, c.stats)[i / width * 2 * width + i % width] - mean[i % width], 2);
    double hinge = counted ? (double)(float)c.margin - sum / (2 * (double)counted) : 0;
    out[0] = hinge > 0 ? (double)counted * hinge : 0;
    mean[width] = hinge > 0;
    trial_run(&t, spread, &c);

    trial_begin(&t, KERNEL_F32, "spread backward %zu x %zu, %u%s", sentences, width, how, add ? ", add" : "");
    c.stats = trial_normal(&t, ARRAY_F32, sentences * 2 * width, 0.4, 1);
    c.z = trial_normal(&t, ARRAY_F32, width + 1, 0.4, 0.1);
    t.arrays[c.z].value[width] = how != AT_ZERO; /* above 0 or not */
    ((float *)t.arrays[c.z].initial)[width] = how != AT_ZERO;
    c.dkl = trial_normal(&t, ARRAY_F32, 1, 0.7, 0.1);
    c.header = trial_header(&t, 0, counted);
    c.dstats = trial_sum(&t, ARRAY_F32, sentences * 2 * width, add);
    double *d = trial_expect(&t, c.dstats);
    for (size_t i = 0; i < counted * width && how != AT_ZERO; i++) {
        size_t at_mu = i / width * 2 * width + i % width;
        d[at_mu] = trial_value(&t, c.dkl)[0] * (trial_value(&t, c.z)[i % width] - trial_value(&t, c.stats)[at_mu]);
    }
    trial_run(&t, spread_backward, &c);
}

static void spread_matches(void **state)
{
    static const size_t given[][2] = {{1, 1}, {2, 3}, {5, 4}, {17, 33}, {64, 32}, {9, 130}, {40, 7}, {100, 65}};
    static const struct sweep shapes = SWEEP(given, 40000, 1025, 1025);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[2];
        sweep_shape(n, &shapes, i);
        for (unsigned how = ABOVE; how <= NO_MARGIN; how++) try_spread(n[0], n[1], how, (i + how) % 2);
    }
    try_spread(0, 5, ABOVE, false);
}

static void matches(void **state)
{
    static const size_t given[][2] = {{0, 5}, {1, 1}, {2, 3}, {5, 4}, {17, 33}, {64, 32}, {9, 130}, {40, 7}};
    static const struct sweep shapes = SWEEP(given, 40000, 1025, 1025);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[2];
        sweep_shape(n, &shapes, i);
        for (int option = 0; option < 4; option++)
            try(n[0], n[1], option & 1, option & 2, (unsigned)(i + (size_t)option) % 3 + 1);
    }
}

TRIAL_MAIN(cmocka_unit_test(matches), cmocka_unit_test(density_matches), cmocka_unit_test(spread_matches))
