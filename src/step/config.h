/* The configuration of a training step: its objective and its optimizer. */
#ifndef STEP_CONFIG_H
#define STEP_CONFIG_H

#include "base/option_rows.h"

#include <stddef.h>

enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT, SCHEDULE_INVERSE_SQRT };
enum beta_kind { BETA_LINEAR, BETA_CONSTANT, BETA_CYCLICAL, BETA_LOGISTIC };
enum free_bits_kind { FREE_BITS_DIMENSION, FREE_BITS_TOTAL, FREE_BITS_GROUP };
enum free_bits_form { FREE_BITS_HINGE, FREE_BITS_MASK };
enum free_bits_scope { FREE_BITS_SLOT, FREE_BITS_SENTENCE };
enum aggressive_until { AGGRESSIVE_STEPS, AGGRESSIVE_INFORMATION };
enum optimizer_kind { OPTIMIZER_ADAMW, OPTIMIZER_SGD };
enum moments_kind { MOMENTS_F32, MOMENTS_BF16 };

struct objective_config {
    int beta_schedule;       /* enum beta_kind */
    double beta;             /* final weight of the KL */
    double beta_start;       /* weight at the first step */
    double beta_warmup;      /* share of the steps (of a cycle, when cyclical) over which beta rises */
    size_t beta_cycles;      /* cyclical */
    double lambda;           /* weight of the reconstruction */
    int free_bits_kind;      /* enum free_bits_kind */
    double free_bits;        /* nats: per dimension, in total, or per group */
    size_t free_bits_groups; /* groups of neighboring dimensions */
    double word_dropout;
    double mu_forcing;         /* nats; 0: off */
    int free_bits_form;        /* enum free_bits_form */
    int free_bits_scope;       /* enum free_bits_scope */
    double beta_hold;          /* share of the steps (of a cycle) before beta rises */
    double beta_slope;         /* logistic, per update; 0: stretched over the warm-up */
    double beta_center;        /* updates before half of the rise, with beta_slope */
    double target_kl, kp, ki;  /* ControlVAE: nats, 0: off; gains */
    double beta_min, beta_max; /* limits of the controller's weight */
    double min_rate;           /* minimum desired rate in nats; 0: off */
    double min_rate_step;      /* step size of its multiplier */
    double denoise_drop, denoise_blank, denoise_swap;
    double bow;               /* weight of the bag-of-words term; 0: off */
    size_t autoencoder_steps; /* first steps without a KL, after which the decoder is reinitialized; 0: off */
    size_t aggressive_steps;  /* steps during which the encoder is trained ahead of the decoder; 0: off */
    size_t aggressive_most;   /* most updates of the encoder between two of the decoder */
    size_t aggressive_window; /* updates whose mean loss is compared with the previous mean */
    int aggressive_until;     /* enum aggressive_until: when the aggressive steps end */
    size_t aggressive_information_window; /* steps whose mean information is compared with the previous mean */
};
#define AT(field) offsetof(struct objective_config, field)
static const struct option objective_rows[] = {
    ROW_CHOICE("beta_schedule", beta_schedule, "linear", KEPT_CHANGE, "schedule of the KL's weight beta", "linear",
               "constant", "cyclical", "logistic"),
    ROW_NUMBER("beta", beta, "1", 0, 1e6, "", KEPT_CHANGE, "final weight of the KL"),
    ROW_NUMBER("beta_start", beta_start, "0", 0, 1e6, "", KEPT_CHANGE, "weight of the KL at the first step"),
    ROW_NUMBER("beta_warmup", beta_warmup, "0.8", 0, 1, "share of the steps", KEPT_CHANGE,
               "duration of the rise of beta; cyclical: share of each cycle"),
    ROW_SIZE("beta_cycles", beta_cycles, "4", 1, 1000000, "", KEPT_CHANGE,
             "number of cycles (objective.beta_schedule=cyclical)"),
    ROW_NUMBER("lambda", lambda, "1", 0, 1e6, "", KEPT_CHANGE, "weight of the reconstruction"),
    ROW_CHOICE("free_bits_kind", free_bits_kind, "dimension", KEPT_CHANGE,
               "granularity of free_bits: each dimension of z, their total, or each group of dimensions", "dimension",
               "total", "group"),
    ROW_NUMBER("free_bits", free_bits, "0.25", 0, 1e6, "nats", KEPT_CHANGE,
               "KL that costs nothing (see free_bits_kind); 0: no free bits"),
    ROW_SIZE("free_bits_groups", free_bits_groups, "4", 1, 65536, "", KEPT_CHANGE,
             "number of groups of neighboring dimensions (objective.free_bits_kind=group)"),
    ROW_NUMBER("word_dropout", word_dropout, "0.3", 0, 1, "", KEPT_CHANGE,
               "share of the decoder's input words replaced by a mark in training (see dropped_mark)"),
    ROW_NUMBER("mu_forcing", mu_forcing, "0", 0, 1e6, "nats", KEPT_CHANGE,
               "least value of half the spread of mu over a slot's sentences; the shortfall is added to the loss; 0: "
               "no such term"),
    ROW_CHOICE("free_bits_form", free_bits_form, "hinge", KEPT_CHANGE,
               "form of the free bits; hinge: max(free_bits, KL); mask: the KL where it is above free_bits, else 0",
               "hinge", "mask"),
    ROW_CHOICE("free_bits_scope", free_bits_scope, "slot", KEPT_CHANGE,
               "KL that is compared with free_bits: the mean over a slot's sentences, or each sentence's own", "slot",
               "sentence"),
    ROW_NUMBER("beta_hold", beta_hold, "0", 0, 1, "share of the steps", KEPT_CHANGE,
               "time that beta stays at beta_start before it rises; cyclical: share of each cycle"),
    ROW_NUMBER("beta_slope", beta_slope, "0", 0, 1e6, "per update", KEPT_CHANGE,
               "slope k of a logistic beta 1 / (1 + exp(-k (u - x0))) after u updates; 0: stretched over beta_warmup"),
    ROW_NUMBER("beta_center", beta_center, "2500", 0, OPTION_MANY, "updates", KEPT_CHANGE,
               "center x0 of a logistic beta, used when beta_slope is not 0"),
    ROW_NUMBER("target_kl", target_kl, "0", 0, 1e6, "nats", KEPT_CHANGE,
               "KL per sentence that a PI controller holds by moving beta; 0: no controller"),
    ROW_NUMBER("kp", kp, "0.001", 0, 1e6, "", KEPT_CHANGE, "proportional gain of the controller of target_kl"),
    ROW_NUMBER("ki", ki, "0.001", 0, 1e6, "", KEPT_CHANGE, "integral gain of the controller of target_kl"),
    ROW_NUMBER("beta_min", beta_min, "0", 0, 1e6, "", KEPT_CHANGE, "least beta of the controller of target_kl"),
    ROW_NUMBER("beta_max", beta_max, "1", 0, 1e6, "", KEPT_CHANGE, "largest beta of the controller of target_kl"),
    ROW_NUMBER("min_rate", min_rate, "0", 0, 1e6, "nats", KEPT_CHANGE,
               "least KL per sentence, demanded by a Lagrange multiplier u: beta = 1 - u; 0: no multiplier"),
    ROW_NUMBER("min_rate_step", min_rate_step, "0.01", 0, 1e6, "", KEPT_CHANGE,
               "step size of the multiplier of min_rate"),
    ROW_NUMBER("denoise_drop", denoise_drop, "0", 0, 0.95, "", KEPT_CHANGE,
               "share of the encoder's input words left out in training"),
    ROW_NUMBER("denoise_blank", denoise_blank, "0", 0, 0.95, "", KEPT_CHANGE,
               "share of the encoder's input words replaced by a mark in training (see dropped_mark)"),
    ROW_NUMBER("denoise_swap", denoise_swap, "0", 0, 0.95, "", KEPT_CHANGE,
               "share of neighbors among the encoder's input words that change places in training"),
    ROW_NUMBER(
        "bow", bow, "0", 0, 1e6, "", KEPT_MODEL,
        "weight of the bag-of-words loss, the nats that z pays for a sentence's words in any order; 0: no such term"),
    ROW_SIZE("autoencoder_steps", autoencoder_steps, "0", 0, OPTION_MANY, "steps", KEPT_CHANGE,
             "number of first steps without a KL, after which decoder and schedules start anew; 0: none"),
    ROW_SIZE("aggressive_steps", aggressive_steps, "0", 0, OPTION_MANY, "steps", KEPT_CHANGE,
             "number of first steps in which, before each decoder update, the encoder is updated alone until its loss "
             "stops falling; 0: none, or as aggressive_until says"),
    ROW_CHOICE("aggressive_until", aggressive_until, "steps", KEPT_CHANGE,
               "end of the aggressive steps; steps: after aggressive_steps; information: when z tells no more of a "
               "step's sentences than before, or after aggressive_steps if not 0",
               "steps", "information"),
    ROW_SIZE("aggressive_most", aggressive_most, "100", 1, OPTION_MANY, "steps", KEPT_CHANGE,
             "most updates of the encoder between two updates of the decoder (aggressive steps)"),
    ROW_SIZE("aggressive_window", aggressive_window, "10", 1, OPTION_MANY, "steps", KEPT_CHANGE,
             "encoder updates whose mean loss is compared with the mean of the window before (aggressive steps)"),
    ROW_SIZE(
        "aggressive_information_window", aggressive_information_window, "200", 1, OPTION_MANY, "steps", KEPT_CHANGE,
        "steps whose mean information is compared with the mean of the window before (aggressive_until=information)"),
};
#undef AT

struct optimizer_config {
    int kind; /* enum optimizer_kind */
    double learning_rate, min_learning_rate_ratio;
    int schedule; /* enum schedule_kind */
    size_t warmup_steps;
    double beta1, beta2, epsilon, weight_decay, momentum;
    double clip;                                          /* largest global norm; 0: none */
    int moments;                                          /* enum moments_kind */
    double encoder_factor, latent_factor, decoder_factor; /* of the learning rate; 0 freezes the group */
};
#define AT(field) offsetof(struct optimizer_config, field)
static const struct option optimizer_rows[] = {
    ROW_CHOICE("kind", kind, "adamw", KEPT_MODEL, "update rule", "adamw", "sgd"),
    ROW_NUMBER("learning_rate", learning_rate, "0.002", 0, 1000, "", KEPT_CHANGE, "highest learning rate"),
    ROW_NUMBER("min_learning_rate_ratio", min_learning_rate_ratio, "0.1", 0, 1, "", KEPT_CHANGE,
               "learning rate at the end of the schedule, as a share of the highest"),
    ROW_CHOICE("schedule", schedule, "cosine", KEPT_CHANGE, "schedule of the learning rate after the warm-up", "cosine",
               "linear", "constant", "inverse_sqrt"),
    ROW_SIZE("warmup_steps", warmup_steps, "100", 0, OPTION_MANY, "steps", KEPT_CHANGE,
             "number of steps over which the learning rate rises"),
    ROW_NUMBER("beta1", beta1, "0.9", 0, 0.999999, "", KEPT_CHANGE, "decay of the first moment"),
    ROW_NUMBER("beta2", beta2, "0.999", 0, 0.9999999, "", KEPT_CHANGE, "decay of the second moment"),
    ROW_NUMBER("epsilon", epsilon, "1.0e-8", 1e-30, 1, "", KEPT_CHANGE,
               "constant added to the root of the second moment (optimizer.kind=adamw)"),
    ROW_NUMBER("weight_decay", weight_decay, "0.01", 0, 100, "", KEPT_CHANGE,
               "decoupled weight decay, on matrices only"),
    ROW_NUMBER("momentum", momentum, "0.9", 0, 0.999999, "", KEPT_CHANGE, "momentum of SGD (optimizer.kind=sgd)"),
    ROW_CHOICE("moments", moments, "f32", KEPT_CHANGE,
               "type of the optimizer's moments; bf16: half the memory, rounded stochastically so that nothing is lost "
               "in the mean",
               "f32", "bf16"),
    ROW_NUMBER("clip", clip, "1", 0, 1e9, "", KEPT_CHANGE, "largest global gradient norm; 0: no limit"),
    ROW_NUMBER("encoder_factor", encoder_factor, "1", 0, 1e6, "", KEPT_CHANGE,
               "factor on the encoder's learning rate; 0 freezes the encoder"),
    ROW_NUMBER("latent_factor", latent_factor, "1", 0, 1e6, "", KEPT_CHANGE,
               "factor on the latent head's learning rate; 0 freezes the latent head"),
    ROW_NUMBER("decoder_factor", decoder_factor, "1", 0, 1e6, "", KEPT_CHANGE,
               "factor on the decoder's learning rate; 0 freezes the decoder"),
};
#undef AT

#endif
