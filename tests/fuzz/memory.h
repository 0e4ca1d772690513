/* The number of bytes allocated now, and the most since fuzz_memory_begin; see memory.c. */
#ifndef TESTS_FUZZ_MEMORY_H
#define TESTS_FUZZ_MEMORY_H

#include <stddef.h>

void fuzz_memory_open(void);
void fuzz_memory_begin(void);
size_t fuzz_memory_now(void);
size_t fuzz_memory_most(void);
void fuzz_memory_pause(void);
void fuzz_memory_resume(void);

#endif
