/* Attributes of the recurrent family, shared by the rules and every backend. */
#ifndef OPS_RECURRENT_H
#define OPS_RECURRENT_H

#include <stdbool.h>
#include <stddef.h>

enum { RECURRENT_CELL, RECURRENT_DIRECTIONS };

/* Cells that a layer may be made of: enum recurrent_cell of ops/ops.h. */
enum { CELL_LSTM, CELL_GRU };

/* Gates that read x and h, values that a row keeps for the backward pass, and vectors of state. */
enum { LSTM_GATES = 4, GRU_GATES = 3, KEPT_GATES = 4 };

static inline size_t recurrent_gates(bool gru)
{
    return gru ? GRU_GATES : LSTM_GATES;
}

static inline size_t recurrent_states(bool gru)
{
    return gru ? 1 : 2;
}

#endif
