/* Embedding: rows of a table by token id. */
#ifndef OPS_EMBEDDING_H
#define OPS_EMBEDDING_H

#include "graph/graph.h"

/* y (N, D) = table[ids] (+ add). table (rows, D); ids (N) i32, which must lie in the table; order (N) i32: rows by
 * rising id, the gradient's order; add (N, D) optional. */
value op_embedding(struct graph *g, value table, value ids, value order, value add);
/* The same for two tables behind one another: id rows + k reads row k of marks (K, D). */
value op_embedding_marked(struct graph *g, value table, value marks, value ids, value order);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTR_EMBEDDING_FIRST }; /* attribute of the gradient: the id of the table's first row */

enum { IN_EMBEDDING_TABLE, IN_EMBEDDING_IDS, IN_EMBEDDING_ORDER, IN_EMBEDDING_ADD, IN_EMBEDDING_MARKS };
enum { OUT_EMBEDDING_Y };

enum { IN_EMBEDDING_BACKWARD_DY, IN_EMBEDDING_BACKWARD_IDS, IN_EMBEDDING_BACKWARD_ORDER };
enum { OUT_EMBEDDING_BACKWARD_DTABLE };

#define EMBEDDING_OPS(X)                                                                                               \
    X(embedding)                                                                                                       \
    X(embedding_backward)

#endif
