/* elbo: finds the command, reads its options, runs it, and says what went wrong. The exit code is the elbo_status. */
#include "cli/cli.h"

#include "elbo/tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The commands, in the order of --help. */
static const struct cli_command commands[] = {
    {"prepare", "TEXT [TEXT ...]", "make a corpus out of text, a sentence a line (- is standard input)",
     COMMAND_PREPARE, 1, 1u << 20, false, cli_prepare,
     "elbo prepare a.txt --out=corpus --tokenizer.size=8000 --split=95/2.5/2.5"},
    {"init", "[CONFIG.yaml]", "write the default configuration with comments, to a file or standard output",
     COMMAND_INIT, 0, 1, false, cli_init, "elbo init config.yaml"},
    {"train", "[CONFIG.yaml]", "train a text VAE, or go on with a run", COMMAND_TRAIN, 0, 1, true, cli_train,
     "elbo train --data.train=corpus/train --data.valid=corpus/valid --run.dir=runs/a"},
    {"eval", "RUN", "measure a model on a corpus", COMMAND_EVAL, 1, 1, false, cli_eval,
     "elbo eval runs/a --data.test=corpus/test --eval.iwae_samples=100 --json"},
    {"sample", "RUN", "write new sentences", COMMAND_SAMPLE, 1, 1, false, cli_sample, "elbo sample runs/a --count=5 --seed=1"},
    {"reconstruct", "RUN", "encode sentences of standard input and write them back", COMMAND_RECONSTRUCT, 1, 1, false,
     cli_reconstruct, "elbo reconstruct runs/a < sentences.txt"},
    {"interpolate", "RUN", "walk from one sentence to another", COMMAND_INTERPOLATE, 1, 1, false, cli_interpolate,
     "elbo interpolate runs/a --from=\"...\" --to=\"...\" --steps=7"},
    {"encode", "RUN", "turn sentences of standard input into latents", COMMAND_ENCODE, 1, 1, false, cli_encode_command,
     "elbo encode runs/a --format=npy --out=z.npy < sentences.txt"},
    {"decode", "RUN", "turn latents of standard input (JSON lines or a .npy) into sentences", COMMAND_DECODE, 1, 1, false, cli_decode,
     "elbo decode runs/a < z.npy"},
    {"plan", "[CONFIG.yaml]", "say what a run will hold in memory and compute", COMMAND_PLAN, 0, 1, true, cli_plan,
     "elbo plan config.yaml --json"},
    {"bench", "step|kernels|collectives", "time training steps, each kind of call in one against the device's measured limits, or what ranks exchange", COMMAND_BENCH,
     1, 1, false, cli_bench, "elbo bench step --data.train=corpus/train --encoder.width=512 --decoder.width=512 --json"},
    {"launch", "[-n N] [--max-restarts=K ...] -- COMMAND ...",
     "start N ranks of a command on this host, watch them, start them again when one dies", COMMAND_LAUNCH, 0, 2, false, cli_launch,
     "elbo launch -n 4 --max-restarts=3 -- train config.yaml --run.dir=runs/a"},
    {"tokenize", "CORPUS|RUN", "turn lines of standard input into token ids, or back with --decode", COMMAND_TOKENIZE, 1,
     1, false, cli_tokenize, "elbo tokenize corpus < text.txt"},
    {"dump", "CORPUS", "write a corpus's sentences as text", 0, 1, 1, false, cli_dump, "elbo dump corpus/test"},
    {"info", "CORPUS|RUN", "say what a corpus or a run holds", COMMAND_INFO, 1, 1, false, cli_info,
     "elbo info corpus/train --json"},
    {"help", "[COMMAND]", "explain a command; --reference prints every option as Markdown", 0, 0, 1, false, cli_help,
     "elbo help prepare"},
    {"completion", "bash", "print a completion script for a shell", 0, 1, 1, false, cli_completion,
     "source <(elbo completion bash)"},
};

const struct cli_command *cli_commands(size_t *count)
{
    *count = sizeof commands / sizeof *commands;
    return commands;
}

static const struct cli_command *find_command(const char *name, elbo_error *error)
{
    enum { COUNT = sizeof commands / sizeof *commands };
    const char *names[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        if (!strcmp(commands[i].name, name)) return &commands[i];
        names[i] = commands[i].name;
    }
    const char *near = nearest_word(name, names, COUNT);
    if (near) elbo_fail(error, ELBO_USAGE, "unknown command '%.60s'; did you mean %s?", name, near);
    else elbo_fail(error, ELBO_USAGE, "unknown command '%.60s'; `elbo --help` lists them", name);
    return NULL;
}

/* Sorts the words of the command line into arguments and overrides; `words` has room for all of both. */
static void sort_words(struct cli *cli, int argc, char **argv, const char **words, bool takes_command)
{
    bool options = true;
    size_t positional = 0;
    const char **overrides = words + argc;
    for (int i = 2; i < argc && !cli->command; i++) {
        if (options && !strcmp(argv[i], "--") && takes_command) cli->command = argv + i + 1;
        else if (options && !strcmp(argv[i], "--")) options = false;
        else if (options && !strncmp(argv[i], "--", 2)) overrides[cli->override_count++] = argv[i];
        else words[positional++] = argv[i];
    }
    cli->arguments = words;
    cli->argument_count = positional;
    cli->overrides = overrides;
}

static elbo_status check_arguments(const struct cli *cli, const struct cli_command *command, elbo_error *error)
{
    for (size_t i = 0; i < cli->argument_count && command->mask != COMMAND_LAUNCH; i++)
        if (cli->arguments[i][0] == '-' && cli->arguments[i][1])
            return elbo_fail(error, ELBO_USAGE, "'%.100s' is not an option; options look like --section.key=value",
                             cli->arguments[i]);
    if (cli->argument_count < command->fewest)
        return elbo_fail(error, ELBO_USAGE, "elbo %s needs %s; for example: %s", command->name, command->arguments,
                         command->example);
    if (cli->argument_count > command->most)
        return elbo_fail(error, ELBO_USAGE, "elbo %s does not take '%.100s'; usage: elbo %s %s [--section.key=value ...]",
                         command->name, cli->arguments[command->most], command->name, command->arguments);
    return ELBO_OK;
}

static elbo_status run_command(struct cli *cli, const struct cli_command *command, elbo_error *error)
{
    cli->mask = command->mask;
    /* a reader of the log that leaves does not end a training, or what watches one */
    if (command->mask & (COMMAND_TRAIN | COMMAND_LAUNCH)) signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < cli->override_count; i++)
        if (!strcmp(cli->overrides[i], "--help")) return cli_help_command(command->name, error);
    ELBO_TRY(check_arguments(cli, command, error));
    if (command->reads_config && cli->argument_count)
        ELBO_TRY(options_read_yaml(cli->options, cli->arguments[0], error));
    /* help and completion have words of their own, not options of the table */
    if (command->mask)
        for (size_t i = 0; i < cli->override_count; i++)
            ELBO_TRY(options_read_argument(cli->options, cli->overrides[i], command->mask, error));
    return command->run(cli, error);
}

static elbo_status run(struct cli *cli, int argc, char **argv, elbo_error *error)
{
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        ELBO_TRY(cli_help_command(NULL, error));
        return argc < 2 ? elbo_fail(error, ELBO_USAGE, "no command given") : ELBO_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("elbo " ELBO_VERSION);
        return ELBO_OK;
    }
    const struct cli_command *command = find_command(argv[1], error);
    if (!command) return error->code;
    const char **words = calloc(2 * (size_t)argc, sizeof *words);
    if (!words) return elbo_fail(error, ELBO_MEMORY, "no memory for the command line");
    sort_words(cli, argc, argv, words, command->mask == COMMAND_LAUNCH);
    elbo_status status = options_open(&cli->options, elbo_config_table(), &cli->config, error);
    if (status == ELBO_OK) status = run_command(cli, command, error);
    options_free(cli->options);
    free(words);
    return status;
}

/* A standard stream that is closed would be the number of the first file opened, and lines for people would go into it. In its place
 * stands /dev/null, opened so that what is said is dropped, and that reading input and writing a product fail as they should. */
static void hold_standard_streams(void)
{
    static const int modes[] = {[STDIN_FILENO] = O_WRONLY, [STDOUT_FILENO] = O_RDONLY, [STDERR_FILENO] = O_WRONLY};
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd) _exit(ELBO_IO);
}

int main(int argc, char **argv)
{
    elbo_error error = {0};
    hold_standard_streams();
    struct cli cli = {.log = log_open(stderr)};
    elbo_status status = run(&cli, argc, argv, &error);
    log_progress_end(&cli.log);
    /* a product that did not reach its reader is a failure, even when everything else went well */
    if ((fflush(stdout) || ferror(stdout)) && status == ELBO_OK)
        status = elbo_fail(&error, ELBO_IO, "cannot write to standard output: %s", strerror(errno));
    if (status != ELBO_OK) log_error(&cli.log, error.message);
    if (status == ELBO_PEER) { /* libraries that wait for the lost rank at the end of a process would wait for ever */
        fflush(NULL);
        _exit((int)status);
    }
    return (int)status;
}
