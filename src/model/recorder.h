/* Recording helpers shared by a model's parts: the graph, the table of parameters, and the sequence that a stack reads.
 *
 * A stack (model/stack.h) reads a sequence: a slot's sentences packed in one row of tokens, or one new token per row,
 * with state of the earlier tokens. */
#ifndef MODEL_RECORDER_H
#define MODEL_RECORDER_H

#include "graph/graph.h"
#include "graph/parameters.h"
#include "model/config.h"
#include "ops/ops.h"

struct recorder {
    struct graph *g;
    struct parameters *parameters;
    const struct model_config *config;
    enum dtype precision; /* of the stacks */
    bool training;        /* dropout, word dropout and noise are on */
    value switches;       /* (K) f32 of a training step, or none; element `switch_beta` is 0 while beta is not 1 */
    size_t switch_beta;
};

/* A slot's packed rows, or one new token per row (a step). */
struct sequence {
    value ids, position;            /* (N) i32; ids may be none if there are vectors */
    value vectors;                  /* (N, D) rows in place of token embeddings; or none */
    value id_order, position_order; /* (N) i32, packed only */
    value sentence, offsets;        /* packed only */
    value sample;                   /* (S) u64, packed only */
    value label, label_order; /* (S) i32 class of each sentence, or (N) in a step, and sentences by rising class; none:
                                 a model without labels */
    value history;            /* (N, room) i32, in a step where a beam reorders rows */
};

/* Creates a graph to record in, with the configuration's precision. */
elbo_status recorder_begin(struct recorder *r, struct graph **g, const char *name, const struct model_config *config,
                           struct parameters *parameters, const struct graph_capacities *capacities, elbo_error *error);

/* Creates a packed sequence's inputs, named "<stream>.ids" and so on; `rows` is its token dimension. */
struct sequence sequence_packed(struct recorder *r, const char *stream, enum dim_kind rows, value sample);

/* Creates the rows of `sentences` sequences of `length` rows each; the caller sets their vectors. The inputs belong to
 * no slot: recording_plan fills "uniform.<name>". */
struct sequence sequence_uniform(struct recorder *r, size_t sentences, size_t length);

/* Declares (or finds) a parameter; the name is printf style. Errors are sticky in the graph. */
value recorder_parameter(struct recorder *r, enum parameter_part part, struct parameter_init init, size_t rank,
                         size_t rows, size_t columns, const char *format, ...) __attribute__((format(printf, 7, 8)));

/* Weights drawn from N(0, std^2), or all equal to `mean`. */
static inline struct parameter_init init_normal(double std)
{
    return (struct parameter_init){.kind = INIT_NORMAL, .std = std};
}

static inline struct parameter_init init_constant(double mean)
{
    return (struct parameter_init){.kind = INIT_CONSTANT, .mean = mean};
}

/* Declares (or finds) a fully described parameter. */
value recorder_declare(struct recorder *r, const struct parameter *p);

/* Records y = x W^T (+ b), or gelu of it, with parameters "<name>.weight" and, when `bias`, "<name>.bias". */
value recorder_linear(struct recorder *r, enum parameter_part part, value x, size_t width, double std, bool bias,
                      bool gelu, const char *name);

/* Returns a stack's token table (shared if the configuration says so). */
value recorder_token_table(struct recorder *r, const char *stack);
/* Returns the row (1, D) that replaces dropped words with objective.dropped_mark=own. */
value recorder_mark_table(struct recorder *r, const char *stack);

/* Returns a stack's table of labels. */
value recorder_label_table(struct recorder *r, const char *stack);

/* Returns one row (S, D) per sentence. */
value encoder_record(struct recorder *r, const struct sequence *source);

/* Returns one row (N, D) per target token, given z (S, Z) or none. */
value decoder_record(struct recorder *r, const struct sequence *target, value z);

/* Returns one row (R, D) per new token, given z (R, Z) or none. `sequence` gets the inputs that the decoder's kind
 * needs for a beam. */
value decoder_record_step(struct recorder *r, struct sequence *sequence, value z, size_t room, bool beam);

/* Returns the output layer's weights (V, D). */
value decoder_output_weights(struct recorder *r);

#endif
