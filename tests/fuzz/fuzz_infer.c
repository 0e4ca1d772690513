/* Fuzzes a model's file of few bits. The first byte says whether sizes and checksums are corrected before reading. An
 * accepted file is used whole: every tensor's blocks, words and merges, and the prior's numbers are read. */
#include "fuzz/harness.h"
#include "infer/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put32(unsigned char *to, uint32_t x)
{
    memcpy(to, &x, sizeof x);
}

static void put64(unsigned char *to, uint64_t x)
{
    memcpy(to, &x, sizeof x);
}

static void repair(unsigned char *file, size_t size)
{
    uint64_t head;
    if (size < INFER_HEAD) return;
    put64(file + 16, size);
    memcpy(&head, file + 24, sizeof head);
    if (head < INFER_HEAD || head > size) return;
    put64(file + INFER_REST_AT, infer_sum(file + head, size - (size_t)head));
    put64(file + INFER_SUM_AT, infer_head_sum(file, (size_t)head));
}

static uint32_t word(const unsigned char *p, size_t i)
{
    uint32_t x;
    memcpy(&x, p + 4 * i, sizeof x);
    return x;
}

static void use(const struct infer_file *f)
{
    float values[256];
    double sum = 0;
    for (size_t i = 0; i < f->count; i++) {
        const struct infer_tensor *t = &f->tensors[i];
        const struct block_info *b = &block_infos[t->type];
        size_t blocks = t->shape[0] * t->shape[1] / b->values;
        FUZZ_CHECK(blocks * b->bytes <= f->size && infer_find(f, t->name) == t);
        FUZZ_CHECK(t->type == BLOCK_F32 || infer_use_of(t->name) != INFER_EXACT);
        for (size_t k = 0; k < blocks; k++) {
            block_dequantize(t->type, values, (const unsigned char *)t->data + k * b->bytes, b->values);
            sum += (double)values[0];
        }
    }
    const struct infer_words *w = &f->words;
    FUZZ_CHECK(w->start < f->config.vocabulary && w->end < f->config.vocabulary && w->unknown < f->config.vocabulary);
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->kind == INFER_WORDS) {
            const unsigned char *bytes = w->table + 4 * ((size_t)w->count + 1);
            for (uint32_t at = word(w->table, i); at < word(w->table, i + 1); at++) sum += bytes[at];
        } else if (w->kind == INFER_BYTES) {
            FUZZ_CHECK(word(w->table, 3 * i + 2) < f->config.vocabulary);
        }
    }
    for (size_t i = 0; i < f->banned_count; i++) FUZZ_CHECK(word(f->banned, i) < f->config.vocabulary);
    const char *name = f->labels;
    for (size_t i = 0; i < f->config.labels; i++) name += strlen(name) + 1;
    size_t z = f->config.latent.width, numbers = f->components * (1 + z + (f->full ? z * z : z));
    for (size_t i = 0; i < numbers; i++) {
        double x;
        memcpy(&x, f->prior + 8 * i, sizeof x);
        sum += isfinite(x) ? x : 0;
    }
    volatile double used = sum;
    (void)used;
    FUZZ_PLANTED(f->config.latent.memory == 7 || w->start == 3); /* a digit of the text, or a binary field */
}

int fuzz_one(const unsigned char *data, size_t size)
{
    size_t length = size ? size - 1 : 0;
    unsigned char *file = malloc(length + !length); /* no byte more, so that the sanitizer sees a read past the end */
    struct infer_file *f;
    elbo_error error;
    if (!file) return 1;
    if (length) memcpy(file, data + 1, length);
    if (size && data[0] % 2) repair(file, length);
    elbo_status status = infer_parse(&f, file, length, &error);
    if (!status) {
        use(f);
        if (data[0] % 2) FUZZ_CHECK(infer_verify(f, &error) == ELBO_OK);
        infer_close(f);
    }
    free(file);
    return (int)status;
}

/* ---- seeds ---- */

struct seed {
    unsigned char *at;
    size_t size;
    uint32_t sections;
};

static void section(struct seed *s, uint32_t kind, const void *bytes, size_t size)
{
    unsigned char *entry = s->at + INFER_HEAD + s->sections++ * INFER_SECTION_BYTES;
    put32(entry, kind);
    put32(entry + 4, 0);
    put64(entry + 8, s->size);
    put64(entry + 16, size);
    memcpy(s->at + s->size, bytes, size);
    s->size += (size + 7) / 8 * 8;
}

static void tensor(unsigned char *entry, const char *name, enum block_type type, uint64_t rows, uint64_t columns,
                   uint64_t at)
{
    memset(entry, 0, INFER_TENSOR_BYTES);
    memcpy(entry, name, strlen(name));
    put32(entry + INFER_NAME, type);
    put32(entry + INFER_NAME + 4, columns > 1 ? 2 : 1);
    put64(entry + INFER_NAME + 8, rows);
    put64(entry + INFER_NAME + 16, columns);
    put64(entry + INFER_NAME + 24, at);
}

/* Tokenizers of words, of byte pairs and of ids, each with a prior of deviations or of a triangle. */
size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char text[] = "encoder.width=32\ndecoder.kind=lstm\nlatent.injection=init,concat\nlatent.width=2\n"
                               "latent.memory=3\nlabels=2\npositions=9\nvocabulary=";
    struct seed s = {out + 1, INFER_HEAD + INFER_PRIOR * INFER_SECTION_BYTES, 0};
    unsigned char entries[2 * INFER_TENSOR_BYTES], words[64] = {0}, prior[8 + 8 * 16] = {0};
    char config[sizeof text + 16];
    bool triangle = index / 3;
    if (index > 5 || room < FUZZ_LARGEST) return 0;
    memset(out, 0, FUZZ_LARGEST);
    out[0] = 1;
    int length = snprintf(config, sizeof config, "%s%d\n", text, index % 3 == 1 ? 260 : 5);
    section(&s, INFER_CONFIG, config, (size_t)length);
    put32(words, index % 3 == 0 ? INFER_WORDS : index % 3 == 1 ? INFER_BYTES : INFER_IDS);
    put32(words + 4, index % 3 == 1 ? INFER_GPT2 : INFER_NO_SPLIT);
    put32(words + 12, 1);
    put32(words + 16, 2);
    if (index % 3 == 0) { /* "ab", "c" */
        put32(words + 20, 2);
        put32(words + 28, 2);
        put32(words + 32, 3);
        memcpy(words + 36, "abc", 3);
        section(&s, INFER_TOKENIZER, words, 39);
    } else if (index % 3 == 1) {
        put32(words + 20, 1);
        put32(words + 24, 100);
        put32(words + 28, 101);
        put32(words + 32, 259);
        section(&s, INFER_TOKENIZER, words, 36);
    } else {
        section(&s, INFER_TOKENIZER, words, 24);
    }
    section(&s, INFER_BANNED, (uint32_t[]){3}, 4);
    section(&s, INFER_LABELS, "red\0blue", 9);
    put32(prior, 1);
    put32(prior + 4, triangle);
    section(&s, INFER_PRIOR, prior, 8 + 8 * (1 + 2 + (triangle ? 4u : 2u)));
    size_t head = (s.size + sizeof entries + INFER_ALIGNMENT - 1) / INFER_ALIGNMENT * INFER_ALIGNMENT;
    tensor(entries, "a.bias", BLOCK_F32, 3, 1, head);
    tensor(entries + INFER_TENSOR_BYTES, "b.input.weight", triangle ? BLOCK_Q8_0 : BLOCK_Q4_0, 2, 32, head + 64);
    section(&s, INFER_TENSORS, entries, sizeof entries);
    size_t size = head + 64 + 128;
    memcpy(s.at, "elbo-inf", 8);
    put32(s.at + 8, INFER_VERSION);
    put32(s.at + 12, s.sections);
    put64(s.at + 24, head);
    repair(s.at, size);
    return 1 + size;
}
