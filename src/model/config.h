/* What a model is: the part of the configuration that its parameters depend on. Saved with every checkpoint. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

enum norm_kind { NORM_LAYERNORM, NORM_RMSNORM };
enum norm_position { NORM_PRE, NORM_POST };
enum position_kind { POSITION_LEARNED, POSITION_ROTARY };
enum activation_kind { ACTIVATION_GELU, ACTIVATION_SWIGLU };
enum pooling_kind { POOLING_MEAN, POOLING_FIRST, POOLING_LAST, POOLING_ATTENTION };
enum stack_kind { STACK_TRANSFORMER }; /* encoder.kind, decoder.kind: further families join here */
enum latent_kind { LATENT_NORMAL, LATENT_NONE };
enum injection_kind { INJECTION_BOTH, INJECTION_MEMORY, INJECTION_EMBEDDING };
enum precision_kind { PRECISION_F32, PRECISION_BF16 };
enum recompute_kind { RECOMPUTE_NONE, RECOMPUTE_CHEAP, RECOMPUTE_BLOCK };

/* One Transformer stack; the encoder and the decoder are each one. */
struct stack_config {
    int kind;          /* enum stack_kind                                       */
    size_t width;      /* D                                                     */
    size_t layers;     /* L                                                     */
    size_t heads;      /* H; must divide the width                              */
    size_t kv_heads;   /* grouped-query attention; 0: as heads; must divide H   */
    size_t ff_width;   /* 0: 4 D                                                */
    int norm;          /* enum norm_kind                                        */
    int norm_position; /* enum norm_position                                    */
    int positions;     /* enum position_kind                                    */
    int activation;    /* enum activation_kind                                  */
    double dropout;    /* on embeddings and on every branch before its residual */
    int pooling;       /* enum pooling_kind; encoder only                       */
};

struct latent_config {
    int kind;      /* enum latent_kind                                      */
    size_t width;  /* Z                                                     */
    int injection; /* enum injection_kind                                   */
    size_t memory; /* M latent keys and values per layer                    */
    bool sample;   /* false: z = mu, a plain autoencoder                    */
};

struct model_config {
    struct stack_config encoder, decoder;
    struct latent_config latent;
    bool share_embedding; /* encoder reads the decoder's token table (same vocabulary and width) */
    bool tie_output;      /* output weights are the decoder's token table                        */
    size_t vocabulary;    /* V, from the corpus: not an option                                   */
    int precision;        /* enum precision_kind: of activations and working weights; the weights' values are f32 */
    size_t positions;     /* rows of a learned position table: data.max_length + 2               */
};

#endif
