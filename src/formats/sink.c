/* The sink for a file descriptor: continues after short writes and interrupted calls. */
#include "formats/sink.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static elbo_status write_fd(void *context, const void *bytes, size_t size, elbo_error *error)
{
    const struct sink_fd *target = context;
    const char *from = bytes;
    for (size_t left = size; left > 0;) {
        ssize_t wrote = write(target->fd, from, left);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0)
            return elbo_fail(error, ELBO_IO, "%s: writing %zu bytes failed: %s", target->path, left, strerror(errno));
        from += wrote;
        left -= (size_t)wrote;
    }
    return ELBO_OK;
}

struct sink sink_to_fd(struct sink_fd *target)
{
    return (struct sink){write_fd, target};
}
