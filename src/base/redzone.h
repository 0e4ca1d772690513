/* Redzones in arenas under the address sanitizer: bytes that no access may touch until they are opened. Without the
 * sanitizer these functions do nothing. */
#ifndef BASE_REDZONE_H
#define BASE_REDZONE_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
enum { REDZONE_BYTES = 64 };
static inline void redzone_close(const void *memory, size_t bytes)
{
    __asan_poison_memory_region(memory, bytes);
}
static inline void redzone_open(const void *memory, size_t bytes)
{
    __asan_unpoison_memory_region(memory, bytes);
}
#else
enum { REDZONE_BYTES = 0 };
static inline void redzone_close(const void *memory, size_t bytes)
{
    (void)memory;
    (void)bytes;
}
static inline void redzone_open(const void *memory, size_t bytes)
{
    (void)memory;
    (void)bytes;
}
#endif

#endif
