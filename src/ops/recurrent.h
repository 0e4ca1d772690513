/* Recurrent layers, LSTM and GRU, over packed sentences and one step at a time. */
#ifndef OPS_RECURRENT_H
#define OPS_RECURRENT_H

#include "graph/graph.h"

enum recurrent_cell { RECURRENT_LSTM, RECURRENT_GRU };

struct recurrent_config {
    enum recurrent_cell cell;
    size_t directions; /* d: 1, from the first row to the last; or 2, with a second direction from the last row to the
                          first */
};

/* G gates (LSTM 4: input, forget, cell, output; GRU 3: reset, update, new), H units in each direction. Gates are blocks
 * of H columns in PyTorch's order; the second direction follows the first. */
struct recurrent_inputs {
    value x;       /* (N, d G H) the layer's input times its weights, with the input bias */
    value w;       /* (d G H, H) weights of the earlier h */
    value b;       /* (d G H) added to h W^T; a GRU needs it, an LSTM has none */
    value own;     /* (S, d G H) added to x in every row of the sentence; or none */
    value initial; /* (S, d H) first h, and for an LSTM (S, 2 d H) first h | first c; none: zeros */
};

/* y (N, d H): the cell's h over each sentence's rows in order (ops/recurrent.c has the equations). Sentences share no
 * state. c is f32. */
value op_recurrent(struct graph *g, const struct recurrent_inputs *in, value offsets,
                   const struct recurrent_config *config);

/* The same for one new token per row, in one direction: y (R, H); x (R, G H); own and initial have one row per row of
 * x. position (R) i32: at 0 the state is `initial`. state (R, 2, H) f32, for an LSTM (R, 2, 2 H): step t reads half t %
 * 2 and writes the other half. history (R, room) i32, optional: row r continues row history[r, position - 1]. */
value op_recurrent_step(struct graph *g, const struct recurrent_inputs *in, value position, value history, value state,
                        const struct recurrent_config *config);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { RECURRENT_CELL, RECURRENT_DIRECTIONS };

/* Gates that read x and h, and values per unit that a row keeps for the backward pass. */
enum { LSTM_GATES = 4, GRU_GATES = 3, KEPT_GATES = 4 };

static inline size_t recurrent_gates(bool gru)
{
    return gru ? GRU_GATES : LSTM_GATES;
}

static inline size_t recurrent_states(bool gru)
{
    return gru ? 1 : 2;
}

enum { IN_RECURRENT_X, IN_RECURRENT_W, IN_RECURRENT_B, IN_RECURRENT_OWN, IN_RECURRENT_INITIAL, IN_RECURRENT_OFFSETS };
enum { OUT_RECURRENT_Y, OUT_RECURRENT_GATES, OUT_RECURRENT_CELL };

enum {
    IN_RECURRENT_BACKWARD_DY,
    IN_RECURRENT_BACKWARD_W,
    IN_RECURRENT_BACKWARD_OFFSETS,
    IN_RECURRENT_BACKWARD_INITIAL,
    IN_RECURRENT_BACKWARD_Y,
    IN_RECURRENT_BACKWARD_GATES,
    IN_RECURRENT_BACKWARD_CELL
};
enum {
    OUT_RECURRENT_BACKWARD_DX,
    OUT_RECURRENT_BACKWARD_DINITIAL,
    OUT_RECURRENT_BACKWARD_DW,
    OUT_RECURRENT_BACKWARD_DB
};

enum {
    IN_RECURRENT_STEP_X,
    IN_RECURRENT_STEP_W,
    IN_RECURRENT_STEP_B,
    IN_RECURRENT_STEP_OWN,
    IN_RECURRENT_STEP_INITIAL,
    IN_RECURRENT_STEP_POSITION,
    IN_RECURRENT_STEP_HISTORY
};
enum { OUT_RECURRENT_STEP_Y, OUT_RECURRENT_STEP_STATE };

#define RECURRENT_OPS(X)                                                                                               \
    X(recurrent)                                                                                                       \
    X(recurrent_backward)                                                                                              \
    X(recurrent_step)

#endif
