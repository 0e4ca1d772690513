/* Tests the memory plan of whole models by an independent pass over the schedule: every value is written before it is
 * read, no two values that live at the same time share a byte, the plan is not much larger than necessary, and every
 * offset is that of the planner's rule, applied pair by pair. Execution refuses graphs that it cannot run. */
#include "base/checked.h"
#include "base/redzone.h"
#include "graph/account.h"
#include "device/backends.h"
#include "graph/execute.h"
#include "graph/plan.h"
#include "step/recording.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct model_config config_of(unsigned variant)
{
    struct model_config c = {.encoder = {.width = 32, .layers = 3, .heads = 4},
                             .decoder = {.width = 32, .layers = 3, .heads = 4},
                             .latent = {.width = 8, .memory = 2, .sample = true},
                             .vocabulary = 101,
                             .positions = 40};
    struct stack_config *stacks[] = {&c.encoder, &c.decoder};
    for (int s = 0; s < 2; s++) {
        stacks[s]->norm = variant & 1 ? NORM_RMSNORM : NORM_LAYERNORM;
        stacks[s]->norm_position = variant & 2 ? NORM_POST : NORM_PRE;
        stacks[s]->activation = variant & 4 ? ACTIVATION_SWIGLU : ACTIVATION_GELU;
        stacks[s]->positions = variant & 8 ? POSITION_ROTARY : POSITION_LEARNED;
        stacks[s]->dropout = variant & 16 ? 0.1 : 0;
    }
    c.encoder.pooling = variant & 16 ? POOLING_ATTENTION : POOLING_MEAN;
    c.tie_output = c.share_embedding = variant & 4;
    if (variant == 31) c.latent.kind = LATENT_NONE;
    return c;
}

static const struct graph_capacities capacities = {{0, 300, 280, 40, 40}};

static void record(struct recording *r, struct parameters **parameters, unsigned variant, enum recompute_policy policy)
{
    elbo_error error = {0};
    struct model_config c = config_of(variant);
    struct train_recording options = {.wanted = (unsigned)WANT_ALL, .recompute = policy};
    struct objective objective;
    if (objective_create(&objective, &(struct objective_config){.free_bits = 0.1}, &c, 1, &error))
        fail_msg("%s", error.message);
    if (model_declare(parameters, &c, &error)) fail_msg("%s", error.message);
    if (record_train(r, &c, &objective, *parameters, &capacities, &options, &error)) fail_msg("%s", error.message);
}

struct life {
    size_t first_write, last_use, from, to;
    bool written, planned;
};

/* Finds the lifetimes by its own walk; fails when a value is read before it is written. Returns the largest number of
 * bytes that live at one time, a lower bound for every plan. */
static size_t lives_of(struct life *lives, const struct graph *g, const struct plan *plan, const size_t *scratch)
{
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order), most = 0;
    for (size_t s = 0; s < steps; s++) {
        const struct node *n = graph_node_get(g, order[s]);
        for (unsigned k = 0; k < MAX_INPUTS; k++) {
            struct life *l = &lives[n->in[k].index];
            if (!n->in[k].index || graph_value(g, n->in[k])->class != VALUE_ACTIVATION) continue;
            if (!l->written)
                fail_msg("%s (%s) reads %s before it is written", n->name, n->type->name,
                         graph_value(g, n->in[k])->name);
            l->last_use = s;
        }
        for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
            struct life *l = &lives[n->out[k].index];
            if (!n->out[k].index || graph_value(g, n->out[k])->class != VALUE_ACTIVATION) continue;
            if (n->mode[k] != WRITE && !l->written)
                fail_msg("%s adds to %s before it is written", n->name, graph_value(g, n->out[k])->name);
            if (!l->written) l->first_write = s;
            l->written = l->planned = true;
            l->last_use = s;
        }
    }
    for (uint32_t v = 1; v < graph_values(g); v++) {
        struct life *l = &lives[v];
        if (!l->planned) continue;
        l->from = plan->offset[v];
        l->to = l->from + graph_bytes(g, (value){v}, graph_capacity(g)->count);
        if (graph_value(g, (value){v})->kept) l->last_use = steps;
    }
    for (size_t s = 0; s < steps; s++) {
        size_t alive = scratch[s];
        for (uint32_t v = 1; v < graph_values(g); v++)
            if (lives[v].planned && lives[v].first_write <= s && s <= lives[v].last_use)
                alive += lives[v].to - lives[v].from;
        most = alive > most ? alive : most;
    }
    return most;
}

static void no_two_living_values_overlap(void **state)
{
    (void)state;
    double worst = 0;
    for (unsigned variant = 0; variant < 32; variant++)
        for (enum recompute_policy policy = KEEP_ALL; policy <= RECOMPUTE_BLOCKS; policy++) {
            struct recording r;
            struct parameters *parameters;
            struct plan plan;
            elbo_error error = {0};
            record(&r, &parameters, variant, policy);
            const uint32_t *order;
            size_t values = graph_values(r.g), steps = graph_schedule(r.g, &order), scratch[1024] = {0};
            assert_true(steps <= 1024);
            for (size_t s = 0; s < steps; s++)
                scratch[s] = s * 2654435761u % 5 ? 0 : s * 2246822519u % 100000; /* scratch for some ops */
            assert_int_equal(plan_create(&plan, r.g, scratch, &error), ELBO_OK);
            struct life *lives = calloc(values, sizeof *lives);
            size_t most = lives_of(lives, r.g, &plan, scratch);
            for (size_t s = 0; s < steps; s++) {
                if (scratch[s] && (plan.scratch[s] % PLAN_ALIGNMENT || plan.scratch[s] + scratch[s] > plan.bytes))
                    fail_msg("variant %u, policy %d: the scratch of step %zu lies at %zu", variant, (int)policy, s,
                             plan.scratch[s]);
                for (uint32_t v = 1; v < values; v++)
                    if (lives[v].planned && lives[v].first_write <= s && s <= lives[v].last_use &&
                        lives[v].from < plan.scratch[s] + scratch[s] && plan.scratch[s] < lives[v].to)
                        fail_msg("variant %u, policy %d: the scratch of step %zu lies in %s", variant, (int)policy, s,
                                 graph_value(r.g, (value){v})->name);
            }
            for (uint32_t a = 1; a < values; a++) {
                if (!lives[a].planned) continue;
                assert_int_equal(lives[a].from % PLAN_ALIGNMENT, 0);
                assert_true(lives[a].to <= plan.bytes);
                for (uint32_t b = a + 1; b < values; b++) {
                    if (!lives[b].planned || lives[a].last_use < lives[b].first_write ||
                        lives[b].last_use < lives[a].first_write)
                        continue;
                    if (lives[a].from < lives[b].to && lives[b].from < lives[a].to)
                        fail_msg("variant %u, policy %d: %s and %s share bytes", variant, (int)policy,
                                 graph_value(r.g, (value){a})->name, graph_value(r.g, (value){b})->name);
                }
            }
            assert_true(plan.bytes >= most && plan.bytes <= plan.sum);
            double over = (double)plan.bytes / (double)most;
            worst = over > worst ? over : worst;
            free(lives);
            plan_free(&plan);
            recording_free(&r, NULL);
            parameters_free(parameters);
        }
    print_message("plans are at most %.3f times what lives at once\n", worst);
    assert_true(worst < 1.25);
}

/* ---- the rule, pair by pair: the largest first, each at the lowest offset that is free during its life ---- */

struct placed {
    size_t number, bytes, first, last, offset; /* number: of a value, or graph_values + step for a step's scratch */
};

static int larger_first(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

static size_t room_for(size_t bytes)
{
    return align_up(bytes, PLAN_ALIGNMENT) + align_up(REDZONE_BYTES, PLAN_ALIGNMENT);
}

static size_t list_placed(struct placed *list, const struct graph *g, const struct plan *plan, const size_t *scratch)
{
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order), values = graph_values(g), n = 0;
    struct life *lives = calloc(values, sizeof *lives);
    lives_of(lives, g, plan, scratch);
    for (size_t v = 1; v < values; v++)
        if (lives[v].planned)
            list[n++] =
                (struct placed){v, room_for(lives[v].to - lives[v].from), lives[v].first_write, lives[v].last_use, 0};
    for (size_t s = 0; s < steps; s++)
        if (scratch[s]) list[n++] = (struct placed){values + s, room_for(scratch[s]), s, s, 0};
    free(lives);
    qsort(list, n, sizeof *list, larger_first);
    return n;
}

/* Moves the value up until it overlaps no earlier one. */
static void place_by_pairs(struct placed *list, size_t i)
{
    struct placed *own = &list[i];
    for (size_t j = 0; j < i; j++) {
        const struct placed *o = &list[j];
        bool together = o->first <= own->last && own->first <= o->last;
        if (!together || o->offset >= own->offset + own->bytes || own->offset >= o->offset + o->bytes) continue;
        own->offset = o->offset + o->bytes;
        j = (size_t)-1; /* checks all earlier ones again */
    }
}

static void plans_are_those_of_the_rule(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 32; variant += 3)
        for (enum recompute_policy policy = KEEP_ALL; policy <= RECOMPUTE_BLOCKS; policy++) {
            struct recording r;
            struct parameters *parameters;
            struct plan plan;
            elbo_error error = {0};
            record(&r, &parameters, variant, policy);
            const uint32_t *order;
            size_t values = graph_values(r.g), steps = graph_schedule(r.g, &order), bytes = 0, sum = 0;
            size_t *scratch = calloc(steps, sizeof *scratch);
            for (size_t s = 0; s < steps; s++)
                scratch[s] = (s + variant) * 2654435761u % 4 ? 0 : s * 2246822519u % 50000;
            assert_int_equal(plan_create(&plan, r.g, scratch, &error), ELBO_OK);
            struct placed *list = calloc(values + steps, sizeof *list);
            size_t n = list_placed(list, r.g, &plan, scratch);
            for (size_t i = 0; i < n; i++) {
                place_by_pairs(list, i);
                const struct placed *p = &list[i];
                size_t offset = p->number < values ? plan.offset[p->number] : plan.scratch[p->number - values];
                if (offset != p->offset)
                    fail_msg("variant %u, policy %d: number %zu lies at %zu, and the rule says %zu", variant,
                             (int)policy, p->number, offset, p->offset);
                bytes = p->offset + p->bytes > bytes ? p->offset + p->bytes : bytes;
                sum += p->bytes;
            }
            assert_int_equal(plan.bytes, bytes);
            assert_int_equal(plan.sum, sum);
            free(list);
            free(scratch);
            plan_free(&plan);
            recording_free(&r, NULL);
            parameters_free(parameters);
        }
}

/* Recomputation needs less memory and at most one more forward pass: each block is recomputed once from its
 * boundary. */
static void recomputation_shrinks_the_plan(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 31; variant++) {
        size_t bytes[3];
        double flops[3];
        for (enum recompute_policy policy = KEEP_ALL; policy <= RECOMPUTE_BLOCKS; policy++) {
            struct recording r;
            struct parameters *parameters;
            struct plan plan;
            elbo_error error = {0};
            record(&r, &parameters, variant, policy);
            assert_int_equal(plan_create(&plan, r.g, NULL, &error), ELBO_OK);
            bytes[policy] = plan.bytes;
            flops[policy] = account_graph(r.g, capacities.count).flops;
            plan_free(&plan);
            recording_free(&r, NULL);
            parameters_free(parameters);
        }
        if (flops[RECOMPUTE_CHEAP_OPS] > 1.05 * flops[KEEP_ALL] || flops[RECOMPUTE_BLOCKS] > 4.0 / 3 * flops[KEEP_ALL])
            fail_msg("variant %u: %g operations kept, %g cheap, %g block", variant, flops[0], flops[1], flops[2]);
        if (bytes[RECOMPUTE_CHEAP_OPS] >= bytes[KEEP_ALL] || bytes[RECOMPUTE_BLOCKS] >= bytes[KEEP_ALL])
            fail_msg("variant %u: %zu bytes kept, %zu cheap, %zu block", variant, bytes[0], bytes[1], bytes[2]);
    }
}

/* ---- execution ---- */

static void execution_refuses_what_it_cannot_run(void **state)
{
    (void)state;
    struct recording r;
    struct parameters *parameters;
    struct backend *backend;
    struct executor e;
    elbo_error error = {0};
    record(&r, &parameters, 0, KEEP_ALL);
    assert_int_equal(cpu_backend_create(&backend, 1, NULL, &error), ELBO_OK);
    struct kernel table[OP_COUNT];
    const struct kernel *whole = backend->kernels;
    memcpy(table, whole, sizeof table);
    table[OP_pool].run = NULL;
    backend->kernels = table;
    assert_int_equal(executor_create(&e, r.g, backend, &error), ELBO_DEVICE);
    assert_non_null(strstr(error.message, "pool"));
    backend->kernels = whole;
    assert_int_equal(executor_create(&e, r.g, backend, &error), ELBO_OK);
    float *weights = calloc(parameters_arena_elements(parameters), sizeof *weights);
    void *arena = calloc(1, e.plan.bytes);
    assert_int_equal(executor_bind(&e, arena, (struct weight_arenas){.master = weights}, weights, NULL, &error),
                     ELBO_OK);
    struct execution run = {.count = {0, capacities.count[DIM_ENC_TOKENS] + 1}};
    assert_int_equal(executor_run(&e, &run, &error), ELBO_INTERNAL);
    assert_non_null(strstr(error.message, "capacity"));
    run.count[DIM_ENC_TOKENS] = 1;
    assert_int_equal(executor_run(&e, &run, &error), ELBO_INTERNAL);
    assert_non_null(strstr(error.message, "not bound"));
    executor_free(&e);
    free(arena);
    free(weights);
    recording_free(&r, NULL);
    parameters_free(parameters);
    backend->destroy(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_two_living_values_overlap), cmocka_unit_test(plans_are_those_of_the_rule),
        cmocka_unit_test(recomputation_shrinks_the_plan), cmocka_unit_test(execution_refuses_what_it_cannot_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
