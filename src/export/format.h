/* The interface of a format, and helpers that formats share: files of the folder, and weights as the tensors of a
 * file. */
#ifndef EXPORT_FORMAT_H
#define EXPORT_FORMAT_H

#include "checkpoint/arena.h"
#include "export/export.h"

struct export_format {
    const char *name;
    bool bits; /* the format has weights of 8 or 4 bits */
    /* Refuses, with ELBO_USAGE and the reason, a model that the format cannot hold. Null: it holds every model. */
    elbo_status (*check)(const struct export_source *s, const struct export_options *o, elbo_error *error);
    elbo_status (*write)(const struct export_source *s, const struct export_options *o, const char *folder,
                         elbo_error *error);
};

extern const struct export_format export_hf, export_onnx, export_gguf, export_f32, export_q8, export_q4;

/* A file built into the program: src/export/files/NAME. */
struct export_file {
    const char *name;
    const unsigned char *bytes;
    size_t size;
};
extern const struct export_file export_files[]; /* ends with a null name */

/* Writes folder/name from the file built into the program. */
elbo_status export_copy(const char *folder, const char *name, elbo_error *error);
elbo_status export_text(const char *folder, const char *name, const char *text, size_t size, elbo_error *error);
/* Writes folder/name from a JSON value and frees it; null: memory ran out. */
elbo_status export_json(const char *folder, const char *name, json_t *root, elbo_error *error);

/* Text that grows. `failed` is set when memory runs out; later text is dropped. */
struct export_words {
    struct elbo_text text;
    bool failed;
};
void export_print(struct export_words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The tensors of a safetensors file: parameters, and arrays that the list owns. */
struct export_tensors {
    struct arena arena;
    struct safetensors_tensor *tensors;
    void **owned; /* names and arrays */
    size_t count, room, owned_count, owned_room;
};

void export_tensors_begin(struct export_tensors *t, const struct export_source *s);
/* Adds a parameter, unchanged, under another name. */
elbo_status export_tensors_keep(struct export_tensors *t, const struct parameter *p, const char *name,
                                elbo_error *error);
/* Adds an f32 array (rows, columns), or (rows) if columns is 0. The array is zero and is freed with the list. */
elbo_status export_tensors_make(struct export_tensors *t, float **out, const char *name, size_t rows, size_t columns,
                                elbo_error *error);
/* Writes folder/name, a safetensors file. */
elbo_status export_tensors_write(const struct export_tensors *t, const char *folder, const char *name,
                                 elbo_error *error);
void export_tensors_free(struct export_tensors *t);

/* Returns the weights of the parameter with this name (printf); null: the model lacks it. */
const float *export_weights(const struct export_source *s, const struct parameter **p, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
