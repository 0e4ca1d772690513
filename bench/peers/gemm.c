/* Times elbo's matrix product beside oneDNN's on the shapes of a training step: forward (A B^T), gradient of the input
 * (A B), gradient of the weights (A^T B). The sides alternate on the same number of threads; figures are medians with
 * quartiles. oneDNN uses a matmul primitive that is created beforehand. Before each timed call the same side runs the
 * product for some milliseconds, so that its threads are awake (waking takes up to a millisecond) and its data is in
 * its caches. A pause before that lets the other side's threads stop spinning.
 *
 *   gemm THREADS avx512|amx */
#define CPU_VARIANT avx512
#include "cpu/gemm.h"
#include "device/backends.h"

#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { REPEATS = 31, PAUSE_US = 600 };
static const double awake = 3e-3; /* seconds */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static void sort(double *x)
{
    qsort(x, REPEATS, sizeof *x, by_value);
}

static dnnl_memory_desc_t matrix(size_t rows, size_t columns, bool transposed)
{
    dnnl_memory_desc_t d;
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_memory_desc_init_by_tag(&d, 2, dims, dnnl_f32, transposed ? dnnl_ba : dnnl_ab);
    return d;
}

struct peer {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[3];
};

static void make(struct peer *p, dnnl_engine_t engine, size_t m, size_t n, size_t k, bool ta, bool tb, float *a,
                 float *b, float *c)
{
    dnnl_memory_desc_t da = matrix(m, k, ta), db = matrix(k, n, tb), dc = matrix(m, n, false);
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_memory_t ma, mb, mc;
    dnnl_matmul_desc_init(&desc, &da, &db, NULL, &dc);
    dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL);
    dnnl_primitive_create(&p->primitive, pd);
    dnnl_memory_create(&ma, &da, engine, a);
    dnnl_memory_create(&mb, &db, engine, b);
    dnnl_memory_create(&mc, &dc, engine, c);
    p->args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, ma};
    p->args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, mb};
    p->args[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, mc};
}

void cpu_gemm_amx(const struct call *call, const struct product *p);
size_t cpu_gemm_scratch_amx(void);

int main(int argc, char **argv)
{
    size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    const char *variant = argc > 2 ? argv[2] : "avx512";
    bool amx = !strcmp(variant, "amx");
    elbo_error error = {0};
    struct backend *backend;
    if (cpu_backend_create(&backend, threads, variant, &error) ||
        backend->memory.reserve(backend, amx ? cpu_gemm_scratch_amx() : cpu_gemm_scratch_avx512(), &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_engine_create(&engine, dnnl_cpu, 0);
    dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    struct call call = {.backend = backend};
    static const size_t shapes[][4] = {
        {700, 384, 128, 0},  {700, 512, 128, 0},  {700, 128, 512, 0},  {700, 128, 512, 1},  {512, 128, 700, 2},
        {8000, 128, 524, 2}, {700, 768, 256, 0},  {700, 1024, 256, 0}, {700, 256, 1024, 0}, {524, 8000, 256, 0},
        {524, 8000, 128, 0}, {700, 256, 1024, 1}, {700, 1024, 256, 1}, {524, 256, 8000, 1}, {1024, 256, 700, 2},
        {256, 1024, 700, 2}, {8000, 256, 524, 2}, {700, 1536, 512, 0}, {700, 2048, 512, 0}, {700, 512, 2048, 0},
        {524, 8000, 512, 0}, {700, 512, 2048, 1}, {524, 512, 8000, 1}, {2048, 512, 700, 2}, {512, 512, 700, 2},
        {8000, 512, 524, 2}};
    static const char *const kinds[] = {"x W^T", "dy W", "dy^T x"};
    printf("{\"instructions\": \"%s\", \"threads\": %zu, \"unit\": \"GFLOP/s, median of %d, and quartiles\", "
           "\"products\": [\n",
           variant, threads, REPEATS);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        bool ta = shapes[s][3] == 2, tb = shapes[s][3] == 0;
        float *a = aligned_alloc(64, m * k * 4 + 64), *b = aligned_alloc(64, k * n * 4 + 64),
              *c = aligned_alloc(64, m * n * 4 + 64);
        for (size_t i = 0; i < m * k; i++) a[i] = (float)(i * 2654435761u % 1000) / 500 - 1;
        for (size_t i = 0; i < k * n; i++) b[i] = (float)(i * 2246822519u % 1000) / 500 - 1;
        struct product p = {.m = m, .n = n, .k = k, .c = c, .ldc = n};
        p.a = ta ? (struct matrix){a, 1, m} : (struct matrix){a, k, 1};
        p.b = tb ? (struct matrix){b, 1, k} : (struct matrix){b, n, 1};
        struct peer peer;
        make(&peer, engine, m, n, k, ta, tb, a, b, c);
        double ours[REPEATS], theirs[REPEATS];
        for (int i = -3; i < REPEATS; i++) {
            double t = 0;
            usleep(PAUSE_US);
            for (double began = now(); t < began + awake;) {
                t = now();
                (amx ? cpu_gemm_amx : cpu_gemm_avx512)(&call, &p);
            }
            if (i >= 0) ours[i] = now() - t;
            usleep(PAUSE_US);
            t = 0;
            for (double began = now(); t < began + awake;) {
                t = now();
                dnnl_primitive_execute(peer.primitive, stream, 3, peer.args);
                dnnl_stream_wait(stream);
            }
            if (i >= 0) theirs[i] = now() - t;
        }
        sort(ours);
        sort(theirs);
        double gflop = 2.0 * (double)m * (double)n * (double)k / 1e9, x = gflop / ours[REPEATS / 2],
               y = gflop / theirs[REPEATS / 2];
        printf("  {\"m\": %zu, \"n\": %zu, \"k\": %zu, \"product\": \"%s\", \"ours\": %.1f, \"onednn\": %.1f, "
               "\"ratio\": %.3f, "
               "\"ours quartiles\": [%.1f, %.1f], \"onednn quartiles\": [%.1f, %.1f]}%s\n",
               m, n, k, kinds[shapes[s][3]], x, y, x / y, gflop / ours[3 * REPEATS / 4], gflop / ours[REPEATS / 4],
               gflop / theirs[3 * REPEATS / 4], gflop / theirs[REPEATS / 4],
               s + 1 < sizeof shapes / sizeof *shapes ? "," : "");
        fflush(stdout);
        free(a);
        free(b);
        free(c);
    }
    printf("]}\n");
    return 0;
}
