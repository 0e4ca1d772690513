/* Streams, events, capture and replay. A stream is a queue of work with its arguments in it. Eager: the queue is run
 * when something enters it. Lazy: when a synchronization, or a wait of a stream that is run, needs it; then work that
 * nobody waited for has not happened. The null stream runs everything else first. A capture takes the work into a list
 * instead, in the order of issue, and a graph is that list. */
#include "private.h"

#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

using work = std::function<cudaError_t()>;
using clock_type = std::chrono::steady_clock;

struct capture {
    CUstream_st *origin;
    cudaStreamCaptureMode mode;
    bool valid = true;
    std::vector<work> list;
    std::map<CUstream_st *, size_t> unjoined; /* forked streams: their work up to here is awaited by the origin */
};

struct CUstream_st {
    std::deque<work> queue;
    uint64_t issued = 0, done = 0;
    std::shared_ptr<capture> into;
    size_t captured = 0; /* work given to the capture by this stream */
    bool alive = true;
};

struct CUevent_st {
    CUstream_st *stream = nullptr; /* of the last record */
    uint64_t serial = 0;
    std::shared_ptr<capture> within;
    size_t captured = 0;
    std::shared_ptr<clock_type::time_point> time;
    bool alive = true;
};

struct CUgraph_st {
    std::vector<work> list;
};
struct CUgraphExec_st {
    std::vector<work> list;
};

namespace sim
{

static CUstream_st null_stream;
static std::vector<std::unique_ptr<CUstream_st>> streams;
static std::vector<std::unique_ptr<CUevent_st>> events;
static std::set<CUgraph_st *> graphs;
static std::set<CUgraphExec_st *> execs;
static std::map<const void *, int> dynamic_shared; /* kernels that may have more than 48 KB */
static cudaError_t late_error;                     /* of work that ran after its call returned */

static CUstream_st *find(cudaStream_t s)
{
    if (!s) return &null_stream;
    for (auto &each : streams)
        if (each.get() == s && s->alive) return s;
    fail(cudaErrorInvalidResourceHandle, "no such stream");
    return nullptr;
}

static CUevent_st *find(cudaEvent_t e)
{
    for (auto &each : events)
        if (each.get() == e && e->alive) return e;
    fail(cudaErrorInvalidResourceHandle, "no such event");
    return nullptr;
}

/* Runs a stream up to its piece of work `serial`, and says whether it came there: work that another process holds up is
 * not ready yet, and is waited for where `patient`. */
static bool drain(CUstream_st *s, uint64_t serial, bool patient = true)
{
    while (s->done < serial && !s->queue.empty()) {
        cudaError_t e = s->queue.front()();
        if (e == cudaErrorNotReady) {
            if (!patient) return false;
            std::this_thread::sleep_for(std::chrono::microseconds(20));
            continue;
        }
        s->queue.pop_front();
        s->done++;
        if (e && !late_error) late_error = e;
    }
    return true;
}

static cudaError_t drain_all()
{
    for (auto &each : streams) drain(each.get(), each->issued);
    drain(&null_stream, null_stream.issued);
    cudaError_t e = late_error;
    late_error = cudaSuccess;
    return e;
}

static bool capturing(bool relaxed_counts)
{
    for (auto &each : streams)
        if (each->into && (relaxed_counts || each->into->mode != cudaStreamCaptureModeRelaxed)) return true;
    return false;
}

static void invalidate_captures()
{
    for (auto &each : streams)
        if (each->into) each->into->valid = false;
}

cudaError_t refuse_in_capture(const char *call)
{
    if (!capturing(false)) return cudaSuccess;
    invalidate_captures();
    return fail(cudaErrorStreamCaptureUnsupported, "%s during a capture", call);
}

cudaError_t synchronize_all(const char *call)
{
    if (cudaError_t e = refuse_in_capture(call)) return e;
    if (cudaError_t e = drain_all()) return e;
    return device_error();
}

cudaError_t enqueue(cudaStream_t stream, work next)
{
    std::lock_guard<std::recursive_mutex> hold(the().lock);
    if (cudaError_t e = device_error()) return e;
    CUstream_st *s = find(stream);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (s->into) {
        if (!s->into->valid) return fail(cudaErrorStreamCaptureInvalidated, "the capture was broken before");
        s->into->list.push_back(std::move(next));
        s->captured++;
        return cudaSuccess;
    }
    if (s == &null_stream && capturing(false)) {
        invalidate_captures();
        return fail(cudaErrorStreamCaptureImplicit, "the null stream would wait for a stream that is captured");
    }
    s->queue.push_back(std::move(next));
    s->issued++;
    if (the().lazy && s != &null_stream) return cudaSuccess;
    if (s == &null_stream) return drain_all();
    drain(s, s->issued);
    cudaError_t e = late_error;
    late_error = cudaSuccess;
    return e;
}

} // namespace sim

using namespace sim;
using guard = std::lock_guard<std::recursive_mutex>;

/* ---- kernels ---- */

void sim_enqueue_kernel(const char *name, const void *function, dim3 grid, dim3 block, size_t shared_bytes,
                        cudaStream_t stream, std::function<void()> body)
{
    guard hold(the().lock);
    size_t threads = (size_t)block.x * block.y * block.z, blocks = (size_t)grid.x * grid.y * grid.z;
    auto allowed = dynamic_shared.find(function);
    size_t limit = allowed == dynamic_shared.end() ? 48 << 10 : (size_t)allowed->second;
    if (!threads || threads > 1024 || block.z > 64 || !blocks || grid.x > 0x7fffffff || grid.y > 65535 ||
        grid.z > 65535) {
        fail(cudaErrorInvalidConfiguration, "%s: grid (%u, %u, %u) of blocks (%u, %u, %u)", name, grid.x, grid.y,
             grid.z, block.x, block.y, block.z);
        return;
    }
    if (shared_bytes > limit) {
        fail(cudaErrorInvalidValue, "%s: %zu bytes of dynamic shared memory, %zu allowed", name, shared_bytes, limit);
        return;
    }
    while (*name == '(') name++;
    std::string shown(name, strcspn(name, "<)"));
    cudaError_t e = enqueue(stream, [=] {
        if (the().breaks_after != SIZE_MAX && the().breaks_after-- == 0) {
            the().broken = true;
            return device_error();
        }
        struct sim_launch told = {
            shown.c_str(), {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes, the().replaying};
        if (the().hook) the().hook(the().hook_context, &told);
        the().counts.kernels++;
        run_kernel({shown.c_str(), grid, block, shared_bytes}, body);
        return cudaSuccess;
    });
    if (e) fail(e, "launch of %s", shown.c_str());
}

extern "C" cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    guard hold(the().lock);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || (size_t)value > the().shared_limit)
        return fail(cudaErrorInvalidValue, "%d bytes of dynamic shared memory, at most %zu", value, the().shared_limit);
    dynamic_shared[kernel] = value;
    return cudaSuccess;
}

/* ---- streams ---- */

extern "C" cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    guard hold(the().lock);
    if (cudaError_t e = device_error()) return e;
    streams.push_back(std::make_unique<CUstream_st>());
    *stream = streams.back().get();
    return cudaSuccess;
}

extern "C" cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

extern "C" cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(stream, flags);
}

extern "C" cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    guard hold(the().lock);
    CUstream_st *s = find(stream);
    if (!s || !stream) return cudaErrorInvalidResourceHandle;
    drain(s, s->issued);
    s->alive = false;
    s->into.reset();
    return cudaSuccess;
}

static cudaError_t forbid_captured(const CUstream_st *s, const char *call)
{
    if (!s->into) return cudaSuccess;
    s->into->valid = false;
    return fail(cudaErrorStreamCaptureUnsupported, "%s on a stream that is captured", call);
}

extern "C" cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    guard hold(the().lock);
    CUstream_st *s = find(stream);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (cudaError_t e = forbid_captured(s, "cudaStreamSynchronize")) return e;
    the().counts.synchronizations++;
    if (s == &null_stream) return synchronize_all("cudaStreamSynchronize");
    drain(s, s->issued);
    cudaError_t e = late_error;
    late_error = cudaSuccess;
    return e ? e : device_error();
}

extern "C" cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    guard hold(the().lock);
    CUstream_st *s = find(stream);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (cudaError_t e = forbid_captured(s, "cudaStreamQuery")) return e;
    if (s->done == s->issued) return device_error();
    drain(s, s->done + 1, false); /* a poll sees progress */
    return cudaErrorNotReady;
}

extern "C" cudaError_t cudaDeviceSynchronize(void)
{
    guard hold(the().lock);
    the().counts.synchronizations++;
    return synchronize_all("cudaDeviceSynchronize");
}

extern "C" cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *context)
{
    return enqueue(stream, [=] {
        function(context);
        return cudaSuccess;
    });
}

/* ---- events ---- */

extern "C" cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    guard hold(the().lock);
    if (cudaError_t e = device_error()) return e;
    events.push_back(std::make_unique<CUevent_st>());
    *event = events.back().get();
    return cudaSuccess;
}

extern "C" cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

extern "C" cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    guard hold(the().lock);
    CUevent_st *e = find(event);
    if (!e) return cudaErrorInvalidResourceHandle;
    e->alive = false;
    e->within.reset();
    return cudaSuccess;
}

extern "C" cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    guard hold(the().lock);
    CUevent_st *e = find(event);
    CUstream_st *s = find(stream);
    if (!e || !s) return cudaErrorInvalidResourceHandle;
    if (s->into) {
        e->within = s->into;
        e->stream = s;
        e->captured = s->captured;
        return cudaSuccess;
    }
    auto time = std::make_shared<clock_type::time_point>();
    cudaError_t error = enqueue(stream, [time] {
        *time = clock_type::now();
        return cudaSuccess;
    });
    if (error) return error;
    e->within.reset();
    e->stream = s;
    e->serial = s->issued;
    e->time = time;
    return cudaSuccess;
}

/* External: a node of the graph that is captured, which records anew at each replay. */
extern "C" cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
    guard hold(the().lock);
    if (flags == cudaEventRecordDefault) return cudaEventRecord(event, stream);
    CUevent_st *e = find(event);
    CUstream_st *s = find(stream);
    if (!e || !s) return cudaErrorInvalidResourceHandle;
    if (!s->into) return fail(cudaErrorInvalidValue, "an external record outside a capture");
    auto time = std::make_shared<clock_type::time_point>();
    cudaError_t error = enqueue(stream, [time] {
        *time = clock_type::now();
        return cudaSuccess;
    });
    e->within.reset();
    e->stream = s;
    e->serial = 0;
    e->time = time;
    return error;
}

extern "C" cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    guard hold(the().lock);
    CUevent_st *e = find(event);
    CUstream_st *s = find(stream);
    if (!e || !s) return cudaErrorInvalidResourceHandle;
    if (!e->stream) return cudaSuccess; /* never recorded */
    if (e->within) {
        if (!s->into) {
            if (s == &null_stream) {
                e->within->valid = false;
                return fail(cudaErrorStreamCaptureUnsupported, "the null stream cannot join a capture");
            }
            s->into = e->within;
            s->captured = 0;
            s->into->unjoined[s] = SIZE_MAX;
        } else if (s->into != e->within) {
            return fail(cudaErrorStreamCaptureUnsupported, "an event of another capture");
        }
        if (e->stream != s->into->origin) s->into->unjoined[e->stream] = e->captured;
        return cudaSuccess;
    }
    if (s->into) {
        s->into->valid = false;
        return fail(cudaErrorStreamCaptureUnsupported, "a captured stream waits for an event from outside the capture");
    }
    CUstream_st *other = e->stream;
    uint64_t serial = e->serial;
    return enqueue(stream, [other, serial] { return drain(other, serial, false) ? cudaSuccess : cudaErrorNotReady; });
}

extern "C" cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    guard hold(the().lock);
    CUevent_st *e = find(event);
    if (!e) return cudaErrorInvalidResourceHandle;
    if (e->within) return fail(cudaErrorCapturedEvent, "cudaEventSynchronize of a captured event");
    the().counts.synchronizations++;
    if (e->stream) drain(e->stream, e->serial);
    cudaError_t error = late_error;
    late_error = cudaSuccess;
    return error ? error : device_error();
}

extern "C" cudaError_t cudaEventQuery(cudaEvent_t event)
{
    guard hold(the().lock);
    CUevent_st *e = find(event);
    if (!e) return cudaErrorInvalidResourceHandle;
    if (e->within) return fail(cudaErrorCapturedEvent, "cudaEventQuery of a captured event");
    if (!e->stream || e->stream->done >= e->serial) return device_error();
    drain(e->stream, e->stream->done + 1, false);
    return cudaErrorNotReady;
}

extern "C" cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    guard hold(the().lock);
    CUevent_st *a = find(start), *b = find(end);
    if (!a || !b || !a->time || !b->time) return fail(cudaErrorInvalidResourceHandle, "an event that was not recorded");
    if (a->stream->done < a->serial || b->stream->done < b->serial) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(*b->time - *a->time).count();
    return cudaSuccess;
}

/* ---- capture and graphs ---- */

extern "C" cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    guard hold(the().lock);
    CUstream_st *s = find(stream);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (s == &null_stream) return fail(cudaErrorStreamCaptureUnsupported, "the null stream cannot be captured");
    if (s->into) return fail(cudaErrorInvalidValue, "the stream is captured already");
    s->into = std::make_shared<capture>();
    s->into->origin = s;
    s->into->mode = mode;
    s->captured = 0;
    return cudaSuccess;
}

extern "C" cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    guard hold(the().lock);
    *graph = nullptr;
    CUstream_st *s = find(stream);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (!s->into || s->into->origin != s)
        return fail(cudaErrorStreamCaptureUnmatched, "the capture did not begin on this stream");
    std::shared_ptr<capture> c = s->into;
    bool joined = true;
    for (auto &[forked, upto] : c->unjoined) joined = joined && (upto == forked->captured);
    for (auto &each : streams)
        if (each->into == c) each->into.reset();
    if (!c->valid) return fail(cudaErrorStreamCaptureInvalidated, "the capture was broken before");
    if (!joined) return fail(cudaErrorStreamCaptureUnjoined, "the origin did not wait for a stream that joined");
    *graph = new CUgraph_st{std::move(c->list)};
    graphs.insert(*graph);
    return cudaSuccess;
}

extern "C" cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    guard hold(the().lock);
    CUstream_st *s = find(stream);
    if (!s) return cudaErrorInvalidResourceHandle;
    *status = !s->into         ? cudaStreamCaptureStatusNone
              : s->into->valid ? cudaStreamCaptureStatusActive
                               : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    guard hold(the().lock);
    if (!graphs.count(graph) || nodes) return fail(cudaErrorInvalidValue, "no such graph, or nodes asked for");
    *count = graph->list.size();
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    guard hold(the().lock);
    if (!graphs.count(graph)) return fail(cudaErrorInvalidValue, "no such graph");
    *exec = new CUgraphExec_st{graph->list};
    execs.insert(*exec);
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t)
{
    guard hold(the().lock);
    return execs.count(exec) ? cudaSuccess : fail(cudaErrorInvalidValue, "no such graph");
}

extern "C" cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    guard hold(the().lock);
    if (!execs.count(exec)) return fail(cudaErrorInvalidValue, "no such graph");
    struct place {
        size_t at = 0;
        cudaError_t first = cudaSuccess;
    };
    return enqueue(stream, [list = exec->list, p = std::make_shared<place>()] {
        bool before = the().replaying;
        cudaError_t e = cudaSuccess;
        the().replaying = true;
        if (p->at == 0) the().counts.graphs++;
        for (; p->at < list.size() && e != cudaErrorNotReady; p->at += e != cudaErrorNotReady) {
            e = list[p->at]();
            if (e && e != cudaErrorNotReady && !p->first) p->first = e;
        }
        the().replaying = before;
        return e == cudaErrorNotReady ? e : p->first;
    });
}

extern "C" cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    guard hold(the().lock);
    if (!execs.erase(exec)) return fail(cudaErrorInvalidValue, "no such graph");
    delete exec;
    return cudaSuccess;
}

extern "C" cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    guard hold(the().lock);
    if (!graphs.erase(graph)) return fail(cudaErrorInvalidValue, "no such graph");
    delete graph;
    return cudaSuccess;
}
