/* Stacks: the kinds of encoders and decoders, a table with one row each. A stack turns a sequence into rows of its
 * width. Only the kind's own file knows its inside (heads, caches, gates).
 *
 * Packed rows are sentence-major everywhere: a slot's sentences one after another, each from its first row to its last.
 * A kind may use another order inside. One step has one new token per row, and one row of state per row of tokens for
 * the earlier tokens. */
#ifndef MODEL_STACK_H
#define MODEL_STACK_H

#include "model/recorder.h"

enum { STACK_MOST_FIGURES = 8 };

/* One stack of a model: "encoder" or "decoder". */
struct stack {
    const char *name; /* the first part of its tensors' names */
    const struct stack_config *config;
    enum parameter_part part;
    bool causal; /* a row sees only the earlier rows of its own sentence */
};

/* The input of a stack. */
struct stack_input {
    const struct sequence *sequence;
    value embedded;     /* (S, D) for packed rows, (R, D) in a step: added to every input of the sentence; or none */
    value latent;       /* (S, Z), (R, Z): the sentence's z, for a kind that reads z itself; or none */
    unsigned injection; /* ways of latent: bits of INJECT_* */
    value prefix;       /* (S, M D), (R, M D): rows that replace the first M; or none */
    value skip;         /* like latent, for stack_skip; or none */
};

struct stack_figure {
    const char *name;
    size_t value;
};

struct stack_kind {
    const char *name;           /* as in encoder.kind and decoder.kind */
    const char *cannot_decode;  /* why the kind cannot be a decoder; null: it can */
    const char *const *options; /* keys of a stack's section that it reads besides kind, width and pooling */
    /* Width of the token vectors, and their initial deviation; null: the stack's width, 0.02. */
    size_t (*embedding_width)(const struct stack_config *c);
    double (*embedding_std)(const struct stack_config *c);
    /* Where encoder.pooling=last finds a sentence's summary; null: POOL_LAST. */
    enum pool_kind (*last)(const struct stack_config *c);
    unsigned injections, both; /* the supported ways for z, and those that latent.injection=both stands for */
    /* Refuses contradicting options of the section: ELBO_USAGE. */
    elbo_status (*check)(const char *section, const struct stack_config *c, elbo_error *error);
    /* Returns rows (N, D) of packed sentences. */
    value (*record)(struct recorder *r, const struct stack *s, const struct stack_input *in);
    /* ---- decoders: one step ---- */
    /* The number of states, and each state for `rows` tokens and sentences of up to `room`. */
    size_t (*states)(const struct stack_config *c);
    value (*state)(struct recorder *r, const struct stack *s, struct dim rows, size_t room, size_t number);
    /* Adds to the sequence the inputs by which a beam's rows continue other rows. */
    void (*reorder)(struct recorder *r, struct sequence *s, struct dim rows, size_t room);
    /* Returns rows (R, D) of one new token each; state (states). */
    value (*step)(struct recorder *r, const struct stack *s, const struct stack_input *in, const value *state);
    /* Writes figures to report besides the width into figures (STACK_MOST_FIGURES); returns their number. */
    size_t (*describe)(struct stack_figure *figures, const struct stack_config *c);
};

const struct stack_kind *stack_kind_of(const struct stack_config *c);

/* Checks the whole section "encoder" or "decoder": the rules of its kind, and whether the kind may be used there. */
elbo_status stack_check(const char *section, const struct stack_config *c, elbo_error *error);

/* Returns why an option of the section has no effect; null: it has one. `key` is without the section. The text lives
 * until the next call. */
const char *stack_idle(const char *section, const struct stack_config *c, const char *key);

/* Return the width of a stack's token vectors, the option that sets it, and their initial deviation. */
size_t stack_embedding_width(const struct stack_config *c);
const char *stack_embedding_option(const struct stack_config *c);
double stack_embedding_std(const struct stack_config *c);

/* Returns the ways for z into this decoder, with `both` replaced by the ways that it stands for. */
unsigned stack_injection(const struct stack_config *decoder, unsigned injection);
/* Refuses ways that the decoder does not have, and ways that `both` already includes: ELBO_USAGE. */
elbo_status stack_check_injection(const struct stack_config *decoder, unsigned injection, elbo_error *error);
/* Returns the rows that z puts in front of the decoder's input; 0: none. */
size_t stack_prefix(const struct model_config *m);
/* Returns why an option of the section `latent` has no effect because its way is not used with this decoder; null
 * otherwise. `key` is without the section. */
const char *stack_injection_idle(const struct model_config *m, const char *key);
/* Writes the ways, as latent.injection names them, into text. */
void stack_injection_text(char *text, size_t size, unsigned injection);

/* Implements `reorder` by an input that gives the cache row of each earlier position (op_attention_cached,
 * op_recurrent_step), so that nothing is copied. */
void stack_history(struct recorder *r, struct sequence *s, struct dim rows, size_t room);

/* Returns the embedded tokens, or the sequence's vectors. The kind adds `embedded` and learned positions. */
value stack_embed(struct recorder *r, const struct stack *s, const struct sequence *sequence);
/* Returns the vector added to every input of a sentence: `embedded`, which may be none, plus the row of its label. */
value stack_label(struct recorder *r, const struct stack *s, const struct sequence *sequence, value embedded);
/* Returns x with the first rows of each sentence replaced by `prefix`, which may be none. */
value stack_add_prefix(struct recorder *r, const struct stack_input *in, value x);
value stack_add_embedded(struct recorder *r, const struct stack_input *in, value x);
/* Returns x, the output of block `block`, plus z W^T of the sentence if latent.injection has `residual`; not after the
 * first block. */
value stack_residual(struct recorder *r, const struct stack *s, const struct stack_input *in, value x, size_t block);
/* Returns x, the input of layer `layer` or of the output layer (layer < 0), plus z W^T of the sentence if latent.skip
 * is set. */
value stack_skip(struct recorder *r, const struct stack *s, const struct stack_input *in, value x, int layer);

#endif
