/* The list of rules of a byte pair encoding, with a hash from pair to rank: see bpe.h. */
#include "text/bpe.h"

#include "base/philox.h"

#include <stdlib.h>
#include <string.h>

elbo_status bpe_rules_open(struct bpe_rules *rules, elbo_error *error)
{
    *rules = (struct bpe_rules){0};
    for (int byte = 0; byte < 256; byte++) {
        uint32_t number;
        elbo_status status = strings_insert(&rules->pieces, &number, &(char){(char)byte}, 1, error);
        if (status != ELBO_OK) {
            bpe_rules_free(rules);
            return status;
        }
    }
    return ELBO_OK;
}

void bpe_rules_free(struct bpe_rules *rules)
{
    strings_free(&rules->pieces);
    free(rules->rules);
    free(rules->slots);
    *rules = (struct bpe_rules){0};
}

static size_t probe(const struct bpe_rules *rules, uint32_t left, uint32_t right)
{
    size_t mask = rules->slot_count - 1, at = (size_t)mix64((uint64_t)left << 32 | right) & mask;
    for (;; at = (at + 1) & mask) {
        uint32_t rank = rules->slots[at];
        if (!rank || (rules->rules[rank - 1].left == left && rules->rules[rank - 1].right == right)) return at;
    }
}

uint32_t bpe_rank(const struct bpe_rules *rules, uint32_t left, uint32_t right)
{
    if (!rules->count) return BPE_NONE;
    return rules->slots[probe(rules, left, right)] - 1; /* 0 - 1 is BPE_NONE */
}

static elbo_status grow(struct bpe_rules *rules, elbo_error *error)
{
    size_t capacity = rules->capacity ? 2 * rules->capacity : 1024;
    struct bpe_rule *larger = capacity > UINT32_MAX / 2 ? NULL : realloc(rules->rules, capacity * sizeof *larger);
    if (!larger) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu merge rules", capacity);
    rules->rules = larger;
    uint32_t *slots = calloc(2 * capacity, sizeof *slots);
    if (!slots) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu merge rules", capacity);
    free(rules->slots);
    rules->slots = slots;
    rules->slot_count = 2 * capacity;
    rules->capacity = capacity;
    for (size_t i = 0; i < rules->count; i++)
        slots[probe(rules, rules->rules[i].left, rules->rules[i].right)] = (uint32_t)i + 1;
    return ELBO_OK;
}

elbo_status bpe_add_rule(struct bpe_rules *rules, uint32_t left, uint32_t right, elbo_error *error)
{
    if (bpe_rank(rules, left, right) != BPE_NONE)
        return elbo_fail(error, ELBO_INPUT, "is damaged: the merge of pieces %u and %u stands twice", left, right);
    if (rules->count == rules->capacity) ELBO_TRY(grow(rules, error));
    size_t n, m;
    strings_text(&rules->pieces, left, &n);
    strings_text(&rules->pieces, right, &m);
    char *bytes = malloc(n + m);
    if (!bytes) return elbo_fail(error, ELBO_MEMORY, "no memory for a piece of %zu bytes", n + m);
    memcpy(bytes, strings_text(&rules->pieces, left, &n), n);
    memcpy(bytes + n, strings_text(&rules->pieces, right, &m), m);
    uint32_t result;
    elbo_status status = strings_insert(&rules->pieces, &result, bytes, n + m, error);
    free(bytes);
    ELBO_TRY(status);
    rules->slots[probe(rules, left, right)] = (uint32_t)rules->count + 1;
    rules->rules[rules->count++] = (struct bpe_rule){left, right, result};
    return ELBO_OK;
}
