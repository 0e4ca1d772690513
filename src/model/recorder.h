/* What the recording functions of a model share: the graph, the table of parameters, and the sequence that a stack
 * reads.
 *
 * A stack (model/stack.h) reads a sequence: a slot's sentences packed in one row of tokens, or one new token per row,
 * with state of the earlier ones. */
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
    value switches;       /* (K) f32 of a training step; element `switch_beta` is 0 while beta is not 1; or none */
    size_t switch_beta;
};

/* A slot's packed rows, or one new token per row (a step). */
struct sequence {
    value ids, position;            /* (N) i32; ids may be none where there are vectors          */
    value vectors;                  /* (N, D) rows in place of the token table's; or none        */
    value id_order, position_order; /* (N) i32, packed only                                      */
    value sentence, offsets;        /* packed only                                               */
    value sample;                   /* (S) u64, packed only                                      */
    value label, label_order;       /* (S) i32 class of each sentence, or (N) of a step, and sentences by rising class;
                                       none: a model without labels                             */
    value history;                  /* (N, room) i32, of a step, where a beam reorders rows       */
};

/* A graph to record in, of the configuration's precision. */
elbo_status recorder_begin(struct recorder *r, struct graph **g, const char *name, const struct model_config *config,
                           struct parameters *parameters, const struct graph_capacities *capacities, elbo_error *error);

/* A packed sequence's inputs, named "<stream>.ids" and so on; `rows` is its token dimension. */
struct sequence sequence_packed(struct recorder *r, const char *stream, enum dim_kind rows, value sample);

/* The rows of `sentences` sequences of `length` rows each, whose vectors the caller sets. Its inputs belong to no slot:
 * "uniform.<what>", which recording_plan fills. */
struct sequence sequence_uniform(struct recorder *r, size_t sentences, size_t length);

/* Declares (or finds) a parameter; the name is printf style. Errors are sticky in the graph. */
value recorder_parameter(struct recorder *r, enum parameter_part part, struct parameter_init init, size_t rank,
                         size_t rows, size_t columns, const char *format, ...) __attribute__((format(printf, 7, 8)));

/* Weights drawn N(0, std^2), or all `mean`. */
static inline struct parameter_init init_normal(double std)
{
    return (struct parameter_init){.kind = INIT_NORMAL, .std = std};
}

static inline struct parameter_init init_constant(double mean)
{
    return (struct parameter_init){.kind = INIT_CONSTANT, .mean = mean};
}

/* The same of a parameter that is described whole. */
value recorder_declare(struct recorder *r, const struct parameter *p);

/* y = x W^T (+ b) with parameters "<name>.weight" and, when `bias`, "<name>.bias". */
value recorder_linear(struct recorder *r, enum parameter_part part, value x, size_t width, double std, bool bias,
                      bool gelu, const char *name);

/* The Transformer's token table of a stack (shared where the configuration says so). */
value recorder_token_table(struct recorder *r, const char *stack);
/* (1, D) the row behind it: what dropped words become, with objective.dropped_mark=own. */
value recorder_mark_table(struct recorder *r, const char *stack);

/* The table of labels of a stack. */
value recorder_label_table(struct recorder *r, const char *stack);

/* One row (S, D) per sentence. */
value encoder_record(struct recorder *r, const struct sequence *source);

/* One row (N, D) per target token, given z (S, Z) or none. */
value decoder_record(struct recorder *r, const struct sequence *target, value z);

/* The same of one new token per row, z (R, Z). `sequence` gets what the decoder's kind wants to be told of a beam. */
value decoder_record_step(struct recorder *r, struct sequence *sequence, value z, size_t room, bool beam);

/* (V, D) weights of the output layer. */
value decoder_output_weights(struct recorder *r);

#endif
