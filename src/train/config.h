/* The whole configuration: one struct, filled by the one table of options in config.c (key, type, default, range,
 * unit, help), from defaults, then a YAML file, then `--section.key=value`. */
#ifndef TRAIN_CONFIG_H
#define TRAIN_CONFIG_H

#include "elbo/status.h"
#include "model/config.h"

#include <stdint.h>

enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT };
enum beta_kind { BETA_LINEAR, BETA_CONSTANT, BETA_CYCLICAL, BETA_LOGISTIC };
enum free_bits_kind { FREE_BITS_DIMENSION, FREE_BITS_TOTAL, FREE_BITS_GROUP };
enum optimizer_kind { OPTIMIZER_ADAMW, OPTIMIZER_SGD };
enum device_kind { DEVICE_CPU };
enum determinism_kind { DETERMINISM_RUN_TO_RUN };

struct objective_config {
    int beta_schedule;        /* enum beta_kind                                                       */
    double beta;              /* final weight of the KL                                               */
    double beta_start;        /* weight at the first step                                             */
    double beta_warmup;       /* share of the steps over which beta rises (of a cycle, when cyclical) */
    size_t beta_cycles;       /* cyclical                                                             */
    double lambda;            /* weight of the reconstruction                                         */
    int free_bits_kind;       /* enum free_bits_kind                                                  */
    double free_bits;         /* nats: per dimension, in total, or per group                          */
    size_t free_bits_groups;  /* groups of neighbouring dimensions                                    */
    double word_dropout;
};

struct optimizer_config {
    int kind;                 /* enum optimizer_kind                */
    double learning_rate, min_learning_rate_ratio;
    int schedule;             /* enum schedule_kind                 */
    size_t warmup_steps;
    double beta1, beta2, epsilon, weight_decay, momentum;
    double clip;              /* global norm; 0: none               */
    double encoder_factor, latent_factor, decoder_factor; /* of the learning rate; 0 freezes the group */
};

struct train_section {
    size_t steps, stop_after, slots, slot_tokens, slot_sentences;
    size_t eval_every, eval_sentences;     /* 0: never; 0: all     */
    size_t max_bad_steps;                  /* not finite in a row  */
    size_t skip;                           /* step (from 1) whose update is left out; 0: none */
    int recompute;                         /* enum recompute_kind  */
};

struct data_config {
    const char *train, *valid, *test;
    size_t max_length;                     /* tokens without marks */
    int too_long;                          /* enum slot_too_long   */
};

struct checkpoint_config {
    size_t every, keep;                    /* steps; 0: at the end only */
};

struct log_config {
    size_t every;                          /* steps between console lines */
};

struct prepare_config {
    const char *out, *split, *tokenizer_from;
    int tokenizer_kind;                    /* enum elbo_tokenizer_kind */
    size_t tokenizer_size;
    bool strict;
};

struct generate_config {
    size_t count, max_length, top_k, steps;
    double temperature, top_p;
    bool greedy, allow_unknown, posterior_mean;
    const char *from, *to, *format, *out;
};

struct eval_config {
    size_t iwae_samples, sentences;
    size_t mi_sentences;                   /* sentences for the aggregate posterior */
};

struct elbo_config {
    uint64_t seed;
    int device, determinism;
    size_t threads;                        /* 0: the processors this process may run on */
    bool json, decode, graph;              /* output switches of commands               */
    const char *run_dir, *resume;
    struct model_config model;
    struct objective_config objective;
    struct optimizer_config optimizer;
    struct train_section train;
    struct data_config data;
    struct checkpoint_config checkpoint;
    struct log_config log;
    struct prepare_config prepare;
    struct generate_config generate;
    struct eval_config eval;
};

#endif
