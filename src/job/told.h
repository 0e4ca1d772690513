/* What the launcher tells its ranks, as variables: see launcher.h. */
#ifndef JOB_TOLD_H
#define JOB_TOLD_H

#include "job/child.h"

enum { TOLD_MOST = 8, TOLD_SECRET = 65 };

struct told {
    unsigned restart, port;
    size_t ranks;             /* 0: the command starts its ranks itself, and is told the restart and a secret only */
    char secret[TOLD_SECRET]; /* ""; told_secret fills it                                                          */
};

/* A fresh secret of 32 random bytes. Without ranks of the launcher's own one that was given is kept: ranks on other
 * hosts may have it. */
void told_secret(struct told *told);

/* The variables of rank `rank`; their number. */
size_t told_variables(struct child_variable out[TOLD_MOST], const struct told *told, size_t rank);

#endif
