/* The byte tokenizer: id = MARKS + byte, V = 259. */
#include "text/tokenizer.h"

static elbo_status encode(void *self, struct elbo_ids *ids, const char *text, size_t size, elbo_error *error)
{
    (void)self;
    for (size_t i = 0; i < size; i++) ELBO_TRY(ids_append(ids, MARKS + (unsigned char)text[i], error));
    return ELBO_OK;
}

static elbo_status decode(const void *self, struct elbo_text *text, const uint32_t *ids, size_t count,
                          elbo_error *error)
{
    (void)self;
    for (size_t i = 0; i < count; i++) {
        unsigned char byte = (unsigned char)(ids[i] - MARKS);
        if (ids[i] >= MARKS)
            ELBO_TRY(text_append(text, &byte, 1, error));
        else if (ids[i] == MARK_UNKNOWN)
            ELBO_TRY(text_append(text, "\xef\xbf\xbd", 3, error));
    }
    return ELBO_OK;
}

static size_t vocabulary(const void *self)
{
    (void)self;
    return MARKS + 256;
}

static elbo_status save(const void *self, json_t *object, elbo_error *error)
{
    (void)self, (void)object, (void)error;
    return ELBO_OK;
}

static elbo_status load(void **self, const json_t *object, elbo_error *error)
{
    (void)object, (void)error;
    *self = NULL;
    return ELBO_OK;
}

static void close_byte(void *self)
{
    (void)self;
}

static elbo_status train_open(void **training, size_t size, elbo_error *error)
{
    (void)size, (void)error;
    *training = NULL;
    return ELBO_OK;
}

static elbo_status train_add(void *training, const char *text, size_t size, elbo_error *error)
{
    (void)training, (void)text, (void)size, (void)error;
    return ELBO_OK;
}

static elbo_status train_finish(void *training, void **self, elbo_error *error)
{
    (void)training, (void)error;
    *self = NULL;
    return ELBO_OK;
}

const struct tokenizer_ops tokenizer_byte = {
    .kind = ELBO_TOKENIZER_BYTE,
    .name = "byte",
    .smallest = MARKS + 256,
    .encode = encode,
    .decode = decode,
    .vocabulary = vocabulary,
    .save = save,
    .load = load,
    .close = close_byte,
    .train_open = train_open,
    .train_add = train_add,
    .train_finish = train_finish,
    .train_close = close_byte,
};
