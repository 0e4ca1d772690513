/* The emulation catches what it claims: each fault is planted in a kernel or a call, in a process of its own where it
 * ends one, and what was said about it is read. */
#include "sim.h"

#include <cuda_runtime.h>
#include <kernels/ptx.cuh>
#include <cublasLt.h>

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#define ok(call) assert_int_equal(call, cudaSuccess)

/* ---- tools ---- */

struct outcome {
    int status; /* exit code, or 1000 + signal */
    std::string said;
};

static outcome in_child(const std::function<void()> &body)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        body();
        _exit(0);
    }
    close(ends[1]);
    outcome o = {};
    char text[512];
    for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;) o.said.append(text, (size_t)n);
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return o;
}

static void says(const outcome &o, const std::vector<std::string> &words)
{
    assert_int_equal(o.status, SIM_EXIT);
    for (const std::string &each : words)
        if (o.said.find(each) == std::string::npos) fail_msg("no \"%s\" in: %s", each.c_str(), o.said.c_str());
}

template <typename V> static V *device(size_t count, const V *from = nullptr)
{
    void *p = nullptr;
    ok(cudaMalloc(&p, count * sizeof(V)));
    if (from) ok(cudaMemcpy(p, from, count * sizeof(V), cudaMemcpyHostToDevice));
    return static_cast<V *>(p);
}

template <typename V> static std::vector<V> host(const V *p, size_t count)
{
    std::vector<V> v(count);
    ok(cudaMemcpy(v.data(), p, count * sizeof(V), cudaMemcpyDeviceToHost));
    return v;
}

/* ---- kernels: good ones and ones with a fault ---- */

static __global__ void reverse_kernel(float *y, const float *x, bool barrier)
{
    KERNEL_SHARED(float, tile, 128);
    tile[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    y[threadIdx.x] = tile[127 - threadIdx.x];
}

/* The barrier behind the loop's end is missing: a fast warp overwrites what a slow one has not read. */
static __global__ void trailing_kernel(float *y, bool barrier)
{
    KERNEL_SHARED(float, tile, 64);
    float sum = 0;
    for (int i = 0; i < 3; i++) {
        tile[threadIdx.x] = (float)(i * 100 + (int)threadIdx.x);
        __syncthreads();
        sum += tile[63 - threadIdx.x];
        if (barrier) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

static const int line_of_first = __LINE__ + 4, line_of_second = __LINE__ + 6;
static __global__ void divergent_kernel()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

static __global__ void exited_kernel()
{
    if (threadIdx.x >= 40) return;
    __syncthreads();
}

static __global__ void lost_lane_kernel(float *y)
{
    if (threadIdx.x == 7) return;
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

static __global__ void overrun_kernel(float *y, unsigned by)
{
    KERNEL_SHARED(float, small, 4);
    KERNEL_DYNAMIC_SHARED(float, large);
    if (threadIdx.x == 0) large[8] = 1;
    volatile float *p = small;
    y[0] = p[0] + (float)by;
}

static __global__ void past_kernel(float *y, size_t at)
{
    y[at] = 1;
}

static __global__ void fresh_kernel(float *y)
{
    KERNEL_SHARED(float, fixed, 3);
    KERNEL_DYNAMIC_SHARED(float, sized);
    y[0] = fixed[1];
    y[1] = sized[1];
}

static __global__ void shuffles_kernel(int *y)
{
    int lane = (int)threadIdx.x;
    y[lane] = __shfl_sync(0xffffffffu, lane * 10, 5);
    y[32 + lane] = __shfl_xor_sync(0xffffffffu, lane, 3);
    y[64 + lane] = __shfl_up_sync(0xffffffffu, lane, 4);
    y[96 + lane] = __shfl_down_sync(0xffffffffu, lane, 4);
    y[128 + lane] = __shfl_sync(0xffffffffu, lane, 1, 8);
    y[160 + lane] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
    y[192 + lane] = (int)__shfl_xor_sync(0xffffffffu, (double)lane, 16);
    if (lane < 8) y[224 + lane] = __shfl_xor_sync(0xffu, lane, 1);
    __syncwarp();
}

static __global__ void grid_kernel(unsigned *y)
{
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    y[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 1000 + thread;
}

static __global__ void scale_kernel(float *y, float by)
{
    y[threadIdx.x] *= by;
}

/* y (16, 8) = a (16, 16) b (16, 8), where b lies by rows (transposed loads) or by columns, in rows of `pitch`. */
enum { PITCH = 40 };
static __global__ void product_kernel(float *y, const __nv_bfloat16 *a, const __nv_bfloat16 *b, bool by_rows, int pitch)
{
    KERNEL_SHARED(__nv_bfloat16, rows, 2 * 16 * PITCH);
    __nv_bfloat16 *other = rows + 16 * pitch;
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += 32) rows[i / 16 * pitch + i % 16] = a[i];
    if (by_rows)
        for (int i = lane; i < 256; i += 32) other[i / 16 * pitch + i % 16] = b[i / 16 * 8 + i % 8];
    else
        for (int i = lane; i < 256; i += 32) other[i / 16 * pitch + i % 16] = b[i % 16 * 8 + i / 16 % 8];
    __syncwarp();
    unsigned left[4], right[4];
    float d[4] = {1, 1, 1, 1};
    ldmatrix_x4(left, rows + lane % 16 * pitch + lane / 16 * 8);
    if (by_rows)
        ldmatrix_x4_trans(right, other + lane % 16 * pitch + lane / 16 * 8);
    else
        ldmatrix_x4(right, other + lane % 16 * pitch + lane / 16 * 8);
    mma_m16n8k16(d, left, right[0], right[by_rows ? 1 : 2]);
    for (int i = 0; i < 4; i++) y[(lane / 4 + i / 2 * 8) * 8 + 2 * (lane % 4) + i % 2] = d[i];
}

/* Two groups of copies, 64 times 16 bytes each, the first with zeros in its upper half; each thread reads what another
 * one copied: of the first group into y, of the second behind it. */
enum copy_fault { NO_FAULT, NO_COMMIT, NO_WAIT, NO_BARRIER, TOO_FEW, IN_USE, LEFT_BEHIND };
static __global__ void copies_kernel(float *y, const float *x, copy_fault fault)
{
    KERNEL_SHARED(float, tile, 512);
    unsigned i = threadIdx.x, other = 63 - i, second = fault == IN_USE ? 0 : 256;
    cp_async_16(tile + 4 * i, x + 4 * i, i < 32);
    cp_async_commit();
    cp_async_16(tile + second + 4 * i, x + 256 + 4 * i, true);
    if (fault != NO_COMMIT) cp_async_commit();
    if (fault != NO_WAIT) cp_async_wait<1>();
    if (fault != NO_BARRIER) __syncthreads();
    y[i] = tile[4 * other];
    __syncthreads();
    if (fault != TOO_FEW && fault != LEFT_BEHIND) cp_async_wait<0>();
    __syncthreads();
    y[64 + i] = tile[second + 4 * other];
    if (fault == NO_COMMIT) cp_async_commit();
    if (fault != LEFT_BEHIND) cp_async_wait<0>();
}

static __global__ void misaligned_copy_kernel(const float *x)
{
    KERNEL_SHARED(float, tile, 8);
    cp_async_16(tile + 1, x, true);
}

/* ---- order and barriers ---- */

static std::vector<std::vector<float>> orders(const std::function<void(float *)> &launch, size_t count)
{
    std::vector<std::vector<float>> all;
    for (int order = 0; order < SIM_ORDERS; order++) {
        sim_set_order((enum sim_order)order, 5);
        float *y = device<float>(count);
        launch(y);
        ok(cudaGetLastError());
        all.push_back(host(y, count));
        ok(cudaFree(y));
    }
    sim_set_order(SIM_FORWARD, 1);
    return all;
}

static bool same(const std::vector<float> &a, const std::vector<float> &b)
{
    return !memcmp(a.data(), b.data(), a.size() * sizeof(float));
}

static void a_missing_barrier_shows(void **)
{
    float x[128];
    for (int i = 0; i < 128; i++) x[i] = (float)i;
    float *input = device(128, x);
    for (bool barrier : {true, false}) {
        auto all = orders([&](float *y) { KERNEL_LAUNCH(reverse_kernel, 1, 128, 0, nullptr, y, input, barrier); }, 128);
        assert_true(same(all[0], all[1]) == barrier);
        assert_true(same(all[0], all[2]) == barrier);
        bool nan = false;
        for (float v : all[0]) nan = nan || isnan(v);
        assert_true(nan != barrier);
        if (barrier)
            for (int i = 0; i < 128; i++) assert_true(all[0][(size_t)i] == (float)(127 - i));
    }
    ok(cudaFree(input));
}

static void a_missing_trailing_barrier_shows(void **)
{
    for (bool barrier : {true, false}) {
        auto all = orders([&](float *y) { KERNEL_LAUNCH(trailing_kernel, 1, 64, 0, nullptr, y, barrier); }, 64);
        bool right = true;
        for (auto &each : all)
            for (int i = 0; i < 64; i++) right = right && each[(size_t)i] == (float)(300 + 3 * (63 - i));
        assert_true(right == barrier);
    }
}

static void divergent_barriers_are_named(void **)
{
    says(in_child([] { KERNEL_LAUNCH(divergent_kernel, 1, 64, 0, nullptr); }),
         {"divergent_kernel", "divergent barrier", "test_sim.cpp:" + std::to_string(line_of_first),
          "test_sim.cpp:" + std::to_string(line_of_second), "thread 32"});
    says(in_child([] { KERNEL_LAUNCH(exited_kernel, 1, 64, 0, nullptr); }), {"exited_kernel", "thread 63 has exited"});
}

static void lost_lanes_are_named(void **)
{
    float *y = device<float>(32);
    says(in_child([=] { KERNEL_LAUNCH(lost_lane_kernel, 1, 32, 0, nullptr, y); }),
         {"lost_lane_kernel", "divergent warp operation", "thread 7 has exited", "(a shuffle)"});
    ok(cudaFree(y));
}

static void shuffles_move_what_they_should(void **)
{
    for (int order = 0; order < SIM_ORDERS; order++) {
        sim_set_order((enum sim_order)order, 9);
        int *y = device<int>(256);
        ok(cudaMemset(y, 0, 256 * sizeof(int)));
        KERNEL_LAUNCH(shuffles_kernel, 1, 32, 0, nullptr, y);
        auto v = host(y, 256);
        for (int i = 0; i < 32; i++) {
            assert_int_equal(v[(size_t)i], 50);
            assert_int_equal(v[(size_t)i + 32], i ^ 3);
            assert_int_equal(v[(size_t)i + 64], i < 4 ? i : i - 4);
            assert_int_equal(v[(size_t)i + 96], i >= 28 ? i : i + 4);
            assert_int_equal(v[(size_t)i + 128], i / 8 * 8 + 1);
            assert_int_equal((unsigned)v[(size_t)i + 160], 0x49249249u);
            assert_int_equal(v[(size_t)i + 192], i ^ 16);
            if (i < 8) assert_int_equal(v[(size_t)i + 224], i ^ 1);
        }
        ok(cudaFree(y));
    }
    sim_set_order(SIM_FORWARD, 1);
}

static void products_of_matrices_are_right(void **)
{
    __nv_bfloat16 a[256], b[128];
    for (int i = 0; i < 256; i++) a[i] = __float2bfloat16(sinf((float)i * 1.7f) * 3);
    for (int i = 0; i < 128; i++) b[i] = __float2bfloat16(cosf((float)i * 2.3f));
    auto *da = device(256, a), *db = device(128, b);
    for (bool by_rows : {true, false})
        for (int pitch : {24, 32}) {
            struct sim_counts before, after;
            sim_get_counts(&before);
            auto all = orders(
                [&](float *y) { KERNEL_LAUNCH(product_kernel, 1, 32, 0, nullptr, y, da, db, by_rows, pitch); }, 128);
            sim_get_counts(&after);
            assert_true((after.bank_conflicts > before.bank_conflicts) == (pitch == 32));
            assert_true(same(all[0], all[1]) && same(all[0], all[2]));
            for (int i = 0; i < 128; i++) {
                double sum = 1;
                for (int k = 0; k < 16; k++)
                    sum += (double)__bfloat162float(a[i / 8 * 16 + k]) * (double)__bfloat162float(b[k * 8 + i % 8]);
                assert_true(fabs(sum - (double)all[0][(size_t)i]) < 1e-5);
            }
        }
    ok(cudaFree(da));
    ok(cudaFree(db));
}

static void copies_come_when_they_were_waited_for(void **)
{
    float x[512];
    for (int i = 0; i < 512; i++) x[i] = (float)(i + 1);
    float *input = device(512, x);
    for (int fault = NO_FAULT; fault <= IN_USE; fault++) {
        auto all = orders(
            [&](float *y) { KERNEL_LAUNCH(copies_kernel, 1, 64, 0, nullptr, y, input, (copy_fault)fault); }, 128);
        bool right = true;
        for (auto &each : all)
            for (unsigned i = 0; i < 64; i++)
                right = right && each[i] == (i < 32 ? 0.0f : x[4 * (63 - i)]) && each[64 + i] == x[256 + 4 * (63 - i)];
        if (right != (fault == NO_FAULT)) fail_msg("fault %d %s", fault, right ? "does not show" : "shows");
    }
    says(in_child([=] { KERNEL_LAUNCH(copies_kernel, 1, 64, 0, nullptr, input, input, LEFT_BEHIND); }),
         {"copies_kernel", "exits with asynchronous copies"});
    says(in_child([=] { KERNEL_LAUNCH(misaligned_copy_kernel, 1, 1, 0, nullptr, input); }),
         {"misaligned_copy_kernel", "test_sim.cpp:", "not aligned"});
    ok(cudaFree(input));
}

static void every_thread_runs_once(void **)
{
    for (int order = 0; order < SIM_ORDERS; order++) {
        sim_set_order((enum sim_order)order, 3);
        unsigned *y = device<unsigned>(2 * 3 * 2 * 105);
        ok(cudaMemset(y, 0, 2 * 3 * 2 * 105 * sizeof *y));
        KERNEL_LAUNCH(grid_kernel, dim3(2, 3, 2), dim3(7, 5, 3), 0, nullptr, y);
        auto v = host(y, 2 * 3 * 2 * 105);
        for (unsigned i = 0; i < v.size(); i++) assert_int_equal(v[i], i / 105 * 1000 + i % 105);
        ok(cudaFree(y));
    }
    sim_set_order(SIM_FORWARD, 1);
}

/* ---- memory ---- */

static void fresh_memory_is_nan(void **)
{
    float *y = device<float>(3);
    assert_true(isnan(host(y, 3)[2]));
    KERNEL_LAUNCH(fresh_kernel, 1, 1, 64, nullptr, y);
    auto v = host(y, 2);
    assert_true(isnan(v[0]) && isnan(v[1]));
    ok(cudaFree(y));
}

static void accesses_outside_are_reported(void **)
{
    float *y = device<float>(64);
    outcome o = in_child([=] { KERNEL_LAUNCH(overrun_kernel, 1, 1, 32, nullptr, y, 0u); });
    assert_true(o.status != 0);
    o = in_child([=] { KERNEL_LAUNCH(past_kernel, 1, 1, 0, nullptr, y, (size_t)64); });
    assert_true(o.status != 0); /* 256 bytes: the next page */
    assert_true(o.said.find("past_kernel") != std::string::npos);
    o = in_child([=] { fprintf(stderr, "%g", (double)*static_cast<volatile float *>(y)); });
    assert_true(o.status != 0);
    says(o, {"host code touches device memory"});
#ifndef __SANITIZE_ADDRESS__ /* which words it otherwise */
    says(in_child([=] { KERNEL_LAUNCH(overrun_kernel, 1, 1, 32, nullptr, y, 0u); }),
         {"overrun_kernel", "dynamic shared array"});
#endif
    ok(cudaFree(y));
    o = in_child([=] { KERNEL_LAUNCH(past_kernel, 1, 1, 0, nullptr, y, (size_t)0); });
    assert_true(o.status != 0); /* freed */
}

static void wrong_copies_are_refused(void **)
{
    float *y = device<float>(10), x[16] = {};
    assert_int_equal(cudaMemcpy(y, x, sizeof x, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_non_null(strstr(sim_message(), "allocation of 40"));
    assert_int_equal(cudaMemcpy(x, y + 8, 12, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(x, y, 40, cudaMemcpyHostToDevice), cudaErrorInvalidMemcpyDirection);
    assert_int_equal(cudaMemcpy(y, x, 40, cudaMemcpyDeviceToDevice), cudaErrorInvalidMemcpyDirection);
    assert_int_equal(cudaMemset(x, 0, 4), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    ok(cudaGetLastError());
    ok(cudaMemcpy(y, x, 40, cudaMemcpyDefault));
    ok(cudaFree(y));
    assert_int_equal(cudaFree(y), cudaErrorInvalidValue);
    sim_set_memory(1000);
    void *p;
    assert_int_equal(cudaMalloc(&p, 1001), cudaErrorMemoryAllocation);
    sim_set_memory((size_t)8 << 30);
    cudaGetLastError();
}

static void impossible_launches_are_refused(void **)
{
    float *y = device<float>(1);
    auto attempt = [=](dim3 grid, dim3 block, size_t bytes) {
        KERNEL_LAUNCH(past_kernel, grid, block, bytes, nullptr, y, (size_t)0);
        return cudaGetLastError();
    };
    ok(attempt(1, 1024, 48 << 10));
    assert_int_equal(attempt(1, 1025, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(attempt(0, 32, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(attempt(dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(attempt(1, 32, (48 << 10) + 1), cudaErrorInvalidValue);
    auto allow = [](int bytes) {
        return cudaFuncSetAttribute((const void *)past_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    };
    ok(allow(227 << 10));
    ok(attempt(1, 1, 227 << 10));
    assert_int_equal(allow((227 << 10) + 1), cudaErrorInvalidValue);
    cudaGetLastError();
    ok(cudaFree(y));
}

/* ---- streams, capture, products ---- */

static void replay_is_eager(void **)
{
    float x[32];
    for (int i = 0; i < 32; i++) x[i] = (float)i;
    float *y = device(32, x), *kept = device<float>(32);
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    size_t nodes;
    ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    float by = 3;
    KERNEL_LAUNCH(scale_kernel, 1, 32, 0, stream, y, by);
    by = 100; /* arguments were taken at the call */
    ok(cudaMemcpyAsync(kept, y, sizeof x, cudaMemcpyDeviceToDevice, stream));
    ok(cudaMemsetAsync(y, 0, sizeof(float), stream));
    ok(cudaStreamEndCapture(stream, &graph));
    ok(cudaGraphGetNodes(graph, nullptr, &nodes));
    assert_int_equal(nodes, 3);
    assert_true(host(y, 32)[5] == 5); /* nothing ran */
    ok(cudaGraphInstantiate(&exec, graph, 0));
    ok(cudaGraphDestroy(graph));
    for (int i = 0; i < 2; i++) ok(cudaGraphLaunch(exec, stream));
    ok(cudaStreamSynchronize(stream));
    assert_true(host(y, 32)[5] == 45 && host(kept, 32)[5] == 45 && host(y, 32)[0] == 0);
    ok(cudaGraphExecDestroy(exec));

    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    void *p;
    assert_int_equal(cudaMalloc(&p, 4), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    assert_int_equal(cudaMemcpy(x, y, 4, cudaMemcpyDeviceToHost), cudaErrorStreamCaptureImplicit);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);

    cudaStream_t side;
    cudaEvent_t fork, join;
    ok(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
    ok(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    ok(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    for (bool joined : {true, false}) {
        ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        ok(cudaEventRecord(fork, stream));
        ok(cudaStreamWaitEvent(side, fork, 0));
        KERNEL_LAUNCH(scale_kernel, 1, 32, 0, side, y, 2.0f);
        ok(cudaEventRecord(join, side));
        if (joined) ok(cudaStreamWaitEvent(stream, join, 0));
        assert_int_equal(cudaStreamEndCapture(stream, &graph), joined ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
        if (joined) ok(cudaGraphDestroy(graph));
    }
    cudaGetLastError();
    ok(cudaEventDestroy(fork));
    ok(cudaEventDestroy(join));
    ok(cudaStreamDestroy(side));
    ok(cudaStreamDestroy(stream));
    ok(cudaFree(y));
    ok(cudaFree(kept));
}

static void lazy_streams_show_a_missing_wait(void **)
{
    float x = 1, *y = device(1, &x), seen = 0;
    cudaStream_t first, second;
    cudaEvent_t event;
    ok(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    ok(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    ok(cudaEventCreate(&event));
    sim_set_lazy(true);
    for (bool waits : {false, true}) {
        KERNEL_LAUNCH(scale_kernel, 1, 1, 0, first, y, 10.0f);
        ok(cudaEventRecord(event, first));
        if (waits) ok(cudaStreamWaitEvent(second, event, 0));
        ok(cudaMemcpyAsync(&seen, y, sizeof seen, cudaMemcpyDeviceToHost, second));
        assert_true(seen == (waits ? 1.0f : 0.0f)); /* not yet */
        ok(cudaStreamSynchronize(second));
        assert_true(seen == (waits ? 100.0f : 1.0f));
        ok(cudaStreamSynchronize(first));
    }
    sim_set_lazy(false);
    ok(cudaEventDestroy(event));
    ok(cudaStreamDestroy(first));
    ok(cudaStreamDestroy(second));
    ok(cudaFree(y));
}

static void count_launch(void *context, const struct sim_launch *launch)
{
    if (!strcmp(launch->kernel, "scale_kernel") && launch->grid[0] == 1 && launch->block[0] == 4)
        ++*static_cast<int *>(context);
}

static void launches_are_counted_and_break(void **)
{
    float x[4] = {1, 2, 3, 4}, *y = device(4, x);
    int launches = 0;
    sim_on_launch(count_launch, &launches);
    for (int i = 0; i < 3; i++) KERNEL_LAUNCH((scale_kernel), 1, 4, 0, nullptr, y, 2.0f);
    sim_on_launch(nullptr, nullptr);
    assert_int_equal(launches, 3);
    sim_break_after(1);
    KERNEL_LAUNCH(scale_kernel, 1, 4, 0, nullptr, y, 2.0f);
    ok(cudaGetLastError());
    KERNEL_LAUNCH(scale_kernel, 1, 4, 0, nullptr, y, 2.0f);
    assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress);
    assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress);
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
    sim_repair();
    assert_true(host(y, 4)[3] == 64);
    ok(cudaFree(y));
}

static void products_are_right(void **)
{
    enum { M = 5, N = 7, K = 3 };
    float a[M * K], b[K * N], c[M * N], bias[M], one = 1, half = 0.5f;
    for (int i = 0; i < M * K; i++) a[i] = (float)(i % 7) - 3;
    for (int i = 0; i < K * N; i++) b[i] = (float)(i % 5) - 2;
    for (int i = 0; i < M * N; i++) c[i] = (float)i;
    for (int i = 0; i < M; i++) bias[i] = (float)(10 * i);
    float *da = device(M * K, a), *db = device(K * N, b), *dbias = device(M, bias);
    cublasLtHandle_t lt;
    ok((int)cublasLtCreate(&lt));
    for (int variant = 0; variant < 4; variant++) {
        float *dc = device(M * N, c);
        cublasOperation_t ta = variant & 1 ? CUBLAS_OP_T : CUBLAS_OP_N, tb = variant & 2 ? CUBLAS_OP_T : CUBLAS_OP_N;
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        cublasLtMatmulDesc_t op;
        cublasLtMatrixLayout_t la, lb, lc;
        ok((int)cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        ok((int)cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
        ok((int)cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
        ok((int)cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        ok((int)cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &dbias, sizeof dbias));
        ok((int)cublasLtMatrixLayoutCreate(&la, CUDA_R_32F, variant & 1 ? K : M, variant & 1 ? M : K,
                                           variant & 1 ? K : M));
        ok((int)cublasLtMatrixLayoutCreate(&lb, CUDA_R_32F, variant & 2 ? N : K, variant & 2 ? K : N,
                                           variant & 2 ? N : K));
        ok((int)cublasLtMatrixLayoutCreate(&lc, CUDA_R_32F, M, N, M));
        ok((int)cublasLtMatmul(lt, op, &one, da, la, db, lb, &half, dc, lc, dc, lc, nullptr, nullptr, 0, nullptr));
        auto got = host(dc, M * N);
        for (int j = 0; j < N; j++)
            for (int i = 0; i < M; i++) {
                float sum = 0;
                for (int k = 0; k < K; k++)
                    sum += (variant & 1 ? a[i * K + k] : a[k * M + i]) * (variant & 2 ? b[k * N + j] : b[j * K + k]);
                assert_true(got[(size_t)(j * M + i)] == sum + 0.5f * c[j * M + i] + bias[i]);
            }
        ok((int)cublasLtMatrixLayoutDestroy(la));
        ok((int)cublasLtMatrixLayoutCreate(&la, CUDA_R_32F, variant & 1 ? K : M, variant & 1 ? M : K, 40));
        assert_int_equal(
            (int)cublasLtMatmul(lt, op, &one, da, la, db, lb, &half, dc, lc, dc, lc, nullptr, nullptr, 0, nullptr),
            CUBLAS_STATUS_INVALID_VALUE); /* past the end of A */
        cublasLtMatmulDescDestroy(op);
        cublasLtMatrixLayoutDestroy(la);
        cublasLtMatrixLayoutDestroy(lb);
        cublasLtMatrixLayoutDestroy(lc);
        ok(cudaFree(dc));
    }
    cublasLtDestroy(lt);
    cudaGetLastError();
    ok(cudaFree(da));
    ok(cudaFree(db));
    ok(cudaFree(dbias));
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_barrier_shows),
        cmocka_unit_test(a_missing_trailing_barrier_shows),
        cmocka_unit_test(divergent_barriers_are_named),
        cmocka_unit_test(lost_lanes_are_named),
        cmocka_unit_test(shuffles_move_what_they_should),
        cmocka_unit_test(products_of_matrices_are_right),
        cmocka_unit_test(copies_come_when_they_were_waited_for),
        cmocka_unit_test(every_thread_runs_once),
        cmocka_unit_test(fresh_memory_is_nan),
        cmocka_unit_test(accesses_outside_are_reported),
        cmocka_unit_test(wrong_copies_are_refused),
        cmocka_unit_test(impossible_launches_are_refused),
        cmocka_unit_test(replay_is_eager),
        cmocka_unit_test(lazy_streams_show_a_missing_wait),
        cmocka_unit_test(launches_are_counted_and_break),
        cmocka_unit_test(products_are_right),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
