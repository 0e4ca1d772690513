/* A priority queue of the merges that wait while a word is encoded: least rank first, then least place.
 *
 * Merges of one rank mostly arrive from left to right. The heap therefore holds runs in the place of merges. A run is a
 * list of merges of one rank by rising place, and the heap orders runs by their first merge. A merge joins the last run
 * of its rank if it can. For one repeated letter the heap has a handful of entries, and each run is walked in order. If
 * no merge joins a run, every run is one merge, and the queue is a plain heap. The order of the popped merges is the
 * same in either case.
 *
 *     merge_queue_reserve(&queue, most, error);     -- at most `most` pushes until it is empty again
 *     merge_queue_push(&queue, rank, place, error);
 *     while (merge_queue_pop(&queue, &rank, &place)) ... */
#ifndef TEXT_MERGE_QUEUE_H
#define TEXT_MERGE_QUEUE_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MERGE_RUNS = 1024 }; /* size of the table of last runs, indexed by rank % MERGE_RUNS */

struct merge_node {
    uint32_t place, next; /* next node of the run, 0: none; node 0 is unused */
};

struct merge_run {
    uint32_t rank, place, first; /* place of node `first` */
};

struct merge_queue {          /* zero: empty */
    struct merge_node *nodes; /* (room + 1) */
    size_t room, used;
    struct merge_run *heap; /* (capacity) by rank and place */
    size_t count, capacity;
    struct {
        uint32_t rank, last; /* last node of the rank's last run; 0: none */
    } runs[MERGE_RUNS];
};

elbo_status merge_queue_reserve(struct merge_queue *queue, size_t most, elbo_error *error);
elbo_status merge_queue_push(struct merge_queue *queue, uint32_t rank, uint32_t place, elbo_error *error);
/* Returns false if the queue is empty. */
bool merge_queue_pop(struct merge_queue *queue, uint32_t *rank, uint32_t *place);
/* Drops all waiting merges. */
void merge_queue_clear(struct merge_queue *queue);
void merge_queue_free(struct merge_queue *queue);

#endif
