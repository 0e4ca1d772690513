/* Rank 0's side of the meeting: many conversations at once (wire.h), in one loop around poll().
 *
 * A stranger holds a place in the table of connections and nothing else. Strangers are closed after a few seconds. When
 * the table is full, the oldest stranger is dropped, so that no number of silent connections keeps a rank out. */
#include "job/meeting.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STRANGERS = 64, MOST_RANKS_AT_ONCE = 448, ACCEPTS = 64 };
static const double patience = 5; /* seconds for a stranger to prove that it is a rank */

struct guest {
    struct wire wire;
    struct wire_terms terms;
    enum wire_kind due; /* frame that must come next; WIRE_THANKS: the guest has proved itself */
    double since;
};

struct host {
    const struct meeting *meeting;
    const void *bytes;
    uint32_t size;
    bool *served; /* (world) */
    size_t missing;
    struct guest **guests; /* (room) the first `count` are in use */
    size_t count, room;
    struct pollfd *polled;           /* (listening + room) */
    size_t false_proofs, other_jobs; /* counted for the message */
};

/* ---- the table of connections ---- */

static void drop(struct host *h, size_t i)
{
    if (h->guests[i]->wire.fd >= 0) close(h->guests[i]->wire.fd);
    sodium_memzero(h->guests[i], sizeof **h->guests);
    free(h->guests[i]);
    h->guests[i] = h->guests[--h->count];
}

/* Drops the oldest stranger, or the oldest guest if there is no stranger. */
static void drop_oldest(struct host *h)
{
    size_t oldest = 0;
    for (size_t i = 1; i < h->count; i++) {
        const struct guest *a = h->guests[i], *b = h->guests[oldest];
        bool stranger = a->due != WIRE_THANKS, other = b->due != WIRE_THANKS;
        if (stranger != other ? stranger : a->since < b->since) oldest = i;
    }
    drop(h, oldest);
}

static elbo_status add(struct host *h, int fd, elbo_error *error)
{
    if (h->count == h->room) drop_oldest(h);
    struct guest *guest = calloc(1, sizeof *guest);
    if (!guest) {
        close(fd);
        return elbo_fail(error, ELBO_MEMORY, "no memory for a rank's connection");
    }
    guest->wire.fd = fd;
    guest->due = WIRE_HELLO;
    guest->since = clock_seconds();
    h->guests[h->count++] = guest;
    return ELBO_OK;
}

static elbo_status accept_all(struct host *h, int listening, elbo_error *error)
{
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = sockets_accept(listening);
        if (fd >= 0)
            ELBO_TRY(add(h, fd, error));
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            break;
        else if ((errno == EMFILE || errno == ENFILE) && h->count)
            drop_oldest(h);
        else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            return elbo_fail(error, ELBO_IO, "rank 0 cannot take connections at %s: %s", h->meeting->name,
                             strerror(errno));
    } /* other failures are the peer's, which has gone */
    return ELBO_OK;
}

/* ---- one conversation ---- */

/* Answers a received frame. Returns false if the conversation is over. */
static bool answer(struct host *h, struct guest *g)
{
    const struct ranks *ranks = h->meeting->ranks;
    const unsigned char *key = h->meeting->key, *body = wire_body(&g->wire);
    switch (g->due) {
    case WIRE_HELLO:
        wire_take_hello(&g->terms, body);
        if (g->terms.world != ranks->world || g->terms.restart != ranks->restart || g->terms.size != h->size ||
            !g->terms.rank || g->terms.rank >= ranks->world) {
            h->other_jobs++;
            return false;
        }
        randombytes_buf(g->terms.nonce[1], WIRE_NONCE);
        memcpy(wire_frame(&g->wire, WIRE_CHALLENGE, WIRE_NONCE), g->terms.nonce[1], WIRE_NONCE);
        g->due = WIRE_PROOF;
        return true;
    case WIRE_PROOF:
        if (!wire_proved(body, WIRE_PROOF, &g->terms, key)) {
            h->false_proofs++;
            return false;
        }
        if (h->served[g->terms.rank]) return false; /* a second process with this rank */
        wire_seal(wire_frame(&g->wire, WIRE_CONTENT, wire_size(WIRE_CONTENT, h->size)), h->bytes, &g->terms, key);
        g->due = WIRE_THANKS;
        return true;
    default:
        if (wire_proved(body, WIRE_THANKS, &g->terms, key) && !h->served[g->terms.rank]) {
            h->served[g->terms.rank] = true;
            h->missing--;
            if (h->meeting->bonds && bonds_keep(h->meeting->bonds, g->wire.fd, g->terms.rank))
                g->wire.fd = -1;
            else
                bonds_say_farewell(g->wire.fd); /* its end must not look like a death */
        }
        return false;
    }
}

/* Continues a conversation as far as the socket allows. Returns false if it is over. */
static bool converse(struct host *h, struct guest *g)
{
    for (;;) {
        enum wire_result result = wire_send(&g->wire);
        if (result == WIRE_DONE) result = wire_receive(&g->wire, g->due, wire_size(g->due, h->size));
        if (result == WIRE_WAIT) return true;
        if (result != WIRE_DONE || !answer(h, g)) return false;
    }
}

/* ---- the loop ---- */

static int milliseconds(const struct host *h, double now)
{
    double until = h->meeting->deadline;
    for (size_t i = 0; i < h->count; i++) {
        double end = h->guests[i]->since + patience;
        if (h->guests[i]->due != WIRE_THANKS && end < until) until = end;
    }
    return until <= now ? 0 : until - now > 1e3 ? 1000000 : (int)((until - now) * 1e3) + 1;
}

static elbo_status turn(struct host *h, elbo_error *error)
{
    const size_t listening = h->meeting->count, guests = h->count;
    for (size_t i = 0; i < listening; i++)
        h->polled[i] = (struct pollfd){.fd = h->meeting->listening[i], .events = POLLIN};
    for (size_t i = 0; i < guests; i++)
        h->polled[listening + i] =
            (struct pollfd){.fd = h->guests[i]->wire.fd, .events = h->guests[i]->wire.left ? POLLOUT : POLLIN};
    int ready = poll(h->polled, listening + guests, milliseconds(h, clock_seconds()));
    if (ready < 0 && errno != EINTR)
        return elbo_fail(error, ELBO_IO, "rank 0 cannot wait for connections: %s", strerror(errno));
    double now = clock_seconds();
    for (size_t i = guests; i-- > 0;) { /* backwards, because drop() moves the last one to i */
        struct guest *g = h->guests[i];
        bool over = ready > 0 && h->polled[listening + i].revents && !converse(h, g);
        if (over || (g->due != WIRE_THANKS && now - g->since > patience)) drop(h, i);
    }
    for (size_t i = 0; ready > 0 && i < listening; i++)
        if (h->polled[i].revents) ELBO_TRY(accept_all(h, h->meeting->listening[i], error));
    return ELBO_OK;
}

static elbo_status too_late(const struct host *h, elbo_error *error)
{
    enum { NAMED = 16 };
    const struct meeting *m = h->meeting;
    char who[256] = "", strangers[192] = "";
    size_t named = 0, used = 0;
    for (size_t r = 1; r < m->ranks->world && named < NAMED; r++)
        if (!h->served[r]) used += (size_t)snprintf(who + used, sizeof who - used, "%s%zu", named++ ? ", " : "", r);
    if (h->missing > named) snprintf(who + used, sizeof who - used, " and %zu more", h->missing - named);
    if (h->false_proofs || h->other_jobs)
        snprintf(strangers, sizeof strangers,
                 " Of those who came, %zu did not know the secret, %zu were of another size or start of the job.",
                 h->false_proofs, h->other_jobs);
    return elbo_fail(error, ELBO_PEER,
                     "rank 0 waited %.3g s at %s, but of %zu ranks %zu did not come: %s.%s See whether they run and "
                     "reach this host; "
                     "--parallel.address and --parallel.port say where, --parallel.timeout how long",
                     clock_seconds() - m->began, m->name, m->ranks->world, h->missing, who, strangers);
}

elbo_status meeting_serve(const struct meeting *meeting, const void *bytes, size_t size, elbo_error *error)
{
    const size_t world = meeting->ranks->world;
    struct host h = {.meeting = meeting, .bytes = bytes, .size = (uint32_t)size, .missing = world - 1};
    h.room = STRANGERS + (world < MOST_RANKS_AT_ONCE ? world : MOST_RANKS_AT_ONCE);
    h.served = calloc(world, sizeof *h.served);
    h.guests = calloc(h.room, sizeof(struct guest *));
    h.polled = calloc(meeting->count + h.room, sizeof *h.polled);
    elbo_status status = ELBO_OK;
    if (!h.served || !h.guests || !h.polled)
        status = elbo_fail(error, ELBO_MEMORY, "no memory for the connections of %zu ranks", world);
    while (status == ELBO_OK && h.missing) {
        if (clock_seconds() >= meeting->deadline)
            status = too_late(&h, error);
        else
            status = turn(&h, error);
    }
    while (h.count) drop(&h, h.count - 1);
    free(h.polled);
    free(h.guests);
    free(h.served);
    return status;
}
