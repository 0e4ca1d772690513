/* Unigram and bigram baselines, counted on one corpus and measured on another: see ngram.h. */
#include "text/ngram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Adjacent pairs (v, w) as v * 2^32 + w, sorted, so that counts and types are runs. */
struct counts {
    uint64_t *pairs;
    size_t pair_count;
    size_t *word;           /* (V) count of each token as the predicted one */
    size_t *before, *types; /* (V) count as the previous token; different tokens that follow */
    size_t *first;          /* (V + 1) index of v's first pair */
    size_t vocabulary, total;
};

static int rising(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void counts_free(struct counts *c)
{
    free(c->pairs);
    free(c->word);
    free(c->before);
    free(c->types);
    free(c->first);
}

/* Calls visit(context, previous, next) for each predicted token of the part of the corpus in `scope`, end marks
 * included. */
static elbo_status each_pair(size_t *sentences, const struct elbo_corpus *corpus, const struct ngram_scope *scope,
                             void (*visit)(void *, uint32_t, uint32_t), void *context, elbo_error *error)
{
    enum elbo_stream s = ELBO_STREAM_DECODER;
    const struct elbo_marks *marks = elbo_corpus_marks(corpus, s);
    size_t room = elbo_corpus_longest(corpus, s) + 1;
    uint32_t *ids = malloc(room * sizeof *ids);
    if (!ids) return elbo_fail(error, ELBO_MEMORY, "no memory for a sentence of %zu tokens", room);
    elbo_status status = ELBO_OK;
    *sentences = 0;
    for (size_t i = 0, n; i < elbo_corpus_sentences(corpus) && (!scope->sentences || *sentences < scope->sentences);
         i++) {
        bool longer = scope->max_length && elbo_corpus_length(corpus, s, i) > scope->max_length;
        if (longer && scope->skip) continue;
        status = elbo_corpus_read(corpus, s, i, ids, longer ? scope->max_length : room, &n, error);
        if (status != ELBO_OK) break;
        ++*sentences;
        uint32_t previous = marks->start;
        for (size_t k = 0; k <= n; k++) {
            uint32_t next = k < n ? ids[k] : marks->end;
            visit(context, previous, next);
            previous = next;
        }
    }
    free(ids);
    return status;
}

static void count_pair(void *context, uint32_t v, uint32_t w)
{
    struct counts *c = context;
    c->pairs[c->pair_count++] = (uint64_t)v << 32 | w;
    c->word[w]++;
    c->before[v]++;
}

struct sums {
    const struct counts *c;
    double unigram, bigram;
};

static size_t pair_count(const struct counts *c, uint32_t v, uint32_t w)
{
    size_t low = c->first[v], high = c->first[v + 1];
    uint64_t key = (uint64_t)v << 32 | w;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->pairs[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    size_t n = 0;
    while (low + n < c->first[v + 1] && c->pairs[low + n] == key) n++;
    return n;
}

static void score_pair(void *context, uint32_t v, uint32_t w)
{
    struct sums *s = context;
    const struct counts *c = s->c;
    double unigram = ((double)c->word[w] + 1) / (double)(c->total + c->vocabulary), bigram = unigram;
    double seen = (double)c->before[v], types = (double)c->types[v];
    if (seen > 0) bigram = ((double)pair_count(c, v, w) + types * unigram) / (seen + types);
    s->unigram -= log(unigram);
    s->bigram -= log(bigram);
}

static elbo_status count_corpus(struct counts *c, const struct elbo_corpus *train, elbo_error *error)
{
    size_t v = c->vocabulary = elbo_corpus_vocabulary(train, ELBO_STREAM_DECODER);
    c->total = elbo_corpus_tokens(train, ELBO_STREAM_DECODER) + elbo_corpus_sentences(train);
    size_t sentences;
    c->pairs = malloc((c->total + 1) * sizeof *c->pairs);
    c->word = calloc(v, sizeof *c->word);
    c->before = calloc(v, sizeof *c->before);
    c->types = calloc(v, sizeof *c->types);
    c->first = calloc(v + 1, sizeof *c->first);
    if (!c->pairs || !c->word || !c->before || !c->types || !c->first)
        return elbo_fail(error, ELBO_MEMORY, "no memory to count %zu pairs of tokens", c->total);
    ELBO_TRY(each_pair(&sentences, train, &(struct ngram_scope){0}, count_pair, c, error));
    qsort(c->pairs, c->pair_count, sizeof *c->pairs, rising);
    for (size_t i = 0; i < c->pair_count; i++)
        if (!i || c->pairs[i] != c->pairs[i - 1]) c->types[c->pairs[i] >> 32]++;
    for (size_t w = 0; w < v; w++) c->first[w + 1] = c->first[w] + c->before[w];
    return ELBO_OK;
}

elbo_status ngram_baseline(struct ngram_baseline *out, const struct elbo_corpus *train, const struct elbo_corpus *test,
                           const struct ngram_scope *scope, elbo_error *error)
{
    if (strcmp(elbo_corpus_tokenizer_hash(train), elbo_corpus_tokenizer_hash(test)))
        return elbo_fail(error, ELBO_INPUT, "%s and %s have different tokenizers", elbo_corpus_folder(train),
                         elbo_corpus_folder(test));
    struct counts c = {0};
    struct sums s = {.c = &c};
    elbo_status status = count_corpus(&c, train, error);
    size_t sentences = 0;
    if (!status) status = each_pair(&sentences, test, scope, score_pair, &s, error);
    counts_free(&c);
    if (!status && !sentences)
        status = elbo_fail(error, ELBO_INPUT, "%s leaves no sentence to measure", elbo_corpus_folder(test));
    double n = (double)sentences;
    *out = (struct ngram_baseline){.unigram = s.unigram / n, .bigram = s.bigram / n};
    return status;
}
