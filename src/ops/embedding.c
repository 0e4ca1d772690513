/* Embedding: y = table[ids] (+ add);  dtable = sum of dy over the rows of each id, in row order;  dadd = dy. */
#include "graph/autodiff.h"
#include "ops/ops.h"

static value record(struct graph *g, value table, value ids, value order, value add, value marks)
{
    if (!table.index || !ids.index) return graph_fail(g, "embedding lacks its table or ids");
    size_t width = graph_width(g, table);
    if (add.index && graph_width(g, add) != width)
        return graph_fail(g, "embedding of width %zu is added to width %zu", width, graph_width(g, add));
    struct node *n = graph_node(g, &op_embedding_type);
    node_in(g, n, IN_EMBEDDING_TABLE, table);
    node_in(g, n, IN_EMBEDDING_IDS, ids);
    node_in(g, n, IN_EMBEDDING_ORDER, order);
    node_in(g, n, IN_EMBEDDING_ADD, add);
    node_in(g, n, IN_EMBEDDING_MARKS, marks);
    return node_out(g, n, OUT_EMBEDDING_Y, "embedding", graph_value(g, table)->dtype, 2,
                    (struct dim[]){op_rows(g, ids), {DIM_FIXED, width}});
}

value op_embedding(struct graph *g, value table, value ids, value order, value add)
{
    return record(g, table, ids, order, add, NO_VALUE);
}

value op_embedding_marked(struct graph *g, value table, value marks, value ids, value order)
{
    if (graph_width(g, marks) != graph_width(g, table) || graph_value(g, marks)->rank != 2)
        return graph_fail(g, "embedding: marks of width %zu beside a table of width %zu", graph_width(g, marks),
                          graph_width(g, table));
    return record(g, table, ids, order, NO_VALUE, marks);
}

/* Emits the gradient of one table, whose first row has the id `first`. */
static void gradient_of(struct autodiff *ad, const struct node *n, value table, size_t first)
{
    if (!autodiff_wants(ad, table)) return;
    struct node *b = autodiff_emit(
        ad, &op_embedding_backward_type, n, TAKES(IN_EMBEDDING_BACKWARD_DY, autodiff_output(ad, n, OUT_EMBEDDING_Y)),
        TAKES(IN_EMBEDDING_BACKWARD_IDS, n->in[IN_EMBEDDING_IDS]),
        TAKES(IN_EMBEDDING_BACKWARD_ORDER, n->in[IN_EMBEDDING_ORDER]), GIVES(OUT_EMBEDDING_BACKWARD_DTABLE, table));
    if (b) b->attr.i[ATTR_EMBEDDING_FIRST] = (int64_t)first;
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    value dy = autodiff_output(ad, n, OUT_EMBEDDING_Y);
    gradient_of(ad, n, n->in[IN_EMBEDDING_TABLE], 0);
    gradient_of(ad, n, n->in[IN_EMBEDDING_MARKS],
                graph_value(autodiff_graph(ad), n->in[IN_EMBEDDING_TABLE])->dim[0].size);
    autodiff_pass(ad, n->in[IN_EMBEDDING_ADD], dy);
}

/* Returns the bytes moved: of the table, only the rows that are read count. */
static double bytes(const struct shape_view *s, double plain, double element)
{
    double table = (double)s->in[IN_EMBEDDING_TABLE][0] * (double)s->in[IN_EMBEDDING_TABLE][1],
           rows = (double)s->out[OUT_EMBEDDING_Y][0] * (double)s->out[OUT_EMBEDDING_Y][1];
    return plain - (table - (rows < table ? rows : table)) * element;
}

/* Returns the bytes moved: of the table's gradient, only the rows that are added to count. A step's first slot writes
 * all rows once. */
static double bytes_backward(const struct shape_view *s, double plain, double element)
{
    (void)element;
    double table = (double)s->out[OUT_EMBEDDING_BACKWARD_DTABLE][0] * (double)s->out[OUT_EMBEDDING_BACKWARD_DTABLE][1],
           rows = (double)s->in[IN_EMBEDDING_BACKWARD_DY][0] * (double)s->in[IN_EMBEDDING_BACKWARD_DY][1];
    return plain - 2 * (table - (rows < table ? rows : table)) * sizeof(float);
}

const struct op_type op_embedding_type = {
    .name = "embedding", .index = OP_embedding, .cheap = true, .gradient = gradient, .bytes = bytes};
const struct op_type op_embedding_backward_type = {.name = "embedding_backward",
                                                   .index = OP_embedding_backward,
                                                   .accumulates = SLOT(OUT_EMBEDDING_BACKWARD_DTABLE),
                                                   .bytes = bytes_backward};
