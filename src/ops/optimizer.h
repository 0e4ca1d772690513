/* The optimizer's update: the guard, controllers of loss weights, gradient norms, AdamW and SGD. Ranges of the arenas
 * are inputs of an update graph that the ops write. */
#ifndef OPS_OPTIMIZER_H
#define OPS_OPTIMIZER_H

#include "graph/graph.h"

/* The decision of the last update, f32 in the backend's memory. No step waits for the host to learn whether the step
 * before was applied: values that depend on the count of updates come in two rows, one for either answer. */
enum { CONTROL_APPLIED, CONTROL_NORM, CONTROL_FINITE, CONTROL_SIZE };
/* y (K) = row CONTROL_APPLIED of rows (2, K), times scales (K) if given. */
value op_select_row(struct graph *g, value rows, value control, value scales);

/* A controller of one weight of the loss. It takes a step after each applied update; after other updates only USED
 * changes. Its state (CONTROLLER_STATE) and scales (K) are inputs in the backend's memory that are written:
 * scales[index] is the weight of the next step, USED the weight of this step. It measures y = figures[part] /
 * settings[SENTENCES]; `figures` are sums over the step, and `control` is the guard's new decision.
 *
 * CONTROLLER_PI (ControlVAE, Shao et al. 2020), with e = target - y:
 *     SUM += -i e;   weight = p / (1 + exp(e)) + SUM + least, within least .. most
 * SUM stops where the weight reaches a bound, and does not move while the error drives it further out.
 *
 * CONTROLLER_MULTIPLIER (minimum desired rate, Pelsmaeker and Aziz 2020): u = log(1 + exp(SUM)) multiplies target - y
 * in the Lagrangian, so the weight of y there is 1 - u:
 *     SUM += i (target - y) / (1 + exp(-SUM));   weight = 1 - u */
enum controller_rule { CONTROLLER_PI, CONTROLLER_MULTIPLIER };
enum { CONTROLLER_WEIGHT, CONTROLLER_USED, CONTROLLER_SUM, CONTROLLER_STATE };
enum {
    CONTROLLER_TARGET,
    CONTROLLER_P,
    CONTROLLER_I,
    CONTROLLER_LEAST,
    CONTROLLER_MOST,
    CONTROLLER_SENTENCES,
    CONTROLLER_SETTINGS
};
void op_controller(struct graph *g, value state, value scales, value figures, value control, value settings,
                   enum controller_rule rule, size_t part, size_t index);

enum { NORM_SQUARED, NORM_NOT_FINITE, NORM_RECORD };
/* record (NORM_RECORD) = the sum of squares, in a fixed order over blocks of 1,024, and the number of blocks whose sum
 * is not finite. */
value op_squared_norm(struct graph *g, value gradient);
/* The same in two parts with the same bits, for a gradient whose pieces are on several ranks. op_block_squares writes
 * sums (ceil(N / SQUARES_BLOCK)), doubles, an input, of gradient (N). op_combined_norm returns the record from sums
 * (any size), in which block i lies at at[i] (i32). */
enum { SQUARES_BLOCK = 1024 };
void op_block_squares(struct graph *g, value sums, value gradient);
value op_combined_norm(struct graph *g, value sums, value at);

/* Step scalars of one parameter group. */
enum {
    STEP_LEARNING_RATE,
    STEP_GRADIENT_SCALE,
    STEP_DECAY,
    STEP_BETA1,
    STEP_ONE_MINUS_BETA1,
    STEP_BETA2,
    STEP_ONE_MINUS_BETA2,
    STEP_EPSILON,
    STEP_CORRECTION1,
    STEP_CORRECTION2,
    STEP_MOMENTUM,
    STEP_APPLY,
    STEP_SCALARS
};
/* The guard: norm = square root of the sum of up to MOST_NORMS squared norms. The update is applied if norm and `loss`
 * are finite and settings[GUARD_SKIP] is 0. scalars (K, STEP_SCALARS) = the row of `rows` (2, K, STEP_SCALARS) that the
 * old `control` selects, with each gradient scale times min(1, clip / norm) (no clip if GUARD_CLIP is 0) and STEP_APPLY
 * = applied. control = the new decision. */
enum { GUARD_CLIP, GUARD_SKIP, GUARD_SETTINGS, MOST_NORMS = 8 };
void op_guard(struct graph *g, value scalars, value control, const value *norms, size_t count, value loss, value rows,
              value settings);

/* AdamW (Loshchilov and Hutter 2019): `decay` is the learning rate times the weight decay, decoupled. `working`: the
 * weights again in bf16, optional. Moments are f32 or bf16. bf16 moments are stored with stochastic rounding: 16 bits
 * of noise are added to the 16 bits that bf16 lacks, and their carry rounds, so the mean over the noise is the f32
 * value. The noise is addressed by the run's seed, the step and the element's index in the arena; `first` is the index
 * of the range's first element. */
void op_adamw(struct graph *g, value weights, value working, value moment1, value moment2, value gradient,
              value scalars, size_t first);
void op_sgd(struct graph *g, value weights, value working, value moment, value gradient, value scalars, size_t first);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTR_CONTROLLER_RULE, ATTR_CONTROLLER_PART, ATTR_CONTROLLER_INDEX };
enum { ATTR_MOMENTS_FIRST };

enum { IN_SELECT_ROW_ROWS, IN_SELECT_ROW_CONTROL, IN_SELECT_ROW_SCALES };
enum { OUT_SELECT_ROW_Y };

enum { IN_CONTROLLER_FIGURES, IN_CONTROLLER_CONTROL, IN_CONTROLLER_SETTINGS };
enum { OUT_CONTROLLER_STATE, OUT_CONTROLLER_SCALES };

enum { IN_SQUARED_NORM_GRADIENT };
enum { OUT_SQUARED_NORM_RECORD };

enum { IN_BLOCK_SQUARES_GRADIENT = IN_SQUARED_NORM_GRADIENT };
enum { OUT_BLOCK_SQUARES_SUMS };

enum { IN_COMBINED_NORM_SUMS, IN_COMBINED_NORM_AT };
enum { OUT_COMBINED_NORM_RECORD };

enum { IN_GUARD_LOSS, IN_GUARD_ROWS, IN_GUARD_SETTINGS, IN_GUARD_CONTROL, IN_GUARD_NORMS };
enum { OUT_GUARD_SCALARS, OUT_GUARD_CONTROL };

enum { IN_ADAMW_GRADIENT, IN_ADAMW_SCALARS };
enum { OUT_ADAMW_WEIGHTS, OUT_ADAMW_MOMENT1, OUT_ADAMW_MOMENT2, OUT_ADAMW_WORKING };

enum { IN_SGD_GRADIENT, IN_SGD_SCALARS };
enum { OUT_SGD_WEIGHTS, OUT_SGD_MOMENT, OUT_SGD_WORKING = 3 };

#define OPTIMIZER_OPS(X)                                                                                               \
    X(select_row)                                                                                                      \
    X(controller)                                                                                                      \
    X(squared_norm)                                                                                                    \
    X(block_squares)                                                                                                   \
    X(combined_norm)                                                                                                   \
    X(guard)                                                                                                           \
    X(adamw)                                                                                                           \
    X(sgd)

#endif
