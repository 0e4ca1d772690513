/* The emulated device itself: its properties, errors and reports, and what tests set. */
#include "private.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>

namespace sim
{

static thread_local cudaError_t last_error;
static thread_local char words[512];

/* ELBO_SIM_TRACE: what runs, a line each, in the file of that name with the process's number behind it. */
static void trace(void *file, const struct sim_launch *launch)
{
    fprintf(static_cast<FILE *>(file), "%s%s\n", launch->kernel, launch->replayed ? " replayed" : "");
}

static state *begin()
{
    static state s;
    const char *order = getenv("ELBO_SIM_ORDER"), *streams = getenv("ELBO_SIM_STREAMS");
    if (order && !strcmp(order, "reversed")) s.order = SIM_REVERSED;
    if (order && !strncmp(order, "random", 6)) {
        s.order = SIM_RANDOM;
        if (order[6] == ':') s.seed = strtoull(order + 7, nullptr, 10);
    }
    s.lazy = streams && !strcmp(streams, "lazy");
    if (const char *name = getenv("ELBO_SIM_TRACE")) {
        s.hook_context = fopen((std::string(name) + "." + std::to_string(getpid())).c_str(), "w");
        if (s.hook_context) s.hook = trace;
    }
    return &s;
}

state &the()
{
    static state *s = begin();
    return *s;
}

cudaError_t fail(cudaError_t error, const char *format, ...)
{
    if (format) {
        char text[sizeof words];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        memcpy(words, text, sizeof words);
    }
    last_error = error;
    return error;
}

void report(const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "sim: ");
    if (the().kernel)
        fprintf(stderr, "kernel %s, block (%u, %u, %u): ", the().kernel, blockIdx.x, blockIdx.y, blockIdx.z);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    fflush(stderr);
    _exit(SIM_EXIT);
}

cudaError_t device_error()
{
    return the().broken ? fail(cudaErrorIllegalAddress, "a planted fault") : cudaSuccess;
}

static struct {
    cudaError_t error;
    const char *name, *text;
} const errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "insufficient driver"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no device"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "not permitted during a capture"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "the capture failed before"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "the capture began elsewhere"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "a forked stream was not joined"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit", "a dependency on the null stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "an event of a capture"},
};

} // namespace sim

using namespace sim;

/* ---- sim.h ---- */

extern "C" void sim_set_order(enum sim_order order, uint64_t seed)
{
    the().order = order;
    the().seed = seed;
}

extern "C" void sim_set_lazy(bool lazy)
{
    cudaDeviceSynchronize();
    the().lazy = lazy;
}

extern "C" void sim_break_after(size_t launches)
{
    the().breaks_after = launches;
}

extern "C" void sim_repair(void)
{
    the().breaks_after = SIZE_MAX;
    the().broken = false;
    last_error = cudaSuccess;
}

extern "C" void sim_on_launch(void (*hook)(void *context, const struct sim_launch *launch), void *context)
{
    the().hook = hook;
    the().hook_context = context;
}

extern "C" void sim_get_counts(struct sim_counts *counts)
{
    *counts = the().counts;
}

extern "C" const char *sim_message(void)
{
    return words;
}

/* ---- errors ---- */

extern "C" cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e ? e : device_error();
}

extern "C" cudaError_t cudaPeekAtLastError(void)
{
    return last_error ? last_error : device_error();
}

extern "C" const char *cudaGetErrorString(cudaError_t error)
{
    for (auto &e : errors)
        if (e.error == error) return e.text;
    return "unrecognized error code";
}

extern "C" const char *cudaGetErrorName(cudaError_t error)
{
    for (auto &e : errors)
        if (e.error == error) return e.name;
    return "unrecognized error code";
}

/* ---- device ---- */

extern "C" cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return device_error();
}

extern "C" cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    size_t free_bytes;
    if (device) return fail(cudaErrorInvalidDevice, "device %d of 1", device);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "sim");
    cudaMemGetInfo(&free_bytes, &p->totalGlobalMem);
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = the().shared_limit;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->major = 8;
    p->multiProcessorCount = 4;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->regsPerBlock = 65536;
    p->l2CacheSize = 1 << 20;
    p->memoryBusWidth = 64;
    return device_error();
}

extern "C" cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    if (device) return fail(cudaErrorInvalidDevice, "device %d of 1", device);
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = 4;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = 9;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)the().shared_limit;
        break;
    default:
        return fail(cudaErrorInvalidValue, "no such attribute");
    }
    return device_error();
}

extern "C" cudaError_t cudaSetDevice(int device)
{
    return device ? fail(cudaErrorInvalidDevice, "device %d of 1", device) : device_error();
}

extern "C" cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return device_error();
}

extern "C" cudaError_t cudaDeviceReset(void)
{
    return cudaDeviceSynchronize();
}

extern "C" cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

extern "C" cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}
