/* A priority queue of runs: see merge_queue.h. */
#include "text/merge_queue.h"

#include <stdlib.h>
#include <string.h>

elbo_status merge_queue_reserve(struct merge_queue *queue, size_t most, elbo_error *error)
{
    if (most <= queue->room) return ELBO_OK;
    size_t room = queue->room ? queue->room : 1024;
    while (room < most) room += room / 2;
    struct merge_node *nodes = room >= UINT32_MAX ? NULL : malloc((room + 1) * sizeof *nodes);
    if (!nodes) return elbo_fail(error, ELBO_MEMORY, "no memory for a word with %zu possible merges", most);
    free(queue->nodes); /* the queue is empty, so no node is lost */
    queue->nodes = nodes;
    queue->room = room;
    return ELBO_OK;
}

static bool before(const struct merge_run *a, const struct merge_run *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->place < b->place;
}

static elbo_status add_run(struct merge_queue *queue, struct merge_run run, elbo_error *error)
{
    if (queue->count == queue->capacity) {
        size_t capacity = queue->capacity ? 2 * queue->capacity : 256;
        struct merge_run *heap = realloc(queue->heap, capacity * sizeof *heap);
        if (!heap) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu merges of a word", capacity);
        queue->heap = heap;
        queue->capacity = capacity;
    }
    struct merge_run *heap = queue->heap;
    size_t at = queue->count++;
    for (; at && before(&run, &heap[(at - 1) / 2]); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = run;
    return ELBO_OK;
}

elbo_status merge_queue_push(struct merge_queue *queue, uint32_t rank, uint32_t place, elbo_error *error)
{
    uint32_t number = (uint32_t)++queue->used, slot = rank % MERGE_RUNS, last = queue->runs[slot].last;
    queue->nodes[number] = (struct merge_node){place, 0};
    queue->runs[slot].last = number;
    if (last && queue->runs[slot].rank == rank && queue->nodes[last].place < place) {
        queue->nodes[last].next = number;
        return ELBO_OK;
    }
    queue->runs[slot].rank = rank;
    return add_run(queue, (struct merge_run){rank, place, number}, error);
}

bool merge_queue_pop(struct merge_queue *queue, uint32_t *rank, uint32_t *place)
{
    if (!queue->count) {
        queue->used = 0;
        return false;
    }
    struct merge_run *heap = queue->heap, top = heap[0];
    *rank = top.rank;
    *place = top.place;
    uint32_t slot = top.rank % MERGE_RUNS, next = queue->nodes[top.first].next;
    if (queue->runs[slot].last == top.first) queue->runs[slot].last = 0; /* the last node of its run is popped */
    if (next)
        top = (struct merge_run){top.rank, queue->nodes[next].place, next};
    else if (--queue->count)
        top = heap[queue->count];
    else
        return true;
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < queue->count; at = child) {
        if (child + 1 < queue->count && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &top)) break;
        heap[at] = heap[child];
    }
    heap[at] = top;
    return true;
}

void merge_queue_clear(struct merge_queue *queue)
{
    queue->used = queue->count = 0;
    memset(queue->runs, 0, sizeof queue->runs);
}

void merge_queue_free(struct merge_queue *queue)
{
    free(queue->nodes);
    free(queue->heap);
    *queue = (struct merge_queue){0};
}
