/* What a test may ask of the emulated device beyond the CUDA runtime: the order of warps, when streams run, faults to
 * plant, and what was executed. The environment sets the first values: ELBO_SIM_ORDER=forward|reversed|random[:seed],
 * ELBO_SIM_STREAMS=eager|lazy.
 *
 * A broken rule inside a kernel (divergent barrier, exited lane, write outside a shared array) or a touch of device
 * memory by the host is reported on stderr with file and line, and ends the process with SIM_EXIT. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SIM_EXIT = 86 };

/* Order of blocks, of a block's warps between two barriers, and of a warp's lanes between two warp operations. */
enum sim_order { SIM_FORWARD, SIM_REVERSED, SIM_RANDOM, SIM_ORDERS };
void sim_set_order(enum sim_order order, uint64_t seed);

/* Eager: work runs when it is issued. Lazy: only when a synchronization needs it, so that a missing one is seen. */
void sim_set_lazy(bool lazy);

/* Bytes of the device, of which cudaMalloc serves; 8 GiB at start. */
void sim_set_memory(size_t bytes);

/* Bytes of shared memory that a block may have; 227 KiB at start. */
void sim_set_shared(size_t bytes);

/* After `launches` more kernels every call fails as after an illegal address, until sim_repair. */
void sim_break_after(size_t launches);
void sim_repair(void);

struct sim_launch {
    const char *kernel; /* its name without template arguments */
    unsigned grid[3], block[3];
    size_t shared_bytes; /* dynamic */
    bool replayed;       /* by a graph */
};

/* Called for every kernel that runs (not when it is captured); null: none. */
void sim_on_launch(void (*hook)(void *context, const struct sim_launch *launch), void *context);

struct sim_counts {
    size_t kernels, products, copies, memsets, graphs; /* executed */
    size_t synchronizations;                           /* calls by which the host waits */
    size_t allocations;                                /* of device or pinned memory */
    size_t bytes_to_device, bytes_from_device;
    size_t bytes_of_products; /* operands once, results once, twice where added to */
    size_t bank_conflicts; /* pairs of different rows of a loaded matrix that lie in the same banks of shared memory */
};
void sim_get_counts(struct sim_counts *counts);

/* Why the last call failed, in words; empty when none did. */
const char *sim_message(void);

#ifdef __cplusplus
}
#endif

#endif
