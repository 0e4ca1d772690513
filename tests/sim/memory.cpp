/* Device memory: one reserved range of addresses, closed (PROT_NONE) but for the living allocations while the device or
 * a copy works. An allocation ends at a page's end, so that a kernel that runs past it faults; addresses are never used
 * twice, so that one that uses freed memory faults too. Fresh memory holds NaN patterns. */
#include "private.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>
#include <sys/mman.h>
#include <unistd.h>

namespace sim
{

enum : size_t { RESERVED = (size_t)64 << 30, PAGE = 4096, GAP = 64 << 10, ALIGNMENT = 256 };

struct allocation {
    size_t bytes;
    char *pages;
    size_t page_bytes;
};

static char *arena;
static size_t arena_used, total_bytes = (size_t)8 << 30, taken_bytes;
static std::map<char *, allocation> living;
static std::map<void *, size_t> pinned;
static int opened;
static struct sigaction before;

static void fault(int number, siginfo_t *info, void *)
{
    char text[256];
    const char *p = static_cast<const char *>(info->si_addr);
    if (on_device(p)) {
        int length = the().kernel ? snprintf(text, sizeof text,
                                             "sim: kernel %s, block (%u, %u, %u), thread (%u, %u, %u): device memory "
                                             "outside every allocation\n",
                                             the().kernel, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
                                             threadIdx.z)
                                  : snprintf(text, sizeof text, "sim: host code touches device memory at %p\n",
                                             static_cast<const void *>(p));
        if (write(2, text, (size_t)length) < 0) _exit(SIM_EXIT);
        _exit(SIM_EXIT);
    }
    sigaction(number, &before, nullptr); /* not ours: it comes again, to who was asked before */
}

/* Test frameworks ask for this signal too, before each test: the last to ask is us. */
static void watch()
{
    struct sigaction action = {}, present;
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &present);
    if (!(present.sa_flags & SA_SIGINFO) || present.sa_sigaction != fault) before = present;
}

static bool reserve()
{
    watch();
    if (arena) return true;
    void *p = mmap(nullptr, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return false;
    arena = static_cast<char *>(p);
    return true;
}

static void protect(const allocation &a, int how)
{
    if (mprotect(a.pages, a.page_bytes, how)) report("mprotect of device memory failed");
}

open_device::open_device()
{
    the().lock.lock();
    if (opened++ == 0)
        for (auto &each : living) protect(each.second, PROT_READ | PROT_WRITE);
}

open_device::~open_device()
{
    if (--opened == 0)
        for (auto &each : living) protect(each.second, PROT_NONE);
    the().lock.unlock();
}

bool on_device(const void *p)
{
    return arena && static_cast<const char *>(p) >= arena && static_cast<const char *>(p) < arena + RESERVED;
}

bool owns(const void *p, size_t bytes, const char *what)
{
    char *at = static_cast<char *>(const_cast<void *>(p));
    auto after = living.upper_bound(at);
    if (after != living.begin()) {
        auto &[base, a] = *std::prev(after);
        if (at <= base + a.bytes && bytes <= a.bytes - (size_t)(at - base)) return true;
        if (at < base + a.bytes) {
            fail(cudaErrorInvalidValue, "%s: %zu bytes at offset %zu of an allocation of %zu", what, bytes,
                 (size_t)(at - base), a.bytes);
            return false;
        }
    }
    fail(cudaErrorInvalidValue, "%s: %zu bytes at %p, which is no device memory", what, bytes, p);
    return false;
}

static bool host_range(const void *p, size_t bytes, const char *what)
{
    char *at = static_cast<char *>(const_cast<void *>(p));
    auto after = pinned.upper_bound(at);
    if (after == pinned.begin()) return true;
    auto &[base, size] = *std::prev(after);
    size_t offset = (size_t)(at - static_cast<char *>(base));
    if (offset >= size || bytes <= size - offset) return true;
    fail(cudaErrorInvalidValue, "%s: %zu bytes at offset %zu of %zu of pinned memory", what, bytes, offset, size);
    return false;
}

static bool is_pinned(const void *p)
{
    char *at = static_cast<char *>(const_cast<void *>(p));
    auto after = pinned.upper_bound(at);
    if (after == pinned.begin()) return false;
    auto &[base, size] = *std::prev(after);
    return at < static_cast<char *>(base) + size;
}

/* Success, or why the copy may not be made. */
static cudaError_t check_copy(const void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    bool to_device = on_device(to), from_device = on_device(from);
    if (!bytes) return cudaSuccess;
    if (kind != cudaMemcpyDefault) {
        bool says_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
        bool says_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
        if (says_to != to_device)
            return fail(cudaErrorInvalidMemcpyDirection, "copy: the target %p is %s memory", to,
                        to_device ? "device" : "host");
        if (says_from != from_device)
            return fail(cudaErrorInvalidMemcpyDirection, "copy: the source %p is %s memory", from,
                        from_device ? "device" : "host");
    }
    if (!(to_device ? owns(to, bytes, "copy to") : host_range(to, bytes, "copy to"))) return cudaErrorInvalidValue;
    if (!(from_device ? owns(from, bytes, "copy from") : host_range(from, bytes, "copy from")))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

static cudaError_t copy_rows(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                             size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (height > 1 && (to_pitch < width || from_pitch < width))
        return fail(cudaErrorInvalidValue, "copy: rows of %zu bytes %zu and %zu apart", width, to_pitch, from_pitch);
    size_t to_bytes = height ? (height - 1) * to_pitch + width : 0;
    size_t from_bytes = height ? (height - 1) * from_pitch + width : 0;
    auto check = [=] {
        cudaError_t e = check_copy(to, from, to_bytes, kind);
        return e ? e : check_copy(to, from, from_bytes, kind);
    };
    if (to_bytes != from_bytes) { /* each side has its own extent */
        if (on_device(to) && !owns(to, to_bytes, "copy to")) return cudaErrorInvalidValue;
        if (on_device(from) && !owns(from, from_bytes, "copy from")) return cudaErrorInvalidValue;
        if (cudaError_t e = check_copy(to, from, width, kind)) return e;
    } else if (cudaError_t e = check()) {
        return e;
    }
    std::shared_ptr<std::vector<char>>
        staged; /* pageable memory has been read when the call returns, whatever the stream does */
    if (on_device(to) && !on_device(from) && !is_pinned(from))
        staged = std::make_shared<std::vector<char>>(static_cast<const char *>(from),
                                                     static_cast<const char *>(from) + from_bytes);
    return enqueue(stream, [=] {
        const void *source = staged ? staged->data() : from;
        if (cudaError_t e = check_copy(to, source, width, kind)) return e;
        open_device open;
        the().counts.copies++;
        if (on_device(to) && !on_device(source)) the().counts.bytes_to_device += width * height;
        if (!on_device(to) && on_device(from)) the().counts.bytes_from_device += width * height;
        for (size_t i = 0; i < height && width; i++)
            memcpy(static_cast<char *>(to) + i * to_pitch, static_cast<const char *>(source) + i * from_pitch, width);
        return cudaSuccess;
    });
}

} // namespace sim

using namespace sim;

extern "C" void sim_set_memory(size_t bytes)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    total_bytes = bytes;
}

extern "C" void sim_set_shared(size_t bytes)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    the().shared_limit = bytes < SHARED_LIMIT ? bytes : (size_t)SHARED_LIMIT;
}

extern "C" cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    *free_bytes = total_bytes > taken_bytes ? total_bytes - taken_bytes : 0;
    *total = total_bytes;
    return device_error();
}

extern "C" cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (cudaError_t e = device_error()) return e;
    if (cudaError_t e = refuse_in_capture("cudaMalloc")) return e;
    *memory = nullptr;
    if (!bytes) return cudaSuccess;
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, pages = (rounded + PAGE - 1) / PAGE * PAGE;
    if (bytes > total_bytes || taken_bytes > total_bytes - bytes || !reserve() || arena_used + pages + GAP > RESERVED)
        return fail(cudaErrorMemoryAllocation, "%zu bytes wanted, %zu of %zu taken", bytes, taken_bytes, total_bytes);
    allocation a = {bytes, arena + arena_used + GAP, pages};
    arena_used += GAP + pages;
    taken_bytes += bytes;
    protect(a, PROT_READ | PROT_WRITE);
    memset(a.pages, 0xff, pages);
    char *base = a.pages + pages - rounded;
    SIM_CLOSE(a.pages, (size_t)(base - a.pages));
    SIM_CLOSE(base + bytes, rounded - bytes + PAGE); /* a sanitizer names the line before the page faults */
    if (!opened) protect(a, PROT_NONE);
    living[base] = a;
    the().counts.allocations++;
    *memory = base;
    return cudaSuccess;
}

extern "C" cudaError_t cudaFree(void *memory)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (!memory) return cudaSuccess;
    if (cudaError_t e = synchronize_all("cudaFree")) return e;
    auto at = living.find(static_cast<char *>(memory));
    if (at == living.end()) return fail(cudaErrorInvalidValue, "cudaFree: %p is no allocation", memory);
    allocation a = at->second;
    SIM_OPEN(a.pages, a.page_bytes);
    protect(a, PROT_READ);
    size_t rounded = (a.bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    for (size_t i = 0; i < a.page_bytes; i++) {
        bool own = a.pages + i >= at->first && a.pages + i < at->first + a.bytes;
        if (own)
            i += a.bytes - 1;
        else if ((unsigned char)a.pages[i] != 0xff)
            report("cudaFree: something was written outside an allocation of %zu bytes (rounded %zu)", a.bytes,
                   rounded);
    }
    taken_bytes -= a.bytes;
    madvise(a.pages, a.page_bytes, MADV_DONTNEED);
    protect(a, PROT_NONE);
    SIM_CLOSE(a.pages, a.page_bytes);
    living.erase(at);
    return cudaSuccess;
}

extern "C" cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (cudaError_t e = device_error()) return e;
    if (cudaError_t e = refuse_in_capture("cudaMallocHost")) return e;
    *memory = nullptr;
    if (!bytes) return cudaSuccess;
    if (posix_memalign(memory, PAGE, bytes))
        return fail(cudaErrorMemoryAllocation, "%zu bytes of pinned memory", bytes);
    memset(*memory, 0xff, bytes);
    pinned[*memory] = bytes;
    the().counts.allocations++;
    return cudaSuccess;
}

extern "C" cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

extern "C" cudaError_t cudaFreeHost(void *memory)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (!memory) return cudaSuccess;
    if (cudaError_t e = synchronize_all("cudaFreeHost")) return e;
    if (!pinned.erase(memory)) return fail(cudaErrorInvalidValue, "cudaFreeHost: %p is no allocation", memory);
    free(memory);
    return cudaSuccess;
}

extern "C" cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                                       cudaStream_t stream)
{
    return copy_rows(to, bytes, from, bytes, bytes, 1, kind, stream);
}

extern "C" cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                                         size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return copy_rows(to, to_pitch, from, from_pitch, width, height, kind, stream);
}

extern "C" cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    cudaError_t e = copy_rows(to, bytes, from, bytes, bytes, 1, kind, nullptr);
    return e ? e : cudaStreamSynchronize(nullptr);
}

extern "C" cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (bytes && !owns(memory, bytes, "memset")) return cudaErrorInvalidValue;
    return enqueue(stream, [=] {
        if (bytes && !owns(memory, bytes, "memset")) return cudaErrorInvalidValue;
        open_device open;
        the().counts.memsets++;
        if (bytes) memset(memory, value, bytes);
        return cudaSuccess;
    });
}

extern "C" cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    return cudaMemsetAsync(memory, value, bytes, nullptr);
}
