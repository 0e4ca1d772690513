/* Writes corpus.bin and the manifests: see corpus_write.h. */
#include "text/corpus_write.h"

#include "base/sealed.h"
#include "text/corpus_format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS, WORDS, BYTES, LABEL, COLUMNS };

static size_t token_bytes(const struct corpus_writer *w)
{
    return w->vocabulary <= 65536 ? 2 : 4;
}

static elbo_status pad(struct file_writer *file, elbo_error *error)
{
    static const char zeros[CORPUS_ALIGNMENT];
    return file_append(file, zeros, (size_t)(-file->written % CORPUS_ALIGNMENT), error);
}

elbo_status corpus_writer_open(struct corpus_writer *w, struct elbo_prepare_part *part, const char *folder,
                               size_t vocabulary, elbo_error *error)
{
    char path[FILES_PATH];
    w->part = part;
    w->vocabulary = vocabulary;
    if (strlen(folder) >= FILES_PATH) return elbo_fail(error, ELBO_IO, "the path %.60s... is too long", folder);
    strcpy(w->folder, folder);
    ELBO_TRY(file_join(path, folder, CORPUS_FILE, error));
    ELBO_TRY(file_create(&w->file, path, error));
    return file_append(&w->file, &(struct corpus_header){0}, sizeof(struct corpus_header), error);
}

static elbo_status grow(struct corpus_writer *w, elbo_error *error)
{
    size_t capacity = w->capacity ? 2 * w->capacity : 1024, bytes;
    uint32_t *larger = checked_mul(&bytes, capacity, COLUMNS * sizeof *larger) ? realloc(w->rows, bytes) : NULL;
    if (!larger) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", capacity);
    w->rows = larger;
    w->capacity = capacity;
    return ELBO_OK;
}

elbo_status corpus_writer_add(struct corpus_writer *w, const struct elbo_ids *ids, uint32_t unknown, size_t words,
                              size_t bytes, uint32_t label, elbo_error *error)
{
    struct elbo_prepare_part *part = w->part;
    if (part->sentences == w->capacity) ELBO_TRY(grow(w, error));
    uint32_t *row = w->rows + COLUMNS * part->sentences++;
    row[TOKENS] = (uint32_t)ids->count;
    row[WORDS] = (uint32_t)words;
    row[BYTES] = (uint32_t)bytes;
    row[LABEL] = label;
    part->tokens += ids->count;
    part->words += words;
    part->bytes += bytes;
    if (ids->count > part->longest) part->longest = ids->count;
    for (size_t i = 0; i < ids->count; i++) part->unknown += ids->ids[i] == unknown;
    if (token_bytes(w) == 4) return file_append(&w->file, ids->ids, ids->count * sizeof *ids->ids, error);
    for (size_t i = 0; i < ids->count; i++) {
        uint16_t id = (uint16_t)ids->ids[i];
        ELBO_TRY(file_append(&w->file, &id, sizeof id, error));
    }
    return ELBO_OK;
}

static elbo_status finish_file(struct corpus_writer *w, elbo_error *error)
{
    const struct elbo_prepare_part *part = w->part;
    struct corpus_header header = {
        .magic = CORPUS_MAGIC,
        .version = CORPUS_VERSION,
        .streams = 1,
        .sentences = part->sentences,
        .words = part->words,
        .bytes = part->bytes,
        .stream[0] = {.vocabulary = w->vocabulary,
                      .tokens = part->tokens,
                      .token_bytes = token_bytes(w),
                      .longest = part->longest,
                      .unknown = part->unknown},
    };
    if (!corpus_lay_out(&header)) return elbo_fail(error, ELBO_INPUT, "%s would be too large", w->folder);
    ELBO_TRY(pad(&w->file, error));
    uint64_t offset = 0;
    ELBO_TRY(file_append(&w->file, &offset, sizeof offset, error));
    for (size_t i = 0; i < part->sentences; i++) {
        offset += w->rows[COLUMNS * i];
        ELBO_TRY(file_append(&w->file, &offset, sizeof offset, error));
    }
    for (size_t c = WORDS; c <= BYTES; c++) {
        ELBO_TRY(pad(&w->file, error));
        for (size_t i = 0; i < part->sentences; i++)
            ELBO_TRY(file_append(&w->file, &w->rows[COLUMNS * i + c], sizeof *w->rows, error));
    }
    ELBO_TRY(pad(&w->file, error));
    if (w->file.written != header.file_bytes)
        return elbo_fail(error, ELBO_INTERNAL, "%s: wrote %" PRIu64 " bytes of %" PRIu64, w->folder, w->file.written,
                         header.file_bytes);
    ELBO_TRY(file_patch(&w->file, 0, &header, sizeof header, error));
    return file_seal(&w->file, error);
}

static elbo_status describe_file(struct corpus_writer *w, char hash[CORPUS_HEX], const char *name, elbo_error *error)
{
    char path[FILES_PATH];
    int descriptor;
    size_t size;
    uint64_t sum = 0;
    json_t *chunks = NULL;
    ELBO_TRY(file_join(path, w->folder, name, error));
    ELBO_TRY(file_open_regular(&descriptor, &size, path, error));
    elbo_status status = corpus_sums(&sum, &chunks, descriptor, size, path, error);
    close(descriptor);
    ELBO_TRY(status);
    snprintf(hash, CORPUS_HEX, "%016" PRIx64, sum);
    json_t *entry = json_pack("{s:I, s:s, s:o}", "bytes", (json_int_t)size, "xxh3", hash, "chunks", chunks);
    if (json_object_set_new(w->files, name, entry))
        return elbo_fail(error, ELBO_MEMORY, "no memory for the manifest of %s", w->folder);
    return ELBO_OK;
}

static elbo_status write_labels(struct corpus_writer *w, elbo_error *error)
{
    char path[FILES_PATH];
    struct file_writer file = {.descriptor = -1};
    ELBO_TRY(file_join(path, w->folder, CORPUS_LABELS, error));
    elbo_status status = file_create(&file, path, error);
    for (size_t i = 0; i < w->part->sentences && !status; i++)
        status = file_append(&file, &w->rows[COLUMNS * i + LABEL], sizeof *w->rows, error);
    if (!status) status = file_seal(&file, error);
    file_abort(&file);
    return status;
}

elbo_status corpus_writer_finish(struct corpus_writer *w, const struct elbo_tokenizer *tokenizer,
                                 const struct labels *labels, elbo_error *error)
{
    char unused[CORPUS_HEX];
    char path[FILES_PATH];
    ELBO_TRY(finish_file(w, error));
    ELBO_TRY(file_join(path, w->folder, CORPUS_TOKENIZER, error));
    ELBO_TRY(elbo_tokenizer_save(tokenizer, path, error));
    w->files = json_object();
    ELBO_TRY(describe_file(w, w->hash, CORPUS_FILE, error));
    ELBO_TRY(describe_file(w, w->tokenizer_hash, CORPUS_TOKENIZER, error));
    if (!labels->count) return ELBO_OK;
    ELBO_TRY(write_labels(w, error));
    return describe_file(w, unused, CORPUS_LABELS, error);
}

/* Consumes `manifest`; null means that memory ran out while the caller built the manifest. */
static elbo_status write_sealed(json_t *manifest, const char *folder, elbo_error *error)
{
    char path[FILES_PATH], *text;
    size_t size;
    elbo_status status = sealed_compose(&text, &size, manifest, "the manifest of a corpus", error);
    json_decref(manifest);
    ELBO_TRY(status);
    status = file_join(path, folder, CORPUS_MANIFEST, error);
    if (status == ELBO_OK) status = file_write_new(path, text, size, error);
    free(text);
    return status;
}

elbo_status corpus_writer_manifest(struct corpus_writer *w, const struct elbo_prepare_report *report, const char *set,
                                   const char *kind, const struct labels *labels, elbo_error *error)
{
    const struct elbo_prepare_part *part = w->part;
    json_t *manifest = json_pack(
        "{s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:O}", "format", CORPUS_FORMAT, "version",
        CORPUS_VERSION, "part", part->name, "sentences", (json_int_t)part->sentences, "tokens",
        (json_int_t)part->tokens, "words", (json_int_t)part->words, "bytes", (json_int_t)part->bytes, "longest",
        (json_int_t)part->longest, "unknown", (json_int_t)part->unknown, "vocabulary", (json_int_t)w->vocabulary,
        "tokenizer", kind, "blank_lines_of_all_parts", (json_int_t)report->blank_lines, "replaced_of_all_parts",
        (json_int_t)report->replaced, "files", w->files);
    json_t *classes = json_array();
    int failed = *set && json_object_set_new(manifest, "set", json_string(set));
    for (size_t k = 0; k < labels->count; k++) failed |= json_array_append_new(classes, json_string(labels->name[k]));
    if (labels->count)
        failed |=
            json_object_set_new(manifest, "labels", json_pack("{s:s, s:O}", "file", CORPUS_LABELS, "classes", classes));
    json_decref(classes);
    if (failed) {
        json_decref(manifest);
        manifest = NULL;
    }
    return write_sealed(manifest, w->folder, error);
}

void corpus_writer_close(struct corpus_writer *w)
{
    file_abort(&w->file);
    free(w->rows);
    json_decref(w->files);
}

elbo_status corpus_write_split(const struct corpus_split *split, const char *folder, elbo_error *error)
{
    json_t *parts = json_array();
    int failed = 0;
    for (size_t i = 0; i < split->count; i++)
        failed |= json_array_append_new(
            parts, json_pack("{s:s, s:s}", "name", split->parts[i].name, "corpus", split->parts[i].corpus));
    json_t *manifest = json_pack("{s:s, s:i, s:s, s:s, s:o}", "format", SPLIT_FORMAT, "version", SPLIT_VERSION, "set",
                                 split->set, "tokenizer", split->tokenizer, "parts", parts);
    if (failed) {
        json_decref(manifest);
        manifest = NULL;
    }
    return write_sealed(manifest, folder, error);
}
