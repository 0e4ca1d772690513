/* elbo bench: the model and the data that both benchmarks run. */
#include "cli/bench.h"

#include "train/memory.h"

#include <math.h>
#include <string.h>

static elbo_status open_bench(struct bench *b, elbo_error *error)
{
    struct elbo_config *c = &b->cli->config;
    if (!*c->data.train)
        return elbo_fail(error, ELBO_USAGE, "--data.train is missing: a corpus whose lengths are measured");
    ELBO_TRY(elbo_corpus_open(&b->corpus, c->data.train, error));
    c->model.vocabulary = elbo_corpus_vocabulary(b->corpus, ELBO_STREAM_DECODER);
    c->model.positions = c->data.max_length + 2;
    ELBO_TRY(cli_check_effects(b->cli, error));
    ELBO_TRY(elbo_config_check(c, error));
    ELBO_TRY(backend_open(&b->backend, c->device, c->threads, error));
    b->backend->device.tf32 = c->tf32;
    b->backend->device.timed_products = c->determinism == DETERMINISM_FAST;
    ELBO_TRY(model_create(&b->model, &c->model, b->backend, error));
    ELBO_TRY(optimizer_create(&b->optimizer, &c->optimizer, b->model.parameters, model_weights(&b->model), NULL,
                              b->backend, error));
    struct slot_options s = slot_options_of(c);
    size_t sentences = slot_sentence_capacity(&s);
    struct graph_capacities capacities = {{[DIM_ENC_TOKENS] = s.encoder_tokens,
                                           [DIM_DEC_TOKENS] = s.decoder_tokens,
                                           [DIM_SENTENCES] = sentences,
                                           [DIM_DRAWS] = sentences}};
    struct train_recording options = {.free_bits = {.nats = 0.25},
                                      .recompute = (enum recompute_policy)c->train.recompute,
                                      .wanted = optimizer_wanted(&c->optimizer)};
    ELBO_TRY(record_train(&b->recording, &c->model, b->model.parameters, &capacities, &options, error));
    ELBO_TRY(model_bind(&b->model, (struct recording *[]){&b->recording}, 1, b->optimizer.gradients, error));
    optimizer_watch(&b->optimizer, executor_pointer(&b->recording.executor, b->recording.sum_loss));
    recording_bind_input(&b->recording, "control", b->optimizer.control);
    ELBO_TRY(model_initialize(&b->model, c->seed, error));
    return slot_loader_open(&b->loader, b->corpus, &s, error);
}

elbo_status bench_wait(struct bench *b, elbo_error *error)
{
    b->backend->stream.mark(b->backend, 0);
    return b->backend->stream.wait(b->backend, 0, error);
}

elbo_status bench_step(struct bench *b, double *flops, double *tokens, elbo_error *error)
{
    const struct slot_batch *batch;
    float weights[2][ELBO_WEIGHTS];
    ELBO_TRY(slot_loader_next(b->loader, &batch, error));
    for (unsigned k = 0; k < 2; k++)
        weights[k][ELBO_WEIGHT_NLL] = weights[k][ELBO_WEIGHT_KL] = 1.0f / (float)batch->sentences;
    recording_bind_input(&b->recording, "weights", weights);
    for (size_t k = 0; k < batch->count; k++) {
        struct execution run = {.first_slot = k == 0, .seed = 1, .step = batch->step};
        recording_bind_slot(&b->recording, &batch->slots[k], &run);
        ELBO_TRY(executor_run(&b->recording.executor, &run, error));
        *flops += account_graph(b->recording.g, run.count).flops;
        *tokens += (double)batch->slots[k].decoder.tokens;
    }
    struct update u = {
        .learning_rate = {1e-4, 1e-4}, .number = {batch->step, batch->step}, .seed = 1, .step = batch->step};
    ELBO_TRY(optimizer_update(&b->optimizer, &u, error));
    return bench_wait(b, error);
}

void bench_hook(struct executor *e, execute_hook hook, void *context)
{
    e->hook = hook;
    e->hook_context = context;
}

json_t *bench_figure(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

elbo_status cli_bench(struct cli *cli, elbo_error *error)
{
    static const struct {
        const char *name;
        elbo_status (*run)(struct bench *b, elbo_error *error);
    } known[] = {{"step", bench_steps}, {"kernels", bench_kernels}};
    struct bench b = {.cli = cli};
    size_t k = 0;
    if (!strcmp(cli->arguments[0], "collectives")) return bench_collectives(cli, error);
    while (k < sizeof known / sizeof *known && strcmp(cli->arguments[0], known[k].name)) k++;
    if (k == sizeof known / sizeof *known)
        return elbo_fail(error, ELBO_USAGE, "elbo bench knows 'step', 'kernels' and 'collectives', not '%.60s'",
                         cli->arguments[0]);
    elbo_status status = open_bench(&b, error);
    if (!status) status = known[k].run(&b, error);
    if (b.loader) slot_loader_close(b.loader);
    recording_free(&b.recording, b.backend);
    if (b.optimizer.backend) optimizer_free(&b.optimizer);
    if (b.model.backend) model_free(&b.model);
    if (b.backend) b.backend->destroy(b.backend);
    if (b.corpus) elbo_corpus_close(b.corpus);
    return status;
}
