/* Tests the copies between arenas and files: parts of pieces against an element-by-element search, f32 and bf16 through
 * a file and back, whole or in pieces, elements from a callback, and failures of the device. */
#include "base/bf16.h"
#include "checkpoint/arena.h"
#include "device/backends.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static elbo_error error;
static struct backend *backend;
static uint32_t seed = 1;

static void must(elbo_status status)
{
    if (status) fail_msg("%s", error.message);
}

static size_t below(size_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static int setup(void **state)
{
    (void)state;
    return cpu_backend_create(&backend, 1, NULL, &error);
}

static int teardown(void **state)
{
    (void)state;
    backend->destroy(backend);
    return 0;
}

/* ---- parts of pieces ---- */

enum { ELEMENTS = 200, MOST_PIECES = 8, NOWHERE = -1 };

/* Draws disjoint pieces that follow one another in memory; at[e] is element e's place in memory, or NOWHERE. */
static size_t random_pieces(struct arena_piece *pieces, int at[ELEMENTS])
{
    size_t count = below(MOST_PIECES + 1), used = 0, memory = 0;
    for (size_t e = 0; e < ELEMENTS; e++) at[e] = NOWHERE;
    for (size_t i = 0; i < count; i++) {
        size_t gap = below(12), n = 1 + below(12);
        pieces[i] = (struct arena_piece){.first = used + gap, .count = n, .at = memory};
        for (size_t k = 0; k < n; k++) at[used + gap + k] = (int)(memory + k);
        used += gap + n;
        memory += n;
    }
    return count;
}

static void parts_are_those_of_a_search(void **state)
{
    (void)state;
    for (size_t trial = 0; trial < 20000; trial++) {
        struct arena_piece pieces[MOST_PIECES];
        int at[ELEMENTS], found[ELEMENTS];
        size_t count = random_pieces(pieces, at), first = below(ELEMENTS), n = below(ELEMENTS - first + 1), piece = 0;
        struct arena_part part;
        size_t end = 0; /* end of the last part */
        for (size_t e = 0; e < ELEMENTS; e++) found[e] = NOWHERE;
        while (arena_next(&part, &piece, pieces, count, first, n)) {
            assert_true(part.count > 0 && part.from >= end && part.from + part.count <= n);
            for (size_t k = 0; k < part.count; k++) found[first + part.from + k] = (int)(part.at + k);
            end = part.from + part.count;
        }
        assert_int_equal(piece, count);
        assert_false(arena_next(&part, &piece, pieces, count, first, n));
        for (size_t e = 0; e < ELEMENTS; e++)
            if (found[e] != (e >= first && e < first + n ? at[e] : NOWHERE))
                fail_msg("elements %zu .. %zu: element %zu at %d instead of %d", first, first + n, e, found[e], at[e]);
    }
}

/* ---- through a file ---- */

/* Longer than the piece that is read from a file at a time, and than the piece that is rounded at a time. */
enum { LARGE = SAFETENSORS_PIECE / 4 + 5000, BEFORE = 100 };

struct written {
    char *bytes;
    size_t size;
};

static elbo_status append(void *context, const void *bytes, size_t size, elbo_error *own)
{
    struct written *w = context;
    (void)own;
    w->bytes = realloc(w->bytes, w->size + size + 1);
    memcpy(w->bytes + w->size, bytes, size);
    w->size += size;
    return ELBO_OK;
}

static elbo_status written_by(struct written *w, const struct arena *a, const struct parameter *p)
{
    struct safetensors_tensor t = arena_tensor(a, p, "moment1.w");
    struct sink sink = {append, w};
    *w = (struct written){NULL, 0};
    assert_string_equal(t.name, "moment1.w");
    assert_int_equal(t.dtype, SAFETENSORS_F32);
    return safetensors_write(&sink, &t, 1, NULL, 0, &error);
}

static const struct parameter large = {
    .name = "w", .rank = 2, .shape = {LARGE / 4, 4}, .elements = LARGE, .offset = BEFORE};

static void *arena_memory(enum dtype type, size_t elements)
{
    void *memory;
    must(backend->memory.allocate(backend, &memory, elements * dtype_bytes(type), "a test", &error));
    return memory;
}

/* Fills memory with every pattern of a bf16, or with f32 whose lower halves vary. */
static void fill(void *memory, enum dtype type, size_t elements)
{
    for (size_t i = 0; i < elements; i++) {
        uint32_t bits = (uint32_t)i << 16 ^ (uint32_t)i * 2654435761u >> 20;
        uint16_t half = (uint16_t)i;
        if (type == DTYPE_F32)
            memcpy((char *)memory + i * 4, &bits, 4);
        else
            memcpy((char *)memory + i * 2, &half, 2);
    }
}

static void a_file_has_the_bits(void **state)
{
    (void)state;
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t k = 0; k < 2; k++) {
        enum dtype type = types[k];
        size_t each = dtype_bytes(type), all = BEFORE + LARGE + 10;
        char *from = arena_memory(type, all), *to = arena_memory(type, all), *untouched = arena_memory(type, all);
        struct arena a = arena_of(backend, from, type), b = arena_of(backend, to, type);
        struct written w;
        struct safetensors *file;
        fill(from, type, all);
        must(written_by(&w, &a, &large));
        must(safetensors_parse(&file, w.bytes, w.size, &error));
        const struct safetensors_tensor *t = safetensors_find(file, "moment1.w");
        assert_non_null(t);
        assert_int_equal(t->shape[0], LARGE / 4);
        for (size_t i = 0; i < LARGE; i++) { /* a bf16 is the upper half of the file's f32 */
            uint32_t bits, wanted = 0;
            memcpy(&bits, (const char *)t->data + 4 * i, 4);
            memcpy((char *)&wanted + 4 - each, from + (BEFORE + i) * each, each);
            if (bits != wanted) fail_msg("element %zu is %08x instead of %08x", i, bits, wanted);
        }
        must(arena_load(&b, BEFORE, file, t, &error));
        assert_memory_equal(to + BEFORE * each, from + BEFORE * each, LARGE * each);
        assert_memory_equal(to, untouched, BEFORE * each);
        assert_memory_equal(to + (BEFORE + LARGE) * each, untouched, 10 * each);
        safetensors_free(file);
        free(w.bytes);
        backend->memory.release(backend, from);
        backend->memory.release(backend, to);
        backend->memory.release(backend, untouched);
    }
}

/* A rank with a share holds pieces of the parameter; the rest of its memory is not written. */
static void pieces_take_their_parts(void **state)
{
    (void)state;
    const struct arena_piece pieces[] = {{0, 50, 0, 0},           /* before the parameter */
                                         {90, 30, 50, 0},         /* its first 20 elements       */
                                         {4000, 9000, 80, 0},     /* across a boundary of rounding */
                                         {260000, 5000, 9080, 0}, /* across a boundary of reading */
                                         {BEFORE + LARGE - 7, 40, 14080, 0}};
    enum { MEMORY = 14120 };
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    float *values = malloc(LARGE * sizeof *values);
    for (size_t i = 0; i < LARGE; i++) values[i] = 1 + (float)(i % 65521) / 65536; /* more digits than a bf16 holds */
    for (size_t k = 0; k < 2; k++) {
        size_t each = dtype_bytes(types[k]), held = 0;
        char *memory = arena_memory(types[k], MEMORY);
        struct arena whole = arena_of(backend, values, DTYPE_F32), a = arena_of(backend, memory, types[k]);
        struct parameter p = large;
        struct written w;
        struct safetensors *file;
        p.offset = 0;
        must(written_by(&w, &whole, &p));
        must(safetensors_parse(&file, w.bytes, w.size, &error));
        a.pieces = pieces;
        a.piece_count = sizeof pieces / sizeof *pieces;
        memset(memory, 0xff, MEMORY * each);
        must(arena_load(&a, BEFORE, file, safetensors_at(file, 0), &error));
        for (size_t i = 0; i < a.piece_count; i++)
            for (size_t e = 0; e < pieces[i].count; e++) {
                size_t element = pieces[i].first + e;
                bool inside = element >= BEFORE && element < BEFORE + LARGE;
                uint32_t bits = 0, wanted = types[k] == DTYPE_F32 ? 0xffffffffu : 0xffffu;
                memcpy(&bits, memory + (pieces[i].at + e) * each, each);
                if (inside && types[k] == DTYPE_F32) memcpy(&wanted, &values[element - BEFORE], 4);
                if (inside && types[k] == DTYPE_BF16) wanted = bf16_nearest(values[element - BEFORE]);
                if (bits != wanted) fail_msg("element %zu is %08x instead of %08x", element, bits, wanted);
                held += inside;
            }
        assert_int_equal(held, 20 + 9000 + 5000 + 7);
        safetensors_free(file);
        free(w.bytes);
        backend->memory.release(backend, memory);
    }
    free(values);
}

/* ---- elements from a callback, and failures ---- */

struct elsewhere {
    enum dtype type;
    size_t calls, next; /* element that comes next */
    size_t fails;       /* fails at this call; 0: never */
};

static elbo_status read_elsewhere(const struct arena *a, void *to, size_t at, size_t elements, elbo_error *own)
{
    struct elsewhere *e = a->context;
    if (++e->calls == e->fails) return elbo_fail(own, ELBO_PEER, "rank 3 is gone");
    assert_int_equal(at, e->next);
    e->next += elements;
    for (size_t i = 0; i < elements; i++) {
        float x = (float)((at + i) % 251);
        uint16_t half = bf16_nearest(x);
        if (e->type == DTYPE_F32)
            memcpy((char *)to + 4 * i, &x, 4);
        else
            memcpy((char *)to + 2 * i, &half, 2);
    }
    return ELBO_OK;
}

static void a_callback_gives_the_elements(void **state)
{
    (void)state;
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t k = 0; k < 2; k++) {
        struct elsewhere e = {.type = types[k], .next = BEFORE};
        struct arena a = arena_of(backend, NULL, types[k]);
        struct written w;
        struct safetensors *file;
        a.read = read_elsewhere;
        a.context = &e;
        must(written_by(&w, &a, &large));
        assert_int_equal(e.next, BEFORE + LARGE);
        assert_true(e.calls > 1);
        must(safetensors_parse(&file, w.bytes, w.size, &error));
        const struct safetensors_tensor *t = safetensors_at(file, 0);
        for (size_t i = 0; i < LARGE; i++) {
            float x;
            memcpy(&x, (const char *)t->data + 4 * i, 4);
            assert_float_equal(x, (float)((BEFORE + i) % 251), 0);
        }
        safetensors_free(file);
        free(w.bytes);
        e = (struct elsewhere){.type = types[k], .next = BEFORE, .fails = 2};
        assert_int_equal(written_by(&w, &a, &large), ELBO_PEER);
        assert_non_null(strstr(error.message, "rank 3 is gone"));
        free(w.bytes);
    }
}

static size_t checks, broken_at;

static elbo_status broken(struct backend *own, elbo_error *why)
{
    (void)own;
    return ++checks == broken_at ? elbo_fail(why, ELBO_DEVICE, "the device fell over") : ELBO_OK;
}

/* A copy that the device reports as failed fails the save or the load. */
static void a_device_may_fail(void **state)
{
    (void)state;
    struct backend fragile = *backend;
    float *memory = arena_memory(DTYPE_F32, BEFORE + LARGE);
    struct arena a = arena_of(&fragile, memory, DTYPE_F32);
    struct written w;
    struct safetensors *file;
    fragile.stream.check = broken;
    for (broken_at = 1; broken_at <= 2; broken_at++) {
        checks = 0;
        assert_int_equal(written_by(&w, &a, &large), ELBO_DEVICE);
        assert_non_null(strstr(error.message, "the device fell over"));
        free(w.bytes);
    }
    broken_at = 0;
    must(written_by(&w, &a, &large));
    must(safetensors_parse(&file, w.bytes, w.size, &error));
    for (broken_at = 1; broken_at <= 2; broken_at++) {
        checks = 0;
        assert_int_equal(arena_load(&a, BEFORE, file, safetensors_at(file, 0), &error), ELBO_DEVICE);
    }
    checks = broken_at = 0;
    must(arena_load(&a, BEFORE, file, safetensors_at(file, 0), &error));
    assert_true(checks >= 2);
    safetensors_free(file);
    free(w.bytes);
    backend->memory.release(backend, memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_are_those_of_a_search),
                                       cmocka_unit_test(a_file_has_the_bits), cmocka_unit_test(pieces_take_their_parts),
                                       cmocka_unit_test(a_callback_gives_the_elements),
                                       cmocka_unit_test(a_device_may_fail)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
