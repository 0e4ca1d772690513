/* The device that runs the trials of trial.h: emulated (device_sim.c) or real (device_cuda.c). A trial runs several
 * times, and every run must leave the same bits. */
#ifndef TESTS_KERNELS_DEVICE_H
#define TESTS_KERNELS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Returns null, or the reason why no trial can run here. */
const char *device_missing(void);
const char *device_name(void);

/* Returns how often a trial runs. `chosen`: this is the one trial of its launcher and type that may be repeated many
 * times. Emulated: once in each order of warps, or in the first $ELBO_TEST_REPEATS orders. Real: $ELBO_TEST_REPEATS
 * times (default 3), chosen trials $ELBO_TEST_RERUNS times. */
size_t device_runs(bool chosen);
/* Returns what differs between runs, in words for a message. */
const char *device_difference(void);
/* Prepares run `run` of a trial that began `seconds` ago; returns false if there is no time left for it. */
bool device_prepare(size_t run, uint64_t seed, double seconds);
/* Returns the bank conflicts of matrix loads from shared memory so far; 0 if they are not counted. */
size_t device_bank_conflicts(void);
/* Limits the shared memory of a block from now on; 0 removes the limit. Does nothing on a real device. */
void device_limit_shared(size_t bytes);
/* Returns the name of the kernel that ran last, without its template arguments, or null if it is not known. */
const char *device_kernel(void);
/* Returns what is known about the last error beyond its name. */
const char *device_message(void);

#endif
