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
    node_in(g, n, 0, table);
    node_in(g, n, 1, ids);
    node_in(g, n, 2, order);
    node_in(g, n, 3, add);
    node_in(g, n, 4, marks);
    return node_out(g, n, 0, "embedding", graph_value(g, table)->dtype, 2,
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

/* Of one table, whose first row has the id `first`. */
static void gradient_of(struct autodiff *ad, const struct node *n, value table, size_t first)
{
    if (!autodiff_wants(ad, table)) return;
    struct node *b = autodiff_node(ad, &op_embedding_backward_type, n);
    if (!b) return;
    b->attr.i[ATTR_EMBEDDING_FIRST] = (int64_t)first;
    node_in(autodiff_graph(ad), b, 0, autodiff_output(ad, n, 0));
    node_in(autodiff_graph(ad), b, 1, n->in[1]);
    node_in(autodiff_graph(ad), b, 2, n->in[2]);
    autodiff_write(ad, b, 0, table);
}

static void gradient(struct autodiff *ad, const struct node *n)
{
    value dy = autodiff_output(ad, n, 0);
    gradient_of(ad, n, n->in[0], 0);
    gradient_of(ad, n, n->in[4], graph_value(autodiff_graph(ad), n->in[0])->dim[0].size);
    autodiff_pass(ad, n->in[3], dy);
}

/* Of the table, the rows that are read. */
static double bytes(const struct shape_view *s, double plain, double element)
{
    double table = (double)s->in[0][0] * (double)s->in[0][1], rows = (double)s->out[0][0] * (double)s->out[0][1];
    return plain - (table - (rows < table ? rows : table)) * element;
}

/* Of the table's gradient, the rows that are added to; a step's first slot writes all of them once. */
static double bytes_backward(const struct shape_view *s, double plain, double element)
{
    (void)element;
    double table = (double)s->out[0][0] * (double)s->out[0][1], rows = (double)s->in[0][0] * (double)s->in[0][1];
    return plain - 2 * (table - (rows < table ? rows : table)) * sizeof(float);
}

const struct op_type op_embedding_type = {
    .name = "embedding", .index = OP_embedding, .cheap = true, .gradient = gradient, .bytes = bytes};
const struct op_type op_embedding_backward_type = {
    .name = "embedding_backward", .index = OP_embedding_backward, .accumulates = 1, .bytes = bytes_backward};
