/* elbo bench step: whole training steps, then some op by op, with their share of the machine's measured f32 peak by the graph's own count
 * of operations. The optimizer's update is measured too. */
#include "cli/cli.h"

#include "elbo/corpus.h"
#include "graph/account.h"
#include "graph/backends.h"
#include "model/model.h"
#include "train/memory.h"
#include "train/optimizer.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 3, STEPS = 20, OP_STEPS = 5 };

struct bench {
    struct cli *cli;
    struct elbo_corpus *corpus;
    struct backend *backend;
    struct model model;
    struct optimizer optimizer;
    struct recording recording;
    struct slot_loader *loader;
    double seconds[OP_COUNT], flops[OP_COUNT], began;
    size_t calls[OP_COUNT];
};

static void hook(void *context, const struct call *call, bool after)
{
    struct bench *b = context;
    elbo_error unused;
    b->backend->mark(b->backend, 0); /* a GPU has done the op, or what came before it, when this returns */
    b->backend->wait(b->backend, 0, &unused);
    if (!after) b->began = clock_seconds();
    if (!after) return;
    unsigned op = call->node->type->index;
    b->seconds[op] += clock_seconds() - b->began;
    b->flops[op] += call->node->type->flops ? call->node->type->flops(&call->size, call->attr) : 0;
    b->calls[op]++;
}

static elbo_status open_bench(struct bench *b, elbo_error *error)
{
    struct elbo_config *c = &b->cli->config;
    if (!*c->data.train) return elbo_fail(error, ELBO_USAGE, "--data.train is missing: a corpus whose lengths are measured");
    ELBO_TRY(elbo_corpus_open(&b->corpus, c->data.train, error));
    c->model.vocabulary = elbo_corpus_vocabulary(b->corpus, ELBO_STREAM_DECODER);
    c->model.positions = c->data.max_length + 2;
    ELBO_TRY(elbo_config_check(c, error));
    ELBO_TRY(backend_open(&b->backend, c->device, c->threads, error));
    b->backend->tf32 = c->tf32;
    ELBO_TRY(model_create(&b->model, &c->model, b->backend, error));
    ELBO_TRY(optimizer_create(&b->optimizer, &c->optimizer, b->model.parameters, model_weights(&b->model), b->backend, error));
    struct slot_options s = slot_options_of(c);
    size_t sentences = slot_sentence_capacity(&s);
    struct graph_capacities capacities = {{[DIM_ENC_TOKENS] = s.encoder_tokens, [DIM_DEC_TOKENS] = s.decoder_tokens,
                                           [DIM_SENTENCES] = sentences, [DIM_DRAWS] = sentences}};
    struct train_recording options = {.free_bits = {.nats = 0.25}, .recompute = (enum recompute_policy)c->train.recompute,
                                      .wanted = optimizer_wanted(&c->optimizer)};
    ELBO_TRY(record_train(&b->recording, &c->model, b->model.parameters, &capacities, &options, NULL, error));
    ELBO_TRY(model_bind(&b->model, (struct recording *[]){&b->recording}, 1, b->optimizer.gradients, error));
    optimizer_watch(&b->optimizer, executor_pointer(&b->recording.executor, b->recording.sum_loss));
    recording_bind_input(&b->recording, "control", b->optimizer.control);
    ELBO_TRY(model_initialize(&b->model, c->seed, error));
    return slot_loader_open(&b->loader, b->corpus, &s, error);
}

static int by_seconds(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

/* Null where it is not known: JSON has no NaN. */
static json_t *figure(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static void report(const struct bench *b, const double *steps, double flops, double tokens, double peak)
{
    double sorted[STEPS], total = 0, all_steps = 0;
    memcpy(sorted, steps, sizeof sorted);
    qsort(sorted, STEPS, sizeof *sorted, by_seconds);
    for (int i = 0; i < STEPS; i++) all_steps += steps[i];
    for (unsigned k = 0; k < OP_COUNT; k++) total += b->seconds[k];
    double share = flops / all_steps / peak, median = sorted[STEPS / 2];
    if (b->cli->config.json) {
        json_t *ops = json_object();
        for (unsigned k = 0; k < OP_COUNT; k++)
            if (b->calls[k])
                json_object_set_new(ops, op_types[k]->name,
                                    json_pack("{s:I, s:f, s:f}", "calls", (json_int_t)b->calls[k] / OP_STEPS, "seconds",
                                              b->seconds[k] / OP_STEPS, "gflops", b->seconds[k] > 0 ? b->flops[k] / b->seconds[k] / 1e9 : 0.0));
        json_t *raw = json_array();
        for (int i = 0; i < STEPS; i++) json_array_append_new(raw, json_real(steps[i]));
        json_t *all = json_pack("{s:s, s:s, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "device", b->backend->name, "detail",
                                b->backend->detail, "step_seconds_median", median, "tokens_per_second", tokens / all_steps,
                                "step_gflop", flops / STEPS / 1e9, "peak_gflops", figure(peak / 1e9), "share_of_peak",
                                figure(share), "ops", ops, "step_seconds", raw);
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
        return;
    }
    printf("%-28s %6s %10s %7s %9s\n", "op", "calls", "ms a step", "share", "GFLOP/s");
    for (unsigned k = 0; k < OP_COUNT; k++)
        if (b->calls[k])
            printf("%-28s %6zu %10.3f %6.1f%% %9.1f\n", op_types[k]->name, b->calls[k] / OP_STEPS, b->seconds[k] / OP_STEPS * 1e3,
                   100 * b->seconds[k] / total, b->flops[k] / b->seconds[k] / 1e9);
    printf("step %.3f ms (median of %d), %.0f tokens/s, %.2f GFLOP; peak %.1f GFLOP/s (%s); share of peak %.3f\n", median * 1e3,
           STEPS, tokens / all_steps, flops / STEPS / 1e9, peak / 1e9, b->backend->detail, share);
}

static elbo_status step(struct bench *b, double *flops, double *tokens, elbo_error *error)
{
    const struct slot_batch *batch;
    float weights[2][ELBO_WEIGHTS];
    ELBO_TRY(slot_loader_next(b->loader, &batch, error));
    for (unsigned k = 0; k < 2; k++) weights[k][ELBO_WEIGHT_NLL] = weights[k][ELBO_WEIGHT_KL] = 1.0f / (float)batch->sentences;
    recording_bind_input(&b->recording, "weights", weights);
    for (size_t k = 0; k < batch->count; k++) {
        struct execution run = {.first_slot = k == 0, .seed = 1, .step = batch->step};
        recording_bind_slot(&b->recording, &batch->slots[k], &run);
        ELBO_TRY(executor_run(&b->recording.executor, &run, error));
        *flops += account_graph(b->recording.g, run.count).flops;
        *tokens += (double)batch->slots[k].decoder.tokens;
    }
    struct update u = {.learning_rate = {1e-4, 1e-4}, .number = {batch->step, batch->step}, .seed = 1, .step = batch->step};
    ELBO_TRY(optimizer_update(&b->optimizer, &u, error));
    b->backend->mark(b->backend, 0);
    return b->backend->wait(b->backend, 0, error);
}

/* Whole steps as training runs them, replays where the backend has them; then a few more op by op. */
static elbo_status measure(struct bench *b, elbo_error *error)
{
    double steps[STEPS], flops = 0, tokens = 0, unused = 0, peak = b->backend->peak_flops ? b->backend->peak_flops(b->backend) : NAN;
    for (int i = 0; i < WARM_UP; i++) ELBO_TRY(step(b, &unused, &unused, error));
    for (int i = 0; i < STEPS; i++) {
        double began = clock_seconds();
        ELBO_TRY(step(b, &flops, &tokens, error));
        steps[i] = clock_seconds() - began;
    }
    double again = b->backend->peak_flops ? b->backend->peak_flops(b->backend) : NAN;
    b->recording.executor.hook = b->optimizer.executor.hook = hook;
    b->recording.executor.hook_context = b->optimizer.executor.hook_context = b;
    for (int i = 0; i < OP_STEPS; i++) ELBO_TRY(step(b, &unused, &unused, error));
    report(b, steps, flops, tokens, again > peak ? again : peak);
    return ELBO_OK;
}

elbo_status cli_bench(struct cli *cli, elbo_error *error)
{
    struct bench b = {.cli = cli};
    if (strcmp(cli->arguments[0], "step"))
        return elbo_fail(error, ELBO_USAGE, "elbo bench knows 'step', not '%.60s'", cli->arguments[0]);
    elbo_status status = open_bench(&b, error);
    if (!status) status = measure(&b, error);
    if (b.loader) slot_loader_close(b.loader);
    recording_free(&b.recording, b.backend);
    if (b.optimizer.backend) optimizer_free(&b.optimizer);
    if (b.model.backend) model_free(&b.model);
    if (b.backend) b.backend->destroy(b.backend);
    if (b.corpus) elbo_corpus_close(b.corpus);
    return status;
}
