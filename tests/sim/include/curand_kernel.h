/* The one used function of cuRAND's device side: Philox4x32-10 (Salmon et al., SC 2011), with the same integers. */
#ifndef SIM_CURAND_KERNEL_H
#define SIM_CURAND_KERNEL_H

#include "cuda_runtime.h"

static inline uint4 curand_Philox4x32_10(uint4 counter, uint2 key)
{
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xd2511f53u * counter.x, b = (uint64_t)0xcd9e8d57u * counter.z;
        uint4 next = {(unsigned)(b >> 32) ^ counter.y ^ key.x, (unsigned)b, (unsigned)(a >> 32) ^ counter.w ^ key.y,
                      (unsigned)a};
        counter = next;
        key.x += 0x9e3779b9u;
        key.y += 0xbb67ae85u;
    }
    return counter;
}

#endif
