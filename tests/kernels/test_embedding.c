/* embedding.cu: rows of a table with and without an addend; the gradient over rows sorted by id, against double. */
#include "kernels/trial.h"

#include <stdlib.h>

struct context {
    size_t rows, table, width, marks; /* marks: rows of the second table */
    bool add, of_marks;
    int marked;
    int y, values, ids, order, addend, parts;
};

static int forward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return embedding_forward_cuda(&(struct embedding_forward_args){.y = at(t, c->y),
                                                                   .table = at(t, c->values),
                                                                   .marks = at(t, c->marked),
                                                                   .ids = at(t, c->ids),
                                                                   .add = at(t, c->addend),
                                                                   .rows = c->rows,
                                                                   .table_rows = c->table,
                                                                   .width = c->width,
                                                                   .type = t->type},
                                  NULL);
}

static int backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return embedding_backward_cuda(&(struct embedding_backward_args){.dtable = at(t, c->y),
                                                                     .scratch = at(t, c->parts),
                                                                     .dy = at(t, c->values),
                                                                     .ids = at(t, c->ids),
                                                                     .order = at(t, c->order),
                                                                     .rows = c->rows,
                                                                     .first = c->of_marks ? c->table : 0,
                                                                     .table_rows = c->of_marks ? c->marks : c->table,
                                                                     .width = c->width,
                                                                     .add = c->add,
                                                                     .type = t->type},
                                   NULL);
}

static void draw(int32_t *ids, int32_t *order, size_t rows, size_t table)
{
    uint64_t seed = rows * 31 + table;
    size_t n = 0;
    for (size_t i = 0; i < rows; i++) ids[i] = (int32_t)(trial_random(&seed) % table);
    for (size_t id = 0; id < table; id++)
        for (size_t i = 0; i < rows; i++)
            if (ids[i] == (int32_t)id) order[n++] = (int32_t)i;
}

static void try(enum kernel_type type, size_t rows, size_t table, size_t width, bool option)
{
    struct trial t;
    struct context c = {.rows = rows, .table = table, .width = width, .addend = -1, .marked = -1, .add = option};
    int32_t *ids = calloc(rows + 1, sizeof *ids), *order = calloc(rows + 1, sizeof *order);
    draw(ids, order, rows, table);

    trial_begin(&t, type, "embedding %zu of %zu x %zu%s", rows, table, width, option ? ", add" : "");
    c.values = trial_normal(&t, trial_t(&t), table * width, 0, 1);
    c.ids = trial_integers(&t, ids, rows);
    if (option) c.addend = trial_normal(&t, trial_t(&t), rows * width, 0, 1);
    c.y = trial_output(&t, trial_t(&t), rows * width);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < rows * width; i++)
        y[i] = trial_value(&t, c.values)[(size_t)ids[i / width] * width + i % width] +
               (option ? trial_value(&t, c.addend)[i] : 0);
    trial_run(&t, forward, &c);

    trial_begin(&t, type, "embedding backward %zu of %zu x %zu%s", rows, table, width, option ? ", add" : "");
    c.values = trial_normal(&t, trial_t(&t), rows * width, 0, 1);
    c.ids = trial_integers(&t, ids, rows);
    c.order = trial_integers(&t, order, rows);
    c.parts = trial_scratch(&t, ARRAY_F32, embedding_scratch_floats(rows, width));
    c.y = trial_sum(&t, ARRAY_F32, table * width, option);
    y = trial_expect(&t, c.y);
    for (size_t i = 0; i < rows * width; i++)
        y[(size_t)ids[i / width] * width + i % width] += trial_value(&t, c.values)[i];
    trial_run(&t, backward, &c);
    free(ids);
    free(order);
}

/* A second table follows the first; each gets the gradient of its own ids. */
static void try_marks(enum kernel_type type, size_t rows, size_t table, size_t marks, size_t width, bool add)
{
    struct trial t;
    struct context c = {.rows = rows, .table = table, .width = width, .marks = marks, .addend = -1, .add = add};
    int32_t *ids = calloc(rows + 1, sizeof *ids), *order = calloc(rows + 1, sizeof *order);
    draw(ids, order, rows, table + marks);
    trial_begin(&t, type, "embedding %zu of %zu and %zu x %zu", rows, table, marks, width);
    c.values = trial_normal(&t, trial_t(&t), table * width, 0, 1);
    c.marked = trial_normal(&t, trial_t(&t), marks * width, 0, 1);
    c.ids = trial_integers(&t, ids, rows);
    c.y = trial_output(&t, trial_t(&t), rows * width);
    double *y = trial_expect(&t, c.y);
    for (size_t i = 0; i < rows * width; i++) {
        size_t id = (size_t)ids[i / width];
        y[i] = id < table ? trial_value(&t, c.values)[id * width + i % width]
                          : trial_value(&t, c.marked)[(id - table) * width + i % width];
    }
    trial_run(&t, forward, &c);
    for (int of_marks = 0; of_marks < 2; of_marks++) {
        size_t own = of_marks ? marks : table, from = of_marks ? table : 0;
        c.of_marks = of_marks;
        trial_begin(&t, type, "embedding backward %zu of %zu and %zu x %zu, %s%s", rows, table, marks, width,
                    of_marks ? "the marks" : "the table", add ? ", add" : "");
        c.values = trial_normal(&t, trial_t(&t), rows * width, 0, 1);
        c.ids = trial_integers(&t, ids, rows);
        c.order = trial_integers(&t, order, rows);
        c.parts = trial_scratch(&t, ARRAY_F32, embedding_scratch_floats(rows, width));
        c.y = trial_sum(&t, ARRAY_F32, own * width, add);
        y = trial_expect(&t, c.y);
        for (size_t i = 0; i < rows * width; i++) {
            size_t id = (size_t)ids[i / width];
            if (id >= from && id < from + own) y[(id - from) * width + i % width] += trial_value(&t, c.values)[i];
        }
        trial_run(&t, backward, &c);
    }
    free(ids);
    free(order);
}

static void marks_match(void **state)
{
    static const size_t given[][4] = {{1, 1, 1, 1},    {3, 7, 1, 5},   {40, 3, 2, 16}, {129, 5, 1, 64},
                                      {64, 1, 3, 260}, {161, 2, 1, 8}, {257, 1, 1, 24}};
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sizeof given / sizeof *given; i++)
            try_marks((enum kernel_type)type, given[i][0], given[i][1], given[i][2], given[i][3], i % 2);
}

/* Widths that allow packs, but one array is not aligned to them. */
static void unaligned_arrays_match(void **state)
{
    enum { ROWS = 5, TABLE = 4, WIDTH = 16 };
    int32_t ids[ROWS], order[ROWS];
    (void)state;
    draw(ids, order, ROWS, TABLE);
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (int shifted = 0; shifted < 4; shifted++) {
            struct trial t;
            struct context c = {.rows = ROWS, .table = TABLE, .width = WIDTH, .marked = -1, .parts = -1};
            bool back = shifted == 3;
            trial_begin(&t, (enum kernel_type)type, "embedding%s %d x %d, array %d unaligned", back ? " backward" : "",
                        ROWS, WIDTH, shifted);
            c.values = trial_normal(&t, trial_t(&t), (back ? ROWS : TABLE) * WIDTH, 0, 1);
            c.ids = trial_integers(&t, ids, ROWS);
            if (back)
                c.order = trial_integers(&t, order, ROWS);
            else
                c.addend = trial_normal(&t, trial_t(&t), ROWS * WIDTH, 0, 1);
            c.y = trial_output(&t, back ? ARRAY_F32 : trial_t(&t), (back ? TABLE : ROWS) * WIDTH);
            trial_shift(&t, shifted == 1 ? c.y : shifted == 2 ? c.addend : c.values);
            double *y = trial_expect(&t, c.y);
            for (size_t i = 0; i < ROWS * WIDTH; i++) {
                size_t cell = (size_t)ids[i / WIDTH] * WIDTH + i % WIDTH;
                if (back)
                    y[cell] += trial_value(&t, c.values)[i];
                else
                    y[i] = trial_value(&t, c.values)[cell] + trial_value(&t, c.addend)[i];
            }
            trial_run(&t, back ? backward : forward, &c);
        }
}

static void matches(void **state)
{
    static const size_t given[][3] = {{1, 1, 1},    {3, 7, 5},    {40, 3, 16},    {129, 50, 64},
                                      {64, 9, 260}, {17, 200, 8}, {31, 12, 1032}, {0, 4, 8},
                                      {257, 1, 24}, {161, 2, 8}}; /* runs of several parts */
    static const struct sweep shapes = SWEEP(given, 40000, 257, 129, 1025);
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            size_t n[3];
            sweep_shape(n, &shapes, i);
            for (int option = 0; option < 2; option++) try((enum kernel_type)type, n[0], n[1], n[2], option);
        }
}

TRIAL_MAIN(cmocka_unit_test(marks_match), cmocka_unit_test(matches), cmocka_unit_test(unaligned_arrays_match))
