/* Layer norm and RMS norm, with dropout and a residual fused in front. */
#ifndef OPS_NORM_H
#define OPS_NORM_H

#include "ops/elementwise.h"

struct normed {
    value y;   /* (N, D) */
    value sum; /* (N, D) dropout(x) + residual, or x without a residual */
};

/* Layer norm (Ba et al. 2016), or RMS norm without bias (Zhang and Sennrich 2019), epsilon 1e-5, of x or of dropout(x)
 * + residual. Without a residual nothing is dropped, and `dropping` may be null. */
struct normed op_norm(struct graph *g, value x, const struct dropping *dropping, value residual, value gamma,
                      value beta, bool rms);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTR_NORM_RMS };

enum { IN_NORM_X, IN_NORM_RESIDUAL, IN_NORM_GAMMA, IN_NORM_BETA, IN_NORM_SENTENCE, IN_NORM_POSITION, IN_NORM_SAMPLE };
enum { OUT_NORM_Y, OUT_NORM_SUM, OUT_NORM_STATS };

enum {
    IN_NORM_BACKWARD_DY,
    IN_NORM_BACKWARD_DSUM,
    IN_NORM_BACKWARD_SUM,
    IN_NORM_BACKWARD_GAMMA,
    IN_NORM_BACKWARD_STATS,
    IN_NORM_BACKWARD_SENTENCE,
    IN_NORM_BACKWARD_POSITION,
    IN_NORM_BACKWARD_SAMPLE
};
enum { OUT_NORM_BACKWARD_DRESIDUAL, OUT_NORM_BACKWARD_DGAMMA, OUT_NORM_BACKWARD_DBETA, OUT_NORM_BACKWARD_DX };

#define NORM_OPS(X)                                                                                                    \
    X(norm)                                                                                                            \
    X(norm_backward)

#endif
