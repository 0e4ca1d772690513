/* The reconstruction loss: nll = logsumexp(logits) - logits[label], logits = y W^T, in chunks of rows. A chunk's logits
 * are one product. The logits are turned in place into their gradient, which two further products consume for dy and
 * dW. The chunk's memory is bounded, so an (N, V) tensor never exists. */
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "ops/loss.h"
#include "ops/ops.h"

#include <math.h>

enum { CHUNK_FLOATS = 4 << 20, LEAST_ROWS = 16, ROWS = 4, SUM_BLOCK = 1024 };

/* Returns the rows per chunk for N rows of V logits: as many as fit, with chunks of nearly one size. */
static size_t chunk_rows(size_t n, size_t v)
{
    size_t most = CHUNK_FLOATS / (v ? v : 1);
    if (most < LEAST_ROWS) most = LEAST_ROWS;
    if (!n) return LEAST_ROWS;
    return tiles_of(n, tiles_of(n, most));
}

static float *chunk_of(const struct call *c)
{
    return c->scratch;
}

void CPU(linear_cross_entropy_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    size_t v = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][0], most = CHUNK_FLOATS / (v ? v : 1);
    if (most < LEAST_ROWS) most = LEAST_ROWS;
    *shared = least(c->size.in[IN_LINEAR_CROSS_ENTROPY_Y][0], most) * v * sizeof(float);
    *per_worker = CPU(gemm_scratch)();
}

struct chunk {
    const struct call *c;
    size_t from, rows, vocabulary;
    const float *dnll; /* null: forward pass only */
    float *right;      /* (N), or null if not wanted */
};

/* Returns the sum of exp(x[i] - row_max), and stores exp(x[i] - row_max) in x when `keep`. Sums in blocks, because one
 * float that grows over a hundred thousand small terms would lose their last digits. */
static double exponentials(float *x, size_t n, float row_max, bool keep)
{
    double sum = 0;
    for (size_t from = 0; from < n; from += SUM_BLOCK) {
        size_t end = least(n, from + SUM_BLOCK);
        float part = 0;
        if (keep) {
            SIMD_SUM(part) for (size_t i = from; i < end; i++)
            {
                x[i] = cpu_exp(x[i] - row_max);
                part += x[i];
            }
        } else {
            SIMD_SUM(part) for (size_t i = from; i < end; i++) part += cpu_exp(x[i] - row_max);
        }
        sum += part;
    }
    return sum;
}

static void softmax(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct chunk *k = argument;
    const int32_t *labels = k->c->in[IN_LINEAR_CROSS_ENTROPY_LABELS];
    float *nll = k->c->out[OUT_LINEAR_CROSS_ENTROPY_NLL];
    size_t v = k->vocabulary, end = least(k->rows, (tile + 1) * ROWS);
    for (size_t r = tile * ROWS; r < end; r++) {
        float *x = chunk_of(k->c) + r * v, row_max = -INFINITY;
        size_t n = k->from + r, label = (size_t)labels[n];
        if (labels[n] < 0) { /* no loss, no gradient */
            nll[n] = 0;
            if (k->right) k->right[n] = 0;
            if (k->dnll) memset(x, 0, v * sizeof *x);
            continue;
        }
        float target_logit = x[label];
        SIMD_MAX(row_max) for (size_t i = 0; i < v; i++) row_max = x[i] > row_max ? x[i] : row_max;
        double row_sum = exponentials(x, v, row_max, k->dnll);
        nll[n] = (float)(row_max + log(row_sum) - target_logit);
        if (k->right) k->right[n] = target_logit >= row_max;
        if (!k->dnll) continue;
        float scale = (float)(k->dnll[n] / row_sum);
        SIMD for (size_t i = 0; i < v; i++) x[i] *= scale;
        x[label] -= k->dnll[n];
    }
}

static void run(const struct call *c, float *right, const float *dnll, float *dy, float *dw)
{
    const float *y = c->in[IN_LINEAR_CROSS_ENTROPY_Y], *w = c->in[IN_LINEAR_CROSS_ENTROPY_W];
    size_t n = c->size.in[IN_LINEAR_CROSS_ENTROPY_Y][0], d = c->size.in[IN_LINEAR_CROSS_ENTROPY_Y][1],
           v = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][0], rows = chunk_rows(n, v);
    for (size_t from = 0; from < n || from == 0; from += rows) {
        struct chunk k = {
            .c = c, .from = from, .rows = least(rows, n - from), .vocabulary = v, .dnll = dnll, .right = right};
        struct product logits = {.m = k.rows, .n = v, .k = d, .c = chunk_of(c), .ldc = v};
        logits.a = (struct matrix){y + from * d, d, 1};
        logits.b = (struct matrix){w, 1, d};
        logits.blocks = c->in_blocks[IN_LINEAR_CROSS_ENTROPY_W];
        CPU(gemm)(c, &logits);
        cpu_run(c, tiles_of(k.rows, ROWS), softmax, &k);
        if (dy) {
            struct product p = {.m = k.rows,
                                .n = d,
                                .k = v,
                                .c = dy + from * d,
                                .ldc = d,
                                .add = c->add[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DY]};
            p.a = (struct matrix){chunk_of(c), v, 1};
            p.b = (struct matrix){w, d, 1};
            CPU(gemm)(c, &p);
        }
        if (dw) {
            struct product p = {.m = v,
                                .n = d,
                                .k = k.rows,
                                .c = dw,
                                .ldc = d,
                                .add = c->add[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DW] || from > 0};
            p.a = (struct matrix){chunk_of(c), 1, v};
            p.b = (struct matrix){y + from * d, d, 1};
            CPU(gemm)(c, &p);
        }
    }
}

void CPU(linear_cross_entropy)(const struct call *c)
{
    run(c, c->out[OUT_LINEAR_CROSS_ENTROPY_RIGHT], NULL, NULL, NULL);
}

void CPU(linear_cross_entropy_train)(const struct call *c)
{
    run(c, NULL, c->in[IN_LINEAR_CROSS_ENTROPY_TRAIN_DNLL], c->out[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DY],
        c->out[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DW]);
}

/* ---- a bag of words: sentences by tiles ---- */

enum { BAGS = 4 };

static void bag_sums(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *labels = c->in[IN_BAG_CROSS_ENTROPY_LABELS], *offsets = c->in[IN_BAG_CROSS_ENTROPY_OFFSETS];
    size_t v = c->size.in[IN_BAG_CROSS_ENTROPY_LOGITS][1],
           end = least(c->size.in[IN_BAG_CROSS_ENTROPY_LOGITS][0], (tile + 1) * BAGS);
    for (size_t s = tile * BAGS; s < end; s++) {
        const float *x = (const float *)c->in[IN_BAG_CROSS_ENTROPY_LOGITS] + s * v;
        float row_max = -INFINITY, *sums = (float *)c->out[OUT_BAG_CROSS_ENTROPY_BAG] + s * BAG_SUMS;
        SIMD_MAX(row_max) for (size_t i = 0; i < v; i++) row_max = x[i] > row_max ? x[i] : row_max;
        double logsum = (double)row_max + log(exponentials((float *)x, v, row_max, false)),
               nats = 0; /* x is only read */
        size_t count = 0;
        for (size_t n = (size_t)offsets[s]; n < (size_t)offsets[s + 1]; n++) {
            if (labels[n] < 0) continue;
            nats += logsum - (double)x[labels[n]];
            count++;
        }
        sums[BAG_LOGSUM] = (float)logsum;
        sums[BAG_LABELS] = (float)count;
        sums[BAG_NATS] = (float)nats;
    }
}

void CPU(bag_cross_entropy)(const struct call *c)
{
    const float *sums = c->out[OUT_BAG_CROSS_ENTROPY_BAG];
    double nats = 0;
    cpu_run(c, tiles_of(c->size.in[IN_BAG_CROSS_ENTROPY_LOGITS][0], BAGS), bag_sums, c);
    for (size_t s = 0; s < c->size.in[IN_BAG_CROSS_ENTROPY_LOGITS][0]; s++) nats += sums[s * BAG_SUMS + BAG_NATS];
    *(float *)c->out[OUT_BAG_CROSS_ENTROPY_LOSS] = (float)nats;
}

static void bag_backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const int32_t *labels = c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_LABELS],
                  *offsets = c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_OFFSETS];
    size_t v = c->size.in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS][1],
           end = least(c->size.in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS][0], (tile + 1) * BAGS);
    float d = *(const float *)c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_DLOSS];
    bool add = c->add[OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS];
    for (size_t s = tile * BAGS; s < end; s++) {
        const float *x = (const float *)c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS] + s * v,
                    *sums = (const float *)c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_BAG] + s * BAG_SUMS;
        float *dx = (float *)c->out[OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS] + s * v, logsum = sums[BAG_LOGSUM],
              scale = d * sums[BAG_LABELS];
        SIMD for (size_t i = 0; i < v; i++)
        {
            float gradient = scale * cpu_exp(x[i] - logsum);
            dx[i] = add ? dx[i] + gradient : gradient;
        }
        for (size_t n = (size_t)offsets[s]; n < (size_t)offsets[s + 1]; n++)
            if (labels[n] >= 0) dx[labels[n]] -= d;
    }
}

void CPU(bag_cross_entropy_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS][0], BAGS), bag_backward, c);
}

/* ---- the ELBO: a few thousand numbers, so one thread with double sums ---- */

static double sentence_kl(const float *kl, size_t width, size_t s, size_t group, size_t group_width)
{
    double sum = 0;
    for (size_t j = group * group_width; j < (group + 1) * group_width; j++) sum += kl[s * width + j];
    return sum;
}

static double mean_kl(const struct call *c, size_t group, size_t groups)
{
    const float *kl = c->in[c->node->backward ? 0 : 1];
    size_t sentences = c->size.in[c->node->backward ? 0 : 1][0], width = c->size.in[c->node->backward ? 0 : 1][1];
    size_t group_width = width / groups;
    double sum = 0;
    for (size_t s = 0; s < sentences; s++)
        for (size_t j = group * group_width; j < (group + 1) * group_width; j++) sum += kl[s * width + j];
    return sentences ? sum / (double)sentences : 0;
}

/* Returns the cost of a part of the KL under free bits; adds `times` to *under if the part is at most the free nats. */
static double free_bits_cost(const struct call *c, double kl, double times, double *under)
{
    double nats = c->attr->f[ATTR_FREE_NATS];
    *under += kl > nats ? 0 : times;
    if (kl > nats) return times * kl;
    return c->attr->i[ATTR_FREE_FORM] == FREE_MASK ? 0 : times * fmax(nats, kl);
}

void CPU(elbo)(const struct call *c)
{
    const float *nll = c->in[IN_ELBO_NLL], *kl = c->in[IN_ELBO_KL], *weights = c->in[IN_ELBO_WEIGHTS];
    float *parts = c->out[OUT_ELBO_PARTS], *kl_dim = c->out[OUT_ELBO_KL_DIM];
    double sum_nll = 0, sum_kl = 0, sum_free = 0, under = 0;
    size_t sentences = c->size.in[IN_ELBO_KL][0], width = c->size.in[IN_ELBO_KL][1],
           groups = (size_t)c->attr->i[ATTR_FREE_GROUPS];
    bool each = c->attr->i[ATTR_FREE_SCOPE] == FREE_SENTENCE;
    for (size_t n = 0; n < c->size.in[IN_ELBO_NLL][0]; n++) sum_nll += nll[n];
    for (size_t j = 0; j < width && kl; j++) {
        double sum = 0;
        for (size_t s = 0; s < sentences; s++) sum += kl[s * width + j];
        kl_dim[j] = (float)sum;
        sum_kl += sum;
    }
    for (size_t k = 0; k < groups && kl && !each; k++)
        sum_free += free_bits_cost(c, mean_kl(c, k, groups), (double)sentences, &under);
    for (size_t k = 0; k < groups && kl && each; k++)
        for (size_t s = 0; s < sentences; s++)
            sum_free += free_bits_cost(c, sentence_kl(kl, width, s, k, width / groups), 1, &under);
    parts[ELBO_LOSS] = (float)(weights[ELBO_WEIGHT_NLL] * sum_nll + weights[ELBO_WEIGHT_KL] * sum_free);
    parts[ELBO_NLL] = (float)sum_nll;
    parts[ELBO_KL] = (float)sum_kl;
    parts[ELBO_KL_FREE] = (float)sum_free;
    parts[ELBO_UNDER] = groups ? (float)(under / (double)groups) : 0;
}

void CPU(elbo_backward)(const struct call *c)
{
    const float *kl = c->in[IN_ELBO_BACKWARD_KL], *weights = c->in[IN_ELBO_BACKWARD_WEIGHTS];
    float *dnll = c->out[OUT_ELBO_BACKWARD_DNLL], *dkl = c->out[OUT_ELBO_BACKWARD_DKL];
    for (size_t n = 0; dnll && n < c->size.out[OUT_ELBO_BACKWARD_DNLL][0]; n++) dnll[n] = weights[ELBO_WEIGHT_NLL];
    if (!dkl) return;
    size_t sentences = c->size.in[IN_ELBO_BACKWARD_KL][0], width = c->size.in[IN_ELBO_BACKWARD_KL][1],
           groups = (size_t)c->attr->i[ATTR_FREE_GROUPS], each = width / groups;
    bool own = c->attr->i[ATTR_FREE_SCOPE] == FREE_SENTENCE;
    for (size_t k = 0; k < groups; k++) {
        double mean = own ? 0 : mean_kl(c, k, groups);
        for (size_t s = 0; s < sentences; s++) {
            bool above = (own ? sentence_kl(kl, width, s, k, each) : mean) > c->attr->f[ATTR_FREE_NATS];
            for (size_t j = k * each; j < (k + 1) * each; j++)
                dkl[s * width + j] = above ? weights[ELBO_WEIGHT_KL] : 0.0f;
        }
    }
}

/* ---- the objective: a few numbers ---- */

void CPU(objective)(const struct call *c)
{
    const float *elbo = c->in[IN_OBJECTIVE_ELBO], *weights = c->in[IN_OBJECTIVE_WEIGHTS];
    float *out = c->out[OUT_OBJECTIVE_PARTS];
    double loss = elbo[ELBO_LOSS];
    memcpy(out, elbo, ELBO_PARTS * sizeof *out);
    for (size_t k = 0; ELBO_PARTS + k < c->size.out[OUT_OBJECTIVE_PARTS][0]; k++) {
        float term = *(const float *)c->in[2 + k];
        loss += (double)weights[objective_index(c->attr, k)] * term;
        out[ELBO_PARTS + k] = term;
    }
    out[ELBO_LOSS] = (float)loss;
}

void CPU(objective_backward)(const struct call *c)
{
    const float *weights = c->in[IN_OBJECTIVE_BACKWARD_WEIGHTS];
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
        float *d = c->out[k];
        unsigned index = objective_index(c->attr, k);
        for (size_t i = 0; d && i < c->size.out[k][0]; i++) {
            float slope = i ? 0 : index == OBJECTIVE_ELBO ? 1 : weights[index];
            d[i] = c->add[k] ? d[i] + slope : slope;
        }
    }
}
