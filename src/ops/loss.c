/* The reconstruction loss, the ELBO, and the objective that adds further terms to it.
 *
 * nll_n = logsumexp(y_n W^T) - y_n . W[label_n].  Its weight in the loss does not depend on it (op_elbo's gradient
 * reads the step's scalars only), so in training one fused op, placed at the head of the backward pass, computes nll,
 * dy and dW from one set of logits per chunk of rows; the forward node does not run and what reads nll runs after the
 * fused op. */
#include "graph/autodiff.h"
#include "ops/objective.h"
#include "ops/ops.h"

value op_linear_cross_entropy(struct graph *g, value y, value w, value labels, value *right)
{
    if (graph_width(g, y) != graph_width(g, w))
        return graph_fail(g, "loss: y has width %zu, the output weights %zu", graph_width(g, y), graph_width(g, w));
    struct node *n = graph_node(g, &op_linear_cross_entropy_type);
    node_in(g, n, 0, y);
    node_in(g, n, 1, w);
    node_in(g, n, 2, labels);
    if (right) *right = node_out(g, n, 1, "right", DTYPE_F32, 1, (struct dim[]){op_rows(g, y)});
    return node_out(g, n, 0, "nll", DTYPE_F32, 1, (struct dim[]){op_rows(g, y)});
}

static void gradient_cross_entropy(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    value y = autodiff_read(ad, n->in[0]);
    struct node *b = autodiff_node(ad, &op_linear_cross_entropy_train_type, n);
    node_in(g, b, 0, y);
    node_in(g, b, 1, n->in[1]);
    node_in(g, b, 2, n->in[2]);
    node_in(g, b, 3, autodiff_output(ad, n, 0));
    autodiff_replace(ad, n, b, 0, 0);
    autodiff_write(ad, b, 1, n->in[0]);
    autodiff_write(ad, b, 2, n->in[1]);
}

/* Its second output (S, 3) holds logsumexp, the number of labels and the sentence's nats, so that the gradient sums
 * nothing again. */
value op_bag_cross_entropy(struct graph *g, value logits, value labels, value offsets)
{
    const struct value_info *x = graph_value(g, logits);
    enum dim_kind rows = x->rank == 2 ? op_rows(g, logits).kind : DIM_FIXED;
    if ((rows != DIM_SENTENCES && rows != DIM_DRAWS) || x->dtype != DTYPE_F32)
        return graph_fail(g, "bag of words: the logits are not a row of f32 for each sentence");
    struct node *n = graph_node(g, &op_bag_cross_entropy_type);
    node_in(g, n, 0, logits);
    node_in(g, n, 1, labels);
    node_in(g, n, 2, offsets);
    node_out(g, n, 1, "bag", DTYPE_F32, 2, (struct dim[]){op_rows(g, logits), {DIM_FIXED, BAG_SUMS}});
    return node_out(g, n, 0, "bag_cross_entropy", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 1}});
}

static void gradient_bag(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    value logits = autodiff_read(ad, n->in[0]), bag = autodiff_read(ad, n->out[1]);
    struct node *b = autodiff_node(ad, &op_bag_cross_entropy_backward_type, n);
    node_in(g, b, 0, autodiff_output(ad, n, 0));
    node_in(g, b, 1, logits);
    node_in(g, b, 2, n->in[1]);
    node_in(g, b, 3, n->in[2]);
    node_in(g, b, 4, bag);
    autodiff_write(ad, b, 0, n->in[0]);
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
    n->attr.f[0] = f->nats;
    node_in(g, n, 0, nll);
    node_in(g, n, 1, kl);
    node_in(g, n, 2, weights);
    out.loss = node_out(g, n, 0, "elbo", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, ELBO_PARTS}});
    if (width) out.kl_dim = node_out(g, n, 1, "kl_dim", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, width}});
    return out;
}

static void gradient_elbo(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    value kl = autodiff_read(ad, n->in[1]);
    struct node *b = autodiff_node(ad, &op_elbo_backward_type, n);
    node_in(g, b, 0, kl);
    node_in(g, b, 1, n->in[2]);
    autodiff_write(ad, b, 0, n->in[0]);
    autodiff_write(ad, b, 1, n->in[1]);
}

value op_objective(struct graph *g, value elbo, const value *terms, const unsigned *weight, size_t count, value weights)
{
    if (count > OBJECTIVE_TERMS)
        return graph_fail(g, "objective: %zu terms, at most %d beside the ELBO", count, (int)OBJECTIVE_TERMS);
    if (graph_value(g, elbo)->rank != 1 || graph_width(g, elbo) != ELBO_PARTS)
        return graph_fail(g, "objective: the first value is not the ELBO's %d parts", (int)ELBO_PARTS);
    struct node *n = graph_node(g, &op_objective_type);
    if (!n) return NO_VALUE;
    node_in(g, n, 0, elbo);
    node_in(g, n, 1, weights);
    for (size_t k = 0; k < count; k++) {
        const struct value_info *term = graph_value(g, terms[k]);
        if (term->rank != 1 || term->dim[0].kind != DIM_FIXED || term->dim[0].size != 1 || term->dtype != DTYPE_F32)
            return graph_fail(g, "objective: the term %s is not one f32", term->name);
        if (weight[k] >= graph_width(g, weights))
            return graph_fail(g, "objective: the weight of %s is number %u of %zu", term->name, weight[k],
                              graph_width(g, weights));
        node_in(g, n, 2 + (unsigned)k, terms[k]);
        objective_set(&n->attr, k, weight[k]);
    }
    return node_out(g, n, 0, "objective", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, ELBO_PARTS + count}});
}

/* The gradients of the ELBO's parts and of the terms, up to MAX_OUTPUTS in a node. */
static void gradient_objective(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    struct node *b = NULL;
    for (unsigned k = 0, slot = 0; k <= OBJECTIVE_TERMS; k++) {
        value v = n->in[k ? 1 + k : 0];
        if (!autodiff_wants(ad, v)) continue;
        if (!slot) {
            b = autodiff_node(ad, &op_objective_backward_type, n);
            if (!b) return;
            b->attr = (struct attributes){0};
            node_in(g, b, 0, n->in[1]);
        }
        objective_set(&b->attr, slot, k ? objective_index(&n->attr, k - 1) : OBJECTIVE_ELBO);
        autodiff_write(ad, b, slot, v);
        slot = (slot + 1) % MAX_OUTPUTS;
    }
}

static double flops(const struct shape_view *s, const struct attributes *a)
{
    (void)a;
    return 2.0 * (double)s->in[0][0] * (double)s->in[0][1] * (double)s->in[1][0];
}

/* The logits of all chunks, of y's type, are written by their product and read by the softmax ... */
static double bytes(const struct shape_view *s, double plain, double element)
{
    return plain + 2 * (double)s->in[0][0] * (double)s->in[1][0] * element;
}

/* ... which overwrites them by their gradient, and two more products read it, y and the weights. */
static double bytes_train(const struct shape_view *s, double plain, double element)
{
    double n = (double)s->in[0][0], width = (double)s->in[0][1], vocabulary = (double)s->in[1][0];
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
                                                           .accumulates = 6,
                                                           .flops = flops_train,
                                                           .bytes = bytes_train};
const struct op_type op_bag_cross_entropy_type = {
    .name = "bag_cross_entropy", .index = OP_bag_cross_entropy, .gradient = gradient_bag};
const struct op_type op_bag_cross_entropy_backward_type = {
    .name = "bag_cross_entropy_backward", .index = OP_bag_cross_entropy_backward, .accumulates = 1};
const struct op_type op_elbo_type = {.name = "elbo", .index = OP_elbo, .gradient = gradient_elbo};
const struct op_type op_elbo_backward_type = {.name = "elbo_backward", .index = OP_elbo_backward};
const struct op_type op_objective_type = {.name = "objective", .index = OP_objective, .gradient = gradient_objective};
const struct op_type op_objective_backward_type = {
    .name = "objective_backward", .index = OP_objective_backward, .accumulates = 15};
