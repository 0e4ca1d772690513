/* Log lines and the progress line: see log.h. */
#include "base/clock.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct log log_open(FILE *out)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    bool terminal = isatty(fileno(out)) && term && strcmp(term, "dumb");
    return (struct log){.out = out, .terminal = terminal, .color = terminal && !(no_color && *no_color)};
}

void log_progress_end(struct log *log)
{
    if (log->progress) fputs("\r\033[K", log->out);
    log->progress = false;
    log->begun = 0;
}

static void put(struct log *log, const char *color, const char *label, const char *format, va_list args)
{
    if (log->progress) fputs("\r\033[K", log->out);
    log->progress = false;
    if (*label) fprintf(log->out, "%s%s%s", log->color ? color : "", label, log->color ? "\033[0m" : "");
    vfprintf(log->out, format, args);
    fputc('\n', log->out);
    fflush(log->out);
}

void log_line(struct log *log, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put(log, "", "", format, args);
    va_end(args);
}

void log_warning(struct log *log, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put(log, "\033[33m", "warning: ", format, args);
    va_end(args);
}

static void put_label(struct log *log, const char *color, const char *label, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put(log, color, label, format, args);
    va_end(args);
}

void log_error(struct log *log, const char *message)
{
    put_label(log, "\033[31m", "elbo: ", "%s", message);
}

void log_progress(struct log *log, double share, const char *what)
{
    if (!log->terminal) return;
    double now = clock_seconds();
    if (log->begun == 0) log->begun = now;
    if (log->progress && now - log->shown < 0.1) return;
    log->shown = now;
    log->progress = true;
    fprintf(log->out, "\r\033[K%s  %3.0f %%", what, 100 * share);
    double spent = now - log->begun;
    if (share > 0.01 && spent > 1) fprintf(log->out, "  %.0f s left", spent * (1 - share) / share);
    fflush(log->out);
}
