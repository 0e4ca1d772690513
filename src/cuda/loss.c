/* The reconstruction loss, the ELBO and the objective. The loss runs in chunks of rows. Its products see a vocabulary
 * padded to a multiple of VOCABULARY_ALIGNMENT, because they run at a fraction of their speed otherwise. The logits
 * have padded rows, and the weights are copied where the vocabulary is not a multiple. */
#include "cuda/call.h"

enum { CHUNK_BYTES = 512 << 20, LEAST_ROWS = 16, VOCABULARY_ALIGNMENT = 128 };

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

/* Returns the weights with rows of zeros up to the padded vocabulary, copied behind the logits. */
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

/* dw (v, d) (+)= logits^T y: first the rows up to a multiple of the alignment, then the rest. */
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
        struct softmax_loss_args args = {.nll = nll + from,
                                         .right = right ? right + from : NULL,
                                         .logits = logits,
                                         .labels = labels + from,
                                         .dnll = dnll ? dnll + from : NULL,
                                         .rows = count,
                                         .vocabulary = v,
                                         .stride = stride,
                                         .type = type};
        keep(c, softmax_loss_cuda(&args, stream_of(c)));
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

void cuda_op_linear_cross_entropy(const struct call *c)
{
    cross_entropy(c, c->out[OUT_LINEAR_CROSS_ENTROPY_RIGHT], NULL, NULL, NULL);
}

void cuda_op_linear_cross_entropy_train(const struct call *c)
{
    cross_entropy(c, NULL, c->in[IN_LINEAR_CROSS_ENTROPY_TRAIN_DNLL], c->out[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DY],
                  c->out[OUT_LINEAR_CROSS_ENTROPY_TRAIN_DW]);
}

void cuda_op_linear_cross_entropy_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    size_t element = dtype_bytes(c->in_type[IN_LINEAR_CROSS_ENTROPY_Y]), v = c->size.in[IN_LINEAR_CROSS_ENTROPY_W][0],
           most = most_rows(v, element), rows = c->size.in[IN_LINEAR_CROSS_ENTROPY_Y][0];
    rows = !rows ? 1 : rows < most ? rows : most; /* fewer rows than the capacity may form larger chunks */
    *shared = rows * padded(v) * element +
              (v == padded(v) ? 0 : padded(v) * c->size.in[IN_LINEAR_CROSS_ENTROPY_W][1] * element);
}

void cuda_op_bag_cross_entropy(const struct call *c)
{
    keep(c, bag_cross_entropy_cuda(
                &(struct bag_cross_entropy_args){.out = c->out[OUT_BAG_CROSS_ENTROPY_LOSS],
                                                 .sums = c->out[OUT_BAG_CROSS_ENTROPY_BAG],
                                                 .logits = c->in[IN_BAG_CROSS_ENTROPY_LOGITS],
                                                 .labels = c->in[IN_BAG_CROSS_ENTROPY_LABELS],
                                                 .offsets = c->in[IN_BAG_CROSS_ENTROPY_OFFSETS],
                                                 .header = header_of(c),
                                                 .sentences = c->size.in[IN_BAG_CROSS_ENTROPY_LOGITS][0],
                                                 .vocabulary = c->size.in[IN_BAG_CROSS_ENTROPY_LOGITS][1]},
                stream_of(c)));
}

void cuda_op_bag_cross_entropy_backward(const struct call *c)
{
    keep(c, bag_cross_entropy_backward_cuda(
                &(struct bag_cross_entropy_backward_args){
                    .dlogits = c->out[OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS],
                    .dout = c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_DLOSS],
                    .logits = c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS],
                    .labels = c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_LABELS],
                    .offsets = c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_OFFSETS],
                    .sums = c->in[IN_BAG_CROSS_ENTROPY_BACKWARD_BAG],
                    .header = header_of(c),
                    .sentences = c->size.in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS][0],
                    .vocabulary = c->size.in[IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS][1],
                    .add = c->add[OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS]},
                stream_of(c)));
}

static struct kernel_free_bits free_bits_of(const struct call *c)
{
    const int64_t *i = c->attr->i;
    return (struct kernel_free_bits){.groups = (size_t)i[ATTR_FREE_GROUPS],
                                     .nats = (float)c->attr->f[ATTR_FREE_NATS],
                                     .mask = i[ATTR_FREE_FORM] == FREE_MASK,
                                     .sentence = i[ATTR_FREE_SCOPE] == FREE_SENTENCE};
}

void cuda_op_elbo(const struct call *c)
{
    struct elbo_forward_args args = {.parts = c->out[OUT_ELBO_PARTS],
                                     .kl_dim = c->out[OUT_ELBO_KL_DIM],
                                     .nll = c->in[IN_ELBO_NLL],
                                     .kl = c->in[IN_ELBO_KL],
                                     .weights = c->in[IN_ELBO_WEIGHTS],
                                     .header = header_of(c),
                                     .width = c->size.in[IN_ELBO_KL][1],
                                     .free = free_bits_of(c)};
    keep(c, elbo_forward_cuda(&args, stream_of(c)));
}

void cuda_op_elbo_backward(const struct call *c)
{
    struct elbo_backward_args args = {.dnll = c->out[OUT_ELBO_BACKWARD_DNLL],
                                      .dkl = c->out[OUT_ELBO_BACKWARD_DKL],
                                      .kl = c->in[IN_ELBO_BACKWARD_KL],
                                      .weights = c->in[IN_ELBO_BACKWARD_WEIGHTS],
                                      .header = header_of(c),
                                      .tokens = c->size.out[OUT_ELBO_BACKWARD_DNLL][0],
                                      .sentences = c->size.in[IN_ELBO_BACKWARD_KL][0],
                                      .width = c->size.in[IN_ELBO_BACKWARD_KL][1],
                                      .free = free_bits_of(c)};
    keep(c, elbo_backward_cuda(&args, stream_of(c)));
}

_Static_assert((int)KERNEL_MOST_TERMS >= (int)OBJECTIVE_TERMS && (int)KERNEL_OBJECTIVE_OUTPUTS == (int)MAX_OUTPUTS &&
                   (int)KERNEL_OBJECTIVE_ELBO == (int)OBJECTIVE_ELBO,
               "kernels take what the objective has");

void cuda_op_objective(const struct call *c)
{
    const float *terms[OBJECTIVE_TERMS];
    unsigned weight[OBJECTIVE_TERMS];
    size_t count = c->size.out[OUT_OBJECTIVE_PARTS][0] - ELBO_PARTS;
    for (size_t k = 0; k < count; k++) {
        terms[k] = c->in[2 + k];
        weight[k] = objective_index(c->attr, k);
    }
    struct objective_args args = {.out = c->out[OUT_OBJECTIVE_PARTS],
                                  .elbo = c->in[IN_OBJECTIVE_ELBO],
                                  .weights = c->in[IN_OBJECTIVE_WEIGHTS],
                                  .terms = terms,
                                  .weight = weight,
                                  .parts = ELBO_PARTS,
                                  .count = count};
    keep(c, objective_cuda(&args, stream_of(c)));
}

void cuda_op_objective_backward(const struct call *c)
{
    float *d[MAX_OUTPUTS];
    unsigned index[MAX_OUTPUTS];
    size_t count[MAX_OUTPUTS];
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
        d[k] = c->out[k];
        index[k] = objective_index(c->attr, k);
        count[k] = c->size.out[k][0];
    }
    struct objective_backward_args args = {
        .d = d, .weights = c->in[IN_OBJECTIVE_BACKWARD_WEIGHTS], .index = index, .elements = count, .add = c->add};
    keep(c, objective_backward_cuda(&args, stream_of(c)));
}
