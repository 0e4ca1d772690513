/* elbo export: writes a model into its own folder, in a format of other programs. */
#include "base/files.h"
#include "base/json.h"
#include "cli/evaluations.h"
#include "cli/run.h"
#include "elbo/corpus.h"
#include "export/format.h"
#include "export/reference.h"

#include <errno.h>
#include <libgen.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Gives the format of --format and checks that --out is given. */
static elbo_status format_of(int *format, const struct cli *cli, elbo_error *error)
{
    static const int formats[] = {[FORMAT_HF] = EXPORT_HF,   [FORMAT_ONNX] = EXPORT_ONNX, [FORMAT_GGUF] = EXPORT_GGUF,
                                  [FORMAT_F32] = EXPORT_F32, [FORMAT_Q8] = EXPORT_Q8,     [FORMAT_Q4] = EXPORT_Q4};
    size_t asked = (size_t)cli->config.generate.format;
    *format = asked < sizeof formats / sizeof *formats ? formats[asked] : EXPORT_NONE;
    if (!options_given(cli->options, "format") || *format == EXPORT_NONE)
        return elbo_fail(error, ELBO_USAGE, "elbo export needs --format=hf, onnx, gguf, f32, q8 or q4");
    if (!*cli->config.out)
        return elbo_fail(error, ELBO_USAGE, "elbo export needs --out=DIR, a folder to make or to replace whole");
    return ELBO_OK;
}

/* ---- the comparison of --check ---- */

struct check {
    const struct cli *cli;
    const struct run *run;
    const struct export_source *source;
    const char *script;
};

/* Reads the first sentences of the corpus. */
static elbo_status read_some(struct elbo_ids *ids, size_t *count, const struct elbo_corpus *corpus, elbo_error *error)
{
    *count = elbo_corpus_sentences(corpus) < REFERENCE_SENTENCES ? elbo_corpus_sentences(corpus) : REFERENCE_SENTENCES;
    for (size_t i = 0; i < *count; i++) {
        size_t length = elbo_corpus_length(corpus, ELBO_STREAM_DECODER, i);
        ids[i].ids = malloc(length * sizeof *ids[i].ids + 1);
        if (!ids[i].ids) return elbo_fail(error, ELBO_MEMORY, "no memory for a sentence of %zu tokens", length);
        ids[i].capacity = length;
        ELBO_TRY(elbo_corpus_read(corpus, ELBO_STREAM_DECODER, i, ids[i].ids, length, &ids[i].count, error));
    }
    return ELBO_OK;
}

static elbo_status make_reference(const struct check *c, const char *folder, elbo_error *error)
{
    struct elbo_corpus *corpus;
    struct elbo_ids ids[REFERENCE_SENTENCES] = {0};
    size_t count = 0;
    const char *name = c->cli->config.check;
    ELBO_TRY(elbo_corpus_open(&corpus, name, error));
    elbo_status status = cli_same_tokenizer(c->run, corpus, name, c->cli, error);
    if (!status) status = read_some(ids, &count, corpus, error);
    if (!status) status = export_reference(c->source, c->run->tokenizer, ids, count, folder, error);
    for (size_t i = 0; i < REFERENCE_SENTENCES; i++) elbo_ids_free(&ids[i]);
    elbo_corpus_close(corpus);
    return status;
}

/* Runs the script with Python. The script's output goes to standard output, or to standard error when standard output
 * carries JSON. */
static elbo_status run_script(const char *folder, const char *script, bool json, elbo_error *error)
{
    posix_spawn_file_actions_t actions;
    extern char **environ;
    char path[FILES_PATH];
    const char *python = getenv("ELBO_PYTHON") ? getenv("ELBO_PYTHON") : "python3";
    int code = 0;
    pid_t child;
    ELBO_TRY(file_join(path, folder, script, error));
    char *const command[] = {(char *)python, "-B", path, NULL};
    fflush(stdout);
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed) return file_fail(error, "start", python, failed);
    if (json) failed = posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    if (!failed) failed = posix_spawnp(&child, python, &actions, NULL, command, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed) return file_fail(error, "start", python, failed);
    while (waitpid(child, &code, 0) < 0)
        if (errno != EINTR) return file_fail(error, "wait for", python, errno);
    if (WIFEXITED(code) && !WEXITSTATUS(code)) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT,
                     "the comparison of --check failed (see above), so nothing was written; a Python with the packages "
                     "that %s names may be given in ELBO_PYTHON",
                     script);
}

/* Compares the export with the model. The reference values and the scripts stay in check/ of the export's folder. */
static elbo_status compare(void *context, const char *folder, elbo_error *error)
{
    const struct check *c = context;
    char inner[FILES_PATH];
    ELBO_TRY(file_join(inner, folder, "check", error));
    ELBO_TRY(file_make_folder(inner, error));
    ELBO_TRY(make_reference(c, inner, error));
    ELBO_TRY(export_copy(inner, "reference.py", error));
    ELBO_TRY(export_copy(inner, c->script, error));
    return run_script(inner, c->script, c->cli->config.json, error);
}

/* ---- the export ---- */

static elbo_status export_run(const struct cli *cli, struct run *run, int format, elbo_error *error)
{
    static const char *const scripts[] = {[EXPORT_HF] = "check_hf.py",
                                          [EXPORT_ONNX] = "check_onnx.py",
                                          [EXPORT_GGUF] = "check_gguf.py",
                                          [EXPORT_Q4] = NULL};
    static const int bits[] = {32, 8, 4};
    const void *tokenizer;
    struct export_source s = {.model = &run->model,
                              .marks = &run->marks,
                              .banned = &run->line_ends,
                              .labels = run->labels.name,
                              .fitted = run->fitted.density.count ? &run->fitted.density : NULL,
                              .max_length = cli->config.data.max_length,
                              .step = checkpoint_step(run->checkpoint),
                              .program = checkpoint_program(run->checkpoint)};
    struct check check = {cli, run, &s, scripts[format]};
    struct export_options o = {.format = format, .part = cli->config.part, .bits = bits[cli->config.bits]};
    if (*cli->config.check) o.check = compare, o.context = &check;
    ELBO_TRY(checkpoint_bytes(&tokenizer, &s.tokenizer_size, run->checkpoint, "tokenizer.json", error));
    s.tokenizer = tokenizer;
    json_t *evaluation;
    ELBO_TRY(evaluations_last(&evaluation, run->checkpoint, error));
    s.evaluation = evaluation;
    char *path = strdup(cli->arguments[0]);
    elbo_status status = path ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the run's name");
    if (!status) s.name = basename(path);
    if (!status) status = export_write(&s, &o, cli->config.out, error);
    free(path);
    json_decref(evaluation);
    return status;
}

static elbo_status tell(const struct cli *cli, const struct run *run, elbo_error *error)
{
    const char *checkpoint = checkpoint_path(run->checkpoint);
    if (cli->config.json)
        return json_print(stdout, json_pack("{s:s, s:s}", "checkpoint", checkpoint, "folder", cli->config.out),
                          JSON_INDENT(2), "the export", error);
    printf("%s: %s\n", cli->config.out, checkpoint);
    return ELBO_OK;
}

elbo_status cli_export(struct cli *cli, elbo_error *error)
{
    struct run run;
    int format;
    ELBO_TRY(format_of(&format, cli, error));
    ELBO_TRY(cli_open_run(&run, cli, error));
    elbo_status status = export_run(cli, &run, format, error);
    if (!status) status = tell(cli, &run, error);
    run_close(&run);
    return status;
}
