/* Assigns sentences to the parts of a split: see split.h. */
#include "text/split.h"

#include "text/corpus_manifest.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <xxhash.h>

static elbo_status bad_split(const char *split, elbo_error *error)
{
    return elbo_fail(error, ELBO_USAGE,
                     "--split=%.100s is not three percentages that sum to 100; write it like "
                     "95/2.5/2.5",
                     split);
}

elbo_status split_open(struct split *split, const char *text, elbo_error *error)
{
    *split = (struct split){.count = 1, .parts[0] = {"", 1}};
    if (!text || !*text) return ELBO_OK;
    double share[ELBO_PREPARE_PARTS], sum = 0;
    const char *at = text;
    for (int i = 0; i < ELBO_PREPARE_PARTS; i++) {
        char *end;
        if (!((*at >= '0' && *at <= '9') || *at == '.')) return bad_split(text, error);
        share[i] = strtod(at, &end);
        if (!isfinite(share[i]) || share[i] < 0 || *end != (i < ELBO_PREPARE_PARTS - 1 ? '/' : 0))
            return bad_split(text, error);
        sum += share[i];
        at = end + 1;
    }
    if (fabs(sum - 100) > 1e-6 || share[0] == 0) return bad_split(text, error);
    double from = 0;
    split->count = 0;
    for (int i = 0; i < ELBO_PREPARE_PARTS; i++) {
        double to = i == ELBO_PREPARE_PARTS - 1 ? 1 : from + share[i] / 100;
        if (share[i] > 0) {
            split->parts[split->count].name = corpus_part_names[i];
            split->parts[split->count++].to = to;
        }
        from = to;
    }
    /* Rounding must not leave places without a part. */
    split->parts[split->count - 1].to = 1;
    return ELBO_OK;
}

void split_close(struct split *split)
{
    elbo_text_free(&split->words);
    free(split->slots);
    split->slots = NULL;
}

/* Whether the text is already its words joined by single blanks. */
static bool is_plain(const char *text, size_t size)
{
    bool blank = true; /* true, so that a leading blank is found */
    for (size_t i = 0; i < size; i++) {
        bool space = is_space(text[i]);
        if (space && (blank || text[i] != ' ')) return false;
        blank = space;
    }
    return !blank;
}

static elbo_status join_words(struct elbo_text *out, const char *text, size_t size, elbo_error *error)
{
    out->size = 0;
    for (size_t at = 0; at < size;) {
        while (at < size && is_space(text[at])) at++;
        size_t start = at;
        while (at < size && !is_space(text[at])) at++;
        if (at == start) break;
        if (out->size) ELBO_TRY(text_append(out, " ", 1, error));
        ELBO_TRY(text_append(out, text + start, at - start, error));
    }
    return ELBO_OK;
}

elbo_status split_part(struct split *split, size_t *part, const char *text, size_t size, elbo_error *error)
{
    *part = 0;
    if (split->count == 1) return ELBO_OK;
    if (!is_plain(text, size)) {
        ELBO_TRY(join_words(&split->words, text, size, error));
        text = split->words.text;
        size = split->words.size;
    }
    double place = (double)(XXH3_64bits(text, size) >> 11) * 0x1p-53;
    while (*part + 1 < split->count && place >= split->parts[*part].to) ++*part;
    return ELBO_OK;
}

/* ---- ids that several sentences may share ---- */

static uint64_t key_of(const struct elbo_ids *ids)
{
    return XXH3_64bits(ids->ids, ids->count * sizeof *ids->ids) | 3;
}

static size_t probe(const uint64_t *slots, size_t count, uint64_t key)
{
    size_t at = (size_t)(key >> 2) & (count - 1);
    while (slots[at] && (slots[at] | 3) != key) at = (at + 1) & (count - 1);
    return at;
}

elbo_status split_note(struct split *split, size_t part, const struct elbo_ids *ids, elbo_error *error)
{
    if (2 * (split->used + 1) > split->slot_count) {
        size_t count = split->slot_count ? 2 * split->slot_count : 1 << 12;
        uint64_t *larger = calloc(count, sizeof *larger);
        if (!larger)
            return elbo_fail(error, ELBO_MEMORY, "no memory to split %zu sentences with unknown words", split->used);
        for (size_t i = 0; i < split->slot_count; i++)
            if (split->slots[i]) larger[probe(larger, count, split->slots[i] | 3)] = split->slots[i];
        free(split->slots);
        split->slots = larger;
        split->slot_count = count;
    }
    uint64_t key = key_of(ids), mine = (key & ~(uint64_t)3) | (part + 1);
    uint64_t *slot = &split->slots[probe(split->slots, split->slot_count, key)];
    split->used += !*slot;
    if (!*slot || mine < *slot) *slot = mine;
    return ELBO_OK;
}

size_t split_noted(const struct split *split, size_t part, const struct elbo_ids *ids)
{
    if (!split->slot_count) return part;
    uint64_t found = split->slots[probe(split->slots, split->slot_count, key_of(ids))];
    return found ? (size_t)(found & 3) - 1 : part;
}
