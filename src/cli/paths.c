/* Tells runs, corpora and files apart; see paths.h. */
#include "cli/paths.h"

#include "base/files.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

static bool has(const char *folder, const char *name)
{
    char path[FILES_PATH];
    struct stat about;
    elbo_error unused;
    return !file_join(path, folder, name, &unused) && !stat(path, &about);
}

/* Returns whether the folder holds an entry whose name does not begin with a dot. A folder that cannot be listed counts
 * as holding one, so that opening it reports the error. */
static bool holds_something(const char *folder, const char *name)
{
    char path[FILES_PATH];
    elbo_error unused;
    DIR *list = file_join(path, folder, name, &unused) ? NULL : opendir(path);
    if (!list) return has(folder, name);
    bool found = false;
    for (struct dirent *entry; !found && (entry = readdir(list));) found = entry->d_name[0] != '.';
    closedir(list);
    return found;
}

enum path_kind path_kind(const char *path)
{
    struct stat about;
    if (stat(path, &about)) return PATH_MISSING;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!S_ISDIR(about.st_mode))
        return !strcmp(name, "best") || !strcmp(name, "latest") ? PATH_RUN : PATH_FILE; /* they name a checkpoint */
    if (has(path, "corpus.bin") || has(path, "train/corpus.bin")) return PATH_CORPUS;
    if (has(path, "model.safetensors") || holds_something(path, "checkpoints")) return PATH_RUN;
    if (has(path, "checkpoints") || (has(path, "config.yaml") && has(path, "tokenizer.json"))) return PATH_YOUNG_RUN;
    return PATH_FOLDER;
}

elbo_status path_expect_run(const char *path, const char *command, elbo_error *error)
{
    switch (path_kind(path)) {
    case PATH_FILE:
        return elbo_fail(
            error, ELBO_USAGE, "%s is a file, and elbo %s takes the folder of a run, such as runs/a%s", path, command,
            strcmp(command, "eval") ? "; text goes to standard input: < FILE" : ", and a corpus with --data.test");
    case PATH_CORPUS:
        return elbo_fail(error, ELBO_USAGE, "%s is a corpus, and elbo %s takes the folder of a run, such as runs/a%s",
                         path, command,
                         strcmp(command, "eval") ? "" : "; the corpus goes behind it: --data.test=CORPUS");
    case PATH_YOUNG_RUN:
        return elbo_fail(error, ELBO_INPUT,
                         "%s is a run without a checkpoint yet; wait for its first (checkpoint.every), or train it on",
                         path);
    default:
        return ELBO_OK;
    }
}

elbo_status path_expect_corpus(const char *path, const char *what, elbo_error *error)
{
    static const char inside[] = "/corpus.bin";
    size_t size = strlen(path);
    switch (path_kind(path)) {
    case PATH_FILE:
        if (size >= sizeof inside - 1 && !strcmp(path + size - (sizeof inside - 1), inside))
            return ELBO_OK; /* opening the corpus gives a more precise error */
        return elbo_fail(error, ELBO_USAGE,
                         "%s: %s is a file, not a corpus; make one of a text with `elbo prepare %s --out=corpus`", what,
                         path, path);
    case PATH_RUN:
    case PATH_YOUNG_RUN:
        return elbo_fail(error, ELBO_USAGE, "%s: %s is a run, not a corpus; give the folder that `elbo prepare` wrote",
                         what, path);
    default:
        return ELBO_OK;
    }
}

elbo_status path_expect_either(const char *path, const char *command, elbo_error *error)
{
    /* `elbo tokenize` takes a tokenizer.json by itself. */
    size_t size = strlen(path);
    if (path_kind(path) != PATH_FILE || (!strcmp(command, "tokenize") && size > 5 && !strcmp(path + size - 5, ".json")))
        return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE,
                     "%s is a file, and elbo %s takes the folder of a corpus or a run; make a corpus of a text with "
                     "`elbo prepare %s --out=corpus`",
                     path, command, path);
}

elbo_status path_expect_config(const char *path, const char *command, elbo_error *error)
{
    switch (path_kind(path)) {
    case PATH_CORPUS:
        return elbo_fail(error, ELBO_USAGE,
                         "%s is a corpus, and elbo %s takes a configuration file; a corpus is given as --data.train=%s",
                         path, command, path);
    case PATH_RUN:
    case PATH_YOUNG_RUN:
        return elbo_fail(error, ELBO_USAGE,
                         "%s is a run, and elbo %s takes a configuration file; the run's own is %s/config.yaml", path,
                         command, path);
    case PATH_FOLDER:
        return elbo_fail(error, ELBO_USAGE, "%s is a folder, and elbo %s takes a configuration file", path, command);
    default:
        return ELBO_OK;
    }
}
