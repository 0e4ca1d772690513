/* attention_rotary.cu: rotary positions, against double. */
#include "kernels/attention.h"

static int rotary(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return rotary_cuda(&(struct rotary_args){.y = at(t, c->out),
                                             .x = at(t, c->qkv),
                                             .position = at(t, c->position),
                                             .rows = c->s.tokens,
                                             .width = c->width,
                                             .heads = c->rotated_heads,
                                             .head_width = c->shape.head_width,
                                             .direction = c->direction,
                                             .add = c->add[0],
                                             .type = t->type},
                       NULL);
}

/* `copied` columns follow the rotated ones. */
static void try_rotary(enum kernel_type type, const struct shape *shape, size_t copied, int direction, bool add,
                       int shifted)
{
    struct trial t;
    struct context c = {.add = {add}, .direction = direction};
    size_t W = (shape->width + 1) / 2 * 2, half = W / 2;
    trial_sentences(&c.s, shape->sentences, shape->longest, shape->width);
    for (size_t n = 0; n < c.s.tokens && direction < 0; n++) c.s.position[n] = (int32_t)(100000 - n * 7919 % 100001);
    c.rotated_heads = shape->heads + shape->kv_heads;
    c.width = c.rotated_heads * W + copied;
    c.shape.head_width = W;
    trial_begin(&t, type, "rotary %zu x %zu, %zu heads of %zu%s%s", c.s.tokens, c.width, c.rotated_heads, W,
                add ? ", add" : "", shifted ? ", shifted" : "");
    c.qkv = trial_normal(&t, trial_t(&t), c.s.tokens * c.width, 0, 1);
    c.position = trial_integers(&t, c.s.position, c.s.tokens);
    c.out = trial_sum(&t, trial_t(&t), c.s.tokens * c.width, add);
    double *y = trial_expect(&t, c.out);
    for (size_t i = 0; i < c.s.tokens * c.width; i++) {
        const double *x = trial_value(&t, c.qkv) + i;
        size_t column = i % c.width, within = column % W;
        double angle = c.s.position[i / c.width] * pow(10000, -2.0 * (double)(within % half) / (double)W) * direction;
        y[i] = column >= c.rotated_heads * W ? x[0]
               : within < half               ? x[0] * cos(angle) - x[half] * sin(angle)
                                             : x[0] * cos(angle) + *(x - half) * sin(angle);
    }
    if (shifted) trial_shift(&t, shifted == 1 ? c.qkv : c.out);
    trial_run(&t, rotary, &c);
}

static void rotated(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++)
            for (int option = 0; option < 2; option++) {
                struct shape shape = shape_of(i);
                size_t W = (shape.width + 1) / 2 * 2;
                try_rotary((enum kernel_type)type, &shape, shape.kv_heads * W, option ? -1 : 1, option, 0);
            }
}

/* Fewer columns to copy than half a head, with and without packs; no columns to copy; an unaligned array. */
static void rotated_at_the_edge(void **state)
{
    static const struct shape shape = {.sentences = 3, .longest = 13, .heads = 2, .kv_heads = 1, .width = 64};
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (int add = 0; add < 2; add++) {
            for (size_t i = 0; i < 4; i++)
                try_rotary((enum kernel_type)type, &shape, (const size_t[]){0, 3, 8, 32}[i], 1, add, 0);
            for (int shifted = 1; shifted <= 2; shifted++)
                try_rotary((enum kernel_type)type, &shape, 64, -1, add, shifted);
        }
}

TRIAL_MAIN(cmocka_unit_test(rotated), cmocka_unit_test(rotated_at_the_edge))
