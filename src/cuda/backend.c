/* The CUDA backend: the device, its memory, one stream, and the errors that launches leave. */
#include "cuda/cuda.h"
#include "base/pool.h"
#include "ops/list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The default workspace of cuBLAS: 32 MiB from Hopper on, 4 MiB before. */
enum { WORKSPACE_HOPPER = 32 << 20, WORKSPACE_BEFORE = 4 << 20 };

void cuda_keep(struct cuda_backend *b, int error, const char *what)
{
    if (!error || b->error) return;
    b->error = error;
    if (error >= 10000)
        snprintf(b->what, sizeof b->what, "%s failed with cuBLAS status %d", what, error - 10000);
    else
        snprintf(b->what, sizeof b->what, "%s failed: %s", what, cudaGetErrorString((cudaError_t)error));
}

static elbo_status allocate(struct backend *base, void **memory, size_t bytes, const char *what, elbo_error *error)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    *memory = NULL;
    size_t free_bytes = 0, total = 0;
    int e = cudaMalloc(memory, bytes ? bytes : 1);
    if (!e) {
        e = cudaMemsetAsync(*memory, 0, bytes ? bytes : 1, b->stream);
        if (!e) e = cudaStreamSynchronize(b->stream);
        return e ? elbo_fail(error, ELBO_DEVICE, "%s cannot clear %s: %s", b->detail, what,
                             cudaGetErrorString((cudaError_t)e))
                 : ELBO_OK;
    }
    cudaGetLastError(); /* clears the error: out of memory is not sticky */
    cudaMemGetInfo(&free_bytes, &total);
    return elbo_fail(
        error, e == cudaErrorMemoryAllocation ? ELBO_MEMORY : ELBO_DEVICE,
        "%s: no memory for %s: %.1f MiB wanted, %.1f of %.1f MiB free (%s); lower train.slot_tokens or the widths, or "
        "set train.recompute=block; `elbo plan` prints what goes where",
        b->detail, what, (double)bytes / 1048576.0, (double)free_bytes / 1048576.0, (double)total / 1048576.0,
        cudaGetErrorString((cudaError_t)e));
}

static void release(struct backend *base, void *memory)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cudaStreamSynchronize(b->stream);
    cudaFree(memory);
}

static void upload(struct backend *base, void *to, const void *from, size_t bytes)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    if (bytes)
        cuda_keep(b, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, b->stream), "a copy to the device");
}

static void download(struct backend *base, void *to, const void *from, size_t bytes)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    if (bytes) cuda_keep(b, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, b->stream), "a copy to the host");
    cuda_keep(b, cudaStreamSynchronize(b->stream), "the stream");
}

static void copy(struct backend *base, void *to, const void *from, size_t bytes)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    if (bytes)
        cuda_keep(b, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_stream(b)),
                  "a copy on the device");
}

static void accumulate(struct backend *base, float *to, const float *from, size_t elements)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cuda_keep(b,
              add_cuda(&(struct add_args){.y = to,
                                          .a = from,
                                          .b = NULL,
                                          .elements = elements,
                                          .add = true,
                                          .y_type = KERNEL_F32,
                                          .type = KERNEL_F32},
                       cuda_stream(b)),
              "add");
}

static elbo_status check(struct backend *base, elbo_error *error)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    cuda_keep(b, cudaGetLastError(), "a launch");
    return b->error ? elbo_fail(error, ELBO_DEVICE, "%s: %s", b->detail, b->what) : ELBO_OK;
}

static void destroy(struct backend *base)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    if (b->stream) cudaStreamSynchronize(b->stream);
    if (b->handle) b->lt.cublasLtDestroy(b->handle);
    cublaslt_close(&b->lt);
    cuda_transfer_close(b);
    cuda_side_close(b);
    if (b->workspace) cudaFree(b->workspace);
    if (b->stream) cudaStreamDestroy(b->stream);
    if (b->base.pool) pool_destroy(b->base.pool);
    free(b);
}

/* Rounds a number of rows up to one of at most sixteen sizes, so that few executions are captured and at most a
 * sixteenth of a full slot is padding. */
static size_t row_size(size_t count, size_t capacity)
{
    if (!count) return 0;
    size_t step = ((capacity + 15) / 16 + 15) / 16 * 16, size = (count + step - 1) / step * step;
    return size < capacity ? size : capacity;
}

static elbo_status open_device(struct cuda_backend *b, int device, elbo_error *error)
{
    enum { NO_DRIVER = 35 }; /* cudaErrorInsufficientDriver, which CUDA also returns if there is no driver */
    int count = 0, e = cudaGetDeviceCount(&count);
    if (e == NO_DRIVER)
        return elbo_fail(
            error, ELBO_DEVICE,
            "no GPU can be used: this machine has no NVIDIA driver, or one older than this CUDA; install one "
            "(nvidia-smi must answer), or use --device=cpu");
    if (e || count <= 0)
        return elbo_fail(error, ELBO_DEVICE,
                         "no GPU can be used: %s; check the driver with nvidia-smi, or use --device=cpu",
                         e ? cudaGetErrorString((cudaError_t)e) : "the driver reports none");
    if (device < 0) device = (-1 - device) % count;
    b->device = device;
    if (device >= count)
        return elbo_fail(error, ELBO_DEVICE, "there is no device cuda:%d, the driver reports %d; use cuda:0 to cuda:%d",
                         device, count, count - 1);
    struct cudaDeviceProp properties;
    e = cudaSetDevice(device);
    if (!e) e = cudaGetDeviceProperties(&properties, device);
    if (!e) e = cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking);
    if (e)
        return elbo_fail(error, ELBO_DEVICE, "cuda:%d cannot be used: %s", device, cudaGetErrorString((cudaError_t)e));
    b->multiprocessors = properties.multiProcessorCount;
    snprintf(b->device_name, sizeof b->device_name, "%.127s", properties.name);
    snprintf(b->detail, sizeof b->detail, "cuda:%d (%s)", device, properties.name);
    ELBO_TRY(cuda_transfer_open(b, error));
    ELBO_TRY(cuda_side_open(b, error));
    ELBO_TRY(cublaslt_open(&b->lt, error));
    cublasStatus_t s = b->lt.cublasLtCreate(&b->handle);
    if (s) return elbo_fail(error, ELBO_DEVICE, "%s: cublasLtCreate failed with status %d", b->detail, (int)s);
    b->workspace_bytes = b->base.memory.own_bytes = properties.major >= 9 ? WORKSPACE_HOPPER : WORKSPACE_BEFORE;
    return allocate(&b->base, &b->workspace, b->workspace_bytes, "the workspace of the products", error);
}

static const struct backend table_of_cuda = {
    .name = "cuda",
    .kernels = cuda_table,
    .destroy = destroy,
    .memory = {.allocate = allocate,
               .release = release,
               .allocate_host = cuda_allocate_host,
               .release_host = cuda_release_host,
               .upload = upload,
               .download = download,
               .download_later = cuda_download_later,
               .copy = copy,
               .accumulate = accumulate,
               .separate = true,
               .own_bytes = WORKSPACE_HOPPER},
    .stream = {.check = check,
               .reserve_staging = cuda_reserve_staging,
               .stage = cuda_stage,
               .send = cuda_send,
               .ahead = CUDA_AHEAD,
               .mark = cuda_mark,
               .wait = cuda_wait},
    .side = {.begin = cuda_side_begin,
             .end = cuda_side_end,
             .join = cuda_side_join,
             .mark = cuda_side_mark,
             .await = cuda_side_await,
             .seconds = cuda_side_seconds},
    .capture = {.rows = row_size,
                .replay = cuda_replay,
                .begin = cuda_capture_begin,
                .end = cuda_capture_end,
                .forget = cuda_forget},
    .device = {.bf16 = true,
               .save_choices = cuda_save_choices,
               .restore_choices = cuda_restore_choices,
               .peak_flops = cuda_peak_flops,
               .peak_bytes = cuda_peak_bytes},
};

static void destroy_plan(struct backend *base)
{
    pool_destroy(base->pool);
    free(base);
}

bool cuda_backend_built(void)
{
    return true;
}

elbo_status cuda_backend_plan(struct backend **backend, elbo_error *error)
{
    struct backend *b = malloc(sizeof *b);
    if (!b) return elbo_fail(error, ELBO_MEMORY, "no memory for the CUDA backend");
    *b = table_of_cuda;
    b->detail = "planned, no device";
    b->destroy = destroy_plan;
    elbo_status status = pool_create(&b->pool, 1, error);
    if (status) {
        free(b);
        return status;
    }
    *backend = b;
    return ELBO_OK;
}

elbo_status cuda_backend_create(struct backend **backend, int device, size_t threads, elbo_error *error)
{
    struct cuda_backend *b = calloc(1, sizeof *b);
    if (!b) return elbo_fail(error, ELBO_MEMORY, "no memory for the CUDA backend");
    b->base = table_of_cuda;
    b->base.detail = b->detail;
    elbo_status status = pool_create(&b->base.pool, threads, error);
    if (!status) status = open_device(b, device, error);
    if (status) {
        destroy(&b->base);
        return status;
    }
    *backend = &b->base;
    return ELBO_OK;
}
