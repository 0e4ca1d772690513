/* elbo bench kernels: times every kind of call (op, shapes, types) of a training step by itself and gives the share of
 * the device's limits that the kind reaches.
 *
 *   floor = max(bytes / measured copy bandwidth, operations / measured peak)      share = floor / time
 *
 * A step is run once, and the first call of each kind is repeated in its place in the step, where its inputs are those
 * of training. A call whose data fits into a cache may be faster than its floor. The graph's account gives the bytes
 * and the operations. */
#include "base/json.h"
#include "base/clock.h"
#include "cli/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 3, ROUNDS = 7, MOST_KINDS = 256, MOST_REPEATS = 1000 };
static const double round_seconds = 2e-3, slow_seconds = 0.05; /* a call slower than this is timed once */

struct kind {
    struct call call; /* first call of the kind */
    size_t calls;     /* calls of the kind in a step */
    double seconds, raw[ROUNDS];
    size_t rounds;
    struct account account;
};

struct kinds {
    struct bench *b;
    struct kind *kind; /* (MOST_KINDS) */
    size_t count, left_out;
    elbo_status status;
    elbo_error *error;
};

/* Compares op, types, attributes and sizes. Dimension 0, the number of rows, differs from slot to slot and is compared
 * only when `fixed` is set. */
static bool alike(const struct kind *k, const struct call *c, bool fixed)
{
    if (k->call.node->type != c->node->type || memcmp(k->call.in_type, c->in_type, sizeof c->in_type) ||
        memcmp(k->call.out_type, c->out_type, sizeof c->out_type) ||
        memcmp(k->call.attr->i, c->attr->i, sizeof c->attr->i))
        return false;
    for (unsigned i = 0; i < MAX_INPUTS; i++)
        if (!k->call.in[i] != !c->in[i] ||
            memcmp(k->call.size.in[i] + 1, c->size.in[i] + 1, sizeof *c->size.in - sizeof **c->size.in))
            return false;
    for (unsigned i = 0; i < MAX_OUTPUTS; i++)
        if (!k->call.out[i] != !c->out[i] ||
            memcmp(k->call.size.out[i] + 1, c->size.out[i] + 1, sizeof *c->size.out - sizeof **c->size.out))
            return false;
    return !fixed || !memcmp(&k->call.size, &c->size, sizeof c->size);
}

static int by_seconds(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static elbo_status timed(double *seconds, struct bench *b, const struct call *c, size_t repeats, elbo_error *error)
{
    void (*run)(const struct call *) = b->backend->kernels[c->node->type->index].run;
    ELBO_TRY(bench_wait(b, error));
    double began = clock_seconds();
    for (size_t i = 0; i < repeats; i++) run(c);
    ELBO_TRY(bench_wait(b, error));
    *seconds = (clock_seconds() - began) / (double)repeats;
    return ELBO_OK;
}

static elbo_status measure(struct kind *k, struct bench *b, elbo_error *error)
{
    double once;
    ELBO_TRY(timed(&once, b, &k->call, 1, error));
    size_t repeats =
        once > 0 && round_seconds / once < MOST_REPEATS ? (size_t)(round_seconds / once) + 1 : MOST_REPEATS;
    k->rounds = once > slow_seconds ? 1 : ROUNDS;
    for (size_t i = 0; i < k->rounds; i++) ELBO_TRY(timed(&k->raw[i], b, &k->call, repeats, error));
    double sorted[ROUNDS];
    memcpy(sorted, k->raw, sizeof sorted);
    qsort(sorted, k->rounds, sizeof *sorted, by_seconds);
    k->seconds = sorted[k->rounds / 2];
    k->account = account_call(&k->call);
    return ELBO_OK;
}

static void look(struct kinds *all, const struct call *call, bool after, bool fixed)
{
    if (!after || all->status) return;
    struct kind *k = all->kind;
    while (k < all->kind + all->count && !alike(k, call, fixed)) k++;
    if (k == all->kind + MOST_KINDS) {
        all->left_out++;
        return;
    }
    if (k == all->kind + all->count) {
        all->count++;
        k->call = *call;
        all->status = measure(k, all->b, all->error);
    }
    k->calls++;
}

static void in_slot(void *context, const struct call *call, bool after)
{
    look(context, call, after, false);
}

/* No dimension of the update graph is a number of rows. */
static void in_update(void *context, const struct call *call, bool after)
{
    look(context, call, after, true);
}

/* Writes the sizes of the first output and of the inputs that are not vectors: "1024x512 = 1024x2048, 512x2048". */
static void shape(char *text, size_t room, const struct call *c)
{
    size_t at = 0;
    for (unsigned i = 0; i <= MAX_INPUTS && at < room; i++) {
        const size_t *dim = i ? c->size.in[i - 1] : c->size.out[OUT_RESULT];
        if (i && (!c->in[i - 1] || !dim[1])) continue;
        for (unsigned d = 0; d < MAX_RANK && (d == 0 || dim[d]) && at < room; d++)
            at += (size_t)snprintf(text + at, room - at, "%s%zu", d ? "x" : i > 1 ? ", " : i ? " = " : "", dim[d]);
    }
}

static const char *type_name(enum dtype type)
{
    return type == DTYPE_BF16 ? "bf16" : "f32";
}

static enum dtype type_of(const struct call *c)
{
    for (unsigned k = 0; k < MAX_INPUTS; k++)
        if (c->in[k] && c->in_type[k] == DTYPE_BF16) return DTYPE_BF16;
    return DTYPE_F32;
}

struct limits {
    double bytes, flops[2]; /* per second; flops: for f32, for bf16 */
};

static double share_of(const struct kind *k, const struct limits *l)
{
    double floor = fmax(k->account.bytes / l->bytes, k->account.flops / l->flops[type_of(&k->call) == DTYPE_BF16]);
    return floor / k->seconds;
}

static elbo_status report_json(const struct kinds *all, const struct limits *l, elbo_error *error)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < all->count; i++) {
        const struct kind *k = &all->kind[i];
        char text[160];
        shape(text, sizeof text, &k->call);
        json_t *raw = json_array();
        for (size_t r = 0; r < k->rounds; r++) json_array_append_new(raw, json_real(k->raw[r]));
        json_array_append_new(
            rows,
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "op", k->call.node->type->name,
                      "first", k->call.node->name, "shape", text, "type", type_name(type_of(&k->call)), "calls",
                      (json_int_t)k->calls, "seconds", k->seconds, "bytes", k->account.bytes, "flops", k->account.flops,
                      "share_of_copy", bench_figure(k->account.bytes / k->seconds / l->bytes), "share_of_peak",
                      bench_figure(k->account.flops / k->seconds / l->flops[type_of(&k->call) == DTYPE_BF16]),
                      "share_of_floor", bench_figure(share_of(k, l)), "raw_seconds", raw));
    }
    struct backend *b = all->b->backend;
    json_t *out =
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:I, s:o}", "device", b->name, "detail", b->detail,
                  "copy_bytes_per_second", bench_figure(l->bytes), "f32_flops", bench_figure(l->flops[0]), "bf16_flops",
                  bench_figure(l->flops[1]), "left_out", (json_int_t)all->left_out, "kernels", rows);
    return json_print(stdout, out, JSON_INDENT(1) | JSON_REAL_PRECISION(6), "the kernels' figures", error);
}

static void report(const struct kinds *all, const struct limits *l)
{
    printf("%-27s %-4s %5s %10s %8s %8s %6s  %s\n", "op", "type", "calls", "us", "GB/s", "GFLOP/s", "floor",
           "shape of the first");
    for (size_t i = 0; i < all->count; i++) {
        const struct kind *k = &all->kind[i];
        char text[96];
        shape(text, sizeof text, &k->call);
        printf("%-27s %-4s %5zu %10.2f %8.2f %8.1f %5.0f%%  %s\n", k->call.node->type->name,
               type_name(type_of(&k->call)), k->calls, k->seconds * 1e6, k->account.bytes / k->seconds / 1e9,
               k->account.flops / k->seconds / 1e9, 100 * share_of(k, l), text);
    }
    printf("limits measured here: copy %.2f GB/s, f32 %.1f GFLOP/s", l->bytes / 1e9, l->flops[0] / 1e9);
    if (isfinite(l->flops[1])) printf(", bf16 %.1f GFLOP/s", l->flops[1] / 1e9);
    printf(" (%s); floor: the time that these leave no way around, over the time taken\n", all->b->backend->detail);
    if (all->left_out) printf("%zu calls of further kinds were not timed\n", all->left_out);
}

elbo_status bench_kernels(struct bench *b, elbo_error *error)
{
    struct kinds all = {.b = b, .error = error, .kind = calloc(MOST_KINDS, sizeof *all.kind)};
    if (!all.kind) return elbo_fail(error, ELBO_MEMORY, "no memory for %d kinds of calls", MOST_KINDS);
    double unused = 0;
    elbo_status status = ELBO_OK;
    for (int i = 0; i < WARM_UP && !status; i++) status = bench_step(b, &unused, &unused, error);
    struct backend *device = b->backend;
    struct limits l = {.bytes = device->device.peak_bytes(device),
                       .flops = {device->device.peak_flops(device, DTYPE_F32), NAN}};
    if (device->device.bf16) l.flops[1] = device->device.peak_flops(device, DTYPE_BF16);
    bench_hook(&b->step.recording.executor, in_slot, &all);
    bench_hook(&b->step.optimizer.kind[0].executor, in_update, &all);
    if (!status) status = bench_step(b, &unused, &unused, error);
    if (!status) status = all.status;
    if (!status && b->cli->config.json)
        status = report_json(&all, &l, error);
    else if (!status)
        report(&all, &l);
    free(all.kind);
    return status;
}
