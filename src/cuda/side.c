/* The side: a second stream for exchanges between ranks, ordered with the main stream by events, so that a capture of
 * the main stream includes it. */
#include "cuda/cuda.h"

#include <limits.h>
#include <math.h>

elbo_status cuda_side_open(struct cuda_backend *b, elbo_error *error)
{
    /* The highest priority, because small pieces of side work should run before large ones of the main stream. */
    int e = cudaStreamCreateWithPriority(&b->side, cudaStreamNonBlocking, INT_MIN);
    if (!e) e = cudaEventCreateWithFlags(&b->fork, cudaEventDisableTiming);
    if (!e) e = cudaEventCreateWithFlags(&b->join, cudaEventDisableTiming);
    for (unsigned i = 0; i < 2 && !e; i++) e = cudaEventCreate(&b->held[i]);
    for (unsigned i = 0; i < CUDA_SIDE_MARKS && !e; i++)
        e = cudaEventCreateWithFlags(&b->side_marks[i], cudaEventDisableTiming);
    return e ? elbo_fail(error, ELBO_DEVICE, "%s: no second stream: %s", b->detail, cudaGetErrorString((cudaError_t)e))
             : ELBO_OK;
}

void cuda_side_close(struct cuda_backend *b)
{
    cudaEvent_t all[] = {b->fork, b->join, b->held[0], b->held[1]};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]) cudaEventDestroy(all[i]);
    for (unsigned i = 0; i < CUDA_SIDE_MARKS; i++)
        if (b->side_marks[i]) cudaEventDestroy(b->side_marks[i]);
    if (b->side) cudaStreamDestroy(b->side);
}

void cuda_side_begin(struct backend *base)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cuda_keep(b, cudaEventRecord(b->fork, b->stream), "an event");
    cuda_keep(b, cudaStreamWaitEvent(b->side, b->fork, 0), "the side stream");
    b->aside = true;
}

void cuda_side_end(struct backend *base)
{
    ((struct cuda_backend *)base)->aside = false;
}

/* Returns the mark of piece `which` of `count`. If there are more pieces than marks, several pieces share a mark, which
 * the last of them sets. */
static cudaEvent_t mark_of(const struct cuda_backend *b, size_t which, size_t count)
{
    return b->side_marks[count > CUDA_SIDE_MARKS ? which * CUDA_SIDE_MARKS / count : which];
}

void cuda_side_mark(struct backend *base, size_t which, size_t count)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cuda_keep(b, cudaEventRecord(mark_of(b, which, count), b->side), "an event");
}

void cuda_side_await(struct backend *base, size_t which, size_t count)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cuda_keep(b, cudaStreamWaitEvent(b->stream, mark_of(b, which, count), 0), "the side stream");
}

/* Records an event before or after the wait. In a captured graph these events are nodes, and each replay records them
 * anew. */
static void record_held(struct cuda_backend *b, unsigned which)
{
    enum cudaStreamCaptureStatus captured = cudaStreamCaptureStatusNone;
    cuda_keep(b, cudaStreamIsCapturing(b->stream, &captured), "the stream");
    unsigned flags = captured == cudaStreamCaptureStatusNone ? cudaEventRecordDefault : cudaEventRecordExternal;
    cuda_keep(b, cudaEventRecordWithFlags(b->held[which], b->stream, flags), "an event");
}

void cuda_side_join(struct backend *base)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cuda_keep(b, cudaEventRecord(b->join, b->side), "an event");
    record_held(b, 0);
    cuda_keep(b, cudaStreamWaitEvent(b->stream, b->join, 0), "the side stream");
    record_held(b, 1);
    b->joined = true;
}

double cuda_side_seconds(struct backend *base)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    float milliseconds = 0;
    int e = b->joined ? cudaEventElapsedTime(&milliseconds, b->held[0], b->held[1]) : cudaErrorNotReady;
    if (!e) return milliseconds / 1e3;
    cudaGetLastError();
    return NAN;
}
