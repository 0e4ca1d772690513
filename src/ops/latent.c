/* Gaussian latent.
 *
 *   z = mu + exp(logvar / 2) eps;   KL(q || N(0, 1)) = (mu^2 + exp(logvar) - 1 - logvar) / 2 per dimension
 *   stats (S, 2Z) mu | logvar       z (draws, Z)      kl (S, Z) nats
 *   dmu = dz + dkl mu;   dlogvar = dz eps exp(logvar / 2) / 2 + dkl (exp(logvar) - 1) / 2
 *
 * eps is drawn from its address in both passes and never stored. */
#include "graph/autodiff.h"
#include "ops/ops.h"

struct latent_sample op_latent(struct graph *g, value stats, value sample, bool sample_z)
{
    struct latent_sample out = {NO_VALUE, NO_VALUE};
    size_t width = graph_width(g, stats);
    if (width % 2 || !width) {
        graph_fail(g, "the latent statistics have width %zu, not 2 Z", width);
        return out;
    }
    struct node *n = graph_node(g, &op_latent_type);
    if (!n) return out;
    n->attr.i[0] = sample_z;
    n->attr.purpose = graph_purpose(g, "noise");
    node_in(g, n, 0, stats);
    node_in(g, n, 1, sample);
    out.z = node_out(g, n, 0, "z", DTYPE_F32, 2, (struct dim[]){{DIM_DRAWS, 0}, {DIM_FIXED, width / 2}});
    out.kl = node_out(g, n, 1, "kl", DTYPE_F32, 2, (struct dim[]){op_rows(g, stats), {DIM_FIXED, width / 2}});
    return out;
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    struct graph *g = autodiff_graph(ad);
    value stats = autodiff_read(ad, n->in[0]);
    struct node *b = autodiff_node(ad, &op_latent_backward_type, n);
    node_in(g, b, 0, autodiff_output(ad, n, 0));
    node_in(g, b, 1, autodiff_output(ad, n, 1));
    node_in(g, b, 2, stats);
    node_in(g, b, 3, n->in[1]);
    autodiff_write(ad, b, 0, n->in[0]);
}

value op_column_moments(struct graph *g, value x)
{
    struct node *n = graph_node(g, &op_column_moments_type);
    node_in(g, n, 0, x);
    return node_out(g, n, 0, "moments", DTYPE_F32, 2, (struct dim[]){{DIM_FIXED, graph_width(g, x)}, {DIM_FIXED, 2}});
}

const struct op_type op_latent_type = {.name = "latent", .index = OP_latent, .cheap = true, .gradient = gradient};
const struct op_type op_latent_backward_type = {
    .name = "latent_backward", .index = OP_latent_backward, .accumulates = 1};
const struct op_type op_column_moments_type = {.name = "column_moments", .index = OP_column_moments};
