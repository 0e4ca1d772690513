/* A rank's side of the meeting with rank 0: one conversation (wire.h). */
#include "job/meeting.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* Waits until the socket is ready; returns false when the time is up. */
static bool wait_for(int fd, short events, double until)
{
    for (;;) {
        double left = until - clock_seconds();
        if (left <= 0) return false;
        struct pollfd one = {.fd = fd, .events = events};
        int n = poll(&one, 1, (int)(left * 1e3) + 1);
        if (n > 0) return true;
        if (n < 0 && errno != EINTR) return false;
    }
}

static enum joined as_joined(enum wire_result result)
{
    return result == WIRE_WAIT     ? JOIN_SILENT
           : result == WIRE_CLOSED ? JOIN_CLOSED
           : result == WIRE_WRONG  ? JOIN_FOREIGN
                                   : JOIN_DONE;
}

static enum joined say(struct wire *wire, double until)
{
    enum wire_result result;
    while ((result = wire_send(wire)) == WIRE_WAIT)
        if (!wait_for(wire->fd, POLLOUT, until)) break;
    return as_joined(result);
}

static enum joined hear(struct wire *wire, enum wire_kind due, size_t size, double until)
{
    enum wire_result result;
    while ((result = wire_receive(wire, due, wire_size(due, size))) == WIRE_WAIT)
        if (!wait_for(wire->fd, POLLIN, until)) break;
    return as_joined(result);
}

static enum joined meet(void *bytes, struct wire *wire, struct wire_terms *terms, const unsigned char key[WIRE_KEY],
                        double until)
{
    enum joined result;
    randombytes_buf(terms->nonce[0], WIRE_NONCE);
    wire_put_hello(wire_frame(wire, WIRE_HELLO, wire_size(WIRE_HELLO, 0)), terms);
    if ((result = say(wire, until))) return result;
    if ((result = hear(wire, WIRE_CHALLENGE, 0, until))) return result;
    memcpy(terms->nonce[1], wire_body(wire), WIRE_NONCE);
    wire_prove(wire_frame(wire, WIRE_PROOF, wire_size(WIRE_PROOF, 0)), WIRE_PROOF, terms, key);
    if ((result = say(wire, until))) return result;
    if ((result = hear(wire, WIRE_CONTENT, terms->size, until))) return result;
    unsigned char content[RENDEZVOUS_MOST];
    bool good = wire_open(content, wire_body(wire), terms, key);
    if (good) {
        memcpy(bytes, content, terms->size);
        wire_prove(wire_frame(wire, WIRE_THANKS, wire_size(WIRE_THANKS, 0)), WIRE_THANKS, terms, key);
        say(wire, until); /* if it is lost, rank 0 reports the missing rank */
    }
    sodium_memzero(content, sizeof content);
    return good ? JOIN_DONE : JOIN_FALSE;
}

enum joined meeting_join(void *bytes, size_t size, int fd, const struct ranks *ranks, const unsigned char key[WIRE_KEY],
                         double until)
{
    struct wire_terms terms = {(uint32_t)ranks->rank, (uint32_t)ranks->world, ranks->restart, (uint32_t)size, {{0}}};
    if (!wait_for(fd, POLLOUT, until)) {
        errno = ETIMEDOUT;
        return JOIN_NOBODY;
    }
    int number = sockets_connected(fd);
    if (number) {
        errno = number;
        return JOIN_NOBODY;
    }
    struct wire *wire = calloc(1, sizeof *wire);
    if (!wire) {
        errno = ENOMEM;
        return JOIN_NOBODY;
    }
    wire->fd = fd;
    enum joined result = meet(bytes, wire, &terms, key, until);
    free(wire);
    return result;
}
