/* The variables that the launcher gives to its ranks: see launcher.h. */
#ifndef JOB_TOLD_H
#define JOB_TOLD_H

#include "job/child.h"

enum { TOLD_MOST = 8, TOLD_SECRET = 65 };

struct told {
    unsigned restart, port;
    size_t ranks;             /* 0: the command starts its ranks itself, and gets only the restart and a secret */
    char secret[TOLD_SECRET]; /* "" until told_secret fills it */
};

/* Makes a fresh secret of 32 random bytes. If the launcher starts no ranks itself, a given ELBO_SECRET is kept, because
 * ranks on other hosts may have it. */
void told_secret(struct told *told);

/* Writes the variables of rank `rank`; returns their number. */
size_t told_variables(struct child_variable out[TOLD_MOST], const struct told *told, size_t rank);

#endif
