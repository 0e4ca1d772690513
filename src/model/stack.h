/* Stacks: the kinds of encoders and decoders, a table with a row for each. A stack turns a sequence into rows of its
 * width; nobody but its own file knows what is inside (heads, caches, gates).
 *
 * Packed rows are sentence-major everywhere: a slot's sentences behind one another, each from its first row to its
 * last. The order that a kind may need inside is its own. One step has one new token in every row, and state for the
 * earlier ones, a row of it for each row of tokens. */
#ifndef MODEL_STACK_H
#define MODEL_STACK_H

#include "model/recorder.h"

enum { STACK_MOST_FIGURES = 8 };

/* One stack of a model: "encoder" or "decoder". */
struct stack {
    const char *name; /* the first part of its tensors' names */
    const struct stack_config *config;
    enum parameter_part part;
    bool causal; /* a row sees its own sentence's earlier rows only */
};

/* The input of a stack. */
struct stack_input {
    const struct sequence *sequence;
    value embedded;     /* (S, D) of packed rows, (R, D) of a step: added to every input of the sentence; or none */
    value latent;       /* (S, Z), (R, Z): the sentence's z, for a kind that reads z itself; or none               */
    unsigned injection; /* of latent: bits of INJECT_*                                                         */
    value prefix;       /* (S, M D), (R, M D): rows in place of the first M; or none                            */
    value skip;         /* as latent, for stack_skip; or none                                                  */
};

struct stack_figure {
    const char *name;
    size_t value;
};

struct stack_kind {
    const char *name;           /* as encoder.kind and decoder.kind say it                               */
    const char *cannot_decode;  /* why it is no decoder; null: it is one                                 */
    const char *const *options; /* keys of a stack's section that it reads beside kind, width and pooling */
    /* Width of its token vectors, and the deviation that they begin with; null: the stack's width, 0.02. */
    size_t (*embedding_width)(const struct stack_config *c);
    double (*embedding_std)(const struct stack_config *c);
    /* Where encoder.pooling=last finds what it remembers of a sentence; null: POOL_LAST. */
    enum pool_kind (*last)(const struct stack_config *c);
    unsigned injections, both; /* the ways for z that it knows, and those of latent.injection=both         */
    /* Refuses options of the section that contradict each other: ELBO_USAGE. */
    elbo_status (*check)(const char *section, const struct stack_config *c, elbo_error *error);
    /* (N, D) rows of packed sentences. */
    value (*record)(struct recorder *r, const struct stack *s, const struct stack_input *in);
    /* ---- decoders: one step ---- */
    /* How many states it has, and each of them for `rows` tokens and sentences of up to `room`. */
    size_t (*states)(const struct stack_config *c);
    value (*state)(struct recorder *r, const struct stack *s, struct dim rows, size_t room, size_t number);
    /* The inputs by which a beam's rows are continued by others, into the sequence. */
    void (*reorder)(struct recorder *r, struct sequence *s, struct dim rows, size_t room);
    /* (R, D) rows of one new token each; state (states). */
    value (*step)(struct recorder *r, const struct stack *s, const struct stack_input *in, const value *state);
    /* Figures that people want to know of it, beside its width: into figures (STACK_MOST_FIGURES); returns how many. */
    size_t (*describe)(struct stack_figure *figures, const struct stack_config *c);
};

const struct stack_kind *stack_kind_of(const struct stack_config *c);

/* The whole section "encoder" or "decoder": its kind's rules, and whether it may stand there. */
elbo_status stack_check(const char *section, const struct stack_config *c, elbo_error *error);

/* Why an option of the section has no effect; null: it has one. `key` without the section. The words live until the
 * next call. */
const char *stack_idle(const char *section, const struct stack_config *c, const char *key);

/* Width of a stack's token vectors, the option that says it, and the deviation that they begin with. */
size_t stack_embedding_width(const struct stack_config *c);
const char *stack_embedding_option(const struct stack_config *c);
double stack_embedding_std(const struct stack_config *c);

/* The ways for z into this decoder, with those that `both` stands for in its place. */
unsigned stack_injection(const struct stack_config *decoder, unsigned injection);
/* Refuses ways that the decoder does not have, and ways that `both` names already: ELBO_USAGE. */
elbo_status stack_check_injection(const struct stack_config *decoder, unsigned injection, elbo_error *error);
/* Rows that z puts in front of the decoder's input; 0: none. */
size_t stack_prefix(const struct model_config *m);
/* Why an option of the section `latent` belongs to a way that z does not take into this decoder; null: it does not.
 * `key` without the section. */
const char *stack_injection_idle(const struct model_config *m, const char *key);
/* The ways as latent.injection says them, into text. */
void stack_injection_text(char *text, size_t size, unsigned injection);

/* For `reorder`: the row in which each earlier position lies (op_attention_cached, op_recurrent_step): nothing is
 * copied. */
void stack_history(struct recorder *r, struct sequence *s, struct dim rows, size_t room);

/* The first rows of a stack: token table, or the sequence's vectors; then `embedded`. Learned positions are the kind's.
 */
value stack_embed(struct recorder *r, const struct stack *s, const struct sequence *sequence);
/* What is added to every input of a sentence: `embedded`, which may be none, and the row of its label. */
value stack_label(struct recorder *r, const struct stack *s, const struct sequence *sequence, value embedded);
/* x with the first rows of each sentence replaced by `prefix`, which may be none. */
value stack_add_prefix(struct recorder *r, const struct stack_input *in, value x);
value stack_add_embedded(struct recorder *r, const struct stack_input *in, value x);
/* x, the rows that block `block` gave, with z W^T of the sentence added where latent.injection has `residual`: behind
 * every block but the first. */
value stack_residual(struct recorder *r, const struct stack *s, const struct stack_input *in, value x, size_t block);
/* x, the rows that layer `layer` reads, or that the output layer reads (layer < 0): with z W^T of the sentence added
 * where latent.skip says so. */
value stack_skip(struct recorder *r, const struct stack *s, const struct stack_input *in, value x, int layer);

#endif
