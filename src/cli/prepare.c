/* elbo prepare: text to corpus. */
#include "cli/cli.h"
#include "base/json.h"

#include "elbo/corpus.h"

#include <stdlib.h>

static void show_progress(void *context, double share, const char *what)
{
    log_progress(context, share, what);
}

static elbo_status print_json(const struct elbo_prepare_report *report, elbo_error *error)
{
    json_t *parts = json_array();
    int failed = 0;
    for (size_t i = 0; i < report->part_count; i++) {
        const struct elbo_prepare_part *part = &report->parts[i];
        failed |= json_array_append_new(
            parts, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "part", part->name, "sentences",
                             (json_int_t)part->sentences, "tokens", (json_int_t)part->tokens, "words",
                             (json_int_t)part->words, "bytes", (json_int_t)part->bytes, "unknown",
                             (json_int_t)part->unknown, "longest", (json_int_t)part->longest));
    }
    json_t *all = json_pack("{s:I, s:I, s:I, s:I, s:I, s:o}", "lines", (json_int_t)report->lines, "blank_lines",
                            (json_int_t)report->blank_lines, "replaced", (json_int_t)report->replaced, "replaced_lines",
                            (json_int_t)report->replaced_lines, "vocabulary", (json_int_t)report->vocabulary, "parts",
                            parts);
    if (failed) {
        json_decref(all);
        all = NULL;
    }
    return json_print(stdout, all, JSON_INDENT(2), "the report", error);
}

elbo_status cli_prepare(struct cli *cli, elbo_error *error)
{
    const struct elbo_config *config = &cli->config;
    struct elbo_prepare_options options = {
        .inputs = cli->arguments,
        .input_count = cli->argument_count,
        .out = config->out,
        .split = config->prepare.split,
        .tokenizer_kind = (enum elbo_tokenizer_kind)config->prepare.tokenizer_kind,
        .tokenizer_size = config->prepare.tokenizer_size,
        .tokenizer_from = config->prepare.tokenizer_from,
        .strict = config->prepare.strict,
    };
    struct elbo_prepare_report report;
    elbo_status status = elbo_prepare(&options, &report, show_progress, &cli->log, error);
    log_progress_end(&cli->log);
    ELBO_TRY(status);
    if (report.replaced)
        log_warning(&cli->log, "%zu ill-formed parts of UTF-8 in %zu lines became U+FFFD; --strict refuses them",
                    report.replaced, report.replaced_lines);
    if (report.blank_lines) log_line(&cli->log, "%zu blank lines left out", report.blank_lines);
    if (config->json) return print_json(&report, error);
    for (size_t i = 0; i < report.part_count; i++) {
        const struct elbo_prepare_part *part = &report.parts[i];
        printf("%s%s%s: %zu sentences, %zu tokens (%.1f %% unknown), %zu words, longest %zu tokens, vocabulary %zu\n",
               config->out, *part->name ? "/" : "", part->name, part->sentences, part->tokens,
               part->tokens ? 100.0 * (double)part->unknown / (double)part->tokens : 0.0, part->words, part->longest,
               report.vocabulary);
    }
    return ELBO_OK;
}
