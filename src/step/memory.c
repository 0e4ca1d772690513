/* The memory table of a training run: sizes of its arenas, an estimate of the traffic between ranks, and the check
 * against available memory. */
#include "step/memory.h"
#include "base/checked.h"
#include "graph/account.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* Returns the elements of one moment on rank 0, which has the most. */
static size_t moments_of(const struct step *s)
{
    struct sums planned = s->sums;
    planned.options.rank = 0;
    struct optimizer_share share = sums_share(&planned);
    return optimizer_share_elements(s->parameters, &share);
}

/* Returns the bytes that a rank sends in a step. Gradients travel once as pieces and once as sums; a rank with several
 * roots of the lane tree sends each root. With ZeRO the weights travel instead of the sums. */
static double wire_of(const struct memory_table *t, const struct sums_options *o)
{
    double ranks = (double)t->ranks, bytes = (double)t->gradients;
    size_t lanes = sums_lanes(o);
    double roots = (double)lanes_roots(NULL, lanes, lane_run_of(lanes, t->ranks, 0));
    double back = o->zero ? (double)(t->weights - t->masters) : bytes;
    return (roots * bytes + back) * (ranks - 1) / ranks;
}

void memory_wire(struct memory_table *t, const struct step *s, double bandwidth, double latency)
{
    const struct buckets *b = &s->sums.buckets;
    t->wire_seconds = t->exposed = 0;
    if (!(bandwidth > 0)) return;
    double each = 2 * ((double)t->ranks - 1) * latency * 1e-6,
           last = (double)b->list[b->count - 1].elements * sizeof(float) / (double)t->gradients;
    t->wire_seconds = t->wire / (bandwidth * 1e9) + (double)b->count * each;
    t->exposed = last * t->wire / (bandwidth * 1e9) + each;
}

/* Measures the recording: activations, scratch, operations. */
static void measure_recording(struct memory_table *t, const struct step *s)
{
    const struct recording *r = &s->recording;
    struct account a = account_graph(r->g, graph_capacity(r->g)->count);
    const uint32_t *order;
    t->flops = a.flops;
    t->bytes_moved = a.bytes;
    t->ops = graph_schedule(r->g, &order);
    t->activations = r->executor.plan.bytes;
    if (s->encoder.g && s->encoder.executor.plan.bytes > t->activations)
        t->activations = s->encoder.executor.plan.bytes; /* both share one arena */
    t->unshared = r->executor.plan.sum;
    t->workspace = s->backend->memory.own_bytes + backend_threads(s->backend) * r->executor.workspace_worker;
}

void memory_table_of(struct memory_table *t, const struct step *s)
{
    const struct step_options *o = &s->options;
    *t = (struct memory_table){0};
    measure_recording(t, s);
    size_t arena = parameters_arena_elements(s->parameters) * sizeof(float);
    t->parameters = parameters_total(s->parameters);
    t->masters = o->model.precision == PRECISION_BF16 ? arena : 0; /* a step reads few of them */
    t->weights = arena + t->masters / 2;
    t->gradients = arena + sums_figures(&s->recording) * sizeof(float);
    t->ranks = sums_ranks(&o->sums);
    t->sums = reduction_bytes(t->gradients / sizeof(float), sums_lanes(&o->sums), t->ranks, 0, o->sums.ordered,
                              buckets_largest(&s->sums.buckets));
    t->wire = wire_of(t, &o->sums);
    t->moments = moments_of(s) * dtype_bytes(optimizer_moments(&o->optimizer));
    if (o->optimizer.kind == OPTIMIZER_ADAMW) t->moments *= 2;
    struct slot_options slots = o->slots; /* two batches of rank 0's slots */
    struct sums_options first = o->sums;
    first.rank = 0;
    sums_own_slots(&first, &slots);
    t->slots = 2 * slots.own_count * slot_bytes(&slots);
    t->total = t->weights + t->gradients + t->moments + t->activations + t->workspace + t->slots + t->sums;
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
