/* latent.cu: the reparameterization and the KL with addressed noise, both ways, and column moments, against double. The
 * noise is compared as the CPU draws it: the same integers, normals in f32. */
#include "kernels/trial.h"
#include "base/philox.h"

#include <math.h>

struct context {
    size_t sentences, width;
    bool sample_z, add;
    int header;
    int z, kl, stats, sample, dstats, dz, dkl;
};

static int forward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return latent_forward_cuda(at(t, c->z), at(t, c->kl), at(t, c->stats), at(t, c->sample), c->sentences, c->width,
                               c->sample_z, (struct kernel_noise){TRIAL_PURPOSE, at(t, c->header)}, NULL);
}

static int backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return latent_backward_cuda(at(t, c->dstats), at(t, c->dz), at(t, c->dkl), at(t, c->stats), at(t, c->sample),
                                c->sentences, c->width, c->sample_z, c->add,
                                (struct kernel_noise){TRIAL_PURPOSE, at(t, c->header)}, NULL);
}

static int moments(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return column_moments_cuda(at(t, c->z), at(t, c->stats), at(t, c->header), c->width, NULL);
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
    size_t counted = sentences - sentences / 5; /* the rows behind are padding */
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

TRIAL_MAIN(cmocka_unit_test(matches))
