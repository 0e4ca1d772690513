/* Opens a corpus. The manifest gives the expected bytes, and the header gives the offsets of the sections. One pass
 * over the file checks everything that readers rely on. corpus_content.c reads an open corpus. */
#include "elbo/corpus.h"

#include "base/files.h"
#include "base/json.h"
#include "text/corpus_private.h"
#include "text/tokenizer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { BLOCK = 1 << 18 };

/* ---- the header ---- */

static elbo_status check_header(struct elbo_corpus *corpus, elbo_error *error)
{
    struct corpus_header *header = &corpus->header;
    const char *folder = corpus->folder;
    if (corpus->size < sizeof *header)
        return elbo_fail(error, ELBO_INPUT,
                         "%s/" CORPUS_FILE " is truncated: %zu bytes, and its header alone has %zu; %s", folder,
                         corpus->size, sizeof *header, CORPUS_REMEDY);
    ELBO_TRY(file_read_at(corpus->descriptor, header, sizeof *header, 0, corpus->path, error));
    if (memcmp(header->magic, CORPUS_MAGIC, sizeof header->magic))
        return elbo_fail(error, ELBO_INPUT,
                         "%s/" CORPUS_FILE " is not a corpus (it does not begin with " CORPUS_MAGIC "); %s", folder,
                         CORPUS_REMEDY);
    if (header->version != CORPUS_VERSION)
        return elbo_fail(error, ELBO_INPUT,
                         "%s/" CORPUS_FILE " has version %" PRIu32 " of the format; this program "
                         "reads version %d: %s",
                         folder, header->version, CORPUS_VERSION, CORPUS_REMEDY);
    if (header->streams != 1)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " has %" PRIu32 " streams; this program reads 1: %s",
                         folder, header->streams, CORPUS_REMEDY);
    if (!header->sentences)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " has no sentences; %s", folder, CORPUS_REMEDY);
    const struct corpus_stream_header *stream = &header->stream[0];
    struct corpus_header expected = *header; /* offsets computed again, unused fields zeroed */
    memset(&expected.stream[1], 0, sizeof expected.stream[1]);
    expected.stream[0].reserved = 0;
    if (stream->token_bytes != (stream->vocabulary <= 65536 ? 2 : 4) || stream->vocabulary > UINT32_MAX ||
        !corpus_lay_out(&expected) || memcmp(&expected, header, sizeof expected) || header->file_bytes != corpus->size)
        return elbo_fail(error, ELBO_INPUT,
                         "%s/" CORPUS_FILE " is damaged between byte 0 and byte %zu: its header does "
                         "not fit its %zu bytes; %s",
                         folder, sizeof *header, corpus->size, CORPUS_REMEDY);
    return ELBO_OK;
}

/* ---- the content, block by block ---- */

struct block {
    const unsigned char *data;
    size_t at, size; /* offset in the file; bytes */
};

/* Returns the bytes of `block` that belong to the section of `bytes` bytes at `at`; sets their place in the section and
 * their number. */
static const unsigned char *overlap(size_t *place, size_t *size, const struct block *block, uint64_t at, uint64_t bytes)
{
    size_t from = block->at > at ? block->at : (size_t)at;
    size_t block_end = block->at + block->size, end = (size_t)(at + bytes);
    if (end > block_end) end = block_end;
    *size = end > from ? end - from : 0;
    *place = from - (size_t)at;
    return block->data + (from - block->at);
}

static void copy_column(void *column, const struct block *block, uint64_t at, uint64_t bytes)
{
    size_t place, size;
    const unsigned char *from = overlap(&place, &size, block, at, bytes);
    if (size) memcpy((unsigned char *)column + place, from, size);
}

static uint32_t id_at(const unsigned char *tokens, size_t wide, size_t i)
{
    return wide == 2 ? ((const uint16_t *)(const void *)tokens)[i] : ((const uint32_t *)(const void *)tokens)[i];
}

/* Returns the largest id and adds the number of unknown marks. Each width has its own loop, which the compiler
 * vectorizes. */
static uint32_t survey(uint64_t *unknown, const unsigned char *tokens, size_t wide, size_t count)
{
    uint32_t largest = 0, found = 0; /* fits 32 bits, because a block has fewer than 2^32 tokens */
    for (size_t i = 0; wide == 2 && i < count; i++) {
        uint32_t id = ((const uint16_t *)(const void *)tokens)[i];
        found += id == MARK_UNKNOWN;
        largest = id > largest ? id : largest;
    }
    for (size_t i = 0; wide == 4 && i < count; i++) {
        uint32_t id = ((const uint32_t *)(const void *)tokens)[i];
        found += id == MARK_UNKNOWN;
        largest = id > largest ? id : largest;
    }
    *unknown += found;
    return largest;
}

static void check_tokens(struct elbo_corpus *corpus, const struct block *block)
{
    const struct corpus_stream_header *stream = &corpus->header.stream[0];
    size_t place, size, wide = stream->token_bytes;
    const unsigned char *from = overlap(&place, &size, block, stream->tokens_at, stream->tokens * wide);
    if (survey(&corpus->unknown, from, wide, size / wide) < stream->vocabulary || corpus->first_bad < stream->tokens)
        return;
    for (size_t i = 0; i < size / wide && corpus->first_bad >= stream->tokens; i++) {
        corpus->bad = id_at(from, wide, i);
        if (corpus->bad >= stream->vocabulary) corpus->first_bad = place / wide + i;
    }
}

static void take_block(struct elbo_corpus *corpus, const struct block *block)
{
    const struct corpus_header *h = &corpus->header;
    check_tokens(corpus, block);
    copy_column(corpus->offsets, block, h->stream[0].offsets_at, (h->sentences + 1) * sizeof *corpus->offsets);
    copy_column(corpus->words, block, h->words_at, h->sentences * sizeof *corpus->words);
    copy_column(corpus->bytes, block, h->bytes_at, h->sentences * sizeof *corpus->bytes);
}

/* Reads the whole file and returns its hash; fills the columns of `corpus` unless it is null. */
static elbo_status read_blocks(uint64_t *sum, struct elbo_corpus *corpus, int descriptor, size_t size, const char *path,
                               elbo_error *error)
{
    size_t room = size < BLOCK ? size : BLOCK;
    unsigned char *data = malloc(room);
    XXH3_state_t *state = XXH3_createState();
    elbo_status status = ELBO_OK;
    if (!data || !state)
        status = elbo_fail(error, ELBO_MEMORY, "no memory to read %s", path);
    else
        XXH3_64bits_reset(state);
    for (struct block block = {.data = data}; status == ELBO_OK && block.at < size; block.at += block.size) {
        block.size = size - block.at < room ? size - block.at : room;
        status = file_read_at(descriptor, data, block.size, block.at, path, error);
        if (status != ELBO_OK) break;
        XXH3_64bits_update(state, data, block.size);
        if (corpus) take_block(corpus, &block);
    }
    if (status == ELBO_OK) *sum = XXH3_64bits_digest(state);
    free(data);
    XXH3_freeState(state);
    return status;
}

static elbo_status check_content(const struct elbo_corpus *corpus, elbo_error *error)
{
    const struct corpus_header *header = &corpus->header;
    const struct corpus_stream_header *stream = &header->stream[0];
    const uint64_t *offsets = corpus->offsets;
    uint64_t longest = 0, words = 0, bytes = 0;
    bool good = offsets[0] == 0 && offsets[header->sentences] == stream->tokens;
    for (size_t i = 0; good && i < header->sentences; i++) {
        good = offsets[i] <= offsets[i + 1] && offsets[i + 1] <= stream->tokens;
        if (offsets[i + 1] - offsets[i] > longest) longest = offsets[i + 1] - offsets[i];
        words += corpus->words[i];
        bytes += corpus->bytes[i];
    }
    if (!good || longest != stream->longest || words != header->words || bytes != header->bytes)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " is damaged: its sentences do not fit its tokens; %s",
                         corpus->folder, CORPUS_REMEDY);
    if (stream->vocabulary != elbo_tokenizer_vocabulary(corpus->tokenizer))
        return elbo_fail(
            error, ELBO_INPUT,
            "%s: " CORPUS_FILE " was made with a vocabulary of %" PRIu64 ", and " CORPUS_TOKENIZER " has %zu; %s",
            corpus->folder, stream->vocabulary, elbo_tokenizer_vocabulary(corpus->tokenizer), CORPUS_REMEDY);
    if (corpus->first_bad < stream->tokens)
        return elbo_fail(error, ELBO_INPUT,
                         "%s/" CORPUS_FILE " is damaged: token %" PRIu64 " is %" PRIu64 " and the "
                         "vocabulary has %" PRIu64 "; %s",
                         corpus->folder, corpus->first_bad, corpus->bad, stream->vocabulary, CORPUS_REMEDY);
    if (corpus->unknown != stream->unknown)
        return elbo_fail(error, ELBO_INPUT,
                         "%s/" CORPUS_FILE " is damaged: it holds %" PRIu64 " unknown marks and says %" PRIu64 "; %s",
                         corpus->folder, corpus->unknown, stream->unknown, CORPUS_REMEDY);
    return ELBO_OK;
}

/* ---- labels ---- */

/* Whether entry i is a name: not empty, without TAB and line ends. */
static bool is_class(const json_t *classes, size_t i)
{
    const char *name = json_string_value(json_array_get(classes, i));
    return name && *name && !strpbrk(name, "\t\r\n");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static elbo_status check_classes(bool *good, const json_t *classes, elbo_error *error)
{
    size_t count = json_array_size(classes);
    const char **names = malloc((count + 1) * sizeof *names);
    if (!names) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu classes", count);
    for (size_t i = 0; *good && i < count; i++) {
        *good = is_class(classes, i);
        names[i] = json_string_value(json_array_get(classes, i));
    }
    if (*good) qsort(names, count, sizeof *names, by_name);
    for (size_t i = 1; *good && i < count; i++) *good = strcmp(names[i - 1], names[i]) != 0;
    free(names);
    return ELBO_OK;
}

/* Hashes the label column and the class names, which give the column's numbers their meaning. */
static void hash_labels(struct elbo_corpus *corpus, const char *column, size_t size)
{
    uint64_t sum = XXH3_64bits(column, size);
    for (size_t i = 0; i < json_array_size(corpus->classes); i++) {
        const char *name = elbo_corpus_class(corpus, i);
        sum = XXH3_64bits_withSeed(name, strlen(name) + 1, sum);
    }
    snprintf(corpus->labels_hash, sizeof corpus->labels_hash, "%016" PRIx64, sum);
}

/* Reads the optional label column: u32 (sentences), each below the number of classes. */
static elbo_status read_labels(struct elbo_corpus *corpus, const json_t *manifest, elbo_error *error)
{
    json_t *labels = json_object_get(manifest, "labels"), *classes = json_object_get(labels, "classes");
    const char *name = json_string_value(json_object_get(labels, "file"));
    if (!labels) return ELBO_OK;
    size_t count = json_array_size(classes), size;
    bool good = name && *name && !strchr(name, '/') && count;
    if (good) ELBO_TRY(check_classes(&good, classes, error));
    if (!good)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_MANIFEST " describes labels without a file and classes; %s",
                         corpus->folder, CORPUS_REMEDY);
    char *data;
    ELBO_TRY(corpus_read_file(&data, &size, NULL, manifest, corpus->folder, name, error));
    corpus->labels = (uint32_t *)(void *)data;
    corpus->classes = json_incref(classes);
    good = size == corpus->header.sentences * sizeof(uint32_t);
    for (size_t i = 0; good && i < corpus->header.sentences; i++) good = corpus->labels[i] < count;
    if (good) hash_labels(corpus, data, size);
    if (good) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT,
                     "%s/%s is damaged: it is not one of %zu classes for each of the %" PRIu64 " sentences; "
                     "%s",
                     corpus->folder, name, count, corpus->header.sentences, CORPUS_REMEDY);
}

/* ---- opening ---- */

static int64_t modified_at(const struct stat *about)
{
    return (int64_t)about->st_mtim.tv_sec * 1000000000 + about->st_mtim.tv_nsec;
}

static elbo_status allocate(struct elbo_corpus *corpus, elbo_error *error)
{
    size_t sentences = corpus->header.sentences; /* bounded by the file's size, because the header was checked */
    corpus->first_bad = UINT64_MAX;
    corpus->offsets = malloc((sentences + 1) * sizeof *corpus->offsets);
    corpus->words = malloc(sentences * sizeof *corpus->words);
    corpus->bytes = malloc(sentences * sizeof *corpus->bytes);
    if (corpus->offsets && corpus->words && corpus->bytes) return ELBO_OK;
    return elbo_fail(error, ELBO_MEMORY, "no memory for the %zu sentences of %s", sentences, corpus->folder);
}

static elbo_status open_binary(struct elbo_corpus *corpus, const json_t *manifest, elbo_error *error)
{
    struct stat about;
    uint64_t sum = 0;
    ELBO_TRY(file_join(corpus->path, corpus->folder, CORPUS_FILE, error));
    ELBO_TRY(file_open_regular(&corpus->descriptor, &corpus->size, corpus->path, error));
    corpus->modified = fstat(corpus->descriptor, &about) ? 0 : modified_at(&about);
    ELBO_TRY(check_header(corpus, error)); /* first, because its messages say more than a wrong hash */
    ELBO_TRY(corpus_check_size(manifest, corpus->folder, CORPUS_FILE, corpus->size, error));
    ELBO_TRY(allocate(corpus, error));
    ELBO_TRY(read_blocks(&sum, corpus, corpus->descriptor, corpus->size, corpus->path, error));
    corpus->sum = sum;
    snprintf(corpus->hash, sizeof corpus->hash, "%016" PRIx64, sum);
    return corpus_check_sum(manifest, corpus->folder, CORPUS_FILE, sum, corpus->descriptor, corpus->size, error);
}

static elbo_status open_files(struct elbo_corpus *corpus, const json_t *manifest, elbo_error *error)
{
    const json_t *set = json_object_get(manifest, "set");
    char path[FILES_PATH], *text;
    size_t size;
    if (set && (!json_is_string(set) || json_string_length(set) >= sizeof corpus->set))
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_MANIFEST " is damaged: its set is not a hash; %s",
                         corpus->folder, CORPUS_REMEDY);
    if (set) strcpy(corpus->set, json_string_value(set));
    ELBO_TRY(open_binary(corpus, manifest, error));
    ELBO_TRY(file_join(path, corpus->folder, CORPUS_TOKENIZER, error));
    ELBO_TRY(corpus_read_file(&text, &size, corpus->tokenizer_hash, manifest, corpus->folder, CORPUS_TOKENIZER, error));
    elbo_status status = tokenizer_parse(&corpus->tokenizer, text, size, path, error);
    free(text);
    ELBO_TRY(status);
    ELBO_TRY(check_content(corpus, error));
    return read_labels(corpus, manifest, error);
}

static elbo_status open_once(struct elbo_corpus **out, const char *folder, elbo_error *error)
{
    json_t *manifest;
    ELBO_TRY(corpus_manifest_read(&manifest, folder, error));
    struct elbo_corpus *corpus = calloc(1, sizeof *corpus);
    elbo_status status = ELBO_OK;
    if (!corpus) {
        status = elbo_fail(error, ELBO_MEMORY, "no memory to open %s", folder);
    } else {
        corpus->descriptor = -1;
        strcpy(corpus->folder, folder);
        status = open_files(corpus, manifest, error);
    }
    json_decref(manifest);
    if (status == ELBO_OK)
        *out = corpus;
    else
        elbo_corpus_close(corpus);
    return status;
}

elbo_status elbo_corpus_open(struct elbo_corpus **out, const char *folder, elbo_error *error)
{
    if (strlen(folder) >= FILES_PATH) return elbo_fail(error, ELBO_IO, "the corpus' path is too long");
    elbo_status status = ELBO_OK;
    for (int i = 0; i < CORPUS_TRIES; i++) {
        struct corpus_place place = corpus_look(folder);
        status = open_once(out, folder, error);
        if (status == ELBO_OK || !corpus_was_replaced(&place, folder)) break;
    }
    return status;
}

void elbo_corpus_close(struct elbo_corpus *corpus)
{
    if (!corpus) return;
    if (corpus->descriptor >= 0) close(corpus->descriptor);
    free(corpus->offsets);
    free(corpus->words);
    free(corpus->bytes);
    free(corpus->labels);
    json_decref(corpus->classes);
    elbo_tokenizer_close(corpus->tokenizer);
    free(corpus);
}

elbo_status elbo_corpus_unchanged(const struct elbo_corpus *corpus, int64_t *seen, elbo_error *error)
{
    struct stat about;
    uint64_t sum = 0;
    if (fstat(corpus->descriptor, &about)) return file_fail(error, "inspect", corpus->path, errno);
    int64_t modified = modified_at(&about);
    bool same = (size_t)about.st_size == corpus->size;
    if (same && (modified == corpus->modified || modified == *seen)) return ELBO_OK;
    /* The time differs: the hash tells whether the file was only touched or also written. */
    if (same) ELBO_TRY(read_blocks(&sum, NULL, corpus->descriptor, corpus->size, corpus->path, error));
    if (!same || sum != corpus->sum)
        return elbo_fail(error, ELBO_INPUT, "%s changed while it was read; %s", corpus->path, CORPUS_REMEDY);
    *seen = modified;
    return ELBO_OK;
}

/* ---- a split ---- */

static elbo_status open_split(struct elbo_corpus **parts, size_t *count, const struct corpus_split *split,
                              const char *folder, elbo_error *error)
{
    char inside[FILES_PATH];
    for (size_t i = 0; i < split->count; i++) {
        ELBO_TRY(file_join(inside, folder, split->parts[i].name, error));
        ELBO_TRY(elbo_corpus_open(&parts[i], inside, error));
        ++*count;
        if (strcmp(parts[i]->set, split->set) || strcmp(parts[i]->hash, split->parts[i].corpus) ||
            strcmp(parts[i]->tokenizer_hash, split->tokenizer))
            return elbo_fail(error, ELBO_INPUT,
                             "%s is not the part that %s/" CORPUS_MANIFEST " names: it is of another split; %s", inside,
                             folder, CORPUS_REMEDY);
    }
    return ELBO_OK;
}

/* Opens a split that was written before splits had a manifest. */
static elbo_status open_old_split(struct elbo_corpus **parts, size_t *count, const char *folder, elbo_error *error)
{
    char inside[FILES_PATH];
    for (size_t i = 0; i < ELBO_PREPARE_PARTS; i++) {
        ELBO_TRY(file_join(inside, folder, corpus_part_names[i], error));
        if (!file_is_folder(inside)) continue;
        ELBO_TRY(elbo_corpus_open(&parts[*count], inside, error));
        if (strcmp(parts[(*count)++]->tokenizer_hash, parts[0]->tokenizer_hash))
            return elbo_fail(error, ELBO_INPUT, "%s and %s have different tokenizers: they are of different splits; %s",
                             parts[0]->folder, inside, CORPUS_REMEDY);
    }
    return ELBO_OK;
}

static elbo_status open_parts_once(struct elbo_corpus **parts, size_t *count, const char *folder, elbo_error *error)
{
    struct corpus_split split;
    char train[FILES_PATH];
    bool there = false;
    elbo_status status = ELBO_OK;
    *count = 0;
    if (file_is_folder(folder)) status = corpus_split_read(&split, &there, folder, error);
    if (status == ELBO_OK) status = file_join(train, folder, corpus_part_names[0], error);
    ELBO_TRY(status);
    if (there)
        status = open_split(parts, count, &split, folder, error);
    else if (!corpus_is_there(folder) && corpus_is_there(train))
        status = open_old_split(parts, count, folder, error);
    else if ((status = elbo_corpus_open(&parts[0], folder, error)) == ELBO_OK)
        *count = 1;
    if (status == ELBO_OK) return ELBO_OK;
    while (*count) elbo_corpus_close(parts[--*count]);
    return status;
}

elbo_status elbo_corpus_open_parts(struct elbo_corpus *parts[ELBO_PREPARE_PARTS], size_t *count, const char *folder,
                                   elbo_error *error)
{
    elbo_status status = ELBO_OK;
    for (int i = 0; i < CORPUS_TRIES; i++) {
        struct corpus_place place = corpus_look(folder);
        status = open_parts_once(parts, count, folder, error);
        if (status == ELBO_OK || !corpus_was_replaced(&place, folder)) break;
    }
    return status;
}
