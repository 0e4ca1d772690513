/* loss.cu: the softmax loss of a chunk, its gradient in place, the ELBO with free bits both ways, against double. */
#include "kernels/trial.h"

#include <math.h>
#include <stdlib.h>

struct context {
    size_t rows, vocabulary, stride, tokens, sentences, width, groups;
    float free_nats;
    int nll, logits, labels, dnll, parts, kl_dim, kl, weights, dkl, header;
};

static int softmax(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return softmax_loss_cuda(at(t, c->nll), at(t, c->logits), at(t, c->labels), at(t, c->dnll), c->rows, c->vocabulary,
                             c->stride, t->type, NULL);
}

static int elbo(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return elbo_forward_cuda(at(t, c->parts), at(t, c->kl_dim), at(t, c->nll), at(t, c->kl), at(t, c->weights), at(t, c->header),
                             c->width, c->groups, c->free_nats, NULL);
}

static int elbo_backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return elbo_backward_cuda(at(t, c->dnll), at(t, c->dkl), at(t, c->kl), at(t, c->weights), at(t, c->header), c->tokens, c->sentences,
                              c->width, c->groups, c->free_nats, NULL);
}

static void try_softmax(enum kernel_type type, size_t rows, size_t vocabulary, size_t stride, bool gradient, double level)
{
    struct trial t;
    struct context c = {.rows = rows, .vocabulary = vocabulary, .stride = stride, .dnll = -1};
    uint64_t seed = rows;
    int32_t *labels = calloc(rows, sizeof *labels);
    for (size_t r = 0; r < rows; r++)
        labels[r] = r % 7 == 2 ? -1 - (int32_t)r : (int32_t)(r == 0 ? vocabulary - 1 : r == 1 ? 0 : trial_random(&seed) % vocabulary);
    trial_begin(&t, type, "softmax loss %zu x %zu of %zu%s around %g", rows, vocabulary, stride,
                gradient ? ", gradient" : "", level);
    c.logits = trial_normal(&t, trial_t(&t), rows * stride, level, 3);
    c.labels = trial_integers(&t, labels, rows);
    if (gradient) c.dnll = trial_normal(&t, ARRAY_F32, rows, 1, 0.5);
    c.nll = trial_output(&t, ARRAY_F32, rows);
    double *nll = trial_expect(&t, c.nll), *d = gradient ? trial_expect_new(&t, c.logits) : NULL;
    for (size_t r = 0; r < rows; r++) {
        const double *x = trial_value(&t, c.logits) + r * stride;
        double top = -INFINITY, sum = 0;
        if (labels[r] < 0) continue; /* masked: zeros */
        for (size_t i = 0; i < vocabulary; i++) top = fmax(top, x[i]);
        for (size_t i = 0; i < vocabulary; i++) sum += exp(x[i] - top);
        nll[r] = top + log(sum) - x[labels[r]];
        for (size_t i = 0; i < vocabulary && gradient; i++)
            d[r * stride + i] = trial_value(&t, c.dnll)[r] * (exp(x[i] - top) / sum - ((int32_t)i == labels[r]));
    }
    trial_run(&t, softmax, &c);
    free(labels);
}

static void softmax_matches(void **state)
{
    static const size_t shapes[][3] = {{1, 2, 2}, {3, 31, 32}, {7, 257, 384}, {2, 1000, 1024}, {33, 65, 128}, {4, 4097, 4224}};
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            try_softmax((enum kernel_type)type, shapes[i][0], shapes[i][1], shapes[i][2], true, i == 2 ? -40 : 0);
            try_softmax((enum kernel_type)type, shapes[i][0], shapes[i][1], shapes[i][1], i % 2, 0);
            try_softmax((enum kernel_type)type, shapes[i][0], shapes[i][1], shapes[i][2], false, 0);
        }
}

static void try_elbo(size_t tokens, size_t sentences, size_t width, size_t groups, double nats, bool with_kl)
{
    struct trial t;
    size_t counted = sentences - sentences / 5, true_tokens = tokens - tokens / 7; /* the rows behind are padding */
    struct context c = {.tokens = tokens, .sentences = sentences, .width = width, .groups = groups,
                        .free_nats = (float)nats, .kl = -1, .kl_dim = -1, .dkl = -1};
    trial_begin(&t, KERNEL_F32, "elbo %zu tokens, %zu x %zu in %zu groups%s", tokens, sentences, width, groups,
                with_kl ? "" : ", no kl");
    c.nll = trial_normal(&t, ARRAY_F32, tokens, 4, 1);
    if (with_kl) c.kl = trial_normal(&t, ARRAY_F32, sentences * width, 0.5, 0.4);
    c.weights = trial_normal(&t, ARRAY_F32, 2, 0.5, 0.2);
    c.header = trial_header(&t, true_tokens, counted);
    c.parts = trial_output(&t, ARRAY_F32, 4);
    if (with_kl) c.kl_dim = trial_output(&t, ARRAY_F32, width);
    double *parts = trial_expect(&t, c.parts), *kl_dim = with_kl ? trial_expect(&t, c.kl_dim) : NULL;
    for (size_t n = 0; n < true_tokens; n++) parts[1] += trial_value(&t, c.nll)[n];
    for (size_t i = 0; i < counted * width && with_kl; i++) {
        kl_dim[i % width] += trial_value(&t, c.kl)[i];
        parts[2] += trial_value(&t, c.kl)[i];
    }
    for (size_t k = 0; k < groups && with_kl; k++) {
        double mean = 0;
        for (size_t j = k * (width / groups); j < (k + 1) * (width / groups); j++) mean += kl_dim[j] / (double)counted;
        parts[3] += (double)counted * fmax((double)c.free_nats, mean);
    }
    parts[0] = trial_value(&t, c.weights)[0] * parts[1] + trial_value(&t, c.weights)[1] * parts[3];
    trial_run(&t, elbo, &c);

    trial_begin(&t, KERNEL_F32, "elbo backward %zu tokens, %zu x %zu in %zu groups%s", tokens, sentences, width, groups,
                with_kl ? "" : ", no kl");
    if (with_kl) c.kl = trial_normal(&t, ARRAY_F32, sentences * width, 0.5, 0.4);
    c.weights = trial_normal(&t, ARRAY_F32, 2, 0.5, 0.2);
    c.header = trial_header(&t, true_tokens, counted);
    c.dnll = trial_output(&t, ARRAY_F32, tokens);
    if (with_kl) c.dkl = trial_output(&t, ARRAY_F32, sentences * width);
    double *dnll = trial_expect(&t, c.dnll), *dkl = with_kl ? trial_expect(&t, c.dkl) : NULL;
    for (size_t n = 0; n < tokens; n++) dnll[n] = n < true_tokens ? trial_value(&t, c.weights)[0] : 0;
    for (size_t i = 0; i < sentences * width && with_kl; i++) {
        size_t each = width / groups, first = i % width / each * each;
        double mean = 0;
        for (size_t s = 0; s < counted; s++)
            for (size_t j = first; j < first + each; j++)
                mean += trial_value(&t, c.kl)[s * width + j] / (double)counted;
        dkl[i] = i / width < counted && mean > (double)c.free_nats ? trial_value(&t, c.weights)[1] : 0;
    }
    trial_run(&t, elbo_backward, &c);
}

static void elbo_matches(void **state)
{
    (void)state;
    try_elbo(1, 1, 1, 1, 0, true);
    try_elbo(10, 3, 8, 8, 0.5, true);
    try_elbo(300, 17, 33, 1, 20, true);
    try_elbo(1000, 40, 32, 4, 4, true);
    try_elbo(257, 5, 300, 300, 0.5, true);
    try_elbo(3, 2, 64, 64, 0.45, true);
    try_elbo(77, 0, 0, 1, 0, false);
}

TRIAL_MAIN(cmocka_unit_test(softmax_matches), cmocka_unit_test(elbo_matches))
