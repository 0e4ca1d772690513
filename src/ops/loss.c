/* The reconstruction loss, the ELBO, and the objective that adds further terms to the ELBO.
 *
 * nll_n = logsumexp(y_n W^T) - y_n . W[label_n]. The weight of nll in the loss does not depend on nll, because
 * op_elbo's gradient reads the step's scalars only. Therefore, in training, one fused op at the head of the backward
 * pass computes nll, dy and dW from one set of logits per chunk of rows. The forward node does not run, and readers of
 * nll run after the fused op. */
#include "graph/autodiff.h"
#include "ops/loss.h"
#include "ops/ops.h"

value op_linear_cross_entropy(struct graph *g, value y, value w, value labels, value *right)
{
    if (graph_width(g, y) != graph_width(g, w))
        return graph_fail(g, "loss: y has width %zu, the output weights %zu", graph_width(g, y), graph_width(g, w));
    struct node *n = graph_node(g, &op_linear_cross_entropy_type);
    node_in(g, n, IN_LINEAR_CROSS_ENTROPY_Y, y);
    node_in(g, n, IN_LINEAR_CROSS_ENTROPY_W, w);
    node_in(g, n, IN_LINEAR_CROSS_ENTROPY_LABELS, labels);
    if (right)
        *right = node_out(g, n, OUT_LINEAR_CROSS_ENTROPY_RIGHT, "right", DTYPE_F32, 1, (struct dim[]){op_rows(g, y)});
    return node_out(g, n, OUT_LINEAR_CROSS_ENTROPY_NLL, "nll", DTYPE_F32, 1, (struct dim[]){op_rows(g, y)});
}

static void gradient_cross_entropy(struct autodiff *ad, const struct node *n)
{
    value y = n->in[IN_LINEAR_CROSS_ENTROPY_Y], w = n->in[IN_LINEAR_CROSS_ENTROPY_W];
    struct node *b =
        autodiff_emit(ad, &op_linear_cross_entropy_train_type, n, READS(IN_LINEAR_CROSS_ENTROPY_TRAIN_Y, y),
                      TAKES(IN_LINEAR_CROSS_ENTROPY_TRAIN_W, w),
                      TAKES(IN_LINEAR_CROSS_ENTROPY_TRAIN_LABELS, n->in[IN_LINEAR_CROSS_ENTROPY_LABELS]),
                      TAKES(IN_LINEAR_CROSS_ENTROPY_TRAIN_DNLL, autodiff_output(ad, n, OUT_LINEAR_CROSS_ENTROPY_NLL)),
                      GIVES(OUT_LINEAR_CROSS_ENTROPY_TRAIN_DY, y), GIVES(OUT_LINEAR_CROSS_ENTROPY_TRAIN_DW, w));
    autodiff_replace(ad, n, b, OUT_LINEAR_CROSS_ENTROPY_NLL, OUT_LINEAR_CROSS_ENTROPY_TRAIN_NLL);
}

/* The second output (S, 3) holds logsumexp, the number of labels and the sentence's nats, so that the gradient repeats
 * no sum. */
value op_bag_cross_entropy(struct graph *g, value logits, value labels, value offsets)
{
    const struct value_info *x = graph_value(g, logits);
    enum dim_kind rows = x->rank == 2 ? op_rows(g, logits).kind : DIM_FIXED;
    if ((rows != DIM_SENTENCES && rows != DIM_DRAWS) || x->dtype != DTYPE_F32)
        return graph_fail(g, "bag of words: the logits are not a row of f32 for each sentence");
    struct node *n = graph_node(g, &op_bag_cross_entropy_type);
    node_in(g, n, IN_BAG_CROSS_ENTROPY_LOGITS, logits);
    node_in(g, n, IN_BAG_CROSS_ENTROPY_LABELS, labels);
    node_in(g, n, IN_BAG_CROSS_ENTROPY_OFFSETS, offsets);
    node_out(g, n, OUT_BAG_CROSS_ENTROPY_BAG, "bag", DTYPE_F32, 2,
             (struct dim[]){op_rows(g, logits), {DIM_FIXED, BAG_SUMS}});
    return node_out(g, n, OUT_BAG_CROSS_ENTROPY_LOSS, "bag_cross_entropy", DTYPE_F32, 1,
                    (struct dim[]){{DIM_FIXED, 1}});
}

static void gradient_bag(struct autodiff *ad, const struct node *n)
{
    value logits = n->in[IN_BAG_CROSS_ENTROPY_LOGITS];
    autodiff_emit(ad, &op_bag_cross_entropy_backward_type, n,
                  TAKES(IN_BAG_CROSS_ENTROPY_BACKWARD_DLOSS, autodiff_output(ad, n, OUT_BAG_CROSS_ENTROPY_LOSS)),
                  READS(IN_BAG_CROSS_ENTROPY_BACKWARD_LOGITS, logits),
                  TAKES(IN_BAG_CROSS_ENTROPY_BACKWARD_LABELS, n->in[IN_BAG_CROSS_ENTROPY_LABELS]),
                  TAKES(IN_BAG_CROSS_ENTROPY_BACKWARD_OFFSETS, n->in[IN_BAG_CROSS_ENTROPY_OFFSETS]),
                  READS(IN_BAG_CROSS_ENTROPY_BACKWARD_BAG, n->out[OUT_BAG_CROSS_ENTROPY_BAG]),
                  GIVES(OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS, logits));
}

struct elbo_value op_elbo(struct graph *g, value nll, value kl, value weights, const struct free_bits *f)
{
    struct elbo_value out = {NO_VALUE, NO_VALUE};
    size_t width = kl.index ? graph_width(g, kl) : 0;
    size_t groups = f->kind == FREE_TOTAL ? 1 : f->kind == FREE_PER_GROUP ? f->groups : width;
    if (width && (!groups || width % groups)) {
        graph_fail(g, "free bits: %zu groups do not divide %zu latent dimensions", groups, width);
        return out;
    }
    struct node *n = graph_node(g, &op_elbo_type);
    if (!n) return out;
    n->attr.i[ATTR_FREE_GROUPS] = width ? (int64_t)groups : 1;
    n->attr.i[ATTR_FREE_FORM] = f->form;
    n->attr.i[ATTR_FREE_SCOPE] = f->scope;
    n->attr.f[ATTR_FREE_NATS] = f->nats;
    node_in(g, n, IN_ELBO_NLL, nll);
    node_in(g, n, IN_ELBO_KL, kl);
    node_in(g, n, IN_ELBO_WEIGHTS, weights);
    out.loss = node_out(g, n, OUT_ELBO_PARTS, "elbo", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, ELBO_PARTS}});
    if (width) out.kl_dim = node_out(g, n, OUT_ELBO_KL_DIM, "kl_dim", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, width}});
    return out;
}

static void gradient_elbo(struct autodiff *ad, const struct node *n)
{
    autodiff_emit(ad, &op_elbo_backward_type, n, READS(IN_ELBO_BACKWARD_KL, n->in[IN_ELBO_KL]),
                  TAKES(IN_ELBO_BACKWARD_WEIGHTS, n->in[IN_ELBO_WEIGHTS]),
                  GIVES(OUT_ELBO_BACKWARD_DNLL, n->in[IN_ELBO_NLL]), GIVES(OUT_ELBO_BACKWARD_DKL, n->in[IN_ELBO_KL]));
}

value op_objective(struct graph *g, value elbo, const value *terms, const unsigned *weight, size_t count, value weights)
{
    if (count > OBJECTIVE_TERMS)
        return graph_fail(g, "objective: %zu terms, at most %d beside the ELBO", count, (int)OBJECTIVE_TERMS);
    if (graph_value(g, elbo)->rank != 1 || graph_width(g, elbo) != ELBO_PARTS)
        return graph_fail(g, "objective: the first value is not the ELBO's %d parts", (int)ELBO_PARTS);
    struct node *n = graph_node(g, &op_objective_type);
    if (!n) return NO_VALUE;
    node_in(g, n, IN_OBJECTIVE_ELBO, elbo);
    node_in(g, n, IN_OBJECTIVE_WEIGHTS, weights);
    for (size_t k = 0; k < count; k++) {
        const struct value_info *term = graph_value(g, terms[k]);
        if (term->rank != 1 || term->dim[0].kind != DIM_FIXED || term->dim[0].size != 1 || term->dtype != DTYPE_F32)
            return graph_fail(g, "objective: the term %s is not one f32", term->name);
        if (weight[k] >= graph_width(g, weights))
            return graph_fail(g, "objective: the weight of %s is number %u of %zu", term->name, weight[k],
                              graph_width(g, weights));
        node_in(g, n, IN_OBJECTIVE_TERMS + (unsigned)k, terms[k]);
        objective_set(&n->attr, k, weight[k]);
    }
    return node_out(g, n, OUT_OBJECTIVE_PARTS, "objective", DTYPE_F32, 1,
                    (struct dim[]){{DIM_FIXED, ELBO_PARTS + count}});
}

/* Emits the gradients of the ELBO's parts and of the terms, up to MAX_OUTPUTS in a node. */
static void gradient_objective(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    struct node *b = NULL;
    for (unsigned k = 0, slot = 0; k <= OBJECTIVE_TERMS; k++) {
        value v = n->in[k ? IN_OBJECTIVE_TERMS + k - 1 : IN_OBJECTIVE_ELBO];
        if (!autodiff_wants(ad, v)) continue;
        if (!slot) {
            b = autodiff_node(ad, &op_objective_backward_type, n);
            if (!b) return;
            b->attr = (struct attributes){0};
            node_in(g, b, IN_OBJECTIVE_BACKWARD_WEIGHTS, n->in[IN_OBJECTIVE_WEIGHTS]);
        }
        objective_set(&b->attr, slot, k ? objective_index(&n->attr, k - 1) : OBJECTIVE_ELBO);
        autodiff_write(ad, b, OUT_OBJECTIVE_BACKWARD_FIRST + slot, v);
        slot = (slot + 1) % MAX_OUTPUTS;
    }
}

static double flops(const struct shape_view *s, const struct attributes *a)
{
    (void)a;
    return 2.0 * (double)s->in[IN_LINEAR_CROSS_ENTROPY_Y][0] * (double)s->in[IN_LINEAR_CROSS_ENTROPY_Y][1] *
           (double)s->in[IN_LINEAR_CROSS_ENTROPY_W][0];
}

/* Adds the logits of all chunks, of y's type: their product writes them, and the softmax reads them. */
static double bytes(const struct shape_view *s, double plain, double element)
{
    return plain +
           2 * (double)s->in[IN_LINEAR_CROSS_ENTROPY_Y][0] * (double)s->in[IN_LINEAR_CROSS_ENTROPY_W][0] * element;
}

/* Adds what training moves more: the softmax overwrites the logits by their gradient, and two more products read the
 * gradient, y and the weights. */
static double bytes_train(const struct shape_view *s, double plain, double element)
{
    double n = (double)s->in[IN_LINEAR_CROSS_ENTROPY_TRAIN_Y][0],
           width = (double)s->in[IN_LINEAR_CROSS_ENTROPY_TRAIN_Y][1],
           vocabulary = (double)s->in[IN_LINEAR_CROSS_ENTROPY_TRAIN_W][0];
    return plain + (5 * n * vocabulary + n * width + vocabulary * width) * element;
}

static double flops_train(const struct shape_view *s, const struct attributes *a)
{
    return 3 * flops(s, a);
}

const struct op_type op_linear_cross_entropy_type = {.name = "linear_cross_entropy",
                                                     .index = OP_linear_cross_entropy,
                                                     .gradient = gradient_cross_entropy,
                                                     .flops = flops,
                                                     .bytes = bytes};
const struct op_type op_linear_cross_entropy_train_type = {.name = "linear_cross_entropy_train",
                                                           .index = OP_linear_cross_entropy_train,
                                                           .accumulates = SLOT(OUT_LINEAR_CROSS_ENTROPY_TRAIN_DY) |
                                                                          SLOT(OUT_LINEAR_CROSS_ENTROPY_TRAIN_DW),
                                                           .flops = flops_train,
                                                           .bytes = bytes_train};
const struct op_type op_bag_cross_entropy_type = {
    .name = "bag_cross_entropy", .index = OP_bag_cross_entropy, .gradient = gradient_bag};
const struct op_type op_bag_cross_entropy_backward_type = {.name = "bag_cross_entropy_backward",
                                                           .index = OP_bag_cross_entropy_backward,
                                                           .accumulates = SLOT(OUT_BAG_CROSS_ENTROPY_BACKWARD_DLOGITS)};
const struct op_type op_elbo_type = {.name = "elbo", .index = OP_elbo, .gradient = gradient_elbo};
const struct op_type op_elbo_backward_type = {.name = "elbo_backward", .index = OP_elbo_backward};
const struct op_type op_objective_type = {.name = "objective", .index = OP_objective, .gradient = gradient_objective};
const struct op_type op_objective_backward_type = {
    .name = "objective_backward", .index = OP_objective_backward, .accumulates = EVERY_SLOT};
