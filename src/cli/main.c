/* elbo: finds the command, reads its options, runs it and reports the error. The exit code is the elbo_status. */
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

#define COMMAND(bit, name, word, arguments, help, takes, fewest, most, reads, example)                                 \
    {word, arguments, help, (takes) ? COMMAND_##bit : 0, fewest, most, reads, cli_##name, example},
static const struct cli_command commands[] = {ELBO_COMMANDS(COMMAND)};

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
    /* A closed log pipe must not end a training or the launcher that watches one. */
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
    /* The commands help and completion take words of their own instead of options of the table. */
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
        const char *commit = elbo_build_commit();
        printf("elbo %s%s%s\n%s\n", elbo_version(), *commit ? ", commit " : "", commit, elbo_build_backends());
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

/* Opens /dev/null in the place of closed standard streams. Otherwise the first file opened would get the stream's
 * number and log lines would go into that file. The modes make reading standard input and writing standard output fail,
 * while writing to standard error is dropped. */
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
    /* Output that could not be written is a failure even when everything else succeeded. */
    if ((fflush(stdout) || ferror(stdout)) && status == ELBO_OK)
        status = elbo_fail(&error, ELBO_IO, "cannot write to standard output: %s", strerror(errno));
    if (status != ELBO_OK) log_error(&cli.log, error.message);
    if (status == ELBO_PEER) { /* exit handlers of libraries could wait forever for the lost rank */
        fflush(NULL);
        _exit((int)status);
    }
    return (int)status;
}
