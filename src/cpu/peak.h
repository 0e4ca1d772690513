#ifndef CPU_PEAK_H
#define CPU_PEAK_H

struct pool;

/* Returns the floating-point operations per second of all threads of the pool, the best of several runs. */
double CPU(peak_flops)(struct pool *pool);
/* Returns the bytes per second that a copy on all threads reads and writes; NaN if there is no memory for the copy. */
double CPU(peak_bytes)(struct pool *pool);

#endif
