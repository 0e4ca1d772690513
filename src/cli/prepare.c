/* elbo prepare: makes a corpus from text. */
#include "cli/cli.h"
#include "base/json.h"

#include "elbo/corpus.h"

#include <stdlib.h>
#include <string.h>

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
    json_t *all = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "lines", (json_int_t)report->lines, "blank_lines",
                            (json_int_t)report->blank_lines, "replaced", (json_int_t)report->replaced, "replaced_lines",
                            (json_int_t)report->replaced_lines, "vocabulary", (json_int_t)report->vocabulary, "labels",
                            (json_int_t)report->classes, "parts", parts);
    if (failed) {
        json_decref(all);
        all = NULL;
    }
    return json_print(stdout, all, JSON_INDENT(2), "the report", error);
}

/* ---- options without effect ---- */

static bool is_given(const struct cli *cli, const char *key)
{
    size_t size = strlen(key);
    for (size_t i = 0; i < cli->override_count; i++) {
        const char *word = cli->overrides[i];
        if (!strncmp(word, "--", 2) && !strncmp(word + 2, key, size) && (word[2 + size] == '=' || !word[2 + size]))
            return true;
    }
    return false;
}

static elbo_status check_tilde(const char *option, const char *path, elbo_error *error)
{
    if (path[0] != '~' || (path[1] && path[1] != '/')) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE,
                     "--%s=%s begins with a ~ that the shell did not expand; write --%s=\"$HOME\"%s, or "
                     "./~%s for a folder of that name",
                     option, path, option, path + 1, path + 1);
}

static elbo_status check_options(const struct cli *cli, elbo_error *error)
{
    const struct elbo_config *config = &cli->config;
    const char *const made[] = {"tokenizer.kind", "tokenizer.size"};
    for (size_t i = 0; i < 2 && *config->prepare.tokenizer_from; i++)
        if (is_given(cli, made[i]))
            return elbo_fail(error, ELBO_USAGE,
                             "--%s has no effect beside --tokenizer.from, which takes a tokenizer as it "
                             "is; leave one of the two out",
                             made[i]);
    if (config->prepare.tokenizer_kind == ELBO_TOKENIZER_BYTE && is_given(cli, "tokenizer.size"))
        return elbo_fail(error, ELBO_USAGE,
                         "--tokenizer.size has no effect beside --tokenizer.kind=byte, whose vocabulary is "
                         "always 259; leave it out, or choose word or bpe");
    ELBO_TRY(check_tilde("out", config->out, error));
    ELBO_TRY(check_tilde("labels", config->prepare.labels, error));
    return check_tilde("tokenizer.from", config->prepare.tokenizer_from, error);
}

/* ---- text that does not suit a word vocabulary ---- */

/* Warns of a train part with many unknown words, or with about one word per sentence. */
static void warn_of_words(struct cli *cli, const struct elbo_prepare_report *report)
{
    const struct elbo_prepare_part *train = &report->parts[0];
    const double many = 0.03, long_word = 25;
    double unknown = train->tokens ? (double)train->unknown / (double)train->tokens : 0;
    /* Text without blanks between words has one "word" as long as a sentence. */
    if (report->tokenizer == ELBO_TOKENIZER_WORD && 2 * train->words < 3 * train->sentences &&
        (double)train->bytes > long_word * (double)train->words)
        log_warning(&cli->log,
                    "the words between blanks have %.0f bytes on average, and %.1f %% of the tokens%s are unknown: "
                    "this text is not cut into words by blanks; use --tokenizer.kind=bpe",
                    (double)train->bytes / (double)train->words, 100 * unknown, *train->name ? " of train" : "");
    else if (unknown > many)
        log_warning(&cli->log,
                    "%.1f %% of the tokens%s are unknown to the vocabulary of %zu words; a larger --tokenizer.size, "
                    "--tokenizer.kind=bpe, or lower-cased text has fewer",
                    100 * unknown, *train->name ? " of train" : "", report->vocabulary);
}

elbo_status cli_prepare(struct cli *cli, elbo_error *error)
{
    const struct elbo_config *config = &cli->config;
    ELBO_TRY(check_options(cli, error));
    struct elbo_prepare_options options = {
        .inputs = cli->arguments,
        .input_count = cli->argument_count,
        .out = config->out,
        .split = config->prepare.split,
        .tokenizer_kind = (enum elbo_tokenizer_kind)config->prepare.tokenizer_kind,
        .tokenizer_size = config->prepare.tokenizer_size,
        .tokenizer_from = config->prepare.tokenizer_from,
        .strict = config->prepare.strict,
        .labels = config->prepare.labels,
        .label_column = (enum elbo_label_column)config->prepare.label_column,
    };
    struct elbo_prepare_report report;
    elbo_status status = elbo_prepare(&options, &report, show_progress, &cli->log, error);
    log_progress_end(&cli->log);
    ELBO_TRY(status);
    if (report.replaced)
        log_warning(&cli->log, "%zu ill-formed parts of UTF-8 in %zu lines became U+FFFD; --strict refuses them",
                    report.replaced, report.replaced_lines);
    if (report.blank_lines) log_line(&cli->log, "%zu blank lines left out", report.blank_lines);
    warn_of_words(cli, &report);
    if (config->json) return print_json(&report, error);
    size_t length = strlen(config->out); /* length without trailing slashes */
    while (length > 1 && config->out[length - 1] == '/') length--;
    for (size_t i = 0; i < report.part_count; i++) {
        const struct elbo_prepare_part *part = &report.parts[i];
        printf("%.*s%s%s: %zu sentences, %zu tokens (%.1f %% unknown), %zu words, longest %zu tokens, vocabulary %zu\n",
               (int)length, config->out, *part->name ? "/" : "", part->name, part->sentences, part->tokens,
               part->tokens ? 100.0 * (double)part->unknown / (double)part->tokens : 0.0, part->words, part->longest,
               report.vocabulary);
    }
    return ELBO_OK;
}
