/* The softmax reconstruction loss of one chunk of logits, the ELBO, and the objective, which adds further terms to the
 * ELBO.
 *
 *   nll_r = logsumexp(x_r) - x_r[label];   with dnll: x_r <- dnll_r (softmax(x_r) - onehot), columns past V <- 0
 *   a row with a negative label is masked: nll 0, gradient 0; right_r: 1 where x_r[label] is the maximum, else 0
 *
 * A block per row. One pass computes the running maximum and sum, and a second overwrites the logits with their
 * gradient. HELD: shared memory keeps the row between the passes, if two rows fit on a multiprocessor. Otherwise the
 * second pass reads the row again from its end, which was read last. Both passes go by packs of P; columns past V count
 * as -inf. */
#include "kernels/device.cuh"
#include "kernels/ptx.cuh"

enum { THREADS = 256, ROW_THREADS = 768, LOSS = 0, NLL = 1, KL = 2, KL_FREE = 3, UNDER = 4 };
static constexpr float LOG2E = 1.4426950408889634f;

/* Converts a pack of a row that begins at column i; columns past the vocabulary become -inf. */
template <typename T, int P>
static __device__ __forceinline__ void unpack(float (&to)[P], const pack<T, P> &v, unsigned i, unsigned vocabulary)
{
    KERNEL_UNROLL
    for (int e = 0; e < P; e++) to[e] = to_float(v.v[e]);
    if (i + P <= vocabulary) return;
    KERNEL_UNROLL
    for (int e = 0; e < P; e++)
        if (i + e >= vocabulary) to[e] = -INFINITY;
}

/* Computes the maximum and the sum of exponentials of a row, for every thread of the block. HELD: stores the row to
 * `held`. */
template <typename T, int P, bool HELD>
static __device__ __forceinline__ void row_softmax(float *max_out, float *sum_out, const T *x, T *held,
                                                   unsigned vocabulary, float *scratch)
{
    float row_max = -INFINITY, row_sum = 0;
    for (unsigned i = threadIdx.x * P; i < vocabulary; i += blockDim.x * P) {
        pack<T, P> v = load_pack<T, P>(x + i);
        float value[P], new_max = row_max;
        if (HELD) store_pack(held + i, v);
        unpack(value, v, i, vocabulary);
        KERNEL_UNROLL
        for (int e = 0; e < P; e++) new_max = fmaxf(new_max, value[e]);
        /* -inf - -inf would be NaN; a NaN among the logits must stay NaN. */
        float max_scaled = new_max == -INFINITY ? 0.0f : new_max * LOG2E;
        row_sum *= exp2_fast(row_max * LOG2E - max_scaled);
        KERNEL_UNROLL
        for (int e = 0; e < P; e++) row_sum += exp2_fast(value[e] * LOG2E - max_scaled);
        row_max = new_max;
    }
    float total_max = block_max(row_max, scratch);
    *sum_out = block_sum(row_sum * exp2_fast((row_max - total_max) * LOG2E), scratch);
    *max_out = total_max;
}

template <typename T, int P, bool HELD>
static __global__ void __launch_bounds__(ROW_THREADS, 2)
    softmax_loss_kernel(float *__restrict__ nll, float *__restrict__ right, T *logits,
                        const int32_t *__restrict__ labels, const float *__restrict__ dnll, unsigned vocabulary,
                        unsigned stride)
{
    KERNEL_SHARED(float, scratch, WARP);
    KERNEL_DYNAMIC_SHARED(T, held); /* each thread loads only what it stored, so no barrier is needed */
    size_t row = blockIdx.x;
    T *x = logits + row * stride;
    int32_t label = labels[row];
    float row_max = 0, scale = 0, d = 0;
    if (label < 0) {
        if (threadIdx.x == 0) nll[row] = 0;
        if (threadIdx.x == 0 && right) right[row] = 0;
    } else {
        /* Read before the barriers of row_softmax, because the gradient overwrites it after them. */
        float row_sum, target_logit = to_float(x[label]);
        row_softmax<T, P, HELD>(&row_max, &row_sum, x, held, vocabulary, scratch);
        if (threadIdx.x == 0) nll[row] = row_max + logf(row_sum) - target_logit;
        if (threadIdx.x == 0 && right) right[row] = target_logit >= row_max ? 1.0f : 0.0f;
        if (dnll) d = dnll[row];
        scale = d / row_sum;
    }
    if (!dnll) return;
    /* x <- dnll (softmax(x) - onehot), from the end of the row, which was read last. */
    unsigned turns = (stride / P + blockDim.x - 1) / blockDim.x;
    float max_scaled = row_max * LOG2E;
    for (unsigned turn = turns; turn-- > 0;) {
        unsigned i = (turn * blockDim.x + threadIdx.x) * P;
        if (i >= stride) continue;
        pack<T, P> v = {};
        if (label >= 0 && i < vocabulary) {
            float value[P];
            v = HELD ? load_pack<T, P>(held + i) : load_pack<T, P>(x + i);
            unpack(value, v, i, vocabulary);
            KERNEL_UNROLL
            for (int e = 0; e < P; e++) value[e] = scale * exp2_fast(value[e] * LOG2E - max_scaled);
            if ((unsigned)label - i < P) KERNEL_UNROLL
            for (int e = 0; e < P; e++) value[e] -= (unsigned)label == i + e ? d : 0.0f;
            KERNEL_UNROLL
            for (int e = 0; e < P; e++) v.v[e] = from_float<T>(value[e]);
        }
        store_pack(x + i, v);
    }
}

/* ---- a bag of words: a block per sentence ---- */

enum { LOGSUM, LABELS, NATS, SUMS };

static __global__ void bag_sums_kernel(float *__restrict__ sums, const float *__restrict__ logits,
                                       const int32_t *__restrict__ labels, const int32_t *__restrict__ offsets,
                                       const struct kernel_header *__restrict__ header, size_t vocabulary)
{
    KERNEL_SHARED(float, scratch, WARP);
    KERNEL_SHARED(double, wide, WARP);
    size_t s = blockIdx.x;
    const float *x = logits + s * vocabulary;
    bool counted = s < header->count[HEADER_SENTENCES];
    float row_max = -INFINITY;
    for (size_t i = threadIdx.x; i < vocabulary && counted; i += blockDim.x) row_max = fmaxf(row_max, x[i]);
    row_max = block_max(row_max, scratch);
    double exp_sum = 0, label_logits = 0, count = 0;
    for (size_t i = threadIdx.x; i < vocabulary && counted; i += blockDim.x) exp_sum += (double)expf(x[i] - row_max);
    exp_sum = block_sum(exp_sum, wide);
    int32_t first = counted ? offsets[s] : 0, end = counted ? offsets[s + 1] : 0;
    for (int32_t n = first + (int32_t)threadIdx.x; n < end; n += (int32_t)blockDim.x) {
        if (labels[n] < 0) continue;
        label_logits += (double)x[labels[n]];
        count += 1;
    }
    label_logits = block_sum(label_logits, wide);
    count = block_sum(count, wide);
    if (threadIdx.x) return;
    double logsum = counted ? (double)row_max + log(exp_sum) : 0;
    sums[s * SUMS + LOGSUM] = (float)logsum;
    sums[s * SUMS + LABELS] = (float)count;
    sums[s * SUMS + NATS] = (float)(count * logsum - label_logits);
}

static __global__ void bag_total_kernel(float *__restrict__ out, const float *__restrict__ sums, size_t sentences)
{
    KERNEL_SHARED(double, wide, WARP);
    double nats = 0;
    for (size_t s = threadIdx.x; s < sentences; s += blockDim.x) nats += (double)sums[s * SUMS + NATS];
    nats = block_sum(nats, wide);
    if (threadIdx.x == 0) out[0] = (float)nats;
}

/* dlogits (+)= dout (labels softmax - count of the word). The thread of a word's first place in the sentence subtracts
 * all of its occurrences. */
static __global__ void bag_backward_kernel(float *dlogits, const float *__restrict__ dout,
                                           const float *__restrict__ logits, const int32_t *__restrict__ labels,
                                           const int32_t *__restrict__ offsets, const float *__restrict__ sums,
                                           const struct kernel_header *__restrict__ header, size_t vocabulary, bool add)
{
    size_t s = blockIdx.x;
    bool counted = s < header->count[HEADER_SENTENCES];
    const float *x = logits + s * vocabulary;
    float *dx = dlogits + s * vocabulary, d = dout[0], logsum = sums[s * SUMS + LOGSUM];
    float scale = counted ? d * sums[s * SUMS + LABELS] : 0.0f;
    for (size_t i = threadIdx.x; i < vocabulary; i += blockDim.x)
        put(&dx[i], counted ? scale * expf(x[i] - logsum) : 0.0f, add);
    __syncthreads(); /* the softmax of all words is written before the labels are subtracted */
    int32_t first = counted ? offsets[s] : 0, end = counted ? offsets[s + 1] : 0;
    for (int32_t n = first + (int32_t)threadIdx.x; n < end; n += (int32_t)blockDim.x) {
        int32_t label = labels[n], k = first;
        float count = 0;
        if (label < 0) continue;
        while (labels[k] != label) k++;
        if (k < n) continue;
        for (; k < end; k++) count += labels[k] == label ? 1.0f : 0.0f;
        dx[label] -= d * count;
    }
}

/* Returns the mean over the sentences of one group's KL, to every thread of the block. */
static __device__ double group_mean(const float *kl, size_t sentences, size_t width, size_t first, size_t group_width,
                                    double *scratch)
{
    double sum = 0;
    for (size_t i = threadIdx.x; i < sentences * group_width; i += blockDim.x)
        sum += kl[i / group_width * width + first + i % group_width];
    sum = block_sum(sum, scratch);
    return sentences ? sum / (double)sentences : 0;
}

static __device__ double sentence_kl(const float *kl, size_t width, size_t s, size_t first, size_t group_width)
{
    double sum = 0;
    for (size_t j = first; j < first + group_width; j++) sum += (double)kl[s * width + j];
    return sum;
}

/* Returns the cost of a part of the KL that counts `times` times: the KL itself above the free nats, else the floor.
 * Adds `times` to `under` for a part at or below the free nats. */
static __device__ double free_bits_cost(struct kernel_free_bits free, double kl, double times, double *under)
{
    if (kl > (double)free.nats) return times * kl;
    *under += times;
    return free.mask ? 0 : times * fmax((double)free.nats, kl);
}

static __global__ void elbo_forward_kernel(float *__restrict__ parts, float *__restrict__ kl_dim,
                                           const float *__restrict__ nll, const float *__restrict__ kl,
                                           const float *__restrict__ weights,
                                           const struct kernel_header *__restrict__ header, size_t width,
                                           struct kernel_free_bits free)
{
    KERNEL_SHARED(double, scratch, WARP);
    size_t tokens = header->count[HEADER_DEC_TOKENS], sentences = header->count[HEADER_SENTENCES];
    size_t groups = free.groups, group_width = groups ? width / groups : 0;
    double sum_nll = 0, sum_kl = 0, sum_free = 0, under = 0;
    for (size_t n = threadIdx.x; n < tokens; n += blockDim.x) sum_nll += nll[n];
    sum_nll = block_sum(sum_nll, scratch);
    if (kl) {
        for (size_t j = threadIdx.x; j < width; j += blockDim.x) {
            double sum = 0;
            for (size_t s = 0; s < sentences; s++) sum += kl[s * width + j];
            kl_dim[j] = (float)sum;
            sum_kl += sum;
        }
        sum_kl = block_sum(sum_kl, scratch);
        if (free.sentence) {
            for (size_t i = threadIdx.x; i < groups * sentences; i += blockDim.x)
                sum_free += free_bits_cost(
                    free, sentence_kl(kl, width, i % sentences, i / sentences * group_width, group_width), 1, &under);
            sum_free = block_sum(sum_free, scratch);
            under = block_sum(under, scratch);
        } else {
            for (size_t k = 0; k < groups; k++)
                sum_free +=
                    free_bits_cost(free, group_mean(kl, sentences, width, k * group_width, group_width, scratch),
                                   (double)sentences, &under);
        }
    }
    if (threadIdx.x == 0) {
        parts[LOSS] = (float)(weights[0] * sum_nll + weights[1] * sum_free);
        parts[NLL] = (float)sum_nll;
        parts[KL] = (float)sum_kl;
        parts[KL_FREE] = (float)sum_free;
        parts[UNDER] = groups ? (float)(under / (double)groups) : 0.0f;
    }
}

/* Blocks 0 .. groups - 1 write the columns of dkl of one group each; all blocks share the rows of dnll. */
static __global__ void elbo_backward_kernel(float *__restrict__ dnll, float *__restrict__ dkl,
                                            const float *__restrict__ kl, const float *__restrict__ weights,
                                            const struct kernel_header *__restrict__ header, size_t tokens,
                                            size_t sentences, size_t width, struct kernel_free_bits free)
{
    KERNEL_SHARED(double, scratch, WARP);
    size_t counted = header->count[HEADER_SENTENCES], true_tokens = header->count[HEADER_DEC_TOKENS];
    for (size_t n = (size_t)blockIdx.x * blockDim.x + threadIdx.x; dnll && n < tokens;
         n += (size_t)gridDim.x * blockDim.x)
        dnll[n] = n < true_tokens ? weights[0] : 0.0f;
    if (!dkl || blockIdx.x >= free.groups) return;
    size_t group_width = width / free.groups, first = blockIdx.x * group_width;
    double mean = free.sentence ? 0 : group_mean(kl, counted, width, first, group_width, scratch);
    for (size_t i = threadIdx.x; i < sentences * group_width; i += blockDim.x) {
        size_t s = i / group_width;
        bool above =
            s < counted && (free.sentence ? sentence_kl(kl, width, s, first, group_width) : mean) > (double)free.nats;
        dkl[s * width + first + i % group_width] = above ? weights[1] : 0.0f;
    }
}

/* ---- the objective: a few numbers, one warp ---- */

struct objective_terms {
    const float *term[KERNEL_MOST_TERMS];
    unsigned weight[KERNEL_MOST_TERMS];
};

static __global__ void objective_kernel(float *__restrict__ out, const float *__restrict__ elbo,
                                        const float *__restrict__ weights, struct objective_terms terms, size_t parts,
                                        size_t count)
{
    size_t i = threadIdx.x;
    if (i >= parts + count) return;
    if (i != LOSS) {
        out[i] = i < parts ? elbo[i] : terms.term[i - parts][0];
        return;
    }
    double loss = (double)elbo[LOSS];
    for (size_t k = 0; k < count; k++) loss += (double)weights[terms.weight[k]] * (double)terms.term[k][0];
    out[LOSS] = (float)loss;
}

struct objective_gradients {
    float *d[KERNEL_OBJECTIVE_OUTPUTS];
    size_t elements[KERNEL_OBJECTIVE_OUTPUTS];
    unsigned index[KERNEL_OBJECTIVE_OUTPUTS];
    bool add[KERNEL_OBJECTIVE_OUTPUTS];
};

/* A thread has the same element of all outputs, one output after the other, because two outputs may be the same array.
 */
static __global__ void objective_backward_kernel(struct objective_gradients to, const float *__restrict__ weights)
{
    for (int k = 0; k < KERNEL_OBJECTIVE_OUTPUTS; k++)
        for (size_t i = threadIdx.x; to.d[k] && i < to.elements[k]; i += blockDim.x) {
            float gradient = i ? 0.0f : to.index[k] == KERNEL_OBJECTIVE_ELBO ? 1.0f : weights[to.index[k]];
            put(&to.d[k][i], gradient, to.add[k]);
        }
}

/* ---- launchers ---- */

/* Returns the dynamic shared memory of each of two blocks on a multiprocessor: half of the limit, less the kernel's
 * static part and what the runtime reserves. */
static size_t half_of_shared(void)
{
    return shared_limit() / 2 - WARP * sizeof(float) - 1024;
}

extern "C" int softmax_loss_cuda(const struct softmax_loss_args *args, kernel_stream stream)
{
    if (!args->rows) return 0;
    KERNEL_DISPATCH(args->type, {
        KERNEL_PACKED(args->stride % (16 / sizeof(T)) == 0 && packs(args->logits), T, {
            unsigned threads = blocks_for(args->vocabulary, P * WARP) * WARP;
            size_t held = args->stride * sizeof(T);
            if (threads > ROW_THREADS) threads = ROW_THREADS;
            KERNEL_FLAG(args->dnll && held <= half_of_shared(), HELD, {
                int e = HELD ? allow_shared(softmax_loss_kernel<T, P, HELD>, held) : 0;
                if (e) return e;
                KERNEL_LAUNCH((softmax_loss_kernel<T, P, HELD>), (unsigned)args->rows, threads, HELD ? held : 0, stream,
                              args->nll, args->right, (T *)args->logits, args->labels, args->dnll,
                              (unsigned)args->vocabulary, (unsigned)args->stride);
            });
        });
    });
    return cudaGetLastError();
}

extern "C" int bag_cross_entropy_cuda(const struct bag_cross_entropy_args *args, kernel_stream stream)
{
    if (args->sentences)
        KERNEL_LAUNCH(bag_sums_kernel, (unsigned)args->sentences, THREADS, 0, stream, args->sums, args->logits,
                      args->labels, args->offsets, args->header, args->vocabulary);
    KERNEL_LAUNCH(bag_total_kernel, 1, THREADS, 0, stream, args->out, args->sums, args->sentences);
    return cudaGetLastError();
}

extern "C" int bag_cross_entropy_backward_cuda(const struct bag_cross_entropy_backward_args *args, kernel_stream stream)
{
    if (!args->sentences) return 0;
    KERNEL_LAUNCH(bag_backward_kernel, (unsigned)args->sentences, THREADS, 0, stream, args->dlogits, args->dout,
                  args->logits, args->labels, args->offsets, args->sums, args->header, args->vocabulary, args->add);
    return cudaGetLastError();
}

extern "C" int elbo_forward_cuda(const struct elbo_forward_args *args, kernel_stream stream)
{
    KERNEL_LAUNCH(elbo_forward_kernel, 1, THREADS, 0, stream, args->parts, args->kl_dim, args->nll, args->kl,
                  args->weights, args->header, args->width, args->free);
    return cudaGetLastError();
}

extern "C" int elbo_backward_cuda(const struct elbo_backward_args *args, kernel_stream stream)
{
    unsigned blocks = blocks_for(args->tokens, THREADS);
    if (args->dkl && blocks < args->free.groups) blocks = (unsigned)args->free.groups;
    if (!blocks) return 0;
    KERNEL_LAUNCH(elbo_backward_kernel, blocks, THREADS, 0, stream, args->dnll, args->dkl, args->kl, args->weights,
                  args->header, args->tokens, args->sentences, args->width, args->free);
    return cudaGetLastError();
}

extern "C" int objective_cuda(const struct objective_args *args, kernel_stream stream)
{
    struct objective_terms all = {};
    if (args->count > KERNEL_MOST_TERMS || args->parts + args->count > WARP) return cudaErrorInvalidValue;
    for (size_t k = 0; k < args->count; k++) {
        all.term[k] = args->terms[k];
        all.weight[k] = args->weight[k];
    }
    KERNEL_LAUNCH(objective_kernel, 1, WARP, 0, stream, args->out, args->elbo, args->weights, all, args->parts,
                  args->count);
    return cudaGetLastError();
}

extern "C" int objective_backward_cuda(const struct objective_backward_args *args, kernel_stream stream)
{
    struct objective_gradients to = {};
    for (int k = 0; k < KERNEL_OBJECTIVE_OUTPUTS; k++) {
        to.d[k] = args->d[k];
        to.elements[k] = args->elements[k];
        to.index[k] = args->index[k];
        to.add[k] = args->add[k];
    }
    KERNEL_LAUNCH(objective_backward_kernel, 1, WARP, 0, stream, to, args->weights);
    return cudaGetLastError();
}
