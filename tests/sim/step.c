/* A training step on the emulated GPU, seen from outside:
 *
 *   every launch and every product belongs to an op; the latent takes one launch each way;
 *   the bytes of device memory that the ops access are within a tenth of the graph's account (graph/account.h), in f32
 *   and in bf16;
 *   from its third run on, a slot is one replay, and so is the update; replays have the bits of eager steps;
 *   nothing is allocated, and the host waits once a step, for the step before. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "train/trainer_job.h"

#include "graph/account.h"
#include "sim.h"
#include "traffic.h"

static const char *const wide[] = {"--device=cuda",
                                   "--encoder.width=64",
                                   "--decoder.width=64",
                                   "--encoder.ff_width=256",
                                   "--decoder.ff_width=256",
                                   "--encoder.layers=2",
                                   "--decoder.layers=2",
                                   "--latent.width=16",
                                   "--train.slots=2",
                                   "--train.slot_tokens=256",
                                   "--train.steps=1",
                                   "--optimizer.warmup_steps=1",
                                   NULL,
                                   NULL};
static const char *const quick[] = {"--device=cuda", "--train.steps=12", NULL, NULL};

struct fixture {
    struct temporary folder;
};

static int setup(void **state)
{
    static struct fixture f;
    f.folder = temporary_open();
    job_corpus(&f.folder, 300, 9);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    temporary_remove(f->folder.path);
    return 0;
}

/* ---- launches and bytes by op ---- */

struct op_record {
    size_t calls, launches, products;
    double bytes, account;
};

struct trace {
    const struct graph *graph;
    struct op_record op[OP_COUNT];
    struct sim_traffic traffic;
    struct sim_counts counts;
};

static const struct node *under_way; /* null between ops */
static size_t nameless;

static void on_launch(void *context, const struct sim_launch *launch)
{
    (void)context;
    sim_traffic_launch();
    if (under_way) return;
    printf("%s belongs to no op\n", launch->kernel);
    nameless++;
}

static void on_op(void *context, const struct call *call, bool after)
{
    struct trace *t = context;
    struct sim_traffic traffic;
    struct sim_counts counts;
    sim_get_traffic(&traffic);
    sim_get_counts(&counts);
    if (!after) {
        under_way = call->node;
        t->traffic = traffic;
        t->counts = counts;
        return;
    }
    struct op_record *r = &t->op[call->node->type->index];
    under_way = NULL;
    if (!call->add[0] && call->node->mode[0] == WRITE_ADD_LATER_SLOTS) return; /* a first slot moves other bytes */
    size_t count[DIM_KINDS] = {0};
    for (unsigned k = 0; k < MAX_INPUTS + MAX_OUTPUTS; k++) {
        bool in = k < MAX_INPUTS;
        value v = in ? call->node->in[k] : call->node->out[k - MAX_INPUTS];
        const struct value_info *info = graph_value(t->graph, v);
        if (v.index && info->rank && info->dim[0].kind != DIM_FIXED)
            count[info->dim[0].kind] =
                (in ? call->size.in[k][0] : call->size.out[k - MAX_INPUTS][0]) - info->dim[0].size;
    }
    r->calls++;
    r->launches += counts.kernels - t->counts.kernels;
    r->products += counts.products - t->counts.products;
    r->bytes += (double)(traffic.read - t->traffic.read + traffic.written - t->traffic.written +
                         counts.bytes_of_products - t->counts.bytes_of_products);
    r->account += account_node(t->graph, call->node, count).bytes;
}

static void trace_step(struct fixture *f, const char *name, const char *precision)
{
    struct job job;
    struct trace slots = {0}, update = {0};
    const char *arguments[sizeof wide / sizeof *wide];
    memcpy(arguments, wide, sizeof wide);
    arguments[sizeof wide / sizeof *wide - 2] = precision;
    job_open(&job, &f->folder, name, arguments);
    slots.graph = job.trainer->step.recording.g;
    update.graph = job.trainer->step.optimizer.kind[0].graph;
    job.trainer->step.recording.executor.hook = job.trainer->step.optimizer.kind[0].executor.hook = on_op;
    job.trainer->step.recording.executor.hook_context = &slots;
    job.trainer->step.optimizer.kind[0].executor.hook_context = &update;
    nameless = 0;
    sim_on_launch(on_launch, NULL);
    if (trainer_run(job.trainer, &job.error)) fail_msg("%s", job.error.message);
    sim_on_launch(NULL, NULL);
    assert_int_equal(nameless, 0);
    struct op_record all = {0};
    size_t launches = 0;
    printf("%s\n%-28s %6s %9s %9s %12s %12s %6s\n", precision, "op", "calls", "launches", "products", "bytes",
           "account", "ratio");
    for (unsigned k = 0; k < OP_COUNT; k++) {
        struct op_record *r = &slots.op[k], *u = &update.op[k];
        r->calls += u->calls;
        r->launches += u->launches;
        r->products += u->products;
        r->bytes += u->bytes;
        r->account += u->account;
        launches += r->launches;
        if (!r->calls) continue;
        all.bytes += r->bytes;
        all.account += r->account;
        printf("%-28s %6zu %9zu %9zu %12.0f %12.0f %6.3f\n", op_types[k]->name, r->calls, r->launches, r->products,
               r->bytes, r->account, r->bytes / r->account);
        if (r->launches + r->products == 0) fail_msg("%s: no launch was seen", op_types[k]->name);
    }
    printf("%-28s %6s %9zu %9s %12.0f %12.0f %6.3f\n", "all", "", launches, "", all.bytes, all.account,
           all.bytes / all.account);
    assert_int_equal(slots.op[OP_latent].launches, slots.op[OP_latent].calls);
    assert_int_equal(slots.op[OP_latent_backward].launches, slots.op[OP_latent_backward].calls);
    if (fabs(all.bytes / all.account - 1) > 0.1)
        fail_msg("%s: the ops touch %.0f bytes, the account says %.0f", precision, all.bytes, all.account);
    job_close(&job);
}

static void bytes_are_the_accounts(void **state)
{
    trace_step(*state, "traced", "--precision=f32");
    trace_step(*state, "traced-bf16", "--precision=bf16");
}

/* ---- replays ---- */

static void ignore(void *context, const struct call *call, bool after)
{
    (void)context;
    (void)call;
    (void)after;
}

static float *weights_after(struct fixture *f, const char *name, bool eager, size_t *count)
{
    struct job job;
    job_open(&job, &f->folder, name, quick);
    if (eager)
        job.trainer->step.recording.executor.hook = job.trainer->step.optimizer.kind[0].executor.hook =
            ignore; /* watched steps are never captured */
    if (trainer_run(job.trainer, &job.error)) fail_msg("%s", job.error.message);
    *count = parameters_arena_elements(job.trainer->step.parameters);
    float *weights = malloc(*count * sizeof *weights);
    job.trainer->backend->memory.download(job.trainer->backend, weights, job.trainer->step.model.weights,
                                          *count * sizeof *weights);
    job_close(&job);
    return weights;
}

static void replays_leave_the_same_bits(void **state)
{
    struct fixture *f = *state;
    size_t a, b;
    struct sim_counts before, after;
    sim_get_counts(&before);
    float *eager = weights_after(f, "eager", true, &a);
    sim_get_counts(&after);
    assert_int_equal(after.graphs, before.graphs);
    float *replayed = weights_after(f, "replayed", false, &b);
    sim_get_counts(&before);
    assert_true(before.graphs > after.graphs);
    assert_int_equal(a, b);
    assert_memory_equal(eager, replayed, a * sizeof *eager);
    free(eager);
    free(replayed);
}

/* ---- one step after the first few ---- */

static struct sim_counts at_step[64];
static size_t steps_seen;

static void on_line(void *context, const char *text)
{
    (void)context;
    if (!strncmp(text, "step ", 5) && steps_seen < 64) sim_get_counts(&at_step[steps_seen++]);
}

static void nobody_waits_inside_a_step(void **state)
{
    struct fixture *f = *state;
    struct job job;
    job_open(&job, &f->folder, "counted", (const char *const[]){"--device=cuda", "--train.steps=40", NULL});
    job.trainer->report.line = on_line;
    steps_seen = 0;
    if (trainer_run(job.trainer, &job.error)) fail_msg("%s", job.error.message);
    assert_int_equal(steps_seen, 40);
    size_t slots = job.config.train.slots, replayed = 0;
    /* Rows 20 .. 38: one step is launched and one is finished between two rows. */
    for (size_t i = 20; i < 38; i++) {
        const struct sim_counts *a = &at_step[i], *b = &at_step[i + 1];
        assert_int_equal(b->synchronizations - a->synchronizations, 1);
        assert_int_equal(b->allocations, a->allocations);
        replayed += b->graphs - a->graphs == slots + 1;
    }
    printf("of 18 steps, %zu were %zu replays and nothing else\n", replayed, slots + 1);
    assert_true(replayed >= 15); /* rare row sizes appear late */
    job_close(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_are_the_accounts, setup, teardown),
        cmocka_unit_test_setup_teardown(replays_leave_the_same_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_waits_inside_a_step, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
