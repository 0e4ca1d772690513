/* Encodes one word by byte pair rules: see bpe_word.h. */
#include "text/bpe_word.h"

#include <stdlib.h>

static elbo_status reserve(struct bpe_word *w, size_t size, elbo_error *error)
{
    if (size <= w->room) return ELBO_OK;
    size_t room = w->room ? w->room : 256;
    while (room < size) room += room / 2;
    free(w->symbol), free(w->next), free(w->before);
    w->room = 0;
    w->symbol = malloc(room * sizeof *w->symbol);
    w->next = malloc(room * sizeof *w->next);
    w->before = malloc(room * sizeof *w->before);
    if (!w->symbol || !w->next || !w->before)
        return elbo_fail(error, ELBO_MEMORY, "no memory for a word of %zu bytes", size);
    ELBO_TRY(merge_queue_reserve(&w->queue, 3 * room, error)); /* one pair per byte and two per merge */
    w->room = room;
    return ELBO_OK;
}

static elbo_status queue(struct bpe_word *w, const struct bpe_rules *rules, uint32_t at, elbo_error *error)
{
    uint32_t rank = bpe_rank(rules, w->symbol[at], w->symbol[w->next[at]]);
    return rank == BPE_NONE ? ELBO_OK : merge_queue_push(&w->queue, rank, at, error);
}

static elbo_status merge_word(struct bpe_word *w, const struct bpe_rules *rules, size_t size, elbo_error *error)
{
    uint32_t *symbol = w->symbol, *next = w->next, *before = w->before, rank, at;
    for (uint32_t i = 0; i + 1 < size; i++) ELBO_TRY(queue(w, rules, i, error));
    while (merge_queue_pop(&w->queue, &rank, &at)) {
        const struct bpe_rule *rule = &rules->rules[rank];
        uint32_t right = next[at];
        if (symbol[at] != rule->left || right == BPE_NONE || symbol[right] != rule->right) continue; /* merged since */
        symbol[at] = rule->result;
        symbol[right] = BPE_NONE;
        next[at] = next[right];
        if (next[at] != BPE_NONE) before[next[at]] = at;
        if (before[at] != BPE_NONE) ELBO_TRY(queue(w, rules, before[at], error));
        if (next[at] != BPE_NONE) ELBO_TRY(queue(w, rules, at, error));
    }
    return ELBO_OK;
}

elbo_status bpe_encode_word(struct bpe_word *w, const struct bpe_rules *rules, struct elbo_ids *ids, const char *word,
                            size_t size, elbo_error *error)
{
    ELBO_TRY(reserve(w, size, error));
    for (size_t i = 0; i < size; i++) {
        w->symbol[i] = (unsigned char)word[i];
        w->next[i] = i + 1 < size ? (uint32_t)i + 1 : BPE_NONE;
        w->before[i] = i ? (uint32_t)i - 1 : BPE_NONE;
    }
    elbo_status status = merge_word(w, rules, size, error);
    if (status != ELBO_OK) {
        merge_queue_clear(&w->queue);
        return status;
    }
    for (uint32_t at = 0; at != BPE_NONE; at = w->next[at]) ELBO_TRY(ids_append(ids, MARKS + w->symbol[at], error));
    return ELBO_OK;
}

void bpe_word_free(struct bpe_word *w)
{
    free(w->symbol), free(w->next), free(w->before);
    merge_queue_free(&w->queue);
    *w = (struct bpe_word){0};
}
