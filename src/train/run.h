/* A trained model, opened from a run directory or from one of its checkpoints, ready to use. */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "elbo/tokenizer.h"
#include "model/model.h"
#include "checkpoint/checkpoint.h"
#include "train/config.h"
#include "train/fitted_prior.h"
#include "train/label_names.h"
#include "train/rounded.h"

struct run {
    const struct elbo_config *config;
    struct checkpoint *checkpoint;
    struct backend *backend;
    struct model model;
    struct rounded rounded; /* --weights: another file's weights in the place of the checkpoint's */
    struct elbo_tokenizer *tokenizer;
    struct elbo_marks marks;
    struct label_names labels;  /* labels that the model knows */
    struct fitted_prior fitted; /* prior fitted after training; density.count 0: none */
    struct elbo_ids line_ends;  /* tokens with line ends; never generated, because a sentence is a line */
};

/* Reads the run's configuration into `options`, whose target is `config`, then its tokenizer and weights. `reapply`
 * reads overrides again on top of the configuration. `warn` is told of checkpoints that were passed over. */
elbo_status run_open(struct run *r, const char *path, struct options *options, const struct elbo_config *config,
                     elbo_status (*reapply)(void *context, elbo_error *error), checkpoint_warning warn, void *context,
                     elbo_error *error);
void run_close(struct run *r);

#endif
