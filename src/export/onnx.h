/* Writing ONNX graphs (opset 17) from recordings. A rule turns a node of the recording into nodes of ONNX; the rules
 * are a table by op (onnx_rules.c), and an op without one is refused by name.
 *
 * Rows of tokens, packed in a recording, are (batch, time, width) here, with a mask; rows of sentences are (batch,
 * width). What a graph does not need is not written: a value is written when it is first asked for.
 *
 * Tensors are strings; errors are sticky (onnx_failed), and nothing is written from then on. */
#ifndef EXPORT_ONNX_H
#define EXPORT_ONNX_H

#include "export/format.h"
#include "formats/protobuf.h"
#include "graph/graph.h"

/* Weights of all graphs of an export: one file, each tensor once. */
struct onnx_data {
    struct file_writer *writer;
    const char *file; /* its name, beside the graphs */
    struct onnx_entry {
        char *name;
        uint64_t offset, size;
    } * entries;
    size_t count, room;
    uint64_t size;
};
void onnx_data_free(struct onnx_data *d);

struct onnx {
    const struct export_source *source;
    const struct graph *g;
    struct onnx_data *data;
    bool decoder;
    int bits;                                          /* of the weights of products over tokens: 32, 8 or 4 */
    size_t prefix;                                     /* rows in front of the decoder's tokens              */
    struct bytes nodes, initializers, inputs, outputs; /* fields of a GraphProto */
    const char **of;                                   /* (values) its tensor; null: not written yet */
    char **strings;
    size_t string_count, string_room, numbered;
    size_t layers;            /* of attention or recurrence, so far          */
    const char *allowed;      /* which keys a row may attend to; null        */
    const char **initialized; /* names of the initializers */
    size_t initialized_count, initialized_room;
    elbo_status status;
    elbo_error *error;
};

enum onnx_type { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT32 = 6, ONNX_INT64 = 7, ONNX_BOOL = 9, ONNX_DOUBLE = 11 };

/* ---- a graph ---- */

elbo_status onnx_begin(struct onnx *x, const struct export_source *s, const struct graph *g, struct onnx_data *data,
                       elbo_error *error);
/* folder/name, a ModelProto. */
elbo_status onnx_write(struct onnx *x, const char *folder, const char *name);
void onnx_free(struct onnx *x);

/* ---- for rules ---- */

/* The tensor of a value: writes what it depends on. */
const char *onnx_of(struct onnx *x, value v);
void onnx_set(struct onnx *x, value v, const char *tensor);
void onnx_fail(struct onnx *x, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A string of the graph's own. */
const char *onnx_string(struct onnx *x, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A name that no other tensor has: what_N. */
const char *onnx_fresh(struct onnx *x, const char *what);

/* A node, and its first output; attributes: "axis=-1;perm=[0,2,1];direction='forward';epsilon=1e-5", a number with a
 * point or an exponent being a float. An empty input is one that is left out. */
#define ONNX_IN(...) ((const char *const[]){__VA_ARGS__, NULL})
const char *onnx_node(struct onnx *x, const char *op, const char *const *in, const char *attributes);
/* The same with outputs by name. */
void onnx_nodes(struct onnx *x, const char *op, const char *const *in, const char *attributes, const char *const *out);

/* Constants: int64 (count), a float, and a weight of the file (rank <= 4), which is written once under its name. */
#define ONNX_INTEGERS(x, ...)                                                                                          \
    onnx_integers(x, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
const char *onnx_integers(struct onnx *x, const int64_t *values, size_t count);
const char *onnx_integer(struct onnx *x, int64_t number); /* a scalar */
const char *onnx_real(struct onnx *x, double number);     /* a scalar */
const char *onnx_weight(struct onnx *x, const char *name, enum onnx_type type, const size_t *shape, size_t rank,
                        const void *data);

/* Values of a parameter on the host; null: it is none. */
const float *onnx_host(const struct onnx *x, value v);

void onnx_input(struct onnx *x, const char *name, enum onnx_type type, const char *dims);
void onnx_output(struct onnx *x, const char *name, enum onnx_type type, const char *dims); /* "batch,time,128" */

/* Shorthand: Reshape to a constant shape (0: as it is), Transpose, Unsqueeze at one axis. */
const char *onnx_reshape(struct onnx *x, const char *tensor, const int64_t *shape, size_t count);
#define ONNX_RESHAPE(x, tensor, ...)                                                                                   \
    onnx_reshape(x, tensor, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
const char *onnx_unsqueeze(struct onnx *x, const char *tensor, int64_t axis);
/* One size of a tensor, a scalar int64. */
const char *onnx_size(struct onnx *x, const char *tensor, int64_t axis);
/* x W^T, W the parameter `w` (O, I). tokens: in fewer bits where the export has them. */
const char *onnx_product(struct onnx *x, const char *tensor, value w, bool tokens);

/* (batch, time) int64 of the encoder, (batch, past + time) of the decoder: 1 where there is a token. */
#define ONNX_MASK "attention_mask"
#define ONNX_IDS  "input_ids"
/* (batch, time) float, the encoder's. */
const char *onnx_mask(struct onnx *x);

/* The rules of files of their own. */
void onnx_attention(struct onnx *x, const struct node *n);
void onnx_rotary(struct onnx *x, const struct node *n);
void onnx_recurrent(struct onnx *x, const struct node *n);
void onnx_posterior(struct onnx *x, const struct node *n);
void onnx_normalize(struct onnx *x, const struct node *n);

/* Writes a node of the recording by its rule. */
void onnx_rule(struct onnx *x, const struct node *n);

#endif
