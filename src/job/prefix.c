/* Marks each line of several processes with its rank: see prefix.h. */
#include "job/prefix.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Writes to a terminal, a file or a pipe. Errors are ignored, because a reader that has gone is no reason to stop the
 * ranks. */
static void write_all(int to, const char *text, size_t size)
{
    while (size) {
        ssize_t n = write(to, text, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        text += n;
        size -= (size_t)n;
    }
}

/* Writes the whole line by one call, so that lines of other processes cannot come between. */
static void put(struct prefix *prefix, size_t size, int to)
{
    char out[PREFIX_LINE + 32];
    int head = snprintf(out, 32, "[%zu] ", prefix->rank);
    memcpy(out + head, prefix->line, size);
    size_t whole = (size_t)head + size;
    if (!size || prefix->line[size - 1] != '\n') out[whole++] = '\n';
    write_all(to, out, whole);
    prefix->used -= size;
    memmove(prefix->line, prefix->line + size, prefix->used);
}

void prefix_flush(struct prefix *prefix, int to)
{
    if (prefix->used) put(prefix, prefix->used, to);
}

bool prefix_copy(struct prefix *prefix, int from, int to)
{
    for (;;) {
        ssize_t n = read(from, prefix->line + prefix->used, PREFIX_LINE - prefix->used);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        prefix->used += (size_t)n;
        char *end;
        while ((end = memchr(prefix->line, '\n', prefix->used))) put(prefix, (size_t)(end - prefix->line) + 1, to);
        if (n == 0 || prefix->used == PREFIX_LINE) prefix_flush(prefix, to);
        if (n == 0) return false;
    }
}
