/* The CUDA backend, shared by its files: one main stream, cuBLASLt for products, the launchers of kernels/ for the
 * rest.
 *
 * Errors are sticky: the backend keeps the first error of a launch or product and reports it when the execution ends.
 */
#ifndef CUDA_CUDA_H
#define CUDA_CUDA_H

#include "cuda/backend.h"
#include "kernels/kernels.h"
#include "cuda/libraries.h"

#include <cuda_runtime.h>

enum { CUDA_ALGORITHMS = 512, CUDA_STAGES = 16, CUDA_MARKS = 2, CUDA_SIDE_MARKS = 64, CUDA_AHEAD = CUDA_MARKS - 1 };

/* The algorithm of one product, chosen once and kept. */
struct algorithm {
    size_t m, n, k, lda, ldb, ldc;
    bool ta, tb, add, bias, gelu, slope, tf32;
    bool known, unfused, unchecked; /* unchecked: read from a file, and not yet checked with the library */
    enum kernel_type type, out;
    uint32_t align[3]; /* of A, B, C in bytes, as passed to the library */
    cublasLtMatmulAlgo_t algo;
};

struct cuda_backend {
    struct backend base;
    int device;
    cudaStream_t stream, side; /* side: exchanges between ranks, beside the backward pass */
    bool aside;                /* launches go to the side stream */
    bool capturing;            /* the stream is capturing: nothing runs, nothing can be timed */
    bool joined;               /* the main stream has waited for the side at least once */
    struct cublaslt lt;
    cublasLtHandle_t handle;
    void *workspace; /* workspace of cuBLASLt */
    size_t workspace_bytes;
    char *stages; /* (CUDA_STAGES, stage_bytes) pinned              */
    size_t stage_bytes;
    unsigned stage;
    cudaEvent_t stage_sent[CUDA_STAGES], marks[CUDA_MARKS], fork, join, held[2], side_marks[CUDA_SIDE_MARKS];
    int error; /* first cudaError_t or cublas status that failed */
    char what[160];
    struct collectives *ranks; /* of nccl.c, or null */
    char detail[288], device_name[128];
    int multiprocessors;
    struct algorithm algorithms[CUDA_ALGORITHMS];
};

static inline struct cuda_backend *cuda_of(const struct call *c)
{
    return (struct cuda_backend *)c->backend;
}

static inline cudaStream_t cuda_stream(const struct cuda_backend *b)
{
    return b->aside ? b->side : b->stream;
}

/* Keeps the first error and where it happened. */
void cuda_keep(struct cuda_backend *b, int error, const char *what);

/* C (M, N) row-major = A (M, K) B (K, N) (+ C) (+ bias (N) on every row); element (i, j) of A = data[i * row + j *
 * col], one of the strides 1. */
struct cuda_matrix {
    const void *data;
    size_t row, col;
};

struct cuda_product {
    size_t m, n, k;
    struct cuda_matrix a, b;
    void *c;
    size_t ldc;
    bool add;
    const void *bias;           /* of C's type                 */
    void *before_gelu;          /* not null: receives the sums, C their GELU (tanh form); or, with `slope`, */
    bool slope;                 /* is read, and C receives the sums times GELU's slope there; not with add */
    enum kernel_type type, out; /* type of A and B; type of C. Sums are f32 */
};

void cuda_product(struct cuda_backend *b, const struct cuda_product *p);

/* ---- algorithms.c: the key's slot in the table, not `known` without a choice; entries of struct backend ---- */
struct algorithm *cuda_algorithm(struct cuda_backend *b, const struct algorithm *key);
size_t cuda_save_choices(struct backend *base, void *to);
bool cuda_restore_choices(struct backend *base, const void *from, size_t bytes);

/* ---- nccl.c: a wait for an event that another rank may prevent ---- */
elbo_status cuda_ranks_wait(struct cuda_backend *b, cudaEvent_t event, elbo_error *error);

/* ---- side.c: entries of struct backend ---- */
elbo_status cuda_side_open(struct cuda_backend *b, elbo_error *error);
void cuda_side_close(struct cuda_backend *b);
void cuda_side_begin(struct backend *base);
void cuda_side_end(struct backend *base);
void cuda_side_join(struct backend *base);
void cuda_side_mark(struct backend *base, size_t which, size_t count);
void cuda_side_await(struct backend *base, size_t which, size_t count);
double cuda_side_seconds(struct backend *base);

/* ---- peak.c: entries of struct backend ---- */
double cuda_peak_flops(struct backend *base, enum dtype type);
double cuda_peak_bytes(struct backend *base);

/* ---- transfer.c, replay.c: entries of struct backend ---- */
elbo_status cuda_transfer_open(struct cuda_backend *b, elbo_error *error);
void cuda_transfer_close(struct cuda_backend *b);
elbo_status cuda_allocate_host(struct backend *base, void **memory, size_t bytes, elbo_error *error);
void cuda_release_host(struct backend *base, void *memory);
elbo_status cuda_reserve_staging(struct backend *base, size_t bytes, elbo_error *error);
void *cuda_stage(struct backend *base);
void cuda_send(struct backend *base, void *to, size_t bytes);
void cuda_download_later(struct backend *base, void *to, const void *from, size_t bytes);
void cuda_mark(struct backend *base, unsigned which);
elbo_status cuda_wait(struct backend *base, unsigned which, elbo_error *error);

bool cuda_replay(struct backend *base, void **captures, const struct replay_key *key);
bool cuda_capture_begin(struct backend *base, void **captures, const struct replay_key *key);
bool cuda_capture_end(struct backend *base, void **captures, const struct replay_key *key);
void cuda_forget(struct backend *base, void **captures);

extern const struct kernel cuda_table[];

#endif
