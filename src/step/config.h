/* The part of the configuration that a training step reads: its objective and its optimizer. */
#ifndef STEP_CONFIG_H
#define STEP_CONFIG_H

#include <stddef.h>

enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT };
enum beta_kind { BETA_LINEAR, BETA_CONSTANT, BETA_CYCLICAL, BETA_LOGISTIC };
enum free_bits_kind { FREE_BITS_DIMENSION, FREE_BITS_TOTAL, FREE_BITS_GROUP };
enum optimizer_kind { OPTIMIZER_ADAMW, OPTIMIZER_SGD };
enum moments_kind { MOMENTS_F32, MOMENTS_BF16 };

struct objective_config {
    int beta_schedule;       /* enum beta_kind                                                       */
    double beta;             /* final weight of the KL                                               */
    double beta_start;       /* weight at the first step                                             */
    double beta_warmup;      /* share of the steps over which beta rises (of a cycle, when cyclical) */
    size_t beta_cycles;      /* cyclical                                                             */
    double lambda;           /* weight of the reconstruction                                         */
    int free_bits_kind;      /* enum free_bits_kind                                                  */
    double free_bits;        /* nats: per dimension, in total, or per group                          */
    size_t free_bits_groups; /* groups of neighbouring dimensions                                    */
    double word_dropout;
};

struct optimizer_config {
    int kind; /* enum optimizer_kind                */
    double learning_rate, min_learning_rate_ratio;
    int schedule; /* enum schedule_kind                 */
    size_t warmup_steps;
    double beta1, beta2, epsilon, weight_decay, momentum;
    double clip;                                          /* global norm; 0: none               */
    int moments;                                          /* enum moments_kind                  */
    double encoder_factor, latent_factor, decoder_factor; /* of the learning rate; 0 freezes the group */
};

#endif
