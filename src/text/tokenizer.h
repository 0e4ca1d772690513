/* The interface between the public tokenizer and its kinds: one table of functions per kind. A further kind is one more
 * file with one more table, and a row in tokenizer.c. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "text/buffers.h"

#include <jansson.h>

struct elbo_tokenizer;
struct elbo_tokenizer_trainer;

struct tokenizer_ops {
    enum elbo_tokenizer_kind kind;
    const char *name;
    size_t smallest; /* smallest possible vocabulary */
    /* encode and decode append to `ids` and `text` */
    elbo_status (*encode)(void *self, struct elbo_ids *ids, const char *text, size_t size, elbo_error *error);
    elbo_status (*decode)(const void *self, struct elbo_text *text, const uint32_t *ids, size_t count,
                          elbo_error *error);
    size_t (*vocabulary)(const void *self);
    elbo_status (*save)(const void *self, json_t *object, elbo_error *error);
    elbo_status (*load)(void **self, const json_t *object, elbo_error *error);
    void (*close)(void *self);
    elbo_status (*train_open)(void **training, size_t size, elbo_error *error);
    elbo_status (*train_add)(void *training, const char *text, size_t size, elbo_error *error);
    elbo_status (*train_finish)(void *training, void **self, elbo_error *error);
    void (*train_close)(void *training);
};

extern const struct tokenizer_ops tokenizer_byte, tokenizer_word, tokenizer_bpe;

/* Parses the text of a tokenizer.json; `path` is for messages. */
elbo_status tokenizer_parse(struct elbo_tokenizer **tokenizer, const char *text, size_t size, const char *path,
                            elbo_error *error);

#endif
