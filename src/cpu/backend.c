/* The CPU backend: memory, scratch, and the choice of a table of kernels by the processor's instruction sets. */
#include "cpu/cpu.h"
#include "cpu/instructions.h"
#include "ops/list.h"

#include <stdio.h>
#include <stdlib.h>
#if !defined(__wasi__)
#include <sys/mman.h>
#endif

double cpu_peak_bytes_generic(struct pool *pool); /* a copy through memory is the same in every table */

#define DECLARE(name)                                                                                                  \
    extern const struct kernel cpu_table_##name[OP_COUNT];                                                             \
    double cpu_peak_flops_##name(struct pool *pool)
DECLARE(generic);
#ifdef CPU_HAS_X86_VARIANTS
DECLARE(avx2);
DECLARE(avx512);
#endif
#ifdef CPU_HAS_AMX
DECLARE(amx);
#endif

enum { CACHE_LINE = 64, HUGE_PAGE = 1 << 21 };

static size_t rounded(size_t bytes)
{
    return (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

/* Returns zeroed memory aligned to a cache line, or NULL. The system clears a page when it is first touched, so pages
 * that a small input does not use cost nothing. Pages are huge where Linux offers them, because a product reads many
 * places at once. The word before the memory holds calloc's pointer. */
static void *zeroed(size_t bytes)
{
    char *given = bytes <= SIZE_MAX - 2 * CACHE_LINE ? calloc(1, bytes + 2 * CACHE_LINE) : NULL;
    if (!given) return NULL;
    char *aligned = given + 2 * CACHE_LINE - (uintptr_t)given % CACHE_LINE,
         *page = given + (HUGE_PAGE - (uintptr_t)given % HUGE_PAGE) % HUGE_PAGE;
    ((void **)(void *)aligned)[-1] = given;
#if defined(MADV_HUGEPAGE)
    if (bytes >= 2 * HUGE_PAGE) madvise(page, (size_t)(given + bytes - page) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#else
    (void)page;
#endif
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
    memcpy((char *)to + a.elements * sizeof(float), (const char *)from + a.elements * sizeof(float),
           bytes % sizeof(float));
}

static void accumulate(struct backend *b, float *to, const float *from, size_t elements)
{
    pool_run(b->pool, (elements + TILE - 1) / TILE, add_tile, &(struct arenas){to, from, elements});
}

static elbo_status reserve(struct backend *b, size_t per_worker, elbo_error *error)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
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

/* ---- instruction sets ---- */

static const struct variant {
    const char *name;
    bool (*supported)(void);
    const struct kernel *table;
    double (*peak_flops)(struct pool *pool);
} variants[] = {
/* best first */
#ifdef CPU_HAS_AMX
    {"amx", cpu_has_amx_bf16, cpu_table_amx, cpu_peak_flops_amx},
#endif
#ifdef CPU_HAS_X86_VARIANTS
    {"avx512", cpu_has_avx512, cpu_table_avx512, cpu_peak_flops_avx512},
    {"avx2", cpu_has_avx2, cpu_table_avx2, cpu_peak_flops_avx2},
#endif
    {"generic", cpu_has_always, cpu_table_generic, cpu_peak_flops_generic},
};

static size_t variant_of(const struct backend *b)
{
    size_t v = 0;
    while (variants[v].table != b->kernels) v++;
    return v;
}

static double peak_flops(struct backend *b, enum dtype type)
{
    (void)type; /* f32 is the only type */
    return variants[variant_of(b)].peak_flops(((const struct cpu_backend *)b)->pool);
}

static double peak_bytes(struct backend *b)
{
    return cpu_peak_bytes_generic(((const struct cpu_backend *)b)->pool);
}

static void destroy(struct backend *b)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    if (cpu->pool) pool_destroy(cpu->pool);
    packed_weights_free(&cpu->packed);
    release(b, cpu->workers);
    free(cpu);
}

/* A checkpoint holds the name of the instruction set, because the bits of results depend on it. */
struct choices {
    char magic[8], instructions[8];
};

static size_t save_choices(struct backend *b, void *to)
{
    struct choices all = {.magic = "elbocpu"};
    snprintf(all.instructions, sizeof all.instructions, "%s", variants[variant_of(b)].name);
    if (to) memcpy(to, &all, sizeof all);
    return sizeof all;
}

static bool restore_choices(struct backend *b, const void *from, size_t bytes)
{
    struct choices wanted;
    return bytes == save_choices(b, &wanted) && !memcmp(from, &wanted, bytes);
}

static const struct variant *choose(const char *wanted)
{
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++)
        if ((!wanted || !strcmp(wanted, variants[v].name)) && variants[v].supported()) return &variants[v];
    return NULL;
}

void cpu_backend_keep_packed(struct backend *b, size_t bytes)
{
    ((struct cpu_backend *)b)->packed.most = bytes;
}

elbo_status cpu_backend_create(struct backend **backend, size_t threads, const char *variant, elbo_error *error)
{
    const struct variant *chosen = choose(variant);
    static const char *const names[] = {"generic", "avx2", "avx512", "amx"};
    size_t known = 0;
    while (variant && known < 4 && strcmp(names[known], variant)) known++;
    if (known == 4)
        return elbo_fail(
            error, ELBO_USAGE,
            "--device=cpu:%.20s: the instructions are generic, avx2, avx512 or amx; cpu alone takes the best", variant);
    if (!chosen)
        return elbo_fail(
            error, ELBO_DEVICE,
            "--device=cpu:%.20s: this build or this processor has no such instructions; the best it has is %s", variant,
            choose(NULL)->name);
    struct cpu_backend *cpu = calloc(1, sizeof *cpu);
    if (!cpu) return elbo_fail(error, ELBO_MEMORY, "no memory for the CPU backend");
    cpu->base = (struct backend){.name = "cpu",
                                 .detail = cpu->detail,
                                 .kernels = chosen->table,
                                 .destroy = destroy,
                                 .memory = {.allocate = allocate,
                                            .release = release,
                                            .allocate_host = allocate_host,
                                            .release_host = release,
                                            .reserve = reserve,
                                            .upload = copy,
                                            .download = copy,
                                            .download_later = copy,
                                            .copy = copy_within,
                                            .accumulate = accumulate},
                                 .stream = {.mark = mark, .wait = wait},
                                 .device = {.save_choices = save_choices,
                                            .restore_choices = restore_choices,
                                            .peak_flops = peak_flops,
                                            .peak_bytes = peak_bytes}};
    elbo_status status = pool_create(&cpu->pool, threads, error);
    if (status) {
        free(cpu);
        return status;
    }
    cpu->quantized = quantized_choose(chosen->name);
    cpu->packed = (struct packed_weights){.kernel = cpu->quantized->kernel, .backend = &cpu->base};
    snprintf(cpu->detail, sizeof cpu->detail, "%s, %zu thread%s", chosen->name, pool_threads(cpu->pool),
             pool_threads(cpu->pool) == 1 ? "" : "s");
    cpu->base.pool = cpu->pool;
    *backend = &cpu->base;
    return ELBO_OK;
}
