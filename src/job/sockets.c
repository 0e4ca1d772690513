/* TCP sockets that never block: see sockets.h. */
#include "job/sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union any_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Copies an IPv4 or IPv6 address with a port; returns its length, or 0 for other families. */
static socklen_t with_port(union any_address *out, const struct sockaddr *address, unsigned port)
{
    if (address->sa_family == AF_INET) {
        memcpy(&out->v4, address, sizeof out->v4);
        out->v4.sin_port = htons((uint16_t)port);
        return sizeof out->v4;
    }
    if (address->sa_family == AF_INET6) {
        memcpy(&out->v6, address, sizeof out->v6);
        out->v6.sin6_port = htons((uint16_t)port);
        return sizeof out->v6;
    }
    return 0;
}

static bool is_loopback(const struct sockaddr *address)
{
    const union any_address *a = (const union any_address *)address;
    if (address->sa_family == AF_INET) return ntohl(a->v4.sin_addr.s_addr) >> 24 == 127;
    return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

/* ---- listening ---- */

/* Returns a listening socket, or -1 with errno. `both`: an IPv6 socket that takes IPv4 too. */
static int listen_at(const struct sockaddr *address, unsigned port, bool both)
{
    union any_address at;
    const int on = 1, only = !both;
    socklen_t size = with_port(&at, address, port);
    int fd =
        size ? socket(at.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : (errno = EAFNOSUPPORT, -1);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* allows a start soon after the last one */
    if (at.any.sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
    if (!bind(fd, &at.any, size) && !listen(fd, SOMAXCONN)) return fd;
    int number = errno;
    close(fd);
    errno = number;
    return -1;
}

static int listen_everywhere(unsigned port)
{
    const union any_address v6 = {.v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT}};
    const union any_address v4 = {.v4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_ANY)}}};
    int fd = listen_at(&v6.any, port, true);
    return fd < 0 && errno != EADDRINUSE ? listen_at(&v4.any, port, false) : fd;
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) close(fds[i]);
}

/* Listens on every usable address of `found`. Returns 0, or the errno of a failure; EADDRNOTAVAIL: no address is this
 * host's. */
static int listen_on(int fds[SOCKETS_MOST], size_t *count, const struct addrinfo *found, unsigned port, bool loopback)
{
    int number = EADDRNOTAVAIL;
    *count = 0;
    for (; found && *count < SOCKETS_MOST; found = found->ai_next) {
        if (is_loopback(found->ai_addr) != loopback) continue;
        int fd = listen_at(found->ai_addr, port, false);
        if (fd >= 0) {
            fds[(*count)++] = fd;
        } else if (errno == EADDRINUSE) {
            number = errno;
            close_all(fds, *count);
            *count = 0;
            return number;
        } else if (errno != EADDRNOTAVAIL && errno != EAFNOSUPPORT) {
            number = errno;
        }
    }
    return *count ? 0 : number;
}

elbo_status sockets_listen(int fds[SOCKETS_MOST], size_t *count, unsigned *port, const struct ranks *ranks,
                           elbo_error *error)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char name[RANKS_ADDRESS + 16];
    int look_up = getaddrinfo(ranks->address, NULL, &hints, &found), number = EADDRINUSE;
    if (look_up) found = NULL; /* on several hosts rank 0 then listens everywhere */
    *count = 0;
    for (unsigned i = 0; i < ranks->ports && number == EADDRINUSE; i++) {
        *port = ranks->port + i;
        number = listen_on(fds, count, found, *port, ranks->one_host);
        if (number == EADDRNOTAVAIL && !ranks->one_host) {
            fds[0] = listen_everywhere(*port);
            number = fds[0] < 0 ? errno : 0;
            *count = !number;
        }
    }
    if (found) freeaddrinfo(found);
    if (!number) return ELBO_OK;
    sockets_name(name, ranks->address, ranks->port);
    if (number == EADDRINUSE)
        return elbo_fail(
            error, ELBO_IO,
            "rank 0 cannot listen at %s%s: another process does; choose another --parallel.port for every rank", name,
            ranks->ports > 1 ? " nor at the ports after it" : "");
    return elbo_fail(error, ELBO_IO, "rank 0 cannot listen at %s: %s; --parallel.address and --parallel.port say where",
                     name, look_up ? gai_strerror(look_up) : strerror(number));
}

elbo_status sockets_free_port(unsigned *port, elbo_error *error)
{
    const union any_address loopback = {.v4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
    int number = EADDRINUSE;
    for (int i = 0; i < 1000 && number == EADDRINUSE; i++) {
        *port = 10000 + randombytes_uniform(20000);
        int fd = listen_at(&loopback.any, *port, false);
        number = fd < 0 ? errno : 0;
        if (fd >= 0) close(fd);
    }
    if (!number) return ELBO_OK;
    return elbo_fail(error, ELBO_IO, "cannot find a free port of the loopback: %s", strerror(number));
}

int sockets_accept(int listening)
{
    return accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* ---- connecting ---- */

int sockets_connect(const struct addrinfo *address, unsigned port)
{
    union any_address at;
    const int on = 1;
    socklen_t size = with_port(&at, address->ai_addr, port);
    int fd =
        size ? socket(at.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : (errno = EAFNOSUPPORT, -1);
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!connect(fd, &at.any, size) || errno == EINPROGRESS || errno == EINTR) return fd;
    int number = errno;
    close(fd);
    errno = number;
    return -1;
}

int sockets_connected(int fd)
{
    int number = 0;
    socklen_t size = sizeof number;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) ? errno : number;
}

void sockets_name(char out[RANKS_ADDRESS + 16], const char *host, unsigned port)
{
    bool v6 = strchr(host, ':');
    snprintf(out, RANKS_ADDRESS + 16, "%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", port);
}
