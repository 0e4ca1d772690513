/* Tells what a path of the command line leads to, for messages that say what it is instead of what it is not. */
#ifndef CLI_PATHS_H
#define CLI_PATHS_H

#include "cli/cli.h"

enum path_kind {
    PATH_MISSING,
    PATH_FILE,      /* no folder                                        */
    PATH_CORPUS,    /* a folder with a corpus, or with train/ of one    */
    PATH_RUN,       /* a run's folder or a checkpoint                   */
    PATH_YOUNG_RUN, /* a run's folder that has no checkpoint yet        */
    PATH_FOLDER,    /* another folder                                   */
};

enum path_kind path_kind(const char *path);

/* Fail with ELBO_USAGE when the path leads to something else; what is not there is left to the one who opens it. */
elbo_status path_expect_run(const char *path, const char *command, elbo_error *error);
elbo_status path_expect_corpus(const char *path, const char *what, elbo_error *error); /* what: "--data.train" */
elbo_status path_expect_either(const char *path, const char *command, elbo_error *error);
elbo_status path_expect_config(const char *path, const char *command, elbo_error *error);

#endif
