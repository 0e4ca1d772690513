/* A training step allocates nothing. Calls of malloc's family and mmap are counted in the whole process, in all
 * threads, from the first op of the second step to the first op of the hundredth, over batches of varying sizes. As a
 * control, a hook that allocates once is counted once. The program's own malloc replaces the C library's in every
 * library that it loads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <cmocka.h>

#include "trainer_job.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTED 0 /* the sanitizers' allocators are in use */
#else
#define COUNTED 1
#endif

enum { FIRST = 1, LAST = 99, STEPS = 101 }; /* steps count from 0 */

static atomic_bool counting;
static atomic_size_t calls;

#if COUNTED
static void count(void)
{
    if (atomic_load(&counting)) atomic_fetch_add(&calls, 1);
}

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    count();
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}

void *realloc(void *memory, size_t size)
{
    count();
    return __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    count();
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    count();
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset)
{
    count();
    return (void *)syscall(SYS_mmap, at, size, protection, flags, file, offset);
}
#endif

struct watch {
    struct trainer *trainer;
    uint64_t step;
    bool leaks;
    size_t fewest, most; /* sentences of a step */
    size_t steps;
};

static void hook(void *context, const struct call *call, bool after)
{
    struct watch *w = context;
    if (after || call->step == w->step) return;
    w->step = call->step;
    if (call->step == FIRST) atomic_store(&counting, true);
    if (call->step == LAST) atomic_store(&counting, false);
    if (call->step == 50 && w->leaks) {
        void *volatile memory = malloc(1000);
        free(memory);
    }
    if (call->step > 1) { /* counts of the step before */
        size_t n = w->trainer->done.figures.sentences;
        if (!w->steps || n < w->fewest) w->fewest = n;
        if (n > w->most) w->most = n;
        w->steps++;
    }
}

static size_t allocations(const char *const *arguments, bool leaks)
{
    struct temporary folder = temporary_open();
    job_corpus(&folder, 300, 12);
    struct job job;
    job_open(&job, &folder, "run", arguments);
    struct watch watch = {.trainer = job.trainer, .leaks = leaks};
    job.trainer->step.recording.executor.hook = hook;
    job.trainer->step.recording.executor.hook_context = &watch;
    atomic_store(&calls, 0);
    if (trainer_run(job.trainer, &job.error)) fail_msg("%s", job.error.message);
    assert_false(atomic_load(&counting));
    assert_int_equal(watch.steps, STEPS - 2);
    assert_true(watch.most >= watch.fewest + 3); /* the batches vary in size */
    job_close(&job);
    temporary_remove(folder.path);
    return atomic_load(&calls);
}

static void a_step_allocates_nothing(void **state)
{
    (void)state;
    if (!COUNTED) skip();
    const char *const usual[] = {"--train.steps=101", "--log.every=1000000", NULL};
    const char *const others[] = {"--train.steps=101",
                                  "--log.every=1000000",
                                  "--train.recompute=block",
                                  "--optimizer.kind=sgd",
                                  "--decoder.positions=rotary",
                                  "--decoder.activation=swiglu",
                                  "--encoder.pooling=attention",
                                  "--threads=3",
                                  NULL};
    assert_int_equal(allocations(usual, true), 1); /* the counter counts */
    assert_int_equal(allocations(usual, false), 0);
    assert_int_equal(allocations(others, false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_step_allocates_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
