/* The configuration of a model: the options that its parameters depend on. Saved with every checkpoint. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include "base/option_rows.h"

#include <stdbool.h>
#include <stddef.h>

enum norm_kind { NORM_LAYERNORM, NORM_RMSNORM };
enum norm_position { NORM_PRE, NORM_POST };
enum position_kind { POSITION_LEARNED, POSITION_ROTARY };
enum activation_kind { ACTIVATION_GELU, ACTIVATION_SWIGLU };
enum pooling_kind { POOLING_MEAN, POOLING_FIRST, POOLING_LAST, POOLING_ATTENTION };
enum stack_choice { STACK_TRANSFORMER, STACK_BOW, STACK_LSTM, STACK_GRU }; /* encoder.kind, decoder.kind */
enum prior_choice { PRIOR_STANDARD, PRIOR_DIAGONAL, PRIOR_MIXTURE, PRIOR_VAMP };
enum latent_kind { LATENT_NORMAL, LATENT_NONE, LATENT_DELTA, LATENT_SLASHED };
enum latent_normalize { LATENT_PLAIN, LATENT_BATCH, LATENT_DU };
enum dropped_mark { DROPPED_UNKNOWN, DROPPED_OWN };
enum rate_scope { RATE_SENTENCE, RATE_SLOT, RATE_DIMENSION };
/* Ways for z into a decoder, by bit. `both` stands for two ways, which depend on the decoder's kind. */
enum {
    INJECT_BOTH = 1,
    INJECT_MEMORY = 2,
    INJECT_EMBEDDING = 4,
    INJECT_RESIDUAL = 8,
    INJECT_PREFIX = 16,
    INJECT_INIT = 32,
    INJECT_CONCAT = 64
};
#define INJECTION_NAMES "both", "memory", "embedding", "residual", "prefix", "init", "concat"
enum precision_kind { PRECISION_F32, PRECISION_BF16 };
enum recompute_kind { RECOMPUTE_NONE, RECOMPUTE_CHEAP, RECOMPUTE_BLOCK };

/* One stack: the encoder or the decoder. */
struct stack_config {
    int kind;               /* enum stack_choice */
    size_t width;           /* D */
    size_t layers;          /* L */
    size_t heads;           /* H; must divide the width */
    size_t kv_heads;        /* grouped-query attention; 0: as heads; must divide H */
    size_t ff_width;        /* 0: 4 D */
    int norm;               /* enum norm_kind */
    int norm_position;      /* enum norm_position */
    bool embedding_norm;    /* a norm after the embeddings, before their dropout */
    int positions;          /* enum position_kind */
    int activation;         /* enum activation_kind */
    double dropout;         /* on embeddings and on every branch before its residual, or on a layer's output */
    int pooling;            /* enum pooling_kind; encoder only */
    size_t embedding_width; /* width of token vectors in recurrent kinds; 0: D */
    bool bidirectional;     /* D / 2 units each way; encoder only */
    bool residual;          /* adds a layer's input to its output, from the second layer on */
};
/* The sections `encoder` and `decoder`. */
#define AT(field) offsetof(struct stack_config, field)
static const struct option stack_rows[] = {
    ROW_CHOICE("kind", kind, "transformer", KEPT_MODEL,
               "architecture of the stack; bow: a bag of words, for the encoder only", "transformer", "bow", "lstm",
               "gru"),
    ROW_SIZE("width", width, "128", 1, 65536, "D", KEPT_MODEL,
             "width of the residual stream, or units of a recurrent layer"),
    ROW_SIZE("layers", layers, "2", 1, 1024, "L", KEPT_MODEL, "number of Transformer blocks or recurrent layers"),
    ROW_SIZE("embedding_width", embedding_width, "0", 0, 65536, "", KEPT_MODEL,
             "width of a recurrent stack's token vectors; 0: the stack's width"),
    ROW_SWITCH("residual", residual, "false", KEPT_MODEL,
               "add each recurrent layer's input to its output, from the second layer on"),
    ROW_SIZE("heads", heads, "4", 1, 1024, "H", KEPT_MODEL, "number of attention heads; must divide the width"),
    ROW_SIZE("kv_heads", kv_heads, "0", 0, 1024, "", KEPT_MODEL,
             "number of heads of keys and values; must divide the heads; 0: as many as heads"),
    ROW_SIZE("ff_width", ff_width, "0", 0, 1048576, "", KEPT_MODEL,
             "inner width of the feed-forward part; 0: 4 times the width"),
    ROW_CHOICE("norm", norm, "layernorm", KEPT_MODEL, "kind of normalization", "layernorm", "rmsnorm"),
    ROW_CHOICE("norm_position", norm_position, "pre", KEPT_MODEL,
               "place of the norm: before a branch (pre) or after its residual (post)", "pre", "post"),
    ROW_SWITCH("embedding_norm", embedding_norm, "false", KEPT_MODEL, "add a norm after the embeddings, as in BERT"),
    ROW_CHOICE("positions", positions, "learned", KEPT_MODEL, "kind of position encoding", "learned", "rotary"),
    ROW_CHOICE("activation", activation, "gelu", KEPT_MODEL, "activation function of the feed-forward part", "gelu",
               "swiglu"),
    ROW_NUMBER("dropout", dropout, "0", 0, 0.95, "", KEPT_CHANGE, "share of the activations dropped in training"),
};
#undef AT

struct latent_config {
    int kind;                            /* enum latent_kind */
    int prior;                           /* enum prior_choice */
    size_t components;                   /* K of a mixture */
    size_t pseudo_inputs, pseudo_length; /* K of a VampPrior, and the rows of each pseudo-input */
    size_t width;                        /* Z */
    unsigned injection;                  /* bits of INJECT_*; 0: both */
    size_t memory;                       /* M latent keys and values per layer */
    size_t prefix;                       /* rows in front of the decoder's input */
    bool sample;                         /* false: z = mu, a plain autoencoder */
    bool skip;                           /* z reaches every layer and the output layer */
    bool init_tanh;                      /* a recurrent decoder's first state goes through tanh */
    double delta;                        /* least KL of each dimension in nats */
    int normalize;                       /* enum latent_normalize */
    double gamma;                        /* standard deviation of a normalized mu */
    double alpha;                        /* variances are at least alpha / (2 pi e); with du */
    double variance_dropout;
    double statistics_share; /* share of a step in the running statistics */
    double rate;             /* nats; 0: free */
    int rate_scope;          /* enum rate_scope */
};
#define AT(field) offsetof(struct latent_config, field)
static const struct option latent_rows[] = {
    ROW_CHOICE("kind", kind, "normal", KEPT_MODEL,
               "kind of posterior; normal: Gaussian; delta: Gaussian with a KL of at least latent.delta in each "
               "dimension; slashed: can hold an exact rate (objective.rate); none: a language model without a latent",
               "normal", "none", "delta", "slashed"),
    ROW_CHOICE("prior", prior, "standard", KEPT_MODEL,
               "kind of prior; standard: N(0, 1); learned with the model: diagonal, a Gaussian; mixture, several "
               "Gaussians; vamp, the mixture of the posteriors of pseudo-inputs; the KL of mixture and vamp is "
               "estimated from draws (kl_mc)",
               "standard", "diagonal", "mixture", "vamp"),
    ROW_SIZE("components", components, "10", 1, 65536, "Gaussians", KEPT_MODEL,
             "number of Gaussians of the prior (latent.prior=mixture)"),
    ROW_SIZE("pseudo_inputs", pseudo_inputs, "50", 1, 65536, "", KEPT_MODEL,
             "number of learned pseudo-inputs of the prior (latent.prior=vamp)"),
    ROW_SIZE("pseudo_length", pseudo_length, "8", 1, 65536, "rows", KEPT_MODEL,
             "length of each pseudo-input (latent.prior=vamp)"),
    ROW_SIZE("width", width, "32", 1, 65536, "Z", KEPT_MODEL, "number of dimensions of z"),
    ROW_SET("injection", injection, "both", KEPT_MODEL,
            "paths of z into the decoder; embedding: added to every input; Transformer: memory, read by attention; "
            "residual, added after every block but the first; prefix, rows in front of the sentence; recurrent: init, "
            "the first state; concat, beside every input; both: memory,embedding or init,concat",
            INJECTION_NAMES),
    ROW_SWITCH("init_tanh", init_tanh, "false", KEPT_MODEL,
               "apply tanh to the first state that z gives a recurrent decoder"),
    ROW_SIZE("memory", memory, "1", 1, 256, "M", KEPT_MODEL, "number of latent keys and values in each layer"),
    ROW_SIZE("prefix", prefix, "4", 1, 256, "rows", KEPT_MODEL,
             "number of rows in front of the decoder's input (latent.injection=prefix); they take positions and room "
             "in a slot"),
    ROW_SWITCH("sample", sample, "true", KEPT_CHANGE,
               "sample z from the posterior; false: z = mu, a plain autoencoder"),
    ROW_SWITCH("skip", skip, "false", KEPT_MODEL,
               "add z also to the input of every decoder layer and of the output layer"),
    ROW_NUMBER("delta", delta, "0.15", 1e-6, 100, "nats", KEPT_MODEL, "least KL of each dimension (latent.kind=delta)"),
    ROW_CHOICE("normalize", normalize, "none", KEPT_MODEL,
               "normalization of mu over a slot's sentences; batch: to the standard deviation latent.gamma; du: by "
               "learned deviations with that root mean square, and a floor under the variances",
               "none", "batch", "du"),
    ROW_NUMBER("gamma", gamma, "0.5", 1e-6, 1e6, "", KEPT_CHANGE,
               "standard deviation of a normalized mu (latent.normalize)"),
    ROW_NUMBER("alpha", alpha, "1", 0, 1e6, "", KEPT_CHANGE,
               "alpha of the floor alpha / (2 pi e) that is added to the variances (latent.normalize=du)"),
    ROW_NUMBER("variance_dropout", variance_dropout, "0", 0, 0.95, "", KEPT_CHANGE,
               "share of the variances that falls to the floor in training while beta is 1 (latent.normalize=du)"),
    ROW_NUMBER("statistics_share", statistics_share, "0.1", 1e-6, 1, "", KEPT_CHANGE,
               "share of a step's statistics in the running statistics, which evaluation uses"),
};
#undef AT

/* Rows of the section `objective`, kept here because they define the KL. */
#define AT(field) offsetof(struct latent_config, field)
static const struct option rate_rows[] = {
    ROW_NUMBER("rate", rate, "0", 0, 1e6, "nats", KEPT_CHANGE,
               "exact KL of the posterior (latent.kind=slashed); 0: the KL is free"),
    ROW_CHOICE("rate_scope", rate_scope, "sentence", KEPT_MODEL,
               "unit that has objective.rate: each sentence, the mean over a slot, or each dimension its part of the "
               "rate over a slot",
               "sentence", "slot", "dimension"),
};
#undef AT

struct model_config {
    struct stack_config encoder, decoder;
    struct latent_config latent;
    bool share_embedding; /* the encoder reads the decoder's token table (same vocabulary and width) */
    bool tie_output;      /* the decoder's token table serves as the output weights */
    int dropped_mark;     /* enum dropped_mark: replacement of dropped and blanked words */
    size_t vocabulary;    /* V, from the corpus: not an option */
    int precision;        /* enum precision_kind: of activations and working weights; master weights are f32 */
    size_t positions;     /* of a sentence: data.max_length + 2; a prefix adds its own in front */
    size_t labels;        /* classes of sentences, given to both stacks; 0: none. From the corpus: not an option */
};
/* A row of the section `objective`, kept here because a parameter depends on it. */
#define AT(field) offsetof(struct model_config, field)
static const struct option mark_rows[] = {
    ROW_CHOICE("dropped_mark", dropped_mark, "own", KEPT_MODEL,
               "replacement of words that word_dropout or denoise_blank take: a learned mark that nothing else reads "
               "(own), or the unknown mark; a resumed run keeps its choice",
               "unknown", "own"),
};
#undef AT

/* More rows of the sections `encoder` and `decoder`. */
#define AT(field) offsetof(struct model_config, field)
static const struct option encoder_rows[] = {
    ROW_CHOICE("pooling", encoder.pooling, "mean", KEPT_MODEL, "pooling of a sentence's rows into one", "mean", "first",
               "last", "attention"),
    ROW_SWITCH("bidirectional", encoder.bidirectional, "false", KEPT_MODEL,
               "let a recurrent encoder read in both directions, with half of the width each"),
    ROW_SWITCH("share_embedding", share_embedding, "true", KEPT_MODEL,
               "share the decoder's token table with the encoder; needs equal widths"),
};
#undef AT

#define AT(field) offsetof(struct model_config, field)
static const struct option decoder_rows[] = {
    ROW_SWITCH("tie_output", tie_output, "true", KEPT_MODEL, "use the decoder's token table as the output weights"),
};
#undef AT

#endif
