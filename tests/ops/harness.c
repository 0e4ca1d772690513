#include "ops/harness.h"
#include "base/philox.h"
#include "cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- which family's program runs which op ---- */

#define COVER_embedding                  FAMILY_EMBEDDING
#define COVER_embedding_backward         FAMILY_EMBEDDING
#define COVER_linear                     FAMILY_LINEAR
#define COVER_linear_backward_input      FAMILY_LINEAR
#define COVER_linear_backward_weight     FAMILY_LINEAR
#define COVER_norm                       FAMILY_NORM
#define COVER_norm_backward              FAMILY_NORM
#define COVER_attention                  FAMILY_ATTENTION
#define COVER_attention_backward         FAMILY_ATTENTION
#define COVER_attention_cached           FAMILY_ATTENTION
#define COVER_rotary                     FAMILY_ATTENTION
#define COVER_pool                       FAMILY_SENTENCE
#define COVER_pool_backward              FAMILY_SENTENCE
#define COVER_broadcast_add              FAMILY_SENTENCE
#define COVER_segment_sum                FAMILY_SENTENCE
#define COVER_latent                     FAMILY_LATENT
#define COVER_latent_backward            FAMILY_LATENT
#define COVER_column_moments             FAMILY_LATENT
#define COVER_linear_cross_entropy       FAMILY_LOSS
#define COVER_linear_cross_entropy_train FAMILY_LOSS
#define COVER_elbo                       FAMILY_LOSS
#define COVER_elbo_backward              FAMILY_LOSS
#define COVER_add                        FAMILY_ELEMENTWISE
#define COVER_gelu                       FAMILY_ELEMENTWISE
#define COVER_gelu_backward              FAMILY_ELEMENTWISE
#define COVER_swiglu                     FAMILY_ELEMENTWISE
#define COVER_swiglu_backward            FAMILY_ELEMENTWISE
#define COVER_dropout                    FAMILY_ELEMENTWISE
#define COVER_squared_norm               FAMILY_OPTIMIZER
#define COVER_adamw                      FAMILY_OPTIMIZER
#define COVER_sgd                        FAMILY_OPTIMIZER

#define COVER_ENTRY(name) [OP_##name] = COVER_##name,
static const enum family cover[OP_COUNT] = {ELBO_OPS(COVER_ENTRY)};
#undef COVER_ENTRY

enum { OP_TEST_LOSS = OP_COUNT, OP_TEST_GRADIENT, TEST_OPS };

enum family harness_family = FAMILY_NONE;
struct device harness_device[MOST_DEVICES];
size_t harness_devices;
static struct kernel tables[MOST_DEVICES][TEST_OPS];
static size_t ran[TEST_OPS];
static struct {
    double forward, gradient;
    size_t trials;
} worst;

/* ---- the test's own op: loss = sum of coefficient * value ---- */

static size_t elements_of(const size_t dim[MAX_RANK])
{
    size_t n = dim[0];
    for (unsigned d = 1; d < MAX_RANK && dim[d]; d++) n *= dim[d];
    return n;
}

static void run_loss(const struct call *c)
{
    double sum = 0;
    for (unsigned k = 0; k < 4; k++)
        for (size_t i = 0; c->in[k] && i < elements_of(c->size.in[k]); i++)
            sum += (double)((const float *)c->in[k])[i] * ((const float *)c->in[4 + k])[i];
    *(float *)c->out[0] = (float)sum;
}

static void run_gradient(const struct call *c)
{
    const float *coefficient = c->in[0];
    float *d = c->out[0];
    for (size_t i = 0; i < elements_of(c->size.out[0]); i++) d[i] = c->add[0] ? d[i] + coefficient[i] : coefficient[i];
}

static const struct op_type gradient_type = {.name = "test_gradient", .index = OP_TEST_GRADIENT, .accumulates = 1};
static const struct op_type gradient_apart_type = {.name = "test_gradient", .index = OP_TEST_GRADIENT};

static void differentiate(struct autodiff *ad, const struct node *n, const struct op_type *type)
{
    for (unsigned k = 0; k < 4; k++) {
        if (!autodiff_wants(ad, n->in[k])) continue;
        struct node *b = autodiff_node(ad, type, n);
        node_in(autodiff_graph(ad), b, 0, n->in[4 + k]);
        autodiff_write(ad, b, 0, n->in[k]);
    }
}

static void loss_gradient(struct autodiff *ad, const struct node *n)
{
    differentiate(ad, n, &gradient_type);
}

static void loss_gradient_apart(struct autodiff *ad, const struct node *n)
{
    differentiate(ad, n, &gradient_apart_type);
}

static const struct op_type loss_type = {.name = "test_loss", .index = OP_TEST_LOSS, .gradient = loss_gradient};
static const struct op_type loss_apart_type = {
    .name = "test_loss", .index = OP_TEST_LOSS, .gradient = loss_gradient_apart};

static value record_loss(struct graph *g, const struct op_type *type, const value *values, const value *coefficients,
                         size_t count)
{
    struct node *n = graph_node(g, type);
    for (unsigned k = 0; k < count; k++) {
        node_in(g, n, k, values[k]);
        node_in(g, n, 4 + k, coefficients[k]);
    }
    return node_out(g, n, 0, "loss", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 1}});
}

value harness_loss(struct graph *g, const value *values, const value *coefficients, size_t count)
{
    return record_loss(g, &loss_type, values, coefficients, count);
}

value harness_loss_apart(struct graph *g, const value *values, const value *coefficients, size_t count)
{
    return record_loss(g, &loss_apart_type, values, coefficients, count);
}

/* ---- numbers ---- */

double harness_norm(const double *a, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * a[i];
    return sqrt(sum);
}

double harness_error(const double *a, const double *b, size_t n, double floor)
{
    double sum = 0, norm = fmax(harness_norm(b, n), floor);
    for (size_t i = 0; i < n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum == 0 ? 0 : norm > 0 ? sqrt(sum) / norm : sqrt(sum);
}

double harness_error_f32(const float *a, const double *b, size_t n, double floor)
{
    double *wide = malloc((n + 1) * sizeof *wide);
    if (!wide) abort();
    for (size_t i = 0; i < n; i++) wide[i] = a[i];
    double error = harness_error(wide, b, n, floor);
    free(wide);
    return error;
}

void harness_close_to(const char *what, double error, double tolerance)
{
    if (!(error <= tolerance)) fail_msg("%s: error %.3g exceeds %.1g", what, error, tolerance);
}

void harness_normal(double *to, size_t n, double mean, double deviation, uint64_t seed)
{
    struct noise_key key = noise_key(seed, noise_purpose("test"), 0);
    for (size_t i = 0; i < n; i++) {
        float four[4];
        noise_normal4(four, noise_block(key, i / 4, 0, 0));
        to[i] = (float)(mean + deviation * four[i % 4]);
    }
}

void *harness_memory(size_t bytes)
{
    size_t room = (bytes + 127) / 64 * 64;
    void *memory = aligned_alloc(64, room);
    if (!memory) abort();
    memset(memory, 0xff, room);
    return memory;
}

static void count_op(void *context, const struct call *call, bool after)
{
    (void)context;
    if (after) ran[call->node->type->index]++;
}

void harness_run(struct executor *e, const struct execution *run)
{
    elbo_error error = {0};
    struct cpu_backend *cpu = (struct cpu_backend *)e->backend;
    if (cpu->shared) memset(cpu->shared, 0xff, cpu->shared_bytes);
    if (cpu->workers) memset(cpu->workers, 0xff, cpu->worker_bytes * pool_threads(cpu->pool));
    e->hook = count_op;
    if (executor_run(e, run, &error)) fail_msg("%s", error.message);
}

/* ---- sentences ---- */

const struct ragged harness_ragged[] = {
    {1, {1}},
    {1, {5}},
    {3, {1, 1, 1}},
    {2, {0, 3}},
    {2, {3, 0}},
    {1, {0}},
    {4, {0, 2, 0, 7}},
    {2, {15, 16}},
    {2, {16, 16}},
    {2, {17, 16}},
    {5, {2, 9, 1, 4, 3}},
    {1, {31}},
    {1, {33}},
    {3, {0, 0, 0}},
    {9, {1, 2, 3, 4, 5, 6, 7, 8, 9}},
    {1, {64}},
    {6, {11, 13, 0, 17, 1, 23}},
};
const size_t harness_ragged_count = sizeof harness_ragged / sizeof *harness_ragged;

struct batch *batch_of(const struct ragged *r)
{
    struct batch *b = calloc(1, sizeof *b);
    if (!b) abort();
    b->sentences = r->sentences;
    for (size_t s = 0; s < r->sentences; s++) {
        for (size_t i = 0; i < r->length[s]; i++) {
            b->sentence[b->tokens] = (int32_t)s;
            b->position[b->tokens++] = (int32_t)i;
        }
        b->offsets[s + 1] = (int32_t)b->tokens;
        b->sample[s] = 0x300000005u + 7 * s;
    }
    for (size_t n = 0; n < b->tokens; n++) b->order[n] = (int32_t)n;
    b->weights[ELBO_WEIGHT_NLL] = 0.8f;
    b->weights[ELBO_WEIGHT_KL] = 0.3f;
    return b;
}

struct batch *batch_rows(size_t rows)
{
    return batch_of(&(struct ragged){1, {rows}});
}

void batch_words(struct batch *b, size_t vocabulary, uint64_t seed)
{
    struct noise_key key = noise_key(seed, noise_purpose("words"), 0);
    for (size_t n = 0; n < b->tokens; n++) {
        double u = noise_uniform(noise_bits(key, 0, 0, n));
        b->ids[n] = (int32_t)(u * u * (double)vocabulary); /* low ids are frequent */
        b->labels[n] = (int32_t)(noise_uniform(noise_bits(key, 1, 0, n)) * (double)vocabulary);
        b->order[n] = (int32_t)n;
    }
    for (size_t i = 1; i < b->tokens; i++) /* stable insertion */
        for (size_t j = i; j > 0 && b->ids[b->order[j - 1]] > b->ids[b->order[j]]; j--) {
            int32_t t = b->order[j];
            b->order[j] = b->order[j - 1];
            b->order[j - 1] = t;
        }
}

value harness_input(struct graph *g, const char *name)
{
    value known = graph_input_named(g, name);
    if (known.index) return known;
    if (!strcmp(name, "weights")) return graph_input(g, name, DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, ELBO_WEIGHTS}});
    if (!strcmp(name, "sample")) return graph_input(g, name, DTYPE_U64, 1, (struct dim[]){{DIM_SENTENCES, 0}});
    if (!strcmp(name, "offsets")) return graph_input(g, name, DTYPE_I32, 1, (struct dim[]){{DIM_SENTENCES, 1}});
    return graph_input(g, name, DTYPE_I32, 1, (struct dim[]){{DIM_DEC_TOKENS, 0}});
}

/* ---- one trial ---- */

struct built {
    struct parameters *parameters;
    struct graph *g;
    size_t parameter[MOST_OPERANDS];
    value in[MOST_OPERANDS], out[2][MOST_RESULTS];
    bool raw[MOST_OPERANDS];
};

struct reference {
    double *in[MOST_OPERANDS], *out[MOST_RESULTS], *dout[MOST_RESULTS], *din[MOST_OPERANDS];
    float *in_f32[MOST_OPERANDS], *coefficient[2][MOST_RESULTS];
    size_t in_elements[MOST_OPERANDS], out_elements[MOST_RESULTS];
    int32_t identity[MOST_TOKENS];
    size_t count[DIM_KINDS], capacity[DIM_KINDS];
};

static void *some(size_t n, size_t size)
{
    void *memory = calloc(n + 1, size);
    if (!memory) abort();
    return memory;
}

static value operand_value(struct built *b, const struct trial *t, const struct reference *r, size_t k)
{
    static const char *const names[MOST_OPERANDS] = {"a", "b", "c", "d"};
    static const char *const rows[DIM_KINDS] = {"", "identity.enc", "identity.dec", "identity.sentences",
                                                "identity.draws"};
    const struct operand *o = &t->in[k];
    elbo_error error = {0};
    bool counted = o->kind != DIM_FIXED;
    if (counted && !o->width) {
        b->raw[k] = true;
        return graph_input(b->g, names[k], DTYPE_F32, 1, (struct dim[]){{o->kind, 0}});
    }
    struct parameter p = {.name = names[k], .rank = o->width ? 2 : 1, .part = PART_DECODER, .decay = true};
    p.shape[0] = counted ? r->capacity[o->kind] : o->rows;
    p.shape[1] = o->width;
    if (parameters_declare(b->parameters, &b->parameter[k], &p, &error)) fail_msg("%s", error.message);
    value v = graph_parameter(b->g, b->parameter[k]);
    if (!counted) return v;
    value ids = graph_input_named(b->g, rows[o->kind]);
    if (!ids.index) ids = graph_input(b->g, rows[o->kind], DTYPE_I32, 1, (struct dim[]){{o->kind, 0}});
    return op_embedding(b->g, v, ids, ids, NO_VALUE);
}

static void build(struct built *b, const struct trial *t, const struct reference *r, unsigned times)
{
    *b = (struct built){0};
    elbo_error error = {0};
    struct graph_capacities capacities = {{0}};
    memcpy(capacities.count, r->capacity, sizeof r->capacity);
    if (parameters_create(&b->parameters, &error) || graph_create(&b->g, "test", b->parameters, &capacities, &error))
        fail_msg("%s", error.message);
    for (size_t k = 0; k < t->inputs; k++) b->in[k] = operand_value(b, t, r, k);
    value values[4], coefficients[4];
    size_t pairs = 0;
    for (unsigned i = 0; i < times; i++) {
        graph_scope(b->g, HARNESS_SCOPE);
        t->record(b->g, t, b->in, b->out[i]);
        if (graph_check(b->g, &error)) fail_msg("%s: %s", t->name, error.message);
        for (unsigned k = 0; k < MOST_RESULTS; k++) {
            value v = b->out[i][k];
            if (!v.index) continue;
            graph_keep(b->g, v);
            if (t->forward_only || t->is_loss) continue;
            char name[32];
            snprintf(name, sizeof name, "coefficient.%u.%u", i, k);
            const struct value_info info = *graph_value(b->g, v);
            values[pairs] = v;
            coefficients[pairs++] = graph_input(b->g, name, DTYPE_F32, info.rank, info.dim);
        }
    }
    if (t->forward_only) {
        if (parameters_layout(b->parameters, NULL, &error)) fail_msg("%s", error.message);
        return;
    }
    value loss = t->is_loss ? b->out[0][0] : harness_loss(b->g, values, coefficients, pairs);
    struct autodiff_options options = {.wanted = (unsigned)WANT_ALL, .add = &op_add_type};
    if (graph_differentiate(b->g, loss, &options, &error) || parameters_layout(b->parameters, NULL, &error))
        fail_msg("%s: %s", t->name, error.message);
}

static void built_free(struct built *b)
{
    graph_free(b->g);
    parameters_free(b->parameters);
}

static void bind(struct executor *e, const struct built *b, const struct trial *t, struct reference *r)
{
    const struct {
        const char *name;
        const void *data;
    } known[] = {{"offsets", t->batch->offsets}, {"sentence", t->batch->sentence}, {"position", t->batch->position},
                 {"ids", t->batch->ids},         {"order", t->batch->order},       {"labels", t->batch->labels},
                 {"sample", t->batch->sample},   {"weights", t->batch->weights}};
    for (uint32_t v = 1; v < graph_values(b->g); v++) {
        const struct value_info *info = graph_value(b->g, (value){v});
        unsigned i, k;
        if (info->class != VALUE_INPUT) continue;
        const void **slot = &e->inputs[info->binding];
        for (size_t n = 0; n < sizeof known / sizeof *known; n++)
            if (!strcmp(info->name, known[n].name)) *slot = known[n].data;
        if (!strncmp(info->name, "identity", 8)) *slot = r->identity;
        if (sscanf(info->name, "coefficient.%u.%u", &i, &k) == 2) *slot = r->coefficient[i][k];
        for (k = 0; k < t->inputs; k++)
            if (b->raw[k] && b->in[k].index == v) *slot = r->in_f32[k];
    }
}

/* The weights arena: NaN in the gaps and in the rows beyond the count. */
static float *weights_of(const struct built *b, const struct trial *t, const struct reference *r)
{
    float *w = harness_memory(parameters_arena_elements(b->parameters) * sizeof *w);
    for (size_t k = 0; k < t->inputs; k++)
        if (!b->raw[k])
            memcpy(w + parameters_get(b->parameters, b->parameter[k])->offset, r->in_f32[k],
                   r->in_elements[k] * sizeof *w);
    return w;
}

static double weighted(const struct trial *t, struct reference *r, double *const *out)
{
    double sum = 0;
    t->reference(t, r->in, out);
    for (unsigned k = 0; k < MOST_RESULTS; k++)
        for (size_t i = 0; i < r->out_elements[k]; i++) sum += r->dout[k][i] * out[k][i];
    return sum;
}

static double difference(const struct trial *t, struct reference *r, double *const *out, size_t k, size_t i)
{
    const double h = 1e-5;
    double x = r->in[k][i];
    r->in[k][i] = x + h;
    double up = weighted(t, r, out);
    r->in[k][i] = x - h;
    double down = weighted(t, r, out);
    r->in[k][i] = x;
    return (up - down) / (2 * h);
}

static double whole(const struct trial *t, const struct reference *r)
{
    double sum = 0;
    for (size_t k = 0; k < t->inputs; k++) sum += pow(harness_norm(r->din[k], r->in_elements[k]), 2);
    return 1e-3 * sqrt(sum) / sqrt((double)t->inputs);
}

static void reference_gradient(const struct trial *t, struct reference *r)
{
    double *out[MOST_RESULTS];
    for (unsigned k = 0; k < MOST_RESULTS; k++) out[k] = some(r->out_elements[k], sizeof(double));
    if (t->gradient) t->gradient(t, r->in, r->dout, r->din);
    for (size_t k = 0; k < t->inputs; k++) {
        size_t n = r->in_elements[k];
        if (!t->gradient) {
            for (size_t i = 0; i < n; i++) r->din[k][i] = difference(t, r, out, k, i);
            continue;
        }
        enum { SOME = 12 };
        size_t samples = n < SOME ? n : t->large ? 1 : SOME;
        for (size_t s = 0; s < samples; s++) {
            size_t i = samples == n ? s : (s * 2654435761u + 17) % n;
            double d = difference(t, r, out, k, i), scale = fmax(fabs(d), whole(t, r) + 1e-3);
            if (!(fabs(d - r->din[k][i]) / scale <= TOLERANCE_ANALYTIC))
                fail_msg("%s: the reference's own gradient of input %zu at %zu is %g, differences say %g", t->name, k,
                         i, r->din[k][i], d);
        }
    }
    for (unsigned k = 0; k < MOST_RESULTS; k++) free(out[k]);
}

/* What one execution left: outputs, then gradients. */
struct outcome {
    float *data;
    size_t size;
};

static void take(struct outcome *o, const float *from, size_t n)
{
    memcpy(o->data + o->size, from, n * sizeof *from);
    o->size += n;
}

static void check_outcome(const char *where, const struct trial *t, const struct built *b, const struct reference *r,
                          const struct outcome *o, unsigned times, double factor)
{
    const float *at = o->data;
    char what[256];
    for (unsigned i = 0; i < times; i++)
        for (unsigned k = 0; k < MOST_RESULTS; k++) {
            if (!b->out[i][k].index) continue;
            double error = harness_error_f32(at, r->out[k], r->out_elements[k], 0);
            snprintf(what, sizeof what, "%s, %s: output %u", t->name, where, k);
            harness_close_to(what, error, TOLERANCE_FORWARD);
            worst.forward = fmax(worst.forward, error);
            at += r->out_elements[k];
        }
    if (t->forward_only) return;
    for (size_t k = 0; k < t->inputs; k++) {
        const struct parameter *p = parameters_get(b->parameters, b->parameter[k]);
        size_t n = r->in_elements[k];
        double *wanted = some(n, sizeof *wanted);
        for (size_t i = 0; i < n; i++) wanted[i] = factor * r->din[k][i];
        double error = harness_error_f32(at, wanted, n, factor * whole(t, r));
        snprintf(what, sizeof what, "%s, %s: gradient of input %zu", t->name, where, k);
        harness_close_to(what, error, TOLERANCE_GRADIENT);
        harness_close_to(what, error, TOLERANCE_DIFFERENCES);
        worst.gradient = fmax(worst.gradient, error);
        for (size_t i = n; i < p->elements; i++)
            if (at[i] != 0) fail_msg("%s: element %zu beyond the count has a gradient", what, i);
        at += p->elements;
        free(wanted);
    }
}

static void check_gaps(const char *where, const struct trial *t, const struct built *b, const float *gradients)
{
    size_t total = parameters_arena_elements(b->parameters);
    unsigned char *inside = some(total, 1);
    for (size_t k = 0; k < t->inputs; k++) {
        const struct parameter *p = parameters_get(b->parameters, b->parameter[k]);
        if (!b->raw[k]) memset(inside + p->offset, 1, p->elements);
    }
    for (size_t i = 0; i < total; i++) {
        uint32_t bits;
        memcpy(&bits, gradients + i, sizeof bits);
        if (!inside[i] && bits != UINT32_MAX) fail_msg("%s, %s: wrote outside a gradient, at %zu", t->name, where, i);
    }
    free(inside);
}

static void run_on(const struct device *d, const struct trial *t, struct built *b, struct reference *r, unsigned times,
                   struct outcome *first)
{
    elbo_error error = {0};
    struct executor e;
    char where[96];
    snprintf(where, sizeof where, "%s, %zu threads, recorded %u times", d->variant, d->threads, times);
    if (executor_create(&e, b->g, d->backend, &error)) fail_msg("%s", error.message);
    size_t total = parameters_arena_elements(b->parameters), room = 4 * total + 64;
    for (unsigned k = 0; k < MOST_RESULTS; k++) room += 4 * r->out_elements[k];
    float *weights = weights_of(b, t, r), *gradients = harness_memory(total * sizeof *gradients);
    char *arena = harness_memory(e.plan.bytes + 256);
    struct outcome all = {.data = some(room, sizeof(float))};
    if (executor_bind(&e, arena, weights, gradients, NULL, &error)) fail_msg("%s", error.message);
    bind(&e, b, t, r);
    for (unsigned slot = 0; slot < (t->forward_only ? 1u : 2u); slot++) {
        struct execution run = {
            .first_slot = slot == 0, .seed = HARNESS_SEED, .step = HARNESS_STEP, .draw = HARNESS_DRAW};
        memcpy(run.count, r->count, sizeof run.count);
        harness_run(&e, &run);
        struct outcome o = {.data = all.data + all.size};
        for (unsigned i = 0; i < times; i++)
            for (unsigned k = 0; k < MOST_RESULTS; k++)
                if (b->out[i][k].index) take(&o, executor_pointer(&e, b->out[i][k]), r->out_elements[k]);
        for (size_t k = 0; k < t->inputs && !t->forward_only; k++) {
            const struct parameter *p = parameters_get(b->parameters, b->parameter[k]);
            take(&o, gradients + p->offset, p->elements);
        }
        double factor = (slot ? 2.0 : 1.0) * (times == 2 ? 1.5 : 1.0);
        if (!first->data) check_outcome(where, t, b, r, &o, times, factor);
        all.size += o.size;
    }
    check_gaps(where, t, b, gradients);
    for (size_t i = e.plan.bytes; i < e.plan.bytes + 256; i++)
        if ((unsigned char)arena[i] != 0xff) fail_msg("%s, %s: wrote behind the arena", t->name, where);
    if (!first->data) {
        *first = all;
    } else {
        if (all.size != first->size || memcmp(all.data, first->data, all.size * sizeof(float)))
            fail_msg("%s, %s: other bits than with 1 thread", t->name, where);
        free(all.data);
    }
    executor_free(&e);
    free(weights);
    free(gradients);
    free(arena);
}

static void prepare(struct reference *r, const struct trial *t)
{
    *r = (struct reference){0};
    r->count[DIM_DEC_TOKENS] = t->batch->tokens;
    r->count[DIM_SENTENCES] = r->count[DIM_DRAWS] = t->batch->sentences;
    for (unsigned k = 1; k < DIM_KINDS; k++) r->capacity[k] = r->count[k] + t->tail;
    for (size_t i = 0; i < MOST_TOKENS; i++) r->identity[i] = (int32_t)i;
    for (size_t k = 0; k < t->inputs; k++) {
        size_t n = r->in_elements[k] = t->in[k].rows * (t->in[k].width ? t->in[k].width : 1);
        r->in[k] = some(n, sizeof(double));
        r->din[k] = some(n, sizeof(double));
        r->in_f32[k] = some(n, sizeof(float));
        harness_normal(r->in[k], n, t->in[k].mean, t->in[k].deviation, noise_purpose(t->name) + k);
        for (size_t i = 0; i < n; i++) r->in_f32[k][i] = (float)r->in[k][i];
    }
}

void harness_try(const struct trial *t)
{
    struct reference r;
    struct built b[2];
    unsigned builds = t->is_loss || t->forward_only ? 1 : 2;
    prepare(&r, t);
    build(&b[0], t, &r, 1);
    if (builds == 2) build(&b[1], t, &r, 2);
    for (unsigned k = 0; k < MOST_RESULTS; k++) {
        value v = b[0].out[0][k];
        size_t n = r.out_elements[k] = v.index ? graph_elements(b[0].g, v, r.count) : 0;
        r.out[k] = some(n, sizeof(double));
        r.dout[k] = some(n, sizeof(double));
        harness_normal(r.dout[k], n, 0, 1, noise_purpose(t->name) + 100 + k);
        for (size_t i = 0; t->is_loss && i < n; i++) r.dout[k][i] = k == 0 && i == 0;
        for (unsigned copy = 0; copy < 2; copy++) {
            r.coefficient[copy][k] = some(n, sizeof(float));
            for (size_t i = 0; i < n; i++) r.coefficient[copy][k][i] = (float)(r.dout[k][i] * (copy ? 0.5 : 1));
        }
    }
    t->reference(t, r.in, r.out);
    if (!t->forward_only) reference_gradient(t, &r);
    for (unsigned i = 0; i < builds; i++) {
        struct outcome first = {0};
        for (size_t d = 0; d < harness_devices; d++) {
            const struct device *device = &harness_device[d];
            if (device->threads == 1) {
                free(first.data);
                first = (struct outcome){0};
            }
            if (!t->large || device->threads % 2) run_on(device, t, &b[i], &r, i + 1, &first);
        }
        free(first.data);
        built_free(&b[i]);
    }
    for (size_t k = 0; k < MOST_OPERANDS; k++) free(r.in[k]), free(r.din[k]), free(r.in_f32[k]);
    for (unsigned k = 0; k < MOST_RESULTS; k++)
        free(r.out[k]), free(r.dout[k]), free(r.coefficient[0][k]), free(r.coefficient[1][k]);
    worst.trials++;
}

/* ---- programs ---- */

int harness_open(void **state)
{
    (void)state;
    static const char *const variants[] = {"generic", "avx2", "avx512"};
    static const size_t threads[] = {1, 2, 3, 8};
    bool supported[3] = {true, false, false};
#if defined(__x86_64__)
    __builtin_cpu_init();
    supported[1] = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    supported[2] = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
#endif
    for (unsigned v = 0; v < 3; v++)
        for (unsigned i = 0; i < 4 && supported[v]; i++) {
            elbo_error error = {0};
            struct device *d = &harness_device[harness_devices];
            *d = (struct device){.variant = variants[v], .threads = threads[i]};
            if (cpu_backend_create(&d->backend, threads[i], variants[v], &error)) {
                print_message("%s\n", error.message);
                return -1;
            }
            struct kernel *table = tables[harness_devices++];
            memcpy(table, d->backend->kernels, OP_COUNT * sizeof *table);
            table[OP_TEST_LOSS].run = run_loss;
            table[OP_TEST_GRADIENT].run = run_gradient;
            d->backend->kernels = table;
        }
    return 0;
}

int harness_close(void **state)
{
    (void)state;
    print_message("%zu trials on %zu devices: worst forward error %.2g, worst gradient error %.2g\n", worst.trials,
                  harness_devices, worst.forward, worst.gradient);
    for (size_t d = 0; d < harness_devices; d++) harness_device[d].backend->destroy(harness_device[d].backend);
    return 0;
}

void harness_covers(void **state)
{
    (void)state;
    for (size_t i = 0; i < OP_COUNT; i++)
        if (cover[i] == harness_family && !ran[i]) fail_msg("the op %s was not run", op_types[i]->name);
}
