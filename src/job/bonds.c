/* Keeps the connections between ranks and notices ranks that end without a farewell: see bonds.h. */
#include "job/bonds.h"

#include "base/clock.h"
#include "job/wire.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OTHER_FILES = 640 }; /* files that a rank may have open besides its connections */
static const double grace = 0.25;

/* Returns the number of connections that may be kept, at most `wanted`. */
static size_t room_for(size_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return 0;
    if (limit.rlim_cur < wanted + OTHER_FILES && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max < wanted + OTHER_FILES ? limit.rlim_max : wanted + OTHER_FILES;
        if (setrlimit(RLIMIT_NOFILE, &limit) && getrlimit(RLIMIT_NOFILE, &limit)) return 0;
    }
    size_t left = limit.rlim_cur > OTHER_FILES ? limit.rlim_cur - OTHER_FILES : 1;
    return wanted < left ? wanted : left;
}

elbo_status bonds_open(struct bonds *bonds, size_t wanted, double timeout, elbo_error *error)
{
    *bonds = (struct bonds){.room = room_for(wanted), .timeout = timeout};
    bonds->polled = calloc(bonds->room + 1, sizeof *bonds->polled);
    bonds->ranks = calloc(bonds->room + 1, sizeof *bonds->ranks);
    if (bonds->polled && bonds->ranks) return ELBO_OK;
    bonds_close(bonds, false);
    return elbo_fail(error, ELBO_MEMORY, "no memory for the connections of %zu ranks", wanted);
}

/* Lets the system probe a silent host four times, the last time when the time-out is over. */
static void watch_host(int fd, double timeout)
{
    const int on = 1, signs = 4;
    int idle = timeout < 3 ? 1 : timeout > 3e4 ? 10000 : (int)(timeout / 3);
    int between = timeout < 6 ? 1 : timeout > 3e4 ? 5000 : (int)(timeout / 6);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof between);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &signs, sizeof signs);
}

bool bonds_keep(struct bonds *bonds, int fd, size_t rank)
{
    if (bonds->count == bonds->room) return false;
    watch_host(fd, bonds->timeout);
    bonds->polled[bonds->count] = (struct pollfd){.fd = fd, .events = POLLIN};
    bonds->ranks[bonds->count++] = rank;
    return true;
}

static void drop(struct bonds *bonds, size_t i)
{
    close(bonds->polled[i].fd);
    bonds->count--;
    bonds->polled[i] = bonds->polled[bonds->count];
    bonds->ranks[i] = bonds->ranks[bonds->count];
}

/* Reads from a connection that has data or has ended. */
static void look(struct bonds *bonds, size_t i)
{
    unsigned char said[WIRE_HEADER];
    ssize_t n = recv(bonds->polled[i].fd, said, sizeof said, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
    if (n <= 0) {
        bonds->lost = bonds->ranks[i];
        bonds->since = clock_seconds();
    } /* else a farewell; a peer that sends anything else is not watched any more either */
    drop(bonds, i);
}

size_t bonds_lost(struct bonds *bonds)
{
    if (!(bonds->since > 0) && bonds->count && poll(bonds->polled, bonds->count, 0) > 0)
        for (size_t i = bonds->count; i-- > 0 && !(bonds->since > 0);) /* drop() moves the last one to i */
            if (bonds->polled[i].revents) look(bonds, i);
    return bonds->since > 0 && clock_seconds() - bonds->since >= grace ? bonds->lost : BONDS_NONE;
}

void bonds_say_farewell(int fd)
{
    unsigned char frame[WIRE_HEADER];
    wire_farewell(frame);
    send(fd, frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT); /* if it fails, the other end is gone */
}

void bonds_close(struct bonds *bonds, bool farewell)
{
    while (bonds->count) {
        if (farewell) bonds_say_farewell(bonds->polled[bonds->count - 1].fd);
        drop(bonds, bonds->count - 1);
    }
    free(bonds->polled);
    free(bonds->ranks);
    *bonds = (struct bonds){0};
}
