/* Where the trials of trial.h run: the emulated device (device_sim.c) or a real one (device_cuda.c). A trial runs
 * several times, and every run must leave the same bits. */
#ifndef TESTS_KERNELS_DEVICE_H
#define TESTS_KERNELS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Null, or why no trial can run here. */
const char *device_missing(void);
const char *device_name(void);

/* How often a trial runs; `chosen`: it is the one trial of its launcher and type that may be run again many times.
 * Emulated: once in each order of warps, or in the first $ELBO_TEST_REPEATS of them. Real: $ELBO_TEST_REPEATS times
 * (3), chosen ones $ELBO_TEST_RERUNS times. */
size_t device_runs(bool chosen);
/* What a run of the trial differs in, in words for a message. */
const char *device_difference(void);
/* Before run `run` of a trial that began `seconds` ago; false: no time is left for it. */
bool device_prepare(size_t run, uint64_t seed, double seconds);
/* Bank conflicts of matrix loads from shared memory so far; 0 where they are not counted. */
size_t device_bank_conflicts(void);
/* From now on a block has at most this much shared memory; 0: what it is by nature. Nothing on a real device. */
void device_limit_shared(size_t bytes);
/* The kernel that ran last, without its template arguments; null where that is not known. */
const char *device_kernel(void);
/* What is known about the last error beyond its name. */
const char *device_message(void);

#endif
