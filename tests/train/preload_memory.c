/* Makes allocations of a program fail: loaded before it with LD_PRELOAD, and controlled by the environment. Allocations
 * are counted from the beginning of main, in all threads and libraries: malloc and its family, mmap, and threads, which
 * need a stack.
 *
 *   MEMORY_AT=17 [MEMORY_TIMES=1000000]    the 17th allocation (from 0) fails, and MEMORY_TIMES from there on
 *   MEMORY_LOG=FILE                        writes the count at the end, and for each allocation a number of the two
 *                                          calls of the program that made it
 *   MEMORY_LEFT=FILE                       writes how many blocks and open files main leaves behind
 *   MEMORY_LEAK=1                          leaks a block, for the leak checker to find */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { MOST_PLACES = 1 << 18, FRAMES = 24 };

static struct {
    atomic_bool on;
    atomic_size_t count;
    atomic_llong blocks; /* live blocks */
    size_t at, times;
    bool log;
    uintptr_t program, end; /* range of the program's code */
    uint32_t places[MOST_PLACES];
} memory;

#define REAL(name, result, ...)                                                                                        \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

/* Returns the two innermost calls in the program's own code as one number. */
static uint32_t place(void)
{
    void *frames[FRAMES];
    uint64_t mixed = 0;
    int count = backtrace(frames, FRAMES);
    for (int i = 0, found = 0; i < count && found < 2; i++) {
        uintptr_t at = (uintptr_t)frames[i];
        if (at < memory.program || at >= memory.end) continue;
        mixed = (mixed + (at - memory.program)) * 0x9e3779b97f4a7c15u;
        found++;
    }
    return (uint32_t)(mixed >> 32);
}

static bool fails(void)
{
    if (!atomic_load(&memory.on)) return false;
    size_t n = atomic_fetch_add(&memory.count, 1);
    if (memory.log && n < MOST_PLACES) memory.places[n] = place();
    if (n < memory.at || n - memory.at >= memory.times) return false;
    errno = ENOMEM;
    return true;
}

static _Thread_local bool in_thread_create
    __attribute__((tls_model("initial-exec"))); /* its blocks stay with the C library */

static void *begun(void *block)
{
    if (block && atomic_load(&memory.on) && !in_thread_create) atomic_fetch_add(&memory.blocks, 1);
    return block;
}

void *malloc(size_t size)
{
    REAL(malloc, void *, size_t);
    return fails() ? NULL : begun(real(size));
}

void free(void *block)
{
    static void (*real)(void *);
    static bool looking; /* dlsym may call free itself */
    if (!real && looking) return;
    looking = true;
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "free");
    if (block && atomic_load(&memory.on)) atomic_fetch_sub(&memory.blocks, 1);
    real(block);
}

void *calloc(size_t count, size_t size)
{
    REAL(calloc, void *, size_t, size_t);
    return fails() ? NULL : begun(real(count, size));
}

void *realloc(void *old, size_t size)
{
    REAL(realloc, void *, void *, size_t);
    if (fails()) return NULL;
    return old ? real(old, size) : begun(real(NULL, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    REAL(aligned_alloc, void *, size_t, size_t);
    return fails() ? NULL : begun(real(alignment, size));
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    REAL(memalign, void *, size_t, size_t);
    return fails() ? NULL : begun(real(alignment, size));
}

int posix_memalign(void **memory_out, size_t alignment, size_t size)
{
    REAL(posix_memalign, int, void **, size_t, size_t);
    if (fails()) return ENOMEM;
    int code = real(memory_out, alignment, size);
    if (!code) begun(*memory_out);
    return code;
}

void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset)
{
    REAL(mmap, void *, void *, size_t, int, int, int, off_t);
    return fails() ? MAP_FAILED : real(at, size, protection, flags, file, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    REAL(pthread_create, int, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (fails()) return EAGAIN;
    in_thread_create = true;
    int code = real(thread, attributes, start, argument);
    in_thread_create = false;
    return code;
}

/* ---- from the beginning of main to its end ---- */

typedef int main_function(int, char **, char **);
static main_function *program;

static size_t open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    size_t count = 0;
    while (folder && readdir(folder)) count++;
    if (folder) closedir(folder);
    return count;
}

/* The program is the first object of the list. */
static int find_program(struct dl_phdr_info *about, size_t size, void *context)
{
    (void)size;
    (void)context;
    memory.program = memory.end = about->dlpi_addr;
    for (int i = 0; i < about->dlpi_phnum; i++) {
        uintptr_t end = about->dlpi_addr + about->dlpi_phdr[i].p_vaddr + about->dlpi_phdr[i].p_memsz;
        if (about->dlpi_phdr[i].p_type == PT_LOAD && end > memory.end) memory.end = end;
    }
    return 1;
}

static int counted(int argc, char **argv, char **environment)
{
    const char *at = getenv("MEMORY_AT"), *times = getenv("MEMORY_TIMES");
    memory.at = at ? strtoull(at, NULL, 10) : SIZE_MAX;
    memory.times = times ? strtoull(times, NULL, 10) : 1;
    if (getenv("MEMORY_LEAK")) {
        void *volatile lost = malloc(1000);
        lost = NULL;
        (void)lost;
    }
    const char *log = getenv("MEMORY_LOG");
    memory.log = log;
    dl_iterate_phdr(find_program, NULL);
    if (log) place(); /* the first trace loads a library */
    size_t files = open_files();
    atomic_store(&memory.on, true);
    int code = program(argc, argv, environment);
    atomic_store(&memory.on, false);
    const char *left = getenv("MEMORY_LEFT");
    FILE *list = left ? fopen(left, "w") : NULL;
    if (list) fprintf(list, "%lld %zu\n", (long long)atomic_load(&memory.blocks), open_files() - files - 1);
    if (list) fclose(list);
    FILE *file = log ? fopen(log, "w") : NULL;
    size_t count = atomic_load(&memory.count);
    if (file) fprintf(file, "%zu\n", count);
    for (size_t i = 0; file && i < count && i < MOST_PLACES; i++) fprintf(file, "%x\n", memory.places[i]);
    if (file) fclose(file);
    return code;
}

int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*loader)(void), void *stack);
int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*loader)(void), void *stack)
{
    REAL(__libc_start_main, int, main_function *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
    program = main;
    return real(counted, argc, argv, init, fini, loader, stack);
}
