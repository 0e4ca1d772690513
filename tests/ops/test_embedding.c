/* embedding: y = table[ids] (+ add); dtable sums the rows of each id; rows of ids that do not occur get zeros. */
#include "ops/harness.h"

#include <stdio.h>
#include <stdlib.h>

enum { ADD };

static void record(struct graph *g, const struct trial *t, const value *in, value *out)
{
    out[0] =
        op_embedding(g, in[0], harness_input(g, "ids"), harness_input(g, "order"), t->option[ADD] ? in[1] : NO_VALUE);
}

static void reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width;
    for (size_t n = 0; n < t->batch->tokens; n++)
        for (size_t i = 0; i < width; i++)
            out[0][n * width + i] =
                in[0][(size_t)t->batch->ids[n] * width + i] + (t->option[ADD] ? in[1][n * width + i] : 0);
}

static void gradient(const struct trial *t, double *const *in, double *const *dout, double *const *din)
{
    (void)in;
    size_t width = t->in[0].width;
    for (size_t n = 0; n < t->batch->tokens; n++)
        for (size_t i = 0; i < width; i++) {
            din[0][(size_t)t->batch->ids[n] * width + i] += dout[0][n * width + i];
            if (t->option[ADD]) din[1][n * width + i] += dout[0][n * width + i];
        }
}

static void try(size_t rows, size_t vocabulary, size_t width, bool add, size_t tail)
{
    char name[64];
    snprintf(name, sizeof name, "embedding %zu of %zu x %zu%s", rows, vocabulary, width, add ? ", add" : "");
    struct batch *b = batch_rows(rows);
    batch_words(b, vocabulary, rows + width);
    struct trial t = {.name = name,
                      .batch = b,
                      .tail = tail,
                      .inputs = add ? 2 : 1,
                      .option = {add},
                      .record = record,
                      .reference = reference,
                      .gradient = gradient};
    t.in[0] = (struct operand){DIM_FIXED, vocabulary, width, 0, 1};
    t.in[1] = (struct operand){DIM_DEC_TOKENS, rows, width, 0, 1};
    harness_try(&t);
    free(b);
}

static void embedding(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{0, 3, 4},      {1, 1, 1},   {1, 9, 5},    {3, 2, 7},     {17, 40, 3},
                                       {31, 5, 16},    {32, 5, 15}, {33, 5, 17},  {63, 1, 4},    {64, 2, 8},
                                       {65, 1, 5},     {129, 2, 3}, {200, 3, 31}, {200, 900, 2}, {300, 50, 33},
                                       {64, 70000, 1}, {1000, 7, 6}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        try(shapes[i][0], shapes[i][1], shapes[i][2], false, i % 3 * 20);
        try(shapes[i][0], shapes[i][1], shapes[i][2], true, i % 2 * 7);
    }
}

/* ---- a second table behind the first ---- */

static void record_marked(struct graph *g, const struct trial *t, const value *in, value *out)
{
    (void)t;
    out[0] = op_embedding_marked(g, in[0], in[1], harness_input(g, "ids"), harness_input(g, "order"));
}

static void marked_reference(const struct trial *t, double *const *in, double *const *out)
{
    size_t width = t->in[0].width, rows = t->in[0].rows;
    for (size_t i = 0; i < t->batch->tokens * width; i++) {
        size_t id = (size_t)t->batch->ids[i / width];
        out[0][i] = id < rows ? in[0][id * width + i % width] : in[1][(id - rows) * width + i % width];
    }
}

static void marked(void **state)
{
    (void)state;
    static const size_t shapes[][4] = {{1, 1, 1, 1},  {1, 3, 1, 5},   {17, 6, 1, 3},  {64, 5, 2, 8},
                                       {65, 1, 1, 5}, {200, 3, 4, 9}, {33, 1, 9, 16}, {130, 2, 1, 17}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const size_t *s = shapes[i];
        char name[64];
        snprintf(name, sizeof name, "embedding %zu of %zu and %zu x %zu", s[0], s[1], s[2], s[3]);
        struct batch *b = batch_rows(s[0]);
        batch_words(b, s[1] + s[2], i);
        struct trial t = {.name = name,
                          .batch = b,
                          .tail = i % 3 * 20,
                          .inputs = 2,
                          .record = record_marked,
                          .reference = marked_reference};
        t.in[0] = (struct operand){DIM_FIXED, s[1], s[3], 0, 1};
        t.in[1] = (struct operand){DIM_FIXED, s[2], s[3], 0, 1};
        harness_try(&t);
        free(b);
    }
}

HARNESS_MAIN(FAMILY_EMBEDDING, cmocka_unit_test(embedding), cmocka_unit_test(marked))
