/* The memory table: what a training run will hold, computed from the recordings, before anything of it is allocated. */
#ifndef TRAIN_MEMORY_H
#define TRAIN_MEMORY_H

#include "train/config.h"
#include "text/slots.h"

#include <stdio.h>

struct memory_table {
    size_t parameters; /* without padding                                          */
    size_t weights, gradients, moments, activations, workspace, slots, sums,
        total;                 /* bytes; sums: of lanes and other ranks */
    size_t masters;            /* of the weights: f32 ones that have bf16 ones beside them   */
    size_t unshared;           /* activations, had each its own memory: what sharing saves */
    double flops, bytes_moved; /* of one slot at its capacities, forward and backward */
    size_t ranks;
    double wire;         /* bytes that a rank sends in a step, and as many that it receives */
    double wire_seconds; /* that all of it takes, by parallel.bandwidth and latency: an estimate; 0: not known */
    double exposed;      /* of them those of the last bucket, which no backward pass hides: an estimate */
    size_t ops;
};

struct backend;

/* `config->model.vocabulary` and `.positions` must be set. `backend` null: the configuration's, or the CPU where it
 * cannot be used here. */
elbo_status memory_plan(struct memory_table *t, const struct elbo_config *config, struct backend *backend,
                        elbo_error *error);

/* Slot capacities of a training configuration. */
struct slot_options slot_options_of(const struct elbo_config *config);

/* Refuses, with the table, what is more than the machine can give now (0: unknown, not checked). */
elbo_status memory_check(const struct memory_table *t, size_t available, elbo_error *error);
size_t memory_available(void);

/* The table as text, a line each, into `text`. */
void memory_print(char *text, size_t size, const struct memory_table *t);

#endif
