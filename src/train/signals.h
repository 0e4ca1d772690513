/* The signals that stop a run. */
#ifndef TRAIN_SIGNALS_H
#define TRAIN_SIGNALS_H

#include <signal.h>
#include <time.h>

/* Returns the set of these signals. SIGHUP is left out if it is ignored already (nohup). */
static inline sigset_t signals_that_stop(void)
{
    sigset_t set;
    struct sigaction hangup;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    if (!sigaction(SIGHUP, NULL, &hangup) && hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
    return set;
}

/* Returns a signal that is pending while blocked, or 0. */
static inline int signals_take(void)
{
    sigset_t set = signals_that_stop();
    int number = sigtimedwait(&set, NULL, &(struct timespec){0});
    return number > 0 ? number : 0;
}

#endif
