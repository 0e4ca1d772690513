/* Lets the ranks of a job meet: see rendezvous.h. */
#include "job/rendezvous.h"

#include "base/clock.h"
#include "job/meeting.h"
#include "job/secret.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rendezvous_options rendezvous_here(const struct parallel_config *config)
{
    return (struct rendezvous_options){
        .secret_file = config->secret_file,
        .secret = getenv("ELBO_SECRET"),
        .runtime_folder = getenv("XDG_RUNTIME_DIR"),
        .timeout = config->timeout,
    };
}

/* ---- rank 0 ---- */

static elbo_status serve(const struct ranks *ranks, const struct rendezvous_options *options, const void *bytes,
                         size_t size, struct bonds *bonds, elbo_error *error)
{
    int fds[SOCKETS_MOST];
    unsigned port;
    char name[RANKS_ADDRESS + 16];
    struct secret secret;
    const double began = clock_seconds();
    struct meeting meeting = {ranks, secret.key, fds, 0, name, began, began + options->timeout, bonds};
    elbo_status status = secret_open(&secret, ranks, options, error);
    if (status == ELBO_OK) status = sockets_listen(fds, &meeting.count, &port, ranks, error);
    if (status == ELBO_OK) {
        sockets_name(name, ranks->address, port);
        status = meeting_serve(&meeting, bytes, size, error);
    }
    for (size_t i = 0; i < meeting.count; i++) close(fds[i]);
    secret_close(&secret);
    return status;
}

/* ---- the other ranks ---- */

/* Results of the tries so far; the most telling one is reported. */
struct tries {
    enum joined worst;
    int number; /* errno of JOIN_NOBODY */
};

static void note(struct tries *tries, enum joined result)
{
    if (result == JOIN_NOBODY && tries->worst <= JOIN_NOBODY) tries->number = errno;
    if (result > tries->worst) tries->worst = result;
}

/* Tries once at every address and port where rank 0 may be. */
static bool try_all(struct tries *tries, void *bytes, size_t size, const struct ranks *ranks,
                    const struct secret *secret, double patience, double deadline, struct bonds *bonds)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    bool done = false;
    if (getaddrinfo(ranks->address, NULL, &hints, &found)) {
        errno = EADDRNOTAVAIL; /* the name may appear later */
        note(tries, JOIN_NOBODY);
        return false;
    }
    for (unsigned i = 0; i < ranks->ports && !done; i++)
        for (const struct addrinfo *a = found; a && !done; a = a->ai_next) {
            double until = clock_seconds() + patience;
            if (until > deadline) until = deadline;
            int fd = sockets_connect(a, ranks->port + i);
            enum joined result = fd < 0 ? JOIN_NOBODY : meeting_join(bytes, size, fd, ranks, secret->key, until);
            note(tries, result);
            done = result == JOIN_DONE;
            bool kept = done && bonds && bonds_keep(bonds, fd, 0);
            if (done && !kept) bonds_say_farewell(fd);
            if (fd >= 0 && !kept) close(fd);
        }
    freeaddrinfo(found);
    return done;
}

static elbo_status too_late(const struct tries *tries, const struct ranks *ranks,
                            const struct rendezvous_options *options, bool without_file, elbo_error *error)
{
    static const char *const what[] = {
        [JOIN_DONE] = "rank 0 has not begun",
        [JOIN_SILENT] = "something there takes connections and says nothing",
        [JOIN_CLOSED] = "it closes this rank's connections: another ELBO_SECRET, another number of ranks, or this rank "
                        "was there already",
        [JOIN_FOREIGN] = "what listens there is not rank 0 of an elbo of this version",
        [JOIN_FALSE] = "what listens there does not know the job's secret",
    };
    char name[RANKS_ADDRESS + 16];
    sockets_name(name, ranks->address, ranks->port);
    const char *why = tries->worst == JOIN_NOBODY ? strerror(tries->number) : what[tries->worst];
    return elbo_fail(
        error, ELBO_PEER,
        "rank %zu did not meet rank 0 at %s within %.3g s: %s%s; --parallel.address and --parallel.port say "
        "where, --parallel.timeout how long",
        ranks->rank, name, options->timeout, why, without_file ? " (rank 0 has left no secret on this host)" : "");
}

static elbo_status join(const struct ranks *ranks, const struct rendezvous_options *options, void *bytes, size_t size,
                        struct bonds *bonds, elbo_error *error)
{
    const double deadline = clock_seconds() + options->timeout;
    double pause = 0.01, patience = 0.4; /* seconds */
    struct tries tries = {JOIN_DONE, 0};
    struct secret secret;
    bool there = true, done = false;
    elbo_status status = secret_open(&secret, ranks, options, error);
    for (unsigned round = 0; status == ELBO_OK && !done && clock_seconds() < deadline; round++) {
        if (secret.met) status = secret_look(&secret, &there, error);
        if (status == ELBO_OK && there) done = try_all(&tries, bytes, size, ranks, &secret, patience, deadline, bonds);
        if (done || status) break;
        double left = deadline - clock_seconds();
        if (left > 0) poll(NULL, 0, (int)((pause < left ? pause : left) * 1e3) + 1);
        if (pause < 0.2) pause *= 1.5;
        if (round >= 5 && patience < 5) patience *= 1.5; /* rank 0 may be slow, or far */
    }
    secret_close(&secret);
    if (status || done) return status;
    return too_late(&tries, ranks, options, !there, error);
}

elbo_status rendezvous_share(const struct ranks *ranks, const struct rendezvous_options *options, void *bytes,
                             size_t size, struct bonds *bonds, elbo_error *error)
{
    if (ranks->world <= 1) return ELBO_OK;
    if (size < 1 || size > RENDEZVOUS_MOST)
        return elbo_fail(error, ELBO_INTERNAL, "%zu bytes to share, of 1 to %d", size, RENDEZVOUS_MOST);
    if (!*ranks->address)
        return elbo_fail(error, ELBO_USAGE,
                         "%s does not say where rank 0 runs; say --parallel.address, a name or address of its host",
                         ranks_source_name(ranks->source));
    if (bonds) ELBO_TRY(bonds_open(bonds, ranks->rank ? 1 : ranks->world - 1, options->timeout, error));
    return ranks->rank == 0 ? serve(ranks, options, bytes, size, bonds, error)
                            : join(ranks, options, bytes, size, bonds, error);
}
