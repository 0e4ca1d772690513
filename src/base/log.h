/* Logs and progress, on standard error; products go to standard output.
 *
 * A `struct log` is passed around by whoever wants to say something. On a terminal a progress line rewrites itself and
 * gives way to log lines; elsewhere progress is silent, so that files and pipes hold lines only. NO_COLOR and
 * TERM=dumb switch colour off. One thread at a time. What cannot be written is dropped: nobody's work ends because
 * nobody listens (a program that works long ignores SIGPIPE for that). */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdio.h>

struct log {
    FILE *out;
    bool terminal; /* progress lines make sense          */
    bool color;
    bool progress;       /* a progress line stands on the last row */
    double begun, shown; /* seconds: start, last progress line shown */
};

/* For `out`, usually stderr; looks at the terminal and the environment once. */
struct log log_open(FILE *out);

void log_line(struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_warning(struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "elbo: message" in the colour of errors. */
void log_error(struct log *log, const char *message);

/* Shows "what  42 %  12 s left", at most ten times a second; log_progress_end removes it. */
void log_progress(struct log *log, double share, const char *what);
void log_progress_end(struct log *log);

#endif
