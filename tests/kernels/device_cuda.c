/* A real device through the CUDA runtime: repeats the same launch. */
#include "kernels/device.h"

#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>

enum { REPEATS = 3 };

static double number(const char *variable, double otherwise)
{
    const char *text = getenv(variable);
    return text && *text ? strtod(text, NULL) : otherwise;
}

const char *device_missing(void)
{
    static char why[160];
    int count = 0, e = cudaGetDeviceCount(&count);
    if (!e && count > 0) return NULL;
    snprintf(why, sizeof why, "no GPU can be used here: %s",
             e ? cudaGetErrorString((cudaError_t)e) : "the driver reports none");
    return why;
}

const char *device_name(void)
{
    static struct cudaDeviceProp properties;
    return cudaGetDeviceProperties(&properties, 0) ? "unknown" : properties.name;
}

size_t device_runs(bool chosen)
{
    double repeats = number("ELBO_TEST_REPEATS", REPEATS);
    if (chosen) repeats = number("ELBO_TEST_RERUNS", repeats);
    return repeats < 1 ? 1 : (size_t)repeats;
}

const char *device_difference(void)
{
    return "runs of the same launch";
}

/* $ELBO_TEST_SECONDS bounds a trial that runs many times; the first REPEATS runs always happen. */
bool device_prepare(size_t run, uint64_t seed, double seconds)
{
    (void)seed;
    return run < REPEATS || seconds < number("ELBO_TEST_SECONDS", 30);
}

size_t device_bank_conflicts(void)
{
    return 0;
}

void device_limit_shared(size_t bytes)
{
    (void)bytes;
}

const char *device_kernel(void)
{
    return NULL;
}

const char *device_message(void)
{
    return "the CUDA runtime says no more; run it under compute-sanitizer";
}
