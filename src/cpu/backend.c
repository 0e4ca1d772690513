/* The CPU backend: memory, scratch, and the choice of the table of kernels by what the processor can do. */
#include "cpu/cpu.h"
#include "graph/backends.h"
#include "ops/list.h"

#include <stdio.h>
#include <stdlib.h>

extern const struct kernel cpu_table_generic[OP_COUNT];
extern const struct kernel cpu_table_avx2[OP_COUNT];
extern const struct kernel cpu_table_avx512[OP_COUNT];

double cpu_peak_flops_generic(struct pool *pool);
double cpu_peak_flops_avx2(struct pool *pool);
double cpu_peak_flops_avx512(struct pool *pool);
double cpu_peak_bytes_generic(struct pool *pool); /* a copy is the same in every table */

enum { CACHE_LINE = 64 };

static size_t rounded(size_t bytes)
{
    return (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

/* Zeroed memory on a cache line. The system clears pages as they are touched, so what a small input does not need of a large
 * arena costs nothing. The word in front holds what calloc gave. */
static void *zeroed(size_t bytes)
{
    char *given = bytes <= SIZE_MAX - 2 * CACHE_LINE ? calloc(1, bytes + 2 * CACHE_LINE) : NULL;
    if (!given) return NULL;
    char *aligned = given + 2 * CACHE_LINE - (uintptr_t)given % CACHE_LINE;
    ((void **)(void *)aligned)[-1] = given;
    return aligned;
}

static void release(struct backend *b, void *memory)
{
    (void)b;
    if (memory) free(((void **)memory)[-1]);
}

static elbo_status allocate(struct backend *b, void **memory, size_t bytes, const char *what, elbo_error *error)
{
    (void)b;
    *memory = bytes <= SIZE_MAX - CACHE_LINE ? zeroed(rounded(bytes)) : NULL;
    if (!*memory)
        return elbo_fail(error, ELBO_MEMORY, "no memory for %s: %.1f MiB wanted; lower train.slot_tokens or the widths",
                         what, (double)bytes / 1048576.0);
    return ELBO_OK;
}

static void copy(struct backend *b, void *to, const void *from, size_t bytes)
{
    (void)b;
    memcpy(to, from, bytes);
}

/* ---- arenas, a tile at a time ---- */

enum { TILE = 1 << 16 };

struct arenas {
    float *to;
    const float *from;
    size_t elements;
};

static size_t tile_of(const struct arenas *a, size_t tile)
{
    return a->elements - tile * TILE < TILE ? a->elements - tile * TILE : TILE;
}

static void copy_tile(void *argument, size_t tile, size_t worker)
{
    const struct arenas *a = argument;
    (void)worker;
    memcpy(a->to + tile * TILE, a->from + tile * TILE, tile_of(a, tile) * sizeof *a->to);
}

static void add_tile(void *argument, size_t tile, size_t worker)
{
    const struct arenas *a = argument;
    float *restrict to = a->to + tile * TILE;
    const float *restrict from = a->from + tile * TILE;
    (void)worker;
    for (size_t i = 0, n = tile_of(a, tile); i < n; i++) to[i] += from[i];
}

static void copy_within(struct backend *b, void *to, const void *from, size_t bytes)
{
    struct arenas a = {to, from, bytes / sizeof(float)};
    pool_run(b->pool, (a.elements + TILE - 1) / TILE, copy_tile, &a);
    memcpy((char *)to + a.elements * sizeof(float), (const char *)from + a.elements * sizeof(float), bytes % sizeof(float));
}

static void accumulate(struct backend *b, float *to, const float *from, size_t elements)
{
    pool_run(b->pool, (elements + TILE - 1) / TILE, add_tile, &(struct arenas){to, from, elements});
}

static elbo_status reserve(struct backend *b, size_t shared, size_t per_worker, elbo_error *error)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    if (shared > cpu->shared_bytes) {
        release(b, cpu->shared);
        cpu->shared = NULL;
        cpu->shared_bytes = 0;
        ELBO_TRY(allocate(b, (void **)&cpu->shared, shared, "scratch shared by the threads", error));
        cpu->shared_bytes = rounded(shared);
    }
    if (per_worker > cpu->worker_bytes) {
        release(b, cpu->workers);
        cpu->workers = NULL;
        cpu->worker_bytes = 0;
        size_t each = rounded(per_worker);
        ELBO_TRY(allocate(b, (void **)&cpu->workers, each * pool_threads(cpu->pool), "scratch of the threads", error));
        cpu->worker_bytes = each;
    }
    return ELBO_OK;
}

static elbo_status allocate_host(struct backend *b, void **memory, size_t bytes, elbo_error *error)
{
    return allocate(b, memory, bytes, "what is read back of a step", error);
}

static void mark(struct backend *b, unsigned which)
{
    (void)b;
    (void)which;
}

static elbo_status wait(struct backend *b, unsigned which, elbo_error *error)
{
    (void)b;
    (void)which;
    (void)error;
    return ELBO_OK;
}

static double peak_flops(struct backend *b, enum dtype type)
{
    (void)type; /* f32 alone */
    const struct cpu_backend *cpu = (const struct cpu_backend *)b;
#ifdef CPU_HAS_X86_VARIANTS
    if (b->kernels == cpu_table_avx512) return cpu_peak_flops_avx512(cpu->pool);
    if (b->kernels == cpu_table_avx2) return cpu_peak_flops_avx2(cpu->pool);
#endif
    return cpu_peak_flops_generic(cpu->pool);
}

static double peak_bytes(struct backend *b)
{
    return cpu_peak_bytes_generic(((const struct cpu_backend *)b)->pool);
}

static void destroy(struct backend *b)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    if (cpu->pool) pool_destroy(cpu->pool);
    release(b, cpu->shared);
    release(b, cpu->workers);
    free(cpu);
}

static bool has(const char *wanted, const char *name)
{
    if (wanted) return !strcmp(wanted, name);
#ifdef CPU_HAS_X86_VARIANTS
    __builtin_cpu_init();
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma");
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#endif
    return !strcmp(name, "generic");
}

elbo_status cpu_backend_create(struct backend **backend, size_t threads, const char *variant, elbo_error *error)
{
    const char *name = "generic";
    const struct kernel *table = cpu_table_generic;
#ifdef CPU_HAS_X86_VARIANTS
    if (has(variant, "avx512"))
        name = "avx512", table = cpu_table_avx512;
    else if (has(variant, "avx2"))
        name = "avx2", table = cpu_table_avx2;
#endif
    if (variant && strcmp(variant, name))
        return elbo_fail(error, ELBO_DEVICE, "this build has no CPU kernels for %s", variant);
    struct cpu_backend *cpu = calloc(1, sizeof *cpu);
    if (!cpu) return elbo_fail(error, ELBO_MEMORY, "no memory for the CPU backend");
    cpu->base = (struct backend){.name = "cpu", .detail = cpu->detail, .kernels = table, .allocate = allocate,
                                 .release = release, .upload = copy, .download = copy, .download_later = copy, .copy = copy_within,
                                 .accumulate = accumulate, .reserve = reserve,
                                 .allocate_host = allocate_host, .release_host = release, .mark = mark, .wait = wait,
                                 .peak_flops = peak_flops, .peak_bytes = peak_bytes, .destroy = destroy};
    elbo_status status = pool_create(&cpu->pool, threads, error);
    if (status) {
        free(cpu);
        return status;
    }
    snprintf(cpu->detail, sizeof cpu->detail, "%s, %zu thread%s", name, pool_threads(cpu->pool),
             pool_threads(cpu->pool) == 1 ? "" : "s");
    cpu->base.pool = cpu->pool;
    *backend = &cpu->base;
    return ELBO_OK;
}
