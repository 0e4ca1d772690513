#ifndef CPU_PEAK_H
#define CPU_PEAK_H

struct pool;

/* Best of several runs, in floating-point operations per second on all threads of the pool. */
double CPU(peak_flops)(struct pool *pool);
/* Bytes read and written in a second by a copy on all threads; NaN without memory for it. */
double CPU(peak_bytes)(struct pool *pool);

#endif
