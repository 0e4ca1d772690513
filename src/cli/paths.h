/* Tells what kind of thing a path of the command line leads to, so that error messages can name it. */
#ifndef CLI_PATHS_H
#define CLI_PATHS_H

#include "cli/cli.h"

enum path_kind {
    PATH_MISSING,
    PATH_FILE,      /* not a folder */
    PATH_CORPUS,    /* a folder with a corpus, or with train/ of a split */
    PATH_RUN,       /* a run's folder, or a checkpoint */
    PATH_YOUNG_RUN, /* a run's folder without a checkpoint yet */
    PATH_FOLDER,    /* another folder */
};

enum path_kind path_kind(const char *path);

/* Fail with ELBO_USAGE when the path leads to another kind of thing. A missing path passes; opening it reports the
 * error. */
elbo_status path_expect_run(const char *path, const char *command, elbo_error *error);
elbo_status path_expect_corpus(const char *path, const char *what, elbo_error *error); /* what: "--data.train" */
elbo_status path_expect_either(const char *path, const char *command, elbo_error *error);
elbo_status path_expect_config(const char *path, const char *command, elbo_error *error);

#endif
