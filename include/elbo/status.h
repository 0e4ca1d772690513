/* How a call fails: a code, which is also the exit code of the program, and a message that says what failed, where, and
 * what to do.
 *
 *     elbo_error error = {0};
 *     if (elbo_corpus_open(&corpus, "corpus/train", &error)) fprintf(stderr, "%s\n", error.message);
 *
 * Every call that can fail returns an elbo_status and takes a non-null `elbo_error *` last. The error is written only
 * when the call fails. */
#ifndef ELBO_STATUS_H
#define ELBO_STATUS_H

#include "elbo/version.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum elbo_status {
    ELBO_OK = 0,
    ELBO_INTERNAL = 1,    /* a bug in elbo */
    ELBO_USAGE = 2,       /* an option or argument is unknown, malformed or out of range      */
    ELBO_INPUT = 3,       /* a file's content: empty, truncated, foreign, another version     */
    ELBO_IO = 4,          /* the system refused: missing file, no permission, disk full       */
    ELBO_MEMORY = 5,      /* not enough memory; the message says how much for what */
    ELBO_BUSY = 6,        /* the run directory is in use by another process                   */
    ELBO_DIVERGED = 7,    /* loss or gradient not finite, several steps in a row              */
    ELBO_DEVICE = 8,      /* the device is missing or failed                                  */
    ELBO_INTERRUPTED = 9, /* stopped by a signal after saving                                 */
    ELBO_PEER = 10,       /* another rank died, hung or is not one of this job                */
} elbo_status;

typedef struct elbo_error {
    elbo_status code;
    char message[1024];
} elbo_error;

/* Fills `error` (printf style; truncated to fit, never overrun) and returns `code`, for use in `return
 * elbo_fail(...)`. */
ELBO_API elbo_status elbo_fail(elbo_error *error, elbo_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts text in front of the error's message, such as "corpus/train: ". Returns the error's code. */
ELBO_API elbo_status elbo_fail_in(elbo_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Returns the status of `call` from the current function unless it is ELBO_OK. */
#define ELBO_TRY(call)                                                                                                 \
    do {                                                                                                               \
        elbo_status status_ = (call);                                                                                  \
        if (status_ != ELBO_OK) return status_;                                                                        \
    } while (0)

#ifdef __cplusplus
}
#endif

#endif
