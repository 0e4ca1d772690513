/* Logs and progress on standard error; products go to standard output.
 *
 * Callers pass a `struct log` around. On a terminal, a progress line rewrites itself and gives way to log lines.
 * Elsewhere progress is silent, so that files and pipes hold log lines only. NO_COLOR and TERM=dumb switch color off.
 * One thread at a time. Lines that cannot be written are dropped, so that a closed reader never ends the work (a
 * long-running program ignores SIGPIPE for this). */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdio.h>

struct log {
    FILE *out;
    bool terminal; /* progress lines can be shown */
    bool color;
    bool progress;       /* a progress line is on the last row */
    double begun, shown; /* seconds: start of the progress, last time its line was shown */
};

/* Opens a log on `out`, usually stderr. Reads the terminal and the environment once. */
struct log log_open(FILE *out);

void log_line(struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_warning(struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints "elbo: message" in the color of errors. */
void log_error(struct log *log, const char *message);

/* Shows "what  42 %  12 s left", at most ten times a second; log_progress_end removes it. */
void log_progress(struct log *log, double share, const char *what);
void log_progress_end(struct log *log);

#endif
