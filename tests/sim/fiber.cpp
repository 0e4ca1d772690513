/* Fibers: a stack each, a hand-written switch (x86-64, aarch64; ucontext elsewhere), and what the sanitizers must know.
 *
 * A fiber runs bodies in a loop and is never torn down, so one whose body ended serves the next thread at once. The
 * thread sanitizer takes a fiber for a thread, so there none is used twice within a block. */
#include "private.h"

#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#define SIM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SIM_TSAN 1
#endif
#endif
#ifdef SIM_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef SIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(__aarch64__)
#define SIM_UCONTEXT 1
#include <ucontext.h>
#endif

namespace sim
{

enum { STACK_BYTES = 256 << 10, GUARD_BYTES = 64 << 10 };

struct fiber {
    char *stack;
    void *sanitizer; /* the fake stack, or the thread sanitizer's fiber */
#ifdef SIM_UCONTEXT
    ucontext_t context;
#else
    void *pointer;
#endif
};

static fiber scheduler;
#ifdef SIM_ASAN
static const void *scheduler_stack;
static size_t scheduler_bytes;
#endif
static std::vector<fiber *> &idle = *new std::vector<fiber *>; /* to the end of the process */

#ifdef SIM_TSAN
const bool fiber_reuse = false;
#else
const bool fiber_reuse = true;
#endif

static fiber *starting;

#ifdef SIM_UCONTEXT
static void swap(fiber *from, fiber *to)
{
    swapcontext(&from->context, &to->context);
}
#else
extern "C" void sim_switch(void **from, void *to);
#if defined(__x86_64__)
__asm__(".text\n"
        ".globl sim_switch\n"
        ".type sim_switch, @function\n"
        "sim_switch:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n"
        ".size sim_switch, .-sim_switch\n");
#else
__asm__(".text\n"
        ".globl sim_switch\n"
        ".type sim_switch, %function\n"
        "sim_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n    ret\n"
        ".size sim_switch, .-sim_switch\n");
#endif
static void swap(fiber *from, fiber *to)
{
    sim_switch(&from->pointer, to->pointer);
}
#endif

static void first_entry()
{
    fiber *self = starting;
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
    fiber_main(self);
}

static fiber *fiber_new()
{
    void *memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE)) report("no memory for a thread's stack");
    fiber *f = new fiber();
    f->stack = static_cast<char *>(memory) + GUARD_BYTES;
#ifdef SIM_TSAN
    f->sanitizer = __tsan_create_fiber(0);
#endif
#ifdef SIM_UCONTEXT
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->context, first_entry, 0);
#else
    void **top = reinterpret_cast<void **>(f->stack + STACK_BYTES);
#if defined(__x86_64__)
    *--top = nullptr; /* no one to return to; aligns the stack as a call does */
    *--top = reinterpret_cast<void *>(first_entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
#else
    top -= 20;
    for (int i = 0; i < 20; i++) top[i] = nullptr;
    top[11] = reinterpret_cast<void *>(first_entry); /* x30 */
#endif
    f->pointer = top;
#endif
    return f;
}

fiber *fiber_take()
{
    if (idle.empty()) return fiber_new();
    fiber *f = idle.back();
    idle.pop_back();
    return f;
}

void fiber_give(fiber *f)
{
    idle.push_back(f);
}

void fiber_enter(fiber *f)
{
    starting = f;
#ifdef SIM_TSAN
    scheduler.sanitizer = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(&scheduler.sanitizer, f->stack, STACK_BYTES);
#endif
    swap(&scheduler, f);
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(scheduler.sanitizer, nullptr, nullptr);
#endif
}

void fiber_leave(fiber *f)
{
#ifdef SIM_TSAN
    __tsan_switch_to_fiber(scheduler.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(&f->sanitizer, scheduler_stack, scheduler_bytes);
#endif
    swap(f, &scheduler);
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(f->sanitizer, &scheduler_stack, &scheduler_bytes);
#endif
}

void fiber_release(void *point)
{
#ifdef SIM_TSAN
    __tsan_release(point);
#else
    (void)point;
#endif
}

void fiber_acquire(void *point)
{
#ifdef SIM_TSAN
    __tsan_acquire(point);
#else
    (void)point;
#endif
}

/* The sanitizer forgets who touched these pages: they are mapped anew. */
void fiber_renew(void *pages, size_t bytes)
{
#ifdef SIM_TSAN
    if (mmap(pages, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        report("shared memory cannot be mapped anew");
#else
    (void)pages;
    (void)bytes;
#endif
}

void fiber_fresh(void *memory, size_t bytes, unsigned char pattern)
{
#ifdef SIM_TSAN
    volatile unsigned char *each = static_cast<volatile unsigned char *>(memory); /* memset would be watched */
    for (size_t i = 0; i < bytes; i++) each[i] = pattern;
#else
    memset(memory, pattern, bytes);
#endif
}

} // namespace sim
