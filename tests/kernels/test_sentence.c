/* sentence.cu: pooling of every kind both ways, broadcast, sums over sentences, prefix rows and cleared padding,
 * against double. Sentences are ragged, and some are empty. */
#include "kernels/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MEAN, FIRST, LAST, ATTENTION, ENDS, KINDS }; /* enum pool_kind */
static const char *const kind_names[KINDS] = {"mean", "first", "last", "attention", "ends"};

struct context {
    struct sentences s;
    size_t width, prefix_rows;
    int kind;
    bool add[2];
    int y, x, v, offsets, sentence, position, query, weights, scratch, dx, dquery, dv, dy;
};

static int pool(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return pool_forward_cuda(&(struct pool_forward_args){.y = at(t, c->y),
                                                         .weights = at(t, c->weights),
                                                         .x = at(t, c->x),
                                                         .offsets = at(t, c->offsets),
                                                         .query = at(t, c->query),
                                                         .sentences = c->s.sentences,
                                                         .width = c->width,
                                                         .kind = c->kind,
                                                         .type = t->type},
                             NULL);
}

static int pool_backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return pool_backward_cuda(&(struct pool_backward_args){.dx = at(t, c->dx),
                                                           .dquery = at(t, c->dquery),
                                                           .scratch = at(t, c->scratch),
                                                           .dy = at(t, c->dy),
                                                           .offsets = at(t, c->offsets),
                                                           .query = at(t, c->query),
                                                           .x = at(t, c->x),
                                                           .weights = at(t, c->weights),
                                                           .tokens = c->s.tokens,
                                                           .sentences = c->s.sentences,
                                                           .width = c->width,
                                                           .kind = c->kind,
                                                           .add_dx = c->add[0],
                                                           .add_dquery = c->add[1],
                                                           .type = t->type},
                              NULL);
}

static int broadcast(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return broadcast_add_cuda(&(struct broadcast_add_args){.y = at(t, c->y),
                                                           .x = at(t, c->x),
                                                           .v = at(t, c->v),
                                                           .sentence = at(t, c->sentence),
                                                           .rows = c->s.tokens,
                                                           .width = c->width,
                                                           .type = t->type},
                              NULL);
}

static int segment_sum(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return segment_sum_cuda(&(struct segment_sum_args){.y = at(t, c->y),
                                                       .x = at(t, c->x),
                                                       .offsets = at(t, c->offsets),
                                                       .sentences = c->s.sentences,
                                                       .width = c->width,
                                                       .add = c->add[0],
                                                       .type = t->type},
                            NULL);
}

static int prefix(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return prefix_cuda(&(struct prefix_args){.y = at(t, c->y),
                                             .x = at(t, c->x),
                                             .prefix = at(t, c->v),
                                             .position = at(t, c->position),
                                             .sentence = at(t, c->sentence),
                                             .rows = c->s.tokens,
                                             .width = c->width,
                                             .prefix_rows = c->prefix_rows,
                                             .type = t->type},
                       NULL);
}

static int prefix_backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return prefix_backward_cuda(&(struct prefix_backward_args){.dx = at(t, c->dx),
                                                               .dprefix = at(t, c->dv),
                                                               .dy = at(t, c->dy),
                                                               .position = at(t, c->position),
                                                               .offsets = at(t, c->offsets),
                                                               .rows = c->s.tokens,
                                                               .sentences = c->s.sentences,
                                                               .width = c->width,
                                                               .prefix_rows = c->prefix_rows,
                                                               .add_dx = c->add[0],
                                                               .add_dprefix = c->add[1],
                                                               .type = t->type},
                                NULL);
}

/* Returns the weight of a row in column i of its sentence's y; with ENDS each half of the columns takes one end. */
static double column_weight(const struct context *c, const double *w, size_t n, size_t i)
{
    size_t s = (size_t)c->s.sentence[n];
    if (c->kind != ENDS) return w[n];
    return n == (size_t)(i < c->width / 2 ? c->s.offsets[s + 1] - 1 : c->s.offsets[s]);
}

/* Computes the weight of every row in its sentence's y. */
static void weigh(const struct context *c, const double *x, const double *query, double *w)
{
    for (size_t s = 0; s < c->s.sentences; s++) {
        size_t from = (size_t)c->s.offsets[s], to = (size_t)c->s.offsets[s + 1];
        double sum = 0;
        for (size_t n = from; n < to; n++) {
            double score = 0;
            for (size_t i = 0; i < c->width && c->kind == ATTENTION; i++) score += x[n * c->width + i] * query[i];
            w[n] = c->kind == FIRST ? n == from : c->kind == LAST ? n == to - 1 : exp(score);
            sum += w[n];
        }
        for (size_t n = from; n < to; n++) w[n] /= sum;
    }
}

static void try_pool(enum kernel_type type, size_t count, size_t longest, size_t width, int kind, bool add,
                     unsigned wanted)
{
    struct trial t;
    struct context c = {
        .width = width, .kind = kind, .add = {add, !add}, .query = -1, .weights = -1, .dx = -1, .dquery = -1};
    trial_sentences(&c.s, count, longest, width + (size_t)kind);
    size_t tokens = c.s.tokens;
    bool attends = kind == ATTENTION;
    double *w = calloc(tokens + 1, sizeof *w);

    trial_begin(&t, type, "pool %s, %zu sentences x %zu", kind_names[kind], count, width);
    enum array_type T = trial_t(&t);
    c.x = trial_normal(&t, T, tokens * width, 0.1, 1);
    c.offsets = trial_integers(&t, c.s.offsets, count + 1);
    if (attends) c.query = trial_normal(&t, T, width, 0, 1 / sqrt((double)width));
    if (attends) c.weights = trial_output(&t, ARRAY_F32, tokens);
    c.y = trial_output(&t, T, count * width);
    weigh(&c, trial_value(&t, c.x), attends ? trial_value(&t, c.query) : NULL, w);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < tokens * width; i++)
        y[(size_t)c.s.sentence[i / width] * width + i % width] +=
            column_weight(&c, w, i / width, i % width) * trial_value(&t, c.x)[i];
    if (attends) {
        double *weights = trial_expect(&t, c.weights);
        for (size_t n = 0; n < tokens; n++) weights[n] = w[n];
    }
    trial_run(&t, pool, &c);

    trial_begin(&t, type, "pool backward %s, %zu sentences x %zu%s, wanted %u", kind_names[kind], count, width,
                add ? ", add" : "", wanted);
    c.x = trial_normal(&t, T, tokens * width, 0.1, 1);
    c.dy = trial_normal(&t, T, count * width, 0, 1);
    c.offsets = trial_integers(&t, c.s.offsets, count + 1);
    if (attends) {
        c.query = trial_normal(&t, T, width, 0, 1 / sqrt((double)width));
        c.weights = trial_normal(&t, ARRAY_F32, tokens, 0, 1);
    }
    weigh(&c, trial_value(&t, c.x), attends ? trial_value(&t, c.query) : NULL, w);
    for (size_t n = 0; n < tokens && attends; n++) {
        ((float *)t.arrays[c.weights].initial)[n] = (float)w[n];
        t.arrays[c.weights].value[n] = w[n] = (double)(float)w[n];
    }
    c.scratch = trial_scratch(&t, ARRAY_F32, tokens + pool_scratch_floats(count, width));
    if (wanted & 1) c.dx = trial_sum(&t, T, tokens * width, c.add[0]);
    if (attends && wanted & 2) c.dquery = trial_sum(&t, ARRAY_F32, width, c.add[1]);
    double *dx = c.dx < 0 ? NULL : trial_expect(&t, c.dx), *dquery = c.dquery < 0 ? NULL : trial_expect(&t, c.dquery);
    for (size_t s = 0; s < count; s++) {
        const double *dy = trial_value(&t, c.dy) + s * width;
        double level = 0;
        for (int pass = 0; pass < 2; pass++)
            for (size_t n = (size_t)c.s.offsets[s]; n < (size_t)c.s.offsets[s + 1]; n++) {
                const double *x = trial_value(&t, c.x) + n * width;
                double along = 0;
                for (size_t i = 0; i < width; i++) along += dy[i] * x[i];
                if (!pass) level += w[n] * along;
                double score = attends ? w[n] * (along - level) : 0;
                for (size_t i = 0; i < width && pass; i++) {
                    if (dx)
                        dx[n * width + i] =
                            column_weight(&c, w, n, i) * dy[i] + (attends ? score * trial_value(&t, c.query)[i] : 0);
                    if (dquery) dquery[i] += score * x[i];
                }
            }
    }
    trial_run(&t, pool_backward, &c);
    free(w);
}

static const size_t given[][3] = {{1, 1, 1},    {0, 1, 7},     {2, 5, 16},  {7, 9, 33},
                                  {19, 20, 64}, {40, 12, 130}, {4, 200, 24}};
static const struct sweep shapes = SWEEP(given, 40000, 64, 129, 1025);

static int clear_padding(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return clear_padding_cuda(&(struct clear_padding_args){.x = at(t, c->x),
                                                           .offsets = at(t, c->offsets),
                                                           .sentences = c->s.sentences,
                                                           .rows = c->s.tokens,
                                                           .width = c->width,
                                                           .type = t->type},
                              NULL);
}

/* Rows of sentences keep their bits; rows past them, NaN among them, become 0. */
static void try_clear(enum kernel_type type, size_t count, size_t longest, size_t width, size_t beyond)
{
    struct trial t;
    struct context c = {.width = width};
    trial_sentences(&c.s, count, longest, longest * 3 + width);
    size_t tokens = c.s.tokens;
    c.s.tokens += beyond;
    trial_begin(&t, type, "clear %zu rows behind %zu x %zu", beyond, tokens, width);
    c.offsets = trial_integers(&t, c.s.offsets, count + 1);
    c.x = trial_normal(&t, trial_t(&t), c.s.tokens * width, 0, 1);
    memset((char *)t.arrays[c.x].initial + tokens * width * (type == KERNEL_BF16 ? 2 : 4), 0xff,
           beyond * width * (type == KERNEL_BF16 ? 2 : 4));
    double *x = trial_expect_new(&t, c.x);
    for (size_t i = 0; i < tokens * width; i++) x[i] = trial_value(&t, c.x)[i];
    t.tolerance = 0;
    trial_run(&t, clear_padding, &c);
}

static void padding_is_cleared(void **state)
{
    static const size_t cleared[][4] = {{1, 1, 1, 0}, {3, 5, 7, 1}, {5, 9, 33, 16}, {0, 1, 64, 130}, {17, 20, 129, 63}};
    static const struct sweep sizes = SWEEP(cleared, 100000, 33, 33, 257, 257);
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&sizes); i++) {
            size_t n[4];
            sweep_shape(n, &sizes, i);
            try_clear((enum kernel_type)type, n[0], n[1], n[2], n[3]);
        }
}

static void pooling_matches(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            size_t n[3];
            sweep_shape(n, &shapes, i);
            for (int kind = 0; kind < KINDS; kind++)
                try_pool((enum kernel_type)type, n[0], n[1], n[2], kind, (i + (size_t)kind) % 2,
                         kind == ATTENTION ? (unsigned)i % 3 + 1 : 1);
        }
}

static void try_rows(enum kernel_type type, size_t count, size_t longest, size_t width, bool add)
{
    struct trial t;
    struct context c = {.width = width, .add = {add}};
    trial_sentences(&c.s, count, longest, width);
    trial_begin(&t, type, "broadcast add, %zu sentences x %zu", count, width);
    c.x = trial_normal(&t, trial_t(&t), c.s.tokens * width, 0, 1);
    c.v = trial_normal(&t, trial_t(&t), count * width, 0, 1);
    c.sentence = trial_integers(&t, c.s.sentence, c.s.tokens);
    c.y = trial_output(&t, trial_t(&t), c.s.tokens * width);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < c.s.tokens * width; i++)
        y[i] = trial_value(&t, c.x)[i] + trial_value(&t, c.v)[(size_t)c.s.sentence[i / width] * width + i % width];
    trial_run(&t, broadcast, &c);

    trial_begin(&t, type, "segment sum, %zu sentences x %zu%s", count, width, add ? ", add" : "");
    c.x = trial_normal(&t, trial_t(&t), c.s.tokens * width, 0.3, 1);
    c.offsets = trial_integers(&t, c.s.offsets, count + 1);
    c.y = trial_sum(&t, trial_t(&t), count * width, add);
    y = trial_expect(&t, c.y);
    for (size_t i = 0; i < c.s.tokens * width; i++)
        y[(size_t)c.s.sentence[i / width] * width + i % width] += trial_value(&t, c.x)[i];
    trial_run(&t, segment_sum, &c);
}

static void rows_match(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            size_t n[3];
            sweep_shape(n, &shapes, i);
            for (int add = 0; add < 2; add++) try_rows((enum kernel_type)type, n[0], n[1], n[2], add);
        }
}

/* Returns the row of the prefixes that packed row `n` takes, or SIZE_MAX if it takes none. */
static size_t place_in_prefix(const struct context *c, size_t n)
{
    size_t s = (size_t)c->s.sentence[n], j = (size_t)c->s.position[n];
    return j < c->prefix_rows ? s * c->prefix_rows + j : SIZE_MAX;
}

/* wanted: the wanted gradients, 1 dx, 2 dprefix. */
static void try_prefix(enum kernel_type type, size_t count, size_t longest, size_t width, size_t rows, unsigned wanted)
{
    struct trial t;
    struct context c = {.width = width, .prefix_rows = rows, .add = {wanted & 1, !(wanted & 1)}, .dx = -1, .dv = -1};
    trial_sentences(&c.s, count, longest, width);
    size_t elements = c.s.tokens * width;
    trial_begin(&t, type, "prefix of %zu, %zu sentences x %zu", rows, count, width);
    c.x = trial_normal(&t, trial_t(&t), elements, 0, 1);
    c.v = trial_normal(&t, trial_t(&t), count * rows * width, 0, 1);
    c.sentence = trial_integers(&t, c.s.sentence, c.s.tokens);
    c.position = trial_integers(&t, c.s.position, c.s.tokens);
    c.y = trial_output(&t, trial_t(&t), elements);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < elements; i++) {
        size_t from = place_in_prefix(&c, i / width);
        y[i] = from == SIZE_MAX ? trial_value(&t, c.x)[i] : trial_value(&t, c.v)[from * width + i % width];
    }
    t.tolerance = 0;
    trial_run(&t, prefix, &c);

    trial_begin(&t, type, "prefix backward of %zu, %zu sentences x %zu, wanted %u", rows, count, width, wanted);
    c.dy = trial_normal(&t, trial_t(&t), elements, 0, 1);
    c.offsets = trial_integers(&t, c.s.offsets, count + 1);
    c.position = trial_integers(&t, c.s.position, c.s.tokens);
    if (wanted & 1) c.dx = trial_sum(&t, trial_t(&t), elements, c.add[0]);
    if (wanted & 2) c.dv = trial_sum(&t, trial_t(&t), count * rows * width, c.add[1]);
    double *dx = c.dx < 0 ? NULL : trial_expect(&t, c.dx), *dv = c.dv < 0 ? NULL : trial_expect(&t, c.dv);
    for (size_t i = 0; i < elements; i++) {
        size_t to = place_in_prefix(&c, i / width);
        if (to == SIZE_MAX && dx) dx[i] += trial_value(&t, c.dy)[i];
        if (to != SIZE_MAX && dv) dv[to * width + i % width] += trial_value(&t, c.dy)[i];
    }
    trial_run(&t, prefix_backward, &c);
}

static void prefixes_match(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            size_t n[3];
            sweep_shape(n, &shapes, i);
            for (unsigned wanted = 1; wanted <= 3; wanted++)
                try_prefix((enum kernel_type)type, n[0], n[1], n[2], i % 5 + 1, wanted);
        }
}

TRIAL_MAIN(cmocka_unit_test(pooling_matches), cmocka_unit_test(padding_is_cleared), cmocka_unit_test(rows_match),
           cmocka_unit_test(prefixes_match))
