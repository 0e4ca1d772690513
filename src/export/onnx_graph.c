/* Implements onnx.h: names, nodes, constants, weights, and the model's file. Field numbers are those of onnx.proto. */
#include "export/onnx.h"

#include "base/files.h"
#include "graph/parameters.h"
#include "ops/list.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IR_VERSION = 8, OPSET = 17, ALIGNMENT = 64 };
enum { NODE_INPUT = 1, NODE_OUTPUT, NODE_NAME, NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 7 };
enum { ATTRIBUTE_NAME = 1, ATTRIBUTE_F, ATTRIBUTE_I, ATTRIBUTE_S, ATTRIBUTE_INTS = 8, ATTRIBUTE_TYPE = 20 };
enum { TENSOR_DIMS = 1, TENSOR_TYPE, TENSOR_NAME = 8, TENSOR_RAW, TENSOR_EXTERNAL = 13, TENSOR_LOCATION };
enum { GRAPH_NODE = 1, GRAPH_NAME, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT };

/* ---- failures and strings ---- */

void onnx_fail(struct onnx *x, const char *format, ...)
{
    char words[256];
    va_list args;
    if (x->status) return;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    x->status = elbo_fail(x->error, ELBO_USAGE, "--format=onnx: %s", words);
}

static const char *starve(struct onnx *x)
{
    if (!x->status) x->status = elbo_fail(x->error, ELBO_MEMORY, "no memory for a graph of ONNX");
    return "";
}

const char *onnx_string(struct onnx *x, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    if (x->status) return "";
    va_start(args, format);
    int size = vasprintf(&text, format, args);
    va_end(args);
    if (size < 0) return starve(x);
    if (x->string_count == x->string_room) {
        size_t room = 2 * x->string_room + 256;
        char **grown = realloc(x->strings, room * sizeof *grown);
        if (!grown) {
            free(text);
            return starve(x);
        }
        x->strings = grown;
        x->string_room = room;
    }
    return x->strings[x->string_count++] = text;
}

const char *onnx_fresh(struct onnx *x, const char *what)
{
    return onnx_string(x, "%s_%zu", what, x->numbered++);
}

/* ---- nodes ---- */

static bool integers_of(struct bytes *a, const char *text)
{
    for (const char *p = text; *p && *p != ']';) {
        char *end;
        protobuf_integer(a, ATTRIBUTE_INTS, strtoll(p, &end, 10));
        if (end == p) return false;
        p = *end == ',' ? end + 1 : end;
    }
    return true;
}

/* Adds one attribute of "axis=-1;perm=[0,2,1];..." and moves *text behind it. */
static void add_attribute(struct bytes *node, const char **text)
{
    enum { FLOAT = 1, INT, STRING, INTS = 7 };
    struct bytes a = {0};
    const char *name = *text, *given = strchr(name, '='), *end = strchr(name, ';');
    if (!end) end = name + strlen(name);
    *text = *end ? end + 1 : end;
    given++;
    protobuf_bytes(&a, ATTRIBUTE_NAME, name, (size_t)(given - 1 - name));
    int type = INT;
    if (*given == '[') {
        type = INTS;
        a.failed |= !integers_of(&a, given + 1);
    } else if (*given == '\'') {
        type = STRING;
        protobuf_bytes(&a, ATTRIBUTE_S, given + 1, (size_t)(end - given - 2));
    } else if (strcspn(given, ".e") < (size_t)(end - given)) {
        type = FLOAT;
        protobuf_float(&a, ATTRIBUTE_F, strtof(given, NULL));
    } else {
        protobuf_integer(&a, ATTRIBUTE_I, strtoll(given, NULL, 10));
    }
    protobuf_integer(&a, ATTRIBUTE_TYPE, type);
    protobuf_message(node, NODE_ATTRIBUTE, &a);
    bytes_free(&a);
}

void onnx_nodes(struct onnx *x, const char *op, const char *const *in, const char *attributes, const char *const *out)
{
    struct bytes node = {0};
    size_t count = 0;
    if (x->status) return;
    for (size_t i = 0; in[i]; i++)
        if (*in[i]) count = i + 1; /* inputs left out at the end are not named */
    for (size_t i = 0; i < count; i++) protobuf_text(&node, NODE_INPUT, in[i]);
    for (size_t i = 0; out[i]; i++) protobuf_text(&node, NODE_OUTPUT, out[i]);
    protobuf_text(&node, NODE_NAME, onnx_fresh(x, op));
    protobuf_text(&node, NODE_OP, op);
    for (const char *p = attributes ? attributes : ""; *p;) add_attribute(&node, &p);
    if (!strcmp(op, "MatMulNBits")) protobuf_text(&node, NODE_DOMAIN, "com.microsoft");
    protobuf_message(&x->nodes, GRAPH_NODE, &node);
    bytes_free(&node);
    if (x->nodes.failed) starve(x);
}

const char *onnx_node(struct onnx *x, const char *op, const char *const *in, const char *attributes)
{
    const char *out = onnx_fresh(x, op);
    onnx_nodes(x, op, in, attributes, ONNX_IN(out));
    return out;
}

/* ---- constants and weights ---- */

/* Whether an initializer of this name exists; records it if not. */
static bool known(struct onnx *x, const char *name)
{
    for (size_t i = 0; i < x->initialized_count; i++)
        if (!strcmp(x->initialized[i], name)) return true;
    if (x->initialized_count == x->initialized_room) {
        size_t room = 2 * x->initialized_room + 256;
        const char **grown = realloc(x->initialized, room * sizeof *grown);
        if (!grown) return starve(x), true;
        x->initialized = grown;
        x->initialized_room = room;
    }
    x->initialized[x->initialized_count++] = name;
    return false;
}

/* Adds a tensor whose bytes are in the graph. */
static const char *constant(struct onnx *x, const char *name, enum onnx_type type, const int64_t *count,
                            const void *bytes, size_t size)
{
    struct bytes t = {0};
    if (x->status || known(x, name)) return name;
    if (count) protobuf_integer(&t, TENSOR_DIMS, *count);
    protobuf_integer(&t, TENSOR_TYPE, type);
    protobuf_text(&t, TENSOR_NAME, name);
    protobuf_bytes(&t, TENSOR_RAW, bytes, size);
    protobuf_message(&x->initializers, GRAPH_INITIALIZER, &t);
    bytes_free(&t);
    return x->initializers.failed ? starve(x) : name;
}

const char *onnx_integers(struct onnx *x, const int64_t *values, size_t count)
{
    char name[256] = "ints";
    for (size_t i = 0; i < count; i++)
        snprintf(name + strlen(name), sizeof name - strlen(name), "_%lld", (long long)values[i]);
    return constant(x, onnx_string(x, "%s", name), ONNX_INT64, &(int64_t){(int64_t)count}, values,
                    count * sizeof *values);
}

const char *onnx_integer(struct onnx *x, int64_t number)
{
    return constant(x, onnx_string(x, "int_%lld", (long long)number), ONNX_INT64, NULL, &number, sizeof number);
}

const char *onnx_real(struct onnx *x, double number)
{
    float v = (float)number;
    return constant(x, onnx_string(x, "real_%.9g", number), ONNX_FLOAT, NULL, &v, sizeof v);
}

void onnx_data_free(struct onnx_data *d)
{
    for (size_t i = 0; i < d->count; i++) free(d->entries[i].name);
    free(d->entries);
    d->entries = NULL;
    d->count = d->room = 0;
}

static size_t bytes_of(enum onnx_type type)
{
    return type == ONNX_UINT8 || type == ONNX_BOOL ? 1 : type == ONNX_INT64 || type == ONNX_DOUBLE ? 8 : 4;
}

/* Finds a tensor in the file of weights, or appends it. */
static elbo_status placed(struct onnx_entry *out, struct onnx_data *d, const char *name, const void *data, size_t size,
                          elbo_error *error)
{
    static const char zeros[ALIGNMENT];
    for (size_t i = 0; i < d->count; i++)
        if (!strcmp(d->entries[i].name, name)) {
            *out = d->entries[i];
            return ELBO_OK;
        }
    if (d->count == d->room) {
        size_t room = 2 * d->room + 256;
        struct onnx_entry *grown = realloc(d->entries, room * sizeof *grown);
        if (!grown) return elbo_fail(error, ELBO_MEMORY, "no memory for the list of weights");
        d->entries = grown;
        d->room = room;
    }
    size_t gap = (size_t)(-d->size % ALIGNMENT);
    ELBO_TRY(file_append(d->writer, zeros, gap, error));
    ELBO_TRY(file_append(d->writer, data, size, error));
    *out = (struct onnx_entry){.name = strdup(name), .offset = d->size + gap, .size = size};
    if (!out->name) return elbo_fail(error, ELBO_MEMORY, "no memory for the list of weights");
    d->entries[d->count++] = *out;
    d->size += gap + size;
    return ELBO_OK;
}

static void external(struct bytes *tensor, const char *key, const char *what)
{
    struct bytes pair = {0};
    protobuf_text(&pair, 1, key);
    protobuf_text(&pair, 2, what);
    protobuf_message(tensor, TENSOR_EXTERNAL, &pair);
    bytes_free(&pair);
}

const char *onnx_weight(struct onnx *x, const char *name, enum onnx_type type, const size_t *shape, size_t rank,
                        const void *data)
{
    enum { IN_A_FILE = 1 };
    struct bytes t = {0};
    struct onnx_entry at;
    char number[32];
    size_t size = bytes_of(type);
    for (size_t i = 0; i < rank; i++) size *= shape[i];
    name = onnx_string(x, "%s", name);
    if (x->status || known(x, name)) return name;
    x->status = placed(&at, x->data, name, data, size, x->error);
    if (x->status) return name;
    for (size_t i = 0; i < rank; i++) protobuf_integer(&t, TENSOR_DIMS, (int64_t)shape[i]);
    protobuf_integer(&t, TENSOR_TYPE, type);
    protobuf_text(&t, TENSOR_NAME, name);
    external(&t, "location", x->data->file);
    snprintf(number, sizeof number, "%llu", (unsigned long long)at.offset);
    external(&t, "offset", number);
    snprintf(number, sizeof number, "%llu", (unsigned long long)at.size);
    external(&t, "length", number);
    protobuf_integer(&t, TENSOR_LOCATION, IN_A_FILE);
    protobuf_message(&x->initializers, GRAPH_INITIALIZER, &t);
    bytes_free(&t);
    return x->initializers.failed ? starve(x) : name;
}

const float *onnx_host(const struct onnx *x, value v)
{
    const struct value_info *info = graph_value(x->g, v);
    if (!v.index || info->class != VALUE_PARAMETER) return NULL;
    return x->source->model->weights + parameters_get(x->source->model->parameters, info->binding)->offset;
}

/* ---- inputs and outputs ---- */

static void describe(struct bytes *to, unsigned field, const char *name, enum onnx_type type, const char *dims)
{
    struct bytes info = {0}, of = {0}, tensor = {0}, shape = {0};
    for (const char *p = dims; *p;) {
        struct bytes dim = {0};
        size_t length = strcspn(p, ",");
        if (strspn(p, "0123456789") >= length)
            protobuf_integer(&dim, 1, strtoll(p, NULL, 10));
        else
            protobuf_bytes(&dim, 2, p, length);
        protobuf_message(&shape, 1, &dim);
        bytes_free(&dim);
        p += length + (p[length] == ',');
    }
    protobuf_integer(&tensor, 1, type);
    protobuf_message(&tensor, 2, &shape);
    protobuf_message(&of, 1, &tensor);
    protobuf_text(&info, 1, name);
    protobuf_message(&info, 2, &of);
    protobuf_message(to, field, &info);
    bytes_free(&shape);
    bytes_free(&tensor);
    bytes_free(&of);
    bytes_free(&info);
}

void onnx_input(struct onnx *x, const char *name, enum onnx_type type, const char *dims)
{
    describe(&x->inputs, GRAPH_INPUT, name, type, dims);
}

void onnx_output(struct onnx *x, const char *name, enum onnx_type type, const char *dims)
{
    describe(&x->outputs, GRAPH_OUTPUT, name, type, dims);
}

/* ---- the graph ---- */

elbo_status onnx_begin(struct onnx *x, const struct export_source *s, const struct graph *g, struct onnx_data *data,
                       elbo_error *error)
{
    *x = (struct onnx){.source = s, .g = g, .data = data, .bits = 32, .error = error};
    x->of = calloc(graph_values(g) + 1, sizeof *x->of);
    return x->of ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for a graph of %zu values", graph_values(g));
}

void onnx_set(struct onnx *x, value v, const char *tensor)
{
    if (v.index) x->of[v.index] = tensor;
}

const char *onnx_of(struct onnx *x, value v)
{
    const struct value_info *info = graph_value(x->g, v);
    if (x->status || !v.index) return "";
    if (x->of[v.index]) return x->of[v.index];
    if (info->class == VALUE_PARAMETER) {
        const struct parameter *p = parameters_get(x->source->model->parameters, info->binding);
        onnx_set(x, v, onnx_weight(x, p->name, ONNX_FLOAT, p->shape, p->rank, onnx_host(x, v)));
    } else if (info->producer) {
        onnx_rule(x, graph_node_get(x->g, info->producer - 1));
    }
    if (!x->of[v.index]) onnx_fail(x, "the graph has no place for the input %s", info->name);
    return x->status ? "" : x->of[v.index];
}

static void opset(struct bytes *model, const char *domain, int version)
{
    struct bytes one = {0};
    protobuf_text(&one, 1, domain);
    protobuf_integer(&one, 2, version);
    protobuf_message(model, 8, &one);
    bytes_free(&one);
}

elbo_status onnx_write(struct onnx *x, const char *folder, const char *name)
{
    struct bytes graph = {0}, model = {0};
    const struct bytes *const parts[] = {&x->nodes, &x->initializers, &x->inputs, &x->outputs};
    if (x->status) return x->status;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) protobuf_append(&graph, parts[i]);
    protobuf_text(&graph, GRAPH_NAME, x->decoder ? "decoder" : "encoder");
    protobuf_integer(&model, 1, IR_VERSION);
    protobuf_text(&model, 2, "elbo");
    protobuf_text(&model, 3, x->source->program);
    protobuf_message(&model, 7, &graph);
    opset(&model, "", OPSET);
    if (x->bits < 32) opset(&model, "com.microsoft", 1);
    if (model.failed)
        starve(x);
    else
        x->status = export_text(folder, name, (const char *)model.at, model.size, x->error);
    bytes_free(&graph);
    bytes_free(&model);
    return x->status;
}

void onnx_free(struct onnx *x)
{
    bytes_free(&x->nodes);
    bytes_free(&x->initializers);
    bytes_free(&x->inputs);
    bytes_free(&x->outputs);
    for (size_t i = 0; i < x->string_count; i++) free(x->strings[i]);
    free(x->strings);
    free(x->of);
    free(x->initialized);
    *x = (struct onnx){0};
}

/* ---- shorthand ---- */

const char *onnx_reshape(struct onnx *x, const char *tensor, const int64_t *shape, size_t count)
{
    return onnx_node(x, "Reshape", ONNX_IN(tensor, onnx_integers(x, shape, count)), NULL);
}

const char *onnx_unsqueeze(struct onnx *x, const char *tensor, int64_t axis)
{
    return onnx_node(x, "Unsqueeze", ONNX_IN(tensor, ONNX_INTEGERS(x, axis)), NULL);
}

const char *onnx_size(struct onnx *x, const char *tensor, int64_t axis)
{
    const char *shape = onnx_node(x, "Shape", ONNX_IN(tensor), NULL);
    return onnx_node(x, "Gather", ONNX_IN(shape, onnx_integer(x, axis)), "axis=0");
}

const char *onnx_mask(struct onnx *x)
{
    return onnx_node(x, "Cast", ONNX_IN(ONNX_MASK), "to=1");
}
