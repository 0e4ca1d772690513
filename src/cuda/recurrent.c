/* Recurrent layers on a GPU: a product and a fused cell for each step (kernels/recurrent.cu).
 *
 * There are as many steps as rows in the longest sentence's bucket, and each step covers all sentences, so that a
 * captured execution does not depend on the sentences' lengths. The weight gradients are one product over all rows at
 * the end. */
#include "cuda/call.h"
#include "ops/recurrent.h"

enum { ALIGNMENT = 256 };

struct layer {
    struct kernel_recurrent r;
    size_t rows, all, width; /* N, d H, d G H */
    enum kernel_type type;
    const char *w;
};

static size_t bytes_of(enum kernel_type type)
{
    return type == KERNEL_BF16 ? 2 : 4;
}

/* `x`, `w` and `sentences` are inputs; the number of sentences is the first dimension of `sentences` less `extra`. */
static struct layer layer_of(const struct call *c, unsigned x, unsigned w, unsigned sentences, size_t extra)
{
    struct layer l = {.rows = c->size.in[x][0], .type = in_type(c, x), .w = c->in[w]};
    bool gru = c->attr->i[RECURRENT_CELL] == RECURRENT_GRU;
    l.r = (struct kernel_recurrent){.sentences = c->size.in[sentences][0] - extra,
                                    .units = c->size.in[w][1],
                                    .gates = recurrent_gates(gru),
                                    .directions = (size_t)c->attr->i[RECURRENT_DIRECTIONS]};
    l.all = l.r.directions * l.r.units;
    l.width = l.all * l.r.gates;
    return l;
}

static void *take(char **at, size_t bytes)
{
    char *here = *at;
    *at += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return here;
}

/* Returns a direction's weights (G H, H). */
static const void *weights_of(const struct layer *l)
{
    return l->w + l->r.direction * l->r.gates * l->r.units * l->r.units * bytes_of(l->type);
}

static const void *columns(const void *x, size_t first, enum kernel_type type)
{
    return x ? (const char *)x + first * bytes_of(type) : NULL;
}

/* sums (S, G H) = h (S, H) W^T; rows of h are `row` elements apart. */
static void multiply(const struct call *c, const struct layer *l, float *sums, const void *h, size_t row)
{
    size_t units = l->r.units, gates = l->r.gates * units;
    struct cuda_product p = {.m = l->r.sentences, .n = gates, .k = units, .ldc = gates, .c = sums, .type = l->type};
    p.a = (struct cuda_matrix){h, row, 1};
    p.b = (struct cuda_matrix){weights_of(l), 1, units};
    cuda_product(cuda_of(c), &p);
}

/* dh (S, H) = ds (S, G H) W. */
static void multiply_back(const struct call *c, const struct layer *l, float *dh, const void *ds)
{
    size_t units = l->r.units, gates = l->r.gates * units;
    struct cuda_product p = {.m = l->r.sentences, .n = units, .k = gates, .ldc = units, .c = dh, .type = l->type};
    p.a = (struct cuda_matrix){ds, gates, 1};
    p.b = (struct cuda_matrix){weights_of(l), units, 1};
    cuda_product(cuda_of(c), &p);
}

/* ---- forward ---- */

struct forward {
    void *state; /* (S, d H) T   */
    float *sums; /* (S, G H) f32 */
};

static size_t carve_forward(struct forward *f, const struct layer *l, char *scratch)
{
    char *at = scratch;
    f->state = take(&at, l->r.sentences * l->all * bytes_of(l->type));
    f->sums = take(&at, l->r.sentences * l->r.gates * l->r.units * sizeof(float));
    return (size_t)(at - scratch);
}

void cuda_op_recurrent_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    static char base[ALIGNMENT];
    struct forward f;
    struct layer l = layer_of(c, IN_RECURRENT_X, IN_RECURRENT_W, IN_RECURRENT_OFFSETS, 1);
    *shared = carve_forward(&f, &l, base);
}

void cuda_op_recurrent(const struct call *c)
{
    struct forward f;
    struct layer l = layer_of(c, IN_RECURRENT_X, IN_RECURRENT_W, IN_RECURRENT_OFFSETS, 1);
    carve_forward(&f, &l, c->scratch);
    clear(c, c->out[OUT_RECURRENT_Y], IN_RECURRENT_OFFSETS, l.rows, l.all, l.type);
    for (l.r.direction = 0; l.r.direction < l.r.directions; l.r.direction++)
        for (l.r.t = 0; l.r.t < c->longest; l.r.t++) {
            size_t first = l.r.direction * l.r.units;
            const float *sums = l.r.t || c->in[IN_RECURRENT_INITIAL] ? f.sums : NULL;
            if (l.r.t)
                multiply(c, &l, f.sums, columns(f.state, first, l.type), l.all);
            else if (sums)
                multiply(c, &l, f.sums, columns(c->in[IN_RECURRENT_INITIAL], first, l.type),
                         c->size.in[IN_RECURRENT_INITIAL][1]);
            struct recurrent_forward_args args = {.y = c->out[OUT_RECURRENT_Y],
                                                  .kept = c->out[OUT_RECURRENT_GATES],
                                                  .cell = c->out[OUT_RECURRENT_CELL],
                                                  .state = f.state,
                                                  .x = c->in[IN_RECURRENT_X],
                                                  .sums = sums,
                                                  .b = c->in[IN_RECURRENT_B],
                                                  .own = c->in[IN_RECURRENT_OWN],
                                                  .initial = c->in[IN_RECURRENT_INITIAL],
                                                  .offsets = c->in[IN_RECURRENT_OFFSETS],
                                                  .step = &l.r,
                                                  .type = l.type};
            keep(c, recurrent_forward_cuda(&args, stream_of(c)));
        }
}

/* ---- backward ---- */

struct backward {
    void *ds, *dsums, *h; /* (S, G H), (N, d G H), (N, d H) T  */
    float *dh, *carried;  /* (S, H) f32                        */
    float *bias;
};

static size_t carve_backward(struct backward *b, const struct layer *l, char *scratch)
{
    char *at = scratch;
    size_t one = bytes_of(l->type), state = l->r.sentences * l->r.units;
    bool gru = l->r.gates == GRU_GATES;
    b->ds = take(&at, state * l->r.gates * one);
    b->dh = take(&at, state * sizeof(float));
    b->carried = take(&at, state * sizeof(float));
    b->h = take(&at, l->rows * l->all * one);
    b->dsums = gru ? take(&at, l->rows * l->width * one) : NULL;
    b->bias = gru ? take(&at, bias_scratch_floats(l->rows, l->width) * sizeof(float)) : NULL;
    return (size_t)(at - scratch);
}

void cuda_op_recurrent_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    static char base[ALIGNMENT];
    struct backward b;
    struct layer l = layer_of(c, IN_RECURRENT_BACKWARD_DY, IN_RECURRENT_BACKWARD_W, IN_RECURRENT_BACKWARD_OFFSETS, 1);
    *shared = carve_backward(&b, &l, base);
}

static void weight_gradients(const struct call *c, struct layer *l, const struct backward *b)
{
    if (c->out[OUT_RECURRENT_BACKWARD_DW]) {
        clear(c, b->h, IN_RECURRENT_BACKWARD_OFFSETS, l->rows, l->all, l->type);
        struct recurrent_earlier_args args = {.h = b->h,
                                              .y = c->in[IN_RECURRENT_BACKWARD_Y],
                                              .initial = c->in[IN_RECURRENT_BACKWARD_INITIAL],
                                              .offsets = c->in[IN_RECURRENT_BACKWARD_OFFSETS],
                                              .step = &l->r,
                                              .type = l->type};
        keep(c, recurrent_earlier_cuda(&args, stream_of(c)));
        size_t units = l->r.units, gates = l->r.gates * units;
        for (size_t d = 0; d < l->r.directions; d++) {
            struct cuda_product p = {.m = gates,
                                     .n = units,
                                     .k = l->rows,
                                     .ldc = units,
                                     .add = c->add[OUT_RECURRENT_BACKWARD_DW],
                                     .type = l->type};
            p.c = (float *)c->out[OUT_RECURRENT_BACKWARD_DW] + d * gates * units;
            p.a = (struct cuda_matrix){columns(b->dsums, d * gates, l->type), 1, l->width};
            p.b = (struct cuda_matrix){columns(b->h, d * units, l->type), l->all, 1};
            cuda_product(cuda_of(c), &p);
        }
    }
    if (c->out[OUT_RECURRENT_BACKWARD_DB])
        keep(c, bias_backward_cuda(&(struct bias_backward_args){.dbias = c->out[OUT_RECURRENT_BACKWARD_DB],
                                                                .scratch = b->bias,
                                                                .dy = b->dsums,
                                                                .rows = l->rows,
                                                                .width = l->width,
                                                                .add = c->add[OUT_RECURRENT_BACKWARD_DB],
                                                                .type = l->type},
                                   stream_of(c)));
}

void cuda_op_recurrent_backward(const struct call *c)
{
    struct backward b;
    struct layer l = layer_of(c, IN_RECURRENT_BACKWARD_DY, IN_RECURRENT_BACKWARD_W, IN_RECURRENT_BACKWARD_OFFSETS, 1);
    carve_backward(&b, &l, c->scratch);
    clear(c, c->out[OUT_RECURRENT_BACKWARD_DX], IN_RECURRENT_BACKWARD_OFFSETS, l.rows, l.width, l.type);
    clear(c, b.dsums, IN_RECURRENT_BACKWARD_OFFSETS, l.rows, l.width, l.type);
    for (l.r.direction = 0; l.r.direction < l.r.directions; l.r.direction++) {
        for (l.r.t = c->longest; l.r.t-- > 0;) {
            bool last = l.r.t + 1 == c->longest;
            if (!last) multiply_back(c, &l, b.dh, b.ds);
            keep(c, recurrent_backward_cuda(
                        &(struct recurrent_backward_args){.dx = c->out[OUT_RECURRENT_BACKWARD_DX],
                                                          .dsums = b.dsums,
                                                          .ds = b.ds,
                                                          .carried = b.carried,
                                                          .dy = c->in[IN_RECURRENT_BACKWARD_DY],
                                                          .dh = last ? NULL : b.dh,
                                                          .kept = c->in[IN_RECURRENT_BACKWARD_GATES],
                                                          .cell = c->in[IN_RECURRENT_BACKWARD_CELL],
                                                          .y = c->in[IN_RECURRENT_BACKWARD_Y],
                                                          .initial = c->in[IN_RECURRENT_BACKWARD_INITIAL],
                                                          .offsets = c->in[IN_RECURRENT_BACKWARD_OFFSETS],
                                                          .step = &l.r,
                                                          .type = l.type},
                        stream_of(c)));
        }
        if (!c->out[OUT_RECURRENT_BACKWARD_DINITIAL]) continue;
        if (c->longest) multiply_back(c, &l, b.dh, b.ds);
        keep(c, recurrent_initial_cuda(
                    &(struct recurrent_initial_args){.dinitial = c->out[OUT_RECURRENT_BACKWARD_DINITIAL],
                                                     .dh = b.dh,
                                                     .carried = b.carried,
                                                     .offsets = c->in[IN_RECURRENT_BACKWARD_OFFSETS],
                                                     .step = &l.r,
                                                     .type = l.type},
                    stream_of(c)));
    }
    if (!b.dsums) b.dsums = c->out[OUT_RECURRENT_BACKWARD_DX];
    weight_gradients(c, &l, &b);
}

/* ---- one new token per row ---- */

struct step {
    void *h;     /* (R, H) T     */
    float *sums; /* (R, G H) f32 */
};

static size_t carve_step(struct step *s, const struct layer *l, char *scratch)
{
    char *at = scratch;
    s->h = take(&at, l->rows * l->all * bytes_of(l->type));
    s->sums = take(&at, l->rows * l->width * sizeof(float));
    return (size_t)(at - scratch);
}

void cuda_op_recurrent_step_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    static char base[ALIGNMENT];
    struct step s;
    struct layer l = layer_of(c, IN_RECURRENT_STEP_X, IN_RECURRENT_STEP_W, IN_RECURRENT_STEP_X, 0);
    *shared = carve_step(&s, &l, base);
}

void cuda_op_recurrent_step(const struct call *c)
{
    struct step s;
    struct layer l = layer_of(c, IN_RECURRENT_STEP_X, IN_RECURRENT_STEP_W, IN_RECURRENT_STEP_X, 0);
    size_t room = c->in[IN_RECURRENT_STEP_HISTORY] ? c->size.in[IN_RECURRENT_STEP_HISTORY][1] : 0;
    carve_step(&s, &l, c->scratch);
    struct recurrent_gather_args args = {.h = s.h,
                                         .state = c->out[OUT_RECURRENT_STEP_STATE],
                                         .initial = c->in[IN_RECURRENT_STEP_INITIAL],
                                         .position = c->in[IN_RECURRENT_STEP_POSITION],
                                         .history = c->in[IN_RECURRENT_STEP_HISTORY],
                                         .room = room,
                                         .step = &l.r,
                                         .type = l.type};
    keep(c, recurrent_gather_cuda(&args, stream_of(c)));
    multiply(c, &l, s.sums, s.h, l.all);
    struct recurrent_step_args step = {.y = c->out[OUT_RECURRENT_STEP_Y],
                                       .state = c->out[OUT_RECURRENT_STEP_STATE],
                                       .x = c->in[IN_RECURRENT_STEP_X],
                                       .sums = s.sums,
                                       .b = c->in[IN_RECURRENT_STEP_B],
                                       .own = c->in[IN_RECURRENT_STEP_OWN],
                                       .initial = c->in[IN_RECURRENT_STEP_INITIAL],
                                       .position = c->in[IN_RECURRENT_STEP_POSITION],
                                       .history = c->in[IN_RECURRENT_STEP_HISTORY],
                                       .room = room,
                                       .step = &l.r,
                                       .type = l.type};
    keep(c, recurrent_step_cuda(&step, stream_of(c)));
}
