/* A job for tests: ranks as threads of this process that meet on the loopback, and strangers that speak to rank 0 by
 * hand. */
#ifndef TESTS_PARALLEL_JOB_H
#define TESTS_PARALLEL_JOB_H

#include "base/clock.h"
#include "job/rendezvous.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { ID = 128, MOST_MEMBERS = 16 };
#define SECRET "a secret of 32 characters or so."

/* ---- random numbers from a seed ---- */

struct xorshift {
    uint64_t state;
};

static inline uint64_t draw(struct xorshift *x)
{
    x->state ^= x->state << 13;
    x->state ^= x->state >> 7;
    x->state ^= x->state << 17;
    return x->state;
}

static inline void fill(void *out, size_t size, uint64_t seed)
{
    struct xorshift x = {seed * 0x9e3779b97f4a7c15u | 1};
    for (size_t i = 0; i < size; i++) ((unsigned char *)out)[i] = (unsigned char)(draw(&x) >> 32);
}

/* ---- blocking sockets, for strangers ---- */

static inline struct sockaddr_in at_port(unsigned port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static inline int listen_on_port(unsigned port)
{
    struct sockaddr_in at = at_port(port);
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!bind(fd, (struct sockaddr *)&at, sizeof at) && !listen(fd, 64)) return fd;
    close(fd);
    return -1;
}

/* Returns the first of `count` adjacent free ports, below the ports that the system gives to connections. */
static inline unsigned free_ports(unsigned count)
{
    struct xorshift x = {(uint64_t)getpid() << 32 | (uint64_t)(clock_seconds() * 1e6) | 1};
    for (;;) {
        unsigned port = 10000 + (unsigned)(draw(&x) % 20000), good = 0;
        while (good < count) {
            int fd = listen_on_port(port + good);
            if (fd < 0) break;
            close(fd);
            good++;
        }
        if (good == count) return port;
    }
}

/* Connects to the port, once a socket listens there. */
static inline int dial(unsigned port)
{
    struct sockaddr_in at = at_port(port);
    for (int i = 0; i < 5000; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (!connect(fd, (struct sockaddr *)&at, sizeof at)) return fd;
        close(fd);
        usleep(1000);
    }
    abort();
}

static inline bool send_bytes(int fd, const void *bytes, size_t size)
{
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(fd, (const char *)bytes + sent, size - sent, MSG_NOSIGNAL);
        if (n <= 0) return false;
        sent += (size_t)n;
    }
    return true;
}

/* Receives until `size` bytes are there, the other side ends, or nothing comes for `seconds`. */
static inline size_t receive_bytes(int fd, void *bytes, size_t size, double seconds)
{
    size_t got = 0;
    struct timeval limit = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    while (got < size) {
        ssize_t n = recv(fd, (char *)bytes + got, size - got, 0);
        if (n <= 0) break;
        got += (size_t)n;
    }
    return got;
}

/* ---- ranks ---- */

struct member {
    struct ranks ranks;
    struct rendezvous_options options;
    double delay, seconds; /* delay before the rank begins; time that the meeting took */
    unsigned char bytes[ID];
    bool keeps; /* keeps its connections, in `bonds` */
    struct bonds bonds;
    elbo_status status;
    elbo_error error;
    pthread_t thread;
};

struct job {
    struct member members[MOST_MEMBERS];
    size_t world;
    unsigned char id[ID];
    double seconds; /* until all ranks had the id */
};

static inline struct ranks rank_of(size_t rank, size_t world, unsigned port)
{
    struct ranks ranks = {.world = world,
                          .rank = rank,
                          .local_world = world,
                          .local_rank = rank,
                          .nodes = 1,
                          .source = RANKS_ELBO,
                          .address = "127.0.0.1",
                          .port = port,
                          .ports = 1,
                          .one_host = true};
    snprintf(ranks.job, sizeof ranks.job, "test-%u", port);
    return ranks;
}

static inline void make_job(struct job *job, size_t world, unsigned port)
{
    memset(job, 0, sizeof *job);
    job->world = world;
    fill(job->id, sizeof job->id, port);
    for (size_t r = 0; r < world; r++) {
        job->members[r].ranks = rank_of(r, world, port);
        job->members[r].options = (struct rendezvous_options){.secret_file = "", .secret = SECRET, .timeout = 10};
    }
    memcpy(job->members[0].bytes, job->id, ID);
}

static inline void *run_member(void *context)
{
    struct member *m = context;
    usleep((useconds_t)(m->delay * 1e6));
    double before = clock_seconds();
    m->status = rendezvous_share(&m->ranks, &m->options, m->bytes, ID, m->keeps ? &m->bonds : NULL, &m->error);
    m->seconds = clock_seconds() - before;
    return NULL;
}

static inline void begin_job(struct job *job)
{
    for (size_t r = 0; r < job->world; r++)
        if (pthread_create(&job->members[r].thread, NULL, run_member, &job->members[r])) abort();
}

static inline void end_job(struct job *job)
{
    for (size_t r = 0; r < job->world; r++) pthread_join(job->members[r].thread, NULL);
}

static inline void run_job(struct job *job)
{
    double before = clock_seconds();
    begin_job(job);
    end_job(job);
    job->seconds = clock_seconds() - before;
}

/* Every rank must have rank 0's bytes. Returns null, or the fault. */
static inline const char *job_failure(const struct job *job)
{
    static _Thread_local char text[1200];
    for (size_t r = 0; r < job->world; r++) {
        const struct member *m = &job->members[r];
        if (!m->status && !memcmp(m->bytes, job->id, ID)) continue;
        snprintf(text, sizeof text, "rank %zu of %zu: %s", r, job->world,
                 m->status ? m->error.message : "it has other bytes");
        return text;
    }
    return NULL;
}

#endif
