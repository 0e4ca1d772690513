/* Learned priors: the KL to a diagonal Gaussian, and the log density of a mixture.
 *
 * The KL of one diagonal Gaussian to another, by dimension; stats (S, 2Z) mu | logvar, prior (2Z) mean | logvar, with e
 * = exp(-logvar of the prior) and t = mu - mean:
 *
 *   kl = (logvar of the prior - logvar + (exp(logvar) + t^2) e - 1) / 2
 *   dmu = d t e;   dlogvar = d (exp(logvar) e - 1) / 2
 *   dmean = -sum_s d t e;   dlogvar of the prior = sum_s d (1 - (exp(logvar) + t^2) e) / 2 */
#include "graph/autodiff.h"
#include "ops/ops.h"

value op_gaussian_kl(struct graph *g, value stats, value prior)
{
    const struct value_info *a = graph_value(g, stats), *b = graph_value(g, prior);
    size_t width = graph_width(g, stats);
    if (a->rank != 2 || a->dim[0].kind == DIM_FIXED || width % 2 || !width)
        return graph_fail(g, "KL: the statistics are not (S, 2 Z)");
    if (b->rank != 1 || graph_width(g, prior) != width)
        return graph_fail(g, "KL: the prior is not (2 Z) for statistics (S, 2 Z)");
    if (a->dtype != DTYPE_F32 || b->dtype != DTYPE_F32)
        return graph_fail(g, "KL: the statistics and the prior are f32 in every precision");
    struct node *n = graph_node(g, &op_gaussian_kl_type);
    if (!n) return NO_VALUE;
    n->attr.i[ATTR_ROWS] = op_rows(g, stats).kind;
    node_in(g, n, IN_GAUSSIAN_KL_STATS, stats);
    node_in(g, n, IN_GAUSSIAN_KL_PRIOR, prior);
    return node_out(g, n, OUT_GAUSSIAN_KL_KL, "kl", DTYPE_F32, 2,
                    (struct dim[]){op_rows(g, stats), {DIM_FIXED, width / 2}});
}

static void gradient_kl(struct autodiff *ad, const struct node *n)
{
    value stats = n->in[IN_GAUSSIAN_KL_STATS], prior = n->in[IN_GAUSSIAN_KL_PRIOR];
    autodiff_emit(ad, &op_gaussian_kl_backward_type, n, READS(IN_GAUSSIAN_KL_BACKWARD_STATS, stats),
                  READS(IN_GAUSSIAN_KL_BACKWARD_PRIOR, prior),
                  TAKES(IN_GAUSSIAN_KL_BACKWARD_DKL, autodiff_output(ad, n, OUT_GAUSSIAN_KL_KL)),
                  GIVES(OUT_GAUSSIAN_KL_BACKWARD_DSTATS, stats), GIVES(OUT_GAUSSIAN_KL_BACKWARD_DPRIOR, prior));
}

/* ---- a mixture ----
 *
 * The log density of a mixture of K diagonal Gaussians, w = softmax(logits), or 1 / K without logits:
 *
 *   l_sk = log w_k - sum_j (log 2 pi + logvar_kj + t^2 e_kj) / 2,   t = z_sj - mu_kj,   e = exp(-logvar)
 *   out_s = sign logsumexp_k l_sk;   r_sk = exp(l_sk) / sum_k exp(l_sk), the second output, which the gradient reads
 *   with d = sign dout:   dz = -d sum_k r t e;   dmu = sum_s d r t e;   dlogvar = sum_s d r (t^2 e - 1) / 2
 *   dlogits_k = sum_s d (r_sk - w_k) */

/* Returns K of the components' statistics for z of width Z, or 0 if their shape is wrong. */
static size_t components_of(const struct graph *g, value components, size_t width)
{
    const struct value_info *info = graph_value(g, components);
    if (info->rank != 2 || info->dim[0].kind != DIM_FIXED) return 0;
    size_t rows = info->dim[0].size;
    if (graph_width(g, components) == 2 * width) return rows;
    return graph_width(g, components) == width && rows % 2 == 0 ? rows / 2 : 0;
}

value op_mixture_log_density(struct graph *g, value z, value components, value logits, double sign)
{
    const struct value_info *a = graph_value(g, z);
    size_t count = components_of(g, components, graph_width(g, z));
    if (a->rank != 2 || a->dim[0].kind == DIM_FIXED)
        return graph_fail(g, "mixture: z is not a row for each sentence or draw");
    if (!count) return graph_fail(g, "mixture: the components are neither (K, 2 Z) nor (2 K, Z) for z (S, Z)");
    if (logits.index && (graph_value(g, logits)->rank != 1 || graph_width(g, logits) != count))
        return graph_fail(g, "mixture: the logits are not (%zu), one for each component", count);
    if (a->dtype != DTYPE_F32 || graph_value(g, components)->dtype != DTYPE_F32 ||
        (logits.index && graph_value(g, logits)->dtype != DTYPE_F32))
        return graph_fail(g, "mixture: z, the components and the logits are f32 in every precision");
    struct node *n = graph_node(g, &op_mixture_log_density_type);
    if (!n) return NO_VALUE;
    n->attr.i[ATTR_ROWS] = op_rows(g, z).kind;
    n->attr.i[ATTR_COMPONENTS] = (int64_t)count;
    n->attr.f[ATTR_SIGN] = sign;
    node_in(g, n, IN_MIXTURE_LOG_DENSITY_Z, z);
    node_in(g, n, IN_MIXTURE_LOG_DENSITY_COMPONENTS, components);
    node_in(g, n, IN_MIXTURE_LOG_DENSITY_LOGITS, logits);
    node_out(g, n, OUT_MIXTURE_LOG_DENSITY_SHARES, "shares", DTYPE_F32, 2,
             (struct dim[]){op_rows(g, z), {DIM_FIXED, count}});
    return node_out(g, n, OUT_MIXTURE_LOG_DENSITY_Y, "log_density", DTYPE_F32, 2,
                    (struct dim[]){op_rows(g, z), {DIM_FIXED, 1}});
}

static void gradient_mixture(struct autodiff *ad, const struct node *n)
{
    value z = n->in[IN_MIXTURE_LOG_DENSITY_Z], components = n->in[IN_MIXTURE_LOG_DENSITY_COMPONENTS];
    value logits = n->in[IN_MIXTURE_LOG_DENSITY_LOGITS];
    autodiff_emit(ad, &op_mixture_log_density_backward_type, n, READS(IN_MIXTURE_LOG_DENSITY_BACKWARD_Z, z),
                  READS(IN_MIXTURE_LOG_DENSITY_BACKWARD_COMPONENTS, components),
                  TAKES(IN_MIXTURE_LOG_DENSITY_BACKWARD_LOGITS, logits),
                  TAKES(IN_MIXTURE_LOG_DENSITY_BACKWARD_DY, autodiff_output(ad, n, OUT_MIXTURE_LOG_DENSITY_Y)),
                  READS(IN_MIXTURE_LOG_DENSITY_BACKWARD_SHARES, n->out[OUT_MIXTURE_LOG_DENSITY_SHARES]),
                  GIVES(OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ, z),
                  GIVES(OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS, components),
                  GIVES(OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS, logits));
}

/* Counts a difference, its square times a factor, and a sum for each row, component and dimension. */
static double flops(const struct shape_view *s, const struct attributes *a)
{
    return 5.0 * (double)s->in[IN_MIXTURE_LOG_DENSITY_Z][0] * (double)s->in[IN_MIXTURE_LOG_DENSITY_Z][1] *
           (double)a->i[ATTR_COMPONENTS];
}

static double flops_backward(const struct shape_view *s, const struct attributes *a)
{
    return 2 * flops(s, a);
}

const struct op_type op_gaussian_kl_type = {
    .name = "gaussian_kl", .index = OP_gaussian_kl, .cheap = true, .gradient = gradient_kl};
const struct op_type op_gaussian_kl_backward_type = {.name = "gaussian_kl_backward",
                                                     .index = OP_gaussian_kl_backward,
                                                     .accumulates = SLOT(OUT_GAUSSIAN_KL_BACKWARD_DSTATS) |
                                                                    SLOT(OUT_GAUSSIAN_KL_BACKWARD_DPRIOR)};
const struct op_type op_mixture_log_density_type = {
    .name = "mixture_log_density", .index = OP_mixture_log_density, .gradient = gradient_mixture, .flops = flops};
const struct op_type op_mixture_log_density_backward_type = {
    .name = "mixture_log_density_backward",
    .index = OP_mixture_log_density_backward,
    .accumulates = SLOT(OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ) | SLOT(OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS) |
                   SLOT(OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS),
    .flops = flops_backward};
