/* A matrix product C = A B, divided into parts of C. A thread computes a part alone, with its own scratch. Threads do
 * not share packed panels, because moving a panel between cores costs more than packing some operands twice. */
#include "cpu/gemm_part.h"

enum { ALONE = 1 << 18 }; /* multiply-adds up to which one thread computes the whole product */

size_t CPU(gemm_scratch)(void)
{
    size_t bytes = CPU(gemm_part_scratch)();
    return bytes > QUANTIZED_SCRATCH ? bytes : QUANTIZED_SCRATCH;
}

/* ---- quantized weights ---- */

/* As gemm_cost; the unit is the cost of packing one column of a block of 32 k. */
static size_t quantized_cost(size_t *rows, size_t *columns)
{
    /* Columns that cost as much as rounding a row; elements of C that cost as much as a column. */
    enum { ROUNDED = 16, SUMMED = 64 };
    *columns = tiles_of(*columns, QUANTIZED_COLUMNS) * QUANTIZED_COLUMNS;
    return *rows * *columns / SUMMED + *columns + ROUNDED * *rows;
}

static void quantized_part(const struct call *call, const struct product *p, const unsigned char *weights,
                           float *scratch)
{
    struct quantized_product q = {.m = p->m,
                                  .n = p->n,
                                  .k = p->k,
                                  .a = p->a.data,
                                  .row = p->a.row,
                                  .w = weights,
                                  .panels = p->panels,
                                  .type = p->blocks,
                                  .c = p->c,
                                  .ldc = p->ldc,
                                  .bias = p->bias};
    cpu_of(call)->quantized->kernel->product(&q, scratch);
    for (size_t i = 0; i < p->m && p->gelu; i++) activate(p, i, 0, p->n);
}

/* ---- parts ---- */

struct parts {
    const struct call *call;
    const struct product *p;
    size_t rows, columns, across; /* rows and columns of a part; parts side by side */
    size_t count;
};

static void part(void *argument, size_t tile, size_t worker)
{
    const struct parts *all = argument;
    struct product p = *all->p;
    float *scratch = cpu_scratch(all->call, worker);
    size_t i = tile / all->across * all->rows, j = tile % all->across * all->columns;
    p.m = least(all->rows, p.m - i);
    p.n = least(all->columns, p.n - j);
    p.a.data += i * p.a.row;
    p.c += i * p.ldc + j;
    if (p.bias) p.bias += j;
    if (p.gelu) p.gelu += i * p.ldc + j;
    if (p.slope) p.slope += i * p.ldc + j;
    if (p.blocks) {
        const struct quantized_kernel *kernel = cpu_of(all->call)->quantized->kernel;
        if (p.panels) p.panels += j / kernel->columns * kernel->panel_bytes(p.blocks, p.k);
        quantized_part(all->call, &p, (const unsigned char *)p.b.data + block_bytes(p.blocks, j * p.k), scratch);
        return;
    }
    p.b.data += j * p.b.col;
    CPU(gemm_part)(&p, scratch);
}

/* Divides C into at most `wanted` parts of whole panels, in the grid of least cost per part (*cost). */
static struct parts divide(const struct product *p, size_t wanted, size_t *cost)
{
    struct parts best = {.p = p};
    *cost = (size_t)-1;
    for (size_t high = 1; high <= wanted; high++) {
        size_t rows = tiles_of(p->m, high), columns = tiles_of(p->n, wanted / high),
               each = p->blocks ? quantized_cost(&rows, &columns) : CPU(gemm_cost)(p, &rows, &columns);
        if (each >= *cost) continue;
        *cost = each;
        best.rows = rows;
        best.columns = columns;
        best.across = tiles_of(p->n, columns);
        best.count = tiles_of(p->m, rows) * best.across;
    }
    return best;
}

/* With more than FEW_THREADS threads, gives each thread as many parts (up to SHARES) as cost at most a thirtieth more
 * than one part per thread. */
static struct parts choose_parts(const struct call *call, const struct product *p)
{
    size_t threads = pool_threads(cpu_of(call)->pool), first, cost;
    struct parts chosen = divide(p, threads, &first);
    for (size_t shares = SHARES; shares > 1 && threads > FEW_THREADS; shares--) {
        struct parts more = divide(p, shares * threads, &cost);
        if (tiles_of(more.count, threads) * cost > first + first / 30) continue;
        chosen = more;
        break;
    }
    chosen.call = call;
    return chosen;
}

void CPU(gemm)(const struct call *call, const struct product *p)
{
    if (!p->m || !p->n || (!p->blocks && CPU(gemm_few)(call, p))) return;
    size_t rows = p->m, columns = p->n;
    if (!p->blocks) CPU(gemm_cost)(p, &rows, &columns);
    struct product q = *p;
    if (p->blocks && p->m > QUANTIZED_FEW)
        q.panels = packed_weight(&cpu_of(call)->packed, p->b.data, p->blocks, p->n, p->k);
    if (rows * columns * p->k <= ALONE) {
        part(&(struct parts){.call = call, .p = &q, .rows = p->m, .columns = p->n, .across = 1}, 0, 0);
    } else {
        struct parts all = choose_parts(call, &q);
        cpu_run(call, all.count, part, &all);
    }
}
