/* elbo sample, reconstruct, interpolate, decode: turn latents z into sentences, one a line, a batch at a time. */
#include "cli/run.h"

#include "base/json.h"
#include "base/philox.h"
#include "formats/latent_line.h"
#include "formats/npy.h"
#include "model/latent.h"

#include <stdlib.h>
#include <string.h>

/* Writes one line: the sentence, or an object with the sentence. A sentence holds no line end (struct run: line_ends)
 * but may hold NUL. */
static elbo_status put(const struct run *run, const struct elbo_ids *ids, bool json, const struct elbo_text *source,
                       elbo_error *error)
{
    struct elbo_text text = {0};
    elbo_status status = cli_text(&text, run, ids, error);
    if (!status && !json) {
        fwrite(text.text ? text.text : "", 1, text.size, stdout);
        putchar('\n');
    }
    if (!status && json) {
        struct elbo_text clean = {0};
        size_t replaced, first;
        status = elbo_text_repair(&clean, &replaced, &first, text.text ? text.text : "", text.size, error);
        json_t *row =
            status ? NULL : json_pack("{s:o}", "text", json_stringn(clean.text ? clean.text : "", clean.size));
        if (source &&
            json_object_set_new(row, "source", json_stringn(source->text ? source->text : "", source->size))) {
            json_decref(row);
            row = NULL;
        }
        if (!status) status = json_print(stdout, row, JSON_COMPACT, "a sentence", error);
        elbo_text_free(&clean);
    }
    elbo_text_free(&text);
    return status;
}

/* Generates and writes a batch; `first` is the number of its first sentence. */
static elbo_status put_batch(struct run *run, const float *z, size_t rows, size_t first, struct generate_options *o,
                             bool json, const struct elbo_text *sources, elbo_error *error)
{
    struct elbo_ids *ids = calloc(rows + 1, sizeof *ids);
    if (!ids) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", rows);
    o->first_row = first;
    elbo_status status = generate(&run->model, ids, z, rows, o, &run->marks, error);
    for (size_t i = 0; i < rows && !status; i++) status = put(run, &ids[i], json, sources ? &sources[i] : NULL, error);
    for (size_t i = 0; i < rows; i++) elbo_ids_free(&ids[i]);
    free(ids);
    return status ? status : cli_flush(error);
}

/* Reconstruction is greedy unless the command line asks for sampling. */
static bool greedy_by_default(const struct cli *cli)
{
    return !options_given(cli->options, "temperature") && !options_given(cli->options, "top_p") &&
           !options_given(cli->options, "top_k") && !options_given(cli->options, "greedy");
}

/* Opens the command's run and reads the options of generation. Closes the run again on failure. */
static elbo_status begin(struct run *run, struct generate_options *o, bool greedy, bool needs_latent, struct cli *cli,
                         elbo_error *error)
{
    ELBO_TRY(cli_open_run(run, cli, error));
    elbo_status status = needs_latent ? cli_needs_latent(run, error) : ELBO_OK;
    if (!status) status = cli_generate_options(o, greedy, run, cli, error);
    if (status) run_close(run);
    return status;
}

elbo_status cli_sample(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct generate_options o;
    ELBO_TRY(begin(&run, &o, false, false, cli, error));
    size_t count = cli->config.generate.count, width = run.model.config.latent.width, batch = generate_batch(&o);
    bool latent = run.model.config.latent.kind != LATENT_NONE;
    float *z = latent ? malloc(batch * width * sizeof *z) : NULL;
    struct latent_noise noise = {cli->config.seed, noise_purpose("sample.prior"), 0, 0};
    struct latent prior = {0};
    elbo_status status = latent && !z ? elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", batch) : ELBO_OK;
    bool fitted = cli->config.generate.fitted && run.fitted.density.count;
    if (!status && !fitted && cli->config.generate.fitted && options_given(cli->options, "fitted"))
        status = elbo_fail(error, ELBO_USAGE, "--fitted: %s has no fitted prior; fit one with `elbo fit-prior %s`",
                           checkpoint_path(run.checkpoint), cli->arguments[0]);
    if (!status && fitted)
        prior = latent_with(&run.fitted.density);
    else if (!status)
        status = latent_open(&prior, &run.model, error);
    for (size_t at = 0; at < count && !status; at += batch) {
        size_t rows = count - at < batch ? count - at : batch;
        if (z) latent_prior_samples(&prior, z, rows, &noise, at);
        status = put_batch(&run, z, rows, at, &o, cli->config.json, NULL, error);
    }
    latent_close(&prior);
    free(z);
    run_close(&run);
    return status;
}

elbo_status cli_reconstruct(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct generate_options o;
    struct cli_sentences s = {0};
    struct cli_input in = {.log = &cli->log};
    ELBO_TRY(begin(&run, &o, greedy_by_default(cli), true, cli, error));
    elbo_status status;
    while (!(status = cli_read_batch(&s, &in, generate_batch(&o), &run, error)) && s.count) {
        float *z = NULL;
        status = cli_encode_sentences(&z, NULL, &s, &run, cli, error);
        if (!status) status = put_batch(&run, z, s.count, s.first, &o, cli->config.json, s.text, error);
        free(z);
        if (status) break;
    }
    if (!status) cli_report_sentences(&s, &in, &run, cli);
    cli_free_sentences(&s);
    cli_input_close(&in);
    run_close(&run);
    return status;
}

elbo_status cli_interpolate(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct generate_options o;
    struct cli_sentences s = {0};
    const struct generate_config *g = &cli->config.generate;
    float *ends = NULL, *z = NULL;
    if (!options_given(cli->options, "from") || !options_given(cli->options, "to"))
        return elbo_fail(error, ELBO_USAGE, "interpolate needs --from=\"a sentence\" and --to=\"another\"");
    ELBO_TRY(begin(&run, &o, greedy_by_default(cli), true, cli, error));
    size_t width = run.model.config.latent.width, steps = g->steps;
    elbo_status status = cli_add_sentence(&s, &run, g->from, strlen(g->from), error);
    if (!status) status = cli_add_sentence(&s, &run, g->to, strlen(g->to), error);
    if (!status) status = cli_encode_sentences(&ends, NULL, &s, &run, cli, error);
    if (!status) cli_report_sentences(&s, NULL, &run, cli);
    if (!status && !(z = calloc(steps * width + 1, sizeof *z)))
        status = elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", steps);
    for (size_t i = 0; i < steps && z; i++)
        for (size_t j = 0; j < width; j++) {
            float t = (float)i / (float)(steps - 1);
            z[i * width + j] = (1 - t) * ends[j] + t * ends[width + j];
        }
    if (!status) status = put_batch(&run, z, steps, 0, &o, cli->config.json, NULL, error);
    free(ends);
    free(z);
    cli_free_sentences(&s);
    run_close(&run);
    return status;
}

/* ---- decode: lines of JSON, or a .npy ---- */

struct latents {
    struct cli_input in;
    bool npy;
    struct npy shape;
    size_t width, taken; /* taken: rows or lines before this batch */
};

static elbo_status read_header(struct latents *l, elbo_error *error)
{
    const char *bytes;
    size_t size, header;
    ELBO_TRY(cli_input_bytes(&l->in, NPY_BEGINNING, &bytes, &size, error));
    ELBO_TRY(npy_header_size(&header, bytes, size, error));
    ELBO_TRY(header > 1 << 20 ? elbo_fail(error, ELBO_INPUT, "npy: its header of %zu bytes is longer than any", header)
                              : cli_input_bytes(&l->in, header, &bytes, &size, error));
    if (size < header) return elbo_fail(error, ELBO_INPUT, "npy: truncated in its header");
    ELBO_TRY(npy_parse_header(&l->shape, bytes, header, error));
    cli_input_skip(&l->in, header);
    if (l->shape.width == l->width || !l->shape.rows) return ELBO_OK;
    return elbo_fail(
        error, ELBO_INPUT,
        "npy: the array is (%zu, %zu), and the model's z has %zu numbers; its shape must be (sentences, %zu)",
        l->shape.rows, l->shape.width, l->width, l->width);
}

/* Reads the next rows of a .npy, `most` at most. */
static elbo_status read_rows(struct latents *l, float *z, size_t most, size_t *rows, elbo_error *error)
{
    const char *bytes;
    size_t size, left = l->shape.rows - l->taken, row = l->width * sizeof *z;
    *rows = left < most ? left : most;
    ELBO_TRY(cli_input_bytes(&l->in, *rows * row + !left, &bytes, &size, error));
    if (!left && size)
        return elbo_fail(error, ELBO_INPUT, "npy: bytes follow the %zu rows that its header announces", l->shape.rows);
    if (size < *rows * row)
        return elbo_fail(error, ELBO_INPUT, "npy: truncated: its header announces %zu rows, %zu are there",
                         l->shape.rows, l->taken + size / row);
    if (*rows) memcpy(z, bytes, *rows * row);
    for (size_t i = 0; i < *rows * l->width; i++)
        if (!(z[i] - z[i] <= 0)) /* infinite or not a number */
            return elbo_fail(error, ELBO_INPUT, "npy: row %zu, element %zu is %g; a latent is finite",
                             l->taken + i / l->width, i % l->width, (double)z[i]);
    cli_input_skip(&l->in, *rows * row);
    return ELBO_OK;
}

static elbo_status read_lines(struct latents *l, float *z, size_t most, size_t *rows, elbo_error *error)
{
    struct cli_line line;
    for (*rows = 0; *rows < most; ++*rows) {
        ELBO_TRY(cli_input_line(&l->in, !*rows, &line, error));
        if (!line.text) return ELBO_OK;
        ELBO_TRY(latent_line_parse(z + *rows * l->width, l->width, line.text, line.size, l->in.lines, error));
    }
    return ELBO_OK;
}

elbo_status cli_decode(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct generate_options o;
    ELBO_TRY(begin(&run, &o, greedy_by_default(cli), true, cli, error));
    struct latents l = {.in = {.log = &cli->log}, .width = run.model.config.latent.width};
    const char *bytes;
    size_t size, rows, most = generate_batch(&o);
    float *z = malloc(most * l.width * sizeof *z);
    elbo_status status = z ? cli_input_bytes(&l.in, 1, &bytes, &size, error)
                           : elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", most);
    if (!status && size && (unsigned char)*bytes == 0x93) { /* the first byte of npy's magic; no JSON begins with it */
        l.npy = true;
        status = read_header(&l, error);
    }
    while (!status &&
           !(status = l.npy ? read_rows(&l, z, most, &rows, error) : read_lines(&l, z, most, &rows, error)) && rows) {
        status = put_batch(&run, z, rows, l.taken, &o, cli->config.json, NULL, error);
        l.taken += rows;
    }
    free(z);
    cli_input_close(&l.in);
    run_close(&run);
    return status;
}
