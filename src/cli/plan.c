/* elbo plan: computes the memory and the operations of a run from its recorded graphs, without running them. */
#include "cli/cli.h"
#include "base/json.h"

#include "elbo/corpus.h"
#include "device/backends.h"
#include "step/memory.h"
#include "train/limits.h"
#include "train/step_options.h"

static void print_ranks(const struct memory_table *t, const struct elbo_config *c)
{
    printf("each of %zu ranks; estimates: sends %.1f MiB a step and receives as much", t->ranks, t->wire / 1048576.0);
    if (t->exposed > 0)
        printf(", %.2f ms at %g GB/s and %g us; the last bucket's %.2f ms hold up a step, and what the last slot's "
               "backward pass does not "
               "cover\n",
               t->wire_seconds * 1e3, c->parallel.bandwidth, c->parallel.latency, t->exposed * 1e3);
    else
        puts("; parallel.bandwidth and parallel.latency say how long that takes");
}

static elbo_status plan(struct memory_table *t, const struct elbo_config *c, elbo_error *error)
{
    struct step_options options = step_options_of(c, &c->model, c->parallel.ranks, 0);
    struct step step;
    struct backend *backend = NULL;
    ELBO_TRY(sums_check(&options.sums, c->train.slots, error));
    ELBO_TRY(step_record(&step, &options, error));
    elbo_status status = backend_open_plan(&backend, c->device, c->threads, error);
    if (!status) status = step_plan(&step, backend, error);
    if (!status) {
        memory_table_of(t, &step);
        memory_wire(t, &step, c->parallel.bandwidth, c->parallel.latency);
    }
    step_free(&step);
    if (backend) backend->destroy(backend);
    return status;
}

elbo_status cli_plan(struct cli *cli, elbo_error *error)
{
    struct elbo_config *c = &cli->config;
    struct memory_table t;
    char limits[512] = "";
    size_t longer = 0, beyond;
    c->model.vocabulary = c->prepare.tokenizer_size;
    c->model.labels = 0;
    c->model.positions = c->data.max_length + 2;
    if (*c->data.train) {
        struct elbo_corpus *corpus;
        ELBO_TRY(elbo_corpus_open(&corpus, c->data.train, error));
        c->model.vocabulary = elbo_corpus_vocabulary(corpus, ELBO_STREAM_DECODER);
        c->model.labels = c->data.labels ? elbo_corpus_classes(corpus) : 0;
        elbo_corpus_longer_than(corpus, ELBO_STREAM_DECODER, c->data.max_length, &longer, &beyond);
        if (!limits_describe(limits, sizeof limits, corpus, "data.train", &c->data)) *limits = 0;
        elbo_corpus_close(corpus);
    }
    if (c->data.labels && !c->model.labels)
        return elbo_fail(error, ELBO_USAGE, "data.labels = true wants a data.train that has labels, to know how many");
    if (*limits) log_warning(&cli->log, "%s", limits);
    ELBO_TRY(cli_check_effects(cli, error));
    ELBO_TRY(elbo_config_check(c, error));
    ELBO_TRY(plan(&t, c, error));
    if (!c->json) {
        char text[512];
        memory_print(text, sizeof text, &t);
        printf("%.3f M parameters, %zu token types\n%s", (double)t.parameters / 1e6, c->model.vocabulary, text);
        printf("a slot at its capacities: %zu ops, %.2f GFLOP, %.1f MiB moved; activations unshared %.1f MiB\n", t.ops,
               t.flops / 1e9, t.bytes_moved / 1048576.0, (double)t.unshared / 1048576.0);
        if (t.ranks > 1) print_ranks(&t, c);
        return ELBO_OK;
    }
    json_t *all = json_pack("{s:I, s:I, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:I, s:I, s:f, s:f}", "parameters",
                            (json_int_t)t.parameters, "vocabulary", (json_int_t)c->model.vocabulary, "bytes", "weights",
                            (json_int_t)t.weights, "gradients", (json_int_t)t.gradients, "optimizer",
                            (json_int_t)t.moments, "activations", (json_int_t)t.activations, "workspace",
                            (json_int_t)t.workspace, "slots", (json_int_t)t.slots, "sums", (json_int_t)t.sums, "total",
                            (json_int_t)t.total, "activations_unshared", (json_int_t)t.unshared, "ops",
                            (json_int_t)t.ops, "slot_flops", t.flops, "slot_bytes_moved", t.bytes_moved);
    json_t *ranks =
        json_pack("{s:I, s:f, s:b, s:o, s:o}", "ranks", (json_int_t)t.ranks, "wire_bytes_per_step", t.wire, "estimate",
                  1, "exposed_seconds_per_step", t.exposed > 0 ? json_real(t.exposed) : json_null(),
                  "wire_seconds_per_step", t.exposed > 0 ? json_real(t.wire_seconds) : json_null());
    bool failed =
        *c->data.train && json_object_set_new(all, "longer_than_max_length", json_integer((json_int_t)longer));
    if (failed || (t.ranks > 1 && json_object_set(all, "parallel", ranks))) {
        json_decref(all);
        all = NULL;
    }
    json_decref(ranks);
    return json_print(stdout, all, JSON_INDENT(2), "the plan", error);
}
