/* Ops of posteriors: maps of a head's output to mu | logvar, normalization by statistics of a batch, and running
 * statistics. ops/posterior.c has the equations. */
#ifndef OPS_POSTERIOR_H
#define OPS_POSTERIOR_H

#include "graph/graph.h"

enum posterior_map { POSTERIOR_DELTA, POSTERIOR_SLASHED, POSTERIOR_FLOOR };
enum { ATTR_POSTERIOR_MAP = 0, ATTR_POSTERIOR_SWITCH };
enum { ATTR_POSTERIOR_REAL = 0, ATTR_POSTERIOR_DROP, ATTR_POSTERIOR_LEAST, ATTR_POSTERIOR_MOST };

/* stats (S, 2Z) = mu | logvar from head (S, 2Z), f32. `real`: nats of each dimension (delta; Razavi et al. 2019), or
 * the floor of the variances (Shen et al. 2021, DU-VAE). p: share of the variances above the floor that is dropped, by
 * addressed noise of the purpose "scope.dropout", coordinate = dimension; sample (S) u64. If `switches` (K) is given,
 * nothing is dropped while switches[index] is 0. */
value op_posterior(struct graph *g, value head, enum posterior_map map, double real, double p, value sample,
                   value switches, size_t index);

/* Computes the least and the largest sigma of a committed rate of `delta` nats. */
void posterior_bounds(double bounds[2], double delta);

enum normalize_scope {
    NORMALIZE_COLUMNS, /* over all rows */
    NORMALIZE_ROWS     /* each row alone, as one group */
};
enum {
    ATTR_NORMALIZE_SCOPE = 0,
    ATTR_NORMALIZE_GROUPS,
    ATTR_NORMALIZE_COLUMNS,
    ATTR_NORMALIZE_CENTER,
    ATTR_NORMALIZE_BATCH,
    ATTR_NORMALIZE_ROWS
};
enum { ATTR_NORMALIZE_LEVEL = 0, ATTR_NORMALIZE_EPSILON };

struct normalization {
    enum normalize_scope scope;
    size_t groups, columns; /* groups: K; columns: the first columns of x are normalized, and k, k + K, k + 2K ... are
                               group k; others are copied */
    bool center;            /* about the mean; only for groups of one column */
    bool batch; /* by the statistics of the rows; without `batch`, or with fewer than two rows, by the running
                   statistics */
    double level, epsilon;
};
struct normalized {
    value y;    /* shape of x */
    value sums; /* (2K + 1) with `batch`, not for NORMALIZE_ROWS: n, then sums over the rows of x - c, then of the
                   group's sum of (x - c)^2; c is the running mean (0 if not centered) */
};

/* running (2, K): mean, then mean square (variance if centered), without a gradient; none for NORMALIZE_ROWS. gain,
 * bias (K): optional. Batch normalization: Ioffe and Szegedy 2015. Rows whose squares are 0 stay 0. */
struct normalized op_normalize(struct graph *g, value x, value running, value gain, value bias,
                               const struct normalization *c);

enum { ATTR_RUNNING_CENTER = 0, ATTR_RUNNING_SHARE = 0 }; /* an integer and a real attribute */
/* Moves running (2, K), an input that is written, by `share` towards the statistics of `sums` (2K + 1), if the update
 * is applied (`control`) and has at least two sentences. */
void op_running(struct graph *g, value running, value sums, value control, bool center, double share);

/* ---- slots ---- */

enum { IN_POSTERIOR_HEAD, IN_POSTERIOR_SAMPLE, IN_POSTERIOR_SWITCHES };
enum { OUT_POSTERIOR_STATS };

enum {
    IN_POSTERIOR_BACKWARD_HEAD = IN_POSTERIOR_HEAD,
    IN_POSTERIOR_BACKWARD_SAMPLE = IN_POSTERIOR_SAMPLE,
    IN_POSTERIOR_BACKWARD_SWITCHES = IN_POSTERIOR_SWITCHES,
    IN_POSTERIOR_BACKWARD_DSTATS
};
enum { OUT_POSTERIOR_BACKWARD_DHEAD };

enum { IN_NORMALIZE_X, IN_NORMALIZE_RUNNING, IN_NORMALIZE_GAIN, IN_NORMALIZE_BIAS };
enum { OUT_NORMALIZE_Y, OUT_NORMALIZE_USED, OUT_NORMALIZE_SUMS };

enum {
    IN_NORMALIZE_BACKWARD_X = IN_NORMALIZE_X,
    IN_NORMALIZE_BACKWARD_GAIN = 2,
    IN_NORMALIZE_BACKWARD_DY = 4,
    IN_NORMALIZE_BACKWARD_USED
};
enum { OUT_NORMALIZE_BACKWARD_DX, OUT_NORMALIZE_BACKWARD_DGAIN, OUT_NORMALIZE_BACKWARD_DBIAS };

enum { IN_RUNNING_SUMS, IN_RUNNING_CONTROL };
enum { OUT_RUNNING_STATISTICS };

#define POSTERIOR_OPS(X)                                                                                               \
    X(posterior)                                                                                                       \
    X(posterior_backward)                                                                                              \
    X(normalize)                                                                                                       \
    X(normalize_backward)                                                                                              \
    X(running)

#endif
