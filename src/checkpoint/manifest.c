/* Composes and parses the manifest's text and computes its checksums. Parsed text is untrusted until the checksum
 * holds, and is validated even then, because the checksum finds damage, not malice. */
#include "checkpoint/manifest.h"
#include "base/json.h"
#include "base/sealed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- checksums ---- */

struct checksums {
    XXH3_state_t *whole, *chunk;
    uint64_t bytes;
    uint64_t *chunks;
    size_t chunk_count, chunk_capacity;
};

elbo_status checksums_begin(struct checksums **out, elbo_error *error)
{
    struct checksums *sums = calloc(1, sizeof *sums);
    if (sums) {
        sums->whole = XXH3_createState();
        sums->chunk = XXH3_createState();
    }
    if (!sums || !sums->whole || !sums->chunk) {
        checksums_abort(sums);
        return elbo_fail(error, ELBO_MEMORY, "no memory for a checksum");
    }
    XXH3_64bits_reset(sums->whole);
    XXH3_64bits_reset(sums->chunk);
    *out = sums;
    return ELBO_OK;
}

static elbo_status end_chunk(struct checksums *sums, elbo_error *error)
{
    if (sums->chunk_count == sums->chunk_capacity) {
        size_t capacity = 2 * sums->chunk_capacity + 16;
        uint64_t *chunks = realloc(sums->chunks, capacity * sizeof *chunks);
        if (!chunks) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu checksums", capacity);
        sums->chunks = chunks;
        sums->chunk_capacity = capacity;
    }
    sums->chunks[sums->chunk_count++] = XXH3_64bits_digest(sums->chunk);
    XXH3_64bits_reset(sums->chunk);
    return ELBO_OK;
}

elbo_status checksums_update(struct checksums *sums, const void *bytes, size_t size, elbo_error *error)
{
    const char *from = bytes;
    while (size > 0) {
        size_t room = MANIFEST_CHUNK - (size_t)(sums->bytes % MANIFEST_CHUNK), part = size < room ? size : room;
        XXH3_64bits_update(sums->whole, from, part);
        XXH3_64bits_update(sums->chunk, from, part);
        sums->bytes += part;
        from += part;
        size -= part;
        if (part == room) ELBO_TRY(end_chunk(sums, error));
    }
    return ELBO_OK;
}

elbo_status checksums_end(struct manifest_file *file, struct checksums *sums, elbo_error *error)
{
    elbo_status status = sums->bytes % MANIFEST_CHUNK ? end_chunk(sums, error) : ELBO_OK;
    if (status == ELBO_OK) {
        file->bytes = sums->bytes;
        file->xxh3 = XXH3_64bits_digest(sums->whole);
        file->chunks = sums->chunks;
        file->chunk_count = sums->chunk_count;
        sums->chunks = NULL;
    }
    checksums_abort(sums);
    return status;
}

void checksums_abort(struct checksums *sums)
{
    if (!sums) return;
    XXH3_freeState(sums->whole);
    XXH3_freeState(sums->chunk);
    free(sums->chunks);
    free(sums);
}

/* ---- names ---- */

bool manifest_name_is_good(const char *name)
{
    size_t length = strlen(name), slashes = 0;
    if (length == 0 || length > MANIFEST_MOST_NAME || name[length - 1] == '/') return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        bool first = i == 0 || name[i - 1] == '/';
        if (c == '/') {
            if (first || ++slashes > 1) return false;
        } else if (c == '.') {
            if (first) return false;
        } else if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '_' &&
                   c != '-') {
            return false;
        }
    }
    return strcmp(name, "manifest.json") != 0;
}

/* ---- composing ---- */

static json_t *file_entry(const struct manifest_file *file)
{
    json_t *entry = json_object(), *chunks = json_array();
    int failed = json_object_set_new(entry, "name", json_string(file->name));
    failed |= json_object_set_new(entry, "bytes", json_integer((json_int_t)file->bytes));
    failed |= json_object_set_new(entry, "xxh3", sealed_hex(file->xxh3));
    failed |= json_object_set_new(entry, "chunks", chunks);
    for (size_t i = 0; i < file->chunk_count; i++) failed |= json_array_append_new(chunks, sealed_hex(file->chunks[i]));
    if (!failed) return entry;
    json_decref(entry);
    return NULL;
}

static json_t *body(const struct manifest *manifest)
{
    json_t *root = json_object(), *files = json_array();
    int failed = json_object_set_new(root, "elbo", json_string("checkpoint"));
    failed |= json_object_set_new(root, "version", json_integer(MANIFEST_VERSION));
    failed |= json_object_set_new(root, "program", json_string(manifest->program));
    failed |= json_object_set_new(root, "step", json_integer((json_int_t)manifest->step));
    failed |= json_object_set_new(root, "ranks", json_integer((json_int_t)manifest->ranks));
    failed |= json_object_set_new(root, "config_hash", json_string(manifest->config_hash));
    failed |= manifest->counters ? json_object_set(root, "counters", manifest->counters)
                                 : json_object_set_new(root, "counters", json_object());
    failed |= json_object_set_new(root, "chunk_bytes", json_integer(MANIFEST_CHUNK));
    failed |= json_object_set_new(root, "files", files);
    for (size_t i = 0; i < manifest->count; i++)
        failed |= json_array_append_new(files, file_entry(&manifest->files[i]));
    if (!failed) return root;
    json_decref(root);
    return NULL;
}

elbo_status manifest_compose(char **text, size_t *size, const struct manifest *manifest, elbo_error *error)
{
    json_t *root = body(manifest);
    elbo_status status = sealed_compose(text, size, root, "the manifest of a checkpoint", error);
    json_decref(root);
    return status;
}

/* ---- parsing ---- */

static bool read_count(uint64_t *out, const json_t *value)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static elbo_status read_file_entry(struct manifest_file *file, const json_t *entry, elbo_error *error)
{
    file->name = json_string_value(json_object_get(entry, "name"));
    if (!file->name || !manifest_name_is_good(file->name))
        return elbo_fail(error, ELBO_INPUT, "names a file that cannot be in a checkpoint: %.200s",
                         file->name ? file->name : "(none)");
    const json_t *chunks = json_object_get(entry, "chunks");
    if (!read_count(&file->bytes, json_object_get(entry, "bytes")) ||
        !sealed_read_hex(&file->xxh3, json_string_value(json_object_get(entry, "xxh3"))) ||
        json_array_size(chunks) != file->bytes / MANIFEST_CHUNK + (file->bytes % MANIFEST_CHUNK != 0))
        return elbo_fail(error, ELBO_INPUT, "entry of %s: size or checksums are malformed", file->name);
    file->chunk_count = json_array_size(chunks);
    file->chunks = calloc(file->chunk_count + 1, sizeof *file->chunks);
    if (!file->chunks) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu checksums", file->chunk_count);
    for (size_t i = 0; i < file->chunk_count; i++)
        if (!sealed_read_hex(&file->chunks[i], json_string_value(json_array_get(chunks, i))))
            return elbo_fail(error, ELBO_INPUT, "entry of %s: checksum %zu is malformed", file->name, i);
    return ELBO_OK;
}

static elbo_status read_body(struct manifest *out, elbo_error *error)
{
    json_t *root = out->owner;
    const char *kind = json_string_value(json_object_get(root, "elbo"));
    uint64_t version, chunk, ranks;
    if (!kind || strcmp(kind, "checkpoint"))
        return elbo_fail(error, ELBO_INPUT, "is not the manifest of an elbo checkpoint");
    out->program = json_string_value(json_object_get(root, "program"));
    if (!read_count(&version, json_object_get(root, "version")) || version != MANIFEST_VERSION)
        return elbo_fail(error, ELBO_INPUT,
                         "has format version %" PRId64 " (written by elbo %.40s); this program reads version %d",
                         (int64_t)json_integer_value(json_object_get(root, "version")),
                         out->program ? out->program : "unknown", MANIFEST_VERSION);
    out->config_hash = json_string_value(json_object_get(root, "config_hash"));
    out->counters = json_object_get(root, "counters");
    const json_t *files = json_object_get(root, "files");
    if (!out->program || !out->config_hash || !json_is_object(out->counters) || !json_is_array(files) ||
        !read_count(&out->step, json_object_get(root, "step")) || !read_count(&ranks, json_object_get(root, "ranks")) ||
        !read_count(&chunk, json_object_get(root, "chunk_bytes")) || chunk != MANIFEST_CHUNK || ranks < 1)
        return elbo_fail(error, ELBO_INPUT, "lacks a field or has one of the wrong type");
    out->ranks = (size_t)ranks;
    out->files = calloc(json_array_size(files) + 1, sizeof *out->files);
    if (!out->files) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu files", json_array_size(files));
    for (size_t i = 0; i < json_array_size(files); i++) {
        out->count = i + 1;
        ELBO_TRY(read_file_entry(&out->files[i], json_array_get(files, i), error));
        for (size_t k = 0; k < i; k++)
            if (!strcmp(out->files[k].name, out->files[i].name))
                return elbo_fail(error, ELBO_INPUT, "names the file %s twice", out->files[i].name);
    }
    return ELBO_OK;
}

elbo_status manifest_parse(struct manifest *out, const char *text, size_t size, elbo_error *error)
{
    *out = (struct manifest){0};
    ELBO_TRY(sealed_check(text, size, error));
    json_error_t reason;
    bool starved;
    out->owner = json_read(text, size, JSON_REJECT_DUPLICATES, &reason, &starved);
    if (starved) return elbo_fail(error, ELBO_MEMORY, "no memory to read the manifest's %zu bytes", size);
    elbo_status status = json_is_object(out->owner)
                             ? read_body(out, error)
                             : elbo_fail(error, ELBO_INPUT, "is not valid JSON: line %d: %s", reason.line, reason.text);
    if (status) manifest_free(out);
    return status;
}

void manifest_free(struct manifest *manifest)
{
    for (size_t i = 0; i < manifest->count; i++) free(manifest->files[i].chunks);
    free(manifest->files);
    json_decref(manifest->owner);
    *manifest = (struct manifest){0};
}
