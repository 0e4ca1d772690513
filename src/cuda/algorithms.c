/* The table of cuBLASLt algorithms: chosen once per shape, layout and alignment, saved in checkpoints and restored by a
 * resumed run, so that a different choice of the library on another day changes no bits. docs/formats.md has the
 * layout. */
#include "cuda/cuda.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = "elboalgo";
enum { VERSION = 1, DEVICE_NAME = 128 };
enum {
    TRANSPOSED_A = 1,
    TRANSPOSED_B = 2,
    ADD = 4,
    BIAS = 8,
    GELU = 16,
    UNFUSED = 32,
    TF32 = 64,
    BF16 = 128,
    BF16_OUT = 256,
    SLOPE = 512,
    FLAGS = 1023
};

struct header {
    char magic[8];
    uint32_t version, count;
    uint64_t library; /* cublasLtGetVersion */
    char device[DEVICE_NAME];
};

struct entry {
    uint64_t m, n, k, lda, ldb, ldc;
    uint32_t flags, align[3];
    uint64_t algo[8];
};

_Static_assert(sizeof(struct header) == 152 && sizeof(struct entry) == 128, "a file's layout has no gaps");
_Static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(uint64_t[8]),
               "an algorithm is 64 bytes, which may be stored and restored");

static bool same(const struct algorithm *a, const struct algorithm *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc &&
           a->ta == b->ta && a->tb == b->tb && a->add == b->add && a->bias == b->bias && a->gelu == b->gelu &&
           a->slope == b->slope && a->tf32 == b->tf32 && a->type == b->type && a->out == b->out &&
           !memcmp(a->align, b->align, sizeof a->align);
}

struct algorithm *cuda_algorithm(struct cuda_backend *b, const struct algorithm *key)
{
    size_t hash = key->m * 31 + key->n * 37 + key->k * 41 + key->ta * 3 + key->tb * 5 + key->add * 7 + key->bias * 11;
    struct algorithm *slot = &b->algorithms[hash % CUDA_ALGORITHMS];
    for (size_t i = 0; i < CUDA_ALGORITHMS; i++) {
        struct algorithm *at = &b->algorithms[(hash + i) % CUDA_ALGORITHMS];
        if (!at->known || same(at, key)) return at;
    }
    slot->known = false; /* the table is full: replace the entry at the hash */
    return slot;
}

static void fill_header(struct header *h, const struct cuda_backend *b, size_t count)
{
    memset(h, 0, sizeof *h);
    memcpy(h->magic, magic, sizeof magic);
    h->version = VERSION;
    h->count = (uint32_t)count;
    h->library = b->lt.cublasLtGetVersion();
    snprintf(h->device, sizeof h->device, "%s", b->device_name);
}

size_t cuda_save_choices(struct backend *base, void *to)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    size_t count = 0;
    for (size_t i = 0; i < CUDA_ALGORITHMS; i++) {
        const struct algorithm *a = &b->algorithms[i];
        if (!a->known) continue;
        struct entry e = {.m = a->m, .n = a->n, .k = a->k, .lda = a->lda, .ldb = a->ldb, .ldc = a->ldc};
        e.flags = (a->ta ? TRANSPOSED_A : 0u) | (a->tb ? TRANSPOSED_B : 0u) | (a->add ? ADD : 0u) |
                  (a->bias ? BIAS : 0u) | (a->gelu ? GELU : 0u) | (a->unfused ? UNFUSED : 0u) | (a->tf32 ? TF32 : 0u) |
                  (a->type == KERNEL_BF16 ? BF16 : 0u) | (a->out == KERNEL_BF16 ? BF16_OUT : 0u) |
                  (a->slope ? SLOPE : 0u);
        memcpy(e.align, a->align, sizeof e.align);
        memcpy(e.algo, &a->algo, sizeof e.algo);
        if (to) memcpy((char *)to + sizeof(struct header) + count * sizeof e, &e, sizeof e);
        count++;
    }
    if (to) fill_header(to, b, count);
    return count ? sizeof(struct header) + count * sizeof(struct entry) : 0;
}

bool cuda_restore_choices(struct backend *base, const void *from, size_t bytes)
{
    struct cuda_backend *b = (struct cuda_backend *)base;
    struct header h, wanted;
    if (bytes < sizeof h) return false;
    memcpy(&h, from, sizeof h);
    if (h.count > CUDA_ALGORITHMS || bytes != sizeof h + h.count * sizeof(struct entry)) return false;
    fill_header(&wanted, b, h.count);
    if (memcmp(&h, &wanted, sizeof h)) return false;
    for (size_t i = 0; i < h.count; i++) {
        struct entry e;
        memcpy(&e, (const char *)from + sizeof h + i * sizeof e, sizeof e);
        if (e.flags & ~(uint32_t)FLAGS) return false;
        struct algorithm key = {.m = e.m,
                                .n = e.n,
                                .k = e.k,
                                .lda = e.lda,
                                .ldb = e.ldb,
                                .ldc = e.ldc,
                                .ta = e.flags & TRANSPOSED_A,
                                .tb = e.flags & TRANSPOSED_B,
                                .add = e.flags & ADD,
                                .bias = e.flags & BIAS,
                                .gelu = e.flags & GELU,
                                .slope = e.flags & SLOPE,
                                .unfused = e.flags & UNFUSED,
                                .tf32 = e.flags & TF32,
                                .type = e.flags & BF16 ? KERNEL_BF16 : KERNEL_F32,
                                .out = e.flags & BF16_OUT ? KERNEL_BF16 : KERNEL_F32};
        memcpy(key.align, e.align, sizeof key.align);
        memcpy(&key.algo, e.algo, sizeof e.algo);
        key.known = key.unchecked = true;
        *cuda_algorithm(b, &key) = key;
    }
    return true;
}
