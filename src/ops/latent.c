/* Gaussian latent, the log density of a Gaussian, and the hinge on the spread of mu.
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
    n->attr.i[ATTR_LATENT_SAMPLE] = sample_z;
    n->attr.purpose = graph_purpose(g, "noise");
    node_in(g, n, IN_LATENT_STATS, stats);
    node_in(g, n, IN_LATENT_SAMPLE, sample);
    out.z = node_out(g, n, OUT_LATENT_Z, "z", DTYPE_F32, 2, (struct dim[]){{DIM_DRAWS, 0}, {DIM_FIXED, width / 2}});
    out.kl =
        node_out(g, n, OUT_LATENT_KL, "kl", DTYPE_F32, 2, (struct dim[]){op_rows(g, stats), {DIM_FIXED, width / 2}});
    return out;
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    value stats = n->in[IN_LATENT_STATS];
    autodiff_emit(ad, &op_latent_backward_type, n, TAKES(IN_LATENT_BACKWARD_DZ, autodiff_output(ad, n, OUT_LATENT_Z)),
                  TAKES(IN_LATENT_BACKWARD_DKL, autodiff_output(ad, n, OUT_LATENT_KL)),
                  READS(IN_LATENT_BACKWARD_STATS, stats), TAKES(IN_LATENT_BACKWARD_SAMPLE, n->in[IN_LATENT_SAMPLE]),
                  GIVES(OUT_LATENT_BACKWARD_DSTATS, stats));
}

value op_column_moments(struct graph *g, value x)
{
    struct node *n = graph_node(g, &op_column_moments_type);
    node_in(g, n, IN_COLUMN_MOMENTS_X, x);
    return node_out(g, n, OUT_COLUMN_MOMENTS_Y, "moments", DTYPE_F32, 2,
                    (struct dim[]){{DIM_FIXED, graph_width(g, x)}, {DIM_FIXED, 2}});
}

/* ---- the log density of a Gaussian, with e = exp(-logvar), t = z - mu and d = sign dout ----
 *
 *   out_s = -sign sum_j (log 2 pi + logvar + t^2 e) / 2
 *   dz = -d t e;   dmu = d t e;   dlogvar = d (t^2 e - 1) / 2, summed over s if one row of stats serves all */

/* Returns whether stats have a row for each row of z; rows of sentences count if a sentence has one draw. */
static bool one_row_each(const struct graph *g, value z, value stats)
{
    return op_same_rows(g, z, stats) ||
           (op_rows(g, z).kind == DIM_DRAWS && op_rows(g, stats).kind == DIM_SENTENCES && !op_rows(g, stats).size);
}

value op_gaussian_log_density(struct graph *g, value z, value stats, double sign)
{
    const struct value_info *a = graph_value(g, z), *b = graph_value(g, stats);
    if (a->rank != 2 || a->dim[0].kind == DIM_FIXED)
        return graph_fail(g, "log density: z is not a row for each sentence or draw");
    if (graph_width(g, stats) != 2 * graph_width(g, z) || (b->rank != 1 && !one_row_each(g, z, stats)))
        return graph_fail(g, "log density: the statistics are neither (S, 2 Z) nor (2 Z) for z (S, Z)");
    if (a->dtype != DTYPE_F32 || b->dtype != DTYPE_F32)
        return graph_fail(g, "log density: z and the statistics are f32 in every precision");
    struct node *n = graph_node(g, &op_gaussian_log_density_type);
    if (!n) return NO_VALUE;
    n->attr.i[ATTR_ROWS] = op_rows(g, z).kind;
    n->attr.f[ATTR_SIGN] = sign;
    node_in(g, n, IN_GAUSSIAN_LOG_DENSITY_Z, z);
    node_in(g, n, IN_GAUSSIAN_LOG_DENSITY_STATS, stats);
    return node_out(g, n, OUT_GAUSSIAN_LOG_DENSITY_Y, "log_density", DTYPE_F32, 2,
                    (struct dim[]){op_rows(g, z), {DIM_FIXED, 1}});
}

static void gradient_log_density(struct autodiff *ad, const struct node *n)
{
    value z = n->in[IN_GAUSSIAN_LOG_DENSITY_Z], stats = n->in[IN_GAUSSIAN_LOG_DENSITY_STATS];
    autodiff_emit(ad, &op_gaussian_log_density_backward_type, n, READS(IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z, z),
                  READS(IN_GAUSSIAN_LOG_DENSITY_BACKWARD_STATS, stats),
                  TAKES(IN_GAUSSIAN_LOG_DENSITY_BACKWARD_DY, autodiff_output(ad, n, OUT_GAUSSIAN_LOG_DENSITY_Y)),
                  GIVES(OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ, z),
                  GIVES(OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS, stats));
}

/* ---- the hinge on the spread of mu ----
 *
 *   out = n max(0, margin - sum_b |mu_b - mean mu|^2 / (2n));   dmu_b = -dout (mu_b - mean mu) while out > 0
 *
 * The second output (Z + 1) holds mean mu, then 1 if out > 0 or 0, so that the gradient repeats no sum. */

value op_spread_hinge(struct graph *g, value stats, double margin)
{
    size_t width = graph_width(g, stats);
    if (width % 2 || !width || graph_value(g, stats)->rank != 2 || op_rows(g, stats).kind == DIM_FIXED)
        return graph_fail(g, "spread: the statistics are not (S, 2 Z)");
    struct node *n = graph_node(g, &op_spread_hinge_type);
    if (!n) return NO_VALUE;
    n->attr.i[ATTR_ROWS] = op_rows(g, stats).kind;
    n->attr.f[ATTR_MARGIN] = margin;
    node_in(g, n, IN_SPREAD_HINGE_STATS, stats);
    node_out(g, n, OUT_SPREAD_HINGE_SPREAD, "spread", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, width / 2 + 1}});
    return node_out(g, n, OUT_SPREAD_HINGE_Y, "spread_hinge", DTYPE_F32, 1, (struct dim[]){{DIM_FIXED, 1}});
}

static void gradient_spread(struct autodiff *ad, const struct node *n)
{
    value stats = n->in[IN_SPREAD_HINGE_STATS];
    autodiff_emit(ad, &op_spread_hinge_backward_type, n,
                  TAKES(IN_SPREAD_HINGE_BACKWARD_DY, autodiff_output(ad, n, OUT_SPREAD_HINGE_Y)),
                  READS(IN_SPREAD_HINGE_BACKWARD_STATS, stats),
                  READS(IN_SPREAD_HINGE_BACKWARD_SPREAD, n->out[OUT_SPREAD_HINGE_SPREAD]),
                  GIVES(OUT_SPREAD_HINGE_BACKWARD_DSTATS, stats));
}

const struct op_type op_latent_type = {.name = "latent", .index = OP_latent, .cheap = true, .gradient = gradient};
const struct op_type op_latent_backward_type = {
    .name = "latent_backward", .index = OP_latent_backward, .accumulates = SLOT(OUT_LATENT_BACKWARD_DSTATS)};
const struct op_type op_column_moments_type = {.name = "column_moments", .index = OP_column_moments};
const struct op_type op_gaussian_log_density_type = {
    .name = "gaussian_log_density", .index = OP_gaussian_log_density, .gradient = gradient_log_density};
const struct op_type op_gaussian_log_density_backward_type = {
    .name = "gaussian_log_density_backward",
    .index = OP_gaussian_log_density_backward,
    .accumulates = SLOT(OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ) | SLOT(OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS)};
const struct op_type op_spread_hinge_type = {
    .name = "spread_hinge", .index = OP_spread_hinge, .gradient = gradient_spread};
const struct op_type op_spread_hinge_backward_type = {.name = "spread_hinge_backward",
                                                      .index = OP_spread_hinge_backward,
                                                      .accumulates = SLOT(OUT_SPREAD_HINGE_BACKWARD_DSTATS)};
