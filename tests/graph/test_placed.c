/* Tests weights outside of an arena: in f32 they give the same bits; in blocks they give the blocks' values, for a
 * table, a product and a loss; they are refused where an op cannot read them, and where a weight is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/philox.h"
#include "device/backends.h"
#include "graph/execute.h"
#include "graph/parameters.h"
#include "ops/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 5, WIDTH = 256, WORDS = 19, TABLE = 0, MATRIX, GAMMA, BETA, WEIGHTS };

struct net {
    struct graph *g;
    struct parameters *parameters;
    struct backend *backend;
    struct executor e;
    value y, nll;
    float *weights; /* the arena */
    size_t index[WEIGHTS];
    void *arena;
    elbo_error error;
};

static const int32_t ids[ROWS] = {3, 0, 18, 7, 3}, labels[ROWS] = {1, 2, 0, 18, 5};

static value weight(struct net *n, int which, const char *name, size_t rows, size_t columns)
{
    struct parameter p = {.name = name, .rank = columns ? 2 : 1, .shape = {rows, columns}, .part = PART_DECODER};
    assert_int_equal(parameters_declare(n->parameters, &n->index[which], &p, &n->error), ELBO_OK);
    return graph_parameter(n->g, n->index[which]);
}

/* Records y = norm(table[ids] W^T), and the loss of labels with the table. */
static void record(struct net *n)
{
    struct graph_capacities most = {{[DIM_DEC_TOKENS] = ROWS}};
    struct dim rows[] = {{DIM_DEC_TOKENS, 0}};
    *n = (struct net){0};
    assert_int_equal(parameters_create(&n->parameters, &n->error), ELBO_OK);
    assert_int_equal(graph_create(&n->g, "placed", n->parameters, &most, &n->error), ELBO_OK);
    value table = weight(n, TABLE, "table", WORDS, WIDTH), matrix = weight(n, MATRIX, "matrix", WIDTH, WIDTH),
          gamma = weight(n, GAMMA, "gamma", WIDTH, 0), beta = weight(n, BETA, "beta", WIDTH, 0);
    value order = graph_input(n->g, "order", DTYPE_I32, 1, rows);
    value x = op_embedding(n->g, table, graph_input(n->g, "ids", DTYPE_I32, 1, rows), order, NO_VALUE);
    n->y = op_norm(n->g, op_linear(n->g, x, matrix, NO_VALUE), NULL, NO_VALUE, gamma, beta, false).y;
    n->nll = op_linear_cross_entropy(n->g, n->y, table, graph_input(n->g, "labels", DTYPE_I32, 1, rows), NULL);
    graph_keep(n->g, n->y);
    graph_keep(n->g, n->nll);
    assert_int_equal(parameters_layout(n->parameters, NULL, &n->error), ELBO_OK);
    assert_int_equal(cpu_backend_create(&n->backend, 2, NULL, &n->error), ELBO_OK);
    assert_int_equal(executor_create(&n->e, n->g, n->backend, &n->error), ELBO_OK);
    n->arena = aligned_alloc(64, (n->e.plan.bytes + 64) / 64 * 64);
    n->weights = calloc(parameters_arena_elements(n->parameters), sizeof *n->weights);
    struct noise_key key = noise_key(3, 1, 0);
    for (int w = 0; w < WEIGHTS; w++) {
        const struct parameter *p = parameters_get(n->parameters, n->index[w]);
        for (size_t i = 0; i < p->elements; i++)
            n->weights[p->offset + i] =
                (float)noise_uniform(noise_block(key, (uint64_t)w, 0, (uint32_t)i).word[0]) - 0.5f;
    }
}

static void drop(struct net *n)
{
    executor_free(&n->e);
    free(n->arena);
    free(n->weights);
    graph_free(n->g);
    parameters_free(n->parameters);
    n->backend->destroy(n->backend);
}

static elbo_status bind(struct net *n, const float *master, const struct placed_weight *placed)
{
    return executor_bind(&n->e, n->arena, (struct weight_arenas){.master = master, .placed = placed}, NULL, NULL,
                         &n->error);
}

static void run(struct net *n, float y[ROWS * WIDTH], float nll[ROWS])
{
    static const int32_t order[ROWS] = {1, 0, 4, 3, 2};
    const struct {
        const char *name;
        const void *data;
    } inputs[] = {{"ids", ids}, {"order", order}, {"labels", labels}};
    for (size_t i = 0; i < 3; i++)
        n->e.inputs[graph_value(n->g, graph_input_named(n->g, inputs[i].name))->binding] = inputs[i].data;
    struct execution execution = {.count = {[DIM_DEC_TOKENS] = ROWS}};
    assert_int_equal(executor_run(&n->e, &execution, &n->error), ELBO_OK);
    memcpy(y, executor_pointer(&n->e, n->y), ROWS * WIDTH * sizeof *y);
    memcpy(nll, executor_pointer(&n->e, n->nll), ROWS * sizeof *nll);
}

static void in_f32_the_same_bits(void **state)
{
    struct net n;
    struct placed_weight placed[WEIGHTS];
    float y[ROWS * WIDTH], nll[ROWS], other[ROWS * WIDTH], lost[ROWS];
    (void)state;
    record(&n);
    assert_int_equal(bind(&n, n.weights, NULL), ELBO_OK);
    run(&n, y, nll);
    for (int w = 0; w < WEIGHTS; w++) {
        const struct parameter *p = parameters_get(n.parameters, n.index[w]);
        float *copy = malloc(p->elements * sizeof *copy);
        memcpy(copy, n.weights + p->offset, p->elements * sizeof *copy);
        placed[n.index[w]] = (struct placed_weight){copy, BLOCK_F32};
    }
    assert_int_equal(bind(&n, NULL, placed), ELBO_OK);
    run(&n, other, lost);
    assert_memory_equal(y, other, sizeof y);
    assert_memory_equal(nll, lost, sizeof nll);
    for (int w = 0; w < WEIGHTS; w++) free((void *)placed[w].data);
    drop(&n);
}

static void in_blocks_what_they_hold(void **state)
{
    const int in_blocks[] = {TABLE, MATRIX};
    (void)state;
    for (enum block_type type = BLOCK_Q8_0; type < BLOCK_TYPES; type++) {
        struct net n;
        struct placed_weight placed[WEIGHTS] = {{0}};
        float y[ROWS * WIDTH], nll[ROWS], other[ROWS * WIDTH], lost[ROWS];
        record(&n);
        for (size_t i = 0; i < 2; i++) { /* the arena gets the blocks' values */
            const struct parameter *p = parameters_get(n.parameters, n.index[in_blocks[i]]);
            void *blocks = malloc(block_bytes(type, p->elements));
            block_quantize(type, blocks, n.weights + p->offset, p->elements);
            block_dequantize(type, n.weights + p->offset, blocks, p->elements);
            placed[n.index[in_blocks[i]]] = (struct placed_weight){blocks, type};
        }
        assert_int_equal(bind(&n, n.weights, NULL), ELBO_OK);
        run(&n, y, nll);
        for (size_t i = 0; i < 2; i++) { /* the arena must not be read for weights in blocks */
            const struct parameter *p = parameters_get(n.parameters, n.index[in_blocks[i]]);
            for (size_t k = 0; k < p->elements; k++) n.weights[p->offset + k] = NAN;
        }
        assert_int_equal(bind(&n, n.weights, placed), ELBO_OK);
        run(&n, other, lost);
        double gap = 0, norm = 0;
        for (size_t i = 0; i < ROWS * WIDTH; i++) {
            gap += pow((double)y[i] - (double)other[i], 2);
            norm += pow((double)y[i], 2);
        }
        assert_true(gap > 0 && sqrt(gap / norm) < 0.01); /* activations are rounded to 8 bits */
        for (size_t i = 0; i < ROWS; i++) assert_true(fabsf(nll[i] - lost[i]) < 0.1f);
        free((void *)placed[n.index[TABLE]].data);
        free((void *)placed[n.index[MATRIX]].data);
        drop(&n);
    }
}

static void what_cannot_be_read_is_refused(void **state)
{
    struct net n;
    struct placed_weight placed[WEIGHTS] = {{0}};
    unsigned char blocks[WIDTH / 32 * 34] = {0};
    (void)state;
    record(&n);
    placed[n.index[GAMMA]] = (struct placed_weight){blocks, BLOCK_Q8_0};
    assert_int_equal(bind(&n, n.weights, placed), ELBO_INTERNAL);
    assert_non_null(strstr(n.error.message, "norm"));
    assert_non_null(strstr(n.error.message, "gamma"));
    assert_non_null(strstr(n.error.message, "Q8_0"));
    placed[n.index[GAMMA]] = (struct placed_weight){0};
    assert_int_equal(bind(&n, NULL, placed), ELBO_INTERNAL);
    assert_non_null(strstr(n.error.message, "lies nowhere"));
    drop(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(in_f32_the_same_bits),
                                       cmocka_unit_test(in_blocks_what_they_hold),
                                       cmocka_unit_test(what_cannot_be_read_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
