/* Reads manifests and checks files against them: see corpus_manifest.h. */
#include "text/corpus_manifest.h"

#include "base/files.h"
#include "base/json.h"
#include "base/sealed.h"
#include "text/corpus_format.h"
#include "text/recognize.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

const char *const corpus_part_names[ELBO_PREPARE_PARTS] = {"train", "valid", "test"};

static const char remedy[] = "prepare the corpus again";

static bool holds(const char *folder, const char *name)
{
    char path[FILES_PATH];
    elbo_error unused;
    struct stat about;
    return !file_join(path, folder, name, &unused) && !lstat(path, &about);
}

/* ---- the folder at a corpus' path ---- */

struct corpus_place corpus_look(const char *folder)
{
    struct stat about;
    if (stat(folder, &about)) return (struct corpus_place){0};
    return (struct corpus_place){about.st_dev, about.st_ino,
                                 (int64_t)about.st_ctim.tv_sec * 1000000000 + about.st_ctim.tv_nsec};
}

bool corpus_was_replaced(const struct corpus_place *seen, const char *folder)
{
    struct corpus_place now = corpus_look(folder);
    return now.device != seen->device || now.node != seen->node || now.changed != seen->changed;
}

static elbo_status not_a_folder(const char *path, elbo_error *error)
{
    size_t size = strlen(path), length = sizeof CORPUS_FILE - 1;
    if (!file_is_regular(path)) {
        const char *slash = strrchr(path, '/');
        size_t parent = slash ? (size_t)(slash + 1 - path) : 0;
        char old[FILES_PATH];
        snprintf(old, sizeof old, "%.*s.%s.elbo-old", (int)parent, path, path + parent);
        if (file_is_folder(old))
            return elbo_fail(error, ELBO_IO,
                             "the corpus %s is not there: its replacement was broken off, and %s is what "
                             "stood there; rename it back, or prepare the corpus again",
                             path, old);
        return elbo_fail(error, ELBO_IO, "the corpus %s is not there; make it with `elbo prepare TEXT --out=%s`", path,
                         path);
    }
    if (size > length && !strcmp(path + size - length, CORPUS_FILE))
        return elbo_fail(error, ELBO_INPUT, "%s is a file of a corpus; give its folder, %.*s", path,
                         (int)(size - length), path);
    if (text_is_text(path))
        return elbo_fail(error, ELBO_INPUT,
                         "%s is a text file, not a corpus; make one with `elbo prepare %s --out=corpus`", path, path);
    return elbo_fail(error, ELBO_INPUT, "%s is a file, not a corpus; give a folder that `elbo prepare` wrote", path);
}

static elbo_status no_manifest(const char *folder, elbo_error *error)
{
    if (holds(folder, "config.yaml") || holds(folder, "checkpoints"))
        return elbo_fail(error, ELBO_INPUT, "%s is a run, not a corpus; give a folder that `elbo prepare` wrote",
                         folder);
    if (holds(folder, "train/" CORPUS_MANIFEST))
        return elbo_fail(error, ELBO_IO, "%s is a split corpus; name one of its parts, such as %s/train", folder,
                         folder);
    return elbo_fail(error, ELBO_IO, "%s is not a finished corpus: it has no %s; %s with `elbo prepare`", folder,
                     CORPUS_MANIFEST, remedy);
}

/* ---- a manifest ---- */

/* Parses the manifest of a folder. `*seal` receives the result of the checksum, which the caller reports only after it
 * has checked the format and the version. */
static elbo_status parse(json_t **manifest, elbo_error *seal, const char *path, elbo_error *error)
{
    char *text;
    size_t size;
    json_error_t problem;
    bool starved;
    ELBO_TRY(file_read(&text, &size, path, CORPUS_LONGEST_JSON, error));
    *manifest = json_read(text, size, JSON_REJECT_DUPLICATES, &problem, &starved);
    seal->code = ELBO_OK;
    sealed_check(text, size, seal);
    free(text);
    if (starved) return elbo_fail(error, ELBO_MEMORY, "no memory to read the %zu bytes of %s", size, path);
    if (!*manifest)
        return elbo_fail(error, ELBO_INPUT, "%s:%d:%d: %s; the manifest is truncated or foreign: %s", path,
                         problem.line, problem.column, problem.text, remedy);
    return ELBO_OK;
}

static bool is_format(const json_t *manifest, const char *format)
{
    const char *found = json_string_value(json_object_get(manifest, "format"));
    return found && !strcmp(found, format);
}

static elbo_status check_version(const json_t *manifest, int version, const elbo_error *seal, const char *path,
                                 elbo_error *error)
{
    const json_t *found = json_object_get(manifest, "version");
    if (!json_is_integer(found) || json_integer_value(found) != version)
        return elbo_fail(error, ELBO_INPUT, "%s has version %lld of the format; this program reads version %d: %s",
                         path, (long long)json_integer_value(found), version, remedy);
    /* after the version, because "another version" says more than a wrong checksum */
    if (seal->code) return elbo_fail(error, ELBO_INPUT, "%s %.500s; %s", path, seal->message, remedy);
    return ELBO_OK;
}

elbo_status corpus_manifest_read(json_t **manifest, const char *folder, elbo_error *error)
{
    char path[FILES_PATH];
    elbo_error seal;
    if (!file_is_folder(folder)) return not_a_folder(folder, error);
    ELBO_TRY(file_join(path, folder, CORPUS_MANIFEST, error));
    if (!file_is_regular(path)) return no_manifest(folder, error);
    ELBO_TRY(parse(manifest, &seal, path, error));
    elbo_status status = ELBO_OK;
    if (is_format(*manifest, SPLIT_FORMAT))
        status =
            elbo_fail(error, ELBO_IO, "%s is a split corpus; name one of its parts, such as %s/train", folder, folder);
    else if (json_object_get(*manifest, "elbo"))
        status = elbo_fail(error, ELBO_INPUT,
                           "%s is a checkpoint, not a corpus; give a folder that `elbo prepare` wrote", folder);
    else if (!is_format(*manifest, CORPUS_FORMAT))
        status = elbo_fail(error, ELBO_INPUT,
                           "%s is not the manifest of a corpus; give a folder that `elbo prepare` "
                           "wrote",
                           path);
    if (status == ELBO_OK) status = check_version(*manifest, CORPUS_VERSION, &seal, path, error);
    if (status != ELBO_OK) json_decref(*manifest);
    return status;
}

/* ---- checking files against a manifest ---- */

elbo_status corpus_sums(uint64_t *sum, json_t **chunks, int descriptor, size_t size, const char *path,
                        elbo_error *error)
{
    size_t room = size < 1 << 18 ? size + 1 : 1 << 18; /* divides SEALED_CHUNK for files of more than one block */
    unsigned char *buffer = malloc(room);
    XXH3_state_t *whole = XXH3_createState(), *part = XXH3_createState();
    json_t *list = json_array();
    elbo_status status = ELBO_OK;
    if (!buffer || !whole || !part || !list) status = elbo_fail(error, ELBO_MEMORY, "no memory to check %s", path);
    if (status == ELBO_OK) {
        XXH3_64bits_reset(whole);
        XXH3_64bits_reset(part);
    }
    for (size_t at = 0, n; status == ELBO_OK && at < size; at += n) {
        n = size - at < room ? size - at : room;
        status = file_read_at(descriptor, buffer, n, at, path, error);
        if (status != ELBO_OK) break;
        XXH3_64bits_update(whole, buffer, n);
        if (!chunks) continue;
        XXH3_64bits_update(part, buffer, n);
        if ((at + n) % SEALED_CHUNK && at + n < size) continue;
        if (json_array_append_new(list, sealed_hex(XXH3_64bits_digest(part))))
            status = elbo_fail(error, ELBO_MEMORY, "no memory for the sums of %s", path);
        XXH3_64bits_reset(part);
    }
    if (status == ELBO_OK) *sum = XXH3_64bits_digest(whole);
    free(buffer);
    XXH3_freeState(whole);
    XXH3_freeState(part);
    if (status == ELBO_OK && chunks)
        *chunks = list;
    else
        json_decref(list);
    return status;
}

elbo_status corpus_check_size(const json_t *manifest, const char *folder, const char *name, size_t size,
                              elbo_error *error)
{
    const json_t *entry = json_object_get(json_object_get(manifest, "files"), name);
    const json_t *bytes = json_object_get(entry, "bytes");
    if (!json_is_integer(bytes) || !json_is_string(json_object_get(entry, "xxh3")))
        return elbo_fail(error, ELBO_INPUT, "%s/%s does not describe %s; %s", folder, CORPUS_MANIFEST, name, remedy);
    if (json_integer_value(bytes) >= 0 && (uint64_t)json_integer_value(bytes) == size) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT,
                     "%s/%s has %zu bytes and its manifest says %lld: it is truncated or not the "
                     "one that was written; %s",
                     folder, name, size, (long long)json_integer_value(bytes), remedy);
}

/* Finds the first chunk whose hash differs from the manifest's; sets its byte range. */
static elbo_status find_damage(size_t *from, size_t *to, const json_t *expected, int descriptor, size_t size,
                               const char *path, elbo_error *error)
{
    json_t *found;
    uint64_t sum;
    ELBO_TRY(corpus_sums(&sum, &found, descriptor, size, path, error));
    size_t i = 0, count = json_array_size(found);
    while (i < count && json_equal(json_array_get(found, i), json_array_get(expected, i))) i++;
    *from = i < count ? i * SEALED_CHUNK : 0; /* 0 if every chunk agrees: the manifest contradicts itself */
    *to = i < count && size - *from > SEALED_CHUNK ? *from + SEALED_CHUNK : size;
    json_decref(found);
    return ELBO_OK;
}

elbo_status corpus_check_sum(const json_t *manifest, const char *folder, const char *name, uint64_t sum, int descriptor,
                             size_t size, elbo_error *error)
{
    const json_t *entry = json_object_get(json_object_get(manifest, "files"), name);
    const char *expected = json_string_value(json_object_get(entry, "xxh3"));
    char hash[CORPUS_HEX], path[FILES_PATH];
    snprintf(hash, sizeof hash, "%016" PRIx64, sum);
    if (expected && !strcmp(hash, expected)) return ELBO_OK;
    size_t from, to;
    ELBO_TRY(file_join(path, folder, name, error));
    ELBO_TRY(find_damage(&from, &to, json_object_get(entry, "chunks"), descriptor, size, path, error));
    return elbo_fail(error, ELBO_INPUT,
                     "%s/%s is damaged between byte %zu and byte %zu: its hash is %s and the manifest "
                     "says %.40s; %s",
                     folder, name, from, to, hash, expected, remedy);
}

elbo_status corpus_read_file(char **data, size_t *size, char hash[CORPUS_HEX], const json_t *manifest,
                             const char *folder, const char *name, elbo_error *error)
{
    char path[FILES_PATH];
    int descriptor;
    ELBO_TRY(file_join(path, folder, name, error));
    ELBO_TRY(file_open_regular(&descriptor, size, path, error));
    *data = NULL;
    elbo_status status = corpus_check_size(manifest, folder, name, *size, error);
    if (status == ELBO_OK && *size > CORPUS_LONGEST_JSON)
        status = elbo_fail(error, ELBO_INPUT, "%s has %zu bytes; at most %d are accepted for a file of this kind", path,
                           *size, CORPUS_LONGEST_JSON);
    if (status == ELBO_OK && !(*data = malloc(*size + 1)))
        status = elbo_fail(error, ELBO_MEMORY, "no memory for the %zu bytes of %s", *size, path);
    if (status == ELBO_OK) status = file_read_at(descriptor, *data, *size, 0, path, error);
    if (status == ELBO_OK) {
        uint64_t sum = XXH3_64bits(*data, *size);
        if (hash) snprintf(hash, CORPUS_HEX, "%016" PRIx64, sum);
        status = corpus_check_sum(manifest, folder, name, sum, descriptor, *size, error);
    }
    close(descriptor);
    if (status == ELBO_OK)
        (*data)[*size] = 0;
    else
        free(*data);
    return status;
}

/* ---- a split ---- */

void corpus_split_name(struct corpus_split *split)
{
    char text[512];
    size_t size =
        (size_t)snprintf(text, sizeof text, SPLIT_FORMAT " %d\ntokenizer %s\n", SPLIT_VERSION, split->tokenizer);
    for (size_t i = 0; i < split->count; i++)
        size +=
            (size_t)snprintf(text + size, sizeof text - size, "%s %s\n", split->parts[i].name, split->parts[i].corpus);
    snprintf(split->set, sizeof split->set, "%016" PRIx64, (uint64_t)XXH3_64bits(text, size));
}

static bool read_hash(char out[CORPUS_HEX], const json_t *value)
{
    uint64_t number;
    if (!sealed_read_hex(&number, json_string_value(value))) return false;
    snprintf(out, CORPUS_HEX, "%016" PRIx64, number);
    return true;
}

static bool read_split(struct corpus_split *split, const json_t *manifest)
{
    const json_t *parts = json_object_get(manifest, "parts");
    char set[CORPUS_HEX];
    size_t known = 0;
    *split = (struct corpus_split){.count = json_array_size(parts)};
    if (!read_hash(set, json_object_get(manifest, "set")) ||
        !read_hash(split->tokenizer, json_object_get(manifest, "tokenizer")) || !split->count ||
        split->count > ELBO_PREPARE_PARTS)
        return false;
    for (size_t i = 0; i < split->count; i++, known++) {
        const json_t *part = json_array_get(parts, i);
        const char *name = json_string_value(json_object_get(part, "name"));
        /* parts come in the order of corpus_part_names, so no name can occur twice */
        while (name && known < ELBO_PREPARE_PARTS && strcmp(name, corpus_part_names[known])) known++;
        if (!name || known >= ELBO_PREPARE_PARTS || !read_hash(split->parts[i].corpus, json_object_get(part, "corpus")))
            return false;
        strcpy(split->parts[i].name, corpus_part_names[known]);
    }
    corpus_split_name(split);
    return !strcmp(set, split->set);
}

elbo_status corpus_split_read(struct corpus_split *split, bool *there, const char *folder, elbo_error *error)
{
    char path[FILES_PATH];
    json_t *manifest = NULL;
    elbo_error seal;
    *there = false;
    ELBO_TRY(file_join(path, folder, CORPUS_MANIFEST, error));
    if (!file_is_regular(path)) return ELBO_OK;
    ELBO_TRY(parse(&manifest, &seal, path, error));
    elbo_status status = ELBO_OK;
    *there = is_format(manifest, SPLIT_FORMAT);
    if (*there) status = check_version(manifest, SPLIT_VERSION, &seal, path, error);
    if (status == ELBO_OK && *there && !read_split(split, manifest))
        status = elbo_fail(error, ELBO_INPUT, "%s is damaged: its parts do not fit its set; %s", path, remedy);
    json_decref(manifest);
    return status;
}

/* ---- a place for a new corpus ---- */

static json_t *peek(const char *folder)
{
    char path[FILES_PATH];
    json_t *manifest;
    elbo_error seal, unused;
    if (file_join(path, folder, CORPUS_MANIFEST, &unused) || !file_is_regular(path)) return NULL;
    return parse(&manifest, &seal, path, &unused) ? NULL : manifest;
}

bool corpus_is_there(const char *folder)
{
    json_t *manifest = peek(folder);
    bool there = is_format(manifest, CORPUS_FORMAT) || holds(folder, CORPUS_FILE);
    json_decref(manifest);
    return there;
}

static bool has_magic(const char *folder)
{
    char path[FILES_PATH], magic[8];
    int descriptor;
    size_t size;
    elbo_error unused;
    if (file_join(path, folder, CORPUS_FILE, &unused) || file_open_regular(&descriptor, &size, path, &unused))
        return false;
    bool good =
        !file_read_at(descriptor, magic, sizeof magic, 0, path, &unused) && !memcmp(magic, CORPUS_MAGIC, sizeof magic);
    close(descriptor);
    return good;
}

struct place {
    const json_t *manifest; /* null: missing or unreadable */
    bool corpus;            /* the files of a corpus may be in the folder */
    bool split;             /* the folders of a split's parts may be in the folder */
};

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    while (count && strcmp(name, names[count - 1])) count--;
    return count > 0;
}

static bool has_part(const json_t *manifest, const char *name)
{
    const json_t *part;
    size_t i;
    if (!manifest) return true;
    json_array_foreach(json_object_get(manifest, "parts"), i, part)
    {
        const char *found = json_string_value(json_object_get(part, "name"));
        if (found && !strcmp(found, name)) return true;
    }
    return false;
}

static elbo_status check_entries(const char *folder, bool top, elbo_error *error);

static elbo_status check_entry(const struct place *place, const char *folder, const char *name, elbo_error *error)
{
    static const char *const files[] = {CORPUS_MANIFEST, CORPUS_FILE, CORPUS_TOKENIZER};
    char path[FILES_PATH];
    struct stat about;
    ELBO_TRY(file_join(path, folder, name, error));
    if (lstat(path, &about)) return errno == ENOENT ? ELBO_OK : file_fail(error, "inspect", path, errno);
    if (S_ISREG(about.st_mode)) {
        if (place->corpus && is_one_of(name, files, 3)) return ELBO_OK;
        if (place->corpus && json_object_get(json_object_get(place->manifest, "files"), name)) return ELBO_OK;
        if (place->split && !strcmp(name, CORPUS_MANIFEST)) return ELBO_OK;
    }
    if (S_ISDIR(about.st_mode) && place->split && is_one_of(name, corpus_part_names, ELBO_PREPARE_PARTS) &&
        has_part(place->manifest, name))
        return check_entries(path, false, error);
    return elbo_fail(error, ELBO_USAGE,
                     "%s is not of a corpus that `elbo prepare` wrote, and prepare replaces the whole "
                     "folder; move it away, or choose another --out",
                     path);
}

static elbo_status check_entries(const char *folder, bool top, elbo_error *error)
{
    json_t *manifest = peek(folder);
    struct place place = {.manifest = manifest};
    place.corpus = manifest ? is_format(manifest, CORPUS_FORMAT) : has_magic(folder);
    place.split = top && !place.corpus && (!manifest || is_format(manifest, SPLIT_FORMAT));
    DIR *list = opendir(folder);
    elbo_status status = list ? ELBO_OK : file_fail(error, "read the folder", folder, errno);
    for (struct dirent *entry; status == ELBO_OK && (errno = 0, entry = readdir(list));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            status = check_entry(&place, folder, entry->d_name, error);
    if (status == ELBO_OK && errno) status = file_fail(error, "read the folder", folder, errno);
    if (list) closedir(list);
    json_decref(manifest);
    return status;
}

/* Refuses to replace one part of a split, because the remaining parts would be taken for parts of the new corpus. */
static elbo_status check_parent(const char *folder, elbo_error *error)
{
    char parent[FILES_PATH];
    const char *slash = strrchr(folder, '/'), *name = slash ? slash + 1 : folder;
    snprintf(parent, sizeof parent, "%.*s", (int)(name - folder), folder);
    if (!*parent) strcpy(parent, ".");
    json_t *manifest = peek(parent);
    bool part = is_format(manifest, SPLIT_FORMAT) && has_part(manifest, name);
    json_decref(manifest);
    if (!part) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE,
                     "%s is a part of the split in %s, and its other parts would be left behind; prepare the "
                     "whole split again, or choose another --out",
                     folder, parent);
}

elbo_status corpus_may_replace(const char *folder, elbo_error *error)
{
    ELBO_TRY(check_parent(folder, error));
    return file_is_folder(folder) ? check_entries(folder, true, error) : ELBO_OK;
}
