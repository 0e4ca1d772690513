/* Captured executions: the first step of given sizes runs eagerly, so that products choose their algorithms; the second
 * is captured, and later steps replay the capture. All numbers that change between replays are in device memory. */
#include "cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CAPTURES = 256 };

struct capture {
    struct replay_key key;
    bool refused; /* could not be captured: runs eagerly every time */
    cudaGraphExec_t exec;
};

struct captures {
    size_t count;
    struct capture list[MOST_CAPTURES];
};

static struct capture *find(void *const *captures, const struct replay_key *key)
{
    struct captures *c = *captures;
    for (size_t i = 0; c && i < c->count; i++)
        if (!memcmp(&c->list[i].key, key, sizeof *key)) return &c->list[i];
    return NULL;
}

static void drop(struct capture *c)
{
    if (c->exec) cudaGraphExecDestroy(c->exec);
    c->exec = NULL;
}

bool cuda_replay(struct backend *base, void **captures, const struct replay_key *key)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    struct capture *c = find(captures, key);
    if (!c || !c->exec) return false;
    cuda_keep(b, cudaGraphLaunch(c->exec, b->stream), "cudaGraphLaunch");
    return true;
}

bool cuda_capture_begin(struct backend *base, void **captures, const struct replay_key *key)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    struct captures *all = *captures;
    struct capture *c = find(captures, key);
    if (b->error) return false;
    if (c && c->refused) return false;
    b->capturing = c && !cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal);
    if (b->capturing) return true;
    if (c) {
        c->refused = true;
        cudaGetLastError();
        return false;
    }
    if (!all) *captures = all = calloc(1, sizeof *all);
    if (all && all->count < MOST_CAPTURES) all->list[all->count++] = (struct capture){.key = *key};
    return false;
}

bool cuda_capture_end(struct backend *base, void **captures, const struct replay_key *key)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    struct capture *c = find(captures, key);
    cudaGraph_t graph = NULL;
    int e = cudaStreamEndCapture(b->stream, &graph);
    b->capturing = false;
    if (!e) e = cudaGraphInstantiate(&c->exec, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (e) {
        c->exec = NULL;
        c->refused = true;
        cudaGetLastError();
        return false;
    }
    cuda_keep(b, cudaGraphLaunch(c->exec, b->stream), "cudaGraphLaunch");
    return true;
}

void cuda_forget(struct backend *base, void **captures)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    struct captures *c = *captures;
    if (!c) return;
    cudaStreamSynchronize(b->stream);
    for (size_t i = 0; i < c->count; i++) drop(&c->list[i]);
    free(c);
    *captures = NULL;
}
