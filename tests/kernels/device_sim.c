/* The emulated device: one run in each order of blocks, warps and lanes. */
#include "kernels/device.h"
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

static char kernel[64];

static void launched(void *context, const struct sim_launch *launch)
{
    (void)context;
    snprintf(kernel, sizeof kernel, "%s", launch->kernel);
}

const char *device_missing(void)
{
    return NULL;
}

const char *device_name(void)
{
    return "emulated";
}

size_t device_runs(bool chosen)
{
    const char *fewer = getenv("ELBO_TEST_REPEATS");
    size_t runs = fewer && *fewer ? strtoul(fewer, NULL, 10) : 0;
    (void)chosen;
    return runs && runs < SIM_ORDERS ? runs : SIM_ORDERS;
}

const char *device_difference(void)
{
    return "orders of warps";
}

bool device_prepare(size_t run, uint64_t seed, double seconds)
{
    (void)seconds;
    sim_set_order((enum sim_order)run, seed | 1);
    sim_on_launch(launched, NULL);
    return true;
}

size_t device_bank_conflicts(void)
{
    struct sim_counts counts;
    sim_get_counts(&counts);
    return counts.bank_conflicts;
}

void device_limit_shared(size_t bytes)
{
    sim_set_shared(bytes ? bytes : SIZE_MAX);
}

const char *device_kernel(void)
{
    return kernel;
}

const char *device_message(void)
{
    return sim_message();
}
