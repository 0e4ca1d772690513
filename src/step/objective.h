/* The objective: THE table of its terms. A term says when it is in force, what it records, how each update weighs it
 * and what its figures are called in the log; nobody else writes a weight.
 *
 *     loss = sum over terms of weight * value, a mean over the step's sentences
 *
 *     objective_create(&o, &config, &model, steps, &error);       -- checks, and picks the terms in force
 *     record_train(&recording, &model, &o, ...);                  -- step/recording.h: each term records its value
 *     objective_weigh(&o, answer, update, sentences);             -- before a step: its weights into o.weights
 *     objective_figures(&o, figures, parts, weights, sentences);  -- after it: what to tell
 *
 * Values and weights: reconstruction and KL as in Kingma and Welling 2014 and Higgins et al. 2017; docs/model.md. */
#ifndef STEP_OBJECTIVE_H
#define STEP_OBJECTIVE_H

#include "model/training.h"
#include "step/config.h"

enum { OBJECTIVE_MOST_TERMS = 8, OBJECTIVE_MOST_FIGURES = 2 * OBJECTIVE_MOST_TERMS };

/* The configuration that a term's functions may read. */
struct objective_context {
    const struct objective_config *config;
    const struct model_config *model;
};

struct objective_term {
    const char *name;   /* of its value in the log                                                      */
    const char *weight; /* of its weight there; null: it is always 1, and not told                         */
    bool tells_weight;  /* on the console too                                                           */
    unsigned parts;     /* how many of what op_elbo reports, from `part` on; 0: the term records its own */
    unsigned part;
    const char *const *part_names; /* (parts) the first is `name`                                       */
    const char *const *options;    /* its keys of the section `objective`, ended by null                */
    /* Whether its own options switch it off, which stands against nothing; null: none does. */
    bool (*off)(const struct objective_config *c);
    /* Why the term is not in force, in words that follow its option's name; null: it is. */
    const char *(*absent)(const struct objective_context *c);
    /* Refuses combinations of options; null: none. */
    elbo_status (*check)(const struct objective_context *c, elbo_error *error);
    /* Weight at the update of this number (of updates applied before it) of `steps`; null: 1. */
    double (*weigh)(const struct objective_config *c, size_t update, size_t steps);
    /* (1) f32: the sum over the slot's sentences of what is weighed; null: op_elbo computes it. */
    value (*record)(const struct objective_context *c, const struct training_pass *pass);
};

/* Moves the weight of a term by what the steps before have measured, in the backend's memory (op_controller), so that
 * nobody waits for it. One controller owns a weight. */
struct objective_controller {
    const char *name;           /* of its option, and of its state in a checkpoint: objective.<name> */
    const char *weight;         /* its term's, as the log calls it                                   */
    const char *const *options; /* its further keys, ended by null                                   */
    bool (*off)(const struct objective_config *c);
    elbo_status (*check)(const struct objective_context *c, elbo_error *error);
    enum controller_rule rule;
    unsigned part; /* of op_elbo's sums, what it measures */
    void (*set)(const struct objective_config *c, float settings[CONTROLLER_SETTINGS]);
    double (*first)(const struct objective_config *c); /* weight at the first step */
    double (*first_sum)(const struct objective_config *c);
};

struct objective {
    struct objective_config config;
    struct model_config model;
    size_t steps;                                             /* of the schedules */
    bool autoencoder;                                         /* the KL weighs nothing */
    const struct objective_term *terms[OBJECTIVE_MOST_TERMS]; /* those in force */
    size_t count;
    const struct objective_controller *owner[OBJECTIVE_MOST_TERMS]; /* (count) of each term's weight; null: none has */
    size_t controllers;                                             /* how many there are */
    double scale[2][OBJECTIVE_MOST_TERMS]; /* weights of a sentence, for both answers of a step (op_select_row) */
    bool gated;                            /* a switch stands behind the weights: 1 where beta is 1, else 0     */
    float weights[2 * (OBJECTIVE_MOST_TERMS + 1)]; /* (2, columns) the recording's input: the same over the sentences */
};

/* Refuses contradictions between the options (ELBO_USAGE names them); the run's table does so too. */
elbo_status objective_check(const struct objective_config *config, const struct model_config *model, elbo_error *error);

elbo_status objective_create(struct objective *o, const struct objective_config *config,
                             const struct model_config *model, size_t steps, elbo_error *error);

/* Why an option of the section has no effect beside the others; null: it has one. `key` without "objective.". */
const char *objective_idle(const struct objective_config *config, const struct model_config *model, const char *key);

/* Whether steps may be passes of the encoder or the decoder alone (train/passes.h). */
bool objective_aggressive(const struct objective_config *config);

/* The option to try against a collapsed latent: "objective.free_bits=0.25". */
void objective_remedy(char *text, size_t size, const struct objective_config *config, const struct model_config *model);

/* Raises the rate that the objective asks for, `times` times: the exact rate, the target of a controller or the minimum
 * desired rate by half each time, else the free bits, to 0.1 nats of a dimension at first and four times as much each
 * time after it. */
void objective_raise(struct objective_config *config, struct model_config *model, size_t times);
/* The same in words: "objective.free_bits is 0.1". */
void objective_raised(char *text, size_t size, const struct objective_config *config, const struct model_config *model,
                      size_t times);

/* Elements of the loss that the recording keeps: ELBO_PARTS, and one for each term that records its own. */
size_t objective_parts(const struct objective *o);

/* Columns of the weights: the terms, and the switch where there is one. */
size_t objective_columns(const struct objective *o);

/* The loss's weights, (2, columns) f32, come in as the input "weights", and where a controller owns one their scales,
 * (columns) f32 in the backend's memory, as the input "scales". */
value objective_weights(const struct objective *o, struct graph *g, value control);

/* The loss of a slot, (objective_parts), and the sums over its sentences of the KL by dimension, or none. */
struct elbo_value objective_record(const struct objective *o, const struct training_pass *pass, value weights);

/* Answer 0 or 1: the weights of a step of so many sentences, after so many updates. */
void objective_weigh(struct objective *o, unsigned answer, size_t update, size_t sentences);

/* Values of a step's terms, in nats a sentence, and their weights. */
struct objective_figure {
    const char *name;
    double value;
    bool is_weight, on_console;
};

/* Into figures (OBJECTIVE_MOST_FIGURES); parts: what the recording summed over the step, scale: the weights of a
 * sentence. Returns how many, values and weights in the order of the terms. */
size_t objective_figures(const struct objective *o, struct objective_figure *figures, const float *parts,
                         const double *scale, double sentences);

/* One of them by name; NaN where there is none. */
double objective_figure(const struct objective_figure *figures, size_t count, const char *name);

#endif
