/* The memory table: what a training run will hold, computed from its step's recording before anything is allocated. */
#ifndef STEP_MEMORY_H
#define STEP_MEMORY_H

#include "step/step.h"

struct memory_table {
    size_t parameters; /* without padding                                          */
    size_t weights, gradients, moments, activations, workspace, slots, sums,
        total;                 /* bytes; sums: of lanes and other ranks */
    size_t masters;            /* of the weights: f32 ones that have bf16 ones beside them   */
    size_t unshared;           /* activations, had each its own memory: what sharing saves */
    double flops, bytes_moved; /* of one slot at its capacities, forward and backward */
    size_t ranks;
    double wire;         /* bytes that a rank sends in a step, and as many that it receives */
    double wire_seconds; /* that all of it takes, by memory_wire: an estimate; 0: not known */
    double exposed;      /* those of the last bucket, which no backward pass hides: an estimate */
    size_t ops;
};

/* The step is planned (step_plan). */
void memory_table_of(struct memory_table *t, const struct step *s);

/* Estimates the time on the wire of what ranks exchange, by GB/s and microseconds a message; 0 GB/s: not known. */
void memory_wire(struct memory_table *t, const struct step *s, double bandwidth, double latency);

/* Refuses, with the table, what is more than the machine can give now (0: unknown, not checked). */
elbo_status memory_check(const struct memory_table *t, size_t available, elbo_error *error);
size_t memory_available(void);

/* The table as text, a line each, into `text`. */
void memory_print(char *text, size_t size, const struct memory_table *t);

#endif
