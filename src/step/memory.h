/* The memory table: the memory that a training run will hold, computed from its step's recording before anything is
 * allocated. */
#ifndef STEP_MEMORY_H
#define STEP_MEMORY_H

#include "step/step.h"

struct memory_table {
    size_t parameters; /* count, without padding */
    size_t weights, gradients, moments, activations, workspace, slots, sums,
        total;                 /* bytes; sums: of lanes and other ranks */
    size_t masters;            /* bytes of the weights that are f32 masters of bf16 weights */
    size_t unshared;           /* activations if none shared memory: shows what sharing saves */
    double flops, bytes_moved; /* of one slot at its capacities, forward and backward */
    size_t ranks;
    double wire;         /* bytes that a rank sends in a step; it receives as many */
    double wire_seconds; /* time for all of it, an estimate by memory_wire; 0: not known */
    double exposed;      /* time for the last bucket, which no backward pass hides: an estimate */
    size_t ops;
};

/* Fills the table. The step must be planned (step_plan). */
void memory_table_of(struct memory_table *t, const struct step *s);

/* Estimates the time that ranks need to exchange data, from the bandwidth in GB/s and the latency in microseconds a
 * message; 0 GB/s: not known. */
void memory_wire(struct memory_table *t, const struct step *s, double bandwidth, double latency);

/* Refuses, with the table, a run that needs more than the machine can give now (0: unknown, not checked). */
elbo_status memory_check(const struct memory_table *t, size_t available, elbo_error *error);
size_t memory_available(void);

/* Writes the table as text into `text`, one line per row. */
void memory_print(char *text, size_t size, const struct memory_table *t);

#endif
