/* NCCL's functions between processes of one host: a ring of shared memory for every ordered pair of ranks. What is on a
 * stream makes progress when the stream is run; while a peer has not come it is not ready, and the host may poll and
 * give up. A peer that died is an error of the communicator, as NCCL's own, and what waited for it is left as it is. */
#include "private.h"

#include "include/nccl.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <random>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace
{

constexpr size_t RING = 1 << 16, MOST_RANKS = 64;

struct ring {
    std::atomic<uint64_t> written, read; /* bytes */
    char bytes[RING];
};

struct segment {
    std::atomic<uint32_t> joined;
    std::atomic<int32_t> process[MOST_RANKS]; /* 0: not here yet; -1: took its leave */
    ring rings[1];                            /* (ranks, ranks): from, to            */
};

struct piece {
    char *data;
    size_t bytes, done;
    int peer;
    bool receive;
};

/* A call, or a group of them, on a stream. */
struct action {
    std::vector<piece> pieces;
    std::vector<char> scratch; /* where pieces of a sum arrive */
    const float *addend = nullptr;
    float *sum = nullptr; /* of addend and the scratch, by rank */
    size_t count = 0;
};

struct group {
    int depth = 0;
    ncclComm_t comm = nullptr;
    cudaStream_t stream = nullptr;
    action all;
};
thread_local group open_group;

} // namespace

struct ncclComm {
    segment *shared;
    size_t bytes;
    int ranks, rank;
    std::string name;
    std::atomic<int> state{ncclSuccess};
    std::shared_ptr<int> calls = std::make_shared<int>(0); /* held by those that may still run, and by graphs */
};

using namespace sim;

static ring &ring_of(ncclComm_t c, int from, int to)
{
    return c->shared->rings[from * c->ranks + to];
}

/* $ELBO_SIM_DEAF: as NCCL itself is to the death of a peer on its own host. */
static bool dead(int32_t process)
{
    if (getenv("ELBO_SIM_DEAF")) return false;
    if (process <= 0) return process < 0;
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", process);
    FILE *f = fopen(path, "r");
    if (!f) return true;
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1) state = 'Z';
    fclose(f);
    return state == 'Z';
}

/* One pass over the pieces; those of one peer and direction keep their order. True when all are through. */
static bool progress(ncclComm_t c, action &a)
{
    open_device open;
    bool all = true, waits[2][MOST_RANKS] = {};
    for (piece &p : a.pieces) {
        bool &blocked = waits[p.receive][p.peer];
        if (p.done == p.bytes || blocked) continue;
        ring &r = p.receive ? ring_of(c, p.peer, c->rank) : ring_of(c, c->rank, p.peer);
        uint64_t written = r.written.load(std::memory_order_acquire), read = r.read.load(std::memory_order_acquire);
        size_t room = p.receive ? written - read : RING - (written - read), at = (p.receive ? read : written) % RING;
        size_t n = std::min({p.bytes - p.done, room, RING - at});
        if (p.receive) {
            memcpy(p.data + p.done, r.bytes + at, n);
            r.read.store(read + n, std::memory_order_release);
        } else {
            memcpy(r.bytes + at, p.data + p.done, n);
            r.written.store(written + n, std::memory_order_release);
        }
        p.done += n;
        blocked = p.done < p.bytes;
    }
    for (const piece &p : a.pieces) all = all && p.done == p.bytes;
    return all;
}

static void finish(ncclComm_t c, action &a)
{
    if (!a.sum) return;
    open_device open;
    const float *received = reinterpret_cast<const float *>(a.scratch.data());
    for (size_t i = 0; i < a.count; i++) {
        float total = 0;
        for (int r = 0, k = 0; r < c->ranks; r++)
            total += r == c->rank ? a.addend[i] : received[(size_t)k++ * a.count + i];
        a.sum[i] = total;
    }
}

static cudaError_t enqueue_action(ncclComm_t c, cudaStream_t stream, const action &wanted)
{
    struct turn {
        std::unique_ptr<action> now;
        unsigned passes = 0;
    };
    return enqueue(stream, [c, wanted, t = std::make_shared<turn>(), held = c->calls] {
        if (!t->now) { /* a replay begins anew */
            t->now = std::make_unique<action>(wanted);
            for (size_t i = 0, k = 0; i < t->now->pieces.size(); i++) /* pieces into the copy's own scratch */
                if (wanted.sum && t->now->pieces[i].receive)
                    t->now->pieces[i].data = t->now->scratch.data() + k++ * wanted.count * sizeof(float);
            struct sim_launch told = {"nccl", {1, 1, 1}, {1, 1, 1}, 0, the().replaying};
            if (the().hook) the().hook(the().hook_context, &told);
            t->passes = 0;
        }
        bool through = c->state.load() != ncclSuccess || progress(c, *t->now);
        if (!through && ++t->passes % 256 == 0)
            for (const piece &p : t->now->pieces)
                if (p.done < p.bytes && dead(c->shared->process[p.peer].load())) c->state = ncclRemoteError;
        if (!through) return cudaErrorNotReady;
        if (c->state.load() == ncclSuccess) finish(c, *t->now);
        t->now.reset();
        return cudaSuccess;
    });
}

static ncclResult_t give(ncclComm_t c, cudaStream_t stream, const action &a)
{
    if (c->state.load()) return (ncclResult_t)c->state.load();
    return enqueue_action(c, stream, a) ? ncclUnhandledCudaError : ncclSuccess;
}

/* Into the open group, or alone. */
static ncclResult_t add(ncclComm_t c, cudaStream_t stream, const piece &p)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (p.peer < 0 || p.peer >= c->ranks ||
        (p.bytes && !owns(p.data, p.bytes, p.receive ? "what ncclRecv writes" : "what ncclSend reads")))
        return ncclInvalidArgument;
    if (!open_group.depth) {
        action alone;
        alone.pieces.push_back(p);
        return give(c, stream, alone);
    }
    if (open_group.comm && (open_group.comm != c || open_group.stream != stream)) return ncclInvalidUsage;
    open_group.comm = c;
    open_group.stream = stream;
    open_group.all.pieces.push_back(p);
    return ncclSuccess;
}

static size_t size_of(ncclDataType_t type)
{
    return type == ncclFloat32 ? sizeof(float) : 1;
}

extern "C" ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    std::random_device random;
    for (char &byte : id->internal) byte = (char)random();
    return ncclSuccess;
}

extern "C" ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank,
                                               ncclConfig_t *config)
{
    if (ranks < 1 || ranks > (int)MOST_RANKS || rank < 0 || rank >= ranks || config->blocking)
        return ncclInvalidArgument;
    char name[64];
    unsigned long long number;
    memcpy(&number, id.internal, sizeof number);
    snprintf(name, sizeof name, "/elbo-sim-nccl-%016llx", number);
    size_t bytes = sizeof(segment) + ((size_t)ranks * (size_t)ranks - 1) * sizeof(ring);
    int file = shm_open(name, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, (off_t)bytes)) return ncclSystemError;
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return ncclSystemError;
    ncclComm *c = new ncclComm;
    c->shared = static_cast<segment *>(memory);
    c->bytes = bytes;
    c->ranks = ranks;
    c->rank = rank;
    c->name = name;
    c->shared->process[rank] = (int32_t)getpid();
    if (c->shared->joined.fetch_add(1) + 1 == (uint32_t)ranks) shm_unlink(name); /* nobody else is to come */
    *out = c;
    return ncclInProgress;
}

extern "C" ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state)
{
    *state = (ncclResult_t)c->state.load();
    if (*state == ncclSuccess && c->shared->joined.load() < (uint32_t)c->ranks) {
        *state = ncclInProgress;
        for (int r = 0; r < c->ranks; r++) {
            int32_t process = c->shared->process[r].load();
            if (process && dead(process)) *state = ncclRemoteError;
        }
    }
    return ncclSuccess;
}

/* NCCL waits here for what is under way, and for the end of all graphs that hold a call of this communicator: for ever,
 * if need be. */
extern "C" ncclResult_t ncclCommFinalize(ncclComm_t c)
{
    cudaDeviceSynchronize();
    if (c->calls.use_count() > 1) {
        fprintf(stderr, "sim: ncclCommFinalize would wait for ever: %ld calls are held by graphs\n",
                c->calls.use_count() - 1);
        abort();
    }
    c->shared->process[c->rank] = -1;
    return ncclSuccess;
}

extern "C" ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    munmap(c->shared, c->bytes);
    delete c;
    return ncclSuccess;
}

extern "C" ncclResult_t ncclGroupStart(void)
{
    open_group.depth++;
    return ncclSuccess;
}

extern "C" ncclResult_t ncclGroupEnd(void)
{
    if (!open_group.depth) return ncclInvalidUsage;
    if (--open_group.depth || !open_group.comm) return ncclSuccess;
    ncclResult_t result = give(open_group.comm, open_group.stream, open_group.all);
    open_group = group();
    return result;
}

extern "C" ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                                 cudaStream_t stream)
{
    return add(c, stream, {const_cast<char *>(static_cast<const char *>(from)), count * size_of(type), 0, peer, false});
}

extern "C" ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                                 cudaStream_t stream)
{
    return add(c, stream, {static_cast<char *>(to), count * size_of(type), 0, peer, true});
}

extern "C" ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                                      ncclComm_t c, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (type != ncclFloat32 || op != ncclSum || open_group.depth) return ncclInvalidUsage;
    if (!owns(from, count * sizeof(float), "what ncclAllReduce reads") ||
        !owns(to, count * sizeof(float), "what ncclAllReduce writes"))
        return ncclInvalidArgument;
    action a;
    a.addend = static_cast<const float *>(from);
    a.sum = static_cast<float *>(to);
    a.count = count;
    a.scratch.resize((size_t)(c->ranks - 1) * count * sizeof(float));
    for (int r = 0; r < c->ranks; r++) {
        if (r == c->rank) continue;
        a.pieces.push_back({const_cast<char *>(static_cast<const char *>(from)), count * sizeof(float), 0, r, false});
        a.pieces.push_back({nullptr, count * sizeof(float), 0, r, true});
    }
    return give(c, stream, a);
}

extern "C" ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t c,
                                      cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    size_t bytes = count * size_of(type);
    if (open_group.depth) return ncclInvalidUsage;
    if (!owns(from, bytes, "what ncclAllGather reads") ||
        !owns(to, bytes * (size_t)c->ranks, "what ncclAllGather writes"))
        return ncclInvalidArgument;
    action a;
    for (int r = 0; r < c->ranks; r++) { /* its own piece goes round as well */
        a.pieces.push_back({const_cast<char *>(static_cast<const char *>(from)), bytes, 0, r, false});
        a.pieces.push_back({static_cast<char *>(to) + (size_t)r * bytes, bytes, 0, r, true});
    }
    return give(c, stream, a);
}

extern "C" const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclUnhandledCudaError:
        return "unhandled cuda error";
    case ncclSystemError:
        return "unhandled system error";
    case ncclInternalError:
        return "internal error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInProgress:
        return "NCCL operation in progress";
    }
    return "unknown result code";
}
