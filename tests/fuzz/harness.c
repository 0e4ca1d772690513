/* Runs one execution with its limits, and keeps the totals of all executions; see harness.h. */
#include "fuzz/harness.h"

#include "fuzz/memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const double most_seconds = 0.1;
static const size_t memory_slack = 1 << 20, memory_factor = 4;

static struct {
    enum { FAULT_NONE, FAULT_PLANTED, FAULT_SLOW, FAULT_MEMORY, FAULT_LEAK } fault;
    char folder[64];
    /* over all executions */
    size_t executions, accepted, most_bytes, largest;
    double slowest, fullest; /* slowest: seconds; fullest: share of the memory limit */
} all;

static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void fuzz_fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: fuzzing found that this does not hold: %s\n", file, line, what);
    abort();
}

bool fuzz_fault_planted(void)
{
    return all.fault == FAULT_PLANTED;
}

void fuzz_overflow(void)
{
    char *volatile memory = malloc(16);
    volatile char *past = memory + 16;
    volatile char found = *past; /* the sanitizer ends the program here */
    (void)found;
    free(memory);
    fuzz_fail("no byte past an allocation is read", __FILE__, __LINE__);
}

void fuzz_own_begin(void)
{
    fuzz_memory_pause();
}

void fuzz_own_end(void)
{
    fuzz_memory_resume();
}

size_t fuzz_text(const char *text, unsigned char *out, size_t room)
{
    size_t size = strlen(text);
    if (size > room) size = room;
    memcpy(out, text, size);
    return size;
}

/* ---- files ---- */

static void remove_folder(void)
{
    DIR *folder = opendir(all.folder);
    char path[512];
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        snprintf(path, sizeof path, "%s/%.255s", all.folder, entry->d_name);
        unlink(path);
    }
    if (folder) closedir(folder);
    rmdir(all.folder);
}

const char *fuzz_folder(void)
{
    if (*all.folder) return all.folder;
    snprintf(all.folder, sizeof all.folder, "%s/elbo-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(all.folder)) fuzz_fail("a temporary folder can be made", __FILE__, __LINE__);
    atexit(remove_folder);
    return all.folder;
}

void fuzz_put(const char *name, const void *bytes, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    close(fd);
}

/* ---- an execution ---- */

static void say_all(void)
{
    printf("figure executions %zu\nfigure accepted %zu\nfigure slowest_us %.0f\nfigure most_bytes %zu\n"
           "figure memory_percent %.0f\nfigure largest_input %zu\n",
           all.executions, all.accepted, 1e6 * all.slowest, all.most_bytes, 100 * all.fullest, all.largest);
    fflush(stdout);
}

static void plant(void)
{
    static void *volatile kept;
    if (all.fault == FAULT_SLOW)
        for (double begin = processor_seconds(); processor_seconds() - begin < 1.5 * most_seconds;) {
        }
    if (all.fault == FAULT_MEMORY) free(kept = malloc(memory_slack + memory_factor * FUZZ_LARGEST + 4096));
    if (all.fault == FAULT_LEAK) kept = malloc(24);
}

static int measured(double *seconds, size_t *bytes, size_t *left, const uint8_t *data, size_t size)
{
    size_t before = fuzz_memory_now();
    fuzz_memory_begin();
    double begin = processor_seconds();
    int status = fuzz_one(data, size);
    plant();
    *seconds = processor_seconds() - begin;
    *bytes = fuzz_memory_most() - before;
    *left = fuzz_memory_now() > before ? fuzz_memory_now() - before : 0;
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double seconds;
    size_t bytes, left, limit = memory_factor * size + memory_slack;
    int status = measured(&seconds, &bytes, &left, data, size);
    /* A failure counts only when it recurs, because one-time setup stays allocated and other processes can take the
     * CPU. */
    for (int again = 0; again < 3 && (left || seconds > most_seconds); again++)
        status = measured(&seconds, &bytes, &left, data, size);
    all.executions++;
    all.accepted += status == 0;
    if (size > all.largest) all.largest = size;
    if (seconds > all.slowest) all.slowest = seconds;
    if (bytes > all.most_bytes) all.most_bytes = bytes;
    if ((double)bytes / (double)limit > all.fullest) all.fullest = (double)bytes / (double)limit;
    char what[128];
    if (left) {
        snprintf(what, sizeof what, "nothing stays allocated (%zu bytes do)", left);
        fuzz_fail(what, __FILE__, __LINE__);
    }
    if (seconds > most_seconds) {
        snprintf(what, sizeof what, "%zu bytes are read in %.0f ms (it took %.0f)", size, 1e3 * most_seconds,
                 1e3 * seconds);
        fuzz_fail(what, __FILE__, __LINE__);
    }
    if (bytes > limit) {
        snprintf(what, sizeof what, "%zu bytes are read with at most %zu bytes of memory (%zu)", size, limit, bytes);
        fuzz_fail(what, __FILE__, __LINE__);
    }
    return 0;
}

static void write_seeds(const char *folder)
{
    unsigned char *seed = malloc(FUZZ_LARGEST);
    for (size_t i = 0, size; (size = fuzz_seed(i, seed, FUZZ_LARGEST)) > 0; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/seed-%zu", folder, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        FUZZ_CHECK(fd >= 0 && write(fd, seed, size) == (ssize_t)size);
        close(fd);
    }
    free(seed);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    static const char *const faults[] = {"", "planted", "slow", "memory", "leak"};
    const char *fault = getenv("ELBO_FUZZ_FAULT"), *seeds = getenv("ELBO_FUZZ_WRITE_SEEDS");
    for (size_t i = 1; fault && i < sizeof faults / sizeof *faults; i++)
        if (!strcmp(fault, faults[i])) all.fault = (int)i;
    fuzz_memory_open();
    if (seeds) {
        write_seeds(seeds);
        exit(0);
    }
    atexit(say_all);
    return 0;
}
