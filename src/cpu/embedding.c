/* Embedding: y = table[ids] (+ add). The gradient walks the rows sorted by id. The tile in which an id's rows begin
 * sums all of them, in row order. */
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "ops/ops.h"

enum { ROWS = 32, SORTED = 64, ZEROS = 1 << 16 };

static void forward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *table = c->in[IN_EMBEDDING_TABLE], *add = c->in[IN_EMBEDDING_ADD], *marks = c->in[IN_EMBEDDING_MARKS];
    const int32_t *ids = c->in[IN_EMBEDDING_IDS];
    const enum block_type type = c->in_blocks[IN_EMBEDDING_TABLE];
    float *y = c->out[OUT_EMBEDDING_Y];
    size_t d = c->size.out[OUT_EMBEDDING_Y][1], end = least(c->size.out[OUT_EMBEDDING_Y][0], (tile + 1) * ROWS),
           rows = c->size.in[IN_EMBEDDING_TABLE][0];
    for (size_t n = tile * ROWS; n < end; n++) {
        size_t id = (size_t)ids[n];
        const float *from = marks && id >= rows ? marks + (id - rows) * d : table + id * d;
        if (type && id < rows) {
            block_dequantize(type, y + n * d,
                             (const unsigned char *)c->in[IN_EMBEDDING_TABLE] + block_bytes(type, id * d), d);
            from = y + n * d;
        } else if (!add) {
            memcpy(y + n * d, from, d * sizeof *y);
        }
        if (!add) continue;
        SIMD for (size_t i = 0; i < d; i++) y[n * d + i] = from[i] + add[n * d + i];
    }
}

void CPU(embedding)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.out[OUT_EMBEDDING_Y][0], ROWS), forward, c);
}

static void zero(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t total = c->size.out[OUT_EMBEDDING_BACKWARD_DTABLE][0] * c->size.out[OUT_EMBEDDING_BACKWARD_DTABLE][1],
           from = tile * ZEROS;
    memset((float *)c->out[OUT_EMBEDDING_BACKWARD_DTABLE] + from, 0,
           (least(total, from + ZEROS) - from) * sizeof(float));
}

static void backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *dy = c->in[IN_EMBEDDING_BACKWARD_DY];
    const int32_t *ids = c->in[IN_EMBEDDING_BACKWARD_IDS], *order = c->in[IN_EMBEDDING_BACKWARD_ORDER];
    float *table = c->out[OUT_EMBEDDING_BACKWARD_DTABLE];
    size_t rows = c->size.in[IN_EMBEDDING_BACKWARD_DY][0], d = c->size.in[IN_EMBEDDING_BACKWARD_DY][1];
    size_t k = tile * SORTED, end = least(rows, k + SORTED), first = (size_t)c->attr->i[ATTR_EMBEDDING_FIRST];
    /* The tile in which an id's rows begin sums them, so skip rows of an id that began earlier. */
    while (k && k < end && ids[order[k]] == ids[order[k - 1]]) k++;
    while (k < end) {
        int32_t id = ids[order[k]];
        size_t row = (size_t)id - first; /* wraps to a huge index if the id is below `first` */
        if (row >= c->size.out[OUT_EMBEDDING_BACKWARD_DTABLE][0]) { /* the id belongs to the other table */
            while (k < rows && ids[order[k]] == id) k++;
            continue;
        }
        float *to = table + row * d;
        for (; k < rows && ids[order[k]] == id; k++) {
            const float *from = dy + (size_t)order[k] * d;
            SIMD for (size_t i = 0; i < d; i++) to[i] += from[i];
        }
    }
}

void CPU(embedding_backward)(const struct call *c)
{
    if (!c->add[OUT_EMBEDDING_BACKWARD_DTABLE])
        cpu_run(c,
                tiles_of(c->size.out[OUT_EMBEDDING_BACKWARD_DTABLE][0] * c->size.out[OUT_EMBEDDING_BACKWARD_DTABLE][1],
                         ZEROS),
                zero, c);
    cpu_run(c, tiles_of(c->size.in[IN_EMBEDDING_BACKWARD_DY][0], SORTED), backward, c);
}
