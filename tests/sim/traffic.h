/* Counts device memory that kernels access, for programs whose kernels are compiled with -fsanitize=kernel-address;
 * traffic.cpp counts in place of that sanitizer's checks. A word counts once per launch for reading and once for
 * writing, as if the caches held all data of a launch. Matrix products are in sim_counts. */
#ifndef SIM_TRAFFIC_H
#define SIM_TRAFFIC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sim_traffic {
    size_t read, written; /* bytes so far */
};

void sim_traffic_launch(void); /* marks the beginning of a launch */
void sim_get_traffic(struct sim_traffic *traffic);

#ifdef __cplusplus
}
#endif

#endif
