/* Tests that the work of recording, differentiating, laying out and planning a model grows linearly with its layers.
 *
 * The work is counted, not timed: src/graph/ is compiled again for this program with a call at the beginning of every
 * basic block (-fsanitize-coverage=trace-pc, tests/CMakeLists.txt), so that the figures are the same on every
 * machine. */
#include "graph/autodiff.h"
#include "graph/plan.h"
#include "step/recording.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static size_t blocks;

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
    blocks++;
}

struct work {
    double recording, planning;
};

/* Counts the basic blocks executed for a model with `layers` encoder layers and as many decoder layers. */
static struct work work_of(size_t layers, enum recompute_policy policy)
{
    struct work w;
    const struct graph_capacities capacities = {{0, 300, 280, 40, 40}};
    struct model_config c = {.encoder = {.width = 32, .layers = layers, .heads = 4},
                             .decoder = {.width = 32, .layers = layers, .heads = 4},
                             .latent = {.width = 8, .memory = 2, .sample = true},
                             .vocabulary = 101,
                             .positions = 40};
    struct train_recording options = {.wanted = (unsigned)WANT_ALL, .recompute = policy};
    struct recording r;
    struct parameters *parameters;
    struct plan plan;
    elbo_error error = {0};
    struct objective objective;
    blocks = 0;
    if (objective_create(&objective, &(struct objective_config){0}, &c, 1, &error) ||
        parameters_create(&parameters, &error) ||
        record_train(&r, &c, &objective, parameters, &capacities, &options, &error) ||
        recording_layout(&r, parameters, &error))
        fail_msg("%s", error.message);
    for (size_t i = 0; i < graph_inputs(r.g); i++) {
        value v = graph_input_at(r.g, i);
        assert_int_equal(graph_input_named(r.g, graph_value(r.g, v)->name).index, v.index);
    }
    w.recording = (double)blocks;
    blocks = 0;
    assert_int_equal(plan_create(&plan, r.g, NULL, &error), ELBO_OK);
    w.planning = (double)blocks;
    plan_free(&plan);
    recording_free(&r, NULL);
    parameters_free(parameters);
    return w;
}

static void work_grows_with_the_layers(void **state)
{
    (void)state;
    static const char *const names[] = {"none", "cheap", "block"};
    enum { FEW = 64, MANY = 512 };
    for (enum recompute_policy policy = KEEP_ALL; policy <= RECOMPUTE_BLOCKS; policy++) {
        struct work few = work_of(FEW, policy), many = work_of(MANY, policy);
        double recording = many.recording / few.recording / (MANY / FEW),
               planning = many.planning / few.planning / (MANY / FEW);
        print_message("recompute=%s, blocks a layer of %d and of %d: recording %.0f, %.0f; planning %.0f, %.0f\n",
                      names[policy], FEW, MANY, few.recording / FEW, many.recording / MANY, few.planning / FEW,
                      many.planning / MANY);
        assert_true(few.recording > 0 && few.planning > 0);
        assert_true(recording < 1.1);
        /* With recompute=cheap the layers' lifetimes are not adjacent, so a set has more spans. Quadratic work would
         * give 8. */
        assert_true(planning < (policy == RECOMPUTE_CHEAP_OPS ? 5 : 2));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(work_grows_with_the_layers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
