/* The launchers of kernels/: plain pointers, sizes and a stream, callable from C. Each returns the cudaError_t of its
 * launches. Pointers are device memory; sizes are counts, not capacities; offsets are size_t inside kernels.
 *
 *   T  f32 or bf16 by `type`: activations, their gradients, working weights
 *   f  always f32: statistics, latent head output, z, KL, losses, weight gradients, masters
 *
 * An `add` flag means += instead of =. There are no float atomics: the order of every sum depends on shapes only. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum kernel_type { KERNEL_F32, KERNEL_BF16 };

typedef struct CUstream_st *kernel_stream;

/* Numbers that a launch reads from device memory, so that a captured launch can be replayed with other numbers. */
enum { HEADER_ENC_TOKENS = 1, HEADER_DEC_TOKENS, HEADER_SENTENCES, HEADER_DRAWS, HEADER_COUNTS };
struct kernel_header {
    uint64_t seed, step, draw;
    uint64_t count[HEADER_COUNTS]; /* true counts; rows past them are padding */
};

/* The address of noise: the key of (seed, purpose, step), and the draw (base/philox.h). */
struct kernel_noise {
    uint64_t purpose;
    const struct kernel_header *header;
};

/* Dropout keeps an element if the 32 bits at (sample, position * width + column) are at least `threshold`, and
 * multiplies kept elements by `scale`. */
struct kernel_dropout {
    const int32_t *sentence, *position; /* (N) */
    const uint64_t *sample;             /* (S) */
    uint32_t threshold;
    float scale;
    struct kernel_noise noise;
};

/* ---- embedding ---- */
/* y (N, D) T = table[ids] (+ add (N, D) T); table (table_rows, D) T, ids (N). marks (K, D) T may be null; id table_rows
 * + k reads row k of marks. */
struct embedding_forward_args {
    void *y;
    const void *table, *marks;
    const int32_t *ids;
    const void *add;
    size_t rows, table_rows, width;
    enum kernel_type type;
};
int embedding_forward_cuda(const struct embedding_forward_args *args, kernel_stream stream);
/* dtable (table_rows, D) f (+)= the sum of dy (N, D) T over the rows of each id from `first` on; order (N): rows by
 * rising id, stable; scratch: embedding_scratch_floats(rows, width) f. */
struct embedding_backward_args {
    float *dtable, *scratch;
    const void *dy;
    const int32_t *ids, *order;
    size_t rows, first, table_rows, width;
    bool add;
    enum kernel_type type;
};
int embedding_backward_cuda(const struct embedding_backward_args *args, kernel_stream stream);
size_t embedding_scratch_floats(size_t rows, size_t width);

/* ---- linear: bias gradients; the products are not kernels ---- */
/* dbias (D) f (+)= column sums of dy (N, D) T; scratch: bias_scratch_floats(rows, width) f. */
struct bias_backward_args {
    float *dbias, *scratch;
    const void *dy;
    size_t rows, width;
    bool add;
    enum kernel_type type;
};
int bias_backward_cuda(const struct bias_backward_args *args, kernel_stream stream);
size_t bias_scratch_floats(size_t rows, size_t width);

/* ---- norm ---- */
enum { NORM_MOST_WIDTH = 7680, NORM_MOST_UNALIGNED = 3840 }; /* the second if rows are not whole 16 bytes */
/* sum (N, D) T = drop(x) + residual; without a residual (then sum is null too) nothing is dropped. y T; stats (N, 2) f
 * mean | rstd; beta may be null; epsilon 1e-5. D is at most NORM_MOST_WIDTH in both directions. */
struct norm_forward_args {
    void *y, *sum;
    float *stats;
    const void *x;
    const struct kernel_dropout *dropout;
    const void *residual, *gamma, *beta;
    size_t rows, width;
    bool rms;
    enum kernel_type type;
};
int norm_forward_cuda(const struct norm_forward_args *args, kernel_stream stream);
/* dinput (N, D) T (+)= the norm's gradient + dsum (may be null); dgamma, dbeta (D) f (+)=. With `dropout`, dx T (+)=
 * drop of the same gradient. Any output may be null. input: the norm's input. scratch: norm_scratch_floats(rows, width)
 * f. */
struct norm_backward_args {
    void *dinput;
    float *dgamma, *dbeta;
    void *dx;
    float *scratch;
    const void *dy, *dsum, *input, *gamma;
    const float *stats;
    const struct kernel_dropout *dropout;
    size_t rows, width;
    bool rms;
    bool add_dinput, add_dgamma, add_dbeta, add_dx;
    enum kernel_type type;
};
int norm_backward_cuda(const struct norm_backward_args *args, kernel_stream stream);
size_t norm_scratch_floats(size_t rows, size_t width);

/* ---- attention ---- */
enum { ATTENTION_MOST_WIDTH = 256 }; /* widest head */
struct kernel_attention {
    size_t sentences, tokens, longest; /* longest: rows of the longest sentence; it chooses the launch */
    size_t heads, kv_heads, head_width, memory;
    bool causal;
};
/* out (N, H W) T, lse (N, H) f from qkv (N, (H + 2 Hk) W) T, offsets (S + 1), memory (S, M, 2, Hk W) T or null. */
struct attention_forward_args {
    void *out;
    float *lse;
    const void *qkv;
    const int32_t *offsets;
    const void *memory;
    const struct kernel_attention *shape;
    enum kernel_type type;
};
int attention_forward_cuda(const struct attention_forward_args *args, kernel_stream stream);
/* dqkv, dmemory T (+)=, either may be null. scratch: attention_scratch_floats(shape) f. */
struct attention_backward_args {
    void *dqkv, *dmemory;
    float *scratch;
    const void *dout, *qkv;
    const int32_t *offsets;
    const void *memory, *out;
    const float *lse;
    const struct kernel_attention *shape;
    bool add_dqkv, add_dmemory;
    enum kernel_type type;
};
int attention_backward_cuda(const struct attention_backward_args *args, kernel_stream stream);
size_t attention_scratch_floats(const struct kernel_attention *shape);
/* One new token per row: appends its key and value to cache (R, room, 2, Hk W) T at position (R) and attends to all
 * positions up to it. history (R, room), may be null: the cache row that holds position j of this row, for j before its
 * own position. */
struct attention_cached_args {
    void *out, *cache;
    const void *qkv;
    const int32_t *position;
    const void *memory;
    const int32_t *history;
    size_t rows, room;
    const struct kernel_attention *shape;
    enum kernel_type type;
};
int attention_cached_cuda(const struct attention_cached_args *args, kernel_stream stream);
/* Rotates the halves of each head by direction * position / 10000^(2i/W) in the first heads * W columns; copies the
 * others. */
struct rotary_args {
    void *y;
    const void *x;
    const int32_t *position;
    size_t rows, width, heads, head_width;
    int direction;
    bool add;
    enum kernel_type type;
};
int rotary_cuda(const struct rotary_args *args, kernel_stream stream);

/* ---- recurrent layers: a step of one direction; G gates 4 (LSTM) or 3 (GRU), H units, d directions ---- */
struct kernel_recurrent {
    size_t sentences, units, gates, directions, direction;
    size_t t; /* step; the second direction begins at a sentence's end */
};
/* Rows of step t: y (N, d H) T, kept (N, d 4 H) T, cell (N, d H) f (LSTM), state (S, d H) T: the new h. x (N, d G H) T;
 * sums (S, G H) f = previous h W^T, null if h is 0; b (d G H) T (GRU); own (S, d G H) T and initial (S, states d H) T
 * may be null. */
struct recurrent_forward_args {
    void *y, *kept;
    float *cell;
    void *state;
    const void *x;
    const float *sums;
    const void *b, *own, *initial;
    const int32_t *offsets;
    const struct kernel_recurrent *step;
    enum kernel_type type;
};
int recurrent_forward_cuda(const struct recurrent_forward_args *args, kernel_stream stream);
/* Rows of step t: dx (N, d G H) T, a GRU's dsums (N, d G H) T; ds (S, G H) T: the same gradient as input of the product
 * that gives step t - 1 its dh; dh (S, H) f, null at the last step; carried (S, H) f, read and written. */
struct recurrent_backward_args {
    void *dx, *dsums, *ds;
    float *carried;
    const void *dy;
    const float *dh;
    const void *kept;
    const float *cell;
    const void *y, *initial;
    const int32_t *offsets;
    const struct kernel_recurrent *step;
    enum kernel_type type;
};
int recurrent_backward_cuda(const struct recurrent_backward_args *args, kernel_stream stream);
/* One direction's part of dinitial (S, states d H) T, from dh and carried before step 0. */
struct recurrent_initial_args {
    void *dinitial;
    const float *dh, *carried;
    const int32_t *offsets;
    const struct kernel_recurrent *step;
    enum kernel_type type;
};
int recurrent_initial_cuda(const struct recurrent_initial_args *args, kernel_stream stream);
/* h (N, d H) T before each row's step. */
struct recurrent_earlier_args {
    void *h;
    const void *y, *initial;
    const int32_t *offsets;
    const struct kernel_recurrent *step;
    enum kernel_type type;
};
int recurrent_earlier_cuda(const struct recurrent_earlier_args *args, kernel_stream stream);
/* One new token per row, R = sentences. gather: h (R, H) T that each row continues, from state (R, 2, states H) f as
 * op_recurrent_step says. step: y (R, H) T and the new state, from sums (R, G H) f = h W^T. */
struct recurrent_gather_args {
    void *h;
    const float *state;
    const void *initial;
    const int32_t *position, *history;
    size_t room;
    const struct kernel_recurrent *step;
    enum kernel_type type;
};
int recurrent_gather_cuda(const struct recurrent_gather_args *args, kernel_stream stream);
struct recurrent_step_args {
    void *y;
    float *state;
    const void *x;
    const float *sums;
    const void *b, *own, *initial;
    const int32_t *position, *history;
    size_t room;
    const struct kernel_recurrent *step;
    enum kernel_type type;
};
int recurrent_step_cuda(const struct recurrent_step_args *args, kernel_stream stream);

/* ---- one row per sentence <-> one row per token ---- */
/* kind as enum pool_kind; weights (N) f and query (D) T for attention pooling only. */
struct pool_forward_args {
    void *y;
    float *weights;
    const void *x;
    const int32_t *offsets;
    const void *query;
    size_t sentences, width;
    int kind;
    enum kernel_type type;
};
int pool_forward_cuda(const struct pool_forward_args *args, kernel_stream stream);
/* scratch: N + pool_scratch_floats(sentences, width) f. dquery (D) f. */
struct pool_backward_args {
    void *dx;
    float *dquery, *scratch;
    const void *dy;
    const int32_t *offsets;
    const void *query, *x;
    const float *weights;
    size_t tokens, sentences, width;
    int kind;
    bool add_dx, add_dquery;
    enum kernel_type type;
};
int pool_backward_cuda(const struct pool_backward_args *args, kernel_stream stream);
size_t pool_scratch_floats(size_t sentences, size_t width);
struct broadcast_add_args {
    void *y;
    const void *x, *v;
    const int32_t *sentence;
    size_t rows, width;
    enum kernel_type type;
};
int broadcast_add_cuda(const struct broadcast_add_args *args, kernel_stream stream);
/* y (S, D) T or f by `type` (+)= the sums of x over the sentence's rows; width 1 for a vector. */
struct segment_sum_args {
    void *y;
    const void *x;
    const int32_t *offsets;
    size_t sentences, width;
    bool add;
    enum kernel_type type;
};
int segment_sum_cuda(const struct segment_sum_args *args, kernel_stream stream);
/* y (N, D) T = x, or row position[n] of the sentence's prefix (S, M, D) T if position[n] < M. sentence (N); null: row n
 * belongs to prefix n. */
struct prefix_args {
    void *y;
    const void *x, *prefix;
    const int32_t *position, *sentence;
    size_t rows, width, prefix_rows;
    enum kernel_type type;
};
int prefix_cuda(const struct prefix_args *args, kernel_stream stream);
/* dx (N, D) T and dprefix (S, M, D) T, either may be null. */
struct prefix_backward_args {
    void *dx, *dprefix;
    const void *dy;
    const int32_t *position, *offsets;
    size_t rows, sentences, width, prefix_rows;
    bool add_dx, add_dprefix;
    enum kernel_type type;
};
int prefix_backward_cuda(const struct prefix_backward_args *args, kernel_stream stream);

/* Sets the rows of x (N, D) T from offsets[S] on, which belong to no sentence, to 0. */
struct clear_padding_args {
    void *x;
    const int32_t *offsets;
    size_t sentences, rows, width;
    enum kernel_type type;
};
int clear_padding_cuda(const struct clear_padding_args *args, kernel_stream stream);

/* ---- latent: all f32, one launch each way ---- */
struct latent_forward_args {
    float *z, *kl;
    const float *stats;
    const uint64_t *sample;
    size_t sentences, width;
    bool sample_z;
    struct kernel_noise noise;
};
int latent_forward_cuda(const struct latent_forward_args *args, kernel_stream stream);
/* dz, dkl may be null. */
struct latent_backward_args {
    float *dstats;
    const float *dz, *dkl, *stats;
    const uint64_t *sample;
    size_t sentences, width;
    bool sample_z, add;
    struct kernel_noise noise;
};
int latent_backward_cuda(const struct latent_backward_args *args, kernel_stream stream);
/* out (C, 2) f: sums and sums of squares of the columns of x (S, C) f, without padding. */
struct column_moments_args {
    float *out;
    const float *x;
    const struct kernel_header *header;
    size_t columns;
};
int column_moments_cuda(const struct column_moments_args *args, kernel_stream stream);
/* As op_gaussian_log_density says: out (R), z (R, Z), stats (R, 2Z), or (2Z) if `one` row serves all. `counted`: the
 * true number of rows, in a header on the device; rows past it give 0 and are left out of sums. */
struct gaussian_log_density_args {
    float *out;
    const float *z, *stats;
    const uint64_t *counted;
    size_t rows, width;
    bool one;
    float sign;
};
int gaussian_log_density_cuda(const struct gaussian_log_density_args *args, kernel_stream stream);
/* dz (R, Z), dstats (shape of stats), both (+)=, either may be null; dout (R). */
struct gaussian_log_density_backward_args {
    float *dz, *dstats;
    const float *dout, *z, *stats;
    const uint64_t *counted;
    size_t rows, width;
    bool one;
    float sign;
    bool add_dz, add_dstats;
};
int gaussian_log_density_backward_cuda(const struct gaussian_log_density_backward_args *args, kernel_stream stream);
/* As op_spread_hinge says: out (1), spread (Z + 1) = mean mu | 1 while the hinge is above 0, stats (R, 2Z). */
struct spread_hinge_args {
    float *out, *spread;
    const float *stats;
    const uint64_t *counted;
    size_t width;
    float margin;
};
int spread_hinge_cuda(const struct spread_hinge_args *args, kernel_stream stream);
/* dstats (R, 2Z) (+)=. */
struct spread_hinge_backward_args {
    float *dstats;
    const float *dout, *stats, *spread;
    const uint64_t *counted;
    size_t rows, width;
    bool add;
};
int spread_hinge_backward_cuda(const struct spread_hinge_backward_args *args, kernel_stream stream);

/* ---- posteriors: all f32; rows past the header's count of sentences are padding ---- */
enum { KERNEL_POSTERIOR_DELTA, KERNEL_POSTERIOR_SLASHED, KERNEL_POSTERIOR_FLOOR };
struct kernel_posterior {
    int map;            /* as op_posterior's                                          */
    double real;        /* delta, or the floor of the variances                       */
    double least, most; /* sigma of delta                                             */
    double p;           /* share of the variances that `noise` drops */
    uint32_t threshold; /* drops an element whose 32 bits at (sample, dimension) are below it */
    struct kernel_noise noise;
};
/* stats (S, 2Z) from head (S, 2Z); width: Z; sample (S) is needed for p > 0 only. drops may be null; *drops 0: nothing
 * is dropped. */
struct posterior_args {
    float *stats;
    const float *head;
    const uint64_t *sample;
    const float *drops;
    const struct kernel_posterior *c;
    size_t sentences, width;
};
int posterior_cuda(const struct posterior_args *args, kernel_stream stream);
/* dhead (S, 2Z) (+)=. */
struct posterior_backward_args {
    float *dhead;
    const float *dstats, *head;
    const uint64_t *sample;
    const float *drops;
    const struct kernel_posterior *c;
    size_t sentences, width;
    bool add;
};
int posterior_backward_cuda(const struct posterior_backward_args *args, kernel_stream stream);
struct kernel_normalize {
    size_t rows, width, groups, columns; /* as op_normalize says                    */
    bool by_row, center, batch;
    double level, epsilon;
    const uint64_t *counted; /* the true number of rows, on the device; null: all */
};
struct kernel_adds {
    bool dx, dgain, dbias; /* += instead of = */
};
/* y and x (rows, width); used, sums (2 groups + 1), sums may be null; by_row writes y only. gain, bias (groups) may be
 * null. */
struct normalize_args {
    float *y, *used, *sums;
    const float *x, *running, *gain, *bias;
    const struct kernel_normalize *c;
};
int normalize_cuda(const struct normalize_args *args, kernel_stream stream);
/* dx, dgain, dbias (+)=, any may be null. */
struct normalize_backward_args {
    float *dx, *dgain, *dbias;
    const float *dy, *x, *gain, *used;
    const struct kernel_normalize *c;
    struct kernel_adds add;
};
int normalize_backward_cuda(const struct normalize_backward_args *args, kernel_stream stream);
/* As op_running says: running (2, groups), sums (2 groups + 1). */
struct running_args {
    float *running;
    const float *sums, *control;
    size_t groups;
    bool center;
    double share;
};
int running_cuda(const struct running_args *args, kernel_stream stream);

/* ---- priors: all f32; `counted`: the true number of rows, on the device; rows past it give 0 ---- */
/* kl (R, Z), stats (R, 2Z) mu | logvar, prior (2Z) mean | logvar. */
struct gaussian_kl_args {
    float *kl;
    const float *stats, *prior;
    const uint64_t *counted;
    size_t rows, width;
};
int gaussian_kl_cuda(const struct gaussian_kl_args *args, kernel_stream stream);
/* dstats (R, 2Z), dprior (2Z), both (+)=, either may be null; dkl (R, Z). */
struct gaussian_kl_backward_args {
    float *dstats, *dprior;
    const float *dkl, *stats, *prior;
    const uint64_t *counted;
    size_t rows, width;
    bool add_dstats, add_dprior;
};
int gaussian_kl_backward_cuda(const struct gaussian_kl_backward_args *args, kernel_stream stream);
/* Component k has mu at k * stride, and its logvar `logvar` elements after mu. */
struct kernel_mixture {
    size_t components, width, stride, logvar;
};
/* As op_mixture_log_density says: out (R), shares (R, K), z (R, Z); logits (K), or null for equal weights. */
struct mixture_log_density_args {
    float *out, *shares;
    const float *z, *components, *logits;
    const uint64_t *counted;
    size_t rows;
    const struct kernel_mixture *m;
    float sign;
};
int mixture_log_density_cuda(const struct mixture_log_density_args *args, kernel_stream stream);
/* dz (R, Z), dcomponents (shape of components), dlogits (K), all (+)=, each may be null; dout (R). */
struct mixture_log_density_backward_args {
    float *dz, *dcomponents, *dlogits;
    const float *dout, *shares, *z, *components, *logits;
    const uint64_t *counted;
    size_t rows;
    const struct kernel_mixture *m;
    float sign;
    bool add_dz, add_dcomponents, add_dlogits;
};
int mixture_log_density_backward_cuda(const struct mixture_log_density_backward_args *args, kernel_stream stream);

/* ---- loss ---- */
/* One chunk: logits (R, V) T in rows of `stride` elements, labels (R), nll (R) f. right (R) f, may be null: 1 where no
 * logit is above the label's, else 0. With dnll (R) f the logits are overwritten with dnll (softmax - onehot), and
 * columns V .. stride with 0; without it they are only read. A row with a negative label is masked: its nll, right and
 * gradient are 0. */
struct softmax_loss_args {
    float *nll, *right;
    void *logits;
    const int32_t *labels;
    const float *dnll;
    size_t rows, vocabulary, stride;
    enum kernel_type type;
};
int softmax_loss_cuda(const struct softmax_loss_args *args, kernel_stream stream);
/* As op_bag_cross_entropy says: out (1), sums (S, 3), logits (S, V), all f. Sentences past the header's count are left
 * out of the sum and have no gradient. */
struct bag_cross_entropy_args {
    float *out, *sums;
    const float *logits;
    const int32_t *labels, *offsets;
    const struct kernel_header *header;
    size_t sentences, vocabulary;
};
int bag_cross_entropy_cuda(const struct bag_cross_entropy_args *args, kernel_stream stream);
/* dlogits (S, V) (+)=; dout (1). */
struct bag_cross_entropy_backward_args {
    float *dlogits;
    const float *dout, *logits;
    const int32_t *labels, *offsets;
    const float *sums;
    const struct kernel_header *header;
    size_t sentences, vocabulary;
    bool add;
};
int bag_cross_entropy_backward_cuda(const struct bag_cross_entropy_backward_args *args, kernel_stream stream);
/* The free bits of op_elbo; mask and sentence: their form and scope. */
struct kernel_free_bits {
    size_t groups;
    float nats;
    bool mask, sentence;
};
/* parts (5) f as enum of op_elbo, kl_dim (Z) f; kl (S, Z) may be null; weights (2) f on the device. Sums skip padding.
 */
struct elbo_forward_args {
    float *parts, *kl_dim;
    const float *nll, *kl, *weights;
    const struct kernel_header *header;
    size_t width;
    struct kernel_free_bits free;
};
int elbo_forward_cuda(const struct elbo_forward_args *args, kernel_stream stream);
/* dnll and dkl are 0 in the padding. */
struct elbo_backward_args {
    float *dnll, *dkl;
    const float *kl, *weights;
    const struct kernel_header *header;
    size_t tokens, sentences, width;
    struct kernel_free_bits free;
};
int elbo_backward_cuda(const struct elbo_backward_args *args, kernel_stream stream);

enum { KERNEL_MOST_TERMS = 10, KERNEL_OBJECTIVE_OUTPUTS = 4, KERNEL_OBJECTIVE_ELBO = 0xffff };
/* As op_objective says: out (parts + count), elbo (parts). terms: `count` pointers (1), on the host; weight (count), on
 * the host: the terms' indices into weights. */
struct objective_args {
    float *out;
    const float *elbo, *weights;
    const float *const *terms;
    const unsigned *weight;
    size_t parts, count;
};
int objective_cuda(const struct objective_args *args, kernel_stream stream);
/* d[k] (elements[k]), may be null, (+)= weights[index[k]], or 1 if index[k] is KERNEL_OBJECTIVE_ELBO; its further
 * elements (+)= 0. Two outputs may be the same array. All arrays (KERNEL_OBJECTIVE_OUTPUTS) are on the host. */
struct objective_backward_args {
    float *const *d;
    const float *weights;
    const unsigned *index;
    const size_t *elements;
    const bool *add;
};
int objective_backward_cuda(const struct objective_backward_args *args, kernel_stream stream);

/* ---- elementwise ---- */
/* y (y_type) = a + b (+ y); a and b have `type`; b may be null: a cast. */
struct add_args {
    void *y;
    const void *a, *b;
    size_t elements;
    bool add;
    enum kernel_type y_type, type;
};
int add_cuda(const struct add_args *args, kernel_stream stream);
struct gelu_forward_args {
    void *y;
    const void *x;
    size_t elements;
    enum kernel_type type;
};
int gelu_forward_cuda(const struct gelu_forward_args *args, kernel_stream stream);
/* Backward: dx T (+)= dy (1 - y^2). */
struct tanh_forward_args {
    void *y;
    const void *x;
    size_t elements;
    enum kernel_type type;
};
int tanh_forward_cuda(const struct tanh_forward_args *args, kernel_stream stream);
struct tanh_backward_args {
    void *dx;
    const void *dy, *y;
    size_t elements;
    bool add;
    enum kernel_type type;
};
int tanh_backward_cuda(const struct tanh_backward_args *args, kernel_stream stream);
struct gelu_backward_args {
    void *dx;
    const void *dy, *x;
    size_t elements;
    bool add;
    enum kernel_type type;
};
int gelu_backward_cuda(const struct gelu_backward_args *args, kernel_stream stream);
struct swiglu_forward_args {
    void *y;
    const void *x;
    size_t rows, width;
    enum kernel_type type;
};
int swiglu_forward_cuda(const struct swiglu_forward_args *args, kernel_stream stream);
struct swiglu_backward_args {
    void *dx;
    const void *dy, *x;
    size_t rows, width;
    bool add;
    enum kernel_type type;
};
int swiglu_backward_cuda(const struct swiglu_backward_args *args, kernel_stream stream);
struct dropout_args {
    void *y;
    const void *x;
    const struct kernel_dropout *dropout;
    size_t rows, width;
    bool add;
    enum kernel_type type;
};
int dropout_cuda(const struct dropout_args *args, kernel_stream stream);

/* ---- optimizer ---- */
/* record (2) f: the sum of squares, in double over blocks of 1,024 and then over the blocks in an order that depends on
 * the length alone; and the number of blocks that are not finite. scratch: squared_norm_scratch_doubles(elements),
 * aligned to 16 bytes. */
struct squared_norm_args {
    float *record;
    double *scratch;
    const float *gradient;
    size_t elements;
};
int squared_norm_cuda(const struct squared_norm_args *args, kernel_stream stream);
size_t squared_norm_scratch_doubles(size_t elements);
/* The same in two launches, with the same bits. block_squares: sums (ceil(elements / 1,024)) d of the blocks.
 * combined_norm: record from sums (any) d, where block i is at `at` (blocks) i32; scratch:
 * squared_norm_scratch_doubles(1024 blocks), aligned to 16 bytes. */
int block_squares_cuda(double *sums, const float *gradient, size_t elements, kernel_stream stream);
struct combined_norm_args {
    float *record;
    double *scratch;
    const double *sums;
    const int32_t *at;
    size_t blocks;
};
int combined_norm_cuda(const struct combined_norm_args *args, kernel_stream stream);
/* y (K) f = rows[control[0] != 0] (* scales (K), may be null), rows (2, K). */
struct select_row_args {
    float *y;
    const float *rows, *control, *scales;
    size_t width;
};
int select_row_cuda(const struct select_row_args *args, kernel_stream stream);
/* As op_controller says: state (3), *weight is scales[index], *figure is figures[part], settings (6). */
struct controller_args {
    float *state, *weight;
    const float *figure, *control, *settings;
    bool multiplier;
};
int controller_cuda(const struct controller_args *args, kernel_stream stream);
/* As op_guard says; norms: `count` pointers to records, on the host. scalars (groups, STEP_SCALARS), rows (2, groups,
 * STEP_SCALARS). */
enum { KERNEL_MOST_NORMS = 8 };
struct guard_args {
    float *scalars, *control;
    const float *loss, *rows, *settings;
    const float *const *norms;
    size_t count, groups;
};
int guard_cuda(const struct guard_args *args, kernel_stream stream);
/* scalars (STEP_SCALARS) f on the device; if STEP_APPLY is 0 nothing is written. The bf16 working weights may be null.
 * Moments have the type `moments`. bf16 moments are rounded by noise: element `first` + i of the arena uses one word
 * (sample index >> 34, coordinate the remaining bits), the lower half for moment1, the upper for moment2. The half is
 * added to the bits of the f32 before its lower 16 are dropped. f32 moments read no noise. */
struct adamw_args {
    float *weights;
    void *moment1, *moment2, *working;
    const float *gradient, *scalars;
    size_t elements, first;
    struct kernel_noise noise;
    enum kernel_type moments;
};
int adamw_cuda(const struct adamw_args *args, kernel_stream stream);
struct sgd_args {
    float *weights;
    void *moment, *working;
    const float *gradient, *scalars;
    size_t elements, first;
    struct kernel_noise noise;
    enum kernel_type moments;
};
int sgd_cuda(const struct sgd_args *args, kernel_stream stream);

#ifdef __cplusplus
}
#endif

#endif
