/* The recording: values, nodes, and the functions that record a model.
 *
 *     struct graph *g;                      graph_create(&g, "train", parameters, capacities)
 *     value x = graph_input(g, "ids", ...)  op_embedding(g, ...) ...       (ops/ops.h)
 *     graph_differentiate(g, loss, ...)     (autodiff.h)
 *     plan, execute, account                (plan.h, execute.h with backend.h, account.h)
 *
 * A value is a dense tensor, row-major. Its first dimension may be of a counted kind: the recording then holds a
 * capacity and each execution a count. Errors while recording are sticky: the first one is kept and reported by
 * graph_check, so that a model reads as a list of equations. */
#ifndef GRAPH_GRAPH_H
#define GRAPH_GRAPH_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_RANK = 4, MAX_INPUTS = 12, MAX_OUTPUTS = 4 };

/* Slots that mean the same for every op: its first input, its result, and the output that `sums` below speaks of. */
enum { IN_FIRST = 0, OUT_RESULT = 0, OUT_SECOND };

/* The bit of a slot in a mask of slots. */
#define SLOT(k)    (1u << (k))
#define EVERY_SLOT (~0u)

enum dim_kind {
    DIM_FIXED,
    DIM_ENC_TOKENS, /* packed tokens that the encoder reads */
    DIM_DEC_TOKENS, /* packed tokens that the decoder predicts */
    DIM_SENTENCES,
    DIM_DRAWS, /* sentences x samples of z; one sample each in training */
    DIM_KINDS
};

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_I32, DTYPE_U64 };

struct dim {
    enum dim_kind kind;
    size_t size; /* the size if DIM_FIXED; else added to the count (1 for the S + 1 offsets) */
};

/* Index of a value in its graph; 0 means no value. */
typedef struct value {
    uint32_t index;
} value;

#define NO_VALUE ((value){0})

enum value_class {
    VALUE_ACTIVATION, /* computed, placed by the memory plan */
    VALUE_INPUT,      /* bound by the caller at each execution */
    VALUE_PARAMETER,  /* a weight of the model */
    VALUE_GRADIENT,   /* gradient of a weight */
    VALUE_STATE       /* persists between executions; written only by ops that declare it */
};

/* The content of an input's rows between the count and the row size that a backend computes (backend.h). */
enum pad_rule {
    PAD_ZERO,
    PAD_MINUS_ONE, /* labels: the row has no loss */
    PAD_MOST,      /* ids, positions: the largest so far, so that their PAD_ROW order stays sorted */
    PAD_ROW,       /* an order of rows: the row's own index */
    PAD_LAST       /* offsets: the last one again, which is an empty sentence */
};

struct value_info {
    enum value_class class;
    enum dtype dtype;
    size_t rank;
    struct dim dim[MAX_RANK];
    const char *name;
    uint32_t producer;  /* 1 + the node that writes the value first; 0: none */
    uint32_t binding;   /* input, parameter or state number */
    bool kept;          /* the host reads it after the execution */
    enum pad_rule pad;  /* inputs only */
    bool wide_gradient; /* the gradient is f32 whatever the value's type */
    bool resident;      /* an input that already lies in the backend's memory */
    size_t longest;     /* offsets of fixed rows: rows of the longest sentence */
};

/* How a node writes an output. */
enum write_mode {
    WRITE,                /* = */
    WRITE_UPDATE,         /* reads the value and writes it in place */
    WRITE_ADD,            /* += */
    WRITE_ADD_LATER_SLOTS /* = in a step's first slot, += in later ones */
};

/* An op's parameters beyond its inputs; each op family names the fields that it uses. */
struct attributes {
    int64_t i[8];
    double f[4];
    uint64_t purpose; /* of the op's noise: hash of the op's stable name (base/philox.h) */
};

struct op_type;

struct node {
    const struct op_type *type;
    value in[MAX_INPUTS];
    value out[MAX_OUTPUTS];
    enum write_mode mode[MAX_OUTPUTS];
    struct attributes attr;
    const char *name; /* stable: decoder.1.attention */
    size_t number;    /* the node's index in the recording */
    int block;        /* the node's recompute block; -1: none */
    bool replaced;    /* computed by a later, fused node */
    bool backward;
};

struct graph;
struct autodiff;
struct shape_view;

/* One entry per op; ops/ holds them. */
struct op_type {
    const char *name;
    unsigned index;       /* index into a backend's table of kernels */
    unsigned accumulates; /* bit k: output k may be written with += */
    bool cheap;           /* little arithmetic: recomputed under `recompute: cheap` */
    bool sums;            /* output 1, when given, is all that the backward pass needs of the inputs */
    /* Emits the backward nodes of `n`; null: not differentiable. */
    void (*gradient)(struct autodiff *ad, const struct node *n);
    /* Emits nodes that rebuild output k from other kept values; null: the node itself is repeated. */
    value (*recompute)(struct autodiff *ad, const struct node *n, unsigned k);
    /* Returns the floating-point operations at the given sizes (a multiply and an add count as 2); null: elements
     * written. */
    double (*flops)(const struct shape_view *s, const struct attributes *attr);
    /* Returns the bytes moved, when they are not the inputs once and the outputs once (`plain`). `element`: bytes per
     * element of the first input. */
    double (*bytes)(const struct shape_view *s, double plain, double element);
};

/* Sizes of one node's values under given counts. */
struct shape_view {
    size_t in[MAX_INPUTS][MAX_RANK];
    size_t out[MAX_OUTPUTS][MAX_RANK];
};

struct parameters;

struct graph_capacities {
    size_t count[DIM_KINDS];
};

elbo_status graph_create(struct graph **g, const char *name, struct parameters *parameters,
                         const struct graph_capacities *capacities, elbo_error *error);
void graph_free(struct graph *g);

/* Sets the type in which weights are read (those marked `master` are always f32), and so that of the activations; f32
 * by default. Call before the first value is recorded. */
void graph_precision(struct graph *g, enum dtype precision);

/* Returns the first error of the recording, if any. */
elbo_status graph_check(const struct graph *g, elbo_error *error);

/* Records a sticky failure of an op's recording function; returns NO_VALUE. */
value graph_fail(struct graph *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Does the same when memory ran out: "to record a node". */
value graph_starve(struct graph *g, const char *what);

/* ---- values ---- */
value graph_input(struct graph *g, const char *name, enum dtype dtype, size_t rank, const struct dim *dim);
value graph_state(struct graph *g, const char *name, enum dtype dtype, size_t rank, const struct dim *dim);
value graph_activation(struct graph *g, const char *name, enum dtype dtype, size_t rank, const struct dim *dim);
value graph_parameter(struct graph *g, size_t parameter);
value graph_gradient(struct graph *g, size_t parameter);
void graph_keep(struct graph *g, value v);
void graph_wide_gradient(struct graph *g, value v);
/* Declares that the input will be bound to the backend's own memory (an arena), not to the host's. */
void graph_resident(struct graph *g, value v);
void graph_pad(struct graph *g, value v, enum pad_rule rule);
/* Tells the rows of the longest sentence, for offsets of fixed rows. For counted rows, each execution tells them. */
void graph_longest(struct graph *g, value v, size_t rows);

const struct value_info *graph_value(const struct graph *g, value v);
size_t graph_values(const struct graph *g);
size_t graph_inputs(const struct graph *g);
size_t graph_states(const struct graph *g);
value graph_input_at(const struct graph *g, size_t binding);
value graph_input_named(const struct graph *g, const char *name); /* NO_VALUE when absent */
struct parameters *graph_parameters(const struct graph *g);
const struct graph_capacities *graph_capacity(const struct graph *g);

/* Return the size of dimension `d`, the elements and the bytes of a value, under the counts (or the capacities). */
size_t graph_dim(const struct graph *g, value v, size_t d, const size_t count[DIM_KINDS]);
size_t graph_elements(const struct graph *g, value v, const size_t count[DIM_KINDS]);
size_t graph_bytes(const struct graph *g, value v, const size_t count[DIM_KINDS]);
size_t dtype_bytes(enum dtype dtype);
/* Returns the width of the last dimension (fixed). */
size_t graph_width(const struct graph *g, value v);

/* ---- nodes ---- */
/* Sets the scope that names the nodes recorded from here on: graph_scope(g, "decoder.%zu.attention", l). */
void graph_scope(struct graph *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Sets the recompute block of the nodes recorded from here on; -1 ends it. */
void graph_block(struct graph *g, int block);
uint64_t graph_purpose(const struct graph *g, const char *what); /* hash of "scope.what" */

struct node *graph_node(struct graph *g, const struct op_type *type);
void node_in(struct graph *g, struct node *n, unsigned slot, value v);
/* Records a fresh activation as output `slot`. */
value node_out(struct graph *g, struct node *n, unsigned slot, const char *name, enum dtype dtype, size_t rank,
               const struct dim *dim);
/* Makes an existing value an output: gradients, state, a forward value that a fused node writes later. */
void node_out_into(struct graph *g, struct node *n, unsigned slot, value v, enum write_mode mode);

size_t graph_nodes(const struct graph *g);
struct node *graph_node_at(struct graph *g, size_t i);
const struct node *graph_node_get(const struct graph *g, size_t i);

/* Returns the order of execution as node numbers. It is the recorded order until autodiff defers outputs that a fused
 * node computes later. */
size_t graph_schedule(const struct graph *g, const uint32_t **order);
void graph_defer_replaced(struct graph *g);

#endif
