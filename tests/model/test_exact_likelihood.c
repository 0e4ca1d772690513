/* A toy model whose likelihood is known: p(x) = integral of p(x|z) p(z) dz by the trapezoidal rule on a grid of z, with
 * p(x|z) from the model's score recording, for every prior. The integrand is smooth: a coarser grid agrees to 1e-5.
 *
 *   everything adds up   p(x) of all sentences of up to L tokens, and the rest (L tokens without an end mark), sum to 1
 *   the bounds           neg_elbo is KL + E_q[-log p(x|z)], both known here, and IWAE_1 is the same;
 *                        neg_elbo >= IWAE_10 >= IWAE_1000 >= -log p(x), within v / 2k for the weights' variance v;
 *                        all within standard errors, for evaluate() on corpora that repeat one sentence
 *   the last gap         with r = the mean of 1000 weights over p(x), the mean of r is 1 within its standard error,
 *                        and the gap, the mean of r - 1 - log r, is below 0.01 nats
 *   the sign             the same checks catch weights with log p(z) and log q(z|x) swapped, or without them */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "temporary.h"

#include "base/philox.h"
#include "elbo/corpus.h"
#include "device/backends.h"
#include "model/evaluate.h"
#include "model/latent.h"
#include "train/config.h"

enum {
    LONGEST = 3,    /* L: tokens of the longest sentence in the sums */
    ROWS = 341,     /* rows of a slot: all sentences of up to L tokens, and the rest's 4^(L + 1) */
    REPEATS = 1000, /* repetitions of a sentence in a corpus */
    CHECKED = 3,    /* checked sentences */
    Z_MOST = 2,
};

/* Error of a probability's integral: f32 scores are good to 1e-6, and the norms turn sharply where z passes zero. */
static const double QUADRATURE = 1e-5;
static const double LAST_GAP = 0.01; /* nats between IWAE_1000 and -log p(x) */

struct toy {
    struct temporary folder;
    struct elbo_config config;
    struct options *options;
    struct backend *backend;
    struct model model;
    struct elbo_marks marks;
    struct latent latent;
    struct recording encode, score;
    struct slot slot;
    struct slot_options slots;
    size_t z, v;
    struct elbo_corpus *corpus[CHECKED];
    uint32_t ids[CHECKED][8]; /* the sentence of each corpus */
    size_t length[CHECKED];
    elbo_error error;
};

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        if (call) fail_msg("%s", t->error.message);                                                                    \
    } while (0)

/* ---- the toy ---- */

static void prepare(struct toy *t, struct elbo_corpus **corpus, const char *name, const char *line, size_t repeats)
{
    char text[512], out[512], first[512];
    FILE *file = fopen(temporary_path(text, &t->folder, "text"), "w");
    for (size_t i = 0; i < repeats; i++) fprintf(file, "%s\n", line);
    fclose(file);
    const char *input = text;
    struct elbo_prepare_options o = {.inputs = &input,
                                     .input_count = 1,
                                     .out = temporary_path(out, &t->folder, name),
                                     .tokenizer_kind = ELBO_TOKENIZER_WORD,
                                     .tokenizer_size = 100};
    if (strcmp(name, "first")) o.tokenizer_from = temporary_path(first, &t->folder, "first");
    struct elbo_prepare_report report;
    CHECK(elbo_prepare(&o, &report, NULL, NULL, &t->error));
    CHECK(elbo_corpus_open(corpus, out, &t->error));
}

/* Sets random weights that are large enough for z to matter, and posteriors wide enough for importance weights to
 * vary. */
static void randomize(struct toy *t, uint64_t seed)
{
    parameters_initialize(t->model.parameters, t->model.weights, seed);
    for (size_t i = 0; i < parameters_count(t->model.parameters); i++) {
        const struct parameter *p = parameters_get(t->model.parameters, i);
        float *w = t->model.weights + p->offset;
        if (!strcmp(p->name, "latent.head.bias"))
            for (size_t j = t->z; j < 2 * t->z; j++) w[j] = -0.25f;
        else if (!strcmp(p->name, "latent.prior.stats")) /* means 0.4, variances of exp(-0.3) */
            for (size_t j = 0; j < p->elements; j++) w[j] = j < t->z ? 0.4f : -0.3f;
        else if (!strcmp(p->name, "latent.prior.logits"))
            for (size_t j = 0; j < p->elements; j++) w[j] = 0.5f * (float)j;
        else if (!strcmp(p->name, "latent.prior.components")) /* means N(0, 0.6^2), variances of exp(-0.8) and more */
            for (size_t j = 0; j < p->elements; j++)
                w[j] = j < p->elements / 2 ? 0.6f * w[j] : -0.8f + 0.1f * (float)(j % 4);
        else if (p->rank >= 2)
            for (size_t j = 0; j < p->elements; j++) {
                bool head = !strcmp(p->name, "latent.head.weight"), mu = head && j < p->elements / 2;
                double spread = t->config.model.latent.kind != LATENT_NORMAL ? 0.8 : t->z == 1 ? 3 : 2;
                /* mu begins four times as wide at width 8 */
                w[j] *= (float)(!head ? 12 : spread * (mu ? 0.25 : 1));
            }
    }
}

/* `prior` is the prior's name, or another option of the latent. */
static void open_toy(struct toy *t, size_t width, const char *injection, const char *prior, uint64_t seed)
{
    static const char *const lines[CHECKED] = {"b a", "a", "a b a"};
    memset(t, 0, sizeof *t);
    t->folder = temporary_open();
    t->z = width;
    struct elbo_corpus *first;
    prepare(t, &first, "first", "a a b", 3);
    t->v = elbo_corpus_vocabulary(first, ELBO_STREAM_DECODER);
    t->marks = *elbo_corpus_marks(first, ELBO_STREAM_DECODER);
    elbo_corpus_close(first);
    assert_int_equal(t->v, 5);
    for (size_t k = 0; k < CHECKED; k++) {
        char name[16];
        snprintf(name, sizeof name, "c%zu", k);
        prepare(t, &t->corpus[k], name, lines[k], REPEATS);
        CHECK(elbo_corpus_read(t->corpus[k], ELBO_STREAM_DECODER, 0, t->ids[k], 8, &t->length[k], &t->error));
    }
    char inject[64], z[64], given[64];
    snprintf(given, sizeof given, "%s%s", strchr(prior, '=') ? "--" : "--latent.prior=", prior);
    snprintf(inject, sizeof inject, "--latent.injection=%s", injection);
    snprintf(z, sizeof z, "--latent.width=%zu", width);
    const char *const arguments[] = {"--encoder.width=8",
                                     "--decoder.width=8",
                                     "--encoder.heads=2",
                                     "--decoder.heads=2",
                                     "--encoder.layers=1",
                                     "--decoder.layers=1",
                                     "--encoder.ff_width=16",
                                     "--decoder.ff_width=16",
                                     "--latent.components=3",
                                     "--latent.pseudo_inputs=4",
                                     "--latent.pseudo_length=3",
                                     inject,
                                     z,
                                     given};
    CHECK(options_open(&t->options, elbo_config_table(), &t->config, &t->error));
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
        CHECK(options_read_argument(t->options, arguments[i], COMMAND_TRAIN, &t->error));
    t->config.model.vocabulary = t->v;
    t->config.model.positions = 8;
    CHECK(cpu_backend_create(&t->backend, 2, NULL, &t->error));
    CHECK(model_create(&t->model, &t->config.model, t->backend, &t->error));
    randomize(t, seed);
    CHECK(latent_open(&t->latent, &t->model, &t->error));
    t->slots = (struct slot_options){.slots = 1,
                                     .encoder_tokens = ROWS * (LONGEST + 2),
                                     .decoder_tokens = ROWS * (LONGEST + 1),
                                     .sentences = ROWS,
                                     .max_length = 6};
    struct graph_capacities capacities = {{[DIM_ENC_TOKENS] = t->slots.encoder_tokens,
                                           [DIM_DEC_TOKENS] = t->slots.decoder_tokens,
                                           [DIM_SENTENCES] = ROWS,
                                           [DIM_DRAWS] = ROWS}};
    CHECK(record_encode(&t->encode, &t->model.config, t->model.parameters, &capacities, &t->error));
    CHECK(record_score(&t->score, &t->model.config, t->model.parameters, &capacities, &t->error));
    CHECK(slot_allocate(&t->slot, &t->slots, &t->error));
}

static void bind(struct toy *t)
{
    CHECK(model_bind(&t->model, (struct recording *[]){&t->encode, &t->score}, 2, NULL, &t->error));
}

static void close_toy(struct toy *t)
{
    for (size_t k = 0; k < CHECKED; k++) elbo_corpus_close(t->corpus[k]);
    slot_free(&t->slot);
    latent_close(&t->latent);
    recording_free(&t->encode, t->backend);
    recording_free(&t->score, t->backend);
    model_free(&t->model);
    t->backend->destroy(t->backend);
    options_free(t->options);
    temporary_remove(t->folder.path);
}

static void fill(struct toy *t, const uint32_t *const *tokens, const size_t *lengths, size_t n)
{
    CHECK(slot_fill(&t->slot, &t->slots, &t->marks, tokens, lengths, n, 0, &t->error));
}

/* Computes nll (n) of the slot's sentences under z (n, Z). */
static void score(struct toy *t, float *nll, const float *z)
{
    struct execution run = {.seed = 0};
    recording_bind_slot(&t->score, &t->slot, &run);
    assert_true(recording_bind_input(&t->score, "z", z));
    CHECK(executor_run(&t->score.executor, &run, &t->error));
    recording_read(&t->score, t->score.nll, nll, run.count);
}

static void posterior(struct toy *t, float *stats)
{
    struct execution run = {.seed = 0};
    recording_bind_slot(&t->encode, &t->slot, &run);
    CHECK(executor_run(&t->encode.executor, &run, &t->error));
    recording_read(&t->encode, t->encode.stats, stats, run.count);
}

/* ---- everything adds up ---- */

/* Scores all sentences, over all ids but the end mark, of up to L tokens; then prefixes of L + 1 tokens, whose last
 * token stands in the end mark's place. */
static double total_mass(struct toy *t, double step, double *whole_sentences)
{
    uint32_t letters[4], tokens[ROWS][LONGEST + 1];
    const uint32_t *list[ROWS];
    size_t lengths[ROWS], n = 0, sentences, k = 0;
    for (uint32_t id = 0; id < t->v; id++)
        if (id != t->marks.end) letters[k++] = id;
    for (size_t length = 0; length <= LONGEST + 1; length++)
        for (size_t code = 0; code < (size_t)1 << 2 * length; code++, n++) {
            for (size_t i = 0; i < length; i++) tokens[n][i] = letters[code >> 2 * i & 3];
            lengths[n] = length <= LONGEST ? length : LONGEST;
            list[n] = tokens[n];
        }
    assert_int_equal(n, ROWS);
    fill(t, list, lengths, n);
    sentences = ROWS - ((size_t)1 << 2 * (LONGEST + 1));
    for (size_t i = sentences; i < n; i++) {
        int32_t *label = &t->slot.decoder.labels[t->slot.decoder.offsets[i + 1] - 1];
        assert_int_equal(*label, t->marks.end);
        *label = (int32_t)tokens[i][LONGEST];
    }
    double whole = 0, rest = 0, most = 0, least = 1;
    float z[ROWS], nll[ROWS];
    for (double x = -8; x <= 8 + step / 2; x += step) {
        double inside = 0, outside = 0, density = step * exp(-0.5 * x * x) / sqrt(2 * 3.14159265358979323846);
        for (size_t i = 0; i < n; i++) z[i] = (float)x;
        score(t, nll, z);
        for (size_t i = 0; i < n; i++) *(i < sentences ? &inside : &outside) += exp(-(double)nll[i]);
        assert_true(fabs(inside + outside - 1) < 1e-5); /* for every z: f32 scores of 341 sentences */
        whole += density * inside;
        rest += density * outside;
        if (inside > most) most = inside;
        if (inside < least) least = inside;
    }
    assert_true(most - least > 0.05); /* z matters */
    *whole_sentences = whole;
    return whole + rest;
}

static void all_sentences_add_up_to_one(void **state)
{
    (void)state;
    struct toy toy, *t = &toy;
    open_toy(t, 1, "both", "standard", 1);
    bind(t);
    double whole, coarse, total = total_mass(t, 0.1, &whole);
    assert_true(fabs(total - 1) < 1e-6);
    assert_true(whole < 1 && whole > 0.2);
    total_mass(t, 0.2, &coarse);
    assert_true(fabs(whole - coarse) < QUADRATURE);
    print_message("sentences of up to %d tokens hold %.6f, with the rest %.9f\n", LONGEST, whole, total);
    close_toy(t);
}

/* ---- the bounds ---- */

struct exact {
    double nll;          /* -log p(x) */
    double kl;           /* KL(q||p), the mean of log q(z|x) - log p(z) under q */
    double kl_deviation; /* deviation of log q(z|x) - log p(z) under q */
    double neg_elbo;     /* KL(q||p) + E_q[-log p(x|z)] */
    double variance;     /* variance of p(x|z) p(z) / q(z|x) / p(x) under q */
    double deviation;    /* deviation under q of -log p(x|z), plus log q(z|x) - log p(z) if the KL is from draws */
    float stats[2 * Z_MOST];
};

static void integrate(struct toy *t, struct exact *e, size_t which, double step)
{
    const uint32_t *list[ROWS];
    size_t lengths[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        list[i] = t->ids[which];
        lengths[i] = t->length[which];
    }
    float all[ROWS * 2 * Z_MOST], z[ROWS * Z_MOST], nll[ROWS];
    fill(t, list, lengths, ROWS);
    posterior(t, all);
    memcpy(e->stats, all, 2 * t->z * sizeof *all);
    double p = 0, q_nll = 0, q_kl = 0, kl_square = 0, q_sum = 0, q_square = 0, square = 0, q_mass = 0;
    bool drawn = !latent_has_dimensions(&t->model.config.latent);
    size_t side = (size_t)lround(14 / step) + 1, points = t->z == 1 ? side : side * side;
    double cell = t->z == 1 ? step : step * step;
    for (size_t at = 0; at < points; at += ROWS) {
        for (size_t i = 0; i < ROWS; i++) {
            size_t point = at + i < points ? at + i : 0;
            z[i * t->z] = (float)(-7 + step * (double)(point % side));
            if (t->z == 2) z[i * 2 + 1] = (float)(-7 + step * (double)(point / side));
        }
        score(t, nll, z);
        for (size_t i = 0; i < ROWS && at + i < points; i++) {
            double log_p = latent_prior_log_density(&t->latent, z + i * t->z), prior = exp(log_p) * cell;
            double log_q = latent_log_density(z + i * t->z, e->stats, t->z), q = exp(log_q) * cell;
            double px = exp(-(double)nll[i]), told = nll[i] + (drawn ? log_q - log_p : 0);
            p += prior * px;
            q_mass += q;
            q_nll += q * nll[i];
            q_kl += q * (log_q - log_p);
            kl_square += q * (log_q - log_p) * (log_q - log_p);
            q_sum += q * told;
            q_square += q * told * told;
            if (q > 1e-200) square += prior * px * (prior * px / q);
        }
    }
    assert_true(fabs(q_mass - 1) < 1e-6);
    e->nll = -log(p);
    e->kl = q_kl;
    e->kl_deviation = sqrt(kl_square - q_kl * q_kl);
    e->neg_elbo = q_kl + q_nll;
    e->variance = square / (p * p) - 1;
    e->deviation = sqrt(q_square - q_sum * q_sum);
    if (!drawn) assert_true(fabs(latent_kl(&t->latent, e->stats, NULL) - q_kl) < QUADRATURE);
}

/* Returns whether an importance-weighted figure of k samples is plausible: between the bounds, and as near as its
 * weights allow. */
static bool plausible(const struct exact *e, double figure, double error, size_t k)
{
    double near = 1.5 * e->variance / (2 * (double)k); /* the first term of the bias, and half of it for the others */
    return figure <= e->neg_elbo + 3 * error && figure >= e->nll - 3 * error && figure <= e->nll + near + 3 * error;
}

/* Computes the estimator again, with the latent part of the weight times `sign`; 1 is right. */
static double estimate(struct toy *t, const struct exact *e, size_t which, size_t k, double sign, double *error)
{
    const uint32_t *list[ROWS];
    size_t lengths[ROWS];
    double sum = 0, square = 0, top[ROWS], weight[ROWS];
    float z[ROWS * Z_MOST], nll[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        list[i] = t->ids[which];
        lengths[i] = t->length[which];
        top[i] = 0;
    }
    fill(t, list, lengths, ROWS);
    for (size_t draw = 0; draw < k; draw++) {
        struct latent_noise noise = {3, noise_purpose("test"), 0, (uint32_t)draw};
        for (size_t i = 0; i < ROWS; i++) weight[i] = sign * latent_draw(&t->latent, z + i * t->z, e->stats, &noise, i);
        score(t, nll, z);
        for (size_t i = 0; i < ROWS; i++) top[i] += exp(weight[i] - nll[i]);
    }
    for (size_t i = 0; i < ROWS; i++) {
        double x = -log(top[i] / (double)k);
        sum += x;
        square += x * x;
    }
    double mean = sum / ROWS;
    *error = sqrt((square / ROWS - mean * mean) / (ROWS - 1));
    return mean;
}

/* With r = the mean of a sentence's weights over p(x), the mean of r is 1, and the mean of r - 1 - log r is the gap
 * between IWAE and -log p(x), without most of its noise. */
static double last_gap(const struct exact *e, const struct evaluation *v)
{
    double sum = 0, square = 0, gap = 0, n = (double)v->sentences;
    for (size_t s = 0; s < v->sentences; s++) {
        double r = exp(e->nll - v->rows[s].iwae);
        sum += r;
        square += r * r;
        gap += r - 1 - log(r);
    }
    double error = sqrt((square / n - sum / n * (sum / n)) / (n - 1));
    assert_true(fabs(sum / n - 1) < 3 * error);
    assert_true(gap / n > 0 && gap / n < 1.5 * e->variance / 2000);
    return gap / n;
}

static void bounds(size_t width, const char *injection, const char *prior, uint64_t seed)
{
    struct toy toy, *t = &toy;
    size_t caught = 0, found = 0; /* cases that the checks catch with missing weights, and with swapped ones */
    open_toy(t, width, injection, prior, seed);
    for (size_t which = 0; which < CHECKED; which++) {
        struct exact e, coarse;
        bind(t);
        integrate(t, &e, which, width == 1 ? 0.05 : 0.07);
        integrate(t, &coarse, which, 0.1);
        assert_true(fabs(e.nll - coarse.nll) < QUADRATURE);
        double gap = e.neg_elbo - e.nll, last = INFINITY;
        print_message("%s, z of %zu, sentence %zu: -log p %.5f, variance of the weights %.3f;", prior, width, which,
                      e.nll, e.variance);
        assert_true(gap > 0 && e.variance < 15); /* the variance that the last gap allows for 1000 samples */
        static const size_t samples[] = {1000, 10, 1}, sentences[] = {50, REPEATS, REPEATS};
        struct evaluation v[3];
        for (size_t k = 0; k < 3; k++) {
            struct evaluate_options o = {
                .slots = t->slots, .sentences = sentences[k], .iwae_samples = samples[k], .rows = true, .seed = 5};
            CHECK(evaluate(&v[k], &t->model, t->corpus[which], &o, &t->error));
            print_message(" IWAE_%zu %.5f (%.5f)", samples[k], v[k].iwae_nll, v[k].iwae_error);
            assert_int_equal(v[k].iwae_samples, samples[k]);
            assert_int_equal(v[k].sentences, sentences[k]);
        }
        double small = last_gap(&e, &v[0]);
        print_message(", last gap %.5f; neg_elbo %.5f, exactly %.5f\n", small, v[2].neg_elbo, e.neg_elbo);
        assert_true(small < LAST_GAP);
        /* The standard error of a mean over draws of z is known too, and checks the reported one. */
        double error = e.deviation / sqrt(REPEATS);
        assert_true(fabs(v[2].neg_elbo - e.neg_elbo) < 3 * error);
        assert_true(fabs(v[2].neg_elbo_error / error - 1) < 0.2);
        if (v[2].kl_dim)
            assert_true(fabs(v[2].kl - e.kl) < 1e-5);
        else
            assert_true(fabs(v[2].kl - e.kl) < 3 * e.kl_deviation / sqrt(REPEATS));
        for (size_t k = 3; k-- > 0;) {
            assert_true(plausible(&e, v[k].iwae_nll, v[k].iwae_error, samples[k]));
            assert_true(v[k].iwae_nll <= last + 3 * v[k].iwae_error);
            last = v[k].iwae_nll;
        }
        assert_true(fabs(v[2].iwae_nll - e.neg_elbo) < 3 * v[2].iwae_error); /* one sample: the bound itself */
        for (size_t k = 0; k < 3; k++) evaluation_free(&v[k]);
        /* The right weights pass; swapped and missing weights do not. */
        bind(t);
        double right = estimate(t, &e, which, 50, 1, &error);
        assert_true(plausible(&e, right, error, 50));
        double swapped = estimate(t, &e, which, 50, -1, &error);
        found += !plausible(&e, swapped, error, 50);
        double missing = estimate(t, &e, which, 50, 0, &error);
        caught += !plausible(&e, missing, error, 50);
    }
    assert_true(found == CHECKED || (found && strcmp(prior, "standard")));
    assert_true(caught > 0); /* with a posterior near the prior, missing weights change nothing */
    close_toy(t);
}

static void the_bounds_hold_with_one_dimension(void **state)
{
    (void)state;
    bounds(1, "both", "standard", 1);
    bounds(1, "memory", "standard", 2);
}

static void the_bounds_hold_with_two_dimensions(void **state)
{
    (void)state;
    bounds(2, "embedding", "standard", 3);
}

static void the_bounds_hold_for_learned_priors(void **state)
{
    static const char *const priors[] = {"diagonal", "mixture", "vamp"};
    (void)state;
    for (size_t i = 0; i < sizeof priors / sizeof *priors; i++) {
        bounds(1, "both", priors[i], 1);
        bounds(2, "embedding", priors[i], 3);
    }
}

static void the_bounds_hold_for_other_posteriors(void **state)
{
    static const char *const kinds[] = {"latent.kind=slashed", "latent.kind=delta"};
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        bounds(1, "both", kinds[i], 1);
        bounds(2, "embedding", kinds[i], 3);
    }
}

/* ---- two ranks ---- */

static struct {
    pthread_barrier_t barrier;
    const unsigned char *data[2];
    elbo_status status[2];
} meeting;

struct member {
    struct toy toy;
    size_t rank;
    struct evaluation e;
    elbo_status status;
};

static elbo_status combine(void *context, elbo_status status, void *data, size_t bytes, elbo_error *error)
{
    size_t rank = ((struct member *)context)->rank;
    unsigned char *both = malloc(bytes);
    (void)error;
    meeting.data[rank] = data;
    meeting.status[rank] = status;
    pthread_barrier_wait(&meeting.barrier);
    for (size_t i = 0; i < bytes; i++) both[i] = meeting.data[0][i] | meeting.data[1][i];
    status = meeting.status[0] | meeting.status[1];
    pthread_barrier_wait(&meeting.barrier);
    memcpy(data, both, bytes);
    free(both);
    return status;
}

static void *evaluate_part(void *argument)
{
    struct member *m = argument;
    struct evaluate_options o = {
        .slots = m->toy.slots, .seed = 5, .ranks = 2, .rank = m->rank, .combine = combine, .context = m};
    m->status = evaluate(&m->e, &m->toy.model, m->toy.corpus[0], &o, &m->toy.error);
    return NULL;
}

/* Each of two ranks has every second slot, and both report the figures of one rank with all slots. */
static void two_ranks_say_what_one_says(void **state)
{
    (void)state;
    static struct member members[2];
    struct evaluation one;
    pthread_t threads[2];
    pthread_barrier_init(&meeting.barrier, NULL, 2);
    for (size_t r = 0; r < 2; r++) {
        members[r].rank = r;
        open_toy(&members[r].toy, 2, "both", "vamp", 4);
    }
    for (size_t r = 0; r < 2; r++) assert_int_equal(pthread_create(&threads[r], NULL, evaluate_part, &members[r]), 0);
    for (size_t r = 0; r < 2; r++) assert_int_equal(pthread_join(threads[r], NULL), 0);
    struct toy *t = &members[0].toy;
    CHECK(evaluate(&one, &t->model, t->corpus[0], &(struct evaluate_options){.slots = t->slots, .seed = 5}, &t->error));
    for (size_t r = 0; r < 2; r++) {
        const struct evaluation *e = &members[r].e;
        assert_int_equal(members[r].status, ELBO_OK);
        assert_true(e->sentences == one.sentences && e->tokens == one.tokens && e->words == one.words);
        assert_true(e->bytes == one.bytes && one.bytes == 4 * REPEATS);
        assert_float_equal(e->neg_elbo, one.neg_elbo, 0);
        assert_float_equal(e->ppl_token, one.ppl_token, 0);
        assert_float_equal(e->bits_per_byte, one.bits_per_byte, 0);
        evaluation_free(&members[r].e);
    }
    evaluation_free(&one);
    for (size_t r = 0; r < 2; r++) close_toy(&members[r].toy);
    pthread_barrier_destroy(&meeting.barrier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_sentences_add_up_to_one),          cmocka_unit_test(the_bounds_hold_with_one_dimension),
        cmocka_unit_test(the_bounds_hold_with_two_dimensions),  cmocka_unit_test(the_bounds_hold_for_learned_priors),
        cmocka_unit_test(the_bounds_hold_for_other_posteriors), cmocka_unit_test(two_ranks_say_what_one_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
