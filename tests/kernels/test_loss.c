/* loss.cu: the softmax loss of a chunk and its gradient in place, a bag of words, the ELBO with free bits and the
 * objective, both ways, against double. */
#include "kernels/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct context {
    size_t rows, vocabulary, stride, tokens, sentences, width, groups;
    float free_nats;
    bool mask, sentence;
    int nll, right, logits, labels, dnll, parts, kl_dim, kl, weights, dkl, header;
};

static int softmax(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return softmax_loss_cuda(&(struct softmax_loss_args){.nll = at(t, c->nll),
                                                         .right = at(t, c->right),
                                                         .logits = at(t, c->logits),
                                                         .labels = at(t, c->labels),
                                                         .dnll = at(t, c->dnll),
                                                         .rows = c->rows,
                                                         .vocabulary = c->vocabulary,
                                                         .stride = c->stride,
                                                         .type = t->type},
                             NULL);
}

static struct kernel_free_bits free_of(const struct context *c)
{
    return (struct kernel_free_bits){c->groups, c->free_nats, c->mask, c->sentence};
}

static int elbo(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return elbo_forward_cuda(&(struct elbo_forward_args){.parts = at(t, c->parts),
                                                         .kl_dim = at(t, c->kl_dim),
                                                         .nll = at(t, c->nll),
                                                         .kl = at(t, c->kl),
                                                         .weights = at(t, c->weights),
                                                         .header = at(t, c->header),
                                                         .width = c->width,
                                                         .free = free_of(c)},
                             NULL);
}

static int elbo_backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return elbo_backward_cuda(&(struct elbo_backward_args){.dnll = at(t, c->dnll),
                                                           .dkl = at(t, c->dkl),
                                                           .kl = at(t, c->kl),
                                                           .weights = at(t, c->weights),
                                                           .header = at(t, c->header),
                                                           .tokens = c->tokens,
                                                           .sentences = c->sentences,
                                                           .width = c->width,
                                                           .free = free_of(c)},
                              NULL);
}

/* Raises the columns from `from` on by `step`; -INFINITY sets the columns before them to -inf. */
static void raise_columns(struct trial *t, int array, size_t stride, size_t from, double step)
{
    struct array *a = &t->arrays[array];
    for (size_t i = 0; i < a->count; i++) {
        if ((i % stride < from) != (isinf(step) != 0)) continue;
        float v = (float)trial_round(isinf(step) ? step : a->value[i] + step, a->type);
        a->value[i] = (double)v;
        if (a->type == ARRAY_F32)
            memcpy((float *)a->initial + i, &v, sizeof v);
        else
            memcpy((uint16_t *)a->initial + i, (char *)&v + 2, 2); /* exact: the value is rounded to bf16 */
    }
}

static void try_softmax(enum kernel_type type, size_t rows, size_t vocabulary, size_t stride, bool gradient,
                        double level, double step, bool shifted)
{
    struct trial t;
    struct context c = {.rows = rows, .vocabulary = vocabulary, .stride = stride, .dnll = -1};
    uint64_t seed = rows;
    int32_t *labels = calloc(rows, sizeof *labels);
    for (size_t r = 0; r < rows; r++)
        labels[r] = r % 7 == 2 ? -1 - (int32_t)r
                               : (int32_t)(r == 0   ? vocabulary - 1
                                           : r == 1 ? 0
                                                    : trial_random(&seed) % vocabulary);
    for (size_t r = 0; r < rows && isinf(step); r++)
        if (labels[r] >= 0) labels[r] = (int32_t)(vocabulary - 1 - r % 2); /* a column that is not -inf */
    trial_begin(&t, type, "softmax loss %zu x %zu of %zu%s around %g, step %g%s", rows, vocabulary, stride,
                gradient ? ", gradient" : "", level, step, shifted ? ", shifted" : "");
    /* Logits of few columns are close together, because an nll near 0 would have no digits to compare. */
    c.logits = trial_normal(&t, trial_t(&t), rows * stride, level, vocabulary < 32 ? 0.5 : 3);
    if (step < 0 || step > 0) raise_columns(&t, c.logits, stride, vocabulary / 2, step);
    if (shifted) trial_shift(&t, c.logits);
    c.labels = trial_integers(&t, labels, rows);
    if (gradient) c.dnll = trial_normal(&t, ARRAY_F32, rows, 1, 0.5);
    c.nll = trial_output(&t, ARRAY_F32, rows);
    c.right = rows % 2 ? trial_output(&t, ARRAY_F32, rows) : -1;
    double *nll = trial_expect(&t, c.nll), *right = c.right < 0 ? NULL : trial_expect(&t, c.right),
           *d = gradient ? trial_expect_new(&t, c.logits) : NULL;
    for (size_t r = 0; r < rows; r++) {
        const double *x = trial_value(&t, c.logits) + r * stride;
        double top = -INFINITY, sum = 0;
        if (labels[r] < 0) continue; /* masked: zeros */
        for (size_t i = 0; i < vocabulary; i++) top = fmax(top, x[i]);
        for (size_t i = 0; i < vocabulary; i++) sum += exp(x[i] - top);
        nll[r] = top + log(sum) - x[labels[r]];
        if (right) right[r] = x[labels[r]] >= top;
        for (size_t i = 0; i < vocabulary && gradient; i++)
            d[r * stride + i] = trial_value(&t, c.dnll)[r] * (exp(x[i] - top) / sum - ((int32_t)i == labels[r]));
    }
    trial_run(&t, softmax, &c);
    free(labels);
}

static void softmax_matches(void **state)
{
    static const size_t given[][2] = {{1, 2},    {3, 31},    {7, 257},   {2, 1000}, {33, 65},
                                      {4, 4097}, {2, 27000}, {2, 58300}, {0, 9}};
    static const struct sweep shapes = SWEEP(given, 40000, 1025, 1025);
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            size_t n[2];
            sweep_shape(n, &shapes, i);
            size_t stride = (n[1] + 127) / 128 * 128;
            try_softmax((enum kernel_type)type, n[0], n[1], stride, true, i == 2 ? -40 : 0, 0, false);
            try_softmax((enum kernel_type)type, n[0], n[1], n[1], i % 2, 0, 0, false);
            try_softmax((enum kernel_type)type, n[0], n[1], stride, false, 0, 0, false);
            if (i < shapes.count) try_softmax((enum kernel_type)type, n[0], n[1], stride, i % 2, 0, 0, true);
        }
}

/* A thread's later logit is far above or below its earlier ones, beyond the range of exp; or the first half of the
 * columns is -inf. A thread takes several packs of a row that is wider than the block. */
static void softmax_of_steps(void **state)
{
    static const double steps[] = {-200, -95, 95, 200, -INFINITY};
    static const size_t widths[] = {9000, 4097, 260};
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
                try_softmax((enum kernel_type)type, 4, widths[w], (widths[w] + 127) / 128 * 128, true, 0, steps[i],
                            false);
                try_softmax((enum kernel_type)type, 3, widths[w] + 1, widths[w] + 1, i % 2, 0, steps[i], false);
            }
}

/* ---- a bag of words ---- */

struct bag {
    size_t sentences, vocabulary;
    bool add;
    int out, sums, logits, labels, offsets, header, dout, dlogits;
};

static int bag(const struct trial *t, const void *context)
{
    const struct bag *c = context;
    return bag_cross_entropy_cuda(&(struct bag_cross_entropy_args){.out = at(t, c->out),
                                                                   .sums = at(t, c->sums),
                                                                   .logits = at(t, c->logits),
                                                                   .labels = at(t, c->labels),
                                                                   .offsets = at(t, c->offsets),
                                                                   .header = at(t, c->header),
                                                                   .sentences = c->sentences,
                                                                   .vocabulary = c->vocabulary},
                                  NULL);
}

static int bag_backward(const struct trial *t, const void *context)
{
    const struct bag *c = context;
    return bag_cross_entropy_backward_cuda(&(struct bag_cross_entropy_backward_args){.dlogits = at(t, c->dlogits),
                                                                                     .dout = at(t, c->dout),
                                                                                     .logits = at(t, c->logits),
                                                                                     .labels = at(t, c->labels),
                                                                                     .offsets = at(t, c->offsets),
                                                                                     .sums = at(t, c->sums),
                                                                                     .header = at(t, c->header),
                                                                                     .sentences = c->sentences,
                                                                                     .vocabulary = c->vocabulary,
                                                                                     .add = c->add},
                                           NULL);
}

/* Sums of a sentence: logsumexp, labels and nats; all 0 for a padding sentence. */
static void bag_sums(double sums[3], const struct trial *t, const struct bag *c, const struct sentences *b,
                     const int32_t *labels, size_t s, size_t counted)
{
    const double *x = trial_value(t, c->logits) + s * c->vocabulary;
    sums[0] = sums[1] = sums[2] = 0;
    if (s >= counted) return;
    for (size_t i = 0; i < c->vocabulary; i++) sums[0] += exp(x[i]);
    sums[0] = log(sums[0]);
    for (int32_t n = b->offsets[s]; n < b->offsets[s + 1]; n++) {
        if (labels[n] < 0) continue;
        sums[1] += 1;
        sums[2] += sums[0] - x[labels[n]];
    }
}

static void try_bag(size_t sentences, size_t vocabulary, bool add)
{
    struct trial t;
    struct sentences b;
    struct bag c = {.sentences = sentences, .vocabulary = vocabulary, .add = add};
    size_t counted = sentences - sentences / 5;
    uint64_t seed = sentences + vocabulary;
    int32_t labels[2048];
    double each[3];
    trial_sentences(&b, sentences, 20, seed);
    for (size_t n = 0; n < b.tokens; n++) labels[n] = n % 6 == 4 ? -1 : (int32_t)(trial_random(&seed) % vocabulary);
    for (int backward = 0; backward < 2; backward++) {
        trial_begin(&t, KERNEL_F32, "bag of words%s %zu x %zu%s", backward ? " backward" : "", sentences, vocabulary,
                    add ? ", add" : "");
        c.logits = trial_normal(&t, ARRAY_F32, sentences * vocabulary, 0.2, 1);
        c.labels = trial_integers(&t, labels, b.tokens);
        c.offsets = trial_integers(&t, b.offsets, sentences + 1);
        c.header = trial_header(&t, b.tokens, counted);
        double *sums = NULL, *out = NULL, *d = NULL, dout = 0;
        if (backward) {
            c.dout = trial_normal(&t, ARRAY_F32, 1, 0.7, 0.1);
            dout = trial_value(&t, c.dout)[0];
            c.sums = trial_normal(&t, ARRAY_F32, sentences * 3, 0, 1);
            c.dlogits = trial_sum(&t, ARRAY_F32, sentences * vocabulary, add);
            d = trial_expect(&t, c.dlogits);
        } else {
            c.out = trial_output(&t, ARRAY_F32, 1);
            c.sums = trial_output(&t, ARRAY_F32, sentences * 3);
            out = trial_expect(&t, c.out);
            sums = trial_expect(&t, c.sums);
        }
        for (size_t s = 0; s < sentences; s++) {
            bag_sums(each, &t, &c, &b, labels, s, counted);
            for (int k = 0; k < 3; k++) {
                if (!backward) {
                    sums[s * 3 + (size_t)k] = each[k];
                    continue;
                }
                float given = (float)each[k];
                ((float *)t.arrays[c.sums].initial)[s * 3 + (size_t)k] = given;
                t.arrays[c.sums].value[s * 3 + (size_t)k] = (double)given;
            }
            if (!backward) out[0] += each[2];
            for (size_t i = 0; i < vocabulary && backward && s < counted; i++)
                d[s * vocabulary + i] = dout * each[1] * exp(trial_value(&t, c.logits)[s * vocabulary + i] - each[0]);
            for (int32_t n = b.offsets[s]; n < b.offsets[s + 1] && backward && s < counted; n++)
                if (labels[n] >= 0) d[s * vocabulary + (size_t)labels[n]] -= dout;
        }
        trial_run(&t, backward ? bag_backward : bag, &c);
    }
}

static void bags_match(void **state)
{
    static const size_t given[][2] = {{1, 1}, {1, 2}, {3, 7}, {5, 300}, {17, 33}, {40, 5}, {64, 12}};
    static const struct sweep shapes = SWEEP(given, 20000, 64, 1025);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[2];
        sweep_shape(n, &shapes, i);
        try_bag(n[0], n[1], false);
        try_bag(n[0], n[1], true);
    }
}

/* Options of a trial of the ELBO. */
enum { NO_KL = 1, NO_DNLL = 2, AT_THE_EDGE = 4, NO_SENTENCE = 8, MASK = 16, SENTENCE = 32 };

/* Makes the KL of a trial; with AT_THE_EDGE each mean of a group is exactly the free nats. */
static int kl_of(struct trial *t, const struct context *c, unsigned how)
{
    int kl = trial_normal(t, ARRAY_F32, c->sentences * c->width, 0.5, 0.4);
    struct array *a = &t->arrays[kl];
    float exact = c->free_nats / (float)(c->width / c->groups);
    for (size_t i = 0; i < a->count && how & AT_THE_EDGE; i++) {
        ((float *)a->initial)[i] = exact;
        a->value[i] = (double)exact;
    }
    return kl;
}

/* Returns the KL that is compared with the free bits: of a group in a sentence, or the mean over the true sentences. */
static double held(const struct trial *t, const struct context *c, size_t s, size_t group, size_t counted)
{
    size_t each = c->width / c->groups;
    double sum = 0;
    for (size_t r = c->sentence ? s : 0; r < (c->sentence ? s + 1 : counted); r++)
        for (size_t j = group * each; j < (group + 1) * each; j++) sum += trial_value(t, c->kl)[r * c->width + j];
    return c->sentence || !counted ? sum : sum / (double)counted;
}

static void try_elbo(size_t tokens, size_t sentences, size_t width, size_t groups, double nats, unsigned how)
{
    struct trial t;
    bool with_kl = !(how & NO_KL), with_dnll = !(how & NO_DNLL);
    size_t counted = how & NO_SENTENCE ? 0 : sentences - sentences / 5,
           true_tokens = tokens - tokens / 7; /* the rest is padding */
    struct context c = {.tokens = tokens,
                        .sentences = sentences,
                        .width = width,
                        .groups = groups,
                        .free_nats = (float)nats,
                        .mask = how & MASK,
                        .sentence = how & SENTENCE,
                        .kl = -1,
                        .kl_dim = -1,
                        .dkl = -1};
    trial_begin(&t, KERNEL_F32, "elbo %zu tokens, %zu x %zu in %zu groups%s%s%s", tokens, sentences, width, groups,
                with_kl ? "" : ", no kl", c.mask ? ", mask" : "", c.sentence ? ", of sentences" : "");
    c.nll = trial_normal(&t, ARRAY_F32, tokens, 4, 1);
    if (with_kl) c.kl = kl_of(&t, &c, how);
    c.weights = trial_normal(&t, ARRAY_F32, 2, 0.5, 0.2);
    c.header = trial_header(&t, true_tokens, counted);
    c.parts = trial_output(&t, ARRAY_F32, 5);
    if (with_kl) c.kl_dim = trial_output(&t, ARRAY_F32, width);
    double *parts = trial_expect(&t, c.parts), *kl_dim = with_kl ? trial_expect(&t, c.kl_dim) : NULL;
    for (size_t n = 0; n < true_tokens; n++) parts[1] += trial_value(&t, c.nll)[n];
    for (size_t i = 0; i < counted * width && with_kl; i++) {
        kl_dim[i % width] += trial_value(&t, c.kl)[i];
        parts[2] += trial_value(&t, c.kl)[i];
    }
    for (size_t i = 0; i < groups * counted && with_kl; i++) {
        double freed = c.free_nats, kl_here = held(&t, &c, i % counted, i / counted, counted);
        parts[3] += kl_here > freed ? kl_here : c.mask ? 0 : freed;
        parts[4] += kl_here > freed ? 0 : 1 / (double)groups;
    }
    parts[0] = trial_value(&t, c.weights)[0] * parts[1] + trial_value(&t, c.weights)[1] * parts[3];
    trial_run(&t, elbo, &c);

    trial_begin(&t, KERNEL_F32, "elbo backward %zu tokens, %zu x %zu in %zu groups%s%s", tokens, sentences, width,
                groups, with_kl ? "" : ", no kl", with_dnll ? "" : ", no dnll");
    if (with_kl) c.kl = kl_of(&t, &c, how);
    c.weights = trial_normal(&t, ARRAY_F32, 2, 0.5, 0.2);
    c.header = trial_header(&t, true_tokens, counted);
    c.dnll = with_dnll ? trial_output(&t, ARRAY_F32, tokens) : -1;
    if (with_kl) c.dkl = trial_output(&t, ARRAY_F32, sentences * width);
    double *dnll = with_dnll ? trial_expect(&t, c.dnll) : NULL, *dkl = with_kl ? trial_expect(&t, c.dkl) : NULL;
    for (size_t n = 0; n < tokens && with_dnll; n++) dnll[n] = n < true_tokens ? trial_value(&t, c.weights)[0] : 0;
    for (size_t i = 0; i < counted * width && with_kl; i++)
        if (held(&t, &c, i / width, i % width / (width / groups), counted) > (double)c.free_nats)
            dkl[i] = trial_value(&t, c.weights)[1];
    trial_run(&t, elbo_backward, &c);
}

static void elbo_matches(void **state)
{
    static const size_t given[][4] = {{1, 1, 1, 1},     {10, 3, 8, 8},  {300, 17, 33, 1}, {1000, 40, 32, 4},
                                      {257, 5, 300, 1}, {3, 2, 64, 64}, {600, 4, 1, 1},   {2, 9, 12, 3}};
    static const struct sweep shapes = SWEEP(given, 100000, 1025, 129, 64, 7);
    (void)state;
    for (size_t i = 0; i < sweep_count(&shapes); i++) {
        size_t n[4];
        sweep_shape(n, &shapes, i);
        if (i >= sizeof given / sizeof *given) n[2] *= n[3]; /* whole groups */
        double nats = i ? 0.5 * (double)(n[2] / n[3]) : 0;   /* near the mean: some groups are above, some below */
        try_elbo(n[0], n[1], n[2], n[3], nats, 0);
        try_elbo(n[0], n[1], n[2], n[3], nats, NO_DNLL);
        try_elbo(n[0], n[1], n[2], n[3], nats, i % 2 ? MASK : SENTENCE);
        try_elbo(n[0], n[1], n[2], n[3], nats, i % 2 ? SENTENCE | MASK | NO_DNLL : SENTENCE | MASK);
    }
}

/* Missing inputs and outputs: the KL in spite of a width (or groups), tokens, unwanted gradients, all sentences. */
static void elbo_without(void **state)
{
    (void)state;
    try_elbo(77, 0, 0, 1, 0, NO_KL);
    try_elbo(300, 3, 16, 4, 0.5, NO_KL);
    try_elbo(40, 5, 8, 0, 0.5, NO_KL);
    try_elbo(0, 5, 8, 2, 0.5, NO_KL);
    try_elbo(0, 5, 8, 2, 0.5, 0);
    try_elbo(0, 0, 0, 0, 0, NO_KL | NO_DNLL);
    try_elbo(9, 3, 4, 2, 0.5, NO_KL | NO_DNLL);
    try_elbo(30, 3, 8, 4, 0.5, NO_SENTENCE);
    try_elbo(30, 3, 8, 4, 0.5, NO_SENTENCE | SENTENCE);
}

/* A KL of exactly the free nats has gradient 0. */
static void elbo_at_the_edge(void **state)
{
    (void)state;
    try_elbo(5, 3, 8, 8, 0.5, AT_THE_EDGE);
    try_elbo(5, 40, 32, 4, 2, AT_THE_EDGE);
    try_elbo(5, 1, 16, 1, 4, AT_THE_EDGE);
    try_elbo(5, 3, 8, 8, 0.5, AT_THE_EDGE | SENTENCE);
    try_elbo(5, 40, 32, 4, 2, AT_THE_EDGE | SENTENCE | MASK);
    try_elbo(5, 3, 8, 8, 0.5, AT_THE_EDGE | MASK);
}

/* ---- the objective ---- */

enum { PARTS = 4, WEIGHTS = 5, MOST_NUMBERS = 32 };

struct objective {
    size_t parts, count;
    int out, elbo, weights, term[KERNEL_MOST_TERMS], d[KERNEL_OBJECTIVE_OUTPUTS];
    unsigned weight[KERNEL_MOST_TERMS];
    size_t elements[KERNEL_OBJECTIVE_OUTPUTS];
    bool add[KERNEL_OBJECTIVE_OUTPUTS];
};

static int objective(const struct trial *t, const void *context)
{
    const struct objective *c = context;
    const float *terms[KERNEL_MOST_TERMS];
    for (size_t k = 0; k < c->count; k++) terms[k] = at(t, c->term[k]);
    return objective_cuda(&(struct objective_args){.out = at(t, c->out),
                                                   .elbo = at(t, c->elbo),
                                                   .weights = at(t, c->weights),
                                                   .terms = terms,
                                                   .weight = c->weight,
                                                   .parts = c->parts,
                                                   .count = c->count},
                          NULL);
}

static int objective_backward(const struct trial *t, const void *context)
{
    const struct objective *c = context;
    float *d[KERNEL_OBJECTIVE_OUTPUTS];
    for (size_t k = 0; k < KERNEL_OBJECTIVE_OUTPUTS; k++) d[k] = at(t, c->d[k]);
    return objective_backward_cuda(
        &(struct objective_backward_args){
            .d = d, .weights = at(t, c->weights), .index = c->weight, .elements = c->elements, .add = c->add},
        NULL);
}

static void try_objective(size_t parts, size_t count)
{
    struct trial t;
    struct objective c = {.parts = parts, .count = count};
    trial_begin(&t, KERNEL_F32, "objective %zu, %zu", parts, count);
    c.elbo = trial_normal(&t, ARRAY_F32, parts, 2, 1);
    c.weights = trial_normal(&t, ARRAY_F32, WEIGHTS, 0.5, 0.3);
    for (size_t k = 0; k < count; k++) {
        c.term[k] = trial_normal(&t, ARRAY_F32, 1, 1, 1);
        c.weight[k] = (unsigned)(3 * k + 1) % WEIGHTS;
    }
    c.out = trial_output(&t, ARRAY_F32, parts + count);
    double *out = trial_expect(&t, c.out);
    for (size_t i = 0; i < parts; i++) out[i] = trial_value(&t, c.elbo)[i];
    for (size_t k = 0; k < count; k++) {
        out[parts + k] = trial_value(&t, c.term[k])[0];
        out[0] += trial_value(&t, c.weights)[c.weight[k]] * out[parts + k];
    }
    trial_run(&t, objective, &c);
}

/* Bit k of `wanted`: output k is given; the last one given has the ELBO's weight. Bit k of `add`: output k is added to.
 */
static void try_objective_backward(unsigned wanted, unsigned add)
{
    struct trial t;
    struct objective c = {0};
    trial_begin(&t, KERNEL_F32, "objective backward %u, %u", wanted, add);
    c.weights = trial_normal(&t, ARRAY_F32, WEIGHTS, 0.5, 0.3);
    for (unsigned k = 0; k < KERNEL_OBJECTIVE_OUTPUTS; k++) {
        bool elbo = wanted >> k == 1;
        c.d[k] = -1;
        c.elements[k] = elbo ? PARTS : 1;
        c.weight[k] = elbo ? (unsigned)KERNEL_OBJECTIVE_ELBO : (2 * k + 1) % WEIGHTS;
        c.add[k] = add >> k & 1;
        if (!(wanted >> k & 1)) continue;
        c.d[k] = trial_sum(&t, ARRAY_F32, c.elements[k], c.add[k]);
        trial_expect(&t, c.d[k])[0] = elbo ? 1 : trial_value(&t, c.weights)[c.weight[k]];
    }
    trial_run(&t, objective_backward, &c);
}

static void objective_matches(void **state)
{
    (void)state;
    for (size_t count = 0; count <= KERNEL_MOST_TERMS; count++) try_objective(PARTS, count);
    try_objective(MOST_NUMBERS - KERNEL_MOST_TERMS, KERNEL_MOST_TERMS);
    for (unsigned wanted = 0; wanted < 16; wanted++)
        for (unsigned add = 0; add < 16; add += 3) try_objective_backward(wanted, add);
}

/* One warp writes the numbers, and a launch has room for a fixed number of terms. Beyond these limits nothing is
 * launched. */
static void objective_refuses(void **state)
{
    (void)state;
    const float *terms[KERNEL_MOST_TERMS + 1] = {0};
    const unsigned weight[KERNEL_MOST_TERMS + 1] = {0};
    assert_int_not_equal(objective_cuda(&(struct objective_args){.out = NULL,
                                                                 .elbo = NULL,
                                                                 .weights = NULL,
                                                                 .terms = terms,
                                                                 .weight = weight,
                                                                 .parts = PARTS,
                                                                 .count = KERNEL_MOST_TERMS + 1},
                                        NULL),
                         0);
    assert_int_not_equal(objective_cuda(&(struct objective_args){.out = NULL,
                                                                 .elbo = NULL,
                                                                 .weights = NULL,
                                                                 .terms = terms,
                                                                 .weight = weight,
                                                                 .parts = MOST_NUMBERS,
                                                                 .count = 1},
                                        NULL),
                         0);
}

/* Two terms may be the same value: the second contribution is added to the first. */
static int objective_twice(const struct trial *t, const void *context)
{
    const struct objective *c = context;
    float *both = at(t, c->d[0]), *const d[KERNEL_OBJECTIVE_OUTPUTS] = {both, both};
    return objective_backward_cuda(
        &(struct objective_backward_args){
            .d = d, .weights = at(t, c->weights), .index = c->weight, .elements = c->elements, .add = c->add},
        NULL);
}

static void objective_adds_in_order(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        struct trial t;
        struct objective c = {.weight = {i, (i + 2) % WEIGHTS}, .elements = {1, 1}, .add = {false, true}};
        trial_begin(&t, KERNEL_F32, "objective backward twice %u", i);
        c.weights = trial_normal(&t, ARRAY_F32, WEIGHTS, 0.5, 0.3);
        c.d[0] = trial_output(&t, ARRAY_F32, 1);
        trial_expect(&t, c.d[0])[0] = trial_value(&t, c.weights)[c.weight[0]] + trial_value(&t, c.weights)[c.weight[1]];
        trial_run(&t, objective_twice, &c);
    }
}

TRIAL_MAIN(cmocka_unit_test(softmax_matches), cmocka_unit_test(softmax_of_steps), cmocka_unit_test(bags_match),
           cmocka_unit_test(elbo_matches), cmocka_unit_test(elbo_without), cmocka_unit_test(elbo_at_the_edge),
           cmocka_unit_test(objective_matches), cmocka_unit_test(objective_refuses),
           cmocka_unit_test(objective_adds_in_order))
