/* elbo encode: sentences to latents. npy holds z (rows, Z): the posterior's mean, or a sample; jsonl holds mu, logvar and
 * z of each. */
#include "cli/run.h"

#include "base/files.h"
#include "base/json.h"
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
    return fwrite(data, 1, size, stdout) == size ? ELBO_OK : elbo_fail(error, ELBO_IO, "cannot write to standard output");
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

static elbo_status write_jsonl(const struct sink *sink, const struct cli_sentences *s, const float *z, const float *stats,
                               size_t width, elbo_error *error)
{
    for (size_t i = 0; i < s->count; i++) {
        json_t *row = json_pack("{s:s, s:o, s:o, s:o}", "text", s->text[i], "mu", numbers(stats + i * 2 * width, width), "logvar",
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

static elbo_status write_all(const struct sink *sink, const struct cli_sentences *s, const float *z, const float *stats,
                             size_t width, bool jsonl, elbo_error *error)
{
    return jsonl ? write_jsonl(sink, s, z, stats, width, error) : npy_write(sink, z, s->count, width, error);
}

elbo_status cli_encode_command(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct cli_sentences s = {0};
    float *z = NULL, *stats = NULL;
    bool jsonl = cli->config.generate.format == FORMAT_JSONL, file = *cli->config.out;
    if (!jsonl && !file && isatty(STDOUT_FILENO))
        return elbo_fail(error, ELBO_USAGE, "npy is binary; give --out=z.npy, or --format=jsonl");
    ELBO_TRY(cli_open_run(&run, cli, error));
    elbo_status status = cli_needs_latent(&run, error);
    if (!status) status = cli_read_sentences(&s, &run, cli, error);
    if (!status) status = cli_encode(&z, &stats, &s, &run, cli, error);
    size_t width = run.model.config.latent.width;
    if (!status && file) {
        struct file_writer writer;
        struct sink sink = {to_writer, &writer};
        status = file_replace(&writer, cli->config.out, error);
        if (!status) {
            status = write_all(&sink, &s, z, stats, width, jsonl, error);
            if (!status) status = file_commit(&writer, error);
            file_abort(&writer);
        }
    } else if (!status) {
        struct sink sink = {to_stdout, NULL};
        status = write_all(&sink, &s, z, stats, width, jsonl, error);
    }
    free(z);
    free(stats);
    cli_free_sentences(&s);
    run_close(&run);
    return status;
}
