/* attention*.cu: attention within ragged sentences with latent keys in front, both ways, by the general kernels and on tensor
 * cores; with a cache; rotary positions; against double. */
#include "kernels/trial.h"
#include "kernels/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct context {
    struct sentences s;
    struct kernel_attention shape;
    bool add[2];
    size_t room;
    int out, lse, qkv, offsets, memory, dqkv, dmemory, scratch, dout, cache, position;
    size_t width, rotated_heads;
    int direction;
};

static int forward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return attention_forward_cuda(at(t, c->out), at(t, c->lse), at(t, c->qkv), at(t, c->offsets), at(t, c->memory), &c->shape,
                                  t->type, NULL);
}

static int backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return attention_backward_cuda(at(t, c->dqkv), at(t, c->dmemory), at(t, c->scratch), at(t, c->dout), at(t, c->qkv),
                                   at(t, c->offsets), at(t, c->memory), at(t, c->out), at(t, c->lse), &c->shape, c->add,
                                   t->type, NULL);
}

static int cached(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return attention_cached_cuda(at(t, c->out), at(t, c->cache), at(t, c->qkv), at(t, c->position), at(t, c->memory),
                                 c->shape.sentences, c->room, &c->shape, t->type, NULL);
}

static int rotary(const struct trial *t, const void *context)
{
    const struct context *c = context;
    return rotary_cuda(at(t, c->out), at(t, c->qkv), at(t, c->position), c->s.tokens, c->width, c->rotated_heads,
                       c->shape.head_width, c->direction, c->add[0], t->type, NULL);
}

/* Where key (which 0) or value (1) j of a sentence lies: in memory (*latent) or in qkv. */
static size_t kv_at(const struct kernel_attention *a, size_t begin, size_t sentence, size_t kv, size_t j, size_t which,
                    bool *latent)
{
    *latent = j < a->memory;
    if (*latent) return (((sentence * a->memory + j) * 2 + which) * a->kv_heads + kv) * a->head_width;
    return ((begin + j - a->memory) * (a->heads + 2 * a->kv_heads) + a->heads + which * a->kv_heads + kv) * a->head_width;
}

/* Forward where dout is null; else the gradients, with what the forward pass left in `given` (rounded to its type). */
static void reference(const struct context *c, const double *qkv, const double *memory, double *out, double *lse,
                      const double *dout, const double *given, double *dqkv, double *dmemory)
{
    const struct kernel_attention *a = &c->shape;
    size_t W = a->head_width, row = (a->heads + 2 * a->kv_heads) * W;
    double *p = calloc(c->s.longest + a->memory + 1, sizeof *p), scale = 1 / sqrt((double)W);
    for (size_t n = 0; n < c->s.tokens; n++)
        for (size_t h = 0; h < a->heads; h++) {
            size_t s = (size_t)c->s.sentence[n], begin = (size_t)c->s.offsets[s], kv = h / (a->heads / a->kv_heads);
            size_t count = a->memory + (a->causal ? n - begin + 1 : (size_t)c->s.offsets[s + 1] - begin);
            double top = -INFINITY, sum = 0, level = 0;
            const double *q = qkv + n * row + h * W, *d = dout ? dout + (n * a->heads + h) * W : NULL;
            bool latent;
            for (size_t i = 0; i < W && d; i++) level += d[i] * given[(n * a->heads + h) * W + i];
            for (size_t j = 0; j < count; j++) {
                size_t k = kv_at(a, begin, s, kv, j, 0, &latent);
                const double *key = (latent ? memory : qkv) + k;
                p[j] = 0;
                for (size_t i = 0; i < W; i++) p[j] += q[i] * key[i] * scale;
                top = fmax(top, p[j]);
            }
            for (size_t j = 0; j < count; j++) sum += exp(p[j] - top);
            double norm = top + log(sum);
            for (size_t j = 0; j < count; j++) p[j] = exp(p[j] - norm);
            if (lse) lse[n * a->heads + h] = norm;
            for (size_t j = 0; j < count; j++) {
                size_t v = kv_at(a, begin, s, kv, j, 1, &latent);
                const double *value = (latent ? memory : qkv) + v;
                double *dvalue = latent ? dmemory : dqkv;
                for (size_t i = 0; i < W; i++) {
                    if (out) out[(n * a->heads + h) * W + i] += p[j] * value[i];
                    if (d && dvalue) dvalue[v + i] += p[j] * d[i];
                }
            }
            for (size_t j = 0; j < count && d; j++) {
                size_t v = kv_at(a, begin, s, kv, j, 1, &latent), k = kv_at(a, begin, s, kv, j, 0, &latent);
                const double *value = (latent ? memory : qkv) + v, *key = (latent ? memory : qkv) + k;
                double ds = -level, *dkey = latent ? dmemory : dqkv;
                for (size_t i = 0; i < W; i++) ds += value[i] * d[i];
                ds *= p[j] * scale;
                for (size_t i = 0; i < W; i++) {
                    if (dqkv) dqkv[n * row + h * W + i] += ds * key[i];
                    if (dkey) dkey[k + i] += ds * q[i];
                }
            }
        }
    free(p);
}

static void put_values(struct trial *t, int array, const double *values)
{
    struct array *a = &t->arrays[array];
    for (size_t i = 0; i < a->count; i++) {
        a->value[i] = trial_round(values[i], a->type);
        if (a->type == ARRAY_F32)
            ((float *)a->initial)[i] = (float)a->value[i];
        else {
            float v = (float)a->value[i];
            memcpy((char *)a->initial + 2 * i, (char *)&v + 2, 2); /* exact: it was rounded */
        }
    }
}

struct shape {
    size_t sentences, longest, heads, kv_heads, width, memory;
};

/* The rows of capacity behind the last sentence stay as they are. */
static double *expect_rows(struct trial *t, int array, size_t spare)
{
    double *expect = spare ? trial_expect_new(t, array) : trial_expect(t, array);
    size_t count = t->arrays[array].count;
    if (spare) memcpy(expect + count - spare, trial_value(t, array) + count - spare, spare * sizeof *expect);
    return expect;
}

/* Forward and backward of the sentences of `c`, with `spare` rows behind them. */
static void try_sentences(struct context *c, enum kernel_type type, const struct shape *shape, size_t longest, bool causal, bool add,
                          unsigned wanted, size_t spare)
{
    struct trial t;
    size_t H = shape->heads, Hk = shape->kv_heads, W = shape->width, row = (H + 2 * Hk) * W, N = c->s.tokens, rows = N + spare;
    size_t latents = c->s.sentences * shape->memory * 2 * Hk * W;
    c->add[0] = add && !spare;
    c->add[1] = !add;
    c->memory = c->dqkv = c->dmemory = -1;
    c->shape = (struct kernel_attention){.sentences = c->s.sentences, .tokens = rows, .longest = longest, .heads = H, .kv_heads = Hk,
                                         .head_width = W, .memory = shape->memory, .causal = causal};
    trial_begin(&t, type, "attention %zu x %zu, %zu/%zu heads of %zu, memory %zu%s", c->s.sentences, c->s.longest, H, Hk, W,
                shape->memory, causal ? ", causal" : "");
    enum array_type T = trial_t(&t);
    c->qkv = trial_normal(&t, T, rows * row, 0, 1);
    c->offsets = trial_integers(&t, c->s.offsets, c->s.sentences + 1);
    if (shape->memory) c->memory = trial_normal(&t, T, latents, 0, 1);
    c->out = trial_sum(&t, T, rows * H * W, spare);
    c->lse = trial_sum(&t, ARRAY_F32, rows * H, spare);
    double *out = calloc(rows * H * W + 1, sizeof *out), *lse = calloc(rows * H + 1, sizeof *lse);
    const double *memory = shape->memory ? trial_value(&t, c->memory) : NULL;
    reference(c, trial_value(&t, c->qkv), memory, expect_rows(&t, c->out, spare * H * W), expect_rows(&t, c->lse, spare * H), NULL,
              NULL, NULL, NULL);
    trial_run(&t, forward, c);

    trial_begin(&t, type, "attention backward %zu x %zu of at most %zu, %zu/%zu heads of %zu, memory %zu%s%s, wanted %u", c->s.sentences,
                c->s.longest, longest, H, Hk, W, shape->memory, causal ? ", causal" : "", add ? ", add" : "", wanted);
    c->qkv = trial_normal(&t, T, rows * row, 0, 1);
    c->dout = trial_normal(&t, T, rows * H * W, 0, 1);
    c->offsets = trial_integers(&t, c->s.offsets, c->s.sentences + 1);
    if (shape->memory) c->memory = trial_normal(&t, T, latents, 0, 1);
    c->out = trial_normal(&t, T, rows * H * W, 0, 0);
    c->lse = trial_normal(&t, ARRAY_F32, rows * H, 0, 0);
    c->scratch = trial_scratch(&t, ARRAY_F32, attention_scratch_floats(&c->shape));
    if (wanted & 1) c->dqkv = trial_sum(&t, T, rows * row, c->add[0] || spare);
    if (shape->memory && wanted & 2) c->dmemory = trial_sum(&t, T, latents, c->add[1]);
    memory = shape->memory ? trial_value(&t, c->memory) : NULL;
    double *dqkv = c->dqkv < 0 ? NULL : expect_rows(&t, c->dqkv, spare * row);
    double *dmemory = c->dmemory < 0 ? NULL : trial_expect(&t, c->dmemory);
    reference(c, trial_value(&t, c->qkv), memory, out, lse, NULL, NULL, NULL, NULL);
    put_values(&t, c->out, out);
    put_values(&t, c->lse, lse);
    reference(c, trial_value(&t, c->qkv), memory, NULL, NULL, trial_value(&t, c->dout), trial_value(&t, c->out), dqkv, dmemory);
    trial_run(&t, backward, c);
    free(out);
    free(lse);
}

/* Sentences, longest, query heads per head of keys, heads of keys, width, 1 + latent keys. */
static const size_t given[][6] = {
    {1, 1, 1, 1, 8, 1},   {3, 5, 2, 1, 16, 2},  {5, 17, 2, 2, 12, 3}, {4, 40, 1, 2, 33, 1},
    {2, 70, 3, 1, 64, 2}, {6, 33, 1, 1, 48, 4}, {1, 20, 1, 2, 200, 2},
};
static const struct sweep shapes = SWEEP(given, 40000, 9, 129, 7, 2, 129, 9);

static struct shape shape_of(size_t i)
{
    size_t n[6];
    sweep_shape(n, &shapes, i);
    return (struct shape){.sentences = n[0], .longest = n[1], .heads = n[2] * n[3], .kv_heads = n[3], .width = n[4], .memory = n[5] - 1};
}

static void packed(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++)
            for (int causal = 0; causal < 2; causal++) {
                struct context c;
                struct shape shape = shape_of(i);
                trial_sentences(&c.s, shape.sentences, shape.longest, shape.longest * 7 + shape.width);
                try_sentences(&c, (enum kernel_type)type, &shape, c.s.longest, causal, (i + (size_t)causal) % 2,
                              shape.memory && i % 3 == 2 ? 2u + (unsigned)causal : 3u, 0);
            }
}

/* Tensor cores: lengths around the edges of their steps, by the launch for short sentences and by that for long ones. */
static void tensor_cores(void **state)
{
    static const struct {
        size_t heads, kv_heads, width, memory, lengths[8];
    } cases[] = {
        {2, 2, 16, 0, {1, 15, 16, 17, 0, 31, 33}},
        {4, 2, 16, 17, {3, 0, 47, 48, 49, 16}},
        {1, 1, 32, 1, {15, 16, 17, 63, 64, 65}},
        {6, 1, 32, 2, {7, 32, 0, 33}},
        {1, 1, 32, 0, {255, 1, 256, 2}},
        {2, 1, 48, 1, {14, 15, 16, 46, 47, 48}},
        {1, 1, 48, 17, {127, 0, 129}},
        {1, 1, 64, 1, {127, 128, 129}},
        {4, 2, 64, 2, {30, 31, 62, 1, 63}},
        {1, 1, 64, 1, {254, 255}},
        {1, 1, 64, 0, {255, 256, 257}},
        {1, 1, 64, 17, {300, 5}},
        {6, 1, 64, 0, {17, 2, 0, 20}},
        {1, 1, 128, 1, {111, 112, 113}},
        {1, 1, 128, 0, {127, 128, 129}},
        {4, 2, 128, 17, {1, 15, 0, 16}},
        {2, 1, 80, 1, {33, 64, 65}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int causal = 0; causal < 2; causal++)
            for (int many = 0; many < 2; many++) {
                struct shape shape = {.heads = cases[i].heads, .kv_heads = cases[i].kv_heads, .width = cases[i].width, .memory = cases[i].memory};
                struct context c = {.s.sentences = sizeof cases->lengths / sizeof *cases->lengths};
                for (size_t s = 0; s < c.s.sentences; s++) {
                    for (size_t p = 0; p < cases[i].lengths[s]; p++) c.s.sentence[c.s.tokens++] = (int32_t)s;
                    c.s.offsets[s + 1] = (int32_t)c.s.tokens;
                    if (cases[i].lengths[s] > c.s.longest) c.s.longest = cases[i].lengths[s];
                }
                try_sentences(&c, KERNEL_BF16, &shape, many ? 600 : c.s.longest + i % 3 * 20, causal, (i + (size_t)causal) % 2,
                              i % 4 == 1 ? 2u - (unsigned)causal : 3u, many && causal ? 5 : 0);
            }
    assert_int_equal(device_bank_conflicts(), 0);
}

/* One row per sentence with a cache: the last row of that sentence, computed packed. */
static void try_cached(enum kernel_type type, const struct shape *shape, size_t room)
{
    struct trial t;
    struct context c = {.room = room, .memory = -1};
    size_t R = shape->sentences, H = shape->heads, Hk = shape->kv_heads, W = shape->width, row = (H + 2 * Hk) * W, kvw = Hk * W;
    int32_t *position = calloc(R, sizeof *position);
    for (size_t r = 0; r < R; r++) position[r] = (int32_t)(r == 0 ? room - 1 : r * 3 % room);
    trial_begin(&t, type, "cached attention, %zu rows of %zu, %zu/%zu heads of %zu, memory %zu", R, room, H, Hk, W, shape->memory);
    enum array_type T = trial_t(&t);
    c.shape = (struct kernel_attention){.sentences = R, .tokens = R, .longest = 1, .heads = H, .kv_heads = Hk,
                                        .head_width = W, .memory = shape->memory, .causal = true};
    c.qkv = trial_normal(&t, T, R * row, 0, 1);
    c.cache = trial_normal(&t, T, R * room * 2 * kvw, 0, 1);
    c.position = trial_integers(&t, position, R);
    if (shape->memory) c.memory = trial_normal(&t, T, R * shape->memory * 2 * kvw, 0, 1);
    c.out = trial_output(&t, T, R * H * W);
    double *out = trial_expect(&t, c.out), *cache = trial_expect_new(&t, c.cache);
    for (size_t r = 0; r < R; r++) {
        struct context one = {.shape = c.shape};
        size_t length = (size_t)position[r] + 1;
        double *qkv = calloc(length * row, sizeof *qkv), *all = calloc(length * H * W, sizeof *all);
        memcpy(cache + r * room * 2 * kvw, trial_value(&t, c.cache) + r * room * 2 * kvw, room * 2 * kvw * sizeof *cache);
        memcpy(cache + (r * room + length - 1) * 2 * kvw, trial_value(&t, c.qkv) + r * row + H * W, 2 * kvw * sizeof *cache);
        for (size_t j = 0; j < length; j++)
            memcpy(qkv + j * row + H * W, cache + (r * room + j) * 2 * kvw, 2 * kvw * sizeof *qkv);
        memcpy(qkv + (length - 1) * row, trial_value(&t, c.qkv) + r * row, H * W * sizeof *qkv);
        one.s = (struct sentences){.sentences = 1, .tokens = length, .longest = length, .offsets = {0, (int32_t)length}};
        reference(&one, qkv, shape->memory ? trial_value(&t, c.memory) + r * shape->memory * 2 * kvw : NULL, all, NULL, NULL,
                  NULL, NULL, NULL);
        memcpy(out + r * H * W, all + (length - 1) * H * W, H * W * sizeof *out);
        free(qkv);
        free(all);
    }
    free(position);
    trial_run(&t, cached, &c);
}

static void with_a_cache(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++) {
            struct shape shape = shape_of(i);
            try_cached((enum kernel_type)type, &shape, i * 11 % 50 + 1);
        }
}

static void try_rotary(enum kernel_type type, const struct shape *shape, int direction, bool add)
{
    struct trial t;
    struct context c = {.add = {add}, .direction = direction};
    size_t W = (shape->width + 1) / 2 * 2, half = W / 2;
    trial_sentences(&c.s, shape->sentences, shape->longest, shape->width);
    for (size_t n = 0; n < c.s.tokens && direction < 0; n++) c.s.position[n] = (int32_t)(100000 - n * 7919 % 100001);
    c.rotated_heads = shape->heads + shape->kv_heads;
    c.width = (shape->heads + 2 * shape->kv_heads) * W;
    c.shape.head_width = W;
    trial_begin(&t, type, "rotary %zu x %zu, %zu heads of %zu%s", c.s.tokens, c.width, c.rotated_heads, W, add ? ", add" : "");
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
    trial_run(&t, rotary, &c);
}

static void rotated(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++)
            for (int option = 0; option < 2; option++) {
                struct shape shape = shape_of(i);
                try_rotary((enum kernel_type)type, &shape, option ? -1 : 1, option);
            }
}

TRIAL_MAIN(cmocka_unit_test(packed), cmocka_unit_test(tensor_cores), cmocka_unit_test(with_a_cache), cmocka_unit_test(rotated))
