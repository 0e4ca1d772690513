/* Formats messages of a run and passes them to the caller's functions: see console.h. */
#include "train/console.h"
#include "base/files.h"

#include <stdarg.h>
#include <stdio.h>

void console_line(const struct train_report *to, const char *format, ...)
{
    char text[2 * FILES_PATH + 128];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (to->line) to->line(to->context, text);
}

void console_warning(void *to, const char *message)
{
    const struct train_report *report = to;
    if (report->warning) report->warning(report->context, message);
}
