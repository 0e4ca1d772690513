/* Rank 0's side of a meeting in a thread, which may be the faulty one, and strangers that speak the protocol by
 * hand. */
#ifndef TESTS_PARALLEL_HOSTING_H
#define TESTS_PARALLEL_HOSTING_H

#include "job/faulty_host.h"
#include "base/clock.h"
#include "job/job.h"
#include "job/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { ONE_CHALLENGE = WIRE_HEADER + WIRE_NONCE, HEARD = 1 << 14 };

typedef elbo_status (*host_function)(const struct meeting *meeting, const void *bytes, size_t size, elbo_error *error);

/* ---- a host of a job, without the rest of rendezvous_share, so that it can be the faulty one ---- */

struct hosting {
    host_function serve;
    struct ranks ranks;
    unsigned char key[WIRE_KEY], id[ID];
    int listening;
    double deadline;
    elbo_status status;
    elbo_error error;
    pthread_t thread;
};

static inline void key_of(unsigned char key[WIRE_KEY], const char *text)
{
    struct ranks ranks = rank_of(1, 2, 1);
    struct rendezvous_options options = {.secret_file = "", .secret = text};
    struct secret secret;
    elbo_error error = {0};
    if (secret_open(&secret, &ranks, &options, &error)) fail_msg("%s", error.message);
    memcpy(key, secret.key, WIRE_KEY);
    secret_close(&secret);
}

static inline void *host(void *context)
{
    struct hosting *h = context;
    struct meeting meeting = {
        &h->ranks, h->key, &h->listening, 1, "here", clock_seconds(), clock_seconds() + h->deadline, NULL};
    h->status = h->serve(&meeting, h->id, ID, &h->error);
    return NULL;
}

static inline void open_host(struct hosting *h, host_function serve, size_t world, unsigned restart, double deadline)
{
    unsigned port;
    size_t count;
    int fds[SOCKETS_MOST];
    *h = (struct hosting){.serve = serve, .deadline = deadline};
    h->ranks = rank_of(0, world, free_ports(1));
    h->ranks.restart = restart;
    fill(h->id, ID, h->ranks.port);
    key_of(h->key, SECRET);
    if (sockets_listen(fds, &count, &port, &h->ranks, &h->error)) fail_msg("%s", h->error.message);
    h->listening = fds[0];
    if (pthread_create(&h->thread, NULL, host, h)) abort();
}

static inline enum joined join_as(unsigned char bytes[ID], const struct hosting *h, const struct ranks *ranks,
                                  const unsigned char key[WIRE_KEY])
{
    int fd = dial(h->ranks.port);
    enum joined result = meeting_join(bytes, ID, fd, ranks, key, clock_seconds() + 5);
    close(fd);
    return result;
}

/* Joins as rank 1, which the host must still serve, and ends the host. */
static inline void close_host(struct hosting *h)
{
    struct ranks ranks = h->ranks;
    unsigned char bytes[ID] = {0};
    ranks.rank = 1;
    double before = clock_seconds();
    enum joined result = join_as(bytes, h, &ranks, h->key);
    double seconds = clock_seconds() - before;
    pthread_join(h->thread, NULL);
    close(h->listening);
    if (result != JOIN_DONE || h->status) fail_msg("the rank itself was not served: %d, %s", result, h->error.message);
    assert_memory_equal(bytes, h->id, ID);
    assert_true(seconds < 1);
}

/* ---- messages of a stranger ---- */

struct heard {
    unsigned char bytes[HEARD];
    size_t size;
};

/* A stranger may hear one challenge at most, and nothing of the id. Returns null, or the fault. */
static inline const char *given_away(const struct heard *heard, const unsigned char id[ID])
{
    for (size_t i = 0; i + 8 <= heard->size; i++)
        for (size_t j = 0; j + 8 <= ID; j++)
            if (!memcmp(heard->bytes + i, id + j, 8)) return "bytes of the id in the clear";
    if (heard->size > ONE_CHALLENGE) return "more than a challenge";
    if (heard->size && (heard->size < WIRE_HEADER || heard->bytes[5] != WIRE_CHALLENGE))
        return "another frame than a challenge";
    return NULL;
}

struct terms_of {
    struct wire_terms terms;
    unsigned char hello[128], proof[128];
    size_t hello_size, proof_size;
};

static inline size_t frame(unsigned char *out, enum wire_kind kind, const unsigned char *body)
{
    static struct wire wire;
    size_t size = wire_size(kind, ID);
    memcpy(wire_frame(&wire, kind, size), body, size);
    memcpy(out, wire.out, WIRE_HEADER + size);
    return WIRE_HEADER + size;
}

static inline void say_hello(struct terms_of *t, const struct ranks *ranks, uint64_t seed)
{
    unsigned char body[128];
    t->terms = (struct wire_terms){1, (uint32_t)ranks->world, ranks->restart, ID, {{0}}};
    fill(t->terms.nonce[0], WIRE_NONCE, seed);
    wire_put_hello(body, &t->terms);
    t->hello_size = frame(t->hello, WIRE_HELLO, body);
}

static inline void make_proof(struct terms_of *t, const struct heard *challenge, const unsigned char key[WIRE_KEY])
{
    unsigned char body[WIRE_MAC];
    memcpy(t->terms.nonce[1], challenge->bytes + WIRE_HEADER, WIRE_NONCE);
    wire_prove(body, WIRE_PROOF, &t->terms, key);
    t->proof_size = frame(t->proof, WIRE_PROOF, body);
}

#endif
