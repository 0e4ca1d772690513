/* elbo sample, reconstruct, interpolate, decode: z to sentences, a line each. */
#include "cli/run.h"

#include "base/json.h"
#include "base/philox.h"
#include "formats/latent_line.h"
#include "model/posterior.h"

#include <stdlib.h>
#include <string.h>

/* One product line: the sentence, or an object with it. */
static elbo_status put(const struct run *run, const struct elbo_ids *ids, bool json, const char *key, const char *other,
                       elbo_error *error)
{
    struct elbo_text text = {0};
    elbo_status status = cli_text(&text, run, ids, error);
    if (!status && !json) printf("%s\n", text.text ? text.text : "");
    if (!status && json) {
        struct elbo_text clean = {0};
        size_t replaced, first;
        status = elbo_text_repair(&clean, &replaced, &first, text.text ? text.text : "", text.size, error);
        json_t *row = status ? NULL : json_pack("{s:s}", "text", clean.text ? clean.text : "");
        if (key && json_object_set_new(row, key, json_string(other))) {
            json_decref(row);
            row = NULL;
        }
        if (!status) status = json_print(stdout, row, JSON_COMPACT, "a sentence", error);
        elbo_text_free(&clean);
    }
    elbo_text_free(&text);
    return status;
}

static elbo_status put_all(const struct run *run, const float *z, size_t rows, bool greedy, struct cli *cli,
                           const struct cli_sentences *sources, elbo_error *error)
{
    struct elbo_ids *ids;
    ELBO_TRY(cli_generate(&ids, z, rows, greedy, (struct run *)run, cli, error));
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < rows && !status; i++)
        status = put(run, &ids[i], cli->config.json, sources ? "source" : NULL, sources ? sources->text[i] : NULL, error);
    cli_free_ids(ids, rows);
    return status;
}

elbo_status cli_sample(struct cli *cli, elbo_error *error)
{
    struct run run;
    ELBO_TRY(cli_open_run(&run, cli, error));
    size_t rows = cli->config.generate.count, width = run.model.config.latent.width;
    bool latent = run.model.config.latent.kind != LATENT_NONE;
    float *z = latent ? calloc(rows * width + 1, sizeof *z) : NULL;
    struct posterior_noise noise = {cli->config.seed, noise_purpose("sample.prior"), 0, 0};
    elbo_status status = latent && !z ? elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", rows) : ELBO_OK;
    for (size_t i = 0; i < rows && z; i++) prior_sample(z + i * width, width, &noise, i);
    if (!status) status = put_all(&run, z, rows, false, cli, NULL, error);
    free(z);
    run_close(&run);
    return status;
}

/* Reconstruction is greedy unless sampling was asked for. */
static bool greedy_by_default(const struct cli *cli)
{
    return !options_given(cli->options, "temperature") && !options_given(cli->options, "top_p") &&
           !options_given(cli->options, "top_k");
}

elbo_status cli_reconstruct(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct cli_sentences s = {0};
    float *z = NULL;
    ELBO_TRY(cli_open_run(&run, cli, error));
    elbo_status status = cli_needs_latent(&run, error);
    if (!status) status = cli_read_sentences(&s, &run, cli, error);
    if (!status) status = cli_encode(&z, NULL, &s, &run, cli, error);
    if (!status) status = put_all(&run, z, s.count, greedy_by_default(cli), cli, &s, error);
    free(z);
    cli_free_sentences(&s);
    run_close(&run);
    return status;
}

elbo_status cli_interpolate(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct cli_sentences s = {0};
    const struct generate_config *g = &cli->config.generate;
    float *ends = NULL, *z = NULL;
    if (!options_given(cli->options, "from") || !options_given(cli->options, "to"))
        return elbo_fail(error, ELBO_USAGE, "interpolate needs --from=\"a sentence\" and --to=\"another\"");
    ELBO_TRY(cli_open_run(&run, cli, error));
    size_t width = run.model.config.latent.width, steps = g->steps;
    elbo_status status = cli_needs_latent(&run, error);
    if (!status) status = cli_add_sentence(&s, &run, g->from, strlen(g->from), error);
    if (!status) status = cli_add_sentence(&s, &run, g->to, strlen(g->to), error);
    if (!status) status = cli_encode(&ends, NULL, &s, &run, cli, error);
    if (!status && !(z = calloc(steps * width + 1, sizeof *z)))
        status = elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", steps);
    for (size_t i = 0; i < steps && z; i++)
        for (size_t j = 0; j < width; j++) {
            float t = (float)i / (float)(steps - 1);
            z[i * width + j] = (1 - t) * ends[j] + t * ends[width + j];
        }
    if (!status) status = put_all(&run, z, steps, greedy_by_default(cli), cli, NULL, error);
    free(ends);
    free(z);
    cli_free_sentences(&s);
    run_close(&run);
    return status;
}

elbo_status cli_decode(struct cli *cli, elbo_error *error)
{
    struct run run;
    struct elbo_text text = {0};
    float *z = NULL;
    size_t rows = 0, room = 0, replaced = 0;
    bool more = false;
    ELBO_TRY(cli_open_run(&run, cli, error));
    size_t width = run.model.config.latent.width;
    elbo_status status = cli_needs_latent(&run, error);
    while (!status && !(status = cli_read_line(&more, &text, &replaced, error)) && more) {
        if (rows == room) {
            room = room ? 2 * room : 64;
            float *grown = realloc(z, room * width * sizeof *z);
            if (!grown) {
                status = elbo_fail(error, ELBO_MEMORY, "no memory for %zu latents", room);
                break;
            }
            z = grown;
        }
        status = latent_line_parse(z + rows * width, width, text.text ? text.text : "", text.size, rows + 1, error);
        rows++;
    }
    if (!status) status = put_all(&run, z, rows, greedy_by_default(cli), cli, NULL, error);
    free(z);
    elbo_text_free(&text);
    run_close(&run);
    return status;
}
