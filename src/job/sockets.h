/* TCP sockets that never block: listening where rank 0 is met, and connecting to it. IPv4 and IPv6. */
#ifndef JOB_SOCKETS_H
#define JOB_SOCKETS_H

#include "elbo/status.h"
#include "job/ranks.h"

#include <netdb.h>

enum { SOCKETS_MOST = 8 }; /* most addresses of one host that are used */

/* Listens at the first free port of the job, on every address of ranks->address that is this host's. On one host: only
 * on the loopback. On several hosts: on all addresses if the name gives no address of this host. */
elbo_status sockets_listen(int fds[SOCKETS_MOST], size_t *count, unsigned *port, const struct ranks *ranks,
                           elbo_error *error);

/* Accepts the next peer; returns -1 with errno if there is none. */
int sockets_accept(int listening);

/* Begins to connect to `address` at `port`. Returns a socket, or -1 with errno. Then poll() for POLLOUT and call
 * sockets_connected. */
int sockets_connect(const struct addrinfo *address, unsigned port);
/* Returns 0, or the errno of a failed connection. */
int sockets_connected(int fd);

/* Finds a free port of the loopback, below those that the system assigns to connections. */
elbo_status sockets_free_port(unsigned *port, elbo_error *error);

/* Writes "host:port", with brackets around an IPv6 address. */
void sockets_name(char out[RANKS_ADDRESS + 16], const char *host, unsigned port);

#endif
