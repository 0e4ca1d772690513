/* Fuzz targets: each reader of files in its own program, with limits on time, memory and leaks per execution.
 *
 * A target is tests/fuzz/fuzz_*.c with fuzz_one, which reads `data` as the reader's file, and fuzz_seed, files to begin
 * with. The driver is libFuzzer in the build of the preset `fuzz`, and driver.c elsewhere. For every execution
 * harness.c checks: at most 100 ms of processor time, at most four times the file + 1 MiB of allocations at any moment,
 * and as much allocated after as before.
 *
 * ELBO_FUZZ_FAULT=planted|slow|memory|leak plants a fault that must be found: `planted` stands at FUZZ_PLANTED, where
 * only files come that no seed is like. */
#ifndef TESTS_FUZZ_HARNESS_H
#define TESTS_FUZZ_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- what a target gives ---- */

/* The reader's status; 0 where the file was accepted. */
int fuzz_one(const unsigned char *data, size_t size);
/* Writes seed `index` to `out` and says its size; 0: there is no such seed. */
size_t fuzz_seed(size_t index, unsigned char *out, size_t room);

/* ---- what it may use ---- */

/* A bug for the driver to find: reads past an allocation where `condition` holds. */
#define FUZZ_PLANTED(condition)                                                                                        \
    do {                                                                                                               \
        if (fuzz_fault_planted() && (condition)) fuzz_overflow();                                                      \
    } while (0)
bool fuzz_fault_planted(void);
void fuzz_overflow(void);

/* Ends the program: a property does not hold. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_fail(#condition, __FILE__, __LINE__))
void fuzz_fail(const char *what, const char *file, int line);

/* Bytes allocated that do not count as the reader's, until fuzz_own_end: the target's own. */
void fuzz_own_begin(void);
void fuzz_own_end(void);

/* A text as a seed. */
size_t fuzz_text(const char *text, unsigned char *out, size_t room);

/* A folder in memory, removed at the end; and a file of it written anew. */
const char *fuzz_folder(void);
void fuzz_put(const char *name, const void *bytes, size_t size);

/* ---- for the drivers ---- */
enum { FUZZ_LARGEST = 4096 }; /* bytes of an input */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *count, char ***arguments);

#endif
