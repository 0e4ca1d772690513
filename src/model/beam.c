/* Beam search. A sentence has `beam` rows of the decoding step, each a hypothesis with its log-probability. Before a
 * step, `history` of row r gives the cache row that holds each earlier position, so hypotheses change rows without a
 * copy.
 *
 *   score(x) = log p(x) / (tokens + 1)^penalty
 *
 * An upper bound of a hypothesis's score is its log p over the longest length, because log p only falls. */
#include "model/choose.h"
#include "model/stack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 256 };

struct candidate {
    double log_p;
    uint32_t row, token;
};

struct search {
    const struct generate_options *o;
    const struct elbo_marks *marks;
    size_t beam, sentences, room, vocabulary, at; /* room: tokens of a hypothesis and its end; at: position now */
    size_t front, places; /* front: rows of the prefix; places = front + room: positions of the cache */
    float *logits;        /* (rows, V) */
    double *log_p, *best; /* (rows) of the hypotheses, -INFINITY: none; (sentences) best scores */
    bool *done;           /* (sentences) */
    int32_t *ids, *position, *label, *history; /* (rows) each of the first three, (rows, places) */
    int32_t *tokens;                           /* (rows, room) the hypotheses */
    struct candidate *found;                   /* (rows, beam + 1) continuations, the end mark last */
    struct candidate *next;                    /* (beam) of one sentence */
    int32_t *moved;                            /* (beam, room + places): copies of tokens and history */
    elbo_status status;
    elbo_error *error;
};

static bool better(const struct candidate *a, const struct candidate *b)
{
    if (a->log_p > b->log_p || a->log_p < b->log_p) return a->log_p > b->log_p;
    return a->row != b->row ? a->row < b->row : a->token < b->token;
}

/* Inserts `c` into a sorted list of at most `most` candidates. */
static void insert(struct candidate *list, size_t *count, size_t most, struct candidate c)
{
    if (*count == most && !better(&c, &list[most - 1])) return;
    size_t i = *count < most ? (*count)++ : most - 1;
    for (; i > 0 && better(&c, &list[i - 1]); i--) list[i] = list[i - 1];
    list[i] = c;
}

/* Finds the likeliest continuations of one row, and puts its end mark after them. A NaN logit is never taken. */
static void extend(void *argument, size_t row, size_t worker)
{
    (void)worker;
    struct search *s = argument;
    float *logits = s->logits + row * s->vocabulary;
    struct candidate *list = s->found + row * (s->beam + 1);
    size_t count = 0;
    list[s->beam].log_p = -INFINITY;
    if (s->log_p[row] > -INFINITY) {
        double base = s->log_p[row] - choose_log_sum(logits, s->vocabulary);
        float worst = -INFINITY;                           /* of a full list: later tokens must exceed it */
        choose_ban(logits, s->vocabulary, s->o, s->marks); /* banned tokens keep their share of the sum */
        for (size_t v = 0; v < s->vocabulary; v++) {
            struct candidate c = {base + (double)logits[v], (uint32_t)row, (uint32_t)v};
            if (v == s->marks->end)
                list[s->beam] = c;
            else if (logits[v] > worst && c.log_p > -INFINITY)
                insert(list, &count, s->beam, c);
            if (count == s->beam) worst = logits[list[count - 1].token];
        }
    }
    for (; count < s->beam; count++) list[count].log_p = -INFINITY;
}

static double score(const struct search *s, double log_p, size_t tokens)
{
    return log_p / pow((double)(tokens + 1), s->o->length_penalty);
}

/* Advances one sentence: compares the finished hypotheses with the best so far, and makes the likeliest continuations
 * the sentence's rows. */
static void advance(struct search *s, size_t sentence, struct elbo_ids *out)
{
    size_t first = sentence * s->beam, count = 0;
    for (size_t row = first; row < first + s->beam && !s->status; row++) {
        struct candidate *list = s->found + row * (s->beam + 1), *end = &list[s->beam];
        if (end->log_p > -INFINITY && score(s, end->log_p, s->at) > s->best[sentence]) {
            s->best[sentence] = score(s, end->log_p, s->at);
            out->count = 0;
            for (size_t j = 0; j < s->at && !s->status; j++)
                s->status = generate_append(out, (uint32_t)s->tokens[row * s->room + j], s->error);
        }
        for (size_t k = 0; k < s->beam && list[k].log_p > -INFINITY; k++) insert(s->next, &count, s->beam, list[k]);
    }
    bool last = s->at + 1 == s->room;
    if (last || !count || score(s, s->next[0].log_p, s->room - 1) <= s->best[sentence]) {
        s->done[sentence] = true;
        for (size_t row = first; row < first + s->beam; row++) s->log_p[row] = -INFINITY;
        return;
    }
    int32_t *tokens = s->moved, *history = s->moved + s->beam * s->room;
    memcpy(tokens, s->tokens + first * s->room, s->beam * s->room * sizeof *tokens);
    memcpy(history, s->history + first * s->places, s->beam * s->places * sizeof *history);
    for (size_t k = 0; k < s->beam; k++) {
        size_t row = first + k, from = k < count ? s->next[k].row - first : k;
        s->log_p[row] = k < count ? s->next[k].log_p : -INFINITY;
        if (k >= count) continue;
        memcpy(s->tokens + row * s->room, tokens + from * s->room, s->at * sizeof *tokens);
        memcpy(s->history + row * s->places, history + from * s->places, (s->front + s->at) * sizeof *history);
        s->tokens[row * s->room + s->at] = s->ids[row] = (int32_t)s->next[k].token;
        s->history[row * s->places + s->front + s->at] = (int32_t)(first + from);
    }
}

static elbo_status run(struct search *s, struct model *m, struct recording *step, struct elbo_ids *out,
                       elbo_error *error)
{
    size_t rows = s->sentences * s->beam, open = s->sentences;
    for (size_t row = 0; row < rows; row++) {
        s->log_p[row] = row % s->beam ? -INFINITY : 0; /* one empty hypothesis per sentence */
        s->ids[row] = (int32_t)s->marks->start;
        for (size_t j = 0; j < s->places; j++) s->history[row * s->places + j] = (int32_t)row;
    }
    for (size_t i = 0; i < s->sentences; i++) {
        s->best[i] = -INFINITY;
        s->done[i] = false;
    }
    ELBO_TRY(generate_prefix(m, step, s->position, rows, error));
    for (s->at = 0; s->at < s->room && open; s->at++) {
        struct execution e = {.count = {[DIM_DRAWS] = rows}};
        for (size_t row = 0; row < rows; row++) s->position[row] = (int32_t)(s->front + s->at);
        ELBO_TRY(executor_run(&step->executor, &e, error));
        recording_read(step, step->logits, s->logits, e.count);
        backend_host_run(m->backend, rows, extend, s);
        for (size_t i = 0; i < s->sentences; i++) {
            if (s->done[i]) continue;
            advance(s, i, &out[i]);
            ELBO_TRY(s->status);
            if (s->done[i]) open--;
        }
    }
    return ELBO_OK;
}

static void search_free(struct search *s)
{
    void *all[] = {s->label,    s->logits,  s->log_p,  s->best,  s->done, s->ids,
                   s->position, s->history, s->tokens, s->found, s->next, s->moved};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static elbo_status search_allocate(struct search *s, size_t sentences, elbo_error *error)
{
    size_t rows = sentences * s->beam;
    s->logits = malloc(rows * s->vocabulary * sizeof *s->logits);
    s->log_p = malloc(rows * sizeof *s->log_p);
    s->best = malloc(sentences * sizeof *s->best);
    s->done = malloc(sentences * sizeof *s->done);
    s->ids = calloc(rows, sizeof *s->ids);
    s->position = calloc(rows, sizeof *s->position);
    s->label = calloc(rows, sizeof *s->label);
    s->history = calloc(rows * s->places, sizeof *s->history);
    s->tokens = calloc(rows * s->room, sizeof *s->tokens);
    s->found = malloc(rows * (s->beam + 1) * sizeof *s->found);
    s->next = malloc(s->beam * sizeof *s->next);
    s->moved = malloc(s->beam * (s->room + s->places) * sizeof *s->moved);
    if (s->logits && s->log_p && s->best && s->done && s->ids && s->position && s->label && s->history && s->tokens &&
        s->found && s->next && s->moved)
        return ELBO_OK;
    return elbo_fail(error, ELBO_MEMORY,
                     "no memory for a beam search over %zu beginnings of %zu tokens; lower --beam or --max_length",
                     rows, s->room);
}

size_t generate_beam_batch(size_t beam)
{
    return beam < MOST_ROWS ? MOST_ROWS / beam : 1;
}

elbo_status generate_beam(struct model *m, struct elbo_ids *out, const float *z, size_t rows, size_t longest,
                          const struct generate_options *options, const struct elbo_marks *marks, elbo_error *error)
{
    size_t chunk = generate_beam_batch(options->beam), width = m->config.latent.width;
    if (chunk > rows) chunk = rows;
    struct recording step = {0}, *list[] = {&step};
    struct search s = {.o = options,
                       .marks = marks,
                       .beam = options->beam,
                       .room = longest + 1,
                       .front = stack_prefix(&m->config),
                       .vocabulary = m->config.vocabulary,
                       .error = error};
    s.places = s.front + s.room;
    float *repeated = z ? malloc(chunk * s.beam * width * sizeof *repeated) : NULL;
    elbo_status status =
        z && !repeated ? elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", chunk * s.beam) : ELBO_OK;
    if (!status) status = record_step(&step, &m->config, m->parameters, chunk * s.beam, s.places, true, error);
    if (!status) status = model_bind(m, list, 1, NULL, error);
    if (!status) status = search_allocate(&s, chunk, error);
    if (!status) {
        recording_bind_input(&step, "ids", s.ids);
        recording_bind_input(&step, "position", s.position);
        recording_bind_input(&step, "history", s.history);
        for (size_t row = 0; row < chunk * s.beam; row++) s.label[row] = options->label;
        recording_bind_input(&step, "label", s.label);
        if (z) recording_bind_input(&step, "z", repeated);
    }
    for (size_t at = 0; at < rows && !status; at += chunk) {
        s.sentences = rows - at < chunk ? rows - at : chunk;
        for (size_t r = 0; z && r < s.sentences * s.beam; r++)
            memcpy(repeated + r * width, z + (at + r / s.beam) * width, width * sizeof *z);
        status = run(&s, m, &step, out + at, error);
    }
    search_free(&s);
    free(repeated);
    recording_free(&step, m->backend);
    return status;
}
