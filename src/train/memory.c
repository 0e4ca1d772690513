#include "train/memory.h"
#include "graph/account.h"
#include "device/backends.h"
#include "base/checked.h"
#include "model/model.h"
#include "step/optimizer.h"
#include "train/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct slot_options slot_options_of(const struct elbo_config *c)
{
    return (struct slot_options){.slots = c->train.slots,
                                 .encoder_tokens = c->model.latent.kind == LATENT_NONE ? 0 : c->train.slot_tokens,
                                 .decoder_tokens = c->train.slot_tokens,
                                 .sentences = c->train.slot_sentences,
                                 .max_length = c->data.max_length,
                                 .too_long = (enum slot_too_long)c->data.too_long,
                                 .shuffle = true,
                                 .seed = c->seed,
                                 .word_dropout = c->objective.word_dropout};
}

/* Elements of one moment on rank 0, which has the most. */
static size_t moments_of(const struct elbo_config *c, const struct parameters *p, const struct buckets *b)
{
    struct optimizer_share share = {.ranks = c->parallel.zero && c->parallel.ranks ? c->parallel.ranks : 1,
                                    .buckets = b};
    return optimizer_share_elements(p, &share);
}

/* Gradients go round once in pieces and once as sums; a rank with several roots of the tree of lanes sends each. With
 * ZeRO the weights go round instead of the sums. */
static void estimate_wire(struct memory_table *t, const struct elbo_config *c, const struct buckets *b)
{
    double ranks = (double)t->ranks, bytes = (double)t->gradients;
    size_t lanes = team_lanes(c, t->ranks);
    double roots = (double)lanes_roots(NULL, lanes, lane_run_of(lanes, t->ranks, 0));
    double back = c->parallel.zero ? (double)(t->weights - t->masters) : bytes;
    t->wire = (roots * bytes + back) * (ranks - 1) / ranks;
    t->wire_seconds = t->exposed = 0;
    if (!(c->parallel.bandwidth > 0)) return;
    double each = 2 * (ranks - 1) * c->parallel.latency * 1e-6,
           last = (double)b->list[b->count - 1].elements * sizeof(float) / bytes;
    t->wire_seconds = t->wire / (c->parallel.bandwidth * 1e9) + (double)b->count * each;
    t->exposed = last * t->wire / (c->parallel.bandwidth * 1e9) + each;
}

static elbo_status measure(struct memory_table *t, const struct elbo_config *c, struct parameters *p,
                           struct backend *backend, elbo_error *error)
{
    struct slot_options s = slot_options_of(c);
    size_t sentences = slot_sentence_capacity(&s);
    struct graph_capacities capacities = {{[DIM_ENC_TOKENS] = s.encoder_tokens,
                                           [DIM_DEC_TOKENS] = s.decoder_tokens,
                                           [DIM_SENTENCES] = sentences,
                                           [DIM_DRAWS] = sentences}};
    struct train_recording options = {.wanted = optimizer_wanted(&c->optimizer),
                                      .recompute = (enum recompute_policy)c->train.recompute};
    struct recording r = {0};
    ELBO_TRY(record_train(&r, &c->model, p, &capacities, &options, error));
    elbo_status status = executor_create(&r.executor, r.g, backend, error);
    r.planned = true;
    if (!status) {
        struct account a = account_graph(r.g, capacities.count);
        const uint32_t *order;
        t->flops = a.flops;
        t->bytes_moved = a.bytes;
        t->ops = graph_schedule(r.g, &order);
        t->activations = r.executor.plan.bytes;
        t->unshared = r.executor.plan.sum;
        t->workspace = backend->memory.own_bytes + backend_threads(backend) * r.executor.workspace_worker;
    }
    size_t figures = align_up(recording_state_elements(&r), PARAMETER_ALIGNMENT);
    struct buckets buckets = {0};
    if (!status) status = team_buckets(&buckets, c, r.g, p, figures, error);
    recording_free(&r, backend);
    if (status) return status;
    size_t arena = parameters_arena_elements(p) * sizeof(float);
    t->parameters = parameters_total(p);
    t->masters = c->model.precision == PRECISION_BF16 ? arena : 0; /* few of which a step reads */
    t->weights = arena + t->masters / 2;
    t->gradients = arena + figures * sizeof(float);
    t->ranks = c->parallel.ranks ? c->parallel.ranks : 1;
    t->sums = reduction_bytes(t->gradients / sizeof(float), team_lanes(c, t->ranks), t->ranks, 0, team_ordered(c),
                              buckets_largest(&buckets));
    estimate_wire(t, c, &buckets);
    t->moments = moments_of(c, p, &buckets) * dtype_bytes(optimizer_moments(&c->optimizer));
    buckets_free(&buckets);
    if (c->optimizer.kind == OPTIMIZER_ADAMW) t->moments *= 2;
    /* Two batches of rank 0's slots. */
    team_own_slots(&(struct team){.ranks = t->ranks}, c, &s);
    t->slots = 2 * s.own_count * slot_bytes(&s);
    t->total = t->weights + t->gradients + t->moments + t->activations + t->workspace + t->slots + t->sums;
    return status;
}

elbo_status memory_plan(struct memory_table *t, const struct elbo_config *c, struct backend *given, elbo_error *error)
{
    *t = (struct memory_table){0};
    struct parameters *p = NULL;
    struct backend *backend = given;
    elbo_status status = model_declare(&p, &c->model, error);
    if (!status && !backend) status = backend_open_plan(&backend, c->device, c->threads, error);
    if (!status) status = measure(t, c, p, backend, error);
    if (backend && !given) backend->destroy(backend);
    parameters_free(p);
    return status;
}

size_t memory_available(void)
{
    size_t available = 0, kib;
    FILE *f = fopen("/proc/meminfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1) available = kib * 1024;
    if (f) fclose(f);
    struct rlimit limit;
    if (!getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY && (!available || limit.rlim_cur < available))
        available = (size_t)limit.rlim_cur;
    return available;
}

void memory_print(char *text, size_t size, const struct memory_table *t)
{
    const struct {
        const char *name;
        size_t bytes;
    } rows[] = {{"weights", t->weights},     {"gradients", t->gradients},
                {"optimizer", t->moments},   {"activations", t->activations},
                {"workspace", t->workspace}, {"slots", t->slots},
                {"sums", t->sums},           {"total", t->total}};
    size_t at = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "  %-12s %12.1f MiB\n", rows[i].name,
                               (double)rows[i].bytes / 1048576.0);
}

elbo_status memory_check(const struct memory_table *t, size_t available, elbo_error *error)
{
    if (!available || t->total <= available) return ELBO_OK;
    char table[512];
    memory_print(table, sizeof table, t);
    return elbo_fail(error, ELBO_MEMORY,
                     "this run needs %.1f MiB and the machine has %.1f MiB left:\n%slower train.slot_tokens or "
                     "train.slot_sentences (activations), the widths or layers (weights, gradients, optimizer), or set "
                     "train.recompute=block",
                     (double)t->total / 1048576.0, (double)available / 1048576.0, table);
}
