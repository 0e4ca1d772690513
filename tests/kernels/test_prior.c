/* prior.cu: the KL of two diagonal Gaussians and the log density of a mixture, both ways, against double, with padding
 * rows after the true sentences. */
#include "kernels/trial.h"

#include <math.h>

struct context {
    size_t sentences, width;
    struct kernel_mixture mixture;
    bool add[3], logit;
    double sign;
    int header, z, stats, prior, logits, shares, out, dout, dz, dstats, dprior, dlogits;
};

static const uint64_t *counted_at(const struct trial *t, const struct context *c)
{
    return ((const struct kernel_header *)at(t, c->header))->count + HEADER_SENTENCES;
}

static int kl(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return gaussian_kl_cuda(&(struct gaussian_kl_args){.kl = at(t, c->out),
                                                       .stats = at(t, c->stats),
                                                       .prior = at(t, c->prior),
                                                       .counted = counted_at(t, c),
                                                       .rows = c->sentences,
                                                       .width = c->width},
                            NULL);
}

static int kl_backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return gaussian_kl_backward_cuda(&(struct gaussian_kl_backward_args){.dstats = at(t, c->dstats),
                                                                         .dprior = at(t, c->dprior),
                                                                         .dkl = at(t, c->dout),
                                                                         .stats = at(t, c->stats),
                                                                         .prior = at(t, c->prior),
                                                                         .counted = counted_at(t, c),
                                                                         .rows = c->sentences,
                                                                         .width = c->width,
                                                                         .add_dstats = c->add[0],
                                                                         .add_dprior = c->add[1]},
                                     NULL);
}

static int mixture(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return mixture_log_density_cuda(&(struct mixture_log_density_args){.out = at(t, c->out),
                                                                       .shares = at(t, c->shares),
                                                                       .z = at(t, c->z),
                                                                       .components = at(t, c->prior),
                                                                       .logits = at(t, c->logits),
                                                                       .counted = counted_at(t, c),
                                                                       .rows = c->sentences,
                                                                       .m = &c->mixture,
                                                                       .sign = (float)c->sign},
                                    NULL);
}

static int mixture_backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return mixture_log_density_backward_cuda(
        &(struct mixture_log_density_backward_args){.dz = at(t, c->dz),
                                                    .dcomponents = at(t, c->dprior),
                                                    .dlogits = at(t, c->dlogits),
                                                    .dout = at(t, c->dout),
                                                    .shares = at(t, c->shares),
                                                    .z = at(t, c->z),
                                                    .components = at(t, c->prior),
                                                    .logits = at(t, c->logits),
                                                    .counted = counted_at(t, c),
                                                    .rows = c->sentences,
                                                    .m = &c->mixture,
                                                    .sign = (float)c->sign,
                                                    .add_dz = c->add[0],
                                                    .add_dcomponents = c->add[1],
                                                    .add_dlogits = c->add[2]},
        NULL);
}

/* Returns the true number of sentences; the rest are padding. */
static size_t counted_of(size_t sentences)
{
    return sentences - sentences / 5;
}

/* given: the wanted gradients, 1 dstats, 2 dprior */
static void try_kl(size_t sentences, size_t width, unsigned add, unsigned given)
{
    struct trial t;
    size_t counted = counted_of(sentences);
    struct context c = {.sentences = sentences, .width = width, .add = {add & 1, add & 2}, .dstats = -1, .dprior = -1};
    trial_begin(&t, KERNEL_F32, "KL %zu x %zu", sentences, width);
    c.stats = trial_normal(&t, ARRAY_F32, sentences * 2 * width, -0.2, 0.8);
    c.prior = trial_normal(&t, ARRAY_F32, 2 * width, 0.1, 0.6);
    c.header = trial_header(&t, 0, counted);
    c.out = trial_output(&t, ARRAY_F32, sentences * width);
    double *out = trial_expect(&t, c.out);
    for (size_t i = 0; i < counted * width; i++) {
        const double *mu = trial_value(&t, c.stats) + i / width * 2 * width + i % width;
        const double *mean = trial_value(&t, c.prior) + i % width;
        double distance = mu[0] - mean[0];
        out[i] = (mean[width] - mu[width] + (exp(mu[width]) + distance * distance) / exp(mean[width]) - 1) / 2;
    }
    trial_run(&t, kl, &c);

    trial_begin(&t, KERNEL_F32, "KL backward %zu x %zu, add %u, given %u", sentences, width, add, given);
    c.stats = trial_normal(&t, ARRAY_F32, sentences * 2 * width, -0.2, 0.8);
    c.prior = trial_normal(&t, ARRAY_F32, 2 * width, 0.1, 0.6);
    c.dout = trial_normal(&t, ARRAY_F32, sentences * width, 0.2, 1);
    c.header = trial_header(&t, 0, counted);
    if (given & 1) c.dstats = trial_sum(&t, ARRAY_F32, sentences * 2 * width, c.add[0]);
    if (given & 2) c.dprior = trial_sum(&t, ARRAY_F32, 2 * width, c.add[1]);
    double *dstats = given & 1 ? trial_expect(&t, c.dstats) : NULL;
    double *dprior = given & 2 ? trial_expect(&t, c.dprior) : NULL;
    for (size_t i = 0; i < counted * width; i++) {
        size_t at_mu = i / width * 2 * width + i % width;
        const double *mu = trial_value(&t, c.stats) + at_mu, *mean = trial_value(&t, c.prior) + i % width;
        double d = trial_value(&t, c.dout)[i], e = exp(-mean[width]), distance = mu[0] - mean[0];
        if (dstats) {
            dstats[at_mu] = d * distance * e;
            dstats[at_mu + width] = d * (exp(mu[width]) * e - 1) / 2;
        }
        if (dprior) {
            dprior[i % width] -= d * distance * e;
            dprior[i % width + width] += d * (1 - (exp(mu[width]) + distance * distance) * e) / 2;
        }
    }
    trial_run(&t, kl_backward, &c);
}

static void kl_matches(void **state)
{
    static const size_t given[][2] = {{0, 5}, {1, 1}, {2, 3}, {5, 4}, {17, 33}, {64, 32}, {9, 130}, {40, 7}};
    static const struct sweep shapes = SWEEP(given, 40000, 1025, 1025);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[2];
        sweep_shape(n, &shapes, i);
        for (unsigned option = 0; option < 4; option++) try_kl(n[0], n[1], option, (unsigned)(i + option) % 3 + 1);
    }
}

/* The double reference: l and the shares of each row, and the sums. */
static double total_of(const struct trial *t, const struct context *c)
{
    double total = 0;
    for (size_t k = 0; k < c->mixture.components; k++) total += c->logit ? exp(trial_value(t, c->logits)[k]) : 1;
    return total;
}

static double weight_of(const struct trial *t, const struct context *c, size_t k)
{
    return (c->logit ? exp(trial_value(t, c->logits)[k]) : 1) / total_of(t, c);
}

static double log_density_of(const struct trial *t, const struct context *c, size_t s, size_t k)
{
    double sum = log(weight_of(t, c, k));
    for (size_t j = 0; j < c->width; j++) {
        const double *mu = trial_value(t, c->prior) + k * c->mixture.stride + j;
        double distance = trial_value(t, c->z)[s * c->width + j] - mu[0], logvar = mu[c->mixture.logvar];
        sum -= (log(2 * M_PI) + logvar + distance * distance / exp(logvar)) / 2;
    }
    return sum;
}

static void begin_mixture(struct trial *t, struct context *c, size_t counted)
{
    c->z = trial_normal(t, ARRAY_F32, c->sentences * c->width, 0.2, 1);
    c->prior = trial_normal(t, ARRAY_F32, c->mixture.components * 2 * c->width, 0.1, 0.7);
    c->logits = c->logit ? trial_normal(t, ARRAY_F32, c->mixture.components, 0, 1) : -1;
    c->header = trial_header(t, 0, counted);
}

/* given: the wanted gradients, 1 dz, 2 dcomponents, 4 dlogits */
static void try_mixture(size_t sentences, size_t width, size_t components, bool rows, bool logit, unsigned add,
                        unsigned given)
{
    struct trial t;
    size_t counted = counted_of(sentences);
    struct context c = {.sentences = sentences,
                        .width = width,
                        .mixture = {components, width, rows ? 2 * width : width, rows ? width : components * width},
                        .add = {add & 1, add & 2, add & 4},
                        .logit = logit,
                        .sign = add & 1 ? -1 : 0.5,
                        .dz = -1,
                        .dprior = -1,
                        .dlogits = -1};
    trial_begin(&t, KERNEL_F32, "mixture %zu x %zu of %zu%s%s", sentences, width, components, rows ? "" : ", planes",
                logit ? ", logits" : "");
    begin_mixture(&t, &c, counted);
    c.out = trial_output(&t, ARRAY_F32, sentences);
    c.shares = trial_output(&t, ARRAY_F32, sentences * components);
    double *out = trial_expect(&t, c.out), *shares = trial_expect(&t, c.shares);
    for (size_t s = 0; s < counted; s++) {
        double top = -INFINITY, sum = 0;
        for (size_t k = 0; k < components; k++) top = fmax(top, log_density_of(&t, &c, s, k));
        for (size_t k = 0; k < components; k++) sum += exp(log_density_of(&t, &c, s, k) - top);
        for (size_t k = 0; k < components; k++)
            shares[s * components + k] = exp(log_density_of(&t, &c, s, k) - top) / sum;
        out[s] = c.sign * (top + log(sum));
    }
    trial_run(&t, mixture, &c);

    trial_begin(&t, KERNEL_F32, "mixture backward %zu x %zu of %zu%s%s, add %u, given %u", sentences, width, components,
                rows ? "" : ", planes", logit ? ", logits" : "", add, given);
    begin_mixture(&t, &c, counted);
    c.shares = trial_normal(&t, ARRAY_F32, sentences * components, 0.5, 0.2);
    c.dout = trial_normal(&t, ARRAY_F32, sentences, 0.2, 1);
    if (given & 1) c.dz = trial_sum(&t, ARRAY_F32, sentences * width, c.add[0]);
    if (given & 2) c.dprior = trial_sum(&t, ARRAY_F32, components * 2 * width, c.add[1]);
    if (logit && given & 4) c.dlogits = trial_sum(&t, ARRAY_F32, components, c.add[2]);
    double *dz = c.dz < 0 ? NULL : trial_expect(&t, c.dz), *dp = c.dprior < 0 ? NULL : trial_expect(&t, c.dprior);
    double *dl = c.dlogits < 0 ? NULL : trial_expect(&t, c.dlogits);
    for (size_t s = 0; s < counted; s++)
        for (size_t k = 0; k < components; k++) {
            double share = trial_value(&t, c.shares)[s * components + k], d = c.sign * trial_value(&t, c.dout)[s];
            if (dl) dl[k] += d * (share - weight_of(&t, &c, k));
            for (size_t j = 0; j < width; j++) {
                size_t at_mu = k * c.mixture.stride + j;
                const double *mu = trial_value(&t, c.prior) + at_mu;
                double distance = trial_value(&t, c.z)[s * width + j] - mu[0], e = exp(-mu[c.mixture.logvar]);
                if (dz) dz[s * width + j] -= d * share * distance * e;
                if (dp) {
                    dp[at_mu] += d * share * distance * e;
                    dp[at_mu + c.mixture.logvar] += d * share * (distance * distance * e - 1) / 2;
                }
            }
        }
    trial_run(&t, mixture_backward, &c);
}

static void mixture_matches(void **state)
{
    static const size_t given[][3] = {{0, 5, 2},   {1, 1, 1},   {2, 3, 2},  {5, 4, 7},  {17, 33, 3},
                                      {64, 8, 33}, {9, 130, 2}, {40, 7, 5}, {33, 40, 4}};
    static const struct sweep shapes = SWEEP(given, 20000, 257, 257, 65);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[3];
        sweep_shape(n, &shapes, i);
        for (unsigned option = 0; option < 8; option++)
            try_mixture(n[0], n[1], n[2], option & 1, option & 2, (unsigned)(i * 3 + option) % 8,
                        (unsigned)(i + option) % 7 + 1);
    }
}

TRIAL_MAIN(cmocka_unit_test(kl_matches), cmocka_unit_test(mixture_matches))
