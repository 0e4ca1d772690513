/* elbo encode: encodes sentences to latents. npy holds z (rows, Z), the posterior's mean or a sample; jsonl holds mu,
 * logvar and z of each sentence; cvec is a folder with one control vector per sentence. */
#include "cli/run.h"

#include "base/files.h"
#include "base/json.h"
#include "export/export.h"
#include "formats/npy.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static elbo_status to_writer(void *context, const void *data, size_t size, elbo_error *error)
{
    return file_append(context, data, size, error);
}

static elbo_status to_stdout(void *context, const void *data, size_t size, elbo_error *error)
{
    (void)context;
    return fwrite(data, 1, size, stdout) == size ? ELBO_OK
                                                 : elbo_fail(error, ELBO_IO, "cannot write to standard output");
}

static json_t *numbers(const float *x, size_t n)
{
    json_t *array = json_array();
    int failed = 0;
    for (size_t i = 0; i < n; i++) failed |= json_array_append_new(array, json_real(x[i]));
    if (!failed) return array;
    json_decref(array);
    return NULL;
}

static elbo_status write_jsonl(const struct sink *sink, const struct cli_sentences *s, const float *z,
                               const float *stats, size_t width, elbo_error *error)
{
    for (size_t i = 0; i < s->count; i++) {
        json_t *row = json_pack("{s:o, s:o, s:o, s:o}", "text",
                                json_stringn(s->text[i].text ? s->text[i].text : "", s->text[i].size), "mu",
                                numbers(stats + i * 2 * width, width), "logvar",
                                numbers(stats + (i * 2 + 1) * width, width), "z", numbers(z + i * width, width));
        char *text = json_text(row, JSON_COMPACT | JSON_REAL_PRECISION(9));
        elbo_status status = text ? sink->write(sink->context, text, strlen(text), error)
                                  : elbo_fail(error, ELBO_MEMORY, "no memory for a latent as JSON");
        if (!status) status = sink->write(sink->context, "\n", 1, error);
        free(text);
        json_decref(row);
        ELBO_TRY(status);
    }
    return ELBO_OK;
}

/* All rows of the output. The header of a .npy gives the number of rows, so npy rows are kept until the input ends. */
struct rows {
    float *z; /* (count, Z) */
    size_t count, room;
};

static elbo_status keep_rows(struct rows *rows, const float *z, size_t count, size_t width, elbo_error *error)
{
    if (rows->room - rows->count < count) {
        size_t room = 2 * rows->room + count;
        float *grown = realloc(rows->z, room * width * sizeof *grown);
        if (!grown)
            return elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents; --format=jsonl writes them as they come",
                             room);
        rows->z = grown;
        rows->room = room;
    }
    memcpy(rows->z + rows->count * width, z, count * width * sizeof *z);
    rows->count += count;
    return ELBO_OK;
}

static elbo_status write_vectors(const char *folder, const struct cli_sentences *s, const float *z,
                                 const struct model *m, elbo_error *error)
{
    char name[64];
    for (size_t i = 0; i < s->count; i++) {
        snprintf(name, sizeof name, "sentence-%06zu.gguf", s->first + i + 1);
        ELBO_TRY(export_control_vector(m, z + i * m->config.latent.width, folder, name, error));
    }
    return ELBO_OK;
}

/* `folder`: the output of cvec, which uses no sink. */
static elbo_status encode_all(const struct sink *sink, const char *folder, struct run *run, struct cli *cli,
                              elbo_error *error)
{
    enum { BATCH = 256 };
    struct cli_sentences s = {0};
    struct cli_input in = {.log = &cli->log};
    struct rows rows = {0};
    int format = cli->config.generate.format;
    size_t width = run->model.config.latent.width;
    elbo_status status;
    while (!(status = cli_read_batch(&s, &in, BATCH, run, error)) && s.count) {
        float *z = NULL, *stats = NULL;
        status = cli_encode_sentences(&z, &stats, &s, run, cli, error);
        if (!status && format == FORMAT_JSONL) status = write_jsonl(sink, &s, z, stats, width, error);
        if (!status && format == FORMAT_NPY) status = keep_rows(&rows, z, s.count, width, error);
        if (!status && format == FORMAT_CVEC) status = write_vectors(folder, &s, z, &run->model, error);
        free(z);
        free(stats);
        if (status) break;
    }
    if (!status && format == FORMAT_NPY) status = npy_write(sink, rows.z, rows.count, width, error);
    if (!status) cli_report_sentences(&s, &in, run, cli);
    free(rows.z);
    cli_free_sentences(&s);
    cli_input_close(&in);
    return status;
}

static elbo_status encode_to_file(struct run *run, struct cli *cli, elbo_error *error)
{
    struct file_writer writer;
    struct sink sink = {to_writer, &writer};
    ELBO_TRY(file_replace(&writer, cli->config.out, error));
    elbo_status status = encode_all(&sink, NULL, run, cli, error);
    if (!status) status = file_commit(&writer, error);
    file_abort(&writer);
    return status;
}

/* Builds the folder beside its final place and then puts it there, as every export does. */
static elbo_status encode_to_folder(struct run *run, struct cli *cli, elbo_error *error)
{
    struct stage stage;
    ELBO_TRY(export_control_vector_check(&run->model, error));
    ELBO_TRY(export_open(&stage, cli->config.out, error));
    elbo_status status = encode_all(NULL, stage.work, run, cli, error);
    if (!status) status = export_mark(&stage, "cvec", error);
    if (!status) status = stage_commit(&stage, error);
    stage_close(&stage);
    return status;
}

elbo_status cli_encode(struct cli *cli, elbo_error *error)
{
    struct run run;
    int format = cli->config.generate.format;
    if (format > FORMAT_CVEC)
        return elbo_fail(error, ELBO_USAGE, "latents are written with --format=npy, --format=jsonl or --format=cvec");
    if (format == FORMAT_CVEC && !*cli->config.out)
        return elbo_fail(error, ELBO_USAGE, "--format=cvec needs --out=DIR, a folder to make or to replace whole");
    if (format == FORMAT_NPY && !*cli->config.out && isatty(STDOUT_FILENO))
        return elbo_fail(error, ELBO_USAGE, "npy is binary; give --out=z.npy, or --format=jsonl");
    ELBO_TRY(cli_open_run(&run, cli, error));
    struct sink sink = {to_stdout, NULL};
    elbo_status status = cli_needs_latent(&run, error);
    if (!status && format == FORMAT_CVEC)
        status = encode_to_folder(&run, cli, error);
    else if (!status && *cli->config.out)
        status = encode_to_file(&run, cli, error);
    else if (!status)
        status = encode_all(&sink, NULL, &run, cli, error);
    run_close(&run);
    return status;
}
