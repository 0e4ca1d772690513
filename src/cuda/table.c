/* The table of the CUDA backend: each op's call becomes launches of kernels/, and products. */
#include "cuda/call.h"
#include "ops/attention.h"
#include "ops/loss.h"
#include "ops/ops.h"
#include "ops/posterior.h"

#include <math.h>

enum { CHUNK_BYTES = 512 << 20, LEAST_ROWS = 16, VOCABULARY_ALIGNMENT = 128 };

_Static_assert(sizeof(struct kernel_header) == sizeof(struct call_header) &&
                   (int)HEADER_SENTENCES == (int)DIM_SENTENCES && (int)HEADER_COUNTS == (int)DIM_KINDS,
               "kernels read the header that executions write");

static const struct kernel_header *header_of(const struct call *c)
{
    return (const struct kernel_header *)c->header;
}

static struct kernel_noise noise_of(const struct call *c)
{
    return (struct kernel_noise){c->attr->purpose, header_of(c)};
}

static bool drops(const struct call *c)
{
    return c->attr->f[ATTR_DROPOUT] > 0;
}

/* `sentence` .. sentence + 2: the inputs that address the noise. */
static struct kernel_dropout dropout_of(const struct call *c, unsigned sentence)
{
    double p = c->attr->f[ATTR_DROPOUT], threshold = p * 0x1p32;
    return (struct kernel_dropout){.sentence = c->in[sentence],
                                   .position = c->in[sentence + 1],
                                   .sample = c->in[sentence + 2],
                                   .threshold = threshold >= 0x1p32 ? UINT32_MAX : (uint32_t)threshold,
                                   .scale = (float)(1.0 / (1.0 - p)),
                                   .noise = noise_of(c)};
}

static size_t elements(const size_t dim[MAX_RANK])
{
    size_t n = 1;
    for (unsigned d = 0; d < MAX_RANK && (d == 0 || dim[d]); d++) n *= dim[d];
    return n;
}

/* ---- embedding ---- */

static void embedding(const struct call *c)
{
    keep(c, embedding_forward_cuda(c->out[OUT_EMBEDDING_Y], c->in[IN_EMBEDDING_TABLE], c->in[IN_EMBEDDING_MARKS],
                                   c->in[IN_EMBEDDING_IDS], c->in[IN_EMBEDDING_ADD], c->size.out[OUT_EMBEDDING_Y][0],
                                   c->size.in[IN_EMBEDDING_TABLE][0], c->size.out[OUT_EMBEDDING_Y][1],
                                   out_type(c, OUT_EMBEDDING_Y), stream_of(c)));
}

static void embedding_backward(const struct call *c)
{
    keep(c, embedding_backward_cuda(c->out[OUT_EMBEDDING_BACKWARD_DTABLE], c->scratch, c->in[IN_EMBEDDING_BACKWARD_DY],
                                    c->in[IN_EMBEDDING_BACKWARD_IDS], c->in[IN_EMBEDDING_BACKWARD_ORDER],
                                    c->size.in[IN_EMBEDDING_BACKWARD_DY][0], (size_t)c->attr->i[ATTR_EMBEDDING_FIRST],
                                    c->size.out[OUT_EMBEDDING_BACKWARD_DTABLE][0],
                                    c->size.in[IN_EMBEDDING_BACKWARD_DY][1], c->add[OUT_EMBEDDING_BACKWARD_DTABLE],
                                    in_type(c, IN_EMBEDDING_BACKWARD_DY), stream_of(c)));
}

static void embedding_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared =
        embedding_scratch_floats(c->size.in[IN_EMBEDDING_BACKWARD_DY][0], c->size.in[IN_EMBEDDING_BACKWARD_DY][1]) *
        sizeof(float);
}

/* ---- linear ---- */

static void linear(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_X][0], in = c->size.in[IN_LINEAR_X][1], out = c->size.in[IN_LINEAR_W][0];
    struct cuda_product p = {.m = n,
                             .n = out,
                             .k = in,
                             .ldc = out,
                             .bias = c->in[IN_LINEAR_B],
                             .type = in_type(c, IN_LINEAR_X),
                             .out = out_type(c, OUT_LINEAR_Y)};
    p.a = (struct cuda_matrix){c->in[IN_LINEAR_X], in, 1};
    p.b = (struct cuda_matrix){c->in[IN_LINEAR_W], 1, in};
    p.c = c->out[OUT_LINEAR_Y];
    p.before_gelu = c->out[OUT_LINEAR_PRE];
    cuda_product(cuda_of(c), &p);
}

static void linear_backward_input(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_BACKWARD_INPUT_DY][0], out = c->size.in[IN_LINEAR_BACKWARD_INPUT_DY][1],
           in = c->size.in[IN_LINEAR_BACKWARD_INPUT_W][1];
    struct cuda_product p = {.m = n,
                             .n = in,
                             .k = out,
                             .ldc = in,
                             .c = c->out[OUT_LINEAR_BACKWARD_INPUT_DX],
                             .add = c->add[OUT_LINEAR_BACKWARD_INPUT_DX],
                             .type = in_type(c, IN_LINEAR_BACKWARD_INPUT_DY),
                             .out = out_type(c, OUT_LINEAR_BACKWARD_INPUT_DX),
                             .before_gelu = (void *)c->in[IN_LINEAR_BACKWARD_INPUT_PRE],
                             .slope = c->in[IN_LINEAR_BACKWARD_INPUT_PRE]};
    p.a = (struct cuda_matrix){c->in[IN_LINEAR_BACKWARD_INPUT_DY], out, 1};
    p.b = (struct cuda_matrix){c->in[IN_LINEAR_BACKWARD_INPUT_W], in, 1};
    cuda_product(cuda_of(c), &p);
}

static void linear_backward_weight(const struct call *c)
{
    size_t n = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][0], out = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][1],
           in = c->size.in[IN_LINEAR_BACKWARD_WEIGHT_X][1];
    if (c->out[OUT_LINEAR_BACKWARD_WEIGHT_DW]) {
        struct cuda_product p = {.m = out,
                                 .n = in,
                                 .k = n,
                                 .ldc = in,
                                 .c = c->out[OUT_LINEAR_BACKWARD_WEIGHT_DW],
                                 .add = c->add[OUT_LINEAR_BACKWARD_WEIGHT_DW],
                                 .type = in_type(c, IN_LINEAR_BACKWARD_WEIGHT_DY)};
        p.a = (struct cuda_matrix){c->in[IN_LINEAR_BACKWARD_WEIGHT_DY], 1, out};
        p.b = (struct cuda_matrix){c->in[IN_LINEAR_BACKWARD_WEIGHT_X], in, 1};
        cuda_product(cuda_of(c), &p);
    }
    if (c->out[OUT_LINEAR_BACKWARD_WEIGHT_DB])
        keep(c, bias_backward_cuda(c->out[OUT_LINEAR_BACKWARD_WEIGHT_DB], c->scratch,
                                   c->in[IN_LINEAR_BACKWARD_WEIGHT_DY], n, out, c->add[OUT_LINEAR_BACKWARD_WEIGHT_DB],
                                   in_type(c, IN_LINEAR_BACKWARD_WEIGHT_DY), stream_of(c)));
}

static void linear_backward_weight_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared =
        bias_scratch_floats(c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][0], c->size.in[IN_LINEAR_BACKWARD_WEIGHT_DY][1]) *
        sizeof(float);
}

/* ---- norm ---- */

static void norm(const struct call *c)
{
    struct kernel_dropout d = dropout_of(c, IN_NORM_SENTENCE);
    keep(c, norm_forward_cuda(c->out[OUT_NORM_Y], c->out[OUT_NORM_SUM], c->out[OUT_NORM_STATS], c->in[IN_NORM_X],
                              drops(c) ? &d : NULL, c->in[IN_NORM_RESIDUAL], c->in[IN_NORM_GAMMA], c->in[IN_NORM_BETA],
                              c->size.in[IN_NORM_X][0], c->size.in[IN_NORM_X][1], c->attr->i[ATTR_NORM_RMS],
                              in_type(c, IN_NORM_X), stream_of(c)));
}

static void norm_backward(const struct call *c)
{
    struct kernel_dropout d = dropout_of(c, IN_NORM_BACKWARD_SENTENCE);
    keep(c, norm_backward_cuda(c->out[OUT_NORM_BACKWARD_DRESIDUAL], c->out[OUT_NORM_BACKWARD_DGAMMA],
                               c->out[OUT_NORM_BACKWARD_DBETA], c->out[OUT_NORM_BACKWARD_DX], c->scratch,
                               c->in[IN_NORM_BACKWARD_DY], c->in[IN_NORM_BACKWARD_DSUM], c->in[IN_NORM_BACKWARD_SUM],
                               c->in[IN_NORM_BACKWARD_GAMMA], c->in[IN_NORM_BACKWARD_STATS], drops(c) ? &d : NULL,
                               c->size.in[IN_NORM_BACKWARD_SUM][0], c->size.in[IN_NORM_BACKWARD_SUM][1],
                               c->attr->i[ATTR_NORM_RMS], c->add, in_type(c, IN_NORM_BACKWARD_SUM), stream_of(c)));
}

static void norm_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared =
        norm_scratch_floats(c->size.in[IN_NORM_BACKWARD_SUM][0], c->size.in[IN_NORM_BACKWARD_SUM][1]) * sizeof(float);
}

/* ---- attention ---- */

static struct kernel_attention attention_of(const struct call *c, unsigned rows, unsigned offsets)
{
    const int64_t *i = c->attr->i;
    return (struct kernel_attention){.sentences = offsets == MAX_INPUTS ? 0 : c->size.in[offsets][0] - 1,
                                     .tokens = c->size.in[rows][0],
                                     .longest = c->longest,
                                     .heads = (size_t)i[ATTENTION_HEADS],
                                     .kv_heads = (size_t)i[ATTENTION_KV_HEADS],
                                     .head_width = (size_t)i[ATTENTION_HEAD_WIDTH],
                                     .memory = (size_t)i[ATTENTION_MEMORY],
                                     .causal = i[ATTENTION_CAUSAL]};
}

static void attention(const struct call *c)
{
    struct kernel_attention a = attention_of(c, IN_ATTENTION_QKV, IN_ATTENTION_OFFSETS);
    clear(c, c->out[OUT_ATTENTION_Y], IN_ATTENTION_OFFSETS, a.tokens, a.heads * a.head_width,
          in_type(c, IN_ATTENTION_QKV));
    keep(c, attention_forward_cuda(c->out[OUT_ATTENTION_Y], c->out[OUT_ATTENTION_LSE], c->in[IN_ATTENTION_QKV],
                                   c->in[IN_ATTENTION_OFFSETS], c->in[IN_ATTENTION_MEMORY], &a,
                                   in_type(c, IN_ATTENTION_QKV), stream_of(c)));
}

static void attention_backward(const struct call *c)
{
    struct kernel_attention a = attention_of(c, IN_ATTENTION_BACKWARD_QKV, IN_ATTENTION_BACKWARD_OFFSETS);
    if (!c->add[OUT_ATTENTION_BACKWARD_DQKV])
        clear(c, c->out[OUT_ATTENTION_BACKWARD_DQKV], IN_ATTENTION_BACKWARD_OFFSETS, a.tokens,
              (a.heads + 2 * a.kv_heads) * a.head_width, in_type(c, IN_ATTENTION_BACKWARD_QKV));
    keep(c, attention_backward_cuda(c->out[OUT_ATTENTION_BACKWARD_DQKV], c->out[OUT_ATTENTION_BACKWARD_DMEMORY],
                                    c->scratch, c->in[IN_ATTENTION_BACKWARD_DY], c->in[IN_ATTENTION_BACKWARD_QKV],
                                    c->in[IN_ATTENTION_BACKWARD_OFFSETS], c->in[IN_ATTENTION_BACKWARD_MEMORY],
                                    c->in[IN_ATTENTION_BACKWARD_Y], c->in[IN_ATTENTION_BACKWARD_LSE], &a, c->add,
                                    in_type(c, IN_ATTENTION_BACKWARD_QKV), stream_of(c)));
}

static void attention_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    struct kernel_attention a = attention_of(c, IN_ATTENTION_BACKWARD_QKV, IN_ATTENTION_BACKWARD_OFFSETS);
    *shared = attention_scratch_floats(&a) * sizeof(float);
}

static void attention_cached(const struct call *c)
{
    struct kernel_attention a = attention_of(c, IN_ATTENTION_CACHED_QKV, MAX_INPUTS);
    keep(c, attention_cached_cuda(c->out[OUT_ATTENTION_CACHED_Y], c->out[OUT_ATTENTION_CACHED_CACHE],
                                  c->in[IN_ATTENTION_CACHED_QKV], c->in[IN_ATTENTION_CACHED_POSITION],
                                  c->in[IN_ATTENTION_CACHED_MEMORY], c->in[IN_ATTENTION_CACHED_HISTORY],
                                  c->size.in[IN_ATTENTION_CACHED_QKV][0], c->size.out[OUT_ATTENTION_CACHED_CACHE][1],
                                  &a, in_type(c, IN_ATTENTION_CACHED_QKV), stream_of(c)));
}

static void rotary(const struct call *c)
{
    keep(c, rotary_cuda(c->out[OUT_ROTARY_Y], c->in[IN_ROTARY_X], c->in[IN_ROTARY_POSITION], c->size.in[IN_ROTARY_X][0],
                        c->size.in[IN_ROTARY_X][1], (size_t)c->attr->i[ROTARY_HEADS],
                        (size_t)c->attr->i[ROTARY_HEAD_WIDTH], (int)c->attr->i[ROTARY_DIRECTION], c->add[OUT_ROTARY_Y],
                        in_type(c, IN_ROTARY_X), stream_of(c)));
}

/* ---- recurrent layers (recurrent.c) ---- */

static void recurrent(const struct call *c)
{
    cuda_recurrent(c);
}

static void recurrent_backward(const struct call *c)
{
    cuda_recurrent_backward(c);
}

static void recurrent_step(const struct call *c)
{
    cuda_recurrent_step(c);
}

/* ---- sentences ---- */

static void pool(const struct call *c)
{
    keep(c, pool_forward_cuda(c->out[OUT_POOL_Y], c->out[OUT_POOL_WEIGHTS], c->in[IN_POOL_X], c->in[IN_POOL_OFFSETS],
                              c->in[IN_POOL_QUERY], c->size.out[OUT_POOL_Y][0], c->size.in[IN_POOL_X][1],
                              (int)c->attr->i[ATTR_POOL], in_type(c, IN_POOL_X), stream_of(c)));
}

static void pool_backward(const struct call *c)
{
    if (!c->add[OUT_POOL_BACKWARD_DX])
        clear(c, c->out[OUT_POOL_BACKWARD_DX], IN_POOL_BACKWARD_OFFSETS, c->size.out[OUT_POOL_BACKWARD_DX][0],
              c->size.in[IN_POOL_BACKWARD_DY][1], in_type(c, IN_POOL_BACKWARD_DY));
    keep(c, pool_backward_cuda(c->out[OUT_POOL_BACKWARD_DX], c->out[OUT_POOL_BACKWARD_DQUERY], c->scratch,
                               c->in[IN_POOL_BACKWARD_DY], c->in[IN_POOL_BACKWARD_OFFSETS],
                               c->in[IN_POOL_BACKWARD_QUERY], c->in[IN_POOL_BACKWARD_X],
                               c->in[IN_POOL_BACKWARD_WEIGHTS], c->size.in[IN_POOL_BACKWARD_WEIGHTS][0],
                               c->size.in[IN_POOL_BACKWARD_DY][0], c->size.in[IN_POOL_BACKWARD_DY][1],
                               (int)c->attr->i[ATTR_POOL], c->add, in_type(c, IN_POOL_BACKWARD_DY), stream_of(c)));
}

static void pool_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = (c->size.in[IN_POOL_BACKWARD_WEIGHTS][0] +
               pool_scratch_floats(c->size.in[IN_POOL_BACKWARD_DY][0], c->size.in[IN_POOL_BACKWARD_DY][1])) *
              sizeof(float);
}

static void broadcast_add(const struct call *c)
{
    keep(c, broadcast_add_cuda(c->out[OUT_BROADCAST_ADD_Y], c->in[IN_BROADCAST_ADD_X], c->in[IN_BROADCAST_ADD_V],
                               c->in[IN_BROADCAST_ADD_SENTENCE], c->size.in[IN_BROADCAST_ADD_X][0],
                               c->size.in[IN_BROADCAST_ADD_X][1], in_type(c, IN_BROADCAST_ADD_X), stream_of(c)));
}

static void segment_sum(const struct call *c)
{
    size_t width = c->size.in[IN_SEGMENT_SUM_X][1] ? c->size.in[IN_SEGMENT_SUM_X][1] : 1;
    keep(c, segment_sum_cuda(c->out[OUT_SEGMENT_SUM_Y], c->in[IN_SEGMENT_SUM_X], c->in[IN_SEGMENT_SUM_OFFSETS],
                             c->size.out[OUT_SEGMENT_SUM_Y][0], width, c->add[OUT_SEGMENT_SUM_Y],
                             in_type(c, IN_SEGMENT_SUM_X), stream_of(c)));
}

static void prefix(const struct call *c)
{
    keep(c, prefix_cuda(c->out[OUT_PREFIX_Y], c->in[IN_PREFIX_X], c->in[IN_PREFIX_PREFIX], c->in[IN_PREFIX_POSITION],
                        c->in[IN_PREFIX_SENTENCE], c->size.in[IN_PREFIX_X][0], c->size.in[IN_PREFIX_X][1],
                        (size_t)c->attr->i[ATTR_PREFIX], in_type(c, IN_PREFIX_X), stream_of(c)));
}

static void prefix_backward(const struct call *c)
{
    keep(c, prefix_backward_cuda(c->out[OUT_PREFIX_BACKWARD_DX], c->out[OUT_PREFIX_BACKWARD_DPREFIX],
                                 c->in[IN_PREFIX_BACKWARD_DY], c->in[IN_PREFIX_BACKWARD_POSITION],
                                 c->in[IN_PREFIX_BACKWARD_OFFSETS], c->size.in[IN_PREFIX_BACKWARD_DY][0],
                                 c->size.out[OUT_PREFIX_BACKWARD_DPREFIX][0], c->size.in[IN_PREFIX_BACKWARD_DY][1],
                                 (size_t)c->attr->i[ATTR_PREFIX], c->add, in_type(c, IN_PREFIX_BACKWARD_DY),
                                 stream_of(c)));
}

/* ---- latent ---- */

static void latent(const struct call *c)
{
    keep(c, latent_forward_cuda(c->out[OUT_LATENT_Z], c->out[OUT_LATENT_KL], c->in[IN_LATENT_STATS],
                                c->in[IN_LATENT_SAMPLE], c->size.in[IN_LATENT_STATS][0],
                                c->size.in[IN_LATENT_STATS][1] / 2, c->attr->i[ATTR_LATENT_SAMPLE], noise_of(c),
                                stream_of(c)));
}

static void latent_backward(const struct call *c)
{
    keep(c, latent_backward_cuda(c->out[OUT_LATENT_BACKWARD_DSTATS], c->in[IN_LATENT_BACKWARD_DZ],
                                 c->in[IN_LATENT_BACKWARD_DKL], c->in[IN_LATENT_BACKWARD_STATS],
                                 c->in[IN_LATENT_BACKWARD_SAMPLE], c->size.in[IN_LATENT_BACKWARD_STATS][0],
                                 c->size.in[IN_LATENT_BACKWARD_STATS][1] / 2, c->attr->i[ATTR_LATENT_SAMPLE],
                                 c->add[OUT_LATENT_BACKWARD_DSTATS], noise_of(c), stream_of(c)));
}

static void column_moments(const struct call *c)
{
    keep(c, column_moments_cuda(c->out[OUT_COLUMN_MOMENTS_Y], c->in[IN_COLUMN_MOMENTS_X], header_of(c),
                                c->size.in[IN_COLUMN_MOMENTS_X][1], stream_of(c)));
}

/* The true rows of an op that says of which kind its rows are: their address on the device. */
static const uint64_t *counted_of(const struct call *c)
{
    return header_of(c)->count + c->attr->i[ATTR_ROWS];
}

static void gaussian_log_density(const struct call *c)
{
    keep(c,
         gaussian_log_density_cuda(
             c->out[OUT_GAUSSIAN_LOG_DENSITY_Y], c->in[IN_GAUSSIAN_LOG_DENSITY_Z], c->in[IN_GAUSSIAN_LOG_DENSITY_STATS],
             counted_of(c), c->size.in[IN_GAUSSIAN_LOG_DENSITY_Z][0], c->size.in[IN_GAUSSIAN_LOG_DENSITY_Z][1],
             !c->size.in[IN_GAUSSIAN_LOG_DENSITY_STATS][1], (float)c->attr->f[ATTR_SIGN], stream_of(c)));
}

static void gaussian_log_density_backward(const struct call *c)
{
    keep(c, gaussian_log_density_backward_cuda(
                c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ], c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS],
                c->in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_DY], c->in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z],
                c->in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_STATS], counted_of(c),
                c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][0], c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][1],
                !c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_STATS][1], (float)c->attr->f[ATTR_SIGN], c->add,
                stream_of(c)));
}

static void gaussian_kl(const struct call *c)
{
    keep(c, gaussian_kl_cuda(c->out[OUT_GAUSSIAN_KL_KL], c->in[IN_GAUSSIAN_KL_STATS], c->in[IN_GAUSSIAN_KL_PRIOR],
                             counted_of(c), c->size.in[IN_GAUSSIAN_KL_STATS][0], c->size.out[OUT_GAUSSIAN_KL_KL][1],
                             stream_of(c)));
}

static void gaussian_kl_backward(const struct call *c)
{
    keep(c, gaussian_kl_backward_cuda(c->out[OUT_GAUSSIAN_KL_BACKWARD_DSTATS], c->out[OUT_GAUSSIAN_KL_BACKWARD_DPRIOR],
                                      c->in[IN_GAUSSIAN_KL_BACKWARD_DKL], c->in[IN_GAUSSIAN_KL_BACKWARD_STATS],
                                      c->in[IN_GAUSSIAN_KL_BACKWARD_PRIOR], counted_of(c),
                                      c->size.in[IN_GAUSSIAN_KL_BACKWARD_STATS][0],
                                      c->size.in[IN_GAUSSIAN_KL_BACKWARD_PRIOR][0] / 2, c->add, stream_of(c)));
}

static struct kernel_mixture mixture_of(const struct call *c)
{
    size_t width = c->size.in[IN_MIXTURE_LOG_DENSITY_Z][1], count = (size_t)c->attr->i[ATTR_COMPONENTS];
    bool rows = c->size.in[IN_MIXTURE_LOG_DENSITY_COMPONENTS][1] == 2 * width;
    return (struct kernel_mixture){count, width, rows ? 2 * width : width, rows ? width : count * width};
}

static void mixture_log_density(const struct call *c)
{
    struct kernel_mixture m = mixture_of(c);
    keep(c, mixture_log_density_cuda(c->out[OUT_MIXTURE_LOG_DENSITY_Y], c->out[OUT_MIXTURE_LOG_DENSITY_SHARES],
                                     c->in[IN_MIXTURE_LOG_DENSITY_Z], c->in[IN_MIXTURE_LOG_DENSITY_COMPONENTS],
                                     c->in[IN_MIXTURE_LOG_DENSITY_LOGITS], counted_of(c),
                                     c->size.in[IN_MIXTURE_LOG_DENSITY_Z][0], &m, (float)c->attr->f[ATTR_SIGN],
                                     stream_of(c)));
}

static void mixture_log_density_backward(const struct call *c)
{
    struct kernel_mixture m = mixture_of(c);
    keep(c, mixture_log_density_backward_cuda(
                c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ], c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS],
                c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS], c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_DY],
                c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_SHARES], c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z],
                c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_COMPONENTS], c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_LOGITS],
                counted_of(c), c->size.in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z][0], &m, (float)c->attr->f[ATTR_SIGN],
                c->add, stream_of(c)));
}

static void spread_hinge(const struct call *c)
{
    keep(c, spread_hinge_cuda(c->out[OUT_SPREAD_HINGE_Y], c->out[OUT_SPREAD_HINGE_SPREAD], c->in[IN_SPREAD_HINGE_STATS],
                              counted_of(c), c->size.in[IN_SPREAD_HINGE_STATS][1] / 2, (float)c->attr->f[ATTR_MARGIN],
                              stream_of(c)));
}

static void spread_hinge_backward(const struct call *c)
{
    keep(c, spread_hinge_backward_cuda(c->out[OUT_SPREAD_HINGE_BACKWARD_DSTATS], c->in[IN_SPREAD_HINGE_BACKWARD_DY],
                                       c->in[IN_SPREAD_HINGE_BACKWARD_STATS], c->in[IN_SPREAD_HINGE_BACKWARD_SPREAD],
                                       counted_of(c), c->size.in[IN_SPREAD_HINGE_BACKWARD_STATS][0],
                                       c->size.in[IN_SPREAD_HINGE_BACKWARD_STATS][1] / 2,
                                       c->add[OUT_SPREAD_HINGE_BACKWARD_DSTATS], stream_of(c)));
}

/* ---- posteriors ---- */

_Static_assert((int)KERNEL_POSTERIOR_DELTA == (int)POSTERIOR_DELTA &&
                   (int)KERNEL_POSTERIOR_SLASHED == (int)POSTERIOR_SLASHED &&
                   (int)KERNEL_POSTERIOR_FLOOR == (int)POSTERIOR_FLOOR,
               "kernels number maps as the ops do");

static struct kernel_posterior posterior_of(const struct call *c)
{
    const double *f = c->attr->f;
    double p = f[ATTR_POSTERIOR_DROP];
    return (struct kernel_posterior){.map = (int)c->attr->i[ATTR_POSTERIOR_MAP],
                                     .real = f[ATTR_POSTERIOR_REAL],
                                     .least = f[ATTR_POSTERIOR_LEAST],
                                     .most = f[ATTR_POSTERIOR_MOST],
                                     .p = p,
                                     .threshold = (uint32_t)fmin(p * 0x1p32, 0xffffffffp0),
                                     .noise = noise_of(c)};
}

static const float *drops_of(const struct call *c)
{
    return c->in[IN_POSTERIOR_SWITCHES]
               ? (const float *)c->in[IN_POSTERIOR_SWITCHES] + c->attr->i[ATTR_POSTERIOR_SWITCH]
               : NULL;
}

static void posterior(const struct call *c)
{
    struct kernel_posterior p = posterior_of(c);
    keep(c,
         posterior_cuda(c->out[OUT_POSTERIOR_STATS], c->in[IN_POSTERIOR_HEAD], c->in[IN_POSTERIOR_SAMPLE], drops_of(c),
                        &p, c->size.in[IN_POSTERIOR_HEAD][0], c->size.in[IN_POSTERIOR_HEAD][1] / 2, stream_of(c)));
}

static void posterior_backward(const struct call *c)
{
    struct kernel_posterior p = posterior_of(c);
    keep(c, posterior_backward_cuda(c->out[OUT_POSTERIOR_BACKWARD_DHEAD], c->in[IN_POSTERIOR_BACKWARD_DSTATS],
                                    c->in[IN_POSTERIOR_BACKWARD_HEAD], c->in[IN_POSTERIOR_BACKWARD_SAMPLE], drops_of(c),
                                    &p, c->size.in[IN_POSTERIOR_BACKWARD_HEAD][0],
                                    c->size.in[IN_POSTERIOR_BACKWARD_HEAD][1] / 2, c->add[OUT_POSTERIOR_BACKWARD_DHEAD],
                                    stream_of(c)));
}

static struct kernel_normalize normalize_of(const struct call *c)
{
    const int64_t *i = c->attr->i;
    enum dim_kind rows = (enum dim_kind)i[ATTR_NORMALIZE_ROWS];
    return (struct kernel_normalize){.rows = c->size.in[IN_NORMALIZE_X][0],
                                     .width = c->size.in[IN_NORMALIZE_X][1],
                                     .groups = (size_t)i[ATTR_NORMALIZE_GROUPS],
                                     .columns = (size_t)i[ATTR_NORMALIZE_COLUMNS],
                                     .by_row = i[ATTR_NORMALIZE_SCOPE] == NORMALIZE_ROWS,
                                     .center = i[ATTR_NORMALIZE_CENTER],
                                     .batch = i[ATTR_NORMALIZE_BATCH],
                                     .level = c->attr->f[ATTR_NORMALIZE_LEVEL],
                                     .epsilon = c->attr->f[ATTR_NORMALIZE_EPSILON],
                                     .counted = rows == DIM_FIXED ? NULL : header_of(c)->count + rows};
}

static void normalize(const struct call *c)
{
    struct kernel_normalize n = normalize_of(c);
    keep(c, normalize_cuda(c->out[OUT_NORMALIZE_Y], c->out[OUT_NORMALIZE_USED], c->out[OUT_NORMALIZE_SUMS],
                           c->in[IN_NORMALIZE_X], c->in[IN_NORMALIZE_RUNNING], c->in[IN_NORMALIZE_GAIN],
                           c->in[IN_NORMALIZE_BIAS], &n, stream_of(c)));
}

static void normalize_backward(const struct call *c)
{
    struct kernel_normalize n = normalize_of(c);
    struct kernel_adds add = {c->add[OUT_NORMALIZE_BACKWARD_DX], c->add[OUT_NORMALIZE_BACKWARD_DGAIN],
                              c->add[OUT_NORMALIZE_BACKWARD_DBIAS]};
    keep(c, normalize_backward_cuda(c->out[OUT_NORMALIZE_BACKWARD_DX], c->out[OUT_NORMALIZE_BACKWARD_DGAIN],
                                    c->out[OUT_NORMALIZE_BACKWARD_DBIAS], c->in[IN_NORMALIZE_BACKWARD_DY],
                                    c->in[IN_NORMALIZE_BACKWARD_X], c->in[IN_NORMALIZE_BACKWARD_GAIN],
                                    c->in[IN_NORMALIZE_BACKWARD_USED], &n, add, stream_of(c)));
}

static void running(const struct call *c)
{
    keep(c, running_cuda(c->out[OUT_RUNNING_STATISTICS], c->in[IN_RUNNING_SUMS], c->in[IN_RUNNING_CONTROL],
                         c->size.out[OUT_RUNNING_STATISTICS][1], c->attr->i[ATTR_RUNNING_CENTER],
                         c->attr->f[ATTR_RUNNING_SHARE], stream_of(c)));
}

/* ---- loss: chunks of rows; the products see a vocabulary that is a multiple of VOCABULARY_ALIGNMENT, or they would
 * run at a fraction of their speed: logits have such rows, and so has a copy of the weights where the vocabulary is
 * none ---- */

static size_t padded(size_t vocabulary)
{
    return (vocabulary + VOCABULARY_ALIGNMENT - 1) / VOCABULARY_ALIGNMENT * VOCABULARY_ALIGNMENT;
}

static size_t most_rows(size_t vocabulary, size_t element)
{
    size_t most = CHUNK_BYTES / element / padded(vocabulary);
    return most < LEAST_ROWS ? (size_t)LEAST_ROWS : most;
}

static size_t chunk_rows(size_t rows, size_t vocabulary, size_t element)
{
    size_t most = most_rows(vocabulary, element);
    if (rows <= most) return rows ? rows : 1;
    size_t chunks = (rows + most - 1) / most;
    return (rows + chunks - 1) / chunks;
}

static size_t logits_bytes(size_t rows, size_t vocabulary, size_t element)
{
    return chunk_rows(rows, vocabulary, element) * padded(vocabulary) * element;
}

/* The weights with rows of zeros up to the padded vocabulary, behind the logits. */
static const void *padded_weights(const struct call *c, size_t rows, size_t element)
{
    size_t v = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][0], d = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][1],
           bytes = v * d * element;
    if (v == padded(v)) return c->in[IN_LINEAR_CROSS_ENTROPY_W];
    char *to = (char *)c->scratch + logits_bytes(rows, v, element);
    keep(c, cudaMemcpyAsync(to, c->in[IN_LINEAR_CROSS_ENTROPY_W], bytes, cudaMemcpyDeviceToDevice, cuda_of(c)->stream));
    keep(c, cudaMemsetAsync(to + bytes, 0, (padded(v) - v) * d * element, cuda_of(c)->stream));
    return to;
}

/* dw (v, d) (+)= logits^T y: first the rows that are a multiple of the alignment, then the rest. */
static void weights_gradient(const struct call *c, float *dw, const char *logits, struct cuda_matrix y, size_t rows,
                             bool add)
{
    size_t d = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][1], v = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][0],
           element = dtype_bytes(c->in_type[IN_LINEAR_CROSS_ENTROPY_Y]);
    size_t even = v / VOCABULARY_ALIGNMENT * VOCABULARY_ALIGNMENT, from[] = {0, even}, count[] = {even, v - even};
    for (unsigned k = 0; k < 2; k++) {
        struct cuda_product p = {.m = count[k],
                                 .n = d,
                                 .k = rows,
                                 .a = {logits + from[k] * element, 1, padded(v)},
                                 .b = y,
                                 .c = dw + from[k] * d,
                                 .ldc = d,
                                 .add = add,
                                 .type = in_type(c, IN_LINEAR_CROSS_ENTROPY_Y)};
        cuda_product(cuda_of(c), &p);
    }
}

static void cross_entropy(const struct call *c, float *right, const float *dnll, void *dy, float *dw)
{
    enum kernel_type type = in_type(c, IN_LINEAR_CROSS_ENTROPY_Y);
    size_t element = dtype_bytes(c->in_type[IN_LINEAR_CROSS_ENTROPY_Y]), d = c->size.in[IN_LINEAR_CROSS_ENTROPY_Y][1],
           v = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][0], stride = padded(v);
    size_t n = c->size.in[IN_LINEAR_CROSS_ENTROPY_Y][0], rows = chunk_rows(n, v, element);
    const char *y = c->in[IN_LINEAR_CROSS_ENTROPY_Y];
    const void *w = padded_weights(c, n, element);
    const int32_t *labels = c->in[IN_LINEAR_CROSS_ENTROPY_LABELS];
    float *nll = c->out[OUT_LINEAR_CROSS_ENTROPY_NLL];
    void *logits = c->scratch;
    for (size_t from = 0; from < n || from == 0; from += rows) {
        size_t count = n - from < rows ? n - from : rows;
        struct cuda_matrix chunk = {y + from * d * element, d, 1};
        struct cuda_product p = {.m = count,
                                 .n = stride,
                                 .k = d,
                                 .a = chunk,
                                 .b = {w, 1, d},
                                 .c = logits,
                                 .ldc = stride,
                                 .type = type,
                                 .out = type};
        cuda_product(cuda_of(c), &p);
        keep(c, softmax_loss_cuda(nll + from, right ? right + from : NULL, logits, labels + from,
                                  dnll ? dnll + from : NULL, count, v, stride, type, stream_of(c)));
        if (dy) {
            struct cuda_product q = {.m = count,
                                     .n = d,
                                     .k = stride,
                                     .a = {logits, stride, 1},
                                     .b = {w, d, 1},
                                     .c = (char *)dy + from * d * element,
                                     .ldc = d,
                                     .add = c->add[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DY],
                                     .type = type,
                                     .out = type};
            cuda_product(cuda_of(c), &q);
        }
        if (dw) weights_gradient(c, dw, logits, chunk, count, c->add[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DW] || from > 0);
    }
}

static void linear_cross_entropy(const struct call *c)
{
    cross_entropy(c, c->out[OUT_LINEAR_CROSS_ENTROPY_RIGHT], NULL, NULL, NULL);
}

static void linear_cross_entropy_train(const struct call *c)
{
    cross_entropy(c, NULL, c->in[IN_LINEAR_CROSS_ENTROPY_TRAIN_DNLL], c->out[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DY],
                  c->out[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DW]);
}

static void linear_cross_entropy_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    size_t element = dtype_bytes(c->in_type[IN_LINEAR_CROSS_ENTROPY_Y]), v = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][0],
           most = most_rows(v, element), rows = c->size.in[IN_LINEAR_CROSS_ENTROPY_Y][0];
    rows = !rows ? 1 : rows < most ? rows : most; /* fewer rows than the capacity may be in larger chunks */
    *shared = rows * padded(v) * element +
              (v == padded(v) ? 0 : padded(v) * c->size.in[IN_LINEAR_CROSS_ENTROPY_W][1] * element);
}

static void bag_cross_entropy(const struct call *c)
{
    keep(c, bag_cross_entropy_cuda(c->out[OUT_BAG_CROSS_ENTROPY_LOSS], c->out[OUT_BAG_CROSS_ENTROPY_BAG],
                                   c->in[IN_BAG_CROSS_ENTROPY_LOGITS], c->in[IN_BAG_CROSS_ENTROPY_LABELS],
                                   c->in[IN_BAG_CROSS_ENTROPY_OFFSETS], header_of(c),
                                   c->size.in[IN_BAG_CROSS_ENTROPY_LOGITS][0],
                                   c->size.in[IN_BAG_CROSS_ENTROPY_LOGITS][1], stream_of(c)));
}

static void bag_cross_entropy_backward(const struct call *c)
{
    keep(c,
         bag_cross_entropy_backward_cuda(
             c->out[OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS], c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_DLOSS],
             c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS], c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_LABELS],
             c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_OFFSETS], c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_BAG], header_of(c),
             c->size.in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS][0], c->size.in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS][1],
             c->add[OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS], stream_of(c)));
}

static struct kernel_free_bits free_bits_of(const struct call *c)
{
    const int64_t *i = c->attr->i;
    return (struct kernel_free_bits){.groups = (size_t)i[ATTR_FREE_GROUPS],
                                     .nats = (float)c->attr->f[ATTR_FREE_NATS],
                                     .mask = i[ATTR_FREE_FORM] == FREE_MASK,
                                     .sentence = i[ATTR_FREE_SCOPE] == FREE_SENTENCE};
}

static void elbo(const struct call *c)
{
    keep(c, elbo_forward_cuda(c->out[OUT_ELBO_PARTS], c->out[OUT_ELBO_KL_DIM], c->in[IN_ELBO_NLL], c->in[IN_ELBO_KL],
                              c->in[IN_ELBO_WEIGHTS], header_of(c), c->size.in[IN_ELBO_KL][1], free_bits_of(c),
                              stream_of(c)));
}

static void elbo_backward(const struct call *c)
{
    keep(c, elbo_backward_cuda(c->out[OUT_ELBO_BACKWARD_DNLL], c->out[OUT_ELBO_BACKWARD_DKL],
                               c->in[IN_ELBO_BACKWARD_KL], c->in[IN_ELBO_BACKWARD_WEIGHTS], header_of(c),
                               c->size.out[OUT_ELBO_BACKWARD_DNLL][0], c->size.in[IN_ELBO_BACKWARD_KL][0],
                               c->size.in[IN_ELBO_BACKWARD_KL][1], free_bits_of(c), stream_of(c)));
}

_Static_assert((int)KERNEL_MOST_TERMS >= (int)OBJECTIVE_TERMS && (int)KERNEL_OBJECTIVE_OUTPUTS == (int)MAX_OUTPUTS &&
                   (int)KERNEL_OBJECTIVE_ELBO == (int)OBJECTIVE_ELBO,
               "kernels take what the objective has");

static void objective(const struct call *c)
{
    const float *terms[OBJECTIVE_TERMS];
    unsigned weight[OBJECTIVE_TERMS];
    size_t count = c->size.out[OUT_OBJECTIVE_PARTS][0] - ELBO_PARTS;
    for (size_t k = 0; k < count; k++) {
        terms[k] = c->in[2 + k];
        weight[k] = objective_index(c->attr, k);
    }
    keep(c, objective_cuda(c->out[OUT_OBJECTIVE_PARTS], c->in[IN_OBJECTIVE_ELBO], c->in[IN_OBJECTIVE_WEIGHTS], terms,
                           weight, ELBO_PARTS, count, stream_of(c)));
}

static void objective_backward(const struct call *c)
{
    float *d[MAX_OUTPUTS];
    unsigned index[MAX_OUTPUTS];
    size_t count[MAX_OUTPUTS];
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
        d[k] = c->out[k];
        index[k] = objective_index(c->attr, k);
        count[k] = c->size.out[k][0];
    }
    keep(c, objective_backward_cuda(d, c->in[IN_OBJECTIVE_BACKWARD_WEIGHTS], index, count, c->add, stream_of(c)));
}

/* ---- elementwise ---- */

static void add(const struct call *c)
{
    keep(c, add_cuda(c->out[OUT_ADD_Y], c->in[IN_ADD_A], c->in[IN_ADD_B], elements(c->size.out[OUT_ADD_Y]),
                     c->add[OUT_ADD_Y], out_type(c, OUT_ADD_Y), in_type(c, IN_ADD_A), stream_of(c)));
}

static void gelu(const struct call *c)
{
    keep(c, gelu_forward_cuda(c->out[OUT_UNARY_Y], c->in[IN_UNARY_X], elements(c->size.out[OUT_UNARY_Y]),
                              in_type(c, IN_UNARY_X), stream_of(c)));
}

static void activation_tanh(const struct call *c)
{
    keep(c, tanh_forward_cuda(c->out[OUT_UNARY_Y], c->in[IN_UNARY_X], elements(c->size.out[OUT_UNARY_Y]),
                              in_type(c, IN_UNARY_X), stream_of(c)));
}

static void activation_tanh_backward(const struct call *c)
{
    keep(c, tanh_backward_cuda(c->out[OUT_UNARY_BACKWARD_DX], c->in[IN_UNARY_BACKWARD_DY],
                               c->in[IN_UNARY_BACKWARD_READ], elements(c->size.out[OUT_UNARY_BACKWARD_DX]),
                               c->add[OUT_UNARY_BACKWARD_DX], in_type(c, IN_UNARY_BACKWARD_READ), stream_of(c)));
}

static void gelu_backward(const struct call *c)
{
    keep(c, gelu_backward_cuda(c->out[OUT_UNARY_BACKWARD_DX], c->in[IN_UNARY_BACKWARD_DY],
                               c->in[IN_UNARY_BACKWARD_READ], elements(c->size.out[OUT_UNARY_BACKWARD_DX]),
                               c->add[OUT_UNARY_BACKWARD_DX], in_type(c, IN_UNARY_BACKWARD_READ), stream_of(c)));
}

static void swiglu(const struct call *c)
{
    keep(c, swiglu_forward_cuda(c->out[OUT_UNARY_Y], c->in[IN_UNARY_X], c->size.out[OUT_UNARY_Y][0],
                                c->size.out[OUT_UNARY_Y][1], in_type(c, IN_UNARY_X), stream_of(c)));
}

static void swiglu_backward(const struct call *c)
{
    keep(c,
         swiglu_backward_cuda(c->out[OUT_UNARY_BACKWARD_DX], c->in[IN_UNARY_BACKWARD_DY], c->in[IN_UNARY_BACKWARD_READ],
                              c->size.in[IN_UNARY_BACKWARD_DY][0], c->size.in[IN_UNARY_BACKWARD_DY][1],
                              c->add[OUT_UNARY_BACKWARD_DX], in_type(c, IN_UNARY_BACKWARD_READ), stream_of(c)));
}

static void dropout(const struct call *c)
{
    struct kernel_dropout d = dropout_of(c, IN_DROPOUT_SENTENCE);
    keep(c, dropout_cuda(c->out[OUT_DROPOUT_Y], c->in[IN_DROPOUT_X], &d, c->size.in[IN_DROPOUT_X][0],
                         c->size.in[IN_DROPOUT_X][1], c->add[OUT_DROPOUT_Y], in_type(c, IN_DROPOUT_X), stream_of(c)));
}

/* ---- optimizer ---- */

static void squared_norm(const struct call *c)
{
    keep(c, squared_norm_cuda(c->out[OUT_SQUARED_NORM_RECORD], c->scratch, c->in[IN_SQUARED_NORM_GRADIENT],
                              c->size.in[IN_SQUARED_NORM_GRADIENT][0], stream_of(c)));
}

static void squared_norm_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = squared_norm_scratch_doubles(c->size.in[IN_SQUARED_NORM_GRADIENT][0]) * sizeof(double);
}

static void block_squares(const struct call *c)
{
    keep(c, block_squares_cuda(c->out[OUT_BLOCK_SQUARES_SUMS], c->in[IN_BLOCK_SQUARES_GRADIENT],
                               c->size.in[IN_BLOCK_SQUARES_GRADIENT][0], stream_of(c)));
}

static void combined_norm(const struct call *c)
{
    keep(c, combined_norm_cuda(c->out[OUT_COMBINED_NORM_RECORD], c->scratch, c->in[IN_COMBINED_NORM_SUMS],
                               c->in[IN_COMBINED_NORM_AT], c->size.in[IN_COMBINED_NORM_AT][0], stream_of(c)));
}

static void combined_norm_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared = squared_norm_scratch_doubles(c->size.in[IN_COMBINED_NORM_AT][0] * SQUARES_BLOCK) * sizeof(double);
}

static void select_row(const struct call *c)
{
    keep(c, select_row_cuda(c->out[OUT_SELECT_ROW_Y], c->in[IN_SELECT_ROW_ROWS], c->in[IN_SELECT_ROW_CONTROL],
                            c->in[IN_SELECT_ROW_SCALES], c->size.out[OUT_SELECT_ROW_Y][0], stream_of(c)));
}

static void controller(const struct call *c)
{
    const int64_t *i = c->attr->i;
    keep(c, controller_cuda(
                c->out[OUT_CONTROLLER_STATE], (float *)c->out[OUT_CONTROLLER_SCALES] + i[ATTR_CONTROLLER_INDEX],
                (const float *)c->in[IN_CONTROLLER_FIGURES] + i[ATTR_CONTROLLER_PART], c->in[IN_CONTROLLER_CONTROL],
                c->in[IN_CONTROLLER_SETTINGS], i[ATTR_CONTROLLER_RULE] == CONTROLLER_MULTIPLIER, stream_of(c)));
}

static void guard(const struct call *c)
{
    const float *norms[MOST_NORMS];
    size_t count = 0;
    for (unsigned k = 4; k < MAX_INPUTS; k++)
        if (c->in[k]) norms[count++] = c->in[k];
    keep(c, guard_cuda(c->out[OUT_GUARD_SCALARS], c->out[OUT_GUARD_CONTROL], c->in[IN_GUARD_LOSS], c->in[IN_GUARD_ROWS],
                       c->in[IN_GUARD_SETTINGS], norms, count, c->size.out[OUT_GUARD_SCALARS][0], stream_of(c)));
}

static void adamw(const struct call *c)
{
    keep(c, adamw_cuda(c->out[OUT_ADAMW_WEIGHTS], c->out[OUT_ADAMW_MOMENT1], c->out[OUT_ADAMW_MOMENT2],
                       c->out[OUT_ADAMW_WORKING], c->in[IN_ADAMW_GRADIENT], c->in[IN_ADAMW_SCALARS],
                       c->size.in[IN_ADAMW_GRADIENT][0], (size_t)c->attr->i[ATTR_MOMENTS_FIRST], noise_of(c),
                       out_type(c, OUT_ADAMW_MOMENT1), stream_of(c)));
}

static void sgd(const struct call *c)
{
    keep(c, sgd_cuda(c->out[OUT_SGD_WEIGHTS], c->out[OUT_SGD_MOMENT], c->out[OUT_SGD_WORKING], c->in[IN_SGD_GRADIENT],
                     c->in[IN_SGD_SCALARS], c->size.in[IN_SGD_GRADIENT][0], (size_t)c->attr->i[ATTR_MOMENTS_FIRST],
                     noise_of(c), out_type(c, OUT_SGD_MOMENT), stream_of(c)));
}

/* ---- what kernels cannot do ---- */

static elbo_status refuse_width(const struct call *c, size_t width, elbo_error *error)
{
    size_t most = width * dtype_bytes(c->in_type[IN_NORM_X]) % 16 ? NORM_MOST_UNALIGNED : NORM_MOST_WIDTH;
    if (width <= most) return ELBO_OK;
    return elbo_fail(error, ELBO_DEVICE,
                     "%s: a norm of width %zu, at most %zu on a GPU (%d where a row is not whole 16 bytes); lower "
                     "the width, or use --device=cpu",
                     c->node->name, width, (size_t)NORM_MOST_WIDTH, (int)NORM_MOST_UNALIGNED);
}

static elbo_status norm_refuse(const struct call *c, elbo_error *error)
{
    return refuse_width(c, c->size.in[IN_NORM_X][1], error);
}

static elbo_status attention_refuse(const struct call *c, elbo_error *error)
{
    size_t width = (size_t)c->attr->i[ATTENTION_HEAD_WIDTH];
    if (width <= ATTENTION_MOST_WIDTH) return ELBO_OK;
    return elbo_fail(error, ELBO_DEVICE,
                     "%s: heads of width %zu, at most %d on a GPU; take more heads, or use --device=cpu", c->node->name,
                     width, (int)ATTENTION_MOST_WIDTH);
}

#define CUDA_RUN(name)             [OP_##name].run = name,
#define CUDA_WORKSPACE(name, what) [OP_##name].workspace = what##_workspace
const struct kernel cuda_table[OP_COUNT] = {
    ELBO_OPS(CUDA_RUN) CUDA_WORKSPACE(linear_backward_weight, linear_backward_weight),
    CUDA_WORKSPACE(embedding_backward, embedding_backward),
    CUDA_WORKSPACE(norm_backward, norm_backward),
    CUDA_WORKSPACE(attention_backward, attention_backward),
    CUDA_WORKSPACE(recurrent, cuda_recurrent),
    CUDA_WORKSPACE(recurrent_backward, cuda_recurrent_backward),
    CUDA_WORKSPACE(recurrent_step, cuda_recurrent_step),
    CUDA_WORKSPACE(pool_backward, pool_backward),
    CUDA_WORKSPACE(linear_cross_entropy, linear_cross_entropy),
    CUDA_WORKSPACE(linear_cross_entropy_train, linear_cross_entropy),
    CUDA_WORKSPACE(squared_norm, squared_norm),
    CUDA_WORKSPACE(combined_norm, combined_norm),
    [OP_norm].refuse = norm_refuse,
    [OP_norm_backward].refuse = norm_refuse,
    [OP_attention].refuse = attention_refuse,
    [OP_attention_backward].refuse = attention_refuse,
};
