/* Shared by the numerical tests: the devices, the table of covered ops, the test's own loss, numbers and sentences. */
#include "ops/harness.h"
#include "base/philox.h"
#include "cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the family whose program runs each op ---- */

/* The family of each op, whose tests must run it: the list in which src/ops/<family>.h names it. */
#define COVER_EMBEDDING(name)   [OP_##name] = FAMILY_EMBEDDING,
#define COVER_LINEAR(name)      [OP_##name] = FAMILY_LINEAR,
#define COVER_NORM(name)        [OP_##name] = FAMILY_NORM,
#define COVER_ATTENTION(name)   [OP_##name] = FAMILY_ATTENTION,
#define COVER_RECURRENT(name)   [OP_##name] = FAMILY_RECURRENT,
#define COVER_SENTENCE(name)    [OP_##name] = FAMILY_SENTENCE,
#define COVER_LATENT(name)      [OP_##name] = FAMILY_LATENT,
#define COVER_PRIOR(name)       [OP_##name] = FAMILY_PRIOR,
#define COVER_POSTERIOR(name)   [OP_##name] = FAMILY_POSTERIOR,
#define COVER_LOSS(name)        [OP_##name] = FAMILY_LOSS,
#define COVER_ELEMENTWISE(name) [OP_##name] = FAMILY_ELEMENTWISE,
#define COVER_OPTIMIZER(name)   [OP_##name] = FAMILY_OPTIMIZER,
static const enum family cover[OP_COUNT] = {
    EMBEDDING_OPS(COVER_EMBEDDING) LINEAR_OPS(COVER_LINEAR) NORM_OPS(COVER_NORM) ATTENTION_OPS(COVER_ATTENTION)
        RECURRENT_OPS(COVER_RECURRENT) SENTENCE_OPS(COVER_SENTENCE) LATENT_OPS(COVER_LATENT) PRIOR_OPS(COVER_PRIOR)
            POSTERIOR_OPS(COVER_POSTERIOR) LOSS_OPS(COVER_LOSS) ELEMENTWISE_OPS(COVER_ELEMENTWISE)
                OPTIMIZER_OPS(COVER_OPTIMIZER)};

enum { OP_TEST_LOSS = OP_COUNT, OP_TEST_GRADIENT, TEST_OPS };

enum family harness_family = FAMILY_NONE;
struct device harness_device[MOST_DEVICES];
size_t harness_devices;
static struct kernel tables[MOST_DEVICES][TEST_OPS];
static size_t ran[TEST_OPS];

/* ---- the test's own op: loss = sum of coefficient * value ---- */

static size_t elements_of(const size_t dim[MAX_RANK])
{
    size_t n = dim[0];
    for (unsigned d = 1; d < MAX_RANK && dim[d]; d++) n *= dim[d];
    return n;
}

/* Copies n floats at `from` in the backend's memory to the host; the caller frees them. */
static float *fetched(const struct call *c, const void *from, size_t n)
{
    float *here = malloc((n + 1) * sizeof *here);
    if (!here) abort();
    if (n) c->backend->memory.download(c->backend, here, from, n * sizeof *here);
    return here;
}

static void run_loss(const struct call *c)
{
    double sum = 0;
    for (unsigned k = 0; k < 4; k++) {
        if (!c->in[k]) continue;
        size_t n = elements_of(c->size.in[k]);
        float *x = fetched(c, c->in[k], n), *coefficient = fetched(c, c->in[4 + k], n);
        for (size_t i = 0; i < n; i++) sum += (double)x[i] * coefficient[i];
        free(x);
        free(coefficient);
    }
    float loss = (float)sum;
    c->backend->memory.upload(c->backend, c->out[0], &loss, sizeof loss);
}

static void run_gradient(const struct call *c)
{
    size_t n = elements_of(c->size.out[0]);
    float *coefficient = fetched(c, c->in[0], n), *d = fetched(c, c->out[0], n);
    for (size_t i = 0; i < n; i++) d[i] = c->add[0] ? d[i] + coefficient[i] : coefficient[i];
    if (n) c->backend->memory.upload(c->backend, c->out[0], d, n * sizeof *d);
    free(coefficient);
    free(d);
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

void harness_refuses(void (*record)(struct graph *g, size_t i), const char *const *words, size_t count)
{
    const struct graph_capacities capacities = {{[DIM_SENTENCES] = 4, [DIM_DRAWS] = 4, [DIM_DEC_TOKENS] = 4}};
    for (size_t i = 0; i < count; i++) {
        struct parameters *parameters;
        struct graph *g;
        elbo_error error = {0};
        assert_int_equal(parameters_create(&parameters, &error), ELBO_OK);
        assert_int_equal(graph_create(&g, "refused", parameters, &capacities, &error), ELBO_OK);
        record(g, i);
        assert_int_equal(graph_check(g, &error), ELBO_INTERNAL);
        if (!strstr(error.message, words[i])) fail_msg("\"%s\" does not say \"%s\"", error.message, words[i]);
        graph_free(g);
        parameters_free(parameters);
    }
}

void *device_memory(const struct device *d, size_t bytes, const void *from)
{
    void *here = harness_memory(bytes), *there;
    elbo_error error = {0};
    if (from) memcpy(here, from, bytes);
    if (!d->backend->memory.separate) return here;
    if (d->backend->memory.allocate(d->backend, &there, bytes, "a test", &error)) fail_msg("%s", error.message);
    d->backend->memory.upload(d->backend, there, here, bytes);
    free(here);
    return there;
}

void device_read(const struct device *d, void *to, const void *from, size_t bytes)
{
    if (d->backend->memory.separate)
        d->backend->memory.download(d->backend, to, from, bytes);
    else
        memcpy(to, from, bytes);
}

void device_release(const struct device *d, void *memory)
{
    if (d->backend->memory.separate)
        d->backend->memory.release(d->backend, memory);
    else
        free(memory);
}

/* Counts an op after its run, and fills its scratch with NaN before. */
static void around_op(void *context, const struct call *call, bool after)
{
    const struct executor *e = context;
    const uint32_t *order;
    size_t steps = graph_schedule(e->graph, &order);
    if (after) ran[call->node->type->index]++;
    for (size_t s = 0; s < steps && !after && !e->backend->memory.separate; s++)
        if (e->scratch[s] && graph_node_get(e->graph, order[s]) == call->node)
            memset(call->scratch, 0xff, e->scratch[s]);
}

void harness_run(struct executor *e, const struct execution *run)
{
    elbo_error error = {0};
    if (!e->backend->memory.separate) {
        struct cpu_backend *cpu = (struct cpu_backend *)e->backend;
        if (cpu->workers) memset(cpu->workers, 0xff, cpu->worker_bytes * pool_threads(cpu->pool));
    }
    e->hook = around_op;
    e->hook_context = e;
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
    if (!strcmp(name, "offsets")) {
        value v = graph_input(g, name, DTYPE_I32, 1, (struct dim[]){{DIM_SENTENCES, 1}});
        graph_pad(g, v, PAD_LAST);
        return v;
    }
    value v = graph_input(g, name, DTYPE_I32, 1, (struct dim[]){{DIM_DEC_TOKENS, 0}});
    graph_pad(g, v,
              !strcmp(name, "labels")     ? PAD_MINUS_ONE
              : !strcmp(name, "order")    ? PAD_ROW
              : !strcmp(name, "sentence") ? PAD_ZERO
                                          : PAD_MOST);
    return v;
}

/* ---- programs ---- */

static const char *wanted_device(void)
{
    const char *name = getenv("ELBO_TEST_DEVICE");
    return name && *name && strcmp(name, "cpu") != 0 ? name : NULL;
}

bool harness_on_host(void)
{
    return !wanted_device();
}

bool harness_skips(void)
{
    struct backend *backend;
    elbo_error error = {0};
    if (!wanted_device()) return false;
    if (backend_open(&backend, wanted_device(), 1, &error)) {
        print_message("skipped: %s\n", error.message);
        return true;
    }
    backend->destroy(backend);
    return false;
}

static void open_device(struct backend *backend, const char *variant, size_t threads)
{
    struct kernel *table = tables[harness_devices];
    harness_device[harness_devices++] = (struct device){.backend = backend, .variant = variant, .threads = threads};
    memcpy(table, backend->kernels, OP_COUNT * sizeof *table);
    table[OP_TEST_LOSS].run = run_loss;
    table[OP_TEST_GRADIENT].run = run_gradient;
    backend->kernels = table;
}

/* Opens the wanted device twice, because the second run must leave the bits of the first. */
static int open_wanted(void)
{
    for (size_t i = 0; i < 2; i++) {
        struct backend *backend;
        elbo_error error = {0};
        if (backend_open(&backend, wanted_device(), 1, &error)) {
            print_message("%s\n", error.message);
            return -1;
        }
        open_device(backend, wanted_device(), 2 * i + 1);
    }
    return 0;
}

int harness_open(void **state)
{
    (void)state;
    if (wanted_device()) return open_wanted();
    static const char *const variants[] = {"generic", "avx2", "avx512", "amx"};
    static const size_t threads[] = {1, 2, 3, 8};
    for (unsigned v = 0; v < sizeof variants / sizeof *variants; v++)
        for (unsigned i = 0; i < sizeof threads / sizeof *threads; i++) {
            struct backend *backend;
            elbo_error error = {0};
            elbo_status status = cpu_backend_create(&backend, threads[i], variants[v], &error);
            if (status == ELBO_DEVICE && v > 0) break; /* the processor lacks this variant */
            if (status) {
                print_message("%s\n", error.message);
                return -1;
            }
            open_device(backend, variants[v], threads[i]);
        }
    return 0;
}

int harness_close(void **state)
{
    (void)state;
    harness_report();
    for (size_t d = 0; d < harness_devices; d++) harness_device[d].backend->destroy(harness_device[d].backend);
    return 0;
}

void harness_covers(void **state)
{
    (void)state;
    if (!harness_on_host()) return; /* tests with executors of their own were skipped */
    for (size_t i = 0; i < OP_COUNT; i++)
        if (cover[i] == harness_family && !ran[i]) fail_msg("the op %s was not run", op_types[i]->name);
}
