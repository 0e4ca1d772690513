/* Beam search against brute force, on a vocabulary of six tokens and sentences of at most four. A beam that holds every
 * beginning finds the best of all sentences, by log-probabilities that the whole model scores. Narrower beams find what
 * a naive search of the same width finds. A sentence's result does not depend on other sentences. */
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/backends.h"
#include "model/generate.h"
#include "model/stack.h"

enum { V = 6, LONGEST = 4, Z = 3, ROWS = 5, MOST = 4096 };
enum { START, END, UNKNOWN }; /* the marks */

struct fixture {
    struct model model;
    float z[ROWS * Z];
};

static struct elbo_marks marks(void)
{
    return (struct elbo_marks){.start = START, .end = END, .unknown = UNKNOWN};
}

/* With a latent, the seed chooses how z enters the decoder. */
static void make(struct fixture *f, uint64_t seed, bool latent, size_t threads)
{
    elbo_error error = {0};
    struct backend *backend;
    static const unsigned ways[] = {INJECT_BOTH, INJECT_EMBEDDING | INJECT_PREFIX, INJECT_PREFIX, INJECT_RESIDUAL};
    struct stack_config stack = {.width = 8, .layers = 2, .heads = 2};
    struct model_config c = {.encoder = stack,
                             .decoder = stack,
                             .latent = {.kind = latent ? LATENT_NORMAL : LATENT_NONE,
                                        .width = Z,
                                        .injection = ways[seed % 4],
                                        .prefix = 3,
                                        .memory = 1,
                                        .sample = true},
                             .share_embedding = true,
                             .tie_output = false,
                             .vocabulary = V,
                             .positions = LONGEST + 2};
    assert_int_equal(cpu_backend_create(&backend, threads, NULL, &error), ELBO_OK);
    if (model_create(&f->model, &c, backend, &error)) fail_msg("%s", error.message);
    assert_int_equal(model_initialize(&f->model, seed, &error), ELBO_OK);
    /* Enlarges the weights, because with initial weights all tokens are equally likely. */
    size_t n = parameters_arena_elements(f->model.parameters);
    for (size_t i = 0; i < n; i++) f->model.weights[i] *= 12;
    for (size_t i = 0; i < ROWS * Z; i++) f->z[i] = sinf((float)(i * 7 + seed));
}

static void drop(struct fixture *f)
{
    struct backend *b = f->model.backend;
    model_free(&f->model);
    b->destroy(b);
}

/* Computes log p of every token after a beginning, from the last row of a step-by-step reading. */
static void continuations(double *log_p, struct fixture *f, const float *z, const uint32_t *tokens, size_t count)
{
    elbo_error error = {0};
    struct recording step = {0}, *list[] = {&step};
    float logits[V];
    size_t front = stack_prefix(&f->model.config), room = front + LONGEST + 1;
    assert_int_equal(record_step(&step, &f->model.config, f->model.parameters, 1, room, false, &error), ELBO_OK);
    assert_int_equal(model_bind(&f->model, list, 1, NULL, &error), ELBO_OK);
    for (size_t at = 0; at <= front + count; at++) {
        int32_t id = at > front ? (int32_t)tokens[at - front - 1] : START, position = (int32_t)at;
        struct execution run = {.count = {[DIM_DRAWS] = 1}};
        recording_bind_input(&step, "ids", &id);
        recording_bind_input(&step, "position", &position);
        recording_bind_input(&step, "z", z);
        assert_int_equal(executor_run(&step.executor, &run, &error), ELBO_OK);
        recording_read(&step, step.logits, logits, run.count);
    }
    double sum = 0;
    for (size_t v = 0; v < V; v++) sum += exp((double)logits[v]);
    for (size_t v = 0; v < V; v++) log_p[v] = (double)logits[v] - log(sum);
    recording_free(&step, f->model.backend);
}

struct beginning {
    double log_p;
    size_t count;
    uint32_t tokens[LONGEST + 1];
};

static int likelier(const void *x, const void *y)
{
    const struct beginning *a = x, *b = y;
    if (a->log_p > b->log_p || a->log_p < b->log_p) return a->log_p > b->log_p ? -1 : 1;
    return memcmp(a->tokens, b->tokens, sizeof a->tokens);
}

/* Returns the best sentence of a naive search of this width: sorts all continuations of all kept beginnings. */
static struct beginning search(struct fixture *f, const float *z, size_t beam, double penalty, bool unknown)
{
    struct beginning best = {.log_p = -INFINITY}, *now = calloc(MOST, sizeof *now),
                     *next = calloc(MOST * V, sizeof *next);
    double best_score = -INFINITY;
    size_t count = 1;
    now[0] = (struct beginning){0};
    for (size_t at = 0; at <= LONGEST; at++) {
        size_t found = 0;
        for (size_t i = 0; i < count; i++) {
            double log_p[V];
            continuations(log_p, f, z, now[i].tokens, at);
            double score = (now[i].log_p + log_p[END]) / pow((double)(at + 1), penalty);
            if (score > best_score) {
                best_score = score;
                best = now[i];
            }
            for (uint32_t v = 0; v < V; v++) {
                if (v == START || v == END || (v == UNKNOWN && !unknown)) continue;
                next[found] = now[i];
                next[found].log_p += log_p[v];
                next[found].tokens[at] = v;
                next[found++].count = at + 1;
            }
        }
        qsort(next, found, sizeof *next, likelier);
        count = found < beam ? found : beam;
        memcpy(now, next, count * sizeof *now);
    }
    free(now);
    free(next);
    return best;
}

static void same(const struct elbo_ids *got, const struct beginning *wanted, const char *what)
{
    bool equal = got->count == wanted->count;
    for (size_t i = 0; i < got->count && equal; i++) equal = got->ids[i] == wanted->tokens[i];
    if (equal) return;
    char text[256] = "";
    for (size_t i = 0; i < got->count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %u", got->ids[i]);
    strcat(text, ", wanted");
    for (size_t i = 0; i < wanted->count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %u", wanted->tokens[i]);
    fail_msg("%s: found%s", what, text);
}

static void beams(struct elbo_ids *out, struct fixture *f, const float *z, size_t rows, size_t beam, double penalty,
                  bool unknown)
{
    elbo_error error = {0};
    struct elbo_marks m = marks();
    struct generate_options o = {
        .max_length = LONGEST, .beam = beam, .length_penalty = penalty, .allow_unknown = unknown};
    memset(out, 0, rows * sizeof *out);
    if (generate(&f->model, out, z, rows, &o, &m, &error)) fail_msg("%s", error.message);
}

static void as_a_naive_search(void **state)
{
    (void)state;
    static const size_t widths[] = {1, 2, 3, 7, 1024};
    size_t differ = 0, lengths[LONGEST + 1] = {0};
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct fixture f;
        bool latent = seed % 3 != 2, unknown = seed % 2;
        make(&f, seed, latent, 1);
        struct beginning all[ROWS];
        for (size_t w = sizeof widths / sizeof *widths; w-- > 0;)
            for (int p = 0; p < 2; p++) {
                char what[96];
                struct elbo_ids out[ROWS];
                size_t rows = latent ? ROWS : 1;
                double penalty = p ? 0.8 : 0;
                beams(out, &f, latent ? f.z : NULL, rows, widths[w], penalty, unknown);
                for (size_t i = 0; i < rows; i++) {
                    struct beginning wanted = search(&f, f.z + i * Z, widths[w], penalty, unknown);
                    snprintf(what, sizeof what, "seed %u, beam %zu, penalty %g, sentence %zu", (unsigned)seed,
                             widths[w], penalty, i);
                    same(&out[i], &wanted, what);
                    if (!p && widths[w] == 1024)
                        all[i] = wanted;
                    else if (!p)
                        differ +=
                            wanted.log_p < all[i].log_p || memcmp(wanted.tokens, all[i].tokens, sizeof wanted.tokens);
                    lengths[wanted.count]++;
                    elbo_ids_free(&out[i]);
                }
            }
        drop(&f);
    }
    assert_true(differ > 0); /* narrow beams miss the best at times, so the width has an effect */
    assert_true(lengths[0] > 0 && lengths[LONGEST] > 0); /* the empty sentence, and sentences cut at the limit */
}

/* The penalty lets sentences of full length win late, against ends that were found before. */
static void long_sentences_that_win_at_the_end(void **state)
{
    (void)state;
    size_t longest = 0;
    for (uint64_t seed = 10; seed < 50; seed++) {
        struct fixture f;
        struct elbo_ids out[ROWS];
        make(&f, seed, true, 1);
        beams(out, &f, f.z, ROWS, 2, 2.5, true);
        for (size_t i = 0; i < ROWS; i++) {
            char what[64];
            struct beginning wanted = search(&f, f.z + i * Z, 2, 2.5, true);
            snprintf(what, sizeof what, "seed %u, sentence %zu", (unsigned)seed, i);
            same(&out[i], &wanted, what);
            longest += wanted.count == LONGEST;
            elbo_ids_free(&out[i]);
        }
        drop(&f);
    }
    assert_true(longest > 20);
}

static void alone_or_among_others(void **state)
{
    (void)state;
    struct fixture one, many;
    make(&one, 4, true, 1);
    make(&many, 4, true, 3);
    struct elbo_ids together[ROWS], alone[1];
    beams(together, &many, many.z, ROWS, 3, 0, false);
    for (size_t i = 0; i < ROWS; i++) {
        beams(alone, &one, one.z + i * Z, 1, 3, 0, false);
        assert_int_equal(alone->count, together[i].count);
        if (alone->count) assert_memory_equal(alone->ids, together[i].ids, alone->count * sizeof *alone->ids);
        elbo_ids_free(alone);
        elbo_ids_free(&together[i]);
    }
    drop(&one);
    drop(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_a_naive_search), cmocka_unit_test(alone_or_among_others),
                                       cmocka_unit_test(long_sentences_that_win_at_the_end)};
    mallopt(M_PERTURB, 0x5a); /* unwritten memory must not hold small numbers by luck */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
