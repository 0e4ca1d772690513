/* TCP sockets that never block: listening where rank 0 is met, and connecting to it. IPv4 and IPv6. */
#ifndef JOB_SOCKETS_H
#define JOB_SOCKETS_H

#include "elbo/status.h"
#include "job/ranks.h"

#include <netdb.h>

enum { SOCKETS_MOST = 8 }; /* addresses of one host that are used */

/* Listens at the first of the job's ports that is free, on every address of ranks->address that is this host's. One
 * host: on the loopback only. Several: on all addresses where the name tells none of this host's. */
elbo_status sockets_listen(int fds[SOCKETS_MOST], size_t *count, unsigned *port, const struct ranks *ranks,
                           elbo_error *error);

/* The next peer, or -1 with errno. */
int sockets_accept(int listening);

/* Begins to connect to `address` at `port`: a socket, or -1 with errno. poll() for POLLOUT, then sockets_connected. */
int sockets_connect(const struct addrinfo *address, unsigned port);
/* 0, or why there is no connection. */
int sockets_connected(int fd);

/* A port of the loopback where nobody listens, below those that the system gives to connections. */
elbo_status sockets_free_port(unsigned *port, elbo_error *error);

/* "host:port", with brackets around an IPv6 address. */
void sockets_name(char out[RANKS_ADDRESS + 16], const char *host, unsigned port);

#endif
