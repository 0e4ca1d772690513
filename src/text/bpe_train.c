/* Trains byte pair rules: merges the most frequent pair of neighbors, again and again.
 *
 * All distinct words lie in one array of symbols, and each symbol is linked to its neighbors. Every pair keeps its
 * count and a list of its places. A heap holds the pairs by falling count, then by rising piece numbers, so that the
 * order of the text does not matter. A merge touches only the places of its pair, and each place once per merge it
 * takes part in, so the time is O(n log n) even for one endless word. */
#include "text/bpe.h"

#include "base/philox.h"

#include <stdlib.h>
#include <string.h>

struct pair {
    uint64_t key;    /* left << 32 | right */
    int64_t count;   /* occurrences, weighted by the words' counts */
    int64_t queued;  /* count in its live heap entry; 0: no entry */
    uint32_t places; /* first node of its list */
    bool used;
};

struct place {
    uint32_t at, next; /* index of the pair's left symbol; next node */
};

struct entry {
    int64_t count;
    uint64_t key;
};

struct trainer {
    uint32_t *symbol, *next, *before, *word; /* (n) piece (BPE_NONE: merged away), neighbors, word of each symbol */
    struct pair *pairs;
    size_t pair_count, pair_slots;
    struct place *places;
    size_t place_count, place_capacity;
    struct entry *heap;
    size_t heap_count, heap_capacity;
    uint32_t *sorted;
    size_t sorted_capacity;
    const struct strings *words;
};

static elbo_status no_memory(elbo_error *error)
{
    return elbo_fail(error, ELBO_MEMORY,
                     "no memory to train the tokenizer; train it on less text and reuse it with "
                     "--tokenizer.from");
}

/* ---- the heap ---- */

static bool above(struct entry a, struct entry b)
{
    return a.count != b.count ? a.count > b.count : a.key < b.key;
}

static elbo_status heap_push(struct trainer *t, struct entry entry, elbo_error *error)
{
    if (t->heap_count == t->heap_capacity) {
        size_t capacity = t->heap_capacity ? 2 * t->heap_capacity : 4096;
        struct entry *larger = realloc(t->heap, capacity * sizeof *larger);
        if (!larger) return no_memory(error);
        t->heap = larger;
        t->heap_capacity = capacity;
    }
    size_t at = t->heap_count++;
    for (; at && above(entry, t->heap[(at - 1) / 2]); at = (at - 1) / 2) t->heap[at] = t->heap[(at - 1) / 2];
    t->heap[at] = entry;
    return ELBO_OK;
}

static struct entry heap_pop(struct trainer *t)
{
    struct entry top = t->heap[0], last = t->heap[--t->heap_count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < t->heap_count; at = child) {
        if (child + 1 < t->heap_count && above(t->heap[child + 1], t->heap[child])) child++;
        if (!above(t->heap[child], last)) break;
        t->heap[at] = t->heap[child];
    }
    t->heap[at] = last;
    return top;
}

/* ---- the pairs ---- */

static struct pair *probe(struct pair *pairs, size_t slots, uint64_t key)
{
    size_t at = (size_t)mix64(key) & (slots - 1);
    while (pairs[at].used && pairs[at].key != key) at = (at + 1) & (slots - 1);
    return &pairs[at];
}

static elbo_status find_pair(struct trainer *t, struct pair **out, uint64_t key, elbo_error *error)
{
    if (2 * (t->pair_count + 1) > t->pair_slots) {
        size_t slots = t->pair_slots ? 2 * t->pair_slots : 1 << 10;
        struct pair *larger = calloc(slots, sizeof *larger);
        if (!larger) return no_memory(error);
        for (size_t i = 0; i < t->pair_slots; i++)
            if (t->pairs[i].used) *probe(larger, slots, t->pairs[i].key) = t->pairs[i];
        free(t->pairs);
        t->pairs = larger;
        t->pair_slots = slots;
    }
    struct pair *pair = probe(t->pairs, t->pair_slots, key);
    if (!pair->used) {
        *pair = (struct pair){.key = key, .places = BPE_NONE, .used = true};
        t->pair_count++;
    }
    *out = pair;
    return ELBO_OK;
}

static uint64_t key_at(const struct trainer *t, uint32_t at)
{
    return (uint64_t)t->symbol[at] << 32 | t->symbol[t->next[at]];
}

/* Counts the new pair whose left half is symbol `at`, and lists its place. */
static elbo_status pair_appears(struct trainer *t, uint32_t at, elbo_error *error)
{
    struct pair *pair;
    ELBO_TRY(find_pair(t, &pair, key_at(t, at), error));
    if (t->place_count == t->place_capacity) {
        size_t capacity = t->place_capacity ? 2 * t->place_capacity : 1 << 10;
        struct place *larger = capacity >= BPE_NONE ? NULL : realloc(t->places, capacity * sizeof *larger);
        if (!larger) return no_memory(error);
        t->places = larger;
        t->place_capacity = capacity;
    }
    t->places[t->place_count] = (struct place){at, pair->places};
    pair->places = (uint32_t)t->place_count++;
    pair->count += (int64_t)t->words->counts[t->word[at]];
    return ELBO_OK;
}

/* Takes the pair at `at` out of its count. Its place stays in the list, and merge_pair recognizes it as stale. */
static elbo_status pair_vanishes(struct trainer *t, uint32_t at, elbo_error *error)
{
    struct pair *pair;
    ELBO_TRY(find_pair(t, &pair, key_at(t, at), error));
    pair->count -= (int64_t)t->words->counts[t->word[at]];
    return ELBO_OK;
}

static elbo_status queue_pair(struct trainer *t, uint32_t at, elbo_error *error)
{
    struct pair *pair;
    ELBO_TRY(find_pair(t, &pair, key_at(t, at), error));
    if (pair->count <= pair->queued) return ELBO_OK;
    pair->queued = pair->count;
    return heap_push(t, (struct entry){pair->count, pair->key}, error);
}

/* ---- merging ---- */

static int rising(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Writes the places of a pair to t->sorted from left to right, and empties the pair's list. */
static elbo_status take_places(struct trainer *t, struct pair *pair, size_t *count, elbo_error *error)
{
    *count = 0;
    for (uint32_t node = pair->places; node != BPE_NONE; node = t->places[node].next) {
        if (*count == t->sorted_capacity) {
            size_t capacity = t->sorted_capacity ? 2 * t->sorted_capacity : 4096;
            uint32_t *larger = realloc(t->sorted, capacity * sizeof *larger);
            if (!larger) return no_memory(error);
            t->sorted = larger;
            t->sorted_capacity = capacity;
        }
        t->sorted[(*count)++] = t->places[node].at;
    }
    pair->places = BPE_NONE;
    if (*count) qsort(t->sorted, *count, sizeof *t->sorted, rising);
    return ELBO_OK;
}

static elbo_status merge_at(struct trainer *t, uint32_t at, uint32_t result, elbo_error *error)
{
    uint32_t right = t->next[at], before = t->before[at], after = t->next[right];
    if (before != BPE_NONE) ELBO_TRY(pair_vanishes(t, before, error));
    if (after != BPE_NONE) ELBO_TRY(pair_vanishes(t, right, error));
    t->symbol[at] = result;
    t->symbol[right] = BPE_NONE;
    t->next[at] = after;
    if (after != BPE_NONE) t->before[after] = at;
    if (before != BPE_NONE) ELBO_TRY(pair_appears(t, before, error));
    if (after != BPE_NONE) ELBO_TRY(pair_appears(t, at, error));
    return ELBO_OK;
}

static elbo_status merge_pair(struct trainer *t, struct bpe_rules *rules, struct pair *pair, elbo_error *error)
{
    uint64_t key = pair->key;
    uint32_t left = (uint32_t)(key >> 32), right = (uint32_t)key;
    size_t count, done = 0;
    ELBO_TRY(take_places(t, pair, &count, error));
    /* A pair can come back when two rules produce its right half; its rule exists by then. */
    if (bpe_rank(rules, left, right) == BPE_NONE) ELBO_TRY(bpe_add_rule(rules, left, right, error));
    uint32_t result = rules->rules[bpe_rank(rules, left, right)].result;
    for (size_t i = 0; i < count; i++) {
        uint32_t at = t->sorted[i];
        if (t->symbol[at] != left || t->next[at] == BPE_NONE || t->symbol[t->next[at]] != right) continue;
        ELBO_TRY(merge_at(t, at, result, error));
        t->sorted[done++] = at;
    }
    /* Queue the new pairs only now, because their counts are final. */
    for (size_t i = 0; i < done; i++) {
        uint32_t at = t->sorted[i];
        if (t->symbol[at] == BPE_NONE) continue;
        if (t->before[at] != BPE_NONE) ELBO_TRY(queue_pair(t, t->before[at], error));
        if (t->next[at] != BPE_NONE) ELBO_TRY(queue_pair(t, at, error));
    }
    ELBO_TRY(find_pair(t, &pair, key, error));
    pair->count = pair->queued = 0;
    return ELBO_OK;
}

static elbo_status lay_out(struct trainer *t, elbo_error *error)
{
    size_t n = t->words->used;
    if (n >= BPE_NONE / 4)
        return elbo_fail(error, ELBO_INPUT,
                         "%zu bytes of distinct words are too many to train a tokenizer on; train it "
                         "on less text and reuse it with --tokenizer.from",
                         n);
    t->symbol = malloc((n + 1) * sizeof *t->symbol);
    t->next = malloc((n + 1) * sizeof *t->next);
    t->before = malloc((n + 1) * sizeof *t->before);
    t->word = malloc((n + 1) * sizeof *t->word);
    if (!t->symbol || !t->next || !t->before || !t->word) return no_memory(error);
    for (size_t w = 0; w < t->words->count; w++)
        for (size_t i = t->words->start[w]; i < t->words->start[w + 1]; i++) {
            t->symbol[i] = (unsigned char)t->words->bytes[i];
            t->word[i] = (uint32_t)w;
            t->before[i] = i == t->words->start[w] ? BPE_NONE : (uint32_t)i - 1;
            t->next[i] = i + 1 == t->words->start[w + 1] ? BPE_NONE : (uint32_t)i + 1;
        }
    for (size_t i = 0; i < n; i++)
        if (t->next[i] != BPE_NONE) ELBO_TRY(pair_appears(t, (uint32_t)i, error));
    for (size_t i = 0; i < t->pair_slots; i++) {
        struct pair *pair = &t->pairs[i];
        if (!pair->used) continue;
        pair->queued = pair->count;
        ELBO_TRY(heap_push(t, (struct entry){pair->count, pair->key}, error));
    }
    return ELBO_OK;
}

static elbo_status learn(struct trainer *t, struct bpe_rules *rules, size_t pieces, elbo_error *error)
{
    while (rules->pieces.count < pieces && t->heap_count) {
        struct entry top = heap_pop(t);
        struct pair *pair;
        ELBO_TRY(find_pair(t, &pair, top.key, error));
        if (top.count != pair->queued) continue; /* superseded by a later entry */
        if (pair->count < top.count) {           /* its count fell since: queue it again */
            pair->queued = pair->count > 0 ? pair->count : 0;
            if (pair->queued) ELBO_TRY(heap_push(t, (struct entry){pair->count, pair->key}, error));
            continue;
        }
        if (top.count < 2) break; /* a pair seen once says nothing about the next text */
        ELBO_TRY(merge_pair(t, rules, pair, error));
    }
    return ELBO_OK;
}

elbo_status bpe_train(struct bpe_rules *rules, const struct strings *words, size_t pieces, elbo_error *error)
{
    struct trainer t = {.words = words};
    elbo_status status = lay_out(&t, error);
    if (status == ELBO_OK) status = learn(&t, rules, pieces, error);
    free(t.symbol);
    free(t.next);
    free(t.before);
    free(t.word);
    free(t.pairs);
    free(t.places);
    free(t.heap);
    free(t.sorted);
    return status;
}
