#ifndef CPU_PEAK_H
#define CPU_PEAK_H

struct pool;

/* Best of several runs, in floating-point operations per second on all threads of the pool. */
double CPU(peak_flops)(struct pool *pool);

#endif
