/* Between the parts of the emulation: reports, fibers, blocks, device memory, work of streams. One recursive lock is
 * held in every call of the runtime, so all mutable state below it has one owner at a time. */
#ifndef SIM_PRIVATE_H
#define SIM_PRIVATE_H

#include "include/cuda_runtime.h"
#include "sim.h"

#include <functional>
#include <mutex>
#include <string>

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif
#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#define SIM_CLOSE(memory, bytes) __asan_poison_memory_region(memory, bytes)
#define SIM_OPEN(memory, bytes)  __asan_unpoison_memory_region(memory, bytes)
#else
#define SIM_CLOSE(memory, bytes) ((void)(memory), (void)(bytes))
#define SIM_OPEN(memory, bytes)  ((void)(memory), (void)(bytes))
#endif

namespace sim
{

struct state {
    std::recursive_mutex lock;
    enum sim_order order = SIM_FORWARD;
    uint64_t seed = 1;
    bool lazy = false;
    bool replaying = false;
    const char *kernel = nullptr; /* the one that runs */
    void (*hook)(void *context, const struct sim_launch *launch) = nullptr;
    void *hook_context = nullptr;
    struct sim_counts counts = {};
    size_t breaks_after = SIZE_MAX; /* launches */
    bool broken = false;
    size_t shared_limit = 227 << 10; /* of a block */
};
state &the();

/* Sets the calling thread's last error and the words of sim_message. */
cudaError_t fail(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A rule broken inside a kernel: says where and ends the process. */
[[noreturn]] void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Success, or the error that every call returns once the device is broken. */
cudaError_t device_error();

/* ---- fiber.cpp ---- */
struct fiber;
fiber *fiber_take();          /* one that waits for work, in or out of a body that blocked never */
void fiber_give(fiber *f);    /* its body is done */
void fiber_enter(fiber *f);   /* from the scheduler: runs it up to fiber_leave */
void fiber_leave(fiber *f);   /* back to the scheduler */
void fiber_main(fiber *self); /* schedule.cpp: runs bodies for ever */
/* Order that the thread sanitizer should know of: what was before release(p) happens before what follows acquire(p). */
void fiber_release(void *point);
void fiber_acquire(void *point);
/* Whole pages as if no block had ever seen them, as far as a sanitizer should know. */
void fiber_renew(void *pages, size_t bytes);
/* A pattern into memory; the second is near the largest number of every floating-point type. */
enum { PATTERN_NAN = 0xff, PATTERN_HUGE = 0x7f };
void fiber_fresh(void *memory, size_t bytes, unsigned char pattern);
extern const bool fiber_reuse; /* may serve several threads of one block */

/* ---- schedule.cpp ---- */
struct launch {
    const char *kernel;
    dim3 grid, block;
    size_t shared_bytes;
};
void run_kernel(const launch &l, const std::function<void()> &body);

/* ---- matrix.cpp ---- */
/* A block's threads have exited: copies that were begun must have been waited for. */
void copies_end(unsigned threads);

/* ---- memory.cpp ---- */
enum { SHARED_LIMIT = 227 << 10 };
/* Device memory is readable while one of these lives. */
struct open_device {
    open_device();
    ~open_device();
    open_device(const open_device &) = delete;
};
bool on_device(const void *p);
/* Whether `bytes` from p lie in one living allocation; says so in words when not. */
bool owns(const void *p, size_t bytes, const char *what);

/* ---- stream.cpp ---- */
/* Runs `work` in its turn, now, later or in a graph. */
cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work);
/* Runs everything issued; refused while a capture forbids it. */
cudaError_t synchronize_all(const char *call);
/* Fails when a capture forbids calls like an allocation. */
cudaError_t refuse_in_capture(const char *call);

} // namespace sim

#endif
