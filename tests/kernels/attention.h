/* Shared by the attention tests: the shapes that they sweep, and a reference of attention within sentences in double,
 * forward and backward. */
#ifndef TESTS_KERNELS_ATTENTION_H
#define TESTS_KERNELS_ATTENTION_H

#include "kernels/trial.h"
#include "kernels/device.h"

#include <cuda_runtime.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct context {
    struct sentences s;
    struct kernel_attention shape;
    size_t first;       /* first sentence of the launch */
    bool add[2], alone; /* alone: try_sentences also launches each sentence alone and demands the same bits */
    size_t room;
    int out, lse, qkv, offsets, memory, history, dqkv, dmemory, scratch, dout, cache, position;
    size_t width, rotated_heads;
    int direction;
    unsigned shifted; /* unaligned arrays of try_sentences, as bits of qkv, memory, out, dout, dqkv, dmemory */
};

/* Returns the offset of key (which 0) or value (which 1) j of a sentence, in memory (*latent) or in qkv. */
static inline size_t kv_at(const struct kernel_attention *a, size_t begin, size_t sentence, size_t kv, size_t j,
                           size_t which, bool *latent)
{
    *latent = j < a->memory;
    if (*latent) return (((sentence * a->memory + j) * 2 + which) * a->kv_heads + kv) * a->head_width;
    return ((begin + j - a->memory) * (a->heads + 2 * a->kv_heads) + a->heads + which * a->kv_heads + kv) *
           a->head_width;
}

/* Computes the forward pass if dout is null, else the gradients. `given` is the output of the forward pass, rounded to
 * its type. */
static inline void reference(const struct context *c, const double *qkv, const double *memory, double *out, double *lse,
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

static inline void put_values(struct trial *t, int array, const double *values)
{
    struct array *a = &t->arrays[array];
    for (size_t i = 0; i < a->count; i++) {
        a->value[i] = trial_round(values[i], a->type);
        if (a->type == ARRAY_F32)
            ((float *)a->initial)[i] = (float)a->value[i];
        else {
            float v = (float)a->value[i];
            memcpy((char *)a->initial + 2 * i, (char *)&v + 2, 2); /* exact: the value is rounded to bf16 */
        }
    }
}

struct shape {
    size_t sentences, longest, heads, kv_heads, width, memory;
};

/* Sentences, longest, query heads per key head, key heads, width, 1 + latent keys. */
static const size_t given[][6] = {
    {1, 1, 1, 1, 8, 1},   {3, 5, 2, 1, 16, 2},   {5, 17, 2, 2, 12, 3}, {4, 40, 1, 2, 33, 1}, {2, 70, 3, 1, 64, 2},
    {6, 33, 1, 1, 48, 4}, {1, 20, 1, 2, 200, 2}, {0, 1, 2, 1, 16, 3},  {0, 1, 1, 1, 8, 1},
};
static const struct sweep shapes = SWEEP(given, 40000, 9, 129, 7, 2, 129, 9);

static inline struct shape shape_of(size_t i)
{
    size_t n[6];
    sweep_shape(n, &shapes, i);
    return (struct shape){
        .sentences = n[0], .longest = n[1], .heads = n[2] * n[3], .kv_heads = n[3], .width = n[4], .memory = n[5] - 1};
}

/* Checks which kernel ran: tensor cores where they apply, the general kernels otherwise. The results alone would not
 * show a wrong choice. */
static inline void check_kernel(const struct trial *t, const struct context *c)
{
    const char *kernel = device_kernel();
    bool fits = t->type == KERNEL_BF16 && c->shape.head_width % 16 == 0 && c->shape.head_width <= 128;
    for (size_t i = 0; i < t->count; i++) fits &= !t->arrays[i].shifted;
    if (kernel && c->s.tokens && fits != (strstr(kernel, "_mma_") != NULL)) fail_msg("%s: by %s", t->name, kernel);
}

/* Returns a copy of an array's present bytes on the device. */
static inline void *bits_of(const struct trial *t, int array, size_t *bytes)
{
    *bytes = array < 0 ? 0 : t->arrays[array].count * (t->arrays[array].type == ARRAY_BF16 ? 2 : 4);
    void *bits = malloc(*bytes + 1);
    assert_int_equal(cudaMemcpy(bits, at(t, array), *bytes, cudaMemcpyDeviceToHost), 0);
    return bits;
}

/* Runs `launch` again for each sentence alone, and compares the outputs' bits. */
static inline int each_alone(const struct trial *t, const struct context *c, const int outputs[2],
                             int (*launch)(const struct trial *, const void *))
{
    void *together[2];
    size_t bytes[2];
    int e = 0;
    for (int k = 0; k < 2; k++) together[k] = bits_of(t, outputs[k], &bytes[k]);
    for (size_t s = 0; s < c->s.sentences && !e; s++) {
        struct context one = *c;
        one.alone = false;
        one.first = s;
        one.shape.sentences = 1;
        one.shape.longest = (size_t)(c->s.offsets[s + 1] - c->s.offsets[s]);
        e = launch(t, &one);
    }
    for (int k = 0; k < 2; k++) {
        void *alone = bits_of(t, outputs[k], &bytes[k]);
        if (!e && memcmp(alone, together[k], bytes[k])) fail_msg("%s: other bits in a batch", t->name);
        free(alone);
        free(together[k]);
    }
    return e;
}

/* Returns the device pointer of an array at the launch's first sentence; a sentence has `each` elements. */
static inline void *from_first(const struct trial *t, const struct context *c, int array, size_t each)
{
    char *all = at(t, array);
    return all ? all + c->first * each * (t->arrays[array].type == ARRAY_BF16 ? 2 : 4) : NULL;
}

static inline size_t latents_of(const struct kernel_attention *a)
{
    return a->memory * 2 * a->kv_heads * a->head_width;
}

static inline int forward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    int e = attention_forward_cuda(
        &(struct attention_forward_args){.out = at(t, c->out),
                                         .lse = at(t, c->lse),
                                         .qkv = at(t, c->qkv),
                                         .offsets = from_first(t, c, c->offsets, 1),
                                         .memory = from_first(t, c, c->memory, latents_of(&c->shape)),
                                         .shape = &c->shape,
                                         .type = t->type},
        NULL);
    check_kernel(t, c);
    return e || !c->alone ? e : each_alone(t, c, (const int[]){c->out, c->lse}, forward);
}

static inline int backward(const struct trial *t, const void *context)
{
    const struct context *c = context;
    size_t latents = latents_of(&c->shape);
    int e = attention_backward_cuda(&(struct attention_backward_args){.dqkv = at(t, c->dqkv),
                                                                      .dmemory = from_first(t, c, c->dmemory, latents),
                                                                      .scratch = at(t, c->scratch),
                                                                      .dout = at(t, c->dout),
                                                                      .qkv = at(t, c->qkv),
                                                                      .offsets = from_first(t, c, c->offsets, 1),
                                                                      .memory = from_first(t, c, c->memory, latents),
                                                                      .out = at(t, c->out),
                                                                      .lse = at(t, c->lse),
                                                                      .shape = &c->shape,
                                                                      .add_dqkv = c->add[0],
                                                                      .add_dmemory = c->add[1],
                                                                      .type = t->type},
                                    NULL);
    check_kernel(t, c);
    return e || !c->alone ? e : each_alone(t, c, (const int[]){c->dqkv, c->dmemory}, backward);
}

/* Makes sentences of the given lengths. */
static inline void sentences_of(struct sentences *s, const size_t *lengths, size_t count)
{
    *s = (struct sentences){.sentences = count};
    for (size_t i = 0; i < s->sentences; i++) {
        for (size_t p = 0; p < lengths[i]; p++) s->sentence[s->tokens++] = (int32_t)i;
        s->offsets[i + 1] = (int32_t)s->tokens;
        if (lengths[i] > s->longest) s->longest = lengths[i];
    }
}

/* Returns the expected values; the `spare` elements past the last sentence must stay unchanged. */
static inline double *expect_rows(struct trial *t, int array, size_t spare)
{
    double *expect = spare ? trial_expect_new(t, array) : trial_expect(t, array);
    size_t count = t->arrays[array].count;
    if (spare) memcpy(expect + count - spare, trial_value(t, array) + count - spare, spare * sizeof *expect);
    return expect;
}

static inline void shift(struct trial *t, unsigned which, const int *arrays, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (which >> i & 1 && arrays[i] >= 0) trial_shift(t, arrays[i]);
}

/* Tries forward and backward of the sentences of `c`, with `spare` rows of capacity past them. */
static inline void try_sentences(struct context *c, enum kernel_type type, const struct shape *shape, size_t longest,
                                 bool causal, bool add, unsigned wanted, size_t spare)
{
    struct trial t;
    size_t H = shape->heads, Hk = shape->kv_heads, W = shape->width, row = (H + 2 * Hk) * W, N = c->s.tokens,
           rows = N + spare;
    size_t latents = c->s.sentences * shape->memory * 2 * Hk * W;
    c->add[0] = add && !spare;
    c->add[1] = !add && !c->alone;
    c->memory = c->dqkv = c->dmemory = -1;
    c->shape = (struct kernel_attention){.sentences = c->s.sentences,
                                         .tokens = rows,
                                         .longest = longest,
                                         .heads = H,
                                         .kv_heads = Hk,
                                         .head_width = W,
                                         .memory = shape->memory,
                                         .causal = causal};
    trial_begin(&t, type, "attention %zu x %zu, %zu/%zu heads of %zu, memory %zu%s", c->s.sentences, c->s.longest, H,
                Hk, W, shape->memory, causal ? ", causal" : "");
    enum array_type T = trial_t(&t);
    c->qkv = trial_normal(&t, T, rows * row, 0, 1);
    c->offsets = trial_integers(&t, c->s.offsets, c->s.sentences + 1);
    if (shape->memory) c->memory = trial_normal(&t, T, latents, 0, 1);
    c->out = trial_sum(&t, T, rows * H * W, spare);
    c->lse = trial_sum(&t, ARRAY_F32, rows * H, spare);
    double *out = calloc(rows * H * W + 1, sizeof *out), *lse = calloc(rows * H + 1, sizeof *lse);
    const double *memory = shape->memory ? trial_value(&t, c->memory) : NULL;
    reference(c, trial_value(&t, c->qkv), memory, expect_rows(&t, c->out, spare * H * W),
              expect_rows(&t, c->lse, spare * H), NULL, NULL, NULL, NULL);
    shift(&t, c->shifted, (const int[]){c->qkv, c->memory, c->out}, 3);
    trial_run(&t, forward, c);

    trial_begin(&t, type,
                "attention backward %zu x %zu of at most %zu, %zu/%zu heads of %zu, memory %zu%s%s, wanted %u",
                c->s.sentences, c->s.longest, longest, H, Hk, W, shape->memory, causal ? ", causal" : "",
                add ? ", add" : "", wanted);
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
    reference(c, trial_value(&t, c->qkv), memory, NULL, NULL, trial_value(&t, c->dout), trial_value(&t, c->out), dqkv,
              dmemory);
    shift(&t, c->shifted, (const int[]){c->qkv, c->memory, c->out, c->dout, c->dqkv, c->dmemory}, 6);
    trial_run(&t, backward, c);
    free(out);
    free(lse);
}

#endif
