/* Opening a corpus: the manifest says which bytes to expect, the header where they lie, and everything that a reader
 * relies on is checked here once, so that reading a sentence needs no checks. */
#include "elbo/corpus.h"

#include "base/files.h"
#include "base/json.h"
#include "base/sealed.h"
#include "text/corpus_format.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct elbo_corpus {
    struct file_map map;
    struct corpus_header header;
    struct elbo_tokenizer *tokenizer; /* of the one stream */
    char hash[17], tokenizer_hash[17];
    char folder[FILES_PATH];
};

static const size_t largest_json = (size_t)1 << 30;

static const char remedy[] = "prepare the corpus again";

/* ---- the manifest ---- */

static elbo_status read_manifest(json_t **manifest, const char *folder, elbo_error *error)
{
    char path[FILES_PATH], *text;
    size_t size;
    if (!file_is_folder(folder))
        return elbo_fail(error, ELBO_IO, "the corpus %s is not there; make it with `elbo prepare TEXT --out=%s`", folder,
                         folder);
    ELBO_TRY(file_join(path, folder, CORPUS_MANIFEST, error));
    if (!file_is_regular(path)) {
        char part[FILES_PATH];
        ELBO_TRY(file_join(part, folder, "train/" CORPUS_MANIFEST, error));
        if (file_is_regular(part))
            return elbo_fail(error, ELBO_IO, "%s is a split corpus; name one of its parts, such as %s/train", folder,
                             folder);
        return elbo_fail(error, ELBO_IO, "%s is not a finished corpus: it has no %s; %s with `elbo prepare`", folder,
                         CORPUS_MANIFEST, remedy);
    }
    ELBO_TRY(file_read(&text, &size, path, largest_json, error));
    json_error_t problem;
    bool starved;
    *manifest = json_read(text, size, JSON_REJECT_DUPLICATES, &problem, &starved);
    elbo_error seal;
    elbo_status sealed = sealed_check(text, size, &seal);
    free(text);
    if (starved) return elbo_fail(error, ELBO_MEMORY, "no memory to read the %zu bytes of %s", size, path);
    if (!*manifest)
        return elbo_fail(error, ELBO_INPUT, "%s:%d:%d: %s; the manifest is truncated or foreign: %s", path, problem.line,
                         problem.column, problem.text, remedy);
    const char *format = json_string_value(json_object_get(*manifest, "format"));
    const json_t *version = json_object_get(*manifest, "version");
    elbo_status status = ELBO_OK;
    if (!format || strcmp(format, CORPUS_FORMAT))
        status = elbo_fail(error, ELBO_INPUT, "%s is not the manifest of a corpus; give a folder that `elbo prepare` "
                           "wrote", path);
    else if (!json_is_integer(version) || json_integer_value(version) != CORPUS_VERSION)
        status = elbo_fail(error, ELBO_INPUT, "%s has version %lld of the format; this program reads version %d: %s",
                           path, (long long)json_integer_value(version), CORPUS_VERSION, remedy);
    /* after the above: "another version" says more */
    if (status == ELBO_OK && sealed) status = elbo_fail(error, ELBO_INPUT, "%s %.500s; %s", path, seal.message, remedy);
    if (status != ELBO_OK) json_decref(*manifest);
    return status;
}

/* The first chunk of a damaged file whose sum is not that of the manifest, as places in bytes. */
static void find_damage(size_t *from, size_t *to, const json_t *chunks, const struct file_map *map)
{
    size_t i = 0;
    for (*from = 0, *to = map->size; *from < map->size; *from += SEALED_CHUNK, i++) {
        size_t size = map->size - *from < SEALED_CHUNK ? map->size - *from : SEALED_CHUNK;
        uint64_t wanted;
        *to = *from + size;
        if (!sealed_read_hex(&wanted, json_string_value(json_array_get(chunks, i))) ||
            XXH3_64bits(map->data + *from, size) != wanted)
            return;
    }
    *from = 0; /* the manifest contradicts itself */
}

/* Size and hash of one of the corpus' files against the manifest. */
static elbo_status check_file(char hash[17], const json_t *manifest, const char *folder, const char *name,
                              const struct file_map *map, elbo_error *error)
{
    const json_t *entry = json_object_get(json_object_get(manifest, "files"), name);
    const json_t *size = json_object_get(entry, "bytes");
    const char *expected = json_string_value(json_object_get(entry, "xxh3"));
    if (!json_is_integer(size) || !expected)
        return elbo_fail(error, ELBO_INPUT, "%s/%s does not describe %s; %s", folder, CORPUS_MANIFEST, name, remedy);
    if (json_integer_value(size) < 0 || (uint64_t)json_integer_value(size) != map->size)
        return elbo_fail(error, ELBO_INPUT, "%s/%s has %zu bytes and its manifest says %lld: it is truncated or not the "
                         "one that was written; %s", folder, name, map->size, (long long)json_integer_value(size),
                         remedy);
    snprintf(hash, 17, "%016" PRIx64, (uint64_t)XXH3_64bits(map->size ? (const void *)map->data : "", map->size));
    if (!strcmp(hash, expected)) return ELBO_OK;
    size_t from, to;
    find_damage(&from, &to, json_object_get(entry, "chunks"), map);
    return elbo_fail(error, ELBO_INPUT, "%s/%s is damaged between byte %zu and byte %zu: its hash is %s and the manifest "
                     "says %.40s; %s", folder, name, from, to, hash, expected, remedy);
}

/* ---- the binary file ---- */

static elbo_status check_header(struct elbo_corpus *corpus, elbo_error *error)
{
    struct corpus_header *header = &corpus->header;
    const char *folder = corpus->folder;
    if (corpus->map.size < sizeof *header)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " is truncated: %zu bytes, and its header alone has %zu; %s",
                         folder, corpus->map.size, sizeof *header, remedy);
    memcpy(header, corpus->map.data, sizeof *header);
    if (memcmp(header->magic, CORPUS_MAGIC, sizeof header->magic))
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " is not a corpus (it does not begin with " CORPUS_MAGIC
                         "); %s", folder, remedy);
    if (header->version != CORPUS_VERSION)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " has version %" PRIu32 " of the format; this program "
                         "reads version %d: %s", folder, header->version, CORPUS_VERSION, remedy);
    if (header->streams != 1)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " has %" PRIu32 " streams; this program reads 1: %s",
                         folder, header->streams, remedy);
    if (!header->sentences)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " has no sentences; %s", folder, remedy);
    const struct corpus_stream_header *stream = &header->stream[0];
    struct corpus_header expected = *header; /* with every place computed again, and zero where nothing is said */
    memset(&expected.stream[1], 0, sizeof expected.stream[1]);
    expected.stream[0].reserved = 0;
    if (stream->token_bytes != (stream->vocabulary <= 65536 ? 2 : 4) || stream->vocabulary > UINT32_MAX ||
        !corpus_lay_out(&expected) || memcmp(&expected, header, sizeof expected) ||
        header->file_bytes != corpus->map.size)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " is damaged between byte 0 and byte %zu: its header does "
                         "not fit its %zu bytes; %s", folder, sizeof *header, corpus->map.size, remedy);
    return ELBO_OK;
}

static const uint64_t *offsets_of(const struct elbo_corpus *corpus)
{
    return (const uint64_t *)(const void *)(corpus->map.data + corpus->header.stream[0].offsets_at);
}

static const uint32_t *column(const struct elbo_corpus *corpus, uint64_t at)
{
    return (const uint32_t *)(const void *)(corpus->map.data + at);
}

static uint32_t token(const struct elbo_corpus *corpus, size_t i)
{
    const struct corpus_stream_header *stream = &corpus->header.stream[0];
    const unsigned char *tokens = corpus->map.data + stream->tokens_at;
    if (stream->token_bytes == 2) return ((const uint16_t *)(const void *)tokens)[i];
    return ((const uint32_t *)(const void *)tokens)[i];
}

static elbo_status check_content(const struct elbo_corpus *corpus, elbo_error *error)
{
    const struct corpus_header *header = &corpus->header;
    const struct corpus_stream_header *stream = &header->stream[0];
    const uint64_t *offsets = offsets_of(corpus);
    uint64_t longest = 0, words = 0, bytes = 0, unknown = 0;
    bool good = offsets[0] == 0 && offsets[header->sentences] == stream->tokens;
    for (size_t i = 0; good && i < header->sentences; i++) {
        good = offsets[i] <= offsets[i + 1] && offsets[i + 1] <= stream->tokens;
        if (offsets[i + 1] - offsets[i] > longest) longest = offsets[i + 1] - offsets[i];
        words += column(corpus, header->words_at)[i];
        bytes += column(corpus, header->bytes_at)[i];
    }
    if (!good || longest != stream->longest || words != header->words || bytes != header->bytes)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " is damaged: its sentences do not fit its tokens; %s",
                         corpus->folder, remedy);
    const uint32_t unknown_mark = elbo_tokenizer_marks(corpus->tokenizer)->unknown;
    if (stream->vocabulary != elbo_tokenizer_vocabulary(corpus->tokenizer))
        return elbo_fail(error, ELBO_INPUT, "%s: " CORPUS_FILE " was made with a vocabulary of %" PRIu64 ", and "
                         CORPUS_TOKENIZER " has %zu; %s", corpus->folder, stream->vocabulary,
                         elbo_tokenizer_vocabulary(corpus->tokenizer), remedy);
    for (size_t i = 0; i < stream->tokens; i++) {
        uint32_t id = token(corpus, i);
        if (id >= stream->vocabulary)
            return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " is damaged: token %zu is %" PRIu32 " and the "
                             "vocabulary has %" PRIu64 "; %s", corpus->folder, i, id, stream->vocabulary, remedy);
        unknown += id == unknown_mark;
    }
    if (unknown != stream->unknown)
        return elbo_fail(error, ELBO_INPUT, "%s/" CORPUS_FILE " is damaged: it holds %" PRIu64 " unknown marks and says %"
                         PRIu64 "; %s", corpus->folder, unknown, stream->unknown, remedy);
    return ELBO_OK;
}

static elbo_status open_files(struct elbo_corpus *corpus, const json_t *manifest, elbo_error *error)
{
    char path[FILES_PATH];
    ELBO_TRY(file_join(path, corpus->folder, CORPUS_FILE, error));
    ELBO_TRY(file_map_open(&corpus->map, path, error));
    ELBO_TRY(check_header(corpus, error)); /* first: "truncated" and "another version" say more than a wrong hash */
    ELBO_TRY(check_file(corpus->hash, manifest, corpus->folder, CORPUS_FILE, &corpus->map, error));
    ELBO_TRY(file_join(path, corpus->folder, CORPUS_TOKENIZER, error));
    struct file_map tokenizer;
    ELBO_TRY(file_map_open(&tokenizer, path, error));
    elbo_status status = check_file(corpus->tokenizer_hash, manifest, corpus->folder, CORPUS_TOKENIZER, &tokenizer,
                                    error);
    file_map_close(&tokenizer);
    ELBO_TRY(status);
    ELBO_TRY(elbo_tokenizer_load(&corpus->tokenizer, path, error));
    return check_content(corpus, error);
}

elbo_status elbo_corpus_open(struct elbo_corpus **out, const char *folder, elbo_error *error)
{
    if (strlen(folder) >= FILES_PATH) return elbo_fail(error, ELBO_IO, "the corpus' path is too long");
    json_t *manifest;
    ELBO_TRY(read_manifest(&manifest, folder, error));
    struct elbo_corpus *corpus = calloc(1, sizeof *corpus);
    elbo_status status = ELBO_OK;
    if (!corpus) {
        status = elbo_fail(error, ELBO_MEMORY, "no memory to open %s", folder);
    } else {
        strcpy(corpus->folder, folder);
        status = open_files(corpus, manifest, error);
    }
    json_decref(manifest);
    if (status == ELBO_OK) *out = corpus;
    else elbo_corpus_close(corpus);
    return status;
}

void elbo_corpus_close(struct elbo_corpus *corpus)
{
    if (!corpus) return;
    file_map_close(&corpus->map);
    elbo_tokenizer_close(corpus->tokenizer);
    free(corpus);
}

/* ---- what is in it; with one stream, both names mean it ---- */

size_t elbo_corpus_sentences(const struct elbo_corpus *corpus)
{
    return corpus->header.sentences;
}

size_t elbo_corpus_words(const struct elbo_corpus *corpus)
{
    return corpus->header.words;
}

size_t elbo_corpus_bytes(const struct elbo_corpus *corpus)
{
    return corpus->header.bytes;
}

size_t elbo_corpus_tokens(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->header.stream[0].tokens;
}

size_t elbo_corpus_longest(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->header.stream[0].longest;
}

size_t elbo_corpus_unknown(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->header.stream[0].unknown;
}

size_t elbo_corpus_vocabulary(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->header.stream[0].vocabulary;
}

bool elbo_corpus_shares_stream(const struct elbo_corpus *corpus)
{
    return corpus->header.streams == 1;
}

struct elbo_tokenizer *elbo_corpus_tokenizer(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->tokenizer;
}

const struct text_marks *elbo_corpus_marks(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    return elbo_tokenizer_marks(elbo_corpus_tokenizer(corpus, stream));
}

const char *elbo_corpus_folder(const struct elbo_corpus *corpus)
{
    return corpus->folder;
}

const char *elbo_corpus_hash(const struct elbo_corpus *corpus)
{
    return corpus->hash;
}

const char *elbo_corpus_tokenizer_hash(const struct elbo_corpus *corpus)
{
    return corpus->tokenizer_hash;
}

size_t elbo_corpus_length(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t i)
{
    (void)stream;
    const uint64_t *offsets = offsets_of(corpus);
    return offsets[i + 1] - offsets[i];
}

size_t elbo_corpus_read(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t i, uint32_t *ids,
                        size_t capacity)
{
    size_t length = elbo_corpus_length(corpus, stream, i), first = offsets_of(corpus)[i];
    if (length > capacity) length = capacity;
    for (size_t t = 0; t < length; t++) ids[t] = token(corpus, first + t);
    return length;
}

size_t elbo_corpus_sentence_words(const struct elbo_corpus *corpus, size_t i)
{
    return column(corpus, corpus->header.words_at)[i];
}

size_t elbo_corpus_sentence_bytes(const struct elbo_corpus *corpus, size_t i)
{
    return column(corpus, corpus->header.bytes_at)[i];
}

void elbo_corpus_longer_than(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t tokens,
                             size_t *sentences, size_t *tokens_cut)
{
    *sentences = *tokens_cut = 0;
    for (size_t i = 0; i < elbo_corpus_sentences(corpus); i++) {
        size_t length = elbo_corpus_length(corpus, stream, i);
        if (length <= tokens) continue;
        ++*sentences;
        *tokens_cut += length - tokens;
    }
}

static int rising(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

elbo_status elbo_corpus_percentiles(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t *lengths,
                                    const double *shares, size_t count, elbo_error *error)
{
    size_t sentences = elbo_corpus_sentences(corpus);
    uint64_t *sorted = malloc(sentences * sizeof *sorted);
    if (!sorted) return elbo_fail(error, ELBO_MEMORY, "no memory to sort %zu lengths", sentences);
    for (size_t i = 0; i < sentences; i++) sorted[i] = elbo_corpus_length(corpus, stream, i);
    qsort(sorted, sentences, sizeof *sorted, rising);
    for (size_t i = 0; i < count; i++) {
        size_t place = (size_t)ceil(shares[i] * (double)sentences);
        lengths[i] = sorted[place > sentences ? sentences - 1 : place ? place - 1 : 0];
    }
    free(sorted);
    return ELBO_OK;
}
