/* `elbo completion SHELL`: scripts by which bash, zsh and fish complete commands, options and the values of options
 * that have a choice. They are made from the table of commands and the table of options. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static void bash(void)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    const struct option_table *table = elbo_config_table();
    puts("_elbo() {\n    local word=${COMP_WORDS[COMP_CWORD]} words=\n    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    printf("        words='");
    for (size_t i = 0; i < count; i++) printf("%s ", commands[i].name);
    puts("--help --version'\n    else case ${COMP_WORDS[1]} in");
    for (size_t i = 0; i < count; i++) {
        printf("    %s) words='--help", commands[i].name);
        for (size_t r = 0; r < table->count; r++) {
            const struct option *row = &table->rows[r];
            if (!(row->commands & commands[i].mask)) continue;
            printf(" --%s%s", row->key, row->type == OPTION_BOOL ? "" : "=");
            for (size_t c = 0; row->choices && row->choices[c]; c++) printf(" --%s=%s", row->key, row->choices[c]);
        }
        puts("' ;;");
    }
    puts("    esac fi\n"
         "    # readline breaks words at '=': what is offered begins after it\n"
         "    local head=\n"
         "    if [ \"$word\" = = ]; then head=${COMP_WORDS[COMP_CWORD-1]}=; word=\n"
         "    elif [ \"${COMP_WORDS[COMP_CWORD-1]}\" = = ]; then head=${COMP_WORDS[COMP_CWORD-2]}=; fi\n"
         "    COMPREPLY=()\n"
         "    local candidate\n"
         "    for candidate in $words; do\n"
         "        case $candidate in \"$head$word\"*) COMPREPLY+=(\"${candidate#\"$head\"}\") ;; esac\n"
         "    done\n"
         "    [ \"${#COMPREPLY[@]}\" -eq 1 ] && [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
         "}\n"
         "complete -o default -F _elbo elbo");
}

/* ---- zsh and fish, which show each option's help ---- */

/* Prints `text` within single quotes of a shell. `escaped` lists the characters that get a backslash. */
static void put_quoted(const char *text, const char *escaped)
{
    for (; *text; text++) {
        if (*text == '\'') {
            fputs("'\\''", stdout);
        } else {
            if (strchr(escaped, *text)) putchar('\\');
            putchar(*text);
        }
    }
}

static void zsh(void)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    const struct option_table *table = elbo_config_table();
    puts("#compdef elbo\n_elbo() {\n    local -a commands=(");
    for (size_t i = 0; i < count; i++) {
        printf("        '%s:", commands[i].name);
        put_quoted(commands[i].help, "\\:");
        puts("'");
    }
    puts("    )\n    if (( CURRENT == 2 )); then _describe -t commands command commands; return; fi\n    case "
         "$words[2] in");
    for (size_t i = 0; i < count; i++) {
        printf("    %s) _arguments '--help[explain the command]'", commands[i].name);
        for (size_t r = 0; r < table->count; r++) {
            const struct option *row = &table->rows[r];
            if (!(row->commands & commands[i].mask)) continue;
            printf(" \\\n        '--%s%s[", row->key, row->type == OPTION_BOOL ? "" : "=-");
            put_quoted(row->help, "\\[]:");
            fputs("]", stdout);
            if (row->choices) {
                fputs(":value:(", stdout);
                for (size_t c = 0; row->choices[c]; c++) printf("%s%s", c ? " " : "", row->choices[c]);
                putchar(')');
            } else if (row->type != OPTION_BOOL) {
                fputs(row->type == OPTION_STRING ? ":value:_files" : ":value: ", stdout);
            }
            putchar('\'');
        }
        puts(" \\\n        '*:file:_files' ;;");
    }
    puts("    esac\n}\nif [[ $zsh_eval_context[-1] == loadautofunc ]]; then _elbo \"$@\"; else compdef _elbo elbo; fi");
}

static void fish(void)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    const struct option_table *table = elbo_config_table();
    for (size_t i = 0; i < count; i++) {
        printf("complete -c elbo -f -n __fish_use_subcommand -a %s -d '", commands[i].name);
        put_quoted(commands[i].help, "\\");
        puts("'");
        for (size_t r = 0; r < table->count; r++) {
            const struct option *row = &table->rows[r];
            if (!(row->commands & commands[i].mask)) continue;
            printf("complete -c elbo -n '__fish_seen_subcommand_from %s' -l %s -d '", commands[i].name, row->key);
            put_quoted(row->help, "\\");
            putchar('\'');
            if (row->choices) {
                fputs(" -x -a '", stdout);
                for (size_t c = 0; row->choices[c]; c++) printf("%s%s", c ? " " : "", row->choices[c]);
                putchar('\'');
            } else if (row->type != OPTION_BOOL) {
                fputs(row->type == OPTION_STRING ? " -r" : " -x", stdout);
            }
            putchar('\n');
        }
    }
}

elbo_status cli_completion(struct cli *cli, elbo_error *error)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
        if (!strcmp(cli->arguments[0], shells[i].name)) {
            shells[i].print();
            return ELBO_OK;
        }
    return elbo_fail(error, ELBO_USAGE, "no completion for '%.60s'; there is one for bash, zsh and fish",
                     cli->arguments[0]);
}
