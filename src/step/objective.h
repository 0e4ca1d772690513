/* The objective: the single table of its terms. A term defines when it is in force, what it records, its weight at each
 * update and the names of its figures in the log. Nothing else sets a weight.
 *
 *     loss = sum over terms of weight * value, a mean over the step's sentences
 *
 *     objective_create(&o, &config, &model, steps, &error);       -- checks, and picks the terms in force
 *     record_train(&recording, &model, &o, ...);                  -- step/recording.h: each term records its value
 *     objective_weigh(&o, answer, update, sentences);             -- before a step: its weights into o.weights
 *     objective_figures(&o, figures, parts, weights, sentences);  -- after it: the figures to report
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
    const char *name;   /* name of its value in the log */
    const char *weight; /* name of its weight in the log; null: the weight is always 1, and not logged */
    bool tells_weight;  /* the console shows the weight too */
    unsigned parts;     /* number of parts of op_elbo's report, from `part` on; 0: the term records its own */
    unsigned part;
    const char *const *part_names; /* (parts) the first is `name` */
    const char *const *options;    /* its keys of the section `objective`, ended by null */
    /* Returns whether the term's own options switch it off, which is no contradiction; null: never. */
    bool (*off)(const struct objective_config *c);
    /* Returns why the term is not in force, worded to follow its option's name; null: it is in force. */
    const char *(*absent)(const struct objective_context *c);
    /* Refuses combinations of options; null: none. */
    elbo_status (*check)(const struct objective_context *c, elbo_error *error);
    /* Returns the weight at update number `update` (the updates applied before) of `steps`; null: 1. */
    double (*weigh)(const struct objective_config *c, size_t update, size_t steps);
    /* Records (1) f32, the sum of the term's value over the slot's sentences; null: op_elbo computes it. */
    value (*record)(const struct objective_context *c, const struct training_pass *pass);
};

/* A controller moves the weight of a term by the measurements of earlier steps, in the backend's memory
 * (op_controller), so that the host does not wait for them. One controller owns a weight. */
struct objective_controller {
    const char *name;           /* of its option, and of its state in a checkpoint: objective.<name> */
    const char *weight;         /* its term's weight, by its name in the log */
    const char *const *options; /* its other keys, ended by null */
    bool (*off)(const struct objective_config *c);
    elbo_status (*check)(const struct objective_context *c, elbo_error *error);
    enum controller_rule rule;
    unsigned part; /* the part of op_elbo's sums that it measures */
    void (*set)(const struct objective_config *c, float settings[CONTROLLER_SETTINGS]);
    double (*first)(const struct objective_config *c); /* weight at the first step */
    double (*first_sum)(const struct objective_config *c);
};

struct objective {
    struct objective_config config;
    struct model_config model;
    size_t steps;                                             /* of the schedules */
    bool autoencoder;                                         /* the KL has weight 0 */
    const struct objective_term *terms[OBJECTIVE_MOST_TERMS]; /* the terms in force */
    size_t count;
    const struct objective_controller *owner[OBJECTIVE_MOST_TERMS]; /* (count) owner of each weight; null: none */
    size_t controllers;                                             /* number of controllers */
    double scale[2][OBJECTIVE_MOST_TERMS]; /* weights per sentence, for both answers of a step (op_select_row) */
    bool gated;                            /* a switch follows the weights: 1 where beta is 1, else 0 */
    float weights[2 * (OBJECTIVE_MOST_TERMS + 1)]; /* (2, columns) the recording's input: scale / sentences */
};

/* Refuses contradictions between the options (ELBO_USAGE names them). The check of a configuration calls it too. */
elbo_status objective_check(const struct objective_config *config, const struct model_config *model, elbo_error *error);

elbo_status objective_create(struct objective *o, const struct objective_config *config,
                             const struct model_config *model, size_t steps, elbo_error *error);

/* Returns why an option of the section has no effect with the other options; null: it has one. `key` is without
 * "objective.". */
const char *objective_idle(const struct objective_config *config, const struct model_config *model, const char *key);

/* Returns whether steps may be passes of the encoder or the decoder alone (train/passes.h). */
bool objective_aggressive(const struct objective_config *config);

/* Writes the option to try against a collapsed latent: "objective.free_bits=0.25". */
void objective_remedy(char *text, size_t size, const struct objective_config *config, const struct model_config *model);

/* Raises the rate that the objective asks for, `times` times. The exact rate, a controller's target or the minimum
 * desired rate rises by half each time. Otherwise free bits become 0.1 nats a dimension at first, and four times as
 * much each time after it. */
void objective_raise(struct objective_config *config, struct model_config *model, size_t times);
/* Writes the raised rate: "objective.free_bits is 0.1". */
void objective_raised(char *text, size_t size, const struct objective_config *config, const struct model_config *model,
                      size_t times);

/* Returns the elements of the loss that the recording keeps: ELBO_PARTS, and one for each term that records its own. */
size_t objective_parts(const struct objective *o);

/* Returns the columns of the weights: the terms, and the switch if there is one. */
size_t objective_columns(const struct objective *o);

/* Records the selection of the loss's weights. The weights, (2, columns) f32, are the input "weights". If a controller
 * owns a weight, the scales, (columns) f32 in the backend's memory, are the input "scales". */
value objective_weights(const struct objective *o, struct graph *g, value control);

/* Records the loss of a slot, (objective_parts), and the sums over its sentences of the KL by dimension, or none. */
struct elbo_value objective_record(const struct objective *o, const struct training_pass *pass, value weights);

/* Sets the weights of answer 0 or 1 for a step of `sentences` sentences, after `update` updates. */
void objective_weigh(struct objective *o, unsigned answer, size_t update, size_t sentences);

/* Values of a step's terms, in nats a sentence, and their weights. */
struct objective_figure {
    const char *name;
    double value;
    bool is_weight, on_console;
};

/* Writes figures (OBJECTIVE_MOST_FIGURES) and returns their number: values and weights in the order of the terms.
 * parts: the recording's sums over the step; scale: the weights per sentence. */
size_t objective_figures(const struct objective *o, struct objective_figure *figures, const float *parts,
                         const double *scale, double sentences);

/* Returns one figure by name; NaN when there is none. */
double objective_figure(const struct objective_figure *figures, size_t count, const char *name);

#endif
