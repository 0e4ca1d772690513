/* Interfaces between the parts of the emulation: reports, fibers, blocks, device memory, work of streams. Every call of
 * the runtime holds one recursive lock, so all mutable state below has one owner at a time. */
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
    const char *kernel = nullptr; /* the running kernel */
    void (*hook)(void *context, const struct sim_launch *launch) = nullptr;
    void *hook_context = nullptr;
    struct sim_counts counts = {};
    size_t breaks_after = SIZE_MAX; /* launches until every call fails */
    bool broken = false;
    size_t shared_limit = 227 << 10; /* bytes of shared memory of a block */
};
state &the();

/* Sets the calling thread's last error and the text of sim_message. */
cudaError_t fail(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Reports a broken rule inside a kernel with its place, and ends the process. */
[[noreturn]] void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Returns success, or the error of every call once the device is broken. */
cudaError_t device_error();

/* ---- fiber.cpp ---- */
struct fiber;
fiber *fiber_take();          /* returns a fiber that waits for work, or is in a body that has not blocked */
void fiber_give(fiber *f);    /* takes back a fiber whose body has returned */
void fiber_enter(fiber *f);   /* from the scheduler: runs it up to fiber_leave */
void fiber_leave(fiber *f);   /* back to the scheduler */
void fiber_main(fiber *self); /* schedule.cpp: runs bodies forever */
/* An order for the thread sanitizer: operations before release(p) happen before operations after acquire(p). */
void fiber_release(void *point);
void fiber_acquire(void *point);
/* Marks whole pages as never seen by any block, for a sanitizer. */
void fiber_renew(void *pages, size_t bytes);
/* Fills memory with a pattern; the second pattern is near the largest number of every floating-point type. */
enum { PATTERN_NAN = 0xff, PATTERN_HUGE = 0x7f };
void fiber_fresh(void *memory, size_t bytes, unsigned char pattern);
extern const bool fiber_reuse; /* a fiber may serve several threads of one block */

/* ---- schedule.cpp ---- */
struct launch {
    const char *kernel;
    dim3 grid, block;
    size_t shared_bytes;
};
void run_kernel(const launch &l, const std::function<void()> &body);

/* ---- matrix.cpp ---- */
/* Called when a block's threads have exited: all copies that began must have been waited for. */
void copies_end(unsigned threads);

/* ---- memory.cpp ---- */
enum { SHARED_LIMIT = 227 << 10 };
/* Device memory is readable while an open_device lives. */
struct open_device {
    open_device();
    ~open_device();
    open_device(const open_device &) = delete;
};
bool on_device(const void *p);
/* Returns whether `bytes` from p are in one live allocation; else sets the message. */
bool owns(const void *p, size_t bytes, const char *what);

/* ---- stream.cpp ---- */
/* Runs `work` in its turn: now, later or in a graph. */
cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work);
/* Runs all issued work; refused while a capture forbids it. */
cudaError_t synchronize_all(const char *call);
/* Fails if a capture forbids calls such as an allocation. */
cudaError_t refuse_in_capture(const char *call);

} // namespace sim

#endif
