/* Generation of sentences by the decoding step, some rows at a time, and encoding of sentences slot by slot. */
#include "model/choose.h"
#include "model/stack.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 64 };

/* ---- choosing tokens ---- */

struct chooser {
    const struct generate_options *o;
    const struct elbo_marks *marks;
    float *logits, *buffer; /* (rows, V); buffer: for a backend whose memory the host cannot read */
    size_t vocabulary, position;
    uint64_t first_row;              /* noise address of the first row */
    struct choose_scratch **scratch; /* (threads) */
    int32_t *chosen;                 /* (rows) */
    const bool *done;                /* (rows) rows whose sentences have ended */
};

static void choose(void *argument, size_t row, size_t worker)
{
    struct chooser *c = argument;
    if (c->done[row]) return;
    c->chosen[row] = (int32_t)choose_token(c->logits + row * c->vocabulary, c->vocabulary, c->o, c->marks,
                                           c->first_row + row, c->position, c->scratch[worker]);
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

elbo_status generate_prefix(struct model *m, struct recording *step, int32_t *position, size_t rows, elbo_error *error)
{
    struct execution run = {.count = {[DIM_DRAWS] = rows}};
    for (size_t at = 0; at < stack_prefix(&m->config); at++) {
        for (size_t i = 0; i < rows; i++) position[i] = (int32_t)at;
        ELBO_TRY(executor_run(&step->executor, &run, error));
    }
    return ELBO_OK;
}

static elbo_status some_rows(struct model *m, struct recording *step, struct chooser *c, struct elbo_ids *out,
                             const float *z, size_t rows, size_t longest, elbo_error *error)
{
    int32_t ids[MOST_ROWS], position[MOST_ROWS], label[MOST_ROWS];
    bool done[MOST_ROWS] = {false};
    size_t open = rows;
    c->done = done;
    for (size_t i = 0; i < rows; i++) {
        ids[i] = (int32_t)c->marks->start;
        label[i] = c->o->label;
    }
    recording_bind_input(step, "label", label);
    recording_bind_input(step, "ids", ids);
    recording_bind_input(step, "position", position);
    if (z) recording_bind_input(step, "z", z);
    elbo_status status = generate_prefix(m, step, position, rows, error);
    for (size_t at = 0; at < longest && open && !status; at++) {
        struct execution run = {.count = {[DIM_DRAWS] = rows}};
        for (size_t i = 0; i < rows; i++) position[i] = (int32_t)(stack_prefix(&m->config) + at);
        status = executor_run(&step->executor, &run, error);
        if (status) break;
        c->logits = recording_reach(step, step->logits, c->buffer, run.count);
        c->position = at;
        backend_host_run(m->backend, rows, choose, c);
        for (size_t i = 0; i < rows && !status; i++) {
            if (done[i]) continue; /* the row goes on with its last token, and its output is ignored */
            ids[i] = c->chosen[i];
            if (ids[i] == (int32_t)c->marks->end)
                done[i] = true, open--;
            else
                status = generate_append(&out[i], (uint32_t)ids[i], error);
        }
    }
    return status;
}

size_t generate_batch(const struct generate_options *o)
{
    return o->beam ? generate_beam_batch(o->beam) : MOST_ROWS;
}

elbo_status generate(struct model *m, struct elbo_ids *out, const float *z, size_t rows,
                     const struct generate_options *options, const struct elbo_marks *marks, elbo_error *error)
{
    size_t longest = m->config.positions - 1, chunk = rows < MOST_ROWS ? rows : MOST_ROWS, v = m->config.vocabulary;
    if (options->max_length && options->max_length < longest) longest = options->max_length;
    if (!rows) return ELBO_OK;
    if (options->beam) return generate_beam(m, out, z, rows, longest, options, marks, error);
    struct recording step = {0}, *list[] = {&step};
    int32_t chosen[MOST_ROWS];
    size_t threads = backend_threads(m->backend);
    struct chooser c = {.o = options, .marks = marks, .vocabulary = v, .chosen = chosen};
    size_t room = stack_prefix(&m->config) + longest;
    ELBO_TRY(record_step(&step, &m->config, m->parameters, chunk, room, false, error));
    elbo_status status = model_bind(m, list, 1, NULL, error);
    if (m->backend->memory.separate) c.buffer = malloc(chunk * v * sizeof *c.buffer);
    c.scratch = calloc(threads, sizeof *c.scratch);
    if (!status && ((m->backend->memory.separate && !c.buffer) || !c.scratch))
        status = elbo_fail(error, ELBO_MEMORY, "no memory for the logits of %zu sentences", chunk);
    for (size_t i = 0; i < threads && !status; i++) status = choose_scratch_make(&c.scratch[i], v, error);
    for (size_t at = 0; at < rows && !status; at += chunk) {
        size_t n = rows - at < chunk ? rows - at : chunk;
        c.first_row = options->first_row + at;
        status = some_rows(m, &step, &c, out + at, z ? z + at * m->config.latent.width : NULL, n, longest, error);
    }
    for (size_t i = 0; i < threads && c.scratch; i++) choose_scratch_free(c.scratch[i]);
    free(c.scratch);
    free(c.buffer);
    recording_free(&step, m->backend);
    return status;
}

/* ---- sentences to posteriors ---- */

elbo_status encode_sentences(struct model *m, float *stats, const struct elbo_ids *sentences, size_t rows,
                             const struct slot_options *slots, const struct elbo_marks *marks, elbo_error *error)
{
    struct slot_options o = *slots;
    o.word_dropout = o.drop = o.blank = o.swap = 0;
    o.prefix = 0; /* only the encoder runs here */
    struct slot slot;
    struct recording encode = {0}, *list[] = {&encode};
    size_t most = slot_sentence_capacity(&o);
    struct graph_capacities capacities = {
        {[DIM_ENC_TOKENS] = o.encoder_tokens, [DIM_SENTENCES] = most, [DIM_DRAWS] = most}};
    ELBO_TRY(slot_allocate(&slot, &o, error));
    elbo_status status = record_encode(&encode, &m->config, m->parameters, &capacities, error);
    if (!status) status = model_bind(m, list, 1, NULL, error);
    const uint32_t **tokens = malloc(most * sizeof *tokens);
    size_t *lengths = malloc(most * sizeof *lengths);
    if (!status && (!tokens || !lengths))
        status = elbo_fail(error, ELBO_MEMORY, "no memory to encode %zu sentences", rows);
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
