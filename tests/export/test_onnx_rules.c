/* Tests that an op without an ONNX rule is refused with its name and place, that values which no output needs are not
 * written, and that errors are sticky. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "device/backends.h"
#include "export/onnx.h"

struct fixture {
    struct model model;
    struct export_source source;
    struct recording r;
    struct onnx_data data;
    struct file_writer writer;
    struct onnx x;
    char folder[64];
    elbo_error error;
};

static void must(struct fixture *f, elbo_status status)
{
    if (status) fail_msg("%s", f->error.message);
}

/* Begins to write a model whose scoring ends with a loss, for which there is no rule. */
static void begin(struct fixture *f)
{
    struct backend *backend;
    char path[FILES_PATH];
    struct stack_config stack = {.width = 8, .layers = 1, .heads = 2};
    struct model_config c = {.encoder = stack,
                             .decoder = stack,
                             .latent = {.kind = LATENT_NORMAL, .width = 3, .memory = 1, .sample = true},
                             .share_embedding = true,
                             .tie_output = true,
                             .vocabulary = 7,
                             .positions = 6};
    struct graph_capacities most = {{[DIM_ENC_TOKENS] = 8, [DIM_DEC_TOKENS] = 8, [DIM_SENTENCES] = 2, [DIM_DRAWS] = 2}};
    *f = (struct fixture){.folder = "/tmp/elbo-onnx-XXXXXX"};
    assert_non_null(mkdtemp(f->folder));
    must(f, cpu_backend_create(&backend, 1, NULL, &f->error));
    must(f, model_create(&f->model, &c, backend, &f->error));
    must(f, record_score(&f->r, &c, f->model.parameters, &most, &f->error));
    must(f, file_join(path, f->folder, "weights.bin", &f->error));
    must(f, file_create(&f->writer, path, &f->error));
    f->source = (struct export_source){.model = &f->model, .program = "0"};
    f->data = (struct onnx_data){.writer = &f->writer, .file = "weights.bin"};
    must(f, onnx_begin(&f->x, &f->source, f->r.g, &f->data, &f->error));
    f->x.decoder = true;
    onnx_set(&f->x, graph_input_named(f->r.g, "decoder.ids"), ONNX_IDS);
    onnx_set(&f->x, graph_input_named(f->r.g, "decoder.position"), "position");
    onnx_set(&f->x, graph_input_named(f->r.g, "z"), "z");
}

static void end(struct fixture *f)
{
    struct backend *b = f->model.backend;
    onnx_free(&f->x);
    onnx_data_free(&f->data);
    file_abort(&f->writer);
    recording_free(&f->r, b);
    model_free(&f->model);
    b->destroy(b);
    assert_int_equal(file_remove_folder(f->folder, &f->error), ELBO_OK);
}

static void an_op_without_a_rule(void **state)
{
    struct fixture f;
    (void)state;
    begin(&f);
    assert_string_equal(onnx_of(&f.x, f.r.token_nll), "");
    assert_int_equal(f.x.status, ELBO_USAGE);
    assert_non_null(strstr(f.error.message, "no rule for the op linear_cross_entropy (in decoder.output)"));
    size_t written = f.x.nodes.size;
    assert_string_equal(onnx_node(&f.x, "Relu", ONNX_IN("z"), NULL), "");
    assert_int_equal(f.x.nodes.size, written);
    assert_int_equal(onnx_write(&f.x, f.folder, "model.onnx"), ELBO_USAGE);
    end(&f);
}

static void an_input_without_a_place(void **state)
{
    struct fixture f;
    (void)state;
    begin(&f);
    onnx_of(&f.x, graph_input_named(f.r.g, "decoder.labels"));
    assert_int_equal(f.x.status, ELBO_USAGE);
    assert_non_null(strstr(f.error.message, "decoder.labels"));
    end(&f);
}

/* Asking for the table of positions alone writes its weight and nothing else, and only once. */
static void what_is_asked_for(void **state)
{
    struct fixture f;
    (void)state;
    begin(&f);
    for (size_t i = 1; i <= graph_values(f.r.g); i++) {
        const struct value_info *info = graph_value(f.r.g, (value){(uint32_t)i});
        if (info->class != VALUE_PARAMETER) continue;
        const struct parameter *p = parameters_get(f.model.parameters, info->binding);
        if (strcmp(p->name, "decoder.embedding.position.weight")) continue;
        assert_string_equal(onnx_of(&f.x, (value){(uint32_t)i}), p->name);
        assert_string_equal(onnx_of(&f.x, (value){(uint32_t)i}), p->name);
    }
    assert_int_equal(f.data.count, 1);
    assert_int_equal(f.data.size, 6 * 8 * sizeof(float));
    assert_int_equal(f.x.nodes.size, 0);
    must(&f, f.x.status);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_op_without_a_rule),
        cmocka_unit_test(an_input_without_a_place),
        cmocka_unit_test(what_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
