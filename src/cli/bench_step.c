/* elbo bench step: times whole training steps with their updates, then a few more steps op by op. The share of peak is
 * the graph's count of operations over the time, divided by the device's measured peak. */
#include "base/json.h"
#include "base/clock.h"
#include "cli/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 3, STEPS = 20, OP_STEPS = 5 };

struct times {
    struct bench *b;
    double seconds[OP_COUNT], flops[OP_COUNT], began;
    size_t calls[OP_COUNT];
};

static void hook(void *context, const struct call *call, bool after)
{
    struct times *t = context;
    elbo_error unused;
    bench_wait(t->b, &unused); /* the op, or the work before the op, is done */
    if (!after) t->began = clock_seconds();
    if (!after) return;
    unsigned op = call->node->type->index;
    t->seconds[op] += clock_seconds() - t->began;
    t->flops[op] += call->node->type->flops ? call->node->type->flops(&call->size, call->attr) : 0;
    t->calls[op]++;
}

static int by_seconds(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static elbo_status report(const struct times *t, const double *steps, double flops, double tokens, double peak,
                          elbo_error *error)
{
    const struct bench *b = t->b;
    double sorted[STEPS], total = 0, all_steps = 0;
    memcpy(sorted, steps, sizeof sorted);
    qsort(sorted, STEPS, sizeof *sorted, by_seconds);
    for (int i = 0; i < STEPS; i++) all_steps += steps[i];
    for (unsigned k = 0; k < OP_COUNT; k++) total += t->seconds[k];
    double share = flops / all_steps / peak, median = sorted[STEPS / 2];
    if (b->cli->config.json) {
        json_t *ops = json_object();
        for (unsigned k = 0; k < OP_COUNT; k++)
            if (t->calls[k])
                json_object_set_new(ops, op_types[k]->name,
                                    json_pack("{s:I, s:f, s:f}", "calls", (json_int_t)t->calls[k] / OP_STEPS, "seconds",
                                              t->seconds[k] / OP_STEPS, "gflops",
                                              t->seconds[k] > 0 ? t->flops[k] / t->seconds[k] / 1e9 : 0.0));
        json_t *raw = json_array();
        for (int i = 0; i < STEPS; i++) json_array_append_new(raw, json_real(steps[i]));
        json_t *all =
            json_pack("{s:s, s:s, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "device", b->backend->name, "detail",
                      b->backend->detail, "step_seconds_median", median, "tokens_per_second", tokens / all_steps,
                      "step_gflop", flops / STEPS / 1e9, "peak_gflops", bench_figure(peak / 1e9), "share_of_peak",
                      bench_figure(share), "ops", ops, "step_seconds", raw);
        return json_print(stdout, all, JSON_INDENT(2) | JSON_REAL_PRECISION(6), "the step's figures", error);
    }
    printf("%-28s %6s %10s %7s %9s\n", "op", "calls", "ms a step", "share", "GFLOP/s");
    for (unsigned k = 0; k < OP_COUNT; k++)
        if (t->calls[k])
            printf("%-28s %6zu %10.3f %6.1f%% %9.1f\n", op_types[k]->name, t->calls[k] / OP_STEPS,
                   t->seconds[k] / OP_STEPS * 1e3, 100 * t->seconds[k] / total, t->flops[k] / t->seconds[k] / 1e9);
    printf("step %.3f ms (median of %d), %.0f tokens/s, %.2f GFLOP; peak %.1f GFLOP/s (%s); share of peak %.3f\n",
           median * 1e3, STEPS, tokens / all_steps, flops / STEPS / 1e9, peak / 1e9, b->backend->detail, share);
    return ELBO_OK;
}

/* Times whole steps as training runs them, replayed where the backend can replay; then times a few more op by op. */
elbo_status bench_steps(struct bench *b, elbo_error *error)
{
    double steps[STEPS], flops = 0, tokens = 0, unused = 0,
                         peak = b->backend->device.peak_flops(b->backend, model_dtype(&b->cli->config.model));
    for (int i = 0; i < WARM_UP; i++) ELBO_TRY(bench_step(b, &unused, &unused, error));
    for (int i = 0; i < STEPS; i++) {
        double began = clock_seconds();
        ELBO_TRY(bench_step(b, &flops, &tokens, error));
        steps[i] = clock_seconds() - began;
    }
    double again = b->backend->device.peak_flops(b->backend, model_dtype(&b->cli->config.model));
    struct times t = {.b = b};
    bench_hook(&b->step.recording.executor, hook, &t);
    bench_hook(&b->step.optimizer.kind[0].executor, hook, &t);
    for (int i = 0; i < OP_STEPS; i++) ELBO_TRY(bench_step(b, &unused, &unused, error));
    return report(&t, steps, flops, tokens, again > peak ? again : peak, error);
}
