/* The formats' own interface, and what they share: files of the folder, weights as the tensors of a file. */
#ifndef EXPORT_FORMAT_H
#define EXPORT_FORMAT_H

#include "checkpoint/arena.h"
#include "export/export.h"

struct export_format {
    const char *name;
    bool bits; /* weights of 8 or 4 bits */
    /* Why the format cannot hold the model: ELBO_USAGE. Null: it holds every model. */
    elbo_status (*check)(const struct export_source *s, const struct export_options *o, elbo_error *error);
    elbo_status (*write)(const struct export_source *s, const struct export_options *o, const char *folder,
                         elbo_error *error);
};

extern const struct export_format export_hf, export_onnx, export_gguf, export_f32, export_q8, export_q4;

/* A file that comes with the program: src/export/files/NAME. */
struct export_file {
    const char *name;
    const unsigned char *bytes;
    size_t size;
};
extern const struct export_file export_files[]; /* ends with a null name */

/* folder/name from a file that comes with the program. */
elbo_status export_copy(const char *folder, const char *name, elbo_error *error);
elbo_status export_text(const char *folder, const char *name, const char *text, size_t size, elbo_error *error);
/* folder/name from a value, which is freed; null: for want of memory. */
elbo_status export_json(const char *folder, const char *name, json_t *root, elbo_error *error);

/* Text that grows; *failed once memory was wanting, and nothing is added from then on. */
struct export_words {
    struct elbo_text text;
    bool failed;
};
void export_print(struct export_words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The tensors of a safetensors file, of parameters and of arrays that the list owns. */
struct export_tensors {
    struct arena arena;
    struct safetensors_tensor *tensors;
    void **owned; /* names and arrays */
    size_t count, room, owned_count, owned_room;
};

void export_tensors_begin(struct export_tensors *t, const struct export_source *s);
/* A parameter under a name of its own, as it is. */
elbo_status export_tensors_keep(struct export_tensors *t, const struct parameter *p, const char *name,
                                elbo_error *error);
/* An f32 array (rows, columns), or (rows) where columns is 0, which is freed with the list; it is zero. */
elbo_status export_tensors_make(struct export_tensors *t, float **out, const char *name, size_t rows, size_t columns,
                                elbo_error *error);
/* folder/name, a safetensors file. */
elbo_status export_tensors_write(const struct export_tensors *t, const char *folder, const char *name,
                                 elbo_error *error);
void export_tensors_free(struct export_tensors *t);

/* Weights of the parameter that is called so (printf); null: the model has none. */
const float *export_weights(const struct export_source *s, const struct parameter **p, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
