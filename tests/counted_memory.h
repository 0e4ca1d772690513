/* The program's own malloc takes the place of the C library's, to count what stays and to fail once. */
#ifndef TESTS_COUNTED_MEMORY_H
#define TESTS_COUNTED_MEMORY_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTED 0 /* the sanitizers' allocators are in its place */
#else
#define COUNTED 1
#endif

static atomic_long memory_held, memory_until; /* blocks in use; calls until one fails, 0: none does */
static _Thread_local struct {
    size_t count, size;
} memory_lacks __attribute__((unused)); /* what calloc has not for this thread */

#if COUNTED
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

static bool fails(void)
{
    if (!atomic_load(&memory_until) || atomic_fetch_sub(&memory_until, 1) != 1) return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *memory)
{
    if (memory) atomic_fetch_add(&memory_held, 1);
    return memory;
}

void *malloc(size_t size)
{
    return fails() ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    bool lacks = memory_lacks.count && n == memory_lacks.count && size == memory_lacks.size;
    return lacks || fails() ? NULL : counted(__libc_calloc(n, size));
}

void *realloc(void *memory, size_t size)
{
    if (fails()) return NULL;
    void *larger = __libc_realloc(memory, size);
    return memory ? larger : counted(larger);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    return fails() ? NULL : counted(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

void free(void *memory)
{
    if (memory) atomic_fetch_sub(&memory_held, 1);
    __libc_free(memory);
}
#endif

#endif
