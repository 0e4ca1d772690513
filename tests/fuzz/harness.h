/* Fuzz targets: each reader of files in its own program, with limits on time, memory and leaks per execution.
 *
 * A target is tests/fuzz/fuzz_*.c with fuzz_one, which reads `data` as the reader's file, and fuzz_seed, the initial
 * files. The driver is libFuzzer in the build of the preset `fuzz`, and driver.c elsewhere. harness.c checks every
 * execution: at most 100 ms of processor time, at most four times the file + 1 MiB allocated at any moment, and as much
 * allocated after as before.
 *
 * ELBO_FUZZ_FAULT=planted|slow|memory|leak plants a fault that must be found. `planted` is the bug of FUZZ_PLANTED,
 * which no seed reaches. */
#ifndef TESTS_FUZZ_HARNESS_H
#define TESTS_FUZZ_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- functions of a target ---- */

/* Returns the reader's status; 0 for an accepted file. */
int fuzz_one(const unsigned char *data, size_t size);
/* Writes seed `index` to `out` and returns its size; 0: no such seed. */
size_t fuzz_seed(size_t index, unsigned char *out, size_t room);

/* ---- functions for targets ---- */

/* A bug for the driver to find: reads past an allocation when `condition` holds. */
#define FUZZ_PLANTED(condition)                                                                                        \
    do {                                                                                                               \
        if (fuzz_fault_planted() && (condition)) fuzz_overflow();                                                      \
    } while (0)
bool fuzz_fault_planted(void);
void fuzz_overflow(void);

/* Ends the program when a property does not hold. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_fail(#condition, __FILE__, __LINE__))
void fuzz_fail(const char *what, const char *file, int line);

/* The target's own allocations between these calls do not count as the reader's. */
void fuzz_own_begin(void);
void fuzz_own_end(void);

/* Writes a text as a seed. */
size_t fuzz_text(const char *text, unsigned char *out, size_t room);

/* A folder in memory, removed at the end; fuzz_put writes a file of it anew. */
const char *fuzz_folder(void);
void fuzz_put(const char *name, const void *bytes, size_t size);

/* ---- for the drivers ---- */
enum { FUZZ_LARGEST = 4096 }; /* most bytes of an input */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *count, char ***arguments);

#endif
