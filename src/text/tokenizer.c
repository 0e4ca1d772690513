/* The public tokenizer: dispatches to the kinds and reads and writes the frame of tokenizer.json. */
#include "text/tokenizer.h"

#include "base/files.h"
#include "base/json.h"
#include "base/utf8.h"
#include "text/corpus_format.h"
#include "text/corpus_manifest.h"
#include "text/strings.h"

#include <stdlib.h>
#include <string.h>

#define FORMAT "elbo-tokenizer"
enum { VERSION = 1 };
static const size_t largest_file = (size_t)1 << 30;

static const struct tokenizer_ops *const kinds[] = {&tokenizer_byte, &tokenizer_word, &tokenizer_bpe};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct elbo_tokenizer {
    const struct tokenizer_ops *ops;
    void *self;
    struct elbo_marks marks;
};

struct elbo_tokenizer_trainer {
    const struct tokenizer_ops *ops;
    void *training;
};

/* ---- use ---- */

elbo_status elbo_tokenizer_encode(struct elbo_tokenizer *tokenizer, struct elbo_ids *ids, const char *text, size_t size,
                                  elbo_error *error)
{
    ids->count = 0;
    return tokenizer->ops->encode(tokenizer->self, ids, text, size, error);
}

elbo_status elbo_tokenizer_decode(const struct elbo_tokenizer *tokenizer, struct elbo_text *text, const uint32_t *ids,
                                  size_t count, elbo_error *error)
{
    text->size = 0;
    ELBO_TRY(text_append(text, "", 0, error));
    size_t vocabulary = elbo_tokenizer_vocabulary(tokenizer);
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= vocabulary)
            return elbo_fail(error, ELBO_INPUT,
                             "token id %u at position %zu is outside the vocabulary of %zu; was it made with another "
                             "tokenizer?",
                             ids[i], i, vocabulary);
    return tokenizer->ops->decode(tokenizer->self, text, ids, count, error);
}

size_t elbo_tokenizer_vocabulary(const struct elbo_tokenizer *tokenizer)
{
    return tokenizer->ops->vocabulary(tokenizer->self);
}

const struct elbo_marks *elbo_tokenizer_marks(const struct elbo_tokenizer *tokenizer)
{
    return &tokenizer->marks;
}

enum elbo_tokenizer_kind elbo_tokenizer_kind(const struct elbo_tokenizer *tokenizer)
{
    return tokenizer->ops->kind;
}

const char *elbo_tokenizer_kind_name(enum elbo_tokenizer_kind kind)
{
    return kinds[kind]->name;
}

void elbo_tokenizer_close(struct elbo_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    tokenizer->ops->close(tokenizer->self);
    free(tokenizer);
}

/* Consumes `self`, even if it fails. */
static elbo_status wrap(struct elbo_tokenizer **out, const struct tokenizer_ops *ops, void *self, elbo_error *error)
{
    struct elbo_tokenizer *tokenizer = malloc(sizeof *tokenizer);
    if (!tokenizer) {
        ops->close(self);
        return elbo_fail(error, ELBO_MEMORY, "no memory for a tokenizer");
    }
    *tokenizer = (struct elbo_tokenizer){ops, self, {MARK_START, MARK_END, MARK_UNKNOWN}};
    *out = tokenizer;
    return ELBO_OK;
}

/* ---- training ---- */

elbo_status elbo_tokenizer_trainer_open(struct elbo_tokenizer_trainer **out, enum elbo_tokenizer_kind kind, size_t size,
                                        elbo_error *error)
{
    const struct tokenizer_ops *ops = kinds[kind];
    if (kind != ELBO_TOKENIZER_BYTE && (size < ops->smallest || size > (size_t)1 << 30))
        return elbo_fail(
            error, ELBO_USAGE,
            "tokenizer.size = %zu is out of range for tokenizer.kind %s; it takes %zu to %zu ids, the three "
            "marks included",
            size, ops->name, ops->smallest, (size_t)1 << 30);
    struct elbo_tokenizer_trainer *trainer = malloc(sizeof *trainer);
    if (!trainer) return elbo_fail(error, ELBO_MEMORY, "no memory for a tokenizer");
    trainer->ops = ops;
    elbo_status status = ops->train_open(&trainer->training, size, error);
    if (status == ELBO_OK)
        *out = trainer;
    else
        free(trainer);
    return status;
}

elbo_status elbo_tokenizer_trainer_add(struct elbo_tokenizer_trainer *trainer, const char *text, size_t size,
                                       elbo_error *error)
{
    if (utf8_valid(text, size) != size)
        return elbo_fail(error, ELBO_INPUT, "text to train a tokenizer on is not valid UTF-8; repair it first");
    return trainer->ops->train_add(trainer->training, text, size, error);
}

elbo_status elbo_tokenizer_trainer_finish(struct elbo_tokenizer_trainer *trainer, struct elbo_tokenizer **tokenizer,
                                          elbo_error *error)
{
    void *self = NULL;
    ELBO_TRY(trainer->ops->train_finish(trainer->training, &self, error));
    return wrap(tokenizer, trainer->ops, self, error);
}

void elbo_tokenizer_trainer_close(struct elbo_tokenizer_trainer *trainer)
{
    if (!trainer) return;
    trainer->ops->train_close(trainer->training);
    free(trainer);
}

/* ---- files ---- */

static elbo_status write_json(const char *path, json_t *object, elbo_error *error)
{
    char *text = json_text(object, JSON_INDENT(1));
    if (!text) return elbo_fail(error, ELBO_MEMORY, "no memory to write %s", path);
    elbo_status status = file_write(path, text, strlen(text), error);
    free(text);
    return status;
}

elbo_status elbo_tokenizer_save(const struct elbo_tokenizer *tokenizer, const char *path, elbo_error *error)
{
    json_t *object =
        json_pack("{s:s, s:i, s:s, s:I, s:{s:i, s:i, s:i}}", "format", FORMAT, "version", VERSION, "kind",
                  tokenizer->ops->name, "vocabulary", (json_int_t)tokenizer->ops->vocabulary(tokenizer->self), "marks",
                  "start", MARK_START, "end", MARK_END, "unknown", MARK_UNKNOWN);
    if (!object) return elbo_fail(error, ELBO_MEMORY, "no memory to write %s", path);
    elbo_status status = tokenizer->ops->save(tokenizer->self, object, error);
    if (status == ELBO_OK) status = write_json(path, object, error);
    json_decref(object);
    return status;
}

static elbo_status read_object(void **self, const struct tokenizer_ops **ops, const json_t *object, elbo_error *error)
{
    const char *format = json_string_value(json_object_get(object, "format"));
    const json_t *version = json_object_get(object, "version"), *marks = json_object_get(object, "marks");
    if (!format || strcmp(format, FORMAT))
        return elbo_fail(error, ELBO_INPUT, "is not a tokenizer of elbo (no \"format\": \"" FORMAT "\")");
    if (!json_is_integer(version) || json_integer_value(version) != VERSION)
        return elbo_fail(error, ELBO_INPUT,
                         "has version %lld of the format; this program reads version %d: prepare the corpus again",
                         (long long)json_integer_value(version), VERSION);
    const char *name = json_string_value(json_object_get(object, "kind"));
    *ops = NULL;
    for (size_t i = 0; name && i < KINDS; i++)
        if (!strcmp(kinds[i]->name, name)) *ops = kinds[i];
    if (!*ops) return elbo_fail(error, ELBO_INPUT, "has the unknown kind '%.40s'", name ? name : "");
    const char *const mark_names[MARKS] = {"start", "end", "unknown"};
    for (int i = 0; i < MARKS; i++) {
        const json_t *mark = json_object_get(marks, mark_names[i]);
        if (!json_is_integer(mark) || json_integer_value(mark) != i)
            return elbo_fail(error, ELBO_INPUT, "is damaged: the mark %s must be %d", mark_names[i], i);
    }
    ELBO_TRY((*ops)->load(self, object, error));
    const json_t *vocabulary = json_object_get(object, "vocabulary");
    if (!json_is_integer(vocabulary) || json_integer_value(vocabulary) != (json_int_t)(*ops)->vocabulary(*self)) {
        size_t real = (*ops)->vocabulary(*self);
        (*ops)->close(*self);
        return elbo_fail(error, ELBO_INPUT, "is damaged: it says %lld ids and holds %zu",
                         (long long)json_integer_value(vocabulary), real);
    }
    return ELBO_OK;
}

elbo_status tokenizer_parse(struct elbo_tokenizer **tokenizer, const char *text, size_t size, const char *path,
                            elbo_error *error)
{
    json_error_t json_error;
    bool starved;
    json_t *object = json_read(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &json_error, &starved);
    if (starved) return elbo_fail(error, ELBO_MEMORY, "no memory to read the %zu bytes of %s", size, path);
    if (!object)
        return elbo_fail(error, ELBO_INPUT, "%s:%d:%d: %s; the file is truncated or not a tokenizer", path,
                         json_error.line, json_error.column, json_error.text);
    void *self = NULL;
    const struct tokenizer_ops *ops = NULL;
    elbo_status status = read_object(&self, &ops, object, error);
    json_decref(object);
    if (status != ELBO_OK) return elbo_fail_in(error, "%s ", path);
    return wrap(tokenizer, ops, self, error);
}

elbo_status elbo_tokenizer_load(struct elbo_tokenizer **tokenizer, const char *path, elbo_error *error)
{
    char *text;
    size_t size;
    ELBO_TRY(file_read(&text, &size, path, largest_file, error));
    elbo_status status = tokenizer_parse(tokenizer, text, size, path, error);
    free(text);
    return status;
}

/* Loads the tokenizer of a corpus and checks it against the corpus' manifest and, unless null, the hash `expected`. */
static elbo_status find_in_corpus(struct elbo_tokenizer **tokenizer, const char *folder, const char *expected,
                                  elbo_error *error)
{
    char path[FILES_PATH], hash[CORPUS_HEX], *text;
    size_t size;
    json_t *manifest;
    ELBO_TRY(file_join(path, folder, CORPUS_TOKENIZER, error));
    ELBO_TRY(corpus_manifest_read(&manifest, folder, error));
    elbo_status status = corpus_read_file(&text, &size, hash, manifest, folder, CORPUS_TOKENIZER, error);
    json_decref(manifest);
    ELBO_TRY(status);
    if (expected && strcmp(hash, expected))
        status = elbo_fail(error, ELBO_INPUT,
                           "%s is not the tokenizer of the split that it lies in; prepare the corpus again", path);
    else
        status = tokenizer_parse(tokenizer, text, size, path, error);
    free(text);
    return status;
}

static elbo_status find_once(struct elbo_tokenizer **tokenizer, const char *path, elbo_error *error)
{
    struct corpus_split split;
    char inside[FILES_PATH];
    bool there;
    if (!file_is_folder(path)) return elbo_tokenizer_load(tokenizer, path, error);
    ELBO_TRY(corpus_split_read(&split, &there, path, error));
    if (there) {
        ELBO_TRY(file_join(inside, path, split.parts[0].name, error));
        return find_in_corpus(tokenizer, inside, split.tokenizer, error);
    }
    if (corpus_is_there(path)) return find_in_corpus(tokenizer, path, NULL, error);
    ELBO_TRY(file_join(inside, path, "train", error));
    if (corpus_is_there(inside)) return find_in_corpus(tokenizer, inside, NULL, error);
    ELBO_TRY(file_join(inside, path, "tokenizer.json", error));
    if (file_is_regular(inside)) return elbo_tokenizer_load(tokenizer, inside, error);
    return elbo_fail(error, ELBO_IO, "%s holds no tokenizer.json; give a corpus, a model, or the file itself", path);
}

elbo_status elbo_tokenizer_find(struct elbo_tokenizer **tokenizer, const char *path, elbo_error *error)
{
    elbo_status status = ELBO_OK;
    for (int i = 0; i < CORPUS_TRIES; i++) {
        struct corpus_place place = corpus_look(path);
        status = find_once(tokenizer, path, error);
        if (status == ELBO_OK || !corpus_was_replaced(&place, path)) break;
    }
    return status;
}
