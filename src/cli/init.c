/* elbo init: writes the default configuration with an explanation above each option. */
#include "cli/cli.h"

#include "base/files.h"

#include <stdlib.h>
#include <string.h>

elbo_status cli_init(struct cli *cli, elbo_error *error)
{
    char *options = options_commented_yaml(elbo_config_table(), COMMAND_INIT), *text = NULL;
    int size = options ? asprintf(&text,
                                  "# Configuration of an elbo run, with the defaults. Use it with\n"
                                  "#     elbo train THIS_FILE --run.dir=runs/a\n"
                                  "# Whatever is left out keeps its default; --section.key=value overrides.\n\n%s",
                                  options)
                       : -1;
    free(options);
    if (size < 0) return elbo_fail(error, ELBO_MEMORY, "no memory for the configuration");
    elbo_status status = ELBO_OK;
    if (!cli->argument_count) {
        fputs(text, stdout);
    } else if (file_is_regular(cli->arguments[0])) {
        status = elbo_fail(error, ELBO_IO, "%s exists already; remove it or choose another name", cli->arguments[0]);
    } else {
        status = file_write_new(cli->arguments[0], text, (size_t)size, error);
    }
    free(text);
    return status;
}
