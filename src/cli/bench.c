/* elbo bench: chooses the benchmark and opens the model, corpus and device for `step` and `kernels`. */
#include "cli/bench.h"

#include "train/step_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static elbo_status open_bench(struct bench *b, elbo_error *error)
{
    struct elbo_config *c = &b->cli->config;
    if (!*c->data.train)
        return elbo_fail(error, ELBO_USAGE, "--data.train is missing: a corpus whose lengths are measured");
    ELBO_TRY(elbo_corpus_open(&b->corpus, c->data.train, error));
    c->model.vocabulary = elbo_corpus_vocabulary(b->corpus, ELBO_STREAM_DECODER);
    c->model.positions = c->data.max_length + 2;
    c->model.labels = 0;
    if (c->data.labels) {
        ELBO_TRY(label_names_of_corpus(&b->labels, b->corpus, error));
        ELBO_TRY(label_numbers(&b->numbers, &b->labels, b->corpus, error));
        c->model.labels = b->labels.count;
    }
    ELBO_TRY(cli_check_effects(b->cli, error));
    ELBO_TRY(elbo_config_check(c, error));
    ELBO_TRY(backend_open(&b->backend, c->device, c->threads, error));
    b->backend->device.tf32 = c->tf32;
    b->backend->device.timed_products = c->determinism == DETERMINISM_FAST;
    struct step_options options = step_options_of(c, &c->model, 1, 0);
    ELBO_TRY(step_create(&b->step, &options, b->backend, error));
    ELBO_TRY(model_initialize(&b->step.model, c->seed, error));
    options.slots.labels = b->numbers;
    return slot_loader_open(&b->loader, b->corpus, &options.slots, error);
}

elbo_status bench_wait(struct bench *b, elbo_error *error)
{
    b->backend->stream.mark(b->backend, 0);
    return b->backend->stream.wait(b->backend, 0, error);
}

elbo_status bench_step(struct bench *b, double *flops, double *tokens, elbo_error *error)
{
    const struct slot_batch *batch;
    struct step_schedule schedule;
    ELBO_TRY(slot_loader_next(b->loader, &batch, error));
    ELBO_TRY(step_run(&b->step, &schedule, batch, false, error));
    for (size_t k = 0; k < batch->count; k++) {
        struct execution run = {.first_slot = false};
        recording_bind_slot(&b->step.recording, &batch->slots[k], &run); /* gives the slot's row counts */
        *flops += account_graph(b->step.recording.g, run.count).flops;
        *tokens += (double)batch->slots[k].predicted;
    }
    ELBO_TRY(step_update(&b->step, &schedule, batch->step + 1, false, error));
    optimizer_count(&b->step.optimizer, ALL_PARTS); /* counts every part of the optimizer as updated */
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
    step_free(&b.step);
    if (b.backend) b.backend->destroy(b.backend);
    label_names_free(&b.labels);
    free(b.numbers);
    if (b.corpus) elbo_corpus_close(b.corpus);
    return status;
}
