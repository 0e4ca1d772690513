/* elbo launch: starts ranks and watches them. The exit code is that of the ranks: docs/parallel.md. */
#include "cli/cli.h"

#include "base/files.h"
#include "job/launcher.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void tell(void *context, const char *line)
{
    struct cli *cli = context;
    log_line(&cli->log, "launch: %s", line);
}

/* Reads "-n 4" or "-n4" in front of --. */
static elbo_status read_count(struct cli *cli, elbo_error *error)
{
    const char *const *words = cli->arguments;
    if (!cli->argument_count) return ELBO_OK;
    bool apart = cli->argument_count == 2 && !strcmp(words[0], "-n"),
         together = cli->argument_count == 1 && !strncmp(words[0], "-n", 2);
    if (!apart && !(together && words[0][2]))
        return elbo_fail(
            error, ELBO_USAGE,
            "elbo launch does not take '%.100s' here; the command stands behind --: elbo launch -n 4 -- train ...",
            words[!strcmp(words[0], "-n") && cli->argument_count > 2 ? 2 : 0]);
    return options_set(cli->options, "n", apart ? words[1] : words[0] + 2, "the command line", error);
}

static bool is_ours(const char *word)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    for (size_t i = 0; i < count; i++)
        if (!strcmp(commands[i].name, word)) return true;
    return false;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Refuses -n with another launcher, because N copies of that launcher would start N times the wanted ranks. */
static elbo_status refuse_launchers(const char *program, elbo_error *error)
{
    static const char *const launchers[] = {"mpirun",   "mpiexec", "mpiexec.hydra", "srun",
                                            "torchrun", "prterun", "orterun"};
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (!strcmp(base_name(program), launchers[i]))
            return elbo_fail(error, ELBO_USAGE,
                             "%s starts the ranks itself; leave -n out: elbo launch --max-restarts=K -- %s ...",
                             launchers[i], launchers[i]);
    return ELBO_OK;
}

elbo_status cli_launch(struct cli *cli, elbo_error *error)
{
    const struct launch_config *c = &cli->config.launch;
    char self[FILES_PATH];
    int code = 0;
    ELBO_TRY(read_count(cli, error));
    if (!cli->command || !*cli->command)
        return elbo_fail(error, ELBO_USAGE,
                         "elbo launch needs a command behind --; for example: elbo launch -n 4 -- train config.yaml");
    size_t words = 0;
    while (cli->command[words]) words++;
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    char **command = calloc(words + 2, sizeof *command), **first = command;
    if (!command) return elbo_fail(error, ELBO_MEMORY, "no memory for the command");
    self[size < 0 ? 0 : size] = 0;
    if (is_ours(cli->command[0])) *first++ = self;
    memcpy(first, cli->command, words * sizeof *command);
    elbo_status status = c->n ? refuse_launchers(command[0], error) : ELBO_OK;
    struct launch launch = {
        c->n, command, c->max_restarts, c->n || command[0] == self, c->hang_timeout, c->grace, c->pause, tell, cli};
    if (status == ELBO_OK) status = launcher_run(&code, &launch, error);
    free(command);
    return status ? status : (elbo_status)code; /* the exit code of the ranks, or 128 + signal */
}
