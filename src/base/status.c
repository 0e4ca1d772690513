/* Filling an elbo_error: a code and a formatted message, truncated to fit. */
#include "elbo/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

elbo_status elbo_fail(elbo_error *error, elbo_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error->code = code;
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return code;
}

elbo_status elbo_fail_in(elbo_error *error, const char *format, ...)
{
    char inner[sizeof error->message];
    memcpy(inner, error->message, sizeof inner);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof error->message)
        snprintf(error->message + n, sizeof error->message - (size_t)n, "%s", inner);
    return error->code;
}
