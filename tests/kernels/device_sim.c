/* The emulated device: one run in each order of blocks, warps and lanes. */
#include "kernels/device.h"
#include "sim.h"

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
    (void)chosen;
    return SIM_ORDERS;
}

const char *device_difference(void)
{
    return "orders of warps";
}

bool device_prepare(size_t run, uint64_t seed, double seconds)
{
    (void)seconds;
    sim_set_order((enum sim_order)run, seed | 1);
    return true;
}

size_t device_bank_conflicts(void)
{
    struct sim_counts counts;
    sim_get_counts(&counts);
    return counts.bank_conflicts;
}

const char *device_message(void)
{
    return sim_message();
}
