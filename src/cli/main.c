/* elbo: finds the command, reads its options, runs it, and says what went wrong. The exit code is the elbo_status. */
#include "cli/cli.h"
#include "cli/paths.h"
#include "cli/words.h"

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
    {"sample", "RUN", "write new sentences", COMMAND_SAMPLE, 1, 1, false, cli_sample,
     "elbo sample runs/a --count=5 --seed=1"},
    {"reconstruct", "RUN", "encode sentences of standard input and write them back", COMMAND_RECONSTRUCT, 1, 1, false,
     cli_reconstruct, "elbo reconstruct runs/a < sentences.txt"},
    {"interpolate", "RUN", "walk from one sentence to another", COMMAND_INTERPOLATE, 1, 1, false, cli_interpolate,
     "elbo interpolate runs/a --from=\"...\" --to=\"...\" --steps=7"},
    {"encode", "RUN", "turn sentences of standard input into latents", COMMAND_ENCODE, 1, 1, false, cli_encode_command,
     "elbo encode runs/a --format=npy --out=z.npy < sentences.txt"},
    {"decode", "RUN", "turn latents of standard input (JSON lines or a .npy) into sentences", COMMAND_DECODE, 1, 1,
     false, cli_decode, "elbo decode runs/a < z.npy"},
    {"plan", "[CONFIG.yaml]", "say what a run will hold in memory and compute", COMMAND_PLAN, 0, 1, true, cli_plan,
     "elbo plan config.yaml --json"},
    {"bench", "step|kernels|collectives",
     "time training steps, their kernels against the device's limits, or what ranks exchange", COMMAND_BENCH, 1, 1,
     false, cli_bench, "elbo bench step --data.train=corpus/train --encoder.width=512 --json"},
    {"launch", "[-n N] [--max-restarts=K ...] -- COMMAND ...",
     "start N ranks of a command on this host's GPUs, watch them, and restart them", COMMAND_LAUNCH, 0, 1u << 20, false,
     cli_launch, "elbo launch -n 4 --max-restarts=3 -- train config.yaml --run.dir=runs/a"},
    {"tokenize", "CORPUS|RUN", "turn lines of standard input into token ids, or back with --decode", COMMAND_TOKENIZE,
     1, 1, false, cli_tokenize, "elbo tokenize corpus < text.txt"},
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

const struct cli_command *cli_find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(commands[i].name, name)) return &commands[i];
    return NULL;
}

static elbo_status run_command(struct cli *cli, const struct words *words, const struct cli_command *command,
                               elbo_error *error)
{
    cli->mask = command->mask;
    /* a reader of the log that leaves does not end a training, or what watches one */
    if (command->mask & (COMMAND_TRAIN | COMMAND_LAUNCH)) signal(SIGPIPE, SIG_IGN);
    if (words->help) return cli_help_command(command, words->help, error);
    ELBO_TRY(words_check(words, command, error));
    cli->arguments = words->arguments;
    cli->argument_count = words->argument_count;
    cli->overrides = words->overrides;
    cli->override_count = words->override_count;
    cli->command = words->command;
    if (command->reads_config && cli->argument_count) {
        ELBO_TRY(path_expect_config(cli->arguments[0], command->name, error));
        ELBO_TRY(options_read_yaml(cli->options, cli->arguments[0], error));
    }
    /* help and completion have words of their own, not options of the table */
    if (command->mask)
        for (size_t i = 0; i < cli->override_count; i++)
            ELBO_TRY(options_read_argument(cli->options, cli->overrides[i], command->mask, error));
    else if (cli->override_count && command->run != cli_help)
        return elbo_fail(error, ELBO_USAGE, "elbo %s takes no options, and '%.60s' is one; usage: elbo %s %s",
                         command->name, cli->overrides[0], command->name, command->arguments);
    ELBO_TRY(words_check_values(cli, command, error));
    return command->run(cli, error);
}

static elbo_status run(struct cli *cli, int argc, char **argv, elbo_error *error)
{
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        cli_help_overview();
        return argc < 2 ? elbo_fail(error, ELBO_USAGE,
                                    "no command given; the list above names them, for example elbo train --help")
                        : ELBO_OK;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V") || !strcmp(argv[1], "-v")) {
        puts("elbo " ELBO_VERSION);
        return ELBO_OK;
    }
    const struct cli_command *command = cli_find_command(argv[1]);
    if (!command) return words_no_command(argc, argv, error);
    const char **room = calloc(2 * (size_t)argc, sizeof *room);
    if (!room) return elbo_fail(error, ELBO_MEMORY, "no memory for the command line");
    struct words words = {.arguments = room, .overrides = room + argc};
    elbo_status status = words_sort(&words, argc, argv, command, error);
    if (status == ELBO_OK) status = options_open(&cli->options, elbo_config_table(), &cli->config, error);
    if (status == ELBO_OK) status = run_command(cli, &words, command, error);
    options_free(cli->options);
    free(room);
    return status;
}

/* A standard stream that is closed would be the number of the first file opened, and lines for people would go into it.
 * In its place stands /dev/null, opened so that what is said is dropped, and that reading input and writing a product
 * fail as they should. */
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
