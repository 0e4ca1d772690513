#include "model/generate.h"
#include "base/philox.h"
#include "graph/backends.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 32 };

/* ---- choosing a token ---- */

struct chooser {
    const struct generate_options *o;
    const struct text_marks *marks;
    const float *logits;     /* (rows, V)                   */
    size_t vocabulary, first_row, position;
    double *share;           /* (rows, V) scratch           */
    uint32_t *heap;          /* (rows, V) scratch           */
    int32_t *chosen;         /* (rows)                      */
};

/* Restores the heap of token numbers (largest share on top) below place i. */
static void sift(uint32_t *heap, size_t n, size_t i, const double *share)
{
    for (;;) {
        size_t top = i, left = 2 * i + 1;
        for (size_t c = left; c < left + 2 && c < n; c++) {
            double a = share[heap[c]], b = share[heap[top]];
            if (a > b || (a == b && heap[c] < heap[top])) top = c;
        }
        if (top == i) return;
        uint32_t t = heap[i];
        heap[i] = heap[top];
        heap[top] = t;
        i = top;
    }
}

bool generate_may(const struct generate_options *o, const struct text_marks *marks, size_t token)
{
    return token != marks->start && (token != marks->unknown || o->allow_unknown);
}

static void choose(void *argument, size_t row, size_t worker)
{
    (void)worker;
    struct chooser *c = argument;
    size_t v = c->vocabulary;
    const float *logits = c->logits + row * v;
    double *share = c->share + row * v, top = -INFINITY, total = 0;
    uint32_t *heap = c->heap + row * v;
    size_t best = c->marks->end;
    for (size_t i = 0; i < v; i++) {
        share[i] = generate_may(c->o, c->marks, i) ? logits[i] : -INFINITY;
        if (share[i] > top) top = share[i], best = i;
    }
    c->chosen[row] = (int32_t)best;
    if (c->o->greedy || c->o->temperature <= 0 || !isfinite(top)) return;
    for (size_t i = 0; i < v; i++) total += share[i] = exp((share[i] - top) / c->o->temperature);
    for (size_t i = 0; i < v; i++) heap[i] = (uint32_t)i;
    for (size_t i = v / 2; i-- > 0;) sift(heap, v, i, share);
    /* Pop the likeliest until they hold top_p or are top_k; they end up at the back, likeliest last. */
    size_t most = c->o->top_k && c->o->top_k < v ? c->o->top_k : v, kept = 0;
    double held = 0, wanted = c->o->top_p >= 1 ? INFINITY : c->o->top_p * total;
    while (kept < most && (kept == 0 || held < wanted)) {
        uint32_t token = heap[0];
        if (share[token] <= 0) break;
        held += share[token];
        kept++;
        heap[0] = heap[v - kept];
        heap[v - kept] = token;
        sift(heap, v - kept, 0, share);
    }
    struct noise_key key = noise_key(c->o->seed, noise_purpose("generate.token"), 0);
    double left = held * noise_uniform(noise_bits(key, c->first_row + row, 0, c->position));
    for (size_t k = 1; k <= kept; k++) {
        c->chosen[row] = (int32_t)heap[v - k];
        left -= share[heap[v - k]];
        if (left <= 0) break;
    }
}

/* ---- the loop over positions ---- */

elbo_status generate_append(struct elbo_ids *ids, uint32_t id, elbo_error *error)
{
    if (ids->count == ids->capacity) {
        size_t room = ids->capacity ? 2 * ids->capacity : 32;
        uint32_t *grown = realloc(ids->ids, room * sizeof *grown);
        if (!grown) return elbo_fail(error, ELBO_MEMORY, "no memory for a sentence of %zu tokens", room);
        ids->ids = grown;
        ids->capacity = room;
    }
    ids->ids[ids->count++] = id;
    return ELBO_OK;
}

static elbo_status some_rows(struct model *m, struct recording *step, struct chooser *c, struct elbo_ids *out, const float *z,
                             size_t rows, size_t longest, elbo_error *error)
{
    int32_t ids[MOST_ROWS], position[MOST_ROWS];
    bool done[MOST_ROWS] = {false};
    size_t open = rows;
    for (size_t i = 0; i < rows; i++) ids[i] = (int32_t)c->marks->start;
    recording_bind_input(step, "ids", ids);
    recording_bind_input(step, "position", position);
    if (z) recording_bind_input(step, "z", z);
    float *logits = malloc(rows * c->vocabulary * sizeof *logits);
    if (!logits) return elbo_fail(error, ELBO_MEMORY, "no memory for the logits of %zu sentences", rows);
    c->logits = logits;
    elbo_status status = ELBO_OK;
    for (size_t at = 0; at < longest && open && !status; at++) {
        struct execution run = {.count = {[DIM_DRAWS] = rows}};
        for (size_t i = 0; i < rows; i++) position[i] = (int32_t)at;
        status = executor_run(&step->executor, &run, error);
        if (status) break;
        recording_read(step, step->logits, logits, run.count);
        c->position = at;
        backend_host_run(m->backend, rows, choose, c);
        for (size_t i = 0; i < rows && !status; i++) {
            ids[i] = c->chosen[i];
            if (done[i]) continue;
            if (ids[i] == (int32_t)c->marks->end)
                done[i] = true, open--;
            else
                status = generate_append(&out[i], (uint32_t)ids[i], error);
        }
    }
    free(logits);
    return status;
}

elbo_status generate(struct model *m, struct elbo_ids *out, const float *z, size_t rows,
                     const struct generate_options *options, const struct text_marks *marks, elbo_error *error)
{
    size_t longest = m->config.positions - 1, chunk = rows < MOST_ROWS ? rows : MOST_ROWS, v = m->config.vocabulary;
    if (options->max_length && options->max_length < longest) longest = options->max_length;
    if (!rows) return ELBO_OK;
    if (options->beam) return generate_beam(m, out, z, rows, longest, options, marks, error);
    struct recording step = {0}, *list[] = {&step};
    int32_t chosen[MOST_ROWS];
    struct chooser c = {.o = options, .marks = marks, .vocabulary = v, .chosen = chosen};
    ELBO_TRY(record_step(&step, &m->config, m->parameters, chunk, longest, false, error));
    elbo_status status = model_bind(m, list, 1, NULL, error);
    c.share = malloc(chunk * v * sizeof *c.share);
    c.heap = malloc(chunk * v * sizeof *c.heap);
    if (!status && (!c.share || !c.heap)) status = elbo_fail(error, ELBO_MEMORY, "no memory to sample from %zu tokens", v);
    for (size_t at = 0; at < rows && !status; at += chunk) {
        size_t n = rows - at < chunk ? rows - at : chunk;
        c.first_row = at;
        status = some_rows(m, &step, &c, out + at, z ? z + at * m->config.latent.width : NULL, n, longest, error);
    }
    free(c.share);
    free(c.heap);
    recording_free(&step, m->backend);
    return status;
}

/* ---- sentences to posteriors ---- */

elbo_status encode_sentences(struct model *m, float *stats, const struct elbo_ids *sentences, size_t rows,
                             const struct slot_options *slots, const struct text_marks *marks, elbo_error *error)
{
    struct slot_options o = *slots;
    o.word_dropout = 0;
    struct slot slot;
    struct recording encode = {0}, *list[] = {&encode};
    size_t most = slot_sentence_capacity(&o);
    struct graph_capacities capacities = {{[DIM_ENC_TOKENS] = o.encoder_tokens, [DIM_SENTENCES] = most, [DIM_DRAWS] = most}};
    ELBO_TRY(slot_allocate(&slot, &o, error));
    elbo_status status = record_encode(&encode, &m->config, m->parameters, &capacities, error);
    if (!status) status = model_bind(m, list, 1, NULL, error);
    const uint32_t **tokens = malloc(most * sizeof *tokens);
    size_t *lengths = malloc(most * sizeof *lengths);
    if (!status && (!tokens || !lengths)) status = elbo_fail(error, ELBO_MEMORY, "no memory to encode %zu sentences", rows);
    for (size_t at = 0; at < rows && !status;) {
        size_t n = 0, used = 0;
        for (; at + n < rows && n < most; n++) {
            size_t length = sentences[at + n].count;
            if (o.max_length && length > o.max_length && o.too_long != SLOT_REFUSE) length = o.max_length;
            if (n && used + length + 2 > o.encoder_tokens) break;
            used += length + 2;
            tokens[n] = sentences[at + n].ids;
            lengths[n] = length;
        }
        struct execution run = {.seed = 0};
        status = slot_fill(&slot, &o, marks, tokens, lengths, n, at, error);
        if (status) break;
        recording_bind_slot(&encode, &slot, &run);
        status = executor_run(&encode.executor, &run, error);
        if (status) break;
        recording_read(&encode, encode.stats, stats + at * 2 * m->config.latent.width, run.count);
        at += n;
    }
    free(tokens);
    free(lengths);
    recording_free(&encode, m->backend);
    slot_free(&slot);
    return status;
}
