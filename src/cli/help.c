/* Help and the reference page (docs/reference.md), made from the table of commands and the table of options, so only
 * commands in this build appear. */
#include "cli/cli.h"
#include "cli/words.h"

#include <stdlib.h>
#include <string.h>

struct exit_code {
    elbo_status status;
    const char *name, *meaning;
};

static const struct exit_code exit_codes[] = {
    {ELBO_OK, "ok", "everything was done"},
    {ELBO_INTERNAL, "internal", "a bug; please report it"},
    {ELBO_USAGE, "usage", "an option or argument is unknown, malformed, out of range, or contradicts another"},
    {ELBO_INPUT, "input", "a file's content is empty, truncated, foreign or of another version"},
    {ELBO_IO, "io", "the system refused: missing file, no permission, disk full"},
    {ELBO_MEMORY, "memory", "not enough memory; the message says for what"},
    {ELBO_BUSY, "busy", "the run directory is in use by another process"},
    {ELBO_DIVERGED, "diverged", "loss or gradient not finite, several steps in a row"},
    {ELBO_DEVICE, "device", "the device is missing or failed"},
    {ELBO_INTERRUPTED, "interrupted", "stopped by a signal, after saving"},
    {ELBO_PEER, "peer", "another rank died, hung, or is not one of this job"},
};
enum { EXIT_CODES = sizeof exit_codes / sizeof *exit_codes };

/* Returns the table of options with only the commands that exist. `names` has room for all commands. */
static struct option_table built_table(struct option_command *names)
{
    struct option_table table = *elbo_config_table();
    size_t count, built = 0;
    const struct cli_command *commands = cli_commands(&count);
    for (size_t i = 0; i < count; i++)
        if (commands[i].mask) names[built++] = (struct option_command){commands[i].name, commands[i].mask};
    table.commands = names;
    table.command_count = built;
    return table;
}

static elbo_status put_text(char *text, elbo_error *error)
{
    if (!text) return elbo_fail(error, ELBO_MEMORY, "no memory for the help text");
    fputs(text, stdout);
    free(text);
    return ELBO_OK;
}

void cli_help_overview(void)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    puts("elbo trains text variational autoencoders.\n\n"
         "usage: elbo COMMAND [ARGUMENT ...] [--section.key=value ...]\n");
    for (size_t i = 0; i < count; i++) printf("  %-12s %s\n", commands[i].name, commands[i].help);
    puts("\n`elbo COMMAND --help` or `-h` explains a command, `elbo --version` prints the version.\n\nexit codes:");
    for (int i = 0; i < EXIT_CODES; i++)
        printf("  %d  %-12s %s\n", (int)exit_codes[i].status, exit_codes[i].name, exit_codes[i].meaning);
    puts("elbo launch ends with the code of the rank that failed first, or 128 + the signal that killed it.");
}

/* The options that help shows first for commands with more options than a screen has lines. */
static const char *const train_options[] = {"data.train",
                                            "data.valid",
                                            "run.dir",
                                            "seed",
                                            "device",
                                            "data.max_length",
                                            "encoder.width",
                                            "decoder.width",
                                            "encoder.layers",
                                            "decoder.layers",
                                            "latent.width",
                                            "objective.beta",
                                            "objective.word_dropout",
                                            "optimizer.learning_rate",
                                            "train.steps",
                                            "train.slots",
                                            "train.slot_tokens",
                                            "checkpoint.every",
                                            NULL};

/* Left out there for the other commands. */
static const char *const rare_options[] = {"determinism", "threads", NULL};

enum { SCREEN_OPTIONS = 18 }; /* of 24 lines */

elbo_status cli_help_command(const struct cli_command *command, const char *how, elbo_error *error)
{
    bool all = !strcmp(how, "--help=all");
    if (!strncmp(how, "--help=", 7) && !all)
        return elbo_fail(error, ELBO_USAGE,
                         "'%.60s': write --help for the options that matter most, or --help=all for all options", how);
    printf("elbo %s: %s\nusage: elbo %s %s%s\n  for example: %s\n", command->name, command->help, command->name,
           command->arguments, command->mask && command->mask != COMMAND_LAUNCH ? " [--section.key=value ...]" : "",
           command->example);
    if (!command->mask) return ELBO_OK;
    if (all) return put_text(options_help(elbo_config_table(), command->mask), error);
    bool trains = command->mask & (COMMAND_TRAIN | COMMAND_PLAN | COMMAND_BENCH | COMMAND_INIT);
    bool many = options_count(elbo_config_table(), command->mask) > SCREEN_OPTIONS;
    puts("");
    ELBO_TRY(put_text(options_brief_help(elbo_config_table(), command->mask, trains ? train_options : NULL,
                                         many ? rare_options : NULL),
                      error));
    printf("\n`elbo %s --help=all` has %s, with ranges and the whole explanations.\n", command->name,
           many ? "all options" : "these options");
    return ELBO_OK;
}

static elbo_status reference(elbo_error *error)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    struct option_command *names = calloc(count, sizeof *names);
    if (!names) return elbo_fail(error, ELBO_MEMORY, "no memory for the reference page");
    struct option_table table = built_table(names);
    puts("# Reference\n\nGenerated by `elbo help --reference` from the commands in "
         "`src/base/commands.h` and the options beside each section's struct.\n"
         "\nOptions come from their defaults, then from a YAML file (`section:` maps of `key: value`), then from the\n"
         "command line (`--section.key=value`; `--key` alone means true). `elbo COMMAND --help` shows the options that "
         "matter,\n`--help=all` all of the command's. Every word after `--` is an argument.\n"
         "Text is read and written one sentence a line; no line end is ever generated (docs/formats.md).\n\n## "
         "Commands\n\n| command | meaning |\n|---|---|");
    for (size_t i = 0; i < count; i++) {
        printf("| `elbo %s ", commands[i].name);
        for (const char *c = commands[i].arguments; *c; c++) printf(*c == '|' ? "\\|" : "%c", *c);
        printf("` | %s |\n", commands[i].help);
    }
    puts("\n## Exit codes\n\n| code | name | meaning |\n|---|---|---|");
    for (int i = 0; i < EXIT_CODES; i++)
        printf("| %d | %s | %s |\n", (int)exit_codes[i].status, exit_codes[i].name, exit_codes[i].meaning);
    puts("\n`elbo launch` ends with the code of the rank that failed first, or 128 + the number of the signal that "
         "killed it.");
    elbo_status status = put_text(options_reference(&table), error);
    free(names);
    return status;
}

elbo_status cli_help(struct cli *cli, elbo_error *error)
{
    if (cli->override_count) {
        bool alone = cli->override_count == 1;
        if (!strcmp(cli->overrides[0], "--reference") && alone && !cli->argument_count) return reference(error);
        if (!strcmp(cli->overrides[0], "--man") && alone)
            return cli_manual(cli->argument_count ? cli->arguments[0] : NULL, error);
        return elbo_fail(error, ELBO_USAGE,
                         "elbo help does not take '%.60s' here; it takes a command, --man, or --reference alone",
                         cli->overrides[0]);
    }
    if (!cli->argument_count) {
        cli_help_overview();
        return ELBO_OK;
    }
    const struct cli_command *command = cli_find_command(cli->arguments[0]);
    if (command) return cli_help_command(command, "--help", error);
    char *argv[] = {NULL, (char *)cli->arguments[0]};
    return words_no_command(2, argv, error);
}
