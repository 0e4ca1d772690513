/* The destination of a format's bytes: a function and its context. Writers of formats know neither files nor checksums,
 * so the same writer fills a checkpoint (which hashes as it writes), a plain file and a test's buffer. */
#ifndef FORMATS_SINK_H
#define FORMATS_SINK_H

#include "elbo/status.h"

#include <stddef.h>

struct sink {
    elbo_status (*write)(void *context, const void *bytes, size_t size, elbo_error *error);
    void *context;
};

static inline elbo_status sink_write(const struct sink *sink, const void *bytes, size_t size, elbo_error *error)
{
    return sink->write(sink->context, bytes, size, error);
}

/* A sink that writes all bytes to an open descriptor. The caller keeps `target` alive and closes the descriptor. */
struct sink_fd {
    int fd;
    const char *path; /* for messages */
};
struct sink sink_to_fd(struct sink_fd *target);

#endif
