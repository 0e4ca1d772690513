/* The merges that wait while a word is encoded, least first: by rank, then by place.
 *
 * They come in runs: those of one rank mostly from left to right. So the heap holds runs and not merges, each by its
 * first one: a run is a list of rising places of one rank, and a merge joins the last run of its rank where it can. For
 * one letter repeated the heap has a handful of entries and everything is walked in order; where nothing joins, each
 * run is one merge and this is a heap. The order of what is popped depends on none of that.
 *
 *     merge_queue_reserve(&queue, most, error);     -- at most so many pushes until it is empty again
 *     merge_queue_push(&queue, rank, place, error);
 *     while (merge_queue_pop(&queue, &rank, &place)) ... */
#ifndef TEXT_MERGE_QUEUE_H
#define TEXT_MERGE_QUEUE_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MERGE_RUNS = 1024 }; /* ranks whose last run is known, by rank % MERGE_RUNS */

struct merge_node {
    uint32_t place, next; /* next of its run, 0: none; node 0 is nobody */
};

struct merge_run {
    uint32_t rank, place, first; /* place of node `first` */
};

struct merge_queue {          /* zero: empty */
    struct merge_node *nodes; /* (room + 1)             */
    size_t room, used;
    struct merge_run *heap; /* (capacity) by rank and place */
    size_t count, capacity;
    struct {
        uint32_t rank, last; /* node; 0: none          */
    } runs[MERGE_RUNS];
};

elbo_status merge_queue_reserve(struct merge_queue *queue, size_t most, elbo_error *error);
elbo_status merge_queue_push(struct merge_queue *queue, uint32_t rank, uint32_t place, elbo_error *error);
/* False when it is empty. */
bool merge_queue_pop(struct merge_queue *queue, uint32_t *rank, uint32_t *place);
/* Forgets what waits. */
void merge_queue_clear(struct merge_queue *queue);
void merge_queue_free(struct merge_queue *queue);

#endif
