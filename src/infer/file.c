/* Parses a model's file, checks it, and finds its tensors: see file.h. */
#include "infer/file.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = INFER_HEAD, SECTION = INFER_SECTION_BYTES, TENSOR = INFER_TENSOR_BYTES };
enum { MARKS = 3, MOST_SECTIONS = 64, MOST_TENSORS = 1 << 20 };

/* ---- numbers ---- */

static uint64_t u64(const unsigned char *p)
{
    return infer_u32(p) | (uint64_t)infer_u32(p + 4) << 32;
}

uint64_t infer_sum_more(uint64_t sum, const void *bytes, size_t size)
{
    const unsigned char *p = bytes;
    for (size_t at = 0; at < size; at += 8) {
        unsigned char word[8] = {0};
        memcpy(word, p + at, size - at < 8 ? size - at : 8);
        sum = (sum ^ u64(word)) * 0x9e3779b97f4a7c15;
        sum ^= sum >> 32;
    }
    return sum;
}

uint64_t infer_sum(const void *bytes, size_t size)
{
    return infer_sum_more(size, bytes, size);
}

uint64_t infer_head_sum(const unsigned char *head, size_t size)
{
    static const unsigned char nothing[8];
    uint64_t sum = infer_sum_more(size, head, INFER_SUM_AT);
    sum = infer_sum_more(sum, nothing, sizeof nothing);
    return infer_sum_more(sum, head + INFER_REST_AT, size - INFER_REST_AT);
}

/* ---- sections ---- */

struct span {
    const unsigned char *bytes; /* null: the file lacks the section */
    size_t size;
};

static elbo_status broken(const char *what, elbo_error *error)
{
    return elbo_fail(error, ELBO_INPUT, "%s; the file is damaged, or is no model of elbo", what);
}

static elbo_status check_head(struct infer_file *f, elbo_error *error)
{
    if (f->size < HEAD || memcmp(f->bytes, "elbo-inf", 8)) return broken("it does not begin with elbo-inf", error);
    uint32_t version = infer_u32(f->bytes + 8);
    if (version != INFER_VERSION)
        return elbo_fail(error, ELBO_INPUT, "it is of version %u, and this program reads version %d; export it anew",
                         version, INFER_VERSION);
    if (u64(f->bytes + 16) != f->size)
        return elbo_fail(error, ELBO_INPUT, "it has %zu bytes and should have %llu; it is cut, or damaged", f->size,
                         (unsigned long long)u64(f->bytes + 16));
    uint64_t head = u64(f->bytes + 24);
    if (head < HEAD || head > f->size || head % INFER_ALIGNMENT) return broken("its head has no possible size", error);
    f->head = (size_t)head;
    if (infer_head_sum(f->bytes, f->head) != u64(f->bytes + INFER_SUM_AT))
        return broken("its head has another checksum than it says", error);
    return ELBO_OK;
}

/* Finds the sections by kind; unknown kinds are ignored. */
static elbo_status find_sections(struct span out[INFER_PRIOR + 1], const struct infer_file *f, elbo_error *error)
{
    uint32_t count = infer_u32(f->bytes + 12);
    if (count > MOST_SECTIONS || HEAD + (size_t)count * SECTION > f->head)
        return broken("its sections do not fit into its head", error);
    for (uint32_t i = 0; i < count; i++) {
        const unsigned char *s = f->bytes + HEAD + (size_t)i * SECTION;
        uint32_t kind = infer_u32(s);
        uint64_t at = u64(s + 8), size = u64(s + 16);
        if (at > f->head || size > f->head - at) return broken("a section lies outside of its head", error);
        if (!kind || kind > INFER_PRIOR) continue;
        if (out[kind].bytes) return broken("a section stands there twice", error);
        out[kind] = (struct span){f->bytes + at, (size_t)size};
    }
    return ELBO_OK;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

enum infer_use infer_use_of(const char *name)
{
    static const char *const tables[] = {".embedding.token.weight", ".output.weight"},
                             *const products[] = {".attention.qkv.weight",
                                                  ".attention.output.weight",
                                                  ".feed_forward.input.weight",
                                                  ".feed_forward.output.weight",
                                                  ".hidden.weight",
                                                  ".input.weight"};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        if (ends_with(name, products[i])) return INFER_PRODUCT;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (ends_with(name, tables[i])) return INFER_TABLE;
    return INFER_EXACT;
}

static bool ends_early(const unsigned char *name)
{
    return memchr(name, 0, INFER_NAME);
}

static elbo_status read_tensor(struct infer_tensor *t, const struct infer_file *f, const unsigned char *s,
                               elbo_error *error)
{
    uint32_t type = infer_u32(s + INFER_NAME), rank = infer_u32(s + INFER_NAME + 4);
    uint64_t rows = u64(s + INFER_NAME + 8), columns = u64(s + INFER_NAME + 16), at = u64(s + INFER_NAME + 24);
    if (!ends_early(s) || !*s) return broken("a tensor has no name", error);
    *t = (struct infer_tensor){.name = (const char *)s, .type = (enum block_type)type, .rank = rank};
    if (type >= BLOCK_TYPES || rank < 1 || rank > 2)
        return elbo_fail(error, ELBO_INPUT, "%s has a type or a rank that this version does not know", t->name);
    if (type != BLOCK_F32 && infer_use_of(t->name) == INFER_EXACT)
        return elbo_fail(error, ELBO_INPUT, "%s lies in blocks of %s, and is read in f32 only", t->name,
                         block_infos[type].name);
    if (rank == 1 ? columns != 1 : !columns) return elbo_fail(error, ELBO_INPUT, "%s has no shape", t->name);
    uint64_t last = rank == 1 ? rows : columns;
    if (!rows || rows > UINT32_MAX || columns > UINT32_MAX || last % block_infos[type].values)
        return elbo_fail(error, ELBO_INPUT, "%s has a shape that its type cannot hold", t->name);
    uint64_t bytes = rows * columns / block_infos[type].values * block_infos[type].bytes;
    if (at % INFER_ALIGNMENT || at < f->head || at > f->size || bytes > f->size - at)
        return elbo_fail(error, ELBO_INPUT, "%s lies outside of the file", t->name);
    t->shape[0] = (size_t)rows;
    t->shape[1] = (size_t)columns;
    t->data = f->bytes + at;
    return ELBO_OK;
}

static elbo_status read_tensors(struct infer_file *f, struct span s, elbo_error *error)
{
    size_t count = s.size / TENSOR;
    if (!count || s.size % TENSOR || count > MOST_TENSORS)
        return broken("its list of tensors has no possible size", error);
    f->tensors = calloc(count, sizeof *f->tensors);
    if (!f->tensors) return elbo_fail(error, ELBO_MEMORY, "no memory for a list of %zu tensors", count);
    f->count = count;
    for (size_t i = 0; i < count; i++) {
        ELBO_TRY(read_tensor(&f->tensors[i], f, s.bytes + i * TENSOR, error));
        if (i && strcmp(f->tensors[i - 1].name, f->tensors[i].name) >= 0)
            return elbo_fail(error, ELBO_INPUT, "%s stands twice in the list, or in no order", f->tensors[i].name);
    }
    return ELBO_OK;
}

static elbo_status check_words(const struct infer_words *w, size_t vocabulary, elbo_error *error)
{
    if (vocabulary != MARKS + (size_t)w->count) return broken("its words are not its vocabulary", error);
    size_t offsets = 4 * ((size_t)w->count + 1);
    if (w->bytes < offsets || infer_u32(w->table)) return broken("its list of words does not fit", error);
    for (uint32_t i = 0; i < w->count; i++)
        if (infer_u32(w->table + 4 * (size_t)i) > infer_u32(w->table + 4 * ((size_t)i + 1)))
            return broken("its words lie in no order", error);
    return infer_u32(w->table + 4 * (size_t)w->count) == w->bytes - offsets ? ELBO_OK
                                                                            : broken("its words are cut", error);
}

/* Checks that each merge joins pieces that exist by then: marks, bytes, and results of earlier merges. */
static elbo_status check_merges(const struct infer_words *w, size_t vocabulary, elbo_error *error)
{
    uint32_t known = MARKS + 256;
    if (w->bytes != 12 * (size_t)w->count) return broken("its list of merges does not fit", error);
    for (uint32_t i = 0; i < w->count; i++) {
        const unsigned char *merge = w->table + 12 * (size_t)i;
        uint32_t left = infer_u32(merge), right = infer_u32(merge + 4), whole = infer_u32(merge + 8);
        if (left < MARKS || right < MARKS || whole < MARKS || left >= known || right >= known || whole > known)
            return broken("a merge is of pieces that are not there yet", error);
        known += whole == known;
    }
    return known == vocabulary ? ELBO_OK : broken("its merges do not make its vocabulary", error);
}

static elbo_status read_words(struct infer_file *f, struct span s, elbo_error *error)
{
    enum { FIXED = 24 };
    size_t v = f->config.vocabulary;
    if (s.size < FIXED) return broken("its tokenizer is cut", error);
    struct infer_words *w = &f->words;
    uint32_t kind = infer_u32(s.bytes), split = infer_u32(s.bytes + 4);
    *w = (struct infer_words){.start = infer_u32(s.bytes + 8),
                              .end = infer_u32(s.bytes + 12),
                              .unknown = infer_u32(s.bytes + 16),
                              .count = infer_u32(s.bytes + 20),
                              .table = s.bytes + FIXED,
                              .bytes = s.size - FIXED};
    if (kind > INFER_BYTES || split > INFER_GPT2) return broken("its tokenizer is of an unknown kind", error);
    w->kind = (enum infer_tokenizer)kind;
    w->split = (enum infer_split)split;
    if (w->start >= v || w->end >= v || w->unknown >= v) return broken("a mark is no id of its vocabulary", error);
    if (w->count > v) return broken("its tokenizer has more pieces than its vocabulary", error);
    return kind == INFER_WORDS ? check_words(w, v, error) : kind == INFER_BYTES ? check_merges(w, v, error) : ELBO_OK;
}

static elbo_status read_lists(struct infer_file *f, const struct span s[], elbo_error *error)
{
    f->banned = s[INFER_BANNED].bytes;
    f->banned_count = s[INFER_BANNED].size / 4;
    for (size_t i = 0; i < f->banned_count; i++)
        if (infer_u32(f->banned + 4 * i) >= f->config.vocabulary) return broken("a banned id is none", error);
    f->labels = (const char *)s[INFER_LABELS].bytes;
    size_t names = 0;
    for (size_t i = 0; i < s[INFER_LABELS].size; i++) names += !f->labels[i];
    if (names != f->config.labels || (s[INFER_LABELS].size && f->labels[s[INFER_LABELS].size - 1]))
        return broken("it has not as many labels as it says", error);
    return ELBO_OK;
}

static elbo_status read_prior(struct infer_file *f, struct span s, elbo_error *error)
{
    if (!s.bytes) return ELBO_OK;
    if (s.size < 8) return broken("its prior is cut", error);
    uint64_t z = f->config.latent.width, k = infer_u32(s.bytes), full = infer_u32(s.bytes + 4),
             each = 1 + z + (full ? z * z : z);
    if (!k || k > 65536 || full > 1 || (s.size - 8) / 8 / each != k || (s.size - 8) != k * each * 8)
        return broken("its prior does not fit its z", error);
    f->components = (uint32_t)k;
    f->full = (uint32_t)full;
    f->prior = s.bytes + 8;
    return ELBO_OK;
}

static elbo_status parse(struct infer_file *f, elbo_error *error)
{
    struct span s[INFER_PRIOR + 1] = {{0}};
    ELBO_TRY(check_head(f, error));
    ELBO_TRY(find_sections(s, f, error));
    if (!s[INFER_CONFIG].bytes || !s[INFER_TENSORS].bytes || !s[INFER_TOKENIZER].bytes)
        return broken("it lacks its configuration, its tensors or its tokenizer", error);
    ELBO_TRY(infer_config_read(&f->config, (const char *)s[INFER_CONFIG].bytes, s[INFER_CONFIG].size, error));
    ELBO_TRY(read_tensors(f, s[INFER_TENSORS], error));
    ELBO_TRY(read_words(f, s[INFER_TOKENIZER], error));
    ELBO_TRY(read_lists(f, s, error));
    return read_prior(f, s[INFER_PRIOR], error);
}

elbo_status infer_parse(struct infer_file **out, const void *bytes, size_t size, elbo_error *error)
{
    struct infer_file *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f) return elbo_fail(error, ELBO_MEMORY, "no memory for a model's file");
    f->bytes = bytes;
    f->size = size;
    elbo_status status = parse(f, error);
    if (status)
        infer_close(f);
    else
        *out = f;
    return status;
}

elbo_status infer_open(struct infer_file **out, const char *path, elbo_error *error)
{
    void *bytes;
    size_t size = 0;
    *out = NULL;
    ELBO_TRY(infer_map(&bytes, &size, path, error));
    elbo_status status = infer_parse(out, bytes, size, error);
    if (!status) {
        (*out)->mapped = true;
        return ELBO_OK;
    }
    infer_unmap(bytes, size);
    elbo_fail_in(error, "%s: ", path);
    return status;
}

elbo_status infer_verify(const struct infer_file *f, elbo_error *error)
{
    if (infer_sum(f->bytes + f->head, f->size - f->head) == u64(f->bytes + INFER_REST_AT)) return ELBO_OK;
    return broken("its tensors have another checksum than it says", error);
}

void infer_close(struct infer_file *f)
{
    if (!f) return;
    free(f->tensors);
    if (f->mapped) infer_unmap((void *)f->bytes, f->size);
    free(f);
}

const struct infer_tensor *infer_find(const struct infer_file *f, const char *name)
{
    size_t low = 0, high = f->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(f->tensors[middle].name, name);
        if (!order) return &f->tensors[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
