/* Sorts and checks the words of a command line; see words.h. */
#include "cli/words.h"

#include "cli/paths.h"

#include <string.h>
#include <strings.h>

/* ---- short options ---- */

static const struct short_option {
    char letter;
    const char *key;
} short_options[] = {
    {'n', "count"},       {'o', "out"},         {'o', "run.dir"},    {'s', "seed"},
    {'t', "temperature"}, {'k', "top_k"},       {'p', "top_p"},      {'l', "max_length"},
    {'j', "threads"},     {'d', "device"},      {'d', "data.train"}, {'e', "train.steps"},
    {'f', "format"},      {'b', "train.slots"}, {'r', "run.dir"},    {'m', "max_length"},
};

/* Explains "-n 5" or "-n5". `next` is the next word, or null. */
static elbo_status short_option(const char *word, const char *next, const struct cli_command *command,
                                elbo_error *error)
{
    const char *value = word[2] ? word + 2 + (word[2] == '=') : next;
    if (word[1] == 'c' && command->reads_config)
        return elbo_fail(error, ELBO_USAGE, "'%.100s' is not an option; a configuration needs none: elbo %s %s", word,
                         command->name, value ? value : "config.yaml");
    for (size_t i = 0; i < sizeof short_options / sizeof *short_options; i++) {
        const struct option *row = options_find(elbo_config_table(), short_options[i].key);
        if (short_options[i].letter == word[1] && row && (row->commands & command->mask))
            return elbo_fail(error, ELBO_USAGE, "'%.100s' is not an option; did you mean --%s=%.100s?", word, row->key,
                             value ? value : "...");
    }
    return elbo_fail(error, ELBO_USAGE,
                     "'%.100s' is not an option; options look like --section.key=value: `elbo %s --help` lists them",
                     word, command->name);
}

/* ---- a blank in the place of the equals sign ---- */

static bool is_bool_word(const char *word)
{
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(word, words[i])) return true;
    return false;
}

/* Refuses "--seed 5": a known option without "=" before a word that could be its value. Unknown options pass, because
 * they get another message. */
static elbo_status check_blank(const char *word, const char *next, const struct cli_command *command, elbo_error *error)
{
    const struct option *row = strchr(word, '=') ? NULL : options_find(elbo_config_table(), word + 2);
    if (!row || !(row->commands & command->mask) || !next) return ELBO_OK;
    bool number = next[0] == '-' && ((next[1] >= '0' && next[1] <= '9') || next[1] == '.');
    if (row->type == OPTION_BOOL ? !is_bool_word(next) : next[0] == '-' && next[1] && !number) return ELBO_OK;
    const char *quote = strpbrk(next, " \t*?$&;|<>()") || !*next ? "\"" : "";
    return elbo_fail(error, ELBO_USAGE, "%s %s%.100s%s: a value stands behind an equals sign; write %s=%s%.100s%s",
                     word, quote, next, quote, word, quote, next, quote);
}

/* ---- sorting ---- */

elbo_status words_sort(struct words *w, int argc, char **argv, const struct cli_command *command, elbo_error *error)
{
    bool launches = command->mask == COMMAND_LAUNCH, options = true;
    w->literal = (size_t)argc;
    for (int i = 2; i < argc && !w->command; i++) {
        const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (options && !strcmp(word, "--")) {
            if (launches) w->command = argv + i + 1;
            options = false;
            w->literal = w->argument_count;
        } else if (options && (!strcmp(word, "-h") || !strcmp(word, "--help") || !strncmp(word, "--help=", 7))) {
            w->help = word;
        } else if (options && !strncmp(word, "--", 2)) {
            if (!w->help) ELBO_TRY(check_blank(word, next && strcmp(next, "--") ? next : NULL, command, error));
            w->overrides[w->override_count++] = word;
        } else if (options && word[0] == '-' && word[1] && !launches && !w->help) {
            return short_option(word, next, command, error);
        } else {
            w->arguments[w->argument_count++] = word;
        }
    }
    return ELBO_OK;
}

elbo_status words_check(const struct words *w, const struct cli_command *command, elbo_error *error)
{
    if (w->argument_count < command->fewest)
        return elbo_fail(error, ELBO_USAGE, "elbo %s needs %s; for example: %s", command->name, command->arguments,
                         command->example);
    if (w->argument_count <= command->most) return ELBO_OK;
    const char *extra = w->arguments[command->most];
    bool equals = strchr(extra, '=') != NULL;
    if (equals && extra[0] != '=')
        return elbo_fail(error, ELBO_USAGE,
                         "elbo %s does not take '%.100s'; an option begins with two dashes: --%.100s", command->name,
                         extra, extra);
    if (command->mask & (COMMAND_RECONSTRUCT | COMMAND_ENCODE | COMMAND_DECODE | COMMAND_TOKENIZE))
        return elbo_fail(error, ELBO_USAGE,
                         "elbo %s does not take '%.100s'; it reads standard input: elbo %s %s < %.100s", command->name,
                         extra, command->name, w->arguments[0], extra);
    if (command->mask == COMMAND_INTERPOLATE)
        return elbo_fail(
            error, ELBO_USAGE,
            "elbo interpolate does not take '%.100s'; the ends are options: --from=\"%.100s\" --to=\"%.100s\"", extra,
            extra, w->argument_count > command->most + 1 ? w->arguments[command->most + 1] : "...");
    if (command->mask == COMMAND_EVAL)
        return elbo_fail(error, ELBO_USAGE,
                         "elbo eval does not take '%.100s'; a corpus is an option: --data.test=%.100s", extra, extra);
    return elbo_fail(error, ELBO_USAGE, "elbo %s does not take '%.100s'; usage: elbo %s %s%s", command->name, extra,
                     command->name, command->arguments, command->mask ? " [--section.key=value ...]" : "");
}

elbo_status words_no_command(int argc, char **argv, elbo_error *error)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    const char *names[64], *word = argv[1];
    for (size_t i = 0; i < count && i < 64; i++) names[i] = commands[i].name;
    for (int i = 2; i < argc && word[0] == '-'; i++)
        for (size_t k = 0; k < count; k++)
            if (!strcmp(argv[i], names[k]))
                return elbo_fail(error, ELBO_USAGE,
                                 "'%.60s' stands before the command; options stand behind it: elbo %s%s%.60s %.60s",
                                 word, names[k], i + 1 < argc ? " " : "", i + 1 < argc ? argv[i + 1] : "", word);
    if (word[0] == '-')
        return elbo_fail(
            error, ELBO_USAGE,
            "'%.60s' stands where a command is expected, such as elbo train; `elbo --help` lists the commands", word);
    static const char *const others[][2] = {{"generate", "sample"}, {"test", "eval"},      {"evaluate", "eval"},
                                            {"fit", "train"},       {"finetune", "train"}, {"preprocess", "prepare"},
                                            {"build", "prepare"},   {"ls", "info"},        {"show", "info"},
                                            {"embed", "encode"},    {"resume", "train"},   {"version", "--version"},
                                            {"benchmark", "bench"}, {"config", "init"},    {"detokenize", "tokenize"}};
    const char *near = nearest_word(word, names, count);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!strcmp(word, others[i][0])) near = others[i][1];
    if (near) return elbo_fail(error, ELBO_USAGE, "unknown command '%.60s'; did you mean %s?", word, near);
    return elbo_fail(error, ELBO_USAGE, "unknown command '%.60s'; `elbo --help` lists them", word);
}

/* ---- values that are valid alone but not in combination ---- */

elbo_status words_check_values(const struct cli *cli, const struct cli_command *command, elbo_error *error)
{
    const struct elbo_config *c = &cli->config;
    const struct {
        const char *key, *path;
    } corpora[] = {{"data.train", c->data.train},
                   {"data.valid", c->data.valid},
                   {"data.test", c->data.test},
                   {"eval.baseline", c->eval.baseline}};
    for (size_t i = 0; i < sizeof corpora / sizeof *corpora; i++)
        if (*corpora[i].path && options_given(cli->options, corpora[i].key))
            ELBO_TRY(path_expect_corpus(corpora[i].path, corpora[i].key, error));
    static const char *const not_paths[] = {"true", "false",  "yes",  "no",     "on",     "off",  "0",
                                            "1",    "latest", "last", "newest", "always", "never"};
    for (size_t i = 0; i < sizeof not_paths / sizeof *not_paths && options_given(cli->options, "resume"); i++)
        if (!strcmp(c->resume, not_paths[i]))
            return elbo_fail(error, ELBO_USAGE,
                             "--resume=%s: it takes auto (go on from the newest checkpoint), none, or the path of a "
                             "run or checkpoint",
                             c->resume);
    if (c->model.precision == PRECISION_BF16 && !strncmp(c->device, "cpu", 3) &&
        (command->mask & (COMMAND_TRAIN | COMMAND_BENCH)))
        return elbo_fail(error, ELBO_USAGE,
                         "--precision=bf16 needs a GPU, and --device=%s is none; leave one of them out", c->device);
    if (command->mask == COMMAND_INTERPOLATE) {
        static const char *const ends[] = {"from", "to"};
        for (int i = 0; i < 2; i++)
            if (options_given(cli->options, ends[i]) && !*(i ? c->generate.to : c->generate.from))
                return elbo_fail(error, ELBO_USAGE, "--%s is empty; give a sentence: --%s=\"...\"", ends[i], ends[i]);
    }
    if (!cli->argument_count) return ELBO_OK;
    enum {
        ON_RUNS =
            COMMAND_EVAL | COMMAND_SAMPLE | COMMAND_RECONSTRUCT | COMMAND_INTERPOLATE | COMMAND_ENCODE | COMMAND_DECODE
    };
    if (command->mask & ON_RUNS) return path_expect_run(cli->arguments[0], command->name, error);
    if (command->mask & (COMMAND_TOKENIZE | COMMAND_INFO))
        return path_expect_either(cli->arguments[0], command->name, error);
    if (!strcmp(command->name, "dump")) return path_expect_corpus(cli->arguments[0], "elbo dump", error);
    return ELBO_OK;
}
