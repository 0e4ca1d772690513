/* attention_cached.cu: attention of one new token per row with a cache, against the last rows of packed sentences in
 * double. */
#include "kernels/attention.h"

static int cached(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return attention_cached_cuda(&(struct attention_cached_args){.out = at(t, c->out),
                                                                 .cache = at(t, c->cache),
                                                                 .qkv = at(t, c->qkv),
                                                                 .position = at(t, c->position),
                                                                 .memory = at(t, c->memory),
                                                                 .history = at(t, c->history),
                                                                 .rows = c->shape.sentences,
                                                                 .room = c->room,
                                                                 .shape = &c->shape,
                                                                 .type = t->type},
                                 NULL);
}

/* One row per sentence with a cache must equal the last row of that sentence, computed packed. */
static void try_cached(enum kernel_type type, const struct shape *shape, size_t room, bool moved, unsigned shifted)
{
    struct trial t;
    struct context c = {.room = room, .memory = -1, .history = -1};
    size_t R = shape->sentences, H = shape->heads, Hk = shape->kv_heads, W = shape->width, row = (H + 2 * Hk) * W,
           kvw = Hk * W;
    int32_t *position = calloc(R, sizeof *position);
    int32_t *history = calloc(R * room + 1, sizeof *history); /* earlier positions of a row may be in any row of the
                                                               * cache */
    for (size_t r = 0; r < R; r++) position[r] = (int32_t)(r == 0 ? room - 1 : r * 3 % room);
    for (size_t i = 0; i < R * room; i++) {
        size_t r = i / room, j = i % room, from = (r * 7 + j * 5) % R;
        history[i] = (int32_t)(moved && (int32_t)j != position[from] ? from : r); /* a place that this launch writes
                                                                                   * belongs to its own row */
    }
    trial_begin(&t, type, "cached attention, %zu rows of %zu, %zu/%zu heads of %zu, memory %zu%s%s", R, room, H, Hk, W,
                shape->memory, moved ? ", moved" : "", shifted ? ", shifted" : "");
    enum array_type T = trial_t(&t);
    c.shape = (struct kernel_attention){.sentences = R,
                                        .tokens = R,
                                        .longest = 1,
                                        .heads = H,
                                        .kv_heads = Hk,
                                        .head_width = W,
                                        .memory = shape->memory,
                                        .causal = true};
    c.qkv = trial_normal(&t, T, R * row, 0, 1);
    c.cache = trial_normal(&t, T, R * room * 2 * kvw, 0, 1);
    c.position = trial_integers(&t, position, R);
    if (moved) c.history = trial_integers(&t, history, R * room);
    if (shape->memory) c.memory = trial_normal(&t, T, R * shape->memory * 2 * kvw, 0, 1);
    c.out = trial_output(&t, T, R * H * W);
    double *out = trial_expect(&t, c.out), *cache = trial_expect_new(&t, c.cache);
    for (size_t r = 0; r < R; r++) {
        struct context one = {.shape = c.shape};
        size_t length = (size_t)position[r] + 1;
        double *qkv = calloc(length * row, sizeof *qkv), *all = calloc(length * H * W, sizeof *all);
        memcpy(cache + r * room * 2 * kvw, trial_value(&t, c.cache) + r * room * 2 * kvw,
               room * 2 * kvw * sizeof *cache);
        memcpy(cache + (r * room + length - 1) * 2 * kvw, trial_value(&t, c.qkv) + r * row + H * W,
               2 * kvw * sizeof *cache);
        for (size_t j = 0; j < length; j++) {
            size_t from = j + 1 < length ? (size_t)history[r * room + j] : r;
            memcpy(qkv + j * row + H * W, (from == r ? cache : trial_value(&t, c.cache)) + (from * room + j) * 2 * kvw,
                   2 * kvw * sizeof *qkv);
        }
        memcpy(qkv + (length - 1) * row, trial_value(&t, c.qkv) + r * row, H * W * sizeof *qkv);
        one.s =
            (struct sentences){.sentences = 1, .tokens = length, .longest = length, .offsets = {0, (int32_t)length}};
        reference(&one, qkv, shape->memory ? trial_value(&t, c.memory) + r * shape->memory * 2 * kvw : NULL, all, NULL,
                  NULL, NULL, NULL, NULL);
        memcpy(out + r * H * W, all + (length - 1) * H * W, H * W * sizeof *out);
        free(qkv);
        free(all);
    }
    free(position);
    free(history);
    shift(&t, shifted, (const int[]){c.qkv, c.cache, c.memory}, 3);
    trial_run(&t, cached, &c);
}

static void with_a_cache(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            struct shape shape = shape_of(i);
            try_cached((enum kernel_type)type, &shape, i * 11 % 50 + 1, false, 0);
            try_cached((enum kernel_type)type, &shape, i * 11 % 50 + 1, true, 0);
        }
    const struct shape even = {.sentences = 3, .heads = 2, .kv_heads = 1, .width = 16, .memory = 2};
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (unsigned bit = 0; bit < 3; bit++) try_cached((enum kernel_type)type, &even, 7, bit % 2, 1u << bit);
}

TRIAL_MAIN(cmocka_unit_test(with_a_cache))
