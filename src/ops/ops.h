/* The ops that a model may record. Each op has one function, which returns the op's first output and checks shapes
 * (errors are sticky in the graph); no op names a backend. N tokens, S sentences, D width, Z latent, V vocabulary, H
 * heads, Hk key/value heads, W head width, M latent keys per layer.
 *
 * Everything is f32 unless said. In a graph of bf16 precision the weights read as bf16, and an op's output has the type
 * of its first operand. Statistics (of norm, softmax, latent, loss) and gradients of weights are f32 always. */
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include "ops/list.h"

/* ---- for the gradient rules ---- */

/* Return the first dimension as recorded, and whether two values have the same one. */
struct dim op_rows(const struct graph *g, value v);
bool op_same_rows(const struct graph *g, value a, value b);

#endif
