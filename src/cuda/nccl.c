/* The collectives between GPUs: NCCL on the backend's stream. No wait is unbounded: the communicator is non-blocking,
 * and the host polls the awaited event together with NCCL's errors and the bonds between the ranks until the timeout,
 * because NCCL does not notice the death of a peer on the same host. A rank that gives up exits, because no NCCL call
 * is known to shut down a broken communicator reliably. */
#include "base/clock.h"
#include "cuda/cuda.h"
#include "cuda/nccl_library.h"
#include "job/bonds.h"
#include "job/collectives.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

_Static_assert(sizeof(ncclUniqueId) == CUDA_ID, "an id of NCCL's");

enum {
    NOTE = 1024
}; /* bytes of a note that are allocated at the start, because an allocation waits for the device without a timeout */

struct post {
    char *host, *device; /* own note | (ranks) all notes */
    size_t bytes, room;
    cudaEvent_t done;
};

struct nccl_ranks {
    struct collectives base;
    struct cuda_backend *b;
    struct nccl nccl;
    ncclComm_t comm;
    struct bonds *bonds;
    struct post posts[COLLECTIVES_POSTS];
};

static void rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

static elbo_status failed(struct nccl_ranks *n, const char *what, ncclResult_t code, elbo_error *error)
{
    n->base.broken = true;
    return elbo_fail(
        error, ELBO_PEER, "rank %zu: %s failed: %s%s", n->base.rank, what, n->nccl.ncclGetErrorString(code),
        code == ncclRemoteError || code == ncclSystemError
            ? "; another rank has died or lost its connection. Start again to go on from the last checkpoint"
            : "");
}

static elbo_status late(struct nccl_ranks *n, const char *what, elbo_error *error)
{
    n->base.broken = true;
    return elbo_fail(
        error, ELBO_PEER,
        "rank %zu waited %.0f s in vain for %s: a rank is dead, stopped or in trouble; start again to go on from "
        "the last checkpoint, or raise parallel.timeout if a step may take so long",
        n->base.rank, n->base.timeout, what);
}

/* Checks the bonds every 16th turn of a wait; a lost rank ends the wait. */
static elbo_status look_around(struct nccl_ranks *n, unsigned turn, elbo_error *error)
{
    size_t lost = turn % 16 ? BONDS_NONE : bonds_lost(n->bonds);
    if (lost == BONDS_NONE) return ELBO_OK;
    n->base.broken = true;
    return elbo_fail(error, ELBO_PEER,
                     "rank %zu: rank %zu has ended or its host is out of reach; start again to go on from the last "
                     "checkpoint",
                     n->base.rank, lost);
}

/* Waits until a non-blocking call is queued or has failed. */
static elbo_status settle(struct nccl_ranks *n, const char *what, ncclResult_t code, elbo_error *error)
{
    double deadline = clock_seconds() + n->base.timeout;
    unsigned turn = 0;
    for (ncclResult_t state = code; state == ncclInProgress; rest()) {
        code = n->nccl.ncclCommGetAsyncError(n->comm, &state);
        if (!code) code = state;
        if (code && code != ncclInProgress) break;
        ELBO_TRY(look_around(n, turn++, error));
        if (clock_seconds() > deadline) return late(n, what, error);
    }
    return code ? failed(n, what, code, error) : ELBO_OK;
}

elbo_status cuda_ranks_wait(struct cuda_backend *b, cudaEvent_t event, elbo_error *error)
{
    struct nccl_ranks *n = (struct nccl_ranks *)b->ranks;
    double deadline = clock_seconds() + n->base.timeout;
    for (unsigned turn = 0;; turn++) {
        int e = cudaEventQuery(event);
        ncclResult_t state = ncclSuccess, code = n->nccl.ncclCommGetAsyncError(n->comm, &state);
        if (code || (state && state != ncclInProgress)) return failed(n, "a collective", code ? code : state, error);
        if (e != cudaErrorNotReady) {
            cuda_keep(b, e, "the stream");
            return ELBO_OK;
        }
        if (clock_seconds() > deadline) return late(n, "a step", error);
        if (turn <= 100) continue;
        ELBO_TRY(look_around(n, turn, error));
        rest();
    }
}

static elbo_status begin(struct collectives *c, const struct transfer *list, size_t count, elbo_error *error)
{
    struct nccl_ranks *n = (struct nccl_ranks *)c;
    cudaStream_t stream = cuda_stream(n->b);
    ncclResult_t code = n->nccl.ncclGroupStart(), each = ncclSuccess;
    for (size_t i = 0; i < count && !code; i++) {
        int peer = (int)list[i].peer;
        if (list[i].receive)
            each = n->nccl.ncclRecv(list[i].data, list[i].bytes, ncclUint8, peer, n->comm, stream);
        else
            each = n->nccl.ncclSend(list[i].data, list[i].bytes, ncclUint8, peer, n->comm, stream);
        if (each && each != ncclInProgress) code = each;
    }
    each = n->nccl.ncclGroupEnd();
    return settle(n, "an exchange between ranks", code ? code : each, error);
}

static elbo_status begin_sum(struct collectives *c, float *x, size_t count, elbo_error *error)
{
    struct nccl_ranks *n = (struct nccl_ranks *)c;
    return settle(n, "a sum over the ranks",
                  n->nccl.ncclAllReduce(x, x, count, ncclFloat32, ncclSum, n->comm, cuda_stream(n->b)), error);
}

/* Does nothing, because collectives are ordered by the stream. */
static elbo_status poll(struct collectives *c, bool *through, elbo_error *error)
{
    (void)c;
    (void)error;
    *through = true;
    return ELBO_OK;
}

static elbo_status wait(struct collectives *c, elbo_error *error)
{
    (void)c;
    (void)error;
    return ELBO_OK;
}

static elbo_status make_room(struct nccl_ranks *n, struct post *p, size_t bytes, elbo_error *error)
{
    struct backend *b = &n->b->base;
    size_t room = bytes * (n->base.ranks + 1);
    if (room <= p->room) return ELBO_OK;
    if (p->host) b->memory.release_host(b, p->host);
    if (p->device) b->memory.release(b, p->device);
    p->host = p->device = NULL;
    p->room = 0;
    ELBO_TRY(b->memory.allocate_host(b, (void **)&p->host, room, error));
    ELBO_TRY(b->memory.allocate(b, (void **)&p->device, room, "the notes of ranks", error));
    p->room = room;
    if (!p->done) cuda_keep(n->b, cudaEventCreateWithFlags(&p->done, cudaEventDisableTiming), "an event");
    return b->stream.check(b, error);
}

static elbo_status post(struct collectives *c, unsigned which, const void *mine, size_t bytes, elbo_error *error)
{
    struct nccl_ranks *n = (struct nccl_ranks *)c;
    struct cuda_backend *b = n->b;
    struct post *p = &n->posts[which];
    ELBO_TRY(make_room(n, p, bytes, error));
    p->bytes = bytes;
    memcpy(p->host, mine, bytes);
    cuda_keep(b, cudaMemcpyAsync(p->device, p->host, bytes, cudaMemcpyHostToDevice, b->stream), "a copy to the device");
    ELBO_TRY(settle(n, "a note between ranks",
                    n->nccl.ncclAllGather(p->device, p->device + bytes, bytes, ncclUint8, n->comm, b->stream), error));
    cuda_keep(b,
              cudaMemcpyAsync(p->host + bytes, p->device + bytes, bytes * c->ranks, cudaMemcpyDeviceToHost, b->stream),
              "a copy to the host");
    cuda_keep(b, cudaEventRecord(p->done, b->stream), "an event");
    return b->base.stream.check(&b->base, error);
}

static elbo_status collect(struct collectives *c, unsigned which, void *all, elbo_error *error)
{
    struct nccl_ranks *n = (struct nccl_ranks *)c;
    struct post *p = &n->posts[which];
    ELBO_TRY(cuda_ranks_wait(n->b, p->done, error));
    memcpy(all, p->host + p->bytes, p->bytes * c->ranks);
    return n->b->base.stream.check(&n->b->base, error);
}

static void destroy(struct collectives *c)
{
    struct nccl_ranks *n = (struct nccl_ranks *)c;
    struct backend *b = &n->b->base;
    elbo_error unsaid;
    for (unsigned i = 0; i < COLLECTIVES_POSTS && !c->broken; i++) {
        if (n->posts[i].host) b->memory.release_host(b, n->posts[i].host);
        if (n->posts[i].device) b->memory.release(b, n->posts[i].device);
        if (n->posts[i].done) cudaEventDestroy(n->posts[i].done);
    }
    if (n->comm && !c->broken && !settle(n, "the end", n->nccl.ncclCommFinalize(n->comm), &unsaid))
        n->nccl.ncclCommDestroy(n->comm);
    n->b->ranks = NULL;
    if (!c->broken) nccl_close(&n->nccl);
    free(n);
}

elbo_status cuda_make_id(struct backend *base, unsigned char id[CUDA_ID], elbo_error *error)
{
    struct nccl nccl;
    (void)base;
    elbo_status status = nccl_open(&nccl, error);
    if (status) return status;
    ncclUniqueId made;
    ncclResult_t code = nccl.ncclGetUniqueId(&made);
    if (code)
        status = elbo_fail(error, ELBO_DEVICE, "NCCL made no id: %s", nccl.ncclGetErrorString(code));
    else
        memcpy(id, &made, sizeof made);
    /* The library stays open, because its thread waits at the id's address. */
    return status;
}

elbo_status cuda_join(struct backend *base, const unsigned char id[CUDA_ID], size_t ranks, size_t rank, double timeout,
                      struct bonds *bonds, struct collectives **out, elbo_error *error)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    struct nccl_ranks *n = calloc(1, sizeof *n);
    if (!n) return elbo_fail(error, ELBO_MEMORY, "no memory for the ranks");
    n->b = b;
    n->bonds = bonds;
    n->base = (struct collectives){.name = "NCCL",
                                   .ranks = ranks,
                                   .rank = rank,
                                   .timeout = timeout,
                                   .begin = begin,
                                   .begin_sum = begin_sum,
                                   .poll = poll,
                                   .wait = wait,
                                   .post = post,
                                   .collect = collect,
                                   .destroy = destroy};
    ncclUniqueId given;
    memcpy(&given, id, sizeof given);
    elbo_status status = nccl_open(&n->nccl, error);
    for (unsigned i = 0; i < COLLECTIVES_POSTS && !status; i++) status = make_room(n, &n->posts[i], NOTE, error);
    if (!status) {
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        config.commName = "elbo";
        status = settle(n, "the other ranks to join NCCL",
                        n->nccl.ncclCommInitRankConfig(&n->comm, (int)ranks, given, (int)rank, &config), error);
    }
    if (status) {
        destroy(&n->base);
        return status;
    }
    b->ranks = &n->base;
    *out = &n->base;
    return ELBO_OK;
}
