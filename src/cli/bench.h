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
    struct label_names labels; /* of a model with data.labels, and their numbers */
    int32_t *numbers;
};

/* One step as training runs it, waited for; adds what it computed to *flops (by the graph's count) and *tokens. */
elbo_status bench_step(struct bench *b, double *flops, double *tokens, elbo_error *error);

/* The hook is called around every op of this graph from now on. */
void bench_hook(struct executor *e, execute_hook hook, void *context);

/* All launched work has been done when it returns. */
elbo_status bench_wait(struct bench *b, elbo_error *error);

/* null where it is not known: JSON has no NaN */
json_t *bench_figure(double x);

/* ---- one file each ---- */
elbo_status bench_steps(struct bench *b, elbo_error *error);       /* elbo bench step    */
elbo_status bench_kernels(struct bench *b, elbo_error *error);     /* elbo bench kernels */
elbo_status bench_collectives(struct cli *cli, elbo_error *error); /* elbo bench collectives: no model */

#endif
