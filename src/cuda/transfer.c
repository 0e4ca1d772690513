/* Asynchronous copies. Inputs go through a ring of pinned buffers; a buffer is free again when its copy has left it.
 * Outputs of a step arrive in pinned memory, and a mark in the stream tells when. */
#include "cuda/cuda.h"

#include <stdio.h>

elbo_status cuda_transfer_open(struct cuda_backend *b, elbo_error *error)
{
    int e = 0;
    for (unsigned i = 0; i < CUDA_STAGES && !e; i++)
        e = cudaEventCreateWithFlags(&b->stage_sent[i], cudaEventDisableTiming);
    for (unsigned i = 0; i < CUDA_MARKS && !e; i++) e = cudaEventCreateWithFlags(&b->marks[i], cudaEventDisableTiming);
    return e ? elbo_fail(error, ELBO_DEVICE, "%s: no events: %s", b->detail, cudaGetErrorString((cudaError_t)e))
             : ELBO_OK;
}

void cuda_transfer_close(struct cuda_backend *b)
{
    if (b->stages) cudaFreeHost(b->stages);
    for (unsigned i = 0; i < CUDA_STAGES; i++)
        if (b->stage_sent[i]) cudaEventDestroy(b->stage_sent[i]);
    for (unsigned i = 0; i < CUDA_MARKS; i++)
        if (b->marks[i]) cudaEventDestroy(b->marks[i]);
}

elbo_status cuda_allocate_host(struct backend *base, void **memory, size_t bytes, elbo_error *error)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    int e = cudaMallocHost(memory, bytes ? bytes : 1);
    return e ? elbo_fail(error, ELBO_MEMORY, "%s: no pinned host memory for %zu bytes: %s", b->detail, bytes,
                         cudaGetErrorString((cudaError_t)e))
             : ELBO_OK;
}

void cuda_release_host(struct backend *base, void *memory)
{
    cudaStreamSynchronize(((struct cuda_backend *)base)->stream);
    cudaFreeHost(memory);
}

elbo_status cuda_reserve_staging(struct backend *base, size_t bytes, elbo_error *error)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    if (bytes <= b->stage_bytes) return ELBO_OK;
    if (b->stages) cuda_release_host(base, b->stages);
    b->stages = NULL;
    b->stage_bytes = 0;
    ELBO_TRY(cuda_allocate_host(base, (void **)&b->stages, CUDA_STAGES * bytes, error));
    b->stage_bytes = bytes;
    return ELBO_OK;
}

/* Returns the next buffer of the ring, after its last copy, CUDA_STAGES inputs ago, has left it. */
void *cuda_stage(struct backend *base)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cudaEvent_t sent = b->stage_sent[b->stage];
    int e = cudaEventQuery(sent);
    if (e == cudaErrorNotReady) e = cudaEventSynchronize(sent);
    cuda_keep(b, e, "a copy to the device");
    return b->stages + b->stage * b->stage_bytes;
}

void cuda_send(struct backend *base, void *to, size_t bytes)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    const char *from = b->stages + b->stage * b->stage_bytes;
    cuda_keep(b, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, b->stream), "a copy to the device");
    cuda_keep(b, cudaEventRecord(b->stage_sent[b->stage], b->stream), "an event");
    b->stage = (b->stage + 1) % CUDA_STAGES;
}

void cuda_download_later(struct backend *base, void *to, const void *from, size_t bytes)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    if (bytes) cuda_keep(b, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, b->stream), "a copy to the host");
}

void cuda_mark(struct backend *base, unsigned which)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cuda_keep(b, cudaEventRecord(b->marks[which], b->stream), "an event");
}

elbo_status cuda_wait(struct backend *base, unsigned which, elbo_error *error)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    if (b->ranks)
        ELBO_TRY(cuda_ranks_wait(b, b->marks[which], error));
    else
        cuda_keep(b, cudaEventSynchronize(b->marks[which]), "the stream");
    return base->stream.check(base, error);
}
