/* Counts allocated bytes, by the sanitizer's hooks or by wrapping glibc's functions. Only one thread may allocate. */
#include "fuzz/memory.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>

static size_t now, most;
static int paused;

static void gained(size_t bytes)
{
    if (paused) return;
    now += bytes;
    if (now > most) most = now;
}

static void lost(size_t bytes)
{
    if (!paused) now -= bytes < now ? bytes : now;
}

void fuzz_memory_begin(void)
{
    most = now;
}

size_t fuzz_memory_now(void)
{
    return now;
}

size_t fuzz_memory_most(void)
{
    return most;
}

void fuzz_memory_pause(void)
{
    paused++;
}

void fuzz_memory_resume(void)
{
    paused--;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTED_BY_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTED_BY_SANITIZER 1
#endif
#endif

#ifdef COUNTED_BY_SANITIZER

int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *p);

static void on_malloc(const volatile void *p, size_t size)
{
    if (p) gained(size);
}

static void on_free(const volatile void *p)
{
    if (p) lost(__sanitizer_get_allocated_size(p));
}

void fuzz_memory_open(void)
{
    if (!__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free)) abort();
}

#else

/* glibc's own functions, under their internal names. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void __libc_free(void *memory);

void *malloc(size_t size)
{
    void *memory = __libc_malloc(size);
    if (memory) gained(malloc_usable_size(memory));
    return memory;
}

void *calloc(size_t count, size_t size)
{
    void *memory = __libc_calloc(count, size);
    if (memory) gained(malloc_usable_size(memory));
    return memory;
}

void *realloc(void *memory, size_t size)
{
    size_t before = memory ? malloc_usable_size(memory) : 0;
    void *larger = __libc_realloc(memory, size);
    if (larger || !size) {
        lost(before);
        if (larger) gained(malloc_usable_size(larger));
    }
    return larger;
}

void free(void *memory)
{
    if (memory) lost(malloc_usable_size(memory));
    __libc_free(memory);
}

void fuzz_memory_open(void)
{
}

#endif
