/* Runs one trial: records the op once and twice, runs it on every device, and compares it with the reference. Devices,
 * inputs and the coverage table are in harness.c. */
#include "ops/harness.h"
#include "base/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    double forward, gradient;
    size_t trials;
} worst;

void harness_report(void)
{
    print_message("%zu trials on %zu devices: worst forward error %.2g, worst gradient error %.2g\n", worst.trials,
                  harness_devices, worst.forward, worst.gradient);
}

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

static value identity(struct graph *g, const char *rows, const char *what, enum dim_kind kind, enum pad_rule pad)
{
    char name[48];
    snprintf(name, sizeof name, "%s.%s", rows, what);
    value v = graph_input_named(g, name);
    if (v.index) return v;
    v = graph_input(g, name, DTYPE_I32, 1, (struct dim[]){{kind, 0}});
    graph_pad(g, v, pad);
    return v;
}

static value operand_value(struct built *b, const struct trial *t, const struct reference *r, size_t k)
{
    static const char *const names[MOST_OPERANDS] = {"a", "b", "c", "d", "e"};
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
    /* ids and order are two inputs with the same numbers. Rows that a backend pads repeat the last id, and come last in
     * the order. */
    return op_embedding(b->g, v, identity(b->g, rows[o->kind], "ids", o->kind, PAD_MOST),
                        identity(b->g, rows[o->kind], "order", o->kind, PAD_ROW), NO_VALUE);
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
                 {"sample", t->batch->sample},   {"weights", t->batch->weights},   {"running", t->batch->running}};
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

/* Returns the weights arena, with NaN in the gaps and in the rows beyond the count. */
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

/* Results of one execution: outputs, then gradients. */
struct outcome {
    float *data;
    size_t size;
};

static void take(struct outcome *o, const struct device *d, const float *from, size_t n)
{
    device_read(d, o->data + o->size, from, n * sizeof *from);
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
    float *weights_here = weights_of(b, t, r), *gradients_here = harness_memory(total * sizeof *gradients_here);
    float *weights = device_memory(d, total * sizeof *weights, weights_here);
    float *gradients = device_memory(d, total * sizeof *gradients, NULL);
    char *arena = device_memory(d, e.plan.bytes + 256, NULL), behind[256];
    struct outcome all = {.data = some(room, sizeof(float))};
    if (executor_bind(&e, arena, (struct weight_arenas){.master = weights}, gradients, NULL, &error))
        fail_msg("%s", error.message);
    bind(&e, b, t, r);
    for (unsigned slot = 0; slot < (t->forward_only ? 1u : 2u); slot++) {
        struct execution run = {
            .first_slot = slot == 0, .seed = HARNESS_SEED, .step = HARNESS_STEP, .draw = HARNESS_DRAW};
        memcpy(run.count, r->count, sizeof run.count);
        harness_run(&e, &run);
        struct outcome o = {.data = all.data + all.size};
        for (unsigned i = 0; i < times; i++)
            for (unsigned k = 0; k < MOST_RESULTS; k++)
                if (b->out[i][k].index) take(&o, d, executor_pointer(&e, b->out[i][k]), r->out_elements[k]);
        for (size_t k = 0; k < t->inputs && !t->forward_only; k++) {
            const struct parameter *p = parameters_get(b->parameters, b->parameter[k]);
            take(&o, d, gradients + p->offset, p->elements);
        }
        double factor = (slot ? 2.0 : 1.0) * (times == 2 ? 1.5 : 1.0);
        if (!first->data) check_outcome(where, t, b, r, &o, times, factor);
        all.size += o.size;
    }
    device_read(d, gradients_here, gradients, total * sizeof *gradients);
    check_gaps(where, t, b, gradients_here);
    device_read(d, behind, arena + e.plan.bytes, sizeof behind);
    for (size_t i = 0; i < sizeof behind; i++)
        if ((unsigned char)behind[i] != 0xff) fail_msg("%s, %s: wrote behind the arena", t->name, where);
    if (!first->data) {
        *first = all;
    } else {
        if (all.size != first->size || memcmp(all.data, first->data, all.size * sizeof(float)))
            fail_msg("%s, %s: other bits than with 1 thread", t->name, where);
        free(all.data);
    }
    executor_free(&e);
    free(weights_here);
    free(gradients_here);
    device_release(d, weights);
    device_release(d, gradients);
    device_release(d, arena);
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
