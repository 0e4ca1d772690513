/* Shared by the benchmarks: a model with its training and update graphs on a device, fed from a corpus. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli/cli.h"
#include "elbo/corpus.h"
#include "graph/account.h"
#include "device/backends.h"
#include "ops/list.h"
#include "step/step.h"
#include "train/label_names.h"

#include <jansson.h>

struct bench {
    struct cli *cli;
    struct elbo_corpus *corpus;
    struct backend *backend;
    struct step step;
    struct slot_loader *loader;
    struct label_names labels; /* with data.labels: the names, and the number of each sentence's label */
    int32_t *numbers;
};

/* Runs one training step, updates the parameters and waits for the device. Adds the operations that the graph counts to
 * *flops and the predicted tokens to *tokens. */
elbo_status bench_step(struct bench *b, double *flops, double *tokens, elbo_error *error);

/* Calls `hook` around every op that `e` executes from now on. */
void bench_hook(struct executor *e, execute_hook hook, void *context);

/* Waits until the device has done all launched work. */
elbo_status bench_wait(struct bench *b, elbo_error *error);

/* Returns x, or null when x is not finite, because JSON has no NaN. */
json_t *bench_figure(double x);

/* ---- one file for each benchmark ---- */
elbo_status bench_steps(struct bench *b, elbo_error *error);       /* elbo bench step    */
elbo_status bench_kernels(struct bench *b, elbo_error *error);     /* elbo bench kernels */
elbo_status bench_collectives(struct cli *cli, elbo_error *error); /* elbo bench collectives, which needs no model */

#endif
