/* Recording helpers of a model: input sequences, parameters by name, linear layers, and the embedding tables of the
 * stacks. */
#include "model/recorder.h"
#include "model/model.h"
#include "model/stack.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

elbo_status recorder_begin(struct recorder *r, struct graph **g, const char *name, const struct model_config *config,
                           struct parameters *parameters, const struct graph_capacities *capacities, elbo_error *error)
{
    ELBO_TRY(graph_create(g, name, parameters, capacities, error));
    *r = (struct recorder){.g = *g, .parameters = parameters, .config = config, .precision = model_dtype(config)};
    graph_precision(*g, r->precision);
    return ELBO_OK;
}

/* Returns an input (S) i32 that both streams share. */
static value slot_input(struct graph *g, const char *name, enum pad_rule pad)
{
    value v = graph_input_named(g, name);
    if (v.index) return v;
    v = graph_input(g, name, DTYPE_I32, 1, (struct dim[]){{DIM_SENTENCES, 0}});
    graph_pad(g, v, pad);
    return v;
}

struct sequence sequence_packed(struct recorder *r, const char *stream, enum dim_kind rows, value sample)
{
    char name[64];
    struct dim n[] = {{rows, 0}}, offsets[] = {{DIM_SENTENCES, 1}};
    struct sequence s = {.sample = sample};
    const struct {
        const char *name;
        value *to;
        const struct dim *dim;
        enum pad_rule pad;
    } inputs[] = {{"ids", &s.ids, n, PAD_MOST},           {"id_order", &s.id_order, n, PAD_ROW},
                  {"position", &s.position, n, PAD_MOST}, {"position_order", &s.position_order, n, PAD_ROW},
                  {"sentence", &s.sentence, n, PAD_ZERO}, {"offsets", &s.offsets, offsets, PAD_LAST}};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        snprintf(name, sizeof name, "%s.%s", stream, inputs[i].name);
        *inputs[i].to = graph_input(r->g, name, DTYPE_I32, 1, inputs[i].dim);
        graph_pad(r->g, *inputs[i].to, inputs[i].pad);
    }
    if (r->config->labels) {
        s.label = slot_input(r->g, "label", PAD_MOST);
        s.label_order = slot_input(r->g, "label_order", PAD_ROW);
    }
    return s;
}

struct sequence sequence_uniform(struct recorder *r, size_t sentences, size_t length)
{
    struct dim rows[] = {{DIM_FIXED, sentences * length}}, offsets[] = {{DIM_FIXED, sentences + 1}};
    struct sequence s = {.position = graph_input(r->g, "uniform.position", DTYPE_I32, 1, rows),
                         .position_order = graph_input(r->g, "uniform.position_order", DTYPE_I32, 1, rows),
                         .sentence = graph_input(r->g, "uniform.sentence", DTYPE_I32, 1, rows),
                         .offsets = graph_input(r->g, "uniform.offsets", DTYPE_I32, 1, offsets)};
    graph_longest(r->g, s.offsets, length);
    return s;
}

value recorder_declare(struct recorder *r, const struct parameter *p)
{
    size_t index;
    elbo_error error = {0};
    elbo_status status = parameters_declare(r->parameters, &index, p, &error);
    if (status == ELBO_MEMORY) return graph_starve(r->g, "for the table of parameters");
    if (status) return graph_fail(r->g, "%s", error.message);
    return graph_parameter(r->g, index);
}

value recorder_parameter(struct recorder *r, enum parameter_part part, struct parameter_init init, size_t rank,
                         size_t rows, size_t columns, const char *format, ...)
{
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return recorder_declare(
        r, &(struct parameter){
               .name = name, .rank = rank, .shape = {rows, columns}, .part = part, .decay = rank > 1, .init = init});
}

value recorder_linear(struct recorder *r, enum parameter_part part, value x, size_t width, double std, bool bias,
                      bool gelu, const char *name)
{
    value w = recorder_parameter(r, part, init_normal(std), 2, width, graph_width(r->g, x), "%s.weight", name);
    value b = bias ? recorder_parameter(r, part, init_constant(0), 1, width, 0, "%s.bias", name) : NO_VALUE;
    return gelu ? op_linear_gelu(r->g, x, w, b) : op_linear(r->g, x, w, b);
}

/* Returns whether a stack reads the encoder's own table, not the decoder's. */
static bool own_table(const struct recorder *r, const char *stack)
{
    return !strcmp(stack, "encoder") && !r->config->share_embedding;
}

/* Declares a table of token vectors, or of vectors added to them. */
static value embedding_table(struct recorder *r, bool encoder, const struct stack_config *c, size_t rows,
                             const char *what)
{
    return recorder_parameter(r, encoder ? PART_ENCODER : PART_DECODER, init_normal(stack_embedding_std(c)), 2, rows,
                              stack_embedding_width(c), "%s.embedding.%s.weight", encoder ? "encoder" : "decoder",
                              what);
}

value recorder_label_table(struct recorder *r, const char *stack)
{
    bool encoder = !strcmp(stack, "encoder");
    const struct stack_config *c = encoder ? &r->config->encoder : &r->config->decoder;
    return embedding_table(r, encoder, c, r->config->labels, "label");
}

/* Returns a table (rows, width) of the stack whose token table `stack` reads. */
static value table_rows(struct recorder *r, const char *stack, size_t rows, const char *what)
{
    bool encoder = own_table(r, stack);
    return embedding_table(r, encoder, encoder ? &r->config->encoder : &r->config->decoder, rows, what);
}

value recorder_token_table(struct recorder *r, const char *stack)
{
    return table_rows(r, stack, r->config->vocabulary, "token");
}

value recorder_mark_table(struct recorder *r, const char *stack)
{
    return table_rows(r, stack, 1, "mark");
}
