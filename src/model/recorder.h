/* What the recording functions of a model share: the graph, the table of parameters, and the sequence that a stack
 * reads.
 *
 * A stack has ONE recording function; its sequence is either packed (a slot's sentences in one row of tokens) or cached
 * (one new token per row, with keys and values of the earlier ones in state). */
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
};

struct sequence {
    bool cached;
    value ids, position;            /* (N) i32                                    */
    value id_order, position_order; /* (N) i32, packed only                       */
    value sentence, offsets;        /* packed only                                */
    value sample;                   /* (S) u64, packed only                       */
    const value *cache;             /* (layers), cached only                      */
    value history;                  /* (N, room) i32, cached only, optional       */
};

/* A graph to record in, of the configuration's precision. */
elbo_status recorder_begin(struct recorder *r, struct graph **g, const char *name, const struct model_config *config,
                           struct parameters *parameters, const struct graph_capacities *capacities, elbo_error *error);

/* A packed sequence's inputs, named "<stream>.ids" and so on; `rows` is its token dimension. */
struct sequence sequence_packed(struct recorder *r, const char *stream, enum dim_kind rows, value sample);

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

/* y = x W^T (+ b) with parameters "<name>.weight" and, when `bias`, "<name>.bias". */
value recorder_linear(struct recorder *r, enum parameter_part part, value x, size_t width, double std, bool bias,
                      bool gelu, const char *name);

/* The Transformer's token table of a stack (shared where the configuration says so). */
value recorder_token_table(struct recorder *r, const char *stack);

/* A Transformer stack: rows (N, D) after its last norm. `embedded` (S, D) is added to every input, `latent` (S, Z)
 * gives each layer its memory; both optional. */
value transformer_record(struct recorder *r, const char *name, const struct stack_config *c, enum parameter_part part,
                         const struct sequence *s, value embedded, value latent, bool causal);

/* One row (S, D) per sentence. */
value encoder_record(struct recorder *r, const struct sequence *source);

/* One row (N, D) per target token, given z (S, Z) or none. */
value decoder_record(struct recorder *r, const struct sequence *target, value z);

/* stats (S, 2Z) = mu | logvar. */
value latent_head_record(struct recorder *r, value h);

/* (V, D) weights of the output layer. */
value decoder_output_weights(struct recorder *r);

#endif
