/* Controls of the emulated device beyond the CUDA runtime: the order of warps, when streams run, planted faults, and
 * counts of executed work. The environment sets the first values: ELBO_SIM_ORDER=forward|reversed|random[:seed],
 * ELBO_SIM_STREAMS=eager|lazy.
 *
 * A broken rule inside a kernel (divergent barrier, exited lane, write outside a shared array) and an access to device
 * memory by the host are reported on stderr with file and line, and end the process with SIM_EXIT. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SIM_EXIT = 86 };

/* The order of blocks, of a block's warps between two barriers, and of a warp's lanes between two warp operations. */
enum sim_order { SIM_FORWARD, SIM_REVERSED, SIM_RANDOM, SIM_ORDERS };
void sim_set_order(enum sim_order order, uint64_t seed);

/* Eager: work runs when it is issued. Lazy: work runs only when a synchronization needs it, which exposes missing
 * ones. */
void sim_set_lazy(bool lazy);

/* Bytes of the device that cudaMalloc can give; 8 GiB at start. */
void sim_set_memory(size_t bytes);

/* Bytes of shared memory that a block may have; 227 KiB at start. */
void sim_set_shared(size_t bytes);

/* After `launches` more kernels every call fails as after an illegal address, until sim_repair. */
void sim_break_after(size_t launches);
void sim_repair(void);

struct sim_launch {
    const char *kernel; /* its name without template arguments */
    unsigned grid[3], block[3];
    size_t shared_bytes; /* dynamic shared memory */
    bool replayed;       /* by a graph */
};

/* Sets a hook that is called for every kernel that runs, not when it is captured; null: none. */
void sim_on_launch(void (*hook)(void *context, const struct sim_launch *launch), void *context);

struct sim_counts {
    size_t kernels, products, copies, memsets, graphs; /* executed */
    size_t synchronizations;                           /* calls by which the host waits */
    size_t allocations;                                /* of device or pinned memory */
    size_t bytes_to_device, bytes_from_device;
    size_t bytes_of_products; /* operands once; results once, or twice if added to */
    size_t bank_conflicts;    /* pairs of different rows of a loaded matrix in the same banks of shared memory */
};
void sim_get_counts(struct sim_counts *counts);

/* Returns why the last call failed, or an empty string. */
const char *sim_message(void);

#ifdef __cplusplus
}
#endif

#endif
