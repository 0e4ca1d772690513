/* `elbo help --man [COMMAND]`: a manual page in roff, made from the table of commands and the table of options. */
#include "cli/cli.h"
#include "elbo/version.h"

#include <stdio.h>
#include <string.h>

/* Prints text so that roff takes none of it for a request or an escape. */
static void put_roff(const char *text)
{
    if (*text == '.' || *text == '\'') fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
    }
}

static void put_line(const char *text)
{
    put_roff(text);
    putchar('\n');
}

static void heading(const char *name)
{
    printf(".TH \"");
    for (const char *c = name; *c; c++) putchar(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    printf("\" 1 \"\" \"elbo %s\" \"elbo\"\n", elbo_version());
}

static void command_page(const struct cli_command *command)
{
    const struct option_table *table = elbo_config_table();
    char name[64];
    snprintf(name, sizeof name, "elbo-%s", command->name);
    heading(name);
    printf(".SH NAME\n");
    put_roff(name);
    fputs(" \\- ", stdout);
    put_line(command->help);
    printf(".SH SYNOPSIS\n\\fBelbo %s\\fR ", command->name);
    put_line(command->arguments);
    printf(".SH EXAMPLE\n.EX\n");
    put_line(command->example);
    puts(".EE");
    bool any = false;
    for (size_t r = 0; r < table->count; r++) {
        const struct option *row = &table->rows[r];
        char range[512];
        if (!(row->commands & command->mask)) continue;
        if (!any) puts(".SH OPTIONS");
        any = true;
        printf(".TP\n\\fB\\-\\-");
        put_roff(row->key);
        fputs("\\fR", stdout);
        if (row->type != OPTION_BOOL) {
            fputs("=\\fI", stdout);
            put_roff(*row->fallback ? row->fallback : "...");
            fputs("\\fR", stdout);
        }
        putchar('\n');
        put_line(row->help);
        options_describe(range, sizeof range, row);
        if (row->type != OPTION_BOOL && row->type != OPTION_STRING) {
            fputs(".br\n", stdout);
            put_line(range);
        }
    }
    puts(".SH SEE ALSO\n.BR elbo (1)");
}

static void overview_page(void)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    heading("elbo");
    puts(".SH NAME\nelbo \\- train text variational autoencoders\n.SH SYNOPSIS\n\\fBelbo\\fR COMMAND [ARGUMENT ...] "
         "[\\-\\-section.key=value ...]\n.SH COMMANDS");
    for (size_t i = 0; i < count; i++) {
        printf(".TP\n\\fB");
        put_roff(commands[i].name);
        fputs("\\fR\n", stdout);
        put_line(commands[i].help);
    }
    puts(".SH EXIT STATUS\n0 done, 1 a bug, 2 wrong usage, 3 a damaged file, 4 files that cannot be read or written, 5 "
         "no "
         "memory, 6 the run is in use, 7 diverged, 8 the device failed, 9 stopped by a signal after saving, 10 another "
         "rank "
         "failed.");
    puts(".SH SEE ALSO");
    for (size_t i = 0; i < count; i++) printf(".BR elbo\\-%s (1)%s\n", commands[i].name, i + 1 < count ? "," : "");
}

elbo_status cli_manual(const char *name, elbo_error *error)
{
    const struct cli_command *command = name ? cli_find_command(name) : NULL;
    if (name && !command)
        return elbo_fail(error, ELBO_USAGE, "elbo has no command %.60s; elbo --help lists them", name);
    if (command)
        command_page(command);
    else
        overview_page();
    return ELBO_OK;
}
