/* Writes ONNX graphs (opset 17) from recordings. A rule turns a node of the recording into ONNX nodes. The rules are a
 * table by op (onnx_rules.c); an op without a rule is refused by name.
 *
 * Rows of tokens, packed in a recording, are (batch, time, width) here, with a mask; rows of sentences are (batch,
 * width). A value is written when it is first asked for, so unused values are not written.
 *
 * Tensors are strings. Errors are sticky (onnx_fail), and nothing is written after an error. */
#ifndef EXPORT_ONNX_H
#define EXPORT_ONNX_H

#include "export/format.h"
#include "formats/protobuf.h"
#include "graph/graph.h"

/* The weights of all graphs of an export: one file with each tensor once. */
struct onnx_data {
    struct file_writer *writer;
    const char *file; /* name of the file, beside the graphs */
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
    int bits;                                          /* of weights multiplied with rows of tokens: 32, 8 or 4 */
    size_t prefix;                                     /* rows in front of the decoder's tokens */
    struct bytes nodes, initializers, inputs, outputs; /* fields of a GraphProto */
    const char **of;                                   /* (values) tensor of each value; null: not written yet */
    char **strings;
    size_t string_count, string_room, numbered;
    size_t layers;            /* layers of attention or recurrence so far */
    const char *allowed;      /* tensor that tells which keys a row may attend to; null: not written yet */
    const char **initialized; /* names of the initializers */
    size_t initialized_count, initialized_room;
    elbo_status status;
    elbo_error *error;
};

enum onnx_type { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT32 = 6, ONNX_INT64 = 7, ONNX_BOOL = 9, ONNX_DOUBLE = 11 };

/* ---- a graph ---- */

elbo_status onnx_begin(struct onnx *x, const struct export_source *s, const struct graph *g, struct onnx_data *data,
                       elbo_error *error);
/* Writes folder/name, a ModelProto. */
elbo_status onnx_write(struct onnx *x, const char *folder, const char *name);
void onnx_free(struct onnx *x);

/* ---- for rules ---- */

/* Returns the tensor of a value, after writing the nodes that it depends on. */
const char *onnx_of(struct onnx *x, value v);
void onnx_set(struct onnx *x, value v, const char *tensor);
void onnx_fail(struct onnx *x, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Returns a string that the graph owns. */
const char *onnx_string(struct onnx *x, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Returns a name that no other tensor has: what_N. */
const char *onnx_fresh(struct onnx *x, const char *what);

/* Adds a node and returns its first output. Attributes: "axis=-1;perm=[0,2,1];direction='forward';epsilon=1e-5"; a
 * number with a point or an exponent is a float. An empty string leaves an input out. */
#define ONNX_IN(...) ((const char *const[]){__VA_ARGS__, NULL})
const char *onnx_node(struct onnx *x, const char *op, const char *const *in, const char *attributes);
/* Adds a node with named outputs. */
void onnx_nodes(struct onnx *x, const char *op, const char *const *in, const char *attributes, const char *const *out);

/* Return constants: int64 (count), a float, and a weight of the file (rank <= 4), which is written once under its
 * name. */
#define ONNX_INTEGERS(x, ...)                                                                                          \
    onnx_integers(x, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
const char *onnx_integers(struct onnx *x, const int64_t *values, size_t count);
const char *onnx_integer(struct onnx *x, int64_t number); /* a scalar */
const char *onnx_real(struct onnx *x, double number);     /* a scalar */
const char *onnx_weight(struct onnx *x, const char *name, enum onnx_type type, const size_t *shape, size_t rank,
                        const void *data);

/* Returns the host values of a parameter; null: the value is not a parameter. */
const float *onnx_host(const struct onnx *x, value v);

void onnx_input(struct onnx *x, const char *name, enum onnx_type type, const char *dims);
void onnx_output(struct onnx *x, const char *name, enum onnx_type type, const char *dims); /* "batch,time,128" */

/* Shorthand: Reshape to a constant shape (0: unchanged), Transpose, Unsqueeze at one axis. */
const char *onnx_reshape(struct onnx *x, const char *tensor, const int64_t *shape, size_t count);
#define ONNX_RESHAPE(x, tensor, ...)                                                                                   \
    onnx_reshape(x, tensor, (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
const char *onnx_unsqueeze(struct onnx *x, const char *tensor, int64_t axis);
/* Returns one size of a tensor, a scalar int64. */
const char *onnx_size(struct onnx *x, const char *tensor, int64_t axis);
/* Returns x W^T, where W is the parameter `w` (O, I). `tokens`: rows of tokens, with W in fewer bits if the export has
 * them. */
const char *onnx_product(struct onnx *x, const char *tensor, value w, bool tokens);

/* Mask: (batch, time) int64 for the encoder, (batch, past + time) for the decoder; 1 at tokens. */
#define ONNX_MASK "attention_mask"
#define ONNX_IDS  "input_ids"
/* Returns the encoder's mask as float (batch, time). */
const char *onnx_mask(struct onnx *x);

/* Rules in files of their own. */
void onnx_attention(struct onnx *x, const struct node *n);
void onnx_rotary(struct onnx *x, const struct node *n);
void onnx_recurrent(struct onnx *x, const struct node *n);
void onnx_posterior(struct onnx *x, const struct node *n);
void onnx_normalize(struct onnx *x, const struct node *n);

/* Writes a node of the recording by its rule. */
void onnx_rule(struct onnx *x, const struct node *n);

#endif
